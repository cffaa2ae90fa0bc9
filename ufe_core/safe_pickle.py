"""Pickles of data from elsewhere, read by a loader that executes nothing.

A pickle is a program: to load one with `pickle` runs whatever its author chose. Here it can name only what the caller
lists, and alter none of that; anything else is refused unread.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ufe_core.errors import DataError


class Function:
    """A function that a pickle may call but not alter."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives."""
        return self._call(*arguments)  # type: ignore[attr-defined]  # a slot, set past __setattr__

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("read only")


def load_pickle(
    file: IO[bytes], allowed: Mapping[tuple[str, str], Any], *, part_of: str,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:  # fmt: skip
    """What a pickle holds.

    Args:
        file: the pickle.
        allowed: what it may name, by module and name: a `Function`, or something that no attribute can be set of.
        part_of: what such files hold, in words, for the error: "an array".
        persistent: gives what a persistent name stands for; without it they are refused.

    Raises:
        Exception: of any kind, see `refusing`; the pickle names anything else, or is damaged.
    """
    return _Unpickler(file, allowed, part_of, persistent).load()


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever the bytes of a file lead to into one line that names it.

    Raises:
        DataError: the file cannot be read, is refused, or is damaged.
    """
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{path} is refused or damaged: {reason}.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: IO[bytes], allowed: Mapping[tuple[str, str], Any], part_of: str,
        persistent: Callable[[Any], Any] | None,
    ) -> None:  # fmt: skip
        super().__init__(file)
        self._allowed, self._part_of, self._persistent = allowed, part_of, persistent

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("it names something that lies outside of it")
        return self._persistent(pid)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names '{module}.{name}', which is no part of {self._part_of}") from None
