"""Packed dome captures: the frames that an avatar's training needs, rendered or decoded once, then memory-mapped.

Like a packed headset capture (`ufe_core.packed`), each is a folder in the store with `capture.json` and
`frames.safetensors`, whole or not there, checksummed by frame and keyed by what made it.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core.dome_arrays import dome_arrays
from ufe_core.errors import DataError
from ufe_core.interfaces.source import DomeCapture, HMCSource
from ufe_core.packed import in_threads, mapped_tensors
from ufe_core.packed_file import BlockWriter, Layout, MappedTensor
from ufe_core.packed_meta import META, read_meta, sealed
from ufe_core.store import Store, code_fingerprint, explained, fingerprint, write_atomic
from ufe_core.weights import sha256_file

FORMAT = "ufe.dome/2"
_WHOLE = ("neutral_geometry", "neutral_texture", "resting_texture")
_NAMES = ("images", "rotation", "translation", "focal", "centre", "geometry", "texture")


@dataclass(frozen=True)
class DomeRequest:
    """What to take of each dome capture: `frames` instants spread over its segments, each seen by `views` cameras.

    Instants are drawn for each capture anew: few of each person are many of all segments. The cameras of a frame are
    drawn from those within `within_deg` of straight ahead of the face. Images are `height` pixels high; textures have
    `texture` texels along a side. The neutral one comes in that size, to compare with, and in `neutral_texture` texels.
    """

    frames: int
    views: int
    height: int
    texture: int
    neutral_texture: int
    within_deg: float = 75.0
    seed: int = 0


@dataclass(frozen=True)
class PackedDome:
    """A dome capture on disk, N frames of C views each, memory-mapped.

    `images` uint8 [N, C, 3, H, W]; `rotation` float32 [N, C, 3, 3] and `translation` float32 [N, C, 3] (mm) map head
    to camera coordinates; `focal` and `centre` float32 [N, C, 2], pixels; `geometry` float32 [N, V, 3], mm, head
    coordinates; `texture` uint8 [N, 3, T, T]; of the neutral face `neutral_geometry` float32 [V, 3], `neutral_texture`
    uint8 [3, T', T'] and, made like `texture`, `resting_texture` uint8 [3, T, T]. `frames` are indices into the
    capture, `segments` their segments.
    """

    subject: str
    capture: str
    images: MappedTensor
    rotation: MappedTensor
    translation: MappedTensor
    focal: MappedTensor
    centre: MappedTensor
    geometry: MappedTensor
    texture: MappedTensor
    neutral_geometry: np.ndarray
    neutral_texture: np.ndarray
    resting_texture: np.ndarray
    frames: tuple[int, ...]
    segments: tuple[str, ...]
    sha256: str
    path: Path


def dome_key(source: HMCSource[Any], capture: DomeCapture, request: DomeRequest) -> str:
    """Store key of a packed dome capture."""
    return fingerprint({
        "format": FORMAT, "source": source.dome_fingerprint, "capture": capture.id, "request": asdict(request),
        "code": code_fingerprint("ufe_core.dome_arrays", "ufe_core.instants"),
    })  # fmt: skip


def pack_domes(
    source: HMCSource[Any], subjects: Sequence[str], request: DomeRequest, *, store: Store, threads: int = 2,
    progress: Callable[[str], None] | None = None,
) -> list[PackedDome]:  # fmt: skip
    """Packed dome captures of the subjects, made where they are not there yet; damaged ones are made again.

    Args:
        source: where dome captures come from.
        subjects: whose, in the order of the result.
        request: what to take of each.
        store: where they are kept.
        threads: captures rendered at a time; the bytes do not depend on it.
        progress: called with each subject's id when it is ready, from any thread.

    Raises:
        DataError: the source has no dome capture of a subject, or one has too few frames or cameras in front.
        ArtifactError: the disk is full, or the store cannot be written.
    """

    def one(capture: DomeCapture) -> PackedDome:
        packed = _open_or_make(source, capture, request, store)
        if progress:
            progress(capture.subject)
        return packed

    return in_threads(one, source.dome(subjects), threads, threading.Event())


def _open_or_make(source: HMCSource[Any], capture: DomeCapture, request: DomeRequest, store: Store) -> PackedDome:
    key = dome_key(source, capture, request)

    def build(folder: Path) -> None:
        arrays, meta = dome_arrays(capture, request)
        meta |= {"format": FORMAT, "source": source.dome_fingerprint, "request": asdict(request)}
        _write(folder, key, arrays, meta)

    return store.made("domes", key, _open_sound, build)


def _open_sound(path: Path) -> PackedDome | None:
    """Open one and read every byte of it once; None where there is none, or it is damaged."""
    if not path.is_dir():
        return None
    try:
        packed = open_packed_dome(path)
        for name in _NAMES:
            getattr(packed, name)[:]  # reading is checking
    except DataError as error:
        logging.getLogger("ufe").warning("%s It is made again.", error)
        return None
    return packed


def open_packed_dome(path: Path) -> PackedDome:
    """Open a packed dome capture; each frame is checked the first time it is read.

    Raises:
        DataError: names the file that is missing, truncated, altered or of another format.
    """
    meta = read_meta(path, FORMAT)
    tensors = mapped_tensors(path, meta, meta["frames"], _WHOLE)
    rows: dict[str, Any] = {name: tensors[name] for name in _NAMES}
    whole: dict[str, Any] = {name: tensors[name][0] for name in _WHOLE}
    return PackedDome(
        meta["subject"], meta["capture"], **rows, **whole, frames=tuple(meta["frames"]),
        segments=tuple(meta["segments"]), sha256=meta["sha256"], path=path,
    )  # fmt: skip


def _write(folder: Path, key: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    layout = Layout.of(arrays, len(meta["frames"]), by_row=_NAMES)
    writer = BlockWriter(folder, key)
    with explained(f"pack {meta['capture']!r}", folder, only_full=True):
        writer.begin(layout)
        writer.write(0, arrays)
        data = {"bytes": layout.size, "header": zlib.crc32(layout.header), "checksums": writer.finish()}
    text = sealed({**meta, "sha256": sha256_file(writer.path), **data})
    write_atomic(folder / META, text.encode())
