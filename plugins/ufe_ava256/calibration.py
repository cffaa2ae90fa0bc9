"""Calibration of the dome's cameras, as CONVENTIONS.md has cameras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ufe_ava256.layout import PIXEL_CENTRE, SENSOR_HEIGHT, SENSOR_WIDTH, is_camera_id
from ufe_core.errors import DataError
from ufe_core.types import CameraSpec

_MOST_SKEW = 1e-3


def read_cameras(path: Path) -> tuple[CameraSpec, ...]:
    """The dome's cameras in the order of the file, at the sensor's size; poses map world to camera coordinates.

    The images are undistorted already, so the distortion that the file names is not the images'.

    Raises:
        DataError: the file is missing or no calibration, or a camera's numbers are not finite or no camera's.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["KRT"]
    except OSError as error:
        raise DataError(f"{path} is missing or cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no camera calibration: expected JSON with a list 'KRT'.") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} lists no cameras.")
    cameras = tuple(_camera(entry, f"camera {k + 1} of {path}") for k, entry in enumerate(entries))
    names = [camera.name for camera in cameras]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has camera {twice!r} more than once.")
    return cameras


def _camera(entry: Any, where: str) -> CameraSpec:
    """One camera; `K` and `T` are stored transposed."""
    try:
        name = str(entry["cameraId"])
        intrinsics = np.array(entry["K"], np.float64).T
        pose = np.array(entry["T"], np.float64).T
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} lacks a cameraId, a K of 3 x 3 or a T of 4 x 4 numbers.") from error
    if not is_camera_id(name):
        raise DataError(f"{where} is called {name!r}; an id has letters, digits, '-' and '_' only.")
    if intrinsics.shape != (3, 3) or pose.shape != (4, 4):
        raise DataError(f"{where} ('{name}') lacks a K of 3 x 3 or a T of 4 x 4 numbers.")
    if not (np.isfinite(intrinsics).all() and np.isfinite(pose).all()):
        raise DataError(f"{where} ('{name}') has a K or T with NaN or infinity.")
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _MOST_SKEW or np.linalg.det(rotation) < 0:
        raise DataError(f"{where} ('{name}') has a T that is no rotation and translation.")
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0 and intrinsics[2].tolist() == [0, 0, 1]):
        raise DataError(f"{where} ('{name}') has a K that is no camera matrix; it is to be stored transposed.")
    intrinsics[:2, 2] += PIXEL_CENTRE
    left, _, right = np.linalg.svd(rotation)  # the nearest rotation: the file rounds its numbers
    return CameraSpec(
        name, "centre", "whole", "augmented", SENSOR_WIDTH, SENSOR_HEIGHT, intrinsics, left @ right, pose[:3, 3]
    )
