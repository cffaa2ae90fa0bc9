"""Rules for every kind: how a component is announced, and how it takes options."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from ufe_core.components import ComponentSpec
from ufe_core.config import describe_options
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import NotTried, require, rule
from ufe_core.plugins import GROUP
from ufe_core.store import code_fingerprint

#: What listing a plugin must not import: each costs every `ufe` command a second or more.
_HEAVY = ("torch", "timm", "cv2", "matplotlib", "scipy", "anny", "warp")


@rule("any", "a plugin announces itself without importing anything heavy")
def announced_lightly(candidate: Candidate) -> None:
    """In a process of its own, as `ufe --help` imports it."""
    homes = {(one.name, one.dist) for one in candidate.catalogue.reports if candidate.spec in one.components}
    entries = importlib.metadata.entry_points(group=GROUP)
    module = next(
        (entry.module for entry in entries if (entry.name, entry.dist.name if entry.dist else "") in homes), None
    )
    if module is None:
        raise NotTried("it is not installed by an entry point")
    code = f"import sys, {module}; print(','.join(name for name in {_HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    said = done.stderr.strip().splitlines() or [""]
    require(done.returncode == 0, f"'{module}' cannot be imported: {said[-1]}")
    heavy = done.stdout.strip()
    require(not heavy, f"'{module}' imports {heavy}: import it in the module that `target` names, not where "
                       "components are registered")  # fmt: skip


@rule("any", "every option has a description, and an unknown one is refused")
def options_explained(candidate: Candidate) -> None:
    model = candidate.spec.config
    silent = [option.name for option in describe_options(model) if not option.description]
    require(not silent, f"option {', '.join(silent)} has no description: give `Field(..., description=...)`")
    require(model.model_config.get("extra") == "forbid", f"{model.__name__} takes unknown options: leave "
            "`extra=\"forbid\"` as ComponentConfig has it, or a typing error goes unnoticed")  # fmt: skip
    require(model.model_config.get("frozen"), f"{model.__name__} can be changed after it was made: leave `frozen`")


@rule("any", "its target is a class of its kind's interface")
def of_its_kind(candidate: Candidate) -> None:
    interface = _interface(candidate.spec)
    factory = candidate.factory
    require(
        isinstance(factory, type) and issubclass(factory, interface),
        f"'{candidate.spec.target}' is no subclass of {interface.__name__}: derive from it",
    )
    missing = sorted(getattr(factory, "__abstractmethods__", ()))
    require(not missing, f"{factory.__name__} does not implement {', '.join(missing)}")


@rule("any", "`code_modules` names modules that exist, its own among them or known by the target")
def its_code_is_known(candidate: Candidate) -> None:
    named = tuple(getattr(candidate.factory, "code_modules", ()))
    require(
        isinstance(named, tuple) and all(isinstance(name, str) for name in named),
        "`code_modules` must be a tuple of module names: results and caches are keyed by their source",
    )
    code_fingerprint(candidate.spec.target.partition(":")[0], *named)
    training = getattr(candidate.factory, "trained_by", None)
    if training is not None:
        known = {candidate.spec.target.partition(":")[0], *named, *training.code_modules}
        require(
            training.__module__ in known,
            f"`code_modules` of {training.__name__} must name {training.__module__}: weights are keyed by its source",
        )
        code_fingerprint(*training.code_modules)


def _interface(spec: ComponentSpec) -> type:
    from ufe_core.interfaces.calibrator import Calibrator
    from ufe_core.interfaces.decoder import Decoder
    from ufe_core.interfaces.detector import KeypointDetector
    from ufe_core.interfaces.encoder import Encoder
    from ufe_core.interfaces.metric import Metric
    from ufe_core.interfaces.pretraining import Pretraining
    from ufe_core.interfaces.source import HMCSource

    return {
        "calibrator": Calibrator, "decoder": Decoder, "detector": KeypointDetector, "encoder": Encoder,
        "metric": Metric, "pretraining": Pretraining, "source": HMCSource,
    }[spec.kind]  # fmt: skip
