"""What calibration costs at run time: encoding with six cached anchors against no calibration, in one run.

    python benchmarks/perf/calibration_cost.py [--budget cpu|gpu] [--runs 300] [--json]

Both encoders have the same backbone and untrained weights, which do not change the time. Calls alternate, so a
drift of the machine's clock meets both alike. Claim C4 (P§12): anchors add almost nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from ufe_core.interfaces.encoder import Encoder
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.types import AnchorSet, Calibration, CodeSpace, FrameBatch

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
WARM_UP = 30


def prepared(calibrator: str, budget: str) -> tuple[Encoder, Calibration, FrameBatch]:
    """An encoder, a calibration from random anchors, and one random instant."""
    recipe = resolve_recipe(catalogue(), calibrator=calibrator, budget=budget)
    encoder = recipe.make_encoder(CAMERAS, CodeSpace("arkit-52", 52)).eval().to(memory_format=torch.channels_last)
    size, names = recipe.training.size, recipe.anchors
    anchors = torch.randint(0, 256, (1, len(names), len(CAMERAS), size, size), dtype=torch.uint8)
    frame = torch.randint(0, 256, (1, len(CAMERAS), size, size), dtype=torch.uint8)
    calibration = encoder.enroll(AnchorSet.complete(anchors, names, CAMERAS))
    return encoder, calibration, FrameBatch.single_user(frame, CAMERAS)


def main() -> None:
    """Time both in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="cpu", help="whose backbone and image size")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    methods = {name: prepared(name, arguments.budget) for name in ("late_fusion", "none")}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for run in range(WARM_UP + arguments.runs):
        for name, (encoder, calibration, frame) in methods.items():
            start = time.perf_counter()
            encoder.encode(frame, calibration)
            if run >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    paired = statistics.median(a / b for a, b in zip(times["late_fusion"], times["none"], strict=True))
    report = {
        "budget": arguments.budget,
        "threads": torch.get_num_threads(),
        "median_ms": medians,
        "paired_ratio": paired,
    }
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in medians.items():
        print(f"{name:12s} {value:8.3f} ms")
    print(f"late_fusion / none, pair by pair: {paired:.3f}")


if __name__ == "__main__":
    main()
