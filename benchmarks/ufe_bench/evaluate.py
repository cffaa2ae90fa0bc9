"""Drive each test person's avatar with an encoder's codes and measure how far it is from the truth."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ufe_bench.enrolment import Enrolment, enroll
from ufe_bench.failure import is_the_methods
from ufe_bench.schema import Cost, Latency, MissingFrames, SubjectResult
from ufe_core.errors import MethodError, cause_of
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.metric import Driven, Metric
from ufe_core.packed import PackedCapture
from ufe_core.types import Calibration, CameraSpec, FrameBatch, Identity

if TYPE_CHECKING:
    from ufe_core.recipe import Chosen

#: Version of how errors are measured. 1 took the lips' centres from where they meet.
PROTOCOL = 2
FRAMES_AT_A_TIME = 64
_DONNING_MM = {"donned within 2 mm": 2.0, "donned 2 to 4 mm off": 4.0}  # how far from its place a headset sits
_SPEECH = "speech"  # the kind of segment that clips are of
_WARM_UP, _LATENCY_RUNS = 50, 500
_BLOCKS, _SKIPPED, _BLOCK = 20, 5, 20  # where methods take turns; calls of a block that do not count, and that do


@dataclass(frozen=True)
class Material:
    """What people are measured on, a capture each: spread frames, clips of speech, and both under conditions.

    `kinds` tells the kind of each segment by its name.
    """

    captures: Sequence[PackedCapture]
    clips: Sequence[PackedCapture] = ()
    clip_frames: int = 1
    conditions: Mapping[str, Sequence[PackedCapture]] = field(default_factory=dict)
    condition_clips: Mapping[str, Sequence[PackedCapture]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What the subjects gave: numbers of those that worked, the cause for those that did not, and, of all that worked,
    each metric's mean by segment.
    """

    subjects: list[SubjectResult]
    missing: list[MissingFrames]
    segments: dict[str, dict[str, float]]


