"""What a maintainer would look at before a result goes onto the leaderboard: `ufe leaderboard submit`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufe_bench.board import FLOORS
from ufe_bench.evaluate import PROTOCOL
from ufe_bench.harness import Description, Harness
from ufe_bench.rerun import UNTOLD, changed_choices, is_younger, request_from, rerun, value_at
from ufe_bench.schema import Result, best_trial, incomplete_reason
from ufe_bench.suite import Suite, load_suite
from ufe_core.budgets import TrainingConfig, budget_defaults
from ufe_core.errors import ArtifactError, UfeError
from ufe_core.recipe import subjects_digest
from ufe_core.registry import Split, load_registry
from ufe_core.store import canonical_json

#: Of the floor `neutral` (the resting face for every frame): what is below has seen the answers.
_TOO_GOOD = 0.02
#: What a component may have changed of, from one release to the next, without its results being another's.
_OF_RELEASES = ("code_sha256", "version")


@dataclass(frozen=True)
class Objection:
    """Why a result cannot go onto the leaderboard, and what to do."""

    rule: str
    line: str


def objections(
    result: Result,
    harness: Harness,
    *,
    floor: Result | None = None,
    verify: int = 0,
    seed: int | None = None,
    weights: Path | None = None,
) -> Iterator[Objection]:
    """Everything that is wrong with a result, one after another; nothing is rendered or trained but to verify.

    Args:
        result: as its file says; that it does not contradict itself was checked when it was read.
        harness: of this installation.
        floor: the result of `neutral` on the same suite and data.
        verify: measure so many people again, from the weights.
        seed: which people these are; nobody knows beforehand if left out.
        weights: the file to measure with; see `rerun`.
    """
    found = False
    for objection in _without_measuring(result, harness, floor):
        found = True
        yield objection
    if verify and not found:
        yield from _measured_again(result, harness, verify, random.Random(seed), weights)


def _without_measuring(result: Result, harness: Harness, floor: Result | None) -> Iterator[Objection]:
    key = result.key
    try:
        suite = load_suite(key.suite.partition("@")[0])
    except UfeError as error:
        yield Objection("suite", str(error))
        return
    if suite.id != key.suite:
        yield Objection("suite", f"It is of '{key.suite}'; this ufe has '{suite.id}'. Measure again: {result.command}")
        return
    try:
        expected = harness.described(request_from(result, harness.catalogue))
    except UfeError as error:
        yield Objection("command", f"What its command asks for cannot be told here: {error}")
        return
    yield from _people(result, suite, expected.people)
    yield from _key(result, expected)
    yield from _training(result, expected, expected.people, suite)
    yield from _numbers(result, expected, floor)


def _people(result: Result, suite: Suite, split: Split) -> Iterator[Objection]:
    """All of the suite's people, each with all frames, and nobody else."""
    people, there = set(split.part(suite.part)), {subject.id for subject in result.subjects}
    reason = incomplete_reason(result)
    if reason is not None:
        yield Objection("people", f"It is not complete: {reason}. Mend the method and measure again.")
    elif there < people:
        yield Objection("people", f"It has {len(there)} of {len(people)} people.")
    if there - people:
        strangers = ", ".join(sorted(there - people))
        yield Objection("people", f"{strangers} are not in split '{suite.split}.{suite.part}'.")
    fewer = [subject.id for subject in result.subjects if subject.frames != suite.frames]
    if fewer:
        yield Objection("people", f"{', '.join(fewer)} have other than {suite.frames} frames.")


