"""Calibrator `pooling` (P§4.5): anchor features pooled as PointNet pools points (Qi et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ufe_calibrators.plugin import PoolingConfig
from ufe_core.interfaces.calibrator import Calibrator


class Pooling(Calibrator[PoolingConfig]):
    """One perceptron for all anchors, the largest value over them, concatenated with the current features, convolved.

    The order of the anchors, and so which is which, is lost: what can be learnt is how far a face ever goes. As with
    `late_fusion` the last convolution is linear, and the anchors' share of it is one map for each user.
    """

    def __init__(self, config: PoolingConfig, *, channels: int, anchors: int) -> None:
        super().__init__(config, channels=channels, anchors=anchors)
        self.point = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Hardswish(), nn.Conv2d(channels, channels, 1))
        self.current = nn.Conv2d(channels, channels, 1)
        self.pooled = nn.Conv2d(channels, channels, 1, bias=False)
        self.nothing = nn.Parameter(torch.zeros(channels, 1, 1))
        with torch.no_grad():
            self.current.weight.mul_(0.1).add_(torch.eye(channels)[..., None, None])

    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """The pooled features' share of the convolution, `share` [U, K, h, w]; [U, K, 1, 1] where there are none."""
        users = len(features)
        if not self.anchors:
            return {"share": self.pooled(self.nothing.expand(users, -1, -1, -1))}
        there = present[:, :, None, None, None]
        points = self.point(torch.where(there, features, 0).flatten(0, 1)).unflatten(0, (users, -1))
        largest = torch.where(there, points, -torch.inf).amax(1)
        largest = torch.where(present.any(1)[:, None, None, None], largest, self.nothing)
        return {"share": self.pooled(largest)}

    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """The frames' share plus the cached one."""
        return self.current(features) + cached["share"]
