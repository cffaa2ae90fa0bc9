"""Registers the universal encoder. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class UnivConfig(ComponentConfig):
    """Options of the universal encoder."""

    backbone: str = Field(
        "mobilenetv3_large_100",
        description="timm model of each face region, cut in two; the paper's is MobileNetV3",
    )
    backbone_options: dict[str, Any] = Field(
        {}, description="Keyword arguments for timm.create_model, such as channel counts"
    )
    stride: Literal[8, 16, 32] = Field(16, description="Input pixels per cell of the feature maps at the cut")
    cells: int = Field(1, ge=1, le=4, description="Side of the grid each last feature map is averaged to")
    fuse_width: int = Field(512, ge=8, le=8192, description="Hidden width of f_fuse")
    gaze_width: int = Field(128, ge=8, le=8192, description="Hidden width of f_gaze")


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the universal encoder."""
    # On a CPU a plain narrow ResNet learns several times more a second than a MobileNetV3's depthwise layers.
    narrow = {
        "backbone": "resnet10t", "cells": 2,
        "backbone_options": {"channels": [24, 48, 96, 192], "stem_width": 16},
    }  # fmt: skip
    register(
        ComponentSpec(
            interface=1,
            kind="encoder",
            id="ufe/univ",
            target="ufe_universal.univ:UnivEncoder",
            config=UnivConfig,
            summary="One network per face region, calibrated by anchor expressions (the paper's method)",
            reference="P§4",
            presets={"smoke": {"backbone": "mobilenetv3_small_050"}, "cpu": narrow},
        )
    )
