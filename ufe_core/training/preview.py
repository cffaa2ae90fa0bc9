"""Frames to look at what a pre-training learned: such as it never saw, of people it learned from or of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ufe_core.bootstrap import bootstrap_interval
from ufe_core.budgets import PretrainingConfig
from ufe_core.errors import DataError
from ufe_core.instants import instants_of
from ufe_core.interfaces.pretraining import UnlabelledBatch
from ufe_core.packed import open_packed
from ufe_core.recipe import Recipe, unlabelled_people
from ufe_core.store import Store
from ufe_core.training.pretrain import PretrainedEncoder
from ufe_core.training.unlabelled import CaptureFiles, CapturePaths, UnlabelledData
from ufe_core.training.unlabelled_people import UnlabelledPeople

_FRAMES = 8  # of each person, of which those are drawn that it never saw
_SEED = 1  # of these; pre-training takes those of 0


def batch_of(
    recipe: Recipe, made: PretrainedEncoder, count: int, *, unseen: bool, store: Store, device: torch.device,
    session: int = 0,
) -> UnlabelledBatch:  # fmt: skip
    """Frames that a pre-training never saw, not augmented: of people it learned from, or of others.

    Those whom it never saw are taken for what people are before the first step, or for the mean of what it learned of
    all.

    Args:
        recipe: of the pre-training.
        made: what it gave.
        count: people; fewer where it learned from fewer.
        unseen: whether they are others than those whom it learned from.
        store: where captures are kept.
        device: where the batch is wanted.
        session: of their captures; it learned from 0.

    Raises:
        DataError: the source has nobody else, no such session, or no frame that was not learned from.
        ArtifactError: what was learned of each person does not lie beside the weights.
    """
    config, views = cast("PretrainingConfig", made.method.config), made.method.view_names
    source, people = unlabelled_people(recipe.source, config.people + (count if unseen else 0))
    if session >= source.sessions:
        raise DataError(f"'{recipe.source.spec.id}' has sessions 0 to {source.sessions - 1}, not {session}.")
    some = people[config.people :] if unseen else people[:count]
    if unseen and len(some) < count:
        raise DataError(f"'{recipe.source.spec.id}' has nobody else: --people seen shows those it learned from.")
    held = UnlabelledPeople(recipe, source, store, device)
    paths = held.pack(some, held.request(some[0], _FRAMES, session=session, seed=_SEED))
    known: Tensor | None = None
    if made.average_person is not None and unseen:
        starts = [held.start_of(path, made.method) if views else None for path in paths]
        known = torch.stack([made.average_person if one is None else torch.from_numpy(one) for one in starts])
    elif made.average_person is not None:
        known = torch.from_numpy(made.people().values(range(len(some))))
    targets = held.targets(paths, made.method)
    files = CaptureFiles([CapturePaths(path, target) for path, target in zip(paths, targets, strict=True)])
    each = max(2, min(config.frames_per_user, _FRAMES // 2))
    learned = held.request(some[0], config.frames)
    among = []
    for capture, path in zip(source.captures(some), paths, strict=True):
        packed = open_packed(path)
        seen = set() if unseen or session else set(instants_of(capture, learned))
        among.append(np.array([k for k, row in enumerate(packed.frame_rows) if packed.frames[row] not in seen]))
        if len(among[-1]) < each:
            raise DataError(f"It learned from nearly all frames of '{capture.subject}': --session 1 shows others.")
    data = UnlabelledData(
        files, made.encoder.needs.cameras, made.encoder.needs.anchors,
        config.model_copy(update={"users": len(some), "frames": _FRAMES, "frames_per_user": each}),
        versions=made.method.versions, views=views,
    )  # fmt: skip
    drawn = np.random.default_rng(0)
    batch = data.of(np.arange(len(some)), drawn, moves=made.method.versions > 1, shows=True, among=among)
    return replace(batch, people=known).to(device)


def person_of(batch: UnlabelledBatch, number: int) -> UnlabelledBatch:
    """The frames of one of its people."""
    each = len(batch.frames.users) // len(batch.subjects)
    rows, one = slice(number * each, (number + 1) * each), slice(number, number + 1)
    versions = []
    for frames, anchors in batch.versions:
        part = frames.part(rows)
        versions.append((replace(part, users=part.users - number), anchors.part(one)))
    return UnlabelledBatch(
        tuple(versions), None if batch.targets is None else batch.targets[rows], batch.subjects[one],
        None if batch.people is None else batch.people[one], None if batch.views is None else batch.views[rows],
    )  # fmt: skip


@dataclass(frozen=True)
class Gain:
    """How much less the error is with a frame's own code than with another's: mean over people, 95 % interval, and for
    how many of them it is less.
    """

    mean: float
    ci95: tuple[float, float]
    better: int
    people: int


def gains_of(each: Sequence[Mapping[str, float]]) -> dict[str, Gain]:
    """How much nearer the own code comes than `other` and `zero`, over all views and in each, by their names.

    Args:
        each: what `measure` said of each person: `right`, `other`, `zero`, and the same after the name of a view.
    """
    found = {}
    for name in each[0]:
        view, mark, code = name.rpartition(": ")
        own = f"{view}{mark}right"
        if code in ("other", "zero") and own in each[0]:
            found[name] = gain_of([one[own] for one in each], [one[name] for one in each])
    return found


def gain_of(own: Sequence[float], other: Sequence[float]) -> Gain:
    """The gain, of the errors of each person with the own code and with another."""
    less = np.asarray(other) - np.asarray(own)
    return Gain(float(less.mean()), bootstrap_interval(less), int((less > 0).sum()), len(less))
