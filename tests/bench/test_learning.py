"""How rows of a study learned: what is read from their logs."""

import pytest

from ufe_bench.learning import Learning, draw_learning, learning_of
from ufe_bench.study import Cell, Study
from ufe_bench.study_report import markdown
from ufe_bench.suite import load_suite


def test_the_loss_by_thirds_of_the_steps_and_by_how_much_it_fell():
    row = Learning("A", range(1, 10), [9.0, 9.0, 9.0, 4.0, 5.0, 3.0, 3.0, 2.0, 1.0])
    assert row.thirds == (9.0, 4.0, 2.0) and row.fell == pytest.approx(0.5)
    thinned = Learning("B", [1, 100, 200, 300], [8.0, 6.0, 2.0, 1.0])
    assert thinned.thirds == (7.0, 2.0, 1.0), "by step, not by line"


def test_only_rows_that_were_trained_here_have_something_to_tell(build_result, tmp_path, caplog):
    suite, result = load_suite("table3"), build_result()
    lines = "\n".join(f"{k},{0.1},{10 / k}" for k in range(1, 31))
    (tmp_path / "long.csv").write_text(f"step,learning_rate,total\n{lines}\n")
    (tmp_path / "short.csv").write_text("step,learning_rate,total\n1,0.1,2\n2,0.1,1\n")
    logs = [tmp_path / "long.csv", tmp_path / "short.csv", tmp_path / "gone.csv", None]
    cells = tuple(Cell(row, result, log=log) for row, log in zip(suite.rows, logs, strict=False))
    study = Study(suite, cells, ())
    (found,) = learning_of(Study(suite, (*cells, Cell(suite.rows[-1], result, log=logs[0])), ()))
    assert (found.title, found.steps[-1], found.losses[0]) == (suite.rows[0].title, 30, 10.0)
    page = markdown(study, learning=[found])
    assert f"| {found.title}" in page.partition("## How rows learned")[2]
    assert "## How rows learned" not in markdown(study)
    assert draw_learning([found] * 5).startswith(b"\x89PNG")
    (tmp_path / "long.csv").write_text("step,learning_rate,total\n1,0.1,nothing\n")
    assert learning_of(study) == [] and "long.csv' cannot be read" in caplog.text
