"""Registers the keypoint detectors. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class HeatmapConfig(ComponentConfig):
    """Which weights a heatmap detector has."""

    weights: str = Field("released", description="'released', or a file of `ufe train --detector NAME --out`")
    point_model: bool = Field(
        True, description="Points are drawn to where points of a face are, in this headset; false for images of another"
    )


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the detectors."""
    register(
        ComponentSpec(
            interface=1,
            kind="detector",
            id="ufe/heatmap",
            target="ufe_keypoints.heatmap:HeatmapDetector",
            config=HeatmapConfig,
            summary="96 keypoints a view by heatmaps: positions by soft-argmax, and whether each is seen",
            reference="P§6.6, P§10",
        )
    )
    register(
        ComponentSpec(
            interface=1,
            kind="detector",
            id="ufe/heatmap_augmented",
            target="ufe_keypoints.heatmap:AugmentedHeatmapDetector",
            config=HeatmapConfig,
            summary="The same in the augmented cameras of a training headset: pre-training aligns faces by it",
            reference="P§6.6",
        )
    )
