"""Encoders that do not look: what a method must beat to have seen anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ufe_baselines.plugin import MeanConfig, NeutralConfig
from ufe_core.interfaces.encoder import Encoder, TrainingStatistics
from ufe_core.types import Calibration, Encoding, FrameBatch


def _repeat(expression: Tensor, gaze: Tensor, frames: FrameBatch) -> Encoding:
    count = frames.images.shape[0]
    return Encoding(expression.expand(count, -1), gaze.expand(count, -1))


class NeutralEncoder(Encoder[NeutralConfig]):
    """The zero code, both eyes straight ahead.

    It decodes to the resting face, of which a decoder that learned its codes may read another code that looks the same.
    """

    zero: Tensor
    ahead: Tensor

    def __init__(self, config: NeutralConfig, **context: Any) -> None:
        super().__init__(config, **context)
        self.register_buffer("zero", torch.zeros(self.code_space.size))
        self.register_buffer("ahead", torch.tensor([0.0, 0.0, 1.0] * 2))

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        return _repeat(self.zero, self.ahead, frames)


class MeanEncoder(Encoder[MeanConfig]):
    """The mean code and the mean gaze direction of the training subjects' labels; it reads no pixel."""

    learns = "statistics"
    code: Tensor
    gaze: Tensor

    def __init__(self, config: MeanConfig, **context: Any) -> None:
        super().__init__(config, **context)
        self.register_buffer("code", torch.zeros(self.code_space.size))
        self.register_buffer("gaze", torch.tensor([0.0, 0.0, 1.0] * 2))

    def fit_statistics(self, statistics: TrainingStatistics) -> None:
        """The means of labels; images are left alone."""
        self.code.copy_(statistics.labels.expression.mean(0))
        mean = statistics.labels.gaze.mean(0).view(2, 3)
        self.gaze.copy_(functional.normalize(mean, dim=-1).flatten())

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        return _repeat(self.code, self.gaze, frames)
