"""An encoder and its calibrator as an ONNX model, the wearer's calibration among its inputs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufe_core.errors import ArtifactError, UfeError
from ufe_core.inference.live import EncoderStep, for_inference, refuse_more_than_images
from ufe_core.interfaces.encoder import Encoder, refuse_foreign
from ufe_core.store import write_atomic
from ufe_core.types import Calibration

IMAGES, OUTPUTS = "images", ("expression", "gaze")
_METADATA = "ufe"


def export_onnx(encoder: Encoder[Any], calibration: Calibration, path: Path, *, batch: int = 1) -> None:
    """Write a model that takes `images` uint8 [B, C, H, W] and the calibration's tensors by name.

    It gives `expression` [B, D] and `gaze` [B, 6]. What a caller must know of it (cameras and anchors in order, code
    space, whose calibrations it takes) is in its metadata, under `ufe`.

    Args:
        encoder: on the CPU.
        calibration: of any wearer; its shapes count.
        path: the file to write.
        batch: B.

    Raises:
        UfeError: the packages for it are not installed.
        ArtifactError: the file cannot be written, or the encoder has an operation that ONNX lacks.
    """
    write_atomic(path, _model(encoder, calibration, batch))


def refuse_export(encoder: type[Encoder[Any]]) -> None:
    """Refuse what cannot be exported here, before long work.

    Raises:
        UfeError: a package for it is not installed, or the encoder needs more than images.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _needed(name)
    refuse_more_than_images(encoder)


def _model(encoder: Encoder[Any], calibration: Calibration, batch: int) -> bytes:
    onnx = _needed("onnx")
    _needed("onnxscript")
    names = list(calibration.tensors)
    step = EncoderStep(for_inference(encoder), names).eval()
    size = encoder.needs.size
    images = torch.zeros(batch, len(encoder.needs.cameras), size, size, dtype=torch.uint8)
    kept = tuple(value.cpu() for value in calibration.tensors.values())
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                step, (images, *kept), input_names=[IMAGES, *names], output_names=list(OUTPUTS), dynamo=True,
                verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise ArtifactError(f"{type(encoder).__name__} cannot be exported to ONNX: {_first_line(error)}") from error
    assert made is not None
    model = made.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = _METADATA, json.dumps(describe(encoder))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"{type(encoder).__name__} gives no valid ONNX model: {_first_line(error)}") from error
    written: bytes = model.SerializeToString()
    return written


def live_session(
    encoder: Encoder[Any], calibration: Calibration, *, batch: int = 1
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The encoder with one wearer's calibration in ONNX Runtime: images uint8 [B, C, H, W] to expression and gaze.

    Args:
        encoder: on the CPU.
        calibration: of the wearer.
        batch: B.

    Raises:
        UfeError: the packages for it are not installed.
        ArtifactError: the encoder has an operation that ONNX lacks, or that this ONNX Runtime does.
    """
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    model = _model(encoder, calibration, batch)
    try:
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no base of theirs
        raise ArtifactError(f"ONNX Runtime cannot run {type(encoder).__name__}: {_first_line(error)}") from error
    given = {entry.name for entry in session.get_inputs()}
    kept = {name: value.cpu().numpy() for name, value in calibration.tensors.items() if name in given}

    def call(images: Tensor) -> tuple[Tensor, Tensor]:
        expression, gaze = session.run(list(OUTPUTS), {IMAGES: images.numpy(), **kept})
        return torch.from_numpy(expression), torch.from_numpy(gaze)

    return call


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(encoder: Encoder[Any]) -> dict[str, Any]:
    """What the metadata says."""
    return {
        "encoder": encoder.fingerprint, "cameras": list(encoder.needs.cameras), "size": encoder.needs.size,
        "anchors": list(encoder.needs.anchors),
        "code_space": {"name": encoder.code_space.name, "size": encoder.code_space.size},
    }  # fmt: skip


class OnnxEncoder:
    """A model that `export_onnx` wrote, in ONNX Runtime on the CPU.

    Raises:
        UfeError: ONNX Runtime is not installed.
        ArtifactError: the file is missing, or no such model.
    """

    def __init__(self, path: Path) -> None:
        runtime = _needed("onnxruntime")
        if not path.is_file():
            raise ArtifactError(f"Model '{path}' does not exist. 'ufe export onnx' writes one.")
        try:
            self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            self.about: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map[_METADATA])
        except Exception as error:  # the runtime's own errors have no base of theirs
            raise ArtifactError(f"'{path}' is no encoder that ufe exported: {_first_line(error)}") from error

    @property
    def batch(self) -> int:
        """How many instants it takes at a time."""
        return next(int(entry.shape[0]) for entry in self._session.get_inputs() if entry.name == IMAGES)

    def __call__(self, images: np.ndarray, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
        """Expression and gaze of images uint8 [B, C, H, W] of one wearer.

        Raises:
            ContractError: the calibration was made by another encoder.
        """
        refuse_foreign(calibration, self.about["encoder"])
        given = {entry.name for entry in self._session.get_inputs()}  # what does not count is no input
        kept = {name: value.cpu().numpy() for name, value in calibration.tensors.items() if name in given}
        found = self._session.run(list(OUTPUTS), {IMAGES: images, **kept})
        return found[0], found[1]


def difference(path: Path, encoder: Encoder[Any], calibration: Calibration, images: Tensor) -> float:
    """The largest difference of codes between a model in ONNX Runtime and its encoder in torch, over frames.

    Infinite where the model gives something that is no number.
    """
    model = OnnxEncoder(path)
    step = EncoderStep(encoder, list(calibration.tensors))
    largest = 0.0
    for start in range(0, len(images), model.batch):
        rows = torch.arange(start, start + model.batch) % len(images)
        found = model(images[rows].numpy(), calibration)
        with torch.inference_mode():
            expected = step(images[rows], *calibration.tensors.values())
        for mine, theirs in zip(found, expected, strict=True):
            apart = np.abs(mine - theirs.numpy()).max()
            largest = max(largest, float(apart)) if np.isfinite(apart) else float("inf")
    return largest


def _needed(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UfeError(f"Package '{name}' is not installed: pip install onnx onnxruntime onnxscript") from error
