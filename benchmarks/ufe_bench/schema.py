"""The result file, `ufe.result/2`: what one run measured, and what is needed to judge it and make it again.

`key` holds every choice that can move a number. `run_id` is its hash, so a result names its own provenance,
and running the same again overwrites the same file. Floats are stored in full and rounded only when printed.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ufe_bench.aggregate import Summary, summarise_all
from ufe_bench.enrolment import Enrolment
from ufe_core.errors import DataError
from ufe_core.store import fingerprint, write_atomic

SCHEMA: Literal["ufe.result/2"] = "ufe.result/2"
# A summary is computed again at load; sums may differ in the last bits between machines, never more.
SUMMARY_TOLERANCE = 1e-9
_STEADY = 3.0  # p99 to p50; on an idle machine it is below 2

ComponentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """Base of every part of a result: frozen, no unknown fields, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Split(Record):
    """The people a run is measured on."""

    id: str = Field(pattern=r"^[A-Za-z0-9][\w./-]*$", description="Its name and part, as 'synthetic.test'")
    sha256: str = Field(description="Hash of the subject list")
    subjects: Positive = Field(description="How many people the split has; fewer results make a run incomplete")


class ComponentRecord(Record):
    """A component as it was used: who made it, which version, with which resolved options."""

    id: ComponentId
    dist: str = Field(description="Distribution that provides it")
    version: str
    config: dict[str, Any] = Field(description="Every option with its value, defaults included")
    code_sha256: str = Field(description="Hash of the component's source")


class Components(Record):
    """The parts that a run put together."""

    source: ComponentRecord
    decoder: ComponentRecord
    encoder: ComponentRecord
    calibrator: ComponentRecord | None
    detector: ComponentRecord | None = None
    pretraining: ComponentRecord | None = None
    view_detector: ComponentRecord | None = None
    metrics: tuple[ComponentRecord, ...]

    @property
    def parts(self) -> tuple[ComponentRecord, ...]:
        """All of them."""
        alone = (
            self.source, self.decoder, self.encoder, self.calibrator, self.detector, self.pretraining,
            self.view_detector,
        )  # fmt: skip
        return (*(part for part in alone if part is not None), *self.metrics)


class Budget(Record):
    """How much work made the weights. Rows of different budgets never share a table."""

    name: Literal["smoke", "cpu", "gpu", "paper", "none"] = Field(description="'none': no steps are taken")
    released: bool = Field(description="Whether the weights are those released with ufe")
    people: Count = Field(description="Training people")
    frames: Count = Field(description="Training frames of each person")
    size: Count = Field(description="Side of an input image, px")
    steps: Count = Field(description="Optimiser steps")
    overrides: dict[str, Any] = Field(default_factory=dict, description="Budget fields set by hand")


class Weights(Record):
    """Where the encoder's weights come from."""

    sha256: str | None
    origin: Literal["released", "trained", "none"]
    command: str | None = Field(description="Command that makes them, in its canonical form")


class Data(Record):
    """What was evaluated."""

    fingerprint: str = Field(description="Hash of what decides them: the source's code and options, people, frames")
    version: Positive | None = Field(
        None, description="Version that the source gives its pixels and labels; the code may be another"
    )
    frames: Positive = Field(description="Frames of each subject")
    size: Positive = Field(description="Side of an image as read, px")
    enrolment: Enrolment = Field("own", description="Whose anchors people are enrolled with")
    anchors: tuple[Name, ...] | None = Field(
        None, description="Names of the anchors that the encoder is given, where they are not the default ones"
    )
    render_size: Positive | None = Field(
        None, description="Side of the frontal rendering, px, where the suite is none of ufe's own"
    )

    @property
    def edition(self) -> str:
        """Which pixels and labels these are: equal where results may be compared, given equal options of the source."""
        return f"version {self.version}" if self.version else self.fingerprint


class RunKey(Record):
    """Every choice that can move a number, and nothing else."""

    suite: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*@\d+$", description="Suite and its version, as 'main@1'")
    split: Split
    protocol: Positive = Field(description="Version of the measuring itself")
    seed: int
    components: Components
    budget: Budget
    weights: Weights
    data: Data


