"""Packed captures: the frames a run needs, rendered or decoded once and memory-mapped from then on.

A packed capture is a folder in the store with `capture.json` and `frames.safetensors` (`ufe_core.packed_file`). It
appears whole or not at all, carries checksums of every frame, and is keyed by what made it, so deleting it costs
only time. What a killed process had finished of it is kept beside the store's captures, in `.partial/`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ufe_core.config import did_you_mean
from ufe_core.errors import ArtifactError, ConfigError, DataError
from ufe_core.instants import instants_of
from ufe_core.interfaces.source import Capture, HMCSource
from ufe_core.packed_arrays import EXTRA_PREFIX, arrays_of, arrays_without_pixels, refuse_other_shapes
from ufe_core.packed_file import (
    DATA,
    BlockWriter,
    Damage,
    Entry,
    Layout,
    MappedTensor,
    damage_line,
    from_hex,
    map_file,
    read_header,
)
from ufe_core.packed_meta import FORMAT, META, REMEDY, camera_of_json, camera_to_json, read_meta, sealed
from ufe_core.store import Store, code_fingerprint, explained, fingerprint
from ufe_core.types import CameraSpec, Detections
from ufe_core.weights import sha256_file

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

EXTRAS = ("geometry", "keypoints", "segmentation", "cameras")
_LABELS, _NEUTRAL = ("expression", "gaze"), ("geometry", "texture", "resting_texture")
_FIRST_BLOCK = -1  # labels and the neutral face
_BLOCK_BYTES, _BLOCK_ROWS = 8_000_000, 64
_PARTIAL_STALE_S = 14 * 24 * 3600.0
_WAIT_S = 2.0


@dataclass(frozen=True)
class PackRequest:
    """What to take of each capture: `frames` instants spread over its segments, and its anchors, at `size` pixels.

    `session` says which donning; `extras` (of `EXTRAS`) which exact data besides images and labels. Their order
    does not matter. Where `texture` is not 0, the extra `texture` holds each frame's, of that many texels a side, and
    `resting_texture` that of the neutral face. Where `clip` is more than 1 the frames are runs of so many that follow
    each other, of people who speak. With `own_instants` each capture's are its own, where else those of one performance
    are the same for everybody who gives it.

    Raises:
        ConfigError: an extra is not known, or `frames` is no multiple of `clip`.
    """

    frames: int
    size: int
    cameras: tuple[str, ...]
    anchors: tuple[str, ...]
    seed: int = 0
    session: int = 0
    extras: tuple[str, ...] = ()
    texture: int = 0
    clip: int = 1
    own_instants: bool = False

    def __post_init__(self) -> None:
        if self.clip < 1 or self.frames % self.clip:
            raise ConfigError(f"{self.frames} frames are no whole number of clips of {self.clip}.")
        for name in self.extras:
            if name not in EXTRAS:
                raise ConfigError(
                    f"There is no extra {name!r}.{did_you_mean(name, EXTRAS)} Extras: {', '.join(EXTRAS)}."
                )
        object.__setattr__(self, "extras", tuple(name for name in EXTRAS if name in self.extras))

    def describe(self) -> dict[str, Any]:
        """It, as JSON values; what is usual is left out, so that keys stay what they were before there was a choice."""
        values = asdict(self)
        if self.clip == 1:
            del values["clip"]
        if not self.own_instants:
            del values["own_instants"]
        return values


@dataclass(frozen=True)
class PackedCapture:
    """A capture on disk.

    `images` uint8 [N, C, size, size], memory-mapped, the requested frames and then the anchors; `expression`
    float32 [N, D] and `gaze` float32 [N, 6] (empty where the source has no labels); `geometry` float32 [V, 3] and
    `texture` uint8 [3, T, T] of the neutral face, and `resting_texture` uint8 [3, T', T'] made like the extra
    `texture`, empty without that. `frame_rows` index N, `anchor_rows` tells each anchor's row there; `segments` names
    the segment of each row, `frames` its index in the capture.

    `extras`, mapped and as far as they were asked for: `geometry` float32 [N, V, 3]; `keypoints` float32
    [N, C, K, 2] and `visible` bool [N, C, K]; `segmentation` uint8 [N, C, size, size]; `camera_rotation` float64
    [N, C, 3, 3] and `camera_translation` float64 [N, C, 3], the true poses of `cameras`; `texture` uint8 [N, 3, T, T].

    `detections` [N, C, K] and `exact_mesh` float32 [N, V, 3] are not in its file: `inputs.prepared` adds them.
    """

    subject: str
    capture: str
    images: np.ndarray | MappedTensor
    expression: np.ndarray
    gaze: np.ndarray
    geometry: np.ndarray
    texture: np.ndarray
    resting_texture: np.ndarray
    frame_rows: np.ndarray
    anchor_rows: Mapping[str, int]
    segments: tuple[str, ...]
    conditions: dict[str, Any]
    traits: dict[str, Any]
    sha256: str
    extras: Mapping[str, MappedTensor] = field(default_factory=dict)
    cameras: tuple[CameraSpec, ...] = ()
    frames: tuple[int, ...] = ()
    path: Path = Path()
    detections: Detections | None = None
    exact_mesh: np.ndarray | None = None

    def rows_of(self, anchors: Sequence[str]) -> np.ndarray:
        """Rows int64 [M] of anchors by name.

        Raises:
            DataError: it was packed without one of them.
        """
        missing = [name for name in anchors if name not in self.anchor_rows]
        if missing:
            raise DataError(f"Capture {self.capture!r} was packed without anchor {', '.join(map(repr, missing))}.")
        return np.array([self.anchor_rows[name] for name in anchors], np.int64)

    def cameras_at(self, row: int) -> tuple[CameraSpec, ...]:
        """The cameras as they really sat on the head in a row's frame; needs the extra `cameras`."""
        poses = zip(self.extras["camera_rotation"][row], self.extras["camera_translation"][row], strict=True)
        return tuple(
            replace(camera, rotation=np.array(rotation), translation=np.array(translation))
            for camera, (rotation, translation) in zip(self.cameras, poses, strict=True)
        )

    def check(self) -> None:
        """Read everything that was not read yet and compare it with its checksums.

        Raises:
            DataError: names the file, the tensor and the frames that are damaged.
        """
        for tensor in (self.images, *self.extras.values()):
            if isinstance(tensor, MappedTensor):
                tensor[:]  # reading is checking


