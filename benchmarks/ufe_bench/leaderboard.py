"""The leaderboard, from result files alone: `LEADERBOARD.md` and one self-contained `index.html`.

Equal results give equal bytes: nothing here reads a clock, a path outside the given folders, or the network.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ufe_bench import formats, plots
from ufe_bench.board import MEAN_FLOOR, RANKED_BY, Ground, Group, Row, build_board
from ufe_bench.paper import METRIC_NAMES, Paper, PaperTable, load_paper
from ufe_bench.schema import Result, load_result
from ufe_bench.table import markdown_table
from ufe_core.errors import DataError
from ufe_core.store import default_root, write_atomic

STUDY = "study.json"  # lies among results, and is none
FIGURES = "figures"  # of a study, beside its results: a page and its pictures

INTRO = (
    "How well each method drives an avatar from the cameras inside a headset, on people it was never trained "
    "on. Every number is a mean over people, with a 95 % bootstrap interval over people; lower is better "
    "unless marked ↑. Methods share a table only if they share the data, the people, the avatar and the "
    "training budget."
)
HYPOTHETICAL = "* Hypothetical: it is given what no headset could measure, and takes no rank."
FIGURES_TITLE = "Frames picked by rule: every method beside the truth"
PAPER_CAVEAT = (
    "Printed in the paper and given for orientation. They were measured on other data and on another avatar, "
    "so they compare with each other and with no number above."
)


@dataclass(frozen=True)
class BrokenFile:
    """A file that is no valid result, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """What was found in the result folders."""

    results: tuple[Result, ...]
    broken: tuple[BrokenFile, ...]
    duplicates: int
    figures: Mapping[str, Path]
    """Suite to the folder of its figures."""


@dataclass(frozen=True)
class Built:
    """What `build_leaderboard` wrote."""

    markdown: Path
    html: Path
    results: int
    duplicates: int
    broken: tuple[BrokenFile, ...]


def default_results() -> list[Path]:
    """The user's results and the published ones: in the package (a wheel), or beside it (a checkout)."""
    here = Path(__file__).parent
    packaged, checkout = here / "results", here.parent / "results"
    published = [packaged] if packaged.is_dir() else []
    # Beside an installed package a folder of that name would be someone else's.
    if not published and checkout.is_dir() and (here.parent.parent / "pyproject.toml").is_file():
        published = [checkout]
    return [default_root() / "results", *published]


def collect(folders: Sequence[Path]) -> Collection:
    """Read every `.json` below `folders`. Of equal `run_id`s the newest stays; broken files are reported.

    Figures of a suite are those of the first folder that has some. A folder that does not exist holds no results.
    """
    found: dict[str, Result] = {}
    figures: dict[str, Path] = {}
    broken: list[BrokenFile] = []
    duplicates = 0
    for folder in folders:
        for page in sorted(folder.glob(f"*/{FIGURES}/index.html")):
            figures.setdefault(page.parents[1].name, page.parent)
        for path in sorted(folder.rglob("*.json")):
            if path.name == STUDY:
                continue
            try:
                result = load_result(path)
            except DataError as error:
                inside = path.relative_to(folder).as_posix()
                broken.append(BrokenFile(inside, str(error).replace(str(path), path.name)))
                continue
            known = found.get(result.run_id)
            duplicates += known is not None
            if known is None or _age(result) > _age(known):
                found[result.run_id] = result
    return Collection(
        results=tuple(found[run_id] for run_id in sorted(found)),
        broken=tuple(sorted(broken, key=lambda b: (b.path, b.reason))),
        duplicates=duplicates,
        figures=figures,
    )


