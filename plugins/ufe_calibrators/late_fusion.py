"""Calibrator `late_fusion` (P§4.3): concatenate current and anchor feature maps by channel, then convolve."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ufe_calibrators.plugin import LateFusionConfig
from ufe_core.interfaces.calibrator import Calibrator


class LateFusion(Calibrator[LateFusionConfig]):
    """A 1x1 convolution of the (M + 1) K concatenated channels to K; the encoder's remaining blocks follow.

    The convolution is linear, so it is split by input: the anchors' share is one map per user, computed once
    at enrolment, and a frame pays for its own K channels only, however many anchors there are. Unlike O2's it has no
    normalisation and no activation of its own: those of the encoder's next block follow. A missing anchor is replaced
    by a learned feature (P§13.1, O8).

    Weights start at the difference between the current features and the first anchor's (neutral), plus a little
    of everything: the network sets out from "what has changed since rest" and learns the others from there. With
    `start = current` they start at the current features alone, as the other calibrators do.
    """

    def __init__(self, config: LateFusionConfig, *, channels: int, anchors: int) -> None:
        super().__init__(config, channels=channels, anchors=anchors)
        self.current = nn.Conv2d(channels, channels, 1, bias=False)
        self.cached = nn.ModuleList([nn.Conv2d(channels, channels, 1, bias=False) for _ in range(anchors)])
        self.missing = nn.Parameter(torch.zeros(anchors, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        with torch.no_grad():
            eye = torch.eye(channels)[..., None, None]
            self.current.weight.mul_(0.1).add_(eye)
            for k, convolution in enumerate(self.cached):
                compared = k == 0 and config.start == "difference"
                cast(nn.Conv2d, convolution).weight.mul_(0.1).sub_(eye if compared else 0.0)

    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """The anchors' share of the convolution, `share` [U, K, h, w]; [U, K, 1, 1] where there are none."""
        size = features.shape[-2:] if self.anchors else (1, 1)
        total = self.bias.expand(features.shape[0], -1, *size)
        for m, convolution in enumerate(self.cached):
            keep = present[:, m, None, None, None]
            total = total + convolution(torch.where(keep, features[:, m], self.missing[m]))
        return {"share": total}

    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """The frames' share plus the cached one."""
        return self.current(features) + cached["share"]
