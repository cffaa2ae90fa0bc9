"""How fast an encoder encodes one instant, by how it is made ready: as it was trained, folded, traced, compiled.

    python benchmarks/perf/inference.py [--budget cpu|gpu] [--runs 200] [--compile] [--json]

Calls of the variants alternate, so a drift of the machine's clock meets all alike; ratios are of pairs of neighbouring
calls. On a GPU `live` is one CUDA graph. Weights are untrained, which does not change the time. Beside it: what M = 6
anchors cost against none, for the same calibrator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from ufe_core.inference.live import EncoderStep, LiveEncoder, for_inference
from ufe_core.interfaces.encoder import Encoder
from ufe_core.plugins import catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, resolve_recipe
from ufe_core.types import AnchorSet, Calibration, CodeSpace, FrameBatch

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
WARM_UP = 30


def enrolled(budget: str, device: torch.device, anchors: tuple[str, ...]) -> tuple[Encoder[Any], Calibration]:
    """An encoder, and a calibration from random anchors."""
    recipe = resolve_recipe(catalogue(), calibrator="late_fusion", budget=budget, anchors=anchors)
    encoder = recipe.make_encoder(CAMERAS, CodeSpace("upm", 256)).eval().to(device, memory_format=torch.channels_last)
    size = recipe.training.size
    images = torch.randint(0, 256, (1, len(anchors), len(CAMERAS), size, size), dtype=torch.uint8, device=device)
    return encoder, encoder.enroll(AnchorSet.complete(images, anchors, CAMERAS))


def variants(budget: str, device: torch.device, compiled: bool) -> dict[str, Callable[[], Any]]:
    """What is timed: each encodes the same instant."""
    encoder, calibration = enrolled(budget, device, DEFAULT_ANCHORS)
    without, nothing = enrolled(budget, device, ())
    size = encoder.needs.size
    images = torch.randint(0, 256, (1, len(CAMERAS), size, size), dtype=torch.uint8, device=device)
    frames, kept = FrameBatch.single_user(images, CAMERAS), list(calibration.tensors.values())
    live, bare = LiveEncoder(encoder, calibration), LiveEncoder(without, nothing)
    made: dict[str, Callable[[], Any]] = {
        "as trained": lambda: encoder.encode(frames, calibration), "live": lambda: live(images),
        "live, no anchors": lambda: bare(images),
    }  # fmt: skip
    step = EncoderStep(for_inference(encoder), list(calibration.tensors)).eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(torch.jit.trace(step, (images, *kept), check_trace=False))
    made["folded, traced and frozen"] = lambda: traced(images, *kept)
    if compiled:
        fast = torch.compile(step)
        made["folded, torch.compile"] = lambda: fast(images, *kept)
    return made


def main() -> None:
    """Time all in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="cpu", help="whose backbone and image size")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes a minute")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    calls = variants(arguments.budget, device, arguments.compile)
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for run in range(WARM_UP + arguments.runs):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if run >= WARM_UP:
                    times[name].append((time.perf_counter() - start) * 1000)
    report = {
        "budget": arguments.budget, "device": str(device), "threads": torch.get_num_threads(),
        "median_ms": {name: statistics.median(values) for name, values in times.items()},
        "to_as_trained": {
            name: statistics.median(a / b for a, b in zip(values, times["as trained"], strict=True))
            for name, values in times.items()
        },
        "anchors_6_to_0": statistics.median(
            a / b for a, b in zip(times["live"], times["live, no anchors"], strict=True)
        ),
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report["median_ms"].items():
        print(f"{name:28s} {value:8.3f} ms  {report['to_as_trained'][name]:.2f} of as trained")
    print(f"six anchors / none: {report['anchors_6_to_0']:.3f}")


if __name__ == "__main__":
    main()
