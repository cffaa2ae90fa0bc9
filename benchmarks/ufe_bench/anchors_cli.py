"""`ufe anchors`: sets of calibration expressions, and the search for them. Light at import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    from ufe_bench.anchor_search import Level, Measured


@click.group()
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


@anchors.command("search")
@click.option("--candidates", default="all", show_default=True, help="Anchors to choose among, separated by commas.")
@click.option("--beam", default=3, show_default=True, type=click.IntRange(1), help="Best sets that a round extends.")
@click.option("--most", default=6, show_default=True, type=click.IntRange(1), help="Anchors in the largest set.")
@click.option("--encoder", default="univ", show_default=True, help="Encoder that is trained with every set.")
@click.option("--calibrator", help="How it uses anchors; 'ufe plugins' lists calibrators. [default: late_fusion]")
@click.option("--decoder", default="upm", show_default=True, help="Avatar that is driven and measured.")
@click.option("--source", default="synthetic", show_default=True, help="Where the captures come from.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS),
              help="Sizes and steps of each training; see 'ufe train --help'.")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="KIND.FIELD=VALUE",
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
    or with a larger beam, the same command goes on from there. The file is what --anchors takes everywhere. All 15
    candidates, up to sets of six, are up to 190 trainings: most of a day at 300 steps each, days in full.

    \b
    Examples:
      ufe anchors search --set training.steps=300           all candidates, short trainings
      ufe anchors search --candidates neutral,jaw_open,smile_teeth --most 2
      ufe bench --train --anchors anchors.json              measure the set on the test people
    """
    import os

    from ufe_bench.anchor_search import METRIC, Workers, draw, search
    from ufe_bench.anchor_search import as_json as file_of
    from ufe_bench.validation import Candidate
    from ufe_core.cli.choice import all_known, names_of, open_source
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError, cause_of
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import OWNERS, resolve_recipe
    from ufe_core.splits import splits_of
    from ufe_core.store import Store, write_atomic
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
    candidate = Candidate(
        names,
        overrides,
        tuple(known),
        validation,
        frames,
        recipe.training.render_size,
        (METRIC,),
        str(Store().root),
        str(place),
        split,
    )
    done: list[Measured] = []

    def on_done(measured: Measured) -> None:
        done.append(measured)
        text = f"{len(done):4}  {measured.summary.mean:.3f}  {', '.join(measured.anchors) or '(no anchors)'}"
        click.echo(text, err=True)

    def on_level(level: Level) -> None:
        click.echo(f"round {level.number}: {level.measured} sets measured; the best {len(level.beam)}:", err=True)
        for error, members in level.beam:
            click.echo(f"      {error:.3f}  {', '.join(members)}", err=True)

    def on_wait(error: BaseException) -> None:
        again = " again" if isinstance(error, KeyboardInterrupt) else ""
        cause = "" if again else f"{cause_of(error)} "
        click.echo(f"{cause}Waiting until what is under way has been kept; Ctrl-C{again} stops at once.", err=True)

    usual = 1 if place.type == "cuda" else max(1, (os.cpu_count() or 1) // 2)
    with Workers(candidate, workers or usual, on_done, on_wait) as pool:
        found = search(chosen, pool.errors, beam=beam, most=most, on_level=on_level)
        content = file_of(found, pool.measured, candidate)
        write_atomic(out, (json.dumps(content, indent=1) + "\n").encode())
        picture = out.with_suffix(".png")
        draw(found, pool.measured, picture)
    if as_json:
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(f"Ended: {found.ended}.")
    for count, error, members in found.curve():
        click.echo(f"{count:2} anchors  {error:.3f}  {', '.join(members) or '-'}")
    click.echo(f"anchors  {out}\npicture  {picture}")
