"""Where primitives sit on a mesh whose UV atlas has islands, how large they are, and where the mesh is inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.networks.atlas import Atlas
from ufe_core.types import MeshTopology

_OVERLAP = 1.4  # how much larger a primitive is than what it must cover: its window fades towards the faces
_THINNEST_MM = 1.5  # half of it: what lies off the mesh, such as lashes and the lips' seam, is in reach
_SHELL = 0.5  # of the distance of voxels in depth: how fast a slab fades away from the mesh
_SINK = 1.2  # how far behind the mesh it is fullest, likewise: what a ray meets adds up to a half on the mesh
_LEAST_SHELL = 0.01  # what is left far from it, for networks to make more of
_MOST_STRETCH = 3.0  # of a primitive with the mesh, against the mesh at rest
_LEAST_STEP_MM = 1e-3


@dataclass(frozen=True)
class Placed:
    """K primitives on each of B meshes.

    Attributes:
        centre: [B, K, 3], mm.
        axes: [B, K, 3, 3], as columns: along the rows of texels, across them, off the surface into the head.
        half_size: [B, K, 3], mm, along these.
        places: [B, K, A * A, 2] in -1..1, the place in the texture that each voxel's column shows, row by row.
        shell: [B, K, S, A * A], depth and column: 1 just behind the mesh, fading away from there.
    """

    centre: Tensor
    axes: Tensor
    half_size: Tensor
    places: Tensor
    shell: Tensor


class Placement(nn.Module):
    """Primitives of a mesh, one for each of the G x G cells of the atlas that hold a part of it.

    A cell's primitive lies on the plane that fits its texels best, as far as they lie on the same UV island: beyond a
    seam another cell's does. Cells of S x S texels come row by row; `kept` are those that have a primitive. A new one
    needs `set_rest`.

    Args:
        topology: of the mesh.
        atlas: at the resolution U of the slabs.
        voxels: S, the depth of a primitive too; G = U / S.
        across: A, voxels along and across a primitive.
    """

    kept: Tensor
    planes: Tensor
    texels: Tensor
    mine: Tensor
    steps: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    middle: Tensor
    near: Tensor
    there: Tensor
    line: Tensor
    depths: Tensor
    half_size: Tensor
    apart: Tensor

    def __init__(self, topology: MeshTopology, atlas: Atlas, voxels: int, across: int) -> None:
        super().__init__()
        self.voxels, self.across, self.grid, self._atlas = voxels, across, len(atlas.faces) // voxels, atlas
        island = np.where(atlas.covered, _islands(topology.uv_faces)[atlas.faces], -1)
        self._island, island = island, _in_cells(island, voxels)
        covered = island >= 0
        offset = np.indices((voxels, voxels)).reshape(2, -1) + 0.5 - voxels / 2
        chosen = np.where(covered, np.square(offset).sum(0), np.inf).argmin(1)
        mine = covered & (island == np.take_along_axis(island, chosen[:, None], 1))
        kept = np.flatnonzero(mine.any(1))
        self._kept, self._mine = kept, mine[kept]
        self._of = np.take_along_axis(island, chosen[:, None], 1)[kept, 0]  # each cell's island
        self._steps = np.stack([offset[1], offset[0]], -1)  # texels' column, row, from the cell's middle
        self._mean = np.einsum("kn,ni->ki", self._mine / self._mine.sum(1, keepdims=True), self._steps)
        low = np.where(self._mine[..., None], self._steps, np.inf).min(1)[:, None] - 1
        high = np.where(self._mine[..., None], self._steps, -np.inf).max(1)[:, None] + 1
        row, column = np.divmod(kept, self.grid)
        count, cells = len(kept), across**2
        for name, value in {
            "kept": torch.from_numpy(kept), "planes": self._planes(topology).float(),
            "texels": self._texels(topology).float(), "mine": torch.from_numpy(self._mine)[..., None],
            "steps": torch.from_numpy(self._steps).float(), "mean": torch.from_numpy(self._mean).float()[:, None],
            "low": torch.from_numpy(low).float(), "high": torch.from_numpy(high).float(),
            "middle": torch.from_numpy((np.stack([column, row], -1) + 0.5) * voxels).float()[:, None],
            "near": torch.zeros(count, cells, voxels**2), "there": torch.ones(count, 1, cells),
            "half_size": torch.ones(count, 3), "apart": torch.ones(count, 2), "line": torch.linspace(-1, 1, across),
            "depths": torch.linspace(-1, 1, voxels),
        }.items():  # fmt: skip
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def set_rest(self, geometry: Tensor) -> None:
        """Take sizes from a mesh at rest [V, 3], mm: primitives cover their texels there."""
        centre, axes, down, apart = self._frames(geometry[None])
        offset = self._offsets(geometry[None], centre, axes)[0]
        half = torch.where(self.mine, offset.abs(), 0).amax(1)
        # Texels have a size: half a step to the right and down.
        half[:, 0] += 0.5 * (apart[0, :, 0] + down[0, :, 0].abs())
        half[:, 1] += 0.5 * down[0, :, 1]
        half *= _OVERLAP
        half[:, 2].clamp_min_(_THINNEST_MM)
        self.half_size.copy_(half)
        self.apart.copy_(apart[0].clamp_min(_LEAST_STEP_MM))
        texel = (self._at_texels(self._columns(half[None]), apart, down)[0] + self.mean).clamp(self.low, self.high)
        distance = (texel[:, :, None] - self.steps).square().sum(-1)
        mine = self.mine.transpose(1, 2)
        nearest = torch.where(mine, distance, torch.inf).amin(-1, keepdim=True)
        near = torch.where(mine, torch.exp(-2 * (distance - nearest)), 0)
        self.near.copy_(near / near.sum(-1, keepdim=True))
        self.there.copy_(self._island_under(self.middle + texel)[:, None])

    def forward(self, mesh: Tensor) -> Placed:
        """Primitives on meshes [B, V, 3], mm; centres, axes and sizes are differentiable in them."""
        centre, axes, down, apart = self._frames(mesh)
        stretch = (apart / self.apart).clamp(1 / _MOST_STRETCH, _MOST_STRETCH)
        half_size = self.half_size * functional.pad(stretch, (0, 1), value=1.0)
        with torch.no_grad():
            offset = self._offsets(mesh, centre, axes)
            uneven = self.steps - self.mean - self._at_texels(offset[..., :2], apart, down)
            known = torch.where(self.mine, torch.cat([uneven, offset[..., 2:]], -1), 0)
            uneven, height = torch.einsum("kpn,bknc->bkpc", self.near, known).split([2, 1], -1)
            texel = self._at_texels(self._columns(half_size), apart, down) + self.mean + uneven
            texel = texel.maximum(self.low).minimum(self.high)
            places = 2 / (self.grid * self.voxels) * (self.middle + texel) - 1
            places = places.nan_to_num()  # of a mesh that is not finite; images must not be read there
            spread = _SHELL * 2 / (self.voxels - 1) * self.half_size[:, 2, None, None]
            away = self.depths[:, None] * self.half_size[:, 2, None, None] - height.transpose(2, 3)
            shell = (away / spread).sub_(_SINK).square_().neg_().exp_().clamp_min_(_LEAST_SHELL).mul_(self.there)
        return Placed(centre, axes, half_size, places, shell)

    def _island_under(self, places: Tensor) -> Tensor:
        """Where texels' places [K, P, 2] are on their cells' islands, [K, P]: 1, up to half a texel outside, then 0."""
        side = len(self._island)
        share = torch.zeros(places.shape[:2], device=places.device)
        low, at = (places - 0.5).floor(), places - 0.5
        island = torch.from_numpy(self._island).to(places.device)
        of = torch.from_numpy(self._of).to(places.device)[:, None]
        for corner in torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=places.device):
            texel = low + corner
            weight = (1 - (at - texel).abs()).prod(-1)
            column, row = texel.long().clamp(0, side - 1).unbind(-1)
            share += weight * (island[row, column] == of)
        return (2 * share).clamp_max(1)

    def _frames(self, mesh: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centres; axes; the step of a texel down in the plane [B, K, 2]; how far apart texels are in it [B, K, 2]."""
        flat = torch.sparse.mm(self.planes, mesh.transpose(0, 1).reshape(mesh.shape[1], -1))
        centre, along, down = flat.view(3, -1, len(mesh), 3).transpose(1, 2)
        right = functional.normalize(along, dim=-1)
        normal = functional.normalize(torch.linalg.cross(right, down), dim=-1)
        across = torch.linalg.cross(normal, right)
        in_plane = torch.stack([(right * down).sum(-1), (across * down).sum(-1)], -1)
        apart = torch.stack([along.norm(dim=-1), in_plane[..., 1]], -1)
        return centre, torch.stack([right, across, normal], -1), in_plane, apart

    def _offsets(self, mesh: Tensor, centre: Tensor, axes: Tensor) -> Tensor:
        """Where texels are from their primitives' centres, along the axes, mm, [B, K, S * S, 3]."""
        flat = torch.sparse.mm(self.texels, mesh.transpose(0, 1).reshape(mesh.shape[1], -1))
        position = flat.view(len(self.kept), -1, len(mesh), 3).permute(2, 0, 1, 3)
        return (position - centre[:, :, None]) @ axes

    def _columns(self, half_size: Tensor) -> Tensor:
        """Where voxels are in the plane, mm, [B, K, A * A, 2]."""
        row, column = torch.meshgrid(self.line, self.line, indexing="ij")
        return torch.stack([column, row], -1).flatten(0, 1) * half_size[:, :, None, :2]

    @staticmethod
    def _at_texels(points: Tensor, apart: Tensor, down: Tensor) -> Tensor:
        """Points [B, K, N, 2] in the planes, mm, as even steps of texels."""
        rows = points[..., 1] / down[..., 1:].clamp_min(_LEAST_STEP_MM)
        columns = (points[..., 0] - rows * down[..., :1]) / apart[..., :1].clamp_min(_LEAST_STEP_MM)
        return torch.stack([columns, rows], -1)

    def _texels(self, topology: MeshTopology) -> Tensor:
        """A matrix [K * S * S, V] that gives cells' texels from a mesh."""
        corner = _in_cells(self._atlas.vertices, self.voxels)[self._kept].reshape(-1, 3)
        share = _in_cells(self._atlas.barycentrics, self.voxels)[self._kept].reshape(-1, 3)
        row = np.repeat(np.arange(len(corner)), 3)
        places = torch.from_numpy(np.stack([row, corner.reshape(-1)]))
        size = (len(corner), topology.vertex_count)
        values = torch.from_numpy(share.reshape(-1).astype(np.float64))
        return torch.sparse_coo_tensor(places, values, size, check_invariants=True).coalesce()

    def _planes(self, topology: MeshTopology) -> Tensor:
        """A matrix [3 K, V] that gives cells' planes from a mesh: the middle, the step of a texel right, that down."""
        corner = _in_cells(self._atlas.vertices, self.voxels)[self._kept]  # [K, S * S, 3]
        share = _in_cells(self._atlas.barycentrics, self.voxels)[self._kept].astype(np.float64)
        even = self._mine / self._mine.sum(1, keepdims=True)
        away = (self._steps - self._mean[:, None]) * self._mine[..., None]
        fit = np.concatenate([even[:, None], np.linalg.pinv(away)], 1)  # of texels' positions, [K, 3, S * S]
        thin = np.linalg.matrix_rank(away) < 2
        fit[thin, 1:] = 0
        count = len(self._kept)
        # Where texels lie on a line, the triangle of one of them tells the plane.
        first = self._mine.argmax(1)[thin]
        face = _in_cells(self._atlas.faces, self.voxels)[self._kept][thin, first]
        ends = topology.uv.astype(np.float64)[topology.uv_faces[face]] * len(self._atlas.faces)
        at = ends.mean(1)
        here, right, down = (_weights(at + step, ends) for step in np.array([[0.0, 0], [1, 0], [0, 1]]))
        steps = np.stack([right - here, down - here], 1)[:, :, None]  # [T, 2, 1, 3]
        index, value = [], []
        for rows, cells, some, vertices in (
            (np.arange(3), np.arange(count), fit[..., None] * share[:, None], corner[:, None]),
            (np.arange(1, 3), np.flatnonzero(thin), steps, topology.faces[face][:, None, None]),
        ):
            row = rows[None, :, None, None] * count + cells[:, None, None, None]
            used = some != 0
            index.append([np.broadcast_to(row, some.shape)[used], np.broadcast_to(vertices, some.shape)[used]])
            value.append(some[used])
        places = torch.from_numpy(np.concatenate(index, 1))
        size = (3 * count, topology.vertex_count)
        values = torch.from_numpy(np.concatenate(value))
        return torch.sparse_coo_tensor(places, values, size, check_invariants=True).coalesce()


