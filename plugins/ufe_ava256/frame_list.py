"""Frame lists: which frames a capture has, and of which segments they are."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ufe_ava256.layout import FRAME_LIST_HEADER, NEUTRAL_FALLBACK, NEUTRAL_SEGMENT, kind_of
from ufe_core.errors import DataError
from ufe_core.interfaces.source import Segment


@dataclass(frozen=True)
class FrameList:
    """Rows of a `frame_list.csv`: frame number int64 [N] and segment int64 [N], an index into `names`, of each.

    `neutral` are the frame numbers that may serve as the neutral frame, best first; empty where no segment is for it.
    """

    names: tuple[str, ...]
    segment: np.ndarray
    numbers: np.ndarray
    neutral: tuple[int, ...]

    def where(self, kept: np.ndarray) -> FrameList:
        """The rows that a mask bool [N] keeps."""
        return replace(self, segment=self.segment[kept], numbers=self.numbers[kept])

    def segments(self) -> tuple[Segment, ...]:
        """The segments, in order, by index of their rows, which must be grouped."""
        starts = np.flatnonzero(np.diff(self.segment, prepend=-1)).tolist()
        found = []
        for start, stop in zip(starts, [*starts[1:], len(self.segment)], strict=True):
            name = self.names[self.segment[start]]
            found.append(Segment(name, start, stop, kind_of(name)))
        return tuple(found)


def chosen_segments(rows: FrameList, free_face: str) -> FrameList:
    """The rows `with`, or `without`, or `only` those of the free segments."""
    if free_face == "with":
        return rows
    kept = np.array([(kind_of(name) == "free") == (free_face == "only") for name in rows.names])
    return rows.where(kept[rows.segment])


def read_frame_list(path: Path, *, grouped: bool = True) -> FrameList:
    """Read a frame list; `grouped` brings the rows of a segment together, else they stay as they are in the file.

    Raises:
        DataError: the file is missing or cannot be read, lacks a column, is empty, or lists a frame twice.
    """
    rows = read_table(path, FRAME_LIST_HEADER)
    names = {name: k for k, name in enumerate(dict.fromkeys(name for name, _ in rows))}
    if grouped:
        rows.sort(key=lambda row: names[row[0]])
    texts = [text for _, text in rows]
    if not ("".join(texts).isascii() and all(text.isdigit() and len(text) <= 9 for text in texts)) or "" in names:
        bad = next(row for row in rows if not (row[0] and re.fullmatch(r"[0-9]{1,9}", row[1])))
        raise DataError(f"{path} has a row '{','.join(bad)}'; expected a segment and a frame number.")
    numbers = np.array([int(text) for text in texts], np.int64)
    once, counts = np.unique(numbers, return_counts=True)
    if len(once) < len(numbers):
        raise DataError(f"{path} lists frame {once[counts > 1][0]} more than once.")
    return FrameList(tuple(names), np.array([names[name] for name, _ in rows]), numbers, _neutral(rows))


def _neutral(rows: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    """Frames of the neutral segment; numbers sort as text, as the public loader has them: 1002 before 998."""
    for segment in (NEUTRAL_SEGMENT, NEUTRAL_FALLBACK):
        texts = sorted(text for name, text in rows if name == segment)
        if texts:
            return tuple(int(text) for text in texts)
    return ()


def read_table(path: Path, header: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Rows of a CSV file as text, in the order of the columns named.

    Raises:
        DataError: the file is missing or cannot be read, lacks a column, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file)
            found = [name.strip() for name in next(table, [])]
            if not set(header) <= set(found):
                raise DataError(f"{path} has columns '{','.join(found)}'; expected '{','.join(header)}'.")
            columns = [found.index(name) for name in header]
            padded = (row + [""] * (len(found) - len(row)) for row in table if row)
            rows = [tuple(row[column].strip() for column in columns) for row in padded]
    except OSError as error:
        raise DataError(f"{path} is missing or cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file: {error}.") from error
    if not rows:
        raise DataError(f"{path} lists nothing.")
    return rows
