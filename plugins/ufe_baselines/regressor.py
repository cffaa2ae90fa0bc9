"""What the trained baselines share: inputs by face region, and the read-out to code and gaze (P§13.8, O61)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError
from ufe_core.interfaces.encoder import Encoder, EncoderNeeds, TrainingStatistics
from ufe_core.types import AnchorSet, Calibration, CodeSpace, Detections, Encoding, FrameBatch

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

REFERENCE = "neutral"  # the anchor that displacements and warps are measured from (O60)
_CODE_FLOOR = 0.02
_AHEAD = (0.0, 0.0, 1.0)


class Regressor(Encoder[ConfigT]):
    """Features of the upper and of the lower face, and the same read-out as the universal encoder's.

    A baseline implements `features`. Cameras come as left eye, right eye, left mouth, right mouth.
    """

    learns = "weights"
    image_mean: Tensor
    image_std: Tensor
    code_mean: Tensor
    code_std: Tensor

    def __init__(self, config: ConfigT, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        if len(needs.cameras) != 4:
            raise ConfigError(f"This encoder needs 4 tracking cameras, this source has {len(needs.cameras)}.")
        self.register_buffer("image_mean", torch.full((2,), 0.5))
        self.register_buffer("image_std", torch.full((2,), 0.25))
        self.register_buffer("code_mean", torch.zeros(code_space.size))
        self.register_buffer("code_std", torch.ones(code_space.size))

    @abstractmethod
    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, F] of the upper and [B, F'] of the lower face.

        Args:
            frames: B of them.
            kept: what `_enroll` kept, a row for each frame.
        """

    def read_out(self, upper: int, lower: int, *, fuse_width: int, gaze_width: int) -> None:
        """Add the perceptrons f_fuse and f_gaze for features of these sizes."""
        self.fuse = perceptron(upper + lower, fuse_width, self.code_space.size)
        self.gaze = perceptron(upper, gaze_width, 6)

    def fit_statistics(self, statistics: TrainingStatistics) -> None:
        """Input mean and deviation per region (P§13.1, O11); output mean and deviation per code entry."""
        moments = [
            torch.stack([pairs.mean((0, 2, 3, 4)), pairs.square().mean((0, 2, 3, 4))])
            for pairs in (some.double().div(255).unflatten(1, (2, 2)) for some in statistics.images)
        ]
        mean, square = torch.stack(moments).mean(0)  # every training person gives as many images
        self.image_mean.copy_(mean)
        self.image_std.copy_((square - mean**2).clamp_min(1e-6).sqrt())
        self.code_mean.copy_(statistics.labels.expression.mean(0))
        self.code_std.copy_(statistics.labels.expression.std(0).clamp_min(_CODE_FLOOR))

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        count = frames.images.shape[0]
        kept = {name: value.expand(count, *value.shape[1:]) for name, value in calibration.rows(frames.users).items()}
        upper, lower = self.features(frames, kept)
        expression = self.code_mean + self.code_std * self.fuse(self.join(upper, lower)).float()
        gaze = self.gaze(upper).float().view(count, 2, 3) + expression.new_tensor(_AHEAD)
        return Encoding(expression, functional.normalize(gaze, dim=-1).flatten(1))

    def join(self, upper: Tensor, lower: Tensor) -> Tensor:
        """What f_fuse reads."""
        return torch.cat([upper, lower], 1)

    def standardised(self, images: Tensor) -> Tensor:
        """Images float32 [B, 4, H, W] of zero mean and unit deviation over the training people, by region."""
        pairs = images.unflatten(1, (2, 2)).float() / 255
        shape = (1, 2, 1, 1, 1)
        return ((pairs - self.image_mean.view(shape)) / self.image_std.view(shape)).flatten(1, 2)


class Reference(Regressor[ConfigT]):
    """A regressor that compares each frame with the wearer's neutral anchor, and with no other (O60)."""

    uses_anchors = True
    inputs = ("images", "keypoints")

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        if REFERENCE not in self.needs.anchors:
            raise ConfigError(f"{type(self).__name__} needs the anchor '{REFERENCE}': give --anchors {REFERENCE}.")
        at = self.needs.anchors.index(REFERENCE)
        assert anchors.keypoints is not None
        found = anchors.keypoints.map(lambda value: value[:, at])
        known = anchors.present[:, at].float()
        return {
            "points": found.points, "visible": found.visible * known[:, None, None],
            "image": anchors.images[:, at].float() * known[:, None, None, None],
        }  # fmt: skip


def by_side(values: Tensor) -> Tensor:
    """[B, 4, ...] of cameras to [2, B 2, ...]: the regions, and left and right in turn."""
    return values.unflatten(1, (2, 2)).transpose(0, 1).flatten(1, 2)


def mirrored_images(images: Tensor) -> Tensor:
    """Images [B, 4, ..., H, W] with those of right cameras turned into the left ones' orientation (P§2.3)."""
    pairs = images.unflatten(1, (2, 2))
    return torch.stack([pairs[:, :, 0], pairs[:, :, 1].flip(-1)], 2).flatten(1, 2)


def mirrored_points(found: Detections, side: int) -> Detections:
    """The same for keypoints [B, 4, K] of images of that side."""
    points = found.points
    across = torch.stack([side - points[:, 1::2, :, 0], points[:, 1::2, :, 1]], -1)
    return Detections(torch.stack([points[:, 0::2], across], 2).flatten(1, 2), found.visible)


class Pooled(nn.Module):
    """A timm network without classifier whose last map is averaged to `cells` x `cells`."""

    def __init__(self, name: str, options: Mapping[str, Any], *, inputs: int, cells: int) -> None:
        super().__init__()
        import timm

        if name not in timm.list_models():
            raise ConfigError(f"timm has no model {name!r}.")
        try:
            self.network = timm.create_model(
                name, pretrained=False, in_chans=inputs, num_classes=0, global_pool="", **options
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"timm cannot build {name!r} with options {dict(options)}: {error}") from error
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Flatten(1))
        width: Any = self.network.num_features
        self.features: int = width * cells * cells

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, features] of maps [B, inputs, H, W]."""
        pooled: Tensor = self.pool(self.network(images.contiguous(memory_format=torch.channels_last)))
        return pooled


def perceptron(inputs: int, width: int, outputs: int, *, hidden: int = 1, from_zero: bool = True) -> nn.Sequential:
    """A multilayer perceptron; its output starts near zero, or not."""
    layers: list[nn.Module] = []
    for k in range(hidden):
        layers += [nn.Linear(inputs if k == 0 else width, width), nn.Hardswish()]
    last = nn.Linear(width, outputs)
    if from_zero:
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
