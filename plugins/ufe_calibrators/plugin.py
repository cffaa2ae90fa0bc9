"""Registers the calibrators of P§4.5. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class NoneConfig(ComponentConfig):
    """`none` has no options."""


class LateFusionConfig(ComponentConfig):
    """Options of `late_fusion`; its width is the backbone's."""

    start: Literal["difference", "current"] = Field(
        "difference", description="What its first weights give: the difference to the first anchor, or the frame alone"
    )


class EarlyFusionConfig(ComponentConfig):
    """`early_fusion` has no options: the encoder's first layer takes the images."""


class PoolingConfig(ComponentConfig):
    """`pooling` has no options: its width is the backbone's."""


class AttentionConfig(ComponentConfig):
    """Options of both attentions."""

    width: int = Field(128, ge=8, le=2048, description="Width of the tokens, one for each cell of a feature map")
    heads: int = Field(4, ge=1, le=32, description="Attention heads; they divide the width")
    layers: int = Field(2, ge=1, le=12, description="Blocks of attention and perceptron (O9)")

    @model_validator(mode="after")
    def _heads_divide(self) -> "AttentionConfig":
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


_CALIBRATORS: tuple[tuple[str, str, type[ComponentConfig], str, str], ...] = (
    ("none", "none:NoCalibration", NoneConfig, "No calibration: the current frame's features pass unchanged", "P§4.5"),
    ("late_fusion", "late_fusion:LateFusion", LateFusionConfig,
     "Current and anchor features concatenated, then convolved (the paper's choice)", "P§4.3, P§4.5, Table 3"),
    ("early_fusion", "early_fusion:EarlyFusion", EarlyFusionConfig,
     "Current and anchor images concatenated before the first layer", "P§4.5, Table 3"),
    ("pooling", "pooling:Pooling", PoolingConfig,
     "The largest of the anchors' features, in any order, concatenated with the current ones", "P§4.5, Table 3"),
    ("cross_attention", "attention:CrossAttention", AttentionConfig,
     "Current features attend to those of the anchors", "P§4.5, Table 3"),
    ("self_attention", "attention:SelfAttention", AttentionConfig,
     "Current and anchor features are tokens of one transformer", "P§4.5, Table 3"),
)  # fmt: skip


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the calibrators."""
    for name, target, config, summary, reference in _CALIBRATORS:
        register(
            ComponentSpec(
                interface=1, kind="calibrator", id=f"ufe/{name}", target=f"ufe_calibrators.{target}", config=config,
                summary=summary, reference=reference,
            )
        )  # fmt: skip
