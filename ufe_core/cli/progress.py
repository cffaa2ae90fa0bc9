"""Shows the progress of long work: bars on a terminal, an occasional plain line in a pipe or a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)  # fmt: skip
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from ufe_core.training.progress import Progress

_TITLES = {"data": "captures", "domes": "domes", "labels": "labels", "pretrain": "pre-training", "train": "training"}
#: Terms in the order in which they are shown, before all others.
_LOSSES = {"total": "loss", "photometric": "photo", "geometry": "geo", "gaze": "gaze", "adversarial": "adv",
           "texture": "tex", "reconstruction": "recon"}  # fmt: skip


class TrainingDisplay:
    """Gives a listener that shows each stage of a run: how far it is, how fast, how long yet, and the losses.

    Example:
        with TrainingDisplay() as listener:
            trained(recipe, subjects, store=store, device=device, listener=listener)

    Args:
        stream: where to write; standard error, so that standard output stays free for `--json`.
        every_s: seconds between plain lines where `stream` is no terminal.
        titles: names of stages, by `Progress.stage`; a stage without one is shown as it is.
    """

    def __init__(
        self, *, stream: TextIO | None = None, every_s: float = 15.0, titles: Mapping[str, str] | None = None
    ) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._titles = {**_TITLES, **(titles or {})}
        self._every_s = every_s
        self._lock = threading.Lock()  # captures are rendered by several threads
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._plain: dict[str, _PlainStage] = {}
        self._ended: set[str] = set()

    def __enter__(self) -> Callable[[Progress], None]:
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description:>10}"), BarColumn(20, table_column=Column(no_wrap=True)),
                MofNCompleteColumn(table_column=Column(no_wrap=True)), _RateColumn(Column(no_wrap=True)),
                TextColumn("eta"), TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[losses]}", table_column=Column(overflow="ellipsis", max_width=45)),
                console=self._console, speed_estimate_period=60,
            )  # fmt: skip
            self._bars.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _show(self, progress: Progress) -> None:
        with self._lock:
            if progress.stage in self._ended and progress.done < progress.total:  # another one of the same name
                self._tasks.pop(progress.stage, None)
                self._plain.pop(progress.stage, None)
                self._ended.remove(progress.stage)
            if self._bars is not None:
                self._show_bar(self._bars, progress)
            else:
                self._show_line(progress)
            if progress.done >= progress.total:
                self._ended.add(progress.stage)

    def _show_bar(self, bars: Bars, progress: Progress) -> None:
        losses = _losses_text(progress.losses)
        if progress.stage not in self._tasks:
            title, start = self._titles.get(progress.stage, progress.stage), progress.resumed_at
            self._tasks[progress.stage] = bars.add_task(title, total=progress.total, completed=start, losses=losses)
        bars.update(self._tasks[progress.stage], completed=progress.done, total=progress.total, losses=losses)

    def _show_line(self, progress: Progress) -> None:
        now = time.monotonic()
        stage = self._plain.setdefault(progress.stage, _PlainStage(now, now, progress.resumed_at))
        if now - stage.shown < self._every_s and progress.done < progress.total:
            return
        stage.shown = now
        rate = (progress.done - stage.start) / max(now - stage.started, 1e-3)
        text = f"{self._titles.get(progress.stage, progress.stage)}: {progress.done}/{progress.total}"
        if progress.done < progress.total:
            text += f", {rate:.1f}/s, eta {_clock((progress.total - progress.done) / max(rate, 1e-6))}"
        losses = _losses_text(progress.losses)
        self._console.print(f"{text}, {losses}" if losses else text, markup=False, soft_wrap=True)


class _PlainStage:
    """When a stage began and was last shown, and at which step it began."""

    def __init__(self, started: float, shown: float, start: int) -> None:
        self.started, self.shown, self.start = started, shown, start


class _RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


def _losses_text(losses: Mapping[str, float]) -> str:
    order = [*(name for name in _LOSSES if name in losses), *(name for name in losses if name not in _LOSSES)]
    return "  ".join(f"{_LOSSES.get(name, name)} {losses[name]:.3g}" for name in order)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
