"""A rule of the interfaces: what must hold, and how it is tried."""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ufe_core.names import KINDS


class Broken(AssertionError):
    """A rule is broken; the message says what was found and what to mend."""


class NotTried(unittest.SkipTest):
    """A rule cannot be tried on this component; the message says why. Test runners show it as skipped."""


@dataclass(frozen=True)
class Rule:
    """One thing that every component of a kind keeps to.

    `says` is one line for readers; `attempt` is given the component under examination and raises `Broken`.
    """

    kind: str
    name: str
    says: str
    attempt: Callable[[Any], None]

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"


_ALL: dict[str, list[Rule]] = {}


def rule(kind: str, says: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make a function a rule of a kind, `any` for all of them; its name is the rule's."""

    def keep(attempt: Callable[[Any], None]) -> Callable[[Any], None]:
        _ALL.setdefault(kind, []).append(Rule(kind, attempt.__name__.strip("_"), says, attempt))
        return attempt

    return keep


def rules_of(kind: str) -> tuple[Rule, ...]:
    """The rules of a kind of component, those of all kinds first."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of component; kinds are {', '.join(KINDS)}")
    for name in ("announcements", f"{kind}s"):
        importlib.import_module(f"ufe_core.conformance.{name}")
    return (*_ALL["any"], *_ALL[kind])


def require(holds: object, mend: str) -> None:
    """Raise `Broken` with a line that says what to mend, unless it holds."""
    if not holds:
        raise Broken(mend)
