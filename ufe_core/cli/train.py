"""`ufe train`: train an encoder through a decoder. `ufe --help` imports this file: click and nothing heavy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    import torch

    from ufe_core.recipe import Recipe
    from ufe_core.training.progress import Progress


class _TrainCommand(click.Command):
    """Adds to the help what the code knows: the sizes of the budgets and the options of training."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Budgets and training options, read from where they are defined."""
        from ufe_core.budgets import TrainingConfig, describe_budget
        from ufe_core.config import describe_options

        with formatter.section("Budgets: one code, four sizes; rows of different ones never share a table"):
            formatter.write_dl([(name, describe_budget(name)) for name in BUDGETS])
        with formatter.section("Training options, for --set training.OPTION=VALUE"):
            formatter.write_dl([(o.name, f"{o.description} ({o.expected})") for o in describe_options(TrainingConfig)])


@click.command(cls=_TrainCommand, short_help="Train an encoder, an avatar or a detector.")
@click.option("--encoder", help="What is trained; 'ufe plugins' lists encoders. [default: univ]")
@click.option("--calibrator", help="How anchors are used; 'ufe plugins' lists calibrators. [default: late_fusion]")
@click.option("--decoder", help="Avatar that the encoder's losses see through [default: upm]; without --encoder or "
              "--calibrator, the avatar that is trained itself.")  # fmt: skip
@click.option("--detector", help="Keypoint detector of an encoder, or a pre-training, that needs keypoints [default: "
              "heatmap]; without --encoder, the detector that is trained itself.")  # fmt: skip
@click.option("--pretraining", help="What the encoder learns first, from headset images without labels; 'ufe plugins' "
              "lists strategies. [default: none]")  # fmt: skip
