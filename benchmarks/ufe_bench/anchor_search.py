"""Which anchor expressions help most: Algorithm 1 of P§4, on people held out of the training ones."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from ufe_bench.aggregate import Summary, summarise
from ufe_bench.failure import is_the_methods
from ufe_bench.validation import Candidate, validate
from ufe_core.errors import ConfigError, MethodError, UfeError, cause_of
from ufe_core.store import write_atomic

Anchors = tuple[str, ...]
#: Errors of some sets, each as it becomes known; infinite where the method failed with one.
Errors = Callable[[Sequence[Anchors]], Iterator[tuple[Anchors, float]]]
METRIC = "photometric_l1"
_SPAWN = get_context("spawn")
_stop: Event | None = None  # of a worker: set when its search has been stopped


@dataclass(frozen=True)
class Level:
    """One round of the search: how many sets were measured, and the beam after it, best first."""

    number: int
    measured: int
    beam: tuple[tuple[float, Anchors], ...]


@dataclass(frozen=True)
class Search:
    """A finished search: every set that was tried, best first and those that failed last, and why it ended."""

    results: tuple[tuple[float, Anchors], ...]
    levels: tuple[Level, ...]
    ended: str

    @property
    def best(self) -> Anchors:
        """The set of least error of those that have anchors."""
        return next(anchors for _, anchors in self.results if anchors)

    def curve(self) -> list[tuple[int, float, Anchors]]:
        """For each number of anchors the best set of that many."""
        best: dict[int, tuple[float, Anchors]] = {}
        for error, anchors in self.results:
            if math.isfinite(error):
                best.setdefault(len(anchors), (error, anchors))
        return [(count, *best[count]) for count in sorted(best)]


def search(
    candidates: Sequence[str], errors: Errors, *, beam: int = 3, most: int = 6,
    on_level: Callable[[Level], None] | None = None,
) -> Search:  # fmt: skip
    """Grow sets one anchor at a time, keeping the `beam` best of all sets measured so far (Algorithm 1).

    It ends when a set of `most` anchors is in the beam, or when no larger set enters it. Sets are written, and trained
    with, in the candidates' order, whichever anchor was added last: so each is measured once. The empty set is measured
    too, for the curve, and is never in the beam once there are others. Nor is a set of infinite error, one that failed.

    Args:
        candidates: anchors to choose among.
        errors: measures sets.
        beam: sets that are grown, k.
        most: anchors of the largest set, n_max.
        on_level: told of each round.

    Raises:
        ConfigError: there is nothing to search.
        MethodError: every set of one anchor failed.
    """
    if not candidates or beam < 1 or most < 1:
        raise ConfigError("An anchor search needs candidates, a beam of 1 or more and at least 1 anchor.")
    most = min(most, len(candidates))
    order = {name: k for k, name in enumerate(candidates)}
    known: dict[frozenset[str], tuple[float, Anchors]] = {}
    levels: list[Level] = []
    held: list[tuple[float, Anchors]] = [(float("inf"), ())]
    ended = ""
    while not ended:
        wanted: dict[frozenset[str], Anchors] = {} if levels else {frozenset(): ()}
        for _, anchors in held:
            for name in candidates:
                grown = frozenset((*anchors, name))
                if name not in anchors and grown not in known:
                    wanted[grown] = tuple(sorted(grown, key=order.__getitem__))
        for anchors, error in errors(list(wanted.values())):
            known[frozenset(anchors)] = (error, anchors)
        # Equal errors: smaller sets first, then in the candidates' order, so that no run depends on timing.
        ranked = sorted(known.values(), key=lambda one: (one[0], len(one[1]), sorted(order[n] for n in one[1])))
        kept = [one for one in ranked if one[1] and math.isfinite(one[0])][:beam]
        if not kept:
            raise MethodError(f"Nothing can be grown: the method failed with each of the {len(candidates)} anchors.")
        levels.append(Level(len(levels) + 1, len(wanted), tuple(kept)))
        if on_level is not None:
            on_level(levels[-1])
        if any(len(anchors) >= most for _, anchors in kept):
            ended = f"a set of {most} anchors is among the best"
        elif kept == held:
            ended = "no larger set is better"
        held = kept
    return Search(tuple(ranked), tuple(levels), ended)


@dataclass
class Measured:
    """Photometric error of each validation person with a set, and the weights it was measured with."""

    anchors: Anchors
    subjects: dict[str, float]
    weights: str
    summary: Summary = field(init=False)

    def __post_init__(self) -> None:
        self.summary = summarise(self.subjects)


@dataclass(frozen=True)
class Failed:
    """A set with which the method failed, and the cause, one line."""

    anchors: Anchors
    cause: str


def measure(candidate: Candidate, anchors: Anchors, listener: Any = None) -> Measured:
    """Train an encoder with a set and measure it on the validation people; from the store if it was done before."""
    found = validate(candidate, anchors, listener)
    return Measured(anchors, dict(found.values[METRIC]), found.weights)


class Workers:
    """Measures sets in several processes at a time, each with its share of the cores.

    Args:
        candidate: what measuring takes.
        count: processes.
        on_done: told of each set that is measured, or with which the method failed.
        on_wait: called after Ctrl-C, or with the error that ends the search, before what is under way is kept; Ctrl-C
            stops that at once.

    `measured` and `failed` hold what became of each set.
    """

    def __init__(
        self, candidate: Candidate, count: int, on_done: Callable[[Measured | Failed], None] | None = None,
        on_wait: Callable[[BaseException], None] | None = None,
    ) -> None:  # fmt: skip
        self.candidate, self.count = candidate, count
        self.measured, self.failed = dict[frozenset[str], Measured](), dict[frozenset[str], Failed]()
        self._on_done = on_done or (lambda done: None)
        self._on_wait = on_wait or (lambda error: None)
        self._stack = ExitStack()
        self._stop = _SPAWN.Event()

    def __enter__(self) -> Workers:
        threads = max(1, (os.cpu_count() or 1) // self.count)
        self._pool = self._stack.enter_context(
            ProcessPoolExecutor(self.count, mp_context=_SPAWN, initializer=_begin, initargs=(threads, self._stop))
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *trace: Any) -> None:
        try:
            if error is not None:
                self._stop.set()
                self._on_wait(error)
            self._pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for process in active_children():
                process.kill()  # checkpoints stay
            raise
        finally:
            self._stack.close()

    def errors(self, sets: Sequence[Anchors]) -> Iterator[tuple[Anchors, float]]:
        """Mean errors over people, in the order in which sets get done; infinite where the method failed.

        Raises:
            UfeError: what the user or the machine got wrong.
        """
        futures: dict[Future[Measured | Failed], Anchors] = {
            self._pool.submit(_measured, self.candidate, anchors): anchors for anchors in sets
        }
        for future in as_completed(futures):
            try:
                found = future.result()
            except BrokenProcessPool as error:
                raise UfeError(
                    "A process of the search was killed, most likely for want of memory: use fewer --workers. What was "
                    "measured is kept."
                ) from error
            if isinstance(found, Failed):
                self.failed[frozenset(found.anchors)] = found
            else:
                self.measured[frozenset(found.anchors)] = found
            self._on_done(found)
            yield futures[future], math.inf if isinstance(found, Failed) else found.summary.mean


def _measured(candidate: Candidate, anchors: Anchors) -> Measured | Failed:
    """What a worker does; nothing more once the search has been stopped.

    A method's failure is told in words: what a plugin raises may not survive the way to another process.
    """
    if _stop is not None and _stop.is_set():
        raise UfeError("The search was stopped.")
    try:
        return measure(candidate, anchors)
    except (Exception, SystemExit) as error:
        if not is_the_methods(error):
            raise
        return Failed(anchors, cause_of(error))


def _begin(threads: int, stop: Event) -> None:
    """A worker's first act. Ctrl-C is the parent's to handle, but for trainings, which stop at a checkpoint."""
    global _stop  # a worker is a process of its own
    _stop = stop
    import signal

    import torch

    from ufe_core.memory import ask_for_large_pages

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ask_for_large_pages()
    if "OMP_NUM_THREADS" not in os.environ:  # what the user asked for stands
        torch.set_num_threads(threads)


def as_json(
    found: Search, measured: Mapping[frozenset[str], Measured], candidate: Candidate,
    failed: Mapping[frozenset[str], Failed] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A file that `--anchors` takes, with the curve of error against the number of anchors and every set.

    A set with which the method failed has no error, null, and the cause of that as `failure`.
    """

    def entry(error: float, anchors: Anchors) -> dict[str, Any]:
        one = measured.get(frozenset(anchors))
        lost = (failed or {}).get(frozenset(anchors))
        if lost is not None:
            return {"anchors": list(anchors), "error": None, "ci95": None, "failure": lost.cause}
        interval = list(one.summary.ci95) if one is not None else None
        return {"anchors": list(anchors), "error": error, "ci95": interval}

    return {
        "anchors": list(found.best), "metric": METRIC, "ended": found.ended,
        "curve": [{"count": count, **entry(error, anchors)} for count, error, anchors in found.curve()],
        "levels": [
            {"level": level.number, "measured": level.measured, "beam": [entry(*one) for one in level.beam]}
            for level in found.levels
        ],
        "sets": [entry(*one) for one in found.results],
        "how": {
            **{name: value for name, value in candidate.names.items() if value is not None},
            "overrides": {kind: dict(fields) for kind, fields in candidate.overrides.items()},
            "validation_people": candidate.validation, "frames": candidate.frames,
            "render_size": candidate.render_size,
        },
    }  # fmt: skip


def draw(found: Search, measured: Mapping[frozenset[str], Measured], path: Path) -> None:
    """A PNG: every set as a dot, and the curve of the best ones with intervals."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.4), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    dots = [(len(anchors), error) for error, anchors in found.results if math.isfinite(error)]
    axes.plot([x for x, _ in dots], [y for _, y in dots], "o", color="#b0b0b0", markersize=3,
              label="every set measured")  # fmt: skip
    curve = found.curve()
    low, high = [], []
    for _, error, anchors in curve:
        one = measured.get(frozenset(anchors))
        interval = one.summary.ci95 if one is not None else (error, error)
        low.append(error - interval[0])
        high.append(interval[1] - error)
    counts = [count for count, _, _ in curve]
    axes.errorbar(counts, [error for _, error, _ in curve], yerr=[low, high], color="#0072b2", marker="o",
                  markersize=5, capsize=2.5, label="best, 95 % over people")  # fmt: skip
    axes.set_xticks(counts)
    axes.set_xlabel("anchors")
    axes.set_ylabel("photometric L1, validation")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_atomic(path, data.getvalue())
