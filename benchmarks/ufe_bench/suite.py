"""A suite: which people, frames and metrics; in a study, which methods too. Data, never edited once results exist."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ufe_bench.enrolment import Enrolment
from ufe_core.budgets import BudgetName
from ufe_core.config import ComponentConfig, did_you_mean
from ufe_core.errors import RegistryError
from ufe_core.registry import load_registry, packaged_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


#: Fields of a suite that say something of its rows.
_OF_STUDIES = ("set", "tuning", "steps", "train", "base", "claims", "along", "logarithmic")


class SuiteRow(ComponentConfig):
    """One method of a study: a cell that is trained, measured and kept by itself."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="What --row takes")
    title: str = Field(description="As a reader should see it")
    encoder: str = "univ"
    calibrator: str | None = None
    pretraining: str | None = None
    anchors: tuple[str, ...] | int | None = Field(None, description="Names, or how many of the default ones, in order")
    enrolment: Enrolment = Field("own", description="Whose anchors people are enrolled with")
    set: dict[str, dict[str, Any]] = Field({}, description="Options by kind, as --set gives them")
    series: str | None = Field(None, description="Which line of a plot along something the row is a point of")
    at: float | None = Field(None, description="Where on that line; how many anchors, where nothing is said")
    paper: str | None = Field(None, description="Row of the paper's table that stands beside it")
    reads: str | None = Field(None, description="What the method makes use of; what it is given, where nothing is said")
    tuned_as: str | None = Field(None, description="Row whose search chooses its training options too")
    repeats: str | None = Field(None, description="Row of which it is another seed: both are one method in comparisons")
    base: str | None = Field(None, description="Row that it is compared with, where that is not the suite's")


class Claim(ComponentConfig):
    """What the paper says of two methods, to be tested."""

    better: str = Field(description="Row, or where rows are points of lines, line that is said to have the less error")
    worse: str = Field(description="The other")
    says: str = Field(description="In a few words, and where in the paper")
    at: float | None = Field(None, description="At which point of the lines; at every one, where nothing is said")
    metrics: tuple[str, ...] = Field((), description="Of which errors; of all of them, where nothing is said")

    def is_of(self, metric: str) -> bool:
        """Whether it says something of a metric."""
        return not self.metrics or metric in self.metrics


class Tuning(ComponentConfig):
    """The same small search for every row, on training people: the same trials, the same share of the steps."""

    validation: int = Field(
        24, ge=2, description="How many of the last training people are measured on, not trained on"
    )
    frames: int = Field(12, ge=1, description="Frames of each of these")
    steps: float = Field(
        1.0, gt=0, le=1, description="Share of the row's steps that a trial takes; fewer may rank trials otherwise"
    )
    trials: tuple[dict[str, Any], ...] = Field(min_length=2, description="Training options, one set a trial")


class Suite(ComponentConfig):
    """What a suite file holds."""

    name: str
    version: int = Field(ge=1)
    summary: str
    split: str = Field(description="Split of the registry, or the id of a source that has a split of its own")
    part: str = Field("test", description="Part of the split set")
    frames: int = Field(ge=1, description="Frames of each person, spread over the segments")
    clips: int = Field(0, ge=0, description="Runs of speech frames of each person, for temporal metrics")
    clip_frames: int = Field(12, ge=3, description="Frames of a clip")
    conditions: tuple[str, ...] = Field((), description="Values of source.condition that are also measured, as slices")
    condition_frames: int = Field(12, ge=1, description="Frames of each person under each of them")
    condition_clips: int = Field(0, ge=0, description="Runs of speech frames of each person under each of them")
    render_size: int = Field(128, ge=32, le=1024, description="Side of the frontal rendering, pixels")
    metrics: tuple[str, ...] = Field(min_length=1)
    floors: tuple[str, ...] = ()
    rows: tuple[SuiteRow, ...] = Field((), description="The methods of a study; none in a suite for any method")
    paper: str | None = Field(None, description="Table of the paper whose numbers stand beside the rows'")
    set: dict[str, dict[str, Any]] = Field(
        {}, description="Options of every row, where neither it nor the user has any"
    )
    tuning: Tuning | None = Field(None, description="How every row's training options are chosen")
    steps: dict[BudgetName, int] = Field(
        {}, description="Training steps of every row at a budget, where the user says nothing and its own are too many"
    )
    train: bool = Field(True, description="Whether rows are trained alike; else released weights serve")
    base: str | None = Field(None, description="Row that the others are compared with")
    claims: tuple[Claim, ...] = Field((), description="What the paper says of rows, to be tested")
    along: str | None = Field(None, description="What the rows differ in where that is a number, such as 'anchors'")
    logarithmic: bool = Field(False, description="Whether that number is drawn on a logarithmic axis")
    _file: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _rows_fit(self) -> Suite:
        idle = [name for name in _OF_STUDIES if not self.rows and name in self.model_fields_set]
        if idle:
            raise ValueError(f"'{idle[0]}' is for studies, and there are no rows")
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"row {twice[0]!r} appears twice")
        if self.base is not None and self.base not in names:
            raise ValueError(f"base {self.base!r} is no row")
        lines = {row.series for row in self.rows} if self.along is not None else set(names)
        for claim in self.claims:
            for name in (claim.better, claim.worse):
                if name not in lines:
                    raise ValueError(f"a claim is of {name!r}, which is no {'line' if self.along else 'row'}")
            unknown = [name for name in claim.metrics if name not in self.metrics]
            if unknown:
                raise ValueError(f"a claim is of the metric {unknown[0]!r}, which is not measured")
        for row in self.rows:
            for what, other in (("repeats", row.repeats), ("base", row.base)):
                if other is not None and (other not in names or self.row(other).repeats is not None):
                    raise ValueError(
                        f"{what} of row {row.name!r} is {other!r}, which is no row with a result of its own"
                    )
            if row.tuned_as is None:
                continue
            if self.tuning is None or row.tuned_as not in names or self.row(row.tuned_as).tuned_as is not None:
                raise ValueError(f"row {row.name!r} is tuned as {row.tuned_as!r}, which is no row that is searched")
        return self

    def row(self, name: str) -> SuiteRow:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def id(self) -> str:
        """Name and version, as `main@1`."""
        return f"{self.name}@{self.version}"

    @property
    def is_own(self) -> bool:
        """Whether it was read from a file that the registry does not list, which may change under its name."""
        return self._file is not None

    @property
    def reference(self) -> str:
        """What `--suite` takes: its name, or the file that it was read from where the registry has none of it."""
        return self._file or self.name


def load_suite(reference: str) -> Suite:
    """Read a suite that the registry lists, by its name, or any other from a .toml file.

    Raises:
        RegistryError: there is no such suite, its file is missing or invalid, or it has the name of a listed one.
    """
    listed = {suite.name: suite for suite in load_registry().suites}
    if reference in listed:
        return _read(packaged_file(listed[reference].file))
    if not reference.endswith(".toml"):
        known = f"Suites: {', '.join(listed)}; or give a .toml file of your own."
        raise RegistryError(f"No suite {reference!r}.{did_you_mean(reference, list(listed))} {known}")
    suite = _read(Path(reference))
    if suite.name in listed:
        raise RegistryError(f"Suite file '{reference}' is called {suite.name!r} as one of ufe's own: rename it.")
    suite._file = reference
    return suite


def _read(path: Path) -> Suite:
    try:
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RegistryError(f"Suite file '{path}' cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = f", field {'.'.join(map(str, first['loc']))}" if first["loc"] else ""
        raise RegistryError(f"Suite file '{path}'{field}: {first['msg'].removeprefix('Value error, ')}.") from error
