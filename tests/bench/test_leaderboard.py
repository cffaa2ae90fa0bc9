"""The leaderboard: which rows may meet, who has a rank, and equal bytes from equal results."""

import json
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ufe_bench import formats, plots
from ufe_bench.aggregate import RankAgreement
from ufe_bench.board import Extras, StudyReport, build_board
from ufe_bench.board_markdown import render_markdown
from ufe_bench.board_pages import MARK, render_pages
from ufe_bench.cli import leaderboard
from ufe_bench.failure import Failure, forget_failure, record_failure
from ufe_bench.leaderboard import build_leaderboard, collect
from ufe_bench.paper import METRIC_NAMES, load_paper, paper_row
from ufe_bench.schema import Latency, MetricInfo, Trial, load_result, run_id_of, write_result
from ufe_bench.table import print_run
from ufe_core.errors import ArtifactError

GOLDEN = Path(__file__).parents[1] / "golden"
BETTER = (0.25, 0.5, 0.5, 0.75)
FLOOR = (2.0, 2.0, 2.0, 2.0)


@pytest.fixture
def results(build_result):
    """Two ranked methods, an incomplete one, and both floors."""
    return [
        build_result(),
        build_result(calibrator="ufe/none", mesh=BETTER),
        build_result("acme/half", None, failed=2),
        build_result("ufe/mean", None, mesh=FLOOR, latency=None),
        build_result("ufe/neutral", None, mesh=[v + 0.5 for v in FLOOR], latency=None),
    ]


def suite_page(board, suite="main@1"):
    return render_pages(board, Extras())[f"suites/{suite}.html"]


def names(group):
    return [(row.rank, row.name) for row in group.rows]


def test_rows_are_ranked_with_floors_between_and_the_incomplete_last(results):
    (ground,) = build_board(results)
    (group,) = ground.groups
    assert names(group) == [
        (1, "univ + none"),
        (2, "univ + late_fusion"),
        (None, "mean"),
        (None, "neutral"),
        (None, "acme/half"),
    ]
    assert [row.unranked for row in group.rows][-1] == "subject 'S000' failed on 2 of 24 frames"
    assert [row.is_floor for row in group.rows] == [False, False, True, True, False]
    assert group.rows[0].ratios["mesh_l2"] == 0.25
    assert group.rows[-1].ratios == {}


def test_an_incomplete_run_has_no_rank_however_good(build_result):
    ((group,),) = [g.groups for g in build_board([build_result(), build_result("acme/x", None, mesh=[0.1], people=4)])]
    assert names(group) == [(1, "univ + late_fusion"), (None, "acme/x")]


def test_a_method_without_the_ranking_metric_is_unranked(build_result):
    gaze = {"gaze": MetricInfo(label="Gaze", unit="deg", higher_is_better=False)}
    blind = build_result("acme/gaze", None, metrics=gaze, values={"gaze": [1.0, 1.0, 1.0, 1.0]})
    (ground,) = build_board([build_result(), blind])
    assert [row.unranked for row in ground.groups[0].rows] == [None, "has no mesh_l2"]


def test_budgets_never_share_a_table_and_floors_stand_in_each(build_result):
    board = build_board(
        [
            build_result(budget="smoke"),
            build_result(budget="cpu"),
            build_result(budget="cpu", released=True),
            build_result(budget="cpu", overrides={"steps": 10}),
            build_result(budget="gpu", released=True),
            build_result("ufe/mean", None, mesh=FLOOR),
        ]
    )
    (ground,) = board
    assert [group.title for group in ground.groups] == [
        "Budget gpu, released weights",
        "Budget cpu, released weights",
        "Budget cpu, trained by the user",
        "Budget cpu, trained by the user, with steps=10",
        "Budget smoke, trained by the user",
    ]
    assert all([row.name for row in group.rows] == ["univ + late_fusion", "mean"] for group in ground.groups)


def test_a_method_that_trains_nothing_is_ranked_in_every_table(build_result):
    trained = [build_result(budget=budget, mesh=(2, 2, 3, 3)) for budget in ("cpu", "gpu")]
    plain = build_result("acme/nearest", None, budget="none", mesh=(1, 1, 2, 2))
    (ground,) = build_board([*trained, plain, build_result("ufe/mean", None, budget="none", mesh=(4, 4, 4, 4))])
    for group in ground.groups:
        assert [(row.result.key.components.encoder.id, row.rank) for row in group.rows] == [
            ("acme/nearest", 1), ("ufe/univ", 2), ("ufe/mean", None)
        ]  # fmt: skip


