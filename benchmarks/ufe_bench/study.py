"""A study: the rows of a suite, each trained, measured and kept by itself, then put side by side with the paper's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from ufe_bench.aggregate import PairedDifference, RankAgreement, pooled_difference, rank_agreement
from ufe_bench.failure import is_the_methods
from ufe_bench.harness import Harness
from ufe_bench.paper import PaperTable, load_paper
from ufe_bench.request import Request
from ufe_bench.schema import MetricInfo, Result, Trial
from ufe_bench.study_rows import chosen_rows, refuse_what_fits_no_row, request_of, that_fit, with_steps
from ufe_bench.suite import Claim, Suite, SuiteRow
from ufe_bench.tuning import refuse_searched, tuned
from ufe_core.errors import MethodError, cause_of

_LONG = 30.0  # seconds: a row that takes less was there before, and says nothing of those to come


@dataclass(frozen=True)
class Cell:
    """A row, what its encoder looks at, and what became of it: its result, or why there is none.

    `log` tells how it learned, where it was trained here.
    """

    row: SuiteRow
    result: Result | None
    path: Path | None = None
    error: str | None = None
    request: Request | None = None
    inputs: tuple[str, ...] = ()
    log: Path | None = None


@dataclass(frozen=True)
class Study:
    """The rows of a suite that were run, and its floors; `failed` are floors that have no result, with the cause."""

    suite: Suite
    cells: tuple[Cell, ...]
    floors: tuple[Result, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, MetricInfo]:
        """Of the first row that has a result."""
        return next((dict(cell.result.metrics) for cell in self.cells if cell.result is not None), {})

    @property
    def methods(self) -> list[Cell]:
        """The cells that have a result and are no other seed of another one that has."""
        done = [cell for cell in self.cells if cell.result is not None]
        return [cell for cell in done if cell.row.repeats not in {one.row.name for one in done}]

    def seeds(self, name: str) -> list[Result]:
        """The results of a row, and of those that repeat it with another seed."""
        return [c.result for c in self.cells if c.result is not None and name in (c.row.name, c.row.repeats)]

    def values(self, metric: str) -> dict[str, dict[str, float]]:
        """Method to subject to value; the mean over seeds of those whom all of them measured."""
        found = {}
        for cell in self.methods:
            seeds = [result.values(metric) for result in self.seeds(cell.row.name)]
            common = set.intersection(*(set(seed) for seed in seeds))
            found[cell.row.name] = {name: fmean(s[name] for s in seeds) for name in sorted(common)}
        return found

    def difference(self, one: str, other: str, metric: str) -> PairedDifference | None:
        """The one method less the other, over people whom all their seeds measured; None where these are too few."""
        seeds = [[result.values(metric) for result in self.seeds(name)] for name in (one, other)]
        if not all(seeds):
            return None
        both = set.intersection(*(set(values) for part in seeds for values in part))
        if len(both) < 2:
            return None
        kept = [[{name: values[name] for name in both} for values in part] for part in seeds]
        return pooled_difference(*kept)

    def base_of(self, cell: Cell) -> str | None:
        """The row that a method is compared with; None for that row itself, and for another seed of a method."""
        base = cell.row.base or self.suite.base
        names = [one.row.name for one in self.methods]
        return base if base in names and cell.row.name in names and cell.row.name != base else None

    def paper(self) -> tuple[PaperTable | None, dict[str, Mapping[str, float | None]]]:
        """The paper's table, and its numbers by row and metric."""
        table = load_paper().tables.get(self.suite.paper or "")
        if table is None:
            return None, {}
        rows = {row.id: row.values for row in table.rows}
        return table, {c.row.name: rows[c.row.paper] for c in self.cells if c.row.paper in rows}

    def agreement(self, metric: str) -> RankAgreement | None:
        """How far our order of the rows that take a rank is the paper's, on the people whom all of them measured.

        None where there are fewer than two of them, or too few rows.
        """
        _, numbers = self.paper()
        theirs = {name: value for name, row in numbers.items() if (value := row.get(metric)) is not None}
        values = self.values(metric)
        ours = {c.row.name: values[c.row.name] for c in self._ranked() if c.row.name in theirs}
        everywhere = set.intersection(*(set(row) for row in ours.values())) if ours else set()
        if len(everywhere) < 2:
            return None
        return rank_agreement(
            {name: {k: v for k, v in row.items() if k in everywhere} for name, row in ours.items()}, theirs
        )

    def against_base(self, cell: Cell, metric: str) -> PairedDifference | None:
        """The method less its base; None where `base_of` is."""
        base = self.base_of(cell)
        return None if base is None else self.difference(cell.row.name, base, metric)

    def ranking(self, metric: str) -> list[tuple[Cell, PairedDifference | None]]:
        """Methods best first, each with itself less the next over subjects; the last has none after it.

        Hypothetical rows take no rank, nor does what is compared apart from the suite's base.
        """
        values, info = self.values(metric), self.metrics[metric]
        rows = [(fmean(values[c.row.name].values()), c) for c in self._ranked() if values.get(c.row.name)]
        order = [cell for _, cell in sorted(rows, key=lambda row: row[0], reverse=info.higher_is_better)]
        steps = [self.difference(one.row.name, other.row.name, metric) for one, other in pairwise(order)]
        return list(zip(order, [*steps, None], strict=True)) if order else []

    def claimed(self, claim: Claim) -> list[tuple[str, str, str]]:
        """Where a claim is put to the test, and on which two rows: at each point, where rows are points of lines."""
        names = {cell.row.name for cell in self.methods}
        if self.suite.along is None:
            return [("", claim.better, claim.worse)] if {claim.better, claim.worse} <= names else []
        lines = {
            line: {cell.row.at: cell.row.name for cell in self.methods if cell.row.series == line}
            for line in (claim.better, claim.worse)
        }
        shared = lines[claim.better].keys() & lines[claim.worse].keys()
        both = sorted(at for at in shared if at is not None and (claim.at is None or at == claim.at))
        return [(f"{at:g}", lines[claim.better][at], lines[claim.worse][at]) for at in both]

    def _ranked(self) -> list[Cell]:
        """Methods but for hypothetical ones, and for those that have a base of their own, as another network does."""
        ranked = [cell for cell in self.methods if cell.result is not None and not cell.result.hypothetical]
        apart = {cell.row.base for cell in ranked} | {cell.row.name for cell in ranked if cell.row.base is not None}
        return [cell for cell in ranked if cell.row.name not in apart - {self.suite.base}]


