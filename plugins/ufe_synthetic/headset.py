"""The simulated headset: eight cameras and the infrared emitters that light the face (P§2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ufe_core.types import CameraSpec, Region, Role, Side

SENSOR_PX = 400
TRACKING = ("left_eye", "right_eye", "left_mouth", "right_mouth")


@dataclass(frozen=True)
class Headset:
    """Cameras in nominal head coordinates point emitters float64 [L, 3] (mm), and their power [L]."""

    cameras: tuple[CameraSpec, ...]
    emitters: np.ndarray
    power: np.ndarray


def _look_at(position: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose of an upright camera at `position` that looks at `target`."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rotation, -rotation @ position


def _camera(name: str, side: Side, region: Region, role: Role, place: tuple[float, ...], target: tuple[float, ...],
            fov_deg: float, distortion: float) -> CameraSpec:  # fmt: skip
    rotation, translation = _look_at(np.array(place), np.array(target))
    focal = SENSOR_PX / 2 / np.tan(np.radians(fov_deg) / 2)
    intrinsics = np.array([[focal, 0, SENSOR_PX / 2], [0, focal, SENSOR_PX / 2], [0, 0, 1.0]])
    bend = np.array([distortion, 0.0, 0.0, 0.0, 0.0])
    return CameraSpec(name, side, region, role, SENSOR_PX, SENSOR_PX, intrinsics, rotation, translation, bend)


@cache
def default_headset() -> Headset:
    """Four tracking cameras, mirror-symmetric in pairs, then four augmented ones with better views.

    The eye cameras sit low on the temple side of each lens; the tracking mouth cameras hang from the lower rim,
    so that they look almost along the jaw's motion (P§2.4). Emitters sit beside the cameras.
    """
    cameras: list[CameraSpec] = []
    rows: list[tuple[str, Region, Role, tuple[float, ...], tuple[float, ...], float]] = [
        ("eye", "upper", "tracking", (50.0, 14.0, 50.0), (32.0, -4.0, 8.0), 84.0),
        ("mouth", "lower", "tracking", (40.0, 38.0, 66.0), (6.0, 72.0, 20.0), 84.0),
        ("eye_front", "upper", "augmented", (30.0, 6.0, 74.0), (30.0, -3.0, 8.0), 70.0),
        ("mouth_front", "lower", "augmented", (34.0, 92.0, 98.0), (3.0, 74.0, 22.0), 64.0),
    ]
    for name, region, role, place, target, fov in rows:
        for side, sign in (("left", -1.0), ("right", 1.0)):
            mirror = np.array([sign, 1.0, 1.0])
            cameras.append(_camera(
                f"{side}_{name}", side, region, role,  # type: ignore[arg-type]
                tuple(mirror * place), tuple(mirror * target), fov, -0.08,
            ))  # fmt: skip
    by_name = {camera.name: camera for camera in cameras}
    order = [by_name[name] for name in TRACKING] + [c for c in cameras if c.role == "augmented"]
    emitters = np.array([
        [-58.0, -6.0, 50.0], [58.0, -6.0, 50.0], [-16.0, 4.0, 62.0], [16.0, 4.0, 62.0], [-34.0, 42.0, 72.0],
        [34.0, 42.0, 72.0],
    ])  # fmt: skip
    return Headset(tuple(order), emitters, np.array([0.55, 0.55, 0.5, 0.5, 1.0, 1.0]))
