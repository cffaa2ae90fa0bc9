"""How views are spoiled while `heatmap` learns: hidden in part, dim, or covered altogether."""

from __future__ import annotations

import numpy as np

_SIDES = (0.12, 0.5)  # sides of what hides a view, fractions of the image's
_SHADES = (0.4, 1.6)  # how much darker or brighter it is than where it was taken from
_DIM = (0.15, 0.7)  # share of the light that is left of a dim view
_COVERED = (0.02, 0.12)  # and that reaches a covered camera


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
    hidden = np.zeros(points.shape[:-1], bool)
    if not chance:
        return images, hidden
    shape, side, out = images.shape[:2], images.shape[-1], images.copy()
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


def dimmed(images: np.ndarray, chance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Take light from some views: what they show is still there.

    Args:
        images: uint8 [B, C, S, S].
        chance: of each view.
        rng: of what is drawn.

    Returns:
        The images, and which views are dim, bool [B, C].
    """
    return _darker(images, chance, _DIM, rng)


def covered(images: np.ndarray, chance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cover some cameras: next to no light reaches them. As `dimmed`."""
    return _darker(images, chance, _COVERED, rng)


def _darker(
    images: np.ndarray, chance: float, light: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if not chance:
        return images, np.zeros(images.shape[:2], bool)
    dark = rng.random(images.shape[:2]) < chance
    left, out = rng.uniform(*light, dark.shape), images.copy()
    out[dark] = (images[dark] * left[dark][:, None, None]).astype(np.uint8)
    return out, dark
