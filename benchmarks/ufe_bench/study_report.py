"""What a study has found, as a page and for scripts; and the files of both, with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ufe_bench import formats
from ufe_bench.aggregate import PairedDifference
from ufe_bench.board_markdown import HYPOTHETICAL
from ufe_bench.learning import Learning, draw_learning, learning_of
from ufe_bench.schema import MetricInfo, Result, Trial
from ufe_bench.study import Cell, Study
from ufe_bench.study_picture import draw
from ufe_bench.suite import Claim
from ufe_bench.table import markdown_table
from ufe_core.store import write_atomic

_PICTURE, _LEARNING = "study.png", "learning.png"
_UNSTEADY = "†"
_ONE_SEED = "Where rows have one seed each, another seed may turn what is near."


def write_report(study: Study, folder: Path) -> Path | None:
    """Write `study.md`, `study.json`, `study.png` and `learning.png` into a folder; returns the first.

    Nothing is written, and a report that is there stays, where no row has a result: it returns None.
    """
    if all(cell.result is None for cell in study.cells):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "study.json", (json.dumps(as_json(study), indent=1) + "\n").encode())
    learning = learning_of(study)
    pictures = {_PICTURE: draw(study), _LEARNING: draw_learning(learning) if learning else None}
    for name, drawn in pictures.items():
        if drawn is None:
            (folder / name).unlink(missing_ok=True)  # of a report before
        else:
            write_atomic(folder / name, drawn)
    path = folder / "study.md"
    picture = _PICTURE if pictures[_PICTURE] is not None else None
    write_atomic(path, markdown(study, picture=picture, learning=learning).encode())
    return path


def markdown(study: Study, *, picture: str | None = None, learning: Sequence[Learning] = ()) -> str:
    """The study as a page: a table with the paper's numbers below ours, differences to the base row, agreement."""
    suite, metrics = study.suite, study.metrics
    table, numbers = study.paper()
    beside = ", ours and the paper's" if numbers else ""
    heads = ["Row", *(_heading(info) for info in metrics.values()), "Latency (ms)", "Parameters", "Trained (s)", "Run"]
    rows: list[list[str]] = []
    reads = {cell.row.name: cell.row.reads or _words(cell.inputs) for cell in study.cells}
    looks = len(set(reads.values())) > 1
    theirs = {row.id: row.input_type for row in table.rows} if table is not None else {}
    first = any(cell.row.pretraining for cell in study.cells)
    before = (["Reads"] if looks else []) + (["Before labels"] if first else [])
    heads[1:1] = before
    for cell in study.cells:
        seen = ([reads[cell.row.name]] if looks else []) + ([_learned_before(cell.result)] if first else [])
        rows.append([cell.row.title, *seen, *_cells(study, cell)])
        if cell.row.name in numbers:
            printed = [formats.number(numbers[cell.row.name].get(name), info.unit) for name, info in metrics.items()]
            latency = numbers[cell.row.name].get("latency_ms")
            seen = ([theirs[str(cell.row.paper)]] if looks else []) + ([""] if first else [])
            rows.append(["- the paper", *seen, *printed, formats.milliseconds(latency), "", "", ""])
    for floor in study.floors:
        seen = (["nothing"] if looks else []) + ([""] if first else [])
        rows.append([f"{formats.method_name(floor)} (floor)", *seen, *_measured(floor, metrics)])
    parts = [f"# {suite.id}: {suite.summary}\n", f"{_conditions(study)}\n"]
    if picture is not None:
        parts.append(f"![Every row of the study{beside}]({picture})\n")
    parts.append(markdown_table(heads, rows, left=1 + len(before)))
    other = " The paper's numbers were measured on other data." if numbers else ""
    parts.append(f"Means over people, 95 % intervals over people.{other}\n")
    parts += _latencies(study)
    if any(cell.result is not None and cell.result.hypothetical for cell in study.cells):
        parts.append(f"\\{HYPOTHETICAL}\n")
    parts += _seeds(study)
    parts += _differences(study)
    parts += _claims(study)
    if suite.along is None:
        parts.append(_rankings(study))
    parts += _slices(study)
    parts += _searches(study)
    parts += _learned(learning)
    if table is not None:
        parts.append(_agreements(study))
    failed = [f"- {cell.row.title}: {cell.error}" for cell in study.cells if cell.error is not None]
    failed += [f"- {name} (floor): {cause}" for name, cause in study.failed.items()]
    if failed:
        parts.append("Rows without a result:\n\n" + "\n".join(failed) + "\n")
    return "\n".join(parts)


