"""Registers the decoders. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable

from pydantic import Field

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class BlendshapeConfig(ComponentConfig):
    """`blendshape` has no options."""


class UpmConfig(ComponentConfig):
    """Which avatar `upm` is."""

    weights: str = Field("released", description="'released', or a file that `ufe train --decoder upm --out` wrote")


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the decoders."""
    register(
        ComponentSpec(
            interface=1,
            kind="decoder",
            id="ufe/blendshape",
            target="ufe_avatar.blendshape:BlendshapeDecoder",
            config=BlendshapeConfig,
            summary="The 52 ARKit facial actions on a person's own neutral mesh, with a differentiable mesh renderer",
            reference="P§1.5 (R_mesh)",
        )
    )
    register(
        ComponentSpec(
            interface=1,
            kind="decoder",
            id="ufe/upm",
            target="ufe_avatar.upm:UpmDecoder",
            config=UpmConfig,
            summary="The codec avatar: a universal prior model of volumetric primitives, of anyone from a resting face",
            reference="P§1.3-1.5",
        )
    )
