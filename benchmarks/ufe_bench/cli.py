"""Commands of the harness. `ufe --help` imports this file: click and nothing heavy."""

import json
from pathlib import Path

import click

from ufe_bench.bench_cli import bench as bench


@click.group(invoke_without_command=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write LEADERBOARD.md and index.html to. [default: UFE_HOME/leaderboard]",
)
@click.option(
    "--results",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of result files; may be given again. [default: UFE_HOME/results and the published ones]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def leaderboard(context: click.Context, out: Path | None, results: tuple[Path, ...], as_json: bool) -> None:
    """Build the leaderboard from result files: Markdown and one page that opens without a network."""
    if context.invoked_subcommand is not None:
        return
    from ufe_bench.leaderboard import build_leaderboard, default_results
    from ufe_core.store import default_root

    folders = list(results) or default_results()
    built = build_leaderboard(folders, out or default_root() / "leaderboard")
    if as_json:
        click.echo(
            json.dumps(
                {
                    "markdown": str(built.markdown),
                    "html": str(built.html),
                    "results": built.results,
                    "duplicates": built.duplicates,
                    "broken": [{"path": item.path, "reason": item.reason} for item in built.broken],
                },
                indent=2,
            )
        )
        return
    for item in built.broken:
        click.echo(f"Left out: {item.reason}", err=True)
    if not built.results:
        searched = ", ".join(f"'{folder}'" for folder in folders)
        click.echo(f"No result found in {searched}. 'ufe bench' writes one.", err=True)
    click.echo(built.markdown)
    click.echo(built.html)
