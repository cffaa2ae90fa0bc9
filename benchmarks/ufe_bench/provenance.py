"""What a result says of where it comes from: components, budget, training, machine."""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ufe_bench.schema import Budget, ComponentRecord, Environment, TrainingRecord
from ufe_core import __version__
from ufe_core.recipe import Chosen, Recipe
from ufe_core.registry import checkout_root
from ufe_core.training.loop import TrainedEncoder


def component_record(chosen: Chosen) -> ComponentRecord:
    """A component as it was used."""
    described = chosen.describe()
    return ComponentRecord(code_sha256=described.pop("code"), **described)


def budget_record(
    recipe: Recipe, encoder: TrainedEncoder, *, released: bool, tuned: Mapping[str, Any] = MappingProxyType({})
) -> Budget:
    """What the weights cost: nothing for an encoder that takes no step, else the sizes they were trained with."""
    config = encoder.record.get("config", recipe.training.model_dump(mode="json"))
    people = min(config["people"], encoder.record.get("subjects", config["people"]))  # a source may have fewer
    learns = encoder.encoder.learns
    if learns != "weights":
        people, frames = (people, config["frames"]) if learns == "statistics" else (0, 0)
        return Budget(name="none", released=False, people=people, frames=frames, size=config["size"], steps=0)
    return Budget(
        name=recipe.budget,
        released=released,
        people=people,
        frames=config["frames"],
        size=config["size"],
        steps=config["steps"],
        overrides={} if released else options_apart(recipe, tuned),
    )


def options_apart(recipe: Recipe, tuned: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Training options that set a run apart from its budget.

    Those in `tuned` do not, as every row's were chosen by the same search; nor do the seed and what is updated, which
    are the method's.
    """
    return {name: value for name, value in recipe.overrides.items() if name not in {"seed", "update", *tuned}}


def training_record(encoder: TrainedEncoder) -> TrainingRecord | None:
    """Who the weights were trained on, and how long; None where nothing was learnt."""
    record = encoder.record
    if not record:
        return None
    return TrainingRecord(
        subjects=record["subjects"],
        subjects_sha256=record["subjects_sha256"],
        seed=record["config"]["seed"],
        steps=record["config"]["steps"] if encoder.encoder.learns == "weights" else 0,
        seconds=record["seconds"],
        device=record["device"],
        config=record["config"],
        precision=record.get("precision"),
        pretraining=record.get("pretraining"),
    )


def environment_record(parts: Iterable[ComponentRecord] = ()) -> Environment:
    """The machine, the packages, those of the components among them, and the commit when run from a checkout."""
    commit, dirty = None, None
    root = checkout_root()
    if root is not None:
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = None if status is None else bool(status)
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        ufe=__version__,
        platform=platform.platform(),
        cpu=_cpu(),
        commit=commit,
        dirty=dirty,
        packages=_packages({part.dist: part.version for part in parts}),
    )


def _packages(plugins: Mapping[str, str]) -> dict[str, str]:
    """Versions of the packages that ufe needs, whatever extra wants them, and of plugins."""
    found = dict(plugins)
    for requirement in metadata.requires("ufe") or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if "extra ==" not in requirement:
            with contextlib.suppress(metadata.PackageNotFoundError):  # of another Python version
                found[name] = metadata.version(name)
    return dict(sorted(found.items()))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
