"""Headset captures: five infrared cameras, read from the archives of `encoder/`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ufe_ava256.archives import Archive, check_image, decode_image, image_size, resized
from ufe_ava256.folder import CaptureFolder
from ufe_ava256.frame_list import FrameList, chosen_segments, read_frame_list
from ufe_ava256.layout import (
    FRAME_LIST,
    HEADSET,
    HEADSET_CAMERAS,
    LABEL_FRAMES,
    LABELS,
    HeadsetCamera,
    anchor_of,
    is_neutral,
)
from ufe_ava256.pickles import load_tensors
from ufe_ava256.zip_directory import UnusableArchive
from ufe_core.errors import DataError
from ufe_core.interfaces.source import Capture, FrameLabels, Neutral, Segment
from ufe_core.types import CameraSpec

_FIELD_OF_VIEW_DEG = 90.0  # nominal: no lens is published
_LABELS_KEPT = 8


class Ava256Capture(Capture):
    """The headset capture of one folder.

    Frames are those of the frame list that every archive has an entry for. `dropped` counts what is left out, by the
    file that it is missing or broken in. Broken entries are met when they are read: `spread` and `anchors` look
    at the frames they choose first, and choose others for those they cannot read.
    """

    def __init__(self, folder: CaptureFolder, *, free_face: str, with_labels: bool) -> None:
        self._folder = folder
        self.subject, self.id = folder.subject, folder.path.name
        self.dropped: dict[str, int] = {}
        self._sound: set[int] = set()
        self._broken: set[int] = set()
        self._archives = self._usable_archives()
        rows = chosen_segments(read_frame_list(folder.path / HEADSET / FRAME_LIST), free_face)
        listed = len(rows.numbers)
        self._list = self._present(rows)
        self._label_rows = self._labelled() if with_labels and (folder.path / LABELS).exists() else None
        if not len(self._list.numbers):
            raise DataError(f"{folder.path / HEADSET} has no frame to read: {self.losses() or 'none is asked for'}.")
        self.segments = self._list.segments()
        self.conditions = {"recorded": folder.recorded, "frames_left_out": listed - self.frame_count}

    def losses(self) -> str:
        """What is left out, in words: the count for each file; empty where nothing is."""
        return ", ".join(f"{count} not in {name}" for name, count in self.dropped.items())

    @cached_property
    def cameras(self) -> tuple[CameraSpec, ...]:  # type: ignore[override]  # an image of each is looked at first
        return tuple(_nominal(camera, *self._size(archive)) for camera, archive in self._archives.items())

    @property
    def anchors(self) -> Mapping[str, int]:  # type: ignore[override]  # frames that turn out broken are replaced
        """`neutral`, and one for each expression segment: its middle frame, or the next to it that can be read."""
        found: dict[str, int] = {}
        for segment in self.segments:
            for name in _anchors_of(segment):
                index = self._middle(segment) if name not in found else None
                if index is not None:
                    found[name] = index
        return found

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        rows = self._check(indices)
        out = np.empty((len(rows), len(cameras), size, size), np.uint8)
        archives = [self._archive(name) for name in cameras]
        for n, index in enumerate(rows):
            frame = int(self._list.numbers[index])
            for c, archive in enumerate(archives):
                try:
                    pixels = decode_image(archive.read(frame), archive.name(frame))
                except DataError as error:
                    self._leave_out(index, archive, error)
                    raise
                out[n, c] = resized(pixels if pixels.ndim == 2 else pixels[..., 0], size, size)
        return out

    def labels(self, indices: Sequence[int]) -> FrameLabels | None:
        """Expression codes float32 [N, D]; the layout has no gaze, so `gaze` is NaN. None without a label file."""
        rows = self._check(indices)
        if self._label_rows is None:
            return None
        codes = _codes(self._folder.path / LABELS, self._label_count)
        wanted = [self._label_rows[int(frame)] for frame in self._list.numbers[rows]]
        return FrameLabels(codes[wanted], np.full((len(rows), 6), np.nan, np.float32))

    def neutral(self, *, size: int | None = None) -> Neutral | None:
        return self._folder.neutral(size) if self._folder.has_dome else None

    def spread(self, count: int, *, seed: int) -> list[int]:
        """As every capture's, of the frames that can be read: each drawn frame's bytes are checked.

        Raises:
            DataError: fewer frames than asked for can be read.
        """
        rng = np.random.default_rng([seed, count])
        order = rng.permutation(len(self.segments))
        pools = [rng.permutation(np.arange(s.start, s.stop)).tolist() for s in self.segments]
        chosen: list[int] = []
        while len(chosen) < count and any(pools):
            for k in order:
                if len(chosen) < count and (index := self._drawn(pools[k])) is not None:
                    chosen.append(index)
        if len(chosen) < count:
            raise DataError(f"Capture {self.id!r} has {len(chosen)} frames that can be read, {count} were asked for.")
        return sorted(chosen)

    def _drawn(self, pool: list[int]) -> int | None:
        while pool:
            index = int(pool.pop())
            if self.is_readable(index):
                return index
        return None

    def is_readable(self, index: int) -> bool:
        """Whether every camera's entry of a frame has the right bytes and begins as an image does; read once."""
        if index not in self._sound and index not in self._broken:
            frame = int(self._list.numbers[index])
            try:
                for archive in self._archives.values():
                    check_image(archive.read(frame), archive.name(frame))
                self._sound.add(index)
            except DataError as error:
                self._leave_out(index, archive, error)
        return index not in self._broken

    def _leave_out(self, index: int, archive: Archive, error: DataError) -> None:
        """Count a frame that cannot be read, once, and say so."""
        if index not in self._broken:
            logging.getLogger("ufe").warning("Capture %s leaves a frame out: %s", self.id, error)
            self._count(archive, 1)
            self._broken.add(index)

    def _count(self, archive: Archive, count: int) -> None:
        name = archive.path.relative_to(self._folder.path).as_posix()
        self.dropped[name] = self.dropped.get(name, 0) + count

    def _usable_archives(self) -> dict[HeadsetCamera, Archive]:
        """The archive of each camera that has one; a warning names those that have none."""
        found = {}
        for camera in HEADSET_CAMERAS:
            archive = self._folder.archive(camera.archive, "avif")
            try:
                archive.frames  # noqa: B018  # reads the directory
            except UnusableArchive as error:
                logging.getLogger("ufe").warning(
                    "Capture %s is read without camera %s: %s", self.id, camera.name, error
                )
                continue
            found[camera] = archive
        if not found:
            raise DataError(f"{self._folder.path / HEADSET / 'image'} has no archive of a headset camera to read.")
        return found

    def _present(self, rows: FrameList) -> FrameList:
        """The rows that all archives have an entry for; the others are counted."""
        there = np.ones(len(rows.numbers), bool)
        for archive in self._archives.values():
            has = archive.has(rows.numbers)
            if not has.all():
                self._count(archive, int((~has).sum()))
            there &= has
        return rows if there.all() else rows.where(there)

    def _labelled(self) -> dict[int, int]:
        """Row of the label file by frame number; frames without one are left out, and counted."""
        listed = read_frame_list(self._folder.path / LABEL_FRAMES, grouped=False)
        self._label_count = len(listed.numbers)
        rows = {int(number): row for row, number in enumerate(listed.numbers)}
        there = np.isin(self._list.numbers, listed.numbers)
        if not there.all():
            self.dropped[LABEL_FRAMES] = int((~there).sum())
            self._list = self._list.where(there)
        return rows

    def _middle(self, segment: Segment) -> int | None:
        middle = (segment.start + segment.stop) // 2
        nearest = sorted(range(segment.start, segment.stop), key=lambda index: (abs(index - middle), index))
        return next((index for index in nearest if self.is_readable(index)), None)

    def _size(self, archive: Archive) -> tuple[int, int]:
        """Width and height of a camera's images, from the first that can be read."""
        for frame in self._list.numbers:
            try:
                return image_size(archive.read(int(frame)), archive.name(int(frame)))
            except DataError as error:
                last = error
        raise DataError(f"{archive.path} has no image that can be read; the last: {last}")

    def _archive(self, camera: str) -> Archive:
        self.camera(camera)
        return next(archive for known, archive in self._archives.items() if known.name == camera)

    def _check(self, indices: Sequence[int]) -> list[int]:
        rows = [int(index) for index in indices]
        bad = [index for index in rows if not 0 <= index < self.frame_count]
        if bad:
            raise DataError(f"Capture {self.id!r} has frames 0 to {self.frame_count - 1}; {bad[0]} was asked for.")
        return rows


