"""Averages over people and their intervals, differences of methods, orders of methods.

The sampling unit is the person. Frames of one person are averaged first, persons are averaged next, and every
interval is a bootstrap over persons, so that a person with many frames neither counts more nor makes an
interval look narrower than it is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ufe_core.bootstrap import RESAMPLES, SEED, FloatArray, bootstrap_interval, interval, resampled_indices
from ufe_core.errors import DataError

_FEWEST_RANKED = 3  # rows: two are in the same order as others half of the time


class Summary(BaseModel):
    """One metric over the subjects of a run, in the metric's own unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean: float = Field(description="Mean over subjects of the subject means")
    ci95: tuple[float, float] = Field(description="95 % percentile bootstrap interval of the mean, over subjects")
    median: float = Field(description="Median over subjects")
    worst: float = Field(description="Value of the worst subject, by the metric's direction")
    worst_subject: str = Field(description="Id of the worst subject; the first by id among equals")
    subjects: int = Field(ge=1, description="How many subjects the numbers above stand on")


@dataclass(frozen=True)
class PairedDifference:
    """Mean of `a - b` over the same subjects, with its 95 % bootstrap interval."""

    mean: float
    ci95: tuple[float, float]
    subjects: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero; never with a single subject."""
        return self.subjects > 1 and not self.ci95[0] <= 0.0 <= self.ci95[1]

    def favours_first(self, *, higher_is_better: bool) -> bool:
        """Whether `a` is clearly better than `b`."""
        return self.is_clear and (self.mean > 0) == higher_is_better


def summarise(subject_values: Mapping[str, float], *, higher_is_better: bool = False) -> Summary:
    """Reduce subject means to a table cell. The order of `subject_values` does not matter.

    Args:
        subject_values: Subject id to subject mean; at least one, all finite.
        higher_is_better: Which end is the worst subject.
    """
    subjects, values = _sorted_values(subject_values)
    worst = int(values.argmin() if higher_is_better else values.argmax())
    return Summary(
        mean=float(values.mean()),
        ci95=bootstrap_interval(values),
        median=float(np.median(values)),
        worst=float(values[worst]),
        worst_subject=subjects[worst],
        subjects=len(subjects),
    )


def summarise_all(subjects: Iterable[Any], metrics: Mapping[str, Any]) -> dict[str, Summary]:
    """Summarise every metric over the subjects that have it; a metric that no subject has is left out.

    Args:
        subjects: `schema.SubjectResult`s.
        metrics: Metric name to `schema.MetricInfo`.
    """
    rows = list(subjects)
    values = {name: {row.id: row.metrics[name] for row in rows if name in row.metrics} for name in metrics}
    return {
        name: summarise(values[name], higher_is_better=metrics[name].higher_is_better)
        for name in metrics
        if values[name]
    }


def paired_difference(a: Mapping[str, float], b: Mapping[str, float]) -> PairedDifference:
    """Bootstrap the per-subject differences `a - b`.

    Raises:
        DataError: The two do not cover the same subjects.
    """
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise DataError(f"Paired comparison needs the same subjects on both sides; only one side has {odd[:5]}.")
    _, values = _sorted_values({subject: a[subject] - b[subject] for subject in a})
    return PairedDifference(float(values.mean()), bootstrap_interval(values), len(values))


def pooled_difference(a: Sequence[Mapping[str, float]], b: Sequence[Mapping[str, float]]) -> PairedDifference:
    """The difference `a - b` of two methods that were each trained with one or more seeds.

    Persons are drawn for both alike, and for each method its seeds: the interval is of other people and of other seeds
    of the methods that have several. With one seed each it is `paired_difference`.

    Args:
        a: subject to value, of each seed.
        b: likewise.

    Raises:
        DataError: they do not all cover the same subjects.
    """
    if len(a) == len(b) == 1:
        return paired_difference(a[0], b[0])
    for other in (*a[1:], *b):
        paired_difference(a[0], other)  # refuses other subjects
    one, two = (np.stack([_sorted_values(seed)[1] for seed in seeds]) for seeds in (a, b))  # [S, N]
    people = resampled_indices(one.shape[1])
    drawn = _mean_of_drawn(one, people, 1) - _mean_of_drawn(two, people, 2)
    return PairedDifference(float(one.mean() - two.mean()), interval(drawn), one.shape[1])


def _mean_of_drawn(values: FloatArray, people: npt.NDArray[np.intp], stream: int) -> FloatArray:
    """Means of `values` [S, N] over drawn people [R, N], and over S seeds drawn for each of the R; [R].

    Of S seeds, drawn means vary by (S - 1) / S of what means of other seeds would: seeds are spread by as much before.
    """
    seeds = values[:, people].mean(2)  # [S, R]
    if len(seeds) > 1:
        middle = seeds.mean(0)
        seeds = middle + math.sqrt(len(seeds) / (len(seeds) - 1)) * (seeds - middle)
    raw = np.random.PCG64([SEED, stream]).random_raw(RESAMPLES * len(values))
    chosen = (raw % np.uint64(len(values))).astype(np.intp).reshape(len(values), RESAMPLES)
    mean: FloatArray = np.take_along_axis(seeds, chosen, 0).mean(0)
    return mean


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau-b between two orders of the same rows, with its 95 % bootstrap interval over subjects."""

    tau: float
    ci95: tuple[float, float]
    rows: int


