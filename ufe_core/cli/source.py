"""`ufe source`: what a source of captures gives, a picture of it, and the health of what is packed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.progress import Progress

    from ufe_core.components import ComponentSpec
    from ufe_core.interfaces.source import Capture, HMCSource
    from ufe_core.types import CameraSpec


def _which_source(command: "Callable[..., None]") -> "Callable[..., None]":
    setting = click.option(
        "--set", "assignments", multiple=True, metavar="source.OPTION=VALUE",
        help="Set an option of the source; 'ufe plugins show NAME' lists them.",
    )  # fmt: skip
    name = click.option(
        "--source", "name", default="synthetic", show_default=True, help="Name or full id of the source."
    )
    return name(setting(command))


@click.group()
def source() -> None:
    """Look at a source of headset captures.

    \b
    Examples:
      ufe source list                       the sources that are installed
      ufe source info                       subjects, cameras, segments and anchors of the simulated headset
      ufe source preview                    a contact sheet: subjects x cameras x anchors
      ufe source verify                     check the packed captures in the store
    """


@source.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the sources that are installed; the same as `ufe plugins --kind source`."""
    from ufe_core.cli.plugins import plugins

    ctx.invoke(plugins, kind="source", as_json=as_json, strict=False, why=None)


@source.command()
@_which_source
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def info(name: str, assignments: "Sequence[str]", as_json: bool) -> None:
    """Show what a source gives: people, splits, cameras, segments, anchors, conditions, labels.

    The capture described is the first subject's; no frame is rendered or read.

    \b
    Examples:
      ufe source info
      ufe source info --set source.subjects=20 --json
    """
    spec, opened = _open(name, assignments)
    facts = _facts(spec, opened)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print_facts(facts)


