"""Brows and facial hair as short strokes, and where on the face each kind grows."""

from __future__ import annotations

import numpy as np

from ufe_core.head import SKIN
from ufe_synthetic.texels import TexelLayout

_FINER = 4  # strokes are drawn on a canvas this much finer than the map
_TURNS = 12
_SHIFT = 4  # binary digits after the point that OpenCV draws with
FACIAL_HAIR = ("none", "stubble", "moustache", "goatee", "beard")


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high` (or the other way round), smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def strokes(layout: TexelLayout, paths: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """Coverage float32 [T, T] in [0, 1] of hairs about a fifth of a millimetre thick on the face.

    Args:
        layout: the texels.
        paths: float [N, K, 2], texel (column, row) along each hair.
        shade: float [N], how much a hair covers.
    """
    import cv2

    size = layout.size * _FINER
    canvas = np.zeros((size, size), np.uint8)
    points = np.rint(((paths + 0.5) * _FINER - 0.5) * (1 << _SHIFT)).astype(np.int32)
    level = np.minimum((shade * 4).astype(int), 3)
    turn = np.arange(len(points)) % _TURNS
    for t, k in np.ndindex(_TURNS, 4):  # in turns, so that light and dark hairs lie over one another
        chosen = points[(level == 3 - k) & (turn == t)]
        if len(chosen):
            cv2.polylines(canvas, list(chosen), False, 255 * (4 - k) / 4, 1, cv2.LINE_AA, _SHIFT)
    return cv2.resize(canvas, (layout.size, layout.size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def brows(layout: TexelLayout, rng: np.random.Generator, count: int, thickness_mm: float, arch_mm: float) -> np.ndarray:
    """Coverage float32 [T, T] of both brows.

    Hairs stand up near the nose and lie along the brow towards the temple, the upper ones pointing down, the lower
    ones up, as brows grow.

    Args:
        layout: the texels.
        rng: of the person.
        count: hairs in each brow.
        thickness_mm: half the height of the brow's body.
        arch_mm: how far its middle rises above its ends.
    """
    inner, length, height = rng.uniform(9, 13), rng.uniform(38, 44), rng.normal(-14.5, 1.0)
    paths, shades = [], []
    for side in (-1.0, 1.0):
        t = rng.beta(1.15, 1.3, count)
        across = np.clip(rng.normal(0, 0.5, count), -1.1, 1.1)
        half = thickness_mm * (1 - 0.62 * t**1.5) * np.clip(t / 0.08, 0.45, 1)
        x = inner + length * t + rng.normal(0, 1.2, count)
        arc = height - arch_mm * np.sin(np.pi * np.clip(0.75 * t, 0, 1))
        y = arc + half * across + 1.6 * (1 - t) ** 4 * rng.normal(size=count)
        angle = np.radians(75 * (1 - t) ** 3 + 14 + 26 * across - 34 * t) + rng.normal(0, 0.2, count)
        hair = rng.uniform(3.0, 6.5, count) * (1 - 0.45 * t)
        bend = np.radians(-22) * (1 - t)
        step = np.linspace(0, 1, 4)[None, :]
        turned = angle[:, None] + bend[:, None] * step
        xs = x[:, None] + hair[:, None] * step * np.cos(turned)
        ys = y[:, None] - hair[:, None] * step * np.sin(turned)
        paths.append(np.stack([side * xs, ys], -1))
        shades.append(rng.uniform(0.5, 1.0, count) * np.clip(1.15 - 0.35 * np.abs(across), 0, 1))
    coverage = strokes(layout, layout.texels_in_front(np.concatenate(paths)), np.concatenate(shades))
    return np.asarray(np.minimum(coverage + 0.25 * _spread(layout, coverage, 1.6), 1))


def growth_area(layout: TexelLayout, kind: str, lips: np.ndarray, wobble: np.ndarray) -> np.ndarray:
    """How densely facial hair of a kind grows, float32 [T, T] in [0, 1].

    Args:
        layout: the texels.
        kind: one of `FACIAL_HAIR`; "none" and "stubble" mean the whole beard's area.
        lips: float32 [T, T], where the red of the lips is.
        wobble: float32 [T, T], mm by which borders waver.
    """
    x, y, z = np.moveaxis(layout.position, -1, 0)
    x = np.abs(x)
    line = np.interp(x, [0, 22, 30, 48, 62, 72], [82, 76, 62, 52, 34, 10]).astype(np.float32) + wobble
    cheek = ramp(y - line, -4, 9) * ramp(y, 140, 116) * ramp(z, -62, -44)
    moustache = ramp(y, 45.5, 49) * ramp(x + 0.5 * wobble, 33, 25) * ramp(y, 78, 70) * ramp(z, 5, 12)
    moustache *= 1 - 0.65 * np.exp(-((x / 3.0) ** 2)) * ramp(y, 60, 50)
    patch = ramp(x, 7, 3) * ramp(y, 79, 83)
    chin = np.maximum(ramp(x + wobble, 27, 19) * ramp(y, 87, 93), patch) * ramp(y, 132, 116) * ramp(z, -30, -12)
    sides = ramp(np.abs(x - 30 + 0.5 * wobble), 6, 2.5) * ramp(y, 64, 70) * ramp(y, 110, 96)
    areas = {"moustache": moustache, "goatee": np.maximum(np.maximum(moustache, chin), 0.9 * sides)}
    area = areas.get(kind, np.maximum(np.maximum(moustache, cheek), chin))
    return np.asarray(area * (1 - lips) * (layout.part == SKIN), np.float32)


def facial_hair(
    layout: TexelLayout, rng: np.random.Generator, area: np.ndarray, per_cm2: float, length_mm: float
) -> np.ndarray:
    """Coverage float32 [T, T] of hairs that grow over an area.

    Args:
        layout: the texels.
        rng: of the person.
        area: float32 [T, T], from `growth_area`.
        per_cm2: hairs a square centimetre where the area is 1.
        length_mm: of a hair.
    """
    grown = np.cumsum((area * layout.area_mm2).reshape(-1), dtype=np.float64)
    count = int(grown[-1] * per_cm2 / 100)
    texel = np.minimum(np.searchsorted(grown, rng.uniform(0, grown[-1], count)), grown.size - 1)
    row, column = np.divmod(texel, layout.size)
    root = np.stack([column, row], -1) + rng.uniform(-0.5, 0.5, (count, 2))
    x, y, _ = layout.position[row, column].T
    outward = np.sign(x) * np.clip(np.abs(x) / 30, 0, 1)
    on_lip = np.clip((72 - y) / 12, 0, 1) * np.clip(np.abs(x) / 12, 0, 1) * (np.abs(x) < 34)
    direction = np.stack([0.25 * outward + 0.75 * np.sign(x) * on_lip, np.ones_like(x), -0.45 * np.abs(outward)], -1)
    direction += rng.normal(0, 0.28, direction.shape)
    length = length_mm * rng.uniform(0.6, 1.2, count)
    direction *= (length / np.linalg.norm(direction, axis=1))[:, None]
    along = _in_texels(layout.tangents[row, column], direction)
    curl = rng.normal(0, 0.12, (count, 1)) * along[:, ::-1] * [1, -1]
    step = np.array([0.0, 0.5, 1.0])[None, :, None]
    paths = root[:, None] + along[:, None] * step + curl[:, None] * (4 * step * (1 - step))
    coverage = strokes(layout, paths, rng.uniform(0.3, 1.0, count))
    return np.asarray(np.minimum(coverage + min(length_mm / 12, 0.6) * _spread(layout, coverage, 2.0), 1))


def _spread(layout: TexelLayout, coverage: np.ndarray, texels: float) -> np.ndarray:
    """The shade that hairs together cast on the skin between them, float32 [T, T]; `texels` of a map of 512."""
    import cv2

    return np.asarray(cv2.GaussianBlur(coverage, (0, 0), max(layout.size / 512 * texels, 0.6)))


def _in_texels(tangents: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Steps [N, 2] in texels that best follow directions [N, 3] in mm on the skin."""
    gram = np.einsum("nik,njk->nij", tangents, tangents) + 1e-6 * np.eye(2)
    steps = np.linalg.solve(gram, np.einsum("nik,nk->ni", tangents, direction)[..., None])[..., 0]
    reach = np.linalg.norm(steps, axis=1, keepdims=True)
    return np.asarray(steps * np.minimum(1, 24 / np.maximum(reach, 1e-9)))
