"""How large the networks are: one number for the UV images, one for the width of the layers."""

from __future__ import annotations

from dataclasses import dataclass

from ufe_core.errors import ConfigError

#: Channels of the code and of each z, both on the 4 x 4 grid; of the view features there.
CODE_CHANNELS, Z_CHANNELS, VIEW_CHANNELS = 16, 16, 8
#: Side of the grid of the expression code.
CODE_SIDE = 4
_LEVEL_CHANNELS = (256, 128, 128, 64, 64, 32, 16)  # of the feature maps with side 8, 16, ..., 512
_BRANCH_CHANNELS = {"tex": (16, 32, 64), "geo": (16, 32, 32)}
_COMBINED_CHANNELS = (128, 256, 256, 512)


@dataclass(frozen=True)
class Size:
    """Sizes of the networks; the defaults are those of the public ava-256 checkpoint.

    Attributes:
        uv: side of the UV images in texels, a power of two from 64 to 1024.
        voxels: side of a primitive in voxels, and of its square of texels: there are (uv / voxels) ** 2 primitives.
        width: scales the channels of inner layers; codes, z and outputs keep theirs.
        conditions: channels of further conditions of the decoders, such as 6 of the gaze.

    Raises:
        ConfigError: a size is out of range.
    """

    uv: int = 1024
    voxels: int = 8
    width: float = 1.0
    conditions: int = 0

    def __post_init__(self) -> None:
        if self.uv not in (64, 128, 256, 512, 1024):
            raise ConfigError(
                f"The networks take UV images of 64, 128, 256, 512 or 1024 texels; {self.uv} was asked for."
            )
        if self.voxels not in (4, 8, 16) or self.uv // self.voxels < 8:
            raise ConfigError(
                f"Primitives have 4, 8 or 16 voxels a side and lie 8 or more in a row, not {self.voxels}."
            )
        if not 0 < self.width <= 4 or self.conditions < 0:
            raise ConfigError("The width of the networks is above 0 and at most 4, and conditions are not negative.")

    @property
    def levels(self) -> int:
        """Halvings from the UV images to the code's grid: 8 at the public size."""
        return self.uv.bit_length() - 3

    @property
    def grid(self) -> int:
        """Primitives in a row."""
        return self.uv // self.voxels

    @property
    def warp(self) -> int:
        """Side of the learnt warp of the bias maps."""
        return self.uv // 8

    def scaled(self, channels: int) -> int:
        """Channels of an inner layer at this width: a multiple of 4, or `channels` itself at width 1."""
        return channels if self.width == 1 else max(4, 4 * round(channels * self.width / 4))

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the feature maps of a decoder but for the finest, coarse to fine: sides 8, 16, ..., uv / 2."""
        return tuple(self.scaled(channels) for channels in _LEVEL_CHANNELS[: self.levels - 1])

    @property
    def bias_channels(self) -> tuple[int, ...]:
        """Channels of the bias maps, coarse to fine: sides 8, 16, ..., uv."""
        return (*self.level_channels, 3)

    @property
    def branch_halvings(self) -> int:
        """Halvings of the expression encoder before texture and geometry meet."""
        return max(1, self.levels - 5)

    def branch_channels(self, branch: str) -> tuple[int, ...]:
        """Channels of branch `tex` or `geo` of the expression encoder; smaller sizes lack the finest levels."""
        return tuple(self.scaled(channels) for channels in _BRANCH_CHANNELS[branch][-self.branch_halvings :])

    @property
    def combined_channels(self) -> tuple[int, ...]:
        """Channels of the halving layers where both branches are one, but for the last."""
        count = self.levels - 1 - self.branch_halvings
        return tuple(self.scaled(channels) for channels in _COMBINED_CHANNELS[-count:])

    def level_of(self, side: int) -> int:
        """The decoder level whose feature maps have this side."""
        return side.bit_length() - 4