@dataclass(frozen=True)
class PackEvent:
    """News of a capture being packed: `rows` more are there. `kind` is `rows`, or at its end `made` or `found`.

    Fewer than none are there where a broken frame is met: other frames are chosen, and it begins again.
    """

    subject: str
    kind: str
    rows: int


class Stopped(Exception):
    """The work is to end early: another part failed, or the user interrupted."""


@dataclass(frozen=True)
class _Job:
    source: HMCSource[Any]
    request: PackRequest
    store: Store
    tell: Callable[[PackEvent], None]
    stopped: Callable[[], bool]

    def pause_point(self) -> None:
        if self.stopped():
            raise Stopped


def pack_key(source: HMCSource[Any], capture: Capture, request: PackRequest) -> str:
    """Store key of a packed capture."""
    return fingerprint({
        "format": FORMAT, "source": source.fingerprint, "capture": capture.id, "request": request.describe(),
        "code": code_fingerprint("ufe_core.instants", "ufe_core.interfaces.source", "ufe_core.packed_arrays"),
    })  # fmt: skip


def captures_of(source: HMCSource[Any], subjects: Sequence[str], session: int) -> list[Capture]:
    """The captures of one donning.

    Raises:
        DataError: a subject or the session is not in this source.
    """
    if not 0 <= session < source.sessions:
        raise DataError(f"There is no session {session}; this source has sessions 0 to {source.sessions - 1}.")
    return source.captures(subjects, session=session) if session else source.captures(subjects)


