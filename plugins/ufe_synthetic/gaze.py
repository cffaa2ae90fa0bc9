"""Where a simulated subject looks: fixations, saccades, vergence, and blinks.

A sight [N, 3] is azimuth (deg), altitude (deg) and demand (1/m, one over the target's distance) of the point that both
eyes look at, seen from midway between them. Only `directions` turns it into two lines of sight, so these always meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ufe_core.head import ACTIONS
from ufe_synthetic.curves import glide, minimum_jerk

#: Targets are this near and this far, mm.
NEAREST_MM, FARTHEST_MM = 300.0, 4000.0
#: Each eye turns about this point beside the origin, mm; half the distance of the eyes in all performances.
HALF_EYE_DISTANCE_MM = 31.0
MAX_GAZE_DEG = 28.0

_UP_DEG, _DOWN_DEG = 20.0, 24.0
_LARGEST_SACCADE_DEG = 27.0
_LID_RANGE_DEG = 35.0


@dataclass(frozen=True)
class Look:
    """Something to look at from `start` to `stop` (s): `sight` is (azimuth, altitude, demand)."""

    start: float
    stop: float
    sight: np.ndarray


def random_sights(rng: np.random.Generator, count: int, spread_deg: tuple[float, float]) -> np.ndarray:
    """Targets around straight ahead and slightly below, [count, 3]."""
    demand = 1e3 / np.exp(rng.uniform(np.log(NEAREST_MM), np.log(FARTHEST_MM), count))
    limit = MAX_GAZE_DEG - _vergence_deg(demand)
    azimuth = np.clip(rng.normal(0, spread_deg[0], count), -limit, limit)
    altitude = np.clip(rng.normal(-2, spread_deg[1], count), -_DOWN_DEG, _UP_DEG)
    return np.stack([azimuth, altitude, demand], -1)


def saccade_s(amplitude_deg: np.ndarray) -> np.ndarray:
    """Duration of saccades by the main sequence: 21 ms and 2.2 ms per degree (Carpenter 1988)."""
    return 0.021 + 0.0022 * amplitude_deg


def look_around(
    rng: np.random.Generator, t: np.ndarray, ends: np.ndarray, spread_deg: tuple[float, float], looks: Sequence[Look]
) -> np.ndarray:
    """Sights [N, 3] of one segment at times `t`, from `ends[0]` to `ends[1]` exactly.

    Two thirds of the moves are saccades to a new target, the rest microsaccades. While one of `looks` lasts, the
    eyes stay on it but for microsaccades.
    """
    starts, values = _fixations(rng, float(t[-1]), ends, spread_deg, looks)
    steps = np.abs(np.diff(values, axis=0))
    amplitude = np.hypot(steps[:, 0], steps[:, 1])
    spare = np.diff(starts, append=t[-1] + 1)
    sight = np.empty((len(t), 3))
    sight[:, :2] = glide(t, starts, saccade_s(amplitude), values[:, :2])
    sight[:, 2:] = glide(t, starts, np.minimum(0.32, spare), values[:, 2:])
    return sight + _drift(rng, t)


def _fixations(
    rng: np.random.Generator, seconds: float, ends: np.ndarray, spread_deg: tuple[float, float], looks: Sequence[Look]
) -> tuple[np.ndarray, np.ndarray]:
    """When the eyes move, [K] s, and what they look at before and after each move, [K + 1, 3]."""
    count = int(seconds / 0.3) + 8
    times = 0.2 + np.cumsum(0.17 + rng.gamma(2.0, 0.14, count))
    times = times[times < seconds - 0.55]
    for look in looks:
        times = times[(times < look.start - 0.35) | (times > look.start + 0.2)]
        times = np.sort(np.append(times, look.start - 0.15))
    targets = random_sights(rng, len(times), spread_deg)
    micro = rng.uniform(size=len(times)) < 0.35
    jitter = rng.normal(0, 0.22, (len(times), 3)) * [1, 1, 0]
    values = [ends[0]]
    for k, time in enumerate(times):
        here = values[-1]
        held = next((look for look in looks if look.start - 0.16 < time < look.stop), None)
        if held is not None:
            goal = held.sight + jitter[k]
        elif micro[k]:
            goal = here + jitter[k]
        else:
            goal = _within_reach(targets[k], here)
        values.append(_within_reach(goal, ends[1]))
    return np.append(times, seconds - 0.4), np.stack([*values, ends[1]])


def _within_reach(sight: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The sight [3], drawn towards `centre` as far as one saccade goes."""
    step = sight - centre
    reached: np.ndarray = centre + step * min(1.0, _LARGEST_SACCADE_DEG / max(math.hypot(step[0], step[1]), 1e-6))
    return reached


