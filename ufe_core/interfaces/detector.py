"""Keypoint detector: where named points of the face lie in the images of tracking cameras (P§6.6, P§10)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.config import ComponentConfig
from ufe_core.errors import ContractError
from ufe_core.interfaces.training import ComponentTraining
from ufe_core.types import Detections, check_tensor

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)


@dataclass(frozen=True)
class KeypointNames:
    """What the K keypoints of one camera are: see `KeypointSet`; `vertices` are those of the source's mesh."""

    camera: str
    names: tuple[str, ...]
    vertices: tuple[int, ...]
    pupils: tuple[int, ...]


class KeypointDetector(nn.Module, ABC, Generic[ConfigT]):
    """Finds keypoints; trained on its own, then frozen: the same one serves every encoder that needs keypoints.

    A plugin sets `size`, the side of the images that it looks at, and `keypoints`, one entry for each camera, and
    implements `_detect`; one that is itself trained says how in `trained_by`.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()
    trained_by: ClassVar[type[ComponentTraining[Any, Any]] | None] = None
    size: int
    keypoints: tuple[KeypointNames, ...]

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def weights_sha256(cls, config: ConfigT) -> str | None:
        """Of the weights that a detector with these options loads; None for one without weights.

        Raises:
            ArtifactError: there are none, or they cannot be read.
        """
        return None

    @property
    def cameras(self) -> tuple[str, ...]:
        """Which cameras it looks through, in order."""
        return tuple(names.camera for names in self.keypoints)

    @final
    @torch.no_grad()
    def detect(self, images: Tensor) -> Detections:
        """Find the keypoints of images uint8 [B, C, H, H], one plane for each of `cameras`.

        Images of another size than it looks at are resized; points are in pixels of what was given.

        Raises:
            ContractError: the images are not those of its cameras, or not square.
        """
        name = type(self).__name__
        check_tensor(name, "detect.images", images, ("B", len(self.keypoints), "H", "W"), torch.uint8)
        side = images.shape[-1]
        if images.shape[-2] != side:
            raise ContractError(f"{name}.detect: expected square images, found {images.shape[-2]} x {side}.")
        grey = images.float() / 255
        if side != self.size:
            wanted = (self.size, self.size)
            grey = functional.interpolate(grey, wanted, mode="bilinear", align_corners=False, antialias=True)
        found = self._detect(grey)
        return Detections(found.points * (side / self.size), found.visible)

    @abstractmethod
    def _detect(self, images: Tensor) -> Detections:
        """The same for images float32 [B, C, size, size] in [0, 1]; points in their pixels."""
