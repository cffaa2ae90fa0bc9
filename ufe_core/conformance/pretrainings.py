"""Rules of pre-training strategies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ufe_core.conformance import encoders, props
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import NotTried, require, rule
from ufe_core.errors import ConfigError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.pretraining import Pretraining, UnlabelledBatch, Views
from ufe_core.types import Detections

_VIEWS = ("left_view", "right_view", "left_low_view", "right_low_view")


def learner(candidate: Candidate) -> Encoder[Any]:
    """The encoder that is taught: the default one."""
    spec = candidate.catalogue.get("encoder", "ufe/univ")
    return encoders.made(Candidate(spec, candidate.catalogue))


def made(candidate: Candidate, encoder: Encoder[Any], *, seed: int = 0) -> Pretraining[Any]:
    """The method, with what it learns from statistics.

    Raises:
        NotTried: it refuses the encoder or the views, which are of the made-up headset.
    """
    torch.manual_seed(seed)
    views = _VIEWS if candidate.factory.views is not None else ()
    try:
        method: Pretraining[Any] = candidate.factory(candidate.config, encoder=encoder, views=views)
    except ConfigError as error:
        raise props.refused(error) from error
    if views:
        method.fit_statistics([_views(candidate, seed=k) for k in range(3)])
    return method


def _steps(candidate: Candidate) -> None:
    if candidate.factory.learns != "steps":
        raise NotTried(f"it takes no steps (`learns` is {candidate.factory.learns!r})")


def _views(candidate: Candidate, count: int = 2, seed: int = 0) -> Views:
    found: Detections | None = None
    if candidate.factory.detector(candidate.config) is not None:
        found = props.detections(count, seed=seed)
    names = tuple(one.names for one in props.keypoint_names())
    return Views(props.images(count, len(_VIEWS), seed=seed).numpy(), found, names if found is not None else ())


def batch(candidate: Candidate, encoder: Encoder[Any], method: Pretraining[Any]) -> UnlabelledBatch:
    """Two people, two frames each."""
    rows = torch.tensor([0, 0, 1, 1])
    versions = tuple(
        (props.frames(encoder, 4, rows, seed=k), props.anchors(encoder, 2, seed=50 + k)) for k in range(method.versions)
    )
    targets = None
    if candidate.factory.views is not None:
        targets = torch.from_numpy(method.targets(_views(candidate, 4)))
    shape = method.person_shape
    people = None if shape is None else props.drawn(2, *shape).requires_grad_()
    return UnlabelledBatch(versions, targets, torch.arange(2), people)


@rule("pretraining", "it says how it learns, and from which cameras")
def says_what_it_is(candidate: Candidate) -> None:
    factory = candidate.factory
    require(factory.learns in ("nothing", "given", "steps"), f"`learns` is {factory.learns!r}")
    require(factory.views in (None, "tracking", "augmented"), f"`views` is {factory.views!r}")
    require(factory.versions >= 1, f"`versions` is {factory.versions!r}")
    if factory.learns == "steps":
        missing = [n for n in ("people", "frames", "steps", "users") if not hasattr(candidate.config, n)]
        require(not missing, f"its options lack {', '.join(missing)}: derive them from PretrainingConfig")
    if factory.learns == "given":
        require(factory.initialise is not Pretraining.initialise, "`learns` is 'given' and `initialise` gives nothing")


@rule("pretraining", "its loss is a number, and teaches the encoder")
def teaches(candidate: Candidate) -> None:
    _steps(candidate)
    encoder = learner(candidate).train()
    method = made(candidate, encoder).train()
    terms = method.losses(encoder, batch(candidate, encoder, method))
    require("total" in terms, "`losses` must have a term `total`")
    require(all(value.ndim == 0 and bool(torch.isfinite(value)) for value in terms.values()), "a term is no number")
    terms["total"].backward()
    taught = [p for p in encoder.parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)]
    require(taught, "no gradient reaches the encoder: what does it learn?")
    idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    require(not idle, f"no gradient reaches {', '.join(idle[:3])}: use it, or leave it out")


@rule("pretraining", "what it learns of people it learns by gradient")
def learns_of_people(candidate: Candidate) -> None:
    _steps(candidate)
    encoder = learner(candidate)
    method = made(candidate, encoder)
    if method.person_shape is None:
        return
    some = batch(candidate, encoder, method)
    method.losses(encoder, some)["total"].backward()
    assert some.people is not None
    require(some.people.grad is not None and some.people.grad.abs().max() > 0, "`person_shape` is set, and no gradient "
            "reaches a person's row: read it with `batch.person`")  # fmt: skip


@rule("pretraining", "people start as what it learns of them is shaped")
def starts_people(candidate: Candidate) -> None:
    _steps(candidate)
    method = made(candidate, learner(candidate))
    if method.person_shape is None or candidate.factory.views is None:
        return
    start = method.person_start(_views(candidate, 3))
    require(start is None or (start.shape == method.person_shape and bool(np.isfinite(start).all())),
            f"`person_start` must be {list(method.person_shape)} finite numbers, as `person_shape` says")  # fmt: skip


@rule("pretraining", "what it draws is decided by torch's seed")
def is_deterministic(candidate: Candidate) -> None:
    _steps(candidate)
    encoder = learner(candidate)
    method = made(candidate, encoder)
    some, said = batch(candidate, encoder, method), []
    for _ in range(2):
        torch.manual_seed(5)
        said.append(float(method.losses(encoder, some)["total"].detach()))
    require(said[0] == said[1], "the same seed gives two losses: draw with torch's generator alone, or a run that is "
            "killed cannot go on to the same weights")  # fmt: skip


@rule("pretraining", "targets are images of its views, the same each time")
def makes_targets(candidate: Candidate) -> None:
    _steps(candidate)
    if candidate.factory.views is None:
        return
    encoder = learner(candidate)
    method, views = made(candidate, encoder), _views(candidate, 3)
    one = method.targets(views)
    require(one.dtype == np.uint8 and one.shape == views.images.shape, f"targets are {one.dtype} {list(one.shape)}; "
            f"expected uint8 {list(views.images.shape)}")  # fmt: skip
    require(np.array_equal(one, method.targets(views)), "making targets twice differs")


@rule("pretraining", "its state restores it, statistics included")
def is_restored(candidate: Candidate) -> None:
    _steps(candidate)
    encoder = learner(candidate)
    method, other = made(candidate, encoder), made(candidate, encoder, seed=1)
    other.load_state_dict(method.state_dict())
    some, said = batch(candidate, encoder, method), []
    for one in (method, other):
        torch.manual_seed(5)
        said.append(float(one.losses(encoder, some)["total"].detach()))
    require(abs(said[0] - said[1]) < 1e-6, "with the same state another instance has another loss: keep everything in "
            "parameters and buffers")  # fmt: skip


@rule("pretraining", "an encoder that it cannot teach is refused in one line")
def refuses_in_one_line(candidate: Candidate) -> None:
    if candidate.factory.learns != "given":
        raise NotTried("it is trained")
    encoder = learner(candidate)
    try:
        method: Pretraining[Any] = candidate.factory(candidate.config, encoder=encoder, views=())
        method.initialise(encoder)
    except ConfigError:
        return
