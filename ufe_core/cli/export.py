"""`ufe source export`: captures of one source, written in another source's layout."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.cli.choice import choose_part, which_source

if TYPE_CHECKING:
    from ufe_core.components import ComponentSpec
    from ufe_core.interfaces.source import HMCSource, WrittenCapture

_SUBJECTS = 4


@click.command(short_help="Write captures in another source's layout.")
@which_source
@click.option("--as", "target", required=True, metavar="SOURCE", help="The source that is to read them, e.g. ava256.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new or empty folder, or an export.")
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="A subject to write; may be repeated.")
@click.option("--split", help="Split of the registry to take subjects from. [default: the source's first]")
@click.option("--part", help="Part of the split: train, test, or all. [default: train; all without a split]")
@click.option("--count", type=click.IntRange(1),
              help=f"Only the first so many subjects.  [default: {_SUBJECTS}, unless some are named]")  # fmt: skip
@click.option("--frames", default=64, show_default=True, type=click.IntRange(2),
              help="Frames of each recording, even over its segments.")  # fmt: skip
@click.option("--only", type=click.Choice(("headset", "dome")), help="Write that recording of each subject alone.")
@click.option("--size", default=1024, show_default=True, type=click.IntRange(16, 4096),
              help="Height of the dome's images, pixels.")  # fmt: skip
@click.option("--headset-size", default=400, show_default=True, type=click.IntRange(16, 4096),
              help="Side of the headset's images, pixels.")  # fmt: skip
@click.option("--session", default=0, show_default=True, type=click.IntRange(0), help="Which donning.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts; progress goes to standard error.")
def export(
    name: str, assignments: Sequence[str], target: str, out: Path, subjects: Sequence[str], split: str | None,
    part: str | None, count: int | None, only: str | None, as_json: bool, **wanted: int,
) -> None:  # fmt: skip
    """Write captures of a source in another source's layout, for tools made for that.

    A capture appears in the folder when it is whole. Kill the command at any time and run it again: captures that
    are whole stay, and one that lacks a file, or a part of one, is made again. The same command gives the same bytes.
    Options of the layout are set by --set as.OPTION=VALUE.

    \b
    Examples:
      ufe source export --as ava256 --out captures --set source.headset=ava256
      ufe source export --as ava256 --out captures --subject S004 --frames 500 --set as.members=flat
      ufe source export --as ava256 --out domes --only dome --part train --size 2048
    """
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.interfaces.source import WriteRequest
    from ufe_core.training.progress import Progress

    spec, opened, options = _open(name, assignments)
    reader, writer = _writer(target)
    named = bool(subjects or split or part or count)
    people = choose_part(spec, opened, subjects, split, part, count)[: None if named else _SUBJECTS]
    request = WriteRequest(
        tuple(people), wanted["frames"], session=wanted["session"], parts=(only,) if only else ("headset", "dome"),
        headset_size=wanted["headset_size"], dome_height=wanted["size"], options=options,
    )  # fmt: skip
    start = time.monotonic()
    with TrainingDisplay(titles={"export": "frames"}) as show:
        written = writer.write(
            out, opened, request, listener=lambda done, total: show(Progress("export", done, total, {}))
        )
    facts = _facts(spec, reader, out, written, time.monotonic() - start)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _summary(facts))


def _open(name: str, assignments: Sequence[str]) -> tuple[ComponentSpec, HMCSource[Any], dict[str, Any]]:
    """The source to write, and options of the layout."""
    from ufe_core.config import parse_overrides
    from ufe_core.plugins import catalogue

    overrides = parse_overrides(assignments, owners=("source", "as"))
    spec = catalogue().get("source", name)
    return spec, catalogue().create("source", spec.id, overrides.get("source", {})), overrides.get("as", {})


def _writer(target: str) -> tuple[ComponentSpec, type[HMCSource[Any]]]:
    """The source whose layout is wanted, and its class.

    Raises:
        UfeError: there is no such source, or it has no writer.
    """
    from ufe_core.errors import ConfigError
    from ufe_core.interfaces.source import HMCSource
    from ufe_core.plugins import catalogue

    spec = catalogue().get("source", target)
    factory = spec.load()
    own = getattr(getattr(factory, "write", None), "__func__", None)
    if not isinstance(factory, type) or own in (None, HMCSource.write.__func__):  # type: ignore[attr-defined]
        raise ConfigError(f"Source '{spec.id}' has no writer: other sources' captures cannot take its layout.")
    return spec, factory


def _facts(
    spec: ComponentSpec, reader: ComponentSpec, out: Path, written: Sequence[WrittenCapture], seconds: float
) -> dict[str, Any]:
    captures = [
        {"subject": one.subject, "path": str(one.path), "new": one.new, "bytes": _bytes_in(one.path)} for one in written
    ]
    return {
        "source": spec.id,
        "as": reader.id,
        "folder": str(out),
        "made": sum(one.new for one in written),
        "already_there": sum(not one.new for one in written),
        "bytes": sum(_bytes_in(one.path) for one in written),
        "seconds": round(seconds, 3),
        "captures": captures,
    }


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _summary(facts: dict[str, Any]) -> str:
    count = len(facts["captures"])
    return (
        f"{count} capture{'s' if count != 1 else ''} of '{facts['source']}' in '{facts['folder']}', as '{facts['as']}' "
        f"reads them: {facts['made']} made, {facts['already_there']} already there and whole; "
        f"{facts['bytes'] / 1e6:.1f} MB in {facts['seconds']:.1f} s."
    )
