"""From results to tables: which rows may stand together, in which order, and which have a rank.

A *ground* is what rows must share to be compared at all: suite, protocol, people, data and avatar. A *group*
is a ground and a budget; it is one table. Floors need no training, so they stand in every group of their
ground.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ufe_bench.aggregate import RankAgreement, paired_difference, ratio
from ufe_bench.failure import Failure
from ufe_bench.formats import budget_title, method_name
from ufe_bench.paper import PaperRow, row_beside
from ufe_bench.schema import Budget, MetricInfo, Result, RunKey, incomplete_reason
from ufe_core.store import canonical_json

RANKED_BY = "mesh_l2"  # or a suite's first metric where it has no such
MEAN_FLOOR = "ufe/mean"
FLOORS = (MEAN_FLOOR, "ufe/neutral")
_BUDGET_ORDER = ("paper", "gpu", "cpu", "smoke", "none")


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    result: Result
    name: str
    variant: str = ""
    """What tells it from the rows of the same name: options, seed."""
    rank: int | None = None
    unranked: str | None = None
    """Why it has no rank; None for ranked rows and for floors."""
    leading: frozenset[str] = frozenset()
    """Metrics on which no ranked row is clearly better (paired over subjects)."""
    ratios: Mapping[str, float | None] = field(default_factory=dict)
    """Metric to the ratio to the `mean` floor's."""
    paper: PaperRow | None = None

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name} ({self.variant})" if self.variant else self.name

    @property
    def is_floor(self) -> bool:
        """Whether it is one of the floors that every method should beat."""
        return is_floor(self.result)


@dataclass(frozen=True)
class Group:
    """One table: rows that share a ground and a budget."""

    budget: Budget
    title: str
    ranked_by: str
    metrics: Mapping[str, MetricInfo]
    rows: tuple[Row, ...]
    """Ranked rows and floors by value, then the unranked by name."""
    earlier: tuple[Row, ...] = ()
    """Runs that a newer one of the same method replaces."""


@dataclass(frozen=True)
class Ground:
    """What rows must share to be compared."""

    key: RunKey
    """The key of one of its results; suite, split, protocol, decoder, source and data hold for all."""
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class BrokenFile:
    """A file that is no valid result, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class StudyReport:
    """What `ufe bench --suite` wrote of a study.

    `agreement` with the paper's order by metric; `failed` rows by title, with the cause; `rows` by title, with the run;
    `picture` is where the leaderboard has its picture.
    """

    agreement: Mapping[str, RankAgreement] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, str] = field(default_factory=dict)
    picture: str | None = None


@dataclass(frozen=True)
class Extras:
    """What a leaderboard shows beside its tables; paths are relative to it."""

    figures: Mapping[str, str] = field(default_factory=dict)
    """Suite to the page of its figures."""
    studies: Mapping[str, StudyReport] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    broken: tuple[BrokenFile, ...] = ()


def build_board(results: Iterable[Result]) -> tuple[Ground, ...]:
    """Sort results into grounds and groups. The order of `results` does not matter.

    Args:
        results: Any results; equal `run_id`s must have been collapsed before.
    """
    grounds: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        grounds[ground_of(result.key)].append(result)
    board = [
        Ground(key=members[0].key, groups=_groups(members))
        for members in (sorted(members, key=lambda r: r.run_id) for members in grounds.values())
    ]
    return tuple(sorted(board, key=lambda ground: (_suite_order(ground.key.suite), ground_of(ground.key))))


def identity_of(result: Result) -> str:
    """What makes two results rows of the same method: its name, its options, its budget, whose labels it is made of."""
    budget = result.key.budget
    made_of = [budget.people, budget.frames] if budget.name == "none" else []
    return canonical_json([method_name(result), _options(result), budget.name, *made_of])


def is_floor(result: Result) -> bool:
    """Whether a result is of a floor, which takes no rank."""
    return result.key.components.encoder.id in FLOORS


def _suite_order(suite: str) -> tuple[bool, str, int]:
    name, version = suite.rsplit("@", 1)
    return name != "main", name, -int(version)


def ground_of(key: RunKey) -> str:
    """What results must share to be compared."""
    data = [key.data.edition, key.data.frames, key.data.size, key.data.enrolment, key.data.render_size]
    source, decoder = ([part.id, part.config] for part in (key.components.source, key.components.decoder))
    return canonical_json([key.suite, key.protocol, key.split.sha256, data, source, decoder])


def _budget_key(budget: Budget) -> tuple[int, bool, int, str]:
    return (
        _BUDGET_ORDER.index(budget.name),
        not budget.released,
        len(budget.overrides),
        canonical_json(budget.overrides),
    )


def _groups(members: Sequence[Result]) -> tuple[Group, ...]:
    untrained = [result for result in members if result.key.budget.name == "none"]
    groups: dict[tuple[int, bool, int, str], list[Result]] = defaultdict(list)
    for result in members:
        if result.key.budget.name != "none":
            groups[_budget_key(result.key.budget)].append(result)
    if not groups:
        return (_group(untrained, untrained[0].key.budget),)
    return tuple(
        _group([*groups[key], *_beside(untrained, groups[key][0].key.budget)], groups[key][0].key.budget)
        for key in sorted(groups)
    )


def _beside(untrained: Sequence[Result], budget: Budget) -> list[Result]:
    """What takes no step stands in every table; of the means of several numbers of people, the one of the table's."""

    def of(result: Result) -> tuple[int, int]:
        return result.key.budget.people, result.key.budget.frames

    methods: dict[str, list[Result]] = defaultdict(list)
    for result in untrained:
        methods[canonical_json([method_name(result), _options(result)])].append(result)
    chosen = []
    for results in methods.values():
        sizes = {of(result) for result in results}
        table = (budget.people, budget.frames)
        size = table if table in sizes else max(sizes)
        chosen += [result for result in results if of(result) == size]
    return chosen


