"""Plots of the leaderboard, as SVG text without styling: colours, dark mode included, come from the page.

Drawn by hand rather than by matplotlib, so that text stays text, a dot carries its tooltip, and equal numbers
give equal bytes. Classes used: `axis grid dot point mean ci label value rank frontier`, and for groups
`ranked floor beaten`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ufe_bench.formats import count, milliseconds, number

WIDTH = 480
_LEFT, _RIGHT = 10, 14
_ROW = 50
_DOT = 2.6
_LEAST, _MOST = 8.0, 16.0  # radius of a scatter plot's points
_CHAR = 6.4  # mean advance of the 12 px page font, px; only for placing labels


@dataclass(frozen=True)
class DotRow:
    """One method of a dot plot; `values` is subject id to value."""

    name: str
    values: Mapping[str, float]
    mean: float
    ci95: tuple[float, float]
    is_floor: bool = False


@dataclass(frozen=True)
class Point:
    """One method of a scatter plot; its dot carries its rank, so that it is known even without its name."""

    rank: int
    name: str
    latency_ms: float
    error: float
    ci95: tuple[float, float]
    parameters: int | None = None


def ticks(low: float, high: float, *, wanted: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` of them."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if span / (s * magnitude) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def strip(mean: float, ci95: tuple[float, float], span: tuple[float, float]) -> str:
    """The small bar under a table's number: interval and mean on the column's axis, which is `span` and has 0 in it."""
    left, right = min(0.0, span[0]), max(0.0, span[1])
    scale = 100.0 / (right - left) if right > left else 0.0
    low, high, middle = (_px((v - left) * scale) for v in (ci95[0], ci95[1], mean))
    return (
        '<svg class="strip" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="grid" x1="0" x2="100" y1="4" y2="4"/>'
        f'<line class="ci" x1="{low}" x2="{high}" y1="4" y2="4"/>'
        f'<line class="mean" x1="{middle}" x2="{middle}" y1="0" y2="8"/></svg>'
    )


def dot_plot(rows: Sequence[DotRow], *, label: str, unit: str | None) -> str:
    """Every subject of every method as a dot, on an axis with 0 in it; mean and interval below the dots."""
    every = [value for row in rows for value in row.values.values()]
    marks = ticks(min(0.0, *every), max(0.0, *every))
    height = len(rows) * _ROW + 34
    bottom = height - 30

    def x(value: float) -> float:
        return _LEFT + (value - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - _LEFT - _RIGHT)

    parts = [_open(height, f"{label} of every subject, by method")]
    parts += [_vertical(x(mark), 4, bottom) for mark in marks]
    for index, row in enumerate(rows):
        top = index * _ROW
        parts.append(f'<g class="{"floor" if row.is_floor else "ranked"}">')
        parts.append(_text(_LEFT, top + 15, row.name, "label"))
        parts.append(_text(WIDTH - _RIGHT, top + 15, number(row.mean, unit), "value", anchor="end"))
        for (subject, value), level in zip(
            _by_value(row.values), _levels([x(v) for _, v in _by_value(row.values)]), strict=True
        ):
            title = escape(f"{subject}: {number(value, unit)}")
            y = top + 32 + level * 2 * _DOT
            circle = f'<circle class="dot" cx="{_px(x(value))}" cy="{_px(y)}" r="{_DOT}">'
            parts.append(f"{circle}<title>{title}</title></circle>")
        y = top + 32
        parts.append(_line("ci", x(row.ci95[0]), y, x(row.ci95[1]), y))
        parts.append(_line("mean", x(row.mean), y - 8, x(row.mean), y + 8))
        parts.append("</g>")
    parts += _bottom_axis(marks, x, bottom, f"{label} ({unit})" if unit else label)
    return "".join([*parts, "</svg>"])


def scatter(points: Sequence[Point], *, label: str, unit: str | None) -> str:
    """Error against latency; a line joins the methods that no other beats on both. Lower is better.

    A point's area grows with its parameters.
    """
    height, left, bottom = 330, 50, 284
    across = ticks(0.0, max(point.latency_ms for point in points) * 1.05)
    every = [value for point in points for value in (point.error, *point.ci95)]
    low, high = min(every), max(every)  # the axis need not have 0 in it: what is compared would lie in a heap
    up = ticks(low - 0.03 * abs(low), high + 0.02 * abs(high))

    def x(value: float) -> float:
        return left + (value - across[0]) / (across[-1] - across[0]) * (WIDTH - left - _RIGHT)

    def y(value: float) -> float:
        return bottom - (value - up[0]) / (up[-1] - up[0]) * (bottom - 18)

    parts = [_open(height, f"{label} against latency, by method")]
    for mark in up:
        parts.append(_line("grid", left, y(mark), WIDTH - _RIGHT, y(mark)))
        parts.append(_text(left - 6, y(mark) + 4, _tick_text(mark, up), "axis", anchor="end"))
    parts += [_vertical(x(mark), 18, bottom) for mark in across]
    parts += _bottom_axis(across, x, bottom, "Latency p50 (ms)", y_title=f"{label} ({unit})" if unit else label)
    frontier = pareto(points)
    line = " ".join(f"{'M' if i == 0 else 'L'}{_px(x(p.latency_ms))} {_px(y(p.error))}" for i, p in enumerate(frontier))
    parts.append(f'<path class="frontier" d="{line}"/>')
    radius = {p: _radius(p.parameters, max(q.parameters or 0 for q in points)) for p in points}
    taken = [(x(p.latency_ms) - r, y(p.error) - r, x(p.latency_ms) + r, y(p.error) + r) for p, r in radius.items()]
    taken += [(x(p.latency_ms) - 2, y(p.ci95[1]), x(p.latency_ms) + 2, y(p.ci95[0])) for p in points]
    for point in sorted(points, key=lambda p: (p.error, p.latency_ms, p.name)):
        px, py = x(point.latency_ms), y(point.error)
        size = f", {count(point.parameters)} parameters" if point.parameters is not None else ""
        title = escape(f"{point.name}: {number(point.error, unit)}, {milliseconds(point.latency_ms)} ms{size}")
        kind = "ranked" if point in frontier else "beaten"
        parts.append(f'<g class="{kind}"><title>{title}</title>')
        parts.append(_line("ci", px, y(point.ci95[0]), px, y(point.ci95[1])))
        parts.append(f'<circle class="point" cx="{_px(px)}" cy="{_px(py)}" r="{_px(radius[point])}"/>')
        parts.append(_text(px, py + 4, str(point.rank), "rank", anchor="middle"))
        where = _free_place(px, py, radius[point], len(point.name) * _CHAR, taken, left)
        if where is not None:
            parts.append(_text(where[0], where[1], point.name, "label"))
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one equals or beats on both error and latency, fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, p.error, p.name)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def _radius(parameters: int | None, largest: int) -> float:
    """Of a point, px: its area grows with the parameters, from where its rank can be read."""
    return _LEAST + (_MOST - _LEAST) * math.sqrt((parameters or 0) / largest) if largest else _LEAST


def _free_place(
    x: float, y: float, radius: float, width: float, taken: list[tuple[float, float, float, float]], left: float
) -> tuple[float, float] | None:
    """Where a label of `width` fits beside (x, y) without touching another; None where it nowhere does."""
    spots = [(at_x, y + 4 + lift) for lift in (0, -12, 12) for at_x in (x + radius + 4, x - radius - 4 - width)]
    for at_x, at_y in spots:
        box = (at_x, at_y - 10, at_x + width, at_y + 3)
        inside = box[0] >= left + 2 and box[2] <= WIDTH - 2 and box[1] >= 14 and box[3] <= 282
        if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            taken.append(box)
            return at_x, at_y
    return None


def _levels(positions: Sequence[float]) -> list[int]:
    """For each of the sorted `positions`, the level (0, -1, 1 …) at which its dot touches no earlier one."""
    last: dict[int, float] = {}
    chosen: list[int] = []
    for position in positions:
        order = [0, -1, 1, -2, 2]
        level = next((n for n in order if position - last.get(n, -1e9) >= 2 * _DOT), order[len(chosen) % 5])
        last[level] = position
        chosen.append(level)
    return chosen


def _by_value(values: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda item: (item[1], item[0]))


def _bottom_axis(
    marks: Sequence[float],
    x: Callable[[float], float],
    bottom: float,
    title: str,
    *,
    y_title: str | None = None,
) -> list[str]:
    parts = [_text(x(mark), bottom + 14, _tick_text(mark, marks), "axis", anchor="middle") for mark in marks]
    parts.append(_text(WIDTH - _RIGHT, bottom + 28, title, "axis", anchor="end"))
    if y_title is not None:
        parts.append(_text(4, 10, y_title, "axis"))
    return parts


def _tick_text(mark: float, marks: Sequence[float]) -> str:
    step = marks[1] - marks[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return f"{mark:.{decimals}f}"


def _open(height: float, title: str) -> str:
    label = escape(title, quote=True)
    return f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"/>'


def _vertical(x: float, top: float, bottom: float) -> str:
    return _line("grid", x, top, x, bottom)


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _px(value: float) -> str:
    """A coordinate with a tenth of a pixel, without the machine's last bits."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
