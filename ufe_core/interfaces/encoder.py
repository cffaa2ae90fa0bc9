"""Encoder: headset images in, expression code and gaze out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import torch
from torch import Tensor, nn

from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError, ContractError
from ufe_core.types import AnchorSet, Calibration, CodeSpace, Encoding, FrameBatch, Labels, Region, Side

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

EncoderInput = Literal["images", "keypoints", "neutral_mesh", "exact_mesh"]


@dataclass(frozen=True)
class EncoderNeeds:
    """What an encoder must be given: cameras by name and order, image size in pixels, anchors by name and order."""

    cameras: tuple[str, ...]
    size: int
    anchors: tuple[str, ...] = ()


def refuse_foreign(calibration: Calibration, encoder: str) -> None:
    """Refuse a calibration that an encoder of another fingerprint made.

    Raises:
        ContractError: names both.
    """
    if calibration.encoder != encoder:
        raise ContractError(
            f"This calibration was made by encoder {calibration.encoder[:12] or '(untrained)'}, not by "
            f"{encoder[:12] or '(untrained)'}: enroll the user again."
        )


@dataclass(frozen=True)
class TrainingStatistics:
    """What is known of the training subjects before training.

    `labels` of all their frames, `images` of some, and by the name of each anchor that the encoder needs the labels of
    every subject who shows it.
    """

    labels: Labels
    images: Iterable[Tensor]
    anchors: Mapping[str, Labels] = field(default_factory=dict)


class Encoder(nn.Module, ABC, Generic[ConfigT]):
    """Maps tracking-camera frames to the codes a decoder is driven with (P§4.1).

    A plugin overrides `_encode`, and `_enroll` if it keeps something of the anchors. `learns` says what it needs of
    the training subjects: nothing, their statistics alone (`fit_statistics`), or gradient steps too. One that sets
    `calibrated` gets a keyword argument `calibrator`, a function (channels, anchors) -> Calibrator for one face
    region; one that uses anchors in its own way sets `uses_anchors`, and `reads_anchors` where it needs certain ones
    and looks at no other; in training anchors are left out by chance, and are not `present` then. One that needs more
    than images says so in `inputs`, and finds it in the frames and the anchors: `keypoints` that the detector of the
    recipe found in them (it is told which ones these are by a keyword argument `keypoints`, a tuple of
    `KeypointNames`); `neutral_mesh` of the users (anchors); `exact_mesh` of the frames, for hypothetical rows alone.
    One that takes cameras in certain places alone says in which, region and side of each in order, in `camera_places`.
    One that reasons with the cameras' calibration sets `uses_rig`, gets a keyword argument `rig`, the nominal cameras,
    and in training images that no augmentation has moved. One that contrastive pre-training can teach implements
    `view_features`, and one that can begin from published weights `load_backbone`. `_encode` and `_enroll` are
    differentiable: training runs them through `forward`, and `enroll` / `encode` are the same code under inference
    mode with the result checked.

    Everything that an encoder keeps must be a parameter or a buffer, so that its weights file restores it.
    Axes: B frames, U users, M anchors, C cameras, D code size.
    """

    learns: ClassVar[Literal["nothing", "statistics", "weights"]] = "nothing"
    calibrated: ClassVar[bool] = False
    uses_anchors: ClassVar[bool] = False
    reads_anchors: ClassVar[tuple[str, ...] | None] = None
    uses_rig: ClassVar[bool] = False
    camera_places: ClassVar[tuple[tuple[Region, Side], ...] | None] = None
    inputs: ClassVar[tuple[EncoderInput, ...]] = ("images",)
    code_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ConfigT, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__()
        self.config = config
        self.needs = needs
        self.code_space = code_space
        self.fingerprint = ""  # of weights and code, set by whoever loads them; marks the calibrations made with them

    @final
    @torch.inference_mode()
    def enroll(self, anchors: AnchorSet) -> Calibration:
        """Compute, once per user, everything that depends on the anchors alone.

        An anchor that no camera shows anything of, a covered headset or a lost file, is taken as missing, with a
        warning.

        Raises:
            ContractError: the anchors are not the ones this encoder declares in `needs`.
        """
        if anchors.names != self.needs.anchors or anchors.cameras != self.needs.cameras:
            raise ContractError(
                f"{type(self).__name__} needs anchors {list(self.needs.anchors)} seen by {list(self.needs.cameras)}; "
                f"it was given {list(anchors.names)} seen by {list(anchors.cameras)}."
            )
        self._check_size("anchors", anchors.images)
        self._check_inputs("anchors", keypoints=anchors.keypoints, neutral_mesh=anchors.geometry)
        anchors, blank = anchors.without_blank()
        for user, anchor in blank.nonzero().tolist():
            logging.getLogger("ufe").warning(
                "Anchor %r of user %d shows nothing in any camera: it is taken as missing. Pose for it again.",
                anchors.names[anchor], user,
            )  # fmt: skip
        return Calibration(self.fingerprint, self._enroll(anchors))

    @final
    @torch.inference_mode()
    def encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        """Encode frames with their users' calibration.

        Raises:
            ContractError: cameras or size are not the declared ones, the calibration was made by another encoder or has
                no such users, or the plugin returned a wrong shape, NaN or a gaze that is not a unit vector.
        """
        if frames.cameras != self.needs.cameras:
            raise ContractError(
                f"{type(self).__name__} needs cameras {list(self.needs.cameras)}, was given {list(frames.cameras)}."
            )
        self._check_size("frames", frames.images)
        self._check_inputs("frames", keypoints=frames.keypoints, exact_mesh=frames.geometry)
        refuse_foreign(calibration, self.fingerprint)
        self._check_users(frames.users, calibration)
        encoding = self._encode(frames, calibration.to(frames.images.device))
        self._check(encoding, frames.images.shape[0])
        return encoding

    def forward(self, frames: FrameBatch, anchors: AnchorSet) -> Encoding:
        """Enrol and encode at once, differentiable: what training calls. Must equal `enroll` then `encode`."""
        return self._encode(frames, Calibration(self.fingerprint, self._enroll(anchors)))

    @abstractmethod
    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        """Encode; differentiable with respect to parameters and to the calibration's tensors."""

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        """The cached tensors [U, ...] of the users; empty for an encoder without calibration."""
        return {}

    def fit_statistics(self, statistics: TrainingStatistics) -> None:
        """Set buffers (input normalisation, output mean) from the training subjects, before the first step.

        Of an encoder that was pre-trained there are no images in the statistics: what it made of images stays.
        """
        return None

    def fit_images(self, images: Iterable[Tensor]) -> None:
        """Set what `fit_statistics` would from images alone, uint8 [N, C, H, W] each, before pre-training."""
        return None

    def view_features(self, frames: FrameBatch, anchors: AnchorSet) -> Tensor:
        """What it sees in each camera before cameras are put together, calibrated: float32 [B, C, F], differentiable.

        Raises:
            ConfigError: it has no such features.
        """
        raise ConfigError(f"{type(self).__name__} has no features of single cameras.")

    def load_backbone(self, load: Callable[[str, Mapping[str, Any]], Mapping[str, Tensor]]) -> None:
        """Take the weights of published networks: `load` gives those of a timm model, by its name and options.

        Raises:
            ConfigError: no part of it is such a model.
        """
        raise ConfigError(f"{type(self).__name__} has no backbone that takes published weights.")

    def taught_by_labels(self) -> tuple[str, ...]:
        """Prefixes of the names of weights that a pre-training does not hand on, since only labels give them a meaning.

        None by default. They keep the values that they had before the pre-training.
        """
        return ()

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups: no decay on biases and normalisation gains."""
        decay = [p for p in self.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.parameters() if p.requires_grad and p.ndim <= 1]
        return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]

    def _check_size(self, what: str, images: Tensor) -> None:
        size = self.needs.size
        if tuple(images.shape[-2:]) != (size, size):
            raise ContractError(
                f"{type(self).__name__} needs {what} of {size} x {size} pixels, was given "
                f"{images.shape[-2]} x {images.shape[-1]}."
            )

    def _check_inputs(self, what: str, **given: object) -> None:
        lacking = [name for name, value in given.items() if name in self.inputs and value is None]
        if lacking:
            raise ContractError(f"{type(self).__name__} needs {what} with {' and '.join(lacking)}; they have none.")

    def _check_users(self, users: Tensor, calibration: Calibration) -> None:
        if not calibration.tensors or not len(users):
            return
        there = next(iter(calibration.tensors.values())).shape[0]
        if not 0 <= int(users.min()) <= int(users.max()) < there:
            raise ContractError(
                f"The calibration is of {there} user{'s' * (there > 1)}, numbered from 0; frames are of users "
                f"{sorted(set(users.tolist()))[:10]}."
            )

    def _check(self, encoding: Encoding, count: int) -> None:
        name = type(self).__name__
        expected = (count, self.code_space.size)
        if tuple(encoding.expression.shape) != expected:
            raise ContractError(
                f"{name}._encode returned an expression {list(encoding.expression.shape)}; code space "
                f"{self.code_space.name!r} needs {list(expected)}."
            )
        bad = (~torch.isfinite(torch.cat([encoding.expression, encoding.gaze], 1))).any(1).nonzero().flatten()
        if len(bad):
            raise ContractError(f"{name}._encode returned NaN or infinity in rows {bad[:10].tolist()}.")
        length = encoding.gaze.view(-1, 2, 3).norm(dim=-1)
        if (length - 1).abs().max() > 1e-3:
            raise ContractError(f"{name}._encode returned a gaze that is not a unit vector.")
