"""Rules of keypoint detectors."""

from __future__ import annotations

from typing import Any

import torch

from ufe_core.conformance import props
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import Broken, NotTried, require, rule
from ufe_core.errors import ContractError, RegistryError
from ufe_core.interfaces.detector import KeypointDetector

_CLOSE = 1e-2  # pixels


def made(candidate: Candidate) -> KeypointDetector[Any]:
    """The detector."""
    try:
        detector: KeypointDetector[Any] = candidate.factory(candidate.config)
    except RegistryError as error:
        raise NotTried(str(error)) from error
    return detector.eval()


@rule("detector", "it says which points of which cameras it finds")
def says_what_it_finds(candidate: Candidate) -> None:
    detector = made(candidate)
    require(detector.cameras, "`keypoints` names no camera")
    for one in detector.keypoints:
        count, known = len(one.names), len(one.vertices) + len(one.pupils)
        require(count == known, f"camera {one.camera!r} has {count} names for {known} points")
        require(len(set(one.names)) == count, f"camera {one.camera!r} has a name twice")
    counts = {len(one.names) for one in detector.keypoints}
    require(len(counts) == 1, f"cameras have {sorted(counts)} points; all must have as many")


@rule("detector", "points and what is seen come in the shape of the images, in their pixels")
def finds(candidate: Candidate) -> None:
    detector = made(candidate)
    cameras, points = len(detector.cameras), len(detector.keypoints[0].names)
    for side in (props.SIZE, 2 * props.SIZE):
        images = torch.nn.functional.interpolate(props.images(3, cameras).float(), (side, side)).to(torch.uint8)
        found = detector.detect(images)
        require(tuple(found.points.shape) == (3, cameras, points, 2), f"points of shape {list(found.points.shape)}")
        require(bool(torch.isfinite(found.points).all()), "a point is no number")
        require(found.visible.min() >= 0 and found.visible.max() <= 1, "how sure it is must lie in 0..1")
        require(found.points.abs().max() < 10 * side, "points lie far outside the image: are they pixels of it?")


@rule("detector", "each frame is looked at by itself, and gives the same points each time")
def frames_stand_alone(candidate: Candidate) -> None:
    detector = made(candidate)
    images = props.images(3, len(detector.cameras))
    together = detector.detect(images)
    alone = torch.cat([detector.detect(images[k : k + 1]).points for k in range(3)])
    require((together.points - alone).abs().max() < _CLOSE, "a frame's points depend on the frames beside it")
    require(torch.equal(together.points, detector.detect(images).points), "looking twice gives other points")


@rule("detector", "inside something that trains it stays as it is")
def stays_frozen(candidate: Candidate) -> None:
    detector = made(candidate)
    images = props.images(3, len(detector.cameras))
    before = detector.detect(images).points
    torch.nn.Sequential(detector).train()
    require(torch.equal(before, detector.detect(images).points), "in training mode it finds other points: override "
            "`train` so that it stays in evaluation")  # fmt: skip


@rule("detector", "images of other cameras are refused in one line")
def refuses_others(candidate: Candidate) -> None:
    detector = made(candidate)
    try:
        detector.detect(props.images(1, len(detector.cameras) + 1))
    except ContractError:
        return
    raise Broken("it takes images of one camera too many: leave `detect` as it is and override `_detect`")
