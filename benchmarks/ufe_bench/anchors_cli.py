"""`ufe anchors`: sets of calibration expressions, and the search for them. Light at import."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ufe_bench.anchor_search import Failed, Level, Measured
    from ufe_bench.validation import Candidate


@click.group(short_help="Anchor expressions, which calibrate an encoder (P§4).")
def anchors() -> None:
    """Anchor expressions: what a person shows once, to calibrate an encoder (P§4)."""


@anchors.command("list")
@click.option("--source", default="synthetic", show_default=True, help="Whose anchors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def list_sets(source: str, as_json: bool) -> None:
    """List the named sets, and every anchor that a source has."""
    from ufe_core.cli.choice import open_source
    from ufe_core.recipe import DEFAULT_ANCHORS
    from ufe_core.registry import load_registry

    _, opened = open_source(source, ())
    known = list(opened.captures(opened.subjects()[:1])[0].anchors)
    sets = {"default": list(DEFAULT_ANCHORS), "none": []}
    sets |= {name: list(one.anchors) for name, one in load_registry().anchor_sets.items()}
    if as_json:
        click.echo(json.dumps({"sets": sets, "anchors": known}, indent=1))
        return
    for name, members in sets.items():
        click.echo(f"{name:16} {', '.join(members) or '(no anchors)'}")
    click.echo(f"\n'{source}' has  {', '.join(known)}")


@anchors.command("search", short_help="Find which anchors lower the error most.")
@click.option("--candidates", default="all", show_default=True, help="Anchors to choose among, separated by commas.")
@click.option("--beam", default=3, show_default=True, type=click.IntRange(1), help="Best sets that a round extends.")
@click.option("--most", default=6, show_default=True, type=click.IntRange(1), help="Anchors in the largest set.")
@click.option("--encoder", default="univ", show_default=True, help="Encoder that is trained with every set.")
@click.option("--calibrator", help="How it uses anchors; 'ufe plugins' lists calibrators. [default: late_fusion]")
@click.option("--decoder", default="upm", show_default=True, help="Avatar that is driven and measured.")
@click.option("--source", default="synthetic", show_default=True, help="Where the captures come from.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS),
              help="Sizes and steps of each training; see 'ufe train --help'.")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
              help="Override an option, e.g. --set training.steps=300; short ones may do to rank sets.")  # fmt: skip
@click.option("--validation", default=24, show_default=True, type=click.IntRange(1),
              help="Hold out so many of the training people, the last ones, and measure each set on them.")  # fmt: skip
@click.option("--frames", default=24, show_default=True, type=click.IntRange(1), help="Frames of each of them.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(1), help="Sets trained at a time, each in some 5 GB of memory at budget "
              "cpu. [default: one for each 2 cores, one on a GPU]")  # fmt: skip
@click.option("--out", default=Path("anchors.json"), show_default=True, type=click.Path(dir_okay=False, path_type=Path),
              help="File of the best set and all that was measured; a picture lies beside it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the file's JSON instead of text.")
def search_sets(candidates: str, beam: int, most: int, assignments: tuple[str, ...], validation: int, frames: int,
                device: str, workers: int | None, out: Path, as_json: bool, **names: Any) -> None:  # fmt: skip
    """Find the anchors that lower the error most: grow sets one at a time, keep the best few (Algorithm 1).

    For each set an encoder is trained, on the training people but the last ones, and its photometric error is measured
    on those; the test people are never read. The beam is shown as it changes. What is measured is kept: after Ctrl-C,
    or with a larger beam, the same command goes on from there. A set with which the method fails is told of with the
    cause, and takes no further part. The file is what --anchors takes everywhere. All 15 candidates, up to sets of six,
    are some 190 trainings: most of a day at 300 steps each, days in full.

    \b
    Examples:
      ufe anchors search --set training.steps=300           all candidates, short trainings
      ufe anchors search --candidates neutral,jaw_open,smile_teeth --most 2
      ufe bench --train --anchors anchors.json              measure the set on the test people
    """
    from ufe_bench.anchor_search import Workers, draw, search
    from ufe_bench.anchor_search import as_json as file_of
    from ufe_core.store import write_atomic
    from ufe_core.targets import check_target

    check_target(out, (".json",), make=True)
    chosen, candidate = _asked(candidates, assignments, validation, frames, device, names)
    on_done, on_level, on_wait = _tellers()
    with Workers(candidate, workers or _usual(candidate.device), on_done, on_wait) as pool:
        found = search(chosen, pool.errors, beam=beam, most=most, on_level=on_level)
        content = file_of(found, pool.measured, candidate, pool.failed)
        write_atomic(out, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
        picture = out.with_suffix(".png")
        draw(found, pool.measured, picture)
    if as_json:
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(f"Ended: {found.ended}.")
    for size, error, members in found.curve():
        click.echo(f"{size:2} anchors  {error:.3f}  {', '.join(members) or '-'}")
    for one in pool.failed.values():
        click.echo(f"failed  {_members(one.anchors)}: {one.cause}")
    click.echo(f"anchors  {out}\npicture  {picture}")


def _asked(
    candidates: str, assignments: tuple[str, ...], validation: int, frames: int, device: str, names: Mapping[str, Any]
) -> tuple[list[str], Candidate]:
    """The anchors to choose among, and what measuring a set of them takes.

    Raises:
        UfeError: what was asked for is not there, or cannot be searched.
    """
    from ufe_bench.anchor_search import METRIC
    from ufe_bench.validation import Candidate
    from ufe_core.cli.choice import all_known, names_of, open_source
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import OWNERS, resolve_recipe
    from ufe_core.splits import splits_of
    from ufe_core.store import Store
    from ufe_core.training.runs import pick_device

    place, overrides = pick_device(device), parse_overrides(assignments, owners=OWNERS)
    spec, opened = open_source(names["source"], [a for a in assignments if a.startswith("source.")])
    known = list(opened.captures(opened.subjects()[:1])[0].anchors)
    chosen = known if candidates == "all" else all_known(f"'{spec.id}'", "anchor", names_of(candidates), known)
    recipe = resolve_recipe(catalogue(), anchors=chosen, overrides=overrides, **names)
    if not recipe.anchors or recipe.encoder.spec.load().reads_anchors is not None:
        what = "uses anchors" if not recipe.anchors else "can do with other anchors than its own"
        raise ConfigError(f"Nothing here {what}: choose another --encoder or --calibrator.")
    split, divided = next(iter(splits_of(spec.id, opened).items()), (None, None))
    if split is None or divided is None:
        raise ConfigError(f"'{spec.id}' does not say whom it holds out: there are no training people to search on.")
    people = len(divided.part("train"))
    if validation >= people:
        raise ConfigError(f"--validation {validation} leaves none of the {people} training people to train on.")
    return chosen, Candidate(
        names=names, overrides=overrides, packed=tuple(known), validation=validation, frames=frames,
        render_size=recipe.training.render_size, metrics=(METRIC,), home=str(Store().root), device=str(place),
        split=split,
    )  # fmt: skip


def _tellers() -> tuple[
    Callable[[Measured | Failed], None], Callable[[Level], None], Callable[[BaseException], None]
]:  # fmt: skip
    """What tells of a set that is done, of a round, and of the wait at an end, each on standard error."""
    from ufe_bench.anchor_search import Failed
    from ufe_core.errors import cause_of

    done = count(1)

    def on_done(one: Measured | Failed) -> None:
        error = "failed" if isinstance(one, Failed) else f"{one.summary.mean:.3f}"
        why = f": {one.cause}" if isinstance(one, Failed) else ""
        click.echo(f"{next(done):4}  {error}  {_members(one.anchors)}{why}", err=True)

    def on_level(level: Level) -> None:
        click.echo(f"round {level.number}: {level.measured} sets measured; the best {len(level.beam)}:", err=True)
        for error, members in level.beam:
            click.echo(f"      {error:.3f}  {', '.join(members)}", err=True)

    def on_wait(error: BaseException) -> None:
        again = " again" if isinstance(error, KeyboardInterrupt) else ""
        cause = "" if again else f"{cause_of(error)} "
        click.echo(f"{cause}Waiting until what is under way has been kept; Ctrl-C{again} stops at once.", err=True)

    return on_done, on_level, on_wait


def _members(anchors: Sequence[str]) -> str:
    return ", ".join(anchors) or "(no anchors)"


def _usual(device: str) -> int:
    """Sets that are trained at a time where nothing is said."""
    return 1 if device.startswith("cuda") else max(1, (os.cpu_count() or 1) // 2)
