"""Geometry-guided (Song et al. 2018): an image network that is shown heat maps of facial landmarks.

Original: "Geometry guided adversarial facial expression synthesis" controls a face generator with landmark heat maps,
concatenated with the image as more input channels, so that geometry guides what convolutions see.

Kept: heat maps of detected landmarks, Gaussians about each, stacked with the raw image as input channels.

Changed: it regresses (e, g) in place of an image (P§10), by the same backbone as the universal encoder without anchors
(P§13.8, O61). The 96 landmarks of a view are drawn into one map for each part of the face (brow, a quarter of the lips'
outer rim ...), not into 96, which would make the first layer the whole cost; hidden ones fade with the detector's
confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ufe_baselines.keypoint_maps import Parts, drawn, groups_of
from ufe_baselines.plugin import GeometryGuidedConfig
from ufe_baselines.regressor import Pooled, Regressor
from ufe_core.face_encoder import by_region, mirrored_detections
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, FrameBatch


class GeometryGuidedEncoder(Regressor[GeometryGuidedConfig]):
    """A backbone for each face region on an image and its heat maps; see the module."""

    code_modules = (*Regressor.code_modules, "ufe_baselines.geometry_guided", "ufe_baselines.keypoint_maps")
    inputs = ("images", "keypoints")

    def __init__(
        self, config: GeometryGuidedConfig, *, needs: EncoderNeeds, code_space: CodeSpace,
        keypoints: tuple[KeypointNames, ...],
    ) -> None:  # fmt: skip
        super().__init__(config, needs=needs, code_space=code_space)
        parts = [Parts(groups_of(keypoints[2 * region].names)) for region in range(2)]
        self.parts = nn.ModuleList(parts)
        networks = [
            Pooled(config.backbone, config.backbone_options, inputs=1 + len(of_region), cells=config.cells)
            for of_region in parts
        ]
        self.regions = nn.ModuleList(networks)
        count = 2 * networks[0].features
        self.read_out(2 * count, count, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.keypoints is not None
        side = frames.images.shape[-1]
        images = self.views(frames.images)
        found = mirrored_detections(frames.keypoints, side)
        points, visible = by_region(found.points), by_region(found.visible)
        made = []
        for k, network in enumerate(self.regions):
            maps = drawn(points[k], visible[k], cast("Parts", self.parts[k]), side, spread=self.config.spread * side)
            made.append(network(torch.cat([images[k], maps], 1)).view(len(frames.images), -1))
        return made[0], made[1]
