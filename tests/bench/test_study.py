"""Studies: rows as requests, their numbers side by side with the paper's, and what fails alone."""

import shlex
from dataclasses import replace

import numpy as np
import pytest

from ufe_bench.harness import Outcome
from ufe_bench.paper import load_paper
from ufe_bench.request import Request
from ufe_bench.schema import Trial
from ufe_bench.study import Cell, Study, _time_left, run_study
from ufe_bench.study_picture import draw
from ufe_bench.study_report import as_json, markdown, write_report
from ufe_bench.study_rows import chosen_rows, refuse_what_fits_no_row, request_of, that_fit, variant_of, with_steps
from ufe_bench.suite import SuiteRow, load_suite
from ufe_core.cli.main import main
from ufe_core.config import parse_overrides
from ufe_core.errors import ConfigError, DataError, RegistryError
from ufe_core.plugins import catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, resolve_recipe

STUDIES = ("table1", "table2", "table3", "table4", "fig8", "given", "fig19", "robustness")


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_is_a_recipe_and_stands_beside_a_row_of_the_paper(name):
    suite = load_suite(name)
    table = load_paper().tables.get(suite.paper or "")
    recipes = {}
    for row in suite.rows:
        request = request_of(suite, row, with_steps(suite, {}, "cpu"))
        recipes[row.name] = resolve_recipe(
            catalogue(), encoder=request.encoder, calibrator=request.calibrator, pretraining=request.pretraining,
            anchors=request.anchors, overrides=request.overrides,
        ).describe() | {"enrolment": request.enrolment}  # fmt: skip
        assert request.train == suite.train and (row.paper is None or row.paper in {each.id for each in table.rows})
    assert len({str(sorted(recipe.items(), key=str)) for recipe in recipes.values()}) == len(suite.rows), "all differ"
    if table is not None:
        assert {row.paper for row in suite.rows} >= {each.id for each in table.rows}, "no row of the paper is left out"


def test_a_rows_options_go_before_the_users():
    suite = load_suite("table2")
    row = next(row for row in suite.rows if row.name == "code_loss")
    request = request_of(suite, row, {"training": {"steps": 7, "code": 3.0}}, budget="smoke")
    assert request.overrides == {"training": {"steps": 7, "code": 1.0, "photometric": 0.0, "geometry": 0.0}}
    assert request.budget == "smoke" and request.anchors == DEFAULT_ANCHORS
    three = next(row for row in load_suite("fig8").rows if row.name == "anchors_3")
    assert request_of(suite, three, {}).anchors == DEFAULT_ANCHORS[:3]


def test_what_all_rows_share_stands_behind_the_users_options_and_a_rows_own():
    rows = [{"name": "a", "title": "A"}, {"name": "b", "title": "B", "set": {"training": {"frames": 9}}}]
    shared = {"training": {"frames": 3, "own_instants": True}, "encoder": {"fuse_width": 8}}
    suite = type(load_suite("table2")).model_validate(
        load_suite("table2").model_dump() | {"rows": rows, "base": "a", "set": shared}
    )
    one, other = suite.rows
    plain = request_of(suite, one, {})
    assert plain.overrides == shared and "--set" not in plain.command()
    asked = {"training": {"own_instants": False, "seed": 1}}
    given = request_of(suite, other, asked)
    assert given.overrides == {
        "training": {"frames": 9, "own_instants": False, "seed": 1}, "encoder": {"fuse_width": 8}
    }  # fmt: skip
    words = shlex.split(given.command())
    assert [words[k + 1] for k, word in enumerate(words) if word == "--set"] == [
        "training.own_instants=false", "training.seed=1"
    ]  # fmt: skip


def test_options_in_a_command_are_read_as_what_they_are():
    values = {"a": True, "b": None, "c": [1, 2.5], "d": 1e-6, "e": "plain", "f": "3", "g": {"k": "v"}, "h": "true"}
    request = Request(suite=load_suite("main"), overrides={"encoder": values})
    words = shlex.split(request.command())
    said = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    assert parse_overrides(said, owners=("encoder",)) == {"encoder": values}


