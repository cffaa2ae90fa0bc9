"""Labels against what is rendered: features lie where keypoints say, and views agree on where that is in space."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from ufe_core.head import EYE_LEFT, EYE_RIGHT
from ufe_core.ops.rasterize import key_depths
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.render import Stage, radiance, rasterise
from ufe_synthetic.scene import MATERIALS
from ufe_synthetic.source import SyntheticSource

SIZE = 400
FRAMES = [100, 3800, 9000, 15000, 22800, 24100, 30000]


@pytest.fixture(scope="module", params=["quest", "ava256"])
def capture(request):
    return SyntheticSource(SyntheticConfig(headset=request.param)).captures(["S003"])[0]


def names(capture, *regions):
    return [camera.name for camera in capture.cameras if camera.region in regions]


def sitting(capture, index, name, size):
    return next(camera for camera in capture.cameras_at(index) if camera.name == name).resized(size, size)


@pytest.mark.parametrize("size", [64, 400])
def test_vertices_are_drawn_where_their_keypoints_are(capture, size):
    cameras = names(capture, "upper", "lower")
    for index in FRAMES[:3]:
        points = capture.keypoints([index], cameras=cameras, size=size)
        drawn = capture.see([index], cameras, size)[1].screen.numpy()
        for c, name in enumerate(cameras):
            camera = capture.camera(name)
            chosen = capture.keypoint_set(camera).vertices
            shown = points.visible[0, c, : len(chosen)]
            assert shown.sum() > 10, name
            error = np.abs(drawn[c, chosen, :2] - points.points[0, c, : len(chosen)])[shown]
            assert error.max() < 0.02


def blocked_by_ray(points, corners, camera, margin_mm):
    """By the way of textbooks (Moeller and Trumbore 1997), every ray against every triangle."""
    eye = camera.position
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    out = []
    for point in points:
        reach = np.linalg.norm(point - eye)
        ray = (point - eye) / reach
        across = np.cross(ray, second)
        scale = (first * across).sum(1)
        from_corner = eye - corners[:, 0]
        turned = np.cross(from_corner, first)
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v, t = (from_corner * across).sum(1) / scale, turned @ ray / scale, (second * turned).sum(1) / scale
        out.append(((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < reach - margin_mm)).any())
    return np.array(out)


def test_points_are_seen_that_no_surface_hides(capture):
    cameras = names(capture, "upper", "lower")
    for index in FRAMES[2:4]:
        points = capture.keypoints([index], cameras=cameras, size=64)
        posed = capture.instant([index]).vertices.astype(float)
        pupils = posed[:, capture.stage.scene.pupils]
        for c, name in enumerate(cameras):
            camera = sitting(capture, index, name, 64)
            place = capture.keypoint_set(camera).positions(posed, pupils)[0]
            shown = camera.in_view(place) & camera.in_image(camera.project(place))
            expected = shown & ~blocked_by_ray(place, posed[0][capture.stage.opaque], camera, 1.5)
            assert 0.1 < expected.mean() < 1
            assert (points.visible[0, c] != expected).sum() <= 1  # a ray along an edge


def test_what_is_seen_depends_on_no_image_size_and_is_what_a_fine_z_buffer_says(capture):
    cameras = names(capture, "upper", "lower")
    small, large = (capture.keypoints(FRAMES[:3], cameras=cameras, size=size).visible for size in (32, SIZE))
    np.testing.assert_array_equal(small, large)
    for n, index in enumerate(FRAMES[:3]):
        depths = key_depths(capture.see([index], cameras, SIZE)[1].keys).numpy()
        posed = capture.instant([index]).vertices
        for c, name in enumerate(cameras):
            camera = sitting(capture, index, name, SIZE)
            place = capture.keypoint_set(camera).positions(posed, posed[:, capture.stage.scene.pupils])[0]
            column, row = np.clip(camera.project(place), 0, SIZE - 1).astype(int).T
            near = place @ camera.rotation[2] + camera.translation[2] < depths[c, row, column] + 1.5
            inside = camera.in_view(place) & camera.in_image(camera.project(place))
            assert ((near & inside) == large[n, c]).mean() > 0.9


def test_geometry_is_that_of_the_scene_which_is_drawn(capture):
    rows = [100, 9000, 30_000]
    drawn = capture.instant(rows).vertices[:, : capture.stage.scene.head_count]
    np.testing.assert_array_equal(capture.geometry(rows), drawn)


@pytest.fixture(scope="module")
def plain_eyes(capture):
    """The capture's eyeballs, nothing before them, in ambient light alone, white but for the pupils."""
    stage = capture.stage
    scene = copy(stage.scene)
    eyes = scene.material == list(MATERIALS).index("eye")
    scene.faces, scene.uv_faces = scene.faces[eyes], scene.uv_faces[eyes]
    scene.material, scene.albedo = scene.material[eyes], scene.albedo[eyes]
    look = replace(stage.look, iris=np.ones((4, 4), np.float32), iris_albedo=np.ones(1), sclera_albedo=np.ones(1))
    dark, lamps = np.zeros(len(stage.power)), np.zeros((len(stage.power), scene.count))
    return Stage(scene, scene.head, look, np.ones(scene.head_count), lamps, dark, dark)


