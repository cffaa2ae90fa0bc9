"""Claims an id that `good` has, beside one of its own."""

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


@hookimpl
def register_components(register):
    register(ComponentSpec(1, "encoder", "acme/fovea", "acme.other:Fovea", ComponentConfig, "Also claims fovea"))
    register(ComponentSpec(1, "encoder", "rival/retina", "acme.other:Retina", ComponentConfig, "Its own"))
