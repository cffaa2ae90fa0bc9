"""A table on disk with a row of numbers for each of many people, of which a step reads and learns a few (P§6.4, u^id).

Memory holds the rows that were changed since the last checkpoint. They go into the checkpoint first and to their
places after it, so a run that is killed at any moment goes on from exactly what its checkpoint says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ufe_core.errors import ArtifactError
from ufe_core.store import explained

_BETAS, _EPS = (0.9, 0.98), 1e-8
_VALUE, _MEAN, _SQUARE = range(3)
_GIVEN = -1  # in place of its count: a row's first values are on disk
_AT_A_TIME = 256  # rows that are read together


class RowTable:
    """Rows that Adam changes when they are used, each by its own count of steps; all others stay as they are.

    Args:
        folder: where its files are, made if missing.
        rows: how many.
        shape: of a row.
        seed: fixes first values, normal with deviation `spread`, of rows that `start` gives none.
        spread: see `seed`.
        pace: their learning rate, in those of everything else.
    """

    def __init__(
        self, folder: Path, rows: int, shape: Sequence[int], *, seed: int, spread: float = 0.02, pace: float = 1.0
    ) -> None:  # fmt: skip
        self.shape, self._seed, self._spread, self._pace = tuple(shape), seed, spread, pace
        self._values, fits = _mapped(folder / "rows.npy", (rows, 3, *shape), np.float32)
        self._counts, both = _mapped(folder / "counts.npy", (rows,), np.int32)
        #: Whether its files were there and fit: without them no checkpoint can be gone on from.
        self.was_there = fits and both
        self._changed: dict[int, tuple[np.ndarray, int]] = {}
        self._used: tuple[np.ndarray, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def changed(self) -> int:
        """How many rows are in memory: those changed since the last checkpoint."""
        return len(self._changed)

    def gather(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Values [U, ...] of U different rows, which take a gradient; `step` then changes these."""
        values = torch.from_numpy(np.stack([self._row(int(row))[0][_VALUE] for row in rows]))
        self._used = (rows, values.to(device).requires_grad_())
        return self._used[1]

    def step(self, rate: float) -> None:
        """A step of Adam on what was gathered last, at `pace` times this rate."""
        if self._used is None or self._used[1].grad is None:
            return
        rows, values = self._used
        assert values.grad is not None
        for row, gradient in zip(rows, values.grad.float().cpu().numpy(), strict=True):
            state, count = self._row(int(row))
            count += 1
            state[_MEAN] = _BETAS[0] * state[_MEAN] + (1 - _BETAS[0]) * gradient
            state[_SQUARE] = _BETAS[1] * state[_SQUARE] + (1 - _BETAS[1]) * gradient**2
            mean, square = state[_MEAN] / (1 - _BETAS[0] ** count), state[_SQUARE] / (1 - _BETAS[1] ** count)
            state[_VALUE] -= self._pace * rate * mean / (np.sqrt(square) + _EPS)
            self._changed[int(row)] = (state, count)
        self._used = None

    def start(self, row: int, values: np.ndarray) -> None:
        """Let a row begin with these values, after `reset` and before a `commit`: they are not in the checkpoint."""
        self._values[row] = 0
        self._values[row, _VALUE] = values
        self._counts[row] = _GIVEN

    def pending(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: the rows changed since the last one."""
        if not self._changed:
            return {}
        rows = sorted(self._changed)
        return {
            "rows": torch.tensor(rows, dtype=torch.int64),
            "values": torch.from_numpy(np.stack([self._changed[row][0] for row in rows])),
            "counts": torch.tensor([self._changed[row][1] for row in rows], dtype=torch.int32),
        }  # fmt: skip

    def commit(self) -> None:
        """Write what the checkpoint holds by now to its places."""
        self._put(self.pending())
        self._changed.clear()
        for values in (self._values, self._counts):
            cast("np.memmap[Any, Any]", values).flush()

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; what it holds may or may not have reached its places before the run was killed."""
        self._changed.clear()
        self._put(kept)

    def reset(self) -> None:
        """Begin anew."""
        self._changed.clear()
        self._counts[:] = 0

    def values(self, rows: Sequence[int]) -> np.ndarray:
        """Values float32 [U, ...] of some rows."""
        return np.stack([self._row(row)[0][_VALUE] for row in rows])

    def finish(self, path: Path) -> None:
        """Write the values alone, float32 [rows, ...], for readers; the table stays as it is."""
        with explained(f"write '{path.name}'", path.parent):
            kept = _new(path, (len(self), *self.shape), np.float32)
        for start in range(0, len(self), _AT_A_TIME):
            rows = range(start, min(start + _AT_A_TIME, len(self)))
            kept[rows.start : rows.stop] = self.values(rows)
        kept.flush()

    def _row(self, row: int) -> tuple[np.ndarray, int]:
        """State float32 [3, ...] and count of a row, a copy that may be changed."""
        if row in self._changed:
            return self._changed[row]
        if self._counts[row]:
            return np.array(self._values[row]), max(0, int(self._counts[row]))
        state = np.zeros((3, *self.shape), np.float32)
        state[_VALUE] = np.random.default_rng([self._seed, 11, row]).normal(0, self._spread, self.shape)
        return state, 0

    def _put(self, kept: Mapping[str, Tensor]) -> None:
        if kept:
            rows = kept["rows"].numpy()
            self._values[rows] = kept["values"].numpy()
            self._counts[rows] = kept["counts"].numpy()


class LearnedRows:
    """What was learned of each person, to be read.

    Raises:
        ArtifactError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path} holds no rows of people ({error}). Pre-train again with --fresh, or look at --people unseen."
            ) from error

    def values(self, rows: Sequence[int]) -> np.ndarray:
        """Values float32 [U, ...] of some people."""
        return np.array(self._values[list(rows)])

    def mean(self) -> np.ndarray:
        """Over all people, float32 [...]."""
        parts = range(0, len(self._values), _AT_A_TIME)
        total = sum(self._values[k : k + _AT_A_TIME].sum(0, dtype=np.float64) for k in parts)
        return np.asarray(total / len(self._values), np.float32)


def _mapped(path: Path, shape: tuple[int, ...], kind: type) -> tuple[np.ndarray, bool]:
    """A mapped array, and whether it was there; else it is zeros."""
    with explained(f"write '{path.name}'", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            try:
                there = np.load(path, mmap_mode="r", allow_pickle=False)  # r+ would fill up what a short file lacks
                if there.shape == shape and there.dtype == kind:
                    del there
                    return np.lib.format.open_memmap(path, mode="r+"), True
            except (OSError, ValueError):
                pass
            path.unlink()
        return _new(path, shape, kind), False


def _new(path: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    """A mapped array of zeros whose room on the disk is taken: a full one is met here, not when a page is written."""
    made: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return made