def with_key(result, **parts):
    """The same result of another key: `parts` are fields of its parts."""
    changed = {name: getattr(result.key, name).model_copy(update=fields) for name, fields in parts.items()}
    key = result.key.model_copy(update=changed)
    return result.model_copy(update={"key": key, "run_id": run_id_of(key)})


def test_each_table_has_the_mean_of_as_many_people_as_its_own(build_result):
    """However new the mean of fewer people is; where there is none of as many, that of the most."""
    mean = build_result("ufe/mean", None, mesh=FLOOR)
    few = with_key(build_result("ufe/mean", None, mesh=(9, 9, 9, 9), created="2026-09-09T00:00:00Z"),
                   budget={"people": 4, "frames": 16})  # fmt: skip
    all_of_them = with_key(mean, budget={"people": 234, "frames": 36})
    (ground,) = build_board([build_result(budget=name) for name in ("cpu", "smoke", "gpu")] + [few, all_of_them])
    chosen = {
        group.budget.name: row.result for group in ground.groups for row in group.rows if row.name == "mean"
    }  # fmt: skip
    assert chosen == {"cpu": all_of_them, "gpu": all_of_them, "smoke": few}
    assert not any(group.earlier for group in ground.groups)


def test_sets_of_anchors_are_told_apart_by_names(build_result):
    usual = build_result()
    searched = with_key(usual, data={"anchors": ("smile", "neutral")})
    (ground,) = build_board([usual, searched])
    assert {row.variant for row in ground.groups[0].rows} == {"anchors=6", "anchors=smile,neutral"}


@pytest.mark.parametrize("change", [{"data": "d1ff" * 16}, {"suite": "main@2"}, {"suite": "glasses@1"}])
def test_other_data_or_suite_is_another_ground_and_gets_no_floor_from_this_one(build_result, change):
    board = build_board([build_result(), build_result(**change), build_result("ufe/mean", None, mesh=FLOOR)])
    assert len(board) == 2
    assert sorted(len(ground.groups[0].rows) for ground in board) == [1, 2]


def test_floors_alone_make_a_table_of_their_own(build_result):
    (ground,) = build_board([build_result("ufe/mean", None, mesh=FLOOR)])
    assert ground.groups[0].title == "Nothing trained"


def test_a_newer_run_of_the_same_method_replaces_the_older(build_result):
    old = build_result(overrides={}, released=False)
    key = old.key.model_copy(update={"weights": old.key.weights.model_copy(update={"sha256": "0" * 64})})
    new = old.model_copy(update={"key": key, "run_id": run_id_of(key), "created": "2026-05-05T00:00:00Z"})
    (ground,) = build_board([new, old])
    (group,) = ground.groups
    assert [row.result.run_id for row in group.rows] == [new.run_id]
    assert [row.result.run_id for row in group.earlier] == [old.run_id]


def test_rows_of_one_name_say_how_they_differ(build_result):
    (ground,) = build_board([build_result(config={"width": w, "depth": 2}) for w in (1, 2)])
    assert sorted(row.variant for row in ground.groups[0].rows) == ["width=1", "width=2"]


def test_leading_marks_the_best_and_those_not_clearly_worse(build_result):
    mesh = [1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 1.1, 1.0]
    tie = [v + (0.02 if i % 2 else -0.019) for i, v in enumerate(mesh)]
    (ground,) = build_board(
        [
            build_result(mesh=mesh),
            build_result("acme/tie", None, mesh=tie),
            build_result("acme/worse", None, mesh=[v + 0.05 for v in mesh]),
        ]
    )
    leading = {row.name: "mesh_l2" in row.leading for row in ground.groups[0].rows}
    assert leading == {"univ + late_fusion": True, "acme/tie": True, "acme/worse": False}


