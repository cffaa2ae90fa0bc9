"""Finds plugins, keeps the failure of one from touching another, and looks components up by name."""

import contextlib
import functools
import importlib.metadata
import sys
import traceback as traceback_module
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, Protocol

import pluggy

from ufe_core import hookspecs
from ufe_core.components import DEPRECATED_INTERFACES, INTERFACE, ComponentSpec
from ufe_core.config import build_config, did_you_mean
from ufe_core.errors import NotLoadedError, PluginError, RegistryError, UnknownComponentError
from ufe_core.names import FIRST_PARTY, KINDS

GROUP = "ufe.plugins"

Status = Literal["ok", "broken", "incompatible"]


class Distribution(Protocol):
    """The two facts of a distribution that listings show."""

    @property
    def name(self) -> str:
        """Name on the package index."""

    @property
    def version(self) -> str:
        """Installed version."""


class PluginEntryPoint(Protocol):
    """What discovery needs of an entry point; `importlib.metadata.EntryPoint` has it."""

    @property
    def name(self) -> str:
        """Name of the plugin."""

    @property
    def value(self) -> str:
        """Module that holds the hook."""

    @property
    def dist(self) -> Any:
        """`Distribution` it comes from, or None."""

    def load(self) -> Any:
        """Import the module."""


@dataclass(frozen=True)
class Provenance:
    """Where a component comes from: installed distribution and its version."""

    distribution: str
    version: str


@dataclass(frozen=True)
class PluginReport:
    """What became of one plugin.

    Attributes:
        name: its entry-point name.
        dist: the distribution that installs it.
        version: of that distribution.
        status: `ok`; `broken`; or `incompatible`, written for another interface.
        reason: one line, empty if ok.
        traceback: Python's own account where there is one.
        components: those that can be used.
    """

    name: str
    dist: str
    version: str
    status: Status
    reason: str = ""
    traceback: str = ""
    components: tuple[ComponentSpec, ...] = ()


