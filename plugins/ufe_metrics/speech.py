"""What the paper's errors do not tell of speech: trembling, and lips that fail to meet or meet when they should not."""

from __future__ import annotations

import torch
from torch import Tensor

from ufe_core.errors import ContractError
from ufe_core.interfaces.metric import Driven, Metric
from ufe_metrics.plugin import MetricConfig

SHUT_MM = 0.6  # lips are shut where their centres are no further apart than at rest by this much


class Jitter(Metric[MetricConfig]):
    """Mean length of the difference of vertex accelerations over the face, mm per frame squared.

    The acceleration of a vertex is x(t + 1) - 2 x(t) + x(t - 1). What the truth does is no jitter, however fast.
    """

    label, unit, needs = "jitter", "mm", frozenset({"geometry"})
    temporal = True

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        rows = torch.from_numpy(self.topology.region("face"))
        away = predicted.geometry[:, rows] - truth.geometry[:, rows]
        return (away[2:] - 2 * away[1:-1] + away[:-2]).norm(dim=-1).mean(1)


class MissedClosures(Metric[MetricConfig]):
    """Share of the frames of speech in which the lips are shut in truth and the avatar's are not."""

    label, unit, needs = "missed closures", "%", frozenset({"geometry"})
    temporal = True

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        return 100 * (self._shut(truth) & ~self._shut(predicted)).double()

    def _shut(self, driven: Driven) -> Tensor:
        """Bool [B]."""
        if driven.neutral is None:
            raise ContractError(f"{type(self).__name__} needs the resting mesh, none was given.")
        upper, lower = self.topology.region("lip_centres")
        gap = (driven.geometry[:, upper] - driven.geometry[:, lower]).norm(dim=-1)
        return gap < (driven.neutral[upper] - driven.neutral[lower]).norm() + SHUT_MM


class FalseClosures(MissedClosures):
    """Share of the frames of speech in which the avatar's lips are shut and they are not in truth."""

    label = "false closures"

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        return 100 * (self._shut(predicted) & ~self._shut(truth)).double()
