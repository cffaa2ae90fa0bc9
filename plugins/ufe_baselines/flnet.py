"""FLNet (Gu et al. 2020): where landmarks moved from a reference, and nothing else.

Original: "FLNet: Landmark driven fetching and learning network for faithful talking facial animation synthesis" drives
a face by the displacement of its landmarks from those of a reference image.

Kept: the input is the displacement of each keypoint from the wearer's reference, no pixel.

Changed: the original's displacements warp features of reference images to make a picture; here a multilayer perceptron
of four layers regresses (e, g) from them (P§10, P§13.8, O61). The reference is the neutral anchor (O60). Confidences
go in beside the displacements, so that hidden points need not be believed; pupils are among the keypoints, for gaze.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ufe_baselines.plugin import FlnetConfig
from ufe_baselines.regressor import Reference
from ufe_core.face_encoder import by_region, mirrored_detections, perceptron
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, Detections, FrameBatch


class FlnetEncoder(Reference[FlnetConfig]):
    """Displacements to code and gaze; see the module."""

    code_modules = (*Reference.code_modules, "ufe_baselines.flnet")

    def __init__(
        self, config: FlnetConfig, *, needs: EncoderNeeds, code_space: CodeSpace,
        keypoints: tuple[KeypointNames, ...],
    ) -> None:  # fmt: skip
        super().__init__(config, needs=needs, code_space=code_space)
        self.regions = nn.ModuleList()
        for region in range(2):
            count = 2 * 4 * len(keypoints[2 * region].names)
            trunk = perceptron(count, config.width, config.width, from_zero=False)
            self.regions.append(nn.Sequential(nn.BatchNorm1d(count), trunk, nn.Hardswish()))
        self.read_out(2 * config.width, config.width, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.keypoints is not None
        side = frames.images.shape[-1]
        now = mirrored_detections(frames.keypoints, side)
        before = mirrored_detections(Detections(kept["points"], kept["visible"]), side)
        known = (before.visible.flatten(1).amax(1) > 0).float()[:, None, None, None]  # was there a reference at all?
        moved = (now.points - before.points) * known / side
        parts = torch.cat([moved, now.visible[..., None], before.visible[..., None]], -1)
        upper, lower = (
            network(some.reshape(len(frames.images), -1))
            for network, some in zip(self.regions, by_region(parts), strict=True)
        )
        return upper, lower
