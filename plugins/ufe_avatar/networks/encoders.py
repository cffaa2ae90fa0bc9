"""The expression encoder, its bottleneck, and the identity encoder (P§1.3: E_exp, E_id)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.networks.atlas import Atlas, interpolate, tables
from ufe_avatar.networks.layers import FASTEST, SLOPE, ConvWN, halving, leaky_conv, pointwise
from ufe_avatar.networks.size import CODE_CHANNELS, Z_CHANNELS, Size

_MEAN_SCALE, _DEVIATION_SCALE = 0.1, 0.01
_FEATURES = 64  # channels between the expression encoder and its bottleneck


class Conditioning(NamedTuple):
    """What decoders know of people, Theta_id. z are float32 [B, 16, 4, 4], bias maps [B, C, R, R], R = 8, ..., U."""

    z_geo: Tensor
    z_tex: Tensor
    b_geo: list[Tensor]
    b_tex: list[Tensor]


class _OnMesh(nn.Module):
    """Has the tables that turn a mesh into a position image; a checkpoint holds them."""

    uv_tidx: Tensor
    uv_bary: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.register_buffer("uv_tidx", torch.zeros(3, size.uv, size.uv, dtype=torch.int64))
        self.register_buffer("uv_bary", torch.zeros(3, size.uv, size.uv))

    def set_atlas(self, atlas: Atlas) -> None:
        """Take the tables from an atlas of the size's resolution."""
        vertices, barycentrics = tables(atlas)
        self.uv_tidx.copy_(vertices)
        self.uv_bary.copy_(barycentrics)

    def position_image(self, verts: Tensor) -> Tensor:
        """float32 [B, 3, R, R] of vertices [B, V, 3]."""
        return interpolate(verts, self.uv_tidx, self.uv_bary)


class ExpressionEncoder(_OnMesh):
    """Features of how far a face is from the same person's neutral one."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.tex = _halvings(3, size.branch_channels("tex"))
        self.geo = _halvings(3, size.branch_channels("geo"))
        joined = size.branch_channels("tex")[-1] + size.branch_channels("geo")[-1]
        at_eight = [size.combined_channels[-1], *(size.scaled(channels) for channels in (256, 128, 64))]
        self.comb = _halvings(joined, size.combined_channels)
        for inputs, outputs in pairwise(at_eight):
            self.comb.extend(leaky_conv(inputs, outputs, 3, 1, 1))
        self.comb.extend(halving(at_eight[-1], _FEATURES))

    def forward(self, verts: Tensor, avgtex: Tensor, neut_verts: Tensor, neut_avgtex: Tensor) -> Tensor:
        """float32 [B, 64, 4, 4] of normalised meshes [B, V, 3] and textures [B, 3, R, R]."""
        tex = self.tex((avgtex - neut_avgtex).contiguous(memory_format=FASTEST))
        geo = self.geo(self.position_image(verts - neut_verts))
        return self.comb(torch.cat([tex, geo], 1))


class Bottleneck(nn.Module):
    """A Gaussian over expression codes."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = ConvWN(_FEATURES, CODE_CHANNELS, 1, 1, 0)
        self.logstd = ConvWN(_FEATURES, CODE_CHANNELS, 1, 1, 0)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, both float32 [B, 16, 4, 4]."""
        return _MEAN_SCALE * self.mu(features), _DEVIATION_SCALE * self.logstd(features)


def sample(mu: Tensor, logstd: Tensor) -> Tensor:
    """One code of each Gaussian; its gradient reaches both."""
    return mu + logstd.exp() * torch.randn_like(mu)


def divergence(mu: Tensor, logstd: Tensor) -> Tensor:
    """The KL term of each number of a code against the unit Gaussian, of the shape of `mu`.

    As in the public code the magnitude of `logstd` counts, so that it is the same for deviations s and 1 / s.
    """
    magnitude = logstd.abs()
    return -0.5 + magnitude + 0.5 * mu.square() + 0.5 * (-2 * magnitude).exp()


class IdentityEncoder(_OnMesh):
    """A hyper-network: from a person's neutral mesh and texture to the bias maps of the decoders."""

    warpidentity: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.geo, self.tex = _UNet(size), _UNet(size)
        self.comb = _Combiner(size)
        self.bias = nn.Parameter(torch.zeros(1, 2, size.warp, size.warp))
        line = torch.linspace(-1, 1, size.warp)
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("warpidentity", torch.stack([x, y])[None])

    def forward(self, neut_verts: Tensor, neut_avgtex: Tensor) -> Conditioning:
        """Conditioning of people from normalised neutral meshes [B, V, 3] and textures [B, 3, R, R]."""
        z_geo, b_geo = self.geo(self.position_image(neut_verts))
        z_tex, b_tex = self.tex(neut_avgtex)
        b_geo, b_tex = self.comb(b_geo, b_tex)
        return Conditioning(z_geo, z_tex, [self.warp(b) for b in b_geo], [self.warp(b) for b in b_tex])

    def warp(self, bias_map: Tensor) -> Tensor:
        """A bias map [B, C, R, R] shifted by the learnt flow; no flow is a slight zoom, with zeros around."""
        flow = self.warpidentity + self.bias / self.bias.shape[-1]
        resized = functional.interpolate(flow, bias_map.shape[-2:], mode="bilinear", align_corners=False)
        places = resized.permute(0, 2, 3, 1).expand(len(bias_map), -1, -1, -1)
        return functional.grid_sample(bias_map, places, padding_mode="zeros", align_corners=False)


