"""Whose anchors an encoder gets to see, person by person."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ufe_bench.enrolment import ENROLMENTS, anchors_for
from ufe_bench.schema import load_result, run_id_of
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import Detections

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PEOPLE, ANCHORS, CAMERAS = 5, ("neutral", "smile", "jaw"), ("a", "b")
ENCODER = SimpleNamespace(needs=EncoderNeeds(CAMERAS, 8, ANCHORS))


def capture(person):
    """Two frames, then anchors whose every pixel, and every keypoint found in them, tell person and anchor."""
    levels = np.array([0, 0, *(10 * (person + 1) + k for k in range(len(ANCHORS)))], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (len(levels), 2, 8, 8)).copy()
    points = torch.from_numpy(levels).float()[:, None, None, None].expand(-1, 2, 4, 2)
    return SimpleNamespace(
        images=images,
        rows_of=lambda names: np.array([2 + ANCHORS.index(name) for name in names], int),
        detections=Detections(points, torch.ones(points.shape[:-1])),
        geometry=np.zeros((3, 3), np.float32),
    )


CAPTURES = [capture(person) for person in range(PEOPLE)]


def levels(number, enrolment):
    anchors = anchors_for(ENCODER, CAPTURES, number, enrolment)
    assert anchors.names == ANCHORS and anchors.images.flatten(2).float().std(-1).max() == 0
    shown, found = anchors.images[0, :, 0, 0, 0], anchors.keypoints
    assert found.visible[0, :, 0, 0].tolist() == (shown > 0).tolist(), "nothing is found in a black image"
    assert found.points[0, shown > 0, 0, 0, 0].tolist() == shown[shown > 0].tolist(), "keypoints are of the image seen"
    return anchors.images[0, :, 0, 0, 0].tolist(), anchors.present[0].tolist()


@pytest.mark.parametrize(
    ("enrolment", "seen", "present"),
    [
        ("own", [20, 21, 22], [True, True, True]),
        ("another_person", [30, 31, 32], [True, True, True]),
        ("shuffled", [22, 20, 21], [True, True, True]),
        ("one_blank", [20, 0, 22], [True, True, True]),
        ("one_missing", [20, 0, 22], [True, False, True]),
        ("half_missing", [20, 0, 22], [True, False, True]),
        ("all_missing", [0, 0, 0], [False, False, False]),
        ("first_1", [20, 0, 0], [True, False, False]),
        ("first_2", [20, 21, 0], [True, True, False]),
        ("first_3", [20, 21, 22], [True, True, True]),
        ("first_4", [20, 21, 22], [True, True, True]),  # of three
        ("first_5", [20, 21, 22], [True, True, True]),
    ],
)
def test_a_person_is_enrolled_with(enrolment, seen, present):
    assert levels(1, enrolment) == (seen, present)


def test_every_enrolment_is_held_to_account_above():
    marks = test_a_person_is_enrolled_with.pytestmark[0].args[1]
    assert {case[0] for case in marks} == set(ENROLMENTS)


def test_the_last_person_gets_the_firsts_and_every_anchor_has_its_turn():
    assert levels(PEOPLE - 1, "another_person")[0] == [10, 11, 12]
    blank = {levels(number, "one_blank")[0].index(0) for number in range(PEOPLE)}
    assert blank == {0, 1, 2}
    assert CAPTURES[0].images[2:, 0, 0, 0].tolist() == [10, 11, 12], "what is packed stays as it is"


def test_an_encoder_without_anchors_gets_none():
    needs = SimpleNamespace(needs=EncoderNeeds(CAMERAS, 8, ()))
    for enrolment in ENROLMENTS:
        assert anchors_for(needs, CAPTURES, 0, enrolment).images.shape == (1, 0, 2, 8, 8)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("main@*/*/*.json")), ids=lambda path: path.stem)
def test_results_from_before_there_was_a_choice_keep_their_ids(path):
    result = load_result(path)
    assert result.run_id == path.stem == run_id_of(result.key)
    data = result.key.data.model_copy(update={"enrolment": "shuffled"})
    assert run_id_of(result.key.model_copy(update={"data": data})) != path.stem
