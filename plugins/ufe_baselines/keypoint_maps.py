"""Keypoints by parts of the face, and drawn into maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ARC = 6  # keypoints of a ring that one motion, or map, stands for, about
_RINGS, _QUARTERS = ("lid", "lip_inner", "lip_outer"), 4


def groups_of(names: Sequence[str], *, arc: int | None = None) -> list[list[int]]:
    """Indices of keypoints by the part of the face that their names tell: `lid_00` and `lid_01` are one group.

    Both pupils are groups of their own. With `arc`, rings (lids, lips), whose points are numbered along them from the
    middle of their upper half, are cut into arcs of about so many points: a multiple of four, so that none goes around
    a corner of the mouth or of the eye.
    """
    parts: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        stem, _, number = name.rpartition("_")
        parts.setdefault(stem if number.isdigit() else name, []).append(k)
    out = []
    for stem, group in parts.items():
        arcs = _QUARTERS * max(1, round(len(group) / (_QUARTERS * arc))) if arc and stem in _RINGS else 1
        out += [some.tolist() for some in np.array_split(group, arcs)]
    return out


def drawn(points: Tensor, visible: Tensor, groups: Sequence[Sequence[int]], side: int, *, spread: float) -> Tensor:
    """Gaussian heat maps float32 [B, G, side, side], one for each group of keypoints: the greatest where they overlap.

    Args:
        points: float32 [B, K, 2], pixels.
        visible: float32 [B, K]: how strong each is.
        groups: indices of K.
        side: of the maps, pixels.
        spread: deviation of the Gaussians, pixels.
    """
    centres = torch.arange(side, device=points.device) + 0.5
    across, down = (torch.exp(-((points[..., k, None] - centres) ** 2) / (2 * spread**2)) for k in range(2))
    down = down * visible[..., None]
    maps = [(down[:, group, :, None] * across[:, group, None]).amax(1) for group in groups]
    return torch.stack(maps, 1)
