"""Which frames figures show, and what is said when they cannot be drawn; `test_harness.py` draws some."""

import re
from unittest.mock import Mock

import pytest

from ufe_bench.figures import picks, write_figures
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.study import Cell, Study
from ufe_bench.suite import load_suite
from ufe_core.errors import MethodError
from ufe_core.plugins import catalogue
from ufe_core.registry import packaged_file
from ufe_core.store import Store


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


def test_a_method_that_fails_while_figures_are_drawn_is_told_in_one_line(build_result, tmp_path, monkeypatch):
    import torch

    harness = Harness(catalogue(), Store(tmp_path), tmp_path / "results", device=torch.device("cpu"))
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
