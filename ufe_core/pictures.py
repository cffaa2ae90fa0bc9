"""Marks in images, and images in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ufe_core.store import write_atomic

_VISIBLE, _HIDDEN = (90, 255, 120), (255, 120, 90)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB uint8 [H, W, 3]; the folder is made where it is missing.

    Raises:
        ArtifactError: the file cannot be written.
    """
    import cv2

    write_atomic(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def draw_points(images: np.ndarray, points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Mark keypoints [C, K, 2] (x, y) in images [C, H, W(, 3)]: green discs where visible, else red rings."""
    import cv2

    out = np.ascontiguousarray(images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1))
    side = out.shape[1]
    radius, shift = max(1.0, side / 160), 4
    for c in range(len(out)):
        for (x, y), seen in zip(points[c], visible[c], strict=True):
            if not (-radius <= x <= side + radius and -radius <= y <= side + radius):  # also not a number
                continue
            # Pixel centres lie at half numbers (CONVENTIONS.md); cv2 counts them from whole ones.
            centre = (round((float(x) - 0.5) * 2**shift), round((float(y) - 0.5) * 2**shift))
            colour = _VISIBLE if seen else _HIDDEN
            cv2.circle(out[c], centre, round(radius * 2**shift), colour, -1 if seen else 1, cv2.LINE_AA, shift)
    return out
