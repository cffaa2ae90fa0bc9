"""Registers the floors and the baselines of Table 1. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class NeutralConfig(ComponentConfig):
    """`neutral` has no options."""


class MeanConfig(ComponentConfig):
    """`mean` has no options."""


class _ReadOut(ComponentConfig):
    fuse_width: int = Field(512, ge=8, le=8192, description="Hidden width of f_fuse")
    gaze_width: int = Field(128, ge=8, le=8192, description="Hidden width of f_gaze")


class _Backbone(_ReadOut):
    backbone: str = Field("mobilenetv3_large_100", description="timm model of each face region")
    backbone_options: dict[str, Any] = Field({}, description="Keyword arguments for timm.create_model")
    cells: int = Field(1, ge=1, le=4, description="Side of the grid that the last feature map is averaged to")


class NeckNetConfig(_Backbone):
    """Options of `necknet`."""

    backbone: str = Field("resnet34", description="timm model of each face region; the original's is a ResNet-34")


class GeometryGuidedConfig(_Backbone):
    """Options of `geometry_guided`."""

    spread: float = Field(0.02, gt=0, le=0.2, description="Deviation of the heat maps' Gaussians, share of the side")


class FommConfig(_Backbone):
    """Options of `fomm`."""

    width: int = Field(32, ge=4, le=256, description="Channels of the dense motion network's finest maps")
    levels: int = Field(5, ge=1, le=6, description="Times that it halves its maps, as far as they are large enough")


class FlnetConfig(_ReadOut):
    """Options of `flnet`."""

    width: int = Field(512, ge=8, le=4096, description="Hidden width of the perceptrons on displacements")


class MovementSdkConfig(_ReadOut):
    """Options of `movement_sdk`."""

    width: int = Field(16, ge=4, le=256, description="Channels after the first halving; up to 8 times as many later")


class MeshConfig(_ReadOut):
    """Options of both mesh trackers."""

    width: int = Field(512, ge=8, le=4096, description="Hidden width of the perceptrons on vertices")
    vertices: int = Field(
        600, ge=32, description="Vertices of the face that are read, spread over it, besides lips and eyes"
    )


class MeshTrackingConfig(MeshConfig):
    """Options of `mesh_tracking`."""

    iterations: int = Field(6, ge=1, le=100, description="Gauss-Newton steps that fit a frame")
    noise_px: float = Field(1.5, gt=0, description="Deviation expected of keypoints, pixels at 192 x 192")


# On a CPU a plain narrow ResNet learns several times more a second than a MobileNetV3's depthwise layers.
_NARROW = {"backbone": "resnet10t", "cells": 2,
           "backbone_options": {"channels": [24, 48, 96, 192], "stem_width": 16}}  # fmt: skip
_SMOKE = {"backbone": "resnet10t", "backbone_options": {"channels": [8, 16, 24, 32], "stem_width": 8}}
_NARROW_34 = {"backbone": "resnet34", "cells": 2,
              "backbone_options": {"channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 8}}  # fmt: skip

#: Name, target, options, presets, summary.
_BASELINES: tuple[tuple[str, str, type[ComponentConfig], dict[str, dict[str, Any]], str], ...] = (
    ("geometry_guided", "geometry_guided:GeometryGuidedEncoder", GeometryGuidedConfig,
     {"smoke": _SMOKE, "cpu": _NARROW}, "Raw images with heat maps of landmarks (Song 2018)"),
    ("flnet", "flnet:FlnetEncoder", FlnetConfig, {}, "Displacements of landmarks from a reference (Gu 2020)"),
    ("fomm", "fomm:FommEncoder", FommConfig,
     {"smoke": {**_SMOKE, "width": 4}, "cpu": {**_NARROW, "width": 12}},
     "First Order Motion: the warp field between keypoints and a reference's (Siarohin 2019)"),
    ("necknet", "necknet:NeckNetEncoder", NeckNetConfig,
     {"smoke": _SMOKE, "cpu": _NARROW_34}, "NeckNet-style: raw images, a ResNet-34 (Chen 2021)"),
    ("movement_sdk", "movement_sdk:MovementSdkEncoder", MovementSdkConfig,
     {"smoke": {"width": 4}},
     "SDK-style: raw images, a light network (Meta 2023)"),
    ("mesh_tracking", "mesh_tracking:MeshTrackingEncoder", MeshTrackingConfig, {},
     "A mesh really tracked: the head model fitted to keypoints (Thies 2016)"),
    ("mesh_tracking_gt", "mesh_tracking:ExactMeshEncoder", MeshConfig, {},
     "Hypothetical *: the exact mesh is the input (the paper's mesh tracking with GT mesh)"),
)  # fmt: skip


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the floors that every method must beat, and the methods that the paper compares with."""
    register(
        ComponentSpec(
            interface=1,
            kind="encoder",
            id="ufe/neutral",
            target="ufe_baselines.floors:NeutralEncoder",
            config=NeutralConfig,
            summary="Floor: always the resting face, looking straight ahead",
        )
    )
    register(
        ComponentSpec(
            interface=1,
            kind="encoder",
            id="ufe/mean",
            target="ufe_baselines.floors:MeanEncoder",
            config=MeanConfig,
            summary="Floor: always the mean code and gaze of the training subjects",
        )
    )
    for name, target, config, presets, summary in _BASELINES:
        register(
            ComponentSpec(
                interface=1, kind="encoder", id=f"ufe/{name}", target=f"ufe_baselines.{target}", config=config,
                summary=summary, reference="P§10", presets=presets,
            )
        )  # fmt: skip
