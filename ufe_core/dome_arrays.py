"""What a packed dome capture keeps of a capture, as arrays by their names in the data file."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.interfaces.source import DomeCapture

if TYPE_CHECKING:
    from ufe_core.packed_dome import DomeRequest


def dome_arrays(capture: DomeCapture, request: DomeRequest) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of what a request asks of a capture."""
    chosen = capture.spread(request.frames, seed=zlib.crc32(f"{request.seed} {capture.id}".encode()))
    poses = capture.head_pose(chosen)
    names = [_cameras_for(capture, index, pose, request) for index, pose in zip(chosen, poses, strict=True)]
    images = [
        capture.frames([index], cameras=some, height=request.height)[0]
        for index, some in zip(chosen, names, strict=True)
    ]
    neutral = capture.neutral(size=request.neutral_texture)
    owner = {index: s.name for s in capture.segments for index in range(s.start, s.stop)}
    arrays = {
        "images": np.stack(images), **_seen_from(capture, names, poses, images[0].shape[2:]),
        "geometry": capture.geometry(chosen).astype(np.float32),
        "texture": capture.texture(chosen, size=request.texture),
        "neutral_geometry": neutral.geometry.astype(np.float32), "neutral_texture": neutral.texture,
        "resting_texture": capture.neutral(size=request.texture).texture,
    }  # fmt: skip
    meta = {
        "subject": capture.subject, "capture": capture.id, "frames": chosen,
        "segments": [owner[index] for index in chosen], "cameras": names,
    }  # fmt: skip
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}, meta


def _cameras_for(capture: DomeCapture, index: int, pose: np.ndarray, request: DomeRequest) -> list[str]:
    """Cameras drawn for a frame among those that see the face."""
    rotation, translation = pose[:, :3], pose[:, 3]
    ahead = []
    for camera in capture.cameras:
        place = (-camera.rotation.T @ camera.translation - translation) @ rotation
        if place[2] > np.linalg.norm(place) * np.cos(np.radians(request.within_deg)):
            ahead.append(camera.name)
    if len(ahead) < request.views:
        raise DataError(
            f"Dome capture {capture.id!r} has {len(ahead)} cameras within {request.within_deg:g} degrees of straight "
            f"ahead in frame {index}; {request.views} were asked for."
        )
    rng = np.random.default_rng([request.seed, index, zlib.crc32(capture.id.encode())])
    return [ahead[k] for k in rng.choice(len(ahead), request.views, replace=False)]


def _seen_from(
    capture: DomeCapture, names: Sequence[Sequence[str]], poses: np.ndarray, size: Sequence[int]
) -> dict[str, np.ndarray]:
    """The cameras of each frame in head coordinates, for images of a size (height, width)."""
    known = {camera.name: camera.resized(size[1], size[0]) for camera in capture.cameras}
    views = [[known[name] for name in some] for some in names]
    return {
        name: np.array(values, np.float32)
        for name, values in {
            "rotation": [[c.rotation @ pose[:, :3] for c in some] for some, pose in zip(views, poses, strict=True)],
            "translation": [
                [c.rotation @ pose[:, 3] + c.translation for c in some] for some, pose in zip(views, poses, strict=True)
            ],
            "focal": [[c.intrinsics[[0, 1], [0, 1]] for c in some] for some in views],
            "centre": [[c.intrinsics[:2, 2] for c in some] for some in views],
        }.items()
    }
