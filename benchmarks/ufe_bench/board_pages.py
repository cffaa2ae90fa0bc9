"""The leaderboard's pages: an index, a page for each suite and each method, and the paper's tables.

Every page is whole in itself: style, script and plots are inside, and nothing is fetched.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ufe_bench import board_markdown as words
from ufe_bench import formats, plots
from ufe_bench.board import MEAN_FLOOR, Extras, Ground, Group, Row
from ufe_bench.paper import load_paper
from ufe_bench.schema import MetricInfo, Result, method_slug
from ufe_bench.suite import load_suite
from ufe_core.errors import RegistryError

MARK = "<title>UFE leaderboard</title>"  # by which an index, earlier releases' too, is known to be one
_TOP = 5  # rows of a suite on the index


@dataclass(frozen=True)
class SuiteView:
    """A suite, which may have been measured on several grounds."""

    id: str
    summary: str
    grounds: tuple[Ground, ...]

    @property
    def page(self) -> str:
        """Where its page lies."""
        return f"suites/{self.id}.html"


@dataclass(frozen=True)
class Entry:
    """A row of a table of the leaderboard, and where it stands."""

    ground: Ground
    group: Group
    row: Row
    earlier: bool = False


@dataclass(frozen=True)
class MethodView:
    """A method: encoder, calibrator and pre-training, with all of its runs, those that newer ones replace last."""

    slug: str
    name: str
    is_floor: bool
    entries: tuple[Entry, ...]

    @property
    def page(self) -> str:
        """Where its page lies."""
        return f"methods/{self.slug}.html"

    @property
    def best(self) -> Entry | None:
        """Where its rank is best, on whatever suite."""
        ranked = [entry for entry in self.entries if entry.row.rank is not None]
        return min(ranked, key=lambda entry: entry.row.rank or 0, default=None) if ranked else None


@dataclass(frozen=True)
class Matrix:
    """A metric of all rows of a group, by something else: slices, people. Shades go from the least to the largest."""

    label: str
    heads: tuple[str, ...]
    lines: tuple[tuple[Row, tuple[tuple[str, str], ...]], ...]
    """A row, and its cells as (text, shade in per cent)."""


def render_pages(board: Sequence[Ground], extras: Extras) -> dict[str, str]:
    """Every page by its path."""
    suites, methods = _suites(board), _methods(board)
    environment = _environment()
    shared = {
        "suites": suites, "methods": methods, "extras": extras, "paper": load_paper(), "pages": _page_of(methods),
        "compared": {suite.id: _compared(suite, extras) for suite in suites},
        "results": len({entry.row.result.run_id for method in methods for entry in method.entries}),
    }  # fmt: skip
    plan: list[tuple[str, str, dict[str, Any]]] = [
        ("index.html", "index.html.j2", {"root": ""}),
        ("paper.html", "paper.html.j2", {"root": "", "ours": _beside(board)}),
    ]
    plan += [(suite.page, "suite.html.j2", {"root": "../", "suite": suite}) for suite in suites]
    plan += [(method.page, "method.html.j2", {"root": "../", "method": method}) for method in methods]
    return {path: environment.get_template(template).render(page=path, **shared, **own) for path, template, own in plan}


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        formats=formats,
        words=words,
        strip=plots.strip,
        span=_column_span,
        dot_plots=dot_plots,
        beside_floors=beside_floors,
        scatters=scatters,
        by_slice=by_slice,
        by_person=by_person,
        machine=_machine,
        metric_info=_metric_info,
        top=_TOP,
        mark=MARK,
        pretty=lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
        mean_floor=formats.short(MEAN_FLOOR),
    )
    return environment


def _suites(board: Sequence[Ground]) -> list[SuiteView]:
    by_id: dict[str, list[Ground]] = defaultdict(list)
    for ground in board:
        by_id[ground.key.suite].append(ground)
    return [SuiteView(suite, _summary_of(suite), tuple(grounds)) for suite, grounds in by_id.items()]


def _compared(suite: SuiteView, extras: Extras) -> list[tuple[str, Row]]:
    """The rows of a suite's study by title, best first, whatever tables they stand in; none where it has no study."""
    study = extras.studies.get(suite.id)
    groups = [group for ground in suite.grounds for group in ground.groups]
    rows = {row.result.run_id: row for group in groups for row in (*group.rows, *group.earlier)}
    named = [(title, rows[run]) for title, run in (study.rows if study else {}).items() if run in rows]
    ranked_by = groups[0].ranked_by
    measured = [(title, row) for title, row in named if ranked_by in row.result.summary]
    most = groups[0].metrics[ranked_by].higher_is_better
    return sorted(measured, key=lambda pair: pair[1].result.summary[ranked_by].mean, reverse=most)


def _summary_of(suite: str) -> str:
    """What a suite is about, where this ufe has it in this version."""
    try:
        known = load_suite(suite.split("@")[0])
    except RegistryError:
        return ""
    return known.summary if known.id == suite else ""


def _methods(board: Sequence[Ground]) -> list[MethodView]:
    """Methods by name; floors, which stand in several groups, have each run once."""
    entries: dict[str, dict[str, Entry]] = defaultdict(dict)
    for ground in board:
        for group in ground.groups:
            rows = [(row, False) for row in group.rows] + [(row, True) for row in group.earlier]
            for row, earlier in rows:
                entries[method_slug(row.result)].setdefault(row.result.run_id, Entry(ground, group, row, earlier))
    views = []
    for slug, found in entries.items():
        inside = sorted(found.values(), key=lambda entry: entry.earlier)  # stable: boards are in order
        name = inside[0].row.name.removesuffix(" (linear)")
        views.append(MethodView(slug, name, inside[0].row.is_floor, tuple(inside)))
    return sorted(views, key=lambda view: (view.is_floor, view.name))


