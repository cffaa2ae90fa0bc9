"""What a maintainer would look at before a result goes onto the leaderboard: `ufe leaderboard submit`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ufe_bench.harness import Harness
from ufe_bench.rerun import request_from, rerun
from ufe_bench.schema import Result, incomplete_reason
from ufe_bench.suite import Suite, load_suite
from ufe_core.budgets import TrainingConfig, budget_defaults
from ufe_core.errors import UfeError
from ufe_core.plugins import Catalogue
from ufe_core.recipe import subjects_digest
from ufe_core.registry import Split, load_registry

#: Of the floor `neutral` (the resting face for every frame): what is below has seen the answers.
_TOO_GOOD = 0.02


@dataclass(frozen=True)
class Objection:
    """Why a result cannot go onto the leaderboard, and what to do."""

    rule: str
    line: str


def objections(
    result: Result, harness: Harness, *, floor: Result | None = None, verify: int = 0
) -> Iterator[Objection]:
    """Everything that is wrong with a result, one after another; nothing is rendered or trained but to verify.

    Args:
        result: as its file says; that it does not contradict itself was checked when it was read.
        harness: of this installation.
        floor: the result of `neutral` on the same suite and data.
        verify: measure so many people again, from the weights.
    """
    found = False
    for objection in _without_measuring(result, harness, floor):
        found = True
        yield objection
    if verify and not found:
        yield from _measured_again(result, harness, verify)


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
    split = load_registry().splits[suite.split]
    yield from _people(result, suite, split)
    yield from _data(result, harness)
    yield from _training(result, split, suite)
    yield from _components(result, harness.catalogue)
    yield from _numbers(result, suite, floor)


def _people(result: Result, suite: Suite, split: Split) -> Iterator[Objection]:
    people = split.part(suite.part)
    if result.key.split.sha256 != subjects_digest(people):
        yield Objection("people", f"It was measured on other people than split '{suite.split}.{suite.part}'.")
        return
    reason = incomplete_reason(result)
    if reason is not None:
        yield Objection("people", f"It is not complete: {reason}. Mend the method and measure again.")
    strangers = sorted({subject.id for subject in result.subjects} - set(people))
    if strangers:
        yield Objection("people", f"{', '.join(strangers)} are not in split '{suite.split}.{suite.part}'.")


def _data(result: Result, harness: Harness) -> Iterator[Objection]:
    try:
        here = harness.data_of(request_from(result, harness.catalogue))
    except UfeError as error:
        yield Objection("data", f"What it was measured on cannot be told here: {error}")
        return
    if here.fingerprint != result.key.data.fingerprint:
        yield Objection("data", "It was measured on captures of another version of the source: measure again with this "
                        f"ufe: {result.command}")  # fmt: skip


def _training(result: Result, split: Split, suite: Suite) -> Iterator[Objection]:
    """Nobody of the test people in any training; the budget's own options but for those that are told."""
    budget, training = result.key.budget, result.training
    if budget.name == "none" and training is None:
        return
    if training is None:
        yield Objection("training", "It does not say who the weights were trained on.")
        return
    allowed = split.part("train")[: training.subjects]
    if training.subjects_sha256 != subjects_digest(allowed):
        yield Objection("training", f"Its weights were trained on other people than the first {training.subjects} of "
                        f"split '{suite.split}.train'.")  # fmt: skip
    first = training.pretraining or {}
    if "people_sha256" in first:
        unlabelled = split.unlabelled.people(int(first["people"]))[0] if split.unlabelled is not None else ()
        if first["people_sha256"] != subjects_digest(unlabelled):
            yield Objection("training", "It was pre-trained on other people than those set aside for it.")
    if budget.name != "none" and training.config:
        expected: dict[str, Any] = TrainingConfig(**budget_defaults(budget.name)).model_dump(mode="json")
        told = {*budget.overrides, *(name for trial in result.trials for name in trial.training), "seed", "update"}
        secret = sorted(n for n, value in training.config.items() if n not in told and expected.get(n, value) != value)
        if secret and not budget.released:
            yield Objection("budget", f"Its training differs from budget '{budget.name}' in {', '.join(secret)}, which "
                            "it does not tell.")  # fmt: skip


def _components(result: Result, catalogue: Catalogue) -> Iterator[Objection]:
    parts = result.key.components
    named = [
        ("source", parts.source), ("decoder", parts.decoder), ("encoder", parts.encoder),
        ("calibrator", parts.calibrator), ("detector", parts.detector), ("pretraining", parts.pretraining),
        *(("metric", metric) for metric in parts.metrics),
    ]  # fmt: skip
    for kind, record in named:
        if record is None:
            continue
        try:
            spec = catalogue.get(kind, record.id)
        except UfeError as error:
            yield Objection("components", f"{error} Install '{record.dist}' {record.version}.")
            continue
        if kind == "metric" and catalogue.provenance(spec).distribution != record.dist:
            yield Objection("components", f"Metric '{record.id}' is here of another distribution than '{record.dist}'.")


def _numbers(result: Result, suite: Suite, floor: Result | None) -> Iterator[Objection]:
    lacking = [name for name in suite.metrics if name not in result.metrics]
    if lacking:
        yield Objection("numbers", f"It lacks {', '.join(lacking)}.")
    for name in result.metrics:
        values = [subject.metrics[name] for subject in result.subjects if name in subject.metrics]
        if len(values) > 3 and len(set(values)) == 1 and values[0] != 0:
            yield Objection("numbers", f"{name} is {values[0]:g} for everybody.")
    if floor is None or result.hypothetical or result.key.budget.name == "none":
        return
    for name, summary in result.summary.items():
        rest = floor.summary.get(name)
        if rest is not None and rest.mean > 0 and summary.mean < _TOO_GOOD * rest.mean:
            yield Objection("numbers", f"{name} is {summary.mean:.3g}, less than {_TOO_GOOD:.0%} of the resting face's "
                            f"{rest.mean:.3g}: too good for what a headset sees.")  # fmt: skip


def _measured_again(result: Result, harness: Harness, count: int) -> Iterator[Objection]:
    ids = sorted(subject.id for subject in result.subjects)
    step = max(1, len(ids) // count)
    people = ids[::step][:count]
    comparison = rerun(result, harness, people=people)
    for subject, reason in comparison.missing:
        yield Objection("verify", f"{subject} cannot be measured again: {reason}")
    for one in comparison.disagreements:
        yield Objection("verify", f"{one.metric} of {one.subject} is {one.recorded:.5g} in the file, measured again "
                        f"{one.measured:.5g}.")  # fmt: skip
    if not comparison.compared and not comparison.missing:
        yield Objection("verify", "Nothing of it could be measured again.")
