"""Pinhole views as tensors: what an avatar is seen from, differentiable in where that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ufe_core.errors import ContractError
from ufe_core.types import CameraSpec


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
        return torch.nn.functional.normalize(ray, dim=-1)
