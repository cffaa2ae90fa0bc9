"""What became of a method that has no result: a record beside the results, until it has one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ufe_bench.schema import Record
from ufe_core.errors import (
    DISK_FULL,
    ArtifactError,
    ConfigError,
    DataError,
    NotLoadedError,
    RegistryError,
    UnknownComponentError,
)
from ufe_core.store import fingerprint, write_atomic

SCHEMA: Literal["ufe.failure/1"] = "ufe.failure/1"
FOLDER = "failures"
#: What the user or the machine got wrong.
_NOT_THE_METHODS = (UnknownComponentError, ConfigError, DataError, ArtifactError, RegistryError, MemoryError)


def is_the_methods(error: BaseException) -> bool:
    """Whether an error is a method's fault, and not the user's or the machine's."""
    torch = sys.modules.get("torch")  # not imported for this: boards do without
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return False
    return isinstance(error, NotLoadedError) or not isinstance(error, _NOT_THE_METHODS)


class Failure(Record):
    """Why a method could not be measured; it lies in `<results>/<suite>/failures`."""

    schema_version: Literal["ufe.failure/1"] = Field(SCHEMA, alias="schema")
    suite: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*@\d+$", description="Suite and its version, as 'main@1'")
    method: str = Field(description="As users type it, such as 'univ + late_fusion'")
    stage: str = Field(description="What was being done: 'setting up', 'training', 'measuring' …")
    cause: str = Field(description="One line")
    command: str = Field(description="Command that fails like this")
    created: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="UTC")


def failure_path(folder: Path, suite: str, method: str, command: str) -> Path:
    """Where it is recorded that a command failed."""
    slug = "".join(c if c.isalnum() or c in "-_." else "_" for c in method.replace(" + ", "__").replace("/", "__"))
    return folder / suite / FOLDER / f"{slug}.{fingerprint(command)[:8]}.json"


def record_failure(failure: Failure, folder: Path) -> Path:
    """Write it in the place of an earlier one of the same command."""
    path = failure_path(folder, failure.suite, failure.method, failure.command)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = failure.model_dump(mode="json", by_alias=True)
    write_atomic(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def forget_failure(folder: Path, suite: str, method: str, command: str) -> None:
    """Once a command has made a result, its failure is over."""
    failure_path(folder, suite, method, command).unlink(missing_ok=True)


def load_failure(path: Path) -> Failure:
    """Read a record.

    Raises:
        DataError: the file is unreadable or not such a record; names file and field.
    """
    try:
        return Failure.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Failure record '{path}' cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"Failure record '{path}', field '{field}': {first['msg']}.") from error