def test_rows_take_the_suites_steps_where_the_user_says_none():
    suite = load_suite("fig8")
    assert with_steps(suite, {}, "cpu") == {"training": {"steps": suite.steps["cpu"]}}
    assert with_steps(suite, {"training": {"steps": 7, "seed": 1}}, "cpu") == {"training": {"steps": 7, "seed": 1}}
    assert with_steps(suite, {"encoder": {"width": 3}}, "smoke") == {"encoder": {"width": 3}}


def test_a_row_is_given_the_options_that_it_knows():
    """A pre-training's own where another row's has none of that name; a detector's where anything needs one."""
    suite = load_suite("table4")
    options = {
        "pretraining": {"people": 9, "weights": "mine", "file": "theirs", "temperature": 0.2},
        "detector": {"weights": "mine"}, "training": {"steps": 3},
    }  # fmt: skip

    def given(name):
        return that_fit(catalogue(), suite.row(name), suite, options)

    assert given("none") == {"training": {"steps": 3}}
    assert given("imagenet")["pretraining"] == {"file": "theirs"} and "detector" not in given("imagenet")
    assert given("simclr")["pretraining"] == {"people": 9, "weights": "mine", "temperature": 0.2}
    novel = given("mae_novel_view")
    assert novel["pretraining"] == {"people": 9, "weights": "mine"} and novel["detector"] == {"weights": "mine"}
    unknown = that_fit(catalogue(), suite.row("simclr"), suite, {"pretraining": {"peopel": 9}})
    assert unknown == {"pretraining": {"peopel": 9}}, "what no row knows is refused where it is used"


@pytest.mark.parametrize("budget", ["smoke", "cpu", "gpu"])
def test_the_second_seed_of_table4_pretrains_anew_and_the_third_shares_the_first_ones(budget):
    suite = load_suite("table4")

    def first_of(name):
        row = suite.row(name)
        options = request_of(suite, row, {}).options
        return resolve_recipe(catalogue(), pretraining=row.pretraining, budget=budget, overrides=options).pretraining

    repeating = [row for row in suite.rows if row.repeats is not None and row.pretraining is not None]
    assert len(repeating) == 6
    for row in repeating:
        assert (first_of(row.name) == first_of(row.repeats)) is row.name.endswith("_third")


def test_an_unknown_row_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'table3@3' has no row 'poolin'. Did you mean 'pooling'\?"):
        chosen_rows(load_suite("table3"), ["poolin"])


MESH = {"none": 1.3, "self_attention": 1.0, "cross_attention": 0.95, "early_fusion": 1.2, "pooling": 1.1,
        "late_fusion": 0.9,
        "late_fusion_plain": 0.925, "late_fusion_again": 0.975}  # fmt: skip


@pytest.fixture
def table3(build_result):
    """A study whose rows have these means, a little different on each of eight people; each is a method of its own."""
    suite = load_suite("table3")
    rows = tuple(row.model_copy(update={"repeats": None}) for row in suite.rows if row.name in MESH)
    suite = suite.model_copy(update={"rows": rows})
    rng = np.random.default_rng(0)
    people = 0.05 * rng.normal(size=8)

    def result(row):
        values = MESH[row.name] + people + 0.01 * rng.normal(size=8)
        return build_result(calibrator=f"ufe/{row.calibrator}", mesh=values.tolist(), suite=suite.id)

    cells = tuple(Cell(row, result(row)) for row in suite.rows)
    return Study(suite, cells, ())


