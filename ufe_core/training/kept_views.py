"""What a pre-training makes of people's views, kept in the store: mapped images with a checksum for each row."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ufe_core.errors import DataError
from ufe_core.packed_file import Damage, MappedTensor, checksums_of
from ufe_core.packed_meta import REMEDY
from ufe_core.store import Store, write_atomic

_IMAGES, _CHECKSUMS = "views.npy", "checksums.npy"


def kept_views(store: Store, key: str, make: Callable[[], np.ndarray]) -> Path:
    """The folder of images uint8 [N, K, S, S] of that key, made now where they are not there, or not whole."""

    def build(folder: Path) -> None:
        images = np.ascontiguousarray(make())
        for name, values in ((_CHECKSUMS, checksums_of(images, len(images))), (_IMAGES, images)):
            data = io.BytesIO()
            np.save(data, values)
            write_atomic(folder / name, data.getvalue())

    return store.made("views", key, _sound, build)


def open_views(folder: Path) -> MappedTensor:
    """Kept images; each row is checked the first time it is read.

    Raises:
        DataError: they are gone or damaged.
    """
    try:
        images = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
        checksums = np.load(folder / _CHECKSUMS, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no whole views ({error}). {REMEDY}") from error
    return MappedTensor(images, checksums, Damage(folder / _IMAGES, "views", ()))


def _sound(folder: Path) -> Path | None:
    try:
        open_views(folder)
    except DataError:
        return None
    return folder
