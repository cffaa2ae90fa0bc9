"""`ufe keypoints`: find keypoints in headset images, and measure how well they are found."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ufe_core.cli.choice import choose_part, choose_subjects, open_source, parts_of, progress_bar, which_source

if TYPE_CHECKING:
    import numpy as np

    from ufe_core.interfaces.detector import KeypointDetector
    from ufe_core.interfaces.source import HMCSource

_SHOWN_PX, _SHOWN = 384, 2
_which = functools.partial(which_source, kinds=("detector",))
_DETECTOR = click.option("--detector", default="heatmap", show_default=True, help="Which detector.")
_WEIGHTS = click.option("--weights", metavar="FILE",
                        help="Weights of 'ufe train --detector NAME --out FILE'; else the detector's own.")  # fmt: skip


@click.group(short_help="Find keypoints in headset views, and measure how well.")
def keypoints() -> None:
    """Find the 96 keypoints of each headset view, pupils included, and measure how well they are found.

    \b
    Examples:
      ufe keypoints find --subject S004                    frames of a capture, with an overlay picture
      ufe keypoints find eye.png --camera left_eye         an image of your own
      ufe keypoints measure                                errors on people never seen in training
      ufe train --detector heatmap                         train the detector
    """


@keypoints.command(short_help="Find keypoints in an image or in captures.")
@click.argument("image", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--camera", help="Which tracking camera IMAGE is of, e.g. left_eye.")
@_which
@click.option(
    "--subject", "subjects", multiple=True, metavar="ID", help="Whose frames, without IMAGE; may be repeated."
)
@click.option("--frames", default=2, show_default=True, type=click.IntRange(1), help="Frames of each subject.")
@_DETECTOR
@_WEIGHTS
@click.option("--out", default=Path("keypoints.png"), show_default=True, type=click.Path(path_type=Path),
              help="PNG to write: green discs where a point is seen, red rings where it is hidden.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print every point and how sure it is, for scripts.")
def find(
    image: Path | None, camera: str | None, name: str, assignments: Sequence[str], subjects: Sequence[str], frames: int,
    detector: str, weights: str | None, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Find keypoints in IMAGE, square and grey, or in frames of a source's captures; write an overlay picture.

    \b
    Examples:
      ufe keypoints find
      ufe keypoints find --subject S004 --subject S017 --frames 4 --out found.png
      ufe keypoints find mouth.png --camera left_mouth --json
    """
    import numpy as np

    from ufe_core.config import did_you_mean
    from ufe_core.errors import ConfigError
    from ufe_core.targets import check_target

    check_target(out, (".png",), make=True)
    found_by, assignments = _open(detector, weights, assignments)
    if camera is not None and camera not in found_by.cameras:
        hint = did_you_mean(camera, list(found_by.cameras))
        raise ConfigError(f"The detector has no camera {camera!r}.{hint} It has {', '.join(found_by.cameras)}.")
    if image is not None and subjects:
        raise ConfigError(f"Give either the image '{image}' or --subject, not both.")
    if image is not None and assignments:
        raise ConfigError(f"'{assignments[0]}' is of a source: leave it out, or the image '{image}'.")
    if image is not None:
        planes, titles = _image_of(image, camera, found_by), [str(image)]
    else:
        planes, titles = _frames_of(name, assignments, subjects, frames, found_by)
    import torch

    found = found_by.detect(torch.from_numpy(planes))
    points, visible = found.points.numpy(), found.visible.numpy()
    shown = range(len(found_by.cameras)) if camera is None else [found_by.cameras.index(camera)]
    _write(out, planes[:, shown], points[:, shown], visible[:, shown])
    records = [
        {
            "image": title, "camera": found_by.cameras[c], "names": found_by.keypoints[c].names,
            "points": np.round(points[n, c], 2).tolist(), "visible": np.round(visible[n, c], 3).tolist(),
        }
        for n, title in enumerate(titles) for c in shown
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(records, indent=2))
        return
    for record in records:
        seen = sum(value > 0.5 for value in record["visible"])
        click.echo(f"{record['image']}  {record['camera']:12} {seen} of {len(record['visible'])} points seen")
    click.echo(f"overlay  {out}")


