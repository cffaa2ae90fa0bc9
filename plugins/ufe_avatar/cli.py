"""`ufe avatar`: pictures and videos of avatars. `ufe --help` imports this file: click and nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ufe_avatar.show import Request


@click.group(short_help="Look at avatars; drive and retarget them.")
def avatar() -> None:
    """Look at avatars: drive them, retarget expressions between people, bring in published weights.

    \b
    Examples:
      ufe avatar render                                  one person in six expressions
      ufe avatar render --subject S004 --view 45,0       from their left
      ufe avatar retarget --from S002 --onto S004,S017   one person's expressions on two others
      ufe avatar retarget --segment smile_teeth --out smile.mp4
      ufe avatar convert aeparams_1440000.pt ava256.safetensors
    """


def _shown(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of what is shown, from where and how."""
    options = (
        click.option("--segment", metavar="NAME",
                     help="Show this part of the performance: 'ufe source info --json' lists them."),
        click.option("--frames", metavar="LIST", help="Show these frames, e.g. 658,3668 or 580-700. "
                     "[default: the six expressions of a calibration]"),
        click.option("--every", default=3, show_default=True, type=click.IntRange(1),
                     help="Of a segment, a video shows one frame in so many: the headset records 72 a second."),
        click.option("--view", "views", multiple=True, metavar="AZIMUTH,ALTITUDE",
                     help="Where to look from, degrees: positive from the subject's left, and from above; may be "
                     "repeated. [default: 0,0]"),
        click.option("--size", default=256, show_default=True, type=click.IntRange(16, 2048), help="Pixels of a tile."),
        click.option("--decoder", default="upm", show_default=True, help="The avatar; 'ufe plugins' lists decoders."),
        click.option("--source", default="synthetic", show_default=True, help="Where the people come from."),
        click.option("--set", "assignments", multiple=True, metavar="KIND.OPTION=VALUE",
                     help="Set an option, e.g. --set decoder.weights=mine.safetensors or --set source.subjects=20."),
        click.option("--fps", default=24.0, show_default=True, type=click.FloatRange(1, 120),
                     help="Images a second of a video."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@avatar.command(short_help="Render a person's avatar, as a sheet or a video.")
@click.option("--subject", metavar="ID", help="Whose avatar. [default: the first who is not held out]")
@click.option("--of", "performer", metavar="ID", help="Who performs. [default: the same person]")
@click.option("--codes", type=click.Path(path_type=Path), metavar="FILE",
              help="Drive by codes that --save-codes wrote, instead of by somebody.")  # fmt: skip
@click.option("--gaze", metavar="AZIMUTH,ALTITUDE",
              help="Turn both eyes that way, degrees: positive to the subject's right, and up.")  # fmt: skip
@click.option("--truth", is_flag=True, help="Below each avatar, show the exact face; of a person's own performance.")
@click.option("--save-codes", type=click.Path(path_type=Path), metavar="FILE",
              help="Also write the codes and the gaze, a safetensors file.")  # fmt: skip
@_shown
@click.option("--out", default=Path("avatar.png"), show_default=True, type=click.Path(path_type=Path),
              help="File to write: .png, or a video that browsers play, .mp4 (VP9) or .gif.")  # fmt: skip
def render(
    subject: str | None, performer: str | None, codes: Path | None, gaze: str | None, truth: bool,
    save_codes: Path | None, **shared: Any,
) -> None:  # fmt: skip
    """Render a person's avatar: a sheet of views x expressions, one picture, or a video.

    The avatar is made of the person's resting face alone. It is driven by the codes that are read off a performance,
    their own or somebody else's, or by codes in a file. One frame from one view gives a plain picture.

    \b
    Examples:
      ufe avatar render
      ufe avatar render --subject S004 --view 0,0 --view 45,0 --view -45,0
      ufe avatar render --subject S004 --frames 3668 --gaze 20,0 --size 512 --out looks-right.png
      ufe avatar render --segment speech_00 --out speech.mp4
      ufe avatar render --of S002 --frames 576-700 --save-codes jaw.safetensors --out jaw.gif
      ufe avatar render --subject S017 --codes jaw.safetensors --out same-jaw.gif
      ufe avatar render --decoder blendshape --truth
    """
    from ufe_avatar.show import Stage, angles, codes_of_file, counted, refuse, titled
    from ufe_core.errors import ConfigError

    request = _request(shared, save_codes)
    turned = angles(gaze, "--gaze") if gaze is not None else None
    if codes is not None:
        refuse(
            "--codes brings its own performance", {"--of": performer, "--segment": request.segment, "--truth": truth}
        )
    stage = Stage(request)
    person = stage.person(subject)
    actor = stage.person(performer) if performer is not None else person
    if truth and (actor is not person or turned is not None):
        raise ConfigError("--truth shows a person's own performance as it was: leave out --of and --gaze.")
    with stage.working():
        if codes is None:
            frames = stage.frames(actor)
            stage.fits(frames, rows=len(stage.cameras) * (1 + truth), across=1)
            performance, titles = stage.read(actor, frames), titled(actor, frames)
        else:
            performance, titles = codes_of_file(codes, stage)
        if turned is not None:
            performance = performance.looking(*turned)
        if save_codes is not None:
            performance.save(save_codes)
        rows, by = [], _driven(actor.subject, person.subject, codes)
        for view in stage.cameras:
            named = (view.name,) if len(stage.cameras) > 1 else ()
            rows.append(stage.row(person, performance, view, notes=(*named, *by)))
            if truth:
                rows.append(stage.exact_row(actor, frames, view, notes=(*named, "exact face")))
        told = stage.write(rows, titles)
    click.echo(told)
    if save_codes is not None:
        click.echo(f"{save_codes}  {counted(len(performance), 'code')} of '{performance.code_space}'")


@avatar.command(short_help="Show one person's performance on other people.")
@click.option("--from", "performer", metavar="ID", help="Who performs. [default: the first who is not held out]")
@click.option("--onto", metavar="IDS", help="Whose avatars, by comma. [default: the next three who are not held out]")
@_shown
@click.option("--out", default=Path("retarget.png"), show_default=True, type=click.Path(path_type=Path),
              help="File to write: .png, or a video that browsers play, .mp4 (VP9) or .gif.")  # fmt: skip
def retarget(performer: str | None, onto: str | None, **shared: Any) -> None:
    """Show one person's performance on other people: one row for each person, the performer's first.

    A code means the same expression on everybody, so that what is read off one person drives any other, of whom only
    the resting face is known. In a video the people stand side by side.

    \b
    Examples:
      ufe avatar retarget
      ufe avatar retarget --from S002 --onto S004,S017,S008 --frames 658,3668,4763
      ufe avatar retarget --from S002 --onto S004 --segment speech_00 --view 30,10 --out speech.mp4
    """
    from ufe_avatar.show import Stage, titled

    stage = Stage(_request(shared))
    actor = stage.person(performer)
    people = [actor, *stage.others(actor, onto)]
    with stage.working():
        frames = stage.frames(actor)
        stage.fits(frames, rows=len(people), across=len(stage.cameras))
        performance = stage.read(actor, frames)
        rows = [
            stage.row(person, performance, *stage.cameras, notes=_driven(actor.subject, person.subject, None))
            for person in people
        ]
        told = stage.write(rows, titled(actor, frames))
    click.echo(told)


@avatar.command(short_help="Convert a published checkpoint of ava-256.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def convert(checkpoint: Path, out: Path) -> None:
    """Convert a published checkpoint of ava-256 (.pt) to safetensors.

    Nothing in the checkpoint is executed. Names, shapes, types and numbers are checked before OUT is written. The
    statistics that it lacks are made by 'ufe avatar statistics'.

    \b
    Example:
      ufe avatar convert aeparams_1440000.pt ava256.safetensors
    """
    from ufe_avatar import checkpoint as published
    from ufe_core.targets import check_target

    check_target(out, (".safetensors",), option="OUT")
    published.convert(checkpoint, out)
    click.echo(f"{out}  {out.stat().st_size / 1e6:.1f} MB")


@avatar.command(short_help="Make the statistics that such a checkpoint needs.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("listing", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--first", required=True, type=click.IntRange(1), metavar="N",
              help="How many captures, from the top of LISTING, the checkpoint was trained on.")  # fmt: skip
def statistics(folder: Path, listing: Path, out: Path, first: int) -> None:
    """Make the statistics that a checkpoint of ava-256 needs, from the captures it was trained on.

    FOLDER holds captures of ava-256; LISTING is its list of them, a CSV file with columns mcd, sid, mct. Only the
    averages that captures bring with them are read, not their frames.

    \b
    Example:
      ufe avatar statistics ava-256 ava-256/256_ids.csv statistics.safetensors --first 256
    """
    from ufe_avatar import statistics as averaging
    from ufe_avatar.show import counted
    from ufe_core.cli.progress import TrainingDisplay
    from ufe_core.targets import check_target
    from ufe_core.training.progress import Progress

    check_target(out, (".safetensors",), option="OUT")
    captures = averaging.first_captures(folder, listing, first)
    with TrainingDisplay(titles={"averages": "captures"}) as show:

        def averages() -> Iterator[averaging.Averages]:
            for done, capture in enumerate(captures, 1):
                yield averaging.read_averages(capture)
                show(Progress("averages", done, len(captures), {}))

        made = averaging.statistics(averages())
    made.save(out)
    texels = made.texmean.shape[-1]
    click.echo(f"{out}  of {counted(first, 'capture')}, {len(made.vertmean)} vertices, textures of {texels} texels")


def _request(shared: dict[str, Any], *others: Path | None) -> Request:
    """The shared options; places that cannot be written are refused before any work."""
    from ufe_avatar.show import PICTURES, Request
    from ufe_core.targets import check_target

    check_target(shared["out"], PICTURES)
    for other in others:
        if other is not None:
            check_target(other, (".safetensors",), option="--save-codes")
    return Request(**shared)


def _driven(performer: str, subject: str, codes: Path | None) -> tuple[str, ...]:
    """A few words under a person's id: who drives."""
    if codes is not None:
        return (codes.name,)
    return () if performer == subject else (f"as {performer}",)
