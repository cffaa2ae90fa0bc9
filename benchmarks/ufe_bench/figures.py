"""A qualitative page of a study: what the cameras saw, the truth, every method, and where each is wrong.

People and frames are picked by rule from the numbers of the study, never by hand. By those of its base row: of the
people with the least, the median and the greatest photometric error the frame of median and of greatest error; under
the first condition the person of greatest error, under each other one the person whose error it raises most over the
first, at their worst frame, and there the base row's code drives two more people's avatars too. By those of every other
row: the worst frame of the person of greatest error, and of the person with whom it is furthest behind the base row the
frame at which it is. What several rules pick is shown once.
"""

from __future__ import annotations

import html
import io
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from ufe_bench.board_markdown import HYPOTHETICAL
from ufe_bench.enrolment import enroll
from ufe_bench.evaluate import frames_of
from ufe_bench.harness import Harness, Ready
from ufe_bench.schema import Result
from ufe_core.errors import ConfigError
from ufe_core.store import write_atomic

if TYPE_CHECKING:
    from ufe_bench.study import Study
    from ufe_core.packed import PackedCapture
    from ufe_core.types import Encoding

METRIC = "photometric_l1"
_DRAWING = "drawing figures"
_SIZE = 384  # of a rendering, pixels, before it is cut to the face
_MARGIN = 0.06  # about the face, share of the rendering
_OTHERS = 2  # avatars that the base row's code drives besides the person's own
_SATURATED = 40.0  # error, 0..255, that is shown brightest
_COLUMN, _ROW = 1.25, 1.95  # of a panel, inches
_CAMERAS = 2.6  # columns that the cameras' images are wide
_TITLE_WIDTH = 18  # characters

Face = tuple[slice, slice]


class Whom(NamedTuple):
    """A person, and the condition that they are under; none is the measured session."""

    subject: str
    condition: str | None


@dataclass(frozen=True)
class Pick:
    """A frame to show: by which row's numbers, why, whose, and the one of which error."""

    by: str
    why: str
    whom: Whom
    wanted: Literal["median", "worst", "behind"]


@dataclass(frozen=True)
class Panel:
    """What one method made of a face: image and error, float [H, W, 3] and [H, W], and its photometric error.

    There is no error where the code drives another person's avatar.
    """

    title: str
    image: np.ndarray
    error: np.ndarray | None = None
    value: float = 0.0


