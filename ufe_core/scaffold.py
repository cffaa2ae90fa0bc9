"""A new plugin package, working from the first minute: `ufe plugins new`."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ufe_core.components import ID, INTERFACE
from ufe_core.errors import ConfigError
from ufe_core.names import KINDS
from ufe_core.plugins import catalogue
from ufe_core.store import explained, write_atomic

_TEMPLATES = Path(__file__).parent / "templates" / "plugin"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

#: Of each kind: its example's summary, an option with its field, and a command that uses it.
_FACTS: dict[str, tuple[str, str, str, str]] = {
    "encoder": ("What has changed since rest, by a small network", "width",
                'width: int = Field(8, ge=1, le=256, description="Channels of the first layer")',
                "ufe bench --encoder {name} --train"),
    "calibrator": ("The frame beside the mean of the anchors", "kernel",
                   'kernel: Literal[1, 3, 5, 7] = Field(1, description="Side of the convolution")',
                   "ufe bench --calibrator {name} --train"),
    "metric": ("How far the corners of the mouth are from the truth", "power",
               'power: float = Field(1.0, ge=1, le=8, description="1: all errors alike; more: large ones count more")',
               "ufe plugins check {distribution}"),
    "decoder": ("An avatar whose skin a linear code moves", "side",
                'side: int = Field(16, ge=4, le=256, description="Vertices along a side of the grid")',
                "ufe plugins check {distribution}"),
    "detector": ("The brightest point of each cell of a grid", "cells",
                 'cells: Literal[2, 4, 8, 16] = Field(8, description="Cells along a side of the image")',
                 "ufe keypoints find --detector {name}"),
    "pretraining": ("One code for a frame in two augmentations", "spread",
                    'spread: float = Field(1.0, ge=0, description="Weight of codes being spread")',
                    "ufe pretrain run --pretraining {name} --budget smoke"),
    "source": ("Captures made up from a number", "people",
               'people: int = Field(4, ge=1, description="How many people there are")',
               "ufe source info --source {name}"),
}  # fmt: skip


@dataclass(frozen=True)
class Scaffold:
    """A package that was made: its folder, and its files relative to it."""

    folder: Path
    files: tuple[Path, ...]
    component: str


def _refuse_names(name: str, kind: str, component: str, factory: str) -> None:
    """Refuse names that Python, the template or another component would stumble over."""
    source = (_TEMPLATES / f"{kind}.py.j2").read_text(encoding="utf-8")
    if not factory.isidentifier() or keyword.iskeyword(factory) or re.search(rf"\b{factory}\b", source):
        raise ConfigError(
            f"{name!r} will not do: its class would be called {factory!r}, a name that the template uses or Python "
            "does not allow. Choose another last word."
        )
    if not ID.fullmatch(component):
        raise ConfigError(f"{component!r} will not do as an id: write lower-case letters, digits, '-' and '_'.")
    short = component.partition("/")[2]
    taken = [spec for spec in catalogue().all(kind) if spec.name == short and spec.id != component]
    if taken:
        raise ConfigError(
            f"{kind.capitalize()} {taken[0].id!r} is there already: {short!r} alone would not mean yours. "
            "Choose another last word."
        )


def new_plugin(name: str, kind: str, out: Path, *, owner: str | None = None) -> Scaffold:
    """Write a package with one component of a kind, which passes its own tests.

    Args:
        name: of the distribution, such as `acme-fovea`.
        kind: one of `KINDS`.
        out: folder in which the package's folder is made.
        owner: before the `/` of the component's id; the first part of the name if left out.

    Raises:
        ConfigError: the name or the kind will not do, or something is there already.
        ArtifactError: the folder cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if kind not in KINDS:
        raise ConfigError(f"{kind!r} is no kind of component; kinds are {', '.join(KINDS)}.")
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise ConfigError(f"{name!r} will not do as a name: write lower-case words joined by '-', such as acme-fovea.")
    if name == "ufe" or name.startswith("ufe-"):
        raise ConfigError(f"{name!r} looks like a part of ufe itself: begin with your own name, such as acme-fovea.")
    if find_spec(package) is not None:
        raise ConfigError(f"A Python package {package!r} is installed already: choose another name.")
    first, _, rest = name.partition("-")
    own, short = owner or first, rest if owner is None and rest else name
    folder = out / name
    if folder.exists():
        raise ConfigError(f"'{folder}' is there already: choose another name, or --out.")
    words = "".join(part.capitalize() for part in (short or name).split("-"))
    _refuse_names(name, kind, f"{own}/{short}", words)
    summary, option, field, use = _FACTS[kind]
    values = {
        "distribution": name, "package": package, "kind": kind, "name": short, "id": f"{own}/{short}",
        "factory": words, "config": f"{words}Config", "module": kind, "summary": summary, "option": option,
        "field": field, "use": use.format(name=short, distribution=name), "interface": INTERFACE,
    }  # fmt: skip
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    files = {
        Path("pyproject.toml"): "pyproject.toml.j2", Path("README.md"): "README.md.j2",
        Path(package, "plugin.py"): "plugin.py.j2", Path(package, f"{kind}.py"): f"{kind}.py.j2",
        Path("tests", f"test_{package}.py"): "test_plugin.py.j2",
    }  # fmt: skip
    with explained(f"make '{name}'", out):
        for place, template in files.items():
            text = environment.get_template(template).render(values)
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / place, text.encode())
        write_atomic(folder / package / "__init__.py", f'"""{summary}: a plugin for ufe."""\n'.encode())
    return Scaffold(folder, (*files, Path(package, "__init__.py")), f"{own}/{short}")
