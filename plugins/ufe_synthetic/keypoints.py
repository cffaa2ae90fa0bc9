"""Keypoints: 96 named points of the face for each headset view, tied to the mesh, pupils included (P§6.6).

They are chosen once, by rule, from the mean head's topology and regions: lid and lip rings whole, other areas by
farthest-point sampling from a fixed seed. A person's keypoints are the same vertices of that person's geometry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ufe_core.errors import ContractError
from ufe_core.head import EYE_SOCKET, MOUTH_CAVITY, SKIN, Head
from ufe_core.types import CameraSpec, Side

COUNT = 96
_OFF_MIDLINE_MM = 0.5
_OUTER_LIP_POINTS = 24
_NEAR_MM = 1.0
_LIP_ASPECT = 2.2  # a mouth is about this much wider than high

#: Areas of the right half of the mean head: points wanted, seed (mm), and which skin at (x, y, z) belongs to it.
#: A point goes to the first area that takes it.
_Area = tuple[str, int, tuple[float, float, float], Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]]
_UPPER_AREAS: tuple[_Area, ...] = (
    ("lid_skin", 14, (31, -9, 15), lambda x, y, z: ((x - 31) / 19) ** 2 + (y / 11) ** 2 < 1),
    ("brow", 12, (13, -17, 26), lambda x, y, z: (x > 9) & (x < 54) & (np.abs(_below_brow(x, y)) < 4.5)),
    ("nose_bridge", 10, (0, 0, 27), lambda x, y, z: (x > -1) & (x < 13) & (y > -18) & (y < 17)),
    ("cheek", 14, (31, 18, 20), lambda x, y, z: (x > 12) & (x < 56) & (y > 8) & (y < 25) & (z > -2)),
    ("temple", 8, (52, 0, 8), lambda x, y, z: (x > 45) & (x < 60) & (np.abs(y) < 16) & (z > -8)),
    ("forehead", 8, (18, -34, 28), lambda x, y, z: (x > 2) & (x < 48) & (y > -42) & (_below_brow(x, y) < -5)),
)
_LOWER_AREAS: tuple[_Area, ...] = (
    ("nose_base", 8, (0, 50, 34), lambda x, y, z: (np.abs(x) < 19) & (y > 40) & (y < 53) & (z > 20)),
    ("nasolabial", 8, (20, 50, 26), lambda x, y, z: (np.abs(x - _fold(y)) < 5) & (y > 42) & (y < 84)),
    ("chin", 10, (0, 96, 25), lambda x, y, z: (np.abs(x) < 22) & (y > 84) & (y < 112) & (z > 0)),
    ("jaw", 8, (46, 84, -4), lambda x, y, z: (x > 26) & (x < 56) & (y > 70) & (y < 116) & (z > -36)),
)


def _below_brow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far (mm) a point of the right half lies below the middle of the brow."""
    along = np.clip((x - 12) / 40, 0, 1)
    return y + 15.5 + 6.0 * np.sin(along * np.pi * 0.75)


def _fold(y: np.ndarray) -> np.ndarray:
    """Where (x, mm) the right fold between cheek and upper lip runs, from the nose's wing past the mouth's corner."""
    return 19 + (y - 44) * 0.4


@dataclass(frozen=True)
class KeypointSet:
    """The 96 keypoints of one view.

    `names`: one a point; `vertices` int64 [n]: the mesh vertices of the first n; `pupils`: of which eyes (0 left,
    1 right) the last are the pupils. The set of a left view is the mirror of the right view's, point by point.
    """

    names: tuple[str, ...]
    vertices: np.ndarray
    pupils: tuple[int, ...]

    def positions(self, vertices: np.ndarray, pupils: np.ndarray) -> np.ndarray:
        """Where the points of N posed heads lie.

        Args:
            vertices: float32 [N, V, 3], mm, head coordinates.
            pupils: [N, 2, 3], mm: where the gaze of the left, then of the right eye leaves the eyeball.

        Returns:
            float64 [N, 96, 3], mm, head coordinates.
        """
        chosen = [vertices[:, self.vertices], pupils[:, list(self.pupils)]]
        return np.concatenate([np.asarray(points, np.float64) for points in chosen], 1)