def picks(results: Mapping[str, Result], base: str, conditions: Sequence[str]) -> list[Pick]:
    """What the rule picks by the numbers of the base row, and by those of each other one."""
    errors = {name: {one.id: one.metrics[METRIC] for one in result.subjects} for name, result in results.items()}
    ordered = sorted(errors[base], key=errors[base].__getitem__)
    least, median, most = (Whom(subject, None) for subject in (ordered[0], ordered[len(ordered) // 2], ordered[-1]))
    chosen = [
        Pick(base, "person of least error, median frame", least, "median"),
        Pick(base, "person of median error, median frame", median, "median"),
        Pick(base, "person of median error, worst frame", median, "worst"),
        Pick(base, "person of greatest error, median frame", most, "median"),
        Pick(base, "person of greatest error, worst frame", most, "worst"),
    ]
    first: dict[str, float] = {}
    for condition in conditions:
        words, slice_name = _words(condition), f"condition:{condition}"
        under = {one.id: one.slices.get(slice_name, {}).get(METRIC, 0.0) for one in results[base].subjects}
        subject = max(under, key=lambda one: under[one] - first.get(one, 0.0))
        why = f"person whose error rises most under condition {words}" if first else "person of greatest error"
        chosen.append(Pick(base, f"{why}, worst frame", Whom(subject, condition), "worst"))
        first = first or under
    for name, own in errors.items():
        if name != base:
            worst = Whom(max(own, key=own.__getitem__), None)
            more = {subject: error - errors[base][subject] for subject, error in own.items() if subject in errors[base]}
            chosen.append(Pick(name, "person of greatest error, worst frame", worst, "worst"))
            if more:
                behind = Whom(max(more, key=more.__getitem__), None)
                chosen.append(Pick(name, "furthest behind the base row", behind, "behind"))
    return chosen


def _words(name: str) -> str:
    return name.replace("_", " ")


def write_figures(
    harness: Harness, study: Study, folder: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw what the rule picks, and write `index.html` beside the pictures; returns it.

    A row that repeats another with another seed is left out.

    Args:
        harness: which ran the study.
        study: finished rows.
        folder: for the page and its pictures.
        progress: told of how much is done, and of how much there is.

    Raises:
        ConfigError: the study has no base row, or it has no result.
        MethodError: a method whose numbers pick a frame failed on it, or could not be set up; what was drawn stays.
    """
    cells = {cell.row.name: cell for cell in study.methods}
    base = study.suite.base
    if base is None or base not in cells:
        raise ConfigError(f"Figures of '{study.suite.id}' need its base row {base!r}: run that too.")
    results = {name: cell.result for name, cell in cells.items() if cell.result is not None}
    requests = {name: cell.request for name, cell in cells.items() if cell.request is not None}
    ready = {name: harness.ready(request) for name, request in requests.items()}
    chosen = picks(results, base, study.suite.conditions)
    tell = progress or (lambda done, count: None)
    frames: dict[tuple[Whom, int], list[Pick]] = {}
    for done, pick in enumerate(chosen):
        tell(done, 2 * len(chosen))
        with harness.its_failures(requests[pick.by], _DRAWING):
            frames.setdefault((pick.whom, _frame(ready, pick, base)), []).append(pick)
    folder.mkdir(parents=True, exist_ok=True)
    titles = {name: cells[name].row.title for name in cells}
    entries, done = [], len(chosen)
    for number, ((whom, row), reasons) in enumerate(frames.items(), 1):
        tell(done, 2 * len(chosen))
        panels, truth = _panels(ready, titles, whom, row)
        if whom.condition is not None:
            with harness.its_failures(requests[base], _DRAWING):
                panels += _on_others(ready[base], whom, row)
        capture = _capture(ready[base], whom)
        file = folder / f"{number:02d}.png"
        write_atomic(file, draw(np.array(capture.images[row]), truth, panels))
        what = [whom.subject, _words(capture.segments[row]), f"frame {capture.frames[row]}"]
        what += [f"condition {_words(whom.condition)}"] if whom.condition is not None else []
        by: dict[str, list[str]] = {}
        for pick in reasons:
            by.setdefault(pick.why, []).append(titles[pick.by])
        entries.append((file.name, ", ".join(what), [f"{why}: {'; '.join(rows)}" for why, rows in by.items()]))
        done += len(reasons)
    for old in folder.glob("[0-9][0-9].png"):
        if int(old.stem) > len(entries):
            old.unlink()
    page = folder / "index.html"
    write_atomic(page, _page(study, entries).encode())
    return page


def _captures(ready: Ready, condition: str | None) -> Sequence[PackedCapture]:
    return ready.material.captures if condition is None else ready.material.conditions[condition]


def _number(ready: Ready, whom: Whom) -> int:
    return [capture.subject for capture in _captures(ready, whom.condition)].index(whom.subject)


def _capture(ready: Ready, whom: Whom) -> PackedCapture:
    return _captures(ready, whom.condition)[_number(ready, whom)]


def _encoded(ready: Ready, whom: Whom, rows: np.ndarray) -> Encoding:
    captures, number, device = _captures(ready, whom.condition), _number(ready, whom), ready.stage.device
    calibration = enroll(ready.encoder, captures, number, device, ready.enrolment)
    frames = frames_of(captures[number], rows, ready.encoder.needs.cameras)
    return ready.encoder.encode(frames.to(device), calibration)


def _frame(ready: Mapping[str, Ready], pick: Pick, base: str) -> int:
    """The row of the frame at which the error of a pick's method is the one wanted."""
    rows = _capture(ready[pick.by], pick.whom).frame_rows
    errors = _errors(ready[pick.by], pick.whom, rows)
    if pick.wanted == "behind":
        errors = errors - _errors(ready[base], pick.whom, rows)
    order = np.argsort(errors)
    return int(rows[order[len(order) // 2 if pick.wanted == "median" else -1]])


@torch.inference_mode()
def _errors(ready: Ready, whom: Whom, rows: np.ndarray) -> np.ndarray:
    """Photometric error of frames, [len(rows)]."""
    capture, stage = _capture(ready, whom), ready.stage
    encoding, identity = _encoded(ready, whom, rows), stage.identity(capture)
    predicted = stage.drive(identity, encoding.expression, encoding.gaze, renders=True)
    truth = stage.truth(capture, identity, rows, renders=True)
    errors: np.ndarray = stage.metrics[METRIC].errors(predicted, truth).cpu().numpy()
    return errors


@torch.inference_mode()
def _panels(
    ready: Mapping[str, Ready], titles: Mapping[str, str], whom: Whom, row: int
) -> tuple[list[Panel], np.ndarray]:
    """What each method made of the frame, and the truth [H, W, 3]."""
    first = next(iter(ready.values()))
    stage, capture = first.stage, _capture(first, whom)
    identity, device = stage.identity(capture), stage.device
    camera = stage.decoder.frontal_camera(_SIZE)
    mask = stage.decoder.face_mask(_SIZE).to(device)
    face = _face(mask)
    only = torch.zeros(1, dtype=torch.int64, device=device)

    def image(expression: torch.Tensor, gaze: torch.Tensor) -> torch.Tensor:
        avatar = stage.decoder.decode(expression, gaze, identity.rows(only))
        return stage.decoder.render(avatar, camera)[0]

    labels = (torch.from_numpy(np.array(values[[row]])).to(device) for values in (capture.expression, capture.gaze))
    truth = image(*labels)
    panels = []
    for name, one in ready.items():
        try:
            encoding = _encoded(one, whom, np.array([row]))
        except Exception:  # the plugin's own; the result file tells of it
            logging.getLogger("ufe").debug("Row %r has no figure", name, exc_info=True)
            panels.append(Panel(f"{titles[name]}: failed", np.zeros_like(_shown(truth, face))))
            continue
        made = image(encoding.expression, encoding.gaze)
        error = 255 * (made - truth).abs().mean(0) * mask
        value = float(error.sum() / mask.sum())
        panels.append(Panel(titles[name], _shown(made, face), error.cpu().numpy()[face], value))
    return panels, _shown(truth, face)


@torch.inference_mode()
def _on_others(base: Ready, whom: Whom, row: int) -> list[Panel]:
    """The base row's code of the frame on the avatars of the people who come next."""
    captures, number = _captures(base, whom.condition), _number(base, whom)
    stage, encoding = base.stage, _encoded(base, whom, np.array([row]))
    camera, only = stage.decoder.frontal_camera(_SIZE), torch.zeros(1, dtype=torch.int64, device=stage.device)
    panels, face = [], _face(stage.decoder.face_mask(_SIZE))
    for k in range(1, _OTHERS + 1):
        other = captures[(number + k) % len(captures)]
        identity = stage.identity(other).rows(only)
        image = stage.decoder.render(stage.decoder.decode(encoding.expression, encoding.gaze, identity), camera)[0]
        panels.append(Panel(f"that code on {other.subject}", _shown(image, face)))
    return panels


def _shown(image: torch.Tensor, face: Face) -> np.ndarray:
    """Linear RGB [3, H, W] as it is seen, [h, w, 3]."""
    shown: np.ndarray = image.clamp(0, 1).pow(1 / 2.2).permute(1, 2, 0).cpu().numpy()
    return shown[face]


def _face(mask: torch.Tensor) -> Face:
    """Rows and columns of the rectangle about a mask, bool [H, W], with a margin."""
    margin = round(_MARGIN * mask.shape[0])
    inside = [torch.nonzero(mask.any(dim))[:, 0] for dim in (1, 0)]
    rows, columns = (slice(max(0, int(some[0]) - margin), int(some[-1]) + 1 + margin) for some in inside)
    return rows, columns


def draw(cameras: np.ndarray, truth: np.ndarray, panels: Sequence[Panel]) -> bytes:
    """A PNG: the four images and the truth on the left, then a column a method: what it made, and its error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = len(panels) + 2
    figure = Figure(figsize=((columns - 1 + _CAMERAS) * _COLUMN, 2 * _ROW), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False, width_ratios=[_CAMERAS, *[1.0] * (columns - 1)])
    for axis in axes.flat:
        axis.set_axis_off()
    for k, title in enumerate(("left and right eye", "left and right mouth")):
        axes[k, 0].imshow(np.hstack(list(cameras[2 * k : 2 * k + 2])), cmap="gray", vmin=0, vmax=255)
        axes[k, 0].set_title(title, fontsize=7)
    axes[0, 1].imshow(truth)
    axes[0, 1].set_title("truth", fontsize=7)
    shades: Any = None
    for k, panel in enumerate(panels, 2):
        axes[0, k].imshow(panel.image)
        axes[0, k].set_title(textwrap.fill(panel.title, _TITLE_WIDTH), fontsize=7)
        if panel.error is not None:
            shades = axes[1, k].imshow(panel.error, cmap="inferno", vmin=0, vmax=_SATURATED)
            axes[1, k].set_title(f"{panel.value:.2f}", fontsize=7)
    if shades is not None:
        bar = figure.colorbar(shades, ax=axes[1, 1], location="left", fraction=0.5)
        bar.ax.tick_params(labelsize=6)
        bar.set_label("error, 0..255", fontsize=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.05)
    return buffer.getvalue()


def _page(study: Study, entries: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    base = study.suite.row(str(study.suite.base)).title
    results = {cell.row.title: cell.result for cell in study.methods if cell.result is not None}
    budgets = ", ".join(sorted({result.key.budget.name for result in results.values()} - {"none"}))
    runs = "; ".join(f"{title} {result.run_id}" for title, result in results.items())
    hypothetical = any(result.hypothetical for result in results.values())
    parts = [
        "<!doctype html>", '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(study.suite.id)}: figures</title>",
        "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:90rem;"
        "padding:0 1rem}figure{margin:2rem 0;overflow-x:auto}img{min-width:60rem;width:100%;background:#fff}"
        "figcaption{position:sticky;left:0}</style>",
        f"<h1>{html.escape(study.suite.summary)}</h1>",
        "<p>People and frames are picked by rule, from photometric errors: above each picture stands by which "
        "rule, and by whose errors. In it, above: what the four cameras saw, the truth, what each method made of it. "
        f"Below: its error inside the face, and the mean. The base row is {html.escape(base)}; under conditions its "
        "code also drives other people's avatars.</p>",
        f"<p>Suite {html.escape(study.suite.id)}, budget {html.escape(budgets)}. Runs: {html.escape(runs)}.</p>",
        *([f"<p>{html.escape(HYPOTHETICAL)}</p>"] if hypothetical else []),
    ]  # fmt: skip
    for file, what, reasons in entries:
        title, *rules = (html.escape(f"{one[:1].upper()}{one[1:]}") for one in (what, *reasons))
        image = f'<a href="{file}"><img src="{file}" alt="{title}"></a>'
        parts.append(f"<figure><figcaption><b>{title}</b><br>{'<br>'.join(rules)}</figcaption>{image}</figure>")
    return "\n".join(parts) + "\n"
