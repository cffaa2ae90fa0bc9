"""Registers one id twice."""

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


@hookimpl
def register_components(register):
    for _ in range(2):
        register(ComponentSpec(1, "encoder", "acme/twin", "acme.twin:Twin", ComponentConfig, "Twin"))
