"""Rules of encoders."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ufe_core.conformance import props
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import Broken, NotTried, require, rule
from ufe_core.errors import ConfigError, UfeError
from ufe_core.inference.live import LiveEncoder
from ufe_core.interfaces.calibrator import CalibratorFactory
from ufe_core.interfaces.encoder import Encoder, EncoderNeeds
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_core.types import AnchorSet, Calibration, Encoding

_CLOSE = 2e-4  # of codes: sums in another order differ by less
_LIVE = 1e-3  # of codes whose normalisations are folded away
_SLOW_S = 2.0


def made(candidate: Candidate, *, seed: int = 0) -> Encoder[Any]:
    """The encoder for the made-up cameras and codes, ready to encode.

    Raises:
        NotTried: it refuses these cameras.
    """
    try:
        encoder = _new(candidate, props.CAMERAS, seed)
    except ConfigError as error:
        raise props.refused(error) from error
    return _ready(encoder)


def _new(candidate: Candidate, cameras: tuple[str, ...], seed: int) -> Encoder[Any]:
    factory = candidate.factory
    context: dict[str, Any] = {}
    uses = factory.uses_anchors
    if factory.calibrated:
        spec = candidate.catalogue.get("calibrator", "ufe/late_fusion")
        context["calibrator"] = CalibratorFactory(spec.load(), spec.config())
        uses = True
    if "keypoints" in factory.inputs:
        context["keypoints"] = props.keypoint_names()
    if factory.uses_rig:
        context["rig"] = props.rig(cameras)
    names = tuple(factory.reads_anchors or DEFAULT_ANCHORS) if uses else ()
    torch.manual_seed(seed)
    encoder: Encoder[Any] = factory(
        candidate.config, needs=EncoderNeeds(cameras, props.SIZE, names), code_space=props.SPACE, **context
    )
    return encoder


def _ready(encoder: Encoder[Any]) -> Encoder[Any]:
    encoder.fit_statistics(props.statistics(encoder))
    return encoder.eval()


def told(encoder: Encoder[Any], count: int = 4, users: int = 2, seed: int = 0) -> Encoding:
    """What it says of some frames of some users."""
    rows = torch.arange(count) % users
    return encoder.encode(props.frames(encoder, count, rows, seed), encoder.enroll(props.anchors(encoder, users)))


def _apart(one: Encoding, other: Encoding) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(_parts(one), _parts(other), strict=True))


def _parts(encoding: Encoding) -> tuple[Tensor, Tensor]:
    return encoding.expression, encoding.gaze


@rule("encoder", "it gives a code of the decoder's size and two unit gaze vectors for each frame")
def gives_codes(candidate: Candidate) -> None:
    encoding = told(made(candidate))
    require(tuple(encoding.expression.shape) == (4, props.CODES), "the code has another size than `code_space.size`")


@rule("encoder", "the same frames give the same codes")
def is_deterministic(candidate: Candidate) -> None:
    encoder = made(candidate)
    require(_apart(told(encoder), told(encoder)) == 0, "encoding twice gives two answers: nothing may be drawn in "
            "`_enroll` or `_encode`, and dropout and batch statistics must rest in evaluation")  # fmt: skip


@rule("encoder", "a frame's code does not depend on the frames beside it")
def frames_stand_alone(candidate: Candidate) -> None:
    encoder = made(candidate)
    together = told(encoder)
    calibration = encoder.enroll(props.anchors(encoder, 2))
    batch = props.frames(encoder, 4, torch.arange(4) % 2)
    alone = [encoder.encode(batch.part(slice(k, k + 1)), calibration) for k in range(4)]
    one = Encoding(*(torch.cat(values) for values in zip(*map(_parts, alone), strict=True)))
    require(_apart(together, one) < _CLOSE, "a frame gets another code when it is encoded alone: `_encode` mixes the "
            "frames of a batch")  # fmt: skip


@rule("encoder", "each frame is encoded with its own user's calibration")
def users_stand_alone(candidate: Candidate) -> None:
    encoder = made(candidate)
    both = props.anchors(encoder, 2)
    together = encoder.encode(props.frames(encoder, 2, torch.tensor([1, 0])), encoder.enroll(both))
    batch = props.frames(encoder, 2, torch.tensor([0, 0]))
    alone = [
        encoder.encode(batch.part(slice(k, k + 1)), encoder.enroll(both.part(slice(user, user + 1))))
        for k, user in enumerate((1, 0))
    ]
    one = Encoding(*(torch.cat(values) for values in zip(*map(_parts, alone), strict=True)))
    require(_apart(together, one) < _CLOSE, "two users in a batch disturb each other: take a frame's rows with "
            "`calibration.rows(frames.users)`")  # fmt: skip


@rule("encoder", "`forward`, which training calls, says what enrolling and encoding say")
def training_and_use_agree(candidate: Candidate) -> None:
    encoder = made(candidate)
    with torch.no_grad():
        straight = encoder(props.frames(encoder, 4, torch.arange(4) % 2), props.anchors(encoder, 2))
    require(_apart(straight, told(encoder)) < _CLOSE, "`forward` gives other codes than `enroll` and `encode`: it "
            "must be the same computation")  # fmt: skip


@rule("encoder", "an anchor that is missing is not looked at, and leaves a code all the same")
def anchors_may_be_missing(candidate: Candidate) -> None:
    encoder = made(candidate)
    if not encoder.needs.anchors:
        return
    frames = props.frames(encoder, 2, torch.tensor([0, 0]))
    said = []
    for seed in (1, 2):
        held = props.anchors(encoder, 1)
        absent = torch.zeros_like(held.present)
        noise = AnchorSet(props.images(*held.images.shape[:3], seed=seed), held.names, held.cameras, absent,
                          held.keypoints, held.geometry)  # fmt: skip
        said.append(encoder.encode(frames, encoder.enroll(noise)))
    require(_apart(*said) < _CLOSE, "pixels of anchors that are marked as missing change the code: look at "
            "`anchors.present`")  # fmt: skip


@rule("encoder", "its weights file restores it: all it keeps are parameters and buffers")
def weights_restore_it(candidate: Candidate) -> None:
    encoder, other = made(candidate), made(candidate, seed=1)
    try:
        other.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        raise Broken(f"its own state does not load: {str(error).splitlines()[-1].strip()}") from error
    require(_apart(told(encoder), told(other)) < 1e-6, "with the same state another instance says something else: "
            "keep everything in parameters and buffers")  # fmt: skip


@rule("encoder", "a calibration outlives the process: saved and loaded it gives the same codes")
def calibrations_are_kept(candidate: Candidate) -> None:
    encoder = made(candidate)
    calibration = encoder.enroll(props.anchors(encoder, 2))
    if not calibration.tensors:
        return
    users = {name: value.shape[0] for name, value in calibration.tensors.items()}
    require(set(users.values()) == {2}, f"tensors of a calibration must have a row for each user; found {users}")
    with tempfile.TemporaryDirectory() as folder:
        calibration.save(Path(folder) / "wearer.safetensors")
        loaded = Calibration.load(Path(folder) / "wearer.safetensors")
    frames = props.frames(encoder, 4, torch.arange(4) % 2)
    require(_apart(encoder.encode(frames, calibration), encoder.encode(frames, loaded)) == 0,
            "a calibration from a file gives other codes")  # fmt: skip


@rule("encoder", "run live, its batch normalisations folded into convolutions, it says the same")
def it_runs_live(candidate: Candidate) -> None:
    encoder = made(candidate)
    if encoder.inputs != ("images",):
        return
    props.unsettle(encoder)
    calibration = encoder.enroll(props.anchors(encoder, 1))
    batch = props.frames(encoder, 2, torch.tensor([0, 0]))
    try:
        live = LiveEncoder(encoder, calibration, batch=2, runtime="torch")(batch.images)
    except Exception as error:
        raise Broken(f"run live it fails with {type(error).__name__}: {error}") from error
    require(_apart(live, encoder.encode(batch, calibration)) < _LIVE, "run live it gives other codes: a convolution is "
            "used without the normalisation that follows it in `forward`")  # fmt: skip


@rule("encoder", "what it says it learns from is what it learns from")
def it_learns_as_it_says(candidate: Candidate) -> None:
    encoder = made(candidate)
    trainable = [name for name, p in encoder.named_parameters() if p.requires_grad]
    if encoder.learns != "weights":
        require(not trainable, f'`learns` is {encoder.learns!r}, and yet it has parameters: say `learns = "weights"`')
        return
    require(trainable, "`learns` is 'weights', and it has no parameter to train")
    encoder.train()
    said = encoder(props.frames(encoder, 4, torch.arange(4) % 2), props.anchors(encoder, 2))
    (said.expression.square().sum() + (said.gaze - 0.3).square().sum()).backward()
    idle = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    require(not idle, f"no gradient reaches {', '.join(idle[:3])}{' …' if len(idle) > 3 else ''}: use it, or freeze it")


@rule("encoder", "a headset that it cannot use is refused in one line")
def other_headsets_are_refused(candidate: Candidate) -> None:
    cameras = ("left_eye", "right_eye")
    try:
        encoder = _ready(_new(candidate, cameras, 0))
    except NotTried:  # for lack of an option
        raise
    except UfeError:
        return
    except Exception as error:
        raise Broken(
            f"made for two cameras it fails with {type(error).__name__}: raise ConfigError with a line for users"
        ) from error
    require(encoder.needs.cameras == cameras, "`needs` is not what it was given")


@rule("encoder", f"a frame takes less than {_SLOW_S:.0f} seconds on a CPU")
def is_not_hopelessly_slow(candidate: Candidate) -> None:
    import time

    encoder = made(candidate)
    calibration = encoder.enroll(props.anchors(encoder, 1))
    frames = props.frames(encoder, 1, torch.tensor([0]))
    encoder.encode(frames, calibration)
    start = time.perf_counter()
    encoder.encode(frames, calibration)
    took = time.perf_counter() - start
    require(took < _SLOW_S, f"one frame of {props.SIZE} pixels took {took:.1f} s: no headset can wait for that")
