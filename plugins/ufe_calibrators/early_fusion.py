"""Calibrator `early_fusion` (P§4.5): the images of a frame and of the anchors as channels of the encoder's input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ufe_calibrators.plugin import EarlyFusionConfig
from ufe_core.interfaces.calibrator import Calibrator


class EarlyFusion(Calibrator[EarlyFusionConfig]):
    """[B, 1, H, W] becomes [B, 1 + M, H, W]; what is kept of a user are the images themselves.

    Every layer of the encoder then sees frame and anchors side by side, and nothing that it computes depends on the
    anchors alone. A missing anchor is an image of one learned grey.
    """

    stage = "images"

    def __init__(self, config: EarlyFusionConfig, *, channels: int, anchors: int) -> None:
        super().__init__(config, channels=channels, anchors=anchors)
        self.missing = nn.Parameter(torch.zeros(anchors, channels, 1, 1))

    @property
    def outputs(self) -> int:
        return (1 + self.anchors) * self.channels

    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """The anchors' `images` [U, M C, H, W]."""
        if not self.anchors:
            return {}
        return {"images": torch.where(present[..., None, None, None], features, self.missing).flatten(1, 2)}

    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """The frames' images, then the anchors'."""
        if not self.anchors:
            return features
        return torch.cat([features, cached["images"].expand(len(features), -1, -1, -1)], 1)
