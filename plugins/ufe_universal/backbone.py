"""A timm backbone cut in two: phi_exp makes feature maps, phi_cal goes on from calibrated ones (P§4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ufe_core.errors import ConfigError
from ufe_core.timm_network import timm_network


@dataclass(frozen=True)
class SplitBackbone:
    """`head` maps [B, C, H, W] to [B, channels, h, w]; `tail` maps that to pooled features [B, features]."""

    head: nn.Sequential
    tail: nn.Sequential
    channels: int
    features: int


def split_backbone(
    name: str, *, stride: int, inputs: int = 1, cells: int = 1, options: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> SplitBackbone:  # fmt: skip
    """Build a timm network and cut it after its last stage of a stride.

    Args:
        name: a timm model of the MobileNetV3 or EfficientNet family (stem, `blocks`, head) or a ResNet.
        stride: pixels of the input per cell of the feature map at the cut; 16 is P§13.1, O2.
        inputs: C, channels of the images.
        cells: side of the grid that the last feature map is averaged to; 1 is global pooling (P§13.1, O3).
        options: keyword arguments for `timm.create_model`, e.g. `channels` of a ResNet.
        weights: published ones of colour images, as timm names them; without them they are drawn.

    Raises:
        ConfigError: timm has no such model, it is of a family that cannot be cut, or the weights are of another one.
    """
    network = timm_network(name, inputs=inputs, options=options)
    if weights is not None:
        _load(network, weights, name, inputs)
    stages = _stages(network, cells)
    if stages is None:
        raise ConfigError(f"Backbone {name!r} cannot be cut in two; use a MobileNetV3, an EfficientNet or a ResNet.")
    cut, channels = _find_cut(stages, stride, inputs)
    head, tail = nn.Sequential(*stages[:cut]), nn.Sequential(*stages[cut:])
    tail.append(nn.Flatten(1))
    with torch.no_grad():
        features = tail.eval()(torch.zeros(1, channels, 4, 4)).shape[1]
    return SplitBackbone(head, tail.train(), channels, features)


def _load(network: Any, weights: Mapping[str, Tensor], name: str, inputs: int) -> None:
    """Give a network weights of three-channel images: its first layer's are summed over them, for grey images."""
    own = network.state_dict()
    fitting = dict(weights)
    for key, value in own.items():
        given = fitting.get(key)
        if value.ndim == 4 and given is not None and given.shape[1] == 3 and value.shape[1] == inputs != 3:
            fitting[key] = given.sum(1, keepdim=True).expand(-1, inputs, -1, -1) / inputs
    wrong = [key for key, value in own.items() if key not in fitting or fitting[key].shape != value.shape]
    if wrong:
        raise ConfigError(
            f"These weights are not of timm's {name!r} with these options: {wrong[0]!r} is missing or of another shape."
        )
    network.load_state_dict({key: fitting[key] for key in own})


def _stages(network: Any, cells: int) -> list[nn.Module] | None:
    """The network as modules in order, the last map averaged to `cells` x `cells`; no classifier."""
    pool = nn.AdaptiveAvgPool2d(cells)
    if hasattr(network, "blocks") and hasattr(network, "conv_stem"):
        stem = nn.Sequential(network.conv_stem, network.bn1)
        if hasattr(network, "bn2"):  # EfficientNet: the last convolution comes before pooling, MobileNetV3: after
            return [stem, *network.blocks, nn.Sequential(network.conv_head, network.bn2, pool)]
        norm = getattr(network, "norm_head", nn.Identity())
        act = getattr(network, "act2", nn.Identity())
        return [stem, *network.blocks, nn.Sequential(pool, network.conv_head, norm, act)]
    if hasattr(network, "layer4") and hasattr(network, "conv1"):
        stem = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool)
        last = nn.Sequential(network.layer4, pool)
        return [stem, network.layer1, network.layer2, network.layer3, last]
    return None


@torch.no_grad()
def _find_cut(stages: list[nn.Module], stride: int, inputs: int) -> tuple[int, int]:
    """Number of stages before the cut and channels there: the last stage whose map is input / stride."""
    x = torch.zeros(1, inputs, 128, 128)
    found: tuple[int, int] | None = None
    seen: list[int] = []
    for count, stage in enumerate(stages[:-1], 1):
        x = stage.eval()(x)
        seen.append(128 // x.shape[-1])
        if seen[-1] == stride:
            found = (count, x.shape[1])
    for stage in stages:
        stage.train()
    if found is None:
        raise ConfigError(f"This backbone has no stage of stride {stride}; it has {sorted(set(seen))}.")
    return found