def as_json(study: Study) -> dict[str, Any]:
    """The same for scripts."""
    table, numbers = study.paper()
    rows = []
    for cell in study.cells:
        result = cell.result
        row: dict[str, Any] = {"name": cell.row.name, "title": cell.row.title, "error": cell.error,
                               "inputs": list(cell.inputs)}  # fmt: skip
        if result is not None:
            row |= {
                "run_id": result.run_id, "command": result.command, "parameters": result.cost.parameters,
                "latency_ms": result.cost.latency_ms, "timed_in": result.cost.timed_in,
                "metrics": {name: summary.model_dump(mode="json") for name, summary in result.summary.items()},
                "paper": dict(numbers[cell.row.name]) if cell.row.name in numbers else None,
                "against_base": {
                    name: vars(difference) for name in result.metrics
                    if (difference := study.against_base(cell, name)) is not None
                },
            }  # fmt: skip
        rows.append(row)
    rankings = {
        name: [
            {"name": cell.row.name, "less_next": None if step is None else vars(step)}
            for cell, step in study.ranking(name)
        ]
        for name in study.metrics
    }
    agreement = {name: vars(found) for name in study.metrics if (found := study.agreement(name)) is not None}
    claims = [
        {"says": claim.says, "at": at, "better": better, "worse": worse, "differences": {
            name: vars(difference) for name in study.metrics
            if claim.is_of(name) and (difference := study.difference(better, worse, name)) is not None
        }}
        for claim in study.suite.claims for at, better, worse in study.claimed(claim)
    ]  # fmt: skip
    return {
        "suite": study.suite.id, "base": study.suite.base, "paper": table.id if table is not None else None,
        "rows": rows, "rankings": rankings, "claims": claims, "rank_agreement": agreement,
        "floors": [floor.run_id for floor in study.floors], "failed_floors": dict(study.failed),
    }  # fmt: skip


def _heading(info: MetricInfo) -> str:
    return formats.with_unit(info.label, info.unit) + (" ↑" if info.higher_is_better else "")


def _cells(study: Study, cell: Cell) -> list[str]:
    if cell.result is None:
        return [formats.UNKNOWN] * (len(study.metrics) + 4)
    return _measured(cell.result, study.metrics)


def _measured(result: Result, metrics: Mapping[str, MetricInfo]) -> list[str]:
    cells = []
    for name, info in metrics.items():
        summary = result.summary.get(name)
        if summary is None:
            cells.append(formats.UNKNOWN)
            continue
        spread = formats.interval(summary.ci95, info.unit, subjects=summary.subjects)
        cells.append(f"{formats.number(summary.mean, info.unit)} [{spread}]")
    cost, training = result.cost, result.training
    latency = formats.milliseconds(cost.latency_ms) + ("" if cost.is_steady else f" {_UNSTEADY}")
    if cost.detect_ms is not None:
        latency += f" (detector {formats.milliseconds(cost.detect_ms.p50)})"
    return [
        *cells, latency, formats.count(result.cost.parameters),
        f"{training.seconds:.0f}" if training is not None and training.seconds else "", result.run_id,
    ]  # fmt: skip


