"""Warp, and its kernels ready to be launched from any thread."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

_CPU = torch.device("cpu")
_loading = threading.Lock()
_loaded: dict[tuple[int, str], Any] = {}


@cache
def warp() -> Any:
    """The initialised `warp` module, silent: its greeting would end up in the output of `--json`."""
    import warp as wp

    wp.config.log_level = logging.ERROR
    with _native_stderr_closed():  # without a GPU its native code warns on file descriptor 2
        wp.init()
    return wp


def kernels(module: str, device: torch.device = _CPU) -> Any:
    """A Python module of warp kernels, compiled for a device on first use (warp keeps that on disk)."""
    found = importlib.import_module(module)
    load(found, device)
    return found


def load(module: Any, device: torch.device) -> None:
    """Load a Python module of kernels, or a warp module, once.

    Warp must not load one from two threads at once; here the second waits.
    """
    key = id(module), str(device)
    if key in _loaded:
        return
    with _loading:
        if key not in _loaded:
            wp = warp()
            wp.load_module(module, device=wp.device_from_torch(device), block_dim=1 if device.type == "cpu" else None)
            _loaded[key] = module


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
