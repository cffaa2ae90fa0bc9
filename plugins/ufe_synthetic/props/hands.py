"""A hand that reaches into the cameras' view and touches the face."""

from __future__ import annotations

import itertools

import numpy as np

from ufe_synthetic.props.mesh import Mesh, join, loft, sweep, turn, unit
from ufe_synthetic.scene import Part

# A right hand in mm: +x towards the thumb, +y along the fingers, +z out of the palm.
#: Knuckles, and the lengths of the three bones beyond, from index to little finger.
_KNUCKLES = np.array([[26.5, 84.0, 0.0], [8.5, 89.0, -1.0], [-9.5, 86.0, -1.0], [-26.0, 77.0, 0.0]])
_BONES = np.array([[43.0, 25.0, 22.0], [47.0, 29.0, 23.0], [43.0, 27.0, 23.0], [34.0, 20.0, 20.0]])
_THICK = np.array([[10.6, 8.4], [10.8, 8.6], [10.2, 8.2], [9.0, 7.2]])  # radius at knuckle and tip
_SPREAD_DEG = np.array([4.0, 0.0, -4.0, -10.0])
_POINTING_DEG = np.array([[12.0, 16.0, 8.0], [78.0, 96.0, 44.0], [82.0, 98.0, 46.0], [80.0, 96.0, 46.0]])
_RELAXED_DEG = np.array([[22.0, 28.0, 14.0], [20.0, 28.0, 14.0], [22.0, 28.0, 14.0], [26.0, 30.0, 16.0]])
#: Sections of palm, wrist and forearm: y, half width, half thickness, shift along x and z.
_PALM = np.array([
    [-130, 35, 31, 0, -4], [-80, 31, 25, 0, -4], [-35, 27, 19, 0, -3], [-12, 26, 17, 1, -2], [6, 30, 18, 2, 0],
    [26, 36, 18, 1, 0], [48, 38.5, 16.5, 0, 0], [70, 38.5, 14, 0, 0], [84, 36, 11.5, 0, 0], [93, 29, 8, 2, 0],
    [97, 18, 4, 3, 0],
])  # fmt: skip
#: Where a fingertip touches the mean face, and where the hand waits, out of sight (mm, head coordinates).
_TOUCHES = {
    "right cheek": (46.0, 52.0, 14.0),
    "left cheek": (-46.0, 52.0, 14.0),
    "chin": (0.0, 100.0, 30.0),
    "nose": (3.0, 40.0, 43.0),
}
_WAITING = np.array([60.0, 250.0, 150.0])
_PALM_AROUND = 28
_REACH_S, _CLEAR_MM = 0.7, 2.0
_CELL_MM, _FIRST_CELL, _CELLS = 4.0, np.array([-88.0, -40.0]), (45, 50)  # map of the face: x by y


def hand(rng: np.random.Generator) -> Part:
    """A right hand with wrist, pointing or relaxed; its own coordinates begin at the tip of the index finger."""
    pointing = rng.uniform(0.0, 1.0) < 0.6
    bend = (_POINTING_DEG if pointing else _RELAXED_DEG) + rng.normal(0, 4.0, (4, 3))
    size = rng.normal(1.0, 0.06)
    meshes: list[Mesh] = [_palm()]
    tip = np.zeros(3)
    for k in range(4):
        path, radii = _finger(k, bend[k])
        tip = path[-1] if k == 0 else tip
        meshes.append(sweep(path, radii, across=16, up=np.array([0.0, -0.35, -1.0])))
    meshes.append(_thumb(folded=pointing))
    vertices, faces = join(meshes)
    return Part(((vertices - tip) * size).astype(np.float32), faces, "hand", follows="hand")


