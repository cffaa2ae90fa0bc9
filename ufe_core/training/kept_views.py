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
    folder = store.path("views", key)
    if not _opens(folder):
        with store.lock("views", key):
            if not _opens(folder):  # another process may have made them while this one waited
                images = np.ascontiguousarray(make())
                store.remove("views", key)
                with store.building("views", key) as building:
                    for name, values in ((_CHECKSUMS, checksums_of(images, len(images))), (_IMAGES, images)):
                        data = io.BytesIO()
                        np.save(data, values)
                        write_atomic(building / name, data.getvalue())
    return folder


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


def _opens(folder: Path) -> bool:
    try:
        open_views(folder)
    except DataError:
        return False
    return True
