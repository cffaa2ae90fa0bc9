"""Asks the hook for an argument it does not have."""

from ufe_core import hookimpl


@hookimpl
def register_components(register, device):
    raise AssertionError("never called")
