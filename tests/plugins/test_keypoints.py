"""The keypoint detector: what its network answers, how it learns, and what the commands say."""

import json
from importlib.metadata import EntryPoint
from importlib.resources import files
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from ufe_core import plugins
from ufe_core.errors import ArtifactError, ConfigError, ContractError
from ufe_core.face_encoder import mirrored_points
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.keypoint_errors import measured
from ufe_core.packed import PackRequest, pack
from ufe_core.plugins import Catalogue, catalogue
from ufe_core.registry import load_registry
from ufe_core.scaffold import new_plugin
from ufe_core.store import Store
from ufe_core.training.components import resolve_component_recipe, trained_component
from ufe_core.types import Detections
from ufe_keypoints.network import HeatmapNetwork, Networks, near_peak, peaks, soft_argmax
from ufe_keypoints.point_model import PointModel
from ufe_keypoints.spoiled import covered, dimmed, patched
from ufe_keypoints.training import HeatmapTraining, HeatmapTrainingConfig, _cross_entropy
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.source import SyntheticSource

TRAIN = load_registry().splits["synthetic"].train
UNLISTED = tuple(f"S{1060 + k}" for k in range(12))  # no detector learned from them
CPU = torch.device("cpu")
CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")


def test_soft_argmax_is_the_mean_place_in_cells():
    share = torch.zeros(1, 2, 16)
    share[0, 0, 4 * 1 + 2] = 1  # row 1, column 2
    share[0, 1, 0] = share[0, 1, 3] = 0.5
    assert soft_argmax(share, 4).tolist() == [[[2.5, 1.5], [2.0, 0.5]]]


def test_a_point_is_the_mean_near_the_peak_alone():
    share = torch.full((1, 1, 16 * 16), 1e-3)
    share[0, 0, 16 * 4 + 4], share[0, 0, 16 * 4 + 5] = 0.4, 0.2
    cut = near_peak(share / share.sum(), 16, 3)
    assert cut.sum() == pytest.approx(1) and cut[0, 0, 16 * 12 + 12] == 0
    near = torch.nonzero(cut.view(16, 16))
    assert near.min(0).values.tolist() == [1, 1] and near.max(0).values.tolist() == [7, 7]
    x, y = soft_argmax(cut, 16)[0, 0].tolist()
    assert 4.5 < x < 5.0 and y == pytest.approx(4.5)
    corner = torch.zeros(1, 1, 16 * 16)
    corner[0, 0, 0] = 1
    assert soft_argmax(near_peak(corner, 16, 3), 16).tolist() == [[[0.5, 0.5]]]


