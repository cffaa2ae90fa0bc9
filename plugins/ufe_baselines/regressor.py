"""What the trained baselines share: features of both face regions, a reference, timm networks (P§13.8, O61)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ufe_core.config import ComponentConfig
from ufe_core.face_encoder import FaceEncoder
from ufe_core.timm_network import timm_network
from ufe_core.types import AnchorSet, Calibration, Detections, Encoding, FrameBatch

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

REFERENCE = "neutral"  # the anchor that displacements and warps are measured from (O60)
_TRIAL_PX = 64
_FOUND = 0.1  # mean confidence of a view's points


class Regressor(FaceEncoder[ConfigT]):
    """Features of the upper and of the lower face, and the same read-out as the universal encoder's.

    A baseline implements `features`.
    """

    code_modules = (*FaceEncoder.code_modules, "ufe_core.timm_network", "ufe_baselines.regressor")

    @abstractmethod
    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, F] of the upper and [B, F'] of the lower face.

        Args:
            frames: B of them.
            kept: what `_enroll` kept, a row for each frame.
        """

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        count = frames.images.shape[0]
        kept = {name: value.expand(count, *value.shape[1:]) for name, value in calibration.rows(frames.users).items()}
        upper, lower = self.features(frames, kept)
        return self.coded(torch.cat([upper, lower], 1), upper)


class Reference(Regressor[ConfigT]):
    """A regressor that compares each frame with the wearer's neutral anchor, and reads no other (O60)."""

    uses_anchors = True
    reads_anchors = (REFERENCE,)
    inputs = ("images", "keypoints")

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        at = self.needs.anchors.index(REFERENCE)
        assert anchors.keypoints is not None
        found = anchors.keypoints.map(lambda value: value[:, at])
        known = anchors.present[:, at].float()
        return {"points": found.points, "visible": found.visible * known[:, None, None]}


def found_in_views(now: Detections, before: Detections) -> Tensor:
    """How far keypoints [B, C, K] of a view are believed, now and in its reference, [B, C] in [0, 1].

    In full from where a tenth of them is sure to be seen; not at all in a view in which nothing is found, such as a
    covered camera's.
    """
    return (torch.minimum(now.visible.mean(-1), before.visible.mean(-1)) / _FOUND).clamp_max(1)


class Pooled(nn.Module):
    """A timm network without classifier whose last map is averaged to `cells` x `cells`."""

    def __init__(self, name: str, options: Mapping[str, Any], *, inputs: int, cells: int) -> None:
        super().__init__()
        self.network = timm_network(name, inputs=inputs, options=options, global_pool="")
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Flatten(1))
        with torch.no_grad():  # not every model's `num_features` says what it gives
            width = self.network.eval()(torch.zeros(1, inputs, _TRIAL_PX, _TRIAL_PX)).shape[1]
        self.network.train()
        self.features: int = width * cells * cells

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, features] of maps [B, inputs, H, W]."""
        pooled: Tensor = self.pool(self.network(images.contiguous(memory_format=torch.channels_last)))
        return pooled
