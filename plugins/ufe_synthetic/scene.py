"""Everything that one capture's cameras can see, in one vertex array: the head, what it wears, the headset, a hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ufe_core.geometry import rotate_eyeballs
from ufe_core.head import EYE_LEFT, EYE_RIGHT, EYE_SOCKET, MOUTH_CAVITY, TONGUE, Head
from ufe_core.interfaces.source import SEGMENTS
from ufe_core.ops.rasterize import depth_keys, key_depths

Carrier = Literal["head", "left eye", "right eye", "headset", "hand"]

EYE_CARRIERS: tuple[tuple[int, Carrier], ...] = ((EYE_LEFT, "left eye"), (EYE_RIGHT, "right eye"))

#: What surfaces are made of: albedo in infrared, gloss, gloss exponent, how far light wraps round, painted or plain.
#: The row is the material; `SEGMENT_OF` says which segmentation class it belongs to.
MATERIALS: dict[str, tuple[float, float, float, float, float]] = {
    "nothing": (0, 0, 1, 0, 0),
    "skin": (0, 0.16, 14, 0.25, 1),
    "lips": (0, 0.30, 22, 0.25, 1),
    "teeth": (0.72, 0.5, 60, 0.15, 0),
    "tongue": (0.46, 0.25, 18, 0.3, 0),
    "mouth": (0.24, 0.15, 18, 0.2, 0),
    "eye": (0, 260.0, 1, 0.3, 0),
    "glasses": (0.09, 0.35, 40, 0, 0),
    "hand": (0.62, 0.12, 12, 0.25, 0),
    "headset": (0.035, 0.03, 8, 0, 0),
    "lash": (0.10, 0.05, 10, 0, 0),
    "gum": (0.42, 0.3, 24, 0.25, 0),
    "lens": (0.0, 260.0, 1, 0, 0),
    "cloth": (0.2, 0.0, 1, 0.3, 0),
}
_CLASS_OF = {"nothing": "background", "cloth": "background", "lash": "lashes", "gum": "mouth", "lens": "glasses"}
SEGMENT_OF = np.array([SEGMENTS.index(_CLASS_OF.get(name, name)) for name in MATERIALS], np.uint8)
_ROW = {name: row for row, name in enumerate(MATERIALS)}
#: Share of the emitters' light on what no shadow map of the resting face can tell: teeth, tongue, cavity and parts.
_INNER_LIGHT = 0.55
_OPEN_LIGHT = {"eye": 0.9, "teeth": 0.8, "glasses": 1.0, "lens": 1.0, "cloth": 0.8, "headset": 1.0, "hand": 1.0}
_SHADOW_PX, _SHADOW_BIAS_MM, _SHADOW_CONE_DEG = 192, 1.2, 88.0


@dataclass(frozen=True)
class Part:
    """A mesh beside the head's own.

    `vertices` float32 [P, 3] mm, at rest, in the coordinates of what it `follows`; `faces` int32 [Q, 3],
    counter-clockwise seen from outside; `material` names a row of `MATERIALS`; `actions` float32 [52, P, 3], mm at full
    activation, or None where the part is rigid; `two_sided` parts are seen from behind as well; `albedo` float32 [Q]
    replaces that of the material. Eyes turn with the gaze; `headset` and `hand` move by the poses that `Scene.pose`
    is given, from head coordinates and from the hand's own.
    """

    vertices: np.ndarray
    faces: np.ndarray
    material: str
    actions: np.ndarray | None = None
    two_sided: bool = False
    follows: Carrier = "head"
    albedo: np.ndarray | None = None


class Scene:
    """The meshes of one capture: vertices are the head's V, then the parts'.

    `rest` float64 [count, 3]: all of them at rest; `faces` int32 [F, 3]; `material` int32 [F]; `albedo` float32 [F],
    NaN where the material's holds; `uv_faces` int32 [F, 3] (zero where nothing is painted); `rows`: the vertices
    int64 [n] of the parts that follow something other than the head; `eyes`: vertices [n] and centre [3] of the left,
    then the right eyeball, those of the head included; `pupils`: the foremost vertex of each eyeball part, if it has
    any. Faces of the head's own eyeballs are left out where parts replace them.
    """

    def __init__(self, head: Head, neutral: np.ndarray, parts: Sequence[Part]) -> None:
        self.head, self.neutral = head, neutral
        self.head_count = len(neutral)
        starts = np.cumsum([self.head_count, *(len(part.vertices) for part in parts)])
        self.count = int(starts[-1])
        self.rest = np.concatenate([neutral, *(part.vertices for part in parts)]).astype(np.float64)
        own_material = head_materials(head)
        shown = np.ones(len(own_material), bool)
        if any(part.material == "eye" for part in parts):
            shown = own_material != _ROW["eye"]
        actions = np.zeros((len(head.actions), self.count, 3))
        actions[:, : self.head_count] = head.actions
        faces, material = [head.faces[shown].astype(np.int32)], [own_material[shown]]
        albedo = [np.full(int(shown.sum()), np.nan, np.float32)]
        self.rows: dict[str, np.ndarray] = {}
        for start, part in zip(starts[:-1], parts, strict=True):
            if part.actions is not None:
                actions[:, start : start + len(part.vertices)] = part.actions
            own = part.faces.astype(np.int32) + np.int32(start)
            for side in [own, own[:, ::-1]] if part.two_sided else [own]:
                faces.append(side)
                material.append(np.full(len(side), _ROW[part.material], np.int32))
                albedo.append(np.full(len(side), np.nan, np.float32) if part.albedo is None else part.albedo)
            if part.follows != "head":
                rows = np.arange(start, start + len(part.vertices))
                self.rows[part.follows] = np.concatenate([self.rows.get(part.follows, rows[:0]), rows])
        self.faces = np.ascontiguousarray(np.concatenate(faces))
        self.material, self.albedo = np.concatenate(material), np.concatenate(albedo)
        self.uv_faces = np.zeros_like(self.faces)
        self.uv_faces[: len(faces[0])] = head.uv_faces[shown]
        self._moving = np.flatnonzero(np.abs(actions).max((0, 2)) > 0)
        self._flat = np.ascontiguousarray(actions[:, self._moving].reshape(len(head.actions), -1))
        self.eyes = []
        self.pupils = []
        for part_id, name in EYE_CARRIERS:
            own = np.flatnonzero(head.part == part_id)
            added = self.rows.get(name, own[:0])
            self.eyes.append((np.concatenate([own, added]), neutral[own].astype(np.float64).mean(0)))
            self.pupils += added[:1].tolist()

    def pose(
        self, expression: np.ndarray, gaze: np.ndarray,
        placed: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Vertices float32 [N, count, 3]: blendshapes, then eyeballs by gaze, then what is placed.

        Args:
            expression: float32 [N, 52].
            gaze: float32 [N, 6].
            placed: for `headset` and `hand`, rotation [3, 3] and translation [3] in each frame; what has none stays.
        """
        out = np.empty((len(expression), self.count, 3), np.float32)
        for n, code in enumerate(expression):  # frame by frame: a frame's bits depend on no other frame
            out[n] = self.rest
            moved = (code.astype(np.float64) @ self._flat).reshape(-1, 3)
            out[n, self._moving] = self.rest[self._moving] + moved
            for name, poses in (placed or {}).items():
                rows = self.rows.get(name)
                if rows is not None:
                    rotation, translation = poses[n]
                    out[n, rows] = self.rest[rows] @ rotation.T + translation
        rotate_eyeballs(out, gaze, self.eyes)
        return out


