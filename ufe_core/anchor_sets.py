"""Anchor sets by name: what `--anchors` takes everywhere."""

from __future__ import annotations

import json
from pathlib import Path

from ufe_core.errors import ConfigError
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_core.registry import load_registry


def anchors_of(text: str | None) -> tuple[str, ...]:
    """The anchors that a text names; the default ones for None.

    Raises:
        ConfigError: it looks like a file that is not there or holds no anchors, or a name is empty.
    """
    if text is None or text == "default":
        return DEFAULT_ANCHORS
    if text == "none":
        return ()
    published = load_registry().anchor_sets
    if text in published:
        return published[text].anchors
    if text.endswith(".json"):
        return _in_file(Path(text).expanduser())
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"--anchors {text!r} names nothing. Say 'none' for a method without anchors.")
    return names


def _in_file(path: Path) -> tuple[str, ...]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["anchors"]
    except OSError as error:
        raise ConfigError(f"Anchor file '{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"Anchor file '{path}' holds no list 'anchors'; 'ufe anchors search' writes one.") from error
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise ConfigError(f"Anchor file '{path}': 'anchors' is no list of names.")
    return tuple(found)