@keypoints.command(short_help="Measure a detector against exact keypoints.")
@_which
@click.option("--part", default="test", show_default=True, help="Of the source's split: train or test.")
@click.option("--count", type=click.IntRange(1), help="Only so many people.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="Frames of each.")
@click.option("--size", default=192, show_default=True, type=click.IntRange(16, 1024), help="Side of the images.")
@click.option("--condition", "conditions", multiple=True, metavar="NAME",
              help="Value of source.condition to measure under as well; may be repeated.")  # fmt: skip
@_DETECTOR
@_WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def measure(
    name: str, assignments: Sequence[str], part: str, count: int | None, frames: int, size: int,
    conditions: Sequence[str], detector: str, weights: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure a detector against exact keypoints, by camera and by part of the face.

    In pixels at 192 x 192, of points that are seen; hidden ones stand beside them, and how often it knows which they
    are, beside how often one who always says the same of a point would be right. With --condition the same people are
    measured under conditions of the source too, by camera as well.

    \b
    Examples:
      ufe keypoints measure
      ufe keypoints measure --condition glasses --condition hand
      ufe keypoints measure --set detector.point_model=false     each point as it is found, by itself
      ufe keypoints measure --count 8 --frames 8 --json
    """
    from ufe_core.keypoint_errors import measured
    from ufe_core.packed import PackRequest, pack
    from ufe_core.store import Store

    found_by, assignments = _open(detector, weights, assignments)
    spec, source = open_source(name, assignments)
    sources = {condition: open_source(name, [*assignments, f"source.condition={condition}"])[1]
               for condition in conditions}  # fmt: skip
    people = choose_part(spec, source, (), None, part, count)
    request = PackRequest(frames, size, found_by.cameras, (), extras=("keypoints",))
    with progress_bar() as bar:
        task = bar.add_task("people", total=len(people) * (1 + len(sources)))

        def report_on(source: HMCSource[Any]) -> dict[str, Any]:
            captures = pack(source, people, request, store=Store(), progress=lambda _: bar.advance(task))
            return measured(found_by, captures)

        report = report_on(source)
        report["conditions"] = {name: report_on(one)["cameras"] for name, one in sources.items()}
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"{detector}: {len(people)} people x {frames} frames, pixels at 192 x 192")
    _tell("camera", report["cameras"])
    for condition, cameras in report["conditions"].items():
        click.echo()
        _tell(f"camera, {condition}", cameras)
    click.echo()
    _tell("part of the face", dict(sorted(report["parts"].items(), key=lambda item: item[1]["median_px"])))


def _tell(what: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A table of errors, a line for each row."""
    guess = all("visibility_guess" in row for row in rows.values())
    click.echo(
        f"{what:25}{'median':>8}{'mean':>8}{'95 %':>8}{'hidden, median':>16}{'knows what is seen':>20}"
        + f"{'one guess a point':>19}" * guess
    )
    for name, row in rows.items():
        click.echo(
            f"{name:25}{row['median_px']:8.2f}{row['mean_px']:8.2f}{row['p95_px']:8.2f}{row['hidden_median_px']:16.2f}"
            f"{row['visibility']:20.1%}" + (f"{row['visibility_guess']:19.1%}" if guess else "")
        )


def _open(name: str, weights: str | None, assignments: Sequence[str]) -> tuple[KeypointDetector[Any], list[str]]:
    """The detector with its options among the assignments, and those of the source."""
    from ufe_core.config import parse_overrides
    from ufe_core.plugins import catalogue

    own = [one for one in assignments if one.startswith("detector.")]
    options = parse_overrides(own, owners=("detector",)).get("detector", {})
    given = {} if weights is None else {"weights": weights}
    detector: KeypointDetector[Any] = catalogue().create("detector", name, {**given, **options})
    return detector, [one for one in assignments if one not in own]


def _image_of(path: Path, camera: str | None, detector: KeypointDetector[Any]) -> np.ndarray:
    """A frame uint8 [1, C, S, S] that holds an image in one camera's place and black in the others'."""
    import cv2
    import numpy as np

    from ufe_core.errors import ConfigError, DataError

    if camera is None:
        raise ConfigError(f"Say with --camera which one '{path}' is of: {', '.join(detector.cameras)}.")
    grey = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise DataError(f"'{path}' is no image that can be read.")
    if grey.shape[0] != grey.shape[1]:
        raise DataError(f"'{path}' is {grey.shape[1]} x {grey.shape[0]} pixels; headset images are square.")
    planes = np.zeros((1, len(detector.cameras), *grey.shape), np.uint8)
    planes[0, detector.cameras.index(camera)] = grey
    return planes


def _frames_of(
    name: str, assignments: Sequence[str], subjects: Sequence[str], frames: int, detector: KeypointDetector[Any]
) -> tuple[np.ndarray, list[str]]:
    import numpy as np

    spec, source = open_source(name, assignments)
    planes, titles = [], []
    held_out = parts_of(spec, source).get("test", [])  # those whom the detector was trained on flatter it
    people = held_out[:_SHOWN] if held_out and not subjects else choose_subjects(spec, source, subjects, _SHOWN, None)
    for subject in people:
        (capture,) = source.captures([subject])
        rows = capture.spread(frames, seed=0)
        planes.append(capture.frames(rows, cameras=detector.cameras, size=_SHOWN_PX))
        titles += [f"{subject}/{row}" for row in rows]
    return np.concatenate(planes), titles


def _write(out: Path, planes: np.ndarray, points: np.ndarray, visible: np.ndarray) -> None:
    """Frames [N, C, S, S] below each other, their cameras side by side."""
    import cv2
    import numpy as np

    from ufe_core.pictures import draw_points, write_png

    side = max(_SHOWN_PX, planes.shape[-1])
    rows = []
    for images, places, seen in zip(planes, points, visible > 0.5, strict=True):
        large = np.stack([cv2.resize(image, (side, side)) for image in images])
        rows.append(np.hstack(list(draw_points(large, places * (side / planes.shape[-1]), seen))))
    write_png(out, np.vstack(rows))