def _latencies(study: Study) -> list[str]:
    """Whether latencies compare, and which of them the machine disturbed."""
    costs = [c.result.cost for c in study.cells if c.result is not None and c.result.cost.encode_ms is not None]
    passes = {cost.timed_in for cost in costs}
    parts = []
    if len(passes) > 1 or (len(costs) > 1 and None in passes):
        parts.append("Latencies were measured at several times, beside whatever else ran then: they do not compare.\n")
    elif passes - {None}:
        parts.append("Latencies were measured in one pass, all rows in turn.\n")
    if not all(cost.is_steady for cost in (*costs, *(floor.cost for floor in study.floors))):
        parts.append(f"{_UNSTEADY} Latency on a busy machine: one call in a hundred took over three times as long.\n")
    return parts


def _conditions(study: Study) -> str:
    results = [cell.result for cell in study.cells if cell.result is not None]
    if not results:
        return "No row has a result."
    key = results[0].key
    budget = key.budget
    counts = sorted({result.key.budget.people for result in results if result.key.budget.people})
    people = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{budget.people}"
    trained = "every row trained alike" if study.suite.train else "weights trained once"
    return (
        f"{key.split.subjects} people that no training saw, {key.data.frames} frames each at {key.data.size} px; "
        f"{trained}: {people} people × {budget.frames} frames, {budget.steps:,} steps (budget {budget.name}"
        f"{', released' if budget.released else ''}). Avatar {formats.short(key.components.decoder.id)}."
    )


def _seeds(study: Study) -> list[str]:
    """What other seeds of a method give, where some were trained."""
    rows, alike = [], []
    for cell in study.methods:
        seeds = study.seeds(cell.row.name)
        if len(seeds) < 2:
            continue
        begun = [_pretraining_of(result) for result in seeds]
        if None not in begun and len(set(begun)) < len(begun):
            alike.append(f"{cell.row.title} ({len(seeds)} seeds, {len(set(begun))} pre-trained)")
        found = [[fmean(values) for s in seeds if (values := s.values(name).values())] for name in study.metrics]
        rows.append([cell.row.title, str(len(seeds)), *(
            formats.UNKNOWN if not means else
            f"{formats.number(fmean(means), info.unit)} [{formats.number(min(means), info.unit)} to "
            f"{formats.number(max(means), info.unit)}]"
            for means, info in zip(found, study.metrics.values(), strict=True)
        )])  # fmt: skip
    if not rows:
        return []
    heads = ["Method", "Seeds", *(_heading(info) for info in study.metrics.values())]
    return [
        "## Seeds\n",
        "Mean over seeds, with the least and the most that one of them gives. In what follows a method is all its "
        "seeds, and intervals are over people and seeds; one seed says nothing of what another would give.\n",
        markdown_table(heads, rows, left=1),
        *([f"Seeds of the training on labels, after fewer pre-trainings than there are seeds: {'; '.join(alike)}. What "
           "another pre-training would give is not in their intervals.\n"] if alike else []),
    ]  # fmt: skip


def _pretraining_of(result: Result) -> str | None:
    """Which pre-trained weights a row began from."""
    training = result.training
    return None if training is None or training.pretraining is None else training.pretraining.get("sha256")


def _differences(study: Study) -> list[str]:
    metrics, titles = study.metrics, {row.name: row.title for row in study.suite.rows}
    bases = [study.base_of(cell) for cell in study.cells]
    several = len({base for base in bases if base is not None}) > 1
    rows = []
    for cell, base in zip(study.cells, bases, strict=True):
        if base is None:
            continue
        differences = [study.against_base(cell, name) for name in metrics]
        rows.append([cell.row.title, *([titles[base]] if several else []), *(
            formats.UNKNOWN if d is None else f"{_signed(d, info)} {_share(study, base, name, d)}"
            for d, (name, info) in zip(differences, metrics.items(), strict=True)
        )])  # fmt: skip
    if not rows:
        return []
    heads = ["Row", *(["Less"] if several else []), *(_heading(info) for info in metrics.values())]
    to = "the row named beside it" if several else f"'{titles[next(base for base in bases if base is not None)]}'"
    note = (
        f"Difference to {to}, paired over people, with 95 % interval, and in per cent of it; **bold** where it "
        "leaves out zero.\n\n"
    )
    return [note + markdown_table(heads, rows, left=2 if several else 1)]


