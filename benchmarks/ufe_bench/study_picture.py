"""What a study has found, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from ufe_bench import formats
from ufe_bench.aggregate import Summary, summarise
from ufe_bench.study import Study
from ufe_bench.suite import SuiteRow
from ufe_core.recipe import DEFAULT_ANCHORS

_OURS, _PAPER = "#0072b2", "#d55e00"
_SERIES = (_OURS, _PAPER, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by most eyes
_STYLE: dict[str, Any] = {"markersize": 5, "capsize": 2.5, "linewidth": 1.2}


def draw(study: Study) -> bytes | None:
    """A PNG with a panel for each metric: ours with intervals, the paper's beside; None where nothing was measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    along, metrics = study.suite.along is not None, study.metrics
    done = study.methods if along else [cell for cell in study.cells if cell.result is not None]
    if not done:
        return None
    shape = (2.6 * len(metrics) + 0.6, 2.6) if along else (2.3 * len(metrics) + 1.6, 0.42 * len(done) + 1.3)
    figure = Figure(figsize=shape, dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (name, info) in zip(panels, metrics.items(), strict=True):
        (_draw_lines if along else _draw_rows)(axes, study, name)
        axes.set_title(formats.with_unit(info.label, info.unit), fontsize=9, loc="left")
        axes.tick_params(labelsize=7.5)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    if not along:
        panels[0].set_yticks(range(len(done)), [cell.row.title for cell in reversed(done)])
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _draw_lines(axes: Any, study: Study, metric: str) -> None:
    """A line for each series of methods, along what the rows differ in; a point is the mean over a method's seeds."""
    values = study.values(metric)
    lines = dict.fromkeys(cell.row.series for cell in study.methods)
    places = set()
    for colour, line in zip(cycle(_SERIES), lines):  # one is endless
        points = [
            (_number_of(cell.row), summarise(values[cell.row.name]))
            for cell in study.methods if cell.row.series == line and values[cell.row.name]
        ]  # fmt: skip
        means, sides = _bars([summary for _, summary in points])
        at = [place for place, _ in points]
        axes.errorbar(at, means, yerr=sides, marker="o", color=colour, label=line or "ours", **_STYLE)
        places |= set(at)
    axes.set_xlabel(study.suite.along, fontsize=8)
    if study.suite.logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(places), [f"{place:g}" for place in sorted(places)])


def _draw_rows(axes: Any, study: Study, metric: str) -> None:
    """Every row with a result at a height of its own, the first one on top, and the paper's number where it has one."""
    _, numbers = study.paper()
    done = [(cell.row.name, cell.result) for cell in study.cells if cell.result is not None]
    heights = {name: len(done) - 1 - k for k, (name, _) in enumerate(done)}
    found = {name: result.summary[metric] for name, result in done if metric in result.summary}
    means, sides = _bars(list(found.values()))
    axes.errorbar(means, [heights[name] for name in found], xerr=sides, fmt="o", color=_OURS, label="ours", **_STYLE)
    theirs = {name: value for name in heights if (value := numbers.get(name, {}).get(metric)) is not None}
    if theirs:
        axes.plot(list(theirs.values()), [heights[name] for name in theirs], "D", color=_PAPER, markersize=4.5,
                  markerfacecolor="none", label="the paper, other data")  # fmt: skip
    axes.set_yticks(list(heights.values()), [])
    axes.set_ylim(-0.6, len(done) - 0.4)


def _bars(summaries: Sequence[Summary]) -> tuple[list[float], list[list[float]]]:
    """Means, and how far their intervals reach below and above."""
    means = [summary.mean for summary in summaries]
    return means, [[s.mean - s.ci95[0] for s in summaries], [s.ci95[1] - s.mean for s in summaries]]


def _number_of(row: SuiteRow) -> float:
    """Where a row stands along the axis: as it says, or how many anchors it has."""
    if row.at is not None:
        return row.at
    if isinstance(row.anchors, int):
        return row.anchors
    return len(row.anchors if row.anchors is not None else DEFAULT_ANCHORS)
