"""`ufe source`: what a source of captures gives and a picture of it; packing is in `ufe_core.cli.packing`."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.cli.choice import (
    choose_anchors,
    choose_cameras,
    choose_subjects,
    open_source,
    parts_of,
    progress_bar,
    which_source,
)
from ufe_core.cli.export import export
from ufe_core.cli.packing import pack, packed_facts, print_packed, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from ufe_core.components import ComponentSpec
    from ufe_core.interfaces.source import Capture, HMCSource
    from ufe_core.types import CameraSpec


@click.group()
def source() -> None:
    """Look at a source of headset captures.

    \b
    Examples:
      ufe source list                       the sources that are installed
      ufe source info                       subjects, cameras, segments and anchors of the simulated headset
      ufe source preview                    a contact sheet: subjects x cameras x anchors
      ufe source pack                       render what 'ufe train' will need, and keep it
      ufe source verify                     check the packed captures in the store
      ufe source export --as ava256 ...     write captures in the layout of the public ava-256 release
    """


source.add_command(pack)
source.add_command(verify)
source.add_command(export)


@source.command("list", short_help="List the sources that are installed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the sources that are installed; the same as `ufe plugins --kind source`."""
    from ufe_core.cli.plugins import plugins

    ctx.invoke(plugins, kind="source", as_json=as_json, strict=False, why=None)


@source.command(short_help="Show what a source gives.")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@which_source
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def info(folder: Path | None, name: str, assignments: "Sequence[str]", as_json: bool) -> None:
    """Show what a source gives: people, splits, sessions, cameras, segments, anchors, conditions, labels.

    The capture described is the first subject's; no frame is rendered or read. With FOLDER: what is packed there.

    \b
    Examples:
      ufe source info
      ufe source info --set source.subjects=20 --json
      ufe source info held-out              what 'ufe source pack --out held-out' made
    """
    if folder is not None:
        facts, show = packed_facts(folder), print_packed
    else:
        facts, show = _facts(*open_source(name, assignments)), _print_facts
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        show(facts)


@source.command(short_help="Write a contact sheet of a source's captures.")
@which_source
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="A subject to show; may be repeated.")
@click.option("--count", default=4, show_default=True, type=click.IntRange(1), help="Subjects, unless named.")
@click.option("--seed", type=click.IntRange(0), help="Draw the subjects at random; without it the first ones.")
@click.option("--anchors", help="Anchors by comma, 'all' or 'none'.  [default: the six of a calibration]")
@click.option("--frames", default=0, show_default=True, type=click.IntRange(0),
              help="Frames to show beside the anchors, spread over the session.")  # fmt: skip
@click.option("--session", default=0, show_default=True, type=click.IntRange(0), help="Which donning.")
@click.option("--keypoints", is_flag=True, help="Draw keypoints: green where visible, red where hidden.")
@click.option("--segmentation", is_flag=True, help="Tint each pixel by its class.")
@click.option(
    "--cameras", default="tracking", show_default=True,
    help="'tracking', 'augmented', 'all', or names separated by commas.",
)  # fmt: skip
@click.option("--size", default=128, show_default=True, type=click.IntRange(16, 1024), help="Pixels of a tile.")
@click.option("--out", default=Path("preview.png"), show_default=True, type=click.Path(path_type=Path),
              help="PNG to write.")  # fmt: skip
