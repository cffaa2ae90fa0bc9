"""Registers source `synthetic`. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class SyntheticConfig(ComponentConfig):
    """Options of the simulated headset."""

    subjects: int = Field(266, ge=1, le=100_000, description="How many people exist; a person depends on no other")
    headset: str = Field("quest", description="What is worn: a shipped headset's name, or the path of a .toml file")
    condition: Literal["ordinary", "glasses", "dim", "aggressive_donning", "hand", "blocked_camera"] = Field(
        "ordinary", description="What everybody is put under: ordinary sessions, or one out-of-distribution condition"
    )


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the simulated source."""
    register(
        ComponentSpec(
            interface=1,
            kind="source",
            id="ufe/synthetic",
            target="ufe_synthetic.source:SyntheticSource",
            config=SyntheticConfig,
            summary="Captures of parametric heads in a simulated eight-camera infrared headset, with exact labels",
            reference="P§2",
            data_version=1,
        )
    )