def test_direction_of_the_ranking_metric_is_respected(build_result):
    up = {"score": MetricInfo(label="Score", unit=None, higher_is_better=True)}
    low = build_result("acme/low", None, metrics=up, values={"score": [0.1, 0.2]})
    high = build_result("acme/high", None, metrics=up, values={"score": [0.8, 0.9]})
    (ground,) = build_board([low, high])
    assert names(ground.groups[0]) == [(1, "acme/high"), (2, "acme/low")]
    assert ground.groups[0].rows[0].leading == {"score"}
    assert "Score ↑" in render_markdown([ground])


def test_a_hypothetical_method_is_marked_and_takes_no_rank(build_result):
    contrived = build_result("acme/contrived", None, mesh=[0.1, 0.2]).model_copy(update={"hypothetical": True})
    real = build_result("acme/real", None, mesh=[1.1, 1.2])
    (ground,) = board = build_board([contrived, real])
    named = [(row.rank, row.name) for row in ground.groups[0].rows]
    assert named == [(None, "acme/contrived\u00a0*"), (1, "acme/real")]
    assert "mesh_l2" in ground.groups[0].rows[1].leading and not ground.groups[0].rows[0].leading
    for page in (render_markdown(board), suite_page(board)):
        assert "takes no rank" in page
    assert "takes no rank" not in render_markdown(build_board([real])) + suite_page(build_board([real]))


def test_equal_results_give_equal_bytes_in_any_order(results, tmp_path):
    for name, order in (("a", results), ("b", list(reversed(results)))):
        for index, result in enumerate(order):
            write_result(result, tmp_path / name / str(index))
    a = build_leaderboard([tmp_path / "a"], tmp_path / "out-a")
    build_leaderboard([tmp_path / "b"], tmp_path / "out-b")
    made = [path.relative_to(tmp_path / "out-a") for path in (tmp_path / "out-a").rglob("*") if path.is_file()]
    assert len(made) == a.pages + 1 == 9, "index, paper, a suite, five methods, and Markdown"
    for path in made:
        assert (tmp_path / "out-a" / path).read_bytes() == (tmp_path / "out-b" / path).read_bytes(), path


def test_duplicates_collapse_to_the_newest_and_broken_files_are_reported(build_result, tmp_path):
    for folder, day in (("one", "01"), ("two", "02")):
        write_result(build_result(created=f"2026-01-{day}T00:00:00Z"), tmp_path / folder)
    (tmp_path / "two" / "bad.json").write_text('{"schema": "ufe.result/1"')
    found = collect([tmp_path / "one", tmp_path / "two", tmp_path / "absent"])
    assert [result.created for result in found.results] == ["2026-01-02T00:00:00Z"]
    assert found.duplicates == 1
    assert [item.path for item in found.broken] == ["bad.json"]
    built = build_leaderboard([tmp_path / "two"], tmp_path / "out")
    for page in (built.markdown, built.html):
        assert "bad.json" in page.read_text()
        assert str(tmp_path) not in page.read_text()


def test_reports_of_studies_lie_among_results_and_are_none(build_result, tmp_path):
    write_result(build_result(), tmp_path)
    (tmp_path / "table3@1").mkdir()
    (tmp_path / "table3@1" / "study.json").write_text('{"suite": "table3@1"}')
    found = collect([tmp_path])
    assert (len(found.results), found.broken) == (1, ())


def test_figures_of_a_study_are_copied_and_linked(build_result, tmp_path):
    result = build_result()
    suite = result.key.suite
    for folder, text in (("own", "newer"), ("published", "older")):
        write_result(result, tmp_path / folder)
        page = tmp_path / folder / suite / "figures" / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(text)
    stranger = tmp_path / "own" / "other@1" / "figures"
    stranger.mkdir(parents=True)
    (stranger / "index.html").write_text("of a suite without results")
    stale = tmp_path / "out" / "figures" / suite / "99.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    (tmp_path / "out" / "index.html").write_text(MARK)
    built = build_leaderboard([tmp_path / "own", tmp_path / "published"], tmp_path / "out")
    assert (tmp_path / "out" / "figures" / suite / "index.html").read_text() == "newer"
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == [suite] and not stale.exists()
    for page in (built.markdown, built.html.parent / "suites" / f"{suite}.html"):
        assert f"figures/{suite}/index.html" in page.read_text()


