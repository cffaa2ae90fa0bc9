"""What new results change on a leaderboard: `ufe leaderboard diff`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ufe_bench import formats
from ufe_bench.board import RANKED_BY, Group, Row, build_board
from ufe_bench.leaderboard import collect
from ufe_bench.table import markdown_table


@dataclass(frozen=True)
class Change:
    """A row of one table that is new, gone, or stands or measures otherwise; ranks and numbers before and after."""

    suite: str
    table: str
    method: str
    what: str
    ranks: tuple[int | None, int | None]
    values: tuple[float | None, float | None]


def changes(before: Sequence[Path], after: Sequence[Path], *, ranked_by: str = RANKED_BY) -> list[Change]:
    """Every row that differs between the boards of two sets of result folders, in the order of the later board."""
    old, new = (_rows(folders, ranked_by) for folders in (before, after))
    found = []
    for place in [*new, *(place for place in old if place not in new)]:
        one, other = old.get(place), new.get(place)
        what = _what(one, other, ranked_by)
        if what is None:
            continue
        suite, table, method = place
        ranks = (one.rank if one else None, other.rank if other else None)
        found.append(Change(suite, table, method, what, ranks, (_value(one, ranked_by), _value(other, ranked_by))))
    return found


def _rows(folders: Sequence[Path], ranked_by: str) -> dict[tuple[str, str, str], Row]:
    board = build_board(collect(folders).results, ranked_by=ranked_by)
    groups: list[tuple[str, Group]] = [(ground.key.suite, group) for ground in board for group in ground.groups]
    return {(suite, group.title, row.title): row for suite, group in groups for row in group.rows}


def _value(row: Row | None, metric: str) -> float | None:
    summary = row.result.summary.get(metric) if row is not None else None
    return None if summary is None else summary.mean


def _what(one: Row | None, other: Row | None, ranked_by: str) -> str | None:
    if one is None:
        return "new"
    if other is None:
        return "gone"
    if one.result.run_id != other.result.run_id or _value(one, ranked_by) != _value(other, ranked_by):
        return "measured anew"
    if one.rank != other.rank:
        return "moved"
    if one.leading != other.leading:
        return "no longer among the best" if len(other.leading) < len(one.leading) else "now among the best"
    return None


def render(found: Sequence[Change], *, unit: str = "mm") -> str:
    """The changes as Markdown; a sentence where there are none."""
    if not found:
        return "Nothing changes.\n"
    parts = []
    for suite, table in dict.fromkeys((change.suite, change.table) for change in found):
        rows = [
            [change.method, change.what, _pair(*(_rank(rank) for rank in change.ranks)),
             _pair(*(formats.UNKNOWN if value is None else formats.number(value, unit) for value in change.values))]
            for change in found if (change.suite, change.table) == (suite, table)
        ]  # fmt: skip
        parts.append(f"## {suite}: {table}\n\n" + markdown_table(["Method", "What", "Rank", RANKED_BY], rows, left=2))
    return "\n".join(parts)


def _rank(rank: int | None) -> str:
    return formats.UNKNOWN if rank is None else str(rank)


def _pair(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
