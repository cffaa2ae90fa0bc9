"""How views are spoiled while `heatmap` learns: bent as other faces are, hidden in part, or covered altogether."""

from __future__ import annotations

import cv2
import numpy as np

_KNOTS = 5  # displacements are drawn at a grid of so many knots a side, and smooth between them
_SETTLED = 4  # rounds in which a bent point's place settles
_SIDES = (0.12, 0.5)  # sides of what hides a view, fractions of the image's
_SHADES = (0.4, 1.6)  # how much darker or brighter it is than where it was taken from
_DARKEST, _LIGHTEST = 0.02, 0.12  # share of the light that reaches a covered camera


def bent(
    images: np.ndarray, points: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bend each image smoothly, and its points with it.

    Args:
        images: uint8 [B, C, S, S].
        points: float [B, C, K, 2], pixels (x, y), of these images.
        share: deviation of the displacements, fraction of S; 0 leaves all as it is.
        rng: of what is drawn.

    Returns:
        Images and points of the same shapes.
    """
    if not share:
        return images, points
    side, shape = images.shape[-1], images.shape[:2]
    knots = rng.normal(0, share * side, (*shape, _KNOTS, _KNOTS, 2)).astype(np.float32)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).astype(np.float32)  # (x, y) of pixel centres
    out, moved = np.empty_like(images), np.empty_like(points)
    for b, c in np.ndindex(shape):
        field = cv2.resize(knots[b, c], (side, side), interpolation=cv2.INTER_CUBIC)
        x, y = _maps(grid + field)  # what is seen at q was at q + field(q)
        out[b, c] = cv2.remap(images[b, c], x, y, cv2.INTER_LINEAR)
        moved[b, c] = _settled(points[b, c], field)
    return out, moved


def _settled(points: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Places q [K, 2] with q + field(q) = points; beyond the image the field goes on as at its border."""
    places = points.astype(np.float32)
    for _ in range(_SETTLED):
        x, y = _maps(places[None] - np.float32(0.5))
        there = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        places = (points - there[0]).astype(np.float32)
    return places


def _maps(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(places[..., 0]), np.ascontiguousarray(places[..., 1])


def patched(
    images: np.ndarray, points: np.ndarray, chance: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put something before some views: an ellipse of another view, from another place and of another brightness.

    Args:
        images: uint8 [B, C, S, S].
        points: float [B, C, K, 2], pixels (x, y).
        chance: of each view.
        rng: of what is drawn.

    Returns:
        The images, and which points are hidden, bool [B, C, K].
    """
    shape, side = images.shape[:2], images.shape[-1]
    hidden, out = np.zeros(points.shape[:-1], bool), images.copy()
    centres = np.arange(side) + 0.5
    for b, c in np.argwhere(rng.random(shape) < chance):
        half = rng.uniform(*_SIDES, 2) * side / 2  # x, y
        at, turn = rng.uniform(0, side, 2), rng.uniform(0, np.pi)
        across = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / half[:, None]
        other = images[rng.integers(shape[0]), rng.integers(shape[1])]
        taken = np.roll(other, rng.integers(side, size=2), (0, 1)).astype(np.float64) * rng.uniform(*_SHADES)
        pixels = np.stack(np.meshgrid(centres, centres), -1)
        under = (((pixels - at) @ across.T) ** 2).sum(-1) < 1
        out[b, c][under] = np.clip(taken, 0, 255).astype(np.uint8)[under]
        hidden[b, c] = (((points[b, c] - at) @ across.T) ** 2).sum(-1) < 1
    return out, hidden


def covered(images: np.ndarray, chance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cover some cameras: next to no light reaches them.

    Args:
        images: uint8 [B, C, S, S].
        chance: of each view.
        rng: of what is drawn.

    Returns:
        The images, and which views are covered, bool [B, C].
    """
    dark = rng.random(images.shape[:2]) < chance
    light = np.where(dark, rng.uniform(_DARKEST, _LIGHTEST, dark.shape), 1.0)
    return (images * light[..., None, None]).astype(np.uint8), dark
