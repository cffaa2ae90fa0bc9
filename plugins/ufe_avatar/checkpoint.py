"""Published checkpoints of ava-256, converted to safetensors without running anything, and loaded.

A checkpoint lacks the statistics by which its inputs and outputs are normalised: see `ufe_avatar.statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from ufe_avatar.networks.model import UniversalPriorModel
from ufe_avatar.networks.size import Size
from ufe_avatar.statistics import Statistics, read_safetensors
from ufe_avatar.torch_zip import read_tensors
from ufe_core.errors import DataError
from ufe_core.store import write_atomic

_PREFIX = "module."
_COORDS, _CAMERAS, _IDENTITIES = "decoder_assembler.geodec.coords", "colorcal.wcam", "colorcal.wident"
_TABLES = ("id_encoder.uv_tidx", "expr_encoder.uv_tidx")
_DTYPES = {torch.float32: np.dtype("float32"), torch.int64: np.dtype("int64")}


def convert(source: Path, target: Path) -> None:
    """Write a published `.pt` checkpoint as safetensors. Nothing in it is executed.

    Raises:
        DataError: it cannot be read, is refused, or has not the names, shapes and values of such a checkpoint.
        ArtifactError: the target cannot be written.
    """
    state = read_tensors(source)
    if state and all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    check(state, source)
    write_atomic(target, safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in state.items()}))


def load(path: Path, statistics: Statistics | None = None) -> UniversalPriorModel:
    """The model of a converted checkpoint, for evaluation; without statistics its meshes are wrong but for their shape.

    Raises:
        DataError: the file is no converted checkpoint, or the statistics are of another mesh.
    """
    state = read_safetensors(path)
    check(state, path)
    vertices = state[_COORDS].shape[1]
    model = UniversalPriorModel(Size(), vertices, cameras=len(state[_CAMERAS]), identities=len(state[_IDENTITIES]))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    if statistics is not None:
        if len(statistics.vertmean) != vertices:
            raise DataError(f"{path} is of {vertices} vertices, and its statistics of {len(statistics.vertmean)}.")
        model.set_statistics(torch.from_numpy(statistics.vertmean), statistics.vertstd)
    return model.eval().requires_grad_(False)


def check(state: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuse a state dict that is not that of the public size, for whatever numbers of vertices, cameras and captures.

    Raises:
        DataError: a name is missing or unknown, a shape or type is another, or numbers are not finite or out of range.
    """
    sizes = {name: state[name].shape for name in (_COORDS, _CAMERAS, _IDENTITIES) if name in state}
    if len(sizes) < 3 or [len(shape) for shape in sizes.values()] != [4, 2, 2]:
        raise DataError(f"{path} is no checkpoint of an ava-256 avatar: it lacks {_COORDS} or the colour calibration.")
    vertices = sizes[_COORDS][1]
    with torch.device("meta"):
        model = UniversalPriorModel(Size(), vertices, cameras=sizes[_CAMERAS][0], identities=sizes[_IDENTITIES][0])
    problem = _difference(state, model.state_dict())
    if problem:
        raise DataError(f"{path} is no checkpoint of an ava-256 avatar: {problem}.")
    for name, value in state.items():
        if not np.isfinite(value).all():
            raise DataError(f"{path} has numbers in '{name}' that are not finite.")
    if any(state[name].min() < 0 or state[name].max() >= vertices for name in _TABLES):
        raise DataError(f"{path} has texels on vertices that its mesh of {vertices} lacks.")


def _difference(state: Mapping[str, np.ndarray], wanted: Mapping[str, Tensor]) -> str:
    """What sets a state dict apart from the one that is wanted, in words; empty if nothing does."""
    for names, verb in ((wanted.keys() - state.keys(), "lacks"), (state.keys() - wanted.keys(), "has an unknown")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"it {verb} '{min(names)}'{more}"
    for name, value in sorted(wanted.items()):
        found = state[name]
        if found.shape != tuple(value.shape) or found.dtype != _DTYPES[value.dtype]:
            kind = f"{_DTYPES[value.dtype]} {list(value.shape)}"
            return f"'{name}' is {found.dtype} {list(found.shape)} instead of {kind}"
    return ""
