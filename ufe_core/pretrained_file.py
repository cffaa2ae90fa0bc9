"""Files of pre-trained encoders: which one is meant, and what it says of itself."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufe_core.config import ComponentConfig
from ufe_core.errors import ArtifactError, ConfigError
from ufe_core.registry import packaged_file, released_pretraining
from ufe_core.store import canonical_json
from ufe_core.weights import difference, load_weights, with_younger_options

if TYPE_CHECKING:
    from ufe_core.recipe import Chosen, Recipe


def refuse_other_pretraining(recipe: Recipe, file: Path, spec: Mapping[str, Any]) -> None:
    """Refuse a file that was pre-trained for another encoder, calibrator, anchors or size.

    Raises:
        ArtifactError: it was; the message names the first difference.
    """
    other = _first_difference(recipe, spec)
    if other is not None:
        raise ArtifactError(f"{file} was pre-trained with another {other}. Pre-train anew.")


def released_file(recipe: Recipe, asked: Mapping[str, Any]) -> Path | None:
    """What is released of the recipe's pre-training as it is, in another seed if none is asked for; None if nothing.

    Where only an option keeps it from being that, the option is told of.
    """
    assert recipe.pretraining is not None, "there is no pre-training"
    fusion = recipe.calibrator.spec.id if recipe.calibrator else None
    released = released_pretraining(
        recipe.pretraining.spec.id, recipe.encoder.spec.id, fusion, recipe.decoder.spec.id, recipe.source.spec.id,
        recipe.budget,
    )  # fmt: skip
    if released is None:
        return None
    file = packaged_file(released.file)
    spec = load_weights(file, sha256=released.sha256)[1]
    free = {"weights"} if "seed" in asked else {"weights", "seed"}
    held, wanted = (
        {name: value for name, value in options.items() if name not in free}
        for options in (
            with_younger_options(spec, recipe.pretraining)["config"],
            recipe.pretraining.config.model_dump(mode="json"),
        )
    )
    other = difference("pretraining", held, wanted) or _first_difference(recipe, spec)
    if other is None:
        return file
    _tell_once(f"The released pre-training has another {other}. It is not taken: this one is done anew.")
    return None


def options_in(file: Path, chosen: Chosen, asked: Mapping[str, Any] | None = None) -> ComponentConfig:
    """The options that a file's pre-training had, and that it comes from this file.

    Raises:
        ArtifactError: it is of another method, or does not tell its options.
        ConfigError: an option that is asked for is not the file's.
    """
    from pydantic import ValidationError

    spec = load_weights(file)[1]
    if spec["component"] != chosen.spec.id:
        raise ArtifactError(
            f"{file} holds weights of {spec['component']!r}, not of '{chosen.spec.id}'. Name a file of 'ufe pretrain "
            f"run --pretraining {chosen.spec.name} --out'."
        )
    try:
        held = chosen.spec.config.model_validate({**spec["config"], "weights": str(file)})
    except ValidationError as error:
        raise ArtifactError(f"{file} does not tell the options of its pre-training. Pre-train anew.") from error
    for name in sorted(set(asked or {}) - {"weights"}):
        mine, wanted = getattr(held, name), getattr(chosen.config, name)
        if mine != wanted:
            raise ConfigError(
                f"{file} was pre-trained with {name}={mine}, not {wanted}: leave pretraining.{name} out, or "
                "pretraining.weights."
            )
    return held


def _first_difference(recipe: Recipe, spec: Mapping[str, Any]) -> str | None:
    """In which thing of `Recipe.pretraining_facts` a file differs, in words; None if in nothing."""
    components = {"encoder": recipe.encoder, "calibrator": recipe.calibrator}
    facts = json.loads(canonical_json(recipe.pretraining_facts()))
    differences = (
        difference(name, with_younger_options(spec.get(name), components.get(name)), value)
        for name, value in facts.items()
    )
    return next((other for other in differences if other is not None), None)


@functools.cache
def _tell_once(message: str) -> None:
    logging.getLogger("ufe").warning(message)
