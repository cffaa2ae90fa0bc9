"""How a simulated subject acts: poses what is asked for, in their own manner, and moves while speaking or unprompted.

Activations [N, 52] are intended ones; `Movement.realise` says what the face makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufe_core.head import ACTIONS
from ufe_synthetic.curves import glide, minimum_jerk, waves
from ufe_synthetic.gaze import Look, random_sights
from ufe_synthetic.prompts import EXPRESSION_S, PROMPTS, Prompt, intent
from ufe_synthetic.visemes import Utterance

#: Every segment begins and ends with this much rest, s.
LEAD_S = 0.4

_LARGEST_LAG_S = 0.08
_UPPER = np.array([name.startswith(("brow", "eye", "cheekSquint", "noseSneer")) for name in ACTIONS])
_NEVER_IDLE = ("eyeLook", "eyeBlink", "tongueOut", "mouthClose", "jaw")
#: Actions that may stir without being asked for.
IDLE = np.flatnonzero([not name.startswith(_NEVER_IDLE) for name in ACTIONS])
_NEVER_ALONE = np.array([name.startswith("eyeLook") or name == "mouthClose" for name in ACTIONS])
_OPPOSITES = [
    *((ACTIONS.index(f"{part}Left"), ACTIONS.index(f"{part}Right")) for part in ("jaw", "mouth")),
    *((ACTIONS.index(f"eyeWide{side}"), ACTIONS.index(f"eyeBlink{side}")) for side in ("Left", "Right")),
]


@dataclass(frozen=True)
class Style:
    """How a person performs, and is in the mood for today.

    `effort`: usual share of what is asked for; `habits` [52]: what tags along; `push` [52, 6]: deg and mm that the
    headset yields to each action.
    """

    effort: float
    habits: np.ndarray
    articulation: float
    syllables_per_second: float
    brow_beat: float
    smile: float
    blinks_per_minute: float
    push: np.ndarray

    @classmethod
    def draw(cls, person: np.random.Generator, today: np.random.Generator) -> Style:
        habits = np.zeros(len(ACTIONS))
        habits[person.choice(IDLE, 4, replace=False)] = person.uniform(0.02, 0.12, 4)
        return cls(
            effort=float(person.uniform(0.72, 0.96) + today.normal(0, 0.03)),
            habits=habits,
            articulation=float(person.uniform(0.75, 1.15) * today.normal(1, 0.04)),
            syllables_per_second=float(person.uniform(4.1, 4.9) * today.normal(1, 0.02)),
            brow_beat=float(person.uniform(0.05, 0.4)),
            smile=float(person.uniform(0.0, 0.25)),
            blinks_per_minute=float(person.uniform(12, 18) * today.normal(1, 0.05)),
            push=_pushes(person),
        )


def _pushes(rng: np.random.Generator) -> np.ndarray:
    """How far the headset yields to each action, [52, 6] deg and mm: cheeks lift it, brows tilt it, the jaw drags."""
    kinds = {
        ("cheek", "mouthSmile", "noseSneer", "mouthUpperUp"): (-0.25, 0.0, 0.0, 0.0, -0.22, 0.15),
        ("brow", "eyeWide"): (0.15, 0.0, 0.0, 0.0, -0.05, 0.12),
        ("jawOpen", "jawForward", "mouthStretch"): (0.12, 0.0, 0.0, 0.0, 0.2, 0.05),
        ("jawLeft", "mouthLeft"): (0.0, 0.1, 0.12, -0.12, 0.0, 0.0),
        ("jawRight", "mouthRight"): (0.0, -0.1, -0.12, 0.12, 0.0, 0.0),
    }
    push = np.zeros((len(ACTIONS), 6))
    for a, name in enumerate(ACTIONS):
        for names, mean in kinds.items():
            if name.startswith(names):
                push[a] = np.array(mean) + rng.normal(0, 0.05, 6)
    soft: np.ndarray = push * np.exp(rng.normal(-0.2, 0.3))
    return soft


@dataclass(frozen=True)
class Poses:
    """When a prompt is posed, R times, s: `starts`, `onset`, `ends` (of the apex), `offset` [R]; `anchor_s`, once."""

    starts: np.ndarray
    onset: np.ndarray
    ends: np.ndarray
    offset: np.ndarray
    anchor_s: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Poses:
        count = int(rng.integers(2, 4))
        slot = (EXPRESSION_S - 2 * LEAD_S) / count
        onset, offset = rng.uniform(0.3, 0.8, count), rng.uniform(0.35, 0.8, count)
        starts = LEAD_S + slot * np.arange(count) + rng.uniform(0, 0.08, count) * slot
        ends = LEAD_S + slot * np.arange(1, count + 1) - offset - rng.uniform(0.04, 0.14, count) * slot
        full = starts[0] + onset[0] + 0.1
        return cls(starts, onset, ends, offset, float(full + rng.uniform(0.1, 0.9) * (ends[0] - full)))

    def perform(self, rng: np.random.Generator, t: np.ndarray, prompt: Prompt, style: Style) -> np.ndarray:
        """Intended activations [N, 52]: each action with its own amount and a little ahead or behind."""
        asked = intent(prompt.meant)
        extra = style.habits * rng.uniform(0, 1.3, len(ACTIONS))
        extra[rng.choice(IDLE, 4, replace=False)] += rng.uniform(0.0, 0.12, 4)
        actions = np.flatnonzero(asked + extra)
        count = len(self.starts)
        effort = style.effort + rng.normal(0, 0.07, (count, 1)) + rng.normal(0, 0.06, len(actions))
        amount = np.clip(effort, prompt.least, 1.0) * asked[actions] + (asked == 0)[actions] * extra[actions]
        lag, slow = rng.uniform(0, _LARGEST_LAG_S, (count, len(actions))), rng.uniform(0.9, 1.0, (count, len(actions)))
        fixed, change = rng.uniform(0.1, 0.6, count), np.clip(rng.normal(-0.03, 0.05, count), -0.1, 0.05)
        out = np.zeros((len(t), len(ACTIONS)))
        for r in range(count):
            active = slice(*np.searchsorted(t, [self.starts[r], self.ends[r] + self.offset[r] + _LARGEST_LAG_S]))
            here = t[active, None]
            rise = minimum_jerk((here - self.starts[r] - lag[r]) / (self.onset[r] * slow[r]))
            fall = minimum_jerk((here - self.ends[r] - lag[r]) / (self.offset[r] * slow[r]))
            middle = self.starts[r] + self.onset[r] + fixed[r] * (self.ends[r] - self.starts[r] - self.onset[r])
            settle = 1 + change[r] * minimum_jerk((here - middle) / 0.35)
            out[active, actions] += (rise - fall) * amount[r] * settle
        sway = 1 + 0.035 * waves(t, rng.uniform(0.4, 1.6, (3, 1)), rng.uniform(0, 6.28, (3, 1)))
        return out * sway + self._around(rng, t)

    def _around(self, rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
        """Small movements [N, 52] of a neighbouring action before each pose and of another after it."""
        times = np.concatenate([self.starts - 0.08, self.ends + self.offset + 0.1])
        which, size = rng.choice(IDLE, len(times)), rng.uniform(0.01, 0.08, len(times))
        bump = np.exp(-0.5 * ((t[:, None] - times) / 0.09) ** 2)
        out = np.zeros((len(t), len(ACTIONS)))
        np.add.at(out.T, which, (bump * size).T)
        return out

    def looks(self, rng: np.random.Generator, prompt: Prompt, anchor: bool) -> list[Look]:
        """Where the eyes stay while posing: near ahead for an anchor, else where the prompt says."""
        if not anchor and prompt.gaze_deg is None:
            return []
        goal, blur = (prompt.gaze_deg, 1.5) if prompt.gaze_deg else ((0.0, 0.0), 2.2)
        sights = random_sights(rng, len(self.starts), (1.0, 1.0))
        sights[:, :2] = goal + np.clip(rng.normal(0, blur, (len(self.starts), 2)), -5, 5)
        kept = 1 if anchor else len(self.starts)
        return [
            Look(float(start), float(stop), sight)
            for start, stop, sight in zip(self.starts[:kept], self.ends, sights, strict=False)
        ]


def with_speech(rng: np.random.Generator, t: np.ndarray, utterance: Utterance, style: Style) -> np.ndarray:
    """Brow beats on some of the vowels, and a mood that comes and goes, [N, 52]."""
    beats = utterance.vowels[rng.uniform(size=len(utterance.vowels)) < 0.14]
    size = style.brow_beat * rng.uniform(0.4, 1.0, len(beats))
    brows = (size * np.exp(-0.5 * ((t[:, None] - beats) / rng.uniform(0.09, 0.22, len(beats))) ** 2)).sum(1)
    mood = (1 + waves(t, rng.uniform(0.03, 0.25, (2, 2)), rng.uniform(0, 6.28, (2, 2)))) / 2
    raised = intent({"browInnerUp": 0.8, "browOuterUp*": 1.0, "eyeWide*": 0.25})
    smiling = style.smile * intent({"mouthSmile*": 1.0, "cheekSquint*": 0.6, "eyeSquint*": 0.3})
    frown = style.brow_beat * intent({"browDown*": 0.6, "eyeSquint*": 0.3})
    out: np.ndarray = brows[:, None] * raised + mood[:, :1] * smiling + (mood[:, 1:] ** 3) * frown
    return out


def wander(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Free range of motion [N, 52]: upper and lower face each go from pose to pose, to extremes."""
    pool = [intent(prompt.meant) for prompt in PROMPTS.values() if prompt.meant]
    out = np.zeros((len(t), len(ACTIONS)))
    for part in (_UPPER, ~_UPPER):
        starts = LEAD_S + np.cumsum(rng.uniform(0.7, 1.9, 80))
        starts = starts[starts < t[-1] - 2.0]
        values = np.zeros((len(starts) + 2, len(ACTIONS)))
        useful = [pose * part for pose in pool if (pose * part).max() > 0.35]
        single = np.flatnonzero(part & ~_NEVER_ALONE)
        for value in values[1:-1]:
            if rng.uniform() < 0.75:
                value += rng.uniform(0.5, 1.0) * useful[rng.integers(len(useful))]
            value[rng.choice(single, 2, replace=False)] += rng.uniform(0, 1.0, 2) ** 1.5
        for a, b in _OPPOSITES:
            common = np.minimum(values[:, a], values[:, b])
            values[:, a] -= common
            values[:, b] -= common
        durations = rng.uniform(0.35, 0.7, len(starts) + 1)
        out += glide(t, np.append(starts, t[-1] - 1.0), durations, np.clip(values, 0, 1))
    return out