class Catalogue:
    """Every component that installed plugins announce.

    Args:
        entry_points: plugins to load; those installed if left out.
    """

    def __init__(self, entry_points: Iterable[PluginEntryPoint] | None = None) -> None:
        if entry_points is None:
            entry_points = importlib.metadata.entry_points(group=GROUP)
        ordered = sorted(entry_points, key=lambda entry: (entry.name, entry.value))
        self._claims: dict[int, tuple[ComponentSpec, ...]] = {}
        reports = [self._load(index, entry) for index, entry in enumerate(ordered)]
        self._clashes = _find_clashes(reports)
        self.reports: tuple[PluginReport, ...] = tuple(_without_clashes(r, self._clashes) for r in reports)
        self._owners: dict[tuple[str, str], PluginReport] = {
            (spec.kind, spec.id): report for report in self.reports for spec in report.components
        }

    def all(self, kind: str | None = None) -> list[ComponentSpec]:
        """List usable components, of one kind or of all, in the order of `KINDS` and then by id."""
        specs = [spec for report in self.reports for spec in report.components if kind in (None, spec.kind)]
        return sorted(specs, key=lambda spec: (KINDS.index(spec.kind), spec.id))

    def get(self, kind: str, name: str) -> ComponentSpec:
        """Find a component by `owner/name`, or by `name`: the one of `ufe`, else the only one of that name.

        Raises:
            UnknownComponentError: there is none, or more than one.
            PluginError: two plugins claim that id.
        """
        if kind not in KINDS:
            raise UnknownComponentError(
                f"{kind!r} is not a kind of component ({', '.join(KINDS)}).{did_you_mean(kind, KINDS)}"
            )
        found = [spec for spec in self.all(kind) if name in (spec.id, spec.name)]
        clashing = [key for key in self._clashes if key[0] == kind and name in (key[1], key[1].partition("/")[2])]
        if len(found) == 1 and not clashing:
            return found[0]
        exact = [spec for spec in found if spec.id in (name, f"{FIRST_PARTY}/{name}")]
        if exact:
            return exact[0]
        if clashing and (not found or name in [key[1] for key in clashing]):
            raise PluginError(_clash_text(clashing[0], self._clashes[clashing[0]]) + " Uninstall one of them.")
        if found:
            ids = sorted([spec.id for spec in found] + [key[1] for key in clashing])
            raise UnknownComponentError(
                f"More than one {kind} is called {name!r}: {', '.join(ids)}. Write the full id."
            )
        kind_of_error = NotLoadedError if self._not_loaded(name) is not None else UnknownComponentError
        raise kind_of_error(self._unknown_text(kind, name))

    def find(self, name: str, kind: str | None = None) -> ComponentSpec:
        """Find a component whose kind may be left out where the name alone tells it.

        Raises:
            UnknownComponentError: there is none, or more than one.
            PluginError: two plugins claim that id.
        """
        if kind is not None:
            return self.get(kind, name)
        specs = self.all()
        found = [spec for spec in specs if spec.id == name] or [spec for spec in specs if spec.name == name]
        found = [spec for spec in found if spec.id.startswith(f"{FIRST_PARTY}/")] or found
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(f"{spec.kind} '{spec.id}'" for spec in found)
            raise UnknownComponentError(f"{name!r} may be any of: {choices}. Write the full id, or add --kind.")
        for clash in self._clashes:
            if name in (clash[1], clash[1].partition("/")[2]):
                raise PluginError(_clash_text(clash, self._clashes[clash]) + " Uninstall one of them.")
        near = did_you_mean(name, [spec.name for spec in specs] + [spec.id for spec in specs])
        hint = self._broken_hint(name) or ("" if near else " Is its package installed ('pip install -e FOLDER')?")
        raise UnknownComponentError(f"No component {name!r}.{near} 'ufe plugins' shows all {len(specs)}.{hint}")

    def create(self, kind: str, name: str, overrides: Mapping[str, Any] | None = None, **context: Any) -> Any:
        """Build a component: validate its options, import it, call `factory(config, **context)`.

        Args:
            kind: one of `KINDS`.
            name: short name or full id.
            overrides: options that differ from their defaults.
            context: keyword arguments that the interface of the kind prescribes.

        Raises:
            UnknownComponentError: no such component.
            ConfigError: an option is unknown or its value not allowed.
            PluginError: the component cannot be imported.
        """
        spec = self.get(kind, name)
        config = build_config(spec.config, overrides or {}, owner=spec.id, kind=kind)
        return spec.load()(config, **context)

    def provenance(self, spec: ComponentSpec) -> Provenance:
        """Tell which distribution, at which version, a component of this catalogue comes from."""
        report = self._owners[(spec.kind, spec.id)]
        return Provenance(report.dist, report.version)

    def _load(self, index: int, entry: PluginEntryPoint) -> PluginReport:
        dist, version = _distribution_of(entry)
        report = PluginReport(entry.name, dist, version, "ok")
        specs: list[ComponentSpec] = []
        try:
            # What a plugin prints while it loads must not end up in the output of `--json`.
            with contextlib.redirect_stdout(sys.stderr):
                _collect(entry, specs)
        except (Exception, SystemExit) as error:
            self._claims[index] = tuple(specs)
            reason = f"Plugin {entry.name!r} {version} failed to load: {_cause(error)}"
            return replace(report, status="broken", reason=reason, traceback=traceback_module.format_exc())
        loaded = (INTERFACE, *DEPRECATED_INTERFACES)
        foreign = next((spec for spec in specs if spec.interface not in loaded), None)
        if foreign is not None:
            self._claims[index] = tuple(specs)
            remedy = "or a newer ufe" if foreign.interface > INTERFACE else "or an older ufe"
            reason = (
                f"Plugin {entry.name!r} {version} is written for interface {foreign.interface}, this ufe has "
                f"{INTERFACE}. Install a release of {dist!r} for interface {INTERFACE}, {remedy}."
            )
            return replace(report, status="incompatible", reason=reason)
        old = min((spec.interface for spec in specs), default=INTERFACE)
        if old != INTERFACE:
            last = DEPRECATED_INTERFACES[old]
            warnings.warn(
                f"Plugin {entry.name!r} {version} is written for interface {old}, which ufe {last} will not load. "
                f"Install a release of {dist!r} for interface {INTERFACE}.",
                FutureWarning, stacklevel=2,
            )  # fmt: skip
        return replace(report, components=tuple(specs))

    def _unknown_text(self, kind: str, name: str) -> str:
        specs = self.all(kind)
        words = [spec.id for spec in specs] if "/" in name else [spec.name for spec in specs]
        elsewhere = [spec for spec in self.all() if name in (spec.id, spec.name)]
        text = f"No {kind} {name!r}."
        if elsewhere:
            text += f" {elsewhere[0].id!r} is {_article(elsewhere[0].kind)}."
        else:
            text += did_you_mean(name, words)
        known = ", ".join(spec.id for spec in specs[:12]) + (", …" if len(specs) > 12 else "")
        text += f" Known {kind}s: {known}." if specs else f" No {kind} is installed."
        return text + self._broken_hint(name) + f" 'ufe plugins --kind {kind}' shows all {len(specs)}."

    def _not_loaded(self, name: str) -> PluginReport | None:
        """The plugin that did not load and is likely to be the one that has the component."""
        owner, _, short = name.rpartition("/")
        listed = _listed_plugins(name)
        for index, report in enumerate(self.reports):
            if report.status == "ok":
                continue
            claimed = any(name in (spec.id, spec.name) for spec in self._claims.get(index, ()))
            claimed = claimed or (report.name, report.dist) in listed
            labels = f"{report.name} {report.dist}".lower()
            if claimed or (owner and owner in labels) or short.replace("_", "-") in labels.replace("_", "-"):
                return report
        return None

    def _broken_hint(self, name: str) -> str:
        """What may be the matter where a component is not there."""
        likely, listed = self._not_loaded(name), _listed_plugins(name)
        if likely is not None:
            return f" {likely.reason.rstrip('.')}. 'ufe plugins --why {likely.name}' shows where."
        installed = {report.dist for report in self.reports}
        for _, dist in listed:
            if dist not in installed:
                return f" Distribution {dist!r} has it: 'pip install {dist}'."
        broken = [report.name for report in self.reports if report.status != "ok"]
        return f" Not loaded: {', '.join(broken)}; 'ufe plugins' says why." if broken else ""


