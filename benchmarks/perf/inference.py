"""How fast one instant is encoded, against the bare backbones: as trained, live in torch, live in ONNX Runtime.

    python benchmarks/perf/inference.py [--budget cpu|gpu] [--size 192] [--blocks 20] [--compile] [--json]

Variants take turns in blocks of calls, whose first ones do not count: runtimes that spin threads disturb each other
call by call, and a clock that drifts meets all alike. Ratios are of medians of neighbouring blocks. `bare backbones` is
the eager forward pass of the two timm networks on the same four images, and nothing else. `of peak` compares the
multiplications and additions that the backbones need in a second with those of a large matrix product, the limit of the
machine. On a GPU `live` is one CUDA graph. Weights are untrained, which does not change the time.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ufe_core.inference.live import EncoderStep, LiveEncoder, Runtime, for_inference
from ufe_core.interfaces.encoder import Encoder
from ufe_core.plugins import catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, resolve_recipe
from ufe_core.types import AnchorSet, Calibration, CodeSpace, FrameBatch

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
BLOCK, SKIPPED = 25, 5
BARE = "bare backbones"
PRODUCT, SIDE = "matrix product", 1536
#: Variants, and the same without anchors.
WITHOUT = {
    "as trained": "as trained, no anchors", "live, torch": "live, torch, no anchors",
    "live, onnx": "live, onnx, no anchors",
}  # fmt: skip


def enrolled(
    budget: str, size: int | None, device: torch.device, anchors: tuple[str, ...]
) -> tuple[Encoder[Any], Calibration]:
    """An encoder, and a calibration from random anchors."""
    overrides = {"training": {"size": size}} if size else None
    recipe = resolve_recipe(catalogue(), calibrator="late_fusion", budget=budget, anchors=anchors, overrides=overrides)
    encoder = recipe.make_encoder(CAMERAS, CodeSpace("upm", 256)).eval().to(device, memory_format=torch.channels_last)
    side = encoder.needs.size
    images = torch.randint(0, 256, (1, len(anchors), len(CAMERAS), side, side), dtype=torch.uint8, device=device)
    return encoder, encoder.enroll(AnchorSet.complete(images, anchors, CAMERAS))


def bare_backbones(encoder: Encoder[Any], device: torch.device) -> Callable[[], Any]:
    """Two timm networks on two images each, as timm makes them."""
    import timm

    made = [
        timm.create_model(
            encoder.config.backbone, pretrained=False, in_chans=1, num_classes=0, **encoder.config.backbone_options
        ).eval().to(device)
        for _ in range(2)
    ]  # fmt: skip
    images = torch.randn(2, 1, encoder.needs.size, encoder.needs.size, device=device)
    return lambda: [network(images) for network in made]


def variants(budget: str, size: int | None, device: torch.device, compiled: bool) -> dict[str, Callable[[], Any]]:
    """What is timed: each encodes the same instant."""
    encoder, calibration = enrolled(budget, size, device, DEFAULT_ANCHORS)
    without, nothing = enrolled(budget, size, device, ())
    side = encoder.needs.size
    images = torch.randint(0, 256, (1, len(CAMERAS), side, side), dtype=torch.uint8, device=device)
    frames, kept = FrameBatch.single_user(images, CAMERAS), list(calibration.tensors.values())
    made: dict[str, Callable[[], Any]] = {
        BARE: bare_backbones(encoder, device), "as trained": lambda: encoder.encode(frames, calibration),
        WITHOUT["as trained"]: lambda: without.encode(frames, nothing),
    }  # fmt: skip
    runtimes: tuple[Runtime, ...] = ("torch", "onnx") if device.type == "cpu" else ("torch",)
    for runtime in runtimes:
        name = f"live, {runtime}"
        made[name] = partial(LiveEncoder(encoder, calibration, runtime=runtime), images)
        made[WITHOUT[name]] = partial(LiveEncoder(without, nothing, runtime=runtime), images)
    if compiled:
        fast = torch.compile(EncoderStep(for_inference(encoder), list(calibration.tensors)).eval())
        made["folded, torch.compile"] = lambda: fast(images, *kept)
    square = torch.randn(SIDE, SIDE, device=device)
    made[PRODUCT] = lambda: square @ square
    return made


def operations(call: Callable[[], Any]) -> int:
    """Multiplications and additions of a call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def measured(calls: dict[str, Callable[[], Any]], device: torch.device, blocks: int) -> dict[str, np.ndarray]:
    """Milliseconds of each call, [blocks, calls that count]."""
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    for _ in range(blocks + 1):
        for name, call in calls.items():
            block = []
            for _ in range(BLOCK):
                start = time.perf_counter()
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                block.append((time.perf_counter() - start) * 1000)
            times[name].append(block[SKIPPED:])
    return {name: np.array(values[1:]) for name, values in times.items()}


def main() -> None:
    """Time all in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="cpu", help="whose backbone and image size")
    parser.add_argument("--size", type=int, help="side of the images, instead of the budget's")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes a minute")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.inference_mode():
            calls = variants(arguments.budget, arguments.size, device, arguments.compile)
            times = measured(calls, device, arguments.blocks)
        needed = operations(bare_backbones(enrolled(arguments.budget, arguments.size, device, ())[0], device))
    middle = {name: np.median(values, 1) for name, values in times.items()}

    def ratio(name: str, to: str) -> float:
        return float(np.median(middle[name] / middle[to]))

    report = {
        "budget": arguments.budget, "size": arguments.size, "device": str(device), "threads": torch.get_num_threads(),
        "median_ms": {name: float(np.median(values)) for name, values in times.items()},
        "p99_to_median": {name: float(np.quantile(v, 0.99) / np.median(v)) for name, v in times.items()},
        "to_bare_backbones": {name: ratio(name, BARE) for name in times},
        "of_peak": {name: needed / (2 * SIDE**3) * ratio(PRODUCT, name) for name in times if name != PRODUCT},
        "anchors_6_to_0": {name: ratio(name, other) for name, other in WITHOUT.items() if name in times},
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"{'':28s} {'median ms':>9s} {'/ bare':>7s} {'of peak':>8s} {'p99 / median':>13s}")
    for name, share in report["of_peak"].items():
        value, tail = report["median_ms"][name], report["p99_to_median"][name]
        print(f"{name:28s} {value:9.2f} {report['to_bare_backbones'][name]:7.2f} {share:8.2f} {tail:13.2f}")
    for name, value in report["anchors_6_to_0"].items():
        print(f"six anchors / none, {name}: {value:.3f}")


if __name__ == "__main__":
    main()
