"""What a subject does in a capture: the script of P§7.2, performed with gaze, blinks and a headset that slips.

A frame is a pure function of subject, session and frame index. Segments are made one at a time, begin and end at rest
and share the gaze at their borders, so they join without a jump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ufe_core.errors import DataError
from ufe_core.head import ACTIONS
from ufe_core.interfaces.source import Segment
from ufe_synthetic.acting import IDLE, Poses, Style, wander, with_speech
from ufe_synthetic.curves import at_rest_outside, glide, waves
from ufe_synthetic.gaze import LOOK_ACTIONS, Blinks, directions, lids_follow, look_around, random_sights
from ufe_synthetic.people import Movement, rng_of
from ufe_synthetic.prompts import ANCHOR_PROMPTS, EXPRESSION_S, PROMPTS
from ufe_synthetic.visemes import SENTENCES, Utterance, speak, syllables

__all__ = ["ANCHOR_PROMPTS", "FRAMES_PER_SECOND", "PROMPTS", "SCRIPT", "Motion", "Performance"]

FRAMES_PER_SECOND = 72
SPEECH_S, FREE_S = 180, 40

#: The headset never moves further than this from where it sat at the start: mm, and degrees.
LARGEST_SLIP = 2.0

#: Bounds of the change from one frame to the next: of lids and `eyeLook*`, which blinks and saccades move; of every
#: other action; of the gaze, deg/s; of the slip, mm and deg.
LARGEST_LID_STEP, LARGEST_STEP, FASTEST_GAZE, LARGEST_SLIP_STEP = 0.55, 0.25, 700.0, 0.2

_KEPT_SEGMENTS = 256  # those of several people, who may be rendered at a time
_REST_S = 0.3
_RESEAT_S = 0.5
_DRIFT_STEP_S = 0.5
_SESSION_S = EXPRESSION_S * len(PROMPTS) + SPEECH_S + FREE_S

_LEFT_EYE, _RIGHT_EYE = (
    [ACTIONS.index(f"eye{name}{s}") for name in ("Blink", "Wide", "Squint")] for s in ("Left", "Right")
)
_JAW_OPEN, _MOUTH_CLOSE = ACTIONS.index("jawOpen"), ACTIONS.index("mouthClose")
_OPENS_LIPS = ("mouthLowerDown", "mouthUpperUp", "mouthFunnel", "mouthShrugUpper")
_PARTS_LIPS = np.flatnonzero([name.startswith(_OPENS_LIPS) for name in ACTIONS])


def _script() -> tuple[Segment, ...]:
    """The segments every session has: 43 expressions, 21 of speech as long as their texts, one free."""
    spoken = np.cumsum([0, *map(syllables, SENTENCES)])
    borders = np.rint(spoken / spoken[-1] * SPEECH_S * FRAMES_PER_SECOND).astype(int)
    lengths = [(name, EXPRESSION_S * FRAMES_PER_SECOND, "expression") for name in PROMPTS]
    lengths += [(f"speech_{k:02d}", int(n), "speech") for k, n in enumerate(np.diff(borders))]
    lengths += [("range_of_motion", FREE_S * FRAMES_PER_SECOND, "free")]
    segments, start = [], 0
    for name, length, kind in lengths:
        segments.append(Segment(name, start, start + length, kind))
        start += length
    return tuple(segments)


SCRIPT = _script()
_STARTS = np.array([segment.start for segment in SCRIPT])


@dataclass(frozen=True)
class Motion:
    """What happens in N frames.

    `expression` float32 [N, 52]; `gaze` float32 [N, 6], unit vectors of the left and the right eye; `slip` float64
    [N, 6]: rotation vector (deg) and translation (mm) of the headset on the head since the start of the session;
    `pupil` float32 [N]: factor on the pupil's usual diameter, 0.8 to 1.25.
    """

    expression: np.ndarray
    gaze: np.ndarray
    slip: np.ndarray
    pupil: np.ndarray


class Performance:
    """One session of one subject, with random access: a frame does not depend on what is asked for with it.

    Each anchor is one frame of a session, the same whenever it is asked for, where O15 has training draw among many:
    what varies between a person's anchors is the session.
    """

    segments: tuple[Segment, ...] = SCRIPT

    def __init__(self, subject: int, movement: Movement, session: int) -> None:
        self.subject = subject
        self.movement = movement
        self.session = session
        self.anchors: dict[str, int] = {
            name: segment.start + round(self._poses(segment).anchor_s * FRAMES_PER_SECOND)
            for name, segment in zip(ANCHOR_PROMPTS, SCRIPT, strict=False)
        }

    def motion(self, indices: Sequence[int]) -> Motion:
        """Motion of the frames, in the order asked for.

        Raises:
            DataError: an index is not a frame of the session.
        """
        frames = np.asarray(indices, np.int64).reshape(-1)
        if len(frames) and not (frames.min() >= 0 and frames.max() < SCRIPT[-1].stop):
            wrong = frames[(frames < 0) | (frames >= SCRIPT[-1].stop)][0]
            raise DataError(f"A session has frames 0 to {SCRIPT[-1].stop - 1}; {wrong} was asked for.")
        count = len(frames)
        out = Motion(
            np.empty((count, len(ACTIONS)), np.float32), np.empty((count, 6), np.float32), np.empty((count, 6)),
            np.empty(count, np.float32),
        )  # fmt: skip
        owner = np.searchsorted(_STARTS, frames, side="right") - 1
        for k in np.unique(owner):
            rows = np.flatnonzero(owner == k)
            made, at = _segment_motion(self, int(k)), frames[rows] - _STARTS[k]
            out.expression[rows], out.gaze[rows] = made.expression[at], made.gaze[at]
            out.slip[rows], out.pupil[rows] = made.slip[at], made.pupil[at]
        return out

    def closures(self, segment: Segment) -> list[int]:
        """Frames in the midst of the bilabial closures (p, b, m) of a segment; none where nobody speaks."""
        if segment.kind != "speech":
            return []
        return [segment.start + round(float(t) * FRAMES_PER_SECOND) for t in self._utterance(segment).closures]

    def _rng(self, purpose: str) -> np.random.Generator:
        return rng_of(self.subject, f"{purpose} {self.session}")

    @cached_property
    def style(self) -> Style:
        """How this person performs, today."""
        return Style.draw(rng_of(self.subject, "acting"), self._rng("mood"))

    @cached_property
    def _jaw_gain(self) -> float:
        """How far the jaw opens for what is meant; speakers know theirs and open it no further than others."""
        meant = np.zeros((1, len(ACTIONS)))
        meant[:, _JAW_OPEN] = 0.3
        return max(0.5, float(self.movement.realise(meant)[0, _JAW_OPEN]) / 0.3)

    @cached_property
    def _course(self) -> _Course:
        calm = []
        for segment in SCRIPT[: len(ANCHOR_PROMPTS)]:
            poses, start = self._poses(segment), segment.start / FRAMES_PER_SECOND
            calm.append((start + poses.starts[0] - 0.1, start + poses.ends[0] + 0.1))
        return _Course.draw(self._rng("course"), self.style.blinks_per_minute, calm)

    def _poses(self, segment: Segment) -> Poses:
        return Poses.draw(self._rng(f"poses {segment.name}"))

    def _utterance(self, segment: Segment) -> Utterance:
        text = SENTENCES[int(segment.name.removeprefix("speech_"))]
        seconds = (segment.stop - segment.start) / FRAMES_PER_SECOND
        return speak(text, seconds, self.style.syllables_per_second, self._rng(segment.name))

    def _make(self, k: int) -> Motion:
        """Every frame of segment `k`."""
        segment, rng = SCRIPT[k], self._rng(f"segment {SCRIPT[k].name}")
        count = segment.stop - segment.start
        t = np.arange(count) / FRAMES_PER_SECOND
        now = t + segment.start / FRAMES_PER_SECOND
        seconds = (count - 1) / FRAMES_PER_SECOND
        seal, looks, spread = np.zeros(count), [], (11.0, 7.0)
        if segment.kind == "expression":
            prompt, poses = PROMPTS[segment.name], self._poses(segment)
            meant = poses.perform(rng, t, prompt, self.style)
            looks, spread = poses.looks(rng, prompt, segment.name in ANCHOR_PROMPTS), (8.0, 5.0)
        elif segment.kind == "speech":
            utterance = self._utterance(segment)
            meant, seal = self.style.articulation * utterance.activations(t), utterance.seal(t)
            meant[:, _JAW_OPEN] /= self._jaw_gain
            meant += with_speech(rng, t, utterance, self.style)
        else:
            meant = wander(rng, t)
        idle = rng.choice(IDLE, 5, replace=False)
        meant[:, idle] += 0.03 * (1 + waves(t, rng.uniform(0.05, 0.4, (1, 5)), rng.uniform(0, 6.28, (1, 5))))
        rest = at_rest_outside(t, seconds, _REST_S)
        meant *= rest[:, None]
        sight = look_around(rng, t, self._course.sights[k : k + 2], spread, looks)
        lids = self._course.blinks.closed(now)
        sight[:, 1] -= 1.2 * lids  # the eyes dip in a blink
        gaze = directions(sight)
        meant = np.clip(meant, 0, 1)
        push = _soften(meant @ self.style.push)
        meant[:, LOOK_ACTIONS] = lids_follow(gaze)
        expression = _meet(self.movement.realise(meant), (seal * rest).astype(np.float32), lids)
        slip = _bounded(self._course.slip(now) + push)
        return Motion(expression, gaze.astype(np.float32), slip, self._course.pupil(now))


@lru_cache(maxsize=_KEPT_SEGMENTS)
def _segment_motion(performance: Performance, k: int) -> Motion:
    """Segments made lately, of all subjects together: about 45 MB."""
    return performance._make(k)


@dataclass(frozen=True)
class _Course:
    """What runs through a whole session: `sights` [S + 1, 3] at the borders of segments, blinks, slip, pupils.

    `drift` and `hippus` hold hertz and phase of slow waves; `reseat_s` [R] and `reseat` [R + 1, 6] are the moments at
    which the headset is set right, and where it sits after.
    """

    sights: np.ndarray
    blinks: Blinks
    drift: tuple[np.ndarray, np.ndarray]
    reach: np.ndarray
    reseat_s: np.ndarray
    reseat: np.ndarray
    hippus: tuple[np.ndarray, np.ndarray]

    @classmethod
    def draw(cls, rng: np.random.Generator, per_minute: float, calm: list[tuple[float, float]]) -> _Course:
        reseats = int(rng.integers(0, 4))
        first = len(ANCHOR_PROMPTS) * EXPRESSION_S
        steps, chance = rng.normal(0, 0.45, (reseats, 6)), rng.uniform(0, 0.9, reseats)
        return cls(
            sights=random_sights(rng, len(SCRIPT) + 1, (4.0, 3.0)),
            blinks=Blinks.draw(rng, _SESSION_S, per_minute, calm),
            drift=(
                1 / np.array([[700.0], [300.0], [110.0]]) * rng.uniform(0.7, 1.3, (3, 6)),
                rng.uniform(0, 6.28, (3, 6)),
            ),
            reach=rng.uniform(0.5, 2.0, 6),
            reseat_s=first + (_SESSION_S - first - 2) * (np.arange(reseats) + chance) / max(reseats, 1),
            reseat=np.concatenate([np.zeros((1, 6)), np.cumsum(steps, 0)]),
            hippus=(
                np.append(rng.uniform(0.004, 0.05, 3), rng.uniform(0.1, 0.3))[:, None],
                rng.uniform(0, 6.28, (4, 1)),
            ),
        )

    def slip(self, now: np.ndarray) -> np.ndarray:
        """Drift and re-seating at session times `now`, [N, 6], before bounds; nothing at the start."""
        knot = np.floor(now / _DRIFT_STEP_S).astype(int)  # drift is too slow to need a sine for each frame
        knots = np.append(0, np.arange(knot[0], knot[-1] + 2)) * _DRIFT_STEP_S
        places = self.reach * waves(knots, *self.drift)
        before, share = knot - knot[0] + 1, (now / _DRIFT_STEP_S - knot)[:, None]
        drift = places[before] * (1 - share) + places[before + 1] * share - places[0]
        if not len(self.reseat_s):
            return drift
        return drift + glide(now, self.reseat_s, np.full(len(self.reseat_s), _RESEAT_S), self.reseat)

    def pupil(self, now: np.ndarray) -> np.ndarray:
        """Factor on the pupil's diameter, float32 [N]."""
        return np.exp(0.22 * waves(now, *self.hippus)[:, 0]).astype(np.float32)