def _claims(study: Study) -> list[str]:
    """Each thing that the paper says of two methods, by metric: the difference, and whether it holds here."""
    claims = study.suite.claims
    metrics = {name: info for name, info in study.metrics.items() if any(claim.is_of(name) for claim in claims)}
    heads = [_heading(info) for info in metrics.values()]
    tested = [
        (
            claim.says,
            [[at, *_tested(study, claim, better, worse, metrics)] for at, better, worse in study.claimed(claim)],
        )
        for claim in claims
    ]
    tested = [(says, rows) for says, rows in tested if rows]
    if not tested:
        return []
    note = (
        "The one less the other, paired over people; a claim holds or fails where the interval leaves out zero. "
        f"{_ONE_SEED}\n"
    )
    parts = ["## What the paper says, put to the test\n", note]
    if study.suite.along is None:
        rows = [[says, *cells] for says, ((_, *cells),) in tested]
        return [*parts, markdown_table(["Less error with", *heads], rows, left=1)]
    for says, rows in tested:
        parts += [f"{says}:\n", markdown_table([study.suite.along, *heads], rows, left=1)]
    return parts


def _tested(
    study: Study, claim: Claim, better: str, worse: str, metrics: Mapping[str, MetricInfo]
) -> list[str]:  # fmt: skip
    found = [
        (study.difference(better, worse, name) if claim.is_of(name) else None, name, info)
        for name, info in metrics.items()
    ]
    return [
        formats.UNKNOWN if d is None else f"{_signed(d, info)} {_share(study, worse, name, d)}, {_verdict(d, info)}"
        for d, name, info in found
    ]


def _verdict(difference: PairedDifference, info: MetricInfo) -> str:
    if not difference.is_clear:
        return "cannot be told"
    return "holds" if difference.favours_first(higher_is_better=info.higher_is_better) else "fails"


def _learned_before(result: Result | None) -> str:
    """On how much a method learned before it saw labels."""
    first = result.training.pretraining if result is not None and result.training is not None else None
    if not first:
        return ""
    if "frames_seen" not in first:
        return "weights of others"
    return f"{first['people']:,} people, {first['frames_seen']:,} frames in {first['config']['steps']:,} steps"


def _rankings(study: Study) -> str:
    """For each metric the rows, best first, and which of them are clearly better than the next."""
    lines = []
    for name, info in study.metrics.items():
        order = study.ranking(name)
        words = [
            cell.row.title + ("" if k + 1 == len(order) else " **<**" if step is not None and step.is_clear else " ≈")
            for k, (cell, step) in enumerate(order)
        ]
        if len(order) > 1:
            lines.append(f"- {info.label}: {' '.join(words)}")
    if not lines:
        return ""
    return (
        "Order of the rows, best first; **<** where a row is better than the next by an interval that leaves out zero "
        f"(paired over people), ≈ where not. {_ONE_SEED}\n\n" + "\n".join(lines) + "\n"
    )


def _words(inputs: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in inputs)


def _slices(study: Study) -> list[str]:
    """A table for each metric: rows by kind of segment and by condition, means over people."""
    people = [subject for cell in study.cells if cell.result for subject in cell.result.subjects]
    if not any(subject.slices for subject in people):
        return []
    parts = ["## By segment and condition\n"]
    for metric, info in study.metrics.items():
        names = sorted({name for subject in people for name, values in subject.slices.items() if metric in values})
        rows = []
        for cell in study.cells:
            if cell.result is None or not any(metric in v for s in cell.result.subjects for v in s.slices.values()):
                continue
            found = [
                [s.slices[name][metric] for s in cell.result.subjects if metric in s.slices.get(name, {})]
                for name in names
            ]
            means = [formats.number(fmean(values), info.unit) if values else formats.UNKNOWN for values in found]
            rows.append([cell.row.title, *means])
        if rows:
            heads = [_heading(info), *(name.partition(":")[2].replace("_", " ") for name in names)]
            parts.append(markdown_table(heads, rows, left=1))
    return parts