@source.command()
@_which_source
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="A subject to show; may be repeated.")
@click.option("--count", default=4, show_default=True, type=click.IntRange(1), help="Subjects, unless named.")
@click.option("--seed", type=click.IntRange(0), help="Draw the subjects at random; without it the first ones.")
@click.option("--anchors", help="Anchors, separated by commas, or 'all'.  [default: the six of a calibration]")
@click.option(
    "--cameras", default="tracking", show_default=True,
    help="'tracking', 'augmented', 'all', or names separated by commas.",
)  # fmt: skip
@click.option("--size", default=128, show_default=True, type=click.IntRange(16, 1024), help="Pixels of a tile.")
@click.option(
    "--out",
    default=Path("preview.png"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="PNG to write.",
)
def preview(
    name: str, assignments: "Sequence[str]", subjects: "Sequence[str]", count: int, seed: int | None,
    anchors: str | None, cameras: str, size: int, out: Path,
) -> None:  # fmt: skip
    """Write a contact sheet: subjects x cameras x anchors.

    Subjects are training subjects unless named: the held-out ones are for measuring.

    \b
    Examples:
      ufe source preview
      ufe source preview --count 8 --seed 3 --cameras all --size 96
      ufe source preview --subject S004 --subject S017 --anchors neutral,lip_pucker --out lips.png
    """
    from ufe_core.cli.contact_sheet import SheetRow, draw_sheet, sheet_size

    _check_target(out)
    spec, opened = _open(name, assignments)
    chosen = _choose_subjects(spec, opened, subjects, count, seed)
    first = opened.captures(chosen[:1])[0]
    wanted_anchors = _choose_anchors(first, anchors)
    wanted = _choose_cameras(first, cameras)
    width, height = sheet_size(wanted, subjects=len(chosen), anchors=len(wanted_anchors), size=size)
    rows = []
    with _progress() as bar:
        task = bar.add_task("preparing", total=len(chosen) * len(wanted_anchors))
        for subject in chosen:
            capture = opened.captures([subject])[0]
            planes = []
            for anchor in _choose_anchors(capture, ",".join(wanted_anchors)):
                index = capture.anchors[anchor]
                planes.append(capture.frames([index], cameras=[camera.name for camera in wanted], size=size)[0])
                bar.update(task, advance=1, description=f"rendering {subject}")
            rows.append(SheetRow(subject, _notes(spec, capture), _stack(planes)))
    caption = f"{spec.id}: {len(rows)} subjects x {len(wanted)} cameras x {len(wanted_anchors)} anchors, {size} px"
    data = draw_sheet(rows, wanted, wanted_anchors, caption=caption)
    _write(out, data)
    click.echo(f"{out}  {width} x {height} pixels, {len(data) / 1e3:.0f} kB ({caption})")


@source.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Check every packed capture in the store; exits with 1 if any is damaged.

    Nothing is changed. A packed capture is a cache: a run that needs a damaged one makes it again, and
    deleting its folder is safe.
    """
    from ufe_core.errors import DataError
    from ufe_core.packed import open_packed
    from ufe_core.store import Store

    root = Store().root / "captures"
    folders = sorted(p for p in root.iterdir() if not p.name.startswith(".")) if root.is_dir() else []
    damaged: list[dict[str, str]] = []
    sizes = 0
    with _progress() as bar:
        for folder in bar.track(folders, description="checking captures"):
            try:
                open_packed(folder)
                sizes += sum(file.stat().st_size for file in folder.iterdir())
            except DataError as error:
                damaged.append({"path": str(folder), "reason": str(error)})
    if as_json:
        facts = {"store": str(root), "captures": len(folders), "bytes": sizes, "damaged": damaged}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for entry in damaged:
            click.echo(entry["reason"])
        if damaged:
            click.echo(f"{len(damaged)} of {len(folders)} packed captures in '{root}' are damaged.", err=True)
        else:
            click.echo(f"{len(folders)} packed captures in '{root}', {sizes / 1e6:.0f} MB: all sound.")
    if damaged:
        ctx.exit(1)


def _open(name: str, assignments: "Sequence[str]") -> "tuple[ComponentSpec, HMCSource[Any]]":
    from ufe_core.config import parse_overrides
    from ufe_core.plugins import catalogue

    overrides = parse_overrides(assignments, owners=("source",)).get("source", {})
    spec = catalogue().get("source", name)
    return spec, catalogue().create("source", spec.id, overrides)


def _splits(spec: "ComponentSpec", subjects: "Iterable[str]") -> dict[str, list[str]]:
    """Members of each part of this source's splits in the registry, as far as the source has them."""
    from ufe_core.registry import load_registry

    there = set(subjects)
    return {
        part: [subject for subject in split.part(part) if subject in there]
        for split in load_registry().splits.values()
        if split.source == spec.id
        for part in ("train", "test", "subjects")
        if getattr(split, part)
    }


def _facts(spec: "ComponentSpec", opened: "HMCSource[Any]") -> dict[str, Any]:
    subjects = opened.subjects()
    capture = opened.captures(subjects[:1])[0]
    labels = capture.labels([0])
    kinds: dict[str, int] = {}
    for segment in capture.segments:
        kinds[segment.kind] = kinds.get(segment.kind, 0) + 1
    return {
        "id": spec.id,
        "summary": spec.summary,
        "options": opened.config.model_dump(mode="json"),
        "subjects": {"count": len(subjects), "first": subjects[0], "last": subjects[-1]},
        "splits": {part: len(members) for part, members in _splits(spec, subjects).items()},
        "cameras": [_camera_facts(camera) for camera in capture.cameras],
        "frames_per_capture": capture.frame_count,
        "segment_kinds": kinds,
        "segments": [{"name": s.name, "kind": s.kind, "frames": s.stop - s.start} for s in capture.segments],
        "anchors": list(capture.anchors),
        "conditions": dict(capture.conditions),
        "labels": labels is not None,
        "label_sizes": {"expression": labels.expression.shape[1], "gaze": labels.gaze.shape[1]} if labels else None,
        "capture": capture.id,
    }


def _camera_facts(camera: "CameraSpec") -> dict[str, Any]:
    import math

    fov = [
        2 * math.degrees(math.atan(pixels / 2 / camera.intrinsics[axis, axis]))
        for axis, pixels in enumerate((camera.width, camera.height))
    ]
    return {
        "name": camera.name,
        "side": camera.side,
        "region": camera.region,
        "role": camera.role,
        "resolution": [camera.width, camera.height],
        "fov_deg": [round(angle, 1) for angle in fov],
    }


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold cyan]{facts['id']}[/]  {escape(facts['summary'])}", soft_wrap=True)
    console.print()
    people, kinds = facts["subjects"], facts["segment_kinds"]
    splits = ", ".join(f"{count} {part}" for part, count in facts["splits"].items())
    sizes = facts["label_sizes"]
    span = f"{people['count']}, {people['first']} to {people['last']}"
    shown = ", ".join(f"{name} {value}" for name, value in facts["conditions"].items()) or "none"
    rows = Table(box=None, pad_edge=False, show_header=False)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for label, value in (
        ("subjects", span + (f"  ({splits})" if splits else "")),
        ("a capture", f"{facts['frames_per_capture']} frames in {len(facts['segments'])} segments: "
                      + ", ".join(f"{count} {kind}" for kind, count in kinds.items())),
        ("anchors", ", ".join(facts["anchors"]) or "none"),
        ("labels", f"expression [{sizes['expression']}], gaze [{sizes['gaze']}]" if sizes else "none"),
        ("conditions", f"{shown}  (of {facts['capture']})"),
    ):  # fmt: skip
        rows.add_row(label, escape(value))
    console.print(rows)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("camera", "side", "region", "role", "pixels", "field of view"):
        table.add_column(heading, no_wrap=True, style="cyan" if heading == "camera" else None)
    for camera in facts["cameras"]:
        wide, high = camera["fov_deg"]
        pixels = "{} x {}".format(*camera["resolution"])
        table.add_row(
            camera["name"],
            camera["side"],
            camera["region"],
            camera["role"],
            pixels,
            f"{wide:g} x {high:g} deg",
        )
    console.print(table)


