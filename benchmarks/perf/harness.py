"""How long the harness takes to measure a method, against encoding the frames and drawing the avatar alone.

    python benchmarks/perf/harness.py [--people 4] [--repeats 7] [--json]

The default method is measured on some test people, images to errors with their slices; the bare loop encodes the same
frames of the same packed files in the same batches and renders the avatar in the codes. The truth is rendered before
either, as it is once for all methods. They take turns. Test people who are not packed yet are packed first.
Target: 1.2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ufe_bench.enrolment import enroll
from ufe_bench.evaluate import FRAMES_AT_A_TIME, evaluate, frames_of
from ufe_bench.harness import Harness, Ready
from ufe_bench.request import Request
from ufe_bench.suite import load_suite
from ufe_core.plugins import catalogue
from ufe_core.store import Store
from ufe_core.training.runs import pick_device

TARGET = 1.2


def measure(ready: Ready, people: list[str]) -> None:
    """What `ufe bench` does with these people."""
    evaluate(ready.encoder, ready.stage, ready.material, people=people)


@torch.inference_mode()
def bare(ready: Ready, people: list[str]) -> None:
    """Encode and draw, nothing else."""
    encoder, stage, captures = ready.encoder, ready.stage, ready.material.captures
    for number, capture in enumerate(captures):
        if capture.subject in people:
            calibration, identity = enroll(encoder, captures, number, stage.device), stage.identity(capture)
            for start in range(0, len(capture.frame_rows), FRAMES_AT_A_TIME):
                rows = capture.frame_rows[start : start + FRAMES_AT_A_TIME]
                frames = frames_of(capture, rows, encoder.needs.cameras).to(stage.device)
                encoding = encoder.encode(frames, calibration)
                stage.drive(identity, encoding.expression, encoding.gaze, renders=True)


def main() -> None:
    """Time both in turn, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as results:
        harness = Harness(catalogue(), Store(), Path(results), device=device)
        ready = harness.ready(Request(suite=load_suite("main"), calibrator="late_fusion"))
    people = [capture.subject for capture in ready.material.captures[: arguments.people]]
    ways: dict[str, Callable[[Ready, list[str]], Any]] = {"harness": measure, "bare": bare}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run(ready, people)
            if repeat:  # the first renders the truth
                times[name].append(time.perf_counter() - start)
    frames = sum(len(capture.frame_rows) for capture in ready.material.captures[: arguments.people])
    ratio = statistics.median(a / b for a, b in zip(times["harness"], times["bare"], strict=True))
    report = {
        "device": str(device), "threads": torch.get_num_threads(), "people": len(people), "frames": frames,
        "median_s": {name: statistics.median(values) for name, values in times.items()}, "ratio": ratio,
        "target": TARGET,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    seconds = report["median_s"]
    print(f"measuring {frames} frames {seconds['harness']:.1f} s, encoding and drawing alone {seconds['bare']:.1f} s: "
          f"{ratio:.2f} x")  # fmt: skip


if __name__ == "__main__":
    main()
