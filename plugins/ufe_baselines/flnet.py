"""FLNet (Gu et al. 2020): where landmarks moved from a reference, and nothing else.

Original: "FLNet: Landmark driven fetching and learning network for faithful talking facial animation synthesis" drives
a face by the displacement of its landmarks from those of a reference image.

Kept: the input is the displacement of each keypoint from the wearer's reference, no pixel.

Changed: the original's displacements warp features of reference images to make a picture; here a multilayer perceptron
of four layers regresses (e, g) from them (P§10, P§13.8, O61). The reference is the neutral anchor (O60). Confidences
go in beside the displacements, so that hidden points need not be believed; pupils are among the keypoints, for gaze.
Displacements are standardised by what each point does in training; confidences are not, or one that training hardly
ever sees fall would be all that is left when it does. No displacement counts for more than a few deviations, and those
of a view in which next to nothing is found, now or in the reference, for none.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ufe_baselines.plugin import FlnetConfig
from ufe_baselines.regressor import Reference, found_in_views
from ufe_core.face_encoder import by_region, mirrored_detections, perceptron
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, Detections, FrameBatch

_MOST = 4.0  # deviations that a point may be displaced by
_STILL = 1.5 / 192  # of the side: points that move less over the training frames are not blown up


class FlnetEncoder(Reference[FlnetConfig]):
    """Displacements to code and gaze; see the module."""

    code_modules = (*Reference.code_modules, "ufe_baselines.flnet")

    def __init__(
        self, config: FlnetConfig, *, needs: EncoderNeeds, code_space: CodeSpace,
        keypoints: tuple[KeypointNames, ...],
    ) -> None:  # fmt: skip
        super().__init__(config, needs=needs, code_space=code_space)
        counts = [2 * len(keypoints[2 * region].names) for region in range(2)]
        self.scales = nn.ModuleList(nn.BatchNorm1d(2 * count, eps=_STILL**2, affine=False) for count in counts)
        self.trunks = nn.ModuleList(
            nn.Sequential(perceptron(4 * count, config.width, config.width, from_zero=False), nn.Hardswish())
            for count in counts
        )
        self.read_out(2 * config.width, config.width, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.keypoints is not None
        count, side = len(frames.images), frames.images.shape[-1]
        now = mirrored_detections(frames.keypoints, side)
        before = mirrored_detections(Detections(kept["points"], kept["visible"]), side)
        known = (before.visible.flatten(1).amax(1) > 0).float()[:, None, None, None]  # was there a reference at all?
        found = found_in_views(now, before)[:, :, None, None]
        moved = by_region((now.points - before.points) * known * found / side)
        sure = by_region(torch.stack([now.visible, before.visible], -1) - 0.5)
        upper, lower = (
            trunk(torch.cat([scale(moved[k].reshape(count, -1)).clamp(-_MOST, _MOST), sure[k].reshape(count, -1)], 1))
            for k, (scale, trunk) in enumerate(zip(self.scales, self.trunks, strict=True))
        )
        return upper, lower
