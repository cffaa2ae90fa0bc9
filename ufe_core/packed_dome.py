"""Packed dome captures: the frames that an avatar's training needs, rendered or decoded once, then memory-mapped.

Like a packed headset capture (`ufe_core.packed`), each is a folder in the store with `capture.json` and
`frames.safetensors`, whole or not there, checksummed by frame and keyed by what made it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.interfaces.source import DomeCapture, HMCSource
from ufe_core.packed import Stopped, mapped_tensors, results_of
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
        "code": code_fingerprint("ufe_core.instants"),
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
    halt = threading.Event()

    def one(capture: DomeCapture) -> PackedDome:
        if halt.is_set():
            raise Stopped
        packed = _open_or_make(source, capture, request, store)
        if progress:
            progress(capture.subject)
        return packed

    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        futures = [pool.submit(one, capture) for capture in source.dome(subjects)]
        wait(futures, return_when=FIRST_EXCEPTION)
        halt.set()
        return results_of(futures)
    finally:
        halt.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _open_or_make(source: HMCSource[Any], capture: DomeCapture, request: DomeRequest, store: Store) -> PackedDome:
    key = dome_key(source, capture, request)
    path = store.path("domes", key)
    with contextlib.suppress(FileNotFoundError):
        return _open_sound(path)
    with store.lock("domes", key):
        with contextlib.suppress(FileNotFoundError):
            return _open_sound(path)  # another process may have made it while this one waited
        if path.is_dir():
            store.remove("domes", key)
        arrays, meta = _taken(capture, request)
        with store.building("domes", key) as folder:
            _write(folder, key, arrays, {**meta, "source": source.dome_fingerprint, "request": asdict(request)})
    return open_packed_dome(path)


def _open_sound(path: Path) -> PackedDome:
    """Open one and read every byte of it once.

    Raises:
        FileNotFoundError: there is none, or it is damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(path)
    try:
        packed = open_packed_dome(path)
        for name in _NAMES:
            getattr(packed, name)[:]  # reading is checking
    except DataError as error:
        logging.getLogger("ufe").warning("%s It is made again.", error)
        raise FileNotFoundError(path) from error
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


def _taken(capture: DomeCapture, request: DomeRequest) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of what a request asks of a capture."""
    chosen = capture.spread(request.frames, seed=zlib.crc32(f"{request.seed} {capture.id}".encode()))
    poses = capture.head_pose(chosen)
    names = [_cameras_for(capture, index, pose, request) for index, pose in zip(chosen, poses, strict=True)]
    images = [
        capture.frames([index], cameras=some, height=request.height)[0]
        for index, some in zip(chosen, names, strict=True)
    ]
    neutral = capture.neutral(size=request.neutral_texture)
    owner = {index: s.name for s in capture.segments for index in range(s.start, s.stop)}
    arrays = {
        "images": np.stack(images), **_seen_from(capture, names, poses, images[0].shape[2:]),
        "geometry": capture.geometry(chosen).astype(np.float32),
        "texture": capture.texture(chosen, size=request.texture),
        "neutral_geometry": neutral.geometry.astype(np.float32), "neutral_texture": neutral.texture,
        "resting_texture": capture.neutral(size=request.texture).texture,
    }  # fmt: skip
    meta = {
        "format": FORMAT, "subject": capture.subject, "capture": capture.id, "frames": chosen,
        "segments": [owner[index] for index in chosen], "cameras": names,
    }  # fmt: skip
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}, meta


def _cameras_for(capture: DomeCapture, index: int, pose: np.ndarray, request: DomeRequest) -> list[str]:
    """Cameras drawn for a frame among those that see the face."""
    rotation, translation = pose[:, :3], pose[:, 3]
    ahead = []
    for camera in capture.cameras:
        place = (-camera.rotation.T @ camera.translation - translation) @ rotation
        if place[2] > np.linalg.norm(place) * np.cos(np.radians(request.within_deg)):
            ahead.append(camera.name)
    if len(ahead) < request.views:
        raise DataError(
            f"Dome capture {capture.id!r} has {len(ahead)} cameras within {request.within_deg:g} degrees of straight "
            f"ahead in frame {index}; {request.views} were asked for."
        )
    rng = np.random.default_rng([request.seed, index, zlib.crc32(capture.id.encode())])
    return [ahead[k] for k in rng.choice(len(ahead), request.views, replace=False)]


def _seen_from(
    capture: DomeCapture, names: Sequence[Sequence[str]], poses: np.ndarray, size: Sequence[int]
) -> dict[str, np.ndarray]:
    """The cameras of each frame in head coordinates, for images of a size (height, width)."""
    known = {camera.name: camera.resized(size[1], size[0]) for camera in capture.cameras}
    views = [[known[name] for name in some] for some in names]
    return {
        name: np.array(values, np.float32)
        for name, values in {
            "rotation": [[c.rotation @ pose[:, :3] for c in some] for some, pose in zip(views, poses, strict=True)],
            "translation": [
                [c.rotation @ pose[:, 3] + c.translation for c in some] for some, pose in zip(views, poses, strict=True)
            ],
            "focal": [[c.intrinsics[[0, 1], [0, 1]] for c in some] for some in views],
            "centre": [[c.intrinsics[:2, 2] for c in some] for some in views],
        }.items()
    }


def _write(folder: Path, key: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    layout = Layout.of(arrays, len(meta["frames"]), by_row=_NAMES)
    writer = BlockWriter(folder, key)
    with explained(f"pack {meta['capture']!r}", folder, only_full=True):
        writer.begin(layout)
        writer.write(0, arrays)
        data = {"bytes": layout.size, "header": zlib.crc32(layout.header), "checksums": writer.finish()}
    text = sealed({**meta, "sha256": sha256_file(writer.path), **data})
    write_atomic(folder / META, text.encode())
