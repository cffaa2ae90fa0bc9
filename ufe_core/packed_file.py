"""The data file of a packed capture: safetensors, written in blocks, with a checksum for each row of each tensor.

A row is one frame. Its CRC-32 is what a reader checks before it hands the row out, so any change of the file is
found where it matters and named by tensor and frame. `BlockWriter` survives the death of its process: blocks that
were written stay, are checked when the work goes on, and only what is missing or damaged is made again.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.packed_meta import REMEDY

DATA = "frames.safetensors"
_JOURNAL = "blocks.log"
_DTYPES = {"F64": np.float64, "F32": np.float32, "U8": np.uint8, "BOOL": np.bool_}
_HEADER_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """One tensor in the file: `start` is its first byte; it is checked in `chunks` equal parts along the first axis."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    chunks: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(_DTYPES[self.dtype]).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one checked part."""
        return self.nbytes // self.chunks


@dataclass(frozen=True)
class Layout:
    """Where each tensor lies: `header` holds the first bytes of the file, `size` is the length of all of it."""

    entries: dict[str, Entry]
    header: bytes
    size: int

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], rows: int, by_row: Sequence[str]) -> Layout:
        """The layout of a file of `rows` rows; `arrays` holds a part of each tensor named in `by_row`, else all of it.

        Wide types come first, so that every tensor is aligned.
        """
        codes = {np.dtype(kind): code for code, kind in _DTYPES.items()}
        order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
        shapes = {name: ((rows, *arrays[name].shape[1:]) if name in by_row else arrays[name].shape) for name in order}
        table, offset = {}, 0
        for name in order:
            stop = offset + int(np.prod(shapes[name], dtype=np.int64)) * arrays[name].dtype.itemsize
            table[name] = {"dtype": codes[arrays[name].dtype], "shape": shapes[name], "data_offsets": [offset, stop]}
            offset = stop
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _HEADER_BYTES)
        header = len(text).to_bytes(_HEADER_BYTES, "little") + text
        return cls.read(header, {name: rows if name in by_row else 1 for name in order})

    @classmethod
    def read(cls, header: bytes, chunks: Mapping[str, int]) -> Layout:
        """The layout that a header describes."""
        entries = {
            name: Entry(item["dtype"], tuple(item["shape"]), len(header) + item["data_offsets"][0], chunks[name])
            for name, item in json.loads(header[_HEADER_BYTES:]).items()
        }
        return cls(entries, header, max(entry.start + entry.nbytes for entry in entries.values()))


def read_header(path: Path) -> bytes:
    """The first bytes of a safetensors file, up to its data; fewer where the file is shorter."""
    with path.open("rb") as file:
        first = file.read(_HEADER_BYTES)
        length = int.from_bytes(first, "little")
        return first + file.read(min(length, path.stat().st_size))


def checksums_of(values: np.ndarray, chunks: int) -> np.ndarray:
    """CRC-32 of each of `chunks` equal parts of a contiguous array, uint32 [chunks]."""
    raw = _raw(values)
    size = len(raw) // chunks
    return np.array([zlib.crc32(raw[k * size : (k + 1) * size]) for k in range(chunks)], np.uint32)


def _raw(values: np.ndarray) -> memoryview:
    """The bytes of a contiguous array."""
    return memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def to_hex(checksums: np.ndarray) -> str:
    """Eight hex digits for each checksum."""
    return checksums.astype(">u4").tobytes().hex()


def from_hex(text: str) -> np.ndarray:
    """What `to_hex` wrote."""
    return np.frombuffer(bytes.fromhex(text), ">u4").astype(np.uint32)


