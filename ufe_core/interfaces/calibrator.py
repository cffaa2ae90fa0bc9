"""Calibrator: mixes what an encoder sees of the current frame with what is kept of the user's anchors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from ufe_core.config import ComponentConfig

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)


class Calibrator(nn.Module, ABC, Generic[ConfigT]):
    """One face region's first step of phi_cal (P§4.2): from feature maps to calibrated feature maps.

    An encoder makes one calibrator for each region and runs its own remaining layers on the result, so `none` and
    every other calibrator share one backbone. Left and right images of a region arrive as separate rows, mirrored
    into one orientation. A calibrator keeps the map size; the encoder's next layer takes the channels that it says,
    `outputs`. One that sets `stage = "images"` stands before the encoder's first layer: its maps are normalised images
    of one channel. One that sets `uses_anchors = False` is never given any, and a run with it loads none.

    Args:
        channels: K, channels of the feature maps.
        anchors: M, anchors of a user; 0 must work.
    """

    stage: ClassVar[Literal["features", "images"]] = "features"
    uses_anchors: ClassVar[bool] = True
    code_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ConfigT, *, channels: int, anchors: int) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        self.anchors = anchors

    @property
    def outputs(self) -> int:
        """Channels of what `forward` returns; those that come in, unless a calibrator says otherwise."""
        return self.channels

    @abstractmethod
    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Everything that depends on the anchors alone; called once at enrolment, cached with the user.

        Args:
            features: float32 [U, M, K, h, w], the anchors' feature maps.
            present: bool [U, M]; a missing anchor's features are meaningless and must not be used.

        Returns:
            Tensors [U, ...]; empty where nothing is kept.
        """

    @abstractmethod
    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """Calibrated features float32 [B, outputs, h, w].

        Args:
            features: float32 [B, K, h, w], of the current frames.
            cached: what `precompute` returned, rows matched to the frames: [B, ...] (or [1, ...] to broadcast).
        """


@dataclass(frozen=True)
class CalibratorFactory:
    """What an encoder makes its calibrators with: one call for each region."""

    kind: type[Calibrator[Any]]
    config: ComponentConfig

    @property
    def stage(self) -> str:
        """Where its calibrators stand: after some layers of the encoder, `features`, or before all, `images`."""
        return self.kind.stage

    def __call__(self, channels: int, anchors: int) -> Calibrator[Any]:
        """A calibrator of maps of so many channels, for so many anchors.

        What it draws has no part in what is drawn after it: encoders that differ in their calibrator begin alike.
        """
        seed = int(torch.randint(2**62, ()))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.kind(self.config, channels=channels, anchors=anchors)
