"""Commands of the harness. `ufe --help` imports this file: click and nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_bench.bench_cli import bench as bench
from ufe_core.cli.groups import refuse_options_before

if TYPE_CHECKING:
    from ufe_bench.harness import Harness
    from ufe_bench.schema import Result

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OUT = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write LEADERBOARD.md and index.html to. [default: UFE_HOME/leaderboard]",
)  # fmt: skip
_RESULTS = click.option(
    "--results", multiple=True, type=_FOLDER,
    help="Folder of result files; may be given again. [default: UFE_HOME/results and the published ones]",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text, for scripts.")


@click.group(invoke_without_command=True, short_help="Build the leaderboard; compare and submit results.")
@_OUT
@_RESULTS
@_JSON
@click.pass_context
def leaderboard(context: click.Context, out: Path | None, results: tuple[Path, ...], as_json: bool) -> None:
    """Build the leaderboard from result files: Markdown and pages that open without a network.

    \b
    Examples:
      ufe leaderboard                           your results beside the published ones
      ufe leaderboard build --out site          the same, elsewhere
      ufe leaderboard diff OLD NEW              what other results would change
      ufe leaderboard submit RESULT --verify 4  check a result as a maintainer would
    """
    if context.invoked_subcommand is not None:
        refuse_options_before(context)
        return
    _build(out, results, as_json)


@leaderboard.command(short_help="Write the leaderboard: Markdown and web pages.")
@_OUT
@_RESULTS
@_JSON
def build(out: Path | None, results: tuple[Path, ...], as_json: bool) -> None:
    """Write the leaderboard: LEADERBOARD.md, and index.html with a page for each suite and method.

    Pages hold all that they show and need no server: open index.html.

    \b
    Example:
      ufe leaderboard build --results benchmarks/results --out site
    """
    _build(out, results, as_json)


def _build(out: Path | None, results: tuple[Path, ...], as_json: bool) -> None:
    from ufe_bench.leaderboard import build_leaderboard, default_results, rebuild_own
    from ufe_core.store import Store

    folders = list(results) or default_results()
    built = rebuild_own(Store(), folders) if out is None else build_leaderboard(folders, out)
    if as_json:
        facts = {
            "markdown": str(built.markdown), "html": str(built.html), "pages": built.pages,
            "results": built.results, "duplicates": built.duplicates, "failures": built.failures,
            "broken": [{"path": item.path, "reason": item.reason} for item in built.broken],
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=2))
    else:
        for item in built.broken:
            click.echo(f"Left out: {item.reason}", err=True)
        if not built.results:
            searched = ", ".join(f"'{folder}'" for folder in folders)
            click.echo(f"No result found in {searched}. 'ufe bench' writes one.", err=True)
        click.echo(built.markdown)
        click.echo(built.html)
    if results and not built.results:
        raise SystemExit(1)


@leaderboard.command(short_help="Show what other results change in it.")
@click.argument("before", type=_FOLDER)
@click.argument("after", type=_FOLDER)
@click.option("--add", is_flag=True, help="AFTER holds new results alone: lay them over those of BEFORE.")
@_JSON
def diff(before: Path, after: Path, add: bool, as_json: bool) -> None:
    """Show how the leaderboard of the results in folder AFTER differs from that of folder BEFORE.

    \b
    Examples:
      ufe leaderboard diff benchmarks/results my-branch/benchmarks/results
      ufe leaderboard diff benchmarks/results submission --add
    """
    from ufe_bench.board_diff import difference, render
    from ufe_bench.leaderboard import collect
    from ufe_core.errors import DataError

    new = collect([after])
    if not new.results and not new.broken:
        raise DataError(f"There is no result in '{after}': give the folder that holds those of each suite.")
    found = difference([before], [before, after] if add else [after])
    if as_json:
        facts = {
            "changes": [vars(change) for change in found.changes], "broken": [vars(item) for item in found.broken],
        }  # fmt: skip
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(render(found.changes), nl=False)
    for item in found.broken:
        click.echo(f"Left out: {item.reason}", err=True)
    if found.broken:
        raise SystemExit(1)


@leaderboard.command(short_help="Check results as a maintainer would.")
@click.argument(
    "files",
    metavar="RESULT...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--verify",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(0),
    help="Also measure N people again, from the weights; they are trained where there are none.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of weights to measure again with, where they are not released; of one RESULT.",
)
@click.option(
    "--out",
    default=Path("submission"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write the file to, in its place below benchmarks/results.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@_JSON
def submit(files: tuple[Path, ...], verify: int, weights: Path | None, out: Path, device: str, as_json: bool) -> None:
    """Check each RESULT as a maintainer would, and write the file that is to be added to the published results.

    It must be whole, and what its command asks for, on the suite, the people and the captures of this ufe; no test
    person may be in any training; its training must be the budget's but for what it tells; its numbers must be such as
    a headset allows. With --verify some people, drawn anew each time, are measured again, and each number must come out
    as it stands in the file, within 0.2 %.

    \b
    Examples:
      ufe leaderboard submit results/main@6/acme__fovea/0123456789ab.json --verify 4
      ufe leaderboard submit 0123456789ab.json --verify 4 --weights fovea.safetensors
    """
    from ufe_bench.schema import load_result, write_result
    from ufe_bench.submission import Objection, objections
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.errors import ConfigError, DataError

    if weights is not None and (len(files) > 1 or not verify):
        raise ConfigError("--weights is the file of one RESULT, and for --verify.")
    told: list[dict[str, Any]] = []
    with TrainingDisplay() as listener:
        harness = _harness(out, device, listener)
        for file in files:
            path = None
            try:
                result = load_result(file)
                found = list(objections(result, harness, floor=_floor_of(result), verify=verify, weights=weights))
                path = None if found else write_result(result, out)
            except DataError as error:
                found = [Objection("file", str(error))]
            told.append({
                "result": str(file), "objections": [vars(one) for one in found],
                "file": str(path) if path else None, "verified": verify,
            })  # fmt: skip
    if as_json:
        click.echo(json.dumps(told, indent=2))
    for one in () if as_json else told:
        click.echo(one["result"])
        for objection in one["objections"]:
            click.echo(f"  {objection['rule']:11} {objection['line']}")
        if one["file"] is not None:
            again = f"{one['verified']} people" if one["verified"] else "nobody (--verify 2 measures two)"
            click.echo(f"  checks passed; measured again: {again}")
            click.echo(f"  to publish it, copy {one['file']} to its place below benchmarks/results")
    if any(one["objections"] for one in told):
        raise SystemExit(1)


@leaderboard.command()
def schema() -> None:
    """Print the JSON schema of result files.

    \b
    Example:
      ufe leaderboard schema > result.schema.json
    """
    from ufe_bench.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _harness(results: Path, device: str, listener: Any) -> Harness:
    from ufe_bench.harness import Harness
    from ufe_core.plugins import catalogue
    from ufe_core.store import Store
    from ufe_core.training.runs import pick_device

    def note(text: str) -> None:
        click.echo(text, err=True)

    return Harness(catalogue(), Store(), results, device=pick_device(device), listener=listener, note=note)


def _floor_of(result: Result) -> Result | None:
    """The resting face's result on the same data and avatar, among the user's results and the published ones."""
    from ufe_bench.board import ground_of
    from ufe_bench.leaderboard import collect, default_results

    for other in collect(default_results()).results:
        own = result.key.data.model_copy(update={"enrolment": other.key.data.enrolment})
        alike = ground_of(other.key) == ground_of(result.key.model_copy(update={"data": own}))
        if alike and other.key.components.encoder.id == "ufe/neutral":
            return other
    return None