def test_the_page_has_ours_the_papers_differences_and_agreement(table3):
    page = markdown(table3)
    lines = page.splitlines()
    late = next(i for i, line in enumerate(lines) if line.startswith("| Late fusion"))
    assert "0.9" in lines[late] and lines[late + 1].startswith("| - the paper") and "1.071" in lines[late + 1]
    plain = next(i for i, line in enumerate(lines) if line.startswith("| No calibration"))
    assert not lines[plain + 1].startswith("| - the paper"), "the paper prints no such row"
    difference = next(line for line in lines[late + 2 :] if line.startswith("| No calibration"))
    assert difference.count("**") >= 2 and "+0.389" in difference
    # Ours: late < cross < self < pooling < early; the paper's: late < pooling < cross < early < self.
    agreement = table3.agreement("mesh_l2")
    assert agreement.tau == pytest.approx((7 - 3) / 10) and agreement.rows == 5
    assert f"tau {agreement.tau:.2f}" in page


def test_neighbours_are_compared_best_first(table3):
    order = table3.ranking("mesh_l2")
    assert [cell.row.name for cell, _ in order] == sorted(MESH, key=MESH.__getitem__)
    assert all(step.is_clear and step.mean < 0 for _, step in order[:-1]) and order[-1][1] is None
    same = tuple(Cell(cell.row, table3.cells[0].result) for cell in table3.cells)
    page = markdown(Study(table3.suite, same, ()))
    line = next(line for line in page.splitlines() if line.startswith("- Mesh L2"))
    assert line.count("≈") == len(same) - 1 and "**<**" not in line
    assert markdown(table3).count("**<**") >= len(same) - 1


def test_a_hypothetical_row_takes_no_rank(table3):
    given = next(cell for cell in table3.cells if cell.row.name == "late_fusion")
    best = Cell(given.row, given.result.model_copy(update={"hypothetical": True}))
    study = Study(table3.suite, tuple(best if cell is given else cell for cell in table3.cells), ())
    assert "late_fusion" not in [cell.row.name for cell, _ in study.ranking("mesh_l2")]
    assert study.agreement("mesh_l2").rows == table3.agreement("mesh_l2").rows - 1
    assert "| Late fusion" in markdown(study)


def test_a_person_whom_one_row_could_not_measure_is_left_out_of_comparisons(table3):
    last = table3.cells[-1]
    fewer = last.result.model_copy(update={"subjects": last.result.subjects[:-1]})
    study = Study(table3.suite, (*table3.cells[:-1], Cell(last.row, fewer)), ())
    assert study.agreement("mesh_l2").rows == table3.agreement("mesh_l2").rows
    assert study.against_base(study.cells[-1], "mesh_l2").subjects == 7
    assert "Agreement of the rows' order" in markdown(study)


def test_rows_that_share_nobody_have_no_order_and_still_a_page(table3):
    def only(cell, kept):
        return Cell(cell.row, cell.result.model_copy(update={"subjects": kept}))

    apart = [only(cell, cell.result.subjects[k % 2 :: 2]) for k, cell in enumerate(table3.cells)]
    study = Study(table3.suite, tuple(apart), ())
    assert study.agreement("mesh_l2") is None and "Agreement of the rows' order" not in markdown(study)


def of_seeds(build_result, means, *, claims=(), people=8):
    """A study of table4 whose rows have these means, those that repeat another one among them."""
    suite = load_suite("table4").model_copy(update={"claims": claims})
    rng = np.random.default_rng(1)
    own = 0.05 * rng.normal(size=people)

    def result(name):
        return build_result(mesh=(means[name] + own + 0.001 * rng.normal(size=people)).tolist(), suite=suite.id)

    return Study(suite, tuple(Cell(suite.row(name), result(name)) for name in means), ())


def test_seeds_of_a_method_are_one_method_in_comparisons(build_result):
    study = of_seeds(build_result, {"none": 1.0, "mae_novel_view": 0.9, "none_again": 1.2, "none_third": 1.1})
    assert [cell.row.name for cell in study.methods] == ["none", "mae_novel_view"]
    difference = study.against_base(study.cells[1], "mesh_l2")
    assert difference.mean == pytest.approx(-0.2, abs=0.01) and difference.subjects == 8
    assert [study.against_base(cell, "mesh_l2") for cell in (study.cells[0], *study.cells[2:])] == [None] * 3
    assert [cell.row.name for cell, _ in study.ranking("mesh_l2")] == ["mae_novel_view", "none"]
    page = markdown(study)
    line = next(line for line in page[page.index("## Seeds") :].splitlines() if line.startswith("| No pre-training"))
    assert "| 3 |" in line.replace("  ", "") and "1.0" in line and "1.2" in line


