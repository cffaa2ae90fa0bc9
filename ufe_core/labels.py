"""Oracle labels: the codes of exact faces, as the decoder in use reads them (P§1.6)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ufe_core.errors import ArtifactError, DataError
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import PackedCapture
from ufe_core.store import Store, code_fingerprint, fingerprint
from ufe_core.weights import load_weights, save_weights, state_sha256

_FILE = "codes.safetensors"
_AT_A_TIME = 32


def labelled(
    captures: Sequence[PackedCapture], source: HMCSource[Any], decoder: Decoder[Any], *, store: Store,
    progress: Callable[[int], None] | None = None,
) -> list[PackedCapture]:  # fmt: skip
    """Packed captures whose `expression` is in the decoder's code space.

    Where the source's labels are the decoder's codes already, that is all. Elsewhere e* = E_exp of each frame's exact
    texture and geometry, which is computed once and kept; the gaze is the source's own.

    Args:
        captures: of session 0, packed with textures of the decoder's `reads_texture`.
        source: where they come from, which knows the geometry of their frames.
        decoder: who reads.
        store: where codes are kept.
        progress: called with the number of captures done.

    Raises:
        DataError: a capture has no texture, no geometry or no neutral face.
    """
    if not decoder.reads_texture:
        return list(captures)
    code = code_fingerprint(__name__, type(decoder).__module__, *decoder.code_modules)
    made_by = [decoder.code_space.name, code, state_sha256(decoder), source.fingerprint]
    keys = [fingerprint([*made_by, capture.capture, capture.sha256]) for capture in captures]
    found = []
    for done, (capture, key) in enumerate(zip(captures, keys, strict=True), 1):
        codes = store.made("labels", key, _kept, functools.partial(_keep, capture, source, decoder))
        found.append(replace(capture, expression=codes))
        if progress:
            progress(done)
    return found


@torch.inference_mode()
def _read(capture: PackedCapture, geometry: np.ndarray | None, decoder: Decoder[Any]) -> np.ndarray:
    if geometry is None or "texture" not in capture.extras or not len(capture.geometry):
        raise DataError(
            f"Capture {capture.capture!r} has no exact geometry and texture: {type(decoder).__name__} cannot tell its "
            "codes. Use another --decoder."
        )
    device = next((value.device for value in decoder.state_dict().values()), torch.device("cpu"))
    # The resting texture is unwrapped at the size of the others: resized, it would differ from them everywhere.
    neutral = [torch.from_numpy(np.array(value))[None] for value in (capture.resting_texture, capture.geometry)]
    found = []
    for start in range(0, len(geometry), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        texture, mesh = torch.from_numpy(np.array(capture.extras["texture"][part])), torch.from_numpy(geometry[part])
        resting = [value.expand(len(mesh), *value.shape[1:]) for value in neutral]
        faces = (texture.float() / 255, mesh, resting[0].float() / 255, resting[1])
        found.append(decoder.read(*(value.to(device) for value in faces)).cpu())
    return torch.cat(found).numpy()


def _kept(folder: Path) -> np.ndarray | None:
    try:
        return load_weights(folder / _FILE)[0]["expression"].numpy()
    except ArtifactError:
        return None


def _keep(capture: PackedCapture, source: HMCSource[Any], decoder: Decoder[Any], folder: Path) -> None:
    (live,) = source.captures([capture.subject])
    codes = _read(capture, live.geometry(capture.frames), decoder)
    spec = {"component": "ufe/labels", "config": {}, "code_space": decoder.code_space.name}
    save_weights(folder / _FILE, {"expression": torch.from_numpy(codes)}, spec)
