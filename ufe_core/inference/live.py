"""One wearer's frames as they come: the encoder without training's ballast (P§4.4, P§11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ufe_core.errors import ContractError
from ufe_core.inference.fold import folded
from ufe_core.interfaces.encoder import Encoder
from ufe_core.types import Calibration, Encoding, FrameBatch

_WARM_UP = 3


class EncoderStep(nn.Module):
    """Images and a calibration in, codes out, as plain tensors: what is captured, and exported.

    Args:
        encoder: whose `_encode` is called.
        names: of the calibration's tensors, in the order in which they are given.
    """

    def __init__(self, encoder: Encoder[Any], names: Sequence[str]) -> None:
        super().__init__()
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
    assert isinstance(made, type(encoder)), "an encoder's own forward takes no plain tensors: it is never traced whole"
    made.to(memory_format=torch.channels_last)
    return made


class LiveEncoder:
    """Encodes the frames of one wearer with a calibration that is given once.

    On a GPU the whole step is one CUDA graph, which is launched at once; on a CPU it runs as it is: what compilers
    gained there was within the noise of measuring (`benchmarks/perf/inference.py`).

    Args:
        encoder: on the device where frames will be.
        calibration: of the wearer, made by this encoder.
        batch: how many instants come at a time.

    Raises:
        ContractError: the calibration is of several wearers, or of another encoder.

    Example:
        live = LiveEncoder(encoder, encoder.enroll(anchors))
        encoding = live(images)
    """

    def __init__(self, encoder: Encoder[Any], calibration: Calibration, *, batch: int = 1) -> None:
        if any(value.shape[0] != 1 for value in calibration.tensors.values()):
            raise ContractError("A live encoder has one wearer; this calibration is of several.")
        if calibration.encoder != encoder.fingerprint:
            raise ContractError("This calibration was made by another encoder: enroll the wearer again.")
        self.encoder = for_inference(encoder)
        self.calibration = calibration
        self._step = EncoderStep(self.encoder, list(calibration.tensors))
        self._kept = [value for value in calibration.tensors.values()]
        size = encoder.needs.size
        device = next((value.device for value in encoder.state_dict().values()), torch.device("cpu"))
        self._images = torch.zeros(batch, len(encoder.needs.cameras), size, size, dtype=torch.uint8, device=device)
        self._graph = _Graph(self._step, self._images, self._kept) if device.type == "cuda" else None

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Encoding:
        """Codes of images uint8 [B, C, H, W].

        Raises:
            ContractError: they are not of the shape and type that was announced.
        """
        if images.shape != self._images.shape or images.dtype != torch.uint8:
            raise ContractError(
                f"This live encoder takes uint8 images {list(self._images.shape)}; it was given "
                f"{images.dtype} {list(images.shape)}."
            )
        if self._graph is not None:
            self._images.copy_(images, non_blocking=True)
            expression, gaze = self._graph()
        else:
            expression, gaze = self._step(images, *self._kept)
        return Encoding(expression, gaze)


class _Graph:
    """A step captured as one CUDA graph over fixed memory."""

    def __init__(self, step: EncoderStep, images: Tensor, kept: Sequence[Tensor]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                step(images, *kept)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._out = step(images, *kept)

    def __call__(self) -> tuple[Tensor, Tensor]:
        self._graph.replay()
        return self._out[0].clone(), self._out[1].clone()
