import math

import numpy as np
import pytest
import torch

from ufe_core.errors import ContractError
from ufe_core.interfaces.metric import Driven
from ufe_core.plugins import catalogue
from ufe_core.types import MeshTopology

NAMES = ("photometric_l1", "mesh_l2", "lf_mesh_l2", "mouth_shape", "gaze")
REGIONS = {
    "face": np.array([0, 1, 2, 3, 4, 5]),
    "lower_face": np.array([2, 3, 4, 5]),
    "mouth_corners": np.array([2, 3]),
    "lip_centres": np.array([4, 5]),
}
TOPOLOGY = MeshTopology(
    8, np.array([[0, 1, 2]]), np.zeros((3, 2), np.float32), np.array([[0, 1, 2]]), REGIONS, np.ones(8, np.float32)
)
MASK = torch.tensor([[True, True, False], [False, True, False]])
AHEAD = (0.0, 0.0, 1.0)


def make(name):
    return catalogue().create("metric", name, topology=TOPOLOGY, face_mask=MASK)


def driven(geometry=None, gaze=None, image=None, frames=1):
    geometry = torch.zeros(frames, 8, 3) if geometry is None else geometry
    gaze = torch.tensor([[*AHEAD, *AHEAD]]).repeat(len(geometry), 1) if gaze is None else gaze
    return Driven(geometry, gaze, torch.zeros(len(gaze), 3, 2, 3) if image is None else image)


def random_driven(frames, seed):
    generator = torch.Generator().manual_seed(seed)
    gaze = torch.nn.functional.normalize(torch.randn(frames, 2, 3, generator=generator), dim=-1).view(frames, 6)
    geometry = 30 * torch.randn(frames, 8, 3, generator=generator)
    return Driven(geometry, gaze, torch.rand(frames, 3, 2, 3, generator=generator))


def value(name, predicted, truth):
    metric = make(name)
    metric.update(predicted, truth)
    return float(metric.compute())


class TestByHand:
    def test_photometric_counts_the_masked_pixels_of_all_channels_on_a_scale_of_255(self):
        image = torch.zeros(1, 3, 2, 3)
        image[0, 0, 0, 0] = 1.0  # in the mask
        image[0, :, 0, 2] = 1.0  # outside
        assert value("photometric_l1", driven(image=image), driven()) == pytest.approx(255 / 9)

    def test_mesh_l2_is_the_mean_distance_of_the_face(self):
        geometry = torch.zeros(1, 8, 3)
        geometry[0, 0] = torch.tensor([3.0, 4.0, 0.0])  # 5 mm
        geometry[0, 3] = torch.tensor([0.0, 0.0, -1.0])  # 1 mm
        geometry[0, 7] = 100.0  # no part of the face
        assert value("mesh_l2", driven(geometry), driven()) == pytest.approx(6 / 6)
        assert value("lf_mesh_l2", driven(geometry), driven()) == pytest.approx(1 / 4)

    def test_mouth_shape_adds_the_errors_of_width_and_opening(self):
        truth, predicted = torch.zeros(1, 8, 3), torch.zeros(1, 8, 3)
        truth[0, 3, 0], truth[0, 5, 1] = 50.0, 3.0
        predicted[0, 3, 0], predicted[0, 5, 1] = 46.0, 10.0
        assert value("mouth_shape", driven(predicted), driven(truth)) == pytest.approx(4 + 7)

    def test_mouth_shape_does_not_mind_where_the_mouth_is(self):
        truth = random_driven(3, 0)
        moved = Driven(truth.geometry + torch.tensor([5.0, -2.0, 9.0]), truth.gaze, truth.image)
        assert value("mouth_shape", moved, truth) == pytest.approx(0, abs=1e-4)
        assert value("mesh_l2", moved, truth) == pytest.approx(math.sqrt(110), rel=1e-5)

    def test_gaze_is_the_mean_angle_of_both_eyes_in_degrees(self):
        turned = (math.sin(math.radians(10)), 0.0, math.cos(math.radians(10)))
        up = (0.0, -math.sin(math.radians(30)), math.cos(math.radians(30)))
        assert value("gaze", driven(gaze=torch.tensor([[*turned, *up]])), driven()) == pytest.approx(20, abs=1e-4)

    def test_gaze_is_exact_for_tiny_and_for_opposite_directions(self):
        tiny = (math.sin(math.radians(0.01)), 0.0, math.cos(math.radians(0.01)))
        assert value("gaze", driven(gaze=torch.tensor([[*tiny, *tiny]])), driven()) == pytest.approx(0.01, rel=1e-3)
        assert value("gaze", driven(gaze=-torch.tensor([[*AHEAD, *AHEAD]])), driven()) == pytest.approx(180)


