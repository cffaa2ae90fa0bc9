"""Augmentation of P§7.6: one transform per subject and camera, for its frames and its anchors alike (O28)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ufe_core.budgets import AugmentationConfig


@dataclass(frozen=True)
class Augmentation:
    """A drawn augmentation: `affine` float64 [U, C, 2, 3] about the image centre in units of the half side, and
    `gain` [U, C].
    """

    affine: np.ndarray
    gain: np.ndarray

    @classmethod
    def draw(cls, config: AugmentationConfig, users: int, cameras: int, rng: np.random.Generator) -> Augmentation:
        """Draw a transform for each subject and camera."""
        shape = (users, cameras)
        angle = np.radians(rng.uniform(-config.rotation_deg, config.rotation_deg, shape))
        scale = np.exp(rng.uniform(-1, 1, shape) * np.log(config.scale))
        shift = rng.uniform(-2 * config.shift, 2 * config.shift, (*shape, 2))
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        affine = np.stack([np.stack([cos, -sin, shift[..., 0]], -1), np.stack([sin, cos, shift[..., 1]], -1)], -2)
        gain = np.exp(rng.normal(0, 1, shape) * config.gain)
        return cls(affine, gain)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Transform uint8 [U, N, C, H, W]; what leaves the border is replaced by black."""
        side = images.shape[-1]
        to_pixels = np.array([[side / 2, 0, side / 2 - 0.5], [0, side / 2, side / 2 - 0.5], [0, 0, 1]])
        from_pixels = np.linalg.inv(to_pixels)
        out = np.empty_like(images)
        table = np.arange(256, dtype=np.float64)
        for u in range(images.shape[0]):
            for c in range(images.shape[2]):
                matrix = (to_pixels @ np.vstack([self.affine[u, c], [0, 0, 1]]) @ from_pixels)[:2]
                curve = np.clip(table * self.gain[u, c] + 0.5, 0, 255).astype(np.uint8)
                for n in range(images.shape[1]):
                    moved = cv2.warpAffine(images[u, n, c], matrix, (side, side), flags=cv2.INTER_LINEAR)
                    out[u, n, c] = cv2.LUT(moved, curve)
        return out

    def move(self, points: np.ndarray, side: int) -> np.ndarray:
        """Where points [U, N, C, K, 2] (x, y in pixels) of images of that side come to lie, float64."""
        turned = np.einsum("ucij,unckj->uncki", self.affine[..., :2], 2 * points / side - 1)
        return (turned + self.affine[:, None, :, None, :, 2] + 1) * (side / 2)


def cutmix(images: np.ndarray, patches: int, rng: np.random.Generator) -> np.ndarray:
    """CutMix (O29): paste patches of another subject's same camera, at most a quarter of the area."""
    users, count, cameras, side, _ = images.shape
    if not patches or users < 2:
        return images
    out = images.copy()
    largest = int(side * np.sqrt(0.25 / patches))
    for u in range(users):
        for n in range(count):
            other = (u + rng.integers(1, users)) % users
            for c in range(cameras):
                for _ in range(patches):
                    height, width = rng.integers(side // 16 + 1, largest + 1, 2)
                    top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
                    box = np.s_[c, top : top + height, left : left + width]
                    out[u, n][box] = images[other, n][box]
    return out
