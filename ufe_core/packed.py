"""Packed captures: the frames a run needs, rendered or decoded once and memory-mapped from then on.

A packed capture is a folder in the store with `capture.json` and `frames.safetensors`. It appears whole or not at
all, carries the checksum of its data, and is keyed by what made it, so deleting it costs only time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.interfaces.source import Capture, HMCSource
from ufe_core.store import Store, fingerprint
from ufe_core.weights import sha256_file

FORMAT = "ufe.packed/1"


@dataclass(frozen=True)
class PackRequest:
    """What to take of each capture: `frames` instants spread over its segments, and its anchors, at `size` pixels."""

    frames: int
    size: int
    cameras: tuple[str, ...]
    anchors: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True)
class PackedCapture:
    """A capture on disk.

    `images` uint8 [N, C, size, size], memory-mapped, the requested frames and then the anchors; `expression`
    float32 [N, D] and `gaze` float32 [N, 6] (empty where the source has no labels); `geometry` float32 [V, 3] and
    `texture` uint8 [3, T, T] of the neutral face. `frame_rows` and `anchor_rows` index N; `segments` names the
    segment of each row.
    """

    subject: str
    capture: str
    images: np.ndarray
    expression: np.ndarray
    gaze: np.ndarray
    geometry: np.ndarray
    texture: np.ndarray
    frame_rows: np.ndarray
    anchor_rows: np.ndarray
    segments: tuple[str, ...]
    conditions: dict[str, Any]
    sha256: str


def pack_key(source: HMCSource[Any], capture: Capture, request: PackRequest) -> str:
    """Store key of a packed capture."""
    return fingerprint({
        "format": FORMAT, "source": source.fingerprint, "capture": capture.id, "request": asdict(request)
    })  # fmt: skip


def pack(
    source: HMCSource[Any], subjects: Sequence[str], request: PackRequest, *, store: Store, threads: int = 2,
    progress: Callable[[str], None] | None = None,
) -> list[PackedCapture]:  # fmt: skip
    """Packed captures of the subjects, made where they are not there yet; damaged ones are made again.

    Args:
        source: where captures come from.
        subjects: whose captures, in the order of the result.
        request: what to take of each.
        store: where they are kept.
        threads: captures rendered at a time; the bytes do not depend on it.
        progress: called with each subject's id when it is ready, from any thread.

    Raises:
        DataError: a capture lacks an anchor, a camera or enough frames.
    """
    captures = source.captures(subjects)

    def one(capture: Capture) -> PackedCapture:
        packed = _open_or_make(source, capture, request, store)
        if progress:
            progress(capture.subject)
        return packed

    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        return list(pool.map(one, captures))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _open_or_make(source: HMCSource[Any], capture: Capture, request: PackRequest, store: Store) -> PackedCapture:
    key = pack_key(source, capture, request)
    path = store.path("captures", key)
    if path.is_dir():
        try:
            return open_packed(path)
        except DataError as error:
            import logging

            logging.getLogger("ufe").warning("%s It is made again.", error)
            store.remove("captures", key)
    with store.building("captures", key) as folder:
        _write(capture, request, folder)
    return open_packed(path)


def _write(capture: Capture, request: PackRequest, folder: Path) -> None:
    from safetensors.numpy import save_file

    missing = [name for name in request.anchors if name not in capture.anchors]
    if missing:
        raise DataError(
            f"Capture {capture.id!r} has no anchor {', '.join(map(repr, missing))}; "
            f"it has {', '.join(capture.anchors)}."
        )
    frames = capture.spread(request.frames, seed=request.seed)
    anchors = [capture.anchors[name] for name in request.anchors]
    rows = [*frames, *anchors]
    images = capture.frames(rows, cameras=request.cameras, size=request.size)
    labels, neutral = capture.labels(rows), capture.neutral()
    empty = np.zeros((0, 0), np.float32)
    arrays = {
        "images": images,
        "expression": labels.expression if labels else empty,
        "gaze": labels.gaze if labels else empty,
        "geometry": neutral.geometry if neutral else empty,
        "texture": neutral.texture if neutral else np.zeros((0, 0, 0), np.uint8),
    }
    data = folder / "frames.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, data)
    owner = {index: s.name for s in capture.segments for index in range(s.start, s.stop)}
    meta = {
        "format": FORMAT, "subject": capture.subject, "capture": capture.id, "request": asdict(request),
        "frames": frames, "anchors": anchors, "segments": [owner[index] for index in rows],
        "conditions": dict(capture.conditions), "sha256": sha256_file(data), "bytes": data.stat().st_size,
    }  # fmt: skip
    (folder / "capture.json").write_text(json.dumps(meta, indent=1))


def open_packed(path: Path) -> PackedCapture:
    """Open a packed capture and check it.

    Raises:
        DataError: names the file that is missing, truncated, altered or of another format.
    """
    meta_file, data = path / "capture.json", path / "frames.safetensors"
    try:
        meta = json.loads(meta_file.read_text())
        request, size = meta["request"], meta["bytes"]
        rows, anchors = len(meta["frames"]), len(meta["anchors"])
        if meta["format"] != FORMAT:
            raise DataError(f"{meta_file} is of format {meta['format']!r}; this version reads {FORMAT!r}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{meta_file} cannot be read ({type(error).__name__}: {error}).") from error
    if not data.is_file() or data.stat().st_size != size:
        found = f"{data.stat().st_size} bytes" if data.is_file() else "no file"
        raise DataError(f"{data} is truncated or missing: {size} bytes expected, {found} found.")
    if sha256_file(data) != meta["sha256"]:
        raise DataError(f"{data} was altered: its checksum is not the one in capture.json.")
    arrays = _map_safetensors(data)
    if arrays["images"].shape != (rows + anchors, len(request["cameras"]), request["size"], request["size"]):
        raise DataError(f"{data}: images have shape {list(arrays['images'].shape)}, not what capture.json says.")
    return PackedCapture(
        meta["subject"], meta["capture"], arrays["images"], np.array(arrays["expression"]), np.array(arrays["gaze"]),
        arrays["geometry"], arrays["texture"], np.arange(rows), np.arange(rows, rows + anchors),
        tuple(meta["segments"]), meta["conditions"], meta["sha256"],
    )  # fmt: skip


def _map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file as a read-only view of the mapped file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    mapped = np.memmap(path, np.uint8, "r")
    kinds = {"U8": np.uint8, "F32": np.float32}
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            raw = mapped[start:stop]
            arrays[name] = np.frombuffer(raw, kinds[entry["dtype"]]).reshape(entry["shape"])
    return arrays
