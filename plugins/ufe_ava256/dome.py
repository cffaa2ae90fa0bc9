"""Dome captures: colour cameras, registered meshes and unwrapped textures, read from `decoder/`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ufe_ava256.archives import Archive, decode_image, resized
from ufe_ava256.calibration import read_cameras
from ufe_ava256.folder import CaptureFolder
from ufe_ava256.frame_list import chosen_segments
from ufe_ava256.layout import (
    CALIBRATION,
    CODE_SIZE,
    DOME,
    EXPRESSION_CODES,
    HEAD_AXES,
    HEAD_POSE,
    MESH_MEAN,
    NEUTRAL_FALLBACK,
    NEUTRAL_SEGMENT,
    SENSOR_HEIGHT,
    SENSOR_WIDTH,
    dome_archive,
)
from ufe_ava256.pickles import load_pickle
from ufe_core.errors import DataError
from ufe_core.interfaces.source import DomeCapture, Neutral

if TYPE_CHECKING:
    from ufe_core.types import CameraSpec, MeshTopology

_MOST_SKEW = 1e-3


class Ava256Dome(DomeCapture):
    """The dome capture of one folder.

    Frames are those of the frame list that have a mesh, a texture and a head pose; `dropped` counts the others, by
    the file that they are missing in. Images are looked for when they are asked for: `present` tells which are there.
    """

    def __init__(self, folder: CaptureFolder, *, free_face: str, topology: Callable[[], MeshTopology | None]) -> None:
        self._folder, self._topology = folder, topology
        self.subject, self.id = folder.subject, folder.path.name
        self.dropped: dict[str, int] = {}
        self.cameras = self._cameras_with_images()
        self._refuse_other_mesh()
        self._list = chosen_segments(folder.dome_frames, free_face)
        there = np.ones(len(self._list.numbers), bool)
        for archive in (folder.meshes, folder.textures, self._poses):
            has = archive.has(self._list.numbers)
            if not has.all():
                self.dropped[archive.path.relative_to(folder.path).as_posix()] = int((~has).sum())
            there &= has
        self._list = self._list.where(there)
        if not len(self._list.numbers):
            raise DataError(f"{folder.path / DOME} has no frame with a mesh, a texture and a head pose.")
        self.segments = self._list.segments()
        self._neutral_frame = self._find_neutral()

    def present(self, cameras: Sequence[str]) -> np.ndarray:
        """Which frames have an image of every named camera, bool [frame_count]; reads archive directories only.

        Raises:
            DataError: a camera is missing, or its archive cannot be read.
        """
        there = np.ones(self.frame_count, bool)
        for name in cameras:
            there &= self._images(name).has(self._list.numbers)
        return there

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], height: int) -> np.ndarray:
        numbers, width = self._numbers(indices), round(height * SENSOR_WIDTH / SENSOR_HEIGHT)
        archives = [self._images(name) for name in cameras]
        out = np.empty((len(numbers), len(archives), 3, height, width), np.uint8)
        for n, frame in enumerate(numbers):
            for c, archive in enumerate(archives):
                pixels = decode_image(archive.read(frame), archive.name(frame))
                if pixels.ndim != 3:
                    raise DataError(f"{archive.name(frame)} is grey; images of the dome have colours.")
                out[n, c] = np.moveaxis(resized(pixels[..., :3], width, height), -1, 0)
        return out

    def geometry(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self._folder.mesh(frame) for frame in self._numbers(indices)])

    def texture(self, indices: Sequence[int], *, size: int | None = None) -> np.ndarray:
        return np.stack([self._folder.texture(frame, size) for frame in self._numbers(indices)])

    def head_pose(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self._pose(frame) for frame in self._numbers(indices)])

    def neutral(self, *, size: int | None = None) -> Neutral:
        return Neutral(self._folder.mesh(self._neutral_frame), self._folder.texture(self._neutral_frame, size))

    def topology(self) -> MeshTopology | None:
        return self._topology()

    def expression_codes(self, indices: Sequence[int]) -> np.ndarray | None:
        """Codes that the public checkpoint gives of the frames, float32 [N, 256]; None where the capture has none.

        Raises:
            DataError: the file is refused or damaged, or has no code of a frame.
        """
        if self._codes is None:
            return None
        path, codes = self._codes
        numbers = self._numbers(indices)
        lacking = next((frame for frame in numbers if frame not in codes), None)
        if lacking is not None:
            raise DataError(f"{path} has no code of frame {lacking}.")
        return np.stack([codes[frame] for frame in numbers])

    @cached_property
    def _codes(self) -> tuple[str, dict[int, np.ndarray]] | None:
        files = sorted((self._folder.path / EXPRESSION_CODES).glob("*.pkl"))
        if not files:
            return None
        path = files[-1]  # the highest iteration
        value = load_pickle(path)
        try:
            codes = {int(frame): np.asarray(code, np.float32).reshape(CODE_SIZE) for frame, code in value.items()}
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{path} is no dictionary of frame numbers and {CODE_SIZE} numbers each.") from error
        if not all(np.isfinite(code).all() for code in codes.values()):
            raise DataError(f"{path} has codes that are not finite numbers.")
        return str(path), codes

    @property
    def _poses(self) -> Archive:
        return self._folder.archive(HEAD_POSE, "txt")

    def _pose(self, frame: int) -> np.ndarray:
        """Head to world, [3, 4]: the layout's head axes are not those of CONVENTIONS.md."""
        name = self._poses.name(frame)
        try:
            pose = np.array(self._poses.read(frame).decode("ascii").split(), np.float64).reshape(3, 4)
        except ValueError as error:
            raise DataError(f"{name} is no head pose of 3 x 4 numbers.") from error
        rotation = pose[:, :3]
        turned = np.isfinite(pose).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < _MOST_SKEW
        if not turned or np.linalg.det(rotation) < 0:
            raise DataError(f"{name} is no rotation and translation.")
        return np.concatenate([rotation @ HEAD_AXES, pose[:, 3:]], 1)

    def _find_neutral(self) -> int:
        frame = self._folder.neutral_frame
        if frame is None:
            raise DataError(
                f"{self._folder.path / DOME} has no neutral face: no frame of {NEUTRAL_SEGMENT} or {NEUTRAL_FALLBACK} "
                "has a mesh and a texture."
            )
        return frame

    def _refuse_other_mesh(self) -> None:
        path = self._folder.path / MESH_MEAN
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except FileNotFoundError:
            return
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is no numpy array, or was cut short.") from error
        if found != (self._folder.vertex_count, 3):
            raise DataError(f"{path} is of shape {list(found)}; the topology has {self._folder.vertex_count} vertices.")

    def _cameras_with_images(self) -> tuple[CameraSpec, ...]:
        calibrated = read_cameras(self._folder.path / CALIBRATION)
        lacking = [camera for camera in calibrated if not (self._folder.path / dome_archive(camera.name)).is_file()]
        if len(lacking) == len(calibrated):
            raise DataError(f"{self._folder.path / DOME / 'image'} has no archive of a camera of {CALIBRATION}.")
        if lacking:
            first = self._folder.path / dome_archive(lacking[0].name)
            logging.getLogger("ufe").warning(
                "Dome %s is read without %d of its %d cameras; the first is %s.",
                self.id, len(lacking), len(calibrated), first,
            )  # fmt: skip
        return tuple(camera for camera in calibrated if camera.name not in {one.name for one in lacking})

    def _images(self, camera: str) -> Archive:
        if camera not in {known.name for known in self.cameras}:
            raise DataError(f"Dome capture {self.id!r} has no camera {camera!r}; it has {len(self.cameras)} others.")
        return self._folder.archive(dome_archive(camera), "avif")

    def _numbers(self, indices: Sequence[int]) -> list[int]:
        bad = [int(index) for index in indices if not 0 <= index < self.frame_count]
        if bad:
            raise DataError(f"Dome {self.id!r} has frames 0 to {self.frame_count - 1}; {bad[0]} was asked for.")
        return [int(self._list.numbers[index]) for index in indices]
