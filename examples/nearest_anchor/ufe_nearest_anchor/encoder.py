"""The method: average each image to a grid, compare with the wearer's anchors, blend what the anchors show."""

import torch
from torch import Tensor
from torch.nn import functional

from ufe_core.interfaces.encoder import Encoder
from ufe_core.types import AnchorSet, Calibration, Encoding, FrameBatch
from ufe_nearest_anchor.plugin import NearestAnchorConfig

# What each anchor asks for, in the decoder's own words (its code space names the entries).
PROMPTS = {
    "jaw_open": ("jawOpen",),
    "eyes_wide": ("eyeWideLeft", "eyeWideRight", "browInnerUp"),
    "eyes_closed": ("eyeBlinkLeft", "eyeBlinkRight"),
    "cheek_puff": ("cheekPuff",),
    "brows_lowered": ("browDownLeft", "browDownRight"),
}


class NearestAnchor(Encoder[NearestAnchorConfig]):
    """Needs no training; everything it knows of the wearer comes from enrolment."""

    uses_anchors = True

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        return {"grids": self._grid(anchors.images.flatten(0, 1)).unflatten(0, anchors.images.shape[:2])}

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        grids = calibration.rows(frames.users)["grids"]
        distance = (self._grid(frames.images)[:, None] - grids).square().mean(-1)
        likeness = torch.softmax(-self.config.sharpness * distance, 1)
        codes = torch.zeros(len(self.needs.anchors), self.code_space.size, device=distance.device)
        for row, anchor in enumerate(self.needs.anchors):
            for entry in PROMPTS.get(anchor, ()):
                codes[row, self.code_space.entries.index(entry)] = 1.0
        ahead = torch.tensor([[0.0, 0.0, 1.0] * 2], device=distance.device)
        return Encoding(likeness @ codes, ahead.expand(len(distance), -1))

    def _grid(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] as vectors [B, C cells cells] with mean 0 and deviation 1 per image."""
        grid = functional.adaptive_avg_pool2d(images.float(), self.config.cells).flatten(2)
        return ((grid - grid.mean(-1, keepdim=True)) / (grid.std(-1, keepdim=True) + 1e-6)).flatten(1)
