"""How a session's headset sits on the head, how it is lit, and what its sensors make of the light (P§2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ufe_core.geometry import rotation_vector_matrix
from ufe_synthetic.people import rng_of

#: `ordinary`, then the out-of-distribution conditions that a test slice may put everybody under (P§12, C21).
Condition = Literal["ordinary", "glasses", "dim", "aggressive_donning", "hand", "blocked_camera"]
CONDITIONS: tuple[str, ...] = get_args(Condition)

#: Places: name to how often, and the range of diffuse infrared light there, as a share of mid grey.
ENVIRONMENTS = {
    "dark_room": (0.25, (0.0, 0.01)),
    "living_room": (0.35, (0.01, 0.05)),
    "office": (0.25, (0.02, 0.07)),
    "by_a_window": (0.15, (0.05, 0.16)),
}

_PIVOT_MM = np.array([0.0, 20.0, 30.0])
_DIM_GAIN = 0.22
_AGGRESSIVE = 2.5


@dataclass(frozen=True)
class Light:
    """Light and gain of N frames: `exposure` and `ambient` float64 [N]."""

    exposure: np.ndarray
    ambient: np.ndarray


@dataclass(frozen=True)
class Sensing:
    """One donning session.

    `rotation_deg` [3] and `translation_mm` [3]: how the headset sits at its start; `emitter_gain` [L]: strength of
    each emitter; `environment`, `ambient`, `exposure`: light at the start; `wander` [2, 3, 3]: amplitude, rate (Hz)
    and phase of three slow waves, of the exposure and of the ambient light; `jpeg_quality`: None where frames reach the
    encoder uncompressed; `blocked`: the camera that is covered, or None.
    """

    rotation_deg: np.ndarray
    translation_mm: np.ndarray
    emitter_gain: np.ndarray
    environment: str
    ambient: float
    exposure: float
    wander: np.ndarray
    jpeg_quality: int | None
    blocked: int | None

    def light(self, seconds: np.ndarray) -> Light:
        """Light and gain at times [N] (s) of the session."""
        amount, rate, phase = np.moveaxis(self.wander[:, None], -1, 0)  # each [2, 1, 3]
        waves = (amount * np.sin(2 * np.pi * (rate * np.asarray(seconds)[None, :, None] + phase))).sum(-1)
        return Light(self.exposure * np.exp(waves[0]), self.ambient * np.exp(waves[1]))


def sensing_of(subject: int, session: int, emitters: int, trackers: int, condition: str = "ordinary") -> Sensing:
    """Draw a session's donning, light and sensor; a condition changes what it is about and nothing else."""
    rng = rng_of(subject, f"sensing {session}")
    rotation = rng.normal(0, np.array([2.2, 1.6, 1.8]))
    translation = rng.normal(0, np.array([1.6, 2.4, 2.0]))
    if condition == "aggressive_donning":
        rotation, translation = rotation * _AGGRESSIVE, translation * _AGGRESSIVE
    gain = np.exp(rng.normal(0, 0.2, emitters))
    names = list(ENVIRONMENTS)
    environment = names[int(rng.choice(len(names), p=[ENVIRONMENTS[name][0] for name in names]))]
    ambient = float(rng.uniform(*ENVIRONMENTS[environment][1]))
    exposure = float(np.exp(rng.normal(0, 0.22)))
    amount = rng.normal(0, np.array([[0.03], [0.15]]), (2, 3))
    wander = np.stack([amount, rng.uniform(0.002, 0.05, (2, 3)), rng.uniform(0, 1, (2, 3))], -1)
    quality = int(rng.integers(55, 90)) if rng.uniform() < 0.25 else None
    blocked = int(rng.integers(trackers))
    if condition == "dim":
        gain, ambient = gain * _DIM_GAIN, ambient * _DIM_GAIN
    return Sensing(
        rotation, translation, gain, environment, ambient, exposure, wander, quality,
        blocked if condition == "blocked_camera" else None,
    )  # fmt: skip


def headset_pose(rotation_deg: np.ndarray, translation_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] of a headset turned about a point behind the lenses."""
    rotation = rotation_vector_matrix(np.radians(rotation_deg))
    return rotation, translation_mm + _PIVOT_MM - rotation @ _PIVOT_MM
