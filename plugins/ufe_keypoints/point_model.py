"""What a face's points say of each other: a point distribution model over all views (after Cootes et al., 1995)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ufe_core.face_encoder import mirrored_points

_TOGETHER = 0.7  # how much of what ties errors to each other is believed: it is known of training people alone
_BLIND, _WHOLE = 0.1, 0.2  # shares of its points that a view shows of no face, and of a face


class PointModel(nn.Module):
    """Draws points that were found in all views to where points of a face are.

    True points t and found points t + e are taken as Gaussian. Then the true points behind x are expected at
    x + S (C + S)^-1 (mu - x), with mu and C the mean and covariance of true points and S the second moment of errors.
    Of each person a network is wrong in many points at once, and in all views; S knows how, from people that the
    network has learned from, of whom it is less wrong than of others. A point outside the image, which no map can say,
    is among the errors: so it is believed little.

    Points are in sides of the image, those of right cameras mirrored. No side of a face is special, so there is one
    such rule for what both sides share, their mean, and one for half their difference. Drawn points may lie outside the
    image, where a face goes on.

    Args:
        count: K, keypoints of each of the 4 cameras.
    """

    mean: Tensor
    pull: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        size = 2 * 2 * count
        self.register_buffer("mean", torch.zeros(size))  # of what is shared; half the difference has mean 0
        self.register_buffer("pull", torch.zeros(2, size, size))  # S (C + S)^-1: of what is shared, of the difference

    def fit(self, exact: Tensor, found: Tensor, side: int) -> None:
        """Learn from points [N, 4, K, 2], pixels of images of that side: exact ones, and what was found of them."""
        truth = _halves(exact.double(), side)
        errors = _halves(found.double(), side) - truth
        self.mean.copy_(truth[0].mean(0))
        truth[0] -= truth[0].mean(0)
        faces, wrong = (values.mT @ values / values.shape[1] for values in (truth, errors))
        alone = wrong.mean(0).diagonal().diag()  # what they would be if no error had to do with any other
        wrong = _TOGETHER * wrong + (1 - _TOGETHER) * alone
        self.pull.copy_(torch.linalg.solve(faces + wrong, wrong).mT)

    def forward(self, points: Tensor, visible: Tensor, side: int) -> Tensor:
        """Points [B, 4, K, 2], pixels of images of that side, drawn to a face.

        The less of its points some view shows, the less they are drawn: where it shows no face they stay, for what is
        found there would draw the others with it.

        Args:
            points: where they were found.
            visible: how sure it is that each is seen, [B, 4, K] in [0, 1]; zeros of a view that is not there.
            side: of the images.
        """
        shared, apart = _halves(points, side)
        shared = shared + (self.mean - shared) @ self.pull[0].T
        apart = apart - apart @ self.pull[1].T
        drawn = torch.stack([shared + apart, shared - apart], 1).unflatten(2, (2, -1, 2)).transpose(1, 2).flatten(1, 2)
        whole = ((visible.mean(-1).amin(-1) - _BLIND) / (_WHOLE - _BLIND)).clamp(0, 1)
        return points + whole[:, None, None, None] * (mirrored_points(drawn * side, side) - points)


def _halves(points: Tensor, side: int) -> Tensor:
    """What both sides share and half of how they differ, [2, B, 4 K], of points [B, 4, K, 2], in sides of the image."""
    near = (mirrored_points(points, side) / side).unflatten(1, (2, 2)).transpose(1, 2).flatten(2)  # [B, sides, 4 K]
    return torch.stack([near.mean(1), (near[:, 0] - near[:, 1]) / 2])
