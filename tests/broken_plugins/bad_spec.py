"""Gives a spec that says nonsense."""

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


@hookimpl
def register_components(register):
    register(ComponentSpec(1, "encodr", "acme/typo", "acme.typo:Typo", ComponentConfig, "Kind misspelt"))
