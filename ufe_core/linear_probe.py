"""Linear probing: a frozen encoder, and one linear map on what it says (P§6.7, P§13.1 O12)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.interfaces.encoder import Encoder, TrainingStatistics
from ufe_core.types import AnchorSet, Calibration, Encoding, FrameBatch

_Norm = torch.nn.modules.batchnorm._BatchNorm
_AHEAD = (0.0, 0.0, 1.0)
_CODE_FLOOR, _OUTPUT_FLOOR = 0.02, 1e-6
_FAINT = 1e-3  # variance of a direction, outputs having 1 each: fainter ones are not blown up to as much


class LinearProbe(Encoder[Any]):
    """Code and gaze are linear in the D + 6 outputs of an encoder of which nothing changes, batch statistics included.

    The outputs are brought to zero mean and, but for directions in which they hardly vary, unit covariance first, by
    numbers measured once before the first step: so every direction is learned as fast. That magnifies faint directions,
    and what bfloat16 rounds away with them, so nothing of it runs in less than float32, whatever the training does.
    """

    learns = "weights"
    ahead: Tensor
    output_mean: Tensor
    output_std: Tensor
    output_map: Tensor
    code_mean: Tensor
    code_std: Tensor

    def __init__(self, frozen: Encoder[Any]) -> None:
        super().__init__(frozen.config, needs=frozen.needs, code_space=frozen.code_space)
        self.frozen = frozen.requires_grad_(False)
        self.calibrated, self.uses_rig = frozen.calibrated, frozen.uses_rig  # type: ignore[misc]  # as it is probed
        size = frozen.code_space.size
        self.linear = nn.Linear(size + 6, size + 6)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("output_mean", torch.zeros(size + 6))
        self.register_buffer("output_std", torch.ones(size + 6))
        self.register_buffer("output_map", torch.eye(size + 6))
        self.register_buffer("code_mean", torch.zeros(size))
        self.register_buffer("code_std", torch.ones(size))
        self.register_buffer("ahead", torch.tensor(_AHEAD), persistent=False)

    def train(self, mode: bool = True) -> LinearProbe:
        """The frozen encoder stays as it runs."""
        super().train(mode)
        self.frozen.eval()
        return self

    def fit_statistics(self, statistics: TrainingStatistics) -> None:
        """Mean and deviation of the codes."""
        self.code_mean.copy_(statistics.labels.expression.mean(0))
        self.code_std.copy_(statistics.labels.expression.std(0).clamp_min(_CODE_FLOOR))

    @torch.no_grad()
    def fit_outputs(self, frames: Iterable[tuple[FrameBatch, AnchorSet]]) -> None:
        """Mean, deviation and correlations of what the frozen encoder says, over some training frames.

        An encoder that no training has shown an image has no batch statistics: they are measured first, on the same.
        """
        frames = list(frames)
        unseen = [m for m in self.frozen.modules() if isinstance(m, _Norm) and m.num_batches_tracked == 0]
        for norm in unseen:
            norm.train()
            norm.momentum = None  # the mean over all
        for some in frames if unseen else ():
            self.frozen(*some)
        said = torch.cat([_outputs(self.frozen.eval()(*some)) for some in frames])
        self.output_mean.copy_(said.mean(0))
        self.output_std.copy_(said.std(0).clamp_min(_OUTPUT_FLOOR))
        alike = (said - self.output_mean) / self.output_std
        spread, directions = torch.linalg.eigh(torch.cov(alike.T.double()))
        self.output_map.copy_(directions / (spread.clamp_min(0) + _FAINT).sqrt())

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        with torch.no_grad(), _whole_precision(anchors.images.device):
            return self.frozen._enroll(anchors)

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        with _whole_precision(frames.images.device):
            with torch.no_grad():
                said = _outputs(self.frozen._encode(frames, calibration))
            out = self.linear(((said - self.output_mean) / self.output_std) @ self.output_map)
        expression, gaze = out.split([self.code_space.size, 6], 1)
        directions = functional.normalize(gaze.view(-1, 2, 3) + self.ahead, dim=-1)
        return Encoding(self.code_mean + self.code_std * expression, directions.flatten(1))


def _outputs(said: Encoding) -> Tensor:
    return torch.cat([said.expression, said.gaze], 1).float()


def _whole_precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, enabled=False)
