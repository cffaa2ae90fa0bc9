"""Registers the decoders. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class BlendshapeConfig(ComponentConfig):
    """`blendshape` has no options."""


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the blendshape decoder."""
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
