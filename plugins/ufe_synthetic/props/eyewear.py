"""Glasses, sized to a face and resting on its nose."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ufe_core.head import EYE_LEFT, EYE_RIGHT, SKIN, Head
from ufe_synthetic.props.mesh import Mesh, join, loft, strip_faces, surface_points, sweep
from ufe_synthetic.scene import Part

_AROUND = 64  # points of a lens's outline
_ROUND = 8  # points round a rim or arm
_LENS_CURVE_MM = 110.0  # radius of the lenses' front
_TILT = np.tan(np.radians(7.0))  # lenses lean towards the cheeks
_CLEARANCE_MM = 0.8
_PAD_ALBEDO = 0.45  # clear silicone over skin
_TEMPLE_END_Z = -50.0  # in front of the ears
_GRID = np.array([80, 55])  # half size (mm) of the map of the face


@dataclass(frozen=True)
class _Style:
    """A frame's shape: height over width of a lens, squareness of its outline, half thickness of rim and arms (mm)."""

    aspect: float
    power: float
    rim: float
    wire: float


_STYLES = (_Style(0.92, 2.0, 0.9, 0.9), _Style(0.68, 4.0, 1.5, 1.5), _Style(0.70, 3.0, 0.5, 0.7))


@dataclass(frozen=True)
class _Fit:
    """Where a pair of lenses sits: middle of the right one (mm), its width and height."""

    middle: np.ndarray
    width: float
    height: float
    style: _Style

    def surface(self, across: np.ndarray, down: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the right lens's front, `across` (away from the nose) and `down` mm from its middle."""
        sag = (across**2 + down**2) / (2 * _LENS_CURVE_MM)
        x, y, z = self.middle
        return np.stack([x + across, y + down, z - _TILT * down - sag], -1)

    def outline(self, grow: float = 0.0) -> np.ndarray:
        """The lens's outline, `grow` mm wider: float64 [_AROUND, 3]."""
        angle = np.arange(721) * 2 * np.pi / 720
        power = 2 / self.style.power
        across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power * (self.width / 2 + grow)
        down = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * (self.height / 2 + grow)
        along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(across), np.diff(down)))])
        even = np.arange(_AROUND) * along[-1] / _AROUND  # corners get their share of points
        return self.surface(np.interp(even, along, across), np.interp(even, along, down))


