"""Decoders, detectors and whatever else is trained by itself: from the store if there, else now."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ufe_core.budgets import ComponentTrainingConfig
from ufe_core.config import build_config
from ufe_core.errors import ConfigError
from ufe_core.interfaces.source import HMCSource
from ufe_core.interfaces.training import ComponentTraining
from ufe_core.pictures import write_png
from ufe_core.plugins import Catalogue
from ufe_core.recipe import Chosen, choose, subjects_digest
from ufe_core.splits import refuse_held_out
from ufe_core.store import Store, code_fingerprint, fingerprint, write_atomic
from ufe_core.training.optimise import CHECKPOINT_EVERY_S, Optimisation
from ufe_core.training.progress import Counter, Listener, Progress
from ufe_core.training.runs import TIMING, seconds_beside, tell_wait
from ufe_core.weights import halved, load_weights, save_weights, sha256_file

_CODE = ("ufe_core.instants", "ufe_core.training.components", "ufe_core.training.optimise", "ufe_core.dome_arrays")
_OWNERS = ("source", "training")


@dataclass(frozen=True)
class ComponentRecipe:
    """Everything that decides a component's weights, but the training subjects."""

    source: Chosen
    component: Chosen
    budget: str
    training: ComponentTrainingConfig

    @property
    def trained_by(self) -> type[ComponentTraining[Any, Any]]:
        """How the component learns."""
        found: type[ComponentTraining[Any, Any]] = self.component.spec.load().trained_by
        return found

    def key(self, source: HMCSource[Any], subjects: Sequence[str]) -> str:
        """Store key of the weights that this recipe gives on these subjects."""
        return fingerprint({
            self.component.spec.kind: self.component.spec.id, "code": self.component.code,
            "loop": code_fingerprint(*_CODE, *self.trained_by.code_modules),
            "training": self.training.model_dump(mode="json"),
            "data": self.trained_by.fingerprint(source), "subjects": list(subjects),
        })  # fmt: skip


@dataclass(frozen=True)
class TrainedComponent:
    """Weights of a component, and how they were made."""

    path: Path
    sha256: str
    record: dict[str, Any]


