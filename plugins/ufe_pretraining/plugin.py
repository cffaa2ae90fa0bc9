"""Registers the pre-training strategies of Table 4. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from ufe_core import ComponentConfig, ComponentSpec, hookimpl
from ufe_core.budgets import PretrainingConfig


class NoPretrainingConfig(ComponentConfig):
    """`none` has no options."""


class MaskedConfig(PretrainingConfig):
    """How views are masked and reconstructed (P§6.4, P§13.4 O32 to O41)."""

    aligned: bool = Field(True, description="Warp faces to a template, by the keypoints that --detector finds")
    mask_ratio: float = Field(0.9, gt=0, lt=1, description="Share of a view's patches that is removed")
    hidden: float = Field(0.0, ge=0, le=1, description="Share of frames without all that moves; 0 unless `aligned`")
    patch: int = Field(16, ge=2, description="Side of a patch, pixels; divides the side of an image")
    sigma: float = Field(40.0, gt=0, description="Reach of a keypoint's pull on the warp, pixels of a 192 pixel image")
    channels: tuple[int, ...] = Field(
        (32, 64, 96, 128, 192), min_length=1, max_length=7, description="Of the U-Nets' levels, each half as wide"
    )
    person_start: Literal["noise", "image"] = Field(
        "noise", description="What u^id begins as: noise, or a person's anchors in a few pixels"
    )
    norm: Literal["group", "batch"] = Field("group", description="What normalises in the U-Nets (O32: group)")
    masked_only: bool = Field(False, description="Count removed pixels only, not all")
    squared: bool = Field(False, description="Mean square instead of each image's root mean square")

    @model_validator(mode="before")
    @classmethod
    def _nothing_tells_what_moves(cls, values: Any) -> Any:
        """Where the warp is left out, no template says which patches move."""
        return {**values, "hidden": 0.0} if isinstance(values, dict) and values.get("aligned") is False else values


class ContrastiveConfig(PretrainingConfig):
    """How features of images are compared (P§13.4, O44)."""

    temperature: float = Field(0.1, gt=0, description="Divides similarities")
    projection: int = Field(128, ge=2, description="Numbers that are compared")
    positives: Literal["cameras", "versions", "both"] = Field(
        "both", description="What belongs together: both cameras of a region, both augmentations, or all four"
    )


class ImageNetConfig(ComponentConfig):
    """Where the weights come from."""

    file: str = Field("hub", description="'hub' asks timm's model hub; or a .safetensors file of the same timm model")


_MOVES = {"rotation_deg": 4.0, "scale": 1.04, "shift": 0.02, "gain": 0.1}
_STRONG_MOVES = {"rotation_deg": 15.0, "scale": 1.2, "shift": 0.08, "gain": 0.3}  # versions of an image must differ
_SMOKE = {"people": 4, "frames": 4, "steps": 6, "users": 4, "frames_per_user": 2, "warmup": 2, "picture_every": 3}
_CPU = {"people": 512, "frames": 24, "steps": 1500, "users": 8, "frames_per_user": 4, "warmup": 50,
        "learning_rate": 1e-3, **_MOVES}  # fmt: skip
_GPU = {"people": 4000, "frames": 64, "steps": 10_000, "users": 16, "frames_per_user": 8, "warmup": 500,
        "shift": 0.02, "gain": 0.1}  # fmt: skip
_SHORT = {"norm": "batch", "hidden": 0.5, "person_start": "image"}  # what few steps need
_MASKED: dict[str, dict[str, Any]] = {
    "smoke": {**_SMOKE, **_SHORT, "patch": 8, "channels": (8, 8, 8, 8, 8)},
    "cpu": {**_CPU, **_SHORT, "patch": 8, "channels": (8, 16, 32, 64)},
    "gpu": {**_GPU, "person_start": "image"},
}
_CONTRASTIVE: dict[str, dict[str, Any]] = {
    "smoke": _SMOKE,
    "cpu": {**_CPU, **_STRONG_MOVES, "users": 32, "steps": 1000},
    "gpu": {**_GPU, **_STRONG_MOVES, "users": 64},
    "paper": {**_STRONG_MOVES, "users": 128},
}


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the strategies."""
    strategies: tuple[tuple[str, str, type[ComponentConfig], str, dict[str, dict[str, Any]]], ...] = (
        ("none", "no_pretraining:NoPretraining", NoPretrainingConfig, "Train on labels from the first step", {}),
        ("mae_novel_view", "masked:NovelView", MaskedConfig,
         "Reconstruct masked images of the augmented cameras through the code (the paper's method)", _MASKED),
        ("mae_original_view", "masked:OriginalView", MaskedConfig,
         "Reconstruct masked images of the tracking cameras through the code", _MASKED),
        ("simclr", "contrastive:Contrastive", ContrastiveConfig,
         "Tell images of one instant from all others (InfoNCE)", _CONTRASTIVE),
        ("imagenet", "imagenet:ImageNet", ImageNetConfig, "Begin from timm's weights for photographs", {}),
    )  # fmt: skip
    for name, target, config, summary, presets in strategies:
        register(
            ComponentSpec(
                interface=1, kind="pretraining", id=f"ufe/{name}", target=f"ufe_pretraining.{target}", config=config,
                summary=summary, reference="P§6", presets=presets,
            )
        )  # fmt: skip
