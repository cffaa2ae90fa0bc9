"""HMC source: where headset captures, and dome captures of the same people, come from, real or simulated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from ufe_core import instants
from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError, DataError
from ufe_core.types import CameraSpec

if TYPE_CHECKING:
    from ufe_core.types import MeshTopology

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
class Keypoints:
    """Where named points of the face lie in images: K points of N frames in C cameras.

    `points` float32 [N, C, K, 2], pixels (x, y) of the size asked for, also where they are hidden or outside the
    image; `visible` bool [N, C, K]: inside the image and hidden by nothing.
    """

    points: np.ndarray
    visible: np.ndarray


class KeypointSet(Protocol):
    """Which points of the face the keypoints of one camera are.

    `names`: one for each of the K points; `vertices` int64 [n]: the mesh vertices that the first n are; `pupils`: of
    which eyes (0 left, 1 right) the others are the pupils. A left camera's set is the mirror of a right camera's.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """One for each point."""

    @property
    def vertices(self) -> np.ndarray:
        """Int64 [n]."""

    @property
    def pupils(self) -> tuple[int, ...]:
        """Of the last K - n."""


#: Classes of a segmentation image, by value.
SEGMENTS = (
    "background", "skin", "lips", "teeth", "tongue", "mouth", "eye", "glasses", "hand", "headset", "lashes",
)  # fmt: skip


@dataclass(frozen=True)
class Neutral:
    """A subject's resting appearance: `geometry` float32 [V, 3] mm, `texture` uint8 [3, T, T] linear RGB.

    The texture is as a dome sees it, view-averaged and evenly lit.
    """

    geometry: np.ndarray
    texture: np.ndarray


class Capture(ABC):
    """One donning session of one subject, with random access to its frames.

    Attributes a capture sets: `id` (unique in its source), `subject`, `cameras` (tracking cameras first, in the
    order of CONVENTIONS.md), `segments`, `anchors` (anchor name to frame index), `conditions` (name to value, so
    that results can be sliced: donning in mm, illumination, glasses ...), and, where they are known, `traits` of the
    subject (name to value: looks, and what is idiosyncratic in the way they move).
    """

    id: str
    subject: str
    cameras: tuple[CameraSpec, ...]
    segments: tuple[Segment, ...]
    anchors: Mapping[str, int]
    conditions: Mapping[str, float | str | bool]
    traits: Mapping[str, float | str | bool] = MappingProxyType({})

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
    def neutral(self, *, size: int | None = None) -> Neutral | None:
        """The subject's neutral texture, of `size` or as the source has it, and geometry; None where there is none."""

    def geometry(self, indices: Sequence[int]) -> np.ndarray | None:
        """Exact or tracked geometry float32 [N, V, 3] (mm, head coordinates); None where the capture has none."""
        return None

    def texture(self, indices: Sequence[int], *, size: int) -> np.ndarray | None:
        """What an avatar's expression encoder reads beside the geometry, where it can be had: the face's texture.

        It is as a dome would see it, view-averaged and evenly lit, and like that of `neutral` at this size but for the
        expression: linear RGB uint8 [N, 3, size, size]. None where the capture has none.
        """
        return None

    def cameras_at(self, index: int) -> tuple[CameraSpec, ...] | None:
        """Every camera as it really sat on the head in one frame, poses in head coordinates; None where unknown.

        `cameras` holds the nominal poses; the difference is donning and slip.
        """
        return None

    def keypoints(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> Keypoints | None:
        """Keypoints of the frames in images of that size (P§6.6: 96 per view); None where the capture has none."""
        return None

    def keypoint_set(self, camera: CameraSpec) -> KeypointSet | None:
        """Which points of the face `keypoints` finds in a camera; None where the capture has no keypoints."""
        return None

    def segmentation(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray | None:
        """Class of each pixel, uint8 [N, C, size, size] into `SEGMENTS`; None where the capture has none."""
        return None

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
        return instants.spread(self, count, seed)

    def clips(self, count: int, length: int, *, seed: int, kind: str = "speech") -> list[int]:
        """Indices of `count` runs of `length` frames that follow each other, one run after the other.

        They lie in segments of a kind, spread over them, each run somewhere in its segment.

        Raises:
            DataError: the capture has too few segments of that kind and length.
        """
        return instants.clips(self, count, length, seed, kind)


class DomeCapture(ABC):
    """One performance of one subject, seen by colour cameras around the head: what an avatar is trained on (P§1.2).

    Attributes a capture sets: `id`, `subject`, `cameras` (poses map world to camera coordinates), `segments`.
    The head moves in the world; `geometry` and `texture` are registered, free of that motion.
    """

    id: str
    subject: str
    cameras: tuple[CameraSpec, ...]
    segments: tuple[Segment, ...]

    @abstractmethod
    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], height: int) -> np.ndarray:
        """Linear RGB images uint8 [N, C, 3, height, W]; W keeps the sensor's aspect.

        Raises:
            DataError: an index is out of range, a camera is missing, or a frame cannot be read.
        """

    @abstractmethod
    def geometry(self, indices: Sequence[int]) -> np.ndarray:
        """Registered geometry float32 [N, V, 3], mm, head coordinates."""

    @abstractmethod
    def texture(self, indices: Sequence[int], *, size: int | None = None) -> np.ndarray:
        """View-averaged unwrapped texture, linear RGB uint8 [N, 3, T, T]; `size` is T, None the capture's own."""

    @abstractmethod
    def head_pose(self, indices: Sequence[int]) -> np.ndarray:
        """Head to world, float64 [N, 3, 4], mm."""

    @abstractmethod
    def neutral(self, *, size: int | None = None) -> Neutral:
        """The subject's neutral texture, of `size` texels along a side or the capture's own, and geometry."""

    @abstractmethod
    def topology(self) -> MeshTopology | None:
        """The mesh that `geometry` and `texture` live on; None where the data does not bring it."""

    @property
    def frame_count(self) -> int:
        """Number of frames, over all segments."""
        return self.segments[-1].stop if self.segments else 0

    def spread(self, count: int, *, seed: int) -> list[int]:
        """`count` frame indices, uniform over segments and then over time, in order."""
        return instants.spread(self, count, seed)


