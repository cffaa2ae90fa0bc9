"""Does the warp of masked pre-training align people and keep what they do (P§6.6, claim C28)?

    python benchmarks/alignment.py [--pretraining mae_original_view] [--people 24] [--frames 24] [--budget cpu]
                                   [--set KIND.OPTION=VALUE] [--json]

The template and the detector are those of the pre-training, which is made first where it is not there. Measured with
exact keypoints, which follow the warp, on the next people without labels: neither it nor the detector has seen them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufe_core.cli.progress import TrainingDisplay
from ufe_core.config import parse_overrides
from ufe_core.packed import PackRequest, pack
from ufe_core.plugins import catalogue
from ufe_core.recipe import OWNERS, resolve_recipe, unlabelled_people
from ufe_core.store import Store
from ufe_core.training.pretrain import pretrained
from ufe_pretraining.masked import NovelView

REST, LIPS = "neutral", "lip_inner"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretraining", default="mae_novel_view", help="or mae_original_view: of the tracking views")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--budget", default="cpu")
    parser.add_argument("--set", action="append", default=[], help="as of 'ufe pretrain run'")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    recipe = resolve_recipe(
        catalogue(), pretraining=arguments.pretraining, budget=arguments.budget,
        overrides=parse_overrides(arguments.set, owners=OWNERS),
    )  # fmt: skip
    store = Store()
    with TrainingDisplay() as listener:
        method = pretrained(recipe, store=store, device=torch.device("cpu"), listener=listener).method
    assert isinstance(method, NovelView) and recipe.view_detector is not None
    detector = recipe.view_detector.spec.load()(recipe.view_detector.config)
    headset_only, people = unlabelled_people(recipe.source, method.config.people + arguments.people)
    source, people = recipe.source.spec.load()(headset_only.config), people[method.config.people :]
    request = PackRequest(
        arguments.frames, method.size, method.view_names, (REST,), session=0, extras=("keypoints",)
    )  # fmt: skip
    before, after = [], []
    for capture in pack(source, people, request, store=store):
        exact = torch.from_numpy(np.array(capture.extras["keypoints"][:]))
        before.append(exact)
        after.append(method.canonical.carried(exact, detector.detect(torch.from_numpy(np.array(capture.images[:])))))
    names = [one.names for one in detector.keypoints]
    rest = capture.anchor_rows[REST]
    report = {
        name: {
            "spread_px": spread([points[rest, k] for points in before], [points[rest, k] for points in after]),
            "opening": opening([p[:, k] for p in before], [p[:, k] for p in after], names[k]),
        }
        for k, name in enumerate(method.view_names)
    }
    print(json.dumps(report, indent=1) if arguments.json else as_text(report))


def spread(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[float]:
    """How far points [P, 2] of people are from their mean place, on the mean, before and after the warp."""
    pairs = torch.stack(list(before)), torch.stack(list(after))
    return [float(torch.linalg.vector_norm(points - points.mean(0), dim=-1).mean()) for points in pairs]


def opening(before: Sequence[Tensor], after: Sequence[Tensor], names: Sequence[str]) -> dict[str, float] | None:
    """How the opening of the mouth before and after the warp correlate, over all frames and within a person.

    `left` is how much of its deviation within a person is left: a warp may keep its order and yet shut every mouth.
    """
    rows = [k for k, name in enumerate(names) if name.startswith(LIPS)]
    if not rows:
        return None
    heights = [[np.ptp(points[:, rows, 1].numpy(), 1) for points in side] for side in (before, after)]
    within = [np.corrcoef(one, other)[0, 1] for one, other in zip(*heights, strict=True)]
    over_all = np.corrcoef(*(np.concatenate(side) for side in heights))[0, 1]
    left = [other.std() / one.std() for one, other in zip(*heights, strict=True)]
    return {
        "all": float(over_all), "within_a_person": float(np.mean(within)), "least": float(np.min(within)),
        "left": float(np.mean(left)),
    }  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """A line for each view."""
    lines = []
    for name, view in report.items():
        first, last = view["spread_px"]
        line = f"{name:20} spread of people at rest {first:.2f} px, after the warp {last:.2f} px ({last / first:.2f} x)"
        if view["opening"] is not None:
            kept = view["opening"]
            line += f"; opening of the mouth: r {kept['all']:.3f}, within a person {kept['within_a_person']:.3f}"
            line += f" (least {kept['least']:.3f}), {kept['left']:.2f} x as much"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
