"""The one hook of a plugin."""

from collections.abc import Callable

import pluggy

from ufe_core.components import ComponentSpec

hookspec = pluggy.HookspecMarker("ufe")


@hookspec
def register_components(register: Callable[[ComponentSpec], None]) -> None:
    """Announce components: call `register(spec)` once for each.

    Runs whenever anything is listed, so it and the module around it must not import torch or read files.
    """
