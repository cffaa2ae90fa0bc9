"""pytest for authors of plugins: `pytest --ufe-plugin NAME` runs every rule on every component of a plugin.

Options of the components are given by `--ufe-set KIND.OPTION=VALUE`. A component that lacks one gets a test that fails
and names it; the rules that need it are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ufe_core.components import ComponentSpec
    from ufe_core.conformance.examine import Candidate
    from ufe_core.conformance.rule import Rule


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("ufe", "conformance of ufe plugins")
    group.addoption("--ufe-plugin", action="append", default=[], metavar="NAME",
                    help="also run the rules of ufe's interfaces on this installed plugin or distribution")  # fmt: skip
    group.addoption("--ufe-set", action="append", default=[], metavar="KIND.OPTION=VALUE",
                    help="option of the components of --ufe-plugin, e.g. source.root=/data")  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each rule and component."""
    names, assignments = config.getoption("--ufe-plugin"), config.getoption("--ufe-set")
    if not names:
        if assignments:
            raise pytest.UsageError("--ufe-set sets options of the components of --ufe-plugin: name a plugin, too.")
        return
    plugins = {name: _components(name) for name in names}
    given = _given(assignments)
    among = [spec for components in plugins.values() for spec in components]
    for name, components in plugins.items():
        rules = _Rules.from_parent(session, name=f"ufe-plugin {name}", components=components, among=among, given=given)
        items.extend(rules.collect())


def _components(plugin: str) -> list[ComponentSpec]:
    """What an installed plugin or distribution has."""
    from ufe_core.plugins import catalogue

    reports = [report for report in catalogue().reports if plugin in (report.name, report.dist)]
    if not reports:
        known = ", ".join(report.name for report in catalogue().reports)
        raise pytest.UsageError(f"--ufe-plugin {plugin}: no such plugin is installed. Installed: {known}.")
    for report in reports:
        if report.status != "ok":
            raise pytest.UsageError(f"--ufe-plugin {plugin}: {report.reason}")
    return [spec for report in reports for spec in report.components]


def _given(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError
    from ufe_core.names import KINDS

    try:
        return parse_overrides(assignments, owners=KINDS)
    except ConfigError as error:
        raise pytest.UsageError(f"--ufe-set: {error}") from error


class _Rules(pytest.Collector):
    """The rules of a plugin's components."""

    def __init__(
        self, *, components: Sequence[ComponentSpec], among: Sequence[ComponentSpec],
        given: Mapping[str, Mapping[str, Any]], **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.components, self.among, self.given = components, among, given

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each rule and component, and one that fails for a component whose options do not do."""
        from ufe_core.conformance import Rule, rules_of
        from ufe_core.conformance.examine import Candidate
        from ufe_core.conformance.options import options_of, refusal
        from ufe_core.plugins import catalogue

        for spec in self.components:
            candidate = Candidate(spec, catalogue(), options_of(spec, self.among, self.given))
            rules = rules_of(spec.kind)
            if refusal(candidate, "--ufe-set"):
                rules = (Rule("any", "options_given", "it has the options that it needs", _options_given), *rules)
            for rule in rules:
                yield _Attempt.from_parent(self, name=f"{spec.id} {rule}", candidate=candidate, rule=rule)


def _options_given(candidate: Candidate) -> None:
    from ufe_core.conformance.options import refusal
    from ufe_core.conformance.rule import Broken

    raise Broken(refusal(candidate, "--ufe-set"))


class _Attempt(pytest.Item):
    """One rule, tried on one component."""

    def __init__(self, *, candidate: Candidate, rule: Rule, **options: Any) -> None:
        super().__init__(**options)
        self.candidate, self.rule = candidate, rule

    def runtest(self) -> None:
        """Try it."""
        from ufe_core.conformance import Broken
        from ufe_core.conformance.examine import found_by

        finding = found_by(self.candidate.spec, self.rule, self.candidate.options)
        if finding.outcome == "not tried":
            pytest.skip(finding.line)
        if finding.outcome == "broken":
            raise Broken(f"{finding.line}\n{finding.traceback}".rstrip())

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The line that says what to mend, without pytest's own frames."""
        return f"{self.candidate.spec.kind} {self.candidate.spec.id}: {self.rule.says}\n{excinfo.value}"

    def reportinfo(self) -> tuple[str, int, str]:
        """Where and what."""
        return (self.candidate.spec.target, 0, self.name)
