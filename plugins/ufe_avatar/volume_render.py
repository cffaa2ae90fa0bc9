"""R_vol of eq. 4 for views: primitives marched at pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ufe_avatar.networks.model import VOLUME_RADIUS_MM
from ufe_avatar.raymarch import Primitives, Rays, march
from ufe_avatar.views import Views

STEP = 1 / 320  # of marching, in radii of the volume: 0.8 mm
_OUTLINE = 0.1  # differences of opacity between neighbours from which a pixel is on an outline
_WITHIN = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))  # where rays pass a pixel there, from its centre


def march_pixels(primitives: Primitives, views: Views, pixels: Tensor) -> Tensor:
    """R_vol (eq. 4): linear RGB [B, P, 3] on black, and opacity, [B, P, 4], of pixels [B, P, 2] (x, y) of B views.

    The primitives are in radii of the volume.
    """
    image = torch.arange(len(pixels), dtype=torch.int32, device=pixels.device).repeat_interleave(pixels.shape[1])
    return _march(primitives, views, views.directions(pixels).flatten(0, 1), image).view(*pixels.shape[:2], 4)


def march_images(primitives: Primitives, views: Views, mask: Tensor | None = None) -> Tensor:
    """R_vol as images: linear RGB [B, 3, H, W] on black of B views; pixels on outlines are means of four rays.

    Args:
        primitives: in radii of the volume.
        views: what the images are seen from.
        mask: bool [H, W], pixels to march; others stay black. Default all.
    """
    count, height, width = len(views), views.height, views.width
    marched = torch.ones(height, width, dtype=torch.bool, device=views.focal.device) if mask is None else mask
    row, column = marched.nonzero().unbind(1)
    centre = torch.stack([column, row], -1) + 0.5
    seen = march_pixels(primitives, views, centre.expand(count, -1, -1))
    image = seen.new_zeros(count, height, width, 4)
    image[:, row, column] = seen
    views_of, pixels = _outlines(image[..., 3].detach(), marched)[:, row, column].nonzero().unbind(1)
    if len(views_of):
        within = centre[pixels][:, None] + torch.tensor(_WITHIN, device=centre.device)
        towards = views.at(views_of).directions(within).flatten(0, 1)
        again = _march(primitives, views, towards, views_of.int().repeat_interleave(len(_WITHIN)))
        image[views_of, row[pixels], column[pixels]] = again.unflatten(0, (-1, len(_WITHIN))).mean(1)
    return image[..., :3].movedim(-1, 1)


def _outlines(opacity: Tensor, marched: Tensor) -> Tensor:
    """Where opacity [B, H, W] differs between neighbours that were `marched` [H, W]."""
    most = functional.max_pool2d(torch.where(marched, opacity, -torch.inf), 3, 1, 1)
    least = -functional.max_pool2d(torch.where(marched, -opacity, -torch.inf), 3, 1, 1)
    return most - least > _OUTLINE


def _march(primitives: Primitives, views: Views, towards: Tensor, image: Tensor) -> Tensor:
    """Colour and opacity [R, 4] in directions [R, 3] of the views `image` int32 [R]."""
    origin = (views.position() / VOLUME_RADIUS_MM).contiguous()
    seen = march(Rays.through_cube(origin, towards.contiguous(), image), primitives, step=STEP)
    return torch.cat([seen.colour, seen.opacity[:, None]], 1)


def srgb(image: Tensor) -> np.ndarray:
    """uint8 [H, W, 3] of linear RGB [3, H, W]."""
    encoded = image.clamp(0, 1).pow(1 / 2.2)
    return np.ascontiguousarray((255 * encoded).round().byte().permute(1, 2, 0).cpu().numpy())
