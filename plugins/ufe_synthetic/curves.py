"""Smooth curves in time that the performance is made of."""

from __future__ import annotations

import numpy as np


def minimum_jerk(x: np.ndarray) -> np.ndarray:
    """The minimum-jerk step from 0 (x <= 0) to 1 (x >= 1), elementwise; it is steepest in the middle: 1.875."""
    x = np.minimum(np.maximum(x, 0), 1)
    return x * x * x * (10 + x * (6 * x - 15))


def glide(t: np.ndarray, starts: np.ndarray, durations: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From value to value, each move a minimum-jerk step that is over before the next one starts.

    Args:
        t: times [N], s.
        starts: when the K moves start [K], ascending, s.
        durations: how long they last [K], s.
        values: [K + 1, C], before the first move and after each one.

    Returns:
        The value at each time, [N, C].
    """
    move = np.searchsorted(starts, t, side="right") - 1
    before = np.maximum(move, 0)
    weight = np.where(move < 0, 0.0, minimum_jerk((t - starts[before]) / durations[before]))[:, None]
    out: np.ndarray = values[before] + weight * (values[before + 1] - values[before])
    return out


def at_rest_outside(t: np.ndarray, seconds: float, ramp_s: float) -> np.ndarray:
    """Window [N]: 0 at the first and last instant of a segment, 1 from `ramp_s` on."""
    return minimum_jerk(t / ramp_s) * minimum_jerk((seconds - t) / ramp_s)


def waves(t: np.ndarray, hertz: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Mean of sines within [-1, 1]: `hertz` and `phase` (rad) are [K, C], the result is [N, C]."""
    mean: np.ndarray = np.sin(t[:, None, None] * (2 * np.pi * hertz) + phase).mean(1)
    return mean
