"""What `ufe avatar` shows: people, what drives them, from where; as a sheet, a picture or a video."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ufe_avatar.performance import Performance, exact_pictures, identity_of, pictures, read_performance
from ufe_avatar.video import VIDEOS, write_video
from ufe_avatar.views import camera_around
from ufe_core.cli.choice import all_known, choose_subjects, names_of
from ufe_core.cli.contact_sheet import SheetRow, draw_sheet, sheet_size
from ufe_core.cli.progress import TrainingDisplay
from ufe_core.config import parse_overrides
from ufe_core.errors import ConfigError
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.source import Capture, HMCSource
from ufe_core.pictures import write_png
from ufe_core.plugins import catalogue
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_core.store import write_atomic
from ufe_core.training.progress import Progress
from ufe_core.training.runs import pick_device
from ufe_core.types import CameraSpec, Identity

PICTURES = (".png", *VIDEOS)
_COLUMNS = 6  # of a sheet, unless frames are named
_OTHERS = 3
_POLE_DEG = 89


@dataclass(frozen=True)
class Request:
    """The options that commands share."""

    segment: str | None
    frames: str | None
    every: int
    views: tuple[str, ...]
    size: int
    decoder: str
    source: str
    assignments: tuple[str, ...]
    fps: float
    device: str
    out: Path

    @property
    def moves(self) -> bool:
        """Whether a video is wanted."""
        return self.out.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Row:
    """One person's images from each of a few cameras, uint8 [H, W, 3], made as they are asked for."""

    subject: str
    notes: tuple[str, ...]
    images: tuple[Iterator[np.ndarray], ...]
    cameras: tuple[CameraSpec, ...]


