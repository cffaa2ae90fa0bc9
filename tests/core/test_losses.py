"""Losses against a second reading of P§5, equations 12 to 14, in numpy."""

import numpy as np
import pytest
import torch

from ufe_core.budgets import TrainingConfig
from ufe_core.config import ComponentConfig
from ufe_core.interfaces.decoder import Decoder
from ufe_core.training.losses import (
    DecoderLoss,
    code_loss,
    gaze_angles,
    gaze_loss,
    geometry_loss,
    photometric_loss,
)
from ufe_core.types import Avatar, CameraSpec, CodeSpace, Encoding, Identity, Labels, MeshTopology

RNG = np.random.default_rng(7)


def unit(*rows):
    vectors = np.array(rows, np.float64).reshape(len(rows), 2, 3)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return torch.from_numpy(vectors.reshape(len(rows), 6).astype(np.float32))


def direction(azimuth_deg, altitude_deg):
    a, b = np.radians(azimuth_deg), np.radians(altitude_deg)
    return [np.sin(a) * np.cos(b), -np.sin(b), np.cos(a) * np.cos(b)]


def test_gaze_angles_by_hand():
    """Straight ahead, 30 degrees to the subject's right, 20 up: `+x` is right, `+y` is down."""
    angles = gaze_angles(unit([*direction(0, 0), *direction(30, 0)], [*direction(0, 20), *direction(-10, -25)]))
    expected = np.radians([[[0, 0], [30, 0]], [[0, 20], [-10, -25]]])
    assert angles.numpy() == pytest.approx(expected, abs=1e-6)


def test_gaze_loss_sums_over_eyes_and_angles_and_averages_over_frames():
    truth = unit([*direction(0, 0), *direction(0, 0)], [*direction(5, 0), *direction(0, 5)])
    predicted = unit([*direction(10, 4), *direction(-3, 0)], [*direction(5, 0), *direction(0, 5)])
    by_hand = np.square(np.radians([10, 4, -3])).sum() / 2
    assert float(gaze_loss(predicted, truth)) == pytest.approx(by_hand, rel=1e-4)
    assert float(gaze_loss(truth, truth)) == 0.0


def test_gaze_loss_has_a_finite_gradient_straight_up():
    gaze = unit([0, -1, 0, 0, -1, 0]).requires_grad_()
    gaze_loss(gaze, unit([0, 0, 1, 0, 0, 1])).backward()
    assert bool(torch.isfinite(gaze.grad).all())


def test_geometry_loss_is_the_weighted_l1_over_the_weighted_vertices():
    truth, predicted = RNG.normal(size=(2, 3, 5, 3)).astype(np.float32)
    weights = np.array([2.0, 0.0, 1.0, 0.0, 0.5], np.float32)
    frames = []
    for t, p in zip(truth, predicted, strict=True):
        frames.append(sum(w * np.abs(t[v] - p[v]).sum() for v, w in enumerate(weights)) / 3)  # 3 of 5 vertices count
    found = geometry_loss(torch.from_numpy(predicted), torch.from_numpy(truth), torch.from_numpy(weights))
    assert float(found) == pytest.approx(np.mean(frames), rel=1e-6)


def test_a_vertex_of_no_weight_does_not_count():
    truth = torch.zeros(1, 2, 3)
    moved = torch.tensor([[[0.0, 0, 0], [9, 9, 9]]])
    assert float(geometry_loss(moved, truth, torch.tensor([1.0, 0.0]))) == 0.0
    assert float(geometry_loss(moved, truth, torch.tensor([0.0, 1.0]))) == 27.0


def test_photometric_loss_is_the_mean_over_pixels_of_the_mask():
    truth, predicted = RNG.uniform(size=(2, 2, 3, 4, 6)).astype(np.float32)
    mask = RNG.uniform(size=(4, 6)) < 0.4
    pixels = [
        255 * np.abs(truth[b, :, i, j] - predicted[b, :, i, j]).mean() for b in range(2) for i, j in np.argwhere(mask)
    ]
    found = photometric_loss(*map(torch.from_numpy, (predicted, truth, mask.astype(np.float32))))
    assert float(found) == pytest.approx(np.mean(pixels), rel=1e-5)
    outside = torch.from_numpy(truth + ~mask)
    assert float(photometric_loss(outside, torch.from_numpy(truth), torch.from_numpy(mask).float())) == 0.0


class TinyDecoder(Decoder[ComponentConfig]):
    """Two vertices that follow a code of two numbers and the left gaze; an image of one colour."""

    def __init__(self):
        super().__init__(ComponentConfig())
        self.code_space = CodeSpace("tiny", 2)
        faces = np.zeros((1, 3), np.int64)
        self.topology = MeshTopology(2, faces, np.zeros((1, 2), np.float32), faces, {}, np.array([1, 3], np.float32))
        self.rendered = []
        self.decoded = 0

    def identity(self, texture, geometry):
        return Identity({"geometry": geometry})

    def _decode(self, expression, gaze, identity):
        self.decoded += len(gaze)
        code = torch.stack([expression, expression.flip(1)], 1)
        return Avatar(identity["geometry"] + torch.cat([code, code.sum(2, keepdim=True)], 2) + gaze[:, None, :3])

    def render(self, avatar, camera, *, mask=None):
        assert mask.all() and mask.dtype == torch.bool
        self.rendered.append(len(avatar.geometry))
        grey = avatar.geometry.mean((1, 2)).sigmoid()
        return grey[:, None, None, None].expand(-1, 3, camera.height, camera.width)

    def frontal_camera(self, size):
        return CameraSpec("front", "centre", "whole", "augmented", size, size, np.eye(3), np.eye(3), np.zeros(3))

    def face_mask(self, size):
        return torch.ones(size, size, dtype=torch.bool)


