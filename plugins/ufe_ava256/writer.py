"""Writes captures of any source in the layout of the public ava-256 release, so that tools made for it read them."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from ufe_ava256 import layout
from ufe_ava256.written import (
    AXES,
    add_member,
    avif_bytes,
    calibration_entry,
    camera_id,
    csv_bytes,
    json_bytes,
    npy_bytes,
    obj_bytes,
    open_archive,
    ply_bytes,
    png_bytes,
    pose_text,
    tensor_bytes,
)
from ufe_core.config import ComponentConfig, build_config
from ufe_core.errors import DISK_FULL, ArtifactError, ConfigError, DataError
from ufe_core.interfaces.source import Capture, DomeCapture, HMCSource, Segment, WriteRequest, WrittenCapture

#: What an export leaves beside the layout's own files: at its top what was asked for, in a capture what it holds.
RECORD = "ufe-export.json"
_SCHEMA = "ufe.export/1"
_FIRST_DAY = datetime.date(2000, 1, 1)
_LETTERS = 26
_BLOCK = 8  # headset frames asked for at a time
_HEADSET_NEUTRAL = "EXP_neutral"
_PUBLIC_CAMERAS = {camera.name: camera.stem for camera in layout.HEADSET_CAMERAS}


class WriterOptions(ComponentConfig):
    """Options of the layout, set by `--set as.OPTION=VALUE`."""

    members: Literal["folder", "flat"] = Field(
        "folder", description="Headset archives: images in a folder of the camera's name, as the dome's, or bare"
    )
    quality: int = Field(90, ge=1, le=100, description="AVIF quality")
    texture: int = Field(1024, ge=8, le=8192, description="Side of textures, pixels; public networks take 1024 alone")


def write(
    folder: Path,
    source: HMCSource[Any],
    request: WriteRequest,
    *,
    listener: Callable[[int, int], None] | None = None,
) -> list[WrittenCapture]:
    """Write captures in the public layout: what `HMCSource.write` of source `ava256` does.

    Raises:
        ConfigError: an option is wrong, or `folder` holds something else, or an export made with other options.
        DataError: the source lacks what was asked for, or has what the layout cannot hold.
        ArtifactError: the disk is full, or the folder cannot be written.
    """
    options = build_config(WriterOptions, request.options, owner="the ava256 layout")
    people = dict.fromkeys(request.subjects)
    export = _Export(folder, source, request, options, len(people), listener)
    with _explained(folder):
        export.claim()
        return [export.add(subject) for subject in people]


def capture_name(source: HMCSource[Any], subject: str, session: int) -> str:
    """Folder of a subject's capture, `<date>--<time>--<three capitals><three digits>`.

    Names that have the public form stay; others are numbered SYN000, SYN001 ... by their place in the source. Time has
    no meaning for people who do not exist: the date counts sessions from 1 January 2000.
    """
    known = source.subjects()
    if all(re.fullmatch(r"[A-Z]{3}\d{3}", name) for name in known):
        code = subject
    else:
        thousands, rest = divmod(known.index(subject), 1000)
        value, letters = _number("SYN") + thousands, ""
        for _ in range(3):
            value, letter = divmod(value, _LETTERS)
            letters = chr(ord("A") + letter) + letters
        code = f"{letters}{rest:03d}"
    day = _FIRST_DAY + datetime.timedelta(days=session)
    return layout.capture_folder(f"{day:%Y%m%d}", "0000", code)


def segment_name(segment: Segment, neutral: str) -> str:
    """The public kind of name: `EXP_<expression>`, `SEN_<speech>`, `EXP_free_face`; `neutral` for the resting face."""
    if re.match(r"[A-Z]{3}_", segment.name):
        return segment.name
    if segment.kind == "free":
        return layout.FREE_SEGMENT
    if layout.is_neutral(segment.name):
        return neutral
    return ("SEN_" if segment.kind == "speech" else "EXP_") + segment.name


def spread(segments: Sequence[Segment], count: int) -> list[int]:
    """`count` frames (all, if there are fewer), in order: even over segments and over each, some of the neutral one.

    With fewer frames than segments, the neutral one comes first and others by a fixed draw.
    """
    drawn = np.random.default_rng(0).permutation(len(segments)).tolist()
    order = sorted(drawn, key=lambda k: not layout.is_neutral(segments[k].name))
    quota = dict.fromkeys(order, 0)
    left = min(count, sum(segment.stop - segment.start for segment in segments))
    while left:
        for k in order:
            if left and quota[k] < segments[k].stop - segments[k].start:
                quota[k], left = quota[k] + 1, left - 1
    chosen: list[int] = []
    for k, share in quota.items():
        length = segments[k].stop - segments[k].start
        chosen += [segments[k].start + (2 * j + 1) * length // (2 * share) for j in range(share)]
    return sorted(chosen)


class _Export:
    """One run: the folder, and how far it is."""

    def __init__(
        self,
        folder: Path,
        source: HMCSource[Any],
        request: WriteRequest,
        options: WriterOptions,
        people: int,
        listener: Callable[[int, int], None] | None,
    ) -> None:
        self.folder, self.source, self.request, self.options = folder, source, request, options
        self._listener = listener
        self._each = len(request.parts) * request.frames
        self._done, self._finish, self._total = 0, 0, people * self._each

    def claim(self) -> None:
        """Make the folder, or check that it holds an export of the same kind.

        Raises:
            ConfigError: it holds something else.
        """
        request = self.request
        asked = {
            "schema": _SCHEMA,
            "source": type(self.source).__name__,
            "fingerprint": self.source.dome_fingerprint,
            "frames": request.frames,
            "headset_size": request.headset_size,
            "dome_height": request.dome_height,
            **self.options.model_dump(),
        }
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"'{self.folder}' is a file. Give the name of a new or empty folder.")
        record = self.folder / RECORD
        if record.is_file():
            self._refuse_other(asked, _json_of(record))
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ConfigError(f"'{self.folder}' holds files and is no export. Give a new or empty folder.")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            _put(record, json_bytes(asked))

    def _refuse_other(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        for name, value in asked.items():
            if found.get(name) != value:
                what = (
                    "captures that another version or other options of the source made"
                    if name in ("schema", "source", "fingerprint")
                    else f"an export with {name} {found.get(name)!r}, not {value!r}"
                )
                raise ConfigError(f"'{self.folder}' holds {what}. Give another folder, or delete that one.")

    def add(self, subject: str) -> WrittenCapture:
        """A subject's capture, made unless it is there whole."""
        path = self.folder / capture_name(self.source, subject, self.request.session)
        self._finish += self._each
        record = _record_of(path)
        if set(self.request.parts) <= set(record) and _is_whole(path, record):
            self._tick(self._each)
            return WrittenCapture(subject, path, new=False)
        part = path.with_name(f".{path.name}.part")
        if part.exists():
            shutil.rmtree(part)
        try:
            part.mkdir()
            self._fill(part, subject, {*self.request.parts, *record})
            if path.exists():
                shutil.rmtree(path)
            os.replace(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._list()
        if self._done < self._finish:  # a recording may have fewer frames than were asked for
            self._tick(self._each)
        return WrittenCapture(subject, path, new=True)

    def _fill(self, part: Path, subject: str, parts: Collection[str]) -> None:
        facts: dict[str, Any] = {"schema": _SCHEMA, "subject": subject, "session": self.request.session}
        if "headset" in parts:
            capture = self.source.captures([subject], session=self.request.session)[0]
            facts["headset"] = self._write_headset(part, capture)
        if "dome" in parts:
            dome = self.source.dome([subject])[0]
            self._write_topology(dome)
            facts["dome"] = self._write_dome(part, dome)
        files = {f.relative_to(part).as_posix(): f.stat().st_size for f in sorted(part.rglob("*")) if f.is_file()}
        _put(part / RECORD, json_bytes({**facts, "files": files}))

    def _write_headset(self, part: Path, capture: Capture) -> dict[str, Any]:
        chosen, quality = spread(capture.segments, self.request.frames), self.options.quality
        cameras = [camera.name for camera in capture.cameras]
        stems = {name: _PUBLIC_CAMERAS.get(name, "cam-" + name.replace("_", "-")) for name in cameras}
        with contextlib.ExitStack() as stack:
            archives = [
                stack.enter_context(open_archive(part / layout.HEADSET / "image" / f"{stems[name]}.zip"))
                for name in cameras
            ]
            for block in range(0, len(chosen), _BLOCK):
                some = chosen[block : block + _BLOCK]
                images = capture.frames(some, cameras=cameras, size=self.request.headset_size)
                for index, planes in zip(some, images, strict=True):
                    for name, archive, plane in zip(cameras, archives, planes, strict=True):
                        inner = f"{stems[name]}/" if self.options.members == "folder" else ""
                        add_member(archive, f"{inner}{layout.stem(index)}.avif", avif_bytes(plane, quality))
                self._tick(len(some))
        rows = csv_bytes(layout.FRAME_LIST_HEADER, _frame_rows(capture.segments, chosen, _HEADSET_NEUTRAL))
        _put(part / layout.HEADSET / layout.FRAME_LIST, rows)
        labels = capture.labels(chosen)
        if labels is not None:
            _put(part / layout.LABELS, tensor_bytes(labels.expression))
            _put(part / layout.LABEL_FRAMES, rows)
        return {"capture": capture.id, "conditions": dict(capture.conditions), "cameras": stems}

    def _write_topology(self, dome: DomeCapture) -> None:
        topology, target = dome.topology(), self.folder / layout.TOPOLOGY
        if topology is None:
            raise DataError(f"Dome capture {dome.id!r} does not bring its mesh's topology, which the layout needs.")
        if not target.exists():
            first = self.source.dome(self.source.subjects()[:1])[0]
            _put(target, obj_bytes(first.neutral().geometry, topology))

    def _write_dome(self, part: Path, dome: DomeCapture) -> dict[str, Any]:
        if all(segment_name(segment, layout.NEUTRAL_SEGMENT) != layout.NEUTRAL_SEGMENT for segment in dome.segments):
            raise DataError(f"Dome capture {dome.id!r} has no neutral segment, without which nothing reads the layout.")
        chosen = spread(dome.segments, self.request.frames)
        cameras = {camera.name: camera_id(camera) for camera in dome.cameras}
        _put(part / layout.CALIBRATION, json_bytes({"KRT": [calibration_entry(camera) for camera in dome.cameras]}))
        rows = _frame_rows(dome.segments, chosen, layout.NEUTRAL_SEGMENT)
        _put(part / layout.DOME / layout.FRAME_LIST, csv_bytes(layout.FRAME_LIST_HEADER, rows))
        size, quality = self.options.texture, self.options.quality
        textures, meshes = _Moments(), _Moments()
        with contextlib.ExitStack() as stack:
            poses = stack.enter_context(open_archive(part / layout.HEAD_POSE))
            plys = stack.enter_context(open_archive(part / layout.MESHES))
            colours = stack.enter_context(open_archive(part / layout.TEXTURES))
            views = [stack.enter_context(open_archive(part / layout.dome_archive(code))) for code in cameras.values()]
            for index in chosen:
                images = dome.frames([index], cameras=list(cameras), height=self.request.dome_height)[0]
                for code, view, image in zip(cameras.values(), views, images, strict=True):
                    data = avif_bytes(np.moveaxis(image, 0, -1), quality)
                    add_member(view, f"cam{code}/{layout.stem(index)}.avif", data)
                mesh = (dome.geometry([index])[0] * AXES).astype(np.float32)
                texture = _resized(np.moveaxis(dome.texture([index])[0], 0, -1), size)
                add_member(poses, f"{layout.stem(index)}.txt", pose_text(dome.head_pose([index])[0]))
                add_member(plys, f"{layout.stem(index)}.ply", ply_bytes(mesh))
                add_member(colours, f"color/{layout.stem(index)}.avif", avif_bytes(texture, quality))
                textures.add(texture)
                meshes.add(mesh)
                self._tick(1)
        _put(part / layout.TEXTURE_MEAN, png_bytes(np.rint(textures.mean).astype(np.uint8)))
        _put(part / layout.TEXTURE_VARIANCE, f"{textures.variance!r}\n".encode())
        _put(part / layout.MESH_MEAN, npy_bytes(meshes.mean.astype(np.float32)))
        _put(part / layout.MESH_VARIANCE, f"{meshes.variance!r}\n".encode())
        return {"capture": dome.id, "cameras": cameras}

    def _list(self) -> None:
        """Name every whole capture of the folder in the list that the public code selects from."""
        names = sorted(path.parent.name for path in self.folder.glob(f"*--*--*/{RECORD}"))
        rows = [(day, code, time) for day, time, code in (name.split("--") for name in names)]
        _put(self.folder / layout.CAPTURE_LIST, csv_bytes(layout.CAPTURE_LIST_HEADER, rows))

    def _tick(self, frames: int) -> None:
        self._done = min(self._done + frames, self._finish)
        if self._listener is not None:
            self._listener(self._done, self._total)


class _Moments:
    """Mean of arrays of one shape, and the mean squared deviation of all their entries from it."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(()), 0.0

    def add(self, values: np.ndarray) -> None:
        exact = values.astype(np.float64)
        self._count, self._sum = self._count + 1, self._sum + exact
        self._squares += float(np.mean(exact * exact))

    @property
    def mean(self) -> np.ndarray:
        return self._sum / self._count

    @property
    def variance(self) -> float:
        return max(self._squares / self._count - float(np.mean(self.mean**2)), 0.0)


def _number(letters: str) -> int:
    value = 0
    for letter in letters:
        value = value * _LETTERS + ord(letter) - ord("A")
    return value


def _frame_rows(segments: Sequence[Segment], chosen: Sequence[int], neutral: str) -> list[tuple[str, str]]:
    return [
        (segment_name(segment, neutral), str(index))
        for segment in segments
        for index in chosen
        if segment.start <= index < segment.stop
    ]


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), Image.Resampling.BICUBIC))


def _json_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _record_of(path: Path) -> dict[str, Any]:
    """What a capture was finished with; its parts are keys."""
    return _json_of(path / RECORD) if (path / RECORD).is_file() else {}


def _is_whole(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether every file that a capture was finished with is there, at its length."""
    files = record.get("files")
    if not isinstance(files, dict):
        return False
    return all((path / name).is_file() and (path / name).stat().st_size == size for name, size in files.items())


def _put(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ArtifactError(
                f"Cannot write in '{folder}': the disk is full. Free some space and run the same command again: "
                "finished captures are kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ArtifactError(f"Cannot write in '{folder}': no permission. Give a folder of your own.") from error
        raise
