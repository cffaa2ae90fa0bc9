"""Draws a contact sheet of headset images: subjects down, anchors across, cameras inside."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ufe_core.errors import ConfigError
from ufe_core.types import CameraSpec

_PAPER, _INK, _FAINT = "#15171a", "#f2f2f0", "#9aa0a6"
_GUTTER_PX, _GAP_PX, _BORDER_PX = 2, 12, 16
_MARGIN_PX, _ROW_LABEL_PX, _HEADER_PX, _FOOTER_PX = 112, 76, 52, 26
_DPI = 100
_LINE_PX = 16
_CLASS_COLOURS = {
    "background": (0, 0, 0), "skin": (226, 176, 140), "lips": (214, 60, 90), "teeth": (245, 245, 255),
    "tongue": (240, 110, 190), "mouth": (165, 45, 125), "eye": (70, 150, 255), "glasses": (60, 230, 230),
    "hand": (255, 170, 30), "headset": (130, 110, 200), "lashes": (40, 170, 60),
}  # fmt: skip
_LARGEST_SIDE_PX, _LARGEST_AREA_PX = 30_000, 60_000_000  # drawing takes some 20 bytes a pixel


@dataclass(frozen=True)
class SheetRow:
    """One subject: its id, a few words about it, and its images uint8 [M, C, size, size], grey, or with 3 colours last.

    `below` holds a few words to write over each of the M blocks, or nothing.
    """

    subject: str
    notes: tuple[str, ...]
    images: np.ndarray
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Block:
    """How one anchor's cameras are laid out: camera number of each tile, and the names beside the tiles."""

    tiles: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...]
    rows: tuple[str, ...]


def sheet_size(
    cameras: Sequence[CameraSpec], *, subjects: int, anchors: int, size: int, below: bool = False, legend: bool = False
) -> tuple[int, int]:
    """Width and height in pixels of the sheet that `draw_sheet` would draw.

    Args:
        cameras: of each block.
        subjects: rows of blocks.
        anchors: columns of blocks.
        size: side of an image.
        below: whether words stand below blocks.
        legend: whether there is a line that names colours.

    Raises:
        ConfigError: it is larger than can be drawn.
    """
    block = _arrange(cameras)
    across = len(block.columns) * (size + _GUTTER_PX) - _GUTTER_PX
    width = _left(block) + anchors * (across + _GAP_PX) - _GAP_PX + _BORDER_PX
    height = _HEADER_PX + subjects * _pitch(block, size, below) - _GAP_PX + _FOOTER_PX + _BORDER_PX
    height += _LINE_PX if legend else 0
    if max(width, height) > _LARGEST_SIDE_PX or width * height > _LARGEST_AREA_PX:
        raise ConfigError(
            f"The sheet would be {width} x {height} pixels; at most {_LARGEST_SIDE_PX:,} a side and "
            f"{_LARGEST_AREA_PX // 1_000_000} million in all can be drawn. "
            "Ask for fewer subjects, anchors or cameras, or a smaller --size."
        )
    return width, height


def _pitch(block: _Block, size: int, below: bool) -> int:
    """Pixels from one row of blocks to the next."""
    return len(block.rows) * (size + _GUTTER_PX) - _GUTTER_PX + _GAP_PX + (_LINE_PX if below else 0)


