"""Options of components under examination: which are whose, and which are lacking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ufe_core.components import ComponentSpec
from ufe_core.config import describe_options
from ufe_core.conformance.rule import NotTried

if TYPE_CHECKING:
    from ufe_core.conformance.examine import Candidate


def options_of(
    component: ComponentSpec, among: Sequence[ComponentSpec], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A component's share of options given by kind: all but those that only others of its kind know.

    An option that none of them knows is everybody's, so that each refuses it.
    """
    known = {name for other in among if other.kind == component.kind for name in other.config.model_fields}
    others = known - set(component.config.model_fields)
    return {name: value for name, value in given.get(component.kind, {}).items() if name not in others}


def refusal(candidate: Candidate, flag: str) -> str:
    """Why a component cannot be tried with its options, and which ones to give by `flag`; empty if it can be."""
    try:
        _ = candidate.config
    except NotTried as reason:
        spec = candidate.spec
        held = {**spec.presets.get("smoke", {}), **candidate.options}
        lacking = [o.name for o in describe_options(spec.config) if not o.default and not _holds(held, o.name)]
        give = "".join(f" {flag} {spec.kind}.{name}=VALUE" for name in lacking)
        return f"{spec.kind} {spec.id} could not be tried: {reason}" + (f" Give{give}." if give else "")
    return ""


def _holds(options: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(options, Mapping) or part not in options:
            return False
        options = options[part]
    return True
