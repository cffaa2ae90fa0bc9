"""HMC source: where headset captures come from, real or simulated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ufe_core.config import ComponentConfig
from ufe_core.errors import DataError
from ufe_core.types import CameraSpec

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)


@dataclass(frozen=True)
class Segment:
    """One prompted performance of a capture: frames `start` to `stop` (exclusive)."""

    name: str
    start: int
    stop: int
    kind: str = "expression"


@dataclass(frozen=True)
class FrameLabels:
    """Exact or fitted labels of N frames: `expression` float32 [N, D], `gaze` float32 [N, 6], unit vectors."""

    expression: np.ndarray
    gaze: np.ndarray


@dataclass(frozen=True)
class Neutral:
    """A subject's resting appearance: `geometry` float32 [V, 3] mm, `texture` uint8 [3, T, T] linear RGB."""

    geometry: np.ndarray
    texture: np.ndarray


class Capture(ABC):
    """One donning session of one subject, with random access to its frames.

    Attributes a capture sets: `id` (unique in its source), `subject`, `cameras` (tracking cameras first, in the
    order of CONVENTIONS.md), `segments`, `anchors` (anchor name to frame index), `conditions` (name to value, so
    that results can be sliced: donning in mm, illumination, glasses ...).
    """

    id: str
    subject: str
    cameras: tuple[CameraSpec, ...]
    segments: tuple[Segment, ...]
    anchors: Mapping[str, int]
    conditions: Mapping[str, float | str | bool]

    @abstractmethod
    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        """Images uint8 [N, C, size, size] of the frames, one plane for each named camera.

        Raises:
            DataError: an index is out of range, a camera is missing, or a frame cannot be read.
        """

    @abstractmethod
    def labels(self, indices: Sequence[int]) -> FrameLabels | None:
        """Labels of the frames, without reading any pixel; None where the capture has none."""

    @abstractmethod
    def neutral(self) -> Neutral | None:
        """The subject's neutral texture and geometry; None where the capture has none."""

    @property
    def frame_count(self) -> int:
        """Number of frames, over all segments."""
        return self.segments[-1].stop if self.segments else 0

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name.

        Raises:
            DataError: the capture has no such camera.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self.cameras)
        raise DataError(f"Capture {self.id!r} has no camera {name!r}; it has {known}.")

    def spread(self, count: int, *, seed: int) -> list[int]:
        """`count` frame indices, uniform over segments and then over time (P§13.3, O30), in order."""
        if count > self.frame_count:
            raise DataError(f"Capture {self.id!r} has {self.frame_count} frames, {count} were asked for.")
        rng = np.random.default_rng([seed, count])
        order = rng.permutation(len(self.segments))
        pools = [rng.permutation(np.arange(s.start, s.stop)).tolist() for s in self.segments]
        chosen: list[int] = []
        while len(chosen) < count:
            for k in order:
                if pools[k] and len(chosen) < count:
                    chosen.append(int(pools[k].pop()))
        return sorted(chosen)


class HMCSource(ABC, Generic[ConfigT]):
    """A collection of captures.

    A plugin implements `subjects` and `captures` and gives `fingerprint`, which changes whenever the pixels or
    labels could: packed captures are keyed by it. `code_modules` names the modules whose source decides the
    pixels.
    """

    code_modules: tuple[str, ...] = ()

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def subjects(self) -> tuple[str, ...]:
        """Ids of every subject this source can give."""

    @abstractmethod
    def captures(self, subjects: Sequence[str]) -> list[Capture]:
        """Capture handles of the subjects, in their order. Opening one reads or renders no frame.

        Raises:
            DataError: a subject is not in this source.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of everything that decides this source's pixels and labels."""