def test_seeds_after_one_pretraining_are_told_of(build_result):
    def told(*begun):
        study = of_seeds(build_result, {"none": 1.0, "none_again": 1.1, "simclr": 0.9, "simclr_again": 1.0})
        cells = [
            replace(cell, result=cell.result.model_copy(update={"training": cell.result.training.model_copy(
                update={"pretraining": {"sha256": first}})})) if first else cell
            for cell, first in zip(study.cells, begun, strict=True)
        ]  # fmt: skip
        return markdown(replace(study, cells=tuple(cells)))

    line = "after fewer pre-trainings than there are seeds: SimCLR (2 seeds, 1 pre-trained)."
    assert line in told(None, None, "one", "one")
    assert "fewer pre-trainings" not in told(None, None, "one", "other") + told(None, None, None, None)


def test_one_seed_of_several_that_contradicts_makes_a_difference_unclear(build_result):
    """Over people alone it would be clear either way."""
    one = of_seeds(build_result, {"none": 1.0, "mae_novel_view": 0.9})
    assert one.against_base(one.cells[1], "mesh_l2").is_clear
    several = of_seeds(
        build_result,
        {"none": 1.0, "mae_novel_view": 0.9, "none_again": 0.8, "none_third": 1.05, "mae_novel_view_again": 1.0},
    )
    found = several.against_base(several.cells[1], "mesh_l2")
    assert not found.is_clear and found.ci95[1] - found.ci95[0] > 0.1


def test_rows_with_a_base_of_their_own_are_compared_with_that_and_take_no_rank(build_result):
    study = of_seeds(
        build_result,
        {"none": 1.0, "simclr": 1.1, "none_wide": 0.5, "imagenet": 0.6, "random_linear": 3.0,
         "mae_novel_view_linear": 2.0},
    )  # fmt: skip
    found = {cell.row.name: study.against_base(cell, "mesh_l2") for cell in study.cells}
    assert found["imagenet"].mean == pytest.approx(0.1, abs=0.01)
    assert found["mae_novel_view_linear"].mean == pytest.approx(-1.0, abs=0.01)
    assert [cell.row.name for cell, _ in study.ranking("mesh_l2")] == ["none", "simclr"]
    page = markdown(study)
    assert "Difference to the row named beside it" in page
    assert any(
        line.startswith("| ImageNet weights") and "| No pre-training, that" in line for line in page.splitlines()
    )


def test_what_the_paper_says_is_put_to_the_test(build_result):
    claims = load_suite("table4").claims
    study = of_seeds(
        build_result, {"none": 1.0, "simclr": 1.0, "mae_original_view": 1.2, "mae_novel_view": 0.8}, claims=claims
    )
    page = markdown(study)
    said = page[page.index("## What the paper says") :].splitlines()
    verdicts = {line.split("|")[1].strip(): line.rstrip(" |").rpartition(", ")[2] for line in said if "%)," in line}
    assert verdicts["Masked novel views than no pre-training (Table 4)"] == "holds"
    assert verdicts["Masked original views than no pre-training (Table 4)"] == "fails"
    assert not any("linear" in says for says in verdicts), "what has no result is not tested"
    told = {(one["better"], one["worse"]): one["differences"]["mesh_l2"] for one in as_json(study)["claims"]}
    assert told["mae_novel_view", "none"]["mean"] == pytest.approx(-0.2, abs=0.01)


