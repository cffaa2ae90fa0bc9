"""A shirt, which covers where the head's mesh is cut."""

from __future__ import annotations

import numpy as np

from ufe_core.head import SKIN, Head
from ufe_synthetic.props.mesh import unit
from ufe_synthetic.scene import Part

_TOP_MM, _RISE_MM, _THICK_MM = 184.0, 6.0, 3.0
_HEMS = ((14.0, 20.0), (34.0, 60.0), (60.0, 160.0))  # how far (mm) out of and below the cut its lower rings lie


def shirt(head: Head, geometry: np.ndarray, rng: np.random.Generator) -> Part:
    """Grey cloth over neck and shoulders; it comes out of the skin along a level line, so its edge is smooth.

    Args:
        head: the mean head.
        geometry: float32 [V, 3] mm, this person's resting face.
        rng: draws how high it closes and how bright it is.
    """
    top = _TOP_MM + rng.uniform(-8.0, 6.0)
    albedo = float(rng.uniform(0.05, 0.45))
    covered = ((geometry[head.faces, 1] > top - 2 * _RISE_MM) & (head.part[head.faces] == SKIN)).all(1)
    rows, own = np.unique(head.faces[covered], return_inverse=True)
    own = own.reshape(-1, 3)
    points = geometry[rows].astype(np.float64)
    lift = np.clip((points[:, 1] - top) / _RISE_MM, -1, 1) * _THICK_MM
    points += lift[:, None] * _normals(points, own)
    rings, faces = [points], [own]
    above = _cut(head, rows)
    hem, above_hem = np.unique(above, return_inverse=True)
    edge = points[hem]
    outward = unit((edge - edge.mean(0)) * [1, 0, 1])
    for out, down in _HEMS:
        below = sum(map(len, rings)) + above_hem.reshape(-1, 2)
        level = edge + out * outward
        level[:, 1] = edge[:, 1].max() + down
        rings.append(level)
        faces += [np.stack([above[:, 1], above[:, 0], below[:, 0]], -1)]
        faces += [np.stack([above[:, 1], below[:, 0], below[:, 1]], -1)]
        above = below
    vertices, triangles = np.concatenate(rings), np.concatenate(faces).astype(np.int32)
    actions = np.zeros((len(head.actions), len(vertices), 3), np.float32)
    actions[:, : len(rows)] = head.actions[:, rows]
    return Part(
        vertices.astype(np.float32), triangles, "cloth", actions, albedo=np.full(len(triangles), albedo, np.float32)
    )


def _normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(points[faces], 1, 0)
    total = np.zeros_like(points)
    for k in range(3):
        np.add.at(total, faces[:, k], np.cross(b - a, c - a))
    return unit(total)


def _cut(head: Head, rows: np.ndarray) -> np.ndarray:
    """The directed edges [E, 2] of the border where the head's mesh ends, as positions in `rows`."""
    skin = head.faces[(head.part[head.faces] == SKIN).all(1)].astype(np.int64)
    edges = np.concatenate([skin[:, [k, (k + 1) % 3]] for k in range(3)])
    size = len(head.part)
    border = edges[~np.isin(edges @ [size, 1], edges @ [1, size])]
    border = border[np.isin(border, rows).all(1)]
    return np.searchsorted(rows, border)
