"""Was written for a later interface, with a kind this one does not know."""

from ufe_core import ComponentConfig, ComponentSpec, hookimpl


@hookimpl
def register_components(register):
    register(ComponentSpec(2, "pretraining", "acme/future", "acme.future:Future", ComponentConfig, "From the future"))