def test_a_claim_of_lines_is_tested_at_each_point(build_result):
    suite = load_suite("fig19")
    cells = [
        Cell(row, build_result(mesh=[1.0 + (0.1 if row.at < 30 else -0.1) * row.name.startswith("univ_ssl")] * 3))
        for row in suite.rows if row.series.startswith("Universal") and row.at in (8, 234)
    ]  # fmt: skip
    study = Study(suite, tuple(cells), ())
    assert study.claimed(suite.claims[0]) == [("8", "univ_ssl_8", "univ_8"), ("234", "univ_ssl_234", "univ_234")]
    page = markdown(study)
    assert suite.claims[0].says in page and suite.claims[1].says not in page
    lines = page[page.index("## What the paper says") :].splitlines()
    assert "fails" in next(line for line in lines if line.startswith("| 8"))
    assert "holds" in next(line for line in lines if line.startswith("| 234"))


def test_what_rows_read_is_a_column_where_they_differ_with_the_papers_below(table3):
    cells = tuple(
        Cell(cell.row, cell.result, inputs=("images", "keypoints") if k else ("images",))
        for k, cell in enumerate(table3.cells)
    )
    assert "Reads" not in markdown(table3)
    said = replace(cells[0], row=cells[0].row.model_copy(update={"reads": "nothing of note"}))
    page = markdown(Study(table3.suite, (said, *cells[1:]), ())).splitlines()
    head = next(line for line in page if line.startswith("| Row"))
    row = next(line for line in page if line.startswith("| Late fusion"))
    column = [part.strip() for part in head.split("|")].index("Reads")
    told = [[part.strip() for part in line.split("|")][column] for line in page[page.index(row) :][:2]]
    assert told == ["images, keypoints", "raw img"]
    assert [part.strip() for part in page[page.index(head) + 2].split("|")][column] == "nothing of note"
    assert {line.count("|") for line in page[page.index(head) : page.index(head) + 8]} == {head.count("|")}


def test_the_page_says_how_each_rows_options_were_chosen(table3):
    def tried(*scores):
        return tuple(
            Trial(training={"learning_rate": rate}, score=score, metrics={}, weights="w")
            for rate, score in zip((1e-3, 2e-3, 4e-3), scores, strict=True)
        )

    failed = Trial(training={"learning_rate": 1e-3}, score=None, failure="it diverged")
    inner, outer, *rest = table3.cells
    cells = [
        Cell(cell.row, cell.result.model_copy(update={"trials": trials}))
        for cell, trials in ((inner, tried(1.3, 1.2, 1.25)), (outer, (failed, *tried(1.0, 0.9, 0.8)[1:])))
    ]
    assert "search" not in markdown(table3)
    page = markdown(Study(table3.suite, (*cells, *rest), ()))
    lines = page[page.index("## The search for training options") :].splitlines()
    assert "1 of 2 rows chose the first or the last of what was tried" in lines[2]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert table[0] == ["Row", "learning rate 0.001", "learning rate 0.002", "learning rate 0.004"]
    assert table[2] == [inner.row.title, "1.300", "**1.200**", "1.250"]
    assert table[3] == [outer.row.title, "failed", "0.900", "**0.800**"]


def test_a_row_without_a_result_is_named_and_the_others_stay(table3):
    cells = (Cell(table3.cells[0].row, None, error="the disk is full"), *table3.cells[1:])
    page = markdown(Study(table3.suite, cells, ()))
    assert "- No calibration: the disk is full" in page and "| Late fusion" in page
    assert as_json(Study(table3.suite, cells, ()))["rows"][0]["error"] == "the disk is full"


def test_the_picture_and_the_files(table3, tmp_path):
    path = write_report(table3, tmp_path / "table3@3")
    assert path == tmp_path / "table3@3" / "study.md"
    assert (path.parent / "study.png").read_bytes().startswith(b"\x89PNG")
    assert "![" in path.read_text() and (path.parent / "study.json").is_file()
    assert draw(Study(table3.suite, (), ())) is None
    along = load_suite("fig8")
    rows = tuple(Cell(row, table3.cells[0].result) for row in along.rows)
    assert draw(Study(along, rows, ())).startswith(b"\x89PNG")