def _anchors_of(segment: Segment) -> list[str]:
    names = [anchor_of(segment.name)] if segment.kind == "expression" else []
    return ["neutral", *names] if is_neutral(segment.name) else names


def _nominal(camera: HeadsetCamera, width: int, height: int) -> CameraSpec:
    """A camera that looks from where to where the layout's table says, through a lens of 90 degrees."""
    position, target = np.array(camera.position_mm, np.float64), np.array(camera.look_at_mm, np.float64)
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = max(width, height) / 2 / np.tan(np.radians(_FIELD_OF_VIEW_DEG / 2))
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return CameraSpec(
        camera.name, camera.side, camera.region, camera.role, width, height, intrinsics, rotation,
        -rotation @ position,
    )  # fmt: skip


@lru_cache(maxsize=_LABELS_KEPT)
def _codes(path: Path, count: int) -> np.ndarray:
    """The codes of a label file, float32 [count, D].

    Raises:
        DataError: the file is refused or damaged, has other than `count` rows, or numbers that are not finite.
    """
    import torch

    value = load_tensors(path)
    if isinstance(value, Mapping) and len(value) == 1:  # how the public files are packed is not published
        value = next(iter(value.values()))
    try:
        value = torch.stack(list(value)) if isinstance(value, (list, tuple)) else value
    except (TypeError, RuntimeError):
        value = None
    if not isinstance(value, torch.Tensor) or value.ndim < 2 or value.is_complex():
        raise DataError(f"{path} holds no tensor of codes, a row for each frame.")
    if value.shape[0] != count:
        raise DataError(f"{path} has {value.shape[0]} codes; {LABEL_FRAMES} lists {count} frames.")
    codes = value.detach().to(torch.float32).reshape(count, -1).numpy()
    if not np.isfinite(codes).all():
        raise DataError(f"{path} has codes that are not finite numbers.")
    return codes