class Stage:
    """The avatars of the test people in front of the frontal camera."""

    def __init__(
        self, decoder: Decoder[Any], metrics: dict[str, Metric[Any]], camera: CameraSpec, mask: Tensor,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.decoder, self.camera, self.mask, self.device = decoder, camera, mask, device
        self.metrics = {name: metric.to(device) for name, metric in metrics.items()}
        self._truth: dict[tuple[str, int, int, bool], Driven] = {}

    def identity(self, capture: PackedCapture) -> Identity:
        """A person's identity bias, one row."""
        texture = torch.from_numpy(np.array(capture.texture)).float()[None] / 255
        geometry = torch.from_numpy(np.array(capture.geometry))[None]
        return self.decoder.identity(texture.to(self.device), geometry.to(self.device))

    @torch.inference_mode()
    def drive(self, identity: Identity, expression: Tensor, gaze: Tensor, *, renders: bool) -> Driven:
        """The avatar of one person in B codes, rendered or not; those that are equal are decoded and rendered once."""
        codes, which = torch.unique(torch.cat([expression, gaze], 1), dim=0, return_inverse=True)
        if len(codes) < len(gaze):
            once = self.drive(identity, codes[:, :-6].contiguous(), codes[:, -6:].contiguous(), renders=renders)
            return Driven(once.geometry[which], gaze, None if once.image is None else once.image[which])
        rows = identity.rows(torch.zeros(len(gaze), dtype=torch.int64, device=self.device))
        avatar = self.decoder.decode(expression, gaze, rows)
        image = self.decoder.render(avatar, self.camera, mask=self.mask) if renders else None
        return Driven(avatar.geometry, gaze, image)

    def chosen(self, *, temporal: bool) -> dict[str, Metric[Any]]:
        """The metrics of single frames, or of clips."""
        return {name: metric for name, metric in self.metrics.items() if metric.temporal == temporal}

    def truth(self, capture: PackedCapture, identity: Identity, block: np.ndarray, *, renders: bool) -> Driven:
        """The avatar in the true codes of some rows of a capture; it is kept for the next method."""
        key = (capture.sha256, int(block[0]), len(block), renders)
        if key not in self._truth:
            codes = (torch.from_numpy(np.array(values[block])) for values in (capture.expression, capture.gaze))
            self._truth[key] = self.drive(identity, *(value.to(self.device) for value in codes), renders=renders)
        return self._truth[key]


def evaluate(
    encoder: Encoder[Any], stage: Stage, material: Material, *, enrolment: Enrolment = "own",
    people: Container[str] | None = None, progress: Callable[[int], None] | None = None,
) -> Evaluation:  # fmt: skip
    """Measure an encoder on every person, or on certain ones, one after the other.

    A person on whom the encoder fails is recorded as missing, with the cause; the others go on.
    """
    forget_peak_memory(stage.device)
    subjects: list[SubjectResult] = []
    missing: list[MissingFrames] = []
    segments: dict[str, dict[str, list[float]]] = {}
    for number, capture in enumerate(material.captures):
        if people is not None and capture.subject not in people:
            continue
        count = len(capture.frame_rows)
        try:
            errors = _errors(encoder, stage, material, number, enrolment)
            subjects.append(
                SubjectResult(
                    id=capture.subject, frames=count, failed=0, metrics=_means(errors.all), slices=errors.slices(),
                    conditions=capture.conditions,
                )
            )  # fmt: skip
            for segment, values in errors.segments.items():
                for name, value in _means(values).items():
                    segments.setdefault(segment, {}).setdefault(name, []).append(value)
        except (Exception, SystemExit) as error:  # whatever a plugin does to one person
            if not is_the_methods(error):
                raise
            logging.getLogger("ufe").debug("Subject %r failed", capture.subject, exc_info=True)
            missing.append(MissingFrames(subject=capture.subject, frames=count, reason=cause_of(error)))
        if progress:
            progress(len(subjects) + len(missing))
    means = {segment: {name: fmean(v) for name, v in values.items()} for segment, values in sorted(segments.items())}
    return Evaluation(subjects, missing, means)


@dataclass(frozen=True)
class _Errors:
    """A person's errors by metric, of each frame float64: of all frames, by segment, by kind of it, by condition."""

    all: dict[str, np.ndarray]
    segments: dict[str, dict[str, np.ndarray]]
    kinds: dict[str, dict[str, np.ndarray]]
    conditions: dict[str, dict[str, np.ndarray]]
    where: dict[str, Any]

    def slices(self) -> dict[str, dict[str, float]]:
        """Means by kind of segment and by condition, and of all frames under the light and the donning there was."""
        out = {f"segment:{kind}": _means(values) for kind, values in self.kinds.items()}
        out |= {f"condition:{name}": _means(values) for name, values in self.conditions.items()}
        if "environment" in self.where:
            out[f"light:{self.where['environment']}"] = _means(self.all)
        if "donning_mm" in self.where:
            away = float(self.where["donning_mm"])
            band = next((name for name, most in _DONNING_MM.items() if away < most), "donned over 4 mm off")
            out[f"donning:{band}"] = _means(self.all)
        return out


def _means(errors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of each metric but for those of clips in which nothing could be wrong."""
    return {name: float(values.mean()) for name, values in errors.items() if len(values)}


def _errors(
    encoder: Encoder[Any], stage: Stage, material: Material, number: int, enrolment: Enrolment
) -> _Errors:  # fmt: skip
    """A person's errors."""
    single, temporal = stage.chosen(temporal=False), stage.chosen(temporal=True)
    capture = material.captures[number]
    calibration = enroll(encoder, material.captures, number, stage.device, enrolment)
    errors = _measure(encoder, stage, capture, calibration, single, FRAMES_AT_A_TIME)
    names = np.array([capture.segments[row] for row in capture.frame_rows])
    kinds = np.array([material.kinds.get(name, "") for name in names])

    def parts(labels: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {
            str(label): {name: values[labels == label] for name, values in errors.items()}
            for label in np.unique(labels) if label
        }  # fmt: skip

    segments, of_kinds = parts(names), parts(kinds)
    conditions: dict[str, dict[str, np.ndarray]] = {}
    for condition, captures in material.conditions.items():
        worn = enroll(encoder, captures, number, stage.device, enrolment)
        found = _measure(encoder, stage, captures[number], worn, single, FRAMES_AT_A_TIME)
        if temporal and condition in material.condition_clips:
            clips = material.condition_clips[condition][number]
            found |= _measure(encoder, stage, clips, worn, temporal, material.clip_frames)
        conditions[condition] = found
    if temporal:
        spoken = _measure(encoder, stage, material.clips[number], calibration, temporal, material.clip_frames)
        errors |= spoken
        of_kinds[_SPEECH] = of_kinds.get(_SPEECH, {}) | spoken
    return _Errors(errors, segments, of_kinds, conditions, dict(capture.conditions))


def _measure(
    encoder: Encoder[Any], stage: Stage, capture: PackedCapture, calibration: Calibration,
    metrics: Mapping[str, Metric[Any]], at_a_time: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Errors float64 of each frame of a capture, by metric; temporal metrics are given `at_a_time` frames: a clip."""
    identity = stage.identity(capture)
    neutral = torch.from_numpy(np.array(capture.geometry)).to(stage.device)
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    renders = any("image" in metric.needs for metric in metrics.values())
    rows = capture.frame_rows
    for start in range(0, len(rows), at_a_time):
        block = rows[start : start + at_a_time]
        encoding = encoder.encode(frames_of(capture, block, encoder.needs.cameras).to(stage.device), calibration)
        predicted = replace(stage.drive(identity, encoding.expression, encoding.gaze, renders=renders), neutral=neutral)
        truth = replace(stage.truth(capture, identity, block, renders=renders), neutral=neutral)
        for name, metric in metrics.items():
            try:
                found[name].append(metric.errors(predicted, truth).cpu().numpy())
            except Exception as error:  # whose fault it is must be told
                if not is_the_methods(error):
                    raise
                raise MethodError(f"metric '{name}' failed: {cause_of(error)}") from error
    return {name: np.concatenate(values) for name, values in found.items()}


def frames_of(capture: PackedCapture, rows: np.ndarray, cameras: tuple[str, ...]) -> FrameBatch:
    """Some frames of a capture, with whatever it was prepared with."""
    return FrameBatch.single_user(
        torch.from_numpy(np.array(capture.images[rows])), cameras,
        keypoints=capture.detections and capture.detections.map(lambda value: value[rows]),
        geometry=None if capture.exact_mesh is None else torch.from_numpy(capture.exact_mesh[rows]),
    )  # fmt: skip


def measure_cost(
    encoder: Encoder[Any], capture: PackedCapture, device: torch.device, *, detector: Chosen | None = None
) -> Cost:
    """Latency of one instant (4 images, batch 1) with cached anchors, and of one enrolment (P§13.6, O55).

    Where there is a detector its time is measured by itself, and its parameters count.
    """
    finder = detector.spec.load()(detector.config).to(device) if detector else None
    calls = instant(encoder, capture, device, finder)
    encode, detect = (call and _latency(_time(call, _WARM_UP, _LATENCY_RUNS, device)) for call in calls)
    assert encode is not None
    enrolment = _time(lambda: enroll(encoder, [capture], 0, device), 3, 11, device)
    return Cost(
        encode_ms=encode,
        detect_ms=detect,
        enroll_ms=float(np.median(enrolment)),
        parameters=count_parameters(encoder, finder),
        peak_memory_mb=peak_memory_mb(device),
        device=device_name(device),
        threads=torch.get_num_threads(),
        anchors=len(encoder.needs.anchors),
        size=encoder.needs.size,
    )


def instant(
    encoder: Encoder[Any], capture: PackedCapture, device: torch.device, finder: Any | None
) -> tuple[Callable[[], object], Callable[[], object] | None]:
    """What is timed of a method: to encode one instant with cached anchors, and to find its keypoints, if it does."""
    calibration = enroll(encoder, [capture], 0, device)
    frames = frames_of(capture, np.array([0]), encoder.needs.cameras).to(device)
    return lambda: encoder.encode(frames, calibration), finder and (lambda: finder.detect(frames.images))


def time_in_turn(calls: Sequence[Callable[[], object]], device: torch.device) -> list[Latency]:
    """The latency of each call, all of them timed in alternating blocks: what else the machine does falls on all alike.

    A first round, and the first calls of each block, do not count.
    """
    times: list[list[float]] = [[] for _ in calls]
    for number in range(_BLOCKS + 1):
        for found, call in zip(times, calls, strict=True):
            block = _time(call, _SKIPPED, _BLOCK, device)
            found += block if number else []
    return [_latency(found) for found in times]


def device_name(device: torch.device) -> str:
    """As a result tells of it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def count_parameters(encoder: Encoder[Any], finder: nn.Module | None) -> int:
    """Of a method: its encoder's and, where it needs one, its keypoint detector's."""
    return sum(p.numel() for module in (encoder, finder) if module is not None for p in module.parameters())


def _latency(times: list[float]) -> Latency:
    return Latency(p50=float(np.median(times)), p99=float(np.quantile(times, 0.99)), runs=len(times))


def _time(call: Callable[[], object], warm_up: int, runs: int, device: torch.device) -> list[float]:
    times = []
    for run in range(warm_up + runs):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run >= warm_up:
            times.append((time.perf_counter() - start) * 1000)
    return times


def forget_peak_memory(device: torch.device) -> None:
    """From now on `peak_memory_mb` tells what is used from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float | None:
    """Largest memory since `forget_peak_memory`: a GPU's, else this process's resident size, as far as Linux tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
