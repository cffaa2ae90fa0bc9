"""Training batches from packed captures: a few subjects, the anchors of each once, a few frames of each."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ufe_core.budgets import TrainingConfig
from ufe_core.errors import DataError
from ufe_core.interfaces.encoder import TrainingStatistics
from ufe_core.packed import PackedCapture
from ufe_core.training.augment import Augmentation, CutMix, present_anchors
from ufe_core.training.prefetch import loading_threads, prefetched
from ufe_core.types import AnchorSet, Detections, FrameBatch, Labels

_STATISTICS_FRAMES = 8


@dataclass(frozen=True)
class Batch:
    """One step's input: `frames.users` indexes U subjects.

    `subjects` int64 [U] are rows of the training set, `rows` int64 [B] those of its frames, as `all_labels` has them.
    """

    frames: FrameBatch
    anchors: AnchorSet
    labels: Labels
    subjects: Tensor
    rows: Tensor

    def part(self, users: slice) -> Batch:
        """What it holds of some of the U people."""
        each = len(self.frames.users) // len(self.subjects)
        part = slice(users.start * each, users.stop * each)
        frames = self.frames.part(part)
        return Batch(
            replace(frames, users=frames.users - users.start), self.anchors.part(users), self.labels.rows(part),
            self.subjects[users], self.rows[part],
        )  # fmt: skip

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.frames.to(device), self.anchors.to(device), self.labels.to(device), self.subjects.to(device),
            self.rows.to(device),
        )  # fmt: skip


class TrainingData:
    """Labelled captures of the training subjects, and the batches drawn from them.

    A batch is a function of the seed and the step alone: a resumed run draws what it would have drawn.

    Raises:
        DataError: a capture has no labels, incomplete ones or no neutral face.
    """

    def __init__(
        self, captures: Sequence[PackedCapture], cameras: tuple[str, ...], anchors: tuple[str, ...],
        config: TrainingConfig, *, moves_images: bool = True,
    ) -> None:  # fmt: skip
        for capture in captures:
            if not len(capture.expression) or not len(capture.geometry):
                raise DataError(f"Capture {capture.capture!r} has no labels or no neutral face: it cannot train.")
            if not (np.isfinite(capture.expression).all() and np.isfinite(capture.gaze).all()):
                raise DataError(f"Capture {capture.capture!r} has labels without numbers (no gaze?): it cannot train.")
        self.captures = captures
        self.cameras = cameras
        self.anchor_names = anchors
        self.config = config
        self.moves_images = moves_images
        self.users = min(config.users, len(captures))
        self.frames_per_user = min(config.frames_per_user, config.frames)
        self._first = np.cumsum([0, *(len(capture.frame_rows) for capture in captures)])

    def neutrals(self) -> tuple[Tensor, Tensor]:
        """Neutral textures float32 [S, 3, T, T] in [0, 1], geometries float32 [S, V, 3]; S subjects."""
        textures = torch.from_numpy(np.stack([c.texture for c in self.captures])).float() / 255
        return textures, torch.from_numpy(np.stack([c.geometry for c in self.captures]))

    def all_labels(self) -> tuple[Labels, Tensor]:
        """Labels of all N training frames, person by person, and each one's subject, int64 [N]."""
        labels = [labels_of(capture, ())[0] for capture in self.captures]
        counts = torch.tensor([len(one.gaze) for one in labels])
        subjects = torch.arange(len(labels)).repeat_interleave(counts)
        return _joined(labels), subjects

    def statistics(self) -> TrainingStatistics:
        """Labels of every frame, a few images of each subject, and the labels of their anchors."""
        pairs = [labels_of(capture, self.anchor_names) for capture in self.captures]
        return statistics_of(pairs, self.anchor_names, self._sample_images())

    def _sample_images(self) -> Iterator[Tensor]:
        for capture in self.captures:
            rows = np.linspace(0, len(capture.frame_rows) - 1, _STATISTICS_FRAMES).astype(int)
            yield torch.from_numpy(capture.images[capture.frame_rows[rows]])

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        config = self.config
        rng = np.random.default_rng([config.seed, 1, step])
        subjects = rng.choice(len(self.captures), self.users, replace=False)
        chosen = [self.captures[row] for row in subjects]
        numbers = [rng.choice(len(capture.frame_rows), self.frames_per_user, replace=False) for capture in chosen]
        rows = [capture.frame_rows[some] for capture, some in zip(chosen, numbers, strict=True)]
        pairs = list(zip(chosen, rows, strict=True))
        anchor_rows = [capture.rows_of(self.anchor_names) for capture in chosen]
        images = np.stack([capture.images[some] for capture, some in pairs])
        held = np.stack([capture.images[some] for capture, some in zip(chosen, anchor_rows, strict=True)])
        augment = Augmentation.draw(config, self.users, len(self.cameras), rng)
        patches = CutMix.draw(config.cutmix_patches, images.shape[:3], images.shape[-1], rng)
        if self.moves_images:
            images, held = patches.apply(augment.apply(images)), augment.apply(held)
        present = present_anchors(config.anchor_dropout, self.users, len(self.anchor_names), rng)
        users = torch.arange(self.users).repeat_interleave(self.frames_per_user)
        found = self._detections(rows, chosen, augment, patches)
        anchors = self._detections(anchor_rows, chosen, augment)
        meshes = [capture.exact_mesh[some] for capture, some in pairs if capture.exact_mesh is not None]
        return Batch(
            FrameBatch(
                torch.from_numpy(images.reshape(-1, *images.shape[2:])), self.cameras, users,
                found and found.map(lambda value: value.flatten(0, 1)),
                torch.from_numpy(np.concatenate(meshes)) if meshes else None,
            ),
            AnchorSet(
                torch.from_numpy(held), self.anchor_names, self.cameras, torch.from_numpy(present), anchors,
                torch.from_numpy(np.stack([capture.geometry for capture in chosen])),
            ),
            Labels(
                torch.from_numpy(np.concatenate([capture.expression[some] for capture, some in pairs])),
                torch.from_numpy(np.concatenate([capture.gaze[some] for capture, some in pairs])),
            ),
            torch.from_numpy(subjects.astype(np.int64)),
            torch.from_numpy((self._first[subjects][:, None] + np.stack(numbers)).reshape(-1)),
        )  # fmt: skip

    def _detections(
        self, rows: Sequence[np.ndarray], captures: Sequence[PackedCapture], augment: Augmentation,
        patches: CutMix | None = None,
    ) -> Detections | None:  # fmt: skip
        """Keypoints [U, N, C, K] of some rows of U captures, moved as their images are; none is seen under a patch."""
        found = [capture.detections for capture in captures if capture.detections is not None]
        if not found:
            return None
        points = np.stack([each.points[some].numpy() for each, some in zip(found, rows, strict=True)])
        visible = torch.stack([each.visible[some] for each, some in zip(found, rows, strict=True)])
        if self.moves_images:
            points = augment.move(points, self.config.size)
            if patches is not None:
                visible = visible * torch.from_numpy(~patches.covers(points))
        return Detections(torch.from_numpy(points.astype(np.float32)), visible)

    def batches(self, start: int, stop: int) -> Generator[tuple[int, Batch], None, None]:
        """Batches of steps `start` to `stop`, in order, prepared by threads a few steps ahead."""
        return prefetched(self.batch, start, stop, threads=loading_threads())


def labels_of(capture: PackedCapture, anchors: Sequence[str]) -> tuple[Labels, Labels]:
    """Labels of a capture's frames and of its anchors."""
    frames, shown = (
        Labels(torch.from_numpy(capture.expression[rows]), torch.from_numpy(np.array(capture.gaze[rows])))
        for rows in (capture.frame_rows, capture.rows_of(anchors))
    )
    return frames, shown


def _joined(labels: Sequence[Labels]) -> Labels:
    """Labels of one capture after another."""
    return Labels(torch.cat([one.expression for one in labels]), torch.cat([one.gaze for one in labels]))


def statistics_of(
    pairs: Sequence[tuple[Labels, Labels]], anchors: Sequence[str], images: Iterable[Tensor] = ()
) -> TrainingStatistics:
    """Statistics from the labels of each subject's frames and anchors."""
    frames = _joined([one for one, _ in pairs])
    shown = {
        name: Labels(
            torch.stack([one.expression[k] for _, one in pairs]), torch.stack([one.gaze[k] for _, one in pairs])
        )
        for k, name in enumerate(anchors)
    }
    return TrainingStatistics(frames, images, shown)
