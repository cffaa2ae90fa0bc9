"""A result made again from itself, and how far what is measured now is from what it says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from ufe_bench.bench_cli import TOLERANCE, bench
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.resolve import floor_request
from ufe_bench.schema import Result, RunKey, best_trial
from ufe_bench.study_rows import request_of, that_fit
from ufe_bench.suite import load_suite
from ufe_core.anchor_sets import anchors_of
from ufe_core.config import parse_overrides
from ufe_core.errors import ArtifactError, DataError
from ufe_core.plugins import Catalogue
from ufe_core.recipe import OWNERS
from ufe_core.weights import sha256_file

_EVERYBODY, _METHOD = "everybody", "the method"  # what numbers are of that are no person's
_LEAST = 1e-4  # of a metric's unit: below it nothing is told apart
UNTOLD = ("data.anchors", "data.render_size")  # what older files do not tell


@dataclass(frozen=True)
class Disagreement:
    """A person's number, or everybody's or the method's, that came out otherwise; None where one side has none."""

    subject: str
    metric: str
    recorded: float | None
    measured: float | None


@dataclass(frozen=True)
class Comparison:
    """A result beside what was measured now.

    `compared` numbers were compared; `largest` is the largest relative difference among them; `missing` are people who
    could be measured then and cannot now, with the cause; `changed` are choices of the key that are others now, and
    `foreign` those of them that no newer code and no other machine explains.
    """

    compared: int
    largest: float
    disagreements: tuple[Disagreement, ...]
    missing: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether every number came out again, and there is none besides, of what the file says was measured."""
        return self.compared > 0 and not (self.disagreements or self.missing or self.foreign)


def request_from(result: Result, catalogue: Catalogue) -> Request:
    """What a result's command asks for.

    Raises:
        DataError: its command is none of ufe's, or its suite is of another version now.
    """
    foreign = DataError(f"Result {result.run_id} was not made by a 'ufe bench' of this ufe but by {result.command!r}.")
    try:
        words = shlex.split(result.command)
        asked: dict[str, Any] = bench.make_context("bench", words[2:], resilient_parsing="--help" in words).params
    except (ValueError, click.ClickException, click.exceptions.Exit) as error:
        raise foreign from error
    if words[:2] != ["ufe", "bench"] or "--help" in words:
        raise foreign
    suite = load_suite(asked["suite"])
    if suite.id != result.key.suite:
        commit = result.environment.commit
        theirs = f" That of commit {commit[:7]} measures it again." if commit else ""
        raise DataError(f"Result {result.run_id} is of suite '{result.key.suite}'; this ufe has '{suite.id}'.{theirs}")
    overrides = parse_overrides(asked["assignments"], owners=OWNERS)
    common = {name: asked[name] for name in ("decoder", "source", "budget")}
    if not suite.rows:
        kept = {
            name: asked[name] for name in ("encoder", "calibrator", "detector", "pretraining", "enrolment", "train")
        }
        return Request(
            suite=suite, anchors=anchors_of(asked["anchors"]), overrides=overrides or None, **common, **kept
        )  # fmt: skip
    name = asked["rows"][0] if len(asked["rows"]) == 1 else ""
    if name not in (*suite.floors, *(row.name for row in suite.rows)):
        raise foreign
    if name in suite.floors:
        return floor_request(request_of(suite, suite.rows[0], overrides, **common), name)
    row = suite.row(name)
    request = request_of(suite, row, that_fit(catalogue, row, suite, overrides), **common)
    if not result.trials:
        return request
    return replace(request, tuned=best_trial(result.trials).training, trials=result.trials)


def rerun(
    result: Result, harness: Harness, *, people: Sequence[str] | None = None, tolerance: float = TOLERANCE,
    weights: Path | None = None,
) -> Comparison:  # fmt: skip
    """Measure what a result says was measured, all of its people or some, and compare number by number.

    Weights come from the file `weights`, which must be the very one; without it, those that are not released are taken
    from the store where this machine trained them, else trained now.

    Raises:
        ArtifactError: `weights` is not the file that the result was measured with.
        UfeError: the request cannot be made again here; says why.
    """
    if weights is not None and sha256_file(weights) != result.key.weights.sha256:
        raise ArtifactError(
            f"'{weights}' is not what result {result.run_id} was measured with: its SHA-256 must begin with "
            f"{(result.key.weights.sha256 or 'nothing, as there are no weights')[:12]}."
        )
    again = harness.again(request_from(result, harness.catalogue), people, weights_file=weights)
    said = {subject.id: _numbers(subject.metrics, subject.slices) for subject in result.subjects}
    now = {subject.id: _numbers(subject.metrics, subject.slices) for subject in again.evaluation.subjects}
    failed = {one.subject for one in again.evaluation.missing}
    everybody = people is None or said.keys() <= set(people)
    if people is not None:
        said = {name: numbers for name, numbers in said.items() if name in people}
    if everybody and result.segments:
        said[_EVERYBODY], now[_EVERYBODY] = _numbers({}, result.segments), _numbers({}, again.evaluation.segments)
    if result.cost.parameters is not None:
        said[_METHOD], now[_METHOD] = ({"parameters": float(n)} for n in (result.cost.parameters, again.parameters))
    compared, largest, found = 0, 0.0, []
    for who in sorted((said.keys() | now.keys()) - failed):
        then, anew = said.get(who, {}), now.get(who, {})
        for name in sorted(then.keys() | anew.keys()):
            one, other = then.get(name), anew.get(name)
            if one is None or other is None:
                found.append(Disagreement(who, name, one, other))
                continue
            compared += 1
            apart = abs(other - one)
            largest = max(largest, apart / max(abs(one), _LEAST))
            if apart > (0 if who == _METHOD else max(tolerance * abs(one), _LEAST)):
                found.append(Disagreement(who, name, one, other))
    before = {one.subject for one in result.missing}
    missing = tuple((one.subject, one.reason) for one in again.evaluation.missing if one.subject not in before)
    changed = changed_choices(result.key, again.key)
    foreign = tuple(place for place in changed if not _explained(place, result.key))
    return Comparison(compared, largest, tuple(found), missing, changed, foreign)


def _explained(place: str, key: RunKey) -> bool:
    """Whether a choice may be another one though the same was measured.

    Code and versions of it may be newer; weights that are trained anew may round otherwise; an older file does not tell
    of options that came later.
    """
    if place.rpartition(".")[2] in ("code_sha256", "version") and ".config." not in place:
        return True
    if place in ("data.fingerprint", "data.version", "weights.command"):
        return True
    if place == "weights.sha256":
        return key.weights.origin != "released"
    return is_younger(place, key)


def is_younger(place: str, key: RunKey) -> bool:
    """Whether a choice came later than a file, which does not tell of it."""
    return (".config." in place or place in UNTOLD) and value_at(key.model_dump(mode="json"), place) is None


def value_at(parts: Any, place: str) -> Any:
    """What a key has at a place, such as `components.encoder.config.width`; None where it has nothing."""
    for name in place.split("."):
        if isinstance(parts, list):
            parts = parts[int(name)] if int(name) < len(parts) else None
        else:
            parts = parts.get(name) if isinstance(parts, Mapping) else None
    return parts


def _numbers(metrics: Mapping[str, float], parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Numbers by name, those of parts with the part in parentheses."""
    return dict(metrics) | {f"{name} ({part})": v for part, values in parts.items() for name, v in values.items()}


def changed_choices(recorded: RunKey, now: RunKey) -> tuple[str, ...]:
    """Choices that are others now, by their place in the key."""
    return tuple(sorted(_differences(recorded.model_dump(mode="json"), now.model_dump(mode="json"), "")))


def _differences(one: Any, other: Any, place: str) -> list[str]:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = (dict(zip(map(str, range(len(part))), part, strict=True)) for part in (one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = sorted(one.keys() | other.keys())
        return [
            line for name in names
            for line in _differences(one.get(name), other.get(name), f"{place}.{name}" if place else name)
        ]  # fmt: skip
    return [] if one == other else [place]