@click.option("--source", default="synthetic", show_default=True, help="Where the captures come from.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS), help="Sizes and steps; below.")
@click.option("--anchors", help="Calibration expressions: names with commas, a set's name, a file of 'ufe anchors "
              "search', or none. [default: six; 'ufe anchors list' names them]")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
              help="Override an option, e.g. --set training.steps=500. KIND is source, encoder, calibrator, detector, "
              "pretraining, decoder or training; 'ufe plugins show NAME' lists options, 'ufe train --help' "
              "those of training.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--fresh", is_flag=True, help="Start from the first step, even where weights or a checkpoint are.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="Also copy the weights to this file, a safetensors file.")  # fmt: skip
@click.option("--half", is_flag=True, help="Write --out in half precision: half the size, as files are released.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts; progress goes to standard error.")
def train(encoder: str | None, calibrator: str | None, decoder: str | None, detector: str | None,
          pretraining: str | None, assignments: tuple[str, ...], anchors: str | None, device: str, fresh: bool,
          out: Path | None, half: bool, as_json: bool, **names: str) -> None:  # fmt: skip
    """Train an encoder, or an avatar, on the training people of a source, or find the one that was trained before.

    Frames are rendered or read once and packed. Each step encodes a few people's frames with their anchors,
    drives their avatars with the codes, and compares with the avatars driven by the true codes. The people held
    out for testing are never read. Options and seed decide the weights; the same ones give the same file.

    With --decoder alone it is the avatar that is trained, on dome captures of the same people; pictures show how far
    it is. Use it with --set decoder.weights=FILE. With --detector it is a keypoint detector, on headset captures.

    Kill it at any time and run the same command again: it goes on from the last checkpoint (one every 30
    seconds, and one on Ctrl-C) and ends with the weights it would have had. Once done, the same command only
    tells where the weights are.

    \b
    Examples:
      ufe train                                        the default encoder, for a laptop
      ufe train --calibrator none                      without calibration
      ufe train --budget smoke                         does it run? seconds
      ufe train --set training.steps=500 --set encoder.backbone=resnet18
      ufe train --pretraining mae_novel_view           first on people without labels, then on labels
      ufe train --anchors neutral,jaw_open --out two-anchors.safetensors
      ufe train --decoder upm --out avatar.safetensors a codec avatar of your own
      ufe train --detector heatmap                     the keypoint detector
      ufe bench --train                                train, then measure on people never seen
      torchrun --nproc-per-node 4 --no-python ufe train --budget gpu

    \b
    Where things are kept (UFE_HOME, default the user's cache folder):
      captures/   packed frames, shared by every training with the same people, frames and size
      domes/      packed dome frames, of which avatars are trained
      training/   the checkpoint of a training that is not done
      weights/    weights.safetensors, log.csv, curve.png; for avatars and detectors also progress pictures
    """
    from ufe_core.anchor_sets import anchors_of
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import DEFAULT_DECODER, DEFAULT_ENCODER, OWNERS, resolve_recipe, training_subjects
    from ufe_core.store import Store
    from ufe_core.targets import check_target
    from ufe_core.training.loop import trained
    from ufe_core.training.runs import pick_device

    if out is not None:
        check_target(out, make=True)
    if half and out is None:
        raise ConfigError("--half is of the file that --out names: give --out too.")
    place, overrides = pick_device(device), parse_overrides(assignments, owners=OWNERS)
    if encoder is None and calibrator is None and anchors is None and pretraining is None:
        if detector is not None:
            _train_component("detector", detector, overrides, place, fresh, out, half, as_json, **names)
            return
        if decoder is not None:
            _train_component("decoder", decoder, overrides, place, fresh, out, half, as_json, **names)
            return
    recipe = resolve_recipe(
        catalogue(), encoder=encoder or DEFAULT_ENCODER, calibrator=calibrator, decoder=decoder or DEFAULT_DECODER,
        detector=detector, pretraining=pretraining, anchors=anchors_of(anchors), overrides=overrides, **names,
    )  # fmt: skip
    learns = recipe.encoder.spec.load().learns
    if learns == "nothing":
        raise ConfigError(f"Encoder '{recipe.encoder.spec.id}' learns nothing: there is nothing to train.")
    watch = _Watch(recipe.training.steps)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, this one tells
    people = training_subjects(recipe.source)
    if first:
        click.echo(_plan(recipe, place, min(recipe.training.people, len(people))), err=True)
    with TrainingDisplay() as watch.show:
        done = trained(recipe, people, store=Store(), device=place, fresh=fresh, listener=watch)
    assert done.path is not None, "only an encoder that learns nothing has no file"
    if first:
        _report(done.path, done.sha256, done.record, watch, out, half, as_json, steps=learns == "weights")


#: What a component that is trained by itself looks at, for the line that says what is done.
_LOOKS_AT = {"decoder": "dome captures", "detector": "headset captures"}


def _train_component(
    kind: str, name: str, overrides: dict[str, dict[str, Any]], device: torch.device, fresh: bool, out: Path | None,
    half: bool, as_json: bool, *, source: str, budget: str,
) -> None:  # fmt: skip
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.errors import ConfigError
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import training_subjects
    from ufe_core.store import Store
    from ufe_core.training.components import resolve_component_recipe, trained_component

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(f"A {kind} is trained in one process: run the same command without torchrun.")
    recipe = resolve_component_recipe(catalogue(), kind, name, source=source, budget=budget, overrides=overrides)
    size, people = recipe.training, training_subjects(recipe.source)
    seen = f"{min(size.people, len(people))} people x {size.frames} frames"
    click.echo(f"{recipe.component.spec.name}: {_LOOKS_AT[kind]} of {seen}, {size.steps:,} steps; {device}", err=True)
    watch = _Watch(size.steps)
    with TrainingDisplay() as watch.show:
        done = trained_component(recipe, people, store=Store(), device=device, fresh=fresh, listener=watch)
    _report(done.path, done.sha256, done.record, watch, out, half, as_json, steps=True)


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


def _plan(recipe: Recipe, device: torch.device, people: int) -> str:
    """One line: what is trained, on how much, where."""
    from ufe_core.training.runs import uses_bfloat16

    parts = [recipe.encoder.spec.name]
    if recipe.calibrator is not None:
        parts.append(recipe.calibrator.spec.name)
    text = " + ".join(parts)
    if recipe.anchors:
        text += f" ({len(recipe.anchors)} anchors)"
    if recipe.pretraining is not None:
        text += f", pre-trained by {recipe.pretraining.spec.name}"
        text += f" ({recipe.given_weights.name})," if recipe.given_weights else ","
    text += f" through {recipe.decoder.spec.name}"
    size = recipe.training
    if recipe.encoder.spec.load().learns == "weights":
        text += f": {people} people x {size.frames} frames of {size.size} px, {size.steps:,} steps of "
        text += f"{min(size.users, people) * min(size.frames_per_user, size.frames)}"
        return f"{text}; {device}, {'bfloat16' if uses_bfloat16(size.precision, device) else 'float32'}"
    return f"{text}: labels of {people} people x {size.frames} frames"


def _report(path: Path, sha256: str | None, record: dict[str, Any], watch: _Watch, out: Path | None, half: bool,
            as_json: bool, *, steps: bool) -> None:  # fmt: skip
    """Say where the weights are; `steps` tells whether they were trained in steps."""
    from ufe_core.store import write_atomic
    from ufe_core.training.curve import draw_curve
    from ufe_core.weights import save_halved

    curve, pictures = path.with_name("curve.png"), path.with_name("pictures")
    drawn = curve.is_file() or (steps and draw_curve(path.with_name("log.csv"), curve))
    if out is not None and half:
        save_halved(path, out)
    elif out is not None:
        write_atomic(out, path.read_bytes())
    facts = {
        "weights": str(path), "sha256": sha256, "seconds": record["seconds"],
        "curve": str(curve) if drawn else None, "pictures": str(pictures) if pictures.is_dir() else None,
        "out": str(out.absolute()) if out else None, "trained": watch.resumed_at is not None,
        "resumed_at": watch.resumed_at, "record": record,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if steps and watch.resumed_at is None:
        click.echo("trained before; --fresh trains again", err=True)
    for name in ("weights", "sha256", "seconds", "curve", "pictures", "out"):
        if facts[name] is not None:
            click.echo(f"{name:8} {facts[name]}")
