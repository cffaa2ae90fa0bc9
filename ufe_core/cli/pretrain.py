"""`ufe pretrain`: teach an encoder on headset images without labels, and look at what it learned."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ufe_core.recipe import Recipe
    from ufe_core.training.pretrain import PretrainedEncoder


def _what(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which pre-training of which encoder."""
    options = [
        click.option("--pretraining", default="mae_novel_view", show_default=True, help="Strategy; see 'ufe plugins'."),
        click.option("--encoder", default="univ", show_default=True, help="What learns."),
        click.option("--calibrator", help="How anchors are used. [default: late_fusion]"),
        click.option("--detector", help="Who finds keypoints in the views. [default: what the strategy says]"),
        click.option("--decoder", default="upm", show_default=True, help="Avatar whose codes it will speak."),
        click.option("--source", default="synthetic", show_default=True, help="Where the captures come from."),
        click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS),
                     help="Sizes and steps."),
        click.option("--anchors", help="Calibration expressions, as for 'ufe train'. "
                                       "[default: six; 'ufe anchors list' names them]"),
        click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
                     help="Override an option, e.g. --set pretraining.people=1000."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(short_help="Teach an encoder on captures without labels (P§6).")
def pretrain() -> None:
    """Teach an encoder on headset captures that have neither labels nor an avatar, before 'ufe train' (P§6).

    'ufe train --pretraining NAME' does this by itself; here it is by itself, and can be looked at.

    \b
    Examples:
      ufe pretrain run                                     masked novel views, for a laptop
      ufe pretrain run --set pretraining.people=1000
      ufe pretrain preview                                 a picture of what it reconstructs, and errors
      ufe train --pretraining mae_novel_view               train on labels from there
      ufe bench --pretraining mae_novel_view --train       and measure
    """


@pretrain.command(short_help="Pre-train an encoder, or find the one that was.")
@_what
@click.option("--fresh", is_flag=True, help="Start from the first step, even where weights or a checkpoint are.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also copy the weights to this file.")
@click.option("--half", is_flag=True, help="Write --out in half precision: half the size, as files are released.")
@click.option("--encoder-only", is_flag=True,
              help="Write to --out what 'ufe train' takes, and nothing of what reconstructs.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def run(
    device: str, fresh: bool, out: Path | None, half: bool, encoder_only: bool, as_json: bool, **asked: Any
) -> None:  # fmt: skip
    """Pre-train an encoder, or find the one that was pre-trained before.

    Nothing but headset images is read. Kill it at any time and run the same command again: it goes on from the last
    checkpoint and ends with the weights it would have had.

    \b
    Examples:
      ufe pretrain run
      ufe pretrain run --pretraining simclr --budget smoke
      ufe pretrain run --set pretraining.steps=3000 --out before-labels.safetensors
      ufe train --pretraining mae_novel_view --set pretraining.weights=before-labels.safetensors
    """
    from ufe_core.errors import ConfigError
    from ufe_core.store import Store
    from ufe_core.targets import check_target
    from ufe_core.training.curve import draw_curve
    from ufe_core.training.pretrain import copy_pretrained
    from ufe_core.training.runs import pick_device

    if out is not None:
        check_target(out, make=True)
    if (half or encoder_only) and out is None:
        raise ConfigError(f"{'--half' if half else '--encoder-only'} is of the file that --out names: give --out too.")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("Pre-training is done in one process: run the same command without torchrun.")
    place = pick_device(device)
    recipe = _recipe(**asked)
    made = _pretrained(recipe, Store(), place, fresh=fresh)
    curve, pictures = made.path.with_name("curve.png"), made.path.with_name("pictures")
    trained = recipe.given_weights is None  # what lies beside a file that was named is not its own
    drawn = trained and (curve.is_file() or draw_curve(made.path.with_name("log.csv"), curve))
    if out is not None:
        copy_pretrained(made.path, out, half=half, encoder_only=encoder_only)
    facts = {
        "weights": str(made.path), "sha256": made.sha256, "seconds": made.record["seconds"],
        "frames/s": round(made.record["frames_seen"] / made.record["seconds"], 1) if made.record["seconds"] else None,
        "curve": str(curve) if drawn else None, "pictures": str(pictures) if trained and pictures.is_dir() else None,
        "out": str(out.absolute()) if out else None,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps({**facts, "record": made.record}, indent=2, ensure_ascii=False))
        return
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:8} {value}")


