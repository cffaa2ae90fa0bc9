import numpy as np
import pytest
import torch

from ufe_core.interfaces.encoder import TrainingStatistics
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.types import AnchorSet, CodeSpace, FrameBatch, Labels

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
SIZE = 64


def floor(name):
    return resolve_recipe(catalogue(), encoder=name, budget="smoke").make_encoder(CAMERAS, CodeSpace("test", 7))


def run(encoder, images):
    anchors = AnchorSet.complete(torch.zeros(1, 0, 4, SIZE, SIZE, dtype=torch.uint8), (), CAMERAS)
    return encoder.encode(FrameBatch.single_user(images, CAMERAS), encoder.enroll(anchors))


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 4, SIZE, SIZE), dtype=torch.uint8)


class Unreadable:
    def __iter__(self):
        raise AssertionError("the mean must read no pixel")


def test_mean_is_the_mean_of_the_labels_and_reads_no_pixel(images):
    rng = np.random.default_rng(0)
    expression = rng.uniform(size=(40, 7)).astype(np.float32)
    gaze = rng.normal([0, 0, 1] * 2, 0.3, (40, 6)).reshape(40, 2, 3)
    gaze = (gaze / np.linalg.norm(gaze, axis=-1, keepdims=True)).astype(np.float32)
    mean = floor("mean")
    labels = Labels(torch.from_numpy(expression), torch.from_numpy(gaze.reshape(40, 6)))
    mean.fit_statistics(TrainingStatistics(labels, Unreadable()))
    found = run(mean, images)
    direction = gaze.mean(0) / np.linalg.norm(gaze.mean(0), axis=-1, keepdims=True)
    for row in range(len(images)):
        assert found.expression[row].numpy() == pytest.approx(expression.mean(0), abs=1e-6)
        assert found.gaze[row].numpy() == pytest.approx(direction.flatten(), abs=1e-6)
    assert torch.equal(run(mean, 255 - images).expression, found.expression)


def test_what_mean_learned_is_in_its_weights(images):
    first, second = floor("mean"), floor("mean")
    labels = Labels(torch.rand(4, 7), torch.tensor([[0.6, 0, 0.8, 0, 0, 1]] * 4))
    first.fit_statistics(TrainingStatistics(labels, ()))
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(second, images).expression, run(first, images).expression)
    assert torch.equal(run(second, images).gaze, run(first, images).gaze)


def test_neutral_is_zero_and_looks_ahead(images):
    found = run(floor("neutral"), images)
    assert torch.equal(found.expression, torch.zeros(5, 7))
    assert torch.equal(found.gaze, torch.tensor([[0.0, 0, 1, 0, 0, 1]] * 5))
    assert floor("neutral").learns == "nothing"
