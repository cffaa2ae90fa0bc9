"""Pre-training batches, streamed from packed captures that are opened when they are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ufe_core.budgets import PretrainingConfig
from ufe_core.interfaces.pretraining import UnlabelledBatch
from ufe_core.packed import PackedCapture, open_packed
from ufe_core.packed_file import MappedTensor
from ufe_core.training.augment import Augmentation, present_anchors
from ufe_core.training.kept_views import open_views
from ufe_core.training.prefetch import loading_threads, prefetched
from ufe_core.types import AnchorSet, FrameBatch

_OPEN = 128  # captures that stay open, whatever their number


@dataclass(frozen=True)
class CapturePaths:
    """Where a person's packed capture lies, and what the method made of the views of its frames, if it keeps that."""

    capture: Path
    targets: Path | None = None


class CaptureFiles:
    """People's captures on disk; only the last few that were read stay open. Threads may share it."""

    def __init__(self, paths: Sequence[CapturePaths]) -> None:
        self._paths = tuple(paths)
        self._open: OrderedDict[int, tuple[PackedCapture, MappedTensor | None]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[PackedCapture, MappedTensor | None]:
        """A capture, and what is kept of its frames' views, uint8 [N, K, S, S].

        Raises:
            DataError: either is gone or damaged.
        """
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        paths = self._paths[number]
        opened = (open_packed(paths.capture), None if paths.targets is None else open_views(paths.targets))
        with self._lock:
            self._open[number] = opened
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return opened

    @property
    def opened(self) -> int:
        """How many are open."""
        return len(self._open)


class UnlabelledData:
    """Batches of headset images. A batch is a function of the seed and the step alone.

    Args:
        files: the people's captures, packed with the tracking cameras first.
        cameras: the tracking cameras, in order.
        anchors: those that the encoder is given.
        config: sizes, seed and augmentation.
        versions: how often each image is moved anew.
        views: cameras whose images are targets, where nothing else is kept of them.
    """

    def __init__(
        self, files: CaptureFiles, cameras: tuple[str, ...], anchors: tuple[str, ...], config: PretrainingConfig, *,
        versions: int = 1, views: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.files, self.cameras, self.anchor_names = files, cameras, anchors
        self.config, self._versions, self._views = config, versions, views
        self.users = min(config.users, len(files))
        self.frames_per_user = min(config.frames_per_user, config.frames)

    def batch(self, step: int) -> UnlabelledBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self.config.seed, 7, step])
        return self.of(rng.choice(len(self.files), self.users, replace=False), rng)

    def of(
        self, people: np.ndarray, rng: np.random.Generator, *, moves: bool = True, shows: bool = False,
        among: Sequence[np.ndarray] | None = None,
    ) -> UnlabelledBatch:  # fmt: skip
        """Frames of certain people, drawn.

        Args:
            people: rows of the training set.
            rng: what draws.
            moves: whether images are augmented.
            shows: whether the views come along as the cameras saw them.
            among: which frames of each, the first being 0; all where nothing is said.
        """
        opened = [self.files[int(k)] for k in people]
        choices = among or [np.arange(len(capture.frame_rows)) for capture, _ in opened]
        rows = [rng.choice(some, self.frames_per_user, replace=False) for some in choices]
        seen = len(self.cameras)
        whole = [capture.images[capture.frame_rows[some]] for (capture, _), some in zip(opened, rows, strict=True)]
        frames = np.stack([images[:, :seen] for images in whole])
        held = np.stack([capture.images[capture.rows_of(self.anchor_names)][:, :seen] for capture, _ in opened])
        chance = self.config.anchor_dropout if moves else 0.0
        present = torch.from_numpy(present_anchors(chance, len(people), len(self.anchor_names), rng))
        users = torch.arange(len(people)).repeat_interleave(self.frames_per_user)
        versions = []
        for _ in range(self._versions):
            moved = Augmentation.draw(self.config, len(people), seen, rng)
            images, anchors = (moved.apply(frames), moved.apply(held)) if moves else (frames, held)
            versions.append((
                FrameBatch(torch.from_numpy(images.reshape(-1, *images.shape[2:])), self.cameras, users),
                AnchorSet(torch.from_numpy(anchors), self.anchor_names, self.cameras, present),
            ))  # fmt: skip
        views = targets = None
        if self._views:
            chosen = [[k for k, camera in enumerate(c.cameras) if camera.name in self._views] for c, _ in opened]
            made = [
                images[:, columns] if kept is None else kept[some]
                for images, columns, (_, kept), some in zip(whole, chosen, opened, rows, strict=True)
            ]
            targets = torch.from_numpy(np.concatenate(made))
            if shows:
                raw = [images[:, columns] for images, columns in zip(whole, chosen, strict=True)]
                views = torch.from_numpy(np.concatenate(raw))
        return UnlabelledBatch(
            tuple(versions), targets, torch.from_numpy(people.astype(np.int64)), views=views
        )  # fmt: skip

    def batches(self, start: int, stop: int) -> Generator[tuple[int, UnlabelledBatch], None, None]:
        """Batches of steps `start` to `stop`, in order, prepared by threads a few steps ahead."""
        return prefetched(self.batch, start, stop, threads=loading_threads())
