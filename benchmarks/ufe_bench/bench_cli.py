"""`ufe bench`: the main job from the command line. Light at import: click and nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_bench.enrolment import ENROLMENTS
from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ufe_bench.harness import Harness, Outcome
    from ufe_bench.schema import Result
    from ufe_bench.study import Study
    from ufe_bench.study_workers import RowWorkers
    from ufe_bench.suite import Suite

#: Of a number made again: what another machine's rounding may change.
TOLERANCE = 2e-3


@click.command(short_help="Measure a method on people that no training has seen.")
@click.option("--encoder", default="univ", show_default=True, help="Encoder, e.g. univ, mean, neutral.")
@click.option("--calibrator", help="How anchors are used; 'ufe plugins' lists calibrators. [default: late_fusion]")
@click.option("--detector", help="Keypoint detector of an encoder that needs keypoints. [default for those: heatmap]")
@click.option("--pretraining", help="What the encoder learns before it sees labels; 'ufe plugins' lists strategies. "
              "[default: none]")  # fmt: skip
@click.option("--decoder", default="upm", show_default=True, help="Avatar that is driven and measured.")
@click.option("--source", default="synthetic", show_default=True, help="Where the captures come from.")
@click.option("--suite", default="main", show_default=True,
              help="What is measured, and on whom: main for any method; table1 to table4, fig8, fig19, given and "
              "robustness are studies that name their methods themselves, one a row. Or a .toml file of "
              "your own.")  # fmt: skip
@click.option("--row", "rows", multiple=True, metavar="NAME", help="Only this row of a study; may be given again.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1),
              help="Rows of a study at a time, each in a process with its share of the cores, and some 7 GB of memory "
              "at budget cpu.")  # fmt: skip
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS),
              help="Sizes and steps of the training; see 'ufe train --help'.")  # fmt: skip
@click.option("--anchors", help="Calibration expressions: names with commas, a set's name, a file of 'ufe anchors "
              "search', or none. [default: six; 'ufe anchors list' names them]")  # fmt: skip
@click.option(
    "--enrolment",
    default="own",
    show_default=True,
    type=click.Choice(ENROLMENTS),
    help="Whose anchors people are enrolled with, to see what mistakes cost.",
)
@click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
              help="Override an option, e.g. --set training.steps=500. KIND is source, encoder, calibrator, detector, "
              "pretraining, decoder or training; 'ufe plugins show NAME' lists options, 'ufe train --help' "
              "those of training.")  # fmt: skip
@click.option("--train", is_flag=True, help="Train from nothing, even where released weights exist.")
@click.option("--fresh", is_flag=True, help="Train again, even where this machine trained the same before.")
@click.option("--floors/--no-floors", default=True, show_default=True, help="Also measure the floors of the suite.")
@click.option("--figures", is_flag=True, help="With a study: also draw frames picked by rule.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of result files. [default: UFE_HOME/results]")  # fmt: skip
@click.option(
    "--rerun",
    "again",
    metavar="RESULT",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure what RESULT describes again, and say whether the numbers agree; nothing else is asked then.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure this file of 'ufe train --out', made elsewhere with the same options; with --rerun, the one that "
    "the result was measured with.",
)
@click.option(
    "--tolerance",
    default=TOLERANCE,
    show_default=True,
    type=click.FloatRange(0),
    help="With --rerun: how far a number may be from what it says, as a share of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result file's JSON instead of a table.")
@click.pass_context
def bench(
    context: click.Context, /, as_json: bool, assignments: tuple[str, ...], anchors: str | None, device: str,
    out: Path | None, floors: bool, suite: str, rows: tuple[str, ...], workers: int, figures: bool,
    again: Path | None, weights: Path | None, tolerance: float, **asked: Any,
) -> None:  # fmt: skip
    """Measure a method on people that no training has seen, and put it on the leaderboard.

    Finds or renders the captures, takes released weights or trains them, encodes the suite's frames (main: 48 of
    each of the 32 held-out people), drives their avatars and compares with the truth. Writes a result file with
    everything needed to make it again, and rebuilds the leaderboard. Interrupted work continues where it stopped.

    A study trains and measures each of its rows, keeps each by itself, and puts them side by side with the paper's:
    study.md with its pictures and study.json beside the result files. With another budget, decoder or source, or with
    --set, the report lies in a folder of its own there, called by what was asked, as study_smoke_training.steps=50.
    With --row some rows are run, and the report stays; their figures lie in a folder of their own. No report gives way
    to one in which no row has a result.

    \b
    Examples:
      ufe bench                                             the default method, released weights
      ufe bench --encoder univ --calibrator none --train    the same without calibration, trained here
      ufe bench --encoder mean                              a floor
      ufe bench --pretraining mae_novel_view --train        pre-trained on people without labels
      ufe bench --train --set training.steps=500            a shorter training, kept apart on the leaderboard
      ufe bench --calibrator none --weights FILE            what 'ufe train --calibrator none --out FILE' made elsewhere
      ufe bench --suite table3                              every calibrator, trained alike
      ufe bench --suite table3 --row pooling                one of them
      ufe bench --suite table3 --workers 2                  two at a time, which is faster on two cores too
      ufe bench --suite robustness                          the released encoder with wrong anchors
      ufe bench --rerun RESULT.json                         does a result come out again?
    """
    from ufe_bench.harness import Harness
    from ufe_bench.leaderboard import default_results, rebuild_own
    from ufe_bench.suite import load_suite
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError, MethodError
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import OWNERS
    from ufe_core.store import Store
    from ufe_core.training.runs import pick_device

    if again is not None:
        _rerun(context, again, weights, device, tolerance, as_json)
        return
    if context.get_parameter_source("tolerance") is click.core.ParameterSource.COMMANDLINE:
        raise ConfigError("--tolerance is how near a result must come out again: it goes with --rerun.")
    if weights is not None and (asked["train"] or asked["fresh"]):
        raise ConfigError("Nothing is trained where --weights gives a file: leave --train and --fresh out.")
    store = Store()
    overrides = parse_overrides(assignments, owners=OWNERS)
    loaded = load_suite(suite)
    _refuse_what_rows_say(context, loaded, rows, figures)
    if workers > 1 and asked["fresh"]:
        raise ConfigError("Rows share trainings, which --fresh would make in each process: leave --workers out.")
    harness = Harness(
        catalogue(), store, out or store.root / "results", device=pick_device(device),
        note=lambda text: click.echo(text, err=True),
    )  # fmt: skip
    folders = list(dict.fromkeys([harness.results, *default_results()]))
    try:
        if loaded.rows:
            kept = {name: asked[name] for name in ("decoder", "source", "budget", "fresh")}
            ahead = _in_processes(context, harness, workers) if workers > 1 else None
            sound = _run_study(
                harness, loaded, rows, figures, as_json, overrides=overrides, floors=floors, ahead=ahead, **kept
            )
        else:
            asked |= {"weights": weights, "train": asked["train"] or weights is not None}  # what would make the file
            sound = _run_method(harness, loaded, anchors, as_json, overrides=overrides, floors=floors, **asked)
    except MethodError:
        rebuild_own(store, folders)  # which tells of it
        raise
    built = rebuild_own(store, folders)
    if not as_json:
        click.echo(f"leaderboard  {built.html}")
    if not sound:
        raise SystemExit(1)


def _in_processes(context: click.Context, harness: Harness, workers: int) -> RowWorkers:
    """What runs rows as this command would one by one."""
    from ufe_bench.study_workers import RowWorkers

    asked = context.params
    words = ["--out", str(harness.results)]
    words += [
        word for name in ("suite", "decoder", "source", "budget", "device") for word in (f"--{name}", asked[name])
    ]
    words += [word for text in asked["assignments"] for word in ("--set", text)]
    return RowWorkers(words, workers, harness.note, floors=asked["floors"])


def _run_study(
    harness: Harness, suite: Suite, rows: tuple[str, ...], figures: bool, as_json: bool, **asked: Any
) -> bool:
    """Run rows, print what was found, and draw figures where that is asked for; whether nothing is missing."""
    from ufe_bench.figures import write_figures
    from ufe_bench.leaderboard import FIGURES
    from ufe_bench.study import run_study
    from ufe_bench.study_report import write_report
    from ufe_bench.study_rows import variant_of
    from ufe_bench.study_timing import timed_together
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.training.progress import Progress

    variant = variant_of(
        suite, asked["overrides"], **{name: asked[name] for name in ("decoder", "source", "budget")}
    )  # fmt: skip
    home = harness.results / suite.id / variant
    with TrainingDisplay() as harness.listener:
        study = run_study(harness, suite, rows=rows, say=lambda text: click.echo(text, err=True), **asked)
        study = study if rows else timed_together(harness, study)
        # A report of some rows must not take the place of that of all; nor do figures.
        report = None if rows else write_report(study, home)
    sound = _tell_study(study, report or ("it is made of all rows" if rows else "no row has a result"), as_json)
    if variant and report is not None and not as_json:
        click.echo("             a folder of its own: the report of the default options stays as it is")
    if figures:
        with TrainingDisplay() as harness.listener:
            tell = harness.tell
            some = [cell.row.name for cell in study.methods] if rows else []
            folder = home / "_".join([FIGURES, *sorted(some)])
            drawn = write_figures(harness, study, folder, lambda n, total: tell(Progress("figures", n, total, {})))
        if not as_json:
            click.echo(f"figures      {drawn}")
    return sound


def _run_method(
    harness: Harness, suite: Suite, anchors: str | None, as_json: bool, *, overrides: Mapping[str, Any], floors: bool,
    **asked: Any,
) -> bool:  # fmt: skip
    """Measure one method, and print its numbers; whether nothing is missing."""
    from ufe_bench.request import Request
    from ufe_core.anchor_sets import anchors_of
    from ufe_core.cli.progress import TrainingDisplay

    request = Request(suite=suite, anchors=anchors_of(anchors), overrides=overrides or None, **asked)
    with TrainingDisplay() as harness.listener:
        outcome = harness.run(request, floors=floors)
    return _tell(outcome, as_json)


def _rerun(
    context: click.Context, file: Path, weights: Path | None, device: str, tolerance: float, as_json: bool
) -> None:
    """Measure what a file says again, print how far it is from that, and exit with 1 where it does not agree."""
    from ufe_bench.harness import Harness
    from ufe_bench.rerun import rerun
    from ufe_bench.schema import load_result
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.errors import ConfigError
    from ufe_core.plugins import catalogue
    from ufe_core.store import Store
    from ufe_core.training.runs import pick_device

    own = {"again", "weights", "tolerance", "device", "as_json"}
    given = [
        name for name in context.params
        if name not in own and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]  # fmt: skip
    if given:
        raise ConfigError(f"The result says what is measured: leave --{given[0].replace('_', '-')} out.")
    result, store = load_result(file), Store()
    with TrainingDisplay() as listener:
        harness = Harness(
            catalogue(), store, store.root / "results", device=pick_device(device), listener=listener,
            note=lambda text: click.echo(text, err=True),
        )  # fmt: skip
        found = rerun(result, harness, tolerance=tolerance, weights=weights)
    if as_json:
        facts = {
            "agrees": found.agrees, "compared": found.compared, "largest": found.largest,
            "disagreements": [vars(one) for one in found.disagreements], "missing": list(found.missing),
            "changed": list(found.changed), "foreign": list(found.foreign),
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=1))
    else:
        for one in found.disagreements[:20]:
            then, now = ("none" if v is None else f"{v:.6g}" for v in (one.recorded, one.measured))
            click.echo(f"{one.subject}  {one.metric}: {then} in the file, {now} now")
        for subject, reason in found.missing:
            click.echo(f"{subject} could not be measured: {reason}")
        if found.foreign:
            click.echo(f"not what the file says: {', '.join(found.foreign)}")
        newer = [place for place in found.changed if place not in found.foreign]
        if newer:
            click.echo(f"other than then: {', '.join(newer)}")
        verdict = "agrees" if found.agrees else "does NOT agree"
        click.echo(f"{verdict}: {found.compared} numbers, the largest difference is {found.largest:.2g} of one")
    if not found.agrees:
        raise SystemExit(1)


def _refuse_what_rows_say(context: click.Context, suite: Suite, rows: tuple[str, ...], figures: bool) -> None:
    from ufe_core.errors import ConfigError

    if rows and not suite.rows:
        raise ConfigError(f"Suite '{suite.id}' has no rows; --row is for studies such as table3.")
    if context.params["workers"] > 1 and not suite.rows:
        raise ConfigError(f"Suite '{suite.id}' has no rows; --workers is for studies such as table3.")
    if figures and not suite.rows:
        raise ConfigError(f"Suite '{suite.id}' has no rows; --figures is for studies such as table1.")
    if figures and (suite.base is None or (rows and suite.base not in rows)):
        raise ConfigError(f"--figures shows frames picked by the base row, {suite.base!r}: it must be among the rows.")
    if figures:
        from ufe_bench.figures import METRIC

        if METRIC not in suite.metrics:
            raise ConfigError(f"--figures picks frames by '{METRIC}', which '{suite.id}' does not measure.")
    said = ("encoder", "calibrator", "detector", "pretraining", "anchors", "enrolment", "train", "weights")
    for name in said if suite.rows else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise ConfigError(f"The rows of study '{suite.id}' say what is trained: leave --{name} out.")


def _tell(outcome: Outcome, as_json: bool) -> bool:
    """Print one method's numbers; whether nothing is missing."""
    from rich.console import Console

    from ufe_bench.table import print_run

    if as_json:
        click.echo(json.dumps(outcome.result.model_dump(mode="json", by_alias=True), indent=1))
    else:
        print_run(Console(), outcome.result, floors=outcome.floors)
        click.echo(f"result       {outcome.path}")
        if outcome.weights is not None:
            click.echo(f"weights      {outcome.weights}")
    _tell_failed(outcome.failed)
    _tell_missing(outcome.result)
    return outcome.result.complete and not outcome.failed


def _tell_study(study: Study, report: Path | str, as_json: bool) -> bool:
    """Print what was found, and where it was written or why it was not; whether nothing is missing."""
    from ufe_bench.study_report import as_json as study_json
    from ufe_bench.study_report import markdown

    if as_json:
        click.echo(json.dumps(study_json(study), indent=1))
    else:
        click.echo(markdown(study))
        click.echo(f"study        {report if isinstance(report, Path) else f'not written: {report}'}")
    for cell in study.cells:
        if cell.result is None:
            click.echo(f"ufe: row {cell.row.name!r} failed: {cell.error}", err=True)
        else:
            _tell_missing(cell.result)
    _tell_failed(study.failed)
    return not study.failed and all(cell.result is not None and cell.result.complete for cell in study.cells)


def _tell_failed(floors: Mapping[str, str]) -> None:
    for name, cause in floors.items():
        click.echo(f"ufe: floor {name!r} failed: {cause}", err=True)


def _tell_missing(result: Result) -> None:
    for item in result.missing:
        click.echo(f"ufe: subject {item.subject!r} failed: {item.reason}", err=True)