def build_leaderboard(folders: Sequence[Path], out: Path, *, ranked_by: str = RANKED_BY) -> Built:
    """Write `LEADERBOARD.md` and `index.html` into `out` from the result files below `folders`, and their figures."""
    collection = collect(folders)
    board = build_board(collection.results, ranked_by=ranked_by)
    out.mkdir(parents=True, exist_ok=True)
    markdown, html = out / "LEADERBOARD.md", out / "index.html"
    suites = {ground.key.suite for ground in board}
    pages = {suite: f"{FIGURES}/{suite}/index.html" for suite in collection.figures if suite in suites}
    for suite, page in pages.items():
        _copy_folder(collection.figures[suite], (out / page).parent)
    write_atomic(markdown, render_markdown(board, broken=collection.broken, figures=pages).encode())
    write_atomic(html, render_html(board, broken=collection.broken, figures=pages).encode())
    return Built(markdown, html, len(collection.results), collection.duplicates, collection.broken)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder in the place of what lies there."""
    if target.is_dir():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def render_markdown(
    board: Sequence[Ground], *, broken: Sequence[BrokenFile] = (), figures: Mapping[str, str] | None = None
) -> str:
    """The leaderboard as Markdown; `figures` are pages of suites, relative to it."""
    parts = ["# Leaderboard\n", f"{INTRO}\n"]
    if not board:
        parts.append("No results yet. `ufe bench` writes one.\n")
    for ground in board:
        parts.append(f"## {ground.key.suite}\n")
        parts.append(f"{ground_facts(ground)}\n")
        if figures and ground.key.suite in figures:
            parts.append(f"[{FIGURES_TITLE}]({figures[ground.key.suite]})\n")
        for group in ground.groups:
            parts.append(f"### {group.title}\n")
            parts.append(_group_markdown(group))
            if any(row.result.hypothetical for row in group.rows):
                parts.append(f"{HYPOTHETICAL}\n")
            parts += [f"Not ranked: {row.name}: {row.unranked}.\n" for row in group.rows if row.unranked]
    paper = load_paper()
    parts.append("## The paper's own numbers\n")
    parts.append(f"{paper.title}. {paper.venue}. <https://doi.org/{paper.doi}>\n\n{PAPER_CAVEAT}\n")
    for table in paper.tables.values():
        parts.append(f"### {table.title}\n")
        parts.append(_paper_markdown(paper, table))
    if broken:
        parts.append("## Files that are no valid results\n")
        parts.append("".join(f"- `{item.path}`: {item.reason}\n" for item in broken))
    return "\n".join(parts)


def render_html(
    board: Sequence[Ground], *, broken: Sequence[BrokenFile] = (), figures: Mapping[str, str] | None = None
) -> str:
    """The leaderboard as one page that needs nothing else; `figures` are pages of suites that it links to."""
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
        strip=plots.strip,
        upper=_column_upper,
        dot_plots=dot_plots,
        scatters=scatters,
        facts=ground_facts,
        runs=_runs,
        beside=_beside,
        budget_words=budget_words,
        paper_value=paper_value,
        machine=_machine,
        pretty=lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
        intro=INTRO,
        paper_caveat=PAPER_CAVEAT,
        mean_floor=formats.short(MEAN_FLOOR),
    )
    template = environment.get_template("leaderboard.html.j2")
    results = {row.result.run_id for ground in board for row in _runs(ground)}
    return template.render(
        board=board, broken=broken, paper=load_paper(), results=len(results), figures=figures or {},
        figures_title=FIGURES_TITLE, hypothetical=HYPOTHETICAL,
    )  # fmt: skip


def ground_facts(ground: Ground) -> str:
    """One line that says what all rows of a ground share."""
    key = ground.key
    return (
        f"{key.split.subjects} people of split '{key.split.id}' · {key.data.frames} frames each at "
        f"{key.data.size} px · source {key.components.source.id} · avatar {key.components.decoder.id} · "
        f"protocol {key.protocol} · data {key.data.fingerprint[:12]}"
    )


def budget_words(group: Group) -> str:
    """One line that says what the budget of a group allows."""
    budget = group.budget
    if budget.name == "none":
        return "Nothing is trained: the floors that every method should beat."
    made = "Weights released with ufe" if budget.released else "Weights trained by who ran the benchmark"
    work = f"{budget.people} people × {budget.frames} frames at {budget.size} px, {budget.steps:,} steps"
    return f"{made}: {work}."


def dot_plots(group: Group) -> list[tuple[str, str]]:
    """A plot of every subject for each metric of a group, as (label, SVG)."""
    drawn = []
    for name, info in group.metrics.items():
        rows = [
            plots.DotRow(
                name=f"{row.name} ({row.variant})" if row.variant else row.name,
                values=row.result.values(name),
                mean=row.result.summary[name].mean,
                ci95=row.result.summary[name].ci95,
                is_floor=row.is_floor,
            )
            for row in group.rows
            if row.unranked is None and name in row.result.summary
        ]
        if rows:
            drawn.append((info.label, plots.dot_plot(rows, label=info.label, unit=info.unit)))
    return drawn


def scatters(group: Group) -> list[tuple[str, str]]:
    """Error against latency, one plot for each machine that was timed, as (machine, SVG)."""
    if group.ranked_by not in group.metrics or group.metrics[group.ranked_by].higher_is_better:
        return []
    machines: dict[str, list[plots.Point]] = {}
    for row in group.rows:
        cost = row.result.cost
        if row.rank is None or cost.latency_ms is None:
            continue
        summary = row.result.summary[group.ranked_by]
        name = f"{row.name} ({row.variant})" if row.variant else row.name
        point = plots.Point(row.rank, name, cost.latency_ms, summary.mean, summary.ci95)
        machines.setdefault(_machine(row), []).append(point)
    info = group.metrics[group.ranked_by]
    # A single point compares nothing.
    return [
        (machine, plots.scatter(machines[machine], label=info.label, unit=info.unit))
        for machine in sorted(machines)
        if len(machines[machine]) > 1
    ]


def _machine(row: Row) -> str:
    cost = row.result.cost
    return f"{cost.device}, {cost.threads} thread{'s' if cost.threads > 1 else ''}"


def _age(result: Result) -> tuple[str, str]:
    return result.created, result.model_dump_json()


def _runs(ground: Ground) -> list[Row]:
    """Every run of a ground once (floors stand in several groups), earlier ones last."""
    rows = [row for group in ground.groups for row in group.rows]
    earlier = [row for group in ground.groups for row in group.earlier]
    return list({row.result.run_id: row for row in [*reversed(earlier), *reversed(rows)]}.values())[::-1]


def _column_upper(group: Group, metric: str) -> float:
    """Right end of a column's small bars: what the widest interval of its rows needs."""
    rows = [row.result.summary for row in group.rows if row.unranked is None]
    return max((summary[metric].ci95[1] for summary in rows if metric in summary), default=0.0)


