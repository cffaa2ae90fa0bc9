"""Oracle labels: the codes of exact faces, as the decoder in use reads them (P§1.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ufe_core.errors import ArtifactError, DataError
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import PackedCapture
from ufe_core.store import Store, code_fingerprint, fingerprint
from ufe_core.weights import load_weights, save_weights

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
    made_by = [decoder.code_space.name, code, source.fingerprint]
    keys = [fingerprint([*made_by, capture.capture, capture.sha256]) for capture in captures]
    codes = {key: found for key in keys if (found := _kept(store, key)) is not None}
    missing = [k for k, key in enumerate(keys) if key not in codes]
    if progress:
        progress(len(captures) - len(missing))

    for done, k in enumerate(missing, len(captures) - len(missing) + 1):
        (live,) = source.captures([captures[k].subject])
        codes[keys[k]] = _read(captures[k], live.geometry(captures[k].frames), decoder)
        _keep(store, keys[k], codes[keys[k]], decoder)
        if progress:
            progress(done)
    return [replace(capture, expression=codes[key]) for capture, key in zip(captures, keys, strict=True)]


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


def _kept(store: Store, key: str) -> np.ndarray | None:
    file = store.path("labels", key) / "codes.safetensors"
    try:
        return load_weights(file)[0]["expression"].numpy()
    except ArtifactError:  # not there, or damaged: it is read again and written over
        return None


def _keep(store: Store, key: str, codes: np.ndarray, decoder: Decoder[Any]) -> None:
    with store.lock("labels", key):
        if _kept(store, key) is None:
            store.remove("labels", key)
            with store.building("labels", key) as folder:
                spec = {"component": "ufe/labels", "config": {}, "code_space": decoder.code_space.name}
                save_weights(folder / "codes.safetensors", {"expression": torch.from_numpy(codes)}, spec)
