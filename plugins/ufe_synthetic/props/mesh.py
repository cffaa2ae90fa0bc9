"""Meshes from sweeps, and what the props must know about the surface that they stand beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]


def loft(rings: np.ndarray, *, start: np.ndarray | None = None, end: np.ndarray | None = None) -> Mesh:
    """A skin over closed rings, its normals outward.

    Args:
        rings: float [N, M, 3], N cross-sections of M points each.
        start: [3], the point that closes the first ring; it stays open without.
        end: [3], the same for the last ring.

    Returns:
        Vertices float64 [P, 3] and faces int32 [Q, 3].
    """
    count, across = rings.shape[:2]
    caps = [point for point in (start, end) if point is not None]
    vertices = np.concatenate([rings.reshape(-1, 3), *(np.asarray(cap, np.float64)[None] for cap in caps)])
    faces: np.ndarray = strip_faces(count, across, closed=True)
    here = np.arange(across)
    following = np.roll(here, -1)
    if start is not None:
        faces = np.concatenate([faces, np.stack([np.full(across, count * across), following, here], 1)])
    if end is not None:
        tip = np.full(across, count * across + len(caps) - 1)
        last = (count - 1) * across
        faces = np.concatenate([faces, np.stack([tip, last + here, last + following], 1)])
    return vertices, outward(vertices, faces.astype(np.int32))


def strip_faces(count: int, across: int, *, closed: bool) -> np.ndarray:
    """Faces int32 [Q, 3] between `count` rows of `across` points, whose ends meet where `closed`."""
    i, j = (
        index.ravel()
        for index in np.meshgrid(np.arange(count - 1), np.arange(across if closed else across - 1), indexing="ij")
    )
    k = (j + 1) % across
    a, b, c, d = i * across + j, i * across + k, (i + 1) * across + k, (i + 1) * across + j
    return np.stack([np.stack([a, b, c], 1), np.stack([a, c, d], 1)], 1).reshape(-1, 3).astype(np.int32)


def outward(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces turned, all alike, so that the volume that they bound about their centroid is positive."""
    a, b, c = np.moveaxis(vertices[faces] - vertices.mean(0), 1, 0)
    return faces if np.einsum("ij,ij->", a, np.cross(b, c)) >= 0 else np.ascontiguousarray(faces[:, ::-1])


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Meshes side by side in one vertex array, faces int32."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [f + start for (_, f), start in zip(meshes, starts, strict=False)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(faces).astype(np.int32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] of length one."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def turn(axis: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Rotations [..., 3, 3] by `angle` [...] radians about unit axes [..., 3]."""
    x, y, z = np.moveaxis(np.asarray(axis, np.float64), -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*zero.shape, 3, 3)
    angle = np.asarray(angle, np.float64)[..., None, None]
    return np.asarray(np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * (skew @ skew))


def rigid_fit(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] that carry points `before` [N, 3] closest to `after` (Kabsch)."""
    a, b = before.mean(0), after.mean(0)
    u, _, v = np.linalg.svd((before - a).T @ (after - b))
    rotation = v.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(v.T @ u.T))]) @ u.T
    return rotation, b - rotation @ a


def sweep(path: np.ndarray, radii: np.ndarray, *, across: int, up: np.ndarray, start: bool = True) -> Mesh:
    """A tube along a path, its ends rounded off to a point.

    Args:
        path: float [N, 3] mm, centres.
        radii: float [N, 2] mm, half widths sideways and along `up`.
        across: points round the tube.
        up: [3], which way the second radius points; not along the path.
        start: close the first end as well.
    """
    ahead = unit(np.gradient(path, axis=0))
    side = unit(np.cross(np.broadcast_to(up, ahead.shape), ahead))
    over = np.cross(ahead, side)
    angle = np.arange(across) * 2 * np.pi / across
    ring = (
        np.cos(angle)[:, None] * side[:, None] * radii[:, None, :1]
        + np.sin(angle)[:, None] * over[:, None] * (radii[:, None, 1:])
    )
    return loft(path[:, None] + ring, start=path[0] if start else None, end=path[-1])


def surface_points(vertices: np.ndarray, faces: np.ndarray, spacing: float) -> np.ndarray:
    """Points [N, 3] all over a mesh, neighbours no more than about `spacing` mm apart."""
    corners = vertices[faces].astype(np.float64)
    longest = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1).max(1)
    steps = np.maximum(np.ceil(longest / spacing).astype(int), 1)
    out = []
    for n in np.unique(steps):
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        inside = i + j <= n
        weights = np.stack([i[inside], j[inside], n - i[inside] - j[inside]], 1) / n
        out.append(np.einsum("pk,fkd->fpd", weights, corners[steps == n]).reshape(-1, 3))
    return np.concatenate(out)
