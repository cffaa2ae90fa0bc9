"""Canonicalisation (P§6.6): a face is warped to where a template has it, and keeps its expression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.interfaces.pretraining import Views
from ufe_core.types import Detections

_SIGMA_SIZE = 192  # pixels of the image in which sigma is given (P§13.4, O39)
_OUTLIER = 3.0  # times the median distance from the median place
_EPS = 1e-6
_INVERSIONS = 30


class Canonical(nn.Module):
    """Backward warp of K views: x^warp(q) = x(q + sum_j w_j(q) (p_j - p*_j)), weights by distance to the template.

    w_j(q) = c_j exp(-|q - p*_j|^2 / 2 sigma^2), divided by their sum over j; c_j is how sure the detector is of p_j.

    Args:
        views: K.
        points: of each.
        size: side of an image, pixels.
        sigma: in pixels of a 192 pixel image.
    """

    template: Tensor

    def __init__(self, views: int, points: int, size: int, sigma: float) -> None:
        super().__init__()
        self.size, self.sigma = size, sigma * size / _SIGMA_SIZE
        self.register_buffer("template", torch.zeros(views, points, 2))

    def fit(self, sample: Sequence[Views]) -> None:
        """Set the template p* to the mean place of each point over people at rest, outliers left out (O38).

        Args:
            sample: of each person, the frame at rest first.
        """
        points = torch.stack([views.found.points[0] for views in sample if views.found is not None])  # [N, K, P, 2]
        away = torch.linalg.vector_norm(points - points.median(0).values, dim=-1)
        kept = (away <= _OUTLIER * away.median(0).values + _EPS).to(points)[..., None]
        self.template.copy_((points * kept).sum(0) / kept.sum(0))

    def weights(self) -> Tensor:
        """exp(-|p*_j - q|^2 / 2 sigma^2) of eq. 19 at pixel centres, float32 [K, P, S, S]."""
        centres = torch.arange(self.size, device=self.template.device) + 0.5
        away = (self.template[..., None] - centres) ** 2  # [K, P, 2, S], x and y
        across = torch.exp(-away / (2 * self.sigma**2))
        return across[:, :, 1, :, None] * across[:, :, 0, None, :]

    def field(self, found: Detections) -> Tensor:
        """By how many pixels (x, y) each pixel's source lies away from it, float32 [N, K, S, S, 2]."""
        reach, sure = self.weights(), found.visible
        pulled = (found.points - self.template) * sure[..., None]
        total = torch.einsum("nkp,kpyx->nkyx", sure, reach)
        moved = torch.einsum("nkpd,kpyx->nkyxd", pulled, reach)
        return moved / (total[..., None] + _EPS)

    def forward(self, images: Tensor, found: Detections) -> Tensor:
        """Warp images uint8 [N, K, S, S] of faces whose keypoints were found; what lies outside is black."""
        count, views, side, _ = images.shape
        centres = torch.arange(side, device=images.device) + 0.5
        here = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)
        source = (here + self.field(found)) * (2 / side) - 1
        warped = functional.grid_sample(
            images.float().flatten(0, 1)[:, None], source.flatten(0, 1), mode="bilinear", align_corners=False
        )
        return warped.round().clamp(0, 255).to(torch.uint8).view(count, views, side, side)

    def carried(self, points: Tensor, found: Detections) -> Tensor:
        """Where points [N, K, P, 2] of the images come to lie in the warped ones, by fixed-point iteration."""
        at = points.clone()
        field = self.field(found).flatten(0, 1).permute(0, 3, 1, 2)
        for _ in range(_INVERSIONS):
            where = (at * (2 / self.size) - 1).flatten(0, 1)[:, :, None]
            moved = functional.grid_sample(field, where, mode="bilinear", padding_mode="border", align_corners=False)
            at = points - moved[..., 0].transpose(1, 2).view_as(points)
        return at