def pack(
    source: HMCSource[Any], subjects: Sequence[str], request: PackRequest, *, store: Store, threads: int = 2,
    progress: Callable[[str], None] | None = None, listener: Callable[[PackEvent], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[PackedCapture]:  # fmt: skip
    """Packed captures of the subjects, made where they are not there yet; damaged ones are made again.

    Every byte of those that are there is checked once. Killed and run again, it goes on after the last finished
    block. Several processes may pack the same captures at a time; each is made by one of them.

    Args:
        source: where captures come from.
        subjects: whose captures, in the order of the result.
        request: what to take of each.
        store: where they are kept.
        threads: captures rendered at a time; the bytes do not depend on it.
        progress: called with each subject's id when it is ready, from any thread.
        listener: called with finer news, from any thread.
        stopped: asked between blocks; where it is true the work ends with `KeyboardInterrupt`.

    Raises:
        DataError: a capture lacks an anchor, a camera, an extra, or enough frames.
        ArtifactError: the disk is full, or the store cannot be written.
    """
    captures = captures_of(source, subjects, request.session)
    _remove_stale_partials(store)
    halt = threading.Event()
    job = _Job(source, request, store, listener or (lambda event: None), lambda: halt.is_set() or stopped())

    def one(capture: Capture) -> PackedCapture:
        packed = _open_or_make(job, capture)
        if progress:
            progress(capture.subject)
        return packed

    return in_threads(one, captures, threads, halt)


def in_threads(
    work: Callable[[ItemT], ResultT], items: Sequence[ItemT], threads: int, halt: threading.Event
) -> list[ResultT]:
    """What each item gives, several worked on at a time; if one fails, `halt` is set, and no other is begun.

    Raises:
        KeyboardInterrupt: they were stopped and none failed.
    """

    def one(item: ItemT) -> ResultT:
        if halt.is_set():
            raise Stopped
        try:
            return work(item)
        except BaseException:
            halt.set()  # here, so that this thread begins no other
            raise

    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        futures = [pool.submit(one, item) for item in items]
        wait(futures, return_when=FIRST_EXCEPTION)
        halt.set()
        return results_of(futures)
    finally:
        halt.set()
        pool.shutdown(wait=True, cancel_futures=True)


def results_of(futures: Sequence[Future[ResultT]]) -> list[ResultT]:
    """Results of futures of which some may have stopped because another failed: that failure is raised.

    Raises:
        KeyboardInterrupt: they were stopped and none failed.
    """
    wait([future for future in futures if not future.cancel()])
    failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in failures:
        if not isinstance(error, (Stopped, KeyboardInterrupt)):
            raise error
    if failures:
        raise KeyboardInterrupt
    return [future.result() for future in futures]


def _remove_stale_partials(store: Store) -> None:
    """Remove unfinished captures that nobody has gone on with for two weeks."""
    folder = store.root / "captures" / ".partial"
    for partial in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError, ArtifactError):
            newest = max(file.stat().st_mtime for file in (partial, *partial.iterdir()))
            if time.time() - newest > _PARTIAL_STALE_S:
                with store.lock("captures", partial.name, timeout_s=0):
                    shutil.rmtree(partial)


def _open_or_make(job: _Job, capture: Capture) -> PackedCapture:
    job.pause_point()
    key = pack_key(job.source, capture, job.request)
    path = job.store.path("captures", key)
    packed = _open_sound(path)
    if packed is None:
        with _locked(job, key):
            packed = _open_sound(path)  # another process may have made it while this one waited
            if packed is None:
                if path.is_dir():
                    job.store.remove("captures", key)
                _make(job, capture, key, path)
                job.tell(PackEvent(capture.subject, "made", 0))
                return open_packed(path)
    job.tell(PackEvent(capture.subject, "found", len(packed.frames)))
    return packed


def _open_sound(path: Path) -> PackedCapture | None:
    if not path.is_dir():
        return None
    try:
        packed = open_packed(path)
        packed.check()
    except DataError as error:
        logging.getLogger("ufe").warning("%s It is made again.", error)
        return None
    return packed


@contextlib.contextmanager
def _locked(job: _Job, key: str) -> Iterator[None]:
    """Hold the lock of a capture; while another process holds it, look now and then whether to stop."""
    with contextlib.ExitStack() as stack:
        while True:
            job.pause_point()
            try:
                stack.enter_context(job.store.lock("captures", key, timeout_s=_WAIT_S))
                break
            except ArtifactError as error:
                if error.__cause__ is not None:  # not a wait that was too long: the store cannot be written
                    raise
        yield


def _make(job: _Job, capture: Capture, key: str, path: Path) -> None:
    partial = path.parent / ".partial" / key
    while True:
        frames, anchors = _choose(job.request, capture)
        try:
            with explained(f"pack {capture.id!r}", path.parent, only_full=True):
                meta = _write_data(job, capture, [*frames, *anchors], partial, key)
                _write_meta(job, capture, frames, anchors, partial, meta)
                os.rename(partial, path)
            return
        except DataError:
            if _choose(job.request, capture) == (frames, anchors):
                raise
            # The capture found one of them broken, which it tells itself, and leaves it out from now on.


def _choose(request: PackRequest, capture: Capture) -> tuple[list[int], list[int]]:
    """Frames and anchors to pack; a capture that met a broken one chooses others."""
    anchors = dict(capture.anchors)
    missing = [name for name in request.anchors if name not in anchors]
    if missing:
        raise DataError(
            f"Capture {capture.id!r} has no anchor {', '.join(map(repr, missing))}; it has {', '.join(anchors)}."
        )
    return instants_of(capture, request), [anchors[name] for name in request.anchors]


def _write_data(job: _Job, capture: Capture, rows: list[int], folder: Path, key: str) -> dict[str, Any]:
    """Write the data file, block by block, and give what `capture.json` says of it."""
    request = job.request
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, len(request.cameras) * request.size**2)))
    writer = BlockWriter(folder, f"{FORMAT} {key} {step} {fingerprint(rows)}")
    for number, start in enumerate(range(0, len(rows), step)):
        block = rows[start : start + step]
        if number not in writer.done:
            job.pause_point()
            try:
                arrays = arrays_of(capture, request, block)
            except DataError:
                job.tell(PackEvent(capture.subject, "rows", -start))
                raise
            if writer.layout is None:
                first, by_row = arrays_without_pixels(capture, request, rows)
                writer.begin(Layout.of({**arrays, **first}, len(rows), by_row=[*arrays, *by_row]))
            else:
                refuse_other_shapes(capture, arrays, writer.layout)
            writer.write(number, arrays, first_row=start)
        job.tell(PackEvent(capture.subject, "rows", len(block)))
    if _FIRST_BLOCK not in writer.done:
        writer.write(_FIRST_BLOCK, arrays_without_pixels(capture, request, rows)[0])
    assert writer.layout is not None
    checksums = writer.finish()
    return {
        "bytes": writer.layout.size, "sha256": sha256_file(writer.path), "header": zlib.crc32(writer.layout.header),
        "checksums": checksums,
    }  # fmt: skip


