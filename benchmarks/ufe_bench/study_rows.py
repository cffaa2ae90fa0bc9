"""What the rows of a study ask of the harness, what no row can be asked, and how a run is called by what it asks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ufe_bench.failure import is_the_methods
from ufe_bench.harness import Harness
from ufe_bench.request import Request
from ufe_bench.suite import Suite, SuiteRow
from ufe_core.config import build_config, did_you_mean
from ufe_core.errors import ConfigError
from ufe_core.plugins import Catalogue
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_core.store import fingerprint

if TYPE_CHECKING:
    from ufe_core.budgets import BudgetName

_LONGEST = 120  # characters of a folder's name; file systems take 255 bytes


def request_of(suite: Suite, row: SuiteRow, overrides: Mapping[str, Mapping[str, Any]], **asked: Any) -> Request:
    """What a row asks of the harness; its own options go before the user's, and these before those of all rows."""
    merged: dict[str, dict[str, Any]] = {}
    for options in (suite.set, overrides, row.set):
        for kind, fields in options.items():
            merged.setdefault(kind, {}).update(fields)
    anchors = row.anchors
    if anchors is None:
        anchors = asked.pop("anchors", DEFAULT_ANCHORS)
    elif isinstance(anchors, int):
        anchors = DEFAULT_ANCHORS[:anchors]
    asked = {name: value for name, value in asked.items() if name != "anchors"}
    return Request(
        suite=suite, encoder=row.encoder, calibrator=row.calibrator, pretraining=row.pretraining,
        anchors=tuple(anchors), overrides=merged or None,
        enrolment=row.enrolment, row=row.name, train=suite.train, **asked,
    )  # fmt: skip


def that_fit(
    catalogue: Catalogue, row: SuiteRow, suite: Suite, overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """The user's options but for those that a row has no use for and another row may have.

    They are those of a calibrator or a detector where the row has none, and of a pre-training that has no such option.
    """
    factory = catalogue.get("encoder", row.encoder).load()
    first = catalogue.get("pretraining", row.pretraining or "none")
    asked: dict[str, Any] = {}
    for given in (suite.set, overrides, row.set):
        asked |= given.get("pretraining", {})
    options = {name: value for name, value in asked.items() if name in first.config.model_fields}
    views = first.load().detector(build_config(first.config, options, owner=first.id))
    finds = "keypoints" in factory.inputs or views is not None
    idle = {"calibrator": not factory.calibrated, "detector": not finds}
    fitting = {kind: fields for kind, fields in overrides.items() if not idle.get(kind, False)}
    if "pretraining" in fitting:
        others = [catalogue.get("pretraining", one.pretraining or "none").config.model_fields for one in suite.rows]
        foreign = {name for fields in others for name in fields} - set(first.config.model_fields)
        fitting["pretraining"] = {name: v for name, v in fitting["pretraining"].items() if name not in foreign}
    return {kind: fields for kind, fields in fitting.items() if fields}


def with_steps(
    suite: Suite, overrides: Mapping[str, Mapping[str, Any]], budget: str
) -> Mapping[str, Mapping[str, Any]]:
    """The user's options, and the suite's number of steps at a budget where they have none."""
    training = overrides.get("training", {})
    steps = suite.steps.get(cast("BudgetName", budget), training.get("steps"))
    return {**overrides, "training": {"steps": steps, **training}} if steps is not None else overrides


def chosen_rows(suite: Suite, names: Sequence[str]) -> tuple[SuiteRow, ...]:
    """The rows of these names, or all; names of floors are allowed and are no rows.

    Raises:
        ConfigError: there is no such row.
    """
    known = [*(row.name for row in suite.rows), *suite.floors]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"Suite '{suite.id}' has no row {name!r}.{did_you_mean(name, known)} Rows: {', '.join(known)}."
            )
    return tuple(suite.row(name) for name in dict.fromkeys(names) if name not in suite.floors) if names else suite.rows


def variant_of(suite: Suite, overrides: Mapping[str, Mapping[str, Any]], **asked: Any) -> str:
    """The folder, in a suite's, of the report of a run whose options are not the default ones; empty for that run.

    It is called by what is asked otherwise, as `study_smoke_training.steps=50`.

    Args:
        suite: which is run.
        overrides: the user's options, as `--set` gives them.
        asked: decoder, source and budget, as fields of `Request`.
    """
    changes = Request(suite=suite, overrides=overrides or None, **asked).changes()
    if not changes:
        return ""
    name = "_".join(["study", *changes])
    kept = re.sub(r"[^\w.=,+-]", "-", name)[:_LONGEST]
    return name if kept == name else f"{kept}_{fingerprint(changes)[:8]}"


def refuse_what_fits_no_row(
    harness: Harness, suite: Suite, rows: Sequence[SuiteRow], overrides: Mapping[str, Mapping[str, Any]], **asked: Any
) -> None:
    """Resolve what rows ask for, before any long work, and refuse what is wrong for all that it could be meant for.

    What is wrong for some of them alone is theirs: it is told once they are run, and the others go on.

    Args:
        harness: which would run them.
        suite: of the rows.
        rows: which are to be run.
        overrides: the user's options, as `--set` gives them.
        asked: other fields of `Request`.

    Raises:
        UfeError: what a row fails with for what the user asked, where the others do too.
    """

    def wrong(row: SuiteRow, given: Mapping[str, Mapping[str, Any]]) -> BaseException | None:
        try:
            whole = with_steps(suite, given, asked.get("budget", Request.budget))
            harness.checked(request_of(suite, row, that_fit(harness.catalogue, row, suite, whole), **asked))
        except (Exception, SystemExit) as error:  # whatever a plugin does
            return error
        return None

    found = {row.name: wrong(row, overrides) for row in rows}
    users = [error for error in found.values() if error is not None and not is_the_methods(error)]
    if not users:
        return
    if None not in found.values():
        raise users[0]
    for kind, fields in overrides.items():
        alone = {kind: fields}
        meant = [row for row in rows if _is_meant(harness.catalogue, row, suite, alone)]
        if any(found[row.name] is None for row in meant):
            continue
        errors = [wrong(row, alone) for row in meant if wrong(row, {}) is None]
        if errors and (first := errors[0]) is not None and not any(error is None for error in errors):
            raise first


def _is_meant(catalogue: Catalogue, row: SuiteRow, suite: Suite, given: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a row is given any of these options; it is where it cannot be told for what is wrong with them."""
    try:
        return bool(that_fit(catalogue, row, suite, given))
    except ConfigError:
        return True
