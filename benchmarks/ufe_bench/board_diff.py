"""What new results change on a leaderboard: `ufe leaderboard diff`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ufe_bench import formats
from ufe_bench.board import BrokenFile, Row, build_board, ground_of, identity_of
from ufe_bench.leaderboard import collect
from ufe_bench.table import markdown_table

#: What of a result is no longer the same where it was measured anew, or edited.
_MEASURED = ("run_id", "subjects", "segments", "metrics", "cost")


@dataclass(frozen=True)
class Change:
    """A row of one table that is new, gone, or stands or measures otherwise.

    `ranks` and `values`, those of the metric that the table is ranked by, are before and after.
    """

    suite: str
    table: str
    method: str
    what: str
    ranked_by: str
    ranks: tuple[int | None, int | None]
    values: tuple[float | None, float | None]


@dataclass(frozen=True)
class Difference:
    """What changed, and the files of either side that are no valid results."""

    changes: tuple[Change, ...]
    broken: tuple[BrokenFile, ...]


def difference(before: Sequence[Path], after: Sequence[Path]) -> Difference:
    """Every row that differs between the boards of two sets of result folders, in the order of the later board."""
    (old, one), (new, other) = (_rows(folders) for folders in (before, after))
    found = []
    for place in [*new, *(place for place in old if place not in new)]:
        (was, before_by), (now, after_by) = old.get(place, (None, "")), new.get(place, (None, ""))
        what = _what(was, now)
        if what is None:
            continue
        row, ranked_by = now or was, after_by or before_by
        assert row is not None
        ranks = (was.rank if was else None, now.rank if now else None)
        values = (_value(was, ranked_by), _value(now, ranked_by))
        found.append(Change(row.result.key.suite, place[1], row.title, what, ranked_by, ranks, values))
    return Difference(tuple(found), tuple(dict.fromkeys((*one, *other))))


def _rows(folders: Sequence[Path]) -> tuple[dict[tuple[str, str, str], tuple[Row, str]], tuple[BrokenFile, ...]]:
    """Rows by ground, table and method, since a row's title says only how it differs from others of its name; each
    with the metric that its table is ranked by.
    """
    found = collect(folders)
    board = build_board(found.results)
    rows = {
        (ground_of(ground.key), group.title, identity_of(row.result)): (row, group.ranked_by)
        for ground in board for group in ground.groups for row in group.rows
    }  # fmt: skip
    return rows, found.broken


def _value(row: Row | None, metric: str) -> float | None:
    summary = row.result.summary.get(metric) if row is not None else None
    return None if summary is None else summary.mean


def _what(one: Row | None, other: Row | None) -> str | None:
    if one is None:
        return "new"
    if other is None:
        return "gone"
    if any(getattr(one.result, part) != getattr(other.result, part) for part in _MEASURED):
        return "measured anew"
    if one.rank != other.rank:
        return "moved"
    lost, gained = one.leading - other.leading, other.leading - one.leading
    words = [f"no longer among the best in {', '.join(sorted(lost))}"] if lost else []
    words += [f"now among the best in {', '.join(sorted(gained))}"] if gained else []
    return "; ".join(words) or None


def render(found: Sequence[Change]) -> str:
    """The changes as Markdown; a sentence where there are none."""
    if not found:
        return "Nothing changes.\n"
    parts = []
    for suite, table, ranked_by in dict.fromkeys((one.suite, one.table, one.ranked_by) for one in found):
        rows = [
            [change.method, change.what, _pair(*(_rank(rank) for rank in change.ranks)),
             _pair(*(formats.UNKNOWN if value is None else formats.number(value) for value in change.values))]
            for change in found if (change.suite, change.table, change.ranked_by) == (suite, table, ranked_by)
        ]  # fmt: skip
        parts.append(f"## {suite}: {table}\n\n" + markdown_table(["Method", "What", "Rank", ranked_by], rows, left=2))
    return "\n".join(parts)


def _rank(rank: int | None) -> str:
    return formats.UNKNOWN if rank is None else str(rank)


def _pair(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
