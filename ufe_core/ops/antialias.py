"""Antialiased silhouettes, so that an image is differentiable in where its silhouettes lie.

Visibility is discrete: a rasterised image does not change while an edge moves between two pixel centres. Here the
two pixels on either side of a silhouette are blended by where its edge crosses the line between their centres, the
idea of Laine et al. 2020, "Modular primitives for high-performance differentiable rendering", section 3.6. The
crossings are found from the edges and not from the pixels' faces, so faces may be smaller than pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MeshEdges:
    """The E edges of a mesh: `ends` int64 [E, 2] their vertices, `faces` int64 [E, 2], -1 where there is no second.

    Where more than two faces share an edge, the first two count.
    """

    ends: Tensor
    faces: Tensor

    @classmethod
    def of(cls, faces: np.ndarray) -> MeshEdges:
        """The edges of faces [F, 3]."""
        sides = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
        ends, edge = np.unique(sides, axis=0, return_inverse=True)
        edge = edge.reshape(-1)
        order = np.argsort(edge, kind="stable")
        rank = np.arange(len(order)) - np.searchsorted(edge[order], edge[order])
        beside = np.full((len(ends), 2), -1, np.int64)
        for k in (0, 1):
            chosen = order[rank == k]
            beside[edge[chosen], k] = chosen // 3
        return cls(torch.from_numpy(ends.astype(np.int64)), torch.from_numpy(beside))


def antialias(image: Tensor, depth: Tensor, screen: Tensor, faces: Tensor, edges: MeshEdges) -> Tensor:
    """Blend the pixels on either side of silhouettes.

    Args:
        image: float32 [B, H, W, K], colours at pixel centres.
        depth: [B, H, W], depth of what a pixel shows, infinite where it shows nothing.
        screen: float32 [B, V, 3]: pixel x, pixel y, depth, as for `rasterize`.
        faces: int32 [F, 3], counter-clockwise seen from outside; those seen from behind show nothing.
        edges: of these faces, on the device of the others.

    Returns:
        float32 [B, H, W, K], differentiable in `image` and `screen`.
    """
    silhouettes = _silhouettes(screen.detach(), faces, edges)
    change = torch.zeros_like(image)
    for axis in (0, 1):
        change = change + _blend_along(axis, image, depth, screen, silhouettes)
    return image + change


@dataclass(frozen=True)
class _Silhouettes:
    """Edges beyond which a surface is not seen: view [S], vertices [S, 2], a vertex of the surface beside it [S]."""

    view: Tensor
    ends: Tensor
    inside: Tensor

    def rows(self, chosen: Tensor) -> _Silhouettes:
        return _Silhouettes(self.view[chosen], self.ends[chosen], self.inside[chosen])


def _silhouettes(screen: Tensor, faces: Tensor, edges: MeshEdges) -> _Silhouettes:
    corners = faces.long()
    a, b, c = (screen[:, corners[:, k], :2] for k in range(3))
    ab, ac = b - a, c - a
    front = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0] < 0
    shown = front[:, edges.faces.clamp_min(0)] & (edges.faces >= 0)  # [B, E, 2]
    view, edge = (shown[..., 0] != shown[..., 1]).nonzero(as_tuple=True)
    face = torch.where(shown[view, edge, 0], edges.faces[edge, 0], edges.faces[edge, 1])
    ends = edges.ends[edge]
    return _Silhouettes(view, ends, corners[face].sum(1) - ends.sum(1))


def _blend_along(axis: int, image: Tensor, depth: Tensor, screen: Tensor, silhouettes: _Silhouettes) -> Tensor:
    """What the blending of horizontal (`axis` 0) or vertical (1) neighbours adds to an image."""
    view, inner, outer, reach = _crossings(axis, depth, screen, silhouettes)
    height, width = depth.shape[1:]
    step = torch.tensor([width, 1], device=depth.device)
    pixel = torch.stack([inner @ step, outer @ step], 1) + (view * height * width)[:, None]
    flat = image.reshape(-1, image.shape[-1])
    contrast = flat[pixel[:, 1]] - flat[pixel[:, 0]]
    change = torch.zeros_like(flat)
    change = change.index_add(0, pixel[:, 0], (0.5 - reach).clamp_min(0)[:, None] * contrast)
    change = change.index_add(0, pixel[:, 1], -(reach - 0.5).clamp_min(0)[:, None] * contrast)
    return change.view_as(image)


def _crossings(
    axis: int, depth: Tensor, screen: Tensor, silhouettes: _Silhouettes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where visible silhouettes cross lines between neighbouring pixels' centres along an axis.

    Returns:
        View [P], row and column [P, 2] of the pixel on the surface and of the one beyond it, and how far the surface
        reaches from the one to the other, in [0, 1], [P].
    """
    size = torch.tensor([depth.shape[2], depth.shape[1]], device=depth.device)  # x, y
    corners = screen.detach()[silhouettes.view[:, None], silhouettes.ends]  # [S, 2, 3]
    extent = (corners[:, 1] - corners[:, 0]).abs()
    # Each edge counts along the axis that it is steeper to: along both, what it covers would count twice.
    steep = extent[:, 1] >= extent[:, 0] if axis == 0 else extent[:, 1] < extent[:, 0]
    silhouettes, corners = silhouettes.rows(steep), corners[steep]
    side = corners[..., 1 - axis]
    first = torch.ceil(side.min(1).values - 0.5).clamp(0, int(size[1 - axis])).long()
    last = torch.ceil(side.max(1).values - 0.5).clamp(0, int(size[1 - axis])).long()  # exclusive
    count = (last - first).clamp_min(0)
    row = torch.repeat_interleave(torch.arange(len(count), device=depth.device), count)
    line = first[row] + torch.arange(len(row), device=depth.device) - (count.cumsum(0) - count)[row]
    s = silhouettes.rows(row)

    ends, inside = screen[s.view[:, None], s.ends], screen.detach()[s.view, s.inside]
    (start, end) = ends.unbind(1)
    share = (line + 0.5 - start[:, 1 - axis]) / (end[:, 1 - axis] - start[:, 1 - axis])
    along = start[:, axis] + share * (end[:, axis] - start[:, axis])
    edge_depth = (1 / torch.lerp(1 / start[:, 2], 1 / end[:, 2], share)).detach()

    low = torch.floor(along.detach() - 0.5).long()
    upwards = _upwards(axis, ends.detach(), inside)  # the surface lies on the higher side
    inner, outer = torch.where(upwards, low + 1, low), torch.where(upwards, low, low + 1)
    reach = torch.where(upwards, inner + 0.5 - along, along - inner - 0.5)
    kept = (low >= 0) & (low + 1 < size[axis])
    inner_at, outer_at = (torch.stack([line, place] if axis == 0 else [place, line], 1) for place in (inner, outer))
    near, far = (_at(depth, s.view, at, kept) for at in (inner_at, outer_at))
    kept &= (far > edge_depth) & ((near - edge_depth).abs() < far - edge_depth)
    chosen = kept.nonzero()[:, 0]
    chosen = chosen[_outermost(s.view, inner_at, outer_at, reach.detach(), size, chosen)]
    return s.view[chosen], inner_at[chosen], outer_at[chosen], reach[chosen]


