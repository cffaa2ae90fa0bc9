"""What new results change on a leaderboard."""

import json

import pytest
from click.testing import CliRunner

from ufe_bench.board_diff import changes, render
from ufe_bench.cli import leaderboard
from ufe_bench.schema import write_result

BETTER = (0.25, 0.5, 0.5, 0.75)


@pytest.fixture
def folders(build_result, tmp_path):
    """Before, one method; after, another one that beats it."""
    before, after = tmp_path / "before", tmp_path / "after"
    write_result(build_result(), before)
    write_result(build_result("acme/new", None, mesh=BETTER), after)
    return before, after


def told(found):
    return [(change.method, change.what, change.ranks, change.values) for change in found]


def test_equal_results_change_nothing(folders):
    before, _ = folders
    assert changes([before], [before]) == [] and render([]) == "Nothing changes.\n"


def test_a_better_method_moves_the_others_down(folders):
    before, after = folders
    found = changes([before], [before, after])
    assert told(found) == [
        ("acme/new", "new", (None, 1), (None, 0.5)),
        ("univ + late_fusion", "moved", (1, 2), (1.0, 1.0)),
    ]
    text = render(found)
    assert "## main@1: Budget cpu, trained by the user" in text
    assert "– → 1" in text and "1 → 2" in text and "– → 0.500" in text


def test_what_is_gone_and_what_was_measured_anew_is_told(folders, build_result, tmp_path):
    before, after = folders
    assert ("univ + late_fusion", "gone", (1, None), (1.0, None)) in told(changes([before], [after]))
    again = tmp_path / "again"
    write_result(build_result(mesh=BETTER), again)
    assert told(changes([before], [again])) == [("univ + late_fusion", "measured anew", (1, 1), (1.0, 0.5))]


def test_a_tie_with_the_best_that_is_lost_is_told(build_result, tmp_path):
    noisy, steady = (1.0, 1.1, 0.9, 1.2), (1.01, 1.09, 0.92, 1.18)
    for name, mesh in (("acme/a", noisy), ("acme/b", steady)):
        write_result(build_result(name, None, mesh=mesh), tmp_path / "before")
    write_result(build_result("acme/c", None, mesh=BETTER), tmp_path / "after")
    found = changes([tmp_path / "before"], [tmp_path / "before", tmp_path / "after"])
    assert [change.what for change in found] == ["new", "moved", "moved"]


def test_the_command_takes_whole_folders_or_new_results_alone(folders):
    before, after = map(str, folders)
    whole = json.loads(CliRunner().invoke(leaderboard, ["diff", before, after, "--json"]).stdout)
    assert {change["what"] for change in whole} == {"new", "gone"}
    laid = CliRunner().invoke(leaderboard, ["diff", before, after, "--add"])
    assert laid.exit_code == 0 and "moved" in laid.stdout and "gone" not in laid.stdout