def _beside(board: Iterable[Ground]) -> Mapping[tuple[str, str], str]:
    """(table, row) of the paper to the name of our row that it stands beside."""
    rows = [row for ground in board for group in ground.groups for row in group.rows]
    return {(row.paper.table, row.paper.id): row.name for row in rows if row.paper is not None}


def _group_markdown(group: Group) -> str:
    heads = ["#", "Method"]
    for info in group.metrics.values():
        heads.append(formats.with_unit(info.label, info.unit) + (" ↑" if info.higher_is_better else ""))
    heads += ["× mean", "Latency (ms)", "Parameters", "Run"]
    rows = [_row_markdown(group, row) for row in group.rows]
    note = f"Ranked by {group.metrics[group.ranked_by].label}" if group.ranked_by in group.metrics else "Not ranked"
    return (
        markdown_table(heads, rows, left=2)
        + f"\n{note}. {budget_words(group)} "
        + "**Bold**: no ranked method is clearly better (paired over people).\n"
    )


def _row_markdown(group: Group, row: Row) -> list[str]:
    cells: list[str] = []
    for name, info in group.metrics.items():
        summary = row.result.summary.get(name)
        if summary is None or row.unranked is not None:
            cells.append(formats.UNKNOWN)
            continue
        value = formats.number(summary.mean, info.unit)
        value = f"**{value}**" if name in row.leading else value
        cells.append(f"{value} [{formats.interval(summary.ci95, info.unit, subjects=summary.subjects)}]")
    name = f"{row.name} ({row.variant})" if row.variant else row.name
    return [
        str(row.rank) if row.rank is not None else "floor" if row.is_floor and not row.unranked else formats.UNKNOWN,
        name,
        *cells,
        formats.ratio(row.ratios.get(group.ranked_by)),
        formats.milliseconds(row.result.cost.latency_ms),
        formats.count(row.result.cost.parameters),
        row.result.run_id,
    ]


def _paper_markdown(paper: Paper, table: PaperTable) -> str:
    heads = ["Method", "Input"]
    heads += [formats.with_unit(paper.metrics[n].label, paper.metrics[n].unit) for n in table.metrics]
    rows = [
        [
            row.method,
            row.input_type,
            *(paper_value(paper, row.values.get(name), name) for name in table.metrics),
        ]
        for row in table.rows
    ]
    return markdown_table(heads, rows, left=2)


def paper_value(paper: Paper, value: float | None, metric: str) -> str:
    """A number as the paper prints it."""
    if METRIC_NAMES[metric] == "latency_ms":
        return formats.UNKNOWN if value is None else f"{value:.2f}"
    return formats.number(value, paper.metrics[metric].unit)
