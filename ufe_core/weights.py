"""Trained weights: one safetensors file with its specification in the header. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from ufe_core.config import defaults_of
from ufe_core.errors import ArtifactError
from ufe_core.store import canonical_json, write_atomic

if TYPE_CHECKING:
    from ufe_core.recipe import Chosen

FORMAT = "ufe.weights"
VERSION = 1

_MEND = "Delete it and run the command again to make or fetch it anew."
_FOREIGN = "Name a file that ufe wrote; if ufe did write it, it is damaged: delete it and run the command again."
_MAX_HEADER_BYTES = 100_000_000


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file as 64 hex digits.

    Raises:
        ArtifactError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ArtifactError(f"Cannot read '{os.fspath(path)}': {error.strerror}.") from error
    return digest.hexdigest()


def state_sha256(module: torch.nn.Module) -> str:
    """sha256 of a module's parameters and buffers, with their names, shapes and types."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_weights(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], spec: Mapping[str, Any]) -> str:
    """Write weights atomically. Equal tensors and spec give equal bytes.

    Args:
        path: the file to write.
        tensors: any dtype, shape and device; stored contiguous, each with its own memory.
        spec: JSON values; must hold `component` (an id such as `ufe/univ`) and `config` (its options).
            Whatever else a reader needs (normalisation, camera order, code space, training record) goes
            beside them.

    Returns:
        The sha256 of the file.

    Raises:
        ArtifactError: the spec is incomplete or not JSON, or the file cannot be written.
    """
    _check_spec(spec, f"Cannot save weights '{os.fspath(path)}'")
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "version": VERSION, "tensors_sha256": _hash_tensors(plain), "spec": spec}
    data = safetensors.torch.save(plain, metadata={FORMAT: canonical_json(header)})
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def save_halved(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> str:
    """Write a weights file again with its numbers in half precision, as files are released; returns its sha256.

    Raises:
        ArtifactError: the file is damaged, a number is too large, the disk is full, or the folder cannot be written.
    """
    tensors, spec = load_weights(source)
    return save_weights(path, halved(tensors), spec)


def halved(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, those of real numbers in half precision.

    Raises:
        ArtifactError: a number is too large for it.
    """
    import torch

    half = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    wrong = [name for name, value in half.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise ArtifactError(f"Weights {wrong[0]!r} are too large for half precision: the training went astray.")
    return half


def load_weights(
    path: str | os.PathLike[str], sha256: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read and verify weights.

    Args:
        path: a file that `save_weights` wrote.
        sha256: what the file must hash to; its own record is checked either way.

    Returns:
        The tensors, on the CPU, and the spec they were saved with.

    Raises:
        ArtifactError: the file is missing, truncated, changed, or not weights of this format.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"Weights '{file}' do not exist. Train or fetch them first.") from error
    except OSError as error:
        raise ArtifactError(f"Cannot read weights '{file}': {error.strerror}.") from error
    header = _read_header(data, file)
    if sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256.lower():
            raise ArtifactError(
                f"Weights '{file}' are not the expected ones: "
                f"sha256 {found[:12]}…, expected {sha256[:12].lower()}…. {_MEND}"
            )
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"Weights '{file}' are damaged: {error}. {_MEND}") from error
    if _hash_tensors(tensors) != header["tensors_sha256"]:
        raise ArtifactError(f"Weights '{file}' are damaged: the tensors are not those that were saved. {_MEND}")
    return tensors, header["spec"]


def difference(name: str, found: Any, wanted: Any) -> str | None:
    """The first thing in which what a file says of itself differs from what is wanted, in words; None if nothing.

    Of a component, which one it is goes before its options.
    """
    if found == wanted:
        return None
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted({*found, *wanted}, key=lambda key: (key != "id", key))
        parts = (difference(f"{name}.{key}", found.get(key), wanted.get(key)) for key in keys)
        deeper = next((part for part in parts if part is not None), None)
        if deeper is not None:
            return deeper
    return f"{name}: {found!r}, not {wanted!r}"


def with_younger_options(said: Any, chosen: Chosen | None) -> Any:
    """What a weights file says of a component, with the defaults of those options that are younger than the file."""
    if chosen is None or not isinstance(said, Mapping) or not isinstance(said.get("config"), Mapping):
        return said
    return {**said, "config": {**defaults_of(chosen.spec.config), **said["config"]}}


def _check_spec(spec: Any, trouble: str) -> None:
    if not isinstance(spec, Mapping):
        raise ArtifactError(f"{trouble}: spec is {type(spec).__name__}; expected a table.")
    if not isinstance(spec.get("component"), str) or not spec["component"]:
        raise ArtifactError(f"{trouble}: spec lacks 'component', the id of what the weights belong to.")
    if not isinstance(spec.get("config"), Mapping) and not hasattr(spec.get("config"), "model_dump"):
        raise ArtifactError(f"{trouble}: spec lacks 'config', the options the component was built with.")


def _read_header(data: bytes, file: Path) -> dict[str, Any]:
    """Check the frame of the file before anything is parsed in earnest, to tell truncated from foreign."""
    foreign = f"'{file}' is not a safetensors file. {_FOREIGN}"
    size = int.from_bytes(data[:8], "little")
    if size > _MAX_HEADER_BYTES or data[8:9] not in (b"{", b""):
        raise ArtifactError(foreign)
    if len(data) < 8:
        raise ArtifactError(f"Weights '{file}' are truncated: {len(data)} bytes. {_MEND}")
    if len(data) < 8 + size:
        raise ArtifactError(
            f"Weights '{file}' are truncated: {len(data)} bytes, the header alone has {8 + size}. {_MEND}"
        )
    try:
        table = json.loads(data[8 : 8 + size])
        end = 8 + size + max((v["data_offsets"][1] for k, v in table.items() if k != "__metadata__"), default=0)
        metadata = table.get("__metadata__", {})
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ArtifactError(foreign) from error
    if len(data) < end:
        raise ArtifactError(f"Weights '{file}' are truncated: {len(data)} of {end} bytes. {_MEND}")
    return _read_metadata(metadata, file)


def _read_metadata(metadata: Any, file: Path) -> dict[str, Any]:
    if not isinstance(metadata, dict) or FORMAT not in metadata:
        raise ArtifactError(f"'{file}' holds tensors but no ufe specification: not weights made by ufe. {_FOREIGN}")
    try:
        header = json.loads(metadata[FORMAT])
        version = header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"Weights '{file}' are damaged: their specification cannot be read. {_MEND}") from error
    if version != VERSION:
        raise ArtifactError(
            f"Weights '{file}' have format version {version}, this ufe reads {VERSION}. "
            "Use the ufe that made them, or train them again."
        )
    _check_spec(header.get("spec"), f"Weights '{file}' are damaged")
    if not isinstance(header.get("tensors_sha256"), str):
        raise ArtifactError(f"Weights '{file}' are damaged: their checksum is missing. {_MEND}")
    return header


def _hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