class Stage:
    """The people of a source, an avatar and the cameras of a request.

    Raises:
        UfeError: an option names what is not there, or has a value that is not allowed.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        overrides = parse_overrides(request.assignments, owners=("source", "decoder"))
        self.cameras = tuple(_camera(view, request.size) for view in request.views or ("0,0",))
        if request.segment is not None and request.frames is not None:
            raise ConfigError("--segment and --frames both say what to show: leave out one.")
        device = pick_device(request.device)
        self._spec = catalogue().get("source", request.source)
        self._source: HMCSource[Any] = catalogue().create("source", self._spec.id, overrides.get("source", {}))
        self._decoder_id = catalogue().get("decoder", request.decoder).id
        decoder: Decoder[Any] = catalogue().create("decoder", self._decoder_id, overrides.get("decoder", {}))
        self.decoder = decoder.to(device).eval().requires_grad_(False)
        self._identities: dict[str, Identity] = {}
        self._drawn, self._to_draw = 0, 0
        self._display = TrainingDisplay(titles={"read": "reading", "render": "rendering"})
        self._show: Any = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Progress is shown within."""
        with self._display as self._show:
            yield

    def person(self, subject: str | None) -> Capture:
        """The capture of a subject, or of the first who is not held out."""
        return self._captures([] if subject is None else [subject], 1)[0]

    def others(self, but: Capture, named: str | None) -> list[Capture]:
        """Captures of the named subjects, or of a few who are not held out and are not `but`."""
        if named is not None:
            return self._captures(names_of(named) or [named], 0)
        others = [one for one in self._captures([], _OTHERS + 1) if one.subject != but.subject]
        return others[:_OTHERS]

    def frames(self, capture: Capture) -> list[int]:
        """Indices of the frames to show.

        Raises:
            ConfigError: a frame or segment is not there, or a video is to show no stretch of time.
        """
        request = self.request
        if request.frames is not None:
            return _listed(request.frames, capture.frame_count, f"Capture {capture.id!r}")
        names = [segment.name for segment in capture.segments]
        if request.segment is not None:
            name = all_known(f"Capture {capture.id!r}", "segment", [request.segment], names)[0]
            segment = capture.segments[names.index(name)]
            if request.moves:
                return list(range(segment.start, segment.stop, request.every))
            return _even(segment.start, segment.stop)
        if request.moves:
            raise ConfigError("A video shows a stretch of time: name a --segment, such as "
                              f"{names[-1]!r}, or give --frames, such as 0-100.")  # fmt: skip
        anchors = [capture.anchors[name] for name in DEFAULT_ANCHORS if name in capture.anchors]
        return anchors or capture.spread(min(_COLUMNS, capture.frame_count), seed=0)

    def fits(self, frames: Sequence[object], *, rows: int, across: int) -> None:
        """Refuse a sheet that is too large, before it is worked on; `across` views stand in each of its blocks.

        Raises:
            ConfigError: it is.
        """
        if not self.request.moves:
            sheet_size(self.cameras[:across], subjects=rows, anchors=len(frames), size=self.request.size)

    def read(self, capture: Capture, frames: Sequence[int]) -> Performance:
        """The codes and gaze of frames."""

        def tell(done: int) -> None:
            self._show(Progress("read", done, len(frames), {}))

        return read_performance(capture, self.decoder, frames, progress=tell)

    def row(self, person: Capture, performance: Performance, *cameras: CameraSpec, notes: Sequence[str]) -> Row:
        """A person's avatar, driven."""
        if person.id not in self._identities:
            self._identities[person.id] = identity_of(person, self.decoder)
        identity = self._identities[person.id]
        images = [pictures(self.decoder, identity, performance, camera) for camera in cameras]
        return Row(person.subject, tuple(notes), self._told(images, len(performance)), cameras)

    def exact_row(self, person: Capture, frames: Sequence[int], camera: CameraSpec, notes: Sequence[str]) -> Row:
        """A person's exact faces."""
        images = [exact_pictures(person, self.decoder, frames, camera)]
        return Row(person.subject, tuple(notes), self._told(images, len(frames)), (camera,))

    def write(self, rows: Sequence[Row], titles: Sequence[str]) -> str:
        """Draw the rows, all from as many cameras, into the file that is wanted; say so in a line.

        In a video, rows stand side by side, and the views of each below each other.
        """
        request, views = self.request, self.cameras
        people = ", ".join(dict.fromkeys(row.subject for row in rows))
        caption = f"{self._decoder_id}: {people}, {counted(len(titles), 'frame')}"
        caption += (f" x {len(views)} views" if len(views) > 1 else "") + f", {request.size} px"
        if request.moves:
            write_video(request.out, _side_by_side(rows), fps=request.fps)
            return f"{request.out}  {len(titles) / request.fps:.1f} s at {request.fps:g} fps ({caption})"
        if len(rows) == len(titles) == len(rows[0].cameras) == 1:
            image = next(rows[0].images[0])
            write_png(request.out, image)
            return f"{request.out}  {request.size} x {request.size} pixels ({caption})"
        cameras = rows[0].cameras if len(rows[0].cameras) > 1 else [replace(rows[0].cameras[0], name="")]
        width, height = sheet_size(cameras, subjects=len(rows), anchors=len(titles), size=request.size)
        drawn = [SheetRow(row.subject, row.notes, _tiles(row)) for row in rows]
        write_atomic(request.out, draw_sheet(drawn, cameras, titles, caption=caption))
        return f"{request.out}  {width} x {height} pixels ({caption})"

    def _captures(self, named: Sequence[str], count: int) -> list[Capture]:
        return self._source.captures(choose_subjects(self._spec, self._source, named, count, None))

    def _told(self, images: Sequence[Iterator[np.ndarray]], count: int) -> tuple[Iterator[np.ndarray], ...]:
        """The same images; progress is told of each."""
        self._to_draw += count * len(images)

        def passed(some: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            for image in some:
                self._drawn += 1
                self._show(Progress("render", self._drawn, self._to_draw, {}))
                yield image

        return tuple(map(passed, images))


def angles(text: str, option: str) -> tuple[float, float]:
    """Azimuth and altitude in degrees, of an option.

    Raises:
        ConfigError: it is not two numbers, or an altitude is beyond the poles.
    """
    try:
        azimuth, altitude = map(float, text.split(","))
    except ValueError:
        azimuth, altitude = math.nan, math.nan
    if not (math.isfinite(azimuth) and abs(altitude) < _POLE_DEG):
        raise ConfigError(
            f"{option} {text!r} is no direction: give azimuth and altitude in degrees, such as 45,-10, the "
            f"altitude between -{_POLE_DEG} and {_POLE_DEG}."
        )
    return azimuth, altitude


def codes_of_file(path: Path, stage: Stage) -> tuple[Performance, list[str]]:
    """The performance that a file holds, as much of it as is to be shown, and titles of its instants."""
    performance, request = Performance.load(path, stage.decoder), stage.request
    count = len(performance)
    if request.frames is not None:
        chosen = _listed(request.frames, count, f"'{path}'")
    else:
        chosen = list(range(count)) if request.moves or count <= 2 * _COLUMNS else _even(0, count)
    return performance.part(chosen), [f"code {k}" for k in chosen]


def titled(capture: Capture, frames: Sequence[int]) -> list[str]:
    """The name of each frame: the anchor that it is, or its segment, and its number."""
    anchors = {index: name for name, index in capture.anchors.items()}
    owners = [next((one.name for one in capture.segments if one.start <= k < one.stop), "") for k in frames]
    return [f"{anchors.get(k, owner)} · {k}" for k, owner in zip(frames, owners, strict=True)]


def counted(count: int, what: str) -> str:
    """A number of things, in words."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def refuse(why: str, options: Mapping[str, object]) -> None:
    """Refuse the options that are set.

    Raises:
        ConfigError: one is.
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise ConfigError(f"{why}: leave out {' and '.join(given)}.")


def _camera(view: str, size: int) -> CameraSpec:
    azimuth, altitude = angles(view, "--view")
    words = [
        f"{abs(value):g}° {positive if value > 0 else negative}"
        for value, positive, negative in ((azimuth, "left", "right"), (altitude, "above", "below"))
        if value
    ]
    return camera_around(azimuth, altitude, size, name=" ".join(words) or "front")


def _listed(text: str, count: int, owner: str) -> list[int]:
    """Numbers below `count`, of a text such as 10,20-30.

    Raises:
        ConfigError: it is no such text, or a number is not there.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--frames {text!r} is no list of frames, such as 10,20,30 or 100-160.")
        if int(match[2] or match[1]) >= count:
            raise ConfigError(f"{owner} has frames 0 to {count - 1}; --frames asks for {part.strip()}.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _even(start: int, stop: int) -> list[int]:
    """A sheet's worth of numbers from `start` to `stop` exclusive, even over them."""
    columns = min(_COLUMNS, stop - start)
    return [start + (2 * k + 1) * (stop - start) // (2 * columns) for k in range(columns)]


def _tiles(row: Row) -> np.ndarray:
    """uint8 [M, C, size, size, 3]."""
    return np.stack([np.stack(list(images)) for images in row.images], 1)


def _side_by_side(rows: Sequence[Row]) -> Iterator[np.ndarray]:
    for columns in zip(*(zip(*row.images, strict=True) for row in rows), strict=True):
        yield np.concatenate([np.concatenate(column, 0) for column in columns], 1)
