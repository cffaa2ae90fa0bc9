"""Decoder `upm`: the universal prior model as an avatar (P§1), read, decoded and marched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ufe_avatar.codec import CODE_SIZE, CONDITIONS, READ_TEXELS, Codec, Subject
from ufe_avatar.networks.encoders import Conditioning
from ufe_avatar.networks.layers import FASTEST
from ufe_avatar.networks.size import Size
from ufe_avatar.plugin import UpmConfig
from ufe_avatar.training import UpmTraining
from ufe_avatar.views import Views, face_mask, frontal_camera
from ufe_avatar.volume_render import march_images
from ufe_core.errors import ArtifactError, ConfigError, ContractError
from ufe_core.head import load_head
from ufe_core.interfaces.decoder import Decoder
from ufe_core.registry import packaged_file, released_component
from ufe_core.types import Avatar, AvatarCode, CameraSpec, CodeSpace, Identity
from ufe_core.weights import load_weights, sha256_file

_ID = "ufe/upm"
_FINEST, _SHARP_MM, _COARSE_MM = 3, 1.5, 3.0  # voxels for each of D's, for pixels up to so large; then 2, then 1
_PEOPLE_AT_A_TIME, _FACES_AT_A_TIME, _IMAGES_AT_A_TIME = 8, 16, 4


class UpmDecoder(Decoder[UpmConfig]):
    """geometry from the coarse half of D alone; what is seen is decoded when it is rendered, for the camera in use.

    Identity tensors: `geometry` [U, V, 3], `texture` [U, 3, T, T], `z_geo` and `z_tex` [U, 16, 4, 4], and bias maps
    `b_geo.0` and on, `b_tex.0` and on, coarse to fine.
    """

    code_modules = "ufe_core.head", "ufe_core.ops.rasterize", "ufe_core.ops.rasterize_warp", *(
        f"ufe_avatar.{name}"
        for name in (
            "codec", "eyeballs", "placement", "placement_warp", "raymarch", "raymarch_native", "raymarch_warp",
            "training", "views", "volume_render",
            *(f"networks.{part}" for part in ("assembler", "atlas", "decoders", "encoders", "layers", "model", "size")),
        )
    )  # fmt: skip
    reads_texture = READ_TEXELS
    trained_by: ClassVar = UpmTraining

    def __init__(self, config: UpmConfig) -> None:
        super().__init__(config)
        path, sha256 = _weights_of(config)
        tensors, spec = load_weights(path, sha256=sha256)
        if spec["component"] != _ID:
            raise ArtifactError(
                f"{path} holds weights of {spec['component']!r}, not of '{_ID}'. "
                "Name a file that 'ufe train --decoder upm --out' wrote."
            )
        self.topology = load_head().topology
        try:
            self.codec = Codec(Size(**spec["size"], conditions=CONDITIONS), self.topology, finer=1)
            self.codec.load_learnt(tensors)
        except (KeyError, TypeError, RuntimeError, ConfigError) as error:
            raise ArtifactError(f"{path} does not fit '{_ID}': {str(error).splitlines()[-1]}") from error
        self.code_space = CodeSpace(f"upm-{(sha256 or sha256_file(path))[:12]}", CODE_SIZE)

    @classmethod
    def weights_sha256(cls, config: UpmConfig) -> str:
        path, sha256 = _weights_of(config)
        return sha256 or sha256_file(path)

    def read(self, texture: Tensor, geometry: Tensor, neutral_texture: Tensor, neutral_geometry: Tensor) -> Tensor:
        parts = [value.split(_FACES_AT_A_TIME) for value in (texture, geometry, neutral_texture, neutral_geometry)]
        return torch.cat([self.codec.encode(*some)[0] for some in zip(*parts, strict=True)])

    def identity(self, texture: Tensor, geometry: Tensor) -> Identity:
        some = [
            self.codec.identity(*pair)
            for pair in zip(texture.split(_PEOPLE_AT_A_TIME), geometry.split(_PEOPLE_AT_A_TIME), strict=True)
        ]
        found = [dict(_tensors_of(subject)) for subject in some]
        return Identity({name: torch.cat([one[name] for one in found]) for name in found[0]})

    def _decode(self, expression: Tensor, gaze: Tensor, identity: Identity) -> Avatar:
        levels = self.codec.upm.decoder_assembler.geodec.mesh_levels
        geometry = self.codec.geometry(expression, gaze, _subject(identity, geometry_levels=levels))
        return Avatar(geometry, None, AvatarCode(expression, gaze, identity))

    def render(self, avatar: Avatar, camera: CameraSpec, *, mask: Tensor | None = None) -> Tensor:
        """R_vol of eq. 6."""
        views = Views.of([camera] * len(avatar.geometry), device=avatar.geometry.device)
        return self.render_views(avatar, views, mask=mask)

    def render_views(self, avatar: Avatar, views: Views, *, mask: Tensor | None = None) -> Tensor:
        """The same with a view for each avatar."""
        code = _code_of(avatar)
        if len(views) != len(code.gaze):
            raise ContractError(
                f"Decoder 'upm' renders an avatar for each view; found {len(code.gaze)} and {len(views)}."
            )
        parts = []
        for start in range(0, len(views), _IMAGES_AT_A_TIME):
            stop = min(start + _IMAGES_AT_A_TIME, len(views))
            parts.append(self._marched(code.part(start, stop), views.part(start, stop), mask))
        return torch.cat(parts)

    def texture_of(self, avatar: Avatar) -> Tensor:
        """The texture branch T (P§1.5): view-averaged textures [B, 3, U, U], linear RGB, as seen from the front."""
        code = _code_of(avatar)
        position = Views.of([frontal_camera(64)], device=code.gaze.device).position()
        parts = []
        for start in range(0, len(code.gaze), _IMAGES_AT_A_TIME):
            some = code.part(start, min(start + _IMAGES_AT_A_TIME, len(code.gaze)))
            seen_from = position.expand(len(some.gaze), -1)
            subject = _subject(some.identity)
            parts.append(self.codec.decode(some.expression, some.gaze, subject, seen_from, finer=1).texture)
        return torch.cat(parts)

    def frontal_camera(self, size: int) -> CameraSpec:
        return frontal_camera(size)

    def face_mask(self, size: int) -> Tensor:
        return face_mask(size).to(self.codec.basis.device)

    def _marched(self, code: AvatarCode, views: Views, mask: Tensor | None) -> Tensor:
        position, finer = views.position(), _finer_for(views)
        decoded = self.codec.decode(code.expression, code.gaze, _subject(code.identity), position, finer=finer)
        return march_images(decoded.primitives, views, mask).clamp(0, 1)


def _finer_for(views: Views) -> int:
    """How fine slabs are to be for views, by what their smallest pixel covers of the head."""
    covered_mm = float((views.position().norm(dim=1) / views.focal.amax(1)).min())
    return _FINEST if covered_mm <= _SHARP_MM else 2 if covered_mm <= _COARSE_MM else 1


def _code_of(avatar: Avatar) -> AvatarCode:
    if avatar.code is None:
        raise ContractError("Decoder 'upm' renders avatars that it decoded; this one has no code.")
    return avatar.code


def _weights_of(config: UpmConfig) -> tuple[Path, str | None]:
    """The file to load, and what it must hash to where that is known."""
    if config.weights != "released":
        return Path(config.weights).expanduser(), None
    released = released_component("decoder", _ID)
    return packaged_file(released.file), released.sha256


def _tensors_of(subject: Subject) -> Iterator[tuple[str, Tensor]]:
    yield "geometry", subject.geometry
    yield "texture", subject.texture
    yield "z_geo", subject.conditioning.z_geo
    yield "z_tex", subject.conditioning.z_tex
    for name in ("b_geo", "b_tex"):
        maps: list[Tensor] = getattr(subject.conditioning, name)
        for level, value in enumerate(maps[:-1]):  # D has no use for the finest
            yield f"{name}.{level}", value.contiguous(memory_format=FASTEST)


def _subject(identity: Identity, *, geometry_levels: int | None = None) -> Subject:
    """What the codec knows of people; with `geometry_levels` only so many bias maps, and nothing of textures."""
    levels = sum(name.startswith("b_geo.") for name in identity.tensors)
    b_geo = [identity[f"b_geo.{level}"] for level in range(levels if geometry_levels is None else geometry_levels)]
    if geometry_levels is not None:
        none = b_geo[0].new_zeros(0)
        return Subject(identity["geometry"], none, Conditioning(identity["z_geo"], none, b_geo, []))
    b_tex = [identity[f"b_tex.{level}"] for level in range(levels)]
    return Subject(
        identity["geometry"], identity["texture"],
        Conditioning(identity["z_geo"], identity["z_tex"], b_geo, b_tex),
    )  # fmt: skip
