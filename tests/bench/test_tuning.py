"""The search for training options: the same trials for everyone, the least score wins, and the trace is kept."""

import math
import re
from unittest.mock import Mock

import pytest

from ufe_bench import tuning as tuning_module
from ufe_bench.figures import picks, write_figures
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.study import Cell, Study, run_study
from ufe_bench.suite import Tuning, load_suite
from ufe_bench.tuning import tuned
from ufe_bench.validation import Validation
from ufe_core.errors import ArtifactError, ConfigError, DataError, MethodError, UfeError, cause_of
from ufe_core.plugins import catalogue
from ufe_core.registry import packaged_file
from ufe_core.store import Store

PLAN = Tuning(
    validation=5, frames=3, steps=0.1,
    trials=({"learning_rate": 0.001}, {"learning_rate": 0.002}, {"learning_rate": 0.004}),
)  # fmt: skip


@pytest.fixture
def harness(tmp_path):
    import torch

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
        values = {name: {"A": worth * k, "B": 3 * worth * k} for k, name in enumerate(candidate.metrics, 1)}
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
    assert all(c.validation == 5 and c.frames == 3 and "jitter" not in c.metrics for c, _ in asked)


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


@pytest.mark.parametrize("error", [ArtifactError("The disk is full."), ConfigError("No."), DataError("Damaged.")])
def test_what_is_not_the_methods_fault_loses_no_trial(harness, asked, monkeypatch, error):
    monkeypatch.setattr(tuning_module, "validate", Mock(side_effect=error))
    with pytest.raises(type(error), match=str(error)):
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


@pytest.mark.parametrize(
    ("rows", "metrics", "line"),
    [
        (["--row", "fomm"], None, "picked by the base row, 'univ': it must be among the rows"),
        ([], '["mesh_l2"]', "picks frames by 'photometric_l1', which 'mine@"),
    ],
    ids=["row", "metric"],
)
def test_figures_that_cannot_be_drawn_are_refused_before_anything_is_measured(
    ufe, tmp_path, monkeypatch, rows, metrics, line
):
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "home"))
    text = packaged_file("ufe_bench/suites/table1.toml").read_text().replace('name = "table1"', 'name = "mine"')
    (tmp_path / "own.toml").write_text(
        re.sub(r"^metrics = \[.*?\]", f"metrics = {metrics}", text, flags=re.S | re.M) if metrics else text
    )
    code, _, err = ufe("bench", "--suite", tmp_path / "own.toml", *rows, "--figures")
    assert code == 1 and line in err and not (tmp_path / "home" / "captures").exists()


def test_one_measured_person_is_least_median_and_greatest(build_result):
    result = build_result(mesh=(3.0,))
    assert {pick.whom.subject for pick in picks({"one": result}, "one", ())} == {result.subjects[0].id}


def test_a_method_that_fails_while_figures_are_drawn_is_told_in_one_line(harness, build_result, tmp_path, monkeypatch):
    suite = load_suite("table1")
    row = suite.row(suite.base)
    cell = Cell(row, build_result(), request=Request(suite=suite, row=row.name))
    study = Study(suite, (cell,), ())
    monkeypatch.setattr(harness, "_encoder", Mock(side_effect=RuntimeError("no such layer")))
    with pytest.raises(MethodError, match=f"^{row.name} failed while setting up: RuntimeError: no such layer$"):
        write_figures(harness, study, tmp_path / "figures")
    monkeypatch.setattr(harness, "ready", lambda request: None)
    monkeypatch.setattr("ufe_bench.figures._frame", Mock(side_effect=RuntimeError("no face")))
    with pytest.raises(MethodError, match=f"^{row.name} failed while drawing figures: RuntimeError: no face$"):
        write_figures(harness, study, tmp_path / "figures")


def test_figures_are_of_people_picked_by_their_errors(build_result):
    result, other = build_result(mesh=(3.0, 1.0, 2.0, 9.0, 4.0)), build_result(mesh=(8.0, 1.0, 5.0, 8.5, 4.0))
    *chosen, own, behind = picks({"one": result, "two": other}, "one", ())
    people = [subject.id for subject in result.subjects]
    assert [people.index(pick.whom.subject) for pick in chosen] == [1, 0, 0, 3, 3]
    assert {(pick.by, pick.whom.condition) for pick in chosen} == {("one", None)}
    assert (own.by, people.index(own.whom.subject), own.wanted) == ("two", 3, "worst")
    assert (behind.by, people.index(behind.whom.subject), behind.wanted) == ("two", 0, "behind")
    without = other.model_copy(update={"subjects": other.subjects[1:]})
    behind = picks({"one": result, "two": without}, "one", ())[-1]
    assert people.index(behind.whom.subject) == 2, "of those whom both have measured"


def test_under_conditions_figures_are_of_whom_they_harm_most(build_result):
    result = build_result(mesh=(3.0, 1.0, 2.0))
    ordinary, dim = (4.0, 5.0, 6.0), (6.0, 9.0, 9.5)
    slices = [
        {"condition:ordinary": {"photometric_l1": a}, "condition:dim": {"photometric_l1": b}}
        for a, b in zip(ordinary, dim, strict=True)
    ]
    subjects = tuple(s.model_copy(update={"slices": d}) for s, d in zip(result.subjects, slices, strict=True))
    chosen = picks({"one": result.model_copy(update={"subjects": subjects})}, "one", ("ordinary", "dim"))
    people = [subject.id for subject in subjects]
    assert [pick.whom for pick in chosen[5:]] == [(people[2], "ordinary"), (people[1], "dim")]
    assert [pick.wanted for pick in chosen[5:]] == ["worst", "worst"]
