"""Finer meshes for large images: each edge of a chosen region gets a curved midpoint (Phong tessellation).

The given vertices stay where they are, so labels keep meaning what they mean; only the facets between them round.
Source: Boubekeur and Alexa, "Phong Tessellation", SIGGRAPH Asia 2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CURVATURE = 0.75  # the authors' recommended share of the way to the tangent planes


@dataclass(frozen=True)
class Refinement:
    """A mesh with midpoints on some edges, numbered after its V vertices.

    `edges` int64 [E, 2]: the ends of each midpoint; `uv_edges` the same for the UV layout; `faces`, `uv_faces`
    int32 [G, 3]; `parent` int64 [G], the face that each comes from.
    """

    edges: np.ndarray
    uv_edges: np.ndarray
    faces: np.ndarray
    uv_faces: np.ndarray
    parent: np.ndarray

    def average(self, values: np.ndarray) -> np.ndarray:
        """Values per vertex [V, ...] with those of the midpoints appended, [V + E, ...]."""
        middle = values[self.edges].mean(1).astype(values.dtype)
        return np.concatenate([values, middle])

    def curve(self, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Vertices float32 [N, V, 3] with curved midpoints appended, [N, V + E, 3]."""
        a, b = vertices[:, self.edges[:, 0]], vertices[:, self.edges[:, 1]]
        na, nb = normals[:, self.edges[:, 0]], normals[:, self.edges[:, 1]]
        half = (b - a) / 2
        lift = (np.sum(half * nb, -1, keepdims=True) * nb - np.sum(half * na, -1, keepdims=True) * na) / 2
        return np.concatenate([vertices, (a + b) / 2 + _CURVATURE * lift], 1)


def refine(faces: np.ndarray, uv_faces: np.ndarray, chosen: np.ndarray, count: int, uv_count: int) -> Refinement:
    """Split every edge of the `chosen` faces (bool [F]) once; their neighbours are cut to fit.

    Args:
        faces: int [F, 3] of a mesh of `count` vertices.
        uv_faces: int [F, 3] of a layout of `uv_count` points, the same faces in the same order.
        chosen: which faces to split in four.
        count: V.
        uv_count: number of UV points.
    """
    ends = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1), -1).reshape(-1, 2).astype(np.int64)
    code = ends[:, 0] * count + ends[:, 1]
    wanted = np.unique(code[np.repeat(chosen, 3)])
    split = np.isin(code, wanted).reshape(-1, 3)  # edge k joins corners k and k + 1
    middle = (count + np.searchsorted(wanted, code)).reshape(-1, 3)
    uv_ends = np.stack([uv_faces, np.roll(uv_faces, -1, 1)], -1).reshape(-1, 2).astype(np.int64)
    uv_code = np.sort(uv_ends, -1) @ np.array([uv_count, 1])
    uv_wanted = np.unique(uv_code[split.reshape(-1)])
    uv_middle = (uv_count + np.searchsorted(uv_wanted, uv_code)).reshape(-1, 3)
    out: list[np.ndarray] = []
    uv_out: list[np.ndarray] = []
    parent: list[np.ndarray] = []
    for cuts, pattern in _PATTERNS.items():
        for turn in range(3 if 0 < len(cuts) < 3 else 1):
            rows = np.flatnonzero((np.roll(split, -turn, 1) == np.isin(np.arange(3), cuts)).all(1))
            corner = np.concatenate([np.roll(faces[rows], -turn, 1), np.roll(middle[rows], -turn, 1)], 1)
            uv_corner = np.concatenate([np.roll(uv_faces[rows], -turn, 1), np.roll(uv_middle[rows], -turn, 1)], 1)
            for triangle in pattern:
                out.append(corner[:, triangle])
                uv_out.append(uv_corner[:, triangle])
                parent.append(rows)
    return Refinement(
        np.stack(np.divmod(wanted, count), -1), np.stack(np.divmod(uv_wanted, uv_count), -1),
        np.concatenate(out).astype(np.int32), np.concatenate(uv_out).astype(np.int32), np.concatenate(parent),
    )  # fmt: skip


#: Which edges of a face are cut, and the triangles that follow: 0-2 its corners, 3-5 the midpoints of edges 0-2.
_PATTERNS: dict[tuple[int, ...], tuple[tuple[int, int, int], ...]] = {
    (): ((0, 1, 2),),
    (0,): ((0, 3, 2), (3, 1, 2)),
    (0, 1): ((3, 1, 4), (0, 3, 4), (0, 4, 2)),
    (0, 1, 2): ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
}
