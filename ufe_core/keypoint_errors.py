"""How far a detector's keypoints are from exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ufe_core.interfaces.detector import KeypointDetector
from ufe_core.packed import PackedCapture

SIDE = 192  # errors are in pixels of images of this side, whatever was looked at


def measured(detector: KeypointDetector[Any], captures: Sequence[PackedCapture]) -> dict[str, Any]:
    """Errors by camera and over all, by part of the face and by subject, of captures that were packed with `keypoints`.

    A part is what stands before the last underscore of its points' names: `lid_05` and `lid_21` are of `lid`.

    `median_px`, `mean_px` and `p95_px` are of points that are seen; `hidden_median_px` of points inside the image that
    something hides; `visibility` is the share of all points whose flag (more than half sure) is right, and
    `visibility_guess`, of cameras and of all, the share that would be if a point always had its most frequent flag.
    """
    away, seen, inside, right = [], [], [], []
    for capture in captures:
        images = torch.from_numpy(np.array(capture.images[:]))
        found = detector.detect(images)
        truth, visible = np.array(capture.extras["keypoints"][:]), np.array(capture.extras["visible"][:])
        covered = [camera.name == capture.conditions.get("blocked") for camera in capture.cameras]
        visible[:, covered] = False  # the source says what the face hides, not what is stuck on a lens
        side = images.shape[-1]
        away.append(np.linalg.norm(found.points.numpy() - truth, axis=-1) * (SIDE / side))
        inside.append(((truth >= 0) & (truth < side)).all(-1))
        seen.append(visible)
        right.append((found.visible.numpy() > 0.5) == visible)
    every = tuple(np.stack(values) for values in (away, seen, inside, right))  # [S, N, C, K]
    cameras = {
        name: _summary(*(value[:, :, c] for value in every)) for c, name in enumerate(detector.cameras)
    }  # fmt: skip
    part_of = np.array([[name.rpartition("_")[0] for name in one.names] for one in detector.keypoints])  # [C, K]
    cameras["all"] = _summary(*every)
    often = every[1].mean((0, 1))  # [C, K]
    guess = np.maximum(often, 1 - often)
    for name, share in (*zip(detector.cameras, guess.mean(-1), strict=True), ("all", guess.mean())):
        cameras[name]["visibility_guess"] = float(share)
    return {
        "side": SIDE, "cameras": cameras,
        "parts": {part: _summary(*(value[..., part_of == part] for value in every)) for part in np.unique(part_of)},
        "subjects": {
            capture.subject: {**_summary(*(value[n] for value in every)), "traits": dict(capture.traits)}
            for n, capture in enumerate(captures)
        },
    }  # fmt: skip


def _summary(away: np.ndarray, seen: np.ndarray, inside: np.ndarray, right: np.ndarray) -> dict[str, float]:
    hidden, none = away[inside & ~seen], float("nan")
    away = away[seen]
    return {
        "median_px": float(np.median(away)) if len(away) else none,
        "mean_px": float(away.mean()) if len(away) else none,
        "p95_px": float(np.quantile(away, 0.95)) if len(away) else none,
        "hidden_median_px": float(np.median(hidden)) if len(hidden) else none,
        "visibility": float(right.mean()),
    }  # fmt: skip
