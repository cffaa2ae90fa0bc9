"""Keypoints by parts of the face, and drawn into maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

_ARC = 6  # keypoints of a ring that one motion, or map, stands for, about
_FAR = 30.0  # exponent beyond which Gaussians fall no further: products of smaller numbers are denormal, and slow
_RINGS, _QUARTERS = ("lid", "lip_inner", "lip_outer"), 4


def groups_of(names: Sequence[str]) -> list[list[int]]:
    """Indices of keypoints by the part of the face that their names tell: `brow_00` and `brow_01` are one group.

    Both pupils are groups of their own. Rings (lids, lips), whose points are numbered along them from the middle of
    their upper half, are cut into arcs of about six points: a multiple of four arcs, so that none goes far around a
    corner of the mouth or of the eye (by a point or two).
    """
    parts: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        stem, _, number = name.rpartition("_")
        parts.setdefault(stem if number.isdigit() else name, []).append(k)
    out = []
    for stem, group in parts.items():
        arcs = _QUARTERS * max(1, round(len(group) / (_QUARTERS * _ARC))) if stem in _RINGS else 1
        out += [some.tolist() for some in np.array_split(group, arcs)]
    return out


class Parts(nn.Module):
    """G groups of keypoints, none in two of them: `order` [n], their indices, group by group; `part` [n], the group of
    each; `member` float32 [G, n], 1 where it is of a group.
    """

    order: Tensor
    part: Tensor
    member: Tensor

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.sizes = [len(group) for group in groups]
        part = torch.arange(len(groups)).repeat_interleave(torch.tensor(self.sizes))
        buffers = {
            "order": torch.tensor([k for group in groups for k in group]),
            "part": part,
            "member": (part == torch.arange(len(groups))[:, None]).float(),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def __len__(self) -> int:
        return len(self.sizes)


def drawn(points: Tensor, visible: Tensor, parts: Parts, side: int, *, spread: float) -> Tensor:
    """Gaussian heat maps float32 [B, G, side, side], one for each part: the greatest where they overlap.

    Args:
        points: float32 [B, K, 2], pixels.
        visible: float32 [B, K]: how strong each is.
        parts: G groups of them.
        side: of the maps, pixels.
        spread: deviation of the Gaussians, pixels.
    """
    centres = torch.arange(side, device=points.device) + 0.5
    points, visible = points[:, parts.order], visible[:, parts.order]
    away = ((points[..., None] - centres) ** 2 / (2 * spread**2)).clamp_max(_FAR)  # [B, n, (x, y), side]
    across, down = torch.exp(-away).unbind(2)
    rows, columns = (down * visible[..., None]).split(parts.sizes, 1), across.split(parts.sizes, 1)
    maps = [(y[..., :, None] * x[..., None, :]).amax(1) for y, x in zip(rows, columns, strict=True)]
    return torch.stack(maps, 1)