def outline_of_pupil(capture, instant, camera, eye):
    """The border of a pupil, projected: [240, 2] px; None where it is seen too much from the side."""
    scene, axis = capture.stage.scene, instant.gaze[0, 3 * eye : 3 * eye + 3].astype(float)
    centre = scene.eyes[eye][1]
    ball = instant.vertices[0, scene.rows[("left eye", "right eye")[eye]]].astype(float) - centre
    radii = np.linalg.norm(ball, axis=1)
    half = np.radians(capture.stage.look.pupil_deg) * instant.pupil[0]
    near = np.abs(np.arccos(np.clip(ball @ axis / radii, -1, 1)) - half) < np.radians(3)
    radius = radii[near].mean()
    if (camera.position - centre - radius * axis) @ axis < 12:
        return None
    side = np.cross(axis, [0, 1, 0])
    side /= np.linalg.norm(side)
    turn = np.linspace(0, 2 * np.pi, 240, endpoint=False)[:, None]
    rim = np.cos(turn) * side + np.sin(turn) * np.cross(axis, side)
    return camera.project(centre + radius * (np.cos(half) * axis + np.sin(half) * rim))


def test_pupils_are_drawn_where_their_keypoints_are(capture, plain_eyes):
    measured = 0
    for index in range(50, 40_000, 2100):
        for name in names(capture, "upper"):
            camera = sitting(capture, index, name, SIZE)
            instant = capture.see([index], [name], SIZE)[0]
            for eye in {"left": [0], "right": [1], "centre": [0, 1]}[camera.side]:
                outline = outline_of_pupil(capture, instant, camera, eye)
                if outline is None or (outline < 12).any() or (outline > SIZE - 12).any():
                    continue
                seen = rasterise(plain_eyes, instant, [[camera]])
                low, high = np.floor(outline.min(0)).astype(int) - 4, np.ceil(outline.max(0)).astype(int) + 5
                light = radiance(plain_eyes, replace(instant, ambient=np.ones(1)), seen)[0, 0].numpy()
                light = light[low[1] : high[1], low[0] : high[0]]
                if (light == 0).any():
                    continue  # the eyeball ends beside the pupil
                dark = np.clip(1 - light / light.max() / 0.6, 0, 1)
                row, column = np.indices(dark.shape)
                found = np.array([(column * dark).sum(), (row * dark).sum()]) / dark.sum() + 0.5 + low
                assert np.linalg.norm(found - centroid(outline)) < 0.1, "the picture shows the labelled pupil"
                points = capture.keypoints([index], cameras=[name], size=SIZE).points[0, 0]
                at = points[94 + capture.keypoint_set(camera).pupils.index(eye)]
                front = instant.vertices[0, capture.stage.scene.pupils[eye]].astype(float)
                assert np.linalg.norm(at - camera.project(front[None])[0]) < 0.01, "its keypoint is its middle"
                measured += 1
    assert measured >= 8


def centroid(polygon):
    x, y = polygon.T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    return np.array([((v + np.roll(v, -1)) * cross).sum() / (3 * cross.sum()) for v in (x, y)])


def triangulated(cameras, pixels):
    """The points [K, 3] nearest to the rays through pixels [C, K, 2] of C cameras."""
    normal, along = np.zeros((pixels.shape[1], 3, 3)), np.zeros((pixels.shape[1], 3))
    for camera, seen in zip(cameras, pixels, strict=True):
        towards = camera.unproject(seen) @ camera.rotation
        across = np.eye(3) - towards[:, :, None] * towards[:, None, :]
        normal += across
        along += across @ camera.position
    return np.linalg.solve(normal, along[..., None])[..., 0]


def test_labels_make_the_geometry_whose_keypoints_triangulate_to_it(capture):
    """label -> mesh -> image -> triangulated keypoints: the loop closes."""
    head = capture.stage.scene.head
    for side in ("left", "right"):
        for region in ("upper", "lower"):
            which = [c for c in capture.cameras if (c.side, c.region) == (side, region)]
            if len(which) < 2:
                continue
            for index in FRAMES:
                label, geometry = capture.labels([index]), capture.geometry([index])[0]
                posed = capture.neutral().geometry + np.einsum("a,avd->vd", label.expression[0], head.actions)
                eyes = np.isin(head.part, (EYE_LEFT, EYE_RIGHT))
                np.testing.assert_allclose(posed[~eyes], geometry[~eyes], atol=1e-3)
                pixels = capture.keypoints([index], cameras=[c.name for c in which], size=SIZE).points[0]
                cameras = [sitting(capture, index, c.name, SIZE) for c in which]
                rows = capture.keypoint_set(which[0]).vertices
                inside = np.all([c.in_view(geometry[rows]) for c in cameras], 0)
                found = triangulated(cameras, pixels[:, : len(rows)].astype(float))
                assert inside.sum() > 30
                np.testing.assert_allclose(found[inside], geometry[rows][inside], atol=5e-3)