def glasses(head: Head, geometry: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """A pair of glasses in one of three styles (round, rectangular, thin wire).

    Args:
        head: the mean head.
        geometry: float32 [V, 3] mm, this person's resting face.
        rng: draws the style, the size and how the glasses sit.

    Returns:
        The frame, the nose pads, then the lenses of the subject's right and left eye, whose faces look out of the face.
        Lenses sit 12-14 mm before the eyeballs, further where brow or nose leave no room.
    """
    style = _STYLES[rng.integers(len(_STYLES))]
    near = (head.part == SKIN) & (np.abs(head.template[:, 1]) < 60) & (head.template[:, 2] > -75)
    cloud = surface_points(geometry, head.faces[near[head.faces].all(1)], 0.8)
    face = _height_map(cloud)
    eyes = np.stack([geometry[head.part == part].mean(0) for part in (EYE_RIGHT, EYE_LEFT)])
    ball = geometry[head.part == EYE_RIGHT]
    cornea = float(eyes[:, 2].mean() + np.linalg.norm(ball - eyes[0], axis=1).mean())
    fit = _fit(face, float(np.abs(eyes[:, 0]).mean()), cornea, style, rng)
    frame, (pads, pad_faces) = _frame(fit, face, cloud), _both_sides(_pad(fit, cloud))
    vertices, faces = _lens(fit)
    mirrored = vertices * np.array([-1.0, 1.0, 1.0])
    return [
        Part(frame[0].astype(np.float32), frame[1], "glasses"),
        Part(pads.astype(np.float32), pad_faces, "glasses", albedo=np.full(len(pad_faces), _PAD_ALBEDO, np.float32)),
        Part(vertices.astype(np.float32), faces, "lens"),
        Part(mirrored.astype(np.float32), np.ascontiguousarray(faces[:, ::-1]), "lens"),
    ]


def _height_map(cloud: np.ndarray) -> np.ndarray:
    """Greatest z of the face over a grid of 1 mm, [x, y]; each cell counts its neighbours."""
    cells = np.full(2 * _GRID + 1, -200.0)
    cell = np.rint(cloud[:, :2]).astype(int) + _GRID
    inside = (cell >= 0).all(1) & (cell < cells.shape).all(1) & (cloud[:, 2] > -20)
    np.maximum.at(cells, tuple(cell[inside].T), cloud[inside, 2])
    spread = cells.copy()
    for dx, dy in itertools.product(range(-1, 2), repeat=2):
        spread = np.maximum(spread, np.roll(cells, (dx, dy), (0, 1)))
    return np.maximum(spread, spread[::-1])


def _above(face: np.ndarray, points: np.ndarray) -> float:
    """Least distance (mm, along z) of points [N, 3] before the face."""
    cell = np.clip(np.rint(points[:, :2]).astype(int) + _GRID, 0, np.array(face.shape) - 1)
    return float((points[:, 2] - face[tuple(cell.T)]).min())


def _fit(face: np.ndarray, eye_x: float, cornea: float, style: _Style, rng: np.random.Generator) -> _Fit:
    """The most ordinary fit, in size and place, of those that clear the face."""
    usual = rng.uniform(12.0, 13.5)
    lower = rng.uniform(1.5, 5.0)
    choices = itertools.product(
        np.arange(0, 21, 1.0), (0.0, 2.0, 4.0, 6.0), (0.0, 3.0, 6.0), (1.0, 0.94, 0.88, 0.82, 0.76)
    )
    for forward, bridge, drop, scale in sorted(
        choices, key=lambda c: 2 * c[0] + 0.6 * c[1] + 0.6 * c[2] + 25 * (1 - c[3])
    ):
        gap = 16.0 + bridge
        width = (2 * (eye_x + 1.5) - 16.0) * scale
        middle = np.array([(gap + width) / 2 + style.rim, lower + drop, cornea + usual + forward])
        fit = _Fit(middle, width, width * style.aspect, style)
        back = np.concatenate([fit.outline(style.rim), fit.outline(-style.rim), fit.outline(-fit.height * 0.25)])
        if _above(face, back - [0, 0, style.rim + 0.3]) > _CLEARANCE_MM:
            break
    return fit


def _frame(fit: _Fit, face: np.ndarray, cloud: np.ndarray) -> Mesh:
    """Rims, bridge, temples and the wires that hold the nose pads."""
    return join([_both_sides([_temple(fit, cloud), _wire(fit, cloud), _rim(fit)]), _bridge(fit, face)])


def _both_sides(right: Sequence[Mesh]) -> Mesh:
    """Meshes and their mirror images."""
    left = [(vertices * np.array([-1.0, 1.0, 1.0]), np.ascontiguousarray(faces[:, ::-1])) for vertices, faces in right]
    return join([*right, *left])


def _rim(fit: _Fit) -> Mesh:
    """A closed hoop round the right lens."""
    thick = fit.style.rim
    line = fit.outline(thick * 0.6)
    away = line - fit.middle
    away[:, 2] = 0
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    angle = np.arange(_ROUND) * 2 * np.pi / _ROUND
    ring = line[:, None] + thick * (
        np.cos(angle)[:, None] * away[:, None] + np.sin(angle)[:, None] * np.array([0, 0, 1.2])
    )
    faces = strip_faces(_AROUND + 1, _ROUND, closed=True) % (_AROUND * _ROUND)
    vertices = ring.reshape(-1, 3)
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    inward = (np.cross(b - a, c - a) * (a - np.repeat(line, _ROUND, 0)[faces[:, 0]])).sum() < 0
    return vertices, np.ascontiguousarray(faces[:, ::-1]) if inward else faces


def _bridge(fit: _Fit, face: np.ndarray) -> Mesh:
    """The arch over the nose, pushed forward until it clears it."""
    style = fit.style
    high = -0.22 * fit.height
    start = fit.outline(style.rim * 0.6)
    start = start[(start[:, 0] < fit.middle[0])][
        np.argmin(np.abs(start[start[:, 0] < fit.middle[0], 1] - fit.middle[1] - high))
    ]
    across = np.linspace(-1, 1, 9)
    bow = 1 - across**2
    for forward in np.arange(0.8, 25, 0.5):
        path = np.stack([across * start[0], start[1] - 1.5 * bow, start[2] + forward * bow], 1)
        if _above(face, path[2:-2] - [0, 0, style.wire]) > 0.4:
            break
    return sweep(path, np.full((9, 2), style.wire), across=_ROUND, up=np.array([0.0, -1.0, 0.0]))


def _temple(fit: _Fit, cloud: np.ndarray) -> Mesh:
    """The right arm, from the lens's outer edge back to the ear, clear of the head all along."""
    style = fit.style
    high = fit.middle[1] - 0.25 * fit.height
    edge = fit.outline(style.rim * 0.6)
    edge = edge[edge[:, 0] > fit.middle[0]]
    hinge = edge[np.argmin(np.abs(edge[:, 1] - high))]
    back = np.linspace(hinge[2] - 4, _TEMPLE_END_Z, 7)
    beside = cloud[np.abs(cloud[:, 1] - hinge[1]) < 7]
    wide = np.array([np.abs(beside[np.abs(beside[:, 2] - z) < 8, 0]).max(initial=0.0) for z in back])
    outside = np.maximum.accumulate(np.maximum(hinge[0] + 4.0, wide + 2.0 + style.wire))
    path = np.concatenate(
        [hinge[None], hinge[None] + [2.5, 0, -0.5], np.stack([outside, np.full(7, hinge[1]), back], 1)]
    )
    radii = np.tile([style.wire * 0.7, style.wire * 1.5], (len(path), 1))
    return sweep(path, radii, across=_ROUND, up=np.array([0.0, -1.0, 0.0]))


def _pad_place(fit: _Fit, cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the right nose pad's wire leaves the rim, and the pad's middle, beside the nose."""
    rim = fit.outline(fit.style.rim * 0.6)
    inner = rim[rim[:, 0] < fit.middle[0]]
    hold = inner[np.argmin(np.abs(inner[:, 1] - fit.middle[1] - 0.12 * fit.height))]
    for behind in (5.0, 4.0, 3.0):
        place = hold + np.array([0, 2.0, -behind])
        beside = (np.abs(cloud[:, 1] - place[1]) < 3) & (np.abs(cloud[:, 2] - place[2]) < 1.5)
        beside &= np.abs(cloud[:, 0]) < 22
        place[0] = max(np.abs(cloud[beside, 0]).max(initial=0.0) + 0.7, hold[0] - 3.0)
        if place[0] < hold[0] + 2.5:
            break
    return hold, place


def _pad(fit: _Fit, cloud: np.ndarray) -> list[Mesh]:
    """The right nose pad, leaning on the nose's side."""
    place = _pad_place(fit, cloud)[1]
    along = np.linspace(-1, 1, 11)[:, None]
    path = place + along * [0.4, 4.0, -0.3] + along**2 * [0.2, 0, 0]
    radii = np.sqrt(np.clip(1 - 0.96 * along**2, 0, 1)) * [1.0, 2.5]
    return [sweep(path, radii, across=14, up=np.array([0.0, 0.0, 1.0]))]


def _wire(fit: _Fit, cloud: np.ndarray) -> Mesh:
    """What holds the right nose pad."""
    hold, place = _pad_place(fit, cloud)
    wire = np.stack([hold, (hold + place) / 2 + [0.6, 0, -1.0], place])
    return sweep(wire, np.full((3, 2), 0.5), across=6, up=np.array([0.0, -1.0, 0.0]))


def _lens(fit: _Fit) -> Mesh:
    """The right lens: rings of one curved sheet."""
    outline = fit.outline()[:, :2] - fit.middle[:2]
    rings = [fit.surface(*(outline * share).T) for share in (1.0, 0.72, 0.4)]
    vertices, faces = loft(np.stack(rings), end=fit.middle)
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return vertices, faces if np.cross(b - a, c - a)[:, 2].sum() > 0 else np.ascontiguousarray(faces[:, ::-1])
