"""Announces the encoder. Every `ufe` command imports this file, so it imports nothing heavy."""

from collections.abc import Callable

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class NearestAnchorConfig(ComponentConfig):
    """Options of the encoder; `ufe bench --set encoder.sharpness=40` changes one."""

    cells: int = Field(16, ge=2, le=64, description="Side of the grid that images are averaged to")
    sharpness: float = Field(60.0, gt=0, description="How strongly the most similar anchor wins")


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the encoder to ufe."""
    register(
        ComponentSpec(
            interface=1,
            kind="encoder",
            id="example/nearest-anchor",
            target="ufe_nearest_anchor.encoder:NearestAnchor",
            config=NearestAnchorConfig,
            summary="Blends what people show at each anchor by how much the frame looks like the wearer's own",
        )
    )
