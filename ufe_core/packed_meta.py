"""`capture.json`, which says what a packed capture holds: text that any change of a byte betrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ufe_core.errors import DataError
from ufe_core.types import CameraSpec

FORMAT = "ufe.packed/3"
META = "capture.json"
REMEDY = "Delete its folder; it is made again when needed."
_SEAL = ',\n"seal": "'


def sealed(meta: Mapping[str, Any]) -> str:
    """The text of `capture.json`: a line for each member, and last the sha256 of all before it."""
    return _with_seal("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in meta.items()))


def _with_seal(body: str) -> str:
    return f'{body}{_SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def camera_to_json(camera: CameraSpec) -> dict[str, Any]:
    """A camera as JSON; numbers come back as they were."""
    return {
        item.name: value.tolist() if isinstance(value, np.ndarray) else value
        for item in fields(camera)
        for value in (getattr(camera, item.name),)
    }


def camera_of_json(entry: Mapping[str, Any]) -> CameraSpec:
    """What `camera_to_json` gave."""
    values: dict[str, Any] = {name: np.array(v) if isinstance(v, list) else v for name, v in entry.items()}
    return CameraSpec(**values)


def read_meta(path: Path, expected: str = FORMAT) -> dict[str, Any]:
    """What `capture.json` in a folder says, checked to be of the expected format; the data file is not touched.

    Raises:
        DataError: the file is missing, altered or of another format.
    """
    file = path / META
    try:
        text = file.read_text(encoding="utf-8")
        meta: dict[str, Any] = json.loads(text)
        found = meta["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}). {REMEDY}") from error
    if found != expected:
        raise DataError(f"{file} is of format {found!r}; this version reads {expected!r}. {REMEDY}")
    if _with_seal(text.rpartition(_SEAL)[0]) != text:
        raise DataError(f"{file} was altered: its checksum is not that of its text. {REMEDY}")
    return meta
