"""NeckNet (Chen et al. 2021): raw images to coefficients by a deep plain ResNet.

Original: NeckFace looks up at the chin from infrared cameras on a neckband or a necklace. Each image goes through a
ResNet-34, the features are joined, and fully connected layers regress facial parameters. No reference image.

Kept: the network's shape, a ResNet-34 and fully connected layers at once on raw infrared images, one pass.

Changed, because there are four cameras of two face regions here and not one or two of the chin: a network for each
region, shared by the left and the mirrored right image; features of all four are joined. It regresses (e, g), through
the losses that every row shares (P§10). At budget `cpu` it has a quarter of a ResNet-34's channels and begins with
three small convolutions in place of one of 7 x 7: 1.2 times the universal encoder's multiplications there; whole, at
`gpu`, it has 17 times those of a MobileNetV3. Reported as "NeckNet-style" (P§13.8, O62).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ufe_baselines.plugin import NeckNetConfig
from ufe_baselines.regressor import Pooled, Regressor
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, FrameBatch


class NeckNetEncoder(Regressor[NeckNetConfig]):
    """A ResNet for each face region; see the module."""

    code_modules = (*Regressor.code_modules, "ufe_baselines.necknet")

    def __init__(self, config: NeckNetConfig, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        networks = [Pooled(config.backbone, config.backbone_options, inputs=1, cells=config.cells) for _ in range(2)]
        self.regions = nn.ModuleList(networks)
        count = 2 * networks[0].features
        self.read_out(2 * count, count, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        upper, lower = (
            network(some).view(len(frames.images), -1)
            for network, some in zip(self.regions, self.views(frames.images), strict=True)
        )
        return upper, lower
