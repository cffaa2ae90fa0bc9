"""The decoders (P§1.3: D): geometry, opacity and motion of primitives from one, their colour from the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.networks.atlas import Atlas
from ufe_avatar.networks.layers import FASTEST, SLOPE, ConvTransposeWN, ConvWN, LinearWN, leaky_unit, pointwise
from ufe_avatar.networks.size import CODE_CHANNELS, CODE_SIDE, VIEW_CHANNELS, Z_CHANNELS, Size

_MOTION_SCALE, _OPACITY_SCALE = 0.01, 0.1
_HEAD_CHANNELS, _VIEW_HIDDEN = 64, 16


class Geometry(NamedTuple):
    """What the geometry decoder gives; U is the side of UV images, K the number of primitives, S a primitive's side.

    `offsets` float32 [B, V, 3] are normalised vertices; `opacity` is [B, S, U, U], a slab for each depth; `position`,
    `rotation` (axis times angle) and `scale`, all [B, K, 3], are the motion of primitives beside the mesh.
    """

    offsets: Tensor
    opacity: Tensor
    position: Tensor
    rotation: Tensor
    scale: Tensor


class _Decoder(nn.Module):
    """Doubles a 4 x 4 input up to a UV image; the bias maps of a person join after each level but the last."""

    def __init__(self, size: Size, *, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encmod = pointwise(CODE_CHANNELS, CODE_CHANNELS)
        self.bias = nn.Parameter(torch.zeros(outputs, size.uv, size.uv))
        channels = (inputs + CODE_CHANNELS + Z_CHANNELS + size.conditions, *size.level_channels)
        self.layers = nn.ModuleDict()
        for i, (before, after) in enumerate(pairwise(channels)):
            self.layers[f"t{i}"] = nn.Sequential(ConvTransposeWN(before, after, leaky=True), leaky_unit())
        self.layers[f"t{size.levels - 1}"] = nn.Sequential(ConvTransposeWN(channels[-1], outputs))

    def _features(
        self, inputs: Sequence[Tensor | None], bias_maps: Sequence[Tensor], levels: int | None = None
    ) -> list[Tensor]:
        """The feature maps of all levels but the last, or of the first few, from parts of the 4 x 4 input."""
        x = torch.cat([part for part in inputs if part is not None], 1).contiguous(memory_format=FASTEST)
        features = []
        for i in range(len(self.layers) - 1 if levels is None else levels):
            x = (self.layers[f"t{i}"](x) + bias_maps[i]).mul_(1 / math.sqrt(2))
            features.append(x)
        return features

    def output(self, features: Tensor) -> Tensor:
        """The last level, [B, C, U, U]."""
        return self.layers[f"t{len(self.layers) - 1}"](features) + self.bias


class GeometryDecoder(_Decoder):
    """The mesh, the opacity of slabs and the motion of primitives."""

    coords: Tensor

    def __init__(self, size: Size, vertices: int) -> None:
        super().__init__(size, inputs=0, outputs=size.voxels)
        self._motion_level, self._mesh_level = size.level_of(size.grid), size.level_of(size.uv // 4)
        hidden = size.scaled(_HEAD_CHANNELS)
        self.motion = _head(size.level_channels[self._motion_level], hidden, 9)
        self.geo = _head(size.level_channels[self._mesh_level], hidden, 3)
        self.register_buffer("coords", torch.zeros(1, vertices, 1, 2))

    def set_atlas(self, atlas: Atlas) -> None:
        """Take the coordinates of the vertices from an atlas."""
        self.coords.copy_(torch.from_numpy(atlas.coordinates)[None, :, None])

    def forward(
        self, expression: Tensor, z: Tensor, bias_maps: Sequence[Tensor], conditions: Tensor | None = None
    ) -> Geometry:
        """Decode codes [B, 16, 4, 4] with a person's `z_geo` and `b_geo`; conditions are [B, C, 4, 4]."""
        features = self._features([self.encmod(expression), z, conditions], bias_maps)
        motion = self.motion(features[self._motion_level]).flatten(2).transpose(1, 2) * _MOTION_SCALE
        offsets = self._offsets(features)
        opacity = (_OPACITY_SCALE * self.output(features[-1])).exp()
        return Geometry(offsets, opacity, motion[..., :3], motion[..., 3:6], motion[..., 6:].exp())

    def mesh(
        self, expression: Tensor, z: Tensor, bias_maps: Sequence[Tensor], conditions: Tensor | None = None
    ) -> Tensor:
        """Only the normalised vertices [B, V, 3], which coarse levels tell; the arguments are those of `forward`."""
        return self._offsets(self._features([self.encmod(expression), z, conditions], bias_maps, self.mesh_levels))

    @property
    def mesh_levels(self) -> int:
        """Levels that `mesh` needs, and so bias maps."""
        return self._mesh_level + 1

    def _offsets(self, features: Sequence[Tensor]) -> Tensor:
        mesh = self.geo(features[self._mesh_level])
        places = self.coords.expand(len(mesh), -1, -1, -1)
        return functional.grid_sample(mesh, places, align_corners=False)[..., 0].transpose(1, 2)


class ColourDecoder(_Decoder):
    """The colour of slabs as a viewer sees it; with other `outputs` any image that depends on the view."""

    def __init__(self, size: Size, outputs: int) -> None:
        super().__init__(size, inputs=VIEW_CHANNELS, outputs=outputs)
        self.viewmod = nn.Sequential(
            LinearWN(3, _VIEW_HIDDEN, leaky=True),
            nn.LeakyReLU(SLOPE),
            LinearWN(_VIEW_HIDDEN, VIEW_CHANNELS * CODE_SIDE**2, leaky=True),
            nn.LeakyReLU(SLOPE),
        )

    def forward(
        self,
        view: Tensor,
        expression: Tensor,
        z: Tensor,
        bias_maps: Sequence[Tensor],
        conditions: Tensor | None = None,
    ) -> Tensor:
        """An image [B, outputs, U, U]; slabs have channels of depth times 3 + colour.

        Args:
            view: float32 [B, 3], unit vectors from the head's origin to the camera.
            expression: float32 [B, 16, 4, 4].
            z: `z_tex` of the people.
            bias_maps: `b_tex` of the people.
            conditions: float32 [B, C, 4, 4].
        """
        return self.output(self.features(view, expression, z, bias_maps, conditions)[-1])

    def features(
        self,
        view: Tensor,
        expression: Tensor,
        z: Tensor,
        bias_maps: Sequence[Tensor],
        conditions: Tensor | None = None,
    ) -> list[Tensor]:
        """Feature maps from side 8 to U / 2, for another head beside the last level."""
        seen = self.viewmod(view).unflatten(1, (VIEW_CHANNELS, CODE_SIDE, CODE_SIDE))
        return self._features([seen, self.encmod(expression), z, conditions], bias_maps)


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*pointwise(inputs, hidden), ConvWN(hidden, outputs, 1, 1, 0))
