"""Memory pages that are kept, and large: otherwise a third of a training step goes into faulting them in."""

from __future__ import annotations

import contextlib
import ctypes
import os

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's mallopt


def ask_for_large_pages() -> None:
    """Let torch's large tensors have large pages (Linux); counts only before torch has made one."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_pages() -> None:
    """Let memory that a step frees serve the next one instead of going back to the system (glibc; else nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
