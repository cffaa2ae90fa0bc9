"""Eyeballs that the gaze turns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gaze_matrix(gaze: Tensor) -> Tensor:
    """The rotation [B, 3, 3] that turns (0, 0, 1) into unit vectors [B, 3], about an axis in the plane z = 0."""
    x, y, z = gaze.unbind(-1)
    k = 1 / (1 + z).clamp_min(1e-4)
    rows = [1 - x * x * k, -x * y * k, x, -x * y * k, 1 - y * y * k, y, -x, -y, z]
    return torch.stack(rows, -1).view(-1, 3, 3)


def gaze_of(geometry: Tensor, neutral: Tensor, eyes: Sequence[Tensor]) -> Tensor:
    """Where eyeballs look, unit vectors [B, 6], from how they are turned against the resting ones.

    Args:
        geometry: float32 [B, V, 3].
        neutral: of the same people, float32 [B, V, 3]; at rest eyes look straight ahead.
        eyes: rows of the left eyeball and of the right one.
    """
    found = []
    for rows in eyes:
        turned, rest = (mesh[:, rows] - mesh[:, rows].mean(1, keepdim=True) for mesh in (geometry, neutral))
        u, _, vt = torch.linalg.svd(turned.transpose(1, 2).double() @ rest.double())
        found.append((u @ vt)[:, :, 2])
    return torch.cat(found, 1).to(geometry.dtype)
