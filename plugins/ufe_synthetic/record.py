"""What was drawn about a simulated person, for the record: looks, body, way of moving and of performing."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from ufe_core.head import ACTIONS
from ufe_synthetic.appearance import traits_of
from ufe_synthetic.people import PAIRS, Movement, body_of, movement_of
from ufe_synthetic.performance import Performance

_BODY = ("muscle", "weight", "proportions")  # age and gender are among the looks
_STYLE = ("effort", "articulation", "syllables_per_second", "brow_beat", "smile", "blinks_per_minute")


def record_of(number: int, session: int = 0, *, glasses: bool = False) -> dict[str, float | str | bool]:
    """A subject's traits as a flat dict that JSON can hold; the same for the same arguments, on any machine.

    Args:
        number: which subject.
        session: which day; only the beard's length, oiliness and the manner of performing change with it.
        glasses: whether they are worn, which the condition of a capture decides as well.

    Returns:
        Looks: the members of `appearance.Traits`, and `glasses`. Body: anny's `muscle`, `weight` and `proportions`, 0
        to 1. Manner of performing, named `style.*`: `acting.Style`. Movement (P§2): the summary of `Movement.traits`,
        and, for the action A, `gain.A`; `limit.A`, its range; `rest.A`, where it is not zero in the resting face;
        `drags.A`, the sum of what other actions it takes along; and for each pair of sides `asymmetry.A`,
        ln(left gain / right gain). `people.movement_of(number).coupling` is the whole matrix.
    """
    style = Performance(number, movement_of(number), session).style
    drawn: dict[str, float | str | bool] = {
        **asdict(traits_of(number, session)),
        "glasses": glasses,
        **{name: value for name, value in body_of(number).items() if name in _BODY},
        **{f"style.{name}": getattr(style, name) for name in _STYLE},
        **movement_of(number).traits(),
        **_by_action(movement_of(number)),
    }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in drawn.items()}


def _by_action(movement: Movement) -> dict[str, float]:
    gain = np.diag(movement.coupling)
    drags = movement.coupling.sum(0) - gain
    out: dict[str, float] = {}
    for a, name in enumerate(ACTIONS):
        out |= {f"gain.{name}": float(gain[a]), f"limit.{name}": float(movement.limit[a])}
        out[f"drags.{name}"] = float(drags[a])
        if movement.rest[a] > 0:
            out[f"rest.{name}"] = float(movement.rest[a])
    for left, right in PAIRS:
        out[f"asymmetry.{ACTIONS[left].removesuffix('Left')}"] = float(np.log(gain[left] / gain[right]))
    return out
