"""Averages against hand-computed cases and the properties that an interval must have."""

import numpy as np
import pytest
from scipy import stats

from ufe_bench.aggregate import (
    kendall_tau,
    paired_difference,
    pooled_difference,
    rank_agreement,
    ratio,
    summarise,
)
from ufe_core import bootstrap
from ufe_core.bootstrap import bootstrap_interval
from ufe_core.errors import DataError


def test_summary_of_a_case_worked_by_hand():
    summary = summarise({"S2": 4.0, "S0": 1.0, "S1": 1.0, "S3": 2.0})
    assert (summary.mean, summary.median, summary.worst, summary.worst_subject) == (2.0, 1.5, 4.0, "S2")
    assert summary.subjects == 4
    assert summary.ci95[0] < 2.0 < summary.ci95[1]


def test_worst_follows_the_direction_and_ties_go_to_the_first_id():
    values = {"b": 1.0, "a": 1.0, "c": 3.0}
    assert summarise(values).worst_subject == "c"
    assert summarise(values, higher_is_better=True).worst_subject == "a"


def test_one_subject_has_a_point_for_an_interval():
    assert summarise({"only": 1.25}).ci95 == (1.25, 1.25)


def test_a_subject_without_a_value_is_named():
    with pytest.raises(DataError, match="S7"):
        summarise({"S0": 1.0, "S7": float("nan")})
    with pytest.raises(DataError, match="at least one"):
        summarise({})


def test_interval_is_the_same_for_any_order_and_any_call():
    rng = np.random.default_rng(1)
    values = {f"S{i:02d}": float(v) for i, v in enumerate(rng.lognormal(size=32))}
    backwards = dict(reversed(values.items()))
    assert summarise(values) == summarise(backwards) == summarise(values)


def test_interval_moves_and_scales_with_the_data():
    values = np.random.default_rng(2).normal(size=20)
    low, high = bootstrap_interval(values)
    assert bootstrap_interval(3 * values + 5) == pytest.approx((3 * low + 5, 3 * high + 5))


def test_interval_agrees_with_a_second_implementation():
    values = np.random.default_rng(3).gamma(4.0, size=32)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert bootstrap_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    draws = np.random.default_rng(4).normal(1.0, 0.3, size=(300, 32))
    hits = [low <= 1.0 <= high for low, high in map(bootstrap_interval, draws)]
    # The percentile bootstrap of 32 values covers about 93.5 %; 300 trials have a standard error of 1.4 %.
    assert 0.89 <= np.mean(hits) <= 0.98


def test_resamples_draw_every_subject_alike():
    counts = np.bincount(bootstrap.resampled_indices(7).ravel(), minlength=7)
    assert counts.sum() == 7 * bootstrap.RESAMPLES
    assert counts == pytest.approx(np.full(7, bootstrap.RESAMPLES), rel=0.05)


def test_paired_difference_sees_what_unpaired_intervals_hide():
    people = np.random.default_rng(5).lognormal(0.0, 0.5, size=32)
    a = {f"S{i}": float(v) for i, v in enumerate(people)}
    b = {name: value + 0.05 for name, value in a.items()}
    assert summarise(a).ci95[1] > summarise(b).ci95[0]
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(-0.05)
    assert difference.favours_first(higher_is_better=False)
    assert not difference.favours_first(higher_is_better=True)


def test_paired_difference_of_equals_and_of_one_is_not_clear():
    assert not paired_difference({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}).is_clear
    assert not paired_difference({"a": 1.0}, {"a": 2.0}).is_clear


def test_paired_difference_needs_the_same_people():
    with pytest.raises(DataError, match="'S9'"):
        paired_difference({"S0": 1.0, "S9": 1.0}, {"S0": 1.0})


def test_ratio_is_of_means_and_unknown_where_it_has_no_meaning():
    floor = summarise({"a": 2.0, "b": 4.0})
    assert ratio(summarise({"a": 1.0, "b": 2.0}), floor) == 0.5
    assert ratio(summarise({"a": 1.0}), floor) is None
    assert ratio(floor, summarise({"a": 0.0, "b": 0.0})) is None


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_scipys_ties_included(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, 9).astype(float), rng.normal(size=9)
    assert float(kendall_tau(a, b)) == pytest.approx(stats.kendalltau(a, b).statistic)
    many = rng.normal(size=(9, 3))
    expected = [stats.kendalltau(many[:, k], b).statistic for k in range(3)]
    assert kendall_tau(many, b[:, None]) == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_seeds_are_as_uncertain_as_the_mean_of_so_many_is(count):
    """Where people are all alike, what an interval spans is the seeds' own: drawn means vary by s^2 / S."""
    seeds = np.random.default_rng(count).normal(size=count)
    methods = [{f"S{k}": float(value) for k in range(8)} for value in seeds]
    found = pooled_difference(methods, [dict.fromkeys(methods[0], 0.0)])
    drawn = np.random.default_rng(0).choice(seeds, (20_000, count)).mean(1) - seeds.mean()
    stretch = np.sqrt(count / (count - 1))
    assert np.var(stretch * drawn) == pytest.approx(np.var(seeds, ddof=1) / count, rel=0.05)
    assert found.mean == pytest.approx(seeds.mean())
    assert found.ci95 == pytest.approx(seeds.mean() + stretch * np.percentile(drawn, [2.5, 97.5]), abs=0.05)


def test_agreement_counts_rows_of_both_sides_and_its_interval_knows_how_sure_the_order_is():
    rng = np.random.default_rng(3)
    people = [f"S{i}" for i in range(20)]
    theirs = {"a": 1.0, "b": 2.0, "c": 3.0, "elsewhere": 9.0}

    def rows(apart):
        noise = rng.normal(size=(4, 20))
        means = {"a": 1.0, "b": 1 + apart, "c": 1 + 2 * apart, "alone": 0.0}
        return {name: dict(zip(people, mean + noise[k], strict=True)) for k, (name, mean) in enumerate(means.items())}

    sure = rank_agreement(rows(50.0), theirs)
    assert (sure.tau, sure.ci95, sure.rows) == (1.0, (1.0, 1.0), 3)
    backwards = rank_agreement(rows(-50.0), theirs)
    assert backwards.tau == -1.0
    unsure = rank_agreement(rows(0.0), theirs)
    assert unsure.ci95[1] - unsure.ci95[0] >= 2 / 3


def test_agreement_of_nothing_to_compare_is_none_and_of_other_people_an_error():
    row = {"S0": 1.0, "S1": 2.0}
    assert rank_agreement({"a": row}, {"a": 1.0}) is None
    assert rank_agreement({"a": row, "b": row}, {"a": 1.0, "b": 2.0}) is None, "two are in some order by chance"
    same = dict.fromkeys("abc", 1.0)
    assert rank_agreement(dict.fromkeys("abc", row), same) is None
    with pytest.raises(DataError, match="'a' and 'b' stand on different subjects"):
        rank_agreement({"a": row, "b": {"S0": 1.0}, "c": row}, {"a": 1.0, "b": 2.0, "c": 3.0})