def _searches(study: Study) -> list[str]:
    """The scores of each row's search for its training options; nothing where none was made."""
    found = {
        cell.row.title: cell.result.trials for cell in study.cells
        if cell.result is not None and cell.row.tuned_as is None
    }  # fmt: skip
    shared = [f"{row.title} as {study.suite.row(row.tuned_as).title}" for row in study.suite.rows if row.tuned_as]
    searched = {title: {_options(trial): trial.score for trial in trials} for title, trials in found.items() if trials}
    if not searched:
        return []
    tried = list(dict.fromkeys(options for scores in searched.values() for options in scores))
    rows, at_an_end = [], 0
    for title, scores in searched.items():
        best = min(score for score in scores.values() if score is not None)
        texts = {options: _score(score, best) for options, score in scores.items()}
        rows.append([title, *(texts.get(options, formats.UNKNOWN) for options in tried)])
        at_an_end += best in (scores.get(tried[0]), scores.get(tried[-1]))
    ends = f" {at_an_end} of {len(rows)} rows chose the first or the last of what was tried." if at_an_end else ""
    return [
        "## The search for training options\n",
        "Geometric mean of the errors on training people kept apart, after a training without them; the least was "
        f"taken, in **bold**.{ends}\n",
        markdown_table(["Row", *tried], rows, left=1),
        *([f"Trained with what another row's search chose: {'; '.join(shared)}.\n"] if shared else []),
    ]


def _learned(learning: Sequence[Learning]) -> list[str]:
    """A picture of the rows' losses, and by how much these still fell."""
    if not learning:
        return []
    rows = [
        [row.title, f"{row.steps[-1]:,}", *(f"{loss:.3g}" for loss in row.thirds), f"{100 * row.fell:.0f} %"]
        for row in learning
    ]
    heads = ["Row", "Steps", "first third", "middle third", "last third", "fell, middle to last"]
    return [
        "## How rows learned\n",
        "The loss that a row was trained with, all its terms, on the batches that it learned from, as a running mean; "
        "and its means over thirds of the steps. The learning rate falls to nothing over them.\n",
        f"![Loss of every row against the step]({_LEARNING})\n",
        markdown_table(heads, rows, left=1),
    ]


def _score(score: float | None, best: float) -> str:
    if score is None:
        return "failed"
    return f"**{score:.3f}**" if score == best else f"{score:.3f}"


def _options(trial: Trial) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in trial.training.items())


def _share(study: Study, base: str, metric: str, difference: PairedDifference) -> str:
    """A difference to a row in per cent of that row's mean."""
    whole = fmean(study.values(metric)[base].values())
    return f"({100 * difference.mean / whole:+.0f} %)" if whole else ""


def _signed(difference: PairedDifference, info: MetricInfo) -> str:
    decimals = 2 if info.unit == "deg" else 3
    low, high = difference.ci95
    text = f"{difference.mean:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"
    return f"**{text}**" if difference.is_clear else text


def _agreements(study: Study) -> str:
    lines = []
    for name, info in study.metrics.items():
        found = study.agreement(name)
        if found is not None:
            lines.append(
                f"- {info.label}: tau {found.tau:.2f} [{found.ci95[0]:.2f}, {found.ci95[1]:.2f}] over {found.rows} rows"
            )
    if not lines:
        return ""
    return (
        "Agreement of the rows' order with the paper's (Kendall's tau, 95 % over people):\n\n" + "\n".join(lines) + "\n"
    )
