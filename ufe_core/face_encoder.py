"""What encoders of four tracking cameras share: images by face region, and codes and gaze read off features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError
from ufe_core.interfaces.encoder import Encoder, EncoderNeeds, TrainingStatistics
from ufe_core.types import CodeSpace, Detections, Encoding

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

REGIONS = ("upper", "lower")
CAMERAS_NEEDED = 4
_CODE_FLOOR = 0.02  # least deviation of a code's number over the training frames
_AHEAD = (0.0, 0.0, 1.0)


class FaceEncoder(Encoder[ConfigT]):
    """Cameras come as left eye, right eye, left mouth, right mouth; right images look like left ones when mirrored.

    It keeps the mean and the deviation of the images of each region (P§13.1, O11) and of each of a code's numbers. A
    subclass calls `read_out` once for the two perceptrons of eq. 8 and 9, and `coded` for what they say.
    """

    learns = "weights"
    camera_places = (("upper", "left"), ("upper", "right"), ("lower", "left"), ("lower", "right"))
    code_modules: ClassVar[tuple[str, ...]] = ("ufe_core.face_encoder",)
    image_mean: Tensor
    image_std: Tensor
    code_mean: Tensor
    code_std: Tensor
    ahead: Tensor

    def __init__(self, config: ConfigT, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        if len(needs.cameras) != CAMERAS_NEEDED:
            raise ConfigError(
                f"{type(self).__name__} needs {CAMERAS_NEEDED} tracking cameras, this source has {len(needs.cameras)}."
            )
        self.register_buffer("image_mean", torch.full((2,), 0.5))
        self.register_buffer("image_std", torch.full((2,), 0.25))
        self.register_buffer("code_mean", torch.zeros(code_space.size))
        self.register_buffer("code_std", torch.ones(code_space.size))
        self.register_buffer("ahead", torch.tensor(_AHEAD), persistent=False)

    def read_out(self, fused: int, seen: int, *, fuse_width: int, gaze_width: int) -> None:
        """Add the perceptrons f_fuse, of features of both regions, and f_gaze, of those of the upper one."""
        self.fuse: nn.Module = perceptron(fused, fuse_width, self.code_space.size)
        self.gaze: nn.Module = perceptron(seen, gaze_width, 6)

    def taught_by_labels(self) -> tuple[str, ...]:
        """Both perceptrons: what a pre-training makes them say is no code of an avatar.

        Their hidden units would learn one slower than new ones do: masked views drive them far from zero.
        """
        return ("fuse.", "gaze.")

    def coded(self, fused: Tensor, seen: Tensor) -> Encoding:
        """Code and gaze of features [B, F] of both regions and [B, F'] of the upper one."""
        expression = self.code_mean + self.code_std * self.fuse(fused).float()
        gaze = self.gaze(seen).float().view(-1, 2, 3) + self.ahead
        return Encoding(expression, functional.normalize(gaze, dim=-1).flatten(1))

    def fit_statistics(self, statistics: TrainingStatistics) -> None:
        """Means and deviations over the training people."""
        self.fit_images(statistics.images)
        self.code_mean.copy_(statistics.labels.expression.mean(0))
        self.code_std.copy_(statistics.labels.expression.std(0).clamp_min(_CODE_FLOOR))

    def fit_images(self, images: Iterable[Tensor]) -> None:
        """Mean and deviation of the images of each region; no images leave them as they are."""
        total, square, count = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0
        for some in images:
            pairs = some.double().div(255).unflatten(1, (2, 2))
            total += pairs.mean((0, 2, 3, 4)).cpu() * len(some)
            square += pairs.square().mean((0, 2, 3, 4)).cpu() * len(some)
            count += len(some)
        if not count:
            return
        mean = total / count
        self.image_mean.copy_(mean)
        self.image_std.copy_((square / count - mean**2).clamp_min(1e-6).sqrt())

    def standardised(self, images: Tensor) -> Tensor:
        """Images float32 [B, 4, H, W] of zero mean and unit deviation over the training people, by region."""
        return standardised_images(images.float() / 255, self.image_mean, self.image_std)

    def views(self, images: Tensor) -> Tensor:
        """Both regions' views, standardised, right ones mirrored: float32 [2, B 2, 1, H, W], left and right in turn."""
        return by_region(mirrored_images(self.standardised(images)))[:, :, None]


def by_region(values: Tensor) -> Tensor:
    """[B, 4, ...] of cameras to [2, B 2, ...]: the regions, and left and right in turn."""
    return values.unflatten(1, (2, 2)).transpose(0, 1).flatten(1, 2)


def standardised_images(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images float32 [B, 4, H, W] less the mean and over the deviation, both [2], of their region."""
    mean, std = (value.view(1, 2, 1, 1, 1) for value in (mean, std))
    return ((images.unflatten(1, (2, 2)) - mean) / std).flatten(1, 2)


def mirrored_images(images: Tensor) -> Tensor:
    """Images [B, 4, ..., H, W] with those of right cameras turned into the left ones' orientation (P§2.3)."""
    pairs = images.unflatten(1, (2, 2))
    return torch.stack([pairs[:, :, 0], pairs[:, :, 1].flip(-1)], 2).flatten(1, 2)


def mirrored_points(points: Tensor, side: int) -> Tensor:
    """The same for points [B, 4, K, 2], pixels (x, y) of images of that side; it is its own inverse."""
    across = torch.stack([side - points[:, 1::2, :, 0], points[:, 1::2, :, 1]], -1)
    return torch.stack([points[:, 0::2], across], 2).flatten(1, 2)


def mirrored_detections(found: Detections, side: int) -> Detections:
    """The same for keypoints that were found."""
    return Detections(mirrored_points(found.points, side), found.visible)


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
