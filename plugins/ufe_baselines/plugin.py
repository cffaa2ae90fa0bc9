"""Registers the floors. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class NeutralConfig(ComponentConfig):
    """`neutral` has no options."""


class MeanConfig(ComponentConfig):
    """`mean` has no options."""


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the floors that every method must beat."""
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
