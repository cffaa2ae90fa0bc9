"""The latency of the rows of a study, measured together at its end: what was timed at other times does not compare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ufe_bench.evaluate import device_name, instant, time_in_turn
from ufe_bench.failure import is_the_methods
from ufe_bench.harness import Harness, now
from ufe_bench.request import Request
from ufe_bench.schema import Cost, Result, write_result
from ufe_bench.study import Study
from ufe_core.errors import cause_of
from ufe_core.training.progress import Progress


@dataclass(frozen=True)
class _Timed:
    """A result, and the calls of which its latencies are made."""

    result: Result
    encode: Callable[[], object]
    detect: Callable[[], object] | None


def timed_together(harness: Harness, study: Study) -> Study:
    """The study with latencies that compare: all of its rows timed in turn, and their result files written anew.

    Nothing is timed where the results say that they all were, in one pass; it is due again once a row has been measured
    since, or timed with other rows. A row without a latency has none to time, and one that fails keeps what it has.

    Raises:
        UfeError: what the user or the machine got wrong.
    """
    asked = _asked(study)
    passes = {result.cost.timed_in for result, _ in asked}
    if len(asked) < 2 or (len(passes) == 1 and None not in passes):
        return study
    harness.note("Timing all rows in turn, so that their latencies compare.")
    found = []
    for number, (result, request) in enumerate(asked):
        harness.tell(Progress("timing", number, len(asked), {}))
        try:
            found.append(_calls(harness, result, request))
        except (Exception, SystemExit) as error:  # whatever a plugin does
            if not is_the_methods(error):
                raise
            logging.getLogger("ufe").debug("%r is not timed", request.method, exc_info=True)
            harness.note(f"{request.method} is not timed beside the others: {cause_of(error)}")
    costs = _costs(harness, found)
    made = {
        one.result.run_id: one.result.model_copy(update={"cost": cost}) for one, cost in zip(found, costs, strict=True)
    }
    for result in made.values():
        write_result(result, harness.results)
    cells = [
        replace(cell, result=made.get(cell.result.run_id, cell.result)) if cell.result is not None else cell
        for cell in study.cells
    ]
    return replace(study, cells=tuple(cells))


def _asked(study: Study) -> list[tuple[Result, Request]]:
    """The rows that have a latency, once each, and the requests that measure them."""
    once = {
        cell.result.run_id: (cell.result, cell.request) for cell in study.cells
        if cell.result is not None and cell.request is not None and cell.result.cost.encode_ms is not None
    }  # fmt: skip
    return list(once.values())


def _calls(harness: Harness, result: Result, request: Request) -> _Timed:
    ready = harness.ready(request)
    measured = {subject.id for subject in result.subjects}
    capture = next(capture for capture in ready.material.captures if capture.subject in measured)
    chosen = ready.detector
    finder: Any = chosen.spec.load()(chosen.config).to(harness.device) if chosen is not None else None
    with harness.its_failures(request, "timing rows in turn"):
        encode, detect = instant(ready.encoder, capture, harness.device, finder)
        for call in (encode, detect):
            if call is not None:
                call()  # a failure is its own, and not of all
    return _Timed(result, encode, detect)


def _costs(harness: Harness, rows: Sequence[_Timed]) -> list[Cost]:
    """What each row costs by a pass of all."""
    calls = [call for row in rows for call in (row.encode, row.detect) if call is not None]
    times = iter(time_in_turn(calls, harness.device))
    where = {"timed_in": now(), "device": device_name(harness.device), "threads": torch.get_num_threads()}
    return [
        row.result.cost.model_copy(
            update={"encode_ms": next(times), "detect_ms": next(times) if row.detect is not None else None, **where}
        )
        for row in rows
    ]
