"""`ufe source pack` and `verify`: packed captures made ahead, told, and checked."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.cli.choice import (
    choose_anchors,
    choose_cameras,
    choose_part,
    names_of,
    open_source,
    progress_bar,
    which_source,
)
from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ufe_core.interfaces.source import Capture, HMCSource
    from ufe_core.packed import PackedCapture, PackEvent, PackRequest
    from ufe_core.store import Store
    from ufe_core.training.progress import Progress


@click.command(short_help="Render or read frames once, and keep them.")
@which_source
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="A subject to pack; may be repeated.")
@click.option("--split", help="Split of the registry to take subjects from. [default: the source's first]")
@click.option("--part", help="Part of the split: train, test, or all. [default: train; all without a split]")
@click.option("--count", type=click.IntRange(1), help="Only the first so many subjects.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS),
              help="Whose frames and size are taken unless given: what 'ufe train --budget' will ask for.")  # fmt: skip
@click.option("--frames", type=click.IntRange(1), help="Frames of each capture, spread over its segments.")
@click.option("--size", type=click.IntRange(8, 4096), help="Side of the images, pixels.")
@click.option("--cameras", default="tracking", show_default=True,
              help="'tracking', 'augmented', 'all', or names separated by commas.")  # fmt: skip
@click.option("--anchors", help="Names separated by commas, 'all' or 'none'.  [default: the six of a calibration]")
@click.option("--extras", default="", help="Exact data to keep too: geometry, keypoints, segmentation, cameras.")
@click.option("--texture", type=click.IntRange(0), help="Side of each frame's face texture, which codes are read off; "
              "0 keeps none. [default: the default avatar's, where the source has textures]")  # fmt: skip
@click.option("--session", default=0, show_default=True, type=click.IntRange(0), help="Which donning.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Which frames are drawn.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="Captures made at a time.")
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1),
              help="Processes to share them, a capture at a time in each; replaces --threads.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder to pack into, to keep or copy elsewhere. [default: the store, UFE_HOME]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts; progress goes to standard error.")
def pack(
    name: str, assignments: Sequence[str], subjects: Sequence[str], split: str | None, part: str | None,
    count: int | None, threads: int, processes: int, out: Path | None, as_json: bool, **wanted: Any,
) -> None:  # fmt: skip
    """Render or read frames once, and keep them packed for training and measuring.

    Training and benchmarks pack what they need by themselves; this does it ahead, or into a folder of its own. The
    bytes depend on the options alone, not on threads or processes. Kill it at any time and run the same command
    again: it goes on after the last finished block. Several machines may share one folder.

    A folder packed with --out serves as a store: with UFE_HOME set to it, training finds its captures there.

    \b
    Examples:
      ufe source pack                                       what 'ufe train' will need
      ufe source pack --budget gpu --processes 8            for a GPU, by eight processes
      ufe source pack --part test --frames 64 --out held-out
      ufe source pack --subject S004 --cameras all --extras geometry,keypoints --size 192 --out s004
    """
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.packed import pack as pack_in_threads
    from ufe_core.packed_set import pack_in_processes, write_manifest
    from ufe_core.store import Store

    spec, opened = open_source(name, assignments)
    people = choose_part(spec, opened, subjects, split, part, count)
    request = _request(opened, people[0], wanted)
    store, start = Store(out), time.monotonic()
    with TrainingDisplay(titles={"pack": "frames"}) as show:
        tally = _Tally(len(people) * (request.frames + len(request.anchors)), show)
        if processes > 1:
            create = functools.partial(_create, spec.id, tuple(assignments))
            packed = pack_in_processes(
                create, people, request, store=store, processes=processes, listener=tally.count
            )  # fmt: skip
        else:
            packed = pack_in_threads(opened, people, request, store=store, threads=threads, listener=tally.count)
    if out is not None:
        write_manifest(store.root, packed)
    facts = _facts(spec.id, request, store, packed, tally, time.monotonic() - start)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _summary(facts))


@click.command(short_help="Read every packed capture, and name the damaged.")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def verify(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """Read every packed capture of FOLDER, or of the store, and name each damage; exits with 1 if there is any.

    Every byte is compared with checksums made when it was packed: files that are missing, cut short or altered are
    named, and which frames of which data that concerns. Captures that were packed into FOLDER with
    'ufe source pack --out' and are not there are named too. Nothing is changed. A packed capture in the store is a
    cache: delete a damaged one's folder, and what needs it makes it again.
    """
    from concurrent.futures import ThreadPoolExecutor

    from ufe_core.packed import verify_packed
    from ufe_core.packed_set import missing_captures, packed_folders
    from ufe_core.store import Store

    root = folder if folder is not None else Store().root
    folders = packed_folders(root)
    damaged = [{"path": str(path), "reason": reason} for path, reason in missing_captures(root)]
    _refuse_empty(folder, folders or damaged)
    with progress_bar() as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, lines in bar.track(
            zip(folders, pool.map(verify_packed, folders), strict=True), total=len(folders), description="checking"
        ):
            damaged += [{"path": str(path), "reason": line} for line in lines]
    size = sum(file.stat().st_size for path in folders for file in path.iterdir())
    if as_json:
        facts = {"folder": str(root), "captures": len(folders), "bytes": size, "damaged": damaged}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for entry in damaged:
            click.echo(entry["reason"])
        if damaged:
            spoilt = len({entry["path"] for entry in damaged})
            click.echo(f"{spoilt} of {len(folders)} packed captures in '{root}' are damaged or missing.", err=True)
        else:
            click.echo(f"{_captures(len(folders))} in '{root}', {size / 1e6:.0f} MB: all sound.")
    if damaged:
        ctx.exit(1)


def packed_facts(folder: Path) -> dict[str, Any]:
    """What `ufe source info FOLDER` tells of packed captures; reads no image.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    from ufe_core.packed_file import DATA
    from ufe_core.packed_meta import read_meta
    from ufe_core.packed_set import packed_folders

    folders = packed_folders(folder)
    _refuse_empty(folder, folders)
    entries = []
    for path in folders:
        meta, data = read_meta(path), path / DATA
        request = meta["request"]
        entries.append({
            "path": str(path), "subject": meta["subject"], "capture": meta["capture"],
            "session": request["session"], "frames": len(meta["frames"]),
            "anchors": request["anchors"], "cameras": request["cameras"], "size": request["size"],
            "extras": request["extras"], "conditions": meta["conditions"], "traits": meta["traits"],
            "source": meta["source"],
            "bytes": data.stat().st_size if data.is_file() else 0, "sha256": meta["sha256"],
        })  # fmt: skip
    entries.sort(key=lambda entry: (entry["subject"], entry["session"], entry["path"]))
    return {"folder": str(folder), "bytes": sum(entry["bytes"] for entry in entries), "captures": entries}


