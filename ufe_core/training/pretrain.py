"""Pre-training (P§6): an encoder learns from headset images alone; from the store if it did before, else now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ufe_core.budgets import PretrainingConfig
from ufe_core.errors import ArtifactError, ConfigError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.pretraining import Pretraining, UnlabelledBatch
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import open_packed
from ufe_core.pictures import write_png
from ufe_core.pretrained_file import refuse_other_pretraining
from ufe_core.recipe import Recipe, subjects_digest
from ufe_core.splits import refuse_held_out
from ufe_core.store import Store, write_atomic
from ufe_core.training.optimise import CHECKPOINT_EVERY_S, Optimisation
from ufe_core.training.progress import Counter, Listener, Progress
from ufe_core.training.rows import LearnedRows, RowTable
from ufe_core.training.runs import TIMING, seconds_beside, tell_wait, uses_bfloat16
from ufe_core.training.unlabelled import CaptureFiles, CapturePaths, UnlabelledData
from ufe_core.training.unlabelled_people import UnlabelledPeople, refuse_other_cameras, view_cameras
from ufe_core.weights import halved, load_weights, save_weights, sha256_file

_SAMPLE = 64  # people whose views and images set statistics
_PEOPLE = "people.npy"
_SHOWN = 6
_ENCODER, _METHOD, _AVERAGE_PERSON = "encoder.", "pretraining.", "average_person"


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder as its pre-training left it, the method with its networks, and where both came from.

    `average_person` is the mean of what was learned of each person; None where the method learns nothing of them.
    """

    encoder: Encoder[Any]
    method: Pretraining[Any]
    path: Path
    sha256: str
    record: dict[str, Any]
    average_person: Tensor | None = None

    def people(self) -> LearnedRows:
        """What was learned of each person, in the order in which they were learned from.

        Raises:
            ArtifactError: it does not lie beside the weights.
        """
        return LearnedRows(self.path.with_name(_PEOPLE))


def make_method(recipe: Recipe, encoder: Encoder[Any], views: tuple[str, ...]) -> Pretraining[Any]:
    """The recipe's pre-training, untrained."""
    assert recipe.pretraining is not None, "there is no pre-training"
    method: Pretraining[Any] = recipe.pretraining.spec.load()(recipe.pretraining.config, encoder=encoder, views=views)
    return method


def pretrained(
    recipe: Recipe, *, store: Store, device: torch.device, fresh: bool = False, listener: Listener | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> PretrainedEncoder:  # fmt: skip
    """The encoder of a recipe after its pre-training: from the file that the recipe names, from the store if it was
    there before, else trained (on) now.

    Nothing but headset images is read, of people that no split holds out. They are packed once, and streamed: memory
    does not grow with the number of people. Killed at any moment, the same call goes on from the last checkpoint and
    ends with the weights it would have had.

    Args:
        recipe: with a pre-training that learns in steps.
        store: where captures, checkpoints and weights are kept.
        device: where to compute.
        fresh: train again from the first step.
        listener: told of progress; the stage is `pretrain`.
        checkpoint_every_s: most seconds between checkpoints.

    Raises:
        DataError: somebody is held out, or a capture cannot be read.
        ArtifactError: the weights in the store are damaged, or it cannot be written.
        ConfigError: the encoder cannot learn by this method.
    """
    if recipe.given_weights is not None:
        if fresh:
            raise ConfigError(f"Nothing is trained where {recipe.given_weights} is taken: leave --fresh out.")
        return load_pretrained(recipe, recipe.given_weights, device)
    tell: Listener = (lambda progress: None) if listener is None else listener
    source, people = recipe.unlabelled()
    refuse_held_out(recipe.source.spec.id, recipe.make_source(), people)
    key = recipe.pretraining_key()
    file = store.path("weights", key) / "weights.safetensors"
    with store.lock("weights", key, on_wait=tell_wait):
        if fresh:
            store.remove("training", key)
        if fresh or not file.is_file():
            store.remove("weights", key)
            refuse_unfit(recipe, source, people[0])
            _Run(recipe, source, people, store, key, device, tell).train(checkpoint_every_s)
        store.remove("training", key)
    return load_pretrained(recipe, file, device)


def copy_pretrained(source: Path, path: Path, *, half: bool = False, encoder_only: bool = False) -> str:
    """Write what `pretrained` wrote to another file, the encoder alone if so; returns its sha256.

    Raises:
        ArtifactError: the file is damaged, a number is too large for half precision, or it cannot be written.
    """
    tensors, spec = load_weights(source)
    if encoder_only:
        tensors = {name: value for name, value in tensors.items() if name.startswith(_ENCODER)}
    return save_weights(path, halved(tensors) if half else tensors, spec)


def load_pretrained(recipe: Recipe, file: Path, device: torch.device) -> PretrainedEncoder:
    """What `pretrained` wrote, here or as a copy elsewhere.

    Raises:
        ArtifactError: the file is damaged, was made by another method or for another encoder, or holds the encoder
            alone.
    """
    tensors, spec = load_weights(file)
    refuse_other_pretraining(recipe, file, spec)
    if not any(name.startswith(_METHOD) for name in tensors):
        raise ArtifactError(
            f"{file} holds the encoder alone, which 'ufe train' takes; 'ufe pretrain' needs one without --encoder-only."
        )
    source, people = recipe.unlabelled()
    encoder, method = _networks(recipe, source, people)
    _load(file, encoder, tensors, _ENCODER)
    _load(file, method, tensors, _METHOD)
    record = {"seconds": seconds_beside(file), **spec.get("training", {})}
    return PretrainedEncoder(
        encoder.to(device).eval(), method.to(device).eval(), file, sha256_file(file), record,
        tensors.get(_AVERAGE_PERSON),
    )  # fmt: skip


def _load(file: Path, module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in own.items()})
    except RuntimeError as error:
        raise ArtifactError(f"{file} does not fit: {str(error).splitlines()[-1].strip()} Pre-train anew.") from error


