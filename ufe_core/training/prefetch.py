"""Batches that threads prepare a few steps ahead of the one that is trained on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

ItemT = TypeVar("ItemT")


def prefetched(
    make: Callable[[int], ItemT], start: int, stop: int, *, threads: int
) -> Generator[tuple[int, ItemT], None, None]:
    """`make(step)` of steps `start` to `stop`, in order, called by threads a few steps ahead.

    Threads, not processes: copies from mapped files and image transforms release the interpreter's lock, and a
    process would have to send each batch through memory again, which costs ten times what the reading does.
    """
    ahead = 2 * threads + 1
    workers = [_Worker(make) for _ in range(threads)]
    try:
        for step in range(start, min(start + ahead, stop)):
            workers[step % threads].steps.put(step)
        for step in range(start, stop):
            ready, error = workers[step % threads].results.get()
            if error is not None:
                raise error
            if step + ahead < stop:
                workers[(step + ahead) % threads].steps.put(step + ahead)
            yield step, ready
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Generic[ItemT]):
    """A thread that calls `make` for one step after another. Its queues hand over in a tenth of a future's time."""

    def __init__(self, make: Callable[[int], ItemT]) -> None:
        self.steps: SimpleQueue[int | None] = SimpleQueue()
        self.results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._make = make
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="ufe-loader", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (step := self.steps.get()) is not None and not self._stopping:
            try:
                self.results.put((self._make(step), None))
            except BaseException as error:  # it is raised where the batch is awaited
                self.results.put((None, error))

    def stop(self) -> None:
        """End the thread after the step under way."""
        self._stopping = True
        self.steps.put(None)
        self._thread.join()


def loading_threads() -> int:
    """A quarter of the cores, 1 to 4: the others compute."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, max(1, cores // 4))
