"""The simulated cameras against what optics says: one wall, one emitter, one sensor."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ufe_core.ops.rasterize import EMPTY_KEY
from ufe_core.types import CameraSpec
from ufe_synthetic.headset import SensorModel
from ufe_synthetic.refine import refine
from ufe_synthetic.render import Instant, Look, Stage, compress, radiance, rasterise, sense
from ufe_synthetic.scene import MATERIALS

SKIN = list(MATERIALS).index("skin")
ALBEDO, POWER = 0.5, 1500.0


def camera(size=33, turn=0.0):
    """Looks along -z at the wall from 50 mm, turned about its axis (degrees)."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    rotation = np.array([[c, s, 0], [s, -c, 0], [0, 0, -1.0]])
    intrinsics = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]])
    return CameraSpec(
        "test", "left", "upper", "tracking", size, size, intrinsics, rotation, np.array([0, 0, 50.0]), np.zeros(5)
    )


def wall(half_mm=40.0, relief=None, albedo=(ALBEDO,)):
    """A square in the plane z = 0 that faces +z, painted as matt skin, in as many colours as there are albedos."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half_mm
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    scene = SimpleNamespace(
        rest=corners, faces=faces, count=4, head_count=4, neutral=corners.astype(np.float32), eyes=[],
        uv_faces=faces, material=np.full(2, SKIN, np.int32), albedo=np.full(2, np.nan),
    )  # fmt: skip
    flat = np.zeros((64, 64), np.float32)
    painted, iris, white = (
        np.stack([flat + one for one in albedo]),
        np.full(len(albedo), 0.4),
        np.full(len(albedo), 0.7),
    )
    bumps = flat if relief is None else relief
    look = Look(painted, flat, bumps, flat, np.ones((4, 4), np.float32), 27, 12, iris, white)
    head = SimpleNamespace(uv=((corners[:, :2] / half_mm + 1) / 2).astype(np.float32))
    ones = np.ones(4, np.float32)
    return Stage(scene, head, look, ones, ones[None], np.ones(1), np.zeros(1))


def instant(stage, distance_mm, ambient=0.0):
    return Instant(
        stage.scene.rest[None].astype(np.float32), np.zeros((1, 4), np.float32),
        np.array([[0, 0, 1, 0, 0, 1]], np.float32), np.ones(1), np.array([[[0, 0, distance_mm]]]),
        np.array([[[0, 0, -np.sign(distance_mm)]]]), np.array([ambient]),
    )  # fmt: skip


def see(stage, distance_mm=1000.0, ambient=0.0, view=None):
    now = instant(stage, distance_mm, ambient)
    return radiance(stage, now, rasterise(stage, now, [[view or camera()]]))[0, 0].numpy()


class TestLight:
    def test_it_falls_with_the_square_of_the_distance(self):
        stage = wall(half_mm=8.0)
        for distance in (500.0, 1000.0, 2000.0):  # far enough that the wall's corners are lit alike
            assert see(stage, distance)[16, 16] == pytest.approx(ALBEDO * POWER / distance**2, rel=0.01)

    def test_ambient_light_adds_to_it(self):
        stage = wall()
        assert see(stage, ambient=0.2)[16, 16] - see(stage)[16, 16] == pytest.approx(ALBEDO * 0.2, rel=1e-4)

    def test_nothing_comes_from_behind(self):
        assert see(wall(), -500.0).max() == 0

    def test_a_slope_of_the_relief_tilts_the_shading(self):
        slope = 0.2  # mm per mm
        stage = wall(half_mm=40.0)
        ramp = np.tile(np.arange(64, dtype=np.float32) * (80 / 64) * slope, (64, 1))
        tilted = wall(half_mm=40.0, relief=ramp)
        wrap = MATERIALS["skin"][3]
        facing = 1 / np.hypot(1, slope)
        expected = (facing + wrap) / (1 + wrap)
        assert see(tilted, 2000.0)[16, 16] / see(stage, 2000.0)[16, 16] == pytest.approx(expected, rel=0.01)


class TestColours:
    def test_each_is_shaded_and_softened_as_it_would_be_alone(self):
        albedo = (0.2, 0.5, 0.7)
        whole = wall(half_mm=12.3, relief=np.random.default_rng(0).normal(0, 0.1, (64, 64)), albedo=albedo)
        view = camera(turn=21.0)
        now = instant(whole, 2000.0, ambient=0.1)
        seen = rasterise(whole, now, [[view]])
        together = radiance(whole, now, seen)[:, 0].numpy()
        for colour, one in zip(albedo, together, strict=True):
            alone = see(wall(half_mm=12.3, relief=whole.look.relief, albedo=(colour,)), 2000.0, 0.1, view)
            np.testing.assert_allclose(one, alone, atol=1e-6)
        assert together[0, 16, 16] < together[1, 16, 16] < together[2, 16, 16]


class TestEdges:
    @pytest.mark.parametrize("half_mm", [10.3, 14.9, 17.77])
    def test_the_light_of_a_square_is_its_area_in_pixels(self, half_mm):
        size = 65
        image = see(wall(half_mm=half_mm), 5000.0, view=camera(size))
        side_px = 2 * half_mm / 50 * size
        assert image.sum() / image[size // 2, size // 2] == pytest.approx(side_px**2, rel=0.01)

    @pytest.mark.parametrize("turn", [7.0, 21.0, 40.0])
    def test_a_turned_square_covers_as_much(self, turn):
        size = 65
        image = see(wall(half_mm=12.0), 5000.0, view=camera(size, turn))
        side_px = 2 * 12.0 / 50 * size
        assert image.sum() / image[size // 2, size // 2] == pytest.approx(side_px**2, rel=0.015)
        middling = (image > 0.05 * image.max()) & (image < 0.95 * image.max())
        assert middling.sum() > 2 * side_px, "its edges are grey, not jagged"

    def test_a_feature_thinner_than_a_pixel_never_outshines_what_it_lies_on(self):
        stage = wall(half_mm=0.2)  # a quarter of a pixel: it ends on all four sides
        for shift in np.linspace(0, 1.5, 7):
            view = camera().moved(np.eye(3), np.array([shift, shift / 2, 0]))
            image = see(stage, 5000.0, view=view)
            assert image.min() >= 0 and image.max() <= ALBEDO * POWER / 5000.0**2 * 1.02

    def test_no_edge_appears_inside_a_surface(self):
        image = see(wall(), 5000.0)
        assert image[8:25, 8:25].std() / image[16, 16] < 0.01


class TestSensor:
    def test_noise_is_as_large_as_asked_at_full_resolution(self):
        sensor = SensorModel(black=0, vignetting=0, blur_px=0, read_noise=2.5, shot_noise=0.4)
        image = sense(torch.full((1, 400, 400), 0.3), np.ones(1), np.array([7]), sensor, 400)[0]
        level = 255 * 0.3 ** (1 / sensor.gamma)
        assert image.mean() == pytest.approx(level, abs=0.2)
        expected = np.sqrt(sensor.read_noise**2 + sensor.shot_noise**2 * level + 1 / 12)
        assert image.std() == pytest.approx(expected, rel=0.03)

    def test_a_smaller_image_is_as_clean_as_pixels_binned(self):
        sensor = SensorModel(black=0, vignetting=0, blur_px=0, read_noise=8.0, shot_noise=0)
        image = sense(torch.full((1, 100, 100), 0.3), np.ones(1), np.array([7]), sensor, 400)[0]
        assert image.std() == pytest.approx(np.hypot(8.0 / 4, np.sqrt(1 / 12)), rel=0.05)

    def test_exposure_brightens_until_it_saturates_at_both_ends(self):
        ramp = torch.linspace(0, 1, 10_000).view(1, 100, 100)
        sensor = SensorModel(read_noise=0, shot_noise=0, vignetting=0, blur_px=0, black=0.02)
        dim, bright = (sense(ramp, np.array([gain]), np.zeros(1), sensor, 400)[0] for gain in (0.5, 3.0))
        assert dim.max() < 250 and dim[:3].max() == 0
        assert (bright == 255).mean() > 0.6
        assert bright[:10].mean() > dim[:10].mean()

    def test_corners_are_darker_by_the_vignetting(self):
        sensor = SensorModel(read_noise=0, shot_noise=0, black=0, blur_px=0, vignetting=0.4, gamma=1.0)
        image = sense(torch.full((1, 101, 101), 0.8), np.ones(1), np.zeros(1), sensor, 400)[0].astype(float)
        assert image[0, 0] / image[50, 50] == pytest.approx(1 - 0.4 * (100 / 101) ** 2, abs=0.01)

    def test_compression_loses_detail_more_at_low_quality(self):
        rng = np.random.default_rng(0)
        image = np.clip(128 + 30 * rng.standard_normal((64, 64)), 0, 255).astype(np.uint8)
        error = [np.abs(compress(image, quality).astype(int) - image).mean() for quality in (90, 40)]
        assert 0 < error[0] < error[1]


class TestRefinement:
    def sphere(self):
        """An octahedron on the unit sphere, split once everywhere."""
        points = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
        faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
        return points, faces

    def test_given_vertices_stay_and_midpoints_move_out_to_the_curve(self):
        points, faces = self.sphere()
        finer = refine(faces, faces, np.ones(8, bool), 6, 6)
        curved = finer.curve(points[None], points[None])[0]
        np.testing.assert_array_equal(curved[:6], points)
        assert len(finer.edges) == 12 and len(finer.faces) == 32
        radius = np.linalg.norm(curved[6:], axis=1)
        assert (radius > 0.97).all() and (radius < 1.1).all(), "flat midpoints would lie at 0.707"

    @pytest.mark.parametrize("chosen", [[0], [0, 1], [0, 3, 5], list(range(7))])
    def test_faces_beside_the_region_are_cut_to_fit(self, chosen):
        points, faces = self.sphere()
        mask = np.isin(np.arange(8), chosen)
        finer = refine(faces, faces, mask, 6, 6)
        edges = np.sort(finer.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
        _, uses = np.unique(edges, axis=0, return_counts=True)
        assert (uses == 2).all(), "closed as before, with no crack at the border"
        flat = np.concatenate([points, points[finer.edges].mean(1)])

        def area(corners):
            return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()

        assert area(flat[finer.faces]) == pytest.approx(area(points[faces]), rel=1e-6)


def test_an_empty_view_is_black():
    stage = wall(half_mm=1.0)
    now = instant(stage, 500.0)
    away = camera()
    away = away.moved(np.eye(3), np.array([200.0, 0, 0]))
    seen = rasterise(stage, now, [[away]])
    assert (seen.keys == EMPTY_KEY).all()
    assert radiance(stage, now, seen).abs().max() == 0