def _group(results: Sequence[Result], budget: Budget) -> Group:
    current, earlier = _newest_of_each_method(results)
    metrics = {name: info for result in current for name, info in result.metrics.items()}
    ranked_by = RANKED_BY if RANKED_BY in metrics else next(iter(metrics))
    direction = metrics[ranked_by].higher_is_better
    reasons = {result.run_id: _unranked_reason(result, ranked_by) for result in current}
    in_order = sorted(
        (result for result in current if reasons[result.run_id] is None),
        key=lambda r: (r.summary[ranked_by].mean * (-1 if direction else 1), method_name(r), r.run_id),
    )
    left_out = sorted(
        (result for result in current if reasons[result.run_id] is not None),
        key=lambda r: (method_name(r), r.run_id),
    )
    contenders = [r for r in in_order if not is_floor(r) and not r.hypothetical]
    leading = {name: _leaders(contenders, name, info) for name, info in metrics.items()}
    floor = next((result for result in in_order if result.key.components.encoder.id == MEAN_FLOOR), None)
    variants = _variants(current)
    ranks = {result.run_id: place for place, result in enumerate(contenders, start=1)}

    def row(result: Result) -> Row:
        return Row(
            result=result,
            name=method_name(result),
            variant=variants.get(result.run_id, ""),
            rank=ranks.get(result.run_id),
            unranked=reasons.get(result.run_id),
            leading=frozenset(name for name in metrics if result.run_id in leading[name]),
            ratios=_ratios(result, floor) if reasons.get(result.run_id) is None else {},
            paper=row_beside(result),
        )

    return Group(
        budget=budget,
        title=budget_title(budget),
        ranked_by=ranked_by,
        metrics={name: metrics[name] for name in _metric_order(metrics, ranked_by)},
        rows=tuple(row(result) for result in [*in_order, *left_out]),
        earlier=tuple(Row(result=result, name=method_name(result)) for result in earlier),
    )


def _metric_order(metrics: Mapping[str, MetricInfo], ranked_by: str) -> list[str]:
    """The ranking metric first, then the paper's order, then the others by name."""
    papers = ["photometric_l1", "mesh_l2", "lf_mesh_l2", "mouth_shape", "gaze"]
    return sorted(metrics, key=lambda n: (n != ranked_by, papers.index(n) if n in papers else len(papers), n))


def _newest_of_each_method(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Split into the newest run of every method and the runs that it replaces (other code, other weights)."""
    current: list[Result] = []
    earlier: list[Result] = []
    seen: set[str] = set()
    for result in sorted(results, key=lambda r: (r.created, r.run_id), reverse=True):
        identity = identity_of(result)
        (earlier if identity in seen else current).append(result)
        seen.add(identity)
    return current, earlier


def _unranked_reason(result: Result, ranked_by: str) -> str | None:
    reason = incomplete_reason(result)
    if reason is None and ranked_by not in result.summary:
        reason = f"has no {ranked_by}"
    return reason


def _leaders(contenders: Sequence[Result], metric: str, info: MetricInfo) -> frozenset[str]:
    """Run ids that no contender beats clearly on `metric`: the best one and those that tie with it."""
    scored = [result for result in contenders if metric in result.summary]
    if not scored:
        return frozenset()
    sign = -1 if info.higher_is_better else 1
    best = min(scored, key=lambda r: (sign * r.summary[metric].mean, r.run_id))
    best_values = best.values(metric)
    return frozenset(
        result.run_id
        for result in scored
        if result is best
        or (
            (values := result.values(metric)).keys() == best_values.keys()
            and not paired_difference(best_values, values).favours_first(higher_is_better=info.higher_is_better)
        )
    )


def _ratios(result: Result, floor: Result | None) -> dict[str, float | None]:
    if floor is None:
        return {}
    shared = result.summary.keys() & floor.summary.keys()
    return {name: ratio(result.summary[name], floor.summary[name]) for name in sorted(shared)}


def _variants(results: Sequence[Result]) -> dict[str, str]:
    """For rows of one name, the options in which they differ."""
    by_name: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_name[method_name(result)].append(result)
    variants = {}
    for same in by_name.values():
        options = {result.run_id: _options(result) for result in same}
        names = sorted({name for values in options.values() for name in values})
        differing = [n for n in names if len({canonical_json(v.get(n)) for v in options.values()}) > 1]
        for run_id, values in options.items():
            # The part a field belongs to is said only where both parts have a field of that name.
            ends = [name.rsplit(".", 1)[-1] for name in differing]
            shown = [end if ends.count(end) == 1 else name for name, end in zip(differing, ends, strict=True)]
            variants[run_id] = ", ".join(
                f"{label}={values.get(name)}" for label, name in zip(shown, differing, strict=True)
            )
    return variants


def _options(result: Result) -> dict[str, Any]:
    components = result.key.components
    options = {f"encoder.{name}": value for name, value in components.encoder.config.items()}
    if components.calibrator is not None:
        options |= {f"calibrator.{name}": value for name, value in components.calibrator.config.items()}
    if components.detector is not None:
        options |= {f"detector.{name}": value for name, value in components.detector.config.items()}
    if components.pretraining is not None:
        options |= {f"pretraining.{name}": value for name, value in components.pretraining.config.items()}
    if components.view_detector is not None:
        options |= {f"view_detector.{name}": value for name, value in components.view_detector.config.items()}
    names = result.key.data.anchors
    anchors = result.cost.anchors if names is None else ",".join(names)
    used = {"anchors": anchors, "enrolment": result.key.data.enrolment, "seed": result.key.seed}
    return options | used
