"""Rules of calibrators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ufe_core.conformance import props
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import Broken, require, rule
from ufe_core.interfaces.calibrator import Calibrator

_CHANNELS, _CELLS, _CLOSE = 8, 4, 2e-4


def made(candidate: Candidate, anchors: int = 3, *, seed: int = 0) -> Calibrator[Any]:
    """The calibrator, for maps of eight channels, or for images where it stands before the network."""
    torch.manual_seed(seed)
    channels = 1 if candidate.factory.stage == "images" else _CHANNELS
    calibrator: Calibrator[Any] = candidate.factory(candidate.config, channels=channels, anchors=anchors)
    return calibrator.eval()


def _maps(calibrator: Calibrator[Any], *shape: int, seed: int = 0) -> Tensor:
    return props.drawn(*shape, calibrator.channels, _CELLS, _CELLS, seed=seed)


def _said(calibrator: Calibrator[Any], users: int = 2, rows: Tensor | None = None, present: Tensor | None = None,
          held: Tensor | None = None) -> Tensor:  # fmt: skip
    count = calibrator.anchors
    held = _maps(calibrator, users, count, seed=5) if held is None else held
    present = torch.ones(users, count, dtype=torch.bool) if present is None else present
    cached = calibrator.precompute(held, present)
    rows = torch.arange(users) if rows is None else rows
    made: Tensor = calibrator(
        _maps(calibrator, len(rows), seed=9), {name: value[rows] for name, value in cached.items()}
    )
    return made


@rule("calibrator", "maps keep their size, and have the channels that `outputs` says")
@torch.no_grad()
def keeps_the_shape(candidate: Candidate) -> None:
    for anchors in (0, 1, 3):
        calibrator = made(candidate, anchors)
        found = tuple(_said(calibrator).shape)
        expected = (2, calibrator.outputs, _CELLS, _CELLS)
        require(found == expected, f"with {anchors} anchors `forward` gave {list(found)}, expected {list(expected)}")


@rule("calibrator", "what is kept of a user depends on the anchors alone, and has a row for each user")
@torch.no_grad()
def keeps_a_row_for_each_user(candidate: Candidate) -> None:
    calibrator = made(candidate)
    held = _maps(calibrator, 2, 3, seed=5)
    present = torch.ones(2, 3, dtype=torch.bool)
    both = calibrator.precompute(held, present)
    for name, value in both.items():
        require(value.shape[0] == 2, f"`precompute` kept {name!r} of shape {list(value.shape)} for two users")
    second = calibrator.precompute(held[1:], present[1:])
    for name, value in second.items():
        require(
            (value[0].float() - both[name][1].float()).abs().max() < _CLOSE,
            f"{name!r} of a user depends on the users beside them",
        )


@rule("calibrator", "a frame is calibrated as it would be alone")
@torch.no_grad()
def frames_stand_alone(candidate: Candidate) -> None:
    calibrator = made(candidate)
    rows = torch.tensor([1, 0, 1])
    together = _said(calibrator, rows=rows)
    held = _maps(calibrator, 2, 3, seed=5)
    cached = calibrator.precompute(held, torch.ones(2, 3, dtype=torch.bool))
    maps = _maps(calibrator, 3, seed=9)
    alone = [
        calibrator(maps[k : k + 1], {n: v[row : row + 1] for n, v in cached.items()}) for k, row in enumerate(rows)
    ]
    require((together - torch.cat(alone)).abs().max() < _CLOSE, "`forward` mixes the frames of a batch")


@rule("calibrator", "a missing anchor's features are not used")
@torch.no_grad()
def anchors_may_be_missing(candidate: Candidate) -> None:
    calibrator = made(candidate)
    held, present = _maps(calibrator, 2, 3, seed=5), torch.ones(2, 3, dtype=torch.bool)
    present[:, 1] = False
    noise = held.clone()
    noise[:, 1] = 1e3
    apart = (_said(calibrator, present=present, held=held) - _said(calibrator, present=present, held=noise)).abs().max()
    require(apart < _CLOSE, "features of anchors marked as missing change the result: look at `present`")


@rule("calibrator", "one that says it uses anchors does")
@torch.no_grad()
def uses_what_it_says(candidate: Candidate) -> None:
    calibrator = made(candidate)
    for p in calibrator.parameters():  # some begin at nothing
        p.add_(0.1 * props.drawn(p.numel(), seed=3).view_as(p))
    apart = (_said(calibrator) - _said(calibrator, held=_maps(calibrator, 2, 3, seed=6))).abs().max()
    if candidate.factory.uses_anchors:
        require(apart > 1e-7, "other anchors change nothing: say `uses_anchors = False`, and runs load none")
    else:
        require(apart == 0, "`uses_anchors` is False, and yet anchors change the result")


@rule("calibrator", "its state restores it, and gradients reach all of it")
def learns_and_is_restored(candidate: Candidate) -> None:
    calibrator, other = made(candidate), made(candidate, seed=1)
    try:
        other.load_state_dict(calibrator.state_dict())
    except RuntimeError as error:
        raise Broken(f"its own state does not load: {str(error).splitlines()[-1].strip()}") from error
    with torch.no_grad():
        require((_said(calibrator) - _said(other)).abs().max() < 1e-6, "keep everything in parameters and buffers")
    if not any(p.requires_grad for p in calibrator.parameters()):
        return
    present = torch.ones(2, calibrator.anchors, dtype=torch.bool)
    present[0, -1] = False
    _said(calibrator.train(), present=present).square().sum().backward()
    idle = [name for name, p in calibrator.named_parameters() if p.requires_grad and p.grad is None]
    require(not idle, f"no gradient reaches {', '.join(idle)}: use it, or leave it out")
