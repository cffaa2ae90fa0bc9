"""What a subject does in a capture: prompted segments, gaze, blinks, and how the headset sits and is lit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufe_core.head import ACTIONS
from ufe_core.interfaces.source import Segment
from ufe_synthetic.people import Movement, rng_of

FRAMES_PER_SEGMENT = 24

#: The 15 anchor candidates (P§13.2, O13-O14), name to intended activation. The first six are the default anchors.
ANCHOR_PROMPTS: dict[str, dict[str, float]] = {
    "neutral": {},
    "jaw_open": {"jawOpen": 1.0},
    "eyes_wide": {"eyeWide*": 1.0, "browInnerUp": 0.7, "browOuterUp*": 0.8},
    "eyes_closed": {"eyeBlink*": 1.0},
    "cheek_puff": {"cheekPuff": 1.0, "mouthPress*": 0.5},
    "brows_lowered": {"browDown*": 1.0, "noseSneer*": 0.4, "eyeSquint*": 0.4},
    "smile_teeth": {"mouthSmile*": 1.0, "cheekSquint*": 0.5, "mouthUpperUp*": 0.5, "jawOpen": 0.1},
    "smile_closed": {"mouthSmile*": 0.8, "cheekSquint*": 0.3},
    "lip_pucker": {"mouthPucker": 1.0},
    "lips_pressed": {"mouthPress*": 0.9, "mouthRollLower": 0.6, "mouthRollUpper": 0.6},
    "jaw_left": {"jawLeft": 1.0, "jawOpen": 0.15},
    "jaw_right": {"jawRight": 1.0, "jawOpen": 0.15},
    "brows_raised": {"browInnerUp": 1.0, "browOuterUp*": 1.0},
    "nose_wrinkle": {"noseSneer*": 1.0, "cheekSquint*": 0.5, "mouthUpperUp*": 0.4},
    "mouth_corners_down": {"mouthFrown*": 1.0, "mouthShrugLower": 0.5},
}

_COMBINATIONS: dict[str, dict[str, float]] = {
    "jaw_slightly_open": {"jawOpen": 0.35},
    "funnel": {"mouthFunnel": 1.0, "jawOpen": 0.3},
    "snarl": {"mouthUpperUp*": 0.9, "noseSneer*": 0.8, "mouthLowerDown*": 0.5, "jawOpen": 0.2},
    "grimace": {"mouthStretch*": 1.0, "mouthLowerDown*": 0.7, "jawOpen": 0.1},
    "mouth_left": {"mouthLeft": 1.0},
    "mouth_right": {"mouthRight": 1.0},
    "tongue_out": {"tongueOut": 1.0, "jawOpen": 0.5, "mouthLowerDown*": 0.3},
    "wink_left": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.5},
    "wink_right": {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.6, "mouthSmileRight": 0.5},
    "surprise": {"jawOpen": 0.7, "eyeWide*": 1.0, "browInnerUp": 0.9, "browOuterUp*": 0.9},
    "squint_and_dimple": {"eyeSquint*": 1.0, "mouthDimple*": 0.9},
    "jaw_forward": {"jawForward": 1.0},
}

_FREE_SEGMENTS = 21
_SPEECH_ACTIONS = (
    "jawOpen", "mouthFunnel", "mouthPucker", "mouthClose", "mouthPress*", "mouthStretch*", "mouthLowerDown*",
    "mouthUpperUp*", "mouthSmile*", "mouthRollLower", "mouthShrugUpper",
)  # fmt: skip
_MAX_GAZE_DEG = 28.0


@dataclass(frozen=True)
class Performance:
    """Everything that happens in one capture, frame by frame (N frames).

    `expression` float32 [N, 52]; `gaze` float32 [N, 6]; `slip` float64 [N, 6]: rotation vector (deg) and
    translation (mm) of the headset on the head.
    """

    segments: tuple[Segment, ...]
    anchors: dict[str, int]
    expression: np.ndarray
    gaze: np.ndarray
    slip: np.ndarray


def intent(prompt: dict[str, float]) -> np.ndarray:
    """Activation vector [52] of a prompt; a trailing `*` names both sides."""
    vector = np.zeros(len(ACTIONS))
    for name, value in prompt.items():
        for full in (name.replace("*", "Left"), name.replace("*", "Right")) if "*" in name else (name,):
            vector[ACTIONS.index(full)] = value
    return vector


def perform(subject: int, movement: Movement, session: int) -> Performance:
    """The whole capture script of a subject, as that subject performs it in one session."""
    rng = rng_of(subject, f"performance {session}")
    prompts = {**ANCHOR_PROMPTS, **_COMBINATIONS}
    segments: list[Segment] = []
    intents: list[np.ndarray] = []
    anchors: dict[str, int] = {}
    for name, prompt in prompts.items():
        target = intent(prompt) * rng.normal(1.0, 0.08) + np.abs(rng.normal(0, 0.03, len(ACTIONS)))
        apex = _envelope(rng)
        if name in ANCHOR_PROMPTS:  # posed and held: the anchor is the frame nearest to the apex
            anchors[name] = len(intents) * FRAMES_PER_SEGMENT + int(np.argmax(apex))
        intents.append(apex[:, None] * target)
        segments.append(_segment(name, len(segments), "expression"))
    for k in range(_FREE_SEGMENTS):
        speech = k % 2 == 0
        intents.append(_speech(rng) if speech else _free(rng))
        segments.append(
            _segment(f"{'speech' if speech else 'free'}_{k:02d}", len(segments), "speech" if speech else "free")
        )
    meant = np.concatenate(intents)
    count = len(meant)
    gaze_deg = _gaze_deg(rng, count)
    steady = sorted(anchors.values())
    gaze_deg[steady] = rng.normal(0, 2.5, (len(steady), 1, 2))
    _blink(rng, meant, keep=steady)
    meant = _lids_follow_gaze(meant, gaze_deg)
    slip = _slip(rng, meant)
    return Performance(tuple(segments), anchors, movement.realise(meant), _unit(gaze_deg), slip)


def _segment(name: str, order: int, kind: str) -> Segment:
    return Segment(name, order * FRAMES_PER_SEGMENT, (order + 1) * FRAMES_PER_SEGMENT, kind)


def _smooth(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _envelope(rng: np.random.Generator) -> np.ndarray:
    """Onset, apex and offset of a posed expression, [FRAMES_PER_SEGMENT]."""
    t = np.linspace(0, 1, FRAMES_PER_SEGMENT)
    onset, offset = rng.uniform(0.15, 0.35), rng.uniform(0.65, 0.9)
    sway = 1 + 0.04 * np.sin(2 * np.pi * (rng.uniform(1, 2) * t + rng.uniform()))
    return _smooth(t / onset) * (1 - 0.9 * _smooth((t - offset) / (1 - offset))) * sway


def _curves(rng: np.random.Generator, channels: int, keys: int) -> np.ndarray:
    """Smooth random curves in [0, 1], [FRAMES_PER_SEGMENT, channels]."""
    position = np.linspace(0, keys - 1 - 1e-6, FRAMES_PER_SEGMENT)
    at, weight = position.astype(int), _smooth(position % 1)[:, None]
    values = rng.uniform(0, 1, (keys, channels))
    return values[at] * (1 - weight) + values[at + 1] * weight


def _speech(rng: np.random.Generator) -> np.ndarray:
    """Mouth shapes that come and go as in talking."""
    basis = np.stack([intent({name: 1.0}) for name in _SPEECH_ACTIONS])
    amount = _curves(rng, len(basis), 8) ** 2
    strength = rng.uniform(0.2, 0.9, len(basis)) * (rng.uniform(size=len(basis)) < 0.6)
    frames: np.ndarray = (amount * strength) @ basis
    return frames


def _free(rng: np.random.Generator) -> np.ndarray:
    """A few random prompts mixed: the free range of motion."""
    pool = list({**ANCHOR_PROMPTS, **_COMBINATIONS}.values())
    chosen = [intent(pool[k]) for k in rng.choice(len(pool), 3, replace=False)]
    single = np.zeros(len(ACTIONS))
    single[rng.choice(len(ACTIONS), 3, replace=False)] = rng.uniform(0.3, 1.0, 3)
    basis = np.stack([*chosen, single])
    frames: np.ndarray = _curves(rng, len(basis), 4) @ (basis * rng.uniform(0.3, 1.0, (len(basis), 1)))
    return np.clip(frames, 0, 1)


def _gaze_deg(rng: np.random.Generator, count: int) -> np.ndarray:
    """Azimuth and altitude (deg) of both eyes, [N, 2 eyes, 2]: fixations, with vergence on a near or far target."""
    holds = rng.integers(3, 9, count)
    starts = np.minimum(np.cumsum(holds) - holds[0], count)
    which = np.searchsorted(starts, np.arange(count), side="right") - 1
    azimuth = np.clip(rng.normal(0, 13, count), -_MAX_GAZE_DEG, _MAX_GAZE_DEG)[which]
    altitude = np.clip(rng.normal(-2, 8, count), -20, 18)[which]
    distance = np.exp(rng.uniform(np.log(300), np.log(4000), count))[which]
    vergence = np.degrees(np.arctan(31.0 / distance))
    left, right = azimuth + vergence, azimuth - vergence  # the left eye (x < 0) turns towards +x
    return np.stack([np.stack([left, altitude], -1), np.stack([right, altitude], -1)], 1)


def _unit(gaze_deg: np.ndarray) -> np.ndarray:
    """Azimuth and altitude in degrees [N, 2, 2] to unit vectors float32 [N, 6]."""
    azimuth, altitude = np.radians(gaze_deg[..., 0]), np.radians(gaze_deg[..., 1])
    vector = np.stack([np.sin(azimuth) * np.cos(altitude), -np.sin(altitude), np.cos(azimuth) * np.cos(altitude)], -1)
    return vector.reshape(len(gaze_deg), 6).astype(np.float32)


def _blink(rng: np.random.Generator, meant: np.ndarray, keep: list[int]) -> None:
    """Close both eyes now and then, outside the anchors."""
    both = intent({"eyeBlink*": 1.0}) > 0
    at = rng.uniform(size=len(meant)) < 0.04
    at[keep] = False
    meant[np.ix_(at, both)] = np.maximum(meant[np.ix_(at, both)], rng.uniform(0.4, 1.0, (int(at.sum()), 1)))


def _lids_follow_gaze(meant: np.ndarray, gaze_deg: np.ndarray) -> np.ndarray:
    """Set the eyeLook actions, which move lids and socket, from the gaze."""
    out = meant.copy()
    for eye, side in enumerate(("Left", "Right")):
        azimuth, altitude = gaze_deg[:, eye, 0], gaze_deg[:, eye, 1]
        inward = azimuth if side == "Left" else -azimuth
        for name, value in (("In", inward), ("Out", -inward), ("Up", altitude), ("Down", -altitude)):
            out[:, ACTIONS.index(f"eyeLook{name}{side}")] = np.clip(value / 35.0, 0, 1)
    return out


def _slip(rng: np.random.Generator, meant: np.ndarray) -> np.ndarray:
    """Small motion of the headset on the head: drift, and a push from cheeks and brows."""
    count = len(meant)
    drift = np.cumsum(rng.normal(0, 1, (count, 6)), 0) * np.array([0.02, 0.02, 0.02, 0.03, 0.03, 0.03])
    push = meant @ (rng.normal(0, 0.25, (len(ACTIONS), 6)) * _pushes()[:, None])
    return np.clip(drift, -1.5, 1.5) + push


def _pushes() -> np.ndarray:
    """How much each action presses on the headset, [52]."""
    return np.array([
        1.0 if name.startswith(("cheek", "brow", "noseSneer")) else 0.4 if name.startswith("mouthSmile") else 0.0
        for name in ACTIONS
    ])  # fmt: skip


@dataclass(frozen=True)
class Sensing:
    """How a session's headset sits and what its cameras make of the light.

    `rotation_deg` [3] and `translation_mm` [3]: donning; `emitter_gain` [L]; `ambient` and `exposure` scalars;
    `read_noise` in grey levels.
    """

    rotation_deg: np.ndarray
    translation_mm: np.ndarray
    emitter_gain: np.ndarray
    ambient: float
    exposure: float
    read_noise: float


def sensing_of(subject: int, session: int, emitters: int) -> Sensing:
    """Draw a session's donning and light."""
    rng = rng_of(subject, f"sensing {session}")
    return Sensing(
        rotation_deg=rng.normal(0, np.array([2.2, 1.6, 1.8])),
        translation_mm=rng.normal(0, np.array([1.6, 2.4, 2.0])),
        emitter_gain=np.exp(rng.normal(0, 0.2, emitters)),
        ambient=float(rng.uniform(0.0, 0.06)),
        exposure=float(np.exp(rng.normal(0, 0.22))),
        read_noise=float(rng.uniform(1.0, 2.5)),
    )
