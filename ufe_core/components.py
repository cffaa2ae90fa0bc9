"""Component specifications: all that a listing or the harness needs to know before any heavy import."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ufe_core.config import ComponentConfig
from ufe_core.errors import PluginError
from ufe_core.names import KINDS

INTERFACE = 1
"""The interface version of this ufe. A spec states the one it was written for."""

DEPRECATED_INTERFACES: Mapping[int, str] = {}
"""Older interfaces that are still loaded, to the release that stops doing so (`docs/versions.md`)."""

ID = re.compile(r"[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class ComponentSpec:
    """Announces one component. Written in a plugin's `plugin.py`, which imports nothing heavy.

    Attributes:
        interface: the interface version the component was written for; stated, never defaulted.
        kind: one of `KINDS`.
        id: `owner/name`, lower case. Users may write `name` alone where that is unique.
        target: `module:attribute` of the factory, imported on first use and called with the config and the
            keyword arguments that the interface of the kind prescribes.
        config: model of its options.
        summary: one line for listings.
        reference: where the method is described, e.g. `P§4.5`.
        presets: options that a training budget (`smoke`, `cpu`, ...) sets other than the defaults.
        license: SPDX expression of the component's code.
        data_version: of a source: raised whenever its pixels or labels change, so that results of one version can be
            compared whatever else changed in its code. None: only results of the very same code share a table.
    """

    interface: int
    kind: str
    id: str
    target: str
    config: type[ComponentConfig]
    summary: str
    reference: str = ""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    license: str = "Apache-2.0"
    data_version: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.interface, bool) or not isinstance(self.interface, int) or self.interface < 1:
            raise PluginError(f"Component {self.id!r}: interface is {self.interface!r}; expected a whole number >= 1.")
        if self.interface not in (INTERFACE, *DEPRECATED_INTERFACES):
            return  # another interface has its own rules; the catalogue reports the plugin as incompatible
        if not isinstance(self.id, str) or not ID.fullmatch(self.id):
            raise PluginError(
                f"Component id {self.id!r} is not of the form 'owner/name' (lower-case letters, digits, '_', '-')."
            )
        if self.kind not in KINDS:
            raise PluginError(f"Component {self.id!r}: kind is {self.kind!r}; expected one of {', '.join(KINDS)}.")
        if not isinstance(self.target, str) or not _TARGET.fullmatch(self.target):
            raise PluginError(
                f"Component {self.id!r}: target is {self.target!r}; expected 'module:attribute', "
                "e.g. 'acme_ufe.fovea:FoveaEncoder'."
            )
        if not (isinstance(self.config, type) and issubclass(self.config, ComponentConfig)):
            raise PluginError(f"Component {self.id!r}: config is {self.config!r}; expected a ComponentConfig class.")
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            raise PluginError(f"Component {self.id!r}: summary is {self.summary!r}; expected one line of text.")

    @property
    def name(self) -> str:
        """Short name: the id without its owner."""
        return self.id.partition("/")[2]

    def load(self) -> Any:
        """Import and return the factory.

        Raises:
            PluginError: the module cannot be imported or lacks the attribute.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.kind.capitalize()} {self.id!r} cannot be loaded from '{self.target}': "
                f"{type(error).__name__}: {error}. With UFE_DEBUG=1 the command shows where."
            ) from error
        try:
            return getattr(module, attribute)
        except AttributeError as error:
            raise PluginError(
                f"{self.kind.capitalize()} {self.id!r} cannot be loaded: module '{module_name}' has no {attribute!r}."
            ) from error