def test_folders_that_are_no_leaderboards_are_left_alone(build_result, tmp_path):
    write_result(build_result(), tmp_path / "results")
    own = tmp_path / "out" / "methods" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(ArtifactError, match="methods' is not a leaderboard's"):
        build_leaderboard([tmp_path / "results"], tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("my page")
    with pytest.raises(ArtifactError, match=r"index\.html' is not a leaderboard's"):
        build_leaderboard([tmp_path / "results"], tmp_path / "other")
    assert own.read_text() == "mine" and not (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"rank_agreement": {"gaze": {"tau": null}}, "rows": []}', '{"rows": [{}]}', "[" * 100_000]
)
def test_a_study_that_cannot_be_read_says_nothing_and_stops_nothing(build_result, tmp_path, text):
    write_result(build_result(), tmp_path / "results")
    (tmp_path / "results" / "main@1" / "study.json").write_text(text)
    built = build_leaderboard([tmp_path / "results"], tmp_path / "out")
    assert "The study" in (built.html.parent / "suites" / "main@1.html").read_text()


def test_a_failure_is_told_until_the_method_has_a_result(build_result, tmp_path):
    write_result(build_result(), tmp_path)
    told = {"suite": "main@1", "method": "acme/x + pooling", "stage": "training", "command": "ufe bench"}
    for day, cause in (("03", "RuntimeError: later"), ("02", "RuntimeError: earlier")):
        failure = Failure(cause=cause, created=f"2026-01-{day}T00:00:00Z", **told)
        record_failure(failure, tmp_path / day)
    (tmp_path / "03" / "main@1" / "failures" / "cut.json").write_text('{"schema"')
    folders = [tmp_path, tmp_path / "02", tmp_path / "03"]
    found = collect([tmp_path / "02", tmp_path / "03"])
    assert [failure.cause for failure in found.failures] == ["RuntimeError: later"]
    assert [item.path for item in found.broken] == ["main@1/failures/cut.json"]
    built = build_leaderboard(folders, tmp_path / "out")
    for page in (built.markdown, built.html, built.html.parent / "suites" / "main@1.html"):
        assert "RuntimeError: later" in page.read_text()
    made = build_result("acme/x", "ufe/pooling").model_copy(update={"command": "ufe bench"})
    write_result(made, tmp_path / "made")
    assert collect([tmp_path / "02", tmp_path / "made"]).failures == (), "the same command made a result elsewhere"
    for day in ("02", "03"):
        forget_failure(tmp_path / day, "main@1", "acme/x + pooling", "ufe bench")
    assert collect([tmp_path / "02", tmp_path / "03"]).failures == ()


def test_golden_results_give_the_golden_leaderboard(tmp_path):
    built = build_leaderboard([GOLDEN / "results"], tmp_path)
    assert (built.results, built.broken) == (3, ())
    assert built.markdown.read_text() == (GOLDEN / "LEADERBOARD.md").read_text()


