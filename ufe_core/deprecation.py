"""Names that are going: they work for one minor release more, and say what to use (`docs/versions.md`)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class _Marked(Protocol):
    deprecated_since: str


def deprecated(since: str, instead: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a function: calling it warns once a place.

    Args:
        since: the release that deprecates it, as `0.2`; the minor release after it may take it away.
        instead: what to use, as a user would write it.
    """

    def mark(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> T:
            warnings.warn(
                f"{function.__qualname__} is deprecated since ufe {since} and goes with the next minor release; "
                f"use {instead}.",
                DeprecationWarning, stacklevel=2,
            )  # fmt: skip
            return function(*args, **kwargs)

        cast("_Marked", warned).deprecated_since = since
        return warned

    return mark
