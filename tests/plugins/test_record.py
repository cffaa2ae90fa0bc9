"""What was drawn about a person is written down, and says how they really move."""

import json

import numpy as np
import pytest

from ufe_core.head import ACTIONS
from ufe_synthetic.appearance import Traits
from ufe_synthetic.people import PAIRS, movement_of
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.record import record_of
from ufe_synthetic.source import SyntheticSource

PEOPLE = (0, 2, 9, 100)


def index(name):
    return ACTIONS.index(name)


@pytest.mark.parametrize("person", PEOPLE)
def test_it_is_flat_and_survives_json(person):
    record = record_of(person)
    assert {type(value) for value in record.values()} <= {float, int, str, bool}
    assert json.loads(json.dumps(record)) == record
    assert set(Traits.__dataclass_fields__) < set(record)


def test_a_person_is_the_same_every_time_and_unlike_others():
    assert record_of(9) == record_of(9)
    assert record_of(9) != record_of(2)


def test_another_day_changes_only_what_days_change():
    first, second = record_of(9, 0), record_of(9, 1)
    changed = {name for name in first if first[name] != second.get(name)}
    assert changed and changed <= {
        "beard_mm", "oiliness", "style.effort", "style.articulation", "style.syllables_per_second",
        "style.blinks_per_minute",
    }  # fmt: skip


@pytest.mark.parametrize("person", PEOPLE)
def test_gains_and_what_is_dragged_along_are_what_the_face_does(person):
    record, movement = record_of(person), movement_of(person)
    small = 0.01 * np.eye(len(ACTIONS))
    shown = (movement.realise(small) - movement.realise(np.zeros((1, len(ACTIONS))))) / 0.01
    for name in ("jawOpen", "mouthSmileLeft", "browDownRight"):
        a = index(name)
        assert shown[a, a] == pytest.approx(record[f"gain.{name}"], abs=2e-3)
        assert shown[a].sum() - shown[a, a] == pytest.approx(record[f"drags.{name}"], abs=2e-2)
    rest = movement.realise(np.zeros((1, len(ACTIONS))))[0]
    for a, name in enumerate(ACTIONS):
        assert record.get(f"rest.{name}", 0.0) == pytest.approx(rest[a], abs=1e-3)
    all_out = movement.realise(np.full((1, len(ACTIONS)), 5.0))[0]
    for a, name in enumerate(ACTIONS):
        assert record[f"limit.{name}"] == pytest.approx(all_out[a], abs=1e-3)


def test_asymmetry_tells_the_stronger_side():
    record = record_of(100)
    for left, right in PAIRS:
        stem = ACTIONS[left].removesuffix("Left")
        ratio = record[f"gain.{ACTIONS[left]}"] / record[f"gain.{ACTIONS[right]}"]
        assert record[f"asymmetry.{stem}"] == pytest.approx(np.log(ratio), abs=1e-3)


def test_captures_carry_it_and_know_of_glasses(synthetic):
    capture = synthetic.captures(["S009"], session=1)[0]
    assert capture.traits == record_of(9, 1) and capture.traits["glasses"] is False
    put_on = SyntheticSource(SyntheticConfig(condition="glasses")).captures(["S009"])[0]
    assert put_on.traits == record_of(9, glasses=True)
    assert not set(capture.conditions) & set(capture.traits), "conditions slice, traits describe"