def resolve_component_recipe(
    catalogue: Catalogue, kind: str, name: str, *, source: str = "synthetic", budget: str = "cpu",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> ComponentRecipe:  # fmt: skip
    """Turn names and `--set` overrides into a recipe.

    Raises:
        UnknownComponentError: a name is not registered.
        ConfigError: the component learns nothing, or an option is unknown or its value not allowed.
    """
    extra = dict(overrides or {})
    wrong = sorted(set(extra) - set(_OWNERS))
    if wrong:
        raise ConfigError(f"Training a {kind}, --set knows {' and '.join(_OWNERS)}; not {wrong[0]!r}.")
    spec = catalogue.get(kind, name)
    training = spec.load().trained_by
    if training is None:
        hint = " To train an encoder through it, give --encoder too." if kind == "decoder" else ""
        raise ConfigError(f"{kind.capitalize()} '{spec.id}' learns nothing: there is nothing to train.{hint}")
    config = build_config(
        training.options, {**training.presets.get(budget, {}), **extra.get("training", {})}, owner="training"
    )
    return ComponentRecipe(
        choose(catalogue, "source", source, budget, extra.get("source", {})),
        choose(catalogue, kind, name, budget, {}), budget, config,
    )  # fmt: skip


def trained_component(
    recipe: ComponentRecipe, subjects: Sequence[str], *, store: Store, device: torch.device, fresh: bool = False,
    listener: Listener | None = None, checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> TrainedComponent:  # fmt: skip
    """The weights of a recipe: from the store if it was trained before, else trained now or trained on.

    A run that was killed goes on from its last checkpoint. As it goes, it writes pictures into
    `training/KEY/pictures`, which end beside the weights.

    Args:
        recipe: what to train.
        subjects: the training subjects; `recipe.training.people` of them, the first ones, are used.
        store: where captures, checkpoints and weights are kept.
        device: where to compute.
        fresh: train again from the first step.
        listener: told of progress.
        checkpoint_every_s: seconds between checkpoints.

    Raises:
        DataError: a subject is held out, or a capture cannot train.
        ArtifactError: the weights in the store are damaged, or it cannot be written.
    """
    source = recipe.source.spec.load()(recipe.source.config)
    subjects = list(subjects)[: recipe.training.people]
    refuse_held_out(recipe.source.spec.id, source, subjects)
    key = recipe.key(source, subjects)
    file = store.path("weights", key) / "weights.safetensors"
    with store.lock("weights", key, on_wait=tell_wait):
        if fresh:
            store.remove("training", key)
        if fresh or not file.is_file():
            store.remove("weights", key)
            _train(recipe, source, subjects, store, key, device, listener, checkpoint_every_s)
        store.remove("training", key)
    _, spec = load_weights(file)
    return TrainedComponent(file, sha256_file(file), {"seconds": seconds_beside(file), **spec["training"]})


def _train(recipe: ComponentRecipe, source: HMCSource[Any], subjects: Sequence[str], store: Store, key: str,
           device: torch.device, listener: Listener | None, checkpoint_every_s: float) -> None:  # fmt: skip
    tell: Listener = (lambda progress: None) if listener is None else listener
    torch.manual_seed(recipe.training.seed)
    training = recipe.trained_by.begin(recipe.training, source, subjects)
    count = Counter(lambda done: tell(Progress(training.stage, done, len(subjects), {})))
    data = training.collect(source, subjects, store, count)
    training.to(device)
    folder = store.path("training", key)
    groups = [{"params": list(training.parameters()), "weight_decay": recipe.training.weight_decay}]
    optimisation = Optimisation(
        training, groups, recipe.training, folder / "checkpoint.safetensors", component=recipe.component.spec.id,
        listener=tell,
    )  # fmt: skip
    if not optimisation.restore():
        training.fit_statistics(data)
    training.train()
    steps, every = recipe.training.steps, recipe.training.picture_every

    def draw(done: int) -> None:
        if done % every == 0 or done == steps:
            training.eval()
            write_png(folder / "pictures" / f"step_{done:06d}.png", training.picture(data))
            training.train()

    def remaining() -> Generator[tuple[int, int], None, None]:
        for step in range(optimisation.step, steps):
            yield step, step

    def losses(step: int) -> dict[str, Tensor]:
        return training.losses(data, step)

    optimisation.run(remaining(), losses, checkpoint_every_s=checkpoint_every_s, after=draw)
    training.eval()
    training.finish(data, Counter(lambda done: tell(Progress("fitting", done, len(subjects), {}))))
    _save(recipe, training, subjects, store, key, optimisation, device)


def _save(recipe: ComponentRecipe, training: ComponentTraining[Any, Any], subjects: Sequence[str], store: Store,
          key: str, optimisation: Optimisation, device: torch.device) -> None:  # fmt: skip
    tensors, facts = training.weights()
    record = {
        "budget": recipe.budget, "config": recipe.training.model_dump(mode="json"), "subjects": len(subjects),
        "subjects_sha256": subjects_digest(subjects), "source": recipe.source.spec.id,
        "device": device.type, "torch": torch.__version__,
    }  # fmt: skip
    with store.building("weights", key) as folder:
        spec = {"component": recipe.component.spec.id, "config": {}, **facts, "training": record}
        save_weights(folder / "weights.safetensors", halved(tensors), spec)
        write_atomic(folder / "log.csv", optimisation.log_csv())
        write_atomic(folder / TIMING, json.dumps({"seconds": round(optimisation.seconds, 1)}).encode())
        pictures = store.path("training", key) / "pictures"
        if pictures.is_dir():
            pictures.rename(folder / "pictures")