def _write_meta(
    job: _Job, capture: Capture, frames: list[int], anchors: list[int], folder: Path, data: Mapping[str, Any]
) -> None:
    owner = {index: s.name for s in capture.segments for index in range(s.start, s.stop)}
    by_name = {camera.name: camera for camera in capture.cameras}
    meta = {
        "format": FORMAT, "subject": capture.subject, "capture": capture.id, "source": job.source.fingerprint,
        "request": job.request.describe(), "conditions": dict(capture.conditions),
        "traits": dict(capture.traits),
        "cameras": [camera_to_json(by_name[name]) for name in job.request.cameras if name in by_name],
        "frames": frames, "anchors": anchors, "segments": [owner[index] for index in (*frames, *anchors)], **data,
    }  # fmt: skip
    (folder / META).write_text(sealed(meta), encoding="utf-8")


def open_packed(path: Path) -> PackedCapture:
    """Open a packed capture: cheap, whatever its size.

    `capture.json`, the length and the header of the data file, labels and the neutral face are checked here; each
    frame of the mapped tensors is checked the first time it is read.

    Raises:
        DataError: names the file that is missing, truncated, altered or of another format.
    """
    meta = read_meta(path)
    tensors = mapped_tensors(path, meta, [*meta["frames"], *meta["anchors"]], _NEUTRAL)
    rows = len(meta["frames"])
    anchors = {name: rows + k for k, name in enumerate(meta["request"]["anchors"])}
    expression, gaze = (_labels_in(tensors[name][:]) for name in _LABELS)
    return PackedCapture(
        meta["subject"], meta["capture"], tensors["images"], expression, gaze,
        tensors["geometry"][0], tensors["texture"][0], tensors["resting_texture"][0], np.arange(rows), anchors,
        tuple(meta["segments"]), meta["conditions"], meta["traits"], meta["sha256"],
        {name.removeprefix(EXTRA_PREFIX): value for name, value in tensors.items() if name.startswith(EXTRA_PREFIX)},
        tuple(camera_of_json(entry) for entry in meta["cameras"]), (*meta["frames"], *meta["anchors"]), path,
    )  # fmt: skip


