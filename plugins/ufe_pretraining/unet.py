"""The U-Net that reconstructs one view (P§6.4): the expression and the person come in at its lowest level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUP = 8  # channels that are normalised together


class UNet(nn.Module):
    """Two 3 x 3 convolutions a level, each level half as wide as the one above; skips at every level (O32, O33).

    The last of these convolutions is not normalised, so that an image can be brighter or darker as a whole.

    Args:
        channels: of the levels; the map below the last one, f_i, has as many as that.
        inputs: channels of an image: its grey levels, and where it is masked.
        code: numbers that describe the expression.
        side: of the map below the last level.
        norm: what normalises: `group`, each image by itself, or `batch`.
    """

    def __init__(
        self, channels: Sequence[int], *, inputs: int, code: int, side: int, norm: str = "group"
    ) -> None:  # fmt: skip
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = inputs
        for width in channels:
            self.down.append(_level(before, width, norm))
            before = width
        self.code = nn.Linear(code, before * side * side)
        self.mix = nn.Conv2d(3 * before, before, 1)
        for width in reversed(channels):
            self.up.append(_level(before + width, width, norm, last=len(self.up) == len(channels) - 1))
            before = width
        self.out = nn.Conv2d(before, 1, 1)

    def forward(self, image: Tensor, code: Tensor, person: Tensor) -> Tensor:
        """A view reconstructed, [B, S, S].

        Args:
            image: [B, 2, S, S], the masked view and its mask.
            code: [B, D + 6], what the encoder says of the frame.
            person: u^id, [B, F, S / 2^L, S / 2^L].
        """
        skips, x = [], image
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = functional.relu(self.mix(torch.cat([x, self.code(code).view_as(x), person], 1)))
        for level, skip in zip(self.up, reversed(skips), strict=True):
            x = level(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        out: Tensor = self.out(x)[:, 0]
        return out


def _level(inputs: int, outputs: int, norm: str, *, last: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            _normaliser(norm, outputs), nn.ReLU(inplace=True),
        ]  # fmt: skip
    if last:
        layers[-2] = nn.Identity()
    return nn.Sequential(*layers)


def _normaliser(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // _GROUP)), channels)
