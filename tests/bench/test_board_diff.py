"""What new results change on a leaderboard."""

import json

import pytest
from click.testing import CliRunner

from ufe_bench.aggregate import summarise_all
from ufe_bench.board_diff import difference, render
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


def changes(before, after):
    return list(difference(before, after).changes)


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


def test_an_edited_number_of_any_metric_is_told(build_result, tmp_path):
    """The run's id is of its choices, and stays; so do ranks."""
    one = build_result()
    edited = [
        person.model_copy(update={"metrics": {**person.metrics, "gaze": person.metrics["gaze"] * 0.99}})
        for person in one.subjects
    ]
    other = one.model_copy(update={"subjects": tuple(edited), "summary": summarise_all(edited, one.metrics)})
    for name, result in (("before", one), ("after", other)):
        write_result(result, tmp_path / name)
    found = changes([tmp_path / "before"], [tmp_path / "after"])
    assert told(found) == [("univ + late_fusion", "measured anew", (1, 1), (1.0, 1.0))]


def test_a_place_among_the_best_that_is_lost_or_won_is_told(build_result, tmp_path):
    """Two tie in gaze until a third is there, which ties with them in mesh error."""
    gaze = {"acme/a": [4.0, 4.1, 3.9, 4.2], "acme/b": [4.01, 4.09, 3.92, 4.18], "acme/c": [1.0, 1.1, 1.2, 1.3]}
    mesh = {"acme/a": [1.0, 1.1, 0.9, 1.2], "acme/b": [1.02, 1.09, 0.93, 1.18], "acme/c": [1.03, 1.08, 0.94, 1.19]}
    for name in gaze:
        values = {"mesh_l2": mesh[name], "photometric_l1": mesh[name], "gaze": gaze[name]}
        write_result(build_result(name, None, values=values), tmp_path / ("after" if name == "acme/c" else "before"))
    found = changes([tmp_path / "before"], [tmp_path / "before", tmp_path / "after"])
    words = {change.method: change.what for change in found}
    assert words == {"acme/c": "new", "acme/a": "no longer among the best in gaze",
                     "acme/b": "no longer among the best in gaze"}  # fmt: skip
    back = changes([tmp_path / "before", tmp_path / "after"], [tmp_path / "before"])
    assert {change.what for change in back} == {"gone", "now among the best in gaze"}


def test_a_folder_without_results_is_no_submission(folders, ufe, tmp_path):
    before, _ = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    code, out, err = ufe("leaderboard", "diff", before, empty, "--add")
    assert code == 1 and not out and "There is no result in" in err


def test_a_second_seed_of_a_method_leaves_the_first_as_it_is(folders, build_result, tmp_path):
    before, _ = folders
    write_result(build_result(seed=1, mesh=(3.0, 3.1, 3.2, 3.3)), tmp_path / "seed")
    assert [change.what for change in changes([before], [before, tmp_path / "seed"])] == ["new"]


def test_grounds_of_one_suite_are_kept_apart(folders, build_result, tmp_path):
    before, _ = folders
    write_result(build_result(data="d1ff" * 16), tmp_path / "other")
    assert [change.what for change in changes([before], [before, tmp_path / "other"])] == ["new"]


def test_a_broken_file_is_told_and_makes_the_command_fail(folders):
    before, after = folders
    (after / "main@1" / "bad.json").write_text("{")
    outcome = CliRunner().invoke(leaderboard, ["diff", str(before), str(after)])
    assert outcome.exit_code == 1 and "bad.json" in outcome.stderr


def test_the_command_takes_whole_folders_or_new_results_alone(folders):
    before, after = map(str, folders)
    whole = json.loads(CliRunner().invoke(leaderboard, ["diff", before, after, "--json"]).stdout)
    assert {change["what"] for change in whole["changes"]} == {"new", "gone"}
    laid = CliRunner().invoke(leaderboard, ["diff", before, after, "--add"])
    assert laid.exit_code == 0 and "moved" in laid.stdout and "gone" not in laid.stdout
