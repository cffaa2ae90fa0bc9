"""One wearer's frames as they come: the encoder without training's ballast (P§4.4, P§11)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ufe_core.errors import ArtifactError, ContractError, UfeError
from ufe_core.inference.fold import folded
from ufe_core.interfaces.encoder import Encoder, refuse_foreign
from ufe_core.types import Calibration, Encoding, FrameBatch

Runtime = Literal["auto", "torch", "onnx"]

_WARM_UP = 3


def refuse_more_than_images(encoder: type[Encoder[Any]]) -> None:
    """Refuse an encoder that cannot run live.

    Raises:
        UfeError: it needs more than images; says what.
    """
    more = [name for name in encoder.inputs if name != "images"]
    if more:
        raise UfeError(
            f"{encoder.__name__} needs {' and '.join(more)} besides images: it can be measured, but neither run live "
            "nor exported."
        )


class EncoderStep(nn.Module):
    """Images and a calibration in, codes out, as plain tensors: what is captured, and exported.

    Args:
        encoder: whose `_encode` is called.
        names: of the calibration's tensors, in the order in which they are given.

    Raises:
        UfeError: the encoder needs more than images.
    """

    def __init__(self, encoder: Encoder[Any], names: Sequence[str]) -> None:
        super().__init__()
        refuse_more_than_images(type(encoder))
        self.encoder, self.names = encoder, tuple(names)

    def forward(self, images: Tensor, *calibration: Tensor) -> tuple[Tensor, Tensor]:
        """Expression [B, D] and gaze [B, 6] of images uint8 [B, C, H, W]; the calibration is that of one wearer."""
        kept = Calibration(self.encoder.fingerprint, dict(zip(self.names, calibration, strict=True)))
        encoding = self.encoder._encode(FrameBatch.single_user(images, self.encoder.needs.cameras), kept)
        return encoding.expression, encoding.gaze


def for_inference(encoder: Encoder[Any]) -> Encoder[Any]:
    """A copy with batch normalisations folded away and channels last; it encodes the same within rounding.

    It keeps the fingerprint: calibrations of the one serve the other.
    """
    made = folded(encoder)
    made.to(memory_format=torch.channels_last)
    return made


class LiveEncoder:
    """Encodes the frames of one wearer with a calibration that is given once.

    On a GPU the whole step is one CUDA graph, which is launched at once. On a CPU it runs in ONNX Runtime where that is
    installed, several times as fast as torch (`benchmarks/perf/inference.py`); making it ready takes seconds.

    Args:
        encoder: on the device where frames will be.
        calibration: of the wearer, made by this encoder.
        batch: how many instants come at a time.
        runtime: `torch`, `onnx` (on a CPU), or `auto` for the faster of those that are there and can.

    Raises:
        ContractError: the calibration is of several wearers, or of another encoder.
        UfeError: ONNX Runtime was asked for on a GPU, or is not installed.
        ArtifactError: it was asked for, and the encoder has an operation that ONNX lacks.

    Example:
        live = LiveEncoder(encoder, encoder.enroll(anchors))
        encoding = live(images)
    """

    def __init__(
        self, encoder: Encoder[Any], calibration: Calibration, *, batch: int = 1, runtime: Runtime = "auto"
    ) -> None:
        if any(value.shape[0] != 1 for value in calibration.tensors.values()):
            raise ContractError("A live encoder has one wearer; this calibration is of several.")
        refuse_foreign(calibration, encoder.fingerprint)
        size = encoder.needs.size
        device = next((value.device for value in encoder.state_dict().values()), torch.device("cpu"))
        self.calibration = calibration = calibration.to(device)
        self._images = torch.zeros(batch, len(encoder.needs.cameras), size, size, dtype=torch.uint8, device=device)
        self.runtime = _chosen(runtime, device)
        self._call: Callable[[Tensor], tuple[Tensor, Tensor]]
        if self.runtime == "onnx":
            from ufe_core.inference.onnx import live_session

            try:
                self._call = live_session(encoder, calibration, batch=batch)
                return
            except ArtifactError as error:
                if runtime != "auto":
                    raise
                logging.getLogger("ufe").warning("%s It runs in torch, which is slower.", error)
                self.runtime = "torch"
        step, kept = EncoderStep(for_inference(encoder), list(calibration.tensors)), list(calibration.tensors.values())
        if device.type == "cuda":
            self._call = _Graph(step, self._images, kept)
        else:
            self._call = lambda images: step(images, *kept)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Encoding:
        """Codes of images uint8 [B, C, H, W].

        Raises:
            ContractError: they are not of the shape and type that was announced.
        """
        if images.shape != self._images.shape or images.dtype != torch.uint8:
            raise ContractError(
                f"This live encoder takes uint8 images {list(self._images.shape)}; it was given "
                f"{images.dtype} {list(images.shape)}. Resize images by area averaging."
            )
        return Encoding(*self._call(images))


def _chosen(runtime: Runtime, device: torch.device) -> Runtime:
    """The runtime to use on a device."""
    if runtime == "onnx" and device.type == "cuda":
        raise UfeError("ONNX Runtime is for encoders on the CPU; on a GPU use runtime 'torch'.")
    if runtime != "auto":
        return runtime
    installed = all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))
    return "onnx" if installed and device.type == "cpu" else "torch"


class _Graph:
    """A step captured as one CUDA graph over fixed memory."""

    def __init__(self, step: EncoderStep, images: Tensor, kept: Sequence[Tensor]) -> None:
        self._graph, self._images = torch.cuda.CUDAGraph(), images
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                step(images, *kept)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._out = step(images, *kept)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._images.copy_(images, non_blocking=True)
        self._graph.replay()
        return self._out[0].clone(), self._out[1].clone()