class _UNet(nn.Module):
    """Halves an image down to 4 x 4, and keeps a bias map of each side on the way."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        fine_to_coarse = size.bias_channels[::-1]
        outputs = (*fine_to_coarse[1:], fine_to_coarse[-1])
        self.layers = nn.ModuleDict()
        for i, (inside, outside) in enumerate(zip(fine_to_coarse, outputs, strict=True)):
            self.layers[f"b{i}"] = pointwise(inside, inside) if i else nn.Sequential(ConvWN(inside, inside, 1, 1, 0))
            self.layers[f"e{i}"] = halving(inside, outside)
        self.enc = ConvWN(outputs[-1], Z_CHANNELS, 1, 1, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The code [B, 16, 4, 4], and bias maps from coarse to fine."""
        maps = []
        for i in range(len(self.layers) // 2):
            maps.append(self.layers[f"b{i}"](x))
            x = self.layers[f"e{i}"](x)
        return self.enc(x), maps[::-1]


class _Combiner(nn.Module):
    """Lets bias maps of geometry and of texture know of each other, level by level."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for i, channels in enumerate(size.bias_channels):
            for name in ("t2g", "g2t"):
                self.layers[f"{name}{i}"] = pointwise(channels, channels)
            for name in ("g", "t"):
                self.layers[f"{name}{i}"] = pointwise(2 * channels, channels)

    def forward(self, b_geo: list[Tensor], b_tex: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        geo, tex = [], []
        for i, (g, t) in enumerate(zip(b_geo, b_tex, strict=True)):
            geo.append(self.layers[f"g{i}"](torch.cat([g, self.layers[f"t2g{i}"](t)], 1)))
            tex.append(self.layers[f"t{i}"](torch.cat([t, self.layers[f"g2t{i}"](g)], 1)))
        return geo, tex


def _halvings(inputs: int, outputs: tuple[int, ...]) -> nn.Sequential:
    """Halving layers in a row, flat: convolutions have even numbers."""
    layers = nn.Sequential()
    for before, after in zip((inputs, *outputs), outputs, strict=False):
        layers.append(ConvWN(before, after, 4, 2, 1, leaky=True)).append(nn.LeakyReLU(SLOPE))
    return layers
