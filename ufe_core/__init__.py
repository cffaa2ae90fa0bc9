"""UFE: interfaces, plugins, configuration, store and command line. No method lives here.

A plugin needs only the names exported below. Importing this package imports neither torch nor pydantic, so
that `ufe --help` stays instant.
"""

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ufe_core.components import ComponentSpec
    from ufe_core.config import ComponentConfig

__version__ = "0.1.0"
__all__ = ["ComponentConfig", "ComponentSpec", "__version__", "hookimpl"]

hookimpl = pluggy.HookimplMarker("ufe")


def __getattr__(name: str) -> Any:
    if name == "ComponentSpec":
        from ufe_core.components import ComponentSpec

        return ComponentSpec
    if name == "ComponentConfig":
        from ufe_core.config import ComponentConfig

        return ComponentConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
