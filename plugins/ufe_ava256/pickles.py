"""Pickled arrays and tensors, read by loaders that can execute nothing.

Only the few functions that rebuild numpy arrays, torch tensors and plain containers can be named in one.
"""

from __future__ import annotations

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core import safe_pickle
from ufe_core.safe_pickle import Function

_MOST_BYTES = 2**30
_SAFE_TORCH = (2, 6)  # before, torch.load(weights_only=True) could be tricked into running code (CVE-2025-32434)


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """What numpy's pickles begin with: an array to be filled by its `__setstate__`."""
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array that does not begin empty")
    return np.ndarray((0,), np.int8)


def _array_of_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _number(dtype: Any, data: Any) -> Any:
    return np.frombuffer(data, dtype, 1)[0]


def _latin_bytes(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return str(text).encode("latin1")


def _tensor_of_file(data: Any) -> Any:
    return _load_tensors(io.BytesIO(data))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    import torch

    return torch.tensor([], dtype=storage.dtype).set_(storage._untyped_storage, int(offset), tuple(size), tuple(stride))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): Function(_latin_bytes),
    ("torch.storage", "_load_from_bytes"): Function(_tensor_of_file),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
} | {
    (f"numpy.{core}.{module}", name): Function(function)
    for core in ("core", "_core")
    for module, name, function in (
        ("multiarray", "_reconstruct", _empty_array),
        ("multiarray", "scalar", _number),
        ("numeric", "_frombuffer", _array_of_buffer),
    )
}


def load_pickle(path: Path) -> Any:
    """What a pickle of arrays, tensors, numbers, texts and containers of these holds; nothing in it is executed.

    Raises:
        DataError: the file cannot be read, is damaged, or names anything else.
    """
    with safe_pickle.refusing(path):
        _refuse_large(path)
        return safe_pickle.load_pickle(io.BytesIO(path.read_bytes()), _ALLOWED, part_of="an array")


def load_tensors(path: Path) -> Any:
    """What a file of `torch.save` holds, tensors and containers of them; nothing in it is executed.

    Raises:
        DataError: the file cannot be read, is damaged, or holds anything else.
    """
    with safe_pickle.refusing(path):
        _refuse_large(path)
        return _load_tensors(path)


def _load_tensors(file: Path | io.BytesIO) -> Any:
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_TORCH:
        raise pickle.UnpicklingError("only torch 2.6 or newer loads tensors safely, and this is " + torch.__version__)
    return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_large(path: Path) -> None:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise pickle.UnpicklingError(f"it has {size} bytes, more than any file of codes")
