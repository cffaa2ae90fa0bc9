"""Hourglasses, one for each face region, whose maps say where each keypoint is, and whether it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.errors import ConfigError
from ufe_core.face_encoder import (
    CAMERAS_NEEDED,
    REGIONS,
    by_region,
    mirrored_images,
    mirrored_points,
    standardised_images,
)
from ufe_core.interfaces.detector import KeypointNames
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
        x, logits = self._maps(levels, views)
        heat = logits.log_softmax(-1)
        share = near_peak(heat.exp(), x.shape[-1], self.reach) if self.reach else heat.exp()
        points = soft_argmax(share, x.shape[-1]) * (side / x.shape[-1])
        there = torch.einsum("bkn,bcn->bkc", share, x.float().flatten(2))
        seen = (there * self.seen).sum(-1) + self.seen_bias
        return Found(points, seen, heat.unflatten(2, x.shape[-2:]))

    def locate_peaks(self, levels: list[Tensor], side: int, views: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same points and whether each is seen, without the maps: of these only what is near peaks is read."""
        if not self.reach:
            return self.locate(levels, side, views)[:2]
        x, logits = self._maps(levels, views)
        rows, columns, share = peaks(logits, x.shape[-1], self.reach)
        across, down = ((share.sum(2 + k) * (at + 0.5)).sum(-1) for k, at in enumerate((columns, rows)))
        points = torch.stack([across, down], -1) * (side / x.shape[-1])
        batch = torch.arange(len(x), device=x.device)[:, None, None, None]
        features = x.permute(0, 2, 3, 1)[batch, rows[..., :, None], columns[..., None, :]]  # [B, K, rows, columns, C]
        there = (share.flatten(2)[:, :, None] @ features.float().flatten(2, 3))[:, :, 0]
        return points, (there * self.seen).sum(-1) + self.seen_bias

    def _maps(self, levels: list[Tensor], views: Tensor | None) -> tuple[Tensor, Tensor]:
        """The finest features [B, C, S / 2, S / 2] and maps, logits of their cells, float32 [B, K, S / 2 * S / 2]."""
        x = levels[-1]
        if self.told is not None and views is not None:
            x = x + self.told(views)[:, :, None, None]
        for stage, skip in zip(self.up, reversed(levels[:-1]), strict=True):
            x = stage(x, skip)
        return x, self.heat(x).float().flatten(2)


class Networks(nn.Module):
    """The networks of both regions; `forward` takes all cameras, mirrors the right ones, and puts them together.

    Args:
        count: K, keypoints of each camera.
        widths: of `HeatmapNetwork`.
        reach: of `HeatmapNetwork`.
        together: whether each view is told what the others show of the same face.
        point_model: whether `detect` draws points to where points of a face are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, count: int, widths: Sequence[int], reach: int = 0, together: bool = False, point_model: bool = False
    ) -> None:
        super().__init__()
        a, b, c, d = widths
        self.regions = nn.ModuleDict(
            {region: HeatmapNetwork(count, (a, b, c, d), reach, CAMERAS_NEEDED * together) for region in REGIONS}
        )
        self.point_model = PointModel(count) if point_model else None
        self.register_buffer("mean", torch.full((2,), 0.5))
        self.register_buffer("deviation", torch.full((2,), 0.25))

    def forward(self, images: Tensor, told: Tensor | None = None) -> Found:
        """`Found` [B, 4, ...] of images float32 [B, 4, S, S] in [0, 1]; maps of right cameras stay mirrored.

        `told`, bool [B, 4], is which views tell the others what they show: those that show anything, unless given.
        """
        side = images.shape[-1]
        parts = [network.locate(levels, side, views) for network, levels, views in self._described(images, told)]
        points, seen, heat = (_by_camera(values) for values in zip(*parts, strict=True))
        return Found(mirrored_points(points, side), seen, heat)

    def detect(self, images: Tensor, *, drawn: bool = True) -> tuple[Tensor, Tensor]:
        """Points [B, 4, K, 2] in pixels, and how sure it is that each is seen [B, 4, K].

        They are drawn to where points of a face are, if so and if there is a model of these.
        """
        side = images.shape[-1]
        parts = [network.locate_peaks(levels, side, views) for network, levels, views in self._described(images)]
        points, seen = (_by_camera(values) for values in zip(*parts, strict=True))
        points, visible = mirrored_points(points, side), seen.sigmoid()
        if self.point_model is None or not drawn:
            return points, visible
        return self.point_model(points, visible * _shown(images)[..., None], side), visible

    def _described(
        self, images: Tensor, told: Tensor | None = None
    ) -> list[tuple[HeatmapNetwork, list[Tensor], Tensor]]:
        """Each region's network, features [B 2, ...] of its two views, left and right in turn, and what it is told."""
        told = _shown(images) if told is None else told
        networks = [cast("HeatmapNetwork", network) for network in self.regions.values()]
        views = by_region(mirrored_images(standardised_images(images, self.mean, self.deviation)))[:, :, None]
        levels = [
            network.describe(some.contiguous(memory_format=torch.channels_last))
            for network, some in zip(networks, views, strict=True)
        ]
        means = [some[-1].float().mean((2, 3)).unflatten(0, (-1, 2)) for some in levels]
        shown = torch.stack(means, 1) * told.unflatten(1, (2, 2))[..., None]  # [B, 2 regions, 2 sides, D]
        out = []
        for k, network in enumerate(networks):
            near, far = shown[:, k], shown[:, 1 - k]
            others = torch.cat([near, near.flip(1), far, far.flip(1)], -1)  # a side's own views first
            out.append((network, levels[k], others.flatten(0, 1)))
        return out


def points_a_view(keypoints: Sequence[KeypointNames], role: str) -> int:
    """How many keypoints each camera has.

    Raises:
        ConfigError: these are not four cameras of that role with as many each.
    """
    if len(keypoints) != CAMERAS_NEEDED:
        raise ConfigError(f"A heatmap detector needs {CAMERAS_NEEDED} {role} cameras, there are {len(keypoints)}.")
    counts = [len(one.names) for one in keypoints]
    if len(set(counts)) > 1:
        found = ", ".join(f"{count} of {one.camera!r}" for one, count in zip(keypoints, counts, strict=True))
        raise ConfigError(f"A heatmap detector needs as many keypoints of every camera, there are {found}.")
    return counts[0]


def _by_camera(regions: Sequence[Tensor]) -> Tensor:
    """[B 2, ...] of both regions, left and right in turn, to [B, 4, ...] of cameras."""
    return torch.cat([values.unflatten(0, (-1, 2)) for values in regions], 1)


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


def peaks(logits: Tensor, side: int, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `near_peak` leaves of the distributions that logits [B, K, side * side] are of, and where it lies.

    Rows and columns, both [B, K, 2 reach + 1], and the shares of their cells [B, K, 2 reach + 1, 2 reach + 1]; cells
    beyond the map have none, and are given as the nearest that exist.
    """
    peak = logits.max(-1, keepdim=True).indices  # twice as fast as `argmax` on a CPU
    offsets = torch.arange(-reach, reach + 1, device=logits.device)
    rows, columns = peak // side + offsets, peak % side + offsets
    exists = ((rows >= 0) & (rows < side))[..., :, None] & ((columns >= 0) & (columns < side))[..., None, :]
    rows, columns = rows.clamp(0, side - 1), columns.clamp(0, side - 1)
    near = logits.gather(-1, (rows[..., :, None] * side + columns[..., None, :]).flatten(2))
    share = near.masked_fill(~exists.flatten(2), -torch.inf).softmax(-1)
    return rows, columns, share.view(exists.shape)


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
