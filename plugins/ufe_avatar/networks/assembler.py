"""Puts primitives on the mesh: where they are, how they are turned, how large they are, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.networks.atlas import interpolate
from ufe_avatar.networks.decoders import ColourDecoder, Geometry, GeometryDecoder
from ufe_avatar.networks.encoders import Conditioning
from ufe_avatar.networks.layers import rotation_matrices
from ufe_avatar.networks.size import CODE_SIDE, Size

_COLOUR_SCALE, _COLOUR_MEAN = 25.0, 100.0
RELATIVE_SCALE = 0.8  # above 1 / its neighbours' distance a primitive would leave gaps
_KEPT = 0.9  # of the running scale at each update
_EPSILON = 1e-8


@dataclass(frozen=True)
class Placed:
    """Primitives of B heads, in units of the volume's radius, ready to be marched. K primitives of S voxels a side.

    Attributes:
        verts: float32 [B, V, 3], the decoded mesh in mm.
        positions: float32 [B, K, 3], centres.
        rotations: float32 [B, K, 3, 3], local axes as columns: along u, along rows, and their cross
            product, which points into or out of the head as the atlas has it.
        scales: float32 [B, K, 3], inverse half sizes.
        template: float32 [B, K, S, S, S, 4], depth, row, column, then RGB in 0..255 and opacity for each unit length.
    """

    verts: Tensor
    positions: Tensor
    rotations: Tensor
    scales: Tensor
    template: Tensor


class Assembler(nn.Module):
    """Both decoders and the placement of what they give.

    Args:
        size: of the networks.
        vertices: of the mesh.
        radius_mm: of the volume, a cube from -radius to radius.
    """

    adaptwarps: Tensor
    vertmean: Tensor
    place_index: Tensor
    place_weight: Tensor

    def __init__(self, size: Size, vertices: int, *, radius_mm: float) -> None:
        super().__init__()
        self.size, self.radius_mm, self.vertstd = size, radius_mm, 1.0
        self.geodec = GeometryDecoder(size, vertices)
        self.rgbdec = ColourDecoder(size, 3 * size.voxels)
        self.register_buffer("adaptwarps", torch.zeros(size.grid**2))
        self.register_buffer("vertmean", torch.zeros(vertices, 3), persistent=False)
        # Of each primitive: its middle texel, the one to the right of it and the one below it.
        table = (3, 3, size.grid, size.grid)
        self.register_buffer("place_index", torch.zeros(table, dtype=torch.int64), persistent=False)
        self.register_buffer("place_weight", torch.zeros(table), persistent=False)

    def set_tables(self, vertices: Tensor, barycentrics: Tensor) -> None:
        """Take the corners, int64 [3, U, U], and weights, float32 [3, U, U], of all texels."""
        side = self.size.voxels
        middle = side // 2
        places = ((middle, middle), (middle, middle + 1), (middle + 1, middle))
        for k, (row, column) in enumerate(places):
            self.place_index[:, k].copy_(vertices[:, row::side, column::side])
            self.place_weight[:, k].copy_(barycentrics[:, row::side, column::side])

    def forward(
        self,
        expression: Tensor,
        identity: Conditioning,
        view_position: Tensor,
        *,
        conditions: Tensor | None = None,
        guide: Tensor | None = None,
        residual_weight: float = 1.0,
        update_scale: bool = False,
    ) -> Placed:
        """Decode and place.

        Args:
            expression: float32 [B, 16, 4, 4].
            identity: the conditioning of B people.
            view_position: float32 [B, 3], the camera's centre in mm from the head's origin.
            conditions: float32 [B, C], constant over the 4 x 4 grid; C as the size says.
            guide: normalised vertices [B, V, 3] to place primitives on instead of the decoded ones.
            residual_weight: how much of the decoded motion counts, 0..1.
            update_scale: take the running scale of primitives further, by the distances on this mesh.
        """
        spread = None if conditions is None else conditions[:, :, None, None].expand(-1, -1, CODE_SIDE, CODE_SIDE)
        geometry = self.geodec(expression, identity.z_geo, identity.b_geo, spread)
        view = functional.normalize(view_position, dim=1)
        colour = self.rgbdec(view, expression, identity.z_tex, identity.b_tex, spread)
        verts = self.denormalised(geometry.offsets)
        surface = verts if guide is None else self.denormalised(guide)
        positions, rotations, scales = self.place(surface, geometry, residual_weight, update_scale)
        rgb = _COLOUR_SCALE * cut(colour, self.size.voxels) + _COLOUR_MEAN
        template = torch.cat([rgb, cut(geometry.opacity, self.size.voxels)], -1).relu()
        return Placed(verts, positions, rotations, scales, template)

    def denormalised(self, verts: Tensor) -> Tensor:
        """Vertices in mm from normalised ones."""
        return verts * self.vertstd + self.vertmean

    def place(
        self, surface: Tensor, geometry: Geometry, residual_weight: float, update_scale: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions [B, K, 3], rotations [B, K, 3, 3] and inverse half sizes [B, K, 3] on a mesh in mm."""
        texels = interpolate(surface / self.radius_mm, self.place_index, self.place_weight)  # [B, 3, 3, G, G]
        centre, right, below = texels.permute(2, 0, 3, 4, 1)
        if update_scale:
            self._update_scale(centre.detach())
        weight = min(max(residual_weight, 0.0), 1.0)
        along = functional.normalize(right - centre, dim=-1, eps=_EPSILON)
        normal = functional.normalize(torch.linalg.cross(along, below - centre), dim=-1, eps=_EPSILON)
        down = functional.normalize(torch.linalg.cross(normal, along), dim=-1, eps=_EPSILON)
        frames = torch.stack([along, down, normal], -1).flatten(1, 2)
        positions = centre.flatten(1, 2) + weight * geometry.position
        rotations = frames @ rotation_matrices(weight * geometry.rotation)
        scales = weight * geometry.scale + (1 - weight)
        return positions, rotations, RELATIVE_SCALE * self.adaptwarps[:, None] * scales

    @torch.no_grad()
    def _update_scale(self, centre: Tensor) -> None:
        """Let primitives reach their neighbours: the scale is 2 / the larger distance to the right and below."""
        right = functional.pad((centre[:, :, 1:] - centre[:, :, :-1]).norm(dim=-1)[:, None], (0, 1, 0, 0), "replicate")
        below = functional.pad((centre[:, 1:] - centre[:, :-1]).norm(dim=-1)[:, None], (0, 0, 0, 1), "replicate")
        scale = 2 / torch.maximum(right, below)[:, 0].amax(0).flatten()
        first = self.adaptwarps.max() == 0
        self.adaptwarps.copy_(torch.where(first, scale, _KEPT * self.adaptwarps + (1 - _KEPT) * scale))


def cut(slabs: Tensor, side: int) -> Tensor:
    """Slabs [B, S * C, U, U], with channels of depth times C, as primitives [B, K, S, S, S, C] of side S."""
    channels, grid = slabs.shape[1] // side, slabs.shape[-1] // side
    cells = slabs.view(-1, side, channels, grid, side, grid, side).permute(0, 3, 5, 1, 4, 6, 2)
    return cells.reshape(-1, grid**2, side, side, side, channels)
