"""Pre-training: what an encoder learns from headset images alone, before it sees a label (P§6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.types import AnchorSet, Detections, FrameBatch

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

ViewRole = Literal["tracking", "augmented"]


@dataclass(frozen=True)
class Views:
    """What some cameras saw in N frames of one capture.

    `images` uint8 [N, K, S, S]; `found` the keypoints [N, K, P] that the method's detector found in them, where it
    uses one, and `names` [K][P] which points these are.
    """

    images: np.ndarray
    found: Detections | None = None
    names: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class UnlabelledBatch:
    """One step's input: U people, n frames of each, B = U n.

    `versions` holds the frames and the anchors as augmentation moved them, once or as often as the method asks.
    `targets` uint8 [B, K, S, S] is what the method made of its views, and `people` float32 [U, ...] what it has
    learned of each person so far; each is None where it uses none. `subjects` int64 [U] are rows of the training set.
    `views` uint8 [B, K, S, S], as the cameras saw them, come with frames that are to be looked at.
    """

    versions: tuple[tuple[FrameBatch, AnchorSet], ...]
    targets: Tensor | None
    subjects: Tensor
    people: Tensor | None = None
    views: Tensor | None = None

    @property
    def frames(self) -> FrameBatch:
        """Of the first version."""
        return self.versions[0][0]

    @property
    def anchors(self) -> AnchorSet:
        """Of the first version."""
        return self.versions[0][1]

    @property
    def person(self) -> Tensor:
        """What it has learned of each frame's person, float32 [B, ...].

        Raises:
            ConfigError: it learns nothing of people.
        """
        if self.people is None:
            raise ConfigError("This pre-training asks for a person's row and has no `person_shape`.")
        return self.people.index_select(0, self.frames.users)

    def to(self, device: torch.device) -> UnlabelledBatch:
        """The same batch on another device."""
        versions = tuple((frames.to(device), anchors.to(device)) for frames, anchors in self.versions)
        targets = None if self.targets is None else self.targets.to(device, non_blocking=True)
        return UnlabelledBatch(versions, targets, self.subjects, self.people, self.views)


class Pretraining(nn.Module, ABC, Generic[ConfigT]):
    """A pretext task: networks beside the encoder, and a loss that both learn from; only the encoder is used after.

    `learns` tells what happens: `nothing`; `given`, where the encoder's weights come from elsewhere (`initialise`);
    or `steps`, where it is trained. One that reconstructs images says which cameras' in `views`, and gives the
    keypoint detector that finds its way in them in `detector`; one that compares augmentations of a frame asks for
    more than one of `versions`. The encoder is not part of it: it is given one to learn with each time.

    Everything that it keeps must be a parameter or a buffer. Axes: B frames, U people, K views, S side of an image.
    """

    learns: ClassVar[Literal["nothing", "given", "steps"]] = "steps"
    views: ClassVar[ViewRole | None] = None
    versions: ClassVar[int] = 1
    code_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ConfigT, *, encoder: Encoder[Any], views: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.size = encoder.needs.size
        self.view_names = views

    @classmethod
    def detector(cls, config: ConfigT) -> str | None:
        """Name of the keypoint detector of its views, unless --detector names another; None where it needs none."""
        return None

    @property
    def person_shape(self) -> tuple[int, ...] | None:
        """Shape of what it learns of each person by gradient, such as u^id; None where it learns nothing of them."""
        return None

    def fit_statistics(self, sample: Sequence[Views]) -> None:
        """Set buffers before the first step from some people's views: one capture each, at rest where that is known."""
        return None

    def targets(self, views: Views) -> np.ndarray:
        """What is to be reconstructed of a capture, uint8 [N, K, S, S]; made once and kept."""
        return views.images

    @abstractmethod
    def losses(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, Tensor]:
        """The terms of a step's loss by name, and `total`; drawn with torch's generator, which the loop seeds."""

    def picture(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> np.ndarray | None:
        """How far it is, sRGB uint8 [H, W, 3], for a batch of frames; None where there is nothing to see."""
        return None

    def measure(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, float]:
        """How well the pretext task is solved, by names of what is measured."""
        return {name: float(value.detach()) for name, value in self.losses(encoder, batch).items()}

    def initialise(self, encoder: Encoder[Any]) -> None:
        """Give an encoder its first weights; of methods that say `given`.

        Raises:
            ConfigError: there are none for this encoder; says how to provide them.
        """
        raise ConfigError(f"{type(self).__name__} gives no weights.")
