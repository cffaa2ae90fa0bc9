"""The method: average each image to a grid, compare with the wearer's anchors, blend what people show there."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ufe_core.interfaces.encoder import Encoder, TrainingStatistics
from ufe_core.types import AnchorSet, Calibration, Encoding, FrameBatch
from ufe_nearest_anchor.plugin import NearestAnchorConfig


class NearestAnchor(Encoder[NearestAnchorConfig]):
    """Takes no training step: of training people it knows the mean code at each anchor, of the wearer the images."""

    uses_anchors = True
    learns = "statistics"
    codes: Tensor

    def __init__(self, config: NearestAnchorConfig, **context: Any) -> None:
        super().__init__(config, **context)
        self.register_buffer("codes", torch.zeros(len(self.needs.anchors), self.code_space.size))

    def fit_statistics(self, statistics: TrainingStatistics) -> None:
        """The mean code of each anchor."""
        for row, name in enumerate(self.needs.anchors):
            self.codes[row] = statistics.anchors[name].expression.mean(0)

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        grids = self._grid(anchors.images.flatten(0, 1)).unflatten(0, anchors.images.shape[:2])
        return {"grids": grids, "missing": (~anchors.present).float()}

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        kept = calibration.rows(frames.users)
        distance = (self._grid(frames.images)[:, None] - kept["grids"]).square().mean(-1)
        likeness = -self.config.sharpness * distance - 1e9 * kept["missing"]
        shares = likeness.softmax(1) * (1 - kept["missing"])  # without any anchor the code is 0, a resting face
        ahead = torch.tensor([[0.0, 0.0, 1.0] * 2], device=distance.device)
        return Encoding(shares @ self.codes, ahead.expand(len(distance), -1))

    def _grid(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] as vectors [B, C cells cells] with mean 0 and deviation 1 per image."""
        grid = functional.adaptive_avg_pool2d(images.float(), self.config.cells).flatten(2)
        return ((grid - grid.mean(-1, keepdim=True)) / (grid.std(-1, keepdim=True) + 1e-6)).flatten(1)
