"""How numbers and names are printed, the same in the terminal, in Markdown and in HTML."""

from collections.abc import Mapping
from typing import Any

from ufe_bench.schema import Budget, Result

UNKNOWN = "–"
"""Printed for what nobody measured. Never 0: an unknown cost is not a low cost."""


def number(value: float | None, unit: str | None = None) -> str:
    """Print a metric's value as the paper does: degrees with two decimals, the rest with three."""
    if value is None:
        return UNKNOWN
    decimals = 2 if unit == "deg" else 3
    if abs(value) >= 100:
        decimals = 1
    return f"{value:.{decimals}f}"


def interval(ci95: tuple[float, float] | None, unit: str | None = None, *, subjects: int = 2) -> str:
    """Print an interval; a single subject has none."""
    if ci95 is None or subjects < 2:
        return UNKNOWN
    return f"{number(ci95[0], unit)}–{number(ci95[1], unit)}"


def milliseconds(value: float | None) -> str:
    """Print a duration in ms with three significant digits."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def count(value: int | None) -> str:
    """Print a count as 950, 4.2 k or 3.9 M."""
    if value is None:
        return UNKNOWN
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.1f} {suffix}".replace(".0 ", " ")
    return str(value)


def ratio(value: float | None) -> str:
    """Print a ratio with two decimals."""
    return UNKNOWN if value is None else f"{value:.2f}"


def with_unit(label: str, unit: str | None) -> str:
    """Print a column's label with its unit, if it has one."""
    return f"{label} ({unit})" if unit else label


def short(component_id: str) -> str:
    """The name without its owner, as users type it."""
    return component_id.split("/", 1)[1]


def method_name(result: Result) -> str:
    """The method as users type it: `univ + late_fusion`; owners but `ufe` are shown, hypothetical methods have a *.

    What it was pre-trained by comes last, and in parentheses that only a linear map was trained.
    """
    components = result.key.components
    parts = [components.encoder.id]
    if components.calibrator is not None:
        parts.append(components.calibrator.id)
    if components.pretraining is not None:
        parts.append(components.pretraining.id)
    name = " + ".join(short(part) if part.startswith("ufe/") else part for part in parts)
    if result.training is not None and result.training.config.get("update", "full") != "full":
        name = f"{name} ({result.training.config['update']})"
    return f"{name}\u00a0*" if result.hypothetical else name


def budget_title(budget: Budget) -> str:
    """Heading of a table: which budget made the weights, and whether they are the released ones."""
    if budget.name == "none":
        return "Nothing trained"
    title = f"Budget {budget.name}, " + ("released weights" if budget.released else "trained by the user")
    return f"{title}, with {settings(budget.overrides)}" if budget.overrides else title


def settings(values: Mapping[str, Any]) -> str:
    """Print options as `name=value, …`, in order of name."""
    return ", ".join(f"{name}={values[name]}" for name in sorted(values))
