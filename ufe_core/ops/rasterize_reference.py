"""The same operators in plain torch, slow and obvious: what tests hold the kernels to."""

from __future__ import annotations

import torch
from torch import Tensor


def _weights(screen: Tensor, faces: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Perspective weights [P, F, 3] and screen weights [P, F, 3] of every face at pixel centres [P, 2]."""
    a, b, c = (screen[faces[:, k].long()] for k in range(3))
    x, y = pixels[:, None, 0], pixels[:, None, 1]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    wb = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (y - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
    wc = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])) / area
    flat = torch.stack([1 - wb - wc, wb, wc], -1)
    p = flat / torch.stack([a[:, 2], b[:, 2], c[:, 2]], -1)
    return p / p.sum(-1, keepdim=True), flat


def _pixels(height: int, width: int, screen: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5).to(screen)


def rasterize(screen: Tensor, faces: Tensor, *, height: int, width: int, cull: bool = True) -> Tensor:
    """`ufe_core.ops.rasterize.rasterize` for one view [V, 3]: int32 [H, W]."""
    _, flat = _weights(screen, faces, _pixels(height, width, screen))
    a, b, c = (screen[faces[:, k].long()] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    depth = 1 / (flat / torch.stack([a[:, 2], b[:, 2], c[:, 2]], -1)).sum(-1)
    inside = (flat >= 0).all(-1) & (area != 0) & ((area < 0) | (not cull))
    near = torch.stack([a[:, 2], b[:, 2], c[:, 2]]).amin(0) >= 3.0
    depth = torch.where(inside & near, depth, torch.inf)
    nearest, face = depth.min(-1)
    return torch.where(nearest.isinf(), -1, face).to(torch.int32).view(height, width)


def interpolate(screen: Tensor, attributes: Tensor, faces: Tensor, ids: Tensor) -> Tensor:
    """`ufe_core.ops.rasterize.interpolate` for one view: [H, W, K], differentiable by autograd."""
    height, width = ids.shape
    weights, _ = _weights(screen, faces, _pixels(height, width, screen))
    chosen = weights[torch.arange(height * width), ids.flatten().clamp_min(0).long()]
    corners = attributes[faces[ids.flatten().clamp_min(0).long()].long()]
    out = (chosen[..., None] * corners).sum(1)
    return torch.where((ids.flatten() >= 0)[:, None], out, 0.0).view(height, width, -1)
