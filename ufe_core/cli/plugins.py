"""`ufe plugins`: what is installed, what did not load and why, and the options of each component."""

import contextlib
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from ufe_core.cli.groups import refuse_options_before
from ufe_core.names import FIRST_PARTY, KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ufe_core.components import ComponentSpec
    from ufe_core.conformance import Finding
    from ufe_core.plugins import Catalogue, PluginReport


@click.group(invoke_without_command=True, short_help="List components and plugins; make and check them.")
@click.option("--kind", type=click.Choice(KINDS), help="List components of this kind only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any plugin is broken or incompatible.")
@click.option("--why", metavar="NAME", help="Show in full what became of plugin or distribution NAME.")
@click.pass_context
def plugins(ctx: click.Context, kind: str | None, as_json: bool, strict: bool, why: str | None) -> None:
    """List components and plugins; `show` one with its options, make a `new` one, `check` one.

    A component is named by its short name (`univ`) or its full id (`ufe/univ`). A short name that several have is
    that of `ufe`; of others it takes the full id. A plugin that does not load is listed with the reason and stops
    nothing else; a command that needs it says so.

    \b
    Examples:
      ufe plugins                      everything, as a table
      ufe plugins --kind encoder       encoders only
      ufe plugins show univ            one component: origin, options and their bounds, what budgets set
      ufe plugins --why acme-ufe       why a plugin does not load, with Python's traceback
      ufe plugins --strict --json      for continuous integration
    """
    if ctx.invoked_subcommand is not None:
        refuse_options_before(ctx)
        return
    from ufe_core.plugins import catalogue

    found = catalogue()
    if why is not None:
        _print_why(_reports_named(found, why), as_json)
    elif as_json:
        click.echo(json.dumps(_listing(found, kind), indent=2, ensure_ascii=False))
    else:
        _print_table(found, kind)
    if strict and any(report.status != "ok" for report in found.reports):
        sys.stdout.flush()
        ctx.exit(1)


@plugins.command(short_help="Show one component and its options.")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the component, where the name alone is not enough.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def show(name: str, kind: str | None, as_json: bool) -> None:
    """Show one component: what it is, where it comes from, and its options.

    NAME is a short name or a full id. Options are set on the command line with `--set KIND.OPTION=VALUE`.

    \b
    Examples:
      ufe plugins show univ
      ufe plugins show ufe/mesh_l2 --kind metric
      ufe bench --set encoder.backbone=mobilenetv3_small_100
    """
    from ufe_core.plugins import catalogue

    found = catalogue()
    spec = found.find(name, kind)
    if as_json:
        click.echo(json.dumps(_component_facts(found, spec, with_options=True), indent=2, ensure_ascii=False))
    else:
        _print_component(_component_facts(found, spec, with_options=True))


@plugins.command(short_help="Make a plugin package that works, to begin with.")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(KINDS), help="What the package's component is.")
@click.option("--owner", help="Before the '/' of the component's id. [default: the name's first word]")
@click.option("--out", default=".", show_default=True, type=click.Path(file_okay=False), help="Folder to make it in.")
def new(name: str, kind: str, owner: str | None, out: str) -> None:
    """Make a plugin package that works: installable, with a component, its options, a test and a README.

    The component is a small real one of its kind; put your method in its place.

    \b
    Examples:
      ufe plugins new acme-fovea --kind encoder
      ufe plugins new acme-lips --kind metric --out ~/projects
    """
    from pathlib import Path

    from ufe_core.scaffold import new_plugin

    made = new_plugin(name, kind, Path(out), owner=owner)
    for file in made.files:
        click.echo(made.folder / file)
    click.echo(f"\nNext: cd {shlex.quote(str(made.folder))} && python -m pip install -e '.[dev]' && python -m pytest")


