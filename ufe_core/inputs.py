"""What encoders are given besides images: keypoints that a detector found, and exact meshes for hypothetical rows."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ufe_core.errors import ArtifactError, DataError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import PackedCapture
from ufe_core.store import Store, fingerprint
from ufe_core.types import Detections
from ufe_core.weights import load_weights, save_weights

if TYPE_CHECKING:
    from ufe_core.recipe import Chosen

_FILE = "keypoints.safetensors"
_AT_A_TIME = 64
_STEP = 16  # of the sizes that detectors are trained at


def prepared(
    captures: Sequence[PackedCapture], encoder: type[Encoder[Any]], source: HMCSource[Any], *,
    detector: Chosen | None, store: Store, device: torch.device, progress: Callable[[int], None] | None = None,
) -> list[PackedCapture]:  # fmt: skip
    """Packed captures with what an encoder declares as its inputs.

    Args:
        captures: of session 0.
        encoder: the class, which declares them.
        source: where the captures come from, which knows exact meshes.
        detector: who finds keypoints, where they are asked for; what it finds is kept in the store.
        store: where detections are kept.
        device: where the detector computes.
        progress: called with the number of captures whose keypoints are found.

    Raises:
        DataError: keypoints are asked for and there is no detector, it looks through other cameras, or a capture has
            no exact mesh.
    """
    made = list(captures)
    if "keypoints" in encoder.inputs:
        if detector is None:
            raise DataError(f"{encoder.__name__} needs keypoints, and there is no detector.")
        made = _detected(made, detector, store, device, progress)
    if "exact_mesh" in encoder.inputs:
        made = [replace(capture, exact_mesh=_exact_mesh(capture, source)) for capture in made]
    return made


def _exact_mesh(capture: PackedCapture, source: HMCSource[Any]) -> np.ndarray:
    (live,) = source.captures([capture.subject])
    found = live.geometry(capture.frames)
    if found is None:
        raise DataError(
            f"Capture {capture.capture!r} has no exact mesh: this encoder can only be tried where there is."
        )
    return np.ascontiguousarray(found, np.float32)


def _detected(
    captures: Sequence[PackedCapture], chosen: Chosen, store: Store, device: torch.device,
    progress: Callable[[int], None] | None,
) -> list[PackedCapture]:  # fmt: skip
    made_by = chosen.describe()
    keys = [fingerprint({"detector": made_by, "capture": capture.sha256}) for capture in captures]
    detector: Any = None

    def keep(capture: PackedCapture, folder: Path) -> None:
        nonlocal detector
        if detector is None:
            detector = chosen.spec.load()(chosen.config).to(device)
            tell_if_coarse(chosen, detector.size, capture.images.shape[-1])
        names = tuple(camera.name for camera in capture.cameras)
        if names != detector.cameras:
            raise DataError(
                f"Detector '{chosen.spec.id}' looks through {', '.join(detector.cameras)}; capture "
                f"{capture.capture!r} was packed with {', '.join(names)}."
            )
        made = detected(capture.images, detector, device)
        tensors = {"points": made.points.contiguous(), "visible": made.visible.contiguous()}
        save_weights(folder / _FILE, tensors, {"component": "ufe/detections", "config": {}})

    found = []
    for done, (capture, key) in enumerate(zip(captures, keys, strict=True), 1):
        detections = store.made("detections", key, _kept, functools.partial(keep, capture))
        found.append(replace(capture, detections=detections))
        if progress:
            progress(done)
    return found


def tell_if_coarse(chosen: Chosen, looked_at: int, side: int) -> None:
    """Warn where a detector looks at smaller images, `looked_at` pixels, than it is given, `side`."""
    if looked_at < side:
        name = chosen.spec.name
        logging.getLogger("ufe").warning(
            "Detector '%s' looks at images of %d px, and these have %d: keypoints are coarser than they could be. "
            "Train one for them, 'ufe train --detector %s --set training.size=%d --out FILE', and give --set "
            "detector.weights=FILE.", name, looked_at, side, name, -(-side // _STEP) * _STEP,
        )  # fmt: skip


def detected(images: Any, detector: Any, device: torch.device) -> Detections:
    """What a detector finds in images uint8 [N, C, S, S], an array or a mapped one, on the CPU; some at a time."""
    parts = []
    for start in range(0, len(images), _AT_A_TIME):
        some = torch.from_numpy(np.array(images[start : start + _AT_A_TIME]))
        parts.append(detector.detect(some.to(device)).map(lambda value: value.cpu()))
    return Detections(torch.cat([part.points for part in parts]), torch.cat([part.visible for part in parts]))


def _kept(folder: Path) -> Detections | None:
    try:
        tensors = load_weights(folder / _FILE)[0]
        return Detections(tensors["points"], tensors["visible"])
    except ArtifactError:
        return None
