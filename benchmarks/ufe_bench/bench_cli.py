"""`ufe bench`: the main job from the command line. Light at import: click and nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--encoder", default="univ", show_default=True, help="Encoder, e.g. univ, mean, neutral.")
@click.option("--calibrator", help="How anchors are used: late_fusion, none. [default: late_fusion]")
@click.option("--decoder", default="upm", show_default=True, help="Avatar that is driven and measured.")
@click.option("--source", default="synthetic", show_default=True, help="Where the captures come from.")
@click.option("--suite", default="main", show_default=True, help="What is measured, and on whom.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(["smoke", "cpu", "gpu", "paper"]),
              help="Sizes and steps of the training; see 'ufe train --help'.")  # fmt: skip
@click.option(
    "--anchors",
    help="Calibration expressions by name, comma-separated. [default: neutral, jaw_open and four more]",
)
@click.option("--set", "assignments", multiple=True, metavar="KIND.FIELD=VALUE",
              help="Override an option, e.g. --set encoder.backbone=resnet18 or --set training.steps=500.")  # fmt: skip
@click.option("--train", is_flag=True, help="Train from nothing, even where released weights exist.")
@click.option("--fresh", is_flag=True, help="Train again, even where this machine trained the same before.")
@click.option("--floors/--no-floors", default=True, show_default=True, help="Also measure the floors of the suite.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of result files. [default: UFE_HOME/results]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result file's JSON instead of a table.")
def bench(as_json: bool, assignments: tuple[str, ...], anchors: str | None, device: str, out: Path | None,
          floors: bool, suite: str, **asked: Any) -> None:  # fmt: skip
    """Measure a method on people that no training has seen, and put it on the leaderboard.

    Finds or renders the captures, takes released weights or trains them, encodes every frame of the 32 held-out
    people, drives their avatars and compares with the truth. Writes a result file with everything needed to make
    it again, and rebuilds the leaderboard. Interrupted work continues where it stopped.

    \b
    Examples:
      ufe bench                                             the default method, released weights
      ufe bench --encoder univ --calibrator none --train    the same without calibration, trained here
      ufe bench --encoder mean                              a floor
      ufe bench --train --set training.steps=500            a shorter training, kept apart on the leaderboard
    """
    from rich.console import Console

    from ufe_bench.harness import Harness, Request
    from ufe_bench.leaderboard import build_leaderboard, default_results
    from ufe_bench.suite import load_suite
    from ufe_bench.table import print_run
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.config import parse_overrides
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import DEFAULT_ANCHORS
    from ufe_core.store import Store
    from ufe_core.training.loop import pick_device

    console = Console()
    store = Store()
    results = out or store.root / "results"
    names = tuple(name.strip() for name in anchors.split(",") if name.strip()) if anchors else DEFAULT_ANCHORS
    overrides = parse_overrides(assignments, owners=("source", "decoder", "encoder", "calibrator", "training"))
    request = Request(suite=load_suite(suite), anchors=names, overrides=overrides or None, **asked)
    with TrainingDisplay() as listener:
        harness = Harness(
            catalogue(), store, results, device=pick_device(device), listener=listener,
            note=lambda text: click.echo(text, err=True),
        )  # fmt: skip
        outcome = harness.run(request, floors=floors)
    folders = list(dict.fromkeys([results, *default_results()]))
    built = build_leaderboard(folders, store.root / "leaderboard")
    if as_json:
        click.echo(json.dumps(outcome.result.model_dump(mode="json", by_alias=True), indent=1))
    else:
        print_run(console, outcome.result, floors=outcome.floors)
        console.print(f"result       {outcome.path}", soft_wrap=True, highlight=False)
        console.print(f"leaderboard  {built.html}", soft_wrap=True, highlight=False)
    if not outcome.result.complete:
        for item in outcome.result.missing:
            click.echo(f"ufe: subject {item.subject!r} failed: {item.reason}", err=True)
        raise SystemExit(1)