def head_materials(head: Head) -> np.ndarray:
    """Material of each of the head's faces, int32 [F]."""
    corner = head.part[head.faces]
    lips = head.albedo_mask[head.faces, 0].mean(1) > 0.5
    material = np.where(lips, _ROW["lips"], _ROW["skin"])
    for part, name in ((MOUTH_CAVITY, "mouth"), (TONGUE, "tongue"), (EYE_LEFT, "eye"), (EYE_RIGHT, "eye")):
        material[(corner == part).any(1)] = _ROW[name]
    return material.astype(np.int32)


def ambient_exposure(head: Head, directions: int = 48) -> np.ndarray:
    """How much of the surroundings each vertex of the mean head sees, float32 [V] in [0, 1] (ambient occlusion)."""
    golden = np.pi * (3 - np.sqrt(5))
    k = np.arange(directions) + 0.5
    up, turn = 1 - 2 * k / directions, golden * k
    towards = np.stack([np.sqrt(1 - up**2) * np.cos(turn), np.sqrt(1 - up**2) * np.sin(turn), up], -1)
    points, normals = head.template.astype(np.float64), _normals(head.template, head.faces)
    seen, possible = np.zeros(len(points)), np.zeros(len(points))
    for direction in towards:
        weight = np.clip(normals @ direction, 0, None)
        possible += weight
        seen += weight * lit_share(points, head.faces, points, direction, parallel=True)
    exposed = seen / np.maximum(possible, 1e-9)
    exposed[np.isin(head.part, (MOUTH_CAVITY, TONGUE))] *= 0.4
    return exposed.astype(np.float32)


