"""Pre-training: what an encoder learns from headset images alone, before it sees a label (P§6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ufe_core.budgets import TRAINED
from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.types import AnchorSet, Detections, FrameBatch
from ufe_core.weights import sha256_file

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

ViewRole = Literal["tracking", "augmented"]


@dataclass(frozen=True)
class Views:
    """What some cameras saw in N frames of one capture.

    `images` uint8 [N, K, S, S]; `found` the keypoints [N, K, P] that the method's detector found in them, where it
    uses one, and `names` which points these are, a tuple of P for each camera.
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
        targets, people, views = (
            None if value is None else value.to(device, non_blocking=True)
            for value in (self.targets, self.people, self.views)
        )
        return UnlabelledBatch(versions, targets, self.subjects, people, views)


class Pretraining(nn.Module, Generic[ConfigT]):
    """A pretext task: networks beside the encoder, and a loss that both learn from; only the encoder is used after.

    `learns` tells what happens: `nothing`; `given`, where the encoder's weights come from elsewhere (`initialise`);
    or `steps`, where it is trained. One that reconstructs images says which cameras' in `views`, and gives the
    keypoint detector that finds its way in them in `detector`; one that compares augmentations of a frame asks for
    more than one of `versions`. `weights_option` names the option that says which file it begins from. The encoder is
    not part of it: it is given one to learn with each time. Options of one that learns in steps derive from
    `ufe_core.budgets.PretrainingConfig`.

    Everything that it keeps must be a parameter or a buffer. Axes: B frames, U people, K views, S side of an image.
    """

    learns: ClassVar[Literal["nothing", "given", "steps"]] = "steps"
    views: ClassVar[ViewRole | None] = None
    versions: ClassVar[int] = 1
    code_modules: ClassVar[tuple[str, ...]] = ()
    weights_option: ClassVar[str] = "weights"

    def __init__(self, config: ConfigT, *, encoder: Encoder[Any], views: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.size = encoder.needs.size
        self.view_names = views

    @classmethod
    def weights_sha256(cls, config: ConfigT) -> str | None:
        """Hash of the file of weights that it begins from; None without.

        It takes the place of `weights_option` in keys and results, so that the file is known wherever it lies.

        Raises:
            ArtifactError: the file cannot be read.
        """
        named = getattr(config, "weights", TRAINED)
        return None if named == TRAINED else sha256_file(Path(named).expanduser())

    @classmethod
    def detector(cls, config: ConfigT) -> str | None:
        """Name of the keypoint detector of its views, unless --detector names another; None where it needs none."""
        return None

    @property
    def person_shape(self) -> tuple[int, ...] | None:
        """Shape of what it learns of each person by gradient, such as u^id; None where it learns nothing of them."""
        return None

    def person_start(self, views: Views) -> np.ndarray | None:
        """What it takes a person for before the first step, float32 of `person_shape`, from views of their anchors.

        They come as `fit_statistics` has them, which goes before. None where people start at random.
        """
        return None

    def fit_statistics(self, sample: Sequence[Views]) -> None:
        """Set buffers before the first step from some people's views: the anchors of each, the one at rest first.

        Of a source without anchors, all frames.
        """
        return None

    def targets(self, views: Views) -> np.ndarray:
        """What is to be reconstructed of a capture, uint8 [N, K, S, S]; made once and kept, see `targets_of`."""
        return views.images

    def targets_of(self) -> Mapping[str, Any] | None:
        """What decides the targets besides the views, as JSON values: targets are kept by it.

        None where the targets are the views as they are, which are not kept a second time.
        """
        return None

    def losses(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, Tensor]:
        """The terms of a step's loss by name, and `total`; drawn with torch's generator, which the loop seeds.

        Every method that learns in steps implements it.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no steps.")

    def picture(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> np.ndarray | None:
        """How far it is, sRGB uint8 [H, W, 3], for a batch of frames; None where there is nothing to see."""
        return None

    def measure(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, float]:
        """How well the pretext task is solved, by names of what is measured."""
        return {name: float(value.detach()) for name, value in self.losses(encoder, batch).items()}

    def initialise(self, encoder: Encoder[Any]) -> dict[str, Any]:
        """Give an encoder its first weights; of methods that say `given`. Returns facts for the training's record.

        Raises:
            ConfigError: there are none for this encoder; says how to provide them.
        """
        raise ConfigError(f"{type(self).__name__} gives no weights.")
