"""The leaderboard as Markdown, and the sentences that its pages share with it."""

from collections.abc import Sequence

from ufe_bench import formats
from ufe_bench.board import Extras, Ground, Group, Row
from ufe_bench.paper import METRIC_NAMES, Paper, PaperTable, load_paper
from ufe_bench.schema import Data
from ufe_bench.table import markdown_table

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
NOTHING = Extras()


def render_markdown(board: Sequence[Ground], extras: Extras = NOTHING) -> str:
    """The leaderboard as Markdown."""
    parts = ["# Leaderboard\n", f"{INTRO}\n"]
    if not board:
        parts.append("No results yet. `ufe bench` writes one.\n")
    for ground in board:
        parts.append(f"## {ground.key.suite}\n")
        parts.append(f"{ground_facts(ground)}\n")
        if ground.key.suite in extras.figures:
            parts.append(f"[{FIGURES_TITLE}]({extras.figures[ground.key.suite]})\n")
        for group in ground.groups:
            parts.append(f"### {group.title}\n")
            parts.append(_group_markdown(group))
            if any(row.result.hypothetical for row in group.rows):
                parts.append(f"\\{HYPOTHETICAL}\n")  # no item of a list
            parts += [f"Not ranked: {row.name}: {row.unranked}.\n" for row in group.rows if row.unranked]
    if extras.failures:
        parts.append("## Without a result\n")
        parts.append("".join(f"- {one.method} on {one.suite}, {one.stage}: {one.cause}\n" for one in extras.failures))
    paper = load_paper()
    parts.append("## The paper's own numbers\n")
    parts.append(f"{paper.title}. {paper.venue}. <https://doi.org/{paper.doi}>\n\n{PAPER_CAVEAT}\n")
    for table in paper.tables.values():
        parts.append(f"### {table.title}\n")
        parts.append(_paper_markdown(paper, table))
    if extras.broken:
        parts.append("## Files that are no valid results\n")
        parts.append("".join(f"- `{item.path}`: {item.reason}\n" for item in extras.broken))
    return "\n".join(parts)


def data_words(data: Data) -> str:
    """Which pixels and labels these are, in few letters."""
    return data.edition if data.version else data.fingerprint[:12]


def ground_facts(ground: Ground) -> str:
    """One line that says what all rows of a ground share."""
    key = ground.key
    enrolled = "" if key.data.enrolment == "own" else f" · enrolled: {key.data.enrolment.replace('_', ' ')}"
    return (
        f"{key.split.subjects} people of split '{key.split.id}' · {key.data.frames} frames each at "
        f"{key.data.size} px · source {key.components.source.id} · avatar {key.components.decoder.id} · "
        f"protocol {key.protocol} · data {data_words(key.data)}{enrolled}"
    )


def budget_words(group: Group) -> str:
    """One line that says what the budget of a group allows."""
    budget = group.budget
    if budget.name == "none":
        return "No steps are taken: floors that every method should beat, and methods that need none."
    made = "Weights released with ufe" if budget.released else "Weights trained by who ran the benchmark"
    work = f"{budget.people} people × {budget.frames} frames at {budget.size} px, {budget.steps:,} steps"
    return f"{made}: {work}."


def _group_markdown(group: Group) -> str:
    heads = ["#", "Method"]
    for info in group.metrics.values():
        heads.append(formats.with_unit(info.label, info.unit) + (" ↑" if info.higher_is_better else ""))
    heads += ["× mean", "Latency (ms)", "Parameters", "Run"]
    rows = [_row_markdown(group, row) for row in group.rows]
    return (
        markdown_table(heads, rows, left=2)
        + f"\nRanked by {group.metrics[group.ranked_by].label}. {budget_words(group)} "
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
    return [
        str(row.rank) if row.rank is not None else "floor" if row.is_floor and not row.unranked else formats.UNKNOWN,
        row.title,
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