def test_no_report_gives_way_to_one_without_a_result(table3, tmp_path):
    write_report(table3, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    nothing = tuple(Cell(cell.row, None, error="no such option") for cell in table3.cells)
    assert write_report(Study(table3.suite, nothing, ()), tmp_path) is None
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert write_report(Study(table3.suite, nothing, ()), tmp_path / "new") is None and not (tmp_path / "new").exists()


def test_a_report_of_other_options_has_a_folder_called_by_them():
    suite = load_suite("table3")
    assert variant_of(suite, {}) == variant_of(suite, {}, budget="cpu", decoder="upm", source="synthetic") == ""
    options = {"training": {"steps": 50, "seed": 1}}
    assert variant_of(suite, options, budget="smoke") == "study_smoke_training.seed=1_training.steps=50"
    paths = [variant_of(suite, {"encoder": {"file": name}}) for name in ("../a", "-./a", "a" * 300, "a" * 301)]
    assert len(set(paths)) == 4 and all("/" not in name and len(name) < 140 for name in paths)


@pytest.mark.parametrize(
    ("options", "folder", "told"),
    [
        ((), ".", "table3@3/study.md"), (("--budget", "smoke"), "study_smoke", "the default options stays as it is"),
        (("--set", "training.steps=50"), "study_training.steps=50", "the default options stays as it is"),
        (("--row", "pooling"), None, "not written: it is made of all rows"),
    ],
    ids=["default", "budget", "set", "row"],
)  # fmt: skip
def test_a_quick_try_leaves_the_report_of_the_default(table3, tmp_path, monkeypatch, ufe, options, folder, told):
    monkeypatch.setattr("ufe_bench.study.run_study", lambda *given, **asked: table3)
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "home"))
    report = tmp_path / "table3@3" / "study.md"
    report.parent.mkdir()
    report.write_text("of the default")
    code, out, _ = ufe("bench", "--suite", "table3", "--out", tmp_path, *options)
    assert code == 0 and told in out
    assert (report.read_text() == "of the default") is (folder != ".")
    written = [file.parent for file in tmp_path.rglob("study.json")]
    assert written == ([] if folder is None else [report.parent / folder])


@pytest.mark.parametrize(
    ("option", "said"),
    [("training.stepz=5", "'stepz'"), ("calibrator.widht=5", "'widht'"), ("encoder.backbone=resnet18x", "resnet18x")],
)
def test_a_typo_ends_a_study_before_anything_is_made(tmp_path, monkeypatch, ufe, option, said):
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "home"))
    report = tmp_path / "table3@3" / "study.md"
    report.parent.mkdir()
    report.write_text("of before")
    code, out, err = ufe("bench", "--suite", "table3", "--out", tmp_path, "--set", option)
    assert code == 1 and not out and said in err and err.count("\n") == 1
    assert [file for file in tmp_path.rglob("*") if file.is_file() and "home" not in file.parts] == [report]
    assert not list((tmp_path / "home").glob("captures/*"))


def test_what_is_wrong_for_every_row_that_it_is_meant_for_is_refused_and_what_is_a_rows_own_is_not():
    suite = load_suite("table3")

    class Fake:
        catalogue = catalogue()

        def __init__(self, wrong):
            self.wrong = wrong

        def checked(self, request):
            error = self.wrong(request)
            if error is not None:
                raise error

    def refuse(wrong, overrides, rows=suite.rows):
        refuse_what_fits_no_row(Fake(wrong), suite, rows, overrides)

    def of_all(request):
        return ConfigError("no such source")

    def of_pooling(request):
        return DataError("no network") if request.calibrator == "pooling" else None

    def of_calibrators(request):
        return ConfigError("no such width") if "calibrator" in (request.overrides or {}) else of_pooling(request)

    def of_some(request):
        return of_calibrators(request) if request.calibrator != "late_fusion" else None

    with pytest.raises(ConfigError, match="no such source"):
        refuse(of_all, {})
    refuse(of_pooling, {})
    refuse(of_pooling, {"training": {"steps": 3}})
    with pytest.raises(ConfigError, match="no such width"):
        refuse(of_calibrators, {"training": {"steps": 3}, "calibrator": {"width": 5}})
    refuse(of_some, {"calibrator": {"width": 5}})
    refuse(lambda request: RuntimeError("its plugin's own"), {})
    with pytest.raises(DataError, match="no network"):
        refuse(of_pooling, {}, [suite.row("pooling")])