def _time_left(taken: Sequence[float], rows: int) -> str:
    """For how long rows have run, and for how long the others will if they take as long; seconds of each in `taken`."""
    long = [seconds for seconds in taken if seconds >= _LONG]
    if not long:
        return ""
    left = fmean(long) * (rows - len(taken))
    return f", {_minutes(sum(taken))} so far, about {_minutes(left)} to go"


def _minutes(seconds: float) -> str:
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def run_study(
    harness: Harness, suite: Suite, *, rows: Sequence[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None, floors: bool = True,
    ahead: Callable[[Sequence[SuiteRow]], None] | None = None, say: Callable[[str], None] | None = None, **asked: Any,
) -> Study:  # fmt: skip
    """Run a suite's rows, one after another; a row that fails is recorded and the others go on.

    Args:
        harness: which runs them; what it has measured before is taken from its file.
        suite: with rows.
        rows: names of the rows to run, floors among them; none means all.
        overrides: options for every row, as `--set` gives them.
        floors: whether the suite's floors are measured too.
        ahead: given the rows before they are run, as `RowWorkers` is, which leave their results.
        say: told which row is begun.
        asked: other fields of `Request`.

    Raises:
        ConfigError: there is no such row, or an option is searched for by the suite itself.
        UfeError: what was asked for is wrong for every row that it could be meant for; nothing has been made then.
    """
    given = overrides or {}
    overrides = with_steps(suite, given, asked.get("budget", Request.budget))
    refuse_searched(suite, overrides)
    cells: list[Cell] = []
    beside: list[Result] = []
    failed: dict[str, str] = {}
    searches: dict[str, tuple[Mapping[str, Any], tuple[Trial, ...]]] = {}
    chosen = chosen_rows(suite, rows)
    refuse_what_fits_no_row(harness, suite, chosen, given, **asked)
    if not chosen:
        beside = harness.floors(request_of(suite, suite.rows[0], overrides, **asked), failed)
    if ahead is not None:
        ahead(chosen)
    begun = time.monotonic()
    taken: list[float] = []
    for number, row in enumerate(chosen, 1):
        if number > 1:
            taken.append(time.monotonic() - begun - sum(taken))
        if say is not None:
            say(f"Row {number} of {len(chosen)}: {row.title} ({row.name}){_time_left(taken, len(chosen))}")
        inputs: tuple[str, ...] = ()
        request = request_of(suite, row, overrides, **asked)  # as far as it is known where the method cannot be loaded
        try:
            inputs = harness.catalogue.get("encoder", row.encoder).load().inputs
            request = request_of(suite, row, that_fit(harness.catalogue, row, suite, overrides), **asked)
            if suite.tuning is not None:
                searched = suite.row(row.tuned_as or row.name)
                if searched.name not in searches:
                    fitting = that_fit(harness.catalogue, searched, suite, overrides)
                    of_search = request_of(suite, searched, fitting, **asked)
                    searches[searched.name] = tuned(harness, of_search, suite.tuning, say)
                chosen_options, trials = searches[searched.name]
                request = replace(request, tuned=chosen_options, trials=trials)
            outcome = harness.run(request, floors=floors and not beside and not failed, reuse=True)
        except (Exception, SystemExit) as error:  # whatever a plugin does; the other rows go on
            logging.getLogger("ufe").debug("Row %r failed", row.name, exc_info=True)
            if not isinstance(error, MethodError) and is_the_methods(error):  # it failed before it was measured
                harness.record(suite, row.name, request.command(), error)
            cells.append(Cell(row, None, error=cause_of(error), inputs=inputs))
            continue
        beside = beside or outcome.floors
        failed = failed or dict(outcome.failed)
        log = outcome.weights.with_name("log.csv") if outcome.weights is not None else None
        cells.append(Cell(row, outcome.result, outcome.path, request=request, inputs=inputs, log=log))
    return Study(suite, tuple(cells), tuple(beside), failed)
