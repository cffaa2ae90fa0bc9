"""R_vol of eq. 4 for views: primitives marched at pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ufe_avatar.networks.model import VOLUME_RADIUS_MM
from ufe_avatar.raymarch import Primitives, Rays, march
from ufe_avatar.views import Views

STEP = 1 / 320  # of marching, in radii of the volume: 0.8 mm


def march_pixels(primitives: Primitives, views: Views, pixels: Tensor) -> Tensor:
    """R_vol (eq. 4): linear RGB [B, P, 3] on black of pixels [B, P, 2] (x, y) of B views.

    The primitives are in radii of the volume.
    """
    image = torch.arange(len(pixels), dtype=torch.int32, device=pixels.device).repeat_interleave(pixels.shape[1])
    origin = (views.position() / VOLUME_RADIUS_MM).contiguous()
    rays = Rays.through_cube(origin, views.directions(pixels).flatten(0, 1).contiguous(), image)
    return march(rays, primitives, step=STEP).colour.view(*pixels.shape[:2], 3)


def every_pixel(views: Views) -> Tensor:
    """Centres [B, H * W, 2] of all pixels, row by row."""
    device = views.focal.device
    rows, columns = torch.arange(views.height, device=device), torch.arange(views.width, device=device)
    y, x = torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")
    return torch.stack([x, y], -1).view(1, -1, 2).expand(len(views), -1, -1)


def srgb(image: Tensor) -> np.ndarray:
    """uint8 [H, W, 3] of linear RGB [3, H, W]."""
    encoded = image.clamp(0, 1).pow(1 / 2.2)
    return np.ascontiguousarray((255 * encoded).round().byte().permute(1, 2, 0).cpu().numpy())
