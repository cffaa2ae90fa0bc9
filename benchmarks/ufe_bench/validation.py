"""Validation: an encoder trained on some of the training people and measured on the others. Nobody held out is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ufe_core.errors import ConfigError, DataError
from ufe_core.store import Store, code_fingerprint, fingerprint, write_atomic


@dataclass(frozen=True)
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


def validate(candidate: Candidate, anchors: Sequence[str], listener: Any = None) -> Validation:
    """Train an encoder with some anchors and measure it on the validation people; from the store if done before.

    Raises:
        DataError: a validation person cannot be measured.
    """
    import torch

    from ufe_bench.evaluate import Material, evaluate
    from ufe_bench.material import stage_of
    from ufe_core.inputs import prepared
    from ufe_core.labels import labelled
    from ufe_core.packed import PackRequest, pack
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import choose, resolve_recipe
    from ufe_core.splits import find_split
    from ufe_core.training.loop import trained

    store, device = Store(candidate.home), torch.device(candidate.device)
    recipe = resolve_recipe(catalogue(), anchors=anchors, overrides=candidate.overrides, **candidate.names)
    source, decoder = recipe.make_source(), recipe.make_decoder().to(device)
    people = find_split(candidate.split, recipe.source.spec.id, source).part("train")
    known, unseen = people[: -candidate.validation], people[-candidate.validation :]
    if not known:
        raise ConfigError(f"{candidate.validation} to validate on leave none of the {len(people)} training people.")
    chosen = [choose(catalogue(), "metric", name, recipe.budget, {}) for name in candidate.metrics]
    key = fingerprint([
        recipe.key(source, known[: recipe.training.people]), list(unseen), candidate.frames, candidate.render_size,
        [one.describe() for one in chosen],
        code_fingerprint("ufe_bench.enrolment", "ufe_bench.evaluate", "ufe_bench.validation"),
    ])  # fmt: skip
    file = store.path("validations", key) / "measured.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged: measured anew
        found = json.loads(file.read_text())
        return Validation(found["values"], found["weights"])
    there = source.captures(known[:1])[0].anchors
    packed = tuple(name for name in candidate.packed if name in there)
    made = trained(recipe, known, store=store, device=device, listener=listener, packed_anchors=packed)
    needs = made.encoder.needs
    wanted = tuple(dict.fromkeys((*packed, *needs.anchors)))
    request = PackRequest(candidate.frames, needs.size, needs.cameras, wanted, texture=decoder.reads_texture)
    captures = prepared(
        labelled(pack(source, unseen, request, store=store), source, decoder, store=store), type(made.encoder), source,
        detector=recipe.detector, store=store, device=device,
    )  # fmt: skip
    stage = stage_of(decoder, chosen, candidate.render_size, device)
    evaluation = evaluate(made.encoder, stage, Material(captures))
    if evaluation.missing:
        first = evaluation.missing[0]
        raise DataError(f"Subject {first.subject!r} cannot be measured: {first.reason}")
    values = {name: {subject.id: subject.metrics[name] for subject in evaluation.subjects} for name in stage.metrics}
    with store.lock("validations", key):
        store.remove("validations", key)
        with store.building("validations", key) as folder:
            content = {"anchors": list(anchors), "values": values, "weights": made.sha256}
            write_atomic(folder / "measured.json", json.dumps(content, indent=1).encode())
    return Validation(values, made.sha256 or "")
