"""Movement SDK (Meta 2023): raw images to animation coefficients by a network light enough for a headset.

Original: the face tracking of a consumer headset. Its network is not published; its output is: activations in [0, 1]
of 63 facial movements, at a latency (2.35 ms, P§9.1) of less than half of the universal encoder's. It is not
calibrated to the wearer by anything that an application gives it.

Kept: raw images, a light network, and coefficients that it regresses at once.

Changed: which network it is. Its latency, 0.47 of the universal encoder's, implies about half of the work, so it is a
plain convolutional network of ten layers for each face region, which sees left and mirrored right image at once, as two
channels: 0.44 of the universal encoder's multiplications at budget `cpu`, 0.41 at `gpu`. The coefficients are (e, g),
the avatar's own (P§10), not 63 activations that would have to be retargeted. Reported as "SDK-style" (P§13.8, O62).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ufe_baselines.plugin import MovementSdkConfig
from ufe_baselines.regressor import Regressor
from ufe_core.face_encoder import REGIONS
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, FrameBatch

_FACTORS = (1, 2, 4, 8, 8)  # of the width, after each halving
_CELLS = 2


class MovementSdkEncoder(Regressor[MovementSdkConfig]):
    """A light network for each face region; see the module."""

    code_modules = (*Regressor.code_modules, "ufe_baselines.movement_sdk")

    def __init__(self, config: MovementSdkConfig, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        widths = (2, *(config.width * factor for factor in _FACTORS))
        self.regions = nn.ModuleList(_light(widths) for _ in REGIONS)
        seen = _CELLS**2 * widths[-1]
        self.read_out(len(REGIONS) * seen, seen, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        pairs = self.views(frames.images).unflatten(1, (-1, 2))[:, :, :, 0]  # [2 regions, B, 2 sides, H, W]
        upper, lower = (
            network(some.contiguous(memory_format=torch.channels_last))
            for network, some in zip(self.regions, pairs, strict=True)
        )
        return upper, lower


def _light(widths: Sequence[int]) -> nn.Sequential:
    """Two convolutions for each width, of which the first halves the map."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        for inputs, stride in ((before, 2), (after, 1)):
            layers += [nn.Conv2d(inputs, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_CELLS), nn.Flatten(1))
