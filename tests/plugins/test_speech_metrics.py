"""Metrics of clips of speech, on meshes made by hand."""

import pytest
import torch

from ufe_core.errors import ContractError
from ufe_core.head import load_head
from ufe_core.interfaces.metric import Driven
from ufe_core.plugins import catalogue

TOPOLOGY = load_head().topology
UPPER, LOWER = (int(row) for row in TOPOLOGY.region("lip_centres"))
NEUTRAL = torch.from_numpy(load_head().template)


def metric(name):
    spec = catalogue().get("metric", name)
    return spec.load()(spec.config(), topology=TOPOLOGY, face_mask=torch.ones(4, 4, dtype=torch.bool))


def driven(geometry, neutral=NEUTRAL):
    return Driven(geometry, torch.tensor([0.0, 0.0, 1.0] * 2).expand(len(geometry), -1), None, neutral)


def lips(*gaps_mm):
    """A clip whose lips are that much further apart than at rest."""
    clip = NEUTRAL.expand(len(gaps_mm), -1, -1).clone()
    apart = torch.nn.functional.normalize(NEUTRAL[LOWER] - NEUTRAL[UPPER], dim=0)
    clip[:, LOWER] += apart * torch.tensor(gaps_mm)[:, None]
    return driven(clip)


def test_any_motion_of_the_truth_is_no_jitter():
    truth = NEUTRAL + torch.randn(10, *NEUTRAL.shape, generator=torch.Generator().manual_seed(0))
    assert metric("jitter").errors(driven(truth), driven(truth)).tolist() == [0.0] * 8
    steady = truth + torch.linspace(0, 5, 10)[:, None, None]
    assert metric("jitter").errors(driven(steady), driven(truth)).max() < 1e-4, "nor is an error that moves evenly"


def test_one_trembling_frame_is_seen_in_three_accelerations():
    truth, shaken = NEUTRAL.expand(8, -1, -1), NEUTRAL.repeat(8, 1, 1)
    shaken[4] += torch.tensor([1.0, 0.0, 0.0])
    assert metric("jitter").errors(driven(shaken), driven(truth)).tolist() == pytest.approx([0, 0, 1, 2, 1, 0])


def test_closures_are_missed_or_made_up():
    truth = lips(9.0, 9.0, 0.0, 9.0, 9.0, 9.0, 9.0, 0.3, 0.2)
    avatar = lips(9.0, 9.0, 4.0, 9.0, 0.1, 9.0, 9.0, 0.1, 0.2)
    assert metric("missed_closures").errors(avatar, truth).tolist() == [100, 0, 0], "of three frames that are shut"
    # Frames 1, 3 and 6 are next to a closure; of the others one is shut.
    assert metric("false_closures").errors(avatar, truth).tolist() == [0, 100, 0]


def test_a_closure_may_be_a_frame_early_or_late():
    truth = lips(9.0, 9.0, 0.0, 9.0, 9.0)
    for avatar in (lips(9.0, 0.0, 9.0, 9.0, 9.0), lips(9.0, 9.0, 9.0, 0.0, 9.0)):
        assert metric("missed_closures").errors(avatar, truth).tolist() == [0]
        assert metric("false_closures").errors(avatar, truth).tolist() == [0, 0]
    late = lips(9.0, 9.0, 9.0, 9.0, 0.0)
    assert metric("missed_closures").errors(late, truth).tolist() == [100]
    assert metric("false_closures").errors(late, truth).tolist() == [0, 100]


def test_neither_shut_nor_open_is_no_mistake_and_no_closure_none_missed():
    between, shut = lips(0.8, 0.8, 0.8), lips(0.0, 0.0, 0.0)
    assert metric("missed_closures").errors(between, shut).tolist() == [0, 0, 0]
    assert metric("false_closures").errors(shut, between).tolist() == []
    missed = metric("missed_closures")
    missed.update(shut, between)
    assert missed.compute() == 0


def test_without_the_resting_mesh_nobody_knows_what_shut_is():
    bare = driven(NEUTRAL.expand(3, -1, -1), None)
    with pytest.raises(ContractError, match="needs the resting mesh"):
        metric("missed_closures").errors(bare, bare)


def test_only_metrics_of_clips_may_give_fewer_errors_than_frames():
    clip = driven(NEUTRAL.expand(5, -1, -1))
    jitter = metric("jitter")
    jitter.update(clip, clip)
    assert jitter.count == 3 and jitter.compute() == 0
    jitter.temporal = False
    with pytest.raises(ContractError, match=r"gave \[3\] values for 5 frames"):
        jitter.errors(clip, clip)
