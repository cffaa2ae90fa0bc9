"""Movement SDK (Meta 2023): raw images to a few dozen bounded activations by a network light enough for a headset.

Original: the face tracking of a consumer headset. Its network is not published; its output is: activations in [0, 1]
of 63 facial movements, at a latency (2.35 ms, P§9.1) of less than half of the universal encoder's. It is not
calibrated to the wearer by anything that an application gives it.

Kept: raw images, a light network, and the bottleneck of 63 activations in [0, 1] that everything goes through.

Changed: which network it is. A plain convolutional network sees the four images at once, as channels; what avatars
need is read off the activations by one linear layer, as an application's retargeting does, and gaze off the network's
features, as the original's eye tracking is a service of its own. Reported as "SDK-style" (P§13.8, O62).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from ufe_baselines.plugin import MovementSdkConfig
from ufe_baselines.regressor import Regressor, mirrored_images, perceptron
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, FrameBatch

ACTIVATIONS = 63


class MovementSdkEncoder(Regressor[MovementSdkConfig]):
    """One light network for all images; see the module."""

    code_modules = ("ufe_baselines.movement_sdk", "ufe_baselines.regressor")

    def __init__(self, config: MovementSdkConfig, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        widths = (4, *(config.width * factor for factor in (1, 2, 4, 4)))
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(1))
        features = 4 * widths[-1]
        self.activations = nn.Sequential(
            nn.Linear(features, 4 * ACTIVATIONS), nn.ReLU(), nn.Linear(4 * ACTIVATIONS, ACTIVATIONS)
        )
        retargeting = nn.Linear(ACTIVATIONS, code_space.size)
        nn.init.normal_(retargeting.weight, std=0.01)
        self.fuse = nn.Sequential(retargeting)
        self.gaze = perceptron(features, config.gaze_width, 6)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        images = mirrored_images(self.standardised(frames.images)).contiguous(memory_format=torch.channels_last)
        seen = self.network(images)
        return seen, self.activations(seen).sigmoid() - 0.5

    def join(self, upper: Tensor, lower: Tensor) -> Tensor:
        """The activations alone: what an application is given."""
        return lower
