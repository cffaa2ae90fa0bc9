"""Calibrator `none`: the ablation without anchors."""

from __future__ import annotations

from torch import Tensor

from ufe_calibrators.plugin import NoneConfig
from ufe_core.interfaces.calibrator import Calibrator


class NoCalibration(Calibrator[NoneConfig]):
    """Passes features through; no anchor is ever loaded for it."""

    uses_anchors = False

    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """The features as they are."""
        return features
