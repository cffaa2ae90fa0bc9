"""The four budgets: one model code, four sizes (people, frames, pixels, steps)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ufe_core.config import ComponentConfig
from ufe_core.errors import ConfigError
from ufe_core.names import BUDGETS

BudgetName = Literal["smoke", "cpu", "gpu", "paper"]
Precision = Literal["auto", "float32", "bfloat16"]

#: Values of `pretraining.weights` that are no file: the pre-training is done; or only where the same is not released.
TRAINED, RELEASED = "trained", "released"


class ScheduleConfig(ComponentConfig):
    """Steps of AdamW: linear warm-up, then a cosine (P§7.5)."""

    people: int = Field(234, ge=1, description="Training subjects, the first of the split's list")
    steps: int = Field(150_000, ge=1, description="Optimiser steps")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW")
    final_rate: float = Field(1e-6, ge=0, description="Learning rate at the end of the cosine")
    warmup: int = Field(1000, ge=0, description="Steps of linear warm-up")
    weight_decay: float = Field(1e-5, ge=0, description="Decoupled weight decay")
    clip_norm: float = Field(10.0, gt=0, description="Gradients are scaled down to this norm")
    seed: int = Field(0, ge=0, description="Fixes initial weights, batches and augmentation")


class AugmentationConfig(ComponentConfig):
    """How images are moved before a network in training sees them (P§7.6)."""

    rotation_deg: float = Field(15.0, ge=0, le=90, description="Augmentation: largest image rotation, either way")
    scale: float = Field(1.1, ge=1, le=2, description="Augmentation: largest scaling, up or down")
    shift: float = Field(0.0, ge=0, le=0.5, description="Augmentation: largest shift, fraction of the side")
    gain: float = Field(0.0, ge=0, le=1, description="Augmentation: spread of the brightness gain")


class TrainingConfig(ScheduleConfig, AugmentationConfig):
    """How an encoder is trained (P§5, P§7.5-7.6): a budget sets defaults, `--set training.FIELD=` overrides."""

    frames: int = Field(36, ge=1, description="Frames of each training subject")
    own_instants: bool = Field(
        False, description="Frames of each at instants of their own; else everybody's at the same"
    )
    size: int = Field(192, ge=32, le=400, description="Side of the input images, pixels")
    users: int = Field(8, ge=1, description="Subjects in a batch; each one's anchors are encoded once")
    frames_per_user: int = Field(2, ge=1, description="Frames of each subject in a batch")
    photometric: float = Field(1.0, ge=0, description="Weight of L_photo (0..255 scale)")
    geometry: float = Field(1.0, ge=0, description="Weight of L_geo, lambda_1 (mm)")
    gaze: float = Field(20.0, ge=0, description="Weight of L_gaze, lambda_2 (radians)")
    adversarial: float = Field(0.1, ge=0, description="Weight of L_disc, lambda_3; 0 trains no discriminator")
    adversarial_from: int = Field(2000, ge=0, description="Step at which L_disc and its discriminator join in")
    critic_rate: float = Field(1e-4, gt=0, description="Learning rate of the discriminator, all along")
    penalty: float = Field(10.0, ge=0, description="Weight of the gradient penalty in L_disc, lambda_disc")
    code: float = Field(0.0, ge=0, description="Weight of the distance of codes, Table 2's other loss")
    render_size: int = Field(256, ge=16, le=1024, description="Side of the frontal rendering of L_photo, pixels")
    render_frames: int = Field(16, ge=0, description="Frames of a batch that L_photo renders; 0 leaves it out")
    cutmix_patches: int = Field(3, ge=0, le=16, description="Augmentation: patches pasted from another subject")
    anchor_dropout: float = Field(0.1, ge=0, lt=1, description="Chance that an anchor is left out, and that all are")
    precision: Precision = Field("auto", description="auto: bfloat16 where it is fast")
    update: Literal["full", "linear"] = Field(
        "full", description="full: all weights; linear: a linear map on the outputs of a frozen encoder (P§6.7)"
    )


class ComponentTrainingConfig(ScheduleConfig):
    """How a component that is no encoder is trained; each adds its own options."""

    frames: int = Field(16, ge=1, description="Frames of each training subject")
    picture_every: int = Field(250, ge=1, description="Steps between the pictures that show how far it is")


class PretrainingConfig(ScheduleConfig, AugmentationConfig):
    """How an encoder is pre-trained on headset images alone (P§6, P§13.4); each method adds its own options."""

    people: int = Field(17_000, ge=1, description="People without labels, as many as there are")
    frames: int = Field(1008, ge=1, description="Frames of each")
    steps: int = Field(400_000, ge=1, description="Optimiser steps")
    users: int = Field(16, ge=1, description="People in a batch; each one's anchors are encoded once")
    frames_per_user: int = Field(4, ge=1, description="Frames of each in a batch")
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate of AdamW")
    weight_decay: float = Field(5e-6, ge=0, description="Decoupled weight decay")
    anchor_dropout: float = Field(0.1, ge=0, lt=1, description="Chance that an anchor is left out, and that all are")
    person_pace: float = Field(1.0, gt=0, description="Learning rate of what is learned of each person, in the others'")
    precision: Precision = Field("auto", description="auto: bfloat16 where it is fast")
    picture_every: int = Field(500, ge=1, description="Steps between the pictures that show how far it is")
    weights: str = Field(
        TRAINED,
        description="'trained'; 'released': the release's, if this very one is; or a file of 'ufe pretrain run'",
    )


class DomeTrainingConfig(ComponentTrainingConfig):
    """How a decoder is trained, on frames of dome captures."""


_BUDGETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "people": 4, "frames": 16, "size": 64, "steps": 12, "users": 4, "frames_per_user": 4, "warmup": 2,
        "render_size": 32, "render_frames": 4, "rotation_deg": 5.0, "scale": 1.05, "cutmix_patches": 1,
        "adversarial_from": 2,
    },
    "cpu": {
        "people": 234, "frames": 36, "size": 64, "steps": 1500, "users": 8, "frames_per_user": 8,
        "warmup": 50, "learning_rate": 2e-3, "render_size": 64, "render_frames": 1, "photometric": 0.1,
        "rotation_deg": 4.0, "scale": 1.04, "shift": 0.02, "gain": 0.1, "cutmix_patches": 0, "anchor_dropout": 0.05,
    },
    "gpu": {
        "people": 234, "frames": 512, "size": 192, "steps": 12_000, "users": 16, "frames_per_user": 8,
        "warmup": 500, "render_size": 128, "render_frames": 32, "shift": 0.02, "gain": 0.1,
    },
    "paper": {"people": 234, "frames": 1008},
}  # fmt: skip

_SUMMARY = {
    "smoke": "tests: trained in seconds on 2 cores",
    "cpu": "a laptop: about half an hour from nothing on 2 cores",
    "gpu": "one data-centre GPU: meant for ten minutes a method",
    "paper": "the paper's people, pixels, steps and batch (P§7) on many GPUs",
}


def budget_defaults(name: str) -> dict[str, Any]:
    """Training options of a budget.

    Raises:
        ConfigError: no such budget.
    """
    if name not in _BUDGETS:
        raise ConfigError(f"No budget {name!r}; there are {', '.join(BUDGETS)}.")
    return dict(_BUDGETS[name])


def describe_budget(name: str) -> str:
    """One line: what a budget is for and its sizes."""
    config = TrainingConfig(**budget_defaults(name))
    sizes = f"{config.people} people x {config.frames} frames, {config.size} px, {config.steps:,} steps"
    return f"{_SUMMARY[name]}; {sizes}"
