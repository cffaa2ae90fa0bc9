"""pytest for authors of plugins: `pytest --ufe-plugin NAME` runs every rule on every component of a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ufe_core.components import ComponentSpec
    from ufe_core.conformance.rule import Rule


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("ufe", "conformance of ufe plugins")
    group.addoption("--ufe-plugin", action="append", default=[], metavar="NAME",
                    help="also run the rules of ufe's interfaces on this installed plugin or distribution")  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each rule and component."""
    for name in config.getoption("--ufe-plugin"):
        items.extend(_Rules.from_parent(session, name=f"ufe-plugin {name}", plugin=name).collect())


class _Rules(pytest.Collector):
    """The rules of a plugin's components."""

    def __init__(self, *, plugin: str, **options: Any) -> None:
        super().__init__(**options)
        self.plugin = plugin

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each rule and component."""
        from ufe_core.conformance import rules_of
        from ufe_core.plugins import catalogue

        reports = [report for report in catalogue().reports if self.plugin in (report.name, report.dist)]
        if not reports:
            known = ", ".join(report.name for report in catalogue().reports)
            raise pytest.UsageError(f"--ufe-plugin {self.plugin}: no such plugin is installed. Installed: {known}.")
        for report in reports:
            if report.status != "ok":
                raise pytest.UsageError(f"--ufe-plugin {self.plugin}: {report.reason}")
            for spec in report.components:
                for rule in rules_of(spec.kind):
                    yield _Attempt.from_parent(self, name=f"{spec.id} {rule}", spec=spec, rule=rule)


class _Attempt(pytest.Item):
    """One rule, tried on one component."""

    def __init__(self, *, spec: ComponentSpec, rule: Rule, **options: Any) -> None:
        super().__init__(**options)
        self.spec, self.rule = spec, rule

    def runtest(self) -> None:
        """Try it."""
        from ufe_core.conformance import examine

        examine(self.spec.id, self.rule, kind=self.spec.kind)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The line that says what to mend, without pytest's own frames."""
        return f"{self.spec.kind} {self.spec.id}: {self.rule.says}\n{excinfo.value}"

    def reportinfo(self) -> tuple[str, int, str]:
        """Where and what."""
        return (self.spec.target, 0, self.name)