class SubjectResult(Record):
    """One person: the mean over frames of each metric."""

    id: Name
    frames: Count = Field(description="Frames evaluated, failed ones included")
    failed: Count = Field(description="Frames without a usable answer")
    metrics: dict[str, float]
    conditions: dict[str, Any] = Field(default_factory=dict, description="Donning, illumination, glasses …")
    slices: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="The same metrics over some frames: by kind of segment, by condition"
    )


class MetricInfo(Record):
    """How to print a metric and which way is better."""

    label: str
    unit: str | None
    higher_is_better: bool
    temporal: bool = Field(False, description="Of clips: people in whom nothing could be wrong have no value")


class Latency(Record):
    """Time of one encoder call, ms."""

    p50: NonNegative
    p99: NonNegative
    runs: Positive

    @property
    def is_steady(self) -> bool:
        """Whether the machine had time for it: slow calls took no more than three times as long as the usual one."""
        return self.p99 <= _STEADY * self.p50


class Cost(Record):
    """What a run costs. Unknown is None, never 0, and is never ranked."""

    encode_ms: Latency | None = Field(description="Batch of 1, anchors cached, after warm-up; without the detector")
    detect_ms: Latency | None = Field(None, description="What the keypoint detector adds, where there is one")
    enroll_ms: NonNegative | None = Field(description="Once per user")
    parameters: Count | None
    peak_memory_mb: NonNegative | None = Field(description="Most of it while measuring: the GPU's, else resident")
    device: str
    threads: Positive
    batch: Literal[1] = 1
    anchors: Count = Field(description="Cached anchors M")
    size: Count = Field(description="Side of an input image, px")
    timed_in: str | None = Field(
        None,
        description="When the rows of its study were timed in turn, UTC: equal where latencies may be compared; none "
        "where it was timed alone",
    )

    @property
    def is_steady(self) -> bool:
        """Whether its latencies are."""
        return all(one.is_steady for one in (self.encode_ms, self.detect_ms) if one is not None)

    @property
    def latency_ms(self) -> float | None:
        """Median time from images to codes: the encoder's, and its keypoint detector's where it has one."""
        if self.encode_ms is None:
            return None
        return self.encode_ms.p50 + (self.detect_ms.p50 if self.detect_ms is not None else 0.0)


class Environment(Record):
    """The machine and the packages; may move a number only within tolerance."""

    python: str
    torch: str | None
    ufe: str
    platform: str
    cpu: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str] = Field(
        default_factory=dict, description="Versions of what was installed: ufe's dependencies and its plugins"
    )


class MissingFrames(Record):
    """Frames or a whole subject without a number, and why."""

    subject: Name
    frames: Count
    reason: str


class TrainingRecord(Record):
    """Who the weights were trained on, and how long."""

    subjects: Count
    subjects_sha256: str
    seed: int
    steps: Count
    seconds: NonNegative
    device: str
    config: dict[str, Any] = Field(default_factory=dict, description="Every training option, as it was resolved")
    precision: str | None = Field(None, description="Of the networks: float32 or bfloat16")
    pretraining: dict[str, Any] | None = Field(None, description="How it was pre-trained, and on how many people")


class Trial(Record):
    """One trial of the search for a row's training options, on training people alone."""

    training: dict[str, Any] = Field(description="Training options tried")
    score: float | None = Field(
        description="Geometric mean of the metrics over the validation people, of one over those where more is better; "
        "the least is chosen; none if it failed"
    )
    metrics: dict[Name, float] = {}
    weights: str = ""
    failure: str = Field("", description="Why there is no score")

    @model_validator(mode="after")
    def _told(self) -> "Trial":
        if (self.score is None) != bool(self.failure):
            raise ValueError("a trial has a score, or tells of its failure")
        return self


def best_trial(trials: Iterable[Trial]) -> Trial:
    """The one with the least score.

    Raises:
        ValueError: none has a score.
    """
    return min((trial for trial in trials if trial.score is not None), key=lambda trial: trial.score or 0.0)


