"""Results built by hand: every number below is chosen, none was measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ufe_bench.schema import (
    Budget,
    ComponentRecord,
    Components,
    Cost,
    Data,
    Environment,
    Latency,
    MetricInfo,
    MissingFrames,
    Result,
    RunKey,
    Split,
    SubjectResult,
    TrainingRecord,
    Weights,
    make_result,
)

METRICS = {
    "photometric_l1": MetricInfo(label="Photometric L1", unit=None, higher_is_better=False),
    "mesh_l2": MetricInfo(label="Mesh L2", unit="mm", higher_is_better=False),
    "gaze": MetricInfo(label="Gaze", unit="deg", higher_is_better=False),
}
BUDGETS: Mapping[str, dict[str, Any]] = {
    "none": {"people": 0, "frames": 0, "size": 0, "steps": 0},
    "smoke": {"people": 4, "frames": 16, "size": 64, "steps": 20},
    "cpu": {"people": 234, "frames": 36, "size": 96, "steps": 6000},
    "gpu": {"people": 234, "frames": 512, "size": 192, "steps": 40000},
}


def component(id: str, **config: Any) -> ComponentRecord:
    return ComponentRecord(id=id, dist="ufe", version="0.1.0", config=config, code_sha256="c0de" * 16)


def build_result(
    encoder: str = "ufe/univ",
    calibrator: str | None = "ufe/late_fusion",
    *,
    mesh: Sequence[float] = (0.5, 0.75, 1.0, 1.75),
    values: Mapping[str, Sequence[float]] | None = None,
    metrics: Mapping[str, MetricInfo] = METRICS,
    budget: str = "cpu",
    released: bool = False,
    overrides: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    latency: tuple[float, float] | None = (4.0, 6.0),
    parameters: int | None = 1_518_406,
    missing: Sequence[MissingFrames] = (),
    failed: int = 0,
    people: int | None = None,
    data: str = "da7a" * 16,
    suite: str = "main@1",
    seed: int = 0,
    device: str = "Example CPU",
    created: str = "2026-01-02T03:04:05Z",
) -> Result:
    """A result over `len(mesh)` subjects; the other metrics follow from `mesh` unless `values` gives them."""
    if values is None:
        values = {"mesh_l2": mesh, "photometric_l1": [2 * v for v in mesh], "gaze": [4 * v for v in mesh]}
    count = len(next(iter(values.values())))
    floor = encoder in ("ufe/neutral", "ufe/mean")
    subjects = [
        SubjectResult(
            id=f"S{index:03d}",
            frames=24,
            failed=failed if index == 0 else 0,
            metrics={name: float(column[index]) for name, column in values.items()},
            conditions={"glasses": index % 3 == 0},
        )
        for index in range(count)
    ]
    key = RunKey(
        suite=suite,
        split=Split(id="synthetic-test", sha256="5911" * 16, subjects=people or count),
        protocol=1,
        seed=seed,
        components=Components(
            source=component("ufe/synthetic"),
            decoder=component("ufe/blendshape"),
            encoder=component(encoder, **(config or {})),
            calibrator=component(calibrator) if calibrator else None,
            metrics=tuple(component(f"ufe/{name}") for name in metrics),
        ),
        budget=Budget(
            name="none" if floor else budget,  # type: ignore[arg-type]
            released=released,
            overrides=dict(overrides or {}),
            **BUDGETS["none" if floor else budget],
        ),
        weights=Weights(sha256=None, origin="none", command=None)
        if floor
        else Weights(
            sha256="5ea1" * 16,
            origin="released" if released else "trained",
            command=f"ufe train --encoder {encoder} --budget {budget}",
        ),
        data=Data(fingerprint=data, frames=24, size=192),
    )
    return make_result(
        key,
        subjects,
        metrics=metrics,
        cost=Cost(
            encode_ms=Latency(p50=latency[0], p99=latency[1], runs=200) if latency else None,
            enroll_ms=None if floor else 31.5,
            parameters=parameters,
            peak_memory_mb=None,
            device=device,
            threads=2,
            anchors=6,
            size=96,
        ),
        environment=Environment(
            python="3.11.9",
            torch="2.5.0",
            ufe="0.1.0",
            platform="Linux",
            cpu=device,
            commit="abc1234",
            dirty=False,
        ),
        missing=missing,
        training=None
        if floor
        else TrainingRecord(
            subjects=234, subjects_sha256="7ea1" * 16, seed=0, steps=6000, seconds=1100.5, device=device
        ),
        created=created,
        seconds=61.25,
        command=f"ufe bench --encoder {encoder} --budget {budget}"
        + (f" --calibrator {calibrator}" if calibrator else ""),
    )


@pytest.fixture(name="build_result")
def build_result_fixture() -> Callable[..., Result]:
    """The factory, for tests: pytest's importlib mode gives test files nothing to import it from."""
    return build_result