def test_points_along_something_make_a_line_for_each_series(table3, monkeypatch):
    """On a logarithmic axis where the suite says so; the page tells the range of people."""
    from matplotlib.axes import Axes

    lines, errorbar = {}, Axes.errorbar

    def remember(self, places, means, **style):
        lines.setdefault(style["label"], list(places))
        return errorbar(self, places, means, **style)

    monkeypatch.setattr(Axes, "errorbar", remember)
    suite = load_suite("fig19")
    result = table3.cells[0].result
    budgets = {
        row.name: result.key.budget.model_copy(update={"people": row.set["training"]["people"]}) for row in suite.rows
    }
    cells = tuple(
        Cell(row, result.model_copy(update={"key": result.key.model_copy(update={"budget": budgets[row.name]})}))
        for row in suite.rows
    )
    study = Study(suite, cells, ())
    assert draw(study).startswith(b"\x89PNG") and "8 to 234 people" in markdown(study)
    assert set(lines) == {"First Order Motion", "Mesh tracking, exact mesh *", "Universal, no pre-training",
                          "Universal, pre-trained"}  # fmt: skip
    assert all(places == [8, 16, 32, 64, 128, 234] for places in lines.values())


def test_rows_run_one_after_another_and_one_that_fails_stops_no_other(build_result, tmp_path):
    suite = load_suite("table3")
    asked = []

    class Fake:
        catalogue = catalogue()

        def checked(self, request):
            pass

        def run(self, request, *, floors, reuse):
            asked.append((request.calibrator, floors, reuse))
            if request.calibrator == "pooling":
                raise RuntimeError("no such layer")
            result = build_result(calibrator=f"ufe/{request.calibrator}")
            beside = [build_result(encoder="ufe/mean")] if floors else []
            return Outcome(result, tmp_path / "result.json", beside, failed={"neutral": "no face"} if floors else {})

        def record(self, suite, method, command, error):
            kept.append((suite.id, method, command, str(error)))

    said, kept = [], []
    study = run_study(Fake(), suite, rows=("pooling", "none", "late_fusion"), say=said.append)
    assert study.failed == {"neutral": "no face"} and "- neutral (floor): no face" in markdown(study)
    assert asked == [("pooling", True, True), ("none", True, True), ("late_fusion", False, True)]
    assert [cell.error for cell in study.cells] == ["RuntimeError: no such layer", None, None]
    command = f"ufe bench --suite table3 --row pooling --set training.steps={suite.steps['cpu']}"
    assert kept == [(suite.id, "pooling", command, "no such layer")], "the command that its result will have"
    assert len(study.floors) == 1 and said[0] == "Row 1 of 3: Pooling aggregation (pooling)"


def test_how_long_the_other_rows_will_take_is_told_by_those_that_were_run():
    assert _time_left([], 5) == "" == _time_left([2.0, 1.0], 5), "rows that were there before say nothing"
    assert _time_left([2.0, 600.0, 1200.0], 5) == ", 30 min so far, about 30 min to go"
    assert _time_left([2000.0], 10) == ", 33 min so far, about 5 h 00 min to go"