class Result(Record):
    """A result file."""

    schema_version: Literal["ufe.result/2"] = Field(SCHEMA, alias="schema")
    run_id: str = Field(pattern=r"^[0-9a-f]{12}$")
    key: RunKey
    subjects: tuple[SubjectResult, ...]
    metrics: dict[Name, MetricInfo]
    summary: dict[str, Summary]
    cost: Cost
    environment: Environment
    complete: bool = Field(description="Every subject of the split has every metric and no failed frame")
    missing: tuple[MissingFrames, ...]
    training: TrainingRecord | None
    trials: tuple[Trial, ...] = Field((), description="How the training options were chosen, in the order tried")
    segments: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="The metrics by segment of the performance, means over people"
    )
    hypothetical: bool = Field(False, description="The method is given what no headset could: it takes no rank")
    created: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", description="UTC")
    seconds: NonNegative = Field(description="Wall time of the evaluation")
    command: str = Field(description="Command that makes this file again")

    def values(self, metric: str) -> dict[str, float]:
        """Subject id to value, of the subjects that have `metric`."""
        return {subject.id: subject.metrics[metric] for subject in self.subjects if metric in subject.metrics}


def run_id_of(key: RunKey) -> str:
    """First 12 hex digits of the SHA-256 of the key's canonical JSON."""
    content = key.model_dump(mode="json", by_alias=True)
    del content["data"]["version"]  # told by the fingerprint
    # Ids from before there were such choices stay as they are.
    if key.data.enrolment == "own":
        del content["data"]["enrolment"]
    for late in ("anchors", "render_size"):
        if content["data"][late] is None:
            del content["data"][late]
    for late in ("detector", "pretraining", "view_detector"):
        if content["components"][late] is None:
            del content["components"][late]
    return str(fingerprint(content)[:12])


def make_result(
    key: RunKey,
    subjects: Sequence[SubjectResult],
    *,
    metrics: Mapping[str, MetricInfo],
    cost: Cost,
    environment: Environment,
    created: str,
    seconds: float,
    command: str,
    missing: Sequence[MissingFrames] = (),
    training: TrainingRecord | None = None,
    trials: Sequence[Trial] = (),
    segments: Mapping[str, Mapping[str, float]] | None = None,
    hypothetical: bool = False,
) -> Result:
    """Build a result; `run_id`, `summary` and `complete` are computed, subjects are put in order of id.

    Raises:
        DataError: The parts contradict each other, such as a subject twice or a metric without a description.
    """
    ordered = tuple(sorted(subjects, key=lambda subject: subject.id))
    result = Result(
        schema_version=SCHEMA,
        run_id=run_id_of(key),
        key=key,
        subjects=ordered,
        metrics=dict(metrics),
        summary=summarise_all(ordered, metrics),
        cost=cost,
        environment=environment,
        complete=not _holes(key.split.subjects, ordered, metrics) and not missing,
        missing=tuple(missing),
        training=training,
        trials=tuple(trials),
        segments={name: dict(values) for name, values in (segments or {}).items()},
        hypothetical=hypothetical,
        created=created,
        seconds=seconds,
        command=command,
    )
    _require_consistent(result, "result")
    return result


def load_result(path: Path) -> Result:
    """Read and check a result file; one of an older version is brought to this one's.

    Raises:
        DataError: The file is unreadable, of another schema, or contradicts itself; names file and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
    except OSError as error:
        raise DataError(f"Result file '{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"'{path}' is no whole result file ({error}). Give a .json file that 'ufe bench' wrote."
        ) from error
    found = raw.get("schema") if isinstance(raw, dict) else None
    while isinstance(found, str) and found in _MIGRATIONS:
        raw = _MIGRATIONS[found](raw)
        found = raw["schema"]
    if found != SCHEMA:
        raise DataError(
            f"Result file '{path}', field 'schema': found {found!r}, this ufe reads '{SCHEMA}'"
            f"{''.join(f' and {older!r}' for older in _MIGRATIONS)}. "
            "Run its command again, or use the ufe release that wrote it."
        )
    for field in _non_finite(raw, ""):
        raise DataError(f"Result file '{path}', field '{field}': NaN or infinity; count the frame as failed instead.")
    try:
        result = Result.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"Result file '{path}', field '{field}': {first['msg']}.") from error
    _require_consistent(result, str(path))
    return result


def _from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Version 1 did not say which packages were installed."""
    return {**raw, "schema": "ufe.result/2"}


_MIGRATIONS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"ufe.result/1": _from_1}


