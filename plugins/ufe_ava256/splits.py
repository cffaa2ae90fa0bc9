"""Who is held out. The datasheet recommends to withhold 20 people as new identities and 12 for driving, and names none.

Which people these are is therefore decided here, by a rule that anybody can repeat: subjects are ranked by the
SHA-256 of `ufe/ava256/1:<subject>`; the first 20 are the new identities, the next 12 are for driving, the others train.
Who is among the first 32 of all subjects is so in any part of them too: a smaller copy of the data never trains on a
person whom the whole data holds out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

NEW_IDENTITIES, DRIVING = 20, 12
_RULE = "ufe/ava256/1"


def split_of(subjects: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The parts `train`, `new_identity` and `driving` of all subjects, each sorted."""
    ranked = sorted(set(subjects), key=lambda subject: (_rank(subject), subject))
    held_out = NEW_IDENTITIES + DRIVING
    return {
        "train": tuple(sorted(ranked[held_out:])),
        "new_identity": tuple(sorted(ranked[:NEW_IDENTITIES])),
        "driving": tuple(sorted(ranked[NEW_IDENTITIES:held_out])),
    }


def _rank(subject: str) -> str:
    return hashlib.sha256(f"{_RULE}:{subject}".encode()).hexdigest()
