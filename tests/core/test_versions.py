"""What versions promise (`docs/versions.md`): public signatures stay, old interfaces still load for a while."""

import enum
import importlib
import inspect
import pkgutil
import sys
import warnings
from pathlib import Path

import pytest

import ufe_core
import ufe_core.interfaces
from ufe_core import components, plugins
from ufe_core.components import INTERFACE
from ufe_core.deprecation import deprecated

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLIC = [
    *(f"ufe_core.interfaces.{module.name}" for module in pkgutil.iter_modules(ufe_core.interfaces.__path__)),
    "ufe_core.types", "ufe_core.components", "ufe_core.config", "ufe_core.errors", "ufe_core.budgets",
    "ufe_core.face_encoder", "ufe_core.linear_probe", "ufe_core.conformance.examine", "ufe_core.conformance.rule",
]  # fmt: skip


def signatures():
    """Every public name of the interfaces and of what passes through them, a line each."""
    lines = []
    for name in PUBLIC:
        module = importlib.import_module(name)
        for attribute, value in sorted(vars(module).items()):
            if attribute.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            place = f"{name}.{attribute}"
            if inspect.isclass(value):
                lines.append(f"{place}({', '.join(base.__name__ for base in value.__bases__)})")
                lines += [f"{place}.{member}" for member in members(value)]
            elif inspect.isfunction(value):
                lines.append(f"{place}{described(value)}")
    return lines


def members(owner):
    for name, value in sorted(vars(owner).items()):
        if name.startswith("_") and name != "__init__" and not overridden(owner, name):
            continue
        if isinstance(value, property):
            yield f"{name}: {value.fget.__annotations__.get('return')}"
        elif isinstance(value, classmethod | staticmethod):
            yield f"{name}{described(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"{name}{described(value)}{' abstract' if getattr(value, '__isabstractmethod__', False) else ''}"
    if not issubclass(owner, enum.Enum):
        yield from (f"{name}: {kind}" for name, kind in sorted(getattr(owner, "__annotations__", {}).items())
                    if not name.startswith("_"))  # fmt: skip


def overridden(owner, name):
    """Whether a plugin implements it, though users do not call it: it is abstract, or the class tells of it."""
    abstract = getattr(vars(owner)[name], "__isabstractmethod__", False)
    return (
        abstract or f"`{name}`" in (owner.__doc__ or "") or f"`{name}`" in (sys.modules[owner.__module__].__doc__ or "")
    )


def described(function):
    """A signature without default values, but with which arguments have one."""
    signature, parts = inspect.signature(function), []
    for parameter in signature.parameters.values():
        kind = {"KEYWORD_ONLY": "kw ", "VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        of = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        parts.append(kind + parameter.name + of + ("=" if parameter.default is not parameter.empty else ""))
    gives = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
    return f"({', '.join(parts)}){gives}"


def test_public_signatures_are_those_of_this_interface():
    """Gone or changed lines need another INTERFACE; new ones belong into the list, and into CHANGELOG.md."""
    listed, now = (GOLDEN / f"interface_{INTERFACE}.txt").read_text().splitlines(), signatures()
    gone = [line for line in listed if line not in now]
    assert not gone, "not the interface that was promised: raise INTERFACE and deprecate this one"
    new = [line for line in now if line not in listed]
    assert not [line for line in new if line.endswith(" abstract")], "plugins of today lack it: raise INTERFACE"
    assert not new, "additions: write them into the list and into CHANGELOG.md"


@pytest.mark.parametrize("module", [name for _, name, _ in pkgutil.walk_packages(ufe_core.__path__, "ufe_core.")])
def test_nothing_deprecated_has_stayed_longer_than_a_minor_release(module):
    names = vars(importlib.import_module(module)).values()
    inside = [member for value in names if inspect.isclass(value) for member in vars(value).values()]
    for value in (*names, *inside):
        since = getattr(value, "deprecated_since", None)
        if since is not None:
            major, minor = map(int, since.split("."))
            assert release(ufe_core.__version__) <= (major, minor + 1), f"{value.__qualname__}: take it away"


def release(version):
    return tuple(map(int, version.split(".")[:2]))


def test_old_interfaces_are_loaded_no_longer_than_was_said():
    assert INTERFACE not in components.DEPRECATED_INTERFACES
    for interface, last in components.DEPRECATED_INTERFACES.items():
        assert release(ufe_core.__version__) < release(last), f"interface {interface}: take it away"


def test_a_deprecated_function_works_and_says_what_to_use():
    @deprecated(since="0.1", instead="new()")
    def old(value):
        return value + 1

    with pytest.warns(DeprecationWarning, match=r"old is deprecated since ufe 0\.1 .* use new\(\)"):
        assert old(1) == 2
    assert old.deprecated_since == "0.1"


def test_the_interface_before_still_loads_and_says_until_when(monkeypatch):
    """A plugin written for interface 1 in a ufe that has 2."""
    for module in (components, plugins):
        monkeypatch.setattr(module, "INTERFACE", 2)
        monkeypatch.setattr(module, "DEPRECATED_INTERFACES", {1: "0.4"})
    entry = next(entry for entry in importlib.metadata.entry_points(group="ufe.plugins") if entry.name == "ufe-metrics")
    with pytest.warns(FutureWarning, match=r"written for interface 1, which ufe 0\.4 will not load"):
        catalogue = plugins.Catalogue([entry])
    assert catalogue.reports[0].status == "ok" and catalogue.all("metric")
    monkeypatch.setattr(plugins, "DEPRECATED_INTERFACES", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plugins.Catalogue([entry]).reports[0].status == "incompatible"
