"""Fails half-way through registering."""

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


@hookimpl
def register_components(register):
    register(ComponentSpec(1, "encoder", "acme/half", "acme.half:Half", ComponentConfig, "Registered, then lost"))
    raise RuntimeError("the second half is missing")