def _page_of(methods: Sequence[MethodView]) -> Callable[[Result], str]:
    """Where a result is told of, relative to the leaderboard."""
    pages = {method.slug: method.page for method in methods}
    return lambda result: f"{pages[method_slug(result)]}#run-{result.run_id}"


def _beside(board: Sequence[Ground]) -> dict[tuple[str, str], Row]:
    """(table, row) of the paper to our row that it stands beside."""
    rows = [row for ground in board for group in ground.groups for row in group.rows]
    return {(row.paper.table, row.paper.id): row for row in reversed(rows) if row.paper is not None}


def dot_plots(group: Group) -> list[tuple[str, str]]:
    """A plot of every person for each metric of a group, as (label, SVG)."""
    return _dot_plots(group.metrics, [row for row in group.rows if row.unranked is None])


def beside_floors(entry: Entry) -> list[tuple[str, str]]:
    """The same of one run alone, beside the floors of its ground."""
    floors = {row.result.run_id: row for group in entry.ground.groups for row in group.rows if row.is_floor}
    floors.pop(entry.row.result.run_id, None)
    return _dot_plots(entry.row.result.metrics, [entry.row, *floors.values()])


def _dot_plots(metrics: Mapping[str, MetricInfo], rows: Sequence[Row]) -> list[tuple[str, str]]:
    drawn = []
    for name, info in metrics.items():
        dots = [
            plots.DotRow(
                name=row.title,
                values=row.result.values(name),
                mean=row.result.summary[name].mean,
                ci95=row.result.summary[name].ci95,
                is_floor=row.is_floor,
            )
            for row in rows
            if name in row.result.summary
        ]
        if dots:
            drawn.append((info.label, plots.dot_plot(dots, label=info.label, unit=info.unit)))
    return drawn


def scatters(group: Group) -> list[tuple[str, list[tuple[str, str]]]]:
    """Error against latency and size, for each machine that was timed: (machine, [(metric's label, SVG)])."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, info in group.metrics.items():
        if info.higher_is_better:
            continue
        machines: dict[str, list[plots.Point]] = defaultdict(list)
        for row in _shown(group, name):
            cost, summary = row.result.cost, row.result.summary[name]
            if row.rank is not None and cost.latency_ms is not None:
                machines[_machine(row)].append(
                    plots.Point(row.rank, row.title, cost.latency_ms, summary.mean, summary.ci95, cost.parameters)
                )
        for machine, points in machines.items():
            if len(points) > 1:  # a single point compares nothing
                found[machine].append((info.label, plots.scatter(points, label=info.label, unit=info.unit)))
    return sorted(found.items())


def by_slice(group: Group) -> list[Matrix]:
    """Means over people by kind of segment and by condition, a matrix for each metric."""

    def cells(row: Row, metric: str) -> dict[str, float]:
        found: dict[str, list[float]] = defaultdict(list)
        for subject in row.result.subjects:
            for part, values in subject.slices.items():
                if metric in values:
                    found[part].append(values[metric])
        return {part: fmean(values) for part, values in found.items()}

    return _matrices(group, cells, lambda part: part.partition(":")[2].replace("_", " ") or part)


def by_person(group: Group) -> list[Matrix]:
    """Every person's mean, a matrix for each metric."""
    return _matrices(group, lambda row, metric: row.result.values(metric), lambda subject: subject)


def _matrices(
    group: Group, cells: Callable[[Row, str], Mapping[str, float]], title: Callable[[str], str]
) -> list[Matrix]:
    matrices = []
    for name, info in group.metrics.items():
        lines = [(row, cells(row, name)) for row in _shown(group, name)]
        heads = sorted({head for _, values in lines for head in values})
        every = [value for _, values in lines for value in values.values()]
        if len(heads) < 2:
            continue
        low, high = min(every), max(every)

        def shade(value: float, info: MetricInfo = info, low: float = low, high: float = high) -> str:
            share = (value - low) / (high - low) if high > low else 0.0
            return f"{100 * (1 - share if info.higher_is_better else share):.0f}"

        shown = tuple(
            (row, tuple(
                (formats.number(values[head], info.unit), shade(values[head])) if head in values
                else (formats.UNKNOWN, "0") for head in heads
            ))
            for row, values in lines
        )  # fmt: skip
        label = formats.with_unit(info.label, info.unit)
        matrices.append(Matrix(label, tuple(title(head) for head in heads), shown))
    return matrices


def _shown(group: Group, metric: str) -> list[Row]:
    """Rows that are compared in a metric."""
    return [row for row in group.rows if row.unranked is None and metric in row.result.summary]


def _machine(row: Row) -> str:
    """What latencies are compared on: the device, by its name."""
    cost = row.result.cost
    device = row.result.environment.cpu or "cpu" if cost.device == "cpu" else cost.device
    return f"{device}, {cost.threads} thread{'s' if cost.threads > 1 else ''}"


def _metric_info(ground: Ground, metric: str) -> MetricInfo | None:
    return next((group.metrics[metric] for group in ground.groups if metric in group.metrics), None)


def _column_span(group: Group, metric: str) -> tuple[float, float]:
    """Both ends of what the intervals of a column's rows need."""
    rows = [row.result.summary for row in group.rows if row.unranked is None]
    ends = [summary[metric].ci95 for summary in rows if metric in summary]
    return min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)