def emitter_visibility(scene: Scene, emitters: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Share of each emitter that reaches each vertex of the resting face, float32 [L, count].

    Shadows are cast once per session, by the neutral face: they do not follow the expression. What the shadow map
    cannot tell, since lips and lids hide it at rest, gets a constant share.
    """
    head = scene.head
    out = np.full((len(emitters), scene.count), _INNER_LIGHT, np.float32)
    for name, share in _OPEN_LIGHT.items():
        out[:, np.unique(scene.faces[scene.material == _ROW[name]])] = share
    points = scene.neutral.astype(np.float64)
    inside = np.isin(head.part, (MOUTH_CAVITY, TONGUE, EYE_SOCKET))
    eyes = np.isin(head.part, (EYE_LEFT, EYE_RIGHT))
    neighbours = edges_of(head.faces)
    for k, (place, direction) in enumerate(zip(emitters, directions, strict=True)):
        lit = lit_share(points, head.faces, np.broadcast_to(place, points.shape), direction, parallel=False)
        lit = smoothed(lit, neighbours)
        lit[inside], lit[eyes] = _INNER_LIGHT, _OPEN_LIGHT["eye"]
        out[k, : scene.head_count] = lit
    return out


def lit_share(
    points: np.ndarray, faces: np.ndarray, origin: np.ndarray, axis: np.ndarray, *, parallel: bool
) -> np.ndarray:
    """Which points see a light, softened over a few texels of its shadow map, [V] in [0, 1].

    The map is orthographic along `axis` (towards the light) for parallel light, else equidistant about `axis` (out of
    the light) from `origin`.
    """
    side = np.cross(axis, [0.0, 1.0, 0.0] if abs(axis[1]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    basis = np.stack([side, np.cross(axis, side), axis])
    if parallel:
        q = points @ basis.T
        plane, depth = q[:, :2] * [1.0, -1.0], 1000.0 - q[:, 2]  # mirrored: seen from the light, outside is in front
        plane = (plane - plane.min(0)) / np.ptp(plane, axis=0).max() * 2 - 1
    else:
        q = (points - origin) @ basis.T
        depth, across = np.linalg.norm(q, axis=1), np.linalg.norm(q[:, :2], axis=1)
        angle = np.degrees(np.arctan2(across, q[:, 2]))
        plane = q[:, :2] / np.maximum(across, 1e-9)[:, None] * (angle / _SHADOW_CONE_DEG)[:, None]
        depth = np.where(angle < _SHADOW_CONE_DEG, depth, 0.0)
    pixel = (plane * 0.98 + 1) / 2 * _SHADOW_PX
    screen = np.concatenate([pixel, depth[:, None]], 1).astype(np.float32)
    keys = depth_keys(
        torch.from_numpy(screen)[None], torch.from_numpy(faces.astype(np.int32)), height=_SHADOW_PX, width=_SHADOW_PX
    )[0]
    nearest = key_depths(keys).numpy()
    column, row = np.floor(pixel).astype(int).T
    lit = np.zeros(len(points))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            r, c = np.clip(row + dy, 0, _SHADOW_PX - 1), np.clip(column + dx, 0, _SHADOW_PX - 1)
            lit += (depth <= nearest[r, c] + _SHADOW_BIAS_MM * (1 + abs(dx) + abs(dy))) & (depth > 0)
    return lit / 9


def _normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit vertex normals [V, 3]."""
    a, b, c = (points[faces[:, k]].astype(np.float64) for k in range(3))
    facet = np.cross(b - a, c - a)
    total = np.zeros((len(points), 3))
    for k in range(3):
        np.add.at(total, faces[:, k], facet)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def edges_of(faces: np.ndarray) -> np.ndarray:
    """Each edge of a mesh once, [E, 2]."""
    return np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)


def smoothed(values: np.ndarray, edges: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Average over neighbours on the mesh, a few times."""
    for _ in range(rounds):
        total, count = values.copy(), np.ones(len(values))
        for a, b in ((0, 1), (1, 0)):
            np.add.at(total, edges[:, a], values[edges[:, b]])
            np.add.at(count, edges[:, a], 1.0)
        values = total / count
    return values
