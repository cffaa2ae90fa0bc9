"""Registers the calibrators of P§4.5. Every `ufe` command imports this file: no torch here."""

from collections.abc import Callable

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


class NoneConfig(ComponentConfig):
    """`none` has no options."""


class LateFusionConfig(ComponentConfig):
    """`late_fusion` has no options: its width is the backbone's."""


@hookimpl
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce the calibrators."""
    register(
        ComponentSpec(
            interface=1,
            kind="calibrator",
            id="ufe/none",
            target="ufe_calibrators.none:NoCalibration",
            config=NoneConfig,
            summary="No calibration: the current frame's features pass unchanged",
            reference="P§4.5",
        )
    )
    register(
        ComponentSpec(
            interface=1,
            kind="calibrator",
            id="ufe/late_fusion",
            target="ufe_calibrators.late_fusion:LateFusion",
            config=LateFusionConfig,
            summary="Current and anchor features concatenated, then convolved (the paper's choice)",
            reference="P§4.3, P§4.5, Table 3",
        )
    )
