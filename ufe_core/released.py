"""Encoders to use: with the weights that this release brings, or with those of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ufe_core.errors import ConfigError
from ufe_core.plugins import catalogue
from ufe_core.recipe import (
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    Recipe,
    resolve_recipe,
)
from ufe_core.registry import ReleasedWeights, load_registry, packaged_file, released_encoder

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ufe_core.interfaces.encoder import Encoder
    from ufe_core.training.loop import TrainedEncoder


def load_encoder(
    name: str = DEFAULT_ENCODER, *, calibrator: str | None = None, decoder: str = DEFAULT_DECODER, budget: str = "cpu",
    weights: Path | None = None, device: str = "auto",
) -> Encoder[Any]:  # fmt: skip
    """A trained encoder, ready to enrol and encode.

    Args:
        name: of the encoder.
        calibrator: how it uses anchors; its usual one if left out.
        decoder: whose codes it speaks.
        budget: for which its weights were made.
        weights: a file of `ufe train --out` of these components with their usual options, trained on the simulator;
            what is released if left out. Others are loaded by `load_file`, with the recipe that made them.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ConfigError: there are no released weights for that.
        ArtifactError: the file is damaged, or of other components or options.
        UnknownComponentError: there is no such component.

    Example:
        encoder = load_encoder("univ")
        calibration = encoder.enroll(anchors)
        encoding = encoder.encode(frames, calibration)
    """
    from ufe_core.training.runs import pick_device

    recipe = resolve_recipe(catalogue(), encoder=name, calibrator=calibrator, decoder=decoder, budget=budget)
    place = pick_device(device)
    found = load_released(recipe, place) if weights is None else load_file(recipe, weights, place)
    if found is None:
        offered = ", ".join(weights.id for weights in load_registry().weights if weights.kind == "encoder")
        raise ConfigError(
            f"There are no released weights of '{recipe.encoder.spec.id}' as it is asked for; there are {offered}. "
            "'ufe train' makes others."
        )
    return found.encoder


def released_for(recipe: Recipe) -> ReleasedWeights | None:
    """The weights that a recipe's components were released with, whatever its options; None where they were not."""
    calibrator = recipe.calibrator.spec.id if recipe.calibrator else None
    first = recipe.pretraining.spec.id if recipe.pretraining else None
    return released_encoder(
        recipe.encoder.spec.id, calibrator, recipe.decoder.spec.id, recipe.source.spec.id, recipe.budget, first
    )


def load_released(recipe: Recipe, device: torch.device) -> TrainedEncoder | None:
    """What a recipe's components were released with; None where they were not. Options are the caller's to look at.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    released = released_for(recipe)
    if released is None:
        return None
    return load_file(recipe, packaged_file(released.file), device, sha256=released.sha256)


def load_file(recipe: Recipe, file: Path, device: torch.device, *, sha256: str | None = None) -> TrainedEncoder:
    """What a recipe made, from a file of it.

    Raises:
        ArtifactError: the file is missing, damaged, or of other components or options.
    """
    from ufe_core.training.loop import load_trained

    source = recipe.make_source()
    cameras = recipe.cameras(source, source.subjects()[0])
    return load_trained(recipe, file, cameras, recipe.make_decoder().code_space, device, sha256=sha256)