@dataclass(frozen=True)
class WriteRequest:
    """What of a source is to be written in another source's layout.

    `frames` instants are taken of each recording, at least 2, as statistics are taken over them; `parts` says of which
    recordings. Headset images are `headset_size` pixels wide and high, dome images `dome_height` pixels high.
    `options` are the layout's own.

    Raises:
        ConfigError: a part is not known, or a number is too small.
    """

    subjects: tuple[str, ...]
    frames: int
    session: int = 0
    parts: tuple[str, ...] = ("headset", "dome")
    headset_size: int = 400
    dome_height: int = 1024
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.subjects or not self.parts or not set(self.parts) <= {"headset", "dome"}:
            raise ConfigError(
                f"Subjects {list(self.subjects)} and parts {list(self.parts)} were asked for; at least one of each is "
                "needed, and parts are headset and dome."
            )
        for name, least in (("frames", 2), ("headset_size", 16), ("dome_height", 16)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {least} or more.")


@dataclass(frozen=True)
class WrittenCapture:
    """A capture in another layout: whose it is, its folder, and whether it is new or was there already, whole."""

    subject: str
    path: Path
    new: bool


class HMCSource(ABC, Generic[ConfigT]):
    """A collection of captures.

    A plugin implements `subjects` and `captures` and gives `fingerprint`, which changes whenever the pixels or
    labels could: packed captures are keyed by it. `code_modules` names the modules whose source decides the
    pixels. A source with several donnings of a subject says how many in `sessions`; one that has dome captures
    implements `dome`; one whose layout others' captures can be written in implements `write`.
    """

    code_modules: tuple[str, ...] = ()
    sessions: int = 1

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def subjects(self) -> tuple[str, ...]:
        """Ids of every subject this source can give."""

    @abstractmethod
    def captures(self, subjects: Sequence[str], *, session: int = 0) -> list[Capture]:
        """Capture handles of the subjects, in their order. Opening one reads or renders no frame.

        Args:
            subjects: whose captures.
            session: which donning, below `sessions`; a later one is another day (P§11.5, S2).

        Raises:
            DataError: a subject or session is not in this source.
        """

    def dome(self, subjects: Sequence[str]) -> list[DomeCapture]:
        """Dome captures of the subjects, in their order.

        Raises:
            DataError: a subject, or any dome capture at all, is not in this source.
        """
        raise DataError(f"{type(self).__name__} has no dome captures.")

    @classmethod
    def write(
        cls,
        folder: Path,
        source: HMCSource[Any],
        request: WriteRequest,
        *,
        listener: Callable[[int, int], None] | None = None,
    ) -> list[WrittenCapture]:
        """Write captures of another source in the layout that this class reads.

        A capture appears whole or not at all, and one that is there already stays; equal requests give equal bytes.

        Args:
            folder: where to; made if it is missing, and not touched where it holds anything but an export.
            source: whose captures.
            request: which, and how large.
            listener: told of work done and of all work, in frames.

        Raises:
            ConfigError: this class has no writer, or the request does not fit it or what the folder holds.
            DataError: the source cannot give what was asked for, or the layout cannot hold it.
            ArtifactError: the disk is full, or the folder cannot be written.
        """
        raise ConfigError(f"{cls.__name__} has no writer: other sources' captures cannot take its layout.")

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of everything that decides this source's pixels and labels."""

    @property
    def dome_fingerprint(self) -> str:
        """The same of its dome captures."""
        return self.fingerprint
