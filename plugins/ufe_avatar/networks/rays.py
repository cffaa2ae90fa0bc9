"""Rays of pinhole cameras through the volume, in ava-256's conventions: pixel centres are whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def camera_rays(
    campos: Tensor, camrot: Tensor, focal: Tensor, princpt: Tensor, pixels: Tensor, *, radius_mm: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rays in units of the volume's radius, and the part of each within the cube from -1 to 1.

    Args:
        campos: float32 [B, 3], camera centres in mm from the head's origin.
        camrot: float32 [B, 3, 3], from head to camera axes (x right, y down, z forward).
        focal: float32 [B, 2], in pixels.
        princpt: float32 [B, 2], in pixels.
        pixels: float32 [B, H, W, 2], x and y.
        radius_mm: of the volume.

    Returns:
        Origins [B, H, W, 3], unit directions [B, H, W, 3], nearest and farthest distance [B, H, W, 2]; where the
        farthest is less than the nearest, the ray misses the volume.
    """
    plane = (pixels - princpt[:, None, None]) / focal[:, None, None]
    local = torch.cat([plane, torch.ones_like(plane[..., :1])], -1)
    direction = functional.normalize(torch.einsum("bhwi,bij->bhwj", local, camrot), dim=-1)
    origin = (campos / radius_mm)[:, None, None].expand_as(direction)
    walls = torch.stack([(-1 - origin) / direction, (1 - origin) / direction])
    near, far = walls.amin(0).amax(-1).clamp_min(0), walls.amax(0).amin(-1)
    return origin, direction, torch.stack([near, far], -1)
