"""Metric: how far a driven avatar is from the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import torch
import torchmetrics
from torch import Tensor

from ufe_core.config import ComponentConfig
from ufe_core.errors import ContractError
from ufe_core.types import MeshTopology

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)


@dataclass(frozen=True)
class Driven:
    """An avatar driven with codes, as a metric sees it.

    `geometry` float32 [B, V, 3] mm; `gaze` float32 [B, 6]; `image` float32 [B, 3, H, W] in [0, 1], the frontal
    rendering, or None when no metric of the run needs it; `neutral` float32 [V, 3] mm, the person's resting mesh.
    """

    geometry: Tensor
    gaze: Tensor
    image: Tensor | None = None
    neutral: Tensor | None = None


class Metric(torchmetrics.Metric, ABC, Generic[ConfigT]):
    """A per-frame error. The harness asks for the `errors` of frames and averages them itself, by person and by slice.

    A plugin sets the class attributes and overrides `per_frame`. As a `torchmetrics.Metric` it also serves elsewhere,
    `update` by `update`, and `compute` is then the mean over frames. A metric that sets `temporal` is given clips, one
    at a time: frames of speech that follow each other; it may give fewer errors than frames.

    Args:
        topology: the mesh of the decoder in use, with its named regions.
        face_mask: W1, bool [H, W], for metrics on images.
    """

    label: ClassVar[str]
    unit: ClassVar[str]
    needs: ClassVar[frozenset[Literal["geometry", "gaze", "image"]]]
    higher_is_better: ClassVar[bool] = False  # type: ignore[misc]
    temporal: ClassVar[bool] = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, config: ConfigT, *, topology: MeshTopology, face_mask: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.config = config
        self.topology = topology
        self.face_mask = face_mask
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def per_frame(self, predicted: Driven, truth: Driven) -> Tensor:
        """Error of each frame, float [B], in `unit`."""

    @final
    def errors(self, predicted: Driven, truth: Driven) -> Tensor:
        """`per_frame`, checked: float64 [B], or of a temporal metric [up to B].

        Raises:
            ContractError: there are not as many errors as frames, or one came out NaN or infinite.
        """
        values = self.per_frame(predicted, truth)
        count = len(predicted.gaze)
        fits = values.ndim == 1 and (len(values) == count or (self.temporal and len(values) <= count))
        if not fits or not bool(torch.isfinite(values).all()):
            raise ContractError(
                f"{type(self).__name__}.per_frame gave {list(values.shape)} values for {count} frames, "
                "or NaN among them."
            )
        return values.double()

    @final
    def update(self, predicted: Driven, truth: Driven) -> None:
        """Add a batch, or a clip.

        Raises:
            ContractError: as `errors`.
        """
        values = self.errors(predicted, truth)
        self.total += values.sum()
        self.count += len(values)

    @final
    def compute(self) -> Tensor:
        """Mean over the frames seen since the last reset, float64 []; 0 where none of them could be wrong."""
        return self.total / self.count.clamp_min(1)