def _palm() -> Mesh:
    angle = np.arange(_PALM_AROUND) * 2 * np.pi / _PALM_AROUND
    power = 2 / 2.5
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    z = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    y, wide, thick, shift, lift = (column[:, None] for column in _PALM.T)
    rings = np.stack([shift + wide * x, np.broadcast_to(y, (len(_PALM), _PALM_AROUND)), lift + thick * z], -1)
    return loft(rings, start=_PALM[0, [3, 0, 4]], end=_PALM[-1, [3, 0, 4]] + [0, 1.5, 0])


def _finger(k: int, bend_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [N, 3] and radii [N, 2] of a finger, which bends towards the palm smoothly at its three joints."""
    bones = _BONES[k]
    total = bones.sum()
    base = 12.0  # the sweep begins inside the palm
    joints = np.array([0.0, bones[0], bones[0] + bones[1]])
    fine = np.linspace(-base, total, 240)
    bend = (np.radians(bend_deg) / (1 + np.exp(-(fine[:, None] - joints) / 2.2))).sum(1)
    spread = np.radians(_SPREAD_DEG[k])
    heading = np.stack([np.sin(spread) * np.cos(bend), np.cos(spread) * np.cos(bend), np.sin(bend)], 1)
    line = np.concatenate([np.zeros((1, 3)), np.cumsum(heading[:-1] * np.diff(fine)[:, None], 0)])
    line += _KNUCKLES[k] - line[np.argmin(np.abs(fine))]
    end = _THICK[k, 1]
    places = np.concatenate([
        [-base, -4.0], *([j - 3.5, j + 3.5] for j in joints[1:]), [bones[0] * 0.5, total - 13.0],
        total - end * np.array([1.0, 0.75, 0.5, 0.3, 0.15, 0.05, 0.0]),
    ])  # fmt: skip
    places = np.sort(places)
    width = np.interp(places, [-base, 0, total - end], [_THICK[k, 0] * 0.7, _THICK[k, 0], _THICK[k, 1]])
    width *= 1 + 0.05 * np.exp(-(((places[:, None] - joints[1:]) / 6) ** 2)).sum(1)
    rounding = np.sqrt(np.clip(1 - np.clip((places - total + end) / end, 0, 0.995) ** 2, 0, 1))
    path = np.stack([np.interp(places, fine, line[:, c]) for c in range(3)], 1)
    return path, np.stack([width, width * 0.92], 1) * rounding[:, None]


def _thumb(*, folded: bool) -> Mesh:
    corners = np.array(
        [[10.0, -2.0, -2.0], [32.0, 32.0, 16.0], [46.0, 56.0, 22.0], [50.0, 76.0, 24.0], [51.0, 88.0, 24.0]]
    )
    if folded:
        corners = np.array(
            [[10.0, -2.0, -2.0], [31.0, 32.0, 18.0], [38.0, 56.0, 28.0], [28.0, 73.0, 37.0], [18.0, 79.0, 40.0]]
        )
    fine = np.linspace(0, 4, 80)
    smooth = np.stack([np.interp(fine, np.arange(5), corners[:, c]) for c in range(3)], 1)
    for _ in range(40):
        smooth[1:-1] = (smooth[:-2] + 2 * smooth[1:-1] + smooth[2:]) / 4
    share = np.array([0.0, 0.14, 0.28, 0.42, 0.54, 0.66, 0.78, 0.88, 0.92, 0.95, 0.975, 0.992, 1.0])
    path = np.stack([np.interp(share * 4, fine, smooth[:, c]) for c in range(3)], 1)
    width = np.array([9.0, 15.5, 16.5, 13.6, 11.2, 11.0, 10.4, 9.9, 9.0, 7.6, 5.9, 3.6, 0.8])
    return sweep(path, np.stack([width, width * 0.9], 1), across=16, up=np.array([-0.3, -0.2, -1.0]))


def hand_motion(rng: np.random.Generator, seconds: np.ndarray, shape: np.ndarray, face: np.ndarray) -> np.ndarray:
    """How the hand moves: it reaches for cheek, chin or nose, rests or rubs there and leaves, again and again.

    Args:
        rng: draws what is touched and when.
        seconds: float [N], times of the frames, from 0.
        shape: float32 [P, 3] mm, the hand's vertices; no part of it goes through the face.
        face: float32 [V, 3] mm, the resting face to touch.

    Returns:
        float64 [N, 3, 4], hand to head coordinates: rotation and, in the last column, the index finger's tip.
    """
    out = np.empty((len(seconds), 3, 4))
    names, heights = sorted(_TOUCHES), _heights(face)
    begin, clock = 0.0, rng.uniform(0.2, 0.8)
    end = float(np.max(seconds, initial=0.0))
    while begin <= end:
        stay = rng.uniform(0.8, 2.2)
        finish = clock + 2 * _REACH_S + stay + rng.uniform(0.6, 2.5)
        chosen = (seconds >= begin) & (seconds < finish)
        name = names[rng.integers(len(names))]
        out[chosen] = _touch(rng, seconds[chosen] - clock, stay, name, shape, heights)
        begin, clock = finish, finish + 0.2
    return out


def _touch(
    rng: np.random.Generator, since: np.ndarray, stay: float, name: str, shape: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    """Poses [N, 3, 4] of one touch that begins at 0; before and after it the hand waits."""
    target = np.array(_TOUCHES[name]) + rng.normal(0, 3.0, 3) * [1, 1, 0]
    waiting = _pose(unit(np.array([-0.2, -0.9, -0.4])))
    reaching = _pose(unit(target - _WAITING))
    placed = shape @ reaching.T + [*target[:2], 0.0]
    target[2] = np.max(heights[_cells(placed)] - placed[:, 2]) + _CLEAR_MM  # some finger touches
    swing, rate = rng.uniform(1.5, 4.0), rng.uniform(0.6, 1.4)
    close = _ease(since / _REACH_S) * _ease((2 * _REACH_S + stay - since) / _REACH_S)
    between = waiting.T @ reaching
    angle = np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))
    axis = unit(np.array([between[2, 1] - between[1, 2], between[0, 2] - between[2, 0], between[1, 0] - between[0, 1]]))
    tip = _WAITING + close[:, None] * (target - _WAITING)
    tip += (swing * np.sin(2 * np.pi * rate * since) * close**4)[:, None] * reaching[:, 0]
    rotation = waiting @ turn(np.broadcast_to(axis, (len(since), 3)), close * angle)
    return np.concatenate([rotation, tip[:, :, None]], 2)


def _heights(face: np.ndarray) -> np.ndarray:
    """Greatest z (mm) of a face over cells of x and y, each with its neighbours; far behind where there is none."""
    out = np.full(_CELLS, -1000.0)
    for dx, dy in itertools.product((-_CELL_MM, 0.0, _CELL_MM), repeat=2):
        near = face[face[:, 2] > -40] + [dx, dy, 0.0]
        np.maximum.at(out, _cells(near), near[:, 2])
    out[[0, -1]], out[:, [0, -1]] = -1000.0, -1000.0
    return out


def _cells(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the map that points [N, 3] lie over; those beyond it in its outermost ones."""
    cell = np.clip(np.rint((points[:, :2] - _FIRST_CELL) / _CELL_MM).astype(int), 0, np.array(_CELLS) - 1)
    return cell[:, 0], cell[:, 1]


def _pose(ahead: np.ndarray) -> np.ndarray:
    """Rotation [3, 3], hand to head coordinates, of a hand whose fingers point `ahead`, its palm to the face."""
    palm = np.array([0.0, -0.35, -1.0])
    palm = unit(palm - (palm @ ahead) * ahead)
    return np.stack([np.cross(ahead, palm), ahead, palm], 1)


def _ease(share: np.ndarray) -> np.ndarray:
    """0 to 1 with speed and acceleration zero at both ends."""
    s = np.clip(share, 0, 1)
    return np.asarray(s**3 * (10 - 15 * s + 6 * s**2))
