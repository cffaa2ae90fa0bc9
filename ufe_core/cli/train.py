"""`ufe train`: train an encoder through a decoder. `ufe --help` imports this file: click and nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

    from ufe_core.recipe import Recipe
    from ufe_core.training.loop import Progress, TrainedEncoder

_BUDGETS = ("smoke", "cpu", "gpu", "paper")
_KINDS = ("source", "decoder", "encoder", "calibrator", "training")


class _TrainCommand(click.Command):
    """Adds to the help what the code knows: the sizes of the budgets and the options of training."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Budgets and training options, read from where they are defined."""
        from ufe_core.budgets import TrainingConfig, describe_budget
        from ufe_core.config import describe_options

        with formatter.section("Budgets: one code, four sizes; rows of different ones never share a table"):
            formatter.write_dl([(name, describe_budget(name)) for name in _BUDGETS])
        with formatter.section("Training options, for --set training.FIELD=VALUE"):
            formatter.write_dl([(o.name, f"{o.description} ({o.expected})") for o in describe_options(TrainingConfig)])


@click.command(cls=_TrainCommand)
@click.option("--encoder", default="univ", show_default=True, help="What is trained; 'ufe plugins' lists encoders.")
@click.option("--calibrator", help="How anchors are used: late_fusion, none. [default: late_fusion]")
@click.option("--decoder", default="blendshape", show_default=True, help="Avatar that the losses see through.")
@click.option("--source", default="synthetic", show_default=True, help="Where the captures come from.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(_BUDGETS), help="Sizes and steps; below.")
@click.option("--anchors", help="Calibration expressions by name, comma-separated. [default: the six of the paper]")
@click.option("--set", "assignments", multiple=True, metavar="KIND.FIELD=VALUE",
              help="Override an option, e.g. --set encoder.backbone=resnet18 or --set training.steps=500.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--fresh", is_flag=True, help="Start from the first step, even where weights or a checkpoint are.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="Also copy the weights to this file, a safetensors file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts; progress goes to standard error.")
def train(assignments: tuple[str, ...], anchors: str | None, device: str, fresh: bool, out: Path | None,
          as_json: bool, **names: Any) -> None:  # fmt: skip
    """Train an encoder on the training people of a source, or find the one that was trained before.

    Frames are rendered or read once and packed. Each step encodes a few people's frames with their anchors,
    drives their avatars with the codes, and compares with the avatars driven by the true codes. The people held
    out for testing are never read. Options and seed decide the weights; the same ones give the same file.

    Kill it at any time and run the same command again: it goes on from the last checkpoint (one every 30
    seconds, and one on Ctrl-C) and ends with the weights it would have had. Once done, the same command only
    tells where the weights are.

    \b
    Examples:
      ufe train                                        the default encoder, for a laptop
      ufe train --calibrator none                      without calibration
      ufe train --budget smoke                         does it run? seconds
      ufe train --set training.steps=500 --set encoder.backbone=resnet18
      ufe train --anchors neutral,jaw_open --out two-anchors.safetensors
      ufe bench --train                                train, then measure on people never seen

    \b
    Where things are kept (UFE_HOME, default the user's cache folder):
      captures/   packed frames, shared by every training with the same people, frames, size and anchors
      training/   the checkpoint of a training that is not done
      weights/    weights.safetensors, log.csv and curve.png of each that is
    """
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import DEFAULT_ANCHORS, resolve_recipe
    from ufe_core.store import Store
    from ufe_core.training.loop import pick_device, trained

    chosen = tuple(name.strip() for name in anchors.split(",") if name.strip()) if anchors else DEFAULT_ANCHORS
    overrides = parse_overrides(assignments, owners=_KINDS)
    recipe = resolve_recipe(catalogue(), anchors=chosen, overrides=overrides, **names)
    if recipe.encoder.spec.load().learns == "nothing":
        raise ConfigError(f"Encoder '{recipe.encoder.spec.id}' learns nothing: there is nothing to train.")
    place = pick_device(device)
    watch = _Watch(recipe.training.steps)
    click.echo(_plan(recipe, place), err=True)
    with TrainingDisplay() as watch.show:
        done = trained(
            recipe, _training_subjects(recipe), store=Store(), device=place, fresh=fresh, listener=watch
        )  # fmt: skip
    _report(recipe, done, watch, out, as_json)


class _Watch:
    """Passes progress on, and remembers whether there was a training and where it began."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.resumed_at: int | None = None
        self.show: Any = None

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "train" and self.resumed_at is None:
            self.resumed_at = progress.resumed_at
            if progress.resumed_at:
                click.echo(f"resuming after step {progress.resumed_at:,} of {self.steps:,}", err=True)
        self.show(progress)


def _plan(recipe: Recipe, device: torch.device) -> str:
    """One line: what is trained, on how much, where."""
    from ufe_core.training.loop import uses_bfloat16

    parts = [recipe.encoder.spec.name]
    if recipe.calibrator is not None:
        parts.append(recipe.calibrator.spec.name)
    text = " + ".join(parts)
    if recipe.anchors:
        text += f" ({len(recipe.anchors)} anchors)"
    text += f" through {recipe.decoder.spec.name}"
    size = recipe.training
    if recipe.encoder.spec.load().learns == "weights":
        people = min(size.users, size.people)
        text += f": {size.people} people x {size.frames} frames of {size.size} px, {size.steps:,} steps of "
        text += f"{people * min(size.frames_per_user, size.frames)}"
        return f"{text}; {device}, {'bfloat16' if uses_bfloat16(size, device) else 'float32'}"
    return f"{text}: labels of {size.people} people x {size.frames} frames"


def _training_subjects(recipe: Recipe) -> Sequence[str]:
    """The training part of the source's split; every subject of a source that has none."""
    from ufe_core.registry import load_registry

    for split in load_registry().splits.values():
        if split.source == recipe.source.spec.id and split.train:
            return split.train
    return recipe.make_source().subjects()


def _report(recipe: Recipe, done: TrainedEncoder, watch: _Watch, out: Path | None, as_json: bool) -> None:
    from ufe_core.store import write_atomic
    from ufe_core.training.curve import draw_curve

    assert done.path is not None, "only an encoder that learns nothing has no file"
    curve = done.path.with_name("curve.png")
    drawn = curve.is_file() or draw_curve(done.path.with_name("log.csv"), curve)
    if out is not None:
        write_atomic(out, done.path.read_bytes())
    facts = {
        "weights": str(done.path), "sha256": done.sha256, "seconds": done.record["seconds"],
        "curve": str(curve) if drawn else None, "out": str(out.absolute()) if out else None,
        "trained": watch.resumed_at is not None, "resumed_at": watch.resumed_at, "record": done.record,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if recipe.encoder.spec.load().learns == "weights" and watch.resumed_at is None:
        click.echo("trained before; --fresh trains again", err=True)
    for name in ("weights", "sha256", "seconds", "curve", "out"):
        if facts[name] is not None:
            click.echo(f"{name:8} {facts[name]}")
