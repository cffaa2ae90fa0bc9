"""`ufe export`: encoders for other runtimes. Light at import: click and nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.names import BUDGETS

if TYPE_CHECKING:
    from ufe_core.recipe import Recipe
    from ufe_core.training.loop import TrainedEncoder

_MOST = 1e-4  # by which codes may differ
_FRAMES = 16


@click.group()
def export() -> None:
    """Write an encoder for another runtime."""


@export.command("onnx", short_help="Write an encoder as an ONNX model, checked.")
@click.option("--encoder", default="univ", show_default=True, help="Encoder; 'ufe plugins' lists them.")
@click.option("--calibrator", help="How it uses anchors. [default: late_fusion]")
@click.option("--pretraining", help="What it learned before labels, as for 'ufe train'. [default: none]")
@click.option("--decoder", default="upm", show_default=True, help="Whose codes it was trained for.")
@click.option("--source", default="synthetic", show_default=True, help="Where its captures come from.")
@click.option("--budget", default="cpu", show_default=True, type=click.Choice(BUDGETS),
              help="Whose weights; see 'ufe train --help'.")  # fmt: skip
@click.option(
    "--anchors", help="Calibration expressions, as for 'ufe train'. [default: six; 'ufe anchors list' names them]"
)
@click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
              help="Option of a training of your own, as it was given to 'ufe train'.")  # fmt: skip
@click.option(
    "--subject", help="Who is enrolled, for a calibration to try the model with. [default: a training subject]"
)
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A file of 'ufe train --out' with the same options, made elsewhere.")  # fmt: skip
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Instants that come at a time.")
@click.option("--out", default=Path("encoder"), show_default=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the model and of the calibration.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts; progress goes to standard error.")
def onnx(anchors: str | None, assignments: tuple[str, ...], subject: str | None, weights: Path | None, batch: int,
         out: Path, as_json: bool, **names: Any) -> None:  # fmt: skip
    """Write encoder and calibrator as an ONNX model, and check it in ONNX Runtime against torch.

    The model takes the images of an instant and, as further inputs, the tensors of the wearer's calibration, which is
    computed once from the anchors (`calibration.safetensors`). Released weights are used where there are some, else
    those that 'ufe train' made with the same options; if it has not made them yet, they are trained first. Needs
    pip install onnx onnxruntime onnxscript.

    \b
    Example:
      ufe export onnx --out live      live/encoder.onnx, live/calibration.safetensors
      ufe export onnx --calibrator none --weights mine.safetensors --out live
    """
    from ufe_core.anchor_sets import anchors_of
    from ufe_core.cli.choice import choose_subjects
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.config import parse_overrides
    from ufe_core.errors import ArtifactError
    from ufe_core.inference.onnx import difference, export_onnx, refuse_export
    from ufe_core.plugins import catalogue
    from ufe_core.recipe import OWNERS, resolve_recipe

    overrides = parse_overrides(assignments, owners=OWNERS)
    recipe = resolve_recipe(catalogue(), anchors=anchors_of(anchors), overrides=overrides, **names)
    source = recipe.make_source()
    (who,) = choose_subjects(recipe.source.spec, source, [subject] if subject else [], 1, None)
    refuse_export(recipe.encoder.spec.load())
    with TrainingDisplay() as listener:
        usual = not overrides and anchors_of(anchors) == anchors_of(None)
        ready = _ready(recipe, weights, usual=usual, listener=listener)
    calibration, frames = _enrolled(ready.encoder, source, who)
    out.mkdir(parents=True, exist_ok=True)
    model, unchecked = out / "encoder.onnx", out / "encoder.unchecked.onnx"
    export_onnx(ready.encoder, calibration, unchecked, batch=batch)
    apart = difference(unchecked, ready.encoder, calibration, frames)
    if apart > _MOST:
        raise ArtifactError(f"{unchecked} differs from its encoder by {apart:.2g} in a code's number: do not use it.")
    unchecked.replace(model)
    calibration.save(out / "calibration.safetensors")
    report = {
        "model": str(model), "calibration": str(out / "calibration.safetensors"), "subject": who, "batch": batch,
        "bytes": model.stat().st_size, "largest_difference": apart, "frames": len(frames),
        "inputs": {name: list(value.shape) for name, value in calibration.tensors.items()},
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    checked = f"codes differ from torch's by {apart:.1g} at most, over {len(frames)} frames"
    click.echo(f"model        {model} ({model.stat().st_size / 1e6:.1f} MB); {checked}")
    click.echo(f"calibration  {out / 'calibration.safetensors'}, of {who}")


def _ready(recipe: Recipe, weights: Path | None, *, usual: bool, listener: Any) -> TrainedEncoder:
    """Those of a file; released ones where nothing but the usual is asked for and there are some; else trained ones."""
    import torch

    from ufe_core.recipe import training_subjects
    from ufe_core.released import load_file, load_released
    from ufe_core.store import Store
    from ufe_core.training.loop import trained

    device = torch.device("cpu")
    if weights is not None:
        return load_file(recipe, weights, device)
    released = load_released(recipe, device) if usual else None
    if released is not None:
        return released
    return trained(recipe, training_subjects(recipe.source), store=Store(), device=device, listener=listener)


def _enrolled(encoder: Any, source: Any, subject: str) -> tuple[Any, Any]:
    """A subject's calibration, and some of their frames uint8 [N, C, H, W]."""
    import torch

    from ufe_core.types import AnchorSet

    capture, needs = source.captures([subject])[0], encoder.needs
    rows = [capture.anchors[name] for name in needs.anchors]
    spread = capture.spread(_FRAMES, seed=0)
    images = torch.from_numpy(capture.frames([*rows, *spread], cameras=needs.cameras, size=needs.size))
    anchors = AnchorSet.complete(images[None, : len(rows)], needs.anchors, needs.cameras)
    return encoder.enroll(anchors), images[len(rows) :]
