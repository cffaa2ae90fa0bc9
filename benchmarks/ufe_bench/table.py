"""One run as a table: for the terminal (rich) and as plain Markdown.

Both come from the same grid. Where the terminal is too narrow for a column per metric, the grid is turned, so
that nothing is cut off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ufe_bench import formats
from ufe_bench.aggregate import ratio
from ufe_bench.board import MEAN_FLOOR
from ufe_bench.paper import CAVEAT, PaperRow, load_paper, row_beside
from ufe_bench.schema import Cost, Result, incomplete_reason

WIDE = 112


@dataclass(frozen=True)
class Cell:
    """A value and what is printed small below it, such as an interval."""

    value: str
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One method: `note` says what kind of row it is."""

    name: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """A run beside floors and paper; `columns` are the headings of the cells."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    footnotes: tuple[str, ...]


def run_grid(result: Result, *, floors: Sequence[Result] = ()) -> Grid:
    """Put a run, its floors and the paper's row in one grid.

    Args:
        result: The run that the table is about.
        floors: Results of the floors on the same people; `ufe/mean` among them gives the ratios.
    """
    mean_floor = next((floor for floor in floors if floor.key.components.encoder.id == MEAN_FLOOR), None)
    paper = row_beside(result)
    names = list(result.metrics)
    lines = [_line(result, names, mean_floor, note=formats.budget_title(result.key.budget))]
    lines += [_line(floor, names, mean_floor, note="floor") for floor in floors if floor.run_id != result.run_id]
    if paper is not None:
        lines.append(_paper_line(paper, names))
    return Grid(
        title=f"{formats.method_name(result)} on {result.key.suite}, {result.key.split.subjects} people",
        columns=(*(_heading(result, name) for name in names), "Latency (ms)"),
        lines=tuple(lines),
        footnotes=tuple(_footnotes(result, paper, has_ratio=mean_floor is not None)),
    )


def run_table(result: Result, *, floors: Sequence[Result] = (), width: int = WIDE) -> Table:
    """The terminal table; methods are rows from `WIDE` characters on, columns below that."""
    grid = run_grid(result, floors=floors)
    wide = width >= WIDE
    table = Table(title=grid.title, caption="\n".join(grid.footnotes), title_justify="left", caption_justify="left")
    heads = [_method_text(line) for line in grid.lines]
    if wide:
        table.add_column("Method", no_wrap=False)
        for column in grid.columns:
            table.add_column(column, justify="right")
        for head, line in zip(heads, grid.lines, strict=True):
            table.add_row(head, *(_cell_text(cell) for cell in line.cells), end_section=True)
    else:
        table.add_column("Metric")
        for head in heads:
            table.add_column(head, justify="right")
        for index, column in enumerate(grid.columns):
            table.add_row(column, *(_cell_text(line.cells[index]) for line in grid.lines), end_section=True)
    return table


def print_run(console: Console, result: Result, *, floors: Sequence[Result] = ()) -> None:
    """Print the table of a run, shaped for the console's width."""
    console.print(run_table(result, floors=floors, width=console.width))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A Markdown table, padded so that it reads well as text; the first `left` columns are left-aligned."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "| " + " | ".join(padded) + " |\n"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return line(cells[0]) + "| " + " | ".join(rule) + " |\n" + "".join(line(row) for row in cells[1:])


def _heading(result: Result, name: str) -> str:
    info = result.metrics[name]
    return formats.with_unit(info.label, info.unit) + (" ↑" if info.higher_is_better else " ↓")


def _line(result: Result, names: Sequence[str], mean_floor: Result | None, *, note: str) -> Line:
    cells = []
    for name in names:
        summary, unit = (
            result.summary.get(name),
            result.metrics[name].unit if name in result.metrics else None,
        )
        if summary is None:
            cells.append(Cell(formats.UNKNOWN))
            continue
        floor = mean_floor.summary.get(name) if mean_floor is not None else None
        below = [formats.interval(summary.ci95, unit, subjects=summary.subjects)]
        if floor is not None:
            below.append(f"{formats.ratio(ratio(summary, floor))} ×")
        cells.append(Cell(formats.number(summary.mean, unit), tuple(below)))
    cells.append(_latency(result.cost))
    return Line(name=formats.method_name(result), note=note, cells=tuple(cells))


def _latency(cost: Cost) -> Cell:
    encode, detect = cost.encode_ms, cost.detect_ms
    if encode is None:
        return Cell(formats.UNKNOWN)
    whole = formats.milliseconds(cost.latency_ms)
    if detect is None:
        return Cell(whole, (f"p99 {formats.milliseconds(encode.p99)}",))
    encoder, detector = (f"{formats.milliseconds(t.p50)}, p99 {formats.milliseconds(t.p99)}" for t in (encode, detect))
    return Cell(whole, (f"encoder {encoder}", f"detector {detector}"))


def _paper_line(paper: PaperRow, names: Sequence[str]) -> Line:
    metrics = load_paper().metrics
    cells = [Cell(formats.number(paper.values.get(n), metrics[n].unit if n in metrics else None)) for n in names]
    latency = Cell(formats.milliseconds(paper.values.get("latency_ms")), ("RTX 3090",))
    return Line(name=paper.method, note=CAVEAT, cells=(*cells, latency))


def _footnotes(result: Result, paper: PaperRow | None, *, has_ratio: bool) -> list[str]:
    cost = result.cost
    intervals = "Intervals: 95 %, over people." + (" ×: ratio to the 'mean' floor." if has_ratio else "")
    threads = f"{cost.threads} thread" + ("s" if cost.threads > 1 else "")
    notes = [intervals, f"Latency: batch 1, {cost.anchors} anchors cached, {cost.device}, {threads}."]
    if paper is not None:
        notes.append(f"The last row is the paper's, for orientation only: {CAVEAT.removeprefix('paper: ')}.")
    reason = incomplete_reason(result)
    if reason is not None:
        notes.append(f"Not ranked on '{result.key.suite}': {reason}.")
    return notes


def _method_text(line: Line) -> Text:
    return Text.assemble((line.name, "bold"), "\n", (line.note, "dim"))


def _cell_text(cell: Cell) -> Text:
    text = Text(cell.value, style="bold")
    for small in filter(None, cell.below):
        text.append(f"\n{small}", style="not bold dim")
    return text
