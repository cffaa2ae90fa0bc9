"""What lies under each texel of the head's maps: position, part, scale and directions; the same for everyone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ufe_core.head import EYE_LEFT, EYE_RIGHT, EYE_SOCKET, SKIN, STRIP, Head

_TEXTURE_SIZE = 256
#: What `TexelLayout.front` covers: left, top, right, bottom, mm in head coordinates.
FRONT_MM = (-80, -100, 80, 140)
_NO_LID_MM, _NEAR_LID_MM = 50.0, 16.0


@dataclass(frozen=True)
class TexelLayout:
    """What lies under each texel of the mean head, T x T texels.

    `position` float32 [T, T, 3] mm; `part` int64 [T, T]; `masks` float32 [T, T, 2], lip and brow; `tangents` float32
    [T, T, 2, 3], mm that one texel to the right and one down span on the skin; `coarseness` float32 [T, T], mm per
    texel whatever the direction, continuous over UV seams; `lid_mm` float32 [T, T], distance from the nearest lid's
    outer edge, negative inside (far away: 50); `lid_upper` bool [T, T]; `front` float32 [2 h, 2 w, 2], the texel
    (column, row) that lies in front at each half millimetre of `FRONT_MM`.
    """

    position: np.ndarray
    part: np.ndarray
    masks: np.ndarray
    tangents: np.ndarray
    coarseness: np.ndarray
    lid_mm: np.ndarray
    lid_upper: np.ndarray
    front: np.ndarray

    @property
    def size(self) -> int:
        """T, texels along a side."""
        return int(self.position.shape[0])

    @property
    def face_rows(self) -> int:
        """Rows above the strip of small islands."""
        return int(self.size * (1 - STRIP))

    @cached_property
    def mm_per_texel(self) -> np.ndarray:
        """How much skin a texel spans along columns and rows, float32 [T, T, 2]."""
        return np.linalg.norm(self.tangents, axis=-1)

    @cached_property
    def area_mm2(self) -> np.ndarray:
        """How much skin a texel covers, float32 [T, T]."""
        return np.linalg.norm(np.cross(self.tangents[:, :, 0], self.tangents[:, :, 1]), axis=-1)

    def texels_in_front(self, points: np.ndarray) -> np.ndarray:
        """Texel (column, row) of points [..., 2] (x, y, mm) on the face seen from straight ahead, float32 [..., 2]."""
        left, top, right, bottom = FRONT_MM
        at = (np.clip(points, [left, top], [right - 1, bottom - 1]) - [left, top]) * 2 - 0.5
        at = np.clip(at, 0, np.array(self.front.shape[1::-1]) - 1.001)
        low = at.astype(np.int64)
        fx, fy = np.moveaxis(at - low, -1, 0)[..., None]
        c, r = low[..., 0], low[..., 1]
        top_row = self.front[r, c] * (1 - fx) + self.front[r, c + 1] * fx
        low_row = self.front[r + 1, c] * (1 - fx) + self.front[r + 1, c + 1] * fx
        return np.asarray(top_row * (1 - fy) + low_row * fy, np.float32)


def texel_layout(head: Head, size: int = _TEXTURE_SIZE) -> TexelLayout:
    """Rasterise the head's attributes into its UV layout, and spread them one island border outward."""
    owner = np.zeros(len(head.uv), np.int64)
    owner[head.uv_faces.reshape(-1)] = head.faces.reshape(-1)
    tangents, coarseness = _tangents(head, size)
    hops = _lid_hops(head)
    of_vertex = np.concatenate(
        [head.template, head.part[:, None], head.albedo_mask, coarseness[:, None], np.minimum(hops, 2)[:, None]], 1
    )
    attributes = np.concatenate([of_vertex[owner], tangents.reshape(-1, 6)], 1).astype(np.float32)
    flat = np.concatenate([head.uv * size, np.full((len(head.uv), 1), 100.0)], 1).astype(np.float32)
    values = _drawn(flat, head.uv_faces, attributes, size, size)
    part = np.rint(values[..., 3]).astype(np.int64)
    part = np.where(part < SKIN, SKIN, part)
    lid_mm, lid_upper = _lid_distance(head, hops, values[..., :3], part, values[..., 7] < 1)
    return TexelLayout(
        values[..., :3].copy(), part, values[..., 4:6].copy(), values[..., 8:].reshape(size, size, 2, 3),
        values[..., 6].copy(), lid_mm, lid_upper, _front(head, size),
    )  # fmt: skip


