"""Hourglasses, one for each face region, whose maps say where each keypoint is, and whether it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.face_encoder import REGIONS, by_region, mirrored_images, mirrored_points, standardised_images
from ufe_keypoints.point_model import PointModel


class Found(NamedTuple):
    """Of K keypoints in B images of side S.

    `points` float32 [B, K, 2], pixels (x, y); `seen` float32 [B, K], logits; `heat` float32 [B, K, S / 2, S / 2],
    logarithms of each point's distribution over the cells of the map.
    """

    points: Tensor
    seen: Tensor
    heat: Tensor


class HeatmapNetwork(nn.Module):
    """An image float32 [B, 1, S, S], standardised, to `Found`.

    Down to S / 16 (`describe`) and up again to S / 2 with skips (`locate`); a 1 x 1 convolution makes a map a keypoint.
    A point is the mean place under its map (soft-argmax), or under what is near the map's peak; whether it is seen is
    told by the features there.

    Args:
        count: K.
        widths: channels at S / 2, S / 4, S / 8, S / 16.
        reach: cells about the peak that count; 0 for all of the map.
        views: of how many views of the face it is told what they show, its own among them; 0 for none.
    """

    def __init__(self, count: int, widths: tuple[int, int, int, int], reach: int = 0, views: int = 0) -> None:
        super().__init__()
        self.reach = reach
        a, b, c, d = widths
        self.told = nn.Linear(views * d, d) if views else None
        if self.told is not None:
            nn.init.zeros_(self.told.weight)
            nn.init.zeros_(self.told.bias)
        self.down = nn.ModuleList([
            nn.Sequential(_conv(1, a, stride=2), _Residual(a)),
            nn.Sequential(_conv(a, b, stride=2), _Residual(b)),
            nn.Sequential(_conv(b, c, stride=2), _Residual(c)),
            nn.Sequential(_conv(c, d, stride=2), _Residual(d)),
        ])  # fmt: skip
        self.up = nn.ModuleList([_Up(d, c), _Up(c, b), _Up(b, a)])
        self.heat = nn.Conv2d(a, count, 1)
        self.seen = nn.Parameter(torch.zeros(count, a))
        self.seen_bias = nn.Parameter(torch.zeros(count))

    def describe(self, images: Tensor) -> list[Tensor]:
        """Features at S / 2, S / 4, S / 8 and S / 16."""
        levels = [images]
        for stage in self.down:
            levels.append(stage(levels[-1]))
        return levels[1:]

    def locate(self, levels: list[Tensor], side: int, views: Tensor | None = None) -> Found:
        """The points in images of that side.

        Args:
            levels: what `describe` made of them.
            side: S.
            views: means of the coarsest features of all views, float32 [B, views * D]; zeros for what is not known.
        """
        x = levels[-1]
        if self.told is not None and views is not None:
            x = x + self.told(views)[:, :, None, None]
        for stage, skip in zip(self.up, reversed(levels[:-1]), strict=True):
            x = stage(x, skip)
        heat = self.heat(x).float().flatten(2).log_softmax(-1)
        share = near_peak(heat.exp(), x.shape[-1], self.reach) if self.reach else heat.exp()
        points = soft_argmax(share, x.shape[-1]) * (side / x.shape[-1])
        there = torch.einsum("bkn,bcn->bkc", share, x.float().flatten(2))
        seen = (there * self.seen).sum(-1) + self.seen_bias
        return Found(points, seen, heat.unflatten(2, x.shape[-2:]))


class Networks(nn.Module):
    """The networks of both regions; `forward` takes all cameras, mirrors the right ones, and puts them together.

    Args:
        counts: keypoints of each camera; the two of a region have as many.
        widths: of `HeatmapNetwork`.
        reach: of `HeatmapNetwork`.
        together: whether each view is told what the others show of the same face.
        point_model: whether `detect` draws points to where points of a face are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, counts: Sequence[int], widths: Sequence[int], reach: int = 0, together: bool = False,
        point_model: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(counts) != 4 or counts[0] != counts[1] or counts[2] != counts[3]:
            raise ValueError(f"'heatmap' needs 4 tracking cameras, two a region; found keypoints {list(counts)}")
        a, b, c, d = widths
        self.regions = nn.ModuleDict(
            {
                region: HeatmapNetwork(counts[2 * k], (a, b, c, d), reach, 4 * together)
                for k, region in enumerate(REGIONS)
            }
        )
        self.point_model = PointModel(counts[0]) if point_model else None
        self.register_buffer("mean", torch.full((2,), 0.5))
        self.register_buffer("deviation", torch.full((2,), 0.25))

    def forward(self, images: Tensor, told: Tensor | None = None) -> Found:
        """`Found` [B, 4, ...] of images float32 [B, 4, S, S] in [0, 1]; maps of right cameras stay mirrored.

        `told`, bool [B, 4], is which views tell the others what they show: those that show anything, unless given.
        """
        side = images.shape[-1]
        told = _shown(images) if told is None else told
        levels, means = [], []
        networks = [cast("HeatmapNetwork", network) for network in self.regions.values()]
        both = by_region(mirrored_images(standardised_images(images, self.mean, self.deviation)))[:, :, None]
        for k, network in enumerate(networks):
            levels.append(network.describe(both[k].contiguous(memory_format=torch.channels_last)))
            means.append(levels[-1][-1].float().mean((2, 3)).unflatten(0, (-1, 2)))
        shown = torch.stack(means, 1) * told.unflatten(1, (2, 2))[..., None]  # [B, 2 regions, 2 sides, D]
        parts = []
        for k, network in enumerate(networks):
            near, far = shown[:, k], shown[:, 1 - k]
            views = torch.cat([near, near.flip(1), far, far.flip(1)], -1)  # a side's own views first
            found = network.locate(levels[k], side, views.flatten(0, 1))
            parts.append(Found(*(value.unflatten(0, (len(images), 2)) for value in found)))
        points, seen, heat = (torch.cat(values, 1) for values in zip(*parts, strict=True))
        return Found(mirrored_points(points, side), seen, heat)

    def detect(self, images: Tensor, *, drawn: bool = True) -> tuple[Tensor, Tensor]:
        """Points [B, 4, K, 2] in pixels, and how sure it is that each is seen [B, 4, K].

        They are drawn to where points of a face are, if so and if there is a model of these.
        """
        found: Found = self(images)
        visible = found.seen.sigmoid()
        if self.point_model is None or not drawn:
            return found.points, visible
        return self.point_model(found.points, visible * _shown(images)[..., None], images.shape[-1]), visible


