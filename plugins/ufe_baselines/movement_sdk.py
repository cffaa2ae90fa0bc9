"""Movement SDK (Meta 2023): raw images to a few dozen bounded activations by a network light enough for a headset.

Original: the face tracking of a consumer headset. Its network is not published; its output is: activations in [0, 1]
of 63 facial movements, at a latency (2.35 ms, P§9.1) of less than half of the universal encoder's. It is not
calibrated to the wearer by anything that an application gives it.

Kept: raw images, a light network, and the bottleneck of 63 activations in [0, 1] that everything goes through.

Changed: which network it is. Its latency, 0.47 of the universal encoder's, implies about half of the work, so it is a
plain convolutional network of ten layers for each face region, which sees left and mirrored right image at once, as two
channels: 0.44 of the universal encoder's multiplications at budget `cpu`, 0.41 at `gpu`. What avatars need is read off
the activations by one linear layer, as an application's retargeting does, and gaze off the network's features, as the
original's eye tracking is a service of its own. Reported as "SDK-style" (P§13.8, O62).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ufe_baselines.plugin import MovementSdkConfig
from ufe_baselines.regressor import Regressor
from ufe_core.face_encoder import REGIONS, perceptron
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, FrameBatch

ACTIVATIONS = 63
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
        features = len(REGIONS) * seen
        self.activations = nn.Sequential(
            nn.Linear(features, 4 * ACTIVATIONS), nn.ReLU(), nn.Linear(4 * ACTIVATIONS, ACTIVATIONS)
        )
        retargeting = nn.Linear(ACTIVATIONS, code_space.size)
        nn.init.normal_(retargeting.weight, std=0.01)
        self.fuse = nn.Sequential(retargeting)
        self.gaze = perceptron(seen, config.gaze_width, 6)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        pairs = self.views(frames.images).unflatten(1, (-1, 2))[:, :, :, 0]  # [2 regions, B, 2 sides, H, W]
        seen = [
            network(some.contiguous(memory_format=torch.channels_last))
            for network, some in zip(self.regions, pairs, strict=True)
        ]
        return seen[0], self.activations(torch.cat(seen, 1)).sigmoid() - 0.5

    def join(self, upper: Tensor, lower: Tensor) -> Tensor:
        """The activations alone: what an application is given."""
        return lower


def _light(widths: Sequence[int]) -> nn.Sequential:
    """Two convolutions for each width, of which the first halves the map."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        for inputs, stride in ((before, 2), (after, 1)):
            layers += [nn.Conv2d(inputs, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_CELLS), nn.Flatten(1))