def keypoint_set(head: Head, region: Literal["upper", "lower"], side: Side) -> KeypointSet:
    """The keypoints of a view.

    Upper views have 94 points of lids, brow, nose bridge, cheek, temple and forehead and both pupils, the own eye's
    first; lower views 96 of lips, nose, nasolabial fold, chin and jaw. A `centre` view has half of the right set and
    its mirror.

    Raises:
        ContractError: there are no keypoints of that region.
    """
    if region not in ("upper", "lower"):
        raise ContractError(f"Keypoints are of the 'upper' or the 'lower' region, not {region!r}.")
    count = COUNT - 2 if region == "upper" else COUNT
    names, rows = _right_upper(head) if region == "upper" else _right_lower(head)
    pupils: tuple[int, ...] = (1, 0) if region == "upper" else ()
    if side == "left":
        rows, pupils = _mirror(head, rows), pupils[::-1]
    elif side == "centre":
        off = np.flatnonzero(head.template[rows, 0] > _OFF_MIDLINE_MM)
        half = off[np.linspace(0, len(off) - 1, count // 2).astype(int)]
        names = tuple(f"{which}_{names[k]}" for which in ("left", "right") for k in half)
        rows, pupils = np.concatenate([_mirror(head, rows[half]), rows[half]]), pupils[::-1]
    names += tuple(("pupil_left", "pupil_right")[eye] for eye in pupils)
    return KeypointSet(names, rows, pupils)


def hidden(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, camera: CameraSpec, margin_mm: float
) -> np.ndarray:
    """Which points something hides, by the rays to them: exact, whatever an image's size.

    Args:
        points: [K, 3], mm, head coordinates, in front of the camera.
        vertices: [V, 3], mm, head coordinates, of all that may hide them.
        faces: int [F, 3]; those that reach behind the camera hide nothing.
        camera: from where.
        margin_mm: what lies less than this before a point does not hide it, as its own faces must not.

    Returns:
        bool [K].
    """
    rays, seen = (camera.rotation @ values.T + camera.translation[:, None] for values in (points, vertices))
    corners = faces[(seen[2] > _NEAR_MM)[faces].all(1)].T
    with np.errstate(divide="ignore", invalid="ignore"):  # at the camera or behind it, in no face of these
        inverse = 1 / seen[2]  # linear in the plane at 1 mm, into which everything is projected
        flat, target = seen[:2] * inverse, rays[:2] / rays[2]
    (ax, bx, cx), (ay, by, cy) = (values[corners] for values in flat)
    left, right = np.minimum(np.minimum(ax, bx), cx), np.maximum(np.maximum(ax, bx), cx)
    top, bottom = np.minimum(np.minimum(ay, by), cy), np.maximum(np.maximum(ay, by), cy)
    near = [
        np.flatnonzero((left <= x) & (right >= x) & (top <= y) & (bottom >= y)) for x, y in target.T
    ]  # fmt: skip
    k, f = np.repeat(np.arange(len(points)), [len(some) for some in near]), np.concatenate(near)
    a, b, c = (flat[:, corners[row, f]] - target[:, k] for row in range(3))
    shares = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)])
    with np.errstate(divide="ignore", invalid="ignore"):  # faces seen from the side
        shares /= shares.sum(0)
        gap = (rays[2, k] - 1 / (shares * inverse[corners[:, f]]).sum(0)) * np.sqrt(1 + (target[:, k] ** 2).sum(0))
    out = np.zeros(len(points), bool)
    out[k[(shares >= 0).all(0) & (gap > margin_mm)]] = True
    return out


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a[0] * b[1] - a[1] * b[0])


def _right_upper(head: Head) -> tuple[tuple[str, ...], np.ndarray]:
    lids = _lid_edge(head)
    return _collected([("lid", _around(head, lids))], head, _UPPER_AREAS)


def _right_lower(head: Head) -> tuple[tuple[str, ...], np.ndarray]:
    inner = _lip_seam(head)
    rings = [("lip_inner", _around(head, inner)), ("lip_outer", _around(head, _lip_border(head)))]
    return _collected(rings, head, _LOWER_AREAS)