def rank_agreement(ours: Mapping[str, Mapping[str, float]], theirs: Mapping[str, float]) -> RankAgreement | None:
    """How far rows that subjects' values order are in the order that other numbers give.

    Args:
        ours: row to subject to value; all rows of the same subjects.
        theirs: row to value; rows that only one side has do not count.

    Returns:
        None where fewer than three rows are on both sides, or `theirs` are all equal.

    Raises:
        DataError: rows stand on different subjects.
    """
    rows = [row for row in ours if row in theirs]
    wanted = np.array([theirs[row] for row in rows], dtype=np.float64)
    if len(rows) < _FEWEST_RANKED or np.ptp(wanted) == 0:
        return None
    subjects = set(ours[rows[0]])
    odd = [row for row in rows if set(ours[row]) != subjects]
    if odd:
        raise DataError(f"Rows {rows[0]!r} and {odd[0]!r} stand on different subjects: their order has no interval.")
    values = np.stack([_sorted_values(ours[row])[1] for row in rows])  # [R, N]
    means = values[:, resampled_indices(values.shape[1])].mean(axis=2)  # [R, RESAMPLES]
    drawn = kendall_tau(means, wanted[:, None])
    return RankAgreement(float(kendall_tau(values.mean(1), wanted)), interval(drawn), len(rows))


def kendall_tau(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kendall's tau-b of `a` [R, ...] and `b` [R, ...] along the first axis; 0 where one side is all equal."""
    first, second = np.triu_indices(len(a), 1)
    x, y = np.sign(a[first] - a[second]), np.sign(b[first] - b[second])
    both = np.sqrt(np.square(x).sum(0) * np.square(y).sum(0))
    tau: FloatArray = (x * y).sum(0) / np.where(both > 0, both, 1.0)
    return tau


def ratio(value: Summary, floor: Summary) -> float | None:
    """Ratio of two means; None where the floor is zero or they stand on different numbers of subjects."""
    if floor.mean == 0.0 or value.subjects != floor.subjects:
        return None
    return value.mean / floor.mean


def _sorted_values(subject_values: Mapping[str, float]) -> tuple[list[str], FloatArray]:
    subjects = sorted(subject_values)
    if not subjects:
        raise DataError("No subject to average: a summary needs at least one.")
    values = np.array([subject_values[subject] for subject in subjects], dtype=np.float64)
    bad = [subject for subject, finite in zip(subjects, np.isfinite(values), strict=True) if not finite]
    if bad:
        raise DataError(f"Subject values hold NaN or infinity for {bad[:5]}.")
    return subjects, values