def _drawn(
    screen: np.ndarray, faces: np.ndarray, attributes: np.ndarray, height: int, width: int,
    attribute_faces: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Attributes float32 [height, width, K] of a mesh drawn at `screen`; bare pixels take their neighbours' values."""
    import torch

    from ufe_core.ops.rasterize import interpolate, rasterize

    points, of_points = torch.from_numpy(screen)[None], torch.from_numpy(faces.astype(np.int32))
    own = None if attribute_faces is None else torch.from_numpy(attribute_faces.astype(np.int32))
    ids = rasterize(points, of_points, height=height, width=width, cull=False)
    drawn = interpolate(points, torch.from_numpy(attributes)[None], of_points, ids, attribute_faces=own)
    values, covered = np.asarray(drawn[0].numpy()), ids[0].numpy() >= 0
    while not covered.all():  # grow islands, so that bilinear lookups never meet an empty texel
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            neighbour, there = np.roll(values, step, axis), np.roll(covered, step, axis)
            fill = there & ~covered
            values[fill], covered[fill] = neighbour[fill], True
    return values


def _tangents(head: Head, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mm per texel to the right and down at each UV corner [U, 2, 3], and its size at each vertex [V]."""
    corner, flat = head.template[head.faces].astype(np.float64), head.uv[head.uv_faces].astype(np.float64) * size
    edges = np.stack([corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]], 1)
    steps = np.stack([flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]], 1)
    area = np.abs(np.linalg.det(steps))
    sound = area > 1e-4
    span = np.zeros_like(edges)
    span[sound] = np.linalg.solve(steps[sound], edges[sound])
    weight = np.where(sound, area, 0.0)
    total, share = np.zeros((len(head.uv), 2, 3)), np.full(len(head.uv), 1e-9)
    of_vertex, of_vertex_share = np.zeros(len(head.template)), np.full(len(head.template), 1e-9)
    skin_mm2 = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    for k in range(3):
        np.add.at(total, head.uv_faces[:, k], span * weight[:, None, None])
        np.add.at(share, head.uv_faces[:, k], weight)
        np.add.at(of_vertex, head.faces[:, k], skin_mm2)
        np.add.at(of_vertex_share, head.faces[:, k], weight)
    return total / share[:, None, None], np.sqrt(of_vertex / of_vertex_share)


def _lid_hops(head: Head) -> np.ndarray:
    """How many edges lie between each skin vertex and the inner rim of its lids, up to 3, int64 [V]; 1 is the edge."""
    in_socket = (head.part[head.faces] == EYE_SOCKET).any(1)
    rim = np.intersect1d(head.faces[in_socket], head.faces[~in_socket])
    hops = np.full(len(head.template), 3)
    hops[rim[head.part[rim] == SKIN]] = 0
    for hop in (1, 2):
        near = head.faces[~in_socket & (hops[head.faces] == hop - 1).any(1)]
        hops[near] = np.minimum(hops[near], hop)
    hops[np.isin(head.part, (EYE_SOCKET, EYE_LEFT, EYE_RIGHT))] = 0
    return hops


def _lid_distance(
    head: Head, hops: np.ndarray, position: np.ndarray, part: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`TexelLayout.lid_mm` and `.lid_upper`."""
    edges = np.concatenate([head.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    edges = edges[(hops[edges] == 1).all(1)]
    share = np.linspace(0, 1, 8)[:, None, None]
    line = (head.template[edges[:, 0]] * (1 - share) + head.template[edges[:, 1]] * share).reshape(-1, 3)
    distance, upper = np.full(part.shape, _NO_LID_MM, np.float32), np.zeros(part.shape, bool)
    for half in (line[line[:, 0] > 0], line[line[:, 0] < 0]):
        low, high = half.min(0) - _NEAR_LID_MM, half.max(0) + _NEAR_LID_MM
        rows = np.nonzero((part == SKIN) & ((position > low) & (position < high)).all(-1))
        to = np.linalg.norm(position[rows][:, None] - half[None].astype(np.float32), axis=-1)
        nearest = to.argmin(1)
        distance[rows] = np.minimum(to[np.arange(len(to)), nearest], _NO_LID_MM) * np.where(inside[rows], -1, 1)
        upper[rows] = half[nearest, 1] < 0.6
    return distance, upper


def _front(head: Head, size: int) -> np.ndarray:
    """`TexelLayout.front`: the skin drawn from far ahead, so nearly without perspective."""
    left, top, right, bottom = FRONT_MM
    shown = (head.part[head.faces] == SKIN).all(1) & (head.template[head.faces][..., 2] > -80).all(1)
    screen = (head.template - [left, top, 0.0]) * [2, 2, -1] + [0, 0, 5000.0]
    return _drawn(
        screen.astype(np.float32), head.faces[shown], head.uv * np.float32(size) - np.float32(0.5),
        2 * (bottom - top), 2 * (right - left), head.uv_faces[shown],
    )  # fmt: skip
