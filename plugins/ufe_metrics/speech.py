"""What the paper's errors do not tell of speech: trembling, and lips that fail to meet or meet when they should not."""

from __future__ import annotations

import torch
from torch import Tensor

from ufe_core.errors import ContractError
from ufe_core.interfaces.metric import Driven, Metric
from ufe_metrics.plugin import MetricConfig

SHUT_MM, OPEN_MM = 0.6, 1.0  # lips are shut, or open, where their centres are less, or more, apart than at rest by this


class Jitter(Metric[MetricConfig]):
    """Mean length of the difference of vertex accelerations over the face, mm per frame squared.

    The acceleration of a vertex is x(t + 1) - 2 x(t) + x(t - 1). What the truth does is no jitter, however fast.
    """

    label, unit, needs = "jitter", "mm/frame²", frozenset({"geometry"})
    temporal = True

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        rows = torch.from_numpy(self.topology.region("face"))
        away = predicted.geometry[:, rows] - truth.geometry[:, rows]
        return (away[2:] - 2 * away[1:-1] + away[:-2]).norm(dim=-1).mean(1)


class _Closures(Metric[MetricConfig]):
    unit, needs = "%", frozenset({"geometry"})
    temporal = True

    def _gap(self, driven: Driven) -> Tensor:
        """How much further apart the lips are than at rest, mm [B]."""
        if driven.neutral is None:
            raise ContractError(f"{type(self).__name__} needs the resting mesh, none was given.")
        upper, lower = self.topology.region("lip_centres")
        gap = (driven.geometry[:, upper] - driven.geometry[:, lower]).norm(dim=-1)
        return gap - (driven.neutral[upper] - driven.neutral[lower]).norm()


class MissedClosures(_Closures):
    """Of the frames of speech in which the lips are shut in truth, how many the avatar's are open in.

    To be shut a frame early or late is no miss. A clip without a closure gives no number.
    """

    label = "missed closures"

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        shut = self._gap(truth) < SHUT_MM
        missed = ~_nearby(self._gap(predicted) <= OPEN_MM)
        return 100 * missed[shut].double()


class FalseClosures(_Closures):
    """Of the frames of speech in which the lips are open in truth, how many the avatar's are shut in.

    A frame before or after a closure does not count.
    """

    label = "false closures"

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        away = ~_nearby(self._gap(truth) <= OPEN_MM)
        return 100 * (self._gap(predicted) < SHUT_MM)[away].double()


def _nearby(frames: Tensor) -> Tensor:
    """Whether it is so in a frame, bool [B], or in one beside it."""
    near = frames.clone()
    near[1:] |= frames[:-1]
    near[:-1] |= frames[1:]
    return near
