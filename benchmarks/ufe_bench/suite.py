"""A suite: which people, how many frames, which metrics. Data, validated, never edited once results exist."""

from __future__ import annotations

import sys

from pydantic import Field, ValidationError

from ufe_core.config import ComponentConfig, did_you_mean
from ufe_core.errors import RegistryError
from ufe_core.registry import load_registry, packaged_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Suite(ComponentConfig):
    """What a suite file holds."""

    name: str
    version: int = Field(ge=1)
    protocol: int = Field(ge=1, description="Version of the measuring itself")
    summary: str
    split: str = Field(description="Split set of the registry")
    part: str = Field("test", description="Part of the split set")
    frames: int = Field(ge=1, description="Frames of each person, spread over the segments")
    render_size: int = Field(128, ge=32, le=1024, description="Side of the frontal rendering, pixels")
    metrics: tuple[str, ...] = Field(min_length=1)
    floors: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name and version, as `main@1`."""
        return f"{self.name}@{self.version}"


def load_suite(name: str) -> Suite:
    """Read a suite that the registry lists.

    Raises:
        RegistryError: there is no such suite, or its file is missing or invalid.
    """
    listed = {suite.name: suite for suite in load_registry().suites}
    if name not in listed:
        raise RegistryError(f"No suite {name!r}.{did_you_mean(name, list(listed))} Suites: {', '.join(listed)}.")
    path = packaged_file(listed[name].file)
    try:
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RegistryError(f"Suite file '{path}' cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RegistryError(
            f"Suite file '{path}', field {'.'.join(map(str, first['loc']))}: {first['msg']}."
        ) from error
