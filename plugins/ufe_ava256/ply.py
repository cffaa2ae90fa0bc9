"""Vertices of PLY files, as ava-256 stores its registered meshes: a vertex element with x, y and z."""

from __future__ import annotations

import numpy as np

from ufe_core.errors import DataError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">"}
_END = b"end_header"


def read_vertices(data: bytes, name: str, *, count: int) -> np.ndarray:
    """The vertices of a PLY file, ascii or binary, float32 [V, 3].

    Elements after the vertices, and other numbers of a vertex, are passed over.

    Args:
        data: the file.
        name: what messages call it.
        count: how many vertices it must have.

    Raises:
        DataError: the file is no PLY file, is cut short, has another number of vertices, or one that is not finite.
    """
    encoding, found, fields, start = _header(data, name)
    if found != count:
        raise DataError(f"{name} has {found} vertices; the topology has {count}.")
    if encoding == "ascii":
        vertices = _of_text(data[start:], found, fields, name)
    else:
        layout = np.dtype([(field, _ORDER[encoding] + kind) for field, kind in fields])
        if len(data) - start < found * layout.itemsize:
            raise DataError(f"{name} is cut short: {found} vertices do not fit into its {len(data)} bytes.")
        rows = np.frombuffer(data, layout, found, start)
        vertices = np.stack([rows[axis] for axis in "xyz"], -1).astype(np.float32)
    if not np.isfinite(vertices).all():
        raise DataError(f"{name} has vertices that are not finite numbers.")
    return vertices


def _header(data: bytes, name: str) -> tuple[str, int, list[tuple[str, str]], int]:
    """Encoding, number of vertices, name and type of each of their numbers, and where they begin."""
    end = data.find(_END)
    if not data.startswith(b"ply") or end < 0:
        raise DataError(f"{name} is no PLY file.")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    start = data.find(b"\n", end) + 1
    elements = [k for k, words in enumerate(lines) if words[0] == "element"]
    try:
        encoding = next(words[1] for words in lines if words[0] == "format")
        first = lines[elements[0]]
        of_vertices = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else None]
        fields = [(words[2], _TYPES[words[1]]) for words in of_vertices if words[0] == "property"]
        found = int(first[2])
    except (StopIteration, IndexError, KeyError, ValueError) as error:
        raise DataError(f"{name} has a PLY header that cannot be read.") from error
    if encoding not in (*_ORDER, "ascii") or first[1] != "vertex" or not {"x", "y", "z"} <= {n for n, _ in fields}:
        raise DataError(f"{name} has a PLY header without a vertex element of x, y and z first.")
    if len({field for field, _ in fields}) != len(fields) or start == 0:
        raise DataError(f"{name} has a PLY header that cannot be read.")
    return encoding, found, fields, start


def _of_text(data: bytes, count: int, fields: list[tuple[str, str]], name: str) -> np.ndarray:
    try:
        words = [line.split() for line in data.decode("ascii").splitlines()[:count]]
        rows = np.array([line[: len(fields)] for line in words], np.float32)
    except ValueError as error:
        raise DataError(f"{name} has vertices that are no numbers.") from error
    if rows.shape != (count, len(fields)):
        raise DataError(f"{name} is cut short: {count} vertices expected, {len(words)} found.")
    names = [field for field, _ in fields]
    return rows[:, [names.index(axis) for axis in "xyz"]]
