"""The search for training options: the same trials for everyone, the least score wins, and the trace is kept."""

import errno
import math
import re
from unittest.mock import Mock

import pytest
import torch

from ufe_bench import tuning as tuning_module
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.study import run_study
from ufe_bench.suite import Tuning, load_suite
from ufe_bench.tuning import tuned
from ufe_bench.validation import Validation
from ufe_core.errors import ArtifactError, ConfigError, DataError, MethodError, UfeError, cause_of
from ufe_core.plugins import catalogue
from ufe_core.store import Store
from ufe_metrics.errors import MeshL2

PLAN = Tuning(
    validation=5, frames=3, steps=0.1,
    trials=({"learning_rate": 0.001}, {"learning_rate": 0.002}, {"learning_rate": 0.004}),
)  # fmt: skip


@pytest.fixture
def harness(tmp_path):
    return Harness(catalogue(), Store(tmp_path), tmp_path / "results", device=torch.device("cpu"))


@pytest.fixture
def anew():
    """Whether each trial was asked to be trained afresh."""
    return []


@pytest.fixture
def asked(monkeypatch, anew):
    """Stands in for a training and a validation; the middle learning rate is best in half of the metrics."""
    seen = []

    def validate(candidate, anchors, listener=None, *, fresh):
        seen.append((candidate, anchors))
        anew.append(fresh)
        rate = candidate.overrides["training"]["learning_rate"]
        worth = {0.001: 2.0, 0.002: 1.0}.get(rate, 4.0)
        names = [name.partition("/")[2] for name in candidate.metrics]
        values = {name: {"A": worth * k, "B": 3 * worth * k} for k, name in enumerate(names, 1)}
        return Validation(values, f"w{rate}")

    monkeypatch.setattr(tuning_module, "validate", validate)
    return seen


def test_every_trial_is_a_share_of_the_row_and_the_least_geometric_mean_wins(harness, asked):
    request = Request(suite=load_suite("table1"), encoder="necknet", train=True, overrides={"training": {"steps": 50}})
    chosen, trials = tuned(harness, request, PLAN)
    assert chosen == {"learning_rate": 0.002} and [trial.weights for trial in trials] == ["w0.001", "w0.002", "w0.004"]
    assert trials[1].score == pytest.approx(2 * math.factorial(5) ** (1 / 5)), "the means are 2, 4, 6, 8 and 10"
    lengths = {tuple(c.overrides["training"][name] for name in ("steps", "warmup")) for c, _ in asked}
    assert lengths == {(5, 5)}, "a tenth of 50 steps and of as many of warm-up"
    assert all(c.validation == 5 and c.frames == 3 and "ufe/jitter" not in c.metrics for c, _ in asked)


def test_of_a_metric_of_which_more_is_better_the_most_wins(harness, asked, monkeypatch):
    monkeypatch.setattr(MeshL2, "higher_is_better", True)
    suite = load_suite("table1").model_copy(update={"metrics": ("mesh_l2",)})
    chosen, trials = tuned(harness, Request(suite=suite, encoder="necknet"), PLAN)
    assert chosen == {"learning_rate": 0.004}
    assert [trial.score for trial in trials] == pytest.approx([1 / 4, 1 / 2, 1 / 8]), "the means are 4, 2 and 8"


@pytest.mark.parametrize("kind", [UfeError, MethodError, RuntimeError, SystemExit])
def test_a_trial_in_which_the_method_fails_has_lost_and_only_if_all_do_there_is_none(harness, asked, monkeypatch, kind):
    request, diverging = Request(suite=load_suite("table1"), encoder="necknet"), {0.002}
    validate = tuning_module.validate

    def diverges(candidate, *rest, **how):
        rate = candidate.overrides["training"]["learning_rate"]
        if rate in diverging:
            raise kind(f"diverged at {rate}")
        return validate(candidate, *rest, **how)

    monkeypatch.setattr(tuning_module, "validate", diverges)
    said = []
    chosen, trials = tuned(harness, request, PLAN, said.append)
    assert chosen == {"learning_rate": 0.001}
    assert [(trial.score is None, trial.failure) for trial in trials] == [
        (False, ""), (True, cause_of(kind("diverged at 0.002"))), (False, "")
    ]  # fmt: skip
    assert any("diverged at 0.002" in line for line in said)
    diverging.update({0.001, 0.004})
    with pytest.raises(kind, match=r"diverged at 0\.001"):
        tuned(harness, request, PLAN)


@pytest.mark.parametrize(
    "error",
    [
        ArtifactError("The disk is full."), ConfigError("No."), DataError("Damaged."), MemoryError("It is used up."),
        torch.OutOfMemoryError("A GPU's is used up."), OSError(errno.ENOSPC, "No space left"),
    ],
)  # fmt: skip
def test_what_is_not_the_methods_fault_loses_no_trial(harness, asked, monkeypatch, error):
    monkeypatch.setattr(tuning_module, "validate", Mock(side_effect=error))
    with pytest.raises(type(error), match=re.escape(str(error))):
        tuned(harness, Request(suite=load_suite("table1"), encoder="necknet"), PLAN)


def test_a_fresh_study_trains_its_trials_afresh_once_for_rows_that_share_a_search(harness, asked, anew, monkeypatch):
    monkeypatch.setattr(harness, "run", Mock(side_effect=UfeError("enough")))
    suite = load_suite("table4").model_copy(update={"tuning": PLAN})
    run_study(harness, suite, rows=("none_again", "none"), fresh=True)
    assert anew == [True] * len(PLAN.trials)
    run_study(harness, suite, rows=("none",))
    assert anew[len(PLAN.trials) :] == [False] * len(PLAN.trials)


def test_what_is_searched_cannot_be_set_too(harness, asked):
    suite = load_suite("table1")
    with pytest.raises(
        ConfigError, match=f"'{suite.id}' searches training.learning_rate itself: leave it out of --set"
    ):
        run_study(harness, suite, overrides={"training": {"steps": 5, "learning_rate": 0.1}})
    assert asked == []


def test_a_row_that_takes_no_steps_is_not_searched(harness, asked):
    assert tuned(harness, Request(suite=load_suite("table1"), encoder="mean"), PLAN) == ({}, ())
    assert asked == []


def test_another_seed_is_trained_with_what_the_first_ones_search_chose(harness, asked, monkeypatch):
    requests = []

    def run(request, **how):
        requests.append(request)
        raise UfeError("enough")

    monkeypatch.setattr(harness, "run", run)
    suite = load_suite("table4").model_copy(update={"tuning": PLAN})
    run_study(harness, suite, rows=("none_again", "none"))
    assert {candidate.overrides["training"].get("seed", 0) for candidate, _ in asked} == {0}
    assert [request.options["training"]["learning_rate"] for request in requests] == [0.002, 0.002]
    assert [request.options["training"].get("seed", 0) for request in requests] == [1, 0]
    assert requests[0].trials == requests[1].trials and len(requests[0].trials) == len(suite.tuning.trials)


def test_what_was_chosen_is_trained_with_and_sets_no_row_apart():
    request = Request(suite=load_suite("main"), encoder="necknet", tuned={"learning_rate": 0.002}, train=True)
    assert request.options == {"training": {"learning_rate": 0.002}} and request.overrides is None
    assert "--set training.learning_rate=0.002" in request.command()
