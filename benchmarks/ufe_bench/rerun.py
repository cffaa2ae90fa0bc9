"""A result made again from itself, and how far what is measured now is from what it says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ufe_bench.harness import Harness, Request
from ufe_bench.schema import Result, RunKey
from ufe_bench.study import request_of, that_fit
from ufe_bench.suite import load_suite
from ufe_core.anchor_sets import anchors_of
from ufe_core.config import parse_overrides
from ufe_core.errors import DataError
from ufe_core.plugins import Catalogue
from ufe_core.recipe import OWNERS

#: Of a number: what another machine's rounding may change, in weights that were not trained anew.
TOLERANCE = 2e-3
_LEAST = 1e-4  # of a metric's unit: below it nothing is told apart


@dataclass(frozen=True)
class Disagreement:
    """A person's number that came out otherwise."""

    subject: str
    metric: str
    recorded: float
    measured: float


@dataclass(frozen=True)
class Comparison:
    """A result beside what was measured now.

    `compared` numbers were compared; `largest` is the largest relative difference among them; `missing` are people who
    could not be measured, with the cause; `changed` are choices of the key that are others now.
    """

    compared: int
    largest: float
    disagreements: tuple[Disagreement, ...]
    missing: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether every number came out again."""
        return self.compared > 0 and not self.disagreements and not self.missing


def request_from(result: Result, catalogue: Catalogue) -> Request:
    """What a result's command asks for.

    Raises:
        DataError: its command is none of ufe's, or its suite is of another version now.
    """
    from ufe_bench.bench_cli import bench

    words = shlex.split(result.command)
    if words[:2] != ["ufe", "bench"]:
        raise DataError(f"Result {result.run_id} was not made by 'ufe bench' but by {result.command!r}.")
    asked: dict[str, Any] = bench.make_context("bench", words[2:]).params
    suite = load_suite(asked["suite"])
    if suite.id != result.key.suite:
        raise DataError(f"Result {result.run_id} is of suite '{result.key.suite}'; this ufe has '{suite.id}'.")
    overrides = parse_overrides(asked["assignments"], owners=OWNERS)
    common = {name: asked[name] for name in ("decoder", "source", "budget")}
    if not suite.rows:
        kept = {
            name: asked[name] for name in ("encoder", "calibrator", "detector", "pretraining", "enrolment", "train")
        }
        return Request(
            suite=suite, anchors=anchors_of(asked["anchors"]), overrides=overrides or None, **common, **kept
        )  # fmt: skip
    (name,) = asked["rows"]
    if name in suite.floors:
        return Request(suite=suite, encoder=name, overrides=overrides or None, **common)
    row = suite.row(name)
    request = request_of(suite, row, that_fit(catalogue, row, suite, overrides), **common)
    if not result.trials:
        return request
    best = min(result.trials, key=lambda trial: trial.score)
    return replace(request, tuned=best.training, trials=result.trials)


def rerun(
    result: Result, harness: Harness, *, people: Sequence[str] | None = None, tolerance: float = TOLERANCE
) -> Comparison:
    """Measure what a result says was measured, all of its people or some, and compare number by number.

    Weights that are not released are taken from the store where this machine trained them, else trained now.

    Raises:
        UfeError: the request cannot be made again here; says why.
    """
    key, evaluation = harness.again(request_from(result, harness.catalogue), people)
    recorded = {subject.id: subject for subject in result.subjects}
    compared, largest, found = 0, 0.0, []
    for subject in evaluation.subjects:
        said = recorded.get(subject.id)
        if said is None:
            continue
        for where, now in (("", subject.metrics), *subject.slices.items()):
            then = said.metrics if not where else said.slices.get(where, {})
            for name in sorted(now.keys() & then.keys()):
                compared += 1
                apart = abs(now[name] - then[name])
                largest = max(largest, apart / max(abs(then[name]), _LEAST))
                if apart > max(tolerance * abs(then[name]), _LEAST):
                    shown = f"{name} ({where})" if where else name
                    found.append(Disagreement(subject.id, shown, then[name], now[name]))
    missing = tuple((one.subject, one.reason) for one in evaluation.missing)
    return Comparison(compared, largest, tuple(found), missing, changed_choices(result.key, key))


def changed_choices(recorded: RunKey, now: RunKey) -> tuple[str, ...]:
    """Choices that are others now, by their place in the key."""
    return tuple(sorted(_differences(recorded.model_dump(mode="json"), now.model_dump(mode="json"), "")))


def _differences(one: Any, other: Any, place: str) -> list[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = sorted(one.keys() | other.keys())
        return [
            line for name in names
            for line in _differences(one.get(name), other.get(name), f"{place}.{name}" if place else name)
        ]  # fmt: skip
    return [] if one == other else [place]
