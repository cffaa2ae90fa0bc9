"""Registers something that is not a spec."""

from ufe_core import hookimpl


@hookimpl
def register_components(register):
    register({"id": "acme/dict"})