def _upwards(axis: int, ends: Tensor, inside: Tensor) -> Tensor:
    """Whether the side of an edge on which a vertex lies is the higher one along the axis."""
    start, end = ends.unbind(1)
    rise, run = end[:, 1 - axis] - start[:, 1 - axis], end[:, axis] - start[:, axis]
    offset = (inside[:, axis] - start[:, axis]) * rise - (inside[:, 1 - axis] - start[:, 1 - axis]) * run
    return offset * rise > 0


def _at(depth: Tensor, view: Tensor, place: Tensor, valid: Tensor) -> Tensor:
    safe = torch.where(valid[:, None], place, torch.zeros_like(place))
    return depth[view, safe[:, 0], safe[:, 1]]


def _outermost(view: Tensor, inner: Tensor, outer: Tensor, reach: Tensor, size: Tensor, chosen: Tensor) -> Tensor:
    """Of crossings between the same two pixels, the one that reaches farthest: indices into `chosen`."""
    pixels = int(size[0]) * int(size[1])
    number = torch.stack([p[:, 0] * int(size[0]) + p[:, 1] for p in (inner, outer)], 1) + (view * pixels)[:, None]
    _, pair = torch.unique(number[chosen], dim=0, return_inverse=True)
    order = torch.argsort(reach[chosen], stable=True)
    winner = torch.zeros(int(pair.max()) + 1 if len(pair) else 0, dtype=torch.int64, device=pair.device)
    winner[pair[order]] = order  # the last write of a pair is its farthest
    return winner