def _shown(images: Tensor) -> Tensor:
    """Which views [B, 4] of images [B, 4, S, S] are there: one that is not is black."""
    return images.flatten(2).amax(-1) > 0


def near_peak(share: Tensor, side: int, reach: int) -> Tensor:
    """Distributions [B, K, side * side] over a map, cut to `reach` cells about their peaks; they still sum to 1.

    Away from the peak lies what the map cannot rule out: it would draw the mean to where the point certainly is not.
    """
    cells = torch.arange(side, device=share.device)
    peak = share.argmax(-1, keepdim=True)
    row, column = peak // side, peak % side
    near = ((cells - row).abs() <= reach)[..., :, None] & ((cells - column).abs() <= reach)[..., None, :]
    cut = share * near.flatten(2)
    return cut / cut.sum(-1, keepdim=True)


def soft_argmax(share: Tensor, side: int) -> Tensor:
    """Mean place (x, y) in cells, [B, K, 2], of distributions [B, K, side * side] over a map; centres are at .5."""
    centres = torch.arange(side, device=share.device, dtype=share.dtype) + 0.5
    grid = share.unflatten(2, (side, side))
    return torch.stack([(grid.sum(2) * centres).sum(-1), (grid.sum(3) * centres).sum(-1)], -1)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class _Up(nn.Module):
    """Doubles the side, adds the map of before, and mixes both."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow, self.skip = nn.Conv2d(inputs, outputs, 1), nn.Conv2d(outputs, outputs, 1)
        self.mix = _conv(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        doubled = functional.interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(doubled + self.skip(skip))
        return mixed


def _conv(inputs: int, outputs: int, *, stride: int = 1, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if act else nn.Sequential(*layers)
