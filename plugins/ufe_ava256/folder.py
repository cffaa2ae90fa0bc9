"""A capture's folder on disk: its archives, opened once, and what headset and dome part share of it."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

import numpy as np

from ufe_ava256.archives import Archive, decode_image, image_size, resized
from ufe_ava256.frame_list import FrameList, read_frame_list
from ufe_ava256.layout import DOME, FRAME_LIST, HEAD_AXES, MESHES, TEXTURES
from ufe_ava256.ply import read_vertices
from ufe_core.errors import DataError
from ufe_core.interfaces.source import Neutral


class CaptureFolder:
    """One `<mcd>--<mct>--<sid>` folder. `vertex_count`: of the mesh that all captures beside it share."""

    def __init__(self, path: Path, subject: str, vertex_count: int) -> None:
        self.path, self.subject, self.vertex_count = path, subject, vertex_count
        self._archives: dict[str, Archive] = {}

    @property
    def recorded(self) -> str:
        """Date and time of the recording, `yyyymmdd--hhmm`."""
        return self.path.name.rpartition("--")[0]

    def archive(self, relative: str, suffix: str) -> Archive:
        """The archive at a path below the folder; the same one each time."""
        if relative not in self._archives:
            self._archives[relative] = Archive(self.path / relative, suffix)
        return self._archives[relative]

    @property
    def meshes(self) -> Archive:
        """Registered meshes of the dome."""
        return self.archive(MESHES, "ply")

    @property
    def textures(self) -> Archive:
        """View-averaged textures of the dome."""
        return self.archive(TEXTURES, "avif")

    def mesh(self, frame: int) -> np.ndarray:
        """A frame's registered mesh, float32 [V, 3], mm, head coordinates.

        Raises:
            DataError: the mesh is missing, damaged, or has another number of vertices than the topology.
        """
        data = self.meshes.read(frame)
        found = read_vertices(data, self.meshes.name(frame), count=self.vertex_count)
        return found @ HEAD_AXES.astype(np.float32)

    def texture(self, frame: int, size: int | None = None) -> np.ndarray:
        """A frame's texture, uint8 [3, T, T], linear RGB, of `size` or as it is in the capture.

        Raises:
            DataError: the texture is missing or damaged.
        """
        name = self.textures.name(frame)
        pixels = decode_image(self.textures.read(frame), name)
        if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1]:
            raise DataError(f"{name} is of shape {list(pixels.shape)}; a texture is square and has colours.")
        sized = pixels[..., :3] if size is None else resized(pixels[..., :3], size, size)
        return np.ascontiguousarray(np.moveaxis(sized, -1, 0))

    @cached_property
    def dome_frames(self) -> FrameList:
        """The dome's frame list.

        Raises:
            DataError: it is missing or damaged.
        """
        return read_frame_list(self.path / DOME / FRAME_LIST)

    @property
    def has_dome(self) -> bool:
        """Whether there is a dome part at all."""
        return (self.path / DOME / FRAME_LIST).is_file()

    @cached_property
    def neutral_frame(self) -> int | None:
        """The dome frame of the resting face: the first of `neutral` with mesh and texture; None without any.

        Raises:
            DataError: the frame list, the archive of meshes or textures, or all such frames cannot be read.
        """
        candidates = np.array(self.dome_frames.neutral, np.int64)
        failures = []
        for frame in candidates[self.meshes.has(candidates) & self.textures.has(candidates)].tolist():
            try:
                self.mesh(frame)
                image_size(self.textures.read(frame), self.textures.name(frame))
                return int(frame)
            except DataError as error:
                logging.getLogger("ufe").warning("Capture %s takes another neutral frame: %s", self.path.name, error)
                failures.append(error)
        if failures:
            raise failures[0]
        return None

    def neutral(self, size: int | None = None) -> Neutral | None:
        """The subject's resting mesh and texture, of `size` or as it is in the capture; None where no frame is for it.

        Raises:
            DataError: that frame, or what lists it, is damaged.
        """
        frame = self.neutral_frame
        return None if frame is None else Neutral(self.mesh(frame), self.texture(frame, size))
