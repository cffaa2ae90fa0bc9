"""The universal prior model as a whole: encoders, decoders, and what cameras add."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ufe_avatar.networks.assembler import Assembler, Placed
from ufe_avatar.networks.atlas import Atlas
from ufe_avatar.networks.colour import Background, ColourCalibration, places_in_grid
from ufe_avatar.networks.encoders import Bottleneck, Conditioning, ExpressionEncoder, IdentityEncoder
from ufe_avatar.networks.rays import camera_rays
from ufe_avatar.networks.size import CODE_CHANNELS, CODE_SIDE, Size

#: The side of half the volume that the public networks fill, in mm.
VOLUME_RADIUS_MM = 256.0

#: Colour, premultiplied, and opacity [B, H, W, 4] of rays: origins, directions, ranges, primitives.
Marcher = Callable[[Tensor, Tensor, Tensor, Placed], Tensor]

#: Entries of the state dict that follow from the mesh and the sizes, and need not be stored beside what is learnt.
BUILT = (
    "id_encoder.uv_tidx", "id_encoder.uv_bary", "id_encoder.warpidentity", "expr_encoder.uv_tidx",
    "expr_encoder.uv_bary", "decoder_assembler.geodec.coords", "bgmodel.cam_ident", "bgmodel.id_ident",
)  # fmt: skip


class Cameras(NamedTuple):
    """B pinhole cameras as ava-256 gives them, in head axes: see `camera_rays`. Indices are int64 [B]."""

    campos: Tensor
    camrot: Tensor
    focal: Tensor
    princpt: Tensor
    camera_index: Tensor
    identity_index: Tensor


class Picture(NamedTuple):
    """`image` float32 [B, 3, H, W] in 0..255 over the background; `alpha` [B, 1, H, W]; `background` [B, 3, H, W]."""

    image: Tensor
    alpha: Tensor
    background: Tensor


class UniversalPriorModel(nn.Module):
    """E_exp, E_id and D (P§1.3); at the public size its state dict is that of an ava-256 checkpoint.

    Args:
        size: of the networks.
        vertices: of the mesh.
        cameras: different cameras of the training captures.
        identities: captures.
        radius_mm: of the volume that primitives lie in.

    A new model needs `set_atlas`, or a checkpoint, which has the tables; and always `set_statistics`.
    """

    def __init__(
        self,
        size: Size,
        vertices: int,
        *,
        cameras: int = 1,
        identities: int = 1,
        radius_mm: float = VOLUME_RADIUS_MM,
    ) -> None:
        super().__init__()
        self.size = size
        self.id_encoder = IdentityEncoder(size)
        self.expr_encoder = ExpressionEncoder(size)
        self.bottleneck = Bottleneck()
        self.decoder_assembler = Assembler(size, vertices, radius_mm=radius_mm)
        self.colorcal = ColourCalibration(cameras, identities)
        self.bgmodel = Background(cameras, identities)
        self.register_load_state_dict_post_hook(_share_tables)

    def set_atlas(self, atlas: Atlas) -> None:
        """Take the tables of a mesh; the atlas has the resolution of the size."""
        self.id_encoder.set_atlas(atlas)
        self.expr_encoder.set_atlas(atlas)
        self.decoder_assembler.geodec.set_atlas(atlas)
        _share_tables(self)

    def set_statistics(self, vertmean: Tensor, vertstd: float) -> None:
        """Take the mean mesh, float32 [V, 3], and the deviation from it, both in mm: they are in no checkpoint."""
        self.decoder_assembler.vertmean.copy_(vertmean)
        self.decoder_assembler.vertstd = vertstd

    def encode_expression(
        self, verts: Tensor, avgtex: Tensor, neut_verts: Tensor, neut_avgtex: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The Gaussian over codes of normalised faces and the same people's neutral ones.

        Args:
            verts: float32 [B, V, 3].
            avgtex: float32 [B, 3, U, U].
            neut_verts: like `verts`.
            neut_avgtex: like `avgtex`.

        Returns:
            Mean, which is the code to use, and logarithm of the standard deviation, float32 [B, 16, 4, 4].
        """
        return self.bottleneck(self.expr_encoder(verts, avgtex, neut_verts, neut_avgtex))

    def encode_identity(self, neut_verts: Tensor, neut_avgtex: Tensor) -> Conditioning:
        """The conditioning of people from their normalised neutral meshes and textures."""
        return self.id_encoder(neut_verts, neut_avgtex)

    def decode(self, expression: Tensor, identity: Conditioning, view_position: Tensor, **options: Any) -> Placed:
        """Primitives of codes, [B, 256] or [B, 16, 4, 4], on people; `options` are those of `Assembler.forward`."""
        return self.decoder_assembler(code_grid(expression), identity, view_position, **options)

    def picture(self, primitives: Placed, cameras: Cameras, pixels: Tensor, march: Marcher) -> Picture:
        """March the rays of pixels [B, H, W, 2], correct the colours and put them over the background."""
        rays = camera_rays(*cameras[:4], pixels, radius_mm=self.decoder_assembler.radius_mm)
        rgba = march(*rays, primitives).permute(0, 3, 1, 2)
        colour = self.colorcal(rgba[:, :3], cameras.camera_index, cameras.identity_index)
        background = self.bgmodel(places_in_grid(pixels), cameras.camera_index, cameras.identity_index)
        return Picture(colour + (1 - rgba[:, 3:]) * background, rgba[:, 3:], background)


def code_grid(expression: Tensor) -> Tensor:
    """Codes [B, 256] as [B, 16, 4, 4], row by row; others as they are."""
    return expression.reshape(-1, CODE_CHANNELS, CODE_SIDE, CODE_SIDE)


def primitive_volume(scales: Tensor) -> Tensor:
    """The total volume of primitives whose inverse half sizes are [B, K, 3], over 8, averaged over the batch."""
    return scales.prod(-1).reciprocal().sum(1).mean()


def _share_tables(model: nn.Module, _: object = None) -> None:
    """Give the assembler, which saves none, the tables of the identity encoder."""
    assert isinstance(model, UniversalPriorModel)
    with torch.no_grad():
        model.decoder_assembler.set_tables(model.id_encoder.uv_tidx, model.id_encoder.uv_bary)
