"""How long a training step takes, loader and losses included, against the bare networks forward and backward.

    python benchmarks/perf/training_step.py [--budget cpu|gpu] [--people 16] [--steps 60] [--json]

A real training runs, and is stopped every few steps for the bare ones: the two timm backbones on as many images as a
batch has, frames and anchors, forward and backward, so that a clock that drifts meets both alike. People who are not
packed yet are packed first. Target: 1.5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from ufe_core.plugins import catalogue
from ufe_core.recipe import Recipe, resolve_recipe
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.loop import trained
from ufe_core.training.progress import Progress
from ufe_core.training.runs import pick_device, uses_bfloat16

TARGET = 1.5
FIRST, EVERY, BARE = 10, 5, 2  # steps that do not count; steps between the bare ones; how many of these


class BareNetworks:
    """The backbones of both regions, on random images in the number and size of a batch."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        import timm

        config, training = recipe.encoder.config, recipe.training
        instants = min(training.users, training.people) * (training.frames_per_user + len(recipe.anchors))
        self.networks = [
            timm.create_model(
                config.backbone, pretrained=False, in_chans=1, num_classes=0, **config.backbone_options
            ).to(device, memory_format=torch.channels_last)
            for _ in range(2)
        ]  # fmt: skip
        self.images = torch.randn(2 * instants, 1, training.size, training.size, device=device)
        self.bfloat16 = uses_bfloat16(training.precision, device)

    def step(self) -> float:
        """Seconds of one pass, both ways."""
        self._wait()
        start = time.perf_counter()
        for network in self.networks:
            network.zero_grad()
            with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
                features = network(self.images)
            features.float().sum().backward()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)


class Watch:
    """Told of each step: times it, and lets the bare networks run now and then."""

    def __init__(self, bare: BareNetworks) -> None:
        self.bare = bare
        self.steps: list[float] = []
        self.passes: list[float] = []
        self._since: float | None = None

    def __call__(self, progress: Progress) -> None:
        """Take note of a step."""
        if progress.stage != "train":
            return
        now = time.perf_counter()
        if self._since is not None and progress.done > FIRST:
            self.steps.append(now - self._since)
        if progress.done >= FIRST and progress.done % EVERY == 0:
            self.passes += [self.bare.step() for _ in range(BARE)]
        self._since = time.perf_counter()


def main() -> None:
    """Train a little, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="cpu")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    overrides: dict[str, dict[str, Any]] = {"training": {"people": arguments.people, "steps": arguments.steps}}
    recipe = resolve_recipe(catalogue(), calibrator="late_fusion", budget=arguments.budget, overrides=overrides)
    device, store = pick_device(arguments.device), Store()
    subjects = load_registry().splits["synthetic"].train[: arguments.people]
    watch = Watch(BareNetworks(recipe, device))
    made = trained(recipe, subjects, store=store, device=device, fresh=True, listener=watch)
    assert made.path is not None
    store.remove("weights", made.path.parent.name)  # of no use
    step, bare = statistics.median(watch.steps), statistics.median(watch.passes)
    report = {
        "budget": arguments.budget, "device": str(device), "threads": torch.get_num_threads(),
        "step_ms": 1000 * step, "bare_ms": 1000 * bare, "ratio": step / bare, "target": TARGET,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"training step {1000 * step:.0f} ms, bare networks both ways {1000 * bare:.0f} ms: {step / bare:.2f} x")


if __name__ == "__main__":
    main()