def preview(
    name: str, assignments: "Sequence[str]", subjects: "Sequence[str]", count: int, seed: int | None,
    anchors: str | None, frames: int, session: int, keypoints: bool, segmentation: bool, cameras: str, size: int,
    out: Path,
) -> None:  # fmt: skip
    """Write a contact sheet: subjects x cameras x anchors, and frames of the session.

    Subjects are training subjects unless named: the held-out ones are for measuring.

    \b
    Examples:
      ufe source preview
      ufe source preview --count 8 --seed 3 --cameras all --size 96
      ufe source preview --subject S004 --subject S017 --anchors neutral,lip_pucker --out lips.png
      ufe source preview --anchors none --frames 8 --count 1 --size 192 --segmentation --keypoints
    """
    from ufe_core.cli.contact_sheet import SheetRow, class_colours, draw_sheet, sheet_size
    from ufe_core.packed import captures_of
    from ufe_core.store import write_atomic
    from ufe_core.targets import check_target

    check_target(out, (".png",))
    spec, opened = open_source(name, assignments)
    chosen, divided = choose_subjects(spec, opened, subjects, count, seed), parts_of(spec, opened)
    first = captures_of(opened, chosen[:1], session)[0]
    titles = choose_anchors(first, anchors)
    wanted = choose_cameras(first, cameras)
    _refuse_nothing(titles, frames)
    headings = [*titles, *(f"frame {k + 1}" for k in range(frames))]
    width, height = sheet_size(
        wanted, subjects=len(chosen), anchors=len(headings), size=size, below=frames > 0, legend=segmentation
    )
    rows = []
    with progress_bar() as bar:
        task = bar.add_task("preparing", total=len(chosen) * len(headings))
        for subject in chosen:
            bar.update(task, description=f"rendering {subject}")
            capture = captures_of(opened, [subject], session)[0]
            spread = capture.spread(frames, seed=0)
            planes = []
            for index in (*(capture.anchors[a] for a in choose_anchors(capture, ",".join(titles) or "none")), *spread):
                planes.append(_pictures(capture, index, wanted, size, keypoints, segmentation))
                bar.advance(task)
            below = (*("" for _ in titles), *(_place_of(capture, index) for index in spread))
            parts = [part for part, members in divided.items() if subject in members]
            rows.append(SheetRow(subject, _notes(parts, capture), _stack(planes), below))
    shown = f"{len(titles)} anchors" + (f" and {frames} frames" if frames else "")
    caption = f"{spec.id}: {len(rows)} subjects x {len(wanted)} cameras x {shown}, "
    caption += (f"session {session}, " if session else "") + f"{size} px"
    data = draw_sheet(rows, wanted, headings, caption=caption, legend=class_colours() if segmentation else {})
    write_atomic(out, data)
    click.echo(f"{out}  {width} x {height} pixels, {len(data) / 1e3:.0f} kB ({caption})")


def _refuse_nothing(anchors: list[str], frames: int) -> None:
    from ufe_core.errors import ConfigError

    if not anchors and not frames:
        raise ConfigError("There is nothing to show: name anchors, or ask for --frames.")


def _pictures(
    capture: "Capture", index: int, cameras: "Sequence[CameraSpec]", size: int, keypoints: bool, segmentation: bool
) -> "np.ndarray":
    """Images of one frame, uint8 [C, size, size], or [C, size, size, 3] with something drawn over them."""
    from ufe_core.cli.contact_sheet import tint
    from ufe_core.errors import DataError
    from ufe_core.pictures import draw_points

    names = [camera.name for camera in cameras]
    images = capture.frames([index], cameras=names, size=size)[0]
    if segmentation:
        classes = capture.segmentation([index], cameras=names, size=size)
        if classes is None:
            raise DataError(f"Capture {capture.id!r} has no segmentation. Leave out --segmentation.")
        images = tint(images, classes[0])
    if keypoints:
        points = capture.keypoints([index], cameras=names, size=size)
        if points is None:
            raise DataError(f"Capture {capture.id!r} has no keypoints. Leave out --keypoints.")
        images = draw_points(images, points.points[0], points.visible[0])
    return images


def _place_of(capture: "Capture", index: int) -> str:
    """The segment of a frame, and its number."""
    owner = next((segment.name for segment in capture.segments if segment.start <= index < segment.stop), "")
    return f"{owner.replace('_', ' ')} · {index}"


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
        "sessions": opened.sessions,
        "splits": {part: len(members) for part, members in parts_of(spec, opened).items()},
        "cameras": [_camera_facts(camera) for camera in capture.cameras],
        "frames_per_capture": capture.frame_count,
        "segment_kinds": kinds,
        "segments": [{"name": s.name, "kind": s.kind, "frames": s.stop - s.start} for s in capture.segments],
        "anchors": list(capture.anchors),
        "conditions": dict(capture.conditions),
        "traits": dict(capture.traits),
        "labels": labels is not None,
        "extras": _extras_of(capture),
        "label_sizes": {"expression": labels.expression.shape[1], "gaze": labels.gaze.shape[1]} if labels else None,
        "capture": capture.id,
    }


