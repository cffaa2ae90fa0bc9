"""A picture of a training run: its losses against the step, from the log that lies beside the weights."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ufe_core.errors import ArtifactError
from ufe_core.store import write_atomic

_TITLES = {
    "total": "all, weighted", "photometric": "photometric, of 255", "coverage": "opacity, of 255",
    "texture": "texture, of 255", "geometry": "geometry", "gaze": "gaze, rad²", "kl": "KL divergence",
    "volume": "primitives' volume", "code": "distance of codes", "adversarial": "adversarial",
    "critic": "discriminator's own",
}  # fmt: skip
_COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_NO_LOSS = ("step", "learning_rate")
_LOG_BELOW = 0.5  # a loss that falls below this share of its maximum is clearer on a log scale


def read_log(log: Path) -> tuple[list[int], dict[str, list[float]]]:
    """The steps of a `log.csv`, and each loss term at them.

    Raises:
        ArtifactError: the log cannot be read.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(log.read_text())))
        names = [name for name in (rows[0] if rows else {}) if name not in _NO_LOSS]
        return [int(float(row["step"])) for row in rows], {name: [float(row[name]) for row in rows] for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"Training log '{log}' cannot be read ({type(error).__name__}: {error}).") from error


def draw_curve(log: Path, picture: Path) -> bool:
    """Draw `log.csv` as a PNG, one line for each loss term.

    Returns:
        False, and draws nothing, where the log has fewer than two rows or every loss in it is zero.

    Raises:
        ArtifactError: the log cannot be read.
    """
    steps, lines = read_log(log)
    lines = {name: values for name, values in lines.items() if any(value != 0 for value in values)}
    if len(steps) < 2 or not lines:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(2.7 * len(lines), 2.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for k, axes in enumerate(figure.subplots(1, len(lines), squeeze=False)[0]):
        name, values = list(lines.items())[k]
        title, colour = _TITLES.get(name, name), _COLOURS[k % len(_COLOURS)]
        axes.plot(steps, values, color=colour, linewidth=1.2)
        if 0 < min(values) < _LOG_BELOW * max(values):
            axes.set_yscale("log")
            if min(values) > 0.05 * max(values):  # less than a decade or so: plain numbers on the finer ticks too
                axes.yaxis.set_minor_formatter(ScalarFormatter())
                axes.tick_params(axis="y", which="minor", labelsize=6)
            else:
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(ScalarFormatter())
        else:
            axes.set_ylim(min(0, *values), None)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.set_xlim(0, steps[-1])
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{values[-1]:.3g}", fontsize=9, loc="right", color=colour)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_atomic(picture, data.getvalue())
    return True
