"""Spells the hook wrong: pluggy alone would accept it in silence."""

from ufe_core import hookimpl


@hookimpl
def register_component(register):
    raise AssertionError("never called")