def tint(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grey images uint8 [C, H, W] in the colours of their pixels' classes [C, H, W]: uint8 [C, H, W, 3]."""
    from ufe_core.interfaces.source import SEGMENTS

    table = np.array([_CLASS_COLOURS[name] for name in SEGMENTS], np.float32)
    grey = np.maximum(images.astype(np.float32), 40)[..., None] / 255
    mixed = 0.45 * images[..., None] + 0.55 * table[np.minimum(classes, len(table) - 1)] * (0.35 + 0.65 * grey)
    return np.clip(np.where(classes[..., None] == 0, images[..., None], mixed) + 0.5, 0, 255).astype(np.uint8)


def class_colours() -> dict[str, tuple[int, int, int]]:
    """Colours of `tint`, by class, but for the background, which stays grey."""
    return {name: colour for name, colour in _CLASS_COLOURS.items() if name != "background"}


def draw_sheet(
    rows: Sequence[SheetRow], cameras: Sequence[CameraSpec], anchors: Sequence[str], *, caption: str,
    legend: Mapping[str, tuple[int, int, int]] | None = None,
) -> bytes:  # fmt: skip
    """A PNG of the sheet; every image keeps its pixels.

    Cameras that come in left and right pairs stand side by side, one kind below the other, as on a face.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    block, size = _arrange(cameras), rows[0].images.shape[3]
    below = any(any(row.below) for row in rows)
    width, height = sheet_size(
        cameras, subjects=len(rows), anchors=len(anchors), size=size, below=below, legend=bool(legend)
    )
    pitch = _pitch(block, size, below)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_PAPER)
    canvas = FigureCanvasAgg(figure)
    step = size + _GUTTER_PX
    across, down = len(block.columns) * step - _GUTTER_PX, len(block.rows) * step - _GUTTER_PX

    def write(x: float, y: float, text: str, px: float, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=px * 72 / _DPI, **{"color": _INK, **style})

    title_px = _fitting(14, across, [anchor.replace("_", " ") for anchor in anchors])
    column_px = _fitting(11, size, block.columns)
    sheet = np.zeros((height, width, 3), np.uint8)
    covered = np.zeros((height, width), bool)
    for m, anchor in enumerate(anchors):
        left = _left(block) + m * (across + _GAP_PX)
        title = anchor.replace("_", " ")
        write(left + across / 2, 25, title, title_px, ha="center", va="baseline", weight="bold")
        figure.add_artist(
            Rectangle((left / width, 1 - 31 / height), across / width, 1 / height, color=_FAINT, linewidth=0)
        )
        for c, name in enumerate(block.columns):
            write(left + c * step + size / 2, 45, name, column_px, ha="center", va="baseline", color=_FAINT)
        for s, row in enumerate(rows):
            top = _HEADER_PX + s * pitch
            for r, line in enumerate(block.tiles):
                for c, camera in enumerate(line):
                    y, x = top + r * step, left + c * step
                    image = row.images[m, camera]
                    sheet[y : y + size, x : x + size] = image if image.ndim == 3 else image[..., None]
                    covered[y : y + size, x : x + size] = True
            if any(row.below):
                words = row.below[m]
                write(left, top + down + 12, words, _fitting(10, across, [words]), va="baseline", color=_FAINT)
    for s, row in enumerate(rows):
        top = _HEADER_PX + s * pitch
        write(
            _BORDER_PX,
            top + 15,
            row.subject,
            _fitting(15, _MARGIN_PX, [row.subject]),
            va="baseline",
            weight="bold",
        )
        for k, note in enumerate(row.notes):
            if 32 + 14 * k < down:
                write(
                    _BORDER_PX,
                    top + 32 + 14 * k,
                    note,
                    _fitting(10, _MARGIN_PX, [note]),
                    va="baseline",
                    color=_FAINT,
                )
        for r, name in enumerate(block.rows):
            if name:
                middle = top + r * step + size / 2
                write(
                    _left(block) - 8,
                    middle,
                    name,
                    _fitting(11, _ROW_LABEL_PX, [name]),
                    ha="right",
                    va="center",
                    color=_FAINT,
                )
    write(
        _BORDER_PX,
        height - _BORDER_PX,
        caption,
        _fitting(11, width - 2 * _BORDER_PX, [caption]),
        va="baseline",
        color=_FAINT,
    )
    _write_legend(write, legend or {}, height - _BORDER_PX - _LINE_PX, width)
    figure.figimage(np.dstack([sheet, covered.astype(np.uint8) * 255]), zorder=2)
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": "ufe", "Description": caption})
    return out.getvalue()


def _write_legend(write: Callable[..., None], legend: Mapping[str, tuple[int, int, int]], y: float, width: int) -> None:
    """Names in their colours, in one line."""
    px = _fitting(11, width - 2 * _BORDER_PX, ["  ".join(legend)])
    x = float(_BORDER_PX)
    for name, colour in legend.items():
        write(x, y, name, px, va="baseline", weight="bold", color=tuple(value / 255 for value in colour))
        x += 0.66 * px * (len(name) + 2)


def _arrange(cameras: Sequence[CameraSpec]) -> _Block:
    """Left and right cameras of one kind side by side where all come in such pairs, else all in one line."""
    kinds = [camera.name.removeprefix(f"{camera.side}_") for camera in cameras]
    by_kind: dict[str, dict[str, int]] = {}
    for number, (camera, kind) in enumerate(zip(cameras, kinds, strict=True)):
        by_kind.setdefault(kind, {})[camera.side] = number
    paired = len(cameras) > 2 and all(set(sides) == {"left", "right"} for sides in by_kind.values())
    if paired and len(by_kind) * 2 == len(cameras):
        tiles = tuple((sides["left"], sides["right"]) for sides in by_kind.values())
        return _Block(tiles, ("left", "right"), tuple(kind.replace("_", " ") for kind in by_kind))
    names = tuple(camera.name.replace("_", " ") for camera in cameras)
    return _Block((tuple(range(len(cameras))),), names, ("",))


def _fitting(px: float, room: float, texts: Sequence[str]) -> float:
    """The font size, at most `px`, at which the longest text fits; a letter is about 0.66 of it wide."""
    return min(px, room / (0.66 * max(1, *map(len, texts))))


def _left(block: _Block) -> int:
    return _BORDER_PX + _MARGIN_PX + (_ROW_LABEL_PX if any(block.rows) else 0)