def print_packed(facts: dict[str, Any]) -> None:
    """The same for people: a line for each capture."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    captures = facts["captures"]
    console.print(f"{_captures(len(captures))} in '{facts['folder']}', {facts['bytes'] / 1e6:.1f} MB", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("capture", "frames", "anchors", "cameras", "pixels", "extras", "MB"):
        table.add_column(heading, justify="right" if heading not in ("capture", "extras") else "left")
    for entry in captures:
        table.add_row(
            entry["capture"], str(entry["frames"]), str(len(entry["anchors"])), str(len(entry["cameras"])),
            str(entry["size"]), ", ".join(entry["extras"]) or "none", f"{entry['bytes'] / 1e6:.1f}",
        )  # fmt: skip
    console.print(table)
    for what in ("cameras", "anchors"):
        for names in dict.fromkeys(tuple(entry[what]) for entry in captures):
            console.print(f"{what}: {', '.join(names) or 'none'}", soft_wrap=True)


class _Tally:
    """Counts what happens to captures, and shows how far it is: only frames that are made count for the rate."""

    def __init__(self, total: int, show: Callable[[Progress], None]) -> None:
        self.made = self.found = 0
        self._total, self._done, self._show = total, 0, show

    def count(self, event: PackEvent) -> None:
        from ufe_core.training.progress import Progress

        self.made += event.kind == "made"
        self.found += event.kind == "found"
        if event.kind == "found":
            self._total -= event.rows
        else:
            self._done += event.rows
        if event.kind == "rows" or (event.kind == "found" and 0 < self._done == self._total):
            self._show(Progress("pack", self._done, self._total, {}))


def _create(component: str, assignments: Sequence[str]) -> HMCSource[Any]:
    return open_source(component, assignments)[1]


def _request(opened: HMCSource[Any], subject: str, wanted: dict[str, Any]) -> PackRequest:
    from ufe_core.budgets import TrainingConfig, budget_defaults
    from ufe_core.packed import PackRequest, captures_of

    budget = TrainingConfig(**budget_defaults(wanted["budget"]))
    capture = captures_of(opened, [subject], wanted["session"])[0]
    return PackRequest(
        frames=wanted["frames"] or budget.frames,
        size=wanted["size"] or budget.size,
        cameras=tuple(camera.name for camera in choose_cameras(capture, wanted["cameras"])),
        anchors=tuple(choose_anchors(capture, wanted["anchors"])),
        seed=wanted["seed"],
        session=wanted["session"],
        extras=tuple(names_of(wanted["extras"])),
        texture=_usual_texture(capture) if wanted["texture"] is None else wanted["texture"],
    )


def _usual_texture(capture: Capture) -> int:
    from ufe_core.interfaces.source import Capture
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import DEFAULT_DECODER

    if type(capture).texture is Capture.texture:
        return 0
    return int(catalogue().get("decoder", DEFAULT_DECODER).load().reads_texture)


def _facts(
    component: str, request: PackRequest, store: Store, packed: Sequence[PackedCapture], tally: _Tally, seconds: float
) -> dict[str, Any]:
    from dataclasses import asdict

    sizes = [sum(file.stat().st_size for file in one.path.iterdir()) for one in packed]
    return {
        "source": component,
        "folder": str(store.root),
        "request": asdict(request),
        "made": tally.made,
        "already_there": tally.found,
        "bytes": sum(sizes),
        "seconds": round(seconds, 3),
        "captures": [
            {"subject": one.subject, "capture": one.capture, "path": str(one.path), "bytes": size, "sha256": one.sha256}
            for one, size in zip(packed, sizes, strict=True)
        ],
    }


def _summary(facts: dict[str, Any]) -> str:
    request, count = facts["request"], facts["made"] + facts["already_there"]
    frames = facts["made"] * (request["frames"] + len(request["anchors"]))
    rate = f", {frames / max(facts['seconds'], 1e-3):.0f} frames/s" if frames else ""
    return (
        f"{_captures(count)} of '{facts['source']}' in '{facts['folder']}': {facts['made']} made, "
        f"{facts['already_there']} already there and sound; {facts['bytes'] / 1e6:.1f} MB in "
        f"{facts['seconds']:.1f} s{rate}.\n"
        f"Each: {request['frames']} frames and {len(request['anchors'])} anchors x {len(request['cameras'])} cameras, "
        f"{request['size']} px, session {request['session']}"
        + (f", with {', '.join(request['extras'])}." if request["extras"] else ".")
    )


def _captures(count: int) -> str:
    return f"{count} packed capture" + ("" if count == 1 else "s")


def _refuse_empty(folder: Path | None, found: Sequence[Any]) -> None:
    from ufe_core.errors import DataError

    if folder is not None and not found:
        state = f"'{folder}' holds no packed captures" if folder.is_dir() else f"There is no folder '{folder}'"
        raise DataError(f"{state}. 'ufe source pack --out {folder}' makes some.")
