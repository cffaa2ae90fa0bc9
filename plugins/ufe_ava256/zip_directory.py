"""The directory of a zip file as an array: `zipfile` takes an object and some microseconds for each entry instead."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ufe_core.errors import DataError

#: What is kept of an entry: where it begins, bytes stored and unpacked, checksum, compression, flags.
ENTRY = np.dtype([
    ("frame", "i4"), ("offset", "i8"), ("stored", "i8"), ("size", "i8"), ("crc", "u4"), ("method", "u2"),
    ("flags", "u2"),
])  # fmt: skip
_RECORD = np.dtype([
    ("signature", "<u4"), ("versions", "<u4"), ("flags", "<u2"), ("method", "<u2"), ("time", "<u4"), ("crc", "<u4"),
    ("stored", "<u4"), ("size", "<u4"), ("name", "<u2"), ("extra", "<u2"), ("comment", "<u2"), ("rest", "V8"),
    ("offset", "<u4"),
])  # fmt: skip
_LENGTHS = struct.Struct("<HHH")
_END, _END64, _LOCATOR_BYTES = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), 20
_TAIL = 2**16 + _END.size + _LOCATOR_BYTES
_LARGE, _SIGNATURE = 0xFFFFFFFF, int.from_bytes(b"PK\x01\x02", "little")
_MOST_BYTES = 2**28
_OUTSIDE = re.compile(rb"(?m)^.*(?:^/|(?:^|/)\.\.(?:/|$)|:|\\).*$")


class UnusableArchive(DataError):
    """An archive is missing, empty or cut short: none of its entries can be read."""


def read_directory(path: Path, suffix: str) -> np.ndarray:
    """The entries `NNNNNN.<suffix>` of a zip file, flat or in a folder, of dtype `ENTRY`, by rising frame number.

    Raises:
        UnusableArchive: the file is missing, is no zip file, was cut short, or has no such entries.
        DataError: the name of an entry points outside the archive, or two are of one frame.
    """
    try:
        with path.open("rb") as file:
            data, shift = _directory_bytes(file)
    except FileNotFoundError as error:
        raise UnusableArchive(f"{path} is missing.") from error
    except OSError as error:
        raise UnusableArchive(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, struct.error) as error:
        raise UnusableArchive(f"{path} is no zip file, or was cut short.") from error
    try:
        starts = _starts(data)
        names, records = _names(data, starts), _records(data, starts)
    except (ValueError, struct.error) as error:
        raise UnusableArchive(f"{path} has a damaged directory.") from error
    text = b"\n".join(names)
    outside = _OUTSIDE.search(text)
    if outside or text.count(b"\n") >= max(1, len(names)):
        name = (outside[0] if outside else next(name for name in names if b"\n" in name)).decode("utf-8", "replace")
        raise DataError(f"{path} is refused: the name of its entry {name!r} points outside the archive.")
    pattern = rb"(?m)^(?:(?:[^/\n]+/)?(\d{1,9})\.%s|.*)$" % suffix.encode()
    found = re.findall(pattern, text) if names else []
    wanted = np.array([k for k, number in enumerate(found) if number], np.int64)
    if not len(wanted):
        raise UnusableArchive(f"{path} has no entries NNNNNN.{suffix}.")
    index = np.zeros(len(wanted), ENTRY)
    index["frame"] = np.array([int(number) for number in found if number])
    for field in ("offset", "stored", "size", "crc", "method", "flags"):
        index[field] = records[field][wanted]
    for k in np.flatnonzero((index["offset"] == _LARGE) | (index["stored"] == _LARGE) | (index["size"] == _LARGE)):
        _enlarge(index[k : k + 1], _extra(data, int(starts[wanted[k]])))
    index["offset"] += shift
    index.sort(order="frame")
    twice = index["frame"][1:][np.diff(index["frame"]) == 0]
    if len(twice):
        raise DataError(f"{path} has more than one entry {twice[0]:06d}.{suffix}.")
    return index


def _directory_bytes(file: BinaryIO) -> tuple[bytes, int]:
    """The directory, and how far its offsets are out because something stands before the archive.

    Raises:
        ValueError: there is no directory where the end of the file says.
    """
    length = file.seek(0, 2)
    start = max(0, length - _TAIL)
    file.seek(start)
    tail = file.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise ValueError
    _, _, _, _, _, size, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    locator = at - _LOCATOR_BYTES
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        end = start + locator - _END64.size
        file.seek(max(0, end))
        signature, *_, size, offset = _END64.unpack(file.read(_END64.size))
        if signature != b"PK\x06\x06":
            raise ValueError
    if size > _MOST_BYTES or end - size < 0 or end - size - offset < 0:
        raise ValueError
    file.seek(end - size)
    return file.read(size), end - size - offset


def _starts(data: bytes) -> np.ndarray:
    """Where each record begins."""
    starts, position = [], 0
    while position < len(data):
        name, extra, comment = _LENGTHS.unpack_from(data, position + 28)
        starts.append(position)
        position += _RECORD.itemsize + name + extra + comment
    if position != len(data):
        raise ValueError
    return np.array(starts, np.int64)


def _records(data: bytes, starts: np.ndarray) -> np.ndarray:
    places = starts[:, None] + np.arange(_RECORD.itemsize)
    records = np.frombuffer(data, np.uint8)[places].view(_RECORD)[:, 0]
    if (records["signature"] != _SIGNATURE).any():
        raise ValueError
    return records


def _names(data: bytes, starts: np.ndarray) -> list[bytes]:
    begins = (starts + _RECORD.itemsize).tolist()
    return [data[b : b + _LENGTHS.unpack_from(data, b - 18)[0]] for b in begins]


def _extra(data: bytes, start: int) -> bytes:
    name, extra, _ = _LENGTHS.unpack_from(data, start + 28)
    begin = start + _RECORD.itemsize + name
    return data[begin : begin + extra]


def _enlarge(entry: np.ndarray, extra: bytes) -> None:
    """Fill in what a record of 4-byte numbers has no room for, from its extra field; where it lacks, reading fails."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}q", extra, 4))
            for field in ("size", "stored", "offset"):
                if entry[field][0] == _LARGE:
                    entry[field] = next(values, _LARGE)
        extra = extra[4 + length :]