def _key(result: Result, expected: Description) -> Iterator[Objection]:
    """What it says of itself is what its command asks for, but for versions: of the code, and of what is released."""
    key = result.key
    if expected.data.edition != key.data.edition:
        yield Objection("data", "It was measured on captures of another version of the source: measure again with this "
                        f"ufe: {result.command}")  # fmt: skip
    if key.protocol != PROTOCOL:
        yield Objection("key", f"It was measured by protocol {key.protocol}, and this ufe measures by {PROTOCOL}: "
                        f"measure again: {result.command}")  # fmt: skip
    names = [place.removeprefix("data.") for place in UNTOLD]
    untold = {name: None for name in names if getattr(key.data, name) is None}
    now = key.model_copy(update={
        "split": expected.split, "seed": expected.seed,
        "components": expected.components, "data": expected.data.model_copy(update=untold),
    })  # fmt: skip
    before = {sha256 for weights in load_registry().weights for sha256 in weights.superseded}
    for place in changed_choices(key, now):
        of_release = place.rpartition(".")[2] in _OF_RELEASES and ".config." not in place
        of_release |= is_younger(place, key)
        of_release |= place.endswith(".config.weights") and value_at(key.model_dump(mode="json"), place) in before
        if not of_release and place not in ("data.fingerprint", "data.version"):
            yield Objection("key", f"{place} is not what its command asks for: {result.command}")
    if {name: info.model_dump() for name, info in result.metrics.items()} != {
        name: info.model_dump() for name, info in expected.metrics.items()
    }:
        yield Objection("key", f"Its metrics are not those of the suite: {', '.join(expected.metrics)}.")
    if result.hypothetical != expected.hypothetical:
        yield Objection("key", f"'hypothetical' must be {str(expected.hypothetical).lower()} for this method.")


def _training(result: Result, expected: Description, split: Split, suite: Suite) -> Iterator[Objection]:
    """Nobody of the test people in any training; the budget's own options but for those that are told."""
    budget, training, weights = result.key.budget, result.training, result.key.weights
    trains = expected.learns == "weights"
    if (budget.name == "none") == trains:
        yield Objection("budget", "It has a budget though nothing is trained." if not trains else
                        "It says that nothing was trained, and its method is.")  # fmt: skip
        return
    released = expected.released
    given = budget.released if trains else weights.origin == "released"  # what is trained has both or none
    if given != (weights.origin == "released") or (given and (released is None or weights.sha256 != released.sha256)):
        yield Objection("budget", "Its weights are not those released with this ufe.")
    if expected.learns == "nothing":
        return
    if training is None or not (training.config or given):
        yield Objection("training", "It does not say who the weights were trained on, and how.")
        return
    allowed = split.part("train")[: training.subjects]
    if training.subjects_sha256 != subjects_digest(allowed):
        yield Objection("training", f"Its weights were trained on other people than the first {training.subjects} of "
                        f"split '{suite.split}.train'.")  # fmt: skip
    if not trains:
        return
    if expected.unlabelled is not None:
        yield from _pretraining(training.pretraining or {}, expected.unlabelled)
    yield from _search(result, suite)
    if canonical_json(budget.overrides) != canonical_json(expected.apart):
        yield Objection("budget", f"It tells of the training options {_words(budget.overrides)}, and its command asks "
                        f"for {_words(expected.apart)}: {result.command}")  # fmt: skip
    if budget.released:
        return
    options: dict[str, Any] = TrainingConfig(**budget_defaults(budget.name)).model_dump(mode="json")
    chosen = best_trial(result.trials).training if result.trials else {}
    told = {**options, "seed": result.key.seed, **expected.apart, **chosen}
    secret = sorted(n for n, value in training.config.items() if n != "update" and told.get(n, value) != value)
    if secret:
        yield Objection("budget", f"Its training differs from budget '{budget.name}' in {', '.join(secret)}, which "
                        "it does not tell.")  # fmt: skip
    sizes = {name: getattr(budget, name) for name in ("people", "frames", "size", "steps")}
    took = {**training.config, "people": min(training.config.get("people", training.subjects), training.subjects)}
    other = sorted(name for name, value in sizes.items() if took.get(name, value) != value)
    if other:
        yield Objection("budget", f"{', '.join(other)} of its budget are not those that it was trained with.")


def _search(result: Result, suite: Suite) -> Iterator[Objection]:
    """The trials are those of the suite."""
    allowed = suite.tuning.trials if suite.tuning is not None else ()
    foreign = [trial.training for trial in result.trials if trial.training not in allowed]
    if foreign:
        yield Objection("training", f"Suite '{suite.id}' has no trial of {_words(foreign[0])}.")


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items())) or "none"