def independent(name, a, b):
    """The same five quantities, written again in plain numpy, frame by frame."""
    results = []
    for n in range(len(a.gaze)):
        p, t = a.geometry[n].double().numpy(), b.geometry[n].double().numpy()
        if name == "photometric_l1":
            x, y = a.image[n].double().numpy(), b.image[n].double().numpy()
            results.append(
                np.mean([255 * abs(x[c][i, j] - y[c][i, j]) for c in range(3) for i, j in np.argwhere(MASK.numpy())])
            )
        elif name in ("mesh_l2", "lf_mesh_l2"):
            rows = REGIONS["face" if name == "mesh_l2" else "lower_face"]
            results.append(np.mean([math.dist(p[v], t[v]) for v in rows]))
        elif name == "mouth_shape":
            pairs = REGIONS["mouth_corners"], REGIONS["lip_centres"]
            results.append(sum(abs(math.dist(p[i], p[j]) - math.dist(t[i], t[j])) for i, j in pairs))
        else:
            g, h = a.gaze[n].double().numpy().reshape(2, 3), b.gaze[n].double().numpy().reshape(2, 3)
            results.append(
                np.mean([math.degrees(math.acos(max(-1, min(1, u @ v)))) for u, v in zip(g, h, strict=True)])
            )
    return float(np.mean(results))


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_agrees_with_an_independent_formula(self, name):
        a, b = random_driven(7, 1), random_driven(7, 2)
        assert value(name, a, b) == pytest.approx(independent(name, a, b), rel=1e-5)

    def test_is_zero_for_the_truth_and_positive_for_anything_else(self, name):
        a, b = random_driven(3, 3), random_driven(3, 4)
        assert value(name, a, a) == pytest.approx(0, abs=1e-6)
        assert value(name, a, b) > 0
        assert value(name, a, b) == pytest.approx(value(name, b, a), rel=1e-6)

    def test_is_a_mean_over_frames_however_they_are_batched(self, name):
        a, b = random_driven(10, 5), random_driven(10, 6)
        metric = make(name)
        for part in (slice(0, 1), slice(1, 7), slice(7, 10)):
            metric.update(
                *(Driven(d.geometry[part], d.gaze[part], d.image[part]) for d in (a, b)),
            )
        assert float(metric.compute()) == pytest.approx(value(name, a, b), rel=1e-6)
        metric.reset()
        metric.update(random_driven(1, 7), random_driven(1, 7))
        assert float(metric.compute()) == pytest.approx(0, abs=1e-6)

    def test_two_halves_merge_to_the_whole(self, name):
        a, b = random_driven(9, 8), random_driven(9, 9)
        halves = []
        for part in (slice(0, 4), slice(4, 9)):
            metric = make(name)
            metric.update(*(Driven(d.geometry[part], d.gaze[part], d.image[part]) for d in (a, b)))
            halves.append(metric)
        halves[0].merge_state(halves[1])
        assert float(halves[0].compute()) == pytest.approx(value(name, a, b), rel=1e-6)

    def test_refuses_nan_by_name_and_keeps_what_it_has(self, name):
        metric = make(name)
        good, bad = random_driven(2, 10), random_driven(2, 11)
        metric.update(good, bad)
        before = float(metric.compute())
        for wrong in (math.nan, math.inf):
            for tensor in (bad.geometry, bad.gaze, bad.image):
                tensor[1] = wrong
            with pytest.raises(ContractError, match=rf"{type(metric).__name__}\.per_frame gave .* NaN"):
                metric.update(good, bad)
        assert float(metric.compute()) == before

    def test_says_what_it_is(self, name):
        metric = make(name)
        assert metric.label and metric.unit in ("0..255", "mm", "deg")
        assert metric.needs <= {"geometry", "gaze", "image"} and len(metric.needs) == 1
        assert metric.higher_is_better is False


def test_a_missing_rendering_is_named():
    a = random_driven(2, 0)
    with pytest.raises(ContractError, match="photometric_l1 needs frontal renderings"):
        make("photometric_l1").update(Driven(a.geometry, a.gaze), a)


def test_the_five_of_the_paper_are_registered():
    assert {spec.name for spec in catalogue().all("metric")} >= set(NAMES)
