"""Tensors of a file of `torch.save`, read without running anything that it says.

Such a file is a zip archive of plain arrays and one pickle that names them; it can name an ordered dictionary and the
function that makes a tensor of an array besides, and nothing else.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.safe_pickle import Function, load_pickle, refusing

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "LongStorage": "int64",
    "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}  # fmt: skip
_MOST_BYTES = 2**33
_MOST_PICKLE_BYTES = 2**24


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The named tensors of a dictionary that `torch.save` wrote; nothing in the file is executed.

    Raises:
        DataError: the file cannot be read, was cut short, is refused, or is no dictionary of tensors.
    """
    with refusing(path):
        try:
            with zipfile.ZipFile(path) as archive:
                value = _Reader(archive).read()
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is no checkpoint of torch 1.6 or newer, or was cut short.") from error
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in value.items()
    ):
        raise DataError(f"{path} is no dictionary of tensors; a state dict is wanted.")
    return dict(value)


class _Reader:
    """The pickle of one archive and the arrays that it names."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("it has no data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise pickle.UnpicklingError("it is compressed, which torch never does")
        if sum(entry.file_size for entry in entries) > _MOST_BYTES or pickles[0].file_size > _MOST_PICKLE_BYTES:
            raise pickle.UnpicklingError("it is larger than any checkpoint of an avatar")
        self._pickle = pickles[0]
        self._folder = self._pickle.filename.split("/")[0]
        self._arrays: dict[str, np.ndarray] = {}
        if f"{self._folder}/byteorder" in archive.namelist() and self._entry("byteorder") != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")

    def read(self) -> Any:
        with self._archive.open(self._pickle) as file:
            return load_pickle(file, _ALLOWED, part_of="a tensor", persistent=self.storage)

    def storage(self, name: Any) -> np.ndarray:
        """The array that a persistent name of the pickle stands for."""
        kind, dtype, key, _, count = name
        if kind != "storage" or dtype not in _STORAGES.values() or not isinstance(key, str) or not key.isalnum():
            raise pickle.UnpicklingError("it names something that is no array")
        if key not in self._arrays:
            self._arrays[key] = np.frombuffer(self._entry(f"data/{key}"), dtype)
        array = self._arrays[key]
        if array.dtype != dtype or len(array) != count:
            raise pickle.UnpicklingError(f"array {key} has not the size that is said")
        return array

    def _entry(self, name: str) -> bytes:
        return self._archive.read(f"{self._folder}/{name}")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A view of a storage; one that reaches beyond its end is refused."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or not all(type(n) is int for n in numbers):
        raise pickle.UnpicklingError("a tensor of no array")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min(numbers) < 0 or (min(size, default=1) > 0 and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor that reaches beyond its array")
    steps = [step * storage.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)
    if view.size > len(storage):
        raise pickle.UnpicklingError("a tensor larger than its array")
    return view


def _parameter(data: Any, *_: Any) -> Any:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
} | {("torch", name): dtype for name, dtype in _STORAGES.items()}
