"""Performances: the codes and the gaze that drive an avatar, and pictures of anyone whom they drive.

A few lines retarget one person's expressions onto another, of whom nothing but a resting face is known:

    decoder, source = catalogue().create("decoder", "upm").eval(), catalogue().create("source", "synthetic")
    performer, other = source.captures(["S002", "S004"])
    performance = read_performance(performer, decoder, frames=[658, 3668])
    images = list(pictures(decoder, identity_of(other, decoder), performance, decoder.frontal_camera(256)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufe_avatar.mesh_render import MeshRenderer
from ufe_avatar.views import Views
from ufe_avatar.volume_render import srgb
from ufe_core.errors import ArtifactError, DataError
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.source import Capture
from ufe_core.types import CameraSpec, Identity, check_tensor
from ufe_core.weights import load_weights, save_weights

_COMPONENT = "ufe/performance"
_READ_AT_A_TIME, _SHOWN_AT_A_TIME = 16, 4
_EXACT_TEXELS = 256


@dataclass(frozen=True)
class Performance:
    """What drives an avatar in N instants, whoever it is of.

    `expression` is float32 [N, D] of the code space of that name, `gaze` float32 [N, 6], unit vectors; on the CPU.
    """

    expression: Tensor
    gaze: Tensor
    code_space: str

    def __post_init__(self) -> None:
        check_tensor("Performance", "expression", self.expression, ("N", "D"), torch.float32)
        check_tensor("Performance", "gaze", self.gaze, (len(self.expression), 6), torch.float32)

    def __len__(self) -> int:
        return len(self.expression)

    def part(self, rows: Sequence[int]) -> Performance:
        """Some of its instants, in that order."""
        return replace(self, expression=self.expression[list(rows)], gaze=self.gaze[list(rows)])

    def looking(self, azimuth_deg: float, altitude_deg: float) -> Performance:
        """The same expressions with both eyes turned one way; positive is to the subject's right, and up."""
        azimuth, altitude = np.radians([azimuth_deg, altitude_deg])
        towards = [np.sin(azimuth) * np.cos(altitude), -np.sin(altitude), np.cos(azimuth) * np.cos(altitude)]
        return replace(self, gaze=torch.tensor([*towards, *towards], dtype=torch.float32).expand(len(self), 6))

    def save(self, path: Path) -> None:
        """Write a safetensors file.

        Raises:
            ArtifactError: it cannot be written.
        """
        spec = {"component": _COMPONENT, "config": {}, "code_space": self.code_space}
        save_weights(path, {"expression": self.expression, "gaze": self.gaze}, spec)

    @classmethod
    def load(cls, path: Path, decoder: Decoder[Any]) -> Performance:
        """What `save` wrote, for a decoder of the same code space.

        Raises:
            ArtifactError: the file is damaged, holds no codes, or codes of another code space.
        """
        if not path.is_file():
            raise ArtifactError(f"There is no file '{path}' of codes. 'ufe avatar render --save-codes' writes one.")
        tensors, spec = load_weights(path)
        if spec["component"] != _COMPONENT or tensors.keys() != {"expression", "gaze"}:
            raise ArtifactError(
                f"'{path}' holds no codes that drive an avatar, but {spec['component']!r}. "
                "Name a file that 'ufe avatar render --save-codes' wrote."
            )
        wanted = decoder.code_space.name
        if spec.get("code_space") != wanted:
            raise ArtifactError(
                f"'{path}' holds codes of {spec.get('code_space')!r}; {type(decoder).__name__} takes {wanted!r}. "
                "Use the decoder and weights that they were made with, or make them anew."
            )
        return cls(**tensors, code_space=wanted)


@torch.no_grad()
def identity_of(capture: Capture, decoder: Decoder[Any]) -> Identity:
    """The identity, one row, of whoever a capture is of: from the resting face alone (P§1.3, E_id).

    Raises:
        DataError: the capture has no neutral texture and geometry.
    """
    texture, geometry = _resting(capture)
    device = _device(decoder)
    return decoder.identity(texture.to(device), geometry.to(device))


