"""Whose anchors a person is enrolled with: their own, or what goes wrong with them.

Light at import: result files and the command line name these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

    from ufe_core.interfaces.encoder import Encoder
    from ufe_core.packed import PackedCapture
    from ufe_core.types import AnchorSet, Calibration

#: `another_person`: the anchors of the next person. `shuffled`: each expression in the place of the next one, the last
#: in the first one's. `one_blank`: one anchor is black, and the encoder is not told. `one_missing`: it is told.
#: `half_missing`: so with every other one, and `all_missing` with all. `first_N`: only so many are given, in order.
Enrolment = Literal[
    "own", "another_person", "shuffled", "one_blank", "one_missing", "half_missing", "all_missing",
    "first_1", "first_2", "first_3", "first_4", "first_5",
]  # fmt: skip
ENROLMENTS: tuple[Enrolment, ...] = get_args(Enrolment)


def enroll(
    encoder: Encoder[Any], captures: Sequence[PackedCapture], number: int, device: torch.device,
    enrolment: Enrolment = "own",
) -> Calibration:  # fmt: skip
    """Enrol the wearer of a capture.

    Args:
        encoder: who enrols.
        captures: of all people.
        number: of the wearer's among them; which anchor is blank or missing goes by it, so that all have their turn.
        device: where the encoder is.
        enrolment: with whose anchors.
    """
    return encoder.enroll(anchors_for(encoder, captures, number, enrolment).to(device))


def anchors_for(
    encoder: Encoder[Any], captures: Sequence[PackedCapture], number: int, enrolment: Enrolment
) -> AnchorSet:
    """The anchors that a person is enrolled with; `enroll` has the arguments."""
    import numpy as np
    import torch

    from ufe_core.types import AnchorSet, Detections

    wanted = encoder.needs.anchors
    capture = captures[(number + 1) % len(captures) if enrolment == "another_person" else number]
    rows = capture.rows_of(wanted)
    images = torch.from_numpy(capture.images[rows])[None]
    found = capture.detections and capture.detections.map(lambda value: value[rows][None])
    mesh = torch.from_numpy(np.array(captures[number].geometry))[None]  # of the wearer's avatar, whoever else enrols
    anchors = AnchorSet.complete(images, wanted, encoder.needs.cameras, keypoints=found, geometry=mesh)
    if not wanted or enrolment in ("own", "another_person"):
        return anchors
    images, present = images.clone(), anchors.present.clone()
    if enrolment == "shuffled":
        images = images.roll(1, 1)
    else:
        spoilt = _spoilt(enrolment, number, len(wanted))
        images[:, spoilt] = 0
        present[:, spoilt] = enrolment == "one_blank"
    seen = images.flatten(2).any(2)  # nothing is found in a black image
    if found is not None:
        found = found.map(lambda value: value.roll(1, 1)) if enrolment == "shuffled" else found
        found = Detections(found.points, found.visible * seen[..., None, None])
    return AnchorSet(images, wanted, encoder.needs.cameras, present, found, mesh)


def _spoilt(enrolment: Enrolment, number: int, count: int) -> slice:
    """Which of the anchors of person `number` are blank or missing."""
    if enrolment.startswith("first_"):
        return slice(int(enrolment.removeprefix("first_")), None)
    one = number % count
    return {"half_missing": slice(number % 2, None, 2), "all_missing": slice(None)}.get(enrolment, slice(one, one + 1))
