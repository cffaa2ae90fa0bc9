"""Eyelashes that ride on the lids and roll with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufe_core.head import ACTIONS, EYE_LEFT, EYE_RIGHT, EYE_SOCKET, SKIN, Head
from ufe_synthetic.props.mesh import turn, unit
from ufe_synthetic.scene import Part

_FRONT_EDGE = 3  # edge loops from where the lid's lining begins to the lid's front edge
_NOMINAL_EYE_MM = 26.0  # corner to corner of the mean head's lids
_FREE_MM = 0.3  # between a lash and eyeball or skin
_HALF_WIDTH_MM = (0.15, 0.10)  # of a blade, at its root and middle
#: Actions that bring lids or brow onto lashes, and the action that may be there already.
_PRESSING = (("eyeLookUp", ""), ("eyeWide", ""), ("browDown", "eyeWide"))
_PRESS_STEP, _PRESS_STEPS = 0.13, 5  # radians


@dataclass(frozen=True)
class _Row:
    """How one row of lashes grows: how many, mm long, how far from corner to corner, which way, how they roll.

    `root_tilt` and `tip_tilt` are degrees away from the eye's opening, `roll` the turn of a lash over the turn of its
    lid round the eyeball.
    """

    count: int
    length: float
    span: tuple[float, float]
    root_tilt: float
    tip_tilt: float
    roll: float


_UPPER = _Row(50, 8.0, (0.12, 0.98), -4.0, 62.0, 1.6)
_LOWER = _Row(28, 5.0, (0.22, 0.96), 30.0, 68.0, 1.0)


def lashes(head: Head, geometry: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """Upper and lower lashes of both eyes, as one part: tapered curved blades of three triangles.

    Args:
        head: the mean head.
        geometry: float32 [V, 3] mm, this person's resting face.
        rng: draws density, length and curl of this person, and the stray of each lash.

    Returns:
        One two-sided part. Its actions carry each blade with the lid under its root and turn it about the root as the
        lid rolls over the eyeball: after a full blink the upper lashes point down and out.
    """
    density, length, curl = rng.uniform(0.75, 1.15), rng.normal(1.0, 0.1), rng.uniform(0.6, 1.15)
    vertices: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    for eye in (EYE_LEFT, EYE_RIGHT):
        rows = geometry[head.part == eye].astype(np.float64)
        ball = rows.mean(0), float(np.linalg.norm(rows - rows.mean(0), axis=1).max())
        for row, margin in zip((_UPPER, _LOWER), lid_margins(head, eye), strict=True):
            grown = _grow(head, geometry, margin, ball, row, (density, length, curl), rng)
            vertices.append(grown[0])
            actions.append(grown[1])
    points = np.concatenate(vertices).astype(np.float32)
    blade = np.array([[0, 1, 3], [0, 3, 2], [2, 3, 4]])
    faces = (np.arange(len(points) // 5)[:, None, None] * 5 + blade).reshape(-1, 3).astype(np.int32)
    return [Part(points, faces, "lash", np.concatenate(actions, 1).astype(np.float32), two_sided=True)]


def lid_margins(head: Head, eye: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices along the front edge of the upper and of the lower lid, each from the inner to the outer corner.

    The lid turns in towards the eyeball over a few edge loops; the front edge is the loop where it turns.
    """
    side = np.sign(head.template[head.part == eye, 0].mean())
    here = head.template[:, 0] * side > 0
    reached = loop = here & (head.part == EYE_SOCKET)
    for _ in range(_FRONT_EDGE + 1):
        loop = _beside(head.faces, loop) & (head.part == SKIN) & here & ~reached
        reached = reached | loop
    ring = np.flatnonzero(loop)
    x, y = head.template[ring, 0] * side, head.template[ring, 1]
    angle = np.arctan2(y - y.mean(), x - x.mean())
    around = (angle - angle[np.argmin(x)]) % (2 * np.pi)
    order = ring[np.argsort(around)]
    outer = int(np.flatnonzero(order == ring[np.argmax(x)])[0])
    return order[: outer + 1], np.concatenate([order[:1], order[: outer - 1 : -1]])


def _beside(faces: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Vertices that share a face with a chosen one."""
    out = np.zeros(len(chosen), bool)
    out[faces[chosen[faces].any(1)]] = True
    return out


def _skin_about(head: Head, geometry: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] of the skin within reach of an eye's lashes, and normals [N, 3] there."""
    near = (head.part == SKIN) & (np.linalg.norm(geometry - centre, axis=1) < 34)
    corners = geometry[head.faces[near[head.faces].all(1)]].astype(np.float64)
    normal = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) + 1e-12)
    weights = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / np.array([[3], [6], [6], [6]])
    points = np.einsum("pk,fkd->fpd", weights, corners)
    return points.reshape(-1, 3), np.repeat(normal, len(weights), axis=0)