def _extras_of(capture: "Capture") -> list[str]:
    """Exact data that a capture's class implements; whether a capture has it, reading tells."""
    from ufe_core.interfaces.source import Capture

    methods = {
        "geometry": "geometry",
        "keypoints": "keypoints",
        "segmentation": "segmentation",
        "cameras": "cameras_at",
    }
    return [extra for extra, name in methods.items() if getattr(type(capture), name) is not getattr(Capture, name)]


def _camera_facts(camera: "CameraSpec") -> dict[str, Any]:
    return {
        "name": camera.name,
        "side": camera.side,
        "region": camera.region,
        "role": camera.role,
        "model": camera.model,
        "resolution": [camera.width, camera.height],
        "fov_deg": [round(angle, 1) for angle in _fields_of_view(camera)],
        "position_mm": [round(float(x), 1) + 0.0 for x in camera.position],  # no minus zero
    }


def _fields_of_view(camera: "CameraSpec") -> list[float]:
    """Degrees from edge to edge through the image's centre, across and down; less where the lens ends before."""
    import numpy as np

    wide, high = camera.width, camera.height
    edges = np.array([[[0, high / 2], [wide, high / 2]], [[wide / 2, 0], [wide / 2, high]]])
    from_axis = np.arccos(np.clip(camera.unproject(edges)[..., 2], -1, 1))
    within = np.where(np.isnan(from_axis), camera.max_angle, from_axis)
    return [float(np.degrees(angles.sum())) for angles in within]


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
        ("sessions", f"{facts['sessions']} for each subject"),
        ("labels", f"expression [{sizes['expression']}], gaze [{sizes['gaze']}]" if sizes else "none"),
        ("extras", ", ".join(facts["extras"]) or "none"),
        ("conditions", f"{shown}  (of {facts['capture']})"),
        ("traits", _traits_shown(facts["traits"])),
    ):  # fmt: skip
        rows.add_row(label, escape(value))
    console.print(rows)
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("camera", "role", "model", "pixels", "field of view", "at x y z, mm"):
        table.add_column(heading, no_wrap=True, style="cyan" if heading == "camera" else None)
    for camera in facts["cameras"]:
        wide, high = camera["fov_deg"]
        pixels = "{} x {}".format(*camera["resolution"])
        table.add_row(
            camera["name"],
            camera["role"],
            camera["model"],
            pixels,
            f"{wide:.0f} x {high:.0f} deg",
            "{:4.0f} {:4.0f} {:4.0f}".format(*camera["position_mm"]),
        )
    console.print(table)


def _traits_shown(traits: "Mapping[str, Any]") -> str:
    """Traits for people to read; of a family, whose names share what stands before a dot, the count."""
    plain = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in traits.items()
        if "." not in name
    ]
    families = Counter(name.partition(".")[0] for name in traits if "." in name)
    more = [f"{family}.* ({count})" for family, count in families.items()]
    return ", ".join(plain + more) + ("; --json tells all" if more else "") or "none"


def _notes(parts: "Sequence[str]", capture: "Capture") -> tuple[str, ...]:
    """A few words under a subject's id: its parts of the split, and how the headset sat."""
    lines = []
    for name, value in capture.conditions.items():
        words = name.replace("_", " ")
        if isinstance(value, float) and name.endswith("_mm"):
            lines.append(f"{words.removesuffix(' mm')} {value:.1f} mm")
        elif isinstance(value, float) and name.endswith("_deg"):
            lines.append(f"{words.removesuffix(' deg')} {value:.1f}°")
        elif isinstance(value, str) and value != "none":
            lines.append(value.replace("_", " "))
        else:
            lines.append(f"{words} {value:.2f}" if isinstance(value, float) else f"{words} {value}")
    return (*parts, *lines)


def _stack(planes: list[Any]) -> Any:
    import numpy as np

    return np.stack(planes)
