"""Writes videos; a file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ufe_core.errors import ArtifactError
from ufe_core.store import explained

VIDEOS = (".mp4", ".gif")
_CODEC = "vp09"  # VP9. OpenCV's FFmpeg has no H.264, and browsers do not play its MPEG-4 part 2 ("mp4v")


def write_video(path: Path, images: Iterable[np.ndarray], *, fps: float) -> int:
    """Write images uint8 [H, W, 3] (sRGB), all of one size, as an MP4 or a GIF, by the name's end; browsers play both.

    Returns:
        The number of images.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with _whole(path) as part:
        return (_write_gif if path.suffix.lower() == ".gif" else _write_mp4)(part, iter(images), fps)


def _write_mp4(path: Path, images: Iterator[np.ndarray], fps: float) -> int:
    first = next(images)
    height, width = (side + side % 2 for side in first.shape[:2])  # players want even sides
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODEC), fps, (width, height))
    if not writer.isOpened():
        raise ArtifactError(f"Cannot write a video in '{path.parent}': OpenCV has no VP9 here. End --out in '.gif'.")
    count = 0
    try:
        for image in _all(first, images):
            padded = np.zeros((height, width, 3), np.uint8)
            padded[: image.shape[0], : image.shape[1]] = image[..., ::-1]
            writer.write(padded)
            count += 1
    finally:
        writer.release()
    found = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
    if found != count:  # OpenCV tells of no error while it writes
        whole = max(found, 0)  # -1 of a file without an index
        raise ArtifactError(f"Of {count} images of a video, {whole} were written in '{path.parent}'. Is the disk full?")
    return count


def _write_gif(path: Path, images: Iterator[np.ndarray], fps: float) -> int:
    count = 1

    def rest() -> Iterator[Image.Image]:
        nonlocal count
        for image in images:
            count += 1
            yield Image.fromarray(image)

    first = Image.fromarray(next(images))
    first.save(path, format="GIF", save_all=True, append_images=rest(), duration=1000 / fps, loop=0)
    return count


def _all(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which then takes its place, or is gone if writing fails or is interrupted."""
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with explained(f"write '{path.name}'", path.parent):
        try:
            part.touch()  # encoders do not say why they cannot open a file
            yield part
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
