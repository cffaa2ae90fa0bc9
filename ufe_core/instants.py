"""Which frames of a capture are taken: one place, whose code decides keys of all that is made of those frames."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from ufe_core.errors import DataError

if TYPE_CHECKING:
    from ufe_core.interfaces.source import Capture, DomeCapture
    from ufe_core.packed import PackRequest


def spread(capture: Capture | DomeCapture, count: int, seed: int) -> list[int]:
    """`count` frame indices, uniform over segments and then over time (P§13.3, O30), in order.

    Raises:
        DataError: the segments of the capture have fewer frames.
    """
    there = sum(s.stop - s.start for s in capture.segments)
    if count > there:
        raise DataError(f"Capture {capture.id!r} has {there} frames, {count} were asked for.")
    rng = np.random.default_rng([seed, count])
    order = rng.permutation(len(capture.segments))
    pools = [rng.permutation(np.arange(s.start, s.stop)).tolist() for s in capture.segments]
    chosen: list[int] = []
    while len(chosen) < count:
        for k in order:
            if pools[k] and len(chosen) < count:
                chosen.append(int(pools[k].pop()))
    return sorted(chosen)


def clips(capture: Capture, count: int, length: int, seed: int, kind: str) -> list[int]:
    """Indices of `count` runs of `length` frames that follow each other, one run after the other.

    They lie in segments of a kind, spread over them, each run somewhere in its segment.

    Raises:
        DataError: the capture has too few segments of that kind and length.
    """
    fit = [s for s in capture.segments if s.kind == kind and s.stop - s.start >= length]
    if not fit or count > len(fit):
        raise DataError(
            f"Capture {capture.id!r} has {len(fit)} segments of kind {kind!r} of {length} frames, {count} are needed."
        )
    rng = np.random.default_rng([seed, count, length])
    chosen = [fit[k] for k in np.linspace(0, len(fit) - 1, count).round().astype(int)]
    starts = [int(rng.integers(s.start, s.stop - length + 1)) for s in chosen]
    return [start + k for start in starts for k in range(length)]


def instants_of(capture: Capture, request: PackRequest) -> list[int]:
    """Indices of the frames that a request takes of a capture."""
    seed = zlib.crc32(f"{request.seed} {capture.id}".encode()) if request.own_instants else request.seed
    if request.clip > 1:
        return capture.clips(request.frames // request.clip, request.clip, seed=seed)
    return capture.spread(request.frames, seed=seed)
