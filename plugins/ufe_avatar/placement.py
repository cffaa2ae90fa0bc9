"""Where primitives sit on a mesh whose UV atlas has islands, how large they are, and where the mesh is inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ufe_avatar.networks.atlas import Atlas
from ufe_core.types import MeshTopology

_OVERLAP = 1.3  # how much larger a primitive is than what it must cover: its window fades towards the faces
_THINNEST_MM = 2.5  # half of it: what lies off the mesh, such as lashes and the lips' seam, is in reach
_SHELL = 0.8  # of the distance of voxels in depth: how fast a slab fades away from the mesh
_LEAST_SHELL = 0.01  # what is left far from it, for networks to make more of


@dataclass(frozen=True)
class Boxes:
    """The K primitives on a mesh at rest.

    Attributes:
        centre: float32 [K, 3], mm.
        half_size: float32 [K, 3], mm, along, across and off the surface.
        apart: float32 [K, 2], mm, how far apart texels are along and across.
        places: float32 [U, U, 2] in -1..1, the place in the texture that each voxel's column shows, cell by cell.
        shell: float32 [K, S, S, S], depth, row, column: 1 on the mesh, fading away from it.
    """

    centre: np.ndarray
    half_size: np.ndarray
    apart: np.ndarray
    places: np.ndarray
    shell: np.ndarray


class Placement:
    """Primitives of a mesh, one for each of the G x G cells of the atlas that hold a part of it.

    A cell's primitive lies on the plane that fits its texels best, as far as they lie on the same UV island: beyond a
    seam another cell's does. Cells of S x S texels come row by row; `kept` are those that have a primitive.

    Args:
        topology: of the mesh.
        atlas: at the resolution U of the slabs.
        voxels: S; G = U / S.
    """

    kept: np.ndarray
    planes: Tensor

    def __init__(self, topology: MeshTopology, atlas: Atlas, voxels: int) -> None:
        self.voxels, self.grid, self._atlas = voxels, len(atlas.faces) // voxels, atlas
        island = _in_cells(_islands(topology.uv_faces)[atlas.faces], voxels)
        covered = _in_cells(atlas.covered, voxels)
        offset = np.indices((voxels, voxels)).reshape(2, -1) + 0.5 - voxels / 2
        chosen = np.where(covered, np.square(offset).sum(0), np.inf).argmin(1)
        mine = covered & (island == np.take_along_axis(island, chosen[:, None], 1))
        self.kept = np.flatnonzero(mine.any(1))
        self._mine = mine[self.kept]
        self._texels = np.stack([offset[1], offset[0]], -1)  # column, row, from the cell's middle
        self._mean = np.einsum("kn,ni->ki", self._mine / self._mine.sum(1, keepdims=True), self._texels)
        self.planes = self._planes(topology)

    def boxes(self, geometry: np.ndarray) -> Boxes:
        """Boxes that cover their texels on a mesh at rest, [V, 3], mm."""
        rest = torch.from_numpy(geometry.astype(np.float64))[None]
        centre, axes, apart = (value[0].numpy() for value in frames(self.planes, rest))
        position = np.einsum("rcki,rck->rci", rest[0].numpy()[self._atlas.vertices], self._atlas.barycentrics)
        offset = _in_cells(position, self.voxels)[self.kept] - centre[:, None]
        offset = np.einsum("kij,kni->knj", axes, offset)
        half = np.where(self._mine[..., None], np.abs(offset), 0).max(1)

        step = torch.sparse.mm(self.planes.double(), rest[0]).view(3, -1, 3).numpy()[1:]  # mm a texel, right and down
        frame = np.einsum("ski,kij->ksj", step, axes)[..., :2]  # of the two steps, in the plane
        half[:, :2] += 0.5 * np.abs(frame).sum(1)  # texels have a size
        half = np.maximum(half * _OVERLAP, _THINNEST_MM)
        line = np.linspace(-1, 1, self.voxels)
        row, column = (value.reshape(-1) for value in np.meshgrid(line, line, indexing="ij"))
        point = np.stack([column, row], -1) * half[:, None, :2]
        texel = np.einsum("knj,kjs->kns", point, np.linalg.pinv(frame)) + self._mean[:, None]
        low = np.where(self._mine[..., None], self._texels, np.inf).min(1)[:, None] - 1
        high = np.where(self._mine[..., None], self._texels, -np.inf).max(1)[:, None] + 1
        texel = np.clip(texel, low, high)

        distance = np.square(texel[:, :, None] - self._texels).sum(-1)
        near = np.exp(-2 * (distance - np.where(self._mine[:, None], distance, np.inf).min(-1, keepdims=True)))
        near = np.where(self._mine[:, None], near, 0)
        height = (near * offset[:, None, :, 2]).sum(-1) / near.sum(-1)
        depth = line[:, None] * half[:, None, None, 2]
        spread = _SHELL * 2 * half[:, None, None, 2] / (self.voxels - 1)
        shell = np.maximum(np.exp(-np.square((depth - height[:, None]) / spread)), _LEAST_SHELL)
        return Boxes(
            centre.astype(np.float32), half.astype(np.float32), apart.astype(np.float32), self._places(texel),
            shell.reshape(-1, *[self.voxels] * 3).astype(np.float32),
        )  # fmt: skip

    def _places(self, texel: np.ndarray) -> np.ndarray:
        """Texels [K, S * S, 2] from their cells' middles as places in the texture; other cells show their own."""
        side, grid = self.voxels, self.grid
        row, column = np.divmod(np.arange(grid * grid), grid)
        middle = np.stack([column, row], -1) * side + side / 2
        places = middle[:, None] + self._texels
        places[self.kept] = middle[self.kept, None] + texel
        image = places.reshape(grid, grid, side, side, 2).swapaxes(1, 2).reshape(grid * side, grid * side, 2)
        return (2 * image / (grid * side) - 1).astype(np.float32)

    def _planes(self, topology: MeshTopology) -> Tensor:
        """A matrix [3 K, V] that gives cells' planes from a mesh: the middle, the step of a texel right, that down."""
        corner = _in_cells(self._atlas.vertices, self.voxels)[self.kept]  # [K, S * S, 3]
        share = _in_cells(self._atlas.barycentrics, self.voxels)[self.kept].astype(np.float64)
        even = self._mine / self._mine.sum(1, keepdims=True)
        away = (self._texels - self._mean[:, None]) * self._mine[..., None]
        fit = np.concatenate([even[:, None], np.linalg.pinv(away)], 1)  # of texels' positions, [K, 3, S * S]
        thin = np.linalg.matrix_rank(away) < 2
        fit[thin, 1:] = 0
        count = len(self.kept)
        # Where texels lie on a line, the triangle of one of them tells the plane.
        first = self._mine.argmax(1)[thin]
        face = _in_cells(self._atlas.faces, self.voxels)[self.kept][thin, first]
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


def frames(planes: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Primitives on meshes.

    Args:
        planes: of a placement, [3 K, V].
        geometry: [B, V, 3], mm.

    Returns:
        Centres [B, K, 3], mm; axes as columns [B, K, 3, 3]: along the rows of texels, across them, off the surface; and
        how far apart texels are along and across, [B, K, 2], mm.
    """
    flat = torch.sparse.mm(planes, geometry.transpose(0, 1).reshape(geometry.shape[1], -1))
    centre, along, down = flat.view(3, -1, len(geometry), 3).transpose(1, 2)
    right = functional.normalize(along, dim=-1)
    normal = functional.normalize(torch.linalg.cross(right, down), dim=-1)
    across = torch.linalg.cross(normal, right)
    apart = torch.stack([along.norm(dim=-1), (across * down).sum(-1)], -1)
    return centre, torch.stack([right, across, normal], -1), apart


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
