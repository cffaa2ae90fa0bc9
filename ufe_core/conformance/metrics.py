"""Rules of metrics."""

from __future__ import annotations

from typing import Any

import torch

from ufe_core.conformance import props
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import require, rule
from ufe_core.interfaces.metric import Driven, Metric

_FRAMES = 6


def made(candidate: Candidate) -> Metric[Any]:
    """The metric, on the made-up mesh."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:14, 2:14] = True
    metric: Metric[Any] = candidate.factory(candidate.config, topology=props.topology(), face_mask=mask)
    return metric


def driven(seed: int, count: int = _FRAMES) -> Driven:
    """An avatar in some frames."""
    neutral = torch.from_numpy(props.mesh())
    image = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Driven(neutral + props.drawn(count, props.VERTICES, 3, seed=seed), props.gazes(count, seed), image, neutral)


def _part(one: Driven, rows: slice) -> Driven:
    assert one.image is not None
    return Driven(one.geometry[rows], one.gaze[rows], one.image[rows], one.neutral)


@rule("metric", "it says what it is called, its unit, and what it needs")
def says_what_it_is(candidate: Candidate) -> None:
    for name in ("label", "unit", "needs"):
        require(hasattr(candidate.factory, name), f"{candidate.factory.__name__} does not set `{name}`")
    unknown = set(candidate.factory.needs) - {"geometry", "gaze", "image"}
    require(not unknown, f"`needs` names {', '.join(sorted(unknown))}; there are geometry, gaze and image")


@rule("metric", "it reads nothing that it does not say it needs")
def reads_what_it_says(candidate: Candidate) -> None:
    metric, truth = made(candidate), driven(1)
    if "image" not in metric.needs:
        bare = [Driven(one.geometry, one.gaze, None, one.neutral) for one in (driven(0), truth)]
        metric.errors(*bare)
    if "gaze" not in metric.needs:
        other = driven(0)
        turned = Driven(other.geometry, props.gazes(_FRAMES, 9), other.image, other.neutral)
        apart = (metric.errors(other, truth) - metric.errors(turned, truth)).abs()
        require(not len(apart) or apart.max() == 0, "another gaze changes it, and `needs` has no 'gaze'")


@rule("metric", "the truth itself has no error, and nothing has less")
def truth_is_best(candidate: Candidate) -> None:
    metric = made(candidate)
    best, worse = metric.errors(driven(1), driven(1)), metric.errors(driven(0), driven(1))
    if not len(best) or not len(worse):  # of a clip in which nothing could be wrong
        return
    if metric.higher_is_better:
        require(float(best.min()) >= float(worse.max()) - 1e-9, "something is better than the truth itself")
    else:
        require(best.abs().max() < 1e-4, f"the truth has an error of {float(best.abs().max()):.3g}")
        require(worse.min() >= 0, "an error is negative")


@rule("metric", "a frame's error does not depend on the frames beside it; one that looks at clips says `temporal`")
def frames_stand_alone(candidate: Candidate) -> None:
    metric = made(candidate)
    if metric.temporal:
        return
    predicted, truth = driven(0), driven(1)
    together = metric.errors(predicted, truth)
    rows = [slice(k, k + 1) for k in range(_FRAMES)]
    alone = torch.cat([metric.errors(_part(predicted, row), _part(truth, row)) for row in rows])
    require((together - alone).abs().max() < 1e-5, "errors change with the batch: say `temporal = True`, or look at "
            "each frame by itself")  # fmt: skip


@rule("metric", "its mean over batches is the mean over frames, and a reset forgets")
def batches_add_up(candidate: Candidate) -> None:
    metric, predicted, truth = made(candidate), driven(0), driven(1)
    whole = metric.errors(predicted, truth)
    parts = [slice(0, _FRAMES)] if metric.temporal else [slice(0, 2), slice(2, _FRAMES)]
    for shown in (truth, predicted):  # what was before the reset must not count
        metric.reset()
        for rows in parts:
            metric.update(_part(shown, rows), _part(truth, rows))
    expected = whole.mean() if len(whole) else torch.zeros((), dtype=torch.float64)
    require((metric.compute() - expected).abs() < 1e-6, "`compute` is not the mean of the errors of all frames")
