"""How a component that is no encoder is trained: on data that it asks for itself, before any encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from ufe_core.interfaces.source import HMCSource

if TYPE_CHECKING:
    from typing_extensions import Self

    from ufe_core.budgets import ComponentTrainingConfig
    from ufe_core.store import Store

OptionsT = TypeVar("OptionsT", bound="ComponentTrainingConfig")
DataT = TypeVar("DataT")


class ComponentTraining(nn.Module, ABC, Generic[OptionsT, DataT]):
    """Its parameters are what is optimised, its buffers are kept; `weights` is what the component loads in the end.

    Subclasses set `options`, the model of their options; `presets`, which budgets set otherwise; `stage`, under which
    the progress of `collect` is told; and `code_modules`, which decide what is learned, besides the component's own.
    """

    options: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    stage: ClassVar[str] = "data"
    code_modules: ClassVar[tuple[str, ...]] = ()
    config: OptionsT

    @classmethod
    @abstractmethod
    def begin(cls, config: OptionsT, source: HMCSource[Any], subjects: Sequence[str]) -> Self:
        """A training with its first weights, for what the source's captures of these subjects look like.

        Raises:
            DataError: these captures lack what it learns from.
        """

    @classmethod
    def fingerprint(cls, source: HMCSource[Any]) -> str:
        """Of the source's data that it learns from."""
        return source.fingerprint

    @abstractmethod
    def collect(
        self, source: HMCSource[Any], subjects: Sequence[str], store: Store, progress: Callable[[str], None]
    ) -> Sequence[DataT]:
        """Make or find the training data, a part for each subject, telling each that is ready."""

    @abstractmethod
    def fit_statistics(self, data: Sequence[DataT]) -> None:
        """Set buffers from the training subjects, before the first step."""

    @abstractmethod
    def losses(self, data: Sequence[DataT], step: int) -> dict[str, Tensor]:
        """The terms of a step's loss by name, and `total`; what is drawn, is by the seed and the step alone."""

    def finish(self, data: Sequence[DataT], progress: Callable[[str], None]) -> None:
        """Set buffers by what was learned, after the last step, telling each subject that is done; nothing by default.

        In evaluation mode, where it was trained. What it sets is decided by the weights and the data alone: it is done
        again after a kill.
        """

    @abstractmethod
    def picture(self, data: Sequence[DataT]) -> np.ndarray:
        """How far it is, sRGB uint8 [H, W, 3]."""

    @abstractmethod
    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the component loads: tensors, which are stored in half precision, and facts as JSON values."""