@pretrain.command(short_help="Look at what a pre-training learned.")
@_what
@click.option("--people", default="seen", show_default=True, type=click.Choice(["seen", "unseen"]),
              help="seen: people it was trained on, in frames that are new to it; unseen: others.")  # fmt: skip
@click.option("--session", default=0, show_default=True, type=click.IntRange(0),
              help="Recording of each person: it was trained on 0; in others light and donning differ.")  # fmt: skip
@click.option("--count", default=6, show_default=True, type=click.IntRange(1, 64), help="Most people to show.")
@click.option("--out", default=Path("pretraining.png"), show_default=True, type=click.Path(path_type=Path),
              help="PNG to write.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def preview(
    device: str, people: str, session: int, count: int, out: Path, as_json: bool, **asked: Any
) -> None:  # fmt: skip
    """Look at what a pre-training learned: a picture of its reconstructions, and how well it solves its task.

    A row for each person: of each view what the camera saw, the same warped to the template, what is left of it (lips
    and lids are removed, and nine tenths of the rest), the reconstruction with the frame's own code, the frame of the
    same person that looks least like it, and the reconstruction with the code of that. Little but the code can tell
    the expression: the first reconstruction must show that of the frame itself, the second that of the other.

    What reconstructs is no part of released weights, so it pre-trains first, once, if 'ufe pretrain run' has not.

    \b
    Examples:
      ufe pretrain preview
      ufe pretrain preview --people unseen --count 4
      ufe pretrain preview --session 1                     the same people, lit and worn otherwise
      ufe pretrain preview --pretraining mae_original_view --out original.png
    """
    from ufe_core.pictures import write_png
    from ufe_core.store import Store
    from ufe_core.targets import check_target
    from ufe_core.training.preview import batch_of, gains_of, person_of
    from ufe_core.training.runs import pick_device

    check_target(out, (".png",), make=True)
    place, recipe, store = pick_device(device), _recipe(**asked), Store()
    made = _pretrained(recipe, store, place)
    batch = batch_of(recipe, made, count, unseen=people == "unseen", store=store, device=place, session=session)
    numbers = made.method.measure(made.encoder, batch)
    each = [made.method.measure(made.encoder, person_of(batch, k)) for k in range(len(batch.subjects))]
    gains = gains_of(each)
    image = made.method.picture(made.encoder, batch)
    if image is not None:
        write_png(out, image)
    if as_json:
        picture = str(out.absolute()) if image is not None else None
        told = {"people": people, "session": session, "picture": picture, "measured": numbers,
                "gains": {name: vars(gain) for name, gain in gains.items()}}  # fmt: skip
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"{asked['pretraining']}: {len(batch.subjects)} {people} people, session {session}")
    width = max(map(len, (*numbers, "picture")))
    for name, value in numbers.items():
        click.echo(f"{name:{width}} {value:.3f}")
    for name, gain in gains.items():
        low, high = gain.ci95
        click.echo(
            f"{name:{width}} is {gain.mean:.2f} [{low:.2f}, {high:.2f}] above right (mean of people, 95 %), "
            f"for {gain.better} of {gain.people}"
        )
    if image is not None:
        click.echo(f"{'picture':{width}} {out}")


def _recipe(assignments: Sequence[str], anchors: str | None, **names: Any) -> Recipe:
    from ufe_core.anchor_sets import anchors_of
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ConfigError
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import OWNERS, resolve_recipe

    recipe = resolve_recipe(
        catalogue(), anchors=anchors_of(anchors), overrides=parse_overrides(assignments, owners=OWNERS), **names
    )
    if recipe.pretraining is None:
        raise ConfigError("Pre-training 'none' does nothing: name another with --pretraining.")
    if not recipe.learns_first:
        name = recipe.pretraining.spec.name
        raise ConfigError(f"Pre-training '{name}' takes no steps: give it to 'ufe train --pretraining {name}'.")
    return recipe


def _pretrained(recipe: Recipe, store: Any, device: Any, *, fresh: bool = False) -> PretrainedEncoder:
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.training.pretrain import pretrained

    first: Any = recipe.pretraining
    config = first.config
    sizes = (
        f"{recipe.encoder.spec.name} on {config.people} people x {config.frames} frames of {recipe.training.size} px, "
        f"{config.steps:,} steps of {config.users * config.frames_per_user}"
    )
    click.echo(f"{first.spec.name}: {recipe.given_weights or sizes}; {device}", err=True)
    with TrainingDisplay() as listener:
        return pretrained(recipe, store=store, device=device, fresh=fresh, listener=listener)