def _soften(push: np.ndarray) -> np.ndarray:
    """The push as it moves the headset [N, 6], which foam and straps slow down; smoothed by a Gaussian of 55 ms."""
    kernel = np.exp(-0.5 * (np.arange(-12, 13) / 4.0) ** 2)
    kernel /= kernel.sum()
    return np.stack([np.convolve(column, kernel, "same") for column in push.T], -1)


def _bounded(slip: np.ndarray) -> np.ndarray:
    """Rotation and translation [N, 6] drawn back so that neither gets further than `LARGEST_SLIP`."""
    parts = slip.reshape(len(slip), 2, 3)
    size = np.linalg.norm(parts, axis=-1, keepdims=True) / LARGEST_SLIP
    shrunk: np.ndarray = parts * np.where(size > 1e-6, np.tanh(size) / np.maximum(size, 1e-6), 1.0)
    return shrunk.reshape(len(slip), 6)


def _meet(expression: np.ndarray, seal: np.ndarray, lids: np.ndarray) -> np.ndarray:
    """Let lips and lids [N, 52] meet where they are meant to, whatever a person's gains.

    People close lips and eyes by feel. `mouthClose` undoes what `jawOpen` opens, so it is never more than that and,
    where `seal` [N] is 1, as much; the jaw helps. A blink (`lids` [N]) overrides what else the eyes do.
    """
    out = expression.copy()
    jaw = out[:, _JAW_OPEN] * (1 - 0.3 * seal)
    out[:, _JAW_OPEN] = jaw
    out[:, _PARTS_LIPS] *= (1 - seal)[:, None]
    out[:, _MOUTH_CLOSE] = np.minimum(jaw, np.maximum(out[:, _MOUTH_CLOSE] * (1 - seal), seal * jaw))
    for blink, wide, squint in (_LEFT_EYE, _RIGHT_EYE):
        out[:, blink] = np.maximum(out[:, blink], lids)
        out[:, wide] *= 1 - out[:, blink]
        out[:, squint] *= 1 - 0.6 * out[:, blink]
    return out