@torch.no_grad()
def read_performance(
    capture: Capture,
    decoder: Decoder[Any],
    frames: Sequence[int],
    *,
    progress: Callable[[int], None] | None = None,
) -> Performance:
    """Codes and gaze of a capture's frames, as the decoder takes them.

    Where its codes are not the source's labels, the decoder reads them off the exact faces; the gaze is the source's.

    Args:
        capture: who performs.
        decoder: who reads.
        frames: their indices.
        progress: called with the number of frames done.

    Raises:
        DataError: a frame is not there, or the capture has not what is needed: labels that are the decoder's codes, or
            exact geometry and texture.
    """
    parts = []
    for start in range(0, len(frames), _READ_AT_A_TIME):
        some = frames[start : start + _READ_AT_A_TIME]
        parts.append(_read(capture, decoder, some))
        if progress:
            progress(start + len(some))
    expression, gaze = (torch.cat(values) for values in zip(*parts, strict=True))
    return Performance(expression, gaze, decoder.code_space.name)


@torch.no_grad()
def pictures(
    decoder: Decoder[Any], identity: Identity, performance: Performance, camera: CameraSpec
) -> Iterator[np.ndarray]:
    """Images of one person's avatar, one for each instant: sRGB uint8 [H, W, 3].

    Args:
        decoder: the avatar.
        identity: who it is of, one row.
        performance: what drives it, of the decoder's own code space.
        camera: a pinhole.
    """
    device = _device(decoder)
    for start in range(0, len(performance), _SHOWN_AT_A_TIME):
        codes = performance.part(range(start, min(start + _SHOWN_AT_A_TIME, len(performance))))
        rows = identity.rows(torch.zeros(len(codes), dtype=torch.int64, device=device))
        avatar = decoder.decode(codes.expression.to(device), codes.gaze.to(device), rows)
        yield from map(srgb, decoder.render(avatar, camera))


@torch.no_grad()
def exact_pictures(
    capture: Capture, decoder: Decoder[Any], frames: Sequence[int], camera: CameraSpec
) -> Iterator[np.ndarray]:
    """Images of a capture's exact geometry with its exact texture, unlit: what `pictures` are to look like.

    Raises:
        DataError: the capture has no exact geometry and texture, or not on the decoder's mesh.
    """
    renderer, views = MeshRenderer(decoder.topology), Views.of([camera])
    for frame in frames:
        geometry, texture = _exact(capture, [frame], _EXACT_TEXELS)
        if geometry.shape[1] != decoder.topology.vertex_count:
            raise DataError(f"Capture {capture.id!r} is not on the mesh of {type(decoder).__name__}.")
        yield srgb(renderer(geometry, texture, views)[0][0])


def _read(capture: Capture, decoder: Decoder[Any], frames: Sequence[int]) -> tuple[Tensor, Tensor]:
    labels = capture.labels(frames)
    if labels is None:
        raise DataError(f"Capture {capture.id!r} has no labels, so that its gaze is not known.")
    gaze = torch.from_numpy(labels.gaze)
    if decoder.reads_texture:
        geometry, texture = _exact(capture, frames, decoder.reads_texture)
        resting = [value.expand(len(frames), *value.shape[1:]) for value in _resting(capture, decoder.reads_texture)]
        device = _device(decoder)
        faces = (texture, geometry, *resting)
        return decoder.read(*(value.to(device) for value in faces)).cpu(), gaze
    if labels.expression.shape[1] != decoder.code_space.size:
        raise DataError(
            f"Capture {capture.id!r} has labels of {labels.expression.shape[1]} numbers; the codes of "
            f"{type(decoder).__name__} have {decoder.code_space.size}. Use another --decoder."
        )
    return torch.from_numpy(labels.expression), gaze


def _exact(capture: Capture, frames: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """Geometry [N, V, 3], mm, and texture [N, 3, size, size] in [0, 1]."""
    geometry, texture = capture.geometry(frames), capture.texture(frames, size=size)
    if geometry is None or texture is None:
        raise DataError(f"Capture {capture.id!r} has no exact geometry and texture of its frames.")
    return torch.from_numpy(geometry), torch.from_numpy(texture).float() / 255


def _resting(capture: Capture, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Neutral texture [1, 3, T, T] in [0, 1], of `size` or as the source has it, and geometry [1, V, 3]."""
    neutral = capture.neutral(size=size)
    if neutral is None:
        raise DataError(f"Capture {capture.id!r} has no neutral face: there is nothing to make an avatar of.")
    return torch.from_numpy(neutral.texture)[None].float() / 255, torch.from_numpy(neutral.geometry)[None]


def _device(decoder: Decoder[Any]) -> torch.device:
    return next(decoder.buffers()).device