def _pretraining(record: dict[str, Any], allowed: Sequence[str]) -> Iterator[Objection]:
    """What was learnt without labels was learnt from those whom its command asks for, who are never tested."""
    people, digest = record.get("people"), record.get("people_sha256")
    if not isinstance(people, int) or not isinstance(digest, str):
        yield Objection("training", "It does not say on whom it was pre-trained.")
    elif people != len(allowed) or digest != subjects_digest(allowed):
        yield Objection("training", "It was pre-trained on other people than those set aside for it.")


def _numbers(result: Result, expected: Description, floor: Result | None) -> Iterator[Objection]:
    for name, info in () if _is_floor(result) else result.metrics.items():
        values = [subject.metrics[name] for subject in result.subjects if name in subject.metrics]
        counts = info.unit == "%"  # of what may befall nobody
        if len(values) > 3 and len(set(values)) == 1 and not counts:
            yield Objection("numbers", f"{name} is {values[0]:g} for everybody.")
    yield from _cost(result)
    if expected.hypothetical or _is_floor(result):
        return
    if floor is None:
        yield Objection("numbers", "There is no result of 'neutral' on this data to hold it against: "
                        f"ufe bench --encoder neutral --suite {result.key.suite.partition('@')[0]}")  # fmt: skip
        return
    for name, summary in result.summary.items():
        rest = None if result.metrics[name].higher_is_better else floor.summary.get(name)
        if rest is not None and rest.mean > 0 and summary.mean < _TOO_GOOD * rest.mean:
            yield Objection("numbers", f"{name} is {summary.mean:.3g}, less than {_TOO_GOOD:.0%} of the resting face's "
                            f"{rest.mean:.3g}: too good for what a headset sees.")  # fmt: skip


def _is_floor(result: Result) -> bool:
    """Whether it is of a face that does not move, which may be as wrong about everybody."""
    return result.key.components.encoder.id in FLOORS


def _cost(result: Result) -> Iterator[Objection]:
    """What no clock shows."""
    for what, latency in (("encoding", result.cost.encode_ms), ("finding keypoints", result.cost.detect_ms)):
        if latency is not None and not 0 < latency.p50 <= latency.p99:
            yield Objection("numbers", f"{what} takes {latency.p50:g} ms in the median, {latency.p99:g} ms at the 99th "
                            "percentile: no clock shows that.")  # fmt: skip


def _measured_again(
    result: Result, harness: Harness, count: int, draw: random.Random, weights: Path | None
) -> Iterator[Objection]:
    ids = sorted(subject.id for subject in result.subjects)
    people = sorted(draw.sample(ids, min(count, len(ids))))
    try:
        comparison = rerun(result, harness, people=people, weights=weights)
    except ArtifactError as error:
        yield Objection("weights", str(error))
        return
    except UfeError as error:
        yield Objection("verify", f"It cannot be measured again: {error}")
        return
    for subject, reason in comparison.missing:
        yield Objection("verify", f"{subject} cannot be measured again: {reason}")
    for one in comparison.disagreements:
        then, now = ("none" if value is None else f"{value:.5g}" for value in (one.recorded, one.measured))
        yield Objection("verify", f"{one.metric} of {one.subject} is {then} in the file, measured again {now}.")
    for place in comparison.changed:
        if place.startswith("budget."):
            yield Objection("verify", f"{place} is not what its weights were trained with.")
    if comparison.disagreements and "weights.sha256" in comparison.changed:
        yield Objection("verify", "Its weights were trained anew for this and came out otherwise, as they may on "
                        "another machine: give the file that it was measured with, --weights FILE.")  # fmt: skip
    elif comparison.disagreements and comparison.changed:
        yield Objection("verify", f"These have changed since: {', '.join(comparison.changed)}. Measure again with this "
                        f"ufe, and submit that: {result.command}")  # fmt: skip
    if not comparison.compared and not comparison.missing:
        yield Objection("verify", "Nothing of it could be measured again.")