@pytest.fixture
def scene():
    def make(**options):
        decoder = TinyDecoder()
        loss = DecoderLoss(decoder, TrainingConfig(**{"render_size": 16, **options}), torch.device("cpu"))
        identity = Identity({"geometry": torch.zeros(3, 2, 3)})
        ahead = unit(*[[0.1, 0.2, 1, -0.1, 0.0, 1]] * 3)
        return decoder, loss, Labels(torch.rand(3, 2, generator=torch.Generator().manual_seed(1)), ahead), identity

    return make


def test_code_loss_is_the_distance_of_codes():
    truth, predicted = RNG.normal(size=(2, 4, 7)).astype(np.float32)
    by_hand = np.mean([np.sqrt(np.square(t - p).sum()) for t, p in zip(truth, predicted, strict=True)])
    assert float(code_loss(*map(torch.from_numpy, (predicted, truth)))) == pytest.approx(by_hand, rel=1e-6)
    same = torch.from_numpy(truth).requires_grad_()
    code_loss(same, torch.from_numpy(truth)).backward()
    assert bool(same.grad.isfinite().all()), "at the truth too"


TERMS = ("photometric", "geometry", "gaze", "code")


def test_the_total_weighs_the_terms(scene):
    weights = {"photometric": 0.5, "geometry": 2.0, "gaze": 7.0, "code": 0.3}
    _, loss, labels, identity = scene(**weights)
    terms = loss(Encoding(labels.expression + 0.3, unit(*[[0, 0, 1, 0, 0.2, 1]] * 3)), labels, identity)
    assert set(terms) == {*TERMS, "total"} and all(float(terms[name]) > 0 for name in TERMS)
    weighed = sum(weights[name] * float(terms[name]) for name in TERMS)
    assert float(terms["total"]) == pytest.approx(weighed, rel=1e-6)


def test_nothing_is_lost_at_the_truth(scene):
    _, loss, labels, identity = scene(code=1.0)
    assert float(loss(Encoding(labels.expression, labels.gaze), labels, identity)["total"]) == 0.0


@pytest.mark.parametrize("only", TERMS)
def test_each_term_reaches_what_it_should_and_is_alone(scene, only):
    decoder, loss, labels, identity = scene(**{name: float(name == only) for name in TERMS})
    expression = (labels.expression + 0.3).requires_grad_()
    gaze = unit(*[[0.3, 0, 1, 0, 0.2, 1]] * 3).requires_grad_()
    terms = loss(Encoding(expression, gaze), labels, identity)
    assert set(terms) == {"gaze", only, "total"} and bool(decoder.rendered) == (only == "photometric")
    terms["total"].backward()
    reached = expression.grad is not None and bool(expression.grad.abs().min() > 0)
    assert reached == (only != "gaze")
    assert bool(gaze.grad.abs().sum(1).min() > 0) == (only != "code")


@pytest.mark.parametrize(("options", "rendered"), [({"render_frames": 2}, [2, 2]), ({"render_frames": 9}, [3, 3]),
                                                   ({"render_frames": 0}, []), ({"photometric": 0}, [])])  # fmt: skip
def test_only_the_frames_that_count_are_rendered(scene, options, rendered):
    decoder, loss, labels, identity = scene(**options)
    loss(Encoding(labels.expression, labels.gaze), labels, identity)
    assert decoder.rendered == rendered


def test_geometry_known_before_gives_the_same_loss_and_is_not_decoded_again(scene):
    decoder, loss, labels, identity = scene(photometric=0)
    told = []
    known = loss.true_geometry(labels, identity, told.append)
    assert known.shape == (3, 2, 3) and told == [3]
    encoding = Encoding(labels.expression + 0.3, unit(*[[0, 0, 1, 0, 0.2, 1]] * 3))
    rows = torch.tensor([2, 0])
    part = (Encoding(encoding.expression[rows], encoding.gaze[rows]), labels.rows(rows), identity.rows(rows))
    expected, decoder.decoded = loss(*part), 0
    found = loss(*part, geometry=known[rows])
    assert decoder.decoded == 2, "the prediction alone"
    assert float(found["total"]) == pytest.approx(float(expected["total"]), rel=1e-6)


@pytest.mark.parametrize("options", [{"geometry": 0}, {"steps": 1, "users": 2, "frames_per_user": 1}])
def test_geometry_that_steps_hardly_need_is_not_decoded_before(scene, options):
    decoder, loss, labels, identity = scene(**options)
    assert loss.true_geometry(labels, identity) is None and decoder.decoded == 0


def test_geometry_too_large_to_keep_is_not_decoded_before(scene, monkeypatch):
    _, loss, labels, identity = scene()
    monkeypatch.setattr("ufe_core.training.losses._TABLE_BYTES", 4 * 3 * 2 * 3)
    assert loss.true_geometry(labels, identity) is not None
    monkeypatch.setattr("ufe_core.training.losses._TABLE_BYTES", 4 * 3 * 2 * 3 - 1)
    assert loss.true_geometry(labels, identity) is None