@plugins.command(short_help="Try the rules of ufe's interfaces on a plugin.")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Of a component: its kind, where the name is not enough.")
@click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
              help="Option of the components under examination, e.g. where a source needs a folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def check(ctx: click.Context, name: str, kind: str | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Try the rules of ufe's interfaces on NAME: a plugin, a distribution, or one component.

    Shapes, determinism, batches and users that must not touch each other, gradients, weights that restore it, errors
    that users can read, speed. Each broken rule is a line that says what to mend. The exit code is 1 if a rule is
    broken, or if a component could not be tried because an option that it needs was not given or has a wrong value;
    the last line names the option then. A rule that is not tried for another reason, which is printed below it, leaves
    the exit code at 0. With a plugin's own tests: `pytest --ufe-plugin NAME`, options by `--ufe-set KIND.OPTION=VALUE`.

    \b
    Examples:
      ufe plugins check acme-fovea
      ufe plugins check univ
      ufe plugins check ava256 --set source.root=/data/ava-256
    """
    from ufe_core.config import parse_overrides
    from ufe_core.conformance import examined
    from ufe_core.conformance.examine import Candidate
    from ufe_core.conformance.options import options_of, refusal
    from ufe_core.errors import ConfigError, PluginError
    from ufe_core.plugins import catalogue

    found = catalogue()
    reports = [report for report in found.reports if name in (report.name, report.dist)]
    for report in reports:
        if report.status != "ok":
            raise PluginError(f"{report.reason.rstrip('.')}. 'ufe plugins --why {report.name}' shows where.")
    specs = [spec for report in reports for spec in report.components] or [found.find(name, kind)]
    given = parse_overrides(assignments, owners=KINDS)
    findings = []
    with _progress(as_json) as advance:
        for finding in examined(specs, options=given):
            findings.append(finding)
            advance(finding)
    broken = [finding for finding in findings if finding.outcome == "broken"]
    if as_json:
        facts = [
            {
                "kind": one.component.kind, "id": one.component.id, "rule": one.rule.name, "says": one.rule.says,
                "outcome": one.outcome, "line": one.line, "traceback": one.traceback,
            }
            for one in findings
        ]  # fmt: skip
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        kept = sum(finding.outcome == "kept" for finding in findings)
        untried = len(findings) - kept - len(broken)
        click.echo(f"{kept} kept, {len(broken)} broken" + (f", {untried} not tried" if untried else ""))
    candidates = [Candidate(spec, found, options_of(spec, specs, given)) for spec in specs]
    refusals = [line for line in (refusal(candidate, "--set") for candidate in candidates) if line]
    if refusals:
        sys.stdout.flush()
        raise ConfigError("\n".join(refusals))
    if broken:
        ctx.exit(1)


@contextlib.contextmanager
def _progress(silent: bool) -> "Iterator[Callable[[Finding], None]]":
    """Print each finding as it comes, under the component that it is of."""
    from rich.console import Console
    from rich.markup import escape

    console, shown = Console(highlight=False, soft_wrap=True), [""]
    marks = {"kept": "[green]kept[/]      ", "broken": "[bold red]broken[/]    ", "not tried": "[dim]not tried[/] "}

    def show(finding: "Finding") -> None:
        if silent:
            return
        title = f"{finding.component.kind} {finding.component.id}"
        if title != shown[0]:
            console.print(f"[bold]{title}[/]")
            shown[0] = title
        console.print(f"  {marks[finding.outcome]}{escape(finding.rule.says)}")
        if finding.line:
            console.print(f"            {escape(finding.line)}")

    yield show


def _component_facts(found: "Catalogue", spec: "ComponentSpec", *, with_options: bool = False) -> dict[str, Any]:
    from ufe_core.config import describe_options

    origin = found.provenance(spec)
    facts: dict[str, Any] = {
        "name": spec.name,
        "id": spec.id,
        "kind": spec.kind,
        "summary": spec.summary,
        "reference": spec.reference,
        "distribution": origin.distribution,
        "version": origin.version,
        "license": spec.license,
        "target": spec.target,
    }
    if with_options:
        facts["options"] = [option.as_dict() for option in describe_options(spec.config)]
        facts["presets"] = {budget: dict(values) for budget, values in spec.presets.items()}
    return facts


def _report_facts(report: "PluginReport") -> dict[str, Any]:
    return {
        "name": report.name,
        "distribution": report.dist,
        "version": report.version,
        "status": report.status,
        "reason": report.reason,
        "components": [{"kind": spec.kind, "id": spec.id} for spec in report.components],
    }


def _listing(found: "Catalogue", kind: str | None) -> dict[str, Any]:
    from ufe_core.components import INTERFACE

    return {
        "interface": INTERFACE,
        "components": [_component_facts(found, spec) for spec in found.all(kind)],
        "plugins": [_report_facts(report) for report in found.reports],
    }


def _reports_named(found: "Catalogue", name: str) -> "list[PluginReport]":
    from ufe_core.config import did_you_mean
    from ufe_core.errors import UnknownComponentError

    reports = [report for report in found.reports if name in (report.name, report.dist)]
    if not reports:
        known = [report.name for report in found.reports]
        raise UnknownComponentError(
            f"No plugin {name!r}.{did_you_mean(name, known)} Installed: {', '.join(known) or 'none'}."
        )
    return reports


def _print_why(reports: "list[PluginReport]", as_json: bool) -> None:
    if as_json:
        facts = [{**_report_facts(report), "traceback": report.traceback} for report in reports]
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for report in reports:
        click.echo(f"{report.name}  (distribution {report.dist} {report.version}): {report.status}")
        if report.reason:
            click.echo(report.reason)
        if report.traceback:
            click.echo(report.traceback.rstrip())
        for spec in report.components:
            click.echo(f"  {spec.kind} {spec.id}")


def _print_table(found: "Catalogue", kind: str | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind", no_wrap=True)
    table.add_column("name", no_wrap=True, style="cyan")
    table.add_column("summary", ratio=1)
    for spec in found.all(kind):
        origin, summary = found.provenance(spec), escape(spec.summary)
        if origin.distribution != FIRST_PARTY:
            summary += f" [dim]({escape(origin.distribution)} {escape(origin.version)})[/]"
        table.add_row(spec.kind, spec.id, summary)
    console.print(table)
    for report in found.reports:
        if report.status != "ok":
            console.print()
            console.print(f"[bold red]{report.status}[/]  {escape(report.reason)}")
            console.print(f"        'ufe plugins --why {report.name}' shows where.", soft_wrap=True)


def _print_component(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold cyan]{facts['id']}[/]  ({facts['kind']})")
    console.print(escape(facts["summary"]))
    console.print()
    rows = Table(box=None, pad_edge=False, show_header=False)
    for label, value in (
        ("P§", facts["reference"] or "–"),
        ("from", f"{facts['distribution']} {facts['version']}"),
        ("license", facts["license"]),
        ("code", facts["target"]),
    ):
        rows.add_row(label, escape(value))
    console.print(rows)
    console.print()
    if not facts["options"]:
        console.print("It has no options.")
        return
    options = Table(box=None, pad_edge=False, header_style="bold")
    options.add_column("option", no_wrap=True, style="cyan")
    options.add_column("value", overflow="fold")
    options.add_column("default", overflow="fold")
    options.add_column("description", ratio=1)
    for option in facts["options"]:
        expected = f"{option['type']} {option['bounds']}".strip()
        options.add_row(
            option["name"],
            escape(expected),
            escape(option["default"] or "required"),
            escape(option["description"]),
        )
    console.print(options)
    first = facts["options"][0]
    for budget, values in facts["presets"].items():
        console.print()
        told = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
        console.print(f"[bold]Budget {budget}[/] sets {escape(told)}")
    console.print()
    console.print(f"Set with --set, e.g. --set {facts['kind']}.{first['name']}=…", soft_wrap=True)
