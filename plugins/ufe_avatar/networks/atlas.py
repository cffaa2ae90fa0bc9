"""From texels to the mesh: which point of which triangle each texel shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ufe_core.errors import DataError
from ufe_core.types import MeshTopology

_BLOCK = 2_000_000  # tests of a texel against a triangle at a time
_EDGE = 1e-9  # a texel on an edge is in both triangles, up to rounding


@dataclass(frozen=True)
class Atlas:
    """The UV atlas of a mesh at one resolution. Row 0 is the top of the texture.

    Attributes:
        faces: int64 [R, R], the triangle of each texel: the one that covers it, or else that of the nearest
            covered texel.
        vertices: int64 [R, R, 3], the corners of that triangle.
        barycentrics: float32 [R, R, 3], weights of the corners, which sum to 1; none is negative.
        covered: bool [R, R], whether the texel's centre lies in a triangle.
        coordinates: float32 [V, 2] in -1..1, of each vertex: `vertex_coordinates`.
    """

    faces: np.ndarray
    vertices: np.ndarray
    barycentrics: np.ndarray
    covered: np.ndarray
    coordinates: np.ndarray


def build_atlas(topology: MeshTopology, resolution: int) -> Atlas:
    """The atlas of a mesh whose texels have their centres at (column + 0.5, row + 0.5) / resolution.

    Raises:
        DataError: no triangle covers any texel.
    """
    corners = topology.uv.astype(np.float64)[topology.uv_faces] * resolution - 0.5  # [F, 3, 2], in texels
    owner = _covering_face(corners, resolution)
    covered = owner >= 0
    if not covered.any():
        raise DataError(
            f"No triangle of the mesh covers a texel of {resolution} x {resolution}: its UV are out of 0..1."
        )
    _take_nearest(owner)
    rows, columns = np.indices(owner.shape)
    weights = _closest_weights(np.stack([columns, rows], -1).reshape(-1, 2), corners[owner.reshape(-1)])
    return Atlas(
        owner,
        topology.faces[owner],
        weights.reshape(*owner.shape, 3).astype(np.float32),
        covered,
        vertex_coordinates(topology),
    )


def vertex_coordinates(topology: MeshTopology) -> np.ndarray:
    """Where the geometry head is read for each vertex, float32 [V, 2]: x = 2 u - 1, y = 2 v - 1 with v from the bottom.

    Other maps of a vertex have row 0 at the top; this one is read upside down, in the public networks as here. A vertex
    counts at the first of its corners in the order of the faces; vertices of no face count at UV point 0.
    """
    point = np.zeros(topology.vertex_count, np.int64)
    vertices, first = np.unique(topology.faces.reshape(-1), return_index=True)
    point[vertices] = topology.uv_faces.reshape(-1)[first]
    u, v = topology.uv.astype(np.float64)[point].T
    return np.stack([2 * u - 1, 1 - 2 * v], -1).astype(np.float32)


def interpolate(values: Tensor, vertices: Tensor, barycentrics: Tensor) -> Tensor:
    """An image of what vertices carry.

    Args:
        values: float32 [B, V, C].
        vertices: int64 [3, ...], the corners of each texel's triangle.
        barycentrics: float32 [3, ...], their weights.

    Returns:
        float32 [B, C, ...].
    """
    places = vertices.shape[1:]
    image = sum(values.index_select(1, vertices[k].reshape(-1)) * barycentrics[k].reshape(1, -1, 1) for k in range(3))
    assert isinstance(image, Tensor)
    return image.transpose(1, 2).unflatten(2, places)


def tables(atlas: Atlas) -> tuple[Tensor, Tensor]:
    """What `interpolate` takes: int64 [3, R, R] vertices, float32 [3, R, R] barycentrics."""
    vertices = torch.from_numpy(np.ascontiguousarray(np.moveaxis(atlas.vertices, -1, 0)))
    return vertices, torch.from_numpy(np.ascontiguousarray(np.moveaxis(atlas.barycentrics, -1, 0)))


def _covering_face(corners: np.ndarray, resolution: int) -> np.ndarray:
    """int64 [R, R], the first triangle that holds each texel's centre, or -1."""
    owner = np.full(resolution * resolution, len(corners), np.int64)
    low = np.clip(np.ceil(corners.min(1) - _EDGE), 0, resolution).astype(np.int64)
    high = np.clip(np.floor(corners.max(1) + _EDGE) + 1, 0, resolution).astype(np.int64)
    extent = np.maximum(high - low, 0)
    counts = extent.prod(1)
    blocks = np.cumsum(counts) // _BLOCK
    for block in np.unique(blocks[counts > 0]):
        chosen = np.flatnonzero((blocks == block) & (counts > 0))
        face = np.repeat(chosen, counts[chosen])
        place = np.arange(len(face)) - np.repeat(np.cumsum(counts[chosen]) - counts[chosen], counts[chosen])
        column, row = low[face, 0] + place % extent[face, 0], low[face, 1] + place // extent[face, 0]
        inside = (_weights(np.stack([column, row], -1), corners[face]) >= -_EDGE).all(1)
        np.minimum.at(owner, (row * resolution + column)[inside], face[inside])
    owner[owner == len(corners)] = -1
    return owner.reshape(resolution, resolution)


def _take_nearest(owner: np.ndarray) -> None:
    """Give texels of no triangle that of the nearest texel that has one, in place."""
    bare = (owner < 0).astype(np.uint8)
    if not bare.any():
        return
    _, label = cv2.distanceTransformWithLabels(bare, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    face_of = np.zeros(int(label.max()) + 1, np.int64)
    face_of[label[bare == 0]] = owner[bare == 0]
    owner[:] = face_of[label]


def _weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [N, 3] of points [N, 2] in triangles [N, 3, 2]; of flat ones -1, which is outside."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    area = _cross(b - a, c - a)
    flat = area == 0
    safe = np.where(flat, 1, area)
    u, v = _cross(points - a, c - a) / safe, _cross(b - a, points - a) / safe
    return np.where(flat[:, None], -1.0, np.stack([1 - u - v, u, v], -1))


def _closest_weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [N, 3] of the point of each triangle [N, 3, 2] that is closest to a point [N, 2]."""
    best = _weights(points, triangles)
    outside = np.flatnonzero((best < 0).any(1))
    distance = np.full(len(outside), np.inf)
    for k in range(3):
        start, end = triangles[outside, k], triangles[outside, (k + 1) % 3]
        along = end - start
        length = np.maximum(np.square(along).sum(1), 1e-30)
        t = np.clip(((points[outside] - start) * along).sum(1) / length, 0, 1)
        found = np.square(start + t[:, None] * along - points[outside]).sum(1)
        nearer = found < distance
        distance[nearer] = found[nearer]
        rows = outside[nearer]
        best[rows] = 0
        best[rows, k], best[rows, (k + 1) % 3] = 1 - t[nearer], t[nearer]
    return best


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