def _in_cells(image: np.ndarray, voxels: int) -> np.ndarray:
    """An image [U, U, ...] by cells, [G * G, voxels * voxels, ...]."""
    grid = len(image) // voxels
    cells = image.reshape(grid, voxels, grid, voxels, *image.shape[2:]).swapaxes(1, 2)
    return cells.reshape(grid * grid, voxels * voxels, *image.shape[2:])


def _weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [N, 3] of points [N, 2] in the planes of triangles [N, 3, 2]."""
    a, ab, ac = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    offset = points - a
    u = (offset[:, 0] * ac[:, 1] - offset[:, 1] * ac[:, 0]) / area
    v = (ab[:, 0] * offset[:, 1] - ab[:, 1] * offset[:, 0]) / area
    return np.stack([1 - u - v, u, v], -1)


def _islands(uv_faces: np.ndarray) -> np.ndarray:
    """Number of the connected part of the atlas that each face belongs to."""
    label = np.arange(int(uv_faces.max()) + 1)
    while True:
        lowest = label.copy()
        np.minimum.at(lowest, uv_faces.reshape(-1), np.repeat(label[uv_faces].min(1), 3))
        lowest = lowest[lowest]
        if (lowest == label).all():
            return label[uv_faces[:, 0]]
        label = lowest