class Page(HTMLParser):
    """Collects what a page would fetch, its ids, its links, and tags left open."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, html):
        super().__init__()
        self.fetched, self.ids, self.links, self.open, self.html = [], [], [], [], html
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "a":
            self.links.append(attributes["href"])
        else:
            self.fetched += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def pages(results):
    study = StudyReport(
        {"mesh_l2": RankAgreement(0.5, (0.1, 0.9), 4)}, {"Bad row": "ContractError: no"},
        {"The usual way": results[0].run_id, "Without anchors": results[1].run_id, "Gone": "0" * 12},
        "figures/main@1.png",
    )  # fmt: skip
    extras = Extras(studies={"main@1": study})
    return {path: Page(html) for path, html in render_pages(build_board(results), extras).items()}


def test_there_is_a_page_for_each_suite_and_method(pages):
    methods = ["acme__half", "ufe__mean", "ufe__neutral", "ufe__univ__late_fusion", "ufe__univ__none"]
    assert sorted(pages) == [
        "index.html", *(f"methods/{name}.html" for name in methods), "paper.html", "suites/main@1.html"
    ]  # fmt: skip


def test_pages_fetch_nothing_but_their_pictures(pages):
    for path, page in pages.items():
        pictures = ["../figures/main@1.png"] if path.startswith("suites/") else []
        assert page.fetched == ["data:,", *pictures]
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page.html)


def test_pages_are_well_formed_and_their_links_arrive(pages):
    for path, page in pages.items():
        assert page.open == []
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            if link.startswith("https://"):
                assert link == f"https://doi.org/{load_paper().doi}"
                continue
            target, _, place = link.partition("#")
            there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else path
            assert there in pages, f"{path} leads to {link}"
            assert not place or place in pages[there].ids, f"{path} leads to {link}"


def test_pages_say_what_a_screen_reader_needs(pages):
    assert all('<html lang="en">' in page.html and "prefers-color-scheme: dark" in page.html for page in pages.values())
    suite = pages["suites/main@1.html"].html
    assert suite.count('aria-sort="ascending"') == 1
    assert 'role="img" aria-label="Mesh L2 of every subject, by method"' in suite
    assert "not ranked: subject &#39;S000&#39; failed on 2 of 24 frames" in suite


def test_a_suites_page_has_the_papers_numbers_and_what_the_study_found(pages):
    suite = pages["suites/main@1.html"].html
    assert "paper 1.071" in suite and "paper 4.98" in suite
    assert "Mesh L2 0.50 [0.10, 0.90] over 4 rows" in suite
    assert "Bad row has no result: ContractError: no" in suite


def test_the_index_shows_a_studys_rows_by_their_titles_best_first(pages):
    index = pages["index.html"].html
    assert 0 < index.index("Without anchors") < index.index("The usual way") and "Gone" not in index


def test_a_methods_page_says_how_to_make_it_again(pages, results):
    page = pages["methods/ufe__univ__late_fusion.html"].html
    for expected in (results[0].command, results[0].key.weights.sha256, "rank 2 of 2", "Person by person"):
        assert expected in page


def test_a_methods_page_shows_the_search_and_what_failed_of_it(build_result):
    trials = (
        Trial(training={"learning_rate": 0.001}, score=1.25, metrics={"mesh_l2": 0.5}, weights="w"),
        Trial(training={"learning_rate": 0.1}, score=None, failure="the loss is <not> finite"),
    )
    result = build_result().model_copy(update={"trials": trials})
    page = render_pages(build_board([result]), Extras())["methods/ufe__univ__late_fusion.html"]
    assert "2 trials on training people alone" in page and "1.2500" in page
    assert "failed: the loss is &lt;not&gt; finite" in page


def test_a_methods_page_shows_every_person_beside_the_floors(build_result):
    method, floor = build_result(), build_result("ufe/mean", None, budget="none", mesh=(2, 2, 3, 3))
    page = render_pages(build_board([method, floor]), Extras())["methods/ufe__univ__late_fusion.html"]
    figure = page[page.index("<figure") : page.index("</figure>")]
    assert figure.count("<svg") == len(method.metrics)
    for result in (method, floor):
        for person, value in result.values("mesh_l2").items():
            assert re.search(rf"<title>{person}: {value:.3f}\b", figure)


def test_the_slices_and_people_of_a_suite_stand_side_by_side(build_result):
    result = build_result()
    parts = {"segment:speech": {"mesh_l2": 0.25}, "light:dark_room": {"mesh_l2": 0.75}}
    subjects = tuple(subject.model_copy(update={"slices": parts}) for subject in result.subjects)
    page = suite_page(build_board([result.model_copy(update={"subjects": subjects})]))
    table = page[page.index("By segment and condition") : page.index("By person")]
    assert re.findall(r"<button type=\"button\">([^<]*)", table)[-3:] == ["Method", "dark room", "speech"]
    cells = re.findall(r'style="--shade:(\d+)%">([^<]*)', table)
    assert cells == [("100", "0.750"), ("0", "0.250")]


def test_pages_escape_what_results_say(build_result):
    for html in render_pages(build_board([build_result(device="<script>alert(1)</script>")]), Extras()).values():
        assert "<script>alert" not in html


def test_unknown_cost_is_a_dash_and_never_zero(build_result):
    text = render_markdown(build_board([build_result(latency=None, parameters=None)]))
    row = next(line for line in text.splitlines() if "univ + late_fusion" in line)
    assert [cell.strip() for cell in row.split("|")][-4:-2] == ["–", "–"]


def test_empty_leaderboard_still_has_the_paper(tmp_path):
    built = build_leaderboard([tmp_path], tmp_path / "out")
    assert "No results yet" in built.markdown.read_text()
    assert "No results yet" in built.html.read_text()
    assert "Ours w/o SSL" in (built.html.parent / "paper.html").read_text()


def test_paper_row_stands_beside_the_calibrated_encoder_only():
    row = paper_row("ufe/univ", "ufe/late_fusion")
    assert row is not None
    assert (row.method, row.values["mesh_l2"], row.values["gaze"]) == ("Ours w/o SSL", 1.071, 5.25)
    first = paper_row("ufe/univ", "ufe/late_fusion", "ufe/mae_novel_view")
    linear = paper_row("ufe/univ", "ufe/late_fusion", "ufe/mae_novel_view", "linear")
    assert (first.values["mesh_l2"], linear.values["mesh_l2"]) == (1.023, 1.169)
    assert paper_row("ufe/univ", "ufe/none") is None
    assert paper_row("acme/univ", None) is None
    assert set(row.values) == set(METRIC_NAMES)


def test_paper_tables_repeat_a_row_with_equal_numbers():
    tables = load_paper().tables
    first = {row.id: row.values for row in tables["table1"].rows}
    for table, row_id, same in (
        ("table3", "late_fusion", "paper_no_ssl"),
        ("table4", "no_ssl", "paper_no_ssl"),
    ):
        row = next(row for row in tables[table].rows if row.id == row_id)
        assert all(first[same][name] == value for name, value in row.values.items())


@pytest.mark.parametrize("width", [80, 140])
def test_run_table_shows_every_number_at_any_width(results, width):
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as capture:
        print_run(console, results[0], floors=results[3:])
    text = capture.get()
    for expected in ("1.000", "2.000", "0.50 ×", "1.071", "Ours w/o SSL", "neutral", "4.00", "p99 6.00"):
        assert expected in text
    assert "…" not in text


def test_run_table_tells_the_detector_s_time_apart(build_result):
    result = build_result(latency=(4.0, 6.0))
    cost = result.cost.model_copy(update={"detect_ms": Latency(p50=20.0, p99=25.0, runs=200)})
    console = Console(width=80)
    with console.capture() as capture:
        print_run(console, result.model_copy(update={"cost": cost}))
    text = capture.get()
    for expected in ("24.0", "encoder 4.00, p99 6.00", "detector 20.0, p99 25.0"):
        assert expected in text


def test_run_table_names_the_reason_for_no_rank(results):
    console = Console(width=140)
    with console.capture() as capture:
        print_run(console, results[2])
    assert "Not ranked on 'main@1': subject 'S000' failed on 2 of 24 frames." in capture.get()


def test_ticks_are_round_and_cover_the_range():
    assert plots.ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert plots.ticks(-0.5, 0.0) == [-0.5, -0.4, -0.3, -0.2, -0.1, 0.0]
    spans = [(0.0, 0.37), (0.91, 1.13), (0.0, 12345.0), (2.0, 2.0)]
    spans += [(-0.37, 0.0), (-3.0, 7.0), (-2.0, -2.0), (0.0, 1e-14)]
    for low, high in spans:
        marks = plots.ticks(low, high)
        assert marks[0] <= low
        assert marks[-1] >= high
        assert 2 <= len(marks) <= 8
        assert marks == sorted(set(marks))


VALUES = [(0.5, 2.0), (-2.0, -0.5), (-1.0, -1.0), (-3.0, 7.0), (0.0, 0.0), (-1e-14, 0.0)]


def horizontals(svg):
    """Every x in a plot, px of its view box."""
    return [float(found) for found in re.findall(r' (?:x|x1|x2|cx)="([^"]+)"', svg)]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_no_dot_leaves_its_plot_whatever_the_signs(values):
    low, high = values
    mean, people = (low + high) / 2, {"S000": low, "S001": high}
    svg = plots.dot_plot([plots.DotRow("a", people, mean, (low, high))], label="Score", unit=None)
    assert len(re.findall("<circle", svg)) == 2
    assert all(0 <= x <= plots.WIDTH for x in horizontals(svg))
    if low < high:
        assert len(set(re.findall(r'cx="([^"]+)"', svg))) == 2
    assert all(0 <= x <= 100 for x in horizontals(plots.strip(mean, values, (low, high))))


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_no_point_leaves_its_scatter_plot_whatever_the_signs(values):
    points = [
        plots.Point(k, name, k, value, (value, value)) for k, name, value in zip((1, 2), "ab", values, strict=True)
    ]
    svg = plots.scatter(points, label="Error", unit=None)
    across, down = (re.findall(rf'<circle class="point"[^>]* {axis}="([^"]+)"', svg) for axis in ("cx", "cy"))
    assert all(50 <= float(x) <= plots.WIDTH for x in across) and all(18 <= float(y) <= 284 for y in down)


def test_a_strip_shares_its_axis_with_the_column():
    def ends(ci95, span):
        svg = plots.strip(sum(ci95) / 2, ci95, span)
        line = re.search(r'class="ci" x1="([^"]+)" x2="([^"]+)"', svg)
        return float(line[1]), float(line[2])

    assert ends((1.0, 2.0), (1.0, 4.0)) == (25.0, 50.0), "from 0"
    assert ends((-4.0, -3.0), (-4.0, -1.0)) == (0.0, 25.0), "to 0"
    assert ends((-1.0, 1.0), (-1.0, 3.0)) == (0.0, 50.0)


@pytest.mark.parametrize("mesh", [(-2.0, -1.5, -1.0, -0.25), (-1.0, -0.5, 0.25, 3.0)])
def test_a_score_may_be_negative(build_result, mesh):
    score = {"score": MetricInfo(label="Score", unit=None, higher_is_better=True)}
    runs = [
        build_result(f"acme/{name}", None, metrics=score, values={"score": [v + shift for v in mesh]})
        for name, shift in (("a", 0.0), ("b", 0.125), ("c", -0.5))
    ]
    board = build_board(runs)
    assert [name for _, name in names(board[0].groups[0])] == ["acme/b", "acme/a", "acme/c"]
    page = suite_page(board)
    strips = re.findall(r'<svg class="strip".*?</svg>', page)
    assert len(strips) == 3 and len({re.search('class="mean".*', one)[0] for one in strips}) == 3
    assert all(0 <= x <= 100 for one in strips for x in horizontals(one))


def test_pareto_front_drops_what_is_beaten_on_both():
    a, b, c = (plots.Point(1, n, x, y, (y, y)) for n, x, y in (("a", 1, 3), ("b", 2, 2), ("c", 3, 2.5)))
    assert plots.pareto([c, b, a]) == [a, b]


def test_numbers_are_printed_as_in_the_paper():
    assert [formats.number(1.0714), formats.number(5.254, "deg"), formats.number(None)] == [
        "1.071",
        "5.25",
        "–",
    ]
    assert [formats.count(n) for n in (None, 0, 950, 1_518_406)] == ["–", "0", "950", "1.5 M"]
    assert [formats.milliseconds(n) for n in (None, 4.984, 11.31, 250.4)] == ["–", "4.98", "11.3", "250"]


def test_command_writes_both_files_and_says_where(build_result, tmp_path):
    write_result(build_result(), tmp_path / "results")
    (tmp_path / "results" / "bad.json").write_text("{")
    arguments = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(leaderboard, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.split() == [str(tmp_path / "out" / n) for n in ("LEADERBOARD.md", "index.html")]
    assert "bad.json" in outcome.stderr
    told = json.loads(CliRunner().invoke(leaderboard, [*arguments, "--json"]).stdout)
    assert (told["results"], [item["path"] for item in told["broken"]]) == (1, ["bad.json"])


def test_command_reads_and_writes_below_ufe_home_by_default(build_result, tmp_path, monkeypatch):
    monkeypatch.setenv("UFE_HOME", str(tmp_path))
    write_result(build_result(), tmp_path / "results")
    outcome = CliRunner().invoke(leaderboard, [])
    assert outcome.exit_code == 0, outcome.output
    assert (
        load_result(next((tmp_path / "results").rglob("*.json"))).run_id
        in (tmp_path / "leaderboard" / "LEADERBOARD.md").read_text()
    )


def test_importing_the_command_is_light():
    code = "import sys, ufe_bench.cli; print({'torch', 'matplotlib', 'numpy', 'pydantic'} & sys.modules.keys())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"
