"""Unwrapped, view-averaged textures: every texel gathers what the dome's cameras saw of it (P§1.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufe_core.head import EYE_LEFT, EYE_RIGHT
from ufe_core.ops.kernels import kernels, warp
from ufe_core.ops.rasterize import EMPTY_KEY, interpolate, rasterize
from ufe_synthetic.render import Level, Visible
from ufe_synthetic.scene import MATERIALS, Scene

_KERNELS = "ufe_synthetic.dome_texture_warp"

#: Surfaces whose colours must not end up on each other, however close they lie, by material: the head's own, its eyes,
#: and those that no texel belongs to. Lashes are painted on the lids that they lie on.
_EYE, _OTHER = 1, 2
_OTHERS = ("teeth", "gum", "glasses", "lens", "cloth", "hand", "headset")
_KIND_OF = np.array([_EYE if name == "eye" else _OTHER if name in _OTHERS else 0 for name in MATERIALS], np.int32)


@dataclass(frozen=True)
class Gathered:
    """A texture of T x T texels: `colour` float32 [T, T, 3] linear RGB in [0, 1], `seen` bool [T, T]."""

    colour: np.ndarray
    seen: np.ndarray

    def over(self, other: Gathered) -> Gathered:
        """This texture, with the other one's texels where nothing was seen."""
        return Gathered(np.where(self.seen[..., None], self.colour, other.colour), self.seen | other.seen)

    def filled(self) -> Gathered:
        """No texel left bare: those not seen take averages of the seen ones around them (pull-push)."""
        return Gathered(_pull_push(self.colour, self.seen.astype(np.float32)), np.ones_like(self.seen))


@dataclass(frozen=True)
class Unwrapped:
    """Where cameras show the texels of one frame.

    `pixels` is what the cameras see, emptied but for the pixels that texels are read from; `texels` float32 [T, T, 6]
    and `views` int32 [T, T], a bit for each camera, are of each texel.
    """

    pixels: Visible
    texels: Tensor
    views: Tensor

    @property
    def seen(self) -> np.ndarray:
        """Which texels some camera shows, bool [T, T]."""
        return np.asarray(self.views.numpy() != 0)


class Atlas:
    """Which face lies under each texel of the head's UV layout, T x T.

    The faces are those of a level of the scene and the head's own eyeballs, which rounder ones may hide.
    """

    def __init__(self, scene: Scene, level: Level, size: int) -> None:
        head = scene.head
        own = np.isin(head.part[head.faces], (EYE_LEFT, EYE_RIGHT)).any(1)
        self._eyes = [np.flatnonzero(head.part == part) for part in (EYE_LEFT, EYE_RIGHT)]
        self._faces = _with(level.faces, head.faces[own])
        self._uv_faces = _with(level.uv_faces, head.uv_faces[own])
        depth = torch.full((len(level.uv), 1), 100.0)
        self._flat = torch.cat([level.uv * size, depth], 1)[None].contiguous()
        self._ids = rasterize(self._flat, self._uv_faces, height=size, width=size, cull=False)
        self._face_kind = torch.from_numpy(_KIND_OF)[level.material.long()]
        kinds = torch.cat([self._face_kind, torch.full((int(own.sum()),), _EYE), torch.tensor([-1])]).int()
        self._texel_kind = kinds[self._ids[0].long()]

    def texels(self, vertices: Tensor, normals: Tensor) -> Tensor:
        """Position (mm) and normal of each texel, float32 [T, T, 6], of `vertices` and `normals` [V, 3]."""
        normals = normals.clone()
        for rows in self._eyes:  # hidden eyeballs have no faces to take a normal from
            normals[rows] = torch.nn.functional.normalize(vertices[rows] - vertices[rows].mean(0))
        attributes = torch.cat([vertices, normals], 1)[None].contiguous()
        return interpolate(self._flat, attributes, self._uv_faces, self._ids, attribute_faces=self._faces)[0]

    def unwrap(self, seen: Visible, wanted: np.ndarray | None = None) -> Unwrapped:
        """Which of at most 31 cameras show each texel.

        A camera does where its z-buffer shows that nothing hides the texel or comes near its pixels, unless it sees it
        at a grazing angle.

        Args:
            seen: one frame in pinhole cameras, at this atlas' level.
            wanted: texels to look for, bool [T, T]; all by default.
        """
        wp, size = warp(), self._ids.shape[1]
        kind = self._texel_kind
        if wanted is not None:
            kind = torch.where(torch.from_numpy(wanted), kind, -1)
        texels = self.texels(seen.vertices[0], seen.normals[0])
        views = torch.empty(size, size, dtype=torch.int32)
        read = torch.zeros(seen.keys.shape, dtype=torch.bool)
        wp.launch(kernels(_KERNELS).find_views, dim=(size, size), device="cpu", inputs=[
            wp.from_torch(texels), wp.from_torch(kind), wp.from_torch(self._face_kind), *_cameras(seen),
            wp.from_torch(seen.keys), wp.from_torch(views), wp.from_torch(read),
        ])  # fmt: skip
        return Unwrapped(replace(seen, keys=torch.where(read, seen.keys, EMPTY_KEY)), texels, views)

    def gather(self, seen: Unwrapped, light: Tensor) -> Gathered:
        """The texture of one frame.

        Args:
            seen: what `unwrap` gave.
            light: what its `pixels` showed, float32 [3, C, H, W], linear; it saturates at 1.

        A camera counts for as much as the cosine of the viewing angle exceeds that of a grazing view.
        """
        wp, size = warp(), self._ids.shape[1]
        out = torch.empty(size, size, 4)
        wp.launch(kernels(_KERNELS).average, dim=(size, size), device="cpu", inputs=[
            wp.from_torch(seen.texels), wp.from_torch(seen.views), *_cameras(seen.pixels), wp.from_torch(light),
            wp.from_torch(out, dtype=wp.vec4),
        ])  # fmt: skip
        total = out.numpy()
        weight = total[..., 3:]
        return Gathered(total[..., :3] / np.maximum(weight, 1e-9), weight[..., 0] > 0)


def _cameras(seen: Visible) -> list[Any]:
    """What the kernels read of pinhole cameras."""
    wp, views = warp(), seen.views
    return [
        wp.from_torch(views["rotation"], dtype=wp.mat33), wp.from_torch(views["translation"], dtype=wp.vec3),
        wp.from_torch(views["focal"], dtype=wp.vec2), wp.from_torch(views["centre"], dtype=wp.vec2),
        wp.from_torch(views["eye"], dtype=wp.vec3),
    ]  # fmt: skip


def _with(faces: Tensor, more: np.ndarray) -> Tensor:
    return torch.cat([faces, torch.from_numpy(more.astype(np.int32))])


def _pull_push(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours [T, T, 3]; where `weight` [T, T] is below 1, a share of ever coarser averages comes in."""
    import cv2

    size = len(colour)
    if size == 1:
        return colour
    half = (size + 1) // 2
    total = cv2.resize(colour * weight[..., None], (half, half), interpolation=cv2.INTER_AREA)
    share = cv2.resize(weight, (half, half), interpolation=cv2.INTER_AREA)
    coarse = _pull_push(total.reshape(half, half, 3) / np.maximum(share, 1e-9)[..., None], np.minimum(4 * share, 1))
    spread = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(colour * weight[..., None] + spread * (1 - weight[..., None]), np.float32)
