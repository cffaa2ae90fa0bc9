import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ufe_core.plugins import Catalogue

PLUGINS = Path(__file__).parents[1] / "broken_plugins"
sys.path.append(str(Path(__file__).parent))  # for fake_source, which several test files and their processes import


@dataclass(frozen=True)
class FakeDistribution:
    name: str
    version: str = "0.2.0"


@dataclass(frozen=True)
class FakeEntryPoint:
    """An installed plugin without an installation."""

    name: str
    value: str
    dist: FakeDistribution = field(default_factory=lambda: FakeDistribution("acme-ufe"))

    def load(self):
        return importlib.import_module(self.value)


@pytest.fixture
def make_catalogue(monkeypatch):
    """Catalogue of modules in tests/broken_plugins, each `module` or `module@distribution`."""
    monkeypatch.syspath_prepend(str(PLUGINS))
    names = {path.stem for path in PLUGINS.glob("*.py")}
    for name in names & set(sys.modules):
        monkeypatch.delitem(sys.modules, name)

    def make(*modules):
        entries = []
        for text in modules:
            module, _, dist = text.partition("@")
            entries.append(FakeEntryPoint(f"{dist or 'acme'}-{module}", module, FakeDistribution(dist or "acme-ufe")))
        return Catalogue(entries)

    yield make
    for name in names:
        sys.modules.pop(name, None)
