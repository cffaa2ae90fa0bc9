"""Files in zip archives: the directory is read once, entries at random and checked, and nothing is unpacked."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ufe_ava256.zip_directory import read_directory
from ufe_core.errors import DataError

_OPEN_FILES = 64
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MOST_BYTES, _MOST_PIXELS = 2**28, 2**25
_ENCRYPTED = 1


class Archive:
    """The entries `NNNNNN.<suffix>` of one zip file, flat or in one folder, by frame number.

    The directory is read once, when first asked for; a few numbers of each entry are kept of it. Entries are read
    through file handles that stay open between reads, from any thread.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self._suffix = path, suffix

    @property
    def frames(self) -> np.ndarray:
        """Frame numbers that have an entry, int32 [N], rising.

        Raises:
            UnusableArchive: the file is missing, is no zip file, or has no entries.
            DataError: the name of an entry points outside the archive, or two are of one frame.
        """
        return self._index["frame"]

    def has(self, frames: np.ndarray) -> np.ndarray:
        """Which of the frame numbers [N] have an entry, bool [N]; raises as `frames` does."""
        there = self.frames
        return there[np.minimum(np.searchsorted(there, frames), len(there) - 1)] == frames

    def name(self, frame: int) -> str:
        """How messages name a frame's entry."""
        return f"{frame:06d}.{self._suffix} in {self.path}"

    def read(self, frame: int) -> bytes:
        """The bytes of a frame's entry, checked against its checksum.

        Raises:
            DataError: there is no such entry, or it is damaged; names entry and file.
        """
        index = self._index
        row = int(np.searchsorted(index["frame"], frame))
        if row == len(index) or index["frame"][row] != frame:
            raise DataError(f"There is no {self.name(frame)}.")
        entry = index[row]
        if entry["flags"] & _ENCRYPTED or entry["method"] not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.name(frame)} is encrypted or compressed in a way that this reader does not know.")
        if not 0 <= entry["size"] <= _MOST_BYTES:
            raise DataError(f"{self.name(frame)} claims {entry['size']} bytes; at most {_MOST_BYTES} are read.")
        try:
            data = self._stored(int(entry["offset"]), int(entry["stored"]))
            if entry["method"] == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(1, int(entry["size"])))
        except (OSError, ValueError, zlib.error) as error:
            raise DataError(f"{self.name(frame)} cannot be read: {error}.") from error
        if len(data) != entry["size"]:
            raise DataError(f"{self.name(frame)} is cut short: {entry['size']} bytes expected, {len(data)} found.")
        if zlib.crc32(data) != entry["crc"]:
            raise DataError(f"{self.name(frame)} is damaged: its bytes do not match their checksum.")
        return data

    def _stored(self, offset: int, size: int) -> bytes:
        """What is stored of the entry whose local header lies at an offset."""
        file = _opened(self.path, self._version)
        header = file.read(offset, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            return b""
        signature, name, extra = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise OSError("its header in the archive is damaged")
        return file.read(offset + _LOCAL_HEADER.size + name + extra, max(0, min(size, _MOST_BYTES)))

    @cached_property
    def _index(self) -> np.ndarray:
        index = read_directory(self.path, self._suffix)
        about = self.path.stat()
        self._version = (about.st_mtime_ns, about.st_size)
        return index


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The pixels of an AVIF or PNG image, uint8 [H, W] or [H, W, channels].

    Args:
        data: the file.
        name: what messages call it.

    Raises:
        DataError: it is no such image, or damaged.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("AVIF", "PNG")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            pixels = np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))
    except (OSError, ValueError, RuntimeError, SyntaxError, EOFError) as error:
        raise DataError(f"{name} is no readable image: {_first_line(error)}.") from error
    return pixels


def check_image(data: bytes, name: str) -> None:
    """Read the header of an AVIF or PNG image, which tells most damages at little cost.

    Raises:
        DataError: it is no such image, or its header is damaged.
    """
    image_size(data, name)


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of an AVIF or PNG image, from its header.

    Raises:
        DataError: it is no such image, or its header is damaged.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("AVIF", "PNG")) as image:
            return image.size
    except (OSError, ValueError, RuntimeError, SyntaxError, EOFError) as error:
        raise DataError(f"{name} is no readable image: {_first_line(error)}.") from error


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image [H, W] or [H, W, 3] at another size, averaged over areas where it shrinks."""
    import cv2

    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=how))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class _File:
    """A file that stays open until nobody uses it, and that several threads may read."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


@lru_cache(maxsize=_OPEN_FILES)
def _opened(path: Path, version: tuple[int, int]) -> _File:
    """An open file, kept while it is one of the last used; a file that was written anew is another one."""
    return _File(path)