def _collected(
    rings: list[tuple[str, np.ndarray]], head: Head, areas: tuple[_Area, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and vertices of rings and of samples of areas, none twice."""
    x, y, z = head.template.astype(np.float64).T
    groups = list(rings)
    free = (head.part == SKIN) & ~np.isin(np.arange(len(x)), np.concatenate([rows for _, rows in rings]))
    free &= ~np.isin(np.arange(len(x)), _folded_in(head))
    for name, count, seed, belongs in areas:
        area = np.flatnonzero(free & (z > -40) & belongs(x, y, z))
        free[area] = False
        groups.append((name, area[_farthest(head.template[area].astype(np.float64), np.array(seed), count)]))
    names = tuple(f"{name}_{k:02d}" for name, rows in groups for k in range(len(rows)))
    return names, np.concatenate([rows for _, rows in groups])


def _farthest(points: np.ndarray, seed: np.ndarray, count: int) -> list[int]:
    """`count` of the points [n, 3]: the nearest to the seed, then always the one farthest from all chosen."""
    chosen = [int(np.linalg.norm(points - seed, axis=1).argmin())]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return chosen


def _lid_edge(head: Head) -> np.ndarray:
    """The visible edge of the right eye's lids: the ring of skin next to the rim that meets the socket."""
    rim = _rim(head, EYE_SOCKET)
    edge = np.setdiff1d(_touching(head, rim, EYE_SOCKET), rim)
    return edge[head.template[edge, 0] > 0]


def _lip_seam(head: Head) -> np.ndarray:
    """The ring where the skin of the lips meets the mouth's inside."""
    return _rim(head, MOUTH_CAVITY)


def _lip_border(head: Head) -> np.ndarray:
    """The outer border of the lips' red: the outermost of it in each of 24 directions, as seen from ahead."""
    red = np.flatnonzero((head.albedo_mask[:, 0] > 0.5) & (head.part == SKIN) & (head.template[:, 0] > -1e-3))
    red = np.setdiff1d(red, _lip_seam(head))
    x, y, _ = head.template[red].astype(np.float64).T
    middle = head.template[_lip_seam(head), 1].astype(np.float64).mean()
    up = (middle - y) * _LIP_ASPECT
    bearing, reach = np.arctan2(x, up), np.hypot(x, up)
    bins = np.rint(bearing / np.pi * (_OUTER_LIP_POINTS // 2)).astype(int)
    half = []
    for k in range(_OUTER_LIP_POINTS // 2 + 1):
        sector = np.flatnonzero((bins == k) & ((np.abs(x) < 1e-3) == (k in (0, _OUTER_LIP_POINTS // 2))))
        half.append(int(red[sector[reach[sector].argmax()]]))
    return np.concatenate([half, _mirror(head, np.array(half[1:-1]))])


def _rim(head: Head, part: int) -> np.ndarray:
    """Skin vertices that faces of an inner part share with faces of the skin."""
    inside = (head.part[head.faces] == part).any(1)
    rim = np.intersect1d(head.faces[inside], head.faces[~inside])
    return rim[head.part[rim] == SKIN]


def _touching(head: Head, rows: np.ndarray, part: int) -> np.ndarray:
    """Skin vertices of the faces outside an inner part that have a corner among `rows`."""
    outside = head.faces[~(head.part[head.faces] == part).any(1)]
    near = np.unique(outside[np.isin(outside, rows).any(1)])
    return near[head.part[near] == SKIN]


def _folded_in(head: Head) -> np.ndarray:
    """Skin next to the lids' and the mouth's inner rims, which the face's resting skin covers."""
    return np.union1d(_touching(head, _rim(head, EYE_SOCKET), EYE_SOCKET), _rim(head, MOUTH_CAVITY))


def _around(head: Head, rows: np.ndarray) -> np.ndarray:
    """The vertices by their bearing from their middle, seen from ahead: from above over the subject's left."""
    x, y, _ = (head.template[rows] - head.template[rows].mean(0)).astype(np.float64).T
    return rows[np.argsort(np.arctan2(x, y), kind="stable")]


def _mirror(head: Head, rows: np.ndarray) -> np.ndarray:
    """The vertices on the other side of the symmetric mesh."""
    across = head.template[rows].astype(np.float64) * [-1.0, 1.0, 1.0]
    return np.array([np.linalg.norm(head.template - point, axis=1).argmin() for point in across])