def test_another_seed_is_no_point_of_its_own_along_a_line_but_moves_the_first(build_result, monkeypatch):
    from matplotlib.axes import Axes

    drawn = {}

    def remember(self, places, means, **style):
        drawn.setdefault(style["label"], dict(zip(places, means, strict=True)))
        return errorbar(self, places, means, **style)

    errorbar = Axes.errorbar
    monkeypatch.setattr(Axes, "errorbar", remember)
    suite = load_suite("fig19")
    level = {"univ_8": 1.0, "univ_8_again": 2.0, "univ_16": 0.5}
    cells = tuple(Cell(suite.row(name), build_result(mesh=[value, value + 1])) for name, value in level.items())
    one = cells[0].result.model_copy(update={"metrics": {"mesh_l2": cells[0].result.metrics["mesh_l2"]}})
    draw(Study(suite, (Cell(cells[0].row, one), *cells[1:]), ()))
    assert drawn == {"Universal, no pre-training": {8: 2.0, 16: 1.0}}


@pytest.mark.parametrize("name", STUDIES)
def test_the_recorded_command_of_a_row_asks_for_the_same_again(name, monkeypatch, tmp_path, capsys):
    """Every word of it is taken by the command line, and gives the request that it is of."""
    suite, overrides = load_suite(name), {"training": {"steps": 7}}
    heard = []

    def run_study(harness, suite, *, rows, overrides, **asked):
        kept = {key: value for key, value in asked.items() if key in ("decoder", "source", "budget", "fresh")}
        heard.append([request_of(suite, row, overrides, **kept) for row in chosen_rows(suite, rows)])
        raise DataError("enough")

    monkeypatch.setattr("ufe_bench.study.run_study", run_study)
    monkeypatch.setenv("UFE_HOME", str(tmp_path))
    for row in suite.rows:
        given = request_of(suite, row, overrides, decoder="upm", source="synthetic", budget="smoke", fresh=False)
        words = shlex.split(given.command())
        assert words[:2] == ["ufe", "bench"]
        with pytest.raises(SystemExit):
            main(words[1:])
        assert heard.pop() == [given]
    capsys.readouterr()


def test_a_suite_with_contradicting_rows_is_refused():
    rows = [{"name": "a", "title": "A"}, {"name": "a", "title": "B"}]
    base = load_suite("table3").model_dump() | {"rows": rows}
    with pytest.raises(ValueError, match="row 'a' appears twice"):
        type(load_suite("table3")).model_validate(base)
    with pytest.raises(ValueError, match="base 'b' is no row"):
        type(load_suite("table3")).model_validate(base | {"rows": rows[:1], "base": "b"})
    for other in ("b", "a"):
        tuned = [rows[0], {"name": "c", "title": "C", "tuned_as": other}]
        tuned[0] = {**tuned[0], "tuned_as": "c"} if other == "a" else tuned[0]
        with pytest.raises(ValueError, match="which is no row that is searched"):
            type(load_suite("table3")).model_validate(base | {"rows": tuned, "base": "a"})
    for field in ("repeats", "base"):
        with pytest.raises(ValueError, match=f"{field} of row 'a' is 'b', which is no row"):
            type(load_suite("table3")).model_validate(base | {"rows": [{**rows[0], field: "b"}], "base": "a"})
    claims = [{"better": "a", "worse": "b", "says": "so"}]
    with pytest.raises(ValueError, match="a claim is of 'b', which is no row"):
        type(load_suite("table3")).model_validate(base | {"rows": rows[:1], "base": "a", "claims": claims})
    assert SuiteRow(name="a", title="A").encoder == "univ"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "cannot be read: 'utf-8' codec"), (b"name = ", "cannot be read: Invalid value"),
        (b"nam = 1", ", field name: Field required"),
        (b"base = 'x'", "'base' is for studies, and there are no rows"),
    ],
)  # fmt: skip
def test_a_suite_file_that_is_wrong_is_said_in_one_line(tmp_path, data, message):
    file = tmp_path / "mine.toml"
    if data == b"base = 'x'":
        data += b"""
name = "mine"
version = 1
summary = "Mine"
split = "synthetic"
frames = 4
metrics = ["gaze"]
"""
    file.write_bytes(data)
    with pytest.raises(RegistryError) as told:
        load_suite(str(file))
    text = str(told.value)
    assert str(file) in text and message in text and "\n" not in text and "field :" not in text
