"""`ufe registry`: what is released, and whether it agrees with the files and with what is installed."""

import json

import click


@click.group()
def registry() -> None:
    """Show what is released, and check that it is true.

    The registry (`registry.toml`) lists the subjects of each split, the released weights with their sha256
    and the command that made them, the benchmark suites, and the plugins known to exist. It is data: nothing
    is discovered from it.

    \b
    Examples:
      ufe registry show            what is in it
      ufe registry check           compare it with the files and with what is installed
    """


@registry.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Compare the registry with the files and with what is installed.

    Checks that no subject is in both training and test and that the counts are right, that each weights file
    is there with its size and sha256, that suites exist and can be read, and that the listed components are
    exactly those that are registered. Exits with 1 if anything disagrees.
    """
    from ufe_core.plugins import catalogue
    from ufe_core.registry import check_registry, load_registry, registry_path

    found = load_registry()
    problems = check_registry(found, catalogue())
    if as_json:
        click.echo(json.dumps({"registry": str(registry_path()), "problems": problems}, indent=2, ensure_ascii=False))
    elif problems:
        for problem in problems:
            click.echo(problem)
        click.echo(
            f"{len(problems)} disagreement{'s' if len(problems) > 1 else ''} in '{registry_path()}'.",
            err=True,
        )
    else:
        click.echo(f"'{registry_path()}' agrees with the files and with what is installed.")
    if problems:
        ctx.exit(1)


@registry.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def show(as_json: bool) -> None:
    """Show splits, released weights, suites and known plugins."""
    from ufe_core.registry import load_registry, registry_path

    found = load_registry()
    if as_json:
        click.echo(json.dumps(found.model_dump(by_alias=True), indent=2, ensure_ascii=False))
        return
    click.echo(f"Registry '{registry_path()}'")
    click.echo("\nSplits")
    for name, split in found.splits.items():
        sizes = ", ".join(f"{len(split.part(p))} {p}" for p in ("train", "test", "subjects") if getattr(split, p))
        click.echo(f"  {name}: {sizes} subjects of source '{split.source}'")
        if split.test:
            click.echo(f"    test: {' '.join(split.test)}")
    click.echo("\nWeights")
    for weights in found.weights:
        click.echo(f"  {weights.id}: {weights.bytes / 1e6:.1f} MB, budget {weights.budget}, {weights.license}")
        click.echo(f"    made by: {weights.command}")
    if not found.weights:
        click.echo("  none")
    click.echo("\nSuites")
    for suite in found.suites:
        click.echo(f"  {suite.name}: {suite.summary}")
    click.echo("\nPlugins")
    for plugin in found.plugins:
        ids = ", ".join(f"{component.kind} {component.id}" for component in plugin.components)
        click.echo(f"  {plugin.name} (distribution {plugin.distribution}): {ids}")