def _choose_subjects(
    spec: "ComponentSpec", opened: "HMCSource[Any]", named: "Sequence[str]", count: int, seed: int | None
) -> list[str]:
    from ufe_core.config import did_you_mean
    from ufe_core.errors import ConfigError, DataError

    known = opened.subjects()
    for subject in named:
        if subject not in known:
            raise DataError(
                f"Source '{spec.id}' has no subject {subject!r}.{did_you_mean(subject, known)} "
                f"It has {len(known)}: {known[0]} to {known[-1]}."
            )
    if named:
        return list(dict.fromkeys(named))
    splits = _splits(spec, known)
    held_out = set(splits.get("test", ()))
    pool = [subject for subject in known if subject not in held_out]
    if count > len(pool):
        raise ConfigError(f"--count {count} is more than the {len(pool)} subjects of '{spec.id}' not held out.")
    if seed is None:
        return pool[:count]
    import random

    return sorted(random.Random(seed).sample(pool, count))


def _choose_anchors(capture: "Capture", text: str | None) -> list[str]:
    from ufe_core.recipe import DEFAULT_ANCHORS

    known = list(capture.anchors)
    if text == "all":
        return known
    wanted = _names(text) if text is not None else [name for name in DEFAULT_ANCHORS if name in known] or known
    return _all_known(f"Capture {capture.id!r}", "anchor", wanted, known)


def _choose_cameras(capture: "Capture", text: str) -> "list[CameraSpec]":
    if text in ("all", "tracking", "augmented"):
        return [camera for camera in capture.cameras if text in ("all", camera.role)]
    by_name = {camera.name: camera for camera in capture.cameras}
    return [by_name[n] for n in _all_known(f"Capture {capture.id!r}", "camera", _names(text), list(by_name))]


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _all_known(owner: str, what: str, wanted: list[str], known: list[str]) -> list[str]:
    from ufe_core.config import did_you_mean
    from ufe_core.errors import ConfigError

    has = ", ".join(known) or "none"
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{owner} has no {what} {name!r}.{did_you_mean(name, known)} It has {has}.")
    if not wanted:
        raise ConfigError(f"No {what} is named; {owner} has {has}.")
    return wanted


def _notes(spec: "ComponentSpec", capture: "Capture") -> tuple[str, ...]:
    """A few words under a subject's id: its split and how the headset sat."""
    part = [name for name, members in _splits(spec, [capture.subject]).items() if members]
    lines = []
    for name, value in capture.conditions.items():
        if isinstance(value, float) and name.endswith("_mm"):
            lines.append(f"{name.removesuffix('_mm')} {value:.1f} mm")
        elif isinstance(value, float) and name.endswith("_deg"):
            lines.append(f"{name.removesuffix('_deg')} {value:.1f}°")
        else:
            lines.append(f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}")
    return (*part, *lines)


def _stack(planes: list[Any]) -> Any:
    import numpy as np

    return np.stack(planes)


def _progress() -> "Progress":
    """A bar on standard error, or nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _check_target(out: Path) -> None:
    from ufe_core.errors import ConfigError

    if out.is_dir():
        raise ConfigError(f"--out '{out}' is a folder. Give the name of a PNG file.")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out '{out}' is not the name of a PNG file: end it in '.png'.")
    if not out.parent.is_dir():
        raise ConfigError(f"--out '{out}': there is no folder '{out.parent}'. Make it first.")


def _write(out: Path, data: bytes) -> None:
    """Put the file in place whole; an `OSError` reaches the user as one line that names it."""
    import os

    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        os.replace(part, out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write ({os.strerror(error.errno or 0)})", str(out)) from error