class MappedTensor:
    """A read-only tensor in a mapped file. Its first axis is rows; each is checked the first time it is read.

    Indexing gives arrays as numpy would: a view for a row or a slice, a copy for a list of rows.

    Args:
        values: the mapped array.
        checksums: uint32 [rows].
        describe: words for damaged rows, put into the error.
    """

    def __init__(self, values: np.ndarray, checksums: np.ndarray, describe: Damage) -> None:
        self._values, self._checksums, self._describe = values, checksums, describe
        self._sound = np.zeros(len(values), bool)
        self._all_sound = False
        self.shape, self.dtype, self.ndim, self.nbytes = values.shape, values.dtype, values.ndim, values.nbytes

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Rows of the tensor, checked.

        Raises:
            DataError: a row is not as it was written; names the file and the frames.
        """
        if not self._all_sound:
            rows = np.arange(len(self))[index[0] if isinstance(index, tuple) else index]
            self._check(np.unique(rows))
        found: np.ndarray = self._values[index]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype) if copy or dtype not in (None, self.dtype) else self[:]

    def damage(self) -> str | None:
        """Words for the rows that are not as they were written, after reading all of them; None if all are."""
        bad = [row for row in np.flatnonzero(~self._sound).tolist() if not self._is_sound(row)]
        return self._describe(bad) if bad else None

    def _check(self, rows: np.ndarray) -> None:
        bad = [row for row in rows[~self._sound[rows]].tolist() if not self._is_sound(row)]
        if bad:
            raise DataError(self._describe(bad))
        self._all_sound = bool(self._sound.all())

    def _is_sound(self, row: int) -> bool:
        self._sound[row] = zlib.crc32(_raw(self._values[row])) == self._checksums[row]
        return bool(self._sound[row])


@dataclass(frozen=True)
class Damage:
    """Says which frames of which tensor of which file are damaged; `frames` is the frame index of each row, if any."""

    path: Path
    tensor: str
    frames: Sequence[int]

    def __call__(self, rows: Sequence[int]) -> str:
        """One line for damaged rows."""
        if not self.frames:
            return damage_line(self.path, self.tensor)
        word = "frame" if len(rows) == 1 else "frames"
        return damage_line(self.path, f"{self.tensor} of {word} {_spans([self.frames[row] for row in rows])}")


def damage_line(path: Path, what: str) -> str:
    """One line that names a damage and what to do."""
    return f"{path} is damaged ({what}). {REMEDY}"


def _spans(numbers: Sequence[int]) -> str:
    """Numbers as text, runs shortened: `3-5, 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:8]]
    return ", ".join(shown) + (f" and {len(runs) - 8} runs more" if len(runs) > 8 else "")


def map_file(path: Path, layout: Layout) -> dict[str, np.ndarray]:
    """Every tensor of the file as a read-only view of the mapped file."""
    mapped = np.memmap(path, np.uint8, "r")
    return {
        name: np.frombuffer(mapped[entry.start : entry.start + entry.nbytes], _DTYPES[entry.dtype]).reshape(entry.shape)
        for name, entry in layout.entries.items()
    }


class BlockWriter:
    """Writes the data file of one capture into a folder, a block of rows at a time.

    What an earlier writer with the same `identity` finished in that folder is taken over, block by block, where its
    checksums agree; anything else there is discarded. One writer at a time: the caller holds a lock.

    Attributes: `done` holds the numbers of finished blocks, `layout` is None until the first block.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._data, self._journal = folder / DATA, folder / _JOURNAL
        self._identity = identity
        self.layout: Layout | None = None
        self.done: set[int] = set()
        self._checksums: dict[str, np.ndarray] = {}
        records = list(self._records())
        if records and records[0].get("identity") == identity and self._data.is_file():
            self._take_over(records)

    @property
    def path(self) -> Path:
        """The data file."""
        return self._data

    def begin(self, layout: Layout) -> None:
        """Fix the layout of the file; before the first block."""
        self.layout = layout
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._journal.unlink(missing_ok=True)
        with self._data.open("wb") as file:
            file.write(layout.header)
            file.truncate(layout.size)
        chunks = {name: entry.chunks for name, entry in layout.entries.items()}
        self._append({"identity": self._identity, "header": layout.header.hex(), "chunks": chunks})
        self._checksums = {name: np.zeros(count, np.uint32) for name, count in chunks.items()}

    def write(self, number: int, arrays: Mapping[str, np.ndarray], first_row: int = 0) -> None:
        """Write rows `first_row` on of tensors, and remember the block as finished."""
        assert self.layout is not None
        sums = {}
        with self._data.open("r+b") as file:
            for name, values in arrays.items():
                entry = self.layout.entries[name]
                file.seek(entry.start + (first_row * entry.chunk_bytes if entry.chunks > 1 else 0))
                file.write(_raw(values))
                sums[name] = checksums_of(values, len(values) if entry.chunks > 1 else 1)
        self._append({"block": number, "first": first_row, "sums": {name: to_hex(v) for name, v in sums.items()}})
        self._remember(number, first_row, sums)

    def finish(self) -> dict[str, str]:
        """Checksums of every tensor, once every block is there; the journal goes."""
        self._journal.unlink(missing_ok=True)
        return {name: to_hex(values) for name, values in self._checksums.items()}

    def _remember(self, number: int, first_row: int, sums: Mapping[str, np.ndarray]) -> None:
        for name, values in sums.items():
            self._checksums[name][first_row : first_row + len(values)] = values
        self.done.add(number)

    def _take_over(self, records: list[dict[str, Any]]) -> None:
        head, *blocks = records
        layout = Layout.read(bytes.fromhex(head["header"]), head["chunks"])
        if self._data.stat().st_size != layout.size:
            self.begin(layout)
            return
        with self._data.open("r+b") as file:
            file.write(layout.header)
        self._journal.unlink()
        self._append(head)
        self.layout = layout
        self._checksums = {name: np.zeros(entry.chunks, np.uint32) for name, entry in layout.entries.items()}
        mapped = map_file(self._data, layout)
        for record in blocks:
            sums = {name: from_hex(text) for name, text in record["sums"].items()}
            parts = {name: self._part(mapped[name], name, record["first"], len(sums[name])) for name in sums}
            if all((checksums_of(part, len(sums[name])) == sums[name]).all() for name, part in parts.items()):
                self._append(record)
                self._remember(record["block"], record["first"], sums)

    def _part(self, values: np.ndarray, name: str, first: int, count: int) -> np.ndarray:
        assert self.layout is not None
        return values if self.layout.entries[name].chunks == 1 else values[first : first + count]

    def _append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record)
        with self._journal.open("a") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")

    def _records(self) -> Iterator[dict[str, Any]]:
        """Lines of the journal that were written whole."""
        with contextlib.suppress(FileNotFoundError):
            for line in self._journal.read_bytes().split(b"\n"):
                digits, _, text = line.partition(b" ")
                if text and digits == b"%08x" % zlib.crc32(text):
                    yield json.loads(text)
