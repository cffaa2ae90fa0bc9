"""How long a pre-training step takes, loader and losses included, against the bare networks forward and backward.

    python benchmarks/perf/pretraining_step.py [--budget cpu|gpu] [--people 160] [--steps 40] [--json]

A real pre-training by masked novel views runs, and is stopped every few steps for the bare ones: the encoder's two timm
backbones on as many images as a batch has, frames and anchors, and the four U-Nets on as many views, forward and
backward, so that a clock that drifts meets both alike. There are more people than stay open. Those who are not packed
yet are packed first. Target: 1.4.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.store import Store
from ufe_core.training.pretrain import make_method, pretrained
from ufe_core.training.progress import Progress
from ufe_core.training.runs import pick_device, uses_bfloat16

TARGET = 1.4
FIRST, EVERY, BARE = 8, 4, 2  # steps that do not count; steps between the bare ones; how many of these
VIEWS = ("left_eye_front", "right_eye_front", "left_mouth_front", "right_mouth_front")


class BareNetworks:
    """The backbones of both regions and the views' U-Nets, on random numbers in the shapes of a batch."""

    def __init__(self, recipe: Any, device: torch.device) -> None:
        import timm

        encoder, config, size = recipe.encoder.config, recipe.pretraining.config, recipe.training.size
        people = min(config.users, config.people)
        frames = people * config.frames_per_user
        self.backbones = [
            timm.create_model(
                encoder.backbone, pretrained=False, in_chans=1, num_classes=0, **encoder.backbone_options
            ).to(device, memory_format=torch.channels_last)
            for _ in range(2)
        ]  # fmt: skip
        self.images = torch.randn(2 * (frames + people * len(recipe.anchors)), 1, size, size, device=device)
        made = recipe.make_network(("a", "b", "c", "d"), recipe.make_decoder().code_space)
        method: Any = make_method(recipe, made, VIEWS).to(device)
        self.unets = method.networks
        layout = {"memory_format": torch.channels_last}
        self.views = torch.randn(frames, 2, size, size, device=device).contiguous(**layout)
        self.code = torch.randn(frames, made.code_space.size + 6, device=device)
        self.person = torch.randn(frames, *method.person_shape, device=device)
        self.bfloat16 = uses_bfloat16(config.precision, device)

    def step(self) -> float:
        """Seconds of one pass, both ways."""
        self._wait()
        start = time.perf_counter()
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            made = [network(self.images) for network in self.backbones]
            made += [network(self.views, self.code, self.person) for network in self.unets]
        torch.stack([values.float().mean() for values in made]).sum().backward()
        for network in (*self.backbones, *self.unets):
            network.zero_grad()
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
        if progress.stage != "pretrain":
            return
        now = time.perf_counter()
        if self._since is not None and progress.done > FIRST:
            self.steps.append(now - self._since)
        if progress.done >= FIRST and progress.done % EVERY == 0:
            self.passes += [self.bare.step() for _ in range(BARE)]
        self._since = time.perf_counter()


def main() -> None:
    """Pre-train a little, and print medians, their ratio, and frames a second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="cpu")
    parser.add_argument("--people", type=int, default=160)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    options = {"people": arguments.people, "steps": arguments.steps, "picture_every": 10**6}
    recipe = resolve_recipe(
        catalogue(), calibrator="late_fusion", budget=arguments.budget, pretraining="mae_novel_view",
        overrides={"pretraining": options},
    )  # fmt: skip
    device, store = pick_device(arguments.device), Store()
    watch = Watch(BareNetworks(recipe, device))
    made = pretrained(recipe, store=store, device=device, fresh=True, listener=watch)
    store.remove("weights", made.path.parent.name)  # of no use
    config: Any = made.method.config
    frames = min(config.users, config.people) * config.frames_per_user
    step, bare = statistics.median(watch.steps), statistics.median(watch.passes)
    report = {
        "budget": arguments.budget, "device": str(device), "threads": torch.get_num_threads(),
        "step_ms": 1000 * step, "bare_ms": 1000 * bare, "ratio": step / bare, "target": TARGET,
        "frames_per_s": frames / step,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    print(
        f"pre-training step {1000 * step:.0f} ms, {frames / step:.0f} frames/s; bare networks both ways "
        f"{1000 * bare:.0f} ms: {step / bare:.2f} x"
    )


if __name__ == "__main__":
    main()
