"""Frame lists: which frames a capture has, and of which segments they are."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ufe_ava256.layout import FRAME_LIST_HEADER, NEUTRAL_FALLBACK, NEUTRAL_SEGMENT, kind_of
from ufe_core.errors import DataError
from ufe_core.interfaces.source import Segment


@dataclass(frozen=True)
class FrameList:
    """Rows of a `frame_list.csv`: segment and frame number of each, as they are written."""

    names: tuple[str, ...]
    texts: tuple[str, ...]

    @cached_property
    def numbers(self) -> np.ndarray:
        """Frame numbers, int64 [N]."""
        return np.array([int(text) for text in self.texts], np.int64)

    def where(self, kept: np.ndarray) -> FrameList:
        """The rows that a mask bool [N] keeps."""
        return FrameList(
            tuple(name for name, keep in zip(self.names, kept, strict=True) if keep),
            tuple(text for text, keep in zip(self.texts, kept, strict=True) if keep),
        )

    def segments(self) -> tuple[Segment, ...]:
        """The segments, in order, by index of their rows, which must be grouped."""
        starts = [k for k, name in enumerate(self.names) if k == 0 or name != self.names[k - 1]]
        stops = [*starts[1:], len(self.names)]
        return tuple(
            Segment(self.names[start], start, stop, kind_of(self.names[start]))
            for start, stop in zip(starts, stops, strict=True)
        )

    def neutral_frames(self) -> list[int]:
        """Frame numbers that may serve as the neutral frame, best first; empty where no segment is for it.

        Numbers sort as text, as the public loader has them: 1002 before 998.
        """
        for segment in (NEUTRAL_SEGMENT, NEUTRAL_FALLBACK):
            texts = sorted(text for name, text in zip(self.names, self.texts, strict=True) if name == segment)
            if texts:
                return [int(text) for text in texts]
        return []


def chosen_segments(rows: FrameList, free_face: str) -> FrameList:
    """The rows `with`, or `without`, or `only` those of the free segments."""
    if free_face == "with":
        return rows
    return rows.where(np.array([(kind_of(name) == "free") == (free_face == "only") for name in rows.names]))


def read_frame_list(path: Path, *, grouped: bool = True) -> FrameList:
    """Read a frame list; `grouped` brings the rows of a segment together, else they stay as they are in the file.

    Raises:
        DataError: the file is missing or cannot be read, lacks a column, is empty, or lists a frame twice.
    """
    rows = read_table(path, FRAME_LIST_HEADER)
    if grouped:
        order = {name: k for k, name in enumerate(dict.fromkeys(name for name, _ in rows))}
        rows.sort(key=lambda row: order[row[0]])
    seen: set[int] = set()
    for name, text in rows:
        if not (text.isascii() and text.isdigit() and len(text) <= 9) or not name:
            raise DataError(f"{path} has a row '{name},{text}'; expected a segment and a frame number.")
        if int(text) in seen:
            raise DataError(f"{path} lists frame {int(text)} more than once.")
        seen.add(int(text))
    return FrameList(tuple(name for name, _ in rows), tuple(text for _, text in rows))


def read_table(path: Path, header: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Rows of a CSV file as text, in the order of the columns named.

    Raises:
        DataError: the file is missing or cannot be read, lacks a column, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            found = tuple(name.strip() for name in table.fieldnames or ())
            table.fieldnames = found
            if not set(header) <= set(found):
                raise DataError(f"{path} has columns '{','.join(found)}'; expected '{','.join(header)}'.")
            rows = [tuple((row[column] or "").strip() for column in header) for row in table]
    except OSError as error:
        raise DataError(f"{path} is missing or cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file: {error}.") from error
    if not rows:
        raise DataError(f"{path} lists nothing.")
    return rows
