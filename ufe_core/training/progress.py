"""What long work tells while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a training run tells while it works.

    `stage` is `data`, `domes`, `labels`, `geometry`, `train` or `pretrain`, or words for what else is done; `losses`
    are running means; `resumed_at` is where a run that goes on from a checkpoint began.
    """

    stage: str
    done: int
    total: int
    losses: dict[str, float]
    resumed_at: int = 0


Listener = Callable[[Progress], None]


class Counter:
    """Counts things done, which any thread tells it by calling it, and tells how many there are."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._done, self._lock = tell, 0, threading.Lock()

    def __call__(self, _: object = None) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            self._tell(self._done)
