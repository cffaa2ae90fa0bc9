"""Layers whose weight is divided by its norm, and rotations from axis and angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of every leaky unit in these networks
FASTEST = torch.channels_last  # layout in which images go through them: up to three times as fast on a CPU as the usual
_GAIN = math.sqrt(2 / (1 + SLOPE**2))
_ANGLE_EPSILON = 1e-5  # on the squared angle: keeps the gradient finite at no rotation


class ConvWN(nn.Conv2d):
    """Convolution with weight `weight * g / |weight|`, the norm over the whole tensor, `g` one for each output channel.

    Args:
        inputs, outputs: channels.
        kernel, stride, padding: in texels.
        leaky: a leaky unit follows, for the scale of the first weights.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, *, leaky: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.g = nn.Parameter(torch.empty(outputs))
        _initialise(self, self.g, spread=kernel**2, leaky=leaky)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.g / norm(self.weight))[:, None, None, None]
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class ConvTransposeWN(nn.ConvTranspose2d):
    """Transposed convolution 4/2/1, normed as in `ConvWN`; its first weights are one kernel for all phases."""

    def __init__(self, inputs: int, outputs: int, *, leaky: bool = False) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)
        self.g = nn.Parameter(torch.empty(outputs))
        _initialise(self, self.g, spread=4, leaky=leaky)
        with torch.no_grad():
            self.weight.copy_(self.weight[:, :, 0::2, 0::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
            self.g.fill_(norm(self.weight))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight * (self.g / norm(self.weight))[None, :, None, None]
        return functional.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)


class LinearWN(nn.Linear):
    """Linear layer, normed as in `ConvWN`."""

    def __init__(self, inputs: int, outputs: int, *, leaky: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.g = nn.Parameter(torch.empty(outputs))
        _initialise(self, self.g, spread=1, leaky=leaky)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (self.g / norm(self.weight))[:, None]
        return functional.linear(x, weight, self.bias)


def norm(weight: Tensor) -> Tensor:
    """The norm over all entries; `Tensor.norm` adds float32 one by one, and is out by 1e-5 of large weights."""
    return weight.square().sum().sqrt()


def leaky_conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    """A `ConvWN` and a leaky unit."""
    return nn.Sequential(ConvWN(inputs, outputs, kernel, stride, padding, leaky=True), leaky_unit())


def leaky_unit() -> nn.LeakyReLU:
    """The unit after a convolution, in its memory: no gradient needs what it was given."""
    return nn.LeakyReLU(SLOPE, inplace=True)


def halving(inputs: int, outputs: int) -> nn.Sequential:
    """A `leaky_conv` that halves the side."""
    return leaky_conv(inputs, outputs, 4, 2, 1)


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    """A `leaky_conv` of each texel by itself."""
    return leaky_conv(inputs, outputs, 1, 1, 0)


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Rotations [..., 3, 3] from axis times angle [..., 3] in radians.

    The angle is sqrt(1e-5 + |r|^2), so that the result is a rotation only up to that epsilon.
    """
    angle = (_ANGLE_EPSILON + vectors.square().sum(-1)).sqrt()
    x, y, z = (vectors / angle[..., None]).unbind(-1)
    c, s = angle.cos(), angle.sin()
    k = 1 - c
    rows = [
        x * x + (1 - x * x) * c, x * y * k - z * s, x * z * k + y * s,
        x * y * k + z * s, y * y + (1 - y * y) * c, y * z * k - x * s,
        x * z * k - y * s, y * z * k + x * s, z * z + (1 - z * z) * c,
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


@torch.no_grad()
def _initialise(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, g: Tensor, *, spread: int, leaky: bool) -> None:
    """Uniform weights of variance 2 gain^2 / ((inputs + outputs) spread), no bias, `g` that leaves them as they are."""
    deviation = (_GAIN if leaky else 1.0) * math.sqrt(2 / ((layer.weight.shape[0] + layer.weight.shape[1]) * spread))
    layer.weight.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation)
    assert layer.bias is not None
    layer.bias.zero_()
    g.fill_(norm(layer.weight))
