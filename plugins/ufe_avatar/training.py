"""How `upm` learns from dome captures: what eq. 3 to 6 decode to, against images, meshes and textures (P§1.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ufe_avatar.codec import CONDITIONS, READ_TEXELS, Codec, Decoded, resampled
from ufe_avatar.eyeballs import gaze_of
from ufe_avatar.networks.encoders import divergence, sample
from ufe_avatar.networks.model import primitive_volume
from ufe_avatar.networks.size import Size
from ufe_avatar.views import Views
from ufe_avatar.volume_render import march_images, march_pixels, srgb
from ufe_core.budgets import DomeTrainingConfig
from ufe_core.errors import DataError
from ufe_core.interfaces.decoder import DecoderTraining
from ufe_core.ops.rasterize import rasterize
from ufe_core.packed_dome import DomeRequest, PackedDome
from ufe_core.types import MeshTopology

_SHOWN_PEOPLE = 6
_MOST_FITTED = 4096  # frames that principal components are taken of
_ENDS_PX = 12  # how far beyond the mesh's end slabs may reach in an image


class UpmTrainingConfig(DomeTrainingConfig):
    """How the universal prior model is trained; `uv`, `voxels` and `width` say how large its networks are."""

    uv: int = Field(1024, description="Side of the UV images, texels: 64, 128, 256, 512 or 1024")
    voxels: int = Field(8, description="Side of a volumetric primitive, voxels: 4, 8 or 16")
    width: float = Field(1.0, gt=0, le=4, description="Channels of the inner layers, as a share of ava-256's")
    views: int = Field(2, ge=1, description="Cameras that each dome frame is packed from")
    height: int = Field(384, ge=32, description="Height of the dome images, pixels")
    neutral_texture: int = Field(256, ge=64, description="Side of the neutral textures, texels")
    batch: int = Field(6, ge=1, description="People in a batch, one frame and view of each")
    rays: int = Field(800, ge=1, description="Pixels of each image that are marched in a step")
    photometric: float = Field(1.0, ge=0, description="Weight of the pixels' L1 (0..255 scale)")
    geometry: float = Field(5.0, ge=0, description="Weight of the vertices' squared distance (mm^2)")
    texture: float = Field(0.5, ge=0, description="Weight of the texture's L1 (0..255 scale)")
    coverage: float = Field(0.5, ge=0, description="Weight of opacity's L1 from where the mesh is (0..255 scale)")
    kl: float = Field(1e-3, ge=0, description="Weight of the KL divergence of codes from a unit Gaussian")
    volume: float = Field(0.01, ge=0, description="Weight of the primitives' volume")


@dataclass(frozen=True)
class _Batch:
    """B frames of different people, each from one camera; textures and images in [0, 1]."""

    geometry: Tensor
    texture: Tensor
    neutral_geometry: Tensor
    neutral_texture: Tensor
    resting_texture: Tensor
    gaze: Tensor
    image: Tensor
    views: Views


class UpmTraining(DecoderTraining[UpmTrainingConfig]):
    """Trains the codec; every step draws people, a frame and a view of each, and rays."""

    options = UpmTrainingConfig
    presets: ClassVar = {
        "smoke": {"people": 4, "frames": 4, "steps": 8, "warmup": 2, "uv": 64, "voxels": 4, "width": 0.125,
                  "views": 1, "height": 96, "neutral_texture": 64, "batch": 2, "rays": 64, "picture_every": 4},
        "cpu": {"steps": 3000, "warmup": 50, "uv": 256, "voxels": 4, "width": 0.25, "clip_norm": 1.0, "rays": 1600},
        "gpu": {"steps": 20_000, "warmup": 200, "uv": 512, "voxels": 4, "width": 0.5, "clip_norm": 1.0, "frames": 64,
                "views": 4, "height": 768, "batch": 16, "rays": 8192},
        "paper": {"frames": 1000, "views": 8, "height": 1024, "clip_norm": 1.0, "batch": 16, "rays": 147_456},
    }  # fmt: skip

    faces: Tensor

    def __init__(self, config: UpmTrainingConfig, topology: MeshTopology) -> None:
        super().__init__(config, topology)
        self.size = Size(config.uv, config.voxels, config.width, CONDITIONS)
        self.codec = Codec(self.size, topology)
        self.register_buffer("faces", torch.from_numpy(topology.faces.astype(np.int32)), persistent=False)

    def request(self) -> DomeRequest:
        config = self.config
        return DomeRequest(config.frames, config.views, config.height, READ_TEXELS, config.neutral_texture)

    def fit_statistics(self, domes: Sequence[PackedDome]) -> None:
        """The mean head, and principal components of how meshes and textures differ from resting ones."""
        neutrals = np.stack([dome.neutral_geometry for dome in domes])
        self.codec.set_rest(torch.from_numpy(neutrals.mean(0)))
        every = math.ceil(sum(len(dome.frames) for dome in domes) / _MOST_FITTED)
        moved = np.concatenate([dome.geometry[::every] - dome.neutral_geometry for dome in domes])
        changed = np.concatenate([dome.texture[::every].astype(np.float32) - dome.resting_texture for dome in domes])
        self.codec.fit_statistics(torch.from_numpy(moved), torch.from_numpy(changed) / 255)

    def losses(self, domes: Sequence[PackedDome], step: int) -> dict[str, Tensor]:
        config = self.config
        rng = np.random.default_rng([config.seed, 2, step])
        people = rng.choice(len(domes), min(config.batch, len(domes)), replace=False)
        chosen = [domes[k] for k in people]
        batch = self._batch(chosen, rng.integers(config.frames, size=len(chosen)), int(rng.integers(config.views)))
        mean, log_deviation = self._read(batch)
        decoded = self._decode(sample(mean, log_deviation), batch)
        pixels = _pixels_around(batch, config.rays, rng)
        painted = resampled(batch.neutral_texture, self.size.uv)
        unlike = _shrunk(decoded.texture - painted) - (batch.texture - batch.resting_texture)
        made, truth = march_pixels(decoded.primitives, batch.views, pixels), _at(batch.image, pixels)
        coloured, there, known = (_at(some, pixels) for some in self._known(batch))
        terms = {
            "photometric": 255 * _mean((made[..., :3] - truth).abs(), coloured),
            "coverage": 255 * _mean((made[..., 3:] - there).abs(), known),
            "geometry": (decoded.geometry - batch.geometry).square().sum(-1).mean(),
            "texture": 255 * (unlike * self.codec.still).abs().mean(),
            "kl": divergence(mean, log_deviation).mean(),
            "volume": primitive_volume(decoded.primitives.scale),
        }
        weighted = [getattr(config, name) * value for name, value in terms.items()]
        return {**terms, "total": torch.stack(weighted).sum()}

    @torch.no_grad()
    def picture(self, domes: Sequence[PackedDome]) -> np.ndarray:
        """Truth, avatar and twice the error of the last people."""
        chosen = domes[-_SHOWN_PEOPLE:]
        frames = np.arange(len(chosen)) % self.config.frames
        batch = self._batch(chosen, frames, 0)
        decoded = self._decode(self._read(batch)[0], batch)
        made = march_images(decoded.primitives, batch.views)
        error = 2 * (made - batch.image).abs() * self._known(batch)[0]
        rows = [torch.cat(list(some), 2) for some in (batch.image, made, error)]
        return srgb(torch.cat(rows, 1))

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The codec without tables that the mesh gives."""
        size = {"uv": self.size.uv, "voxels": self.size.voxels, "width": self.size.width}
        return self.codec.learnt(), {"size": size}

    def _batch(self, domes: Sequence[PackedDome], frames: np.ndarray, view: int) -> _Batch:
        if any(dome.geometry.shape[1] != self.topology.vertex_count for dome in domes):
            raise DataError("The dome captures' meshes are not that of the avatar.")

        def stacked(values: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(values)).to(self.faces.device)

        pairs = list(zip(domes, frames.tolist(), strict=True))
        geometry = stacked([dome.geometry[i] for dome, i in pairs])
        neutral = stacked([dome.neutral_geometry for dome in domes])
        images = stacked([dome.images[i][view] for dome, i in pairs])
        rotation, translation, focal, centre = (
            stacked([getattr(dome, name)[i][view] for dome, i in pairs])
            for name in ("rotation", "translation", "focal", "centre")
        )
        views = Views(rotation, translation, focal, centre, images.shape[-1], images.shape[-2])
        return _Batch(
            geometry, stacked([dome.texture[i] for dome, i in pairs]).float() / 255, neutral,
            stacked([dome.neutral_texture for dome in domes]).float() / 255,
            stacked([dome.resting_texture for dome in domes]).float() / 255,
            gaze_of(geometry, neutral, self.codec.eyes), images.float() / 255, views,
        )  # fmt: skip

    def _known(self, batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Float32 [B, 1, H, W]: which pixels tell the colour, at which centres the mesh is, and which tell opacity.

        Colours count where the head is seen: not on shoulders, which clothes cover, nor on outlines, where a pixel
        shows some of both sides and the ray through its centre one; and not beside it, where slabs that reach too far
        would turn black. Opacity counts but for where the mesh ends below the shoulders: slabs end less sharply.
        """
        height, width = batch.views.height, batch.views.width
        ids = rasterize(batch.views.project(batch.geometry), self.faces, height=height, width=width)[:, None]
        bare = (self.codec.rest[self.faces.long(), 1].amax(1) < self.codec.lowest())[ids.clamp_min(0).long()]
        there = (ids >= 0).float()
        whole = -functional.max_pool2d(-there, 3, 1, 1)
        wide = 2 * _ENDS_PX + 1
        across = functional.max_pool2d(there * ~bare, (1, wide), 1, (0, _ENDS_PX))
        below = functional.max_pool2d(across, (wide, 1), 1, (_ENDS_PX, 0))
        return whole * bare, there, torch.maximum(there, 1 - below)

    def _read(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        return self.codec.encode(batch.texture, batch.geometry, batch.resting_texture, batch.neutral_geometry)

    def _decode(self, expression: Tensor, batch: _Batch) -> Decoded:
        subject = self.codec.identity(batch.neutral_texture, batch.neutral_geometry)
        return self.codec.decode(expression, batch.gaze, subject, batch.views.position())


def _pixels_around(batch: _Batch, count: int, rng: np.random.Generator) -> Tensor:
    """Centres [B, P, 2] of pixels drawn from where each head is seen."""
    device = batch.geometry.device
    seen = batch.views.project(batch.geometry)[..., :2]
    size = torch.tensor([batch.views.width, batch.views.height], device=device)
    low = torch.minimum(seen.amin(1).clamp_min(0), size - 1)[:, None]
    high = torch.minimum(seen.amax(1), size.to(seen))[:, None]
    drawn = torch.from_numpy(rng.random((len(seen), count, 2), dtype=np.float32)).to(device)
    return torch.minimum((low + drawn * (high - low).clamp_min(1)).floor(), size - 1) + 0.5


def _at(image: Tensor, pixels: Tensor) -> Tensor:
    """Values [B, P, C] of images [B, C, H, W]."""
    index = pixels[..., 1].long() * image.shape[-1] + pixels[..., 0].long()
    return image.flatten(2).gather(2, index[:, None].expand(-1, image.shape[1], -1)).transpose(1, 2)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of values [B, P, C] over what is counted [B, P, 1]; 0 of nothing."""
    return (values * counted).sum() / (values.shape[-1] * counted.sum()).clamp_min(1)


def _shrunk(texture: Tensor) -> Tensor:
    return functional.interpolate(texture, (READ_TEXELS, READ_TEXELS), mode="area")
