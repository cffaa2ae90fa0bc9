"""How fast packed frames are read: random batches from a mapped capture against the same gather from memory.

    python benchmarks/perf/loader.py [--frames 2000] [--cameras 8] [--size 192] [--batch 16] [--repeats 21] [--json]

Packs random frames into a temporary folder, then reads the same random batches in turn: a gather from a tensor in
memory (the bound), the packed capture in this thread, and the packed capture with prefetching threads as training
reads it. Rounds alternate, so a drift of the machine's clock meets all alike. The page cache is warm and every
frame has been checked once; what that first check costs, and opening, is printed apart. Target: 0.8 x the bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ufe_core.config import ComponentConfig
from ufe_core.interfaces.source import Capture, FrameLabels, HMCSource, Segment
from ufe_core.packed import PackedCapture, PackRequest, open_packed, pack, verify_packed
from ufe_core.store import Store
from ufe_core.training.prefetch import prefetched

TARGET = 0.8


class NoiseCapture(Capture):
    """Random frames: what no compression or page sharing can make cheaper."""

    id, subject, cameras, anchors, conditions = "noise/0", "noise", (), {}, {}

    def __init__(self, frames: int) -> None:
        self.segments = (Segment("noise", 0, frames),)

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        """Noise that depends on the frame alone."""
        shape = (len(cameras), size, size)
        return np.stack([np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in indices])

    def labels(self, indices: Sequence[int]) -> FrameLabels:
        """Zeros."""
        return FrameLabels(np.zeros((len(indices), 52), np.float32), np.zeros((len(indices), 6), np.float32))

    def neutral(self) -> None:
        """Nothing."""


class NoiseSource(HMCSource[ComponentConfig]):
    """One capture of noise."""

    fingerprint = "noise"

    def __init__(self, frames: int) -> None:
        super().__init__(ComponentConfig())
        self._capture = NoiseCapture(frames)

    def subjects(self) -> tuple[str, ...]:
        """The one subject."""
        return ("noise",)

    def captures(self, subjects: Sequence[str], *, session: int = 0) -> list[Capture]:
        """The one capture."""
        return [self._capture]


def readers(packed: PackedCapture) -> dict[str, Callable[[list[np.ndarray]], int]]:
    """The ways to read batches of rows; each gives the number of frames it read."""
    memory = torch.from_numpy(np.array(packed.images))

    def from_memory(batches: list[np.ndarray]) -> int:
        return sum(len(memory.index_select(0, torch.from_numpy(rows))) for rows in batches)

    def mapped(batches: list[np.ndarray]) -> int:
        return sum(len(torch.from_numpy(packed.images[rows])) for rows in batches)

    def threads(count: int) -> Callable[[list[np.ndarray]], int]:
        def read(batches: list[np.ndarray]) -> int:
            ready = prefetched(lambda k: torch.from_numpy(packed.images[batches[k]]), 0, len(batches), threads=count)
            return sum(len(frames) for _, frames in ready)

        return read

    return {"memory": from_memory, "mapped": mapped, "mapped, 1 thread": threads(1), "mapped, 2 threads": threads(2)}


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time all readers in turn and print their ratios to a gather from memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("frames", 2000), ("cameras", 8), ("size", 192), ("batch", 16), ("batches", 60)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cameras = tuple(f"camera_{k}" for k in range(options.cameras))
    request = PackRequest(options.frames, options.size, cameras, ())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store, source, once = Store(folder), NoiseSource(options.frames), {}
        once["pack"] = timed(lambda: pack(source, ["noise"], request, store=store))
        path = pack(source, ["noise"], request, store=store)[0].path
        size = sum(file.stat().st_size for file in path.iterdir())
        once["verify"] = timed(lambda: verify_packed(path))
        once["open"] = timed(lambda: open_packed(path))
        packed = open_packed(path)
        once["first check of every frame"] = timed(packed.check)
        rates = rates_of(readers(packed), options)
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, rates["memory"], strict=True))
        for name, values in rates.items()
    }
    report = {
        "bytes": size,
        "once_s": once,
        "frames_per_s": {name: {"median": statistics.median(v), "min": min(v)} for name, v in rates.items()},
        "paired_ratio_to_memory": ratios,
        "target": TARGET,
        "met": max(ratio for name, ratio in ratios.items() if "thread" in name) >= TARGET,
    }
    print(json.dumps(report) if options.json else as_text(report))


def rates_of(ways: dict[str, Callable[[list[np.ndarray]], int]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Frames per second of each way in each repeat; the first two repeats warm up."""
    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(options.repeats + 2):
        batches = [rng.integers(0, options.frames, options.batch) for _ in range(options.batches)]
        for name, read in ways.items():
            seconds = timed(partial(read, batches))
            if repeat >= 2:
                rates[name].append(options.batch * options.batches / seconds)
    return rates


def as_text(report: dict[str, object]) -> str:
    """The report for people."""
    once, rates, ratios = report["once_s"], report["frames_per_s"], report["paired_ratio_to_memory"]
    assert isinstance(once, dict) and isinstance(rates, dict) and isinstance(ratios, dict)
    lines = [f"{report['bytes'] / 1e6:.0f} MB; " + ", ".join(f"{name} {s:.3f} s" for name, s in once.items())]  # type: ignore[operator]
    for name, rate in rates.items():
        lines.append(f"{name:18s} {rate['median']:9,.0f} frames/s (min {rate['min']:9,.0f})  x {ratios[name]:.2f}")
    return "\n".join([*lines, f"target {report['target']}: {'met' if report['met'] else 'missed'}"])


if __name__ == "__main__":
    main()
