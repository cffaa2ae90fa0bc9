"""The codec: E_exp, E_id and D of the universal prior model, extended after P§1.5 by what makes unseen people sharp.

Beside the networks of ava-256 it has explicit eyeballs that the gaze turns, a texture branch, and three shortcuts, so
that networks learn only what a person's resting face and a linear model do not tell. A quarter of the code's numbers
are coefficients of principal components of displacements from the resting mesh. The decoded mesh is the neutral one
plus those displacements plus what the geometry decoder adds; the texture is the neutral one plus what the branch adds;
the slabs have the texture's colours at all depths, plus what the colour decoder adds, and are opaque from the mesh on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.eyeballs import gaze_matrix
from ufe_avatar.networks.assembler import cut
from ufe_avatar.networks.atlas import build_atlas
from ufe_avatar.networks.encoders import Conditioning
from ufe_avatar.networks.layers import ConvTransposeWN, ConvWN, rotation_matrices
from ufe_avatar.networks.model import VOLUME_RADIUS_MM, UniversalPriorModel, code_grid
from ufe_avatar.networks.size import CODE_CHANNELS, CODE_SIDE, Size
from ufe_avatar.placement import Placed, Placement, chosen
from ufe_avatar.raymarch import Primitives
from ufe_core.errors import ContractError
from ufe_core.types import MeshTopology

#: Channels of the code that hold coefficients of principal components, and how many numbers these are.
LINEAR_CHANNELS = 4
LINEAR_NUMBERS = LINEAR_CHANNELS * CODE_SIDE**2
#: Conditions of the decoders: the gaze, and the linear part of the code, which acts on all of the face.
CONDITIONS = 6 + LINEAR_NUMBERS
#: Numbers in a code.
CODE_SIZE = CODE_CHANNELS * CODE_SIDE**2
#: Texels along a side of the textures that codes are read from.
READ_TEXELS = 64
_RESIDUAL_MM = 1.0
_TEXTURE_STEP, _COLOUR_STEP = 0.1, 0.1
_IDENTITY_MM, _GREY, _CONTRAST = 10.0, 0.3, 0.2  # E_id's inputs vary by about 1
_FIRST_LOG_DEVIATION = -230.0  # a hundredth counts: codes begin with a deviation of 0.1
_TABLES = ("uv_tidx", "uv_bary", "coords", "warpidentity", "adaptwarps")
_LEAST_STRENGTH = 1e-10  # of the first component; weaker ones are rounding
_LEAST_DEVIATION = 1e-3  # of data to divide by, in half precision too: faces may all be at rest
_BELOW_MM, _THROAT_MM = 50.0, 28.0  # below the face all is the avatar's; above its lowest point the throat begins
_OUT_OF_SIGHT = 1e6  # the scale of a primitive that faces away: no more than a point, which no ray meets
_FIRST_STRENGTH = 0.1  # of what the networks add to colours; nothing at all would not teach them in which direction
_SAMPLED = "bicubic"  # textures, on slabs: voxels are interpolated once more, and cubics keep what that blurs
_FIRST_OPACITY = 83.0  # before the exponential of a tenth: a millimetre behind the mesh nothing shines through


class Subject(NamedTuple):
    """Theta_id of U people: resting geometry [U, V, 3] (mm) and texture [U, 3, T, T], and what E_id made of them."""

    geometry: Tensor
    texture: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class Decoded:
    """What D makes of B codes: `geometry` [B, V, 3] mm, `texture` [B, 3, T, T], `primitives` in radii of the volume."""

    geometry: Tensor
    texture: Tensor
    primitives: Primitives


class Codec(nn.Module):
    """Codes to heads and back; lengths are mm in the axes of CONVENTIONS.md, colours linear RGB in [0, 1].

    Args:
        size: of the networks; with `CONDITIONS`.
        topology: of the mesh, with regions `face`, `eye_left` and `eye_right`.
        finer: voxels beside each other where the decoders' outputs have one, unless `decode` is told otherwise.

    A new one needs `set_rest` and `fit_statistics`, or `load_learnt`.
    """

    rest: Tensor
    basis: Tensor
    deviation: Tensor
    texture_deviation: Tensor
    still: Tensor
    axes: Tensor

    def __init__(self, size: Size, topology: MeshTopology, *, finer: int = 2) -> None:
        super().__init__()
        if size.conditions != CONDITIONS:
            raise ContractError(f"The codec's decoders take {CONDITIONS} conditions, not {size.conditions}.")
        self.size, self.radius_mm = size, VOLUME_RADIUS_MM
        self.upm = UniversalPriorModel(size, topology.vertex_count)
        del self.upm.colorcal, self.upm.bgmodel  # the simulated dome's cameras agree, on black
        self._topology, self._atlas = topology, build_atlas(topology, size.uv)
        self.upm.set_atlas(self._atlas)
        self.texture = ConvTransposeWN(size.level_channels[-1], 3)
        self.eyes = [torch.from_numpy(topology.region(f"eye_{side}")) for side in ("left", "right")]
        self._face = torch.from_numpy(topology.region("face"))
        self.register_buffer("rest", torch.zeros(topology.vertex_count, 3))
        self.register_buffer("basis", torch.zeros(LINEAR_NUMBERS, topology.vertex_count, 3))
        self.register_buffer("deviation", torch.ones(()))
        self.register_buffer("texture_deviation", torch.ones(()))
        self.register_buffer("axes", torch.tensor([-1.0, -1.0, 1.0]), persistent=False)
        self.finer = finer
        self._placements = nn.ModuleDict({str(finer): Placement(topology, self._atlas, size.voxels, finer)})
        self.register_buffer("still", _off_eyes(topology), persistent=False)
        self.register_load_state_dict_post_hook(_fit_boxes)
        assembler = self.upm.decoder_assembler
        with torch.no_grad():
            assembler.geodec.bias.fill_(_FIRST_OPACITY)
            log_deviation = _bias(self.upm.bottleneck.logstd)
            nn.init.constant_(log_deviation, _FIRST_LOG_DEVIATION)
            nn.init.constant_(log_deviation[:LINEAR_CHANNELS], 2 * _FIRST_LOG_DEVIATION)
            last_colour = _last(assembler.rgbdec.layers[f"t{size.levels - 1}"])
            # Next to nothing is added to the shortcuts at first.
            for head in (assembler.geodec.geo, assembler.geodec.motion):
                nn.init.zeros_(_last(head).g)
            for last in (self.texture, last_colour):
                last.g.mul_(_FIRST_STRENGTH)

    @torch.no_grad()
    def set_rest(self, geometry: Tensor) -> None:
        """Take the mean head, float32 [V, 3], mm; primitives get their sizes from it."""
        self.rest.copy_(geometry)
        _fit_boxes(self)

    @torch.no_grad()
    def fit_statistics(self, displacement: Tensor, texture_difference: Tensor) -> None:
        """Take scales, and the meshes' principal components, from training data.

        Args:
            displacement: float32 [N, V, 3], mm, of meshes from the same people's resting ones.
            texture_difference: float32 [N, 3, 64, 64], likewise.

        Components are about 0, which is the resting face.
        """
        still = self._without_eyes(displacement)
        self.deviation.copy_(still.square().mean().sqrt().clamp_min(_LEAST_DEVIATION))
        texture_difference = texture_difference * self.still
        self.texture_deviation.copy_(texture_difference.square().mean().sqrt().clamp_min(_LEAST_DEVIATION))
        self.basis.copy_(_components(still, len(self.basis)))

    def encode(self, texture: Tensor, geometry: Tensor, neutral_texture: Tensor, neutral_geometry: Tensor) -> tuple[
        Tensor, Tensor
    ]:  # fmt: skip
        """E_exp (eq. 1): mean, which is the code, and logarithm of the deviation, both float32 [B, 256].

        Args:
            texture: float32 [B, 3, 64, 64].
            geometry: float32 [B, V, 3].
            neutral_texture: of the same people, like `texture`.
            neutral_geometry: like `geometry`.
        """
        displacement = self._without_eyes(geometry - neutral_geometry)
        difference = (texture - neutral_texture) * self.still
        moved = displacement * self.axes / self.deviation
        changed = resampled(difference / self.texture_deviation, self.size.uv)
        mu, logstd = self.upm.encode_expression(moved, changed, torch.zeros_like(moved), torch.zeros_like(changed))
        linear = _coefficients(displacement, self.basis)
        return torch.cat([linear, mu.flatten(1)[:, LINEAR_NUMBERS:]], 1), logstd.flatten(1)

    def identity(self, texture: Tensor, geometry: Tensor) -> Subject:
        """E_id (eq. 2) of neutral textures [U, 3, T, T] and geometries [U, V, 3]; the finest maps are not kept."""
        texture = resampled(texture, self.size.uv)
        offset = (geometry - self.rest) * self.axes / _IDENTITY_MM
        shade = (texture - _GREY) / _CONTRAST
        return Subject(geometry, texture, self.upm.encode_identity(offset, shade))

    def geometry(self, expression: Tensor, gaze: Tensor, subject: Subject) -> Tensor:
        """Only the geometry [B, V, 3] of `decode`, at a fraction of its cost."""
        grid, conditions = code_grid(expression), self._conditions(expression, gaze)
        known = subject.conditioning
        offsets = self.upm.decoder_assembler.geodec.mesh(grid, known.z_geo, known.b_geo, conditions)
        linear, residual = self._linear_and_residual(expression, subject, offsets)
        return self._turn_eyes(linear + residual, subject.geometry, gaze)

    def placement(self, finer: int | None = None) -> Placement:
        """Where primitives sit, with so many voxels beside each other; made when it is first asked for."""
        name = str(finer or self.finer)
        if name not in self._placements:
            with torch.inference_mode(False):  # it will serve to train through as well
                placement = Placement(self._topology, self._atlas, self.size.voxels, int(name)).to(self.rest.device)
                self._fit(placement)
            self._placements[name] = placement
        found = self._placements[name]
        assert isinstance(found, Placement)
        return found

    def decode(
        self, expression: Tensor, gaze: Tensor, subject: Subject, position: Tensor, *, finer: int | None = None
    ) -> Decoded:
        """D (eq. 5) of codes [B, 256] and gaze [B, 6], seen from `position` [B, 3], mm.

        With more voxels beside each other (`finer`) textures are seen more sharply; what is learnt serves with any.
        """
        grid, conditions = code_grid(expression), self._conditions(expression, gaze)
        assembler, (z_geo, z_tex, b_geo, b_tex) = self.upm.decoder_assembler, subject.conditioning
        made = assembler.geodec(grid, z_geo, b_geo, conditions)
        linear, residual = self._linear_and_residual(expression, subject, made.offsets)
        geometry = self._turn_eyes(linear + residual, subject.geometry, gaze)
        # What primitives sit on, whose gradient does not reach what the decoder adds: images tell what the mesh
        # carries, and not where it is, which the registered geometry knows better.
        surface = self._turn_eyes(linear + residual.detach(), subject.geometry, gaze)

        view = functional.normalize(position * self.axes, dim=1)
        features = assembler.rgbdec.features(view, grid, z_tex, b_tex, conditions)[-1]
        texture = subject.texture + _TEXTURE_STEP * self.texture(features)
        placement = self.placement(finer)
        placed = placement(surface, position).seen()
        cell = placement.kept[placed.number]
        colour = _COLOUR_STEP * assembler.rgbdec.output(features)
        slab = self._slabs(texture, colour, made.opacity, placed, placement)
        position = placed.centre / self.radius_mm + chosen(made.position, cell)
        rotation = placed.axes @ rotation_matrices(chosen(made.rotation, cell))
        scale = self.radius_mm / placed.half_size * chosen(made.scale, cell)
        scale = torch.where(placed.facing[..., None], scale, _OUT_OF_SIGHT)
        rank = torch.arange(cell.shape[1], dtype=torch.int32, device=cell.device)  # whatever else is seen
        return Decoded(geometry, texture, Primitives(position, rotation, scale, slab, rank))

    def _slabs(self, texture: Tensor, colour: Tensor, opacity: Tensor, placed: Placed, placement: Placement) -> Tensor:
        """[B, K, S, A, A, 4]: the texture's colours at all depths with those [B, 3 S, U, U] added, and opacity."""
        if not (torch.is_grad_enabled() and any(value.requires_grad for value in (texture, colour, opacity))):
            return placement.filled(colour, opacity, texture, placed)
        depth, cell = self.size.voxels, placement.kept[placed.number]
        both = torch.cat([colour.unflatten(1, (depth, 3)), opacity[:, :, None]], 2).flatten(1, 2)
        fine = placement.refined(chosen(cut(both, depth), cell))
        shown = functional.grid_sample(
            texture, placed.places, mode=_SAMPLED, padding_mode="border", align_corners=False
        )
        painted = (fine[..., :3] + shown.permute(0, 2, 3, 1)[:, :, None]).relu()
        opaque = fine[..., 3] * placed.shell
        return torch.cat([painted, opaque[..., None]], -1).unflatten(3, (placement.across, -1))

    def lowest(self) -> Tensor:
        """How far down the avatar reaches, mm: where clothes begin on everybody, below the face."""
        return self._chin() + _BELOW_MM

    def learnt(self) -> dict[str, Tensor]:
        """Its state but for what size and topology tell."""
        return {name: value for name, value in self.state_dict().items() if name.rpartition(".")[2] not in _TABLES}

    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `learnt` gave, of any precision.

        Raises:
            RuntimeError: names or shapes do not fit.
        """
        tables = {name: value for name, value in self.state_dict().items() if name.rpartition(".")[2] in _TABLES}
        self.load_state_dict({**tables, **{name: value.float() for name, value in tensors.items()}})

    def _chin(self) -> Tensor:
        return self.rest[self._face, 1].amax()

    def _fit(self, placement: Placement) -> None:
        """Give primitives the sizes that the mean head asks for."""
        placement.set_rest(self.rest, neck_mm=float(self._chin()) - _THROAT_MM)

    def _conditions(self, expression: Tensor, gaze: Tensor) -> Tensor:
        conditions = torch.cat([gaze, expression[:, :LINEAR_NUMBERS]], 1)
        return conditions[:, :, None, None].expand(-1, -1, CODE_SIDE, CODE_SIDE)

    def _linear_and_residual(self, expression: Tensor, subject: Subject, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """The mesh [B, V, 3] that the linear numbers of a code give, and what the decoder adds to it."""
        moved = torch.einsum("bl,lvd->bvd", expression[:, :LINEAR_NUMBERS], self.basis)
        return subject.geometry + moved, _RESIDUAL_MM * offsets * self.axes

    def _turn_eyes(self, geometry: Tensor, neutral: Tensor, gaze: Tensor) -> Tensor:
        """Eyeballs are those of the resting face, turned about their centres."""
        for k, rows in enumerate(self.eyes):
            at = rows.to(geometry.device)
            eye = neutral[:, at]
            centre = eye.mean(1, keepdim=True)
            turned = (eye - centre) @ gaze_matrix(gaze[:, 3 * k : 3 * k + 3]).transpose(1, 2) + centre
            geometry = geometry.index_copy(1, at, turned)
        return geometry

    def _without_eyes(self, displacement: Tensor) -> Tensor:
        rows = torch.cat(self.eyes).to(displacement.device)
        return displacement.index_fill(1, rows, 0.0)


def _off_eyes(topology: MeshTopology) -> Tensor:
    """float32 [1, 64, 64]: 0 on the eyeballs and next to them: they turn, and their texture stays the same."""
    eyes = np.concatenate([topology.region(f"eye_{side}") for side in ("left", "right")])
    there = np.isin(build_atlas(topology, READ_TEXELS).vertices, eyes).any(-1)
    near = functional.max_pool2d(torch.from_numpy(there)[None, None].float(), 3, 1, 1)
    return 1 - near[0]


@torch.no_grad()
def _fit_boxes(codec: nn.Module, _: object = None) -> None:
    """Set what the mean head decides; its state holds that head alone."""
    assert isinstance(codec, Codec)
    for finer in codec._placements:
        codec._fit(codec.placement(int(finer)))


def resampled(texture: Tensor, side: int) -> Tensor:
    """Textures [B, C, T, T] at another size."""
    if texture.shape[-1] == side:
        return texture
    return functional.interpolate(texture, (side, side), mode="bilinear", antialias=texture.shape[-1] > side)


def _components(data: Tensor, most: int) -> Tensor:
    """Principal components [most, ...] of data [N, ...] about 0, as long as their deviation is large; then zeros."""
    flat = data.flatten(1).double()
    strength, vectors = torch.linalg.eigh(flat @ flat.T)
    count = min(most, int((strength > _LEAST_STRENGTH * strength[-1]).sum()))
    found = vectors[:, len(flat) - count :].flip(1).T @ flat / math.sqrt(len(flat))
    components = torch.zeros(most, flat.shape[1], dtype=torch.float32)
    components[:count] = found.float()
    return components.view(most, *data.shape[1:])


def _coefficients(data: Tensor, components: Tensor) -> Tensor:
    """Of which multiples [B, L] of orthogonal components [L, ...] data [B, ...] are made."""
    flat = components.flatten(1)
    return data.flatten(1) @ flat.T / flat.square().sum(1).clamp_min(1e-12)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _last(layers: nn.Module) -> ConvWN | ConvTransposeWN:
    assert isinstance(layers, nn.Sequential)
    layer = layers[-1]
    assert isinstance(layer, (ConvWN, ConvTransposeWN))
    return layer