def _labels_in(values: np.ndarray) -> np.ndarray:
    """A copy of labels; none at all lie in a file as one row of nothing, [1, 0, 0]."""
    return np.array(values if values.size else values[0])


def verify_packed(path: Path) -> list[str]:
    """One line for each damage of a packed capture, after reading all of it; nothing for a sound one."""
    try:
        meta = read_meta(path)
        tensors = mapped_tensors(path, meta, [*meta["frames"], *meta["anchors"]], _NEUTRAL)
    except DataError as error:
        return [str(error)]
    found = [line for tensor in tensors.values() if (line := tensor.damage())]
    if not found and sha256_file(path / DATA) != meta["sha256"]:
        found = [damage_line(path / DATA, "the whole file")]
    return found


def mapped_tensors(
    path: Path, meta: Mapping[str, Any], frames: Sequence[int], whole: Sequence[str]
) -> dict[str, MappedTensor]:
    """Every tensor of a data file, each row unchecked as yet.

    Args:
        path: the folder.
        meta: what its `capture.json` says.
        frames: the frame of each row.
        whole: tensors of the neutral face, which have no row for each frame; they become one row.

    Raises:
        DataError: the data file is missing, truncated, or its header was altered.
    """
    data = path / DATA
    try:
        size, header = data.stat().st_size, read_header(data)
    except OSError as error:
        raise DataError(f"{data} is missing or cannot be read ({error.strerror}). {REMEDY}") from error
    checksums = {name: from_hex(text) for name, text in meta["checksums"].items()}
    sound_header = zlib.crc32(header) == meta["header"]
    layout = Layout.read(header, {name: len(values) for name, values in checksums.items()}) if sound_header else None
    if size != meta["bytes"]:
        lost = f": {_lost(layout, size, frames, whole)}" if layout and size < meta["bytes"] else ""
        raise DataError(f"{data} is truncated or altered: {meta['bytes']} bytes expected, {size} found{lost}. {REMEDY}")
    if layout is None:
        raise DataError(damage_line(data, "its header"))
    tensors = {}
    for name, values in map_file(data, layout).items():
        one = _is_one(name, layout.entries[name], whole)
        describe = Damage(data, _words(name, whole), () if one else frames)
        tensors[name] = MappedTensor(values[None] if one else values, checksums[name], describe)
    return tensors


def _is_one(name: str, entry: Entry, whole: Sequence[str]) -> bool:
    return name in whole or entry.shape[0] == 0


def _words(name: str, whole: Sequence[str]) -> str:
    if name in whole:
        return f"the neutral {name.removeprefix('neutral_').replace('_', ' ')}"
    return name.removeprefix(EXTRA_PREFIX)


def _lost(layout: Layout, size: int, frames: Sequence[int], whole: Sequence[str]) -> str:
    """Which tensors, and of which frames, a file that ends after `size` bytes lacks."""
    parts = []
    for name, entry in layout.entries.items():
        if entry.nbytes and entry.start + entry.nbytes > size:
            first = max(0, size - entry.start) // entry.chunk_bytes
            words = _words(name, whole)
            parts.append(words if _is_one(name, entry, whole) else f"{words} from frame {frames[first]} on")
    return f"it lacks {', '.join(parts)}"