def _networks(
    recipe: Recipe, source: HMCSource[Any], people: Sequence[str]
) -> tuple[Encoder[Any], Pretraining[Any]]:  # fmt: skip
    """Encoder and method with their first weights, which the pre-training's seed decides."""
    assert recipe.pretraining is not None, "there is no pre-training"
    cameras, codes = recipe.cameras(source, people[0]), recipe.make_decoder().code_space
    encoder = recipe.make_network(cameras, codes, seed=getattr(recipe.pretraining.config, "seed", None))
    encoder.to(memory_format=torch.channels_last)
    return encoder, make_method(recipe, encoder, view_cameras(recipe, source, people[0]))


class _Run:
    """One pre-training."""

    def __init__(self, recipe: Recipe, source: HMCSource[Any], people: Sequence[str], store: Store, key: str,
                 device: torch.device, tell: Listener) -> None:  # fmt: skip
        assert recipe.pretraining is not None, "there is no pre-training"
        self.recipe, self.source, self.people = recipe, source, people
        self.store, self.key, self.device, self.tell = store, key, device, tell
        self.config = cast("PretrainingConfig", recipe.pretraining.config)
        self.folder = store.path("training", key)
        self.frames_at_once = 0
        encoder, method = _networks(recipe, source, people)
        self.encoder, self.method = encoder.to(device), method.to(device)
        shape = method.person_shape
        self.rows = None if shape is None else RowTable(
            self.folder, len(people), shape, seed=self.config.seed, pace=self.config.person_pace
        )  # fmt: skip
        decay = [p for p in method.parameters() if p.ndim > 1]
        plain = [p for p in method.parameters() if p.ndim <= 1]
        self.optimisation = Optimisation(
            encoder,
            [
                *encoder.parameter_groups(self.config.weight_decay),
                {"params": decay, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0},
            ],
            self.config, self.folder / "checkpoint.safetensors", component=recipe.pretraining.spec.id,
            owner="pretraining", beside=method, rows=self.rows,
            listener=lambda progress: tell(replace(progress, stage="pretrain")),
        )  # fmt: skip

    def train(self, checkpoint_every_s: float) -> None:
        """Pack, restore the checkpoint if there is one, take the remaining steps, save."""
        total, config = len(self.people), self.config
        people = UnlabelledPeople(self.recipe, self.source, self.store, self.device)
        counted = Counter(lambda done: self.tell(Progress("headset captures", done, total, {})))
        paths = people.pack(self.people, people.request(self.people[0], config.frames), counted)
        if not self.optimisation.restore():
            self._fit_statistics(people, paths)
            self._start_people(people, paths)
        counted = Counter(lambda done: self.tell(Progress("views", done, total, {})))
        made = people.targets(paths, self.method, counted)
        files = CaptureFiles([CapturePaths(path, target) for path, target in zip(paths, made, strict=True)])
        data = UnlabelledData(
            files, self.encoder.needs.cameras, self.encoder.needs.anchors, config, versions=self.method.versions,
            views=self.method.view_names,
        )  # fmt: skip
        self.frames_at_once = data.users * data.frames_per_user
        bfloat16 = uses_bfloat16(config.precision, self.device)

        def losses(batch: UnlabelledBatch) -> dict[str, Tensor]:
            known = self._with_people(batch.to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                return self.method.losses(self.encoder, known)

        def draw(done: int) -> None:
            if done % config.picture_every == 0 or done == config.steps:
                self._draw(data, done)

        self.encoder.train()
        self.method.train()
        self.optimisation.run(
            data.batches(self.optimisation.step, config.steps), losses, checkpoint_every_s=checkpoint_every_s,
            after=draw,
        )  # fmt: skip
        self._save()

    def _fit_statistics(self, people: UnlabelledPeople, paths: Sequence[Path]) -> None:
        sample = [open_packed(path) for path in paths[:_SAMPLE]]
        seen = len(self.encoder.needs.cameras)
        self.encoder.fit_images(torch.from_numpy(np.array(one.images[:][:, :seen])) for one in sample)
        if self.method.view_names:
            self.method.fit_statistics([people.at_rest_first(one, self.method) for one in sample])

    def _start_people(self, people: UnlabelledPeople, paths: Sequence[Path]) -> None:
        """Let what is learned of each person begin where the method says."""
        if self.rows is None or not self.method.view_names:
            return
        for row, path in enumerate(paths):
            start = people.start_of(path, self.method)
            if start is None:
                return
            self.rows.start(row, start)
            self.tell(Progress("people", row + 1, len(paths), {}))
        self.rows.commit()

    def _with_people(self, batch: UnlabelledBatch) -> UnlabelledBatch:
        if self.rows is None:
            return batch
        return replace(batch, people=self.rows.gather(batch.subjects.numpy(), self.device))

    @torch.no_grad()
    def _draw(self, data: UnlabelledData, done: int) -> None:
        """A picture of a few people's frames, which changes nothing that training uses."""
        state = torch.get_rng_state()
        torch.manual_seed(0)
        count = min(_SHOWN, len(data.files))
        batch = data.of(np.arange(count), np.random.default_rng(0), moves=False, shows=True).to(self.device)
        if self.rows is not None:
            batch = replace(batch, people=torch.from_numpy(self.rows.values(range(count))).to(self.device))
        self.encoder.eval()
        self.method.eval()
        image = self.method.picture(self.encoder, batch)
        self.encoder.train()
        self.method.train()
        torch.set_rng_state(state)
        if image is not None:
            write_png(self.folder / "pictures" / f"step_{done:06d}.png", image)

    def _save(self) -> None:
        recipe = self.recipe
        record = {
            "budget": recipe.budget, "config": self.config.model_dump(mode="json"), "people": len(self.people),
            "frames_seen": self.config.steps * self.frames_at_once,
            "people_sha256": subjects_digest(self.people), "source": recipe.source.spec.id,
            "device": self.device.type, "torch": torch.__version__,
            "precision": "bfloat16" if uses_bfloat16(self.config.precision, self.device) else "float32",
            "made_from": recipe.pretrained_from(),
        }  # fmt: skip
        tensors = {f"{_ENCODER}{name}": value for name, value in self.encoder.state_dict().items()}
        tensors |= {f"{_METHOD}{name}": value for name, value in self.method.state_dict().items()}
        with self.store.building("weights", self.key) as folder:
            if self.rows is not None:
                self.rows.finish(folder / _PEOPLE)
                tensors[_AVERAGE_PERSON] = torch.from_numpy(LearnedRows(folder / _PEOPLE).mean())
            spec = {"config": self.config.model_dump(mode="json"), **recipe.pretraining_facts(), "training": record}
            save_weights(folder / "weights.safetensors", tensors, spec)
            write_atomic(folder / "log.csv", self.optimisation.log_csv())
            write_atomic(folder / TIMING, json.dumps({"seconds": round(self.optimisation.seconds, 1)}).encode())
            if (self.folder / "pictures").is_dir():
                shutil.copytree(self.folder / "pictures", folder / "pictures")


def initialised(
    recipe: Recipe, encoder: Encoder[Any], *, store: Store, device: torch.device, listener: Listener | None = None
) -> dict[str, Any]:
    """Give an encoder what its recipe's pre-training taught it, or the weights that it names; returns facts of that.

    What only labels teach begins as without pre-training, unless the encoder is to be probed as it is.

    Raises:
        ConfigError: there are no such weights for this encoder.
        UfeError: as `pretrained`.
    """
    if recipe.pretraining is None:
        return {}
    if not recipe.learns_first:
        return make_method(recipe, encoder, ()).initialise(encoder)
    given = recipe.given_weights
    own = () if recipe.training.update == "linear" else encoder.taught_by_labels()
    kept = {name: value.clone() for name, value in encoder.state_dict().items() if name.startswith(own)}
    if given is not None:
        tensors, spec = load_weights(given)
        refuse_other_pretraining(recipe, given, spec)
        _load(given, encoder, tensors, _ENCODER)
        facts = {**spec.get("training", {}), "sha256": sha256_file(given)}
    else:
        made = pretrained(recipe, store=store, device=device, listener=listener)
        encoder.load_state_dict(made.encoder.state_dict())
        facts = {**made.record, "sha256": made.sha256}
    encoder.load_state_dict(kept, strict=False)
    return {name: value for name, value in facts.items() if name != "seconds"}  # weights must not depend on the clock


def refuse_unfit(recipe: Recipe, source: HMCSource[Any], subject: str) -> None:
    """Find out before any long work whether a recipe's pre-training can be: options, cameras, detector, weights.

    Raises:
        ConfigError: an option does not fit the encoder, or there are no weights for it.
        ArtifactError: the weights that are named are of another encoder or other options.
        DataError: the source has no such cameras, or the detector looks through others.
    """
    if recipe.pretraining is None:
        return
    encoder, method = _networks(recipe, source, [subject])
    if not recipe.learns_first:
        method.initialise(encoder)
    elif recipe.given_weights is not None:
        tensors, spec = load_weights(recipe.given_weights)
        refuse_other_pretraining(recipe, recipe.given_weights, spec)
        _load(recipe.given_weights, encoder, tensors, _ENCODER)
    elif recipe.view_detector is not None:
        refuse_other_cameras(recipe.view_detector.spec.load()(recipe.view_detector.config), recipe, method.view_names)
