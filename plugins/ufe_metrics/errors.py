"""The five errors of P§8, each on the decoder's own named regions."""

from __future__ import annotations

import torch
from torch import Tensor

from ufe_core.errors import ContractError
from ufe_core.interfaces.metric import Driven, Metric
from ufe_metrics.plugin import MetricConfig


class PhotometricL1(Metric[MetricConfig]):
    """Mean absolute difference over the pixels of W1 and three channels, 0..255 (P§8.1, P§13.6 O51)."""

    label, unit, needs = "photometric L1", "0..255", frozenset({"image"})

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        if predicted.image is None or truth.image is None:
            raise ContractError("photometric_l1 needs frontal renderings, none were given.")
        mask = self.face_mask.to(predicted.image.device)
        return 255 * (predicted.image - truth.image).abs()[:, :, mask].mean((1, 2))


def _vertex_distance(predicted: Driven, truth: Driven, rows: Tensor) -> Tensor:
    return (predicted.geometry[:, rows] - truth.geometry[:, rows]).norm(dim=-1).mean(1)


class MeshL2(Metric[MetricConfig]):
    """Mean Euclidean vertex displacement over the face (P§8.2)."""

    label, unit, needs = "mesh L2", "mm", frozenset({"geometry"})
    region = "face"

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        return _vertex_distance(predicted, truth, torch.from_numpy(self.topology.region(self.region)))


class LowerFaceMeshL2(MeshL2):
    """Mean Euclidean vertex displacement over the lower face (P§8.3)."""

    label = "LF mesh L2"
    region = "lower_face"


class MouthShape(Metric[MetricConfig]):
    """|mouth width error| + |mouth opening error| (P§8.4)."""

    label, unit, needs = "mouth shape", "mm", frozenset({"geometry"})

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        return (self._extent(predicted.geometry) - self._extent(truth.geometry)).abs().sum(1)

    def _extent(self, geometry: Tensor) -> Tensor:
        """Distances between the lip corners and between the lip centres, [B, 2]."""
        pairs = [self.topology.region(name) for name in ("mouth_corners", "lip_centres")]
        return torch.stack([(geometry[:, a] - geometry[:, b]).norm(dim=-1) for a, b in pairs], 1)


class Gaze(Metric[MetricConfig]):
    """Angle between predicted and true gaze, mean of left and right eye (P§8.5, P§13.6 O52)."""

    label, unit, needs = "gaze", "deg", frozenset({"gaze"})

    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        a, b = predicted.gaze.double().view(-1, 2, 3), truth.gaze.double().view(-1, 2, 3)
        # atan2 keeps its precision where the arc cosine of a number near 1 loses it
        angle = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))
        return torch.rad2deg(angle).mean(1)