def _drift(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Slow drift within fixations, [N, 3]; none at the ends of the segment."""
    hertz, phase = rng.uniform(0.2, 1.1, 2), rng.uniform(0, 2 * np.pi, 2)
    fade = minimum_jerk(t / 0.5) * minimum_jerk((t[-1] - t) / 0.5)
    out = np.zeros((len(t), 3))
    out[:, :2] = 0.12 * fade[:, None] * np.sin(2 * np.pi * t[:, None] * hertz + phase)
    return out


def directions(sight: np.ndarray) -> np.ndarray:
    """Unit vectors of the left and the right eye to the points looked at, float64 [N, 6], head coordinates."""
    azimuth, altitude = np.radians(sight[:, 0]), np.radians(sight[:, 1])
    flat = np.cos(altitude)
    point = np.stack([np.sin(azimuth) * flat, -np.sin(altitude), np.cos(azimuth) * flat], -1)
    offset = np.stack([HALF_EYE_DISTANCE_MM / 1e3 * sight[:, 2], *np.zeros((2, len(sight)))], -1)
    both = np.stack([point + offset, point - offset], 1)  # the left eye sits at x < 0
    both /= np.linalg.norm(both, axis=-1, keepdims=True)
    return both.reshape(len(sight), 6)


def lids_follow(gaze: np.ndarray) -> np.ndarray:
    """Activations [N, 8] of `LOOK_ACTIONS`, which move lids and socket, for lines of sight [N, 6]."""
    columns = []
    for eye, inward in ((0, 1.0), (1, -1.0)):
        x, y, z = gaze[:, 3 * eye : 3 * eye + 3].T
        azimuth, altitude = inward * np.degrees(np.arctan2(x, z)), np.degrees(np.arcsin(-y))
        columns += [azimuth, -azimuth, altitude, -altitude]
    return np.clip(np.stack(columns, -1) / _LID_RANGE_DEG, 0, 1)


#: Columns of the actions that `lids_follow` sets.
LOOK_ACTIONS = [
    ACTIONS.index(f"eyeLook{way}{side}") for side in ("Left", "Right") for way in ("In", "Out", "Up", "Down")
]


def _vergence_deg(demand: np.ndarray) -> np.ndarray:
    """How far each eye turns in for a target straight ahead, deg."""
    return np.degrees(np.arctan(HALF_EYE_DISTANCE_MM / 1e3 * demand))


@dataclass(frozen=True)
class Blinks:
    """The spontaneous blinks of a session: `starts` [K] s, `depth` [K] 0..1, `held` [K] s with the lids down."""

    starts: np.ndarray
    depth: np.ndarray
    held: np.ndarray

    CLOSING_S = 0.085
    OPENING_S = 0.165

    @classmethod
    def draw(
        cls, rng: np.random.Generator, seconds: float, per_minute: float, calm: Sequence[tuple[float, float]]
    ) -> Blinks:
        """Blinks at irregular intervals, none that touches one of the `calm` spans (s)."""
        interval = 60 / per_minute
        count = int(2 * seconds / interval) + 10
        starts = np.cumsum(0.9 + rng.gamma(2.0, (interval - 0.9) / 2, count))
        depth = np.where(rng.uniform(size=count) < 0.12, rng.uniform(0.6, 0.9, count), rng.uniform(0.93, 1.0, count))
        held = rng.uniform(0.01, 0.06, count)
        keep = starts < seconds - 1
        for start, stop in calm:
            keep &= (starts + 0.35 < start) | (starts > stop)
        return cls(starts[keep], depth[keep], held[keep])

    def closed(self, t: np.ndarray) -> np.ndarray:
        """How far the lids are down at times `t`, [N] in 0..1."""
        if not len(self.starts):
            return np.zeros(len(t))
        k = np.maximum(np.searchsorted(self.starts, t, side="right") - 1, 0)
        since = t - self.starts[k]
        opening = minimum_jerk((since - self.CLOSING_S - self.held[k]) / self.OPENING_S)
        return self.depth[k] * minimum_jerk(since / self.CLOSING_S) * (1 - opening)
