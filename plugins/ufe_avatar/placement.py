"""Where primitives sit on a mesh whose UV atlas has islands, how large they are, and where the mesh is inside them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.networks.atlas import Atlas
from ufe_core.ops.kernels import kernels, warp
from ufe_core.types import MeshTopology

_KERNELS = "ufe_avatar.placement_warp"
_OVERLAP = 1.4  # how much larger a primitive is than what it must cover: its window fades towards the faces
_BEFORE_MM, _BEHIND_MM = 1.0, 2.0  # how far primitives reach off the mesh and into the head
_UNEVEN = 1.2  # how much of the mesh a primitive leaves room for, against what it holds at rest
_MOST_STRETCH = 3.0  # of a primitive with the mesh, against the mesh at rest
_LEAST_STEP_MM = 1e-3
_FITS = 3  # times that columns are moved along the mesh at rest to where it is beside them


@dataclass(frozen=True)
class Placed:
    """K primitives on each of B meshes.

    Attributes:
        centre: [B, K, 3], mm.
        axes: [B, K, 3, 3], as columns: along the rows of texels, across them, off the surface into the head.
        half_size: [B, K, 3], mm, along these.
        places: [B, K, A * A, 2] in -1..1, the place in the texture that each voxel's column shows, row by row.
        shell: [B, K, S, A * A], depth and column, in -1..1: how far behind the mesh a voxel is, against the distance of
            voxels in depth, and soon how far before the slab's end. Between voxels, 0 lies on the mesh.
        facing: bool [B, K], whether any of it faces the eye.
        number: int64 [B, K], which of the placement's primitives these are.
    """

    centre: Tensor
    axes: Tensor
    half_size: Tensor
    places: Tensor
    shell: Tensor
    facing: Tensor
    number: Tensor

    def seen(self) -> Placed:
        """Those that face the eye, and of others as many as the eye that sees most makes room for."""
        most = int(self.facing.sum(1).max())
        first = self.facing.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        return Placed(*(chosen(getattr(self, field.name), first) for field in fields(self)))


class Placement(nn.Module):
    """Primitives of a mesh, one for each of the G x G cells of the atlas that hold a part of it.

    A cell's primitive lies on the plane that fits its texels best, as far as they lie on the same UV island: beyond a
    seam another cell's does. Each of its columns of voxels knows what lies on the mesh beside it, and shows that; where
    the mesh faces away, a column is empty, so that no slab's back shows through thin parts. Cells of S x S texels come
    row by row; `kept` are those that have a primitive. A new one needs `set_rest`.

    Args:
        topology: of the mesh.
        atlas: at the resolution U of the slabs.
        voxels: S, the depth of a primitive too; G = U / S.
        finer: voxels beside each other for each of S; A = finer S lie along and across a primitive.
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
    columns: Tensor
    texel: Tensor
    known: Tensor
    there: Tensor
    shift: Tensor
    corners: Tensor
    triangles: Tensor
    line: Tensor
    finer: Tensor
    on_neck: Tensor
    half_size: Tensor
    apart: Tensor

    def __init__(self, topology: MeshTopology, atlas: Atlas, voxels: int, finer: int) -> None:
        super().__init__()
        self.voxels, self.across, self.grid, self._atlas = voxels, finer * voxels, len(atlas.faces) // voxels, atlas
        self._vertices = topology.vertex_count
        self._island = _islands(topology.uv_faces)[atlas.faces]
        self._close = cv2.dilate(atlas.covered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        island, covered = _in_cells(self._island, voxels), _in_cells(atlas.covered, voxels)
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
        count, cells = len(kept), self.across**2
        for name, value in {
            "kept": torch.from_numpy(kept), "planes": self._planes(topology),
            "texels": self._texels(topology), "mine": torch.from_numpy(self._mine)[..., None],
            "steps": torch.from_numpy(self._steps).float(), "mean": torch.from_numpy(self._mean).float()[:, None],
            "low": torch.from_numpy(low).float(), "high": torch.from_numpy(high).float(),
            "middle": torch.from_numpy((np.stack([column, row], -1) + 0.5) * voxels).float()[:, None],
            "columns": torch.zeros(0), "texel": torch.zeros(count, cells, 2), "known": torch.ones(count, cells, 1),
            "there": torch.ones(count, 1, cells), "half_size": torch.ones(count, 3), "shift": torch.zeros(count),
            "apart": torch.ones(count, 2), "line": torch.linspace(-1, 1, self.across),
            "finer": _finer(voxels, self.across, channels=4),
            "on_neck": torch.zeros(count, dtype=torch.bool),
            "triangles": torch.zeros(count, cells, 4, dtype=torch.int32),
            "corners": torch.from_numpy(topology.faces.astype(np.int32)),
        }.items():  # fmt: skip
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def set_rest(self, geometry: Tensor, *, neck_mm: float = math.inf) -> None:
        """Take sizes from a mesh at rest [V, 3], mm: primitives cover their texels there.

        Those lower than `neck_mm` lie on the neck, where people differ most: they are as deep as each mesh asks.
        """
        mesh = geometry[None]
        centre, axes, down, apart = self._frames(mesh)
        offset = self._offsets(_product(self.texels, mesh), centre, axes)[0]
        half = torch.where(self.mine, offset.abs(), 0).amax(1)
        # Texels have a size: half a step to the right and down.
        half[:, 0] += 0.5 * (apart[0, :, 0] + down[0, :, 0].abs())
        half[:, 1] += 0.5 * down[0, :, 1]
        half *= _OVERLAP
        nearest, farthest = (_UNEVEN * torch.where(self.mine, offset, 0)[..., 2]).aminmax(dim=1)
        half[:, 2] = (farthest - nearest + _BEHIND_MM + _BEFORE_MM) / 2
        self.half_size.copy_(half)
        self.shift.copy_((farthest + nearest + _BEHIND_MM - _BEFORE_MM) / 2)
        self.on_neck.copy_(centre[0, :, 1] > neck_mm)
        self.apart.copy_(apart[0].clamp_min(_LEAST_STEP_MM))
        wanted = self._grid(half[None])
        self.texel.copy_((self._at_texels(wanted, apart, down) + self.mean)[0])
        for fit in range(_FITS):
            texel, share = self._under()
            if fit < _FITS - 1:
                found = self._offsets(self._points(texel, share, geometry), centre, axes)[..., :2]
                self._move(self._at_texels(wanted - found, apart, down)[0])
        self.columns = self._matrix(texel, share).to(geometry.device)
        self.triangles.copy_(torch.from_numpy(self._atlas.faces.reshape(-1)[texel]))

    def forward(self, mesh: Tensor, eye: Tensor) -> Placed:
        """Primitives on meshes [B, V, 3] as eyes [B, 3] see them, mm.

        Centres, axes and sizes are differentiable in the meshes.
        """
        centre, axes, down, apart = self._frames(mesh)
        stretch = (apart / self.apart).clamp(1 / _MOST_STRETCH, _MOST_STRETCH)
        half_size = self.half_size * functional.pad(stretch, (0, 1), value=1.0)
        with torch.no_grad():
            places, shell, reach, facing = self._columns(mesh, eye, (centre, axes, down, apart, half_size))
        first, last = reach.unbind(-1)
        half_size = torch.cat([half_size[..., :2], (last - first)[..., None] / 2], -1)
        number = torch.arange(len(self.kept), device=mesh.device).expand(len(mesh), -1)
        middle = centre + ((first + last) / 2)[..., None] * axes[..., 2]
        return Placed(middle, axes, half_size, places, shell, facing, number)

    def filled(self, colour: Tensor, opacity: Tensor, texture: Tensor, placed: Placed) -> Tensor:
        """Slabs [B, N, S, A, A, 4] of placed primitives, through which no gradient flows.

        They have at all depths the texture's colours, with those of `colour` [B, 3 S, U, U] added, and the shell's
        share of `opacity` [B, S, U, U].
        """
        wp, module = warp(), kernels(_KERNELS, colour.device)
        count = placed.number.shape
        slabs = colour.new_empty(*count, self.voxels, self.across**2, 4)
        with wp.ScopedDevice(wp.device_from_torch(colour.device)):
            wp.launch(module.fill, dim=tuple(count), inputs=[
                wp.from_torch(colour), wp.from_torch(opacity), wp.from_torch(texture),
                wp.from_torch(self.kept[placed.number]), wp.from_torch(placed.places, dtype=wp.vec2),
                wp.from_torch(placed.shell), self.across, wp.from_torch(slabs, dtype=wp.vec4),
            ])  # fmt: skip
        return slabs.unflatten(3, (self.across, -1))

    def refined(self, slabs: Tensor) -> Tensor:
        """Slabs [B, K, S, S, S, 4] (depth, row, column) with A x A columns, [B, K, S, A * A, 4]."""
        if self.across == self.voxels:
            return slabs.flatten(3, 4)
        return (slabs.flatten(3) @ self.finer).unflatten(3, (-1, 4))

    def _columns(self, mesh: Tensor, eye: Tensor, planes: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`places`, `shell` and `facing` of `Placed`, and between which depths primitives lie, [B, K, 2], mm.

        `planes` are what `_frames` gave, and half sizes in the plane.
        """
        wp, module = warp(), kernels(_KERNELS, mesh.device)
        batch, count, columns = len(mesh), len(self.kept), self.across**2
        points = _product(self.columns, mesh.detach()).contiguous()
        vertices, eyes = mesh.detach().contiguous(), eye.detach().contiguous()
        face_seen = torch.empty(batch, len(self.corners), dtype=torch.bool, device=mesh.device)
        places = mesh.new_empty(batch, count, columns, 2)
        shell = mesh.new_empty(batch, count, self.voxels, columns)
        reach, facing = mesh.new_empty(batch, count, 2), mesh.new_empty(batch, count, dtype=torch.bool)
        on = module.Planes()
        on.centre, on.axes, on.down, on.apart, on.half_size = (
            wp.from_torch(value.detach().contiguous(), dtype=kind)
            for value, kind in zip(planes, (wp.vec3, wp.mat33, wp.vec2, wp.vec2, wp.vec3), strict=True)
        )
        with wp.ScopedDevice(wp.device_from_torch(mesh.device)):
            wp.launch(module.face_eye, dim=tuple(face_seen.shape), inputs=[
                wp.from_torch(vertices, dtype=wp.vec3), wp.from_torch(self.corners, dtype=wp.vec3i),
                wp.from_torch(eyes, dtype=wp.vec3), wp.from_torch(face_seen),
            ])  # fmt: skip
            wp.launch(module.place, dim=(batch, count), inputs=[
                wp.from_torch(points.view(batch, count, columns, 3), dtype=wp.vec3), wp.from_torch(eyes, dtype=wp.vec3),
                wp.from_torch(face_seen), on, self._primitives(wp, module),
                wp.from_torch(torch.empty_like(points).view(batch, count, columns, 3), dtype=wp.vec3),
                wp.from_torch(mesh.new_empty(batch, count, columns)), wp.from_torch(places, dtype=wp.vec2),
                wp.from_torch(shell), wp.from_torch(reach, dtype=wp.vec2), wp.from_torch(facing),
            ])  # fmt: skip
        return places, shell, reach, facing

    def _primitives(self, wp: Any, module: Any) -> Any:
        """What the kernels read of primitives at rest."""
        made = module.Primitives()
        made.texel = wp.from_torch(self.texel, dtype=wp.vec2)
        made.low, made.high, made.middle = (
            wp.from_torch(value[:, 0], dtype=wp.vec2) for value in (self.low, self.high, self.middle)
        )
        made.known, made.there = wp.from_torch(self.known[..., 0]), wp.from_torch(self.there[:, 0])
        made.triangles, made.on_neck = wp.from_torch(self.triangles), wp.from_torch(self.on_neck)
        made.shift, made.half_depth = wp.from_torch(self.shift), wp.from_torch(self.half_size[:, 2])
        made.line = wp.from_torch(self.line)
        made.side = float(self.grid * self.voxels)
        made.before_mm, made.behind_mm, made.least_step_mm = _BEFORE_MM, _BEHIND_MM, _LEAST_STEP_MM
        return made

    def _move(self, texels: Tensor) -> None:
        """Move columns by texels [K, P, 2] as far as they are on their islands, and not far from their cells."""
        self.texel.copy_((self.texel + self.known * texels).maximum(self.low - 1).minimum(self.high + 1))

    def _under(self) -> tuple[np.ndarray, np.ndarray]:
        """Which four texels, int64 [K, P, 4], by which shares [K, P, 4], are where each column is on its island.

        What `known` and `there` say of columns is set with it: how much of that the mesh covers; and 1 on the island
        and up to a texel and a half outside, so that slabs of islands that meet leave no gap, then 0.
        """
        at = (self.middle + self.texel).cpu().double().numpy() - 0.5
        corner = np.floor(at)[:, :, None] + np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
        side = len(self._island)
        share = (1 - np.abs(at[:, :, None] - corner)).prod(-1) * ((corner >= 0) & (corner < side)).all(-1)
        column, row = np.moveaxis(corner.astype(np.int64).clip(0, side - 1), -1, 0)
        texel = row * side + column
        share *= (self._island.reshape(-1)[texel] == self._of[:, None, None]) & self._close.reshape(-1)[texel]
        self.known.copy_(torch.from_numpy((share * self._atlas.covered.reshape(-1)[texel]).sum(-1, keepdims=True)))
        total = share.sum(-1)
        self.there.copy_(torch.from_numpy(np.minimum(2 * total, 1)[:, None]))
        lost = np.nonzero(total == 0)  # it sees a texel of its own cell, and shows nothing
        first = self._mine[lost[0]].argmax(1)
        cell_row, cell_column = np.divmod(self._kept[lost[0]], self.grid)
        own_row, own_column = np.divmod(first, self.voxels)
        texel[lost[0], lost[1], 0] = (cell_row * self.voxels + own_row) * side + cell_column * self.voxels + own_column
        share[lost] = [1, 0, 0, 0]
        largest = np.take_along_axis(texel, share.argmax(-1)[..., None], -1)
        return np.where(share > 0, texel, largest), share / share.sum(-1, keepdims=True)

    def _points(self, texel: np.ndarray, share: np.ndarray, geometry: Tensor) -> Tensor:
        """What lies there on a mesh [V, 3], as [1, K, P, 3]."""
        image = (geometry.cpu().numpy()[self._atlas.vertices] * self._atlas.barycentrics[..., None]).sum(2)
        points = (image.reshape(-1, 3)[texel] * share[..., None]).sum(2)
        return torch.from_numpy(points.astype(np.float32))[None].to(geometry.device)

    def _matrix(self, texel: np.ndarray, share: np.ndarray) -> Tensor:
        """A matrix [K * P, V] that gives from any mesh what lies there."""
        vertex = self._atlas.vertices.reshape(-1, 3)[texel].reshape(-1)
        weight = (share[..., None] * self._atlas.barycentrics.reshape(-1, 3)[texel]).reshape(-1)
        columns = texel.shape[0] * texel.shape[1]
        return _sparse(np.repeat(np.arange(columns), len(vertex) // columns), vertex, weight, (columns, self._vertices))

    def _frames(self, mesh: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centres; axes; the step of a texel down in the plane [B, K, 2]; how far apart texels are in it [B, K, 2]."""
        centre, along, down = _product(self.planes, mesh).unflatten(1, (3, -1)).unbind(1)
        right = functional.normalize(along, dim=-1)
        normal = functional.normalize(torch.linalg.cross(right, down), dim=-1)
        across = torch.linalg.cross(normal, right)
        in_plane = torch.stack([(right * down).sum(-1), (across * down).sum(-1)], -1)
        apart = torch.stack([along.norm(dim=-1), in_plane[..., 1]], -1)
        return centre, torch.stack([right, across, normal], -1), in_plane, apart

    def _offsets(self, points: Tensor, centre: Tensor, axes: Tensor) -> Tensor:
        """Where points [B, K, P, 3] or [B, K * P, 3] are from primitives' middles, along the axes, mm, [B, K, P, 3]."""
        return (points.view(len(points), len(self.kept), -1, 3) - centre[:, :, None]) @ axes

    def _grid(self, half_size: Tensor) -> Tensor:
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
        return _sparse(row, corner.reshape(-1), share.reshape(-1), (len(corner), topology.vertex_count))

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
        rows, columns = np.concatenate(index, 1)
        return _sparse(rows, columns, np.concatenate(value), (3 * count, topology.vertex_count))


def chosen(values: Tensor, index: Tensor) -> Tensor:
    """Of values [B, K, ...] those that `index` int64 [B, N] names, [B, N, ...]."""
    start = values.shape[1] * torch.arange(len(values), device=values.device)[:, None]
    return values.flatten(0, 1).index_select(0, (start + index).flatten()).unflatten(0, tuple(index.shape))


def _product(matrix: Tensor, mesh: Tensor) -> Tensor:
    """[B, N, 3] of a sparse matrix [N, V] and meshes [B, V, 3]."""
    flat = torch.sparse.mm(matrix, mesh.transpose(0, 1).reshape(mesh.shape[1], -1))
    return flat.view(-1, len(mesh), 3).transpose(0, 1)


def _sparse(row: np.ndarray, column: np.ndarray, value: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A float32 matrix in rows; what stands at one place twice is added."""
    places, values = torch.from_numpy(np.stack([row, column])), torch.from_numpy(value.astype(np.float64))
    matrix = torch.sparse_coo_tensor(places, values, size, check_invariants=True).coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return matrix.float().to_sparse_csr()


def _finer(voxels: int, across: int, *, channels: int) -> Tensor:
    """A matrix [V * V * C, A * A * C] that interpolates V x V values of C channels, outer ones on the border."""
    place = torch.linspace(0, voxels - 1, across)
    share = (1 - (place[None] - torch.arange(voxels)[:, None]).abs()).clamp_min(0)
    return torch.kron(torch.kron(share, share), torch.eye(channels))


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
