"""What a packed capture keeps of a capture, as arrays by their names in the data file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.interfaces.source import Capture
from ufe_core.packed_file import Layout

if TYPE_CHECKING:
    from ufe_core.packed import PackRequest

EXTRA_PREFIX = "extra."


def arrays_without_pixels(
    capture: Capture, request: PackRequest, rows: list[int]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels and the neutral face, and which of them have a row for each frame."""
    labels, neutral = capture.labels(rows), capture.neutral()
    resting = capture.neutral(size=request.texture) if neutral and request.texture else None
    empty, bare = np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.uint8)
    arrays = {
        "expression": labels.expression if labels else empty,
        "gaze": labels.gaze if labels else empty,
        "geometry": neutral.geometry if neutral else empty,
        "texture": neutral.texture if neutral else bare,
        "resting_texture": resting.texture if resting else bare,
    }
    kinds = {"texture": np.uint8, "resting_texture": np.uint8}
    kept = {name: np.ascontiguousarray(value, kinds.get(name, np.float32)) for name, value in arrays.items()}
    return kept, ("expression", "gaze") if labels else ()


def arrays_of(capture: Capture, request: PackRequest, rows: list[int]) -> dict[str, np.ndarray]:
    """Images and extras of some rows, by their names in the file."""
    names, size = request.cameras, request.size
    images = capture.frames(rows, cameras=names, size=size)
    shape = (len(rows), len(names), size, size)
    if images.dtype != np.uint8 or images.shape != shape:
        raise DataError(
            f"Capture {capture.id!r} gave {images.dtype} images {list(images.shape)}; expected uint8 {list(shape)}."
        )
    found: dict[str, Any] = {}
    if request.texture:
        found["texture"] = capture.texture(rows, size=request.texture)
    for extra in request.extras:
        if extra == "geometry":
            found["geometry"] = capture.geometry(rows)
        elif extra == "segmentation":
            found["segmentation"] = capture.segmentation(rows, cameras=names, size=size)
        elif extra == "keypoints":
            points = capture.keypoints(rows, cameras=names, size=size)
            found |= {"keypoints": points and points.points, "visible": points and points.visible}
        else:
            found |= _poses(capture, names, rows)
    lacking = [name for name, value in found.items() if value is None]
    if lacking:
        if lacking[0] == "texture":
            raise DataError(
                f"Capture {capture.id!r} has no textures, which this decoder reads codes from. Use another --decoder."
            )
        extra = "cameras" if lacking[0] == "camera_rotation" else lacking[0]
        raise DataError(f"Capture {capture.id!r} has no {extra}. Pack it without the extra {extra!r}.")
    kinds = {"segmentation": np.uint8, "texture": np.uint8, "visible": np.bool_, "camera_rotation": np.float64,
             "camera_translation": np.float64}  # fmt: skip
    arrays: dict[str, np.ndarray] = {
        f"{EXTRA_PREFIX}{name}": np.ascontiguousarray(value, kinds.get(name, np.float32))
        for name, value in found.items()
    }
    return {"images": np.ascontiguousarray(images), **arrays}


def _poses(capture: Capture, names: Sequence[str], rows: list[int]) -> dict[str, np.ndarray | None]:
    """True poses of the named cameras in each frame."""
    seen = [capture.cameras_at(row) for row in rows]
    if any(cameras is None for cameras in seen):
        return {"camera_rotation": None, "camera_translation": None}
    frames = [{camera.name: camera for camera in cameras or ()} for cameras in seen]
    return {
        "camera_rotation": np.array([[cameras[name].rotation for name in names] for cameras in frames]),
        "camera_translation": np.array([[cameras[name].translation for name in names] for cameras in frames]),
    }


def refuse_other_shapes(capture: Capture, arrays: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Refuse a block whose rows are not as those of the first block.

    Raises:
        DataError: names what differs.
    """
    for name, values in arrays.items():
        expected = layout.entries[name].shape[1:]
        if values.shape[1:] != expected:
            what, found = name.removeprefix(EXTRA_PREFIX), list(values.shape[1:])
            raise DataError(
                f"Capture {capture.id!r} gave {what} of shape {found} for some frames and {list(expected)} for others."
            )
