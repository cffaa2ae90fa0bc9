"""Eyeballs round enough to hold a pupil: the head's own are facets ten degrees wide."""

from __future__ import annotations

import numpy as np

from ufe_core.head import Head
from ufe_synthetic.scene import EYE_CARRIERS, Part

_RINGS_DEG = (4, 8, 12, 16, 20, 24, 29, 35, 42, 50, 60, 72, 84)  # from the axis; lids hide the rest
_AROUND = 24


def eyeballs(head: Head, geometry: np.ndarray) -> list[Part]:
    """The front of a person's left, then right eyeball, at rest.

    Each is the ellipsoid nearest to the geometry's own eyeball, about the centre that gaze turns it about; its first
    vertex is where the gaze leaves it, the middle of the pupil.

    Args:
        head: the mean head.
        geometry: float32 [V, 3] mm, this person's resting face.
    """
    directions, faces = _cap()
    out = []
    for part, side in EYE_CARRIERS:
        own = geometry[head.part == part].astype(np.float64)
        centre = own.mean(0)
        radius = _radius(own - centre, directions)
        vertices = centre + radius[:, None] * directions
        out.append(Part(vertices.astype(np.float32), faces, "eye", follows=side))
    return out


def _cap() -> tuple[np.ndarray, np.ndarray]:
    """Unit directions [P, 3], the pole (0, 0, 1) first, and faces int32 [Q, 3] of a cap about it."""
    polar = np.radians(_RINGS_DEG)[:, None]
    turn = np.arange(_AROUND)[None] * 2 * np.pi / _AROUND
    ring = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar) + 0 * turn], -1)
    here = 1 + np.arange(len(_RINGS_DEG) * _AROUND).reshape(-1, _AROUND)
    beside = np.roll(here, -1, 1)
    inner, inner_beside, outer, outer_beside = here[:-1], beside[:-1], here[1:], beside[1:]
    faces = [
        np.stack([np.zeros(_AROUND, int), here[0], beside[0]], -1),
        np.stack([inner, outer, outer_beside], -1).reshape(-1, 3),
        np.stack([inner, outer_beside, inner_beside], -1).reshape(-1, 3),
    ]
    return np.concatenate([[[0.0, 0.0, 1.0]], ring.reshape(-1, 3)]), np.concatenate(faces).astype(np.int32)


def _radius(surface: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distance [P] from the origin to the ellipsoid nearest to points [n, 3], along unit directions [P, 3]."""

    def products(d: np.ndarray) -> np.ndarray:
        x, y, z = d.T
        return np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)

    distance = np.linalg.norm(surface, axis=1, keepdims=True)
    form = np.linalg.lstsq(products(surface / distance), distance[:, 0] ** -2, rcond=None)[0]
    return np.asarray((products(directions) @ form) ** -0.5)
