"""Rows of a study in processes of their own, several at a time; the study then takes their results from the files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ufe_bench.suite import SuiteRow

_UFE = "import sys; from ufe_core.cli.main import main; main(sys.argv[1:])"


class RowWorkers:
    """Runs rows `count` at a time; each is `ufe bench` for that row alone, with its share of the cores.

    A row that shares the search of another one begins when that has ended. What goes wrong in a process is told as it
    is there, and the others go on: the study, which runs after them, tries that row again.

    Args:
        words: of `ufe bench`, but for the row: the suite and whatever was asked.
        count: processes at a time.
        say: told each line that a process writes, after the name of its row.
        floors: whether the first of them measures the suite's floors, for all.
        command: of one process, given its words; `ufe` by default.
    """

    def __init__(
        self, words: Sequence[str], count: int, say: Callable[[str], None], *, floors: bool = True,
        command: Callable[[Sequence[str]], Sequence[str]] = lambda words: [sys.executable, "-c", _UFE, *words],
    ) -> None:  # fmt: skip
        self.words, self.count, self.floors = words, count, floors
        self._say, self._command = say, command
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def __call__(self, rows: Sequence[SuiteRow]) -> None:
        """Run rows, and come back when all have ended, well or not.

        Raises:
            KeyboardInterrupt: the user stopped it; processes have kept what they had, or died at a second Ctrl-C.
        """
        waiting, under_way = list(rows), dict[Future[None], SuiteRow]()
        begun = time.monotonic()
        with ThreadPoolExecutor(self.count) as pool:
            try:
                while waiting or under_way:
                    held = {row.name for row in (*waiting, *under_way.values())}
                    ready = [row for row in waiting if row.tuned_as is None or row.tuned_as not in held]
                    for row in ready[: self.count - len(under_way)]:
                        waiting.remove(row)
                        floors = self.floors and len(rows) == len(waiting) + 1
                        under_way[pool.submit(self._run, row, floors)] = row
                    for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                        del under_way[done]
                        done.result()
                    ended = len(rows) - len(waiting) - len(under_way)
                    minutes = round((time.monotonic() - begun) / 60)
                    self._say(f"{ended} of {len(rows)} rows have ended after {minutes} min")
            except KeyboardInterrupt:
                self._stop(signal.SIGINT)
                try:
                    self._say("stopping after the steps under way; Ctrl-C again stops at once")
                    wait(under_way)
                except KeyboardInterrupt:
                    self._stop(signal.SIGKILL)
                raise

    def _run(self, row: SuiteRow, floors: bool) -> None:
        if self._stopped:
            return
        words = ["bench", *self.words, "--row", row.name, "--floors" if floors else "--no-floors"]
        threads = str(max(1, (os.cpu_count() or 1) // self.count))
        process = subprocess.Popen(
            self._command(words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            env={"OMP_NUM_THREADS": threads, **os.environ},
            start_new_session=True,  # Ctrl-C comes from here, once
        )  # fmt: skip
        self._running.add(process)
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                if line.strip():
                    self._say(f"{row.name}: {line.rstrip()}")
        if process.wait() < 0 and not self._stopped:
            self._say(
                f"{row.name}: its process was killed, most likely for want of memory. It is tried again by itself, "
                "after the others; use fewer --workers."
            )
        self._running.discard(process)

    def _stop(self, how: signal.Signals) -> None:
        self._stopped = True
        for process in list(self._running):
            process.send_signal(how)
