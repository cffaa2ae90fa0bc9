"""Pinhole views as tensors: what an avatar is seen from, differentiable in where that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ufe_core.errors import ContractError
from ufe_core.head import EYE_LEFT, EYE_RIGHT, load_head
from ufe_core.ops.rasterize import interpolate, rasterize
from ufe_core.types import CameraSpec

_FRONTAL_DISTANCE_MM = 600.0
_FRONTAL_HEIGHT_MM = 255.0
_FRONTAL_CENTRE = np.array([0.0, 18.0, 0.0])


@dataclass(frozen=True)
class Views:
    """B pinhole cameras of one image size; poses map head to camera coordinates.

    `rotation` [B, 3, 3], `translation` [B, 3] (mm), `focal` [B, 2] and `centre` [B, 2] (pixels).
    """

    rotation: Tensor
    translation: Tensor
    focal: Tensor
    centre: Tensor
    width: int
    height: int

    @classmethod
    def of(
        cls, cameras: Sequence[CameraSpec], *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> Views:
        """The views of cameras.

        Raises:
            ContractError: a camera's lens is no pinhole, or image sizes differ.
        """
        for camera in cameras:
            if np.any(camera.distortion) or camera.model == "fisheye" or camera.intrinsics[0, 1] != 0:
                raise ContractError(f"Avatars are rendered through pinholes; camera {camera.name!r} has a lens.")
        sizes = {(camera.width, camera.height) for camera in cameras}
        if len(sizes) != 1:
            raise ContractError(f"Views of one call share an image size; these have {sorted(sizes)}.")

        def stacked(values: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(values)).to(device, dtype)

        return cls(
            stacked([camera.rotation for camera in cameras]), stacked([camera.translation for camera in cameras]),
            stacked([camera.intrinsics[[0, 1], [0, 1]] for camera in cameras]),
            stacked([camera.intrinsics[:2, 2] for camera in cameras]), *sizes.pop(),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rotation)

    def part(self, start: int, stop: int) -> Views:
        """Those from `start` to `stop`, exclusive."""
        rows = slice(start, stop)
        return Views(
            self.rotation[rows], self.translation[rows], self.focal[rows], self.centre[rows], self.width, self.height
        )

    def at(self, rows: Tensor) -> Views:
        """The views [R] of these numbers."""
        return Views(
            self.rotation[rows], self.translation[rows], self.focal[rows], self.centre[rows], self.width, self.height
        )

    def project(self, points: Tensor) -> Tensor:
        """Pixel x, pixel y and depth (mm) [B, N, 3] of points [B, N, 3], mm, head coordinates."""
        x, y, z = (points @ self.rotation.transpose(1, 2) + self.translation[:, None]).unbind(-1)
        flat = torch.stack([x, y], -1) / z[..., None]
        return torch.cat([flat * self.focal[:, None] + self.centre[:, None], z[..., None]], -1)

    def position(self) -> Tensor:
        """Where the cameras are, [B, 3], mm, head coordinates."""
        return -(self.rotation.transpose(1, 2) @ self.translation[..., None])[..., 0]

    def directions(self, pixels: Tensor) -> Tensor:
        """Unit vectors [B, N, 3], head coordinates, in which pixels [B, N, 2] (x, y) are seen."""
        flat = (pixels - self.centre[:, None]) / self.focal[:, None]
        ray = torch.cat([flat, torch.ones_like(flat[..., :1])], -1) @ self.rotation
        return functional.normalize(ray, dim=-1)


@cache
def frontal_camera(size: int) -> CameraSpec:
    """One fixed camera straight ahead; a head fills about 80 % of the height (P§13.7, O58)."""
    return camera_around(0.0, 0.0, size, name="frontal")


def camera_around(azimuth_deg: float, altitude_deg: float, size: int, *, name: str = "orbit") -> CameraSpec:
    """A camera that looks at the head, with positive angles from the head's own left and from above."""
    azimuth, altitude = np.radians([azimuth_deg, altitude_deg])
    towards = np.array([-np.sin(azimuth) * np.cos(altitude), -np.sin(altitude), np.cos(azimuth) * np.cos(altitude)])
    right = np.cross(towards, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(-towards, right), -towards])
    position = _FRONTAL_CENTRE + _FRONTAL_DISTANCE_MM * towards
    focal = size * _FRONTAL_DISTANCE_MM / _FRONTAL_HEIGHT_MM
    intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return CameraSpec(name, "centre", "whole", "augmented", size, size, intrinsics, rotation, -rotation @ position)


@cache
def face_mask(size: int) -> Tensor:
    """W1 from the front: the mean head's face region and eyes, dilated by 2 % of the image (P§13.3, O21)."""
    head = load_head()
    inside = np.zeros(len(head.template), np.float32)
    inside[head.topology.region("face")] = 1
    inside[np.isin(head.part, [EYE_LEFT, EYE_RIGHT])] = 1
    faces = torch.from_numpy(head.faces.astype(np.int32))
    screen = Views.of([frontal_camera(size)]).project(torch.from_numpy(head.template)[None])
    ids = rasterize(screen, faces, height=size, width=size)
    marked = interpolate(screen, torch.from_numpy(inside)[None, :, None], faces, ids)[0, ..., 0] > 0.5
    reach = max(1, round(0.02 * size))
    grown = functional.max_pool2d(marked[None, None].float(), 2 * reach + 1, 1, reach)
    return grown[0, 0] > 0
