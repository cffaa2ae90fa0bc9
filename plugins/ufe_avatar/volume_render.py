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
_WITHIN = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))  # where rays pass a pixel there, no two
# of them in a row or a column, so that an outline along one covers it in quarters, not in halves


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
    if mask is None:
        mask = torch.ones(height, width, dtype=torch.bool, device=views.focal.device)
    row, column = _dilated(mask.float()[None])[0].nonzero().unbind(1)  # neighbours tell where outlines are
    centre = torch.stack([column, row], -1) + 0.5
    seen = march_pixels(primitives, views, centre.expand(count, -1, -1))
    image = seen.new_zeros(count, height, width, 4)
    image[:, row, column] = seen
    opacity = image[..., 3].detach()
    outline = (_dilated(opacity) + _dilated(-opacity) > _OUTLINE) & mask
    of, row, column = outline.nonzero().unbind(1)
    if len(of):
        within = torch.stack([column, row], -1)[:, None] + 0.5 + torch.tensor(_WITHIN, device=row.device)
        towards = views.at(of).directions(within).flatten(0, 1)
        again = _march(primitives, views, towards, of.int().repeat_interleave(len(_WITHIN)))
        image[of, row, column] = again.unflatten(0, (-1, len(_WITHIN))).mean(1)
    return image[..., :3].movedim(-1, 1) * mask


def _dilated(image: Tensor) -> Tensor:
    """The largest value of each pixel of [B, H, W] and its neighbours."""
    return functional.max_pool2d(image, 3, 1, 1)


def _march(primitives: Primitives, views: Views, towards: Tensor, image: Tensor) -> Tensor:
    """Colour and opacity [R, 4] in directions [R, 3] of the views `image` int32 [R]."""
    origin = (views.position() / VOLUME_RADIUS_MM).contiguous()
    seen = march(Rays.through_cube(origin, towards.contiguous(), image), primitives, step=STEP)
    return torch.cat([seen.colour, seen.opacity[:, None]], 1)


def srgb(image: Tensor) -> np.ndarray:
    """uint8 [H, W, 3] of linear RGB [3, H, W]."""
    encoded = image.clamp(0, 1).pow(1 / 2.2)
    return np.ascontiguousarray((255 * encoded).round().byte().permute(1, 2, 0).cpu().numpy())