@pytest.mark.parametrize("side", [2, 5, 16])
def test_what_is_read_near_peaks_is_what_near_peak_leaves(side):
    """Peaks anywhere, in corners too, on maps that are smaller than what is near, against the whole map."""
    draw = torch.Generator().manual_seed(side)
    logits = 3 * torch.randn(8, 30, side * side, generator=draw)
    logits[0, 0, 0], logits[0, 1, -1] = 20, 20
    rows, columns, share = peaks(logits, side, 3)
    whole, batch, point = torch.zeros(8, 30, side, side), torch.arange(8)[:, None, None, None], torch.arange(30)
    at = (batch, point[:, None, None], rows[..., :, None], columns[..., None, :])
    whole.index_put_(at, share, accumulate=True)
    torch.testing.assert_close(whole.flatten(2), near_peak(logits.softmax(-1), side, 3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("reach", [0, 1, 3])
@pytest.mark.parametrize("size", [32, 64])
def test_points_are_detected_as_whole_maps_tell_them(reach, size):
    torch.manual_seed(0)
    networks, images = Networks(6, [8, 8, 8, 8], reach, True).eval(), torch.rand(3, 4, size, size)
    images[1, 2] = 0
    for network in networks.regions.values():
        torch.nn.init.normal_(network.heat.weight, std=3)
        torch.nn.init.normal_(network.seen)
    with torch.no_grad():
        found, (points, visible) = networks(images), networks.detect(images)
    torch.testing.assert_close(points, found.points, atol=1e-4, rtol=0)
    torch.testing.assert_close(visible, found.seen.sigmoid(), atol=1e-5, rtol=0)


def test_mirroring_twice_changes_nothing_and_once_only_right_cameras():
    points = 64 * torch.rand(2, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    once = mirrored_points(points, 64)
    torch.testing.assert_close(mirrored_points(once, 64), points)
    assert torch.equal(once[:, 0::2], points[:, 0::2])
    torch.testing.assert_close(once[:, 1::2, :, 0], 64 - points[:, 1::2, :, 0])


def test_the_networks_see_left_and_mirrored_right_alike():
    """A right image that is the mirror of the left one has the mirrored points."""
    torch.manual_seed(0)
    networks = Networks(6, [8, 8, 8, 8]).eval()
    left = torch.rand(3, 2, 32, 32)
    images = torch.stack([left[:, 0], left[:, 0].flip(-1), left[:, 1], left[:, 1].flip(-1)], 1)
    with torch.no_grad():
        points, seen, _ = networks(images)
    torch.testing.assert_close(points[:, 1, :, 0], 32 - points[:, 0, :, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(points[:, 2::2, :, 1], points[:, 3::2, :, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[:, 0], seen[:, 1], atol=1e-5, rtol=0)


def networks_that_are_told():
    """Whose views matter to each other, as after training."""
    torch.manual_seed(0)
    networks = Networks(6, [8, 8, 8, 8], together=True).eval()
    for network in networks.regions.values():
        torch.nn.init.normal_(network.told.weight, std=20)
    return networks


def test_a_mirrored_face_has_mirrored_points_where_views_are_told_of_each_other():
    networks, images = networks_that_are_told(), torch.rand(3, 4, 32, 32)
    mirror = images[:, [1, 0, 3, 2]].flip(-1)
    with torch.no_grad():
        points, seen, _ = networks(images)
        turned, also, _ = networks(mirror)
    turned = torch.stack([32 - turned[..., 0], turned[..., 1]], -1)[:, [1, 0, 3, 2]]
    torch.testing.assert_close(turned, points, atol=1e-4, rtol=0)
    torch.testing.assert_close(also[:, [1, 0, 3, 2]], seen, atol=1e-4, rtol=0)


def test_a_view_that_shows_nothing_says_nothing_to_the_others():
    networks, images = networks_that_are_told(), torch.rand(2, 4, 32, 32)
    blank = images.clone()
    blank[:, 2] = 0
    with torch.no_grad():
        whole, without = networks(images), networks(blank)
        untold = networks(images, torch.tensor([[True, True, False, True]]).expand(2, 4))
    torch.testing.assert_close(without.points[:, [0, 1, 3]], untold.points[:, [0, 1, 3]])
    assert (whole.points - without.points)[:, [0, 1, 3]].abs().amax((-1, -2)).min() > 1e-3


def test_views_are_by_themselves_unless_together():
    """Each view's points are of its own image alone."""
    networks, images = Networks(6, [8, 8, 8, 8]).eval(), torch.rand(2, 4, 32, 32)
    other = images.clone()
    other[:, 2] = torch.rand(2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(networks(images).points[:, [0, 1, 3]], networks(other).points[:, [0, 1, 3]])


def test_points_are_inside_the_image_and_maps_are_distributions():
    network = HeatmapNetwork(7, (8, 8, 8, 8)).eval()
    found = network.locate(network.describe(torch.rand(2, 1, 64, 64)), 64)
    assert found.points.shape == (2, 7, 2) and found.points.min() > 0 and found.points.max() < 64
    torch.testing.assert_close(found.heat.exp().sum((2, 3)), torch.ones(2, 7))


def test_the_cross_entropy_is_least_where_the_map_is_the_gaussian():
    places = torch.tensor([[[[5.0, 9.0]]]])
    at = torch.arange(16) + 0.5
    distance = (at[None, :] - 5) ** 2 + (at[:, None] - 9) ** 2
    right = (-distance / 2).flatten().log_softmax(0).view(1, 1, 1, 16, 16)
    least = _cross_entropy(right, places)
    for other in (torch.roll(right, 1, -1), torch.full_like(right, -np.log(256))):
        assert _cross_entropy(other, places) > least


@pytest.mark.parametrize("role", ["tracking", "augmented"])
def test_a_headset_of_three_cameras_is_refused_in_a_line(ufe, tmp_path, role):
    """The left mouth camera of the shipped headset is gone."""
    text = (files("ufe_synthetic") / "headsets" / "quest.toml").read_text()
    mouth = f'mirror = true\nregion = "lower"\nrole = "{role}"'
    assert mouth in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(mouth, mouth.replace("mirror = true", 'side = "right"')))
    name = {"tracking": "heatmap", "augmented": "heatmap_augmented"}[role]
    code, _, err = ufe("train", "--detector", name, "--budget", "smoke", "--set", f"source.headset={file}")
    *_, line = err.splitlines()
    assert code == 1 and line == f"ufe: error: A heatmap detector needs 4 {role} cameras, there are 3."


def test_cameras_with_different_numbers_of_points_are_refused():
    keypoints = [KeypointNames(camera, ("a",) * (5 + (k > 1)), (0,) * 5, ()) for k, camera in enumerate(CAMERAS)]
    with pytest.raises(ConfigError, match="as many keypoints of every camera, there are 5 of 'left_eye', 5 of 'right"):
        HeatmapTraining(HeatmapTrainingConfig(), keypoints)


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(0)
    ways, wrong = rng.normal(size=(6, 4, 5, 2)), rng.normal(size=(3, 4, 5, 2))
    exact = 32 + 4 * np.einsum("nk,kvpc->nvpc", rng.normal(size=(500, 6)), ways)
    errors = 2 * np.einsum("nk,kvpc->nvpc", rng.normal(size=(500, 3)), wrong) + rng.normal(size=exact.shape)
    return torch.from_numpy(exact).float(), torch.from_numpy(exact + errors).float()


@pytest.fixture(scope="module")
def model(faces):
    model = PointModel(5)
    model.fit(*(values[:400] for values in faces), 64)
    return model


class TestPointModel:
    """Faces of 4 views and 5 points, wrong in ways that go together."""

    SIDE = 64

    def seen(self, points):
        return torch.ones(points.shape[:-1])

    def mirror(self, points):
        return torch.stack([self.SIDE - points[..., 0], points[..., 1]], -1)[:, [1, 0, 3, 2]]

    @pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
    def test_it_is_what_is_expected_of_gaussians(self, faces, monkeypatch, together):
        """Against the dense rule mu + C (C + S)^-1 (x - mu) on the faces and their mirror images together."""
        monkeypatch.setattr("ufe_keypoints.point_model._TOGETHER", together)
        exact, found = faces
        model = PointModel(5)
        model.fit(exact, found, self.SIDE)
        both, also = (torch.cat([values, self.mirror(values)]).flatten(1).double() for values in faces)
        spread, errors = both - both.mean(0), also - both
        faces_, wrong = spread.T @ spread, errors.T @ errors
        wrong = together * wrong + (1 - together) * wrong.diagonal().diag()
        expected = both.mean(0) + (also - both.mean(0)) @ torch.linalg.solve(faces_ + wrong, faces_)
        drawn = model(found, self.seen(found), self.SIDE)
        torch.testing.assert_close(drawn.flatten(1).double(), expected[: len(found)], atol=2e-3, rtol=0)

    def test_it_brings_what_it_has_not_seen_nearer(self, faces, model):
        exact, found = (values[400:] for values in faces)
        before, after = (found - exact).norm(dim=-1), (model(found, self.seen(found), self.SIDE) - exact).norm(dim=-1)
        assert after.median() < 0.6 * before.median()

    def test_a_mirrored_face_is_drawn_alike(self, faces, model):
        found = faces[1]
        drawn = model(found, self.seen(found), self.SIDE)
        turned = model(self.mirror(found), self.seen(found), self.SIDE)
        torch.testing.assert_close(self.mirror(turned), drawn, atol=1e-4, rtol=0)

    def test_images_of_another_size_have_the_same_points(self, faces, model):
        found = faces[1][:5]
        large = model(3 * found, self.seen(found), 3 * self.SIDE)
        torch.testing.assert_close(large, 3 * model(found, self.seen(found), self.SIDE), atol=1e-3, rtol=0)

    def test_they_are_drawn_the_less_the_less_a_view_shows(self, faces, model):
        found = faces[1][:1].expand(41, -1, -1, -1)
        visible = self.seen(found)
        visible[:, 1] = torch.linspace(0, 0.4, 41)[:, None]
        pulled = (model(found, visible, self.SIDE) - found).norm(dim=-1).amax((1, 2))
        assert (pulled[:11] < 1e-4).all() and (pulled[20:] == pulled[-1]).all()
        assert (pulled.diff() >= 0).all() and pulled.diff().max() < 0.11 * pulled[-1]

    def test_where_a_view_shows_no_face_all_stay(self, faces, model):
        found = faces[1][:3]
        visible = self.seen(found)
        visible[1, 2] = 0.05
        drawn = model(found, visible, self.SIDE)
        assert torch.equal(drawn[1], found[1]) and (drawn[[0, 2]] != found[[0, 2]]).all()


class TestSpoiledViews:
    def test_what_a_patch_hides_is_not_seen_and_the_rest_is_as_it_was(self):
        rng = np.random.default_rng(0)
        images = rng.integers(1, 255, (40, 4, 32, 32), np.uint8)
        grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1).reshape(-1, 2) + 0.5
        out, hidden = patched(images, np.broadcast_to(grid, (40, 4, 1024, 2)), 0.5, rng)
        changed = (out != images).reshape(40, 4, 1024)
        assert not (changed & ~hidden).any() and changed[hidden].mean() > 0.9
        assert 0.4 < hidden.any(-1).mean() < 0.6

    def test_covered_views_are_dark(self):
        rng = np.random.default_rng(0)
        images = np.full((100, 4, 8, 8), 200, np.uint8)
        out, dark = covered(images, 0.2, rng)
        assert 0.1 < dark.mean() < 0.3 and out[dark].max() <= 24 and (out[~dark] == 200).all()

    def test_dim_views_show_what_they_showed(self):
        rng = np.random.default_rng(0)
        images = np.broadcast_to(np.arange(64, 256, 3, np.uint8), (100, 4, 8, 64)).copy()
        out, dim = dimmed(images, 0.3, rng)
        assert 0.2 < dim.mean() < 0.4 and (out[~dim] == images[~dim]).all()
        assert (np.diff(out[dim].astype(int), axis=-1) >= 0).all() and out[dim][..., 0].min() >= 9
        assert out[dim][..., 0].max() < 45

    def test_none_of_it_unless_asked_for(self):
        rng = np.random.default_rng(0)
        images, points = rng.integers(0, 255, (3, 4, 32, 32), np.uint8), rng.uniform(0, 32, (3, 4, 5, 2))
        state = rng.bit_generator.state
        for out, hidden in (patched(images, points, 0, rng), dimmed(images, 0, rng), covered(images, 0, rng)):
            assert out is images and not hidden.any()
        assert rng.bit_generator.state == state, "what is drawn after them is what it was before they were"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def trained_one(store):
    quick = {"training": {"people": 3, "frames": 4, "steps": 140, "size": 48, "batch": 3, "learning_rate": 0.01,
                          "rotation_deg": 0, "scale": 1, "shift": 0, "gain": 0, "patched": 0, "covered": 0,
                          "picture_every": 70}}  # fmt: skip
    recipe = resolve_component_recipe(catalogue(), "detector", "heatmap", budget="smoke", overrides=quick)
    return recipe, trained_component(recipe, TRAIN, store=store, device=CPU)


def open_detector(done):
    return catalogue().create("detector", "heatmap", {"weights": str(done.path)})


@pytest.fixture(scope="module")
def detector(trained_one):
    return open_detector(trained_one[1])


@pytest.mark.slow
def test_it_learns_people_by_heart(detector, store, synthetic):
    """Trained on a few frames: within a few pixels on them, and it knows what is seen."""
    request = PackRequest(4, 48, CAMERAS, (), session=1, extras=("keypoints",))
    captures = pack(synthetic, TRAIN[:3], request, store=store)
    report = measured(detector, captures)
    assert report["cameras"]["all"]["median_px"] < 8 and report["cameras"]["all"]["visibility"] > 0.85
    assert set(report["cameras"]) == {*CAMERAS, "all"} and set(report["subjects"]) == set(TRAIN[:3])


def test_errors_are_told_by_part_of_the_face(store, synthetic):
    """Points of the lids are 2 pixels away, all others where they are, every flag is right."""
    request = PackRequest(4, 48, CAMERAS, (), session=1, extras=("keypoints",))
    captures = pack(synthetic, TRAIN[:2], request, store=store)
    names = [synthetic.captures(TRAIN[:1])[0].keypoint_set(camera).names for camera in captures[0].cameras]
    lids = torch.tensor([[name.startswith("lid_") for name in of] for of in names])
    truths = iter(captures)

    def detect(images):
        extras = next(truths).extras
        points = torch.from_numpy(np.array(extras["keypoints"][:])) + torch.tensor([2.0, 0.0]) * lids[..., None]
        return Detections(points, torch.from_numpy(np.array(extras["visible"][:])).float())

    keypoints = [SimpleNamespace(names=of) for of in names]
    report = measured(SimpleNamespace(detect=detect, keypoints=keypoints, cameras=CAMERAS), captures)
    assert {"lid", "lid_skin", "pupil", "lip_outer", "cheek"} <= set(report["parts"])
    for part, found in report["parts"].items():
        assert found["median_px"] == pytest.approx(2 * 192 / 48 if part in ("lid", "lid_skin") else 0, abs=1e-4), part
        assert found["visibility"] == 1
    shown = np.stack([np.array(capture.extras["visible"][:]) for capture in captures])  # [S, N, C, K]
    guessed = [(shown[:, :, c] == (shown[:, :, c].mean((0, 1)) > 0.5)).mean() for c in range(4)]
    assert [report["cameras"][name]["visibility_guess"] for name in CAMERAS] == pytest.approx(guessed)
    assert report["cameras"]["all"]["visibility_guess"] == pytest.approx(np.mean(guessed))
    assert 0.5 < np.mean(guessed) < 1


@pytest.mark.slow
def test_the_released_detector_finds_points_of_people_it_never_saw(store):
    detector, more = catalogue().create("detector", "heatmap", {}), SyntheticSource(SyntheticConfig(subjects=1072))
    request = PackRequest(6, 64, CAMERAS, (), extras=("keypoints",))
    report = measured(detector, pack(more, UNLISTED, request, store=store))
    for camera, found in report["cameras"].items():
        assert found["median_px"] < 2 and found["hidden_median_px"] < 2.5, camera
        wrong, guessed_wrong = 1 - found["visibility"], 1 - found["visibility_guess"]
        assert wrong < 0.08 and wrong < guessed_wrong, camera
    assert report["cameras"]["all"]["median_px"] < 1.5 and report["cameras"]["all"]["visibility"] > 0.95


def test_its_points_are_drawn_to_a_face_unless_told_not_to(trained_one, store, synthetic):
    """The released file holds what `finish` learned, and without it points are as the network finds them."""
    recipe, done = trained_one
    detector = open_detector(done)
    (capture,) = pack(synthetic, TRAIN[:1], PackRequest(2, 48, CAMERAS, (), session=1), store=store)
    images = torch.from_numpy(np.array(capture.images[:]))
    with torch.no_grad():
        found = detector.networks(images.float() / 255)
    model = detector.networks.point_model
    assert model.pull.abs().max() > 0.1 and model.mean.abs().max() > 0.1
    drawn, whole = model(found.points, torch.ones_like(found.seen), 48), detector.detect(images)
    torch.testing.assert_close(whole.points, model(found.points, whole.visible, 48))
    assert (drawn - found.points).abs().max() > 0.1
    images[:, 2:] = 0  # of the eyes alone: as the network finds them
    with torch.no_grad():
        alone = detector.networks(images.float() / 255)
    torch.testing.assert_close(detector.detect(images).points, alone.points)
    plain = resolve_component_recipe(
        catalogue(), "detector", "heatmap", budget="smoke",
        overrides={"training": {**recipe.training.model_dump(), "steps": 2, "point_model": False}},
    )  # fmt: skip
    without = open_detector(trained_component(plain, TRAIN, store=store, device=CPU))
    assert without.networks.point_model is None and without.detect(images).points.shape == (2, 4, 96, 2)


def test_the_weights_say_which_vertices_are_looked_for(detector, synthetic):
    capture = synthetic.captures(["S002"])[0]
    for one in detector.keypoints:
        exact = capture.keypoint_set(capture.camera(one.camera))
        assert one.names == exact.names and one.vertices == tuple(exact.vertices) and one.pupils == exact.pupils
    assert detector.cameras == CAMERAS and detector.size == 48


def test_the_same_command_gives_the_same_bytes(trained_one, store):
    recipe, done = trained_one
    before = done.path.read_bytes()
    assert trained_component(recipe, TRAIN, store=store, device=CPU, fresh=True).path.read_bytes() == before
    assert sorted(file.name for file in done.path.with_name("pictures").iterdir()) == [
        "step_000070.png", "step_000140.png",
    ]  # fmt: skip


def test_images_of_another_size_are_resized_and_points_are_in_their_pixels(detector, synthetic):
    capture = synthetic.captures([TRAIN[0]])[0]
    rows = capture.spread(2, seed=0)
    large = torch.from_numpy(capture.frames(rows, cameras=CAMERAS, size=192))
    small = torch.from_numpy(capture.frames(rows, cameras=CAMERAS, size=48))
    away = detector.detect(large).points / 4 - detector.detect(small).points
    assert away.norm(dim=-1).median() < 1.0
    with pytest.raises(ContractError, match="expected square images"):
        detector.detect(large[..., :100])
    with pytest.raises(ContractError, match="detect.images"):
        detector.detect(large[:, :2])


def test_it_is_frozen_inside_whatever_trains(detector):
    outer = torch.nn.ModuleList([detector]).train()
    assert not any(module.training for module in outer[0].modules())


def test_weights_of_something_else_are_refused(tmp_path):
    from ufe_core.weights import save_weights

    file = tmp_path / "other.safetensors"
    save_weights(file, {"a": torch.zeros(1)}, {"component": "ufe/mean", "config": {}})
    with pytest.raises(ArtifactError, match="holds weights of 'ufe/mean', not of 'ufe/heatmap'"):
        catalogue().create("detector", "heatmap", {"weights": str(file)})


class TestCommands:
    @pytest.mark.slow
    def test_find_draws_what_it_prints(self, ufe, trained_one, tmp_path):
        weights, out = trained_one[1].path, tmp_path / "found.png"
        code, printed, _ = ufe(
            "keypoints", "find", "--subject", "S002", "--frames", 1, "--weights", weights, "--out", out
        )
        assert code == 0 and "S002/" in printed and "of 96 points seen" in printed
        assert cv2.imread(str(out)).shape == (384, 4 * 384, 3)

    def test_find_takes_an_image_of_ones_own(self, ufe, trained_one, tmp_path):
        weights = trained_one[1].path
        cv2.imwrite(str(tmp_path / "eye.png"), np.full((100, 100), 90, np.uint8))
        asked = ("keypoints", "find", tmp_path / "eye.png", "--weights", weights, "--out", tmp_path / "o.png")
        code, printed, _ = ufe(*asked, "--camera", "left_eye", "--json")
        (record,) = json.loads(printed)
        assert code == 0 and record["camera"] == "left_eye" and len(record["points"]) == len(record["names"]) == 96
        code, _, err = ufe(*asked, "--camera", "left_ey")
        assert code == 1 and "Did you mean 'left_eye'?" in err and err.count("\n") == 1

    def test_a_detector_without_weights_needs_no_such_option(self, ufe, tmp_path, monkeypatch):
        made = new_plugin("acme-dots", "detector", tmp_path)
        monkeypatch.syspath_prepend(str(made.folder))
        installed = [
            EntryPoint(r.name, f"{r.name.replace('-', '_')}.plugin", "ufe.plugins") for r in catalogue().reports
        ]
        more = Catalogue([*installed, EntryPoint("acme-dots", "acme_dots.plugin", "ufe.plugins")])
        monkeypatch.setattr(plugins, "catalogue", lambda: more)
        cv2.imwrite(str(tmp_path / "eye.png"), np.full((96, 96), 90, np.uint8))
        asked = ("keypoints", "find", tmp_path / "eye.png", "--camera", "left_eye", "--detector", "dots")
        code, printed, err = ufe(*asked, "--out", tmp_path / "o.png", "--json")
        assert code == 0 and json.loads(printed)[0]["points"], err

    @pytest.mark.parametrize(
        ("shape", "message"), [((100, 80), "is 80 x 100 pixels; headset images are square"), (None, "is no image that")]
    )
    def test_what_is_no_headset_image_is_refused(self, ufe, trained_one, tmp_path, shape, message):
        file = tmp_path / "x.png"
        if shape is None:
            file.write_bytes(b"no image")
        else:
            cv2.imwrite(str(file), np.zeros(shape, np.uint8))
        code, _, err = ufe("keypoints", "find", file, "--camera", "left_eye", "--weights", trained_one[1].path)
        assert code == 1 and message in err and err.count("\n") == 1

    def test_measure_is_of_people_that_were_not_trained_on(self, ufe, trained_one, monkeypatch, tmp_path):
        monkeypatch.setenv("UFE_HOME", str(tmp_path))
        asked = ("keypoints", "measure", "--count", 1, "--frames", 2, "--size", 48, "--weights", trained_one[1].path)
        code, printed, _ = ufe(*asked, "--json")
        report = json.loads(printed)
        assert code == 0 and list(report["subjects"]) == [load_registry().split("synthetic", "test")[0]]
        code, printed, _ = ufe(*asked, "--condition", "dim", "--json")
        assert list(json.loads(printed)["conditions"]["dim"]) == list(report["cameras"]) and code == 0
        code, printed, _ = ufe(*asked, "--condition", "dim")
        assert code == 0 and "knows what is seen" in printed and printed.count("right_mouth") == 2
        code, alone, _ = ufe(*asked, "--set", "detector.point_model=false")
        assert code == 0 and alone != printed
        code, _, line = ufe(*asked, "--set", "detector.point_modell=false")
        assert code != 0 and "Did you mean 'point_model'?" in line and line.count("\n") == 1