def method_slug(result: Result) -> str:
    """A method's name for files: `<owner>__<name>[__calibrator][__pretraining]`."""
    components = result.key.components
    slug = components.encoder.id.replace("/", "__")
    for part in (components.calibrator, components.pretraining):
        if part is not None:
            slug += "__" + part.id.removeprefix("ufe/").replace("/", "__")
    return slug


def result_path(result: Result, folder: Path) -> Path:
    """Where `write_result` puts it."""
    return folder / result.key.suite / method_slug(result) / f"{result.run_id}.json"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a result file, of the version that this ufe reads and writes."""
    schema = Result.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def write_result(result: Result, folder: Path) -> Path:
    """Write a result atomically under `folder` and return its path; an equal run is overwritten."""
    _require_consistent(result, "result")
    path = result_path(result, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = result.model_dump(mode="json", by_alias=True)
    write_atomic(path, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return path


def incomplete_reason(result: Result) -> str | None:
    """Why a run has no rank, in a short sentence; None where it is complete."""
    if result.missing:
        first = result.missing[0]
        more = f" and {len(result.missing) - 1} more" if len(result.missing) > 1 else ""
        return f"subject '{first.subject}' lacks {first.frames} frames ({first.reason}){more}"
    holes = _holes(result.key.split.subjects, result.subjects, result.metrics)
    return holes[0] if holes else None


def _holes(expected: int, subjects: Sequence[SubjectResult], metrics: Mapping[str, MetricInfo]) -> list[str]:
    wanted = [name for name, info in metrics.items() if not info.temporal]
    found = [f"{len(subjects)} of {expected} subjects"] if len(subjects) < expected else []
    for subject in subjects:
        if subject.failed:
            found.append(f"subject '{subject.id}' failed on {subject.failed} of {subject.frames} frames")
        found.extend(f"subject '{subject.id}' has no {name}" for name in wanted if name not in subject.metrics)
    return found


def _require_consistent(result: Result, where: str) -> None:
    for field, problem in _contradictions(result):
        raise DataError(f"Result file '{where}', field '{field}': {problem}.")


def _contradictions(result: Result) -> Iterator[tuple[str, str]]:
    """Yield (field, problem) for every statement of a result that another one refutes."""
    expected_id = run_id_of(result.key)
    if result.run_id != expected_id:
        yield (
            "run_id",
            f"'{result.run_id}' is not the hash of 'key' ('{expected_id}'): one of them was changed",
        )
    if not result.metrics:
        yield "metrics", "there is none"
    seen: set[str] = set()
    for index, subject in enumerate(result.subjects):
        if subject.id in seen:
            yield f"subjects.{index}.id", f"subject '{subject.id}' appears twice"
        seen.add(subject.id)
        if subject.failed > subject.frames:
            yield f"subjects.{index}.failed", f"{subject.failed} failed of {subject.frames} frames"
        for name in sorted(subject.metrics.keys() - result.metrics.keys()):
            yield f"subjects.{index}.metrics.{name}", "the metric is not described in 'metrics'"
    if len(result.subjects) > result.key.split.subjects:
        yield "subjects", f"{len(result.subjects)} subjects in a split of {result.key.split.subjects}"
    if result.trials and all(trial.failure for trial in result.trials):
        yield "trials", "every trial failed: none can have chosen what was trained with"
    yield from _summary_contradictions(result)
    holes = _holes(result.key.split.subjects, result.subjects, result.metrics)
    if result.complete != (not holes and not result.missing):
        yield "complete", f"is {result.complete}, but {incomplete_reason(result) or 'nothing is missing'}"


def _summary_contradictions(result: Result) -> Iterator[tuple[str, str]]:
    expected = summarise_all(result.subjects, result.metrics)
    for name in sorted(expected.keys() ^ result.summary.keys()):
        yield f"summary.{name}", "does not follow from 'subjects': one has the metric, the other does not"
    for name in sorted(expected.keys() & result.summary.keys()):
        for field, value in expected[name].model_dump().items():
            found = getattr(result.summary[name], field)
            if not _same(found, value):
                yield (
                    f"summary.{name}.{field}",
                    f"{found!r} does not follow from 'subjects', which give {value!r}",
                )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=SUMMARY_TOLERANCE, abs_tol=SUMMARY_TOLERANCE)
    return bool(a == b)


def _non_finite(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield field
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _non_finite(item, f"{field}.{key}" if field else str(key))
