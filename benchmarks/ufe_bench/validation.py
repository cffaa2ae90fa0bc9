"""Validation: an encoder trained on some of the training people and measured on the others. Nobody held out is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufe_core.errors import ConfigError, MethodError
from ufe_core.store import Store, code_fingerprint, fingerprint, write_atomic

_FILE = "measured.json"

if TYPE_CHECKING:
    import torch

    from ufe_core.interfaces.encoder import Encoder
    from ufe_core.interfaces.source import HMCSource
    from ufe_core.recipe import Chosen, Recipe


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What training and validating an encoder takes, small enough to hand to another process.

    Attributes:
        names: of components and budget, as `resolve_recipe` takes them.
        overrides: options, as `--set` gives them.
        packed: anchors that captures are packed with, the same whatever the encoder is given.
        validation: how many of the last training people are measured on and not trained on.
        frames: frames of each of these.
        render_size: side of the frontal rendering, pixels.
        metrics: what is measured.
        home: the store's folder.
        device: where to compute.
        split: whose training people are divided: a split of the registry, or the id of a source that has its own.
    """

    names: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, Any]]
    packed: tuple[str, ...]
    validation: int
    frames: int
    render_size: int
    metrics: tuple[str, ...]
    home: str
    device: str = "cpu"
    split: str = "synthetic"


@dataclass(frozen=True)
class Validation:
    """What the validation people gave, `values` by metric and person, and which weights they were measured with."""

    values: Mapping[str, Mapping[str, float]]
    weights: str


def validate(
    candidate: Candidate, anchors: Sequence[str], listener: Any = None, *, fresh: bool = False
) -> Validation:  # fmt: skip
    """Train an encoder with some anchors and measure it on the validation people; from the store if done before.

    Args:
        candidate: what that takes.
        anchors: names of those that the encoder is given.
        listener: told of the training's progress.
        fresh: train and measure again, even where the store has it.

    Raises:
        MethodError: the encoder failed on a validation person, or its training diverged.
        UfeError: a component, an option, the data or the store are not usable; says which and what to do.
    """
    import torch

    from ufe_core.plugins import catalogue
    from ufe_core.recipe import choose, resolve_recipe
    from ufe_core.training.loop import trained
    from ufe_core.training.runs import tell_wait

    store, device = Store(candidate.home), torch.device(candidate.device)
    recipe = resolve_recipe(catalogue(), anchors=anchors, overrides=candidate.overrides, **candidate.names)
    source = recipe.make_source()
    known, unseen = _divided(candidate, recipe.source.spec.id, source)
    metrics = [choose(catalogue(), "metric", name, recipe.budget, {}) for name in candidate.metrics]
    key = fingerprint([
        recipe.key(source, known[: recipe.training.people]), list(unseen), candidate.frames, candidate.render_size,
        [one.describe() for one in metrics],
        code_fingerprint("ufe_bench.enrolment", "ufe_bench.evaluate", "ufe_bench.validation"),
    ])  # fmt: skip

    def build(folder: Path) -> None:
        there = source.captures(known[:1])[0].anchors
        packed = tuple(name for name in candidate.packed if name in there)
        made = trained(
            recipe, known, store=store, device=device, fresh=fresh, listener=listener, packed_anchors=packed
        )  # fmt: skip
        values = _measured(made.encoder, recipe, metrics, unseen, packed, candidate, store, device)
        content = {"anchors": list(anchors), "values": values, "weights": made.sha256 or ""}
        write_atomic(folder / _FILE, json.dumps(content, indent=1).encode())

    if fresh:
        store.remove("validations", key)
    return store.made("validations", key, _kept, build, on_wait=tell_wait)


def _kept(folder: Path) -> Validation | None:
    try:
        found = json.loads((folder / _FILE).read_text())
        return Validation(found["values"], found["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _divided(candidate: Candidate, home: str, source: HMCSource[Any]) -> tuple[Sequence[str], Sequence[str]]:
    """The training people to train on, and those to validate on."""
    from ufe_core.splits import find_split

    people = find_split(candidate.split, home, source).part("train")
    known, unseen = people[: -candidate.validation], people[-candidate.validation :]
    if not known:
        raise ConfigError(f"{candidate.validation} to validate on leave none of the {len(people)} training people.")
    return known, unseen


def _measured(
    encoder: Encoder[Any], recipe: Recipe, metrics: Sequence[Chosen], people: Sequence[str], packed: tuple[str, ...],
    candidate: Candidate, store: Store, device: torch.device,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Errors of an encoder by metric and person."""
    from ufe_bench.evaluate import Material, evaluate
    from ufe_bench.material import stage_of
    from ufe_core.inputs import prepared
    from ufe_core.labels import labelled
    from ufe_core.packed import PackRequest, pack

    source, decoder, needs = recipe.make_source(), recipe.make_decoder(device), encoder.needs
    wanted = tuple(dict.fromkeys((*packed, *needs.anchors)))
    request = PackRequest(candidate.frames, needs.size, needs.cameras, wanted, texture=decoder.reads_texture)
    captures = prepared(
        labelled(pack(source, people, request, store=store), source, decoder, store=store), type(encoder), source,
        detector=recipe.detector, store=store, device=device,
    )  # fmt: skip
    stage = stage_of(decoder, metrics, candidate.render_size, device)
    evaluation = evaluate(encoder, stage, Material(captures))
    if evaluation.missing:
        first = evaluation.missing[0]
        raise MethodError(f"Subject {first.subject!r} cannot be measured: {first.reason}")
    return {name: {subject.id: subject.metrics[name] for subject in evaluation.subjects} for name in stage.metrics}
