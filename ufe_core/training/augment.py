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
    def draw(
        cls, config: AugmentationConfig, users: int, cameras: int, rng: np.random.Generator, *, stretch: float = 1.0
    ) -> Augmentation:
        """Draw a transform for each subject and camera.

        Args:
            config: how far images move.
            users: U, subjects.
            cameras: C, of each.
            rng: of what is drawn.
            stretch: how many times as long images may become along some direction, and as much less across it.
        """
        shape = (users, cameras)
        angle = np.radians(rng.uniform(-config.rotation_deg, config.rotation_deg, shape))
        scale = np.exp(rng.uniform(-1, 1, shape) * np.log(config.scale))
        shift = rng.uniform(-2 * config.shift, 2 * config.shift, (*shape, 2))
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        affine = np.stack([np.stack([cos, -sin, shift[..., 0]], -1), np.stack([sin, cos, shift[..., 1]], -1)], -2)
        gain = np.exp(rng.normal(0, 1, shape) * config.gain)
        if stretch > 1:
            affine[..., :2] = affine[..., :2] @ _stretched(shape, stretch, rng)
        return cls(affine, gain)

    def apply(self, images: np.ndarray, *, sharp: bool = False) -> np.ndarray:
        """Transform uint8 [U, N, C, H, W]; what leaves the border is replaced by black.

        Between pixels it is linear, which blurs a little, or cubic, if it is to stay as sharp as images that are met
        untransformed.
        """
        between = cv2.INTER_CUBIC if sharp else cv2.INTER_LINEAR
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
                    moved = cv2.warpAffine(images[u, n, c], matrix, (side, side), flags=between)
                    out[u, n, c] = cv2.LUT(moved, curve)
        return out

    def move(self, points: np.ndarray, side: int) -> np.ndarray:
        """Where points [U, N, C, K, 2] (x, y in pixels) of images of that side come to lie, float64."""
        turned = np.einsum("ucij,unckj->uncki", self.affine[..., :2], 2 * points / side - 1)
        return (turned + self.affine[:, None, :, None, :, 2] + 1) * (side / 2)


def _stretched(shape: tuple[int, ...], most: float, rng: np.random.Generator) -> np.ndarray:
    """Matrices [..., 2, 2] that stretch along a random direction and shrink across it; areas stay."""
    direction, factor = rng.uniform(0, np.pi, shape), rng.uniform(0, 1, shape) * np.log(most)
    along = np.stack([np.cos(direction), np.sin(direction)], -1)
    outer = along[..., :, None] * along[..., None, :]
    return np.exp(factor)[..., None, None] * outer + np.exp(-factor)[..., None, None] * (np.eye(2) - outer)


@dataclass(frozen=True)
class CutMix:
    """Drawn patches of other subjects' images (O29), at most a quarter of the area.

    `boxes` int64 [U, N, C, P, 4]: top, left, bottom, right; `others` int64 [U, N]: whose image they are taken from.
    """

    boxes: np.ndarray
    others: np.ndarray

    @classmethod
    def draw(cls, patches: int, shape: tuple[int, int, int], side: int, rng: np.random.Generator) -> CutMix:
        """Draw patches for images [U, N, C] of that side; none where nobody else is in the batch."""
        users, count, _ = shape
        patches = patches if users > 1 else 0
        largest = int(side * np.sqrt(0.25 / max(patches, 1)))
        size = rng.integers(side // 16 + 1, largest + 1, (*shape, patches, 2))
        corner = rng.integers(0, side - size + 1)
        others = (np.arange(users)[:, None] + rng.integers(1, max(users, 2), (users, count))) % users
        return cls(np.concatenate([corner, corner + size], -1), others)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 [U, N, C, H, W] with the patches pasted."""
        if not self.boxes.shape[3]:
            return images
        out = images.copy()
        for u, n, c, p in np.ndindex(self.boxes.shape[:4]):
            top, left, bottom, right = self.boxes[u, n, c, p]
            box = np.s_[c, top:bottom, left:right]
            out[u, n][box] = images[self.others[u, n], n][box]
        return out

    def covers(self, points: np.ndarray) -> np.ndarray:
        """Which of points [U, N, C, K, 2], pixels (x, y), lie under a patch, bool [U, N, C, K]."""
        x, y = points[..., None, 0], points[..., None, 1]
        top, left, bottom, right = np.moveaxis(self.boxes[:, :, :, None], -1, 0)
        return np.asarray(((x >= left) & (x < right) & (y >= top) & (y < bottom)).any(-1))


def present_anchors(chance: float, users: int, anchors: int, rng: np.random.Generator) -> np.ndarray:
    """Which anchors are there, bool [U, M]: each may be left out, and all of a person's at once.

    One that is the only one is not left out for either reason, but once.
    """
    each = rng.uniform(size=(users, anchors)) >= chance
    if anchors == 1:
        return each
    return each & (rng.uniform(size=(users, 1)) >= chance)
