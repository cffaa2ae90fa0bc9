"""Trying the rules on a component, and what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ufe_core.components import ComponentSpec
from ufe_core.config import ComponentConfig, build_config
from ufe_core.conformance.options import options_of
from ufe_core.conformance.rule import Broken, NotTried, Rule, rules_of
from ufe_core.errors import ConfigError, UfeError
from ufe_core.plugins import Catalogue, catalogue


@dataclass(frozen=True)
class Finding:
    """What came of one rule: `kept`, `broken` with a line that says what to mend, or `not tried` with the reason."""

    component: ComponentSpec
    rule: Rule
    outcome: Literal["kept", "broken", "not tried"]
    line: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Candidate:
    """A component under examination, and what it may be put together with."""

    spec: ComponentSpec
    catalogue: Catalogue
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> ComponentConfig:
        """Its options: those of budget `smoke`, changed by what the examiner was given.

        Raises:
            NotTried: one is lacking or wrong.
        """
        try:
            return build_config(
                self.spec.config, {**self.spec.presets.get("smoke", {}), **self.options}, owner=self.spec.id
            )
        except ConfigError as error:
            raise NotTried(" ".join(str(error).split())) from error

    @cached_property
    def factory(self) -> Any:
        """What makes it."""
        return self.spec.load()


def examined(
    components: Sequence[ComponentSpec], *, among: Catalogue | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Finding]:  # fmt: skip
    """Try every rule on every component, one after another.

    Args:
        components: which.
        among: the catalogue that they are in; what is installed if left out.
        options: by kind, those of which the budget's presets do not make a component that can be examined; one that
            only some components of a kind have is given to these.
    """
    for spec in components:
        candidate = Candidate(spec, among or catalogue(), options_of(spec, components, options or {}))
        for rule in rules_of(spec.kind):
            yield _found(candidate, rule)


def examine(name: str, rule: Rule, *, kind: str | None = None, **options: Any) -> None:
    """Try one rule on an installed component; for tests. `options` are the component's own.

    Raises:
        Broken: it is not kept; the message says what to mend.
        NotTried: it cannot be tried; the message says why.
    """
    finding = found_by(catalogue().find(name, kind), rule, options)
    if finding.outcome == "not tried":
        raise NotTried(finding.line)
    if finding.outcome == "broken":
        raise Broken(f"{finding.line}\n{finding.traceback}".rstrip())


def found_by(spec: ComponentSpec, rule: Rule, options: Mapping[str, Any] | None = None) -> Finding:
    """What comes of one rule on an installed component."""
    return _found(Candidate(spec, catalogue(), options or {}), rule)


def _found(candidate: Candidate, rule: Rule) -> Finding:
    try:
        rule.attempt(candidate)
    except NotTried as reason:
        return Finding(candidate.spec, rule, "not tried", str(reason))
    except Broken as broken:
        return Finding(candidate.spec, rule, "broken", str(broken))
    except UfeError as error:
        return Finding(candidate.spec, rule, "broken", f"{error} ({rule.says})")
    except (Exception, SystemExit) as error:  # whatever a plugin does
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Finding(candidate.spec, rule, "broken", f"{text} ({rule.says})", traceback.format_exc())
    return Finding(candidate.spec, rule, "kept")
