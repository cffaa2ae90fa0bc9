"""What a camera adds to an image: its own colour response, and what lies behind the head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ufe_avatar.networks.layers import SLOPE

_HIDDEN, _CODE, _FREQUENCIES = 256, 40, 10
_SCALE, _MEAN = 25.0, 100.0


class ColourCalibration(nn.Module):
    """A gain and an offset for each channel, of the camera and of the capture."""

    def __init__(self, cameras: int, identities: int) -> None:
        super().__init__()
        self.wcam, self.bcam = nn.Parameter(torch.ones(cameras, 3)), nn.Parameter(torch.zeros(cameras, 3))
        self.wident, self.bident = nn.Parameter(torch.zeros(identities, 3)), nn.Parameter(torch.zeros(identities, 3))

    def forward(self, image: Tensor, camera: Tensor, identity: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..255, premultiplied, as cameras int64 [B] see captures int64 [B]."""
        gain = self.wcam[camera] + self.wident[identity]
        offset = self.bcam[camera] + self.bident[identity]
        return image * gain[:, :, None, None] + offset[:, :, None, None]


class Background(nn.Module):
    """An image of what is behind the head for each camera and capture, as a function of the pixel."""

    cam_ident: Tensor
    id_ident: Tensor

    def __init__(self, cameras: int, identities: int) -> None:
        super().__init__()
        self.register_buffer("cam_ident", torch.eye(cameras))
        self.register_buffer("id_ident", torch.eye(identities))
        self.cammod, self.idmod = _index_network(cameras), _index_network(identities)
        inputs = 2 * _CODE + 4 * _FREQUENCIES
        layers: list[nn.Module] = []
        for channels in (inputs, *[_HIDDEN] * 4):
            layers += [nn.Conv2d(channels, _HIDDEN, 1), nn.LeakyReLU(SLOPE)]
        self.mlp = nn.Sequential(*layers, nn.Conv2d(_HIDDEN, 3, 1))

    def forward(self, places: Tensor, camera: Tensor, identity: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..255.

        Args:
            places: float32 [B, H, W, 2], x and y from -1 to 1: `places_in_grid`.
            camera: int64 [B].
            identity: int64 [B].
        """
        known = torch.cat([self.cammod(self.cam_ident[camera]), self.idmod(self.id_ident[identity])], 1)
        constant = known[:, :, None, None].expand(-1, -1, *places.shape[1:3])
        return _SCALE * self.mlp(torch.cat([constant, _waves(places)], 1)) + _MEAN


def places_in_grid(pixels: Tensor) -> Tensor:
    """Pixel coordinates [B, H, W, 2] scaled to -1..1 by the size of the grid that they form, whatever the image's."""
    height, width = pixels.shape[1:3]
    return pixels * 2 / pixels.new_tensor([max(width - 1, 1), max(height - 1, 1)]) - 1


def _waves(places: Tensor) -> Tensor:
    """Sines, then cosines, of x and y at doubling frequencies: [B, 40, H, W]."""
    frequencies = math.pi * 2.0 ** torch.arange(_FREQUENCIES, dtype=places.dtype, device=places.device)
    phases = (places[..., None, :] * frequencies[:, None]).flatten(-2)
    return torch.cat([phases.sin(), phases.cos()], -1).permute(0, 3, 1, 2)


def _index_network(count: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(count, _HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(_HIDDEN, _CODE))