@functools.cache
def catalogue() -> Catalogue:
    """Return the catalogue of what is installed, made once per process."""
    return Catalogue()


def _collect(entry: PluginEntryPoint, specs: list[ComponentSpec]) -> None:
    # One manager per plugin: a failure leaves no half-registered state behind that others could see.
    plugin = entry.load()
    if not isinstance(plugin, ModuleType) and not hasattr(plugin, "register_components"):
        raise PluginError(f"entry point '{entry.value}' is not a module")
    manager = pluggy.PluginManager("ufe")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=entry.name)
    manager.check_pending()
    if not manager.hook.register_components.get_hookimpls():
        raise PluginError(f"'{entry.value}' has no function register_components marked with @hookimpl")

    def register(spec: ComponentSpec) -> None:
        if not isinstance(spec, ComponentSpec):
            raise PluginError(f"register() was given {type(spec).__name__}; expected a ComponentSpec")
        if any((spec.kind, spec.id) == (other.kind, other.id) for other in specs):
            raise PluginError(f"it registers {spec.kind} '{spec.id}' twice")
        specs.append(spec)

    manager.hook.register_components(register=register)


def _find_clashes(reports: list[PluginReport]) -> dict[tuple[str, str], list[PluginReport]]:
    claims: dict[tuple[str, str], list[PluginReport]] = {}
    for report in reports:
        for spec in report.components:
            claims.setdefault((spec.kind, spec.id), []).append(report)
    return {key: owners for key, owners in claims.items() if len(owners) > 1}


def _without_clashes(report: PluginReport, clashes: Mapping[tuple[str, str], list[PluginReport]]) -> PluginReport:
    # Only the ids in dispute go: a stranger who claims 'ufe/univ' must not take the rest of that plugin down.
    mine = [(spec.kind, spec.id) for spec in report.components if (spec.kind, spec.id) in clashes]
    if not mine:
        return report
    return replace(
        report,
        status="broken",
        reason=" ".join(_clash_text(key, clashes[key]) for key in mine),
        components=tuple(spec for spec in report.components if (spec.kind, spec.id) not in clashes),
    )


def _clash_text(key: tuple[str, str], owners: list[PluginReport]) -> str:
    names = " and ".join(f"{owner.name!r} of distribution {owner.dist!r} {owner.version}" for owner in owners)
    return f"{key[0].capitalize()} '{key[1]}' is claimed by {names}, so neither can be used."


def _distribution_of(entry: PluginEntryPoint) -> tuple[str, str]:
    dist = getattr(entry, "dist", None)
    if dist is None:
        return "unknown", "0"
    return str(dist.name), str(dist.version)


def _listed_plugins(name: str) -> list[tuple[str, str]]:
    """Return the plugins (name, distribution) that the registry says have a component of that name."""
    from ufe_core.registry import load_registry

    try:
        plugins = load_registry().plugins
    except RegistryError:
        return []
    return [
        (plugin.name, plugin.distribution)
        for plugin in plugins
        if any(name in (component.id, component.id.partition("/")[2]) for component in plugin.components)
    ]


def _cause(error: BaseException) -> str:
    text = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return " ".join(text.split())


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
