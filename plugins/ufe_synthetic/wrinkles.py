"""Wrinkles: grooves that a person's skin folds into, and which actions fold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ufe_core.head import ACTIONS, SKIN, Head
from ufe_synthetic.texels import TexelLayout

_CANVAS_MM = 1.6  # depth that the 8-bit canvas can hold
_TYPICAL_MM = 0.55  # of a texel on the face, at 512 texels
_SIGMAS_MM = (0.45, 0.75, 1.15)


@dataclass(frozen=True)
class Fold:
    """Where skin folds and what folds it.

    `centre` and `reach` are mm in head coordinates; an action works on its own side (`side`) of the centre's mirror
    pair, or on both for 0. The effect falls smoothly to nothing at the reach's ellipsoid. `share` is an action's part
    in it.
    """

    centre: tuple[float, float, float]
    reach: tuple[float, float, float]
    share: dict[str, float]


#: The right side of the face, mirrored for the left; names without a side act with their own side's action.
FOLDS = {
    "forehead": Fold((28, -46, 12), (36, 30, 60), {"browInnerUp": 0.6, "browOuterUp": 0.75, "eyeWide": 0.1}),
    "forehead_middle": Fold((0, -46, 22), (24, 30, 40), {"browInnerUp": 0.6}),
    "glabella": Fold((6, -17, 22), (16, 19, 30), {"browDown": 0.75, "noseSneer": 0.2}),
    "bunny": Fold((10, 8, 25), (14, 17, 25), {"noseSneer": 0.9, "mouthUpperUp": 0.15}),
    "crow": Fold((58, 0, 0), (17, 20, 30), {"eyeSquint": 0.6, "cheekSquint": 0.6, "mouthSmile": 0.35}),
    "under_eye": Fold((33, 14, 14), (18, 11, 25), {"eyeSquint": 0.6, "cheekSquint": 0.4, "mouthSmile": 0.2}),
    "nasolabial": Fold(
        (27, 53, 18), (18, 24, 28),
        {"mouthSmile": 0.75, "noseSneer": 0.4, "mouthUpperUp": 0.4, "mouthDimple": 0.4, "mouthStretch": 0.2},
    ),
    "smile": Fold((40, 66, 8), (15, 24, 28), {"mouthSmile": 0.8, "mouthDimple": 0.7, "mouthStretch": 0.3}),
    "marionette": Fold((29, 84, 14), (13, 17, 25), {"mouthFrown": 0.8, "mouthStretch": 0.3}),
    "lips": Fold((9, 68, 28), (24, 19, 28), {"mouthPucker": 0.9, "mouthFunnel": 0.4, "mouthRollUpper": 0.3}),
    "chin": Fold((7, 99, 22), (21, 17, 30), {"mouthShrugLower": 0.9, "mouthFrown": 0.2, "mouthRollLower": 0.3}),
}  # fmt: skip


def wrinkle_gain(head: Head, strength: dict[str, float]) -> np.ndarray:
    """How much an action at 1 raises wrinkling at a vertex, float32 [52, V].

    Args:
        head: the mean head.
        strength: for each of `FOLDS`, how readily it folds.
    """
    gain = np.zeros((len(ACTIONS), len(head.template)), np.float32)
    skin = head.part == SKIN
    for name, fold in FOLDS.items():
        sides = [0.0] if fold.centre[0] == 0 else [1.0, -1.0]
        for side in sides:
            centre = np.array(fold.centre) * [side if side else 1.0, 1, 1]
            d2 = (((head.template - centre) / fold.reach) ** 2).sum(1)
            weight = strength[name] * np.clip(1 - d2, 0, 1) ** 1.5 * skin
            for action, share in fold.share.items():
                own = action if action in ACTIONS else f"{action}{'Right' if side > 0 else 'Left'}"
                row = gain[ACTIONS.index(own)]
                np.maximum(row, share * weight, out=row)
    return gain


@dataclass(frozen=True)
class Groove:
    """A line that the skin folds along: `points` float [K, 2] (x, y) mm, deepest in the middle."""

    points: np.ndarray
    depth_mm: float
    width: int  # an index into _SIGMAS_MM


def wrinkle_map(layout: TexelLayout, rng: np.random.Generator, rough: np.ndarray) -> np.ndarray:
    """Extra relief at full wrinkling, float32 [T, T] mm.

    Args:
        layout: the texels.
        rng: of the person.
        rough: float32 [T, T], noise of variance 1, of which the chin's dimples are made.
    """
    grooves = [*_middle(rng), *(g for side in (-1.0, 1.0) for g in _side(side, rng))]
    relief = sum(_carved(layout, [g for g in grooves if g.width == k], s) for k, s in enumerate(_SIGMAS_MM))
    x, y, z = np.moveaxis(layout.position, -1, 0)
    chin = np.clip(1 - (x / 19) ** 2 - ((y - 99) / 15) ** 2, 0, 1) * (z > 0) * (layout.part == SKIN)
    return np.asarray(relief - chin * rng.uniform(0.1, 0.3) * np.clip(rough - 0.2, 0, 2), np.float32)


def _line(start: tuple[float, float], stop: tuple[float, float], bend: float, rng: np.random.Generator) -> np.ndarray:
    """An unsteady arc, float [K, 2]; `bend` mm to the left of its direction at the middle."""
    t = np.linspace(0, 1, 24)
    a, b = np.array(start), np.array(stop)
    normal = np.array([b[1] - a[1], a[0] - b[0]]) / (np.linalg.norm(b - a) + 1e-9)
    length = float(np.linalg.norm(b - a))
    wander = sum(
        rng.normal(0, min(0.008 * length, 0.3) / k) * np.sin(np.pi * (2 * k * t + rng.uniform(0, 2))) for k in (1, 2, 3)
    )
    return np.asarray(a + (b - a) * t[:, None] + normal * (bend * np.sin(np.pi * t) + wander)[:, None])


def _middle(rng: np.random.Generator) -> Iterator[Groove]:
    """Forehead lines, the nose's root, the chin's crease: what crosses the middle."""
    count, top = int(rng.integers(3, 6)), rng.uniform(-66, -58)
    for y in np.linspace(top, rng.uniform(-37, -32), count) + rng.normal(0, 1.2, count):
        depth, bend = rng.uniform(0.35, 0.7), rng.uniform(-1, 5)
        left, right = -rng.uniform(28, 42), rng.uniform(28, 42)
        broken = rng.uniform() < 0.4
        middle = rng.uniform(-8, 8)
        ends = [(left, middle + 3), (middle - 3, right)] if broken else [(left, right)]
        for a, b in ends:
            yield Groove(_line((a, y + rng.normal(0, 0.8)), (b, y), bend, rng), depth, 2)
    for _ in range(int(rng.integers(1, 3))):
        y = rng.uniform(-10, -3)
        yield Groove(_line((-7, y), (7, y), rng.uniform(0, 2), rng), rng.uniform(0.3, 0.6), 1)
    y = rng.uniform(86, 89)
    yield Groove(_line((-15, y + 2), (15, y + 2), 2.5, rng), rng.uniform(0.3, 0.6), 2)


def _side(side: float, rng: np.random.Generator) -> Iterator[Groove]:
    """Grooves of one half of the face."""

    def line(x0: float, y0: float, x1: float, y1: float, bend: float) -> np.ndarray:
        jitter = rng.normal(0, 0.7, 4)
        return _line(
            (side * (x0 + jitter[0]), y0 + jitter[1]), (side * (x1 + jitter[2]), y1 + jitter[3]), side * bend, rng
        )

    yield Groove(line(6, -29, 5, -10, 1.0), rng.uniform(0.4, 0.8), 1)  # frown
    if rng.uniform() < 0.5:
        yield Groove(line(11, -27, 9, -16, 1.0), rng.uniform(0.2, 0.5), 0)
    for k in range(int(rng.integers(2, 5))):  # bunny lines
        yield Groove(line(5, -1 + 4 * k, 14, 5 + 5 * k, -1.0), rng.uniform(0.25, 0.5), 0)
    for angle in np.radians(np.linspace(-42, 48, int(rng.integers(4, 7)))):  # crow's feet
        reach = rng.uniform(9, 16)
        x, y = 49 + 1.5 * np.cos(angle), 3 * np.sin(angle)
        tip = (x + reach * np.cos(angle), y + reach * np.sin(angle))
        yield Groove(line(x, y, *tip, 1.5 * np.sin(angle)), rng.uniform(0.3, 0.6), 0)
    for k in range(int(rng.integers(2, 5))):  # under the eye
        y = 9 + 3 * k
        yield Groove(line(20 + k, y, 43 + k, y + 1, 2.0), rng.uniform(0.2, 0.45), 0)
    yield Groove(line(19.5, 38, 32, 68, -2.0), rng.uniform(0.6, 1.0), 2)  # nasolabial
    for k in range(int(rng.integers(1, 4))):  # smile lines
        yield Groove(line(35 + 5 * k, 54 - k, 35 + 6 * k, 80 - 2 * k, -3.0), rng.uniform(0.3, 0.6), 1)
    yield Groove(line(28, 73, 31, 92, -1.0), rng.uniform(0.4, 0.8), 2)  # marionette
    for x in np.arange(2.5, 22, 3.2) + rng.normal(0, 0.6, 7):  # round the mouth
        yield Groove(line(x * 0.9, 50 + 0.012 * x * x, x, 57 + 0.014 * x * x, 0.0), rng.uniform(0.15, 0.4), 0)
        if x < 17:
            yield Groove(line(x, 80 - 0.012 * x * x, x * 1.05, 86 - 0.02 * x * x, 0.0), rng.uniform(0.1, 0.3), 0)


def _carved(layout: TexelLayout, grooves: list[Groove], sigma_mm: float) -> np.ndarray:
    """Grooves of one width as relief float32 [T, T] mm: a dip with a low swelling along both sides."""
    import cv2

    canvas = np.zeros((layout.size, layout.size), np.uint8)
    for groove in grooves:
        path = np.rint(layout.texels_in_front(groove.points) * 16).astype(np.int32)
        taper = np.sin(np.pi * np.linspace(0.04, 0.96, len(path) - 1)) ** 0.7
        levels = np.rint(255 * groove.depth_mm / _CANVAS_MM * taper).astype(int).tolist()
        for a, b, level in zip(path[:-1].tolist(), path[1:].tolist(), levels, strict=True):
            cv2.line(canvas, a, b, level, 1, cv2.LINE_AA, 4)
    sigma = max(sigma_mm / _TYPICAL_MM * layout.size / 512, 0.5)
    line = canvas.astype(np.float32) * (_CANVAS_MM / 255)
    dip = cv2.GaussianBlur(line, (0, 0), sigma) * (np.sqrt(2 * np.pi) * sigma / 1.3)
    swell = cv2.GaussianBlur(line, (0, 0), 2.4 * sigma) * (np.sqrt(2 * np.pi) * sigma / 1.3)
    return np.asarray(0.9 * swell - 1.35 * dip, np.float32)