def _depth_below(skin: tuple[np.ndarray, np.ndarray], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How deep (mm) points [N, 3] lie under the nearest skin, negative outside, and its normals [N, 3]."""
    nearest = np.argmin((skin[0] ** 2).sum(1) - 2 * points @ skin[0].T, axis=1)
    normal = skin[1][nearest]
    return ((skin[0][nearest] - points) * normal).sum(1), normal


def _grow(
    head: Head, geometry: np.ndarray, margin: np.ndarray, eye: tuple[np.ndarray, float], row: _Row,
    person: tuple[float, float, float], rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Vertices [5 K, 3] and actions [52, 5 K, 3] of one row on one lid."""
    density, length, curl = person
    centre, ball = eye
    skin = _skin_about(head, geometry, centre)
    line = geometry[margin].astype(np.float64)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    count = round(row.count * density)
    place = np.linspace(*row.span, count) + rng.normal(0, 0.12 / count, count)
    at = np.interp(place * along[-1], along, np.arange(len(margin)))
    low = np.minimum(at.astype(int), len(margin) - 2)
    share = (at - low)[:, None]
    root = line[low] * (1 - share) + line[low + 1] * share
    root = centre + unit(root - centre) * np.maximum(np.linalg.norm(root - centre, axis=1), ball + _FREE_MM)[:, None]
    moved = head.actions[:, margin].astype(np.float64)
    moved = moved[:, low] * (1 - share) + moved[:, low + 1] * share

    radius = np.linalg.norm(root - centre, axis=1)
    out = (root - centre) / radius[:, None]
    chord = unit(line[-1] - line[0])
    side = unit(chord - (out @ chord)[:, None] * out)
    away = np.cross(out, side)
    away *= np.sign((away * (line.mean(0) - (line[0] + line[-1]) / 2)).sum(1, keepdims=True).sum())

    size = float(np.linalg.norm(line[-1] - line[0])) / _NOMINAL_EYE_MM
    long = row.length * length * size * (0.62 + 0.38 * np.sin(np.clip(place * 0.75, 0, 1) * np.pi))
    long *= rng.uniform(0.8, 1.08, count)
    fan = (place - 0.42) * 0.9 + rng.normal(0, 0.12, count)
    root_angle = np.radians(row.root_tilt + rng.normal(0, 4, count))
    tip_angle = np.radians(row.tip_tilt * curl + rng.normal(0, 6, count))

    def shape(tilt: float) -> tuple[np.ndarray, np.ndarray]:
        points, last = [], root
        for angle in ((2 * root_angle + tip_angle * tilt) / 3, tip_angle * tilt):
            straight = np.cos(angle)[:, None] * out + np.sin(angle)[:, None] * away
            last = last + 0.5 * long[:, None] * unit(straight + fan[:, None] * side)
            points.append(last)
        return points[0], points[1]

    middle, tip = shape(1.0)
    for tilt in (0.75, 0.5, 0.25, 0.0, -0.25, -0.5):  # a heavy lid or brow presses lashes forward
        buried = _depth_below(skin, tip)[0] > -_FREE_MM
        if not buried.any():
            break
        for points, straighter in zip((middle, tip), shape(tilt), strict=True):
            points[buried] = straighter[buried]
    wide, narrow = (side * half for half in _HALF_WIDTH_MM)
    blades = np.stack([root - wide, root + wide, middle - narrow, middle + narrow, tip], 1)

    angle = row.roll * (moved * away).sum(-1) / radius
    axis = np.cross(out, away)
    arm = blades - root[:, None]
    side_name = "Right" if centre[0] > 0 else "Left"
    for name, before in _PRESSING:
        done = [ACTIONS.index(before + side_name)] if before else []
        both = [ACTIONS.index(name + side_name), *done]
        pressed = _skin_about(head, geometry + head.actions[both].sum(0), centre)
        turned = _laid_on(pressed, root + moved[both].sum(0), arm[:, 2:], axis, angle[both].sum(0))
        angle[both[0]] = turned - angle[done].sum(0)
    swung = np.einsum("akij,kpj->akpi", turn(axis, angle), arm) - arm + moved[:, :, None]
    return blades.reshape(-1, 3), swung.reshape(len(moved), -1, 3)


def _laid_on(
    skin: tuple[np.ndarray, np.ndarray], root: np.ndarray, arm: np.ndarray, axis: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Angles [K] near `angle` [K] by which arms [K, P, 3] turn about axes [K, 3] at their roots and clear the skin."""
    out = angle.copy()
    for _ in range(_PRESS_STEPS):
        swung = np.einsum("kij,kpj->kpi", turn(axis, out), arm)
        depth, normal = _depth_below(skin, (root[:, None] + swung).reshape(-1, 3))
        deepest = depth.reshape(arm.shape[:2]).argmax(1)
        rows = np.arange(len(arm))
        buried = depth.reshape(arm.shape[:2])[rows, deepest] > 0
        if not buried.any():
            break
        rising = (np.cross(axis, swung[rows, deepest]) * normal.reshape(arm.shape)[rows, deepest]).sum(1)
        out += np.where(buried, _PRESS_STEP * np.sign(rising), 0.0)
    return out
