"""How the rows of a study learned: their losses against the step, and how much these still fell at the end."""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ufe_bench.study import Study
from ufe_core.errors import ArtifactError
from ufe_core.training.curve import read_log

_COLUMNS = 4
_TITLE_WIDTH = 40  # characters
_COLOUR = "#0072b2"


@dataclass(frozen=True)
class Learning:
    """A row's loss, all terms weighted, on the batches that it learned from: a running mean, by step."""

    title: str
    steps: Sequence[int]
    losses: Sequence[float]

    @property
    def thirds(self) -> tuple[float, float, float]:
        """Mean losses of the first, the middle and the last third of the steps."""
        last = self.steps[-1]
        parts: list[list[float]] = [[], [], []]
        for step, loss in zip(self.steps, self.losses, strict=True):
            parts[min(2, 3 * (step - 1) // last)].append(loss)
        first, middle, final = (fmean(part) for part in parts)
        return first, middle, final

    @property
    def fell(self) -> float:
        """By which share the loss fell from the middle third of the steps to the last."""
        _, middle, final = self.thirds
        return 1 - final / middle


def learning_of(study: Study, fewest: int = 9) -> list[Learning]:
    """How each row learned that was trained here, once where several rows measure one training.

    A log of fewer lines than `fewest` says too little; one that cannot be read is told of and left out.
    """
    found: dict[Path, Learning] = {}
    for cell in study.cells:
        if cell.log is None or cell.log in found or not cell.log.is_file():
            continue
        try:
            steps, terms = read_log(cell.log)
        except ArtifactError as error:
            logging.getLogger("ufe").warning("%s Row %r is left out of what is told of learning.", error, cell.row.name)
            continue
        if len(steps) >= fewest and "total" in terms:
            found[cell.log] = Learning(cell.row.title, steps, terms["total"])
    return list(found.values())


def draw_learning(rows: Sequence[Learning]) -> bytes:
    """A PNG with a panel for each row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.7 * columns, 1.9 * lines), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_visible(False)
    for axes, row in zip(panels, rows, strict=False):
        axes.set_visible(True)
        axes.plot(row.steps, row.losses, color=_COLOUR, linewidth=1)
        axes.set_title(textwrap.fill(row.title, _TITLE_WIDTH), fontsize=8, loc="left")
        axes.set_xlim(0, row.steps[-1])
        axes.set_ylim(0, None)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("step", fontsize=8)
    figure.supylabel("loss, all terms", fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
