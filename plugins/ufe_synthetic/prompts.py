"""The capture script of P§7.2: what a subject is asked to do, segment by segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ufe_core.head import ACTIONS

#: How long each expression segment lasts, s.
EXPRESSION_S = 8


@dataclass(frozen=True)
class Prompt:
    """One expression a subject is asked for.

    `text` is what the subject reads; `meant` maps actions to intended activations, a trailing `*` naming both sides;
    `gaze_deg` is where to look (azimuth, altitude), None for ahead; `least` is the smallest share of `meant` that
    anybody shows: people pose imprecisely, but everybody can close the eyes.
    """

    text: str
    meant: Mapping[str, float] = field(default_factory=dict)
    gaze_deg: tuple[float, float] | None = None
    least: float = 0.6


def intent(meant: Mapping[str, float]) -> np.ndarray:
    """Activation vector [52] of intended activations; a trailing `*` names both sides."""
    vector = np.zeros(len(ACTIONS))
    for name, value in meant.items():
        for full in (name.replace("*", "Left"), name.replace("*", "Right")) if "*" in name else (name,):
            vector[ACTIONS.index(full)] = value
    return vector


#: The 15 anchor candidates (P§13.2, O13-O14), by name. The first six are the default anchors.
ANCHOR_PROMPTS: dict[str, Prompt] = {
    "neutral": Prompt("Relax your face and look ahead."),
    "jaw_open": Prompt("Open your mouth as wide as you can.", {"jawOpen": 1.0}, least=0.8),
    "eyes_wide": Prompt(
        "Open your eyes wide and raise your brows.",
        {"eyeWide*": 1.0, "browInnerUp": 0.7, "browOuterUp*": 0.8},
        least=0.7,
    ),
    "eyes_closed": Prompt("Close both eyes.", {"eyeBlink*": 1.0}, least=0.93),
    "cheek_puff": Prompt("Puff up both cheeks.", {"cheekPuff": 1.0, "mouthPress*": 0.5}),
    "brows_lowered": Prompt("Lower your brows as if angry.", {"browDown*": 1.0, "noseSneer*": 0.4, "eyeSquint*": 0.4}),
    "smile_teeth": Prompt(
        "Smile and show your teeth.", {"mouthSmile*": 1.0, "cheekSquint*": 0.5, "mouthUpperUp*": 0.5, "jawOpen": 0.1}
    ),
    "smile_closed": Prompt("Smile with your lips closed.", {"mouthSmile*": 0.8, "cheekSquint*": 0.3}),
    "lip_pucker": Prompt("Pucker your lips as for a kiss.", {"mouthPucker": 1.0}),
    "lips_pressed": Prompt(
        "Press your lips together.", {"mouthPress*": 0.9, "mouthRollLower": 0.6, "mouthRollUpper": 0.6}
    ),
    "jaw_left": Prompt("Move your jaw to the left.", {"jawLeft": 1.0, "jawOpen": 0.15}),
    "jaw_right": Prompt("Move your jaw to the right.", {"jawRight": 1.0, "jawOpen": 0.15}),
    "brows_raised": Prompt("Raise both brows.", {"browInnerUp": 1.0, "browOuterUp*": 1.0}),
    "nose_wrinkle": Prompt("Wrinkle your nose.", {"noseSneer*": 1.0, "cheekSquint*": 0.5, "mouthUpperUp*": 0.4}),
    "mouth_corners_down": Prompt("Pull the corners of your mouth down.", {"mouthFrown*": 1.0, "mouthShrugLower": 0.5}),
}

#: The 43 expressions (P§7.2), anchors first, so that calibration comes before slip and light have moved on.
PROMPTS: dict[str, Prompt] = {
    **ANCHOR_PROMPTS,
    "jaw_slightly_open": Prompt("Open your mouth slightly.", {"jawOpen": 0.35}),
    "glare": Prompt("Lower your brows and open your eyes wide.", {"browDown*": 0.9, "eyeWide*": 0.9}),
    "funnel": Prompt("Say a silent, long 'oh'.", {"mouthFunnel": 1.0, "jawOpen": 0.3}),
    "snarl": Prompt(
        "Snarl: bare your upper teeth.",
        {"mouthUpperUp*": 0.9, "noseSneer*": 0.8, "mouthLowerDown*": 0.5, "jawOpen": 0.2},
    ),
    "grimace": Prompt(
        "Pull your mouth wide and show your lower teeth.",
        {"mouthStretch*": 1.0, "mouthLowerDown*": 0.7, "jawOpen": 0.1},
    ),
    "mouth_left": Prompt("Move your mouth to the left.", {"mouthLeft": 1.0}),
    "mouth_right": Prompt("Move your mouth to the right.", {"mouthRight": 1.0}),
    "tongue_out": Prompt("Put out your tongue.", {"tongueOut": 1.0, "jawOpen": 0.5, "mouthLowerDown*": 0.3}),
    "wink_left": Prompt(
        "Wink with your left eye.", {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.5}, least=0.8
    ),
    "wink_right": Prompt(
        "Wink with your right eye.", {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.6, "mouthSmileRight": 0.5}, least=0.8
    ),
    "surprise": Prompt("Look surprised.", {"jawOpen": 0.7, "eyeWide*": 1.0, "browInnerUp": 0.9, "browOuterUp*": 0.9}),
    "squint_and_dimple": Prompt("Squint and tighten your mouth corners.", {"eyeSquint*": 1.0, "mouthDimple*": 0.9}),
    "jaw_forward": Prompt("Push your jaw forward.", {"jawForward": 1.0}),
    "brow_left_raised": Prompt(
        "Raise your left brow.", {"browOuterUpLeft": 1.0, "browInnerUp": 0.3, "browDownRight": 0.4}
    ),
    "brow_right_raised": Prompt(
        "Raise your right brow.", {"browOuterUpRight": 1.0, "browInnerUp": 0.3, "browDownLeft": 0.4}
    ),
    "smirk_left": Prompt(
        "Smile with the left side only.", {"mouthSmileLeft": 0.9, "mouthDimpleLeft": 0.5, "cheekSquintLeft": 0.4}
    ),
    "smirk_right": Prompt(
        "Smile with the right side only.", {"mouthSmileRight": 0.9, "mouthDimpleRight": 0.5, "cheekSquintRight": 0.4}
    ),
    "sneer_left": Prompt(
        "Lift the left side of your upper lip.", {"noseSneerLeft": 0.9, "mouthUpperUpLeft": 1.0, "cheekSquintLeft": 0.4}
    ),
    "kiss_left": Prompt("Blow a kiss to the left.", {"mouthPucker": 0.9, "mouthLeft": 0.7}),
    "kiss_right": Prompt("Blow a kiss to the right.", {"mouthPucker": 0.9, "mouthRight": 0.7}),
    "lip_bite": Prompt(
        "Bite your lower lip.", {"mouthRollLower": 1.0, "mouthUpperUp*": 0.3, "mouthShrugLower": 0.2, "jawOpen": 0.06}
    ),
    "lips_rolled_in": Prompt("Roll both lips in.", {"mouthRollUpper": 1.0, "mouthRollLower": 0.9}),
    "pout": Prompt("Pout.", {"mouthShrugLower": 1.0, "mouthShrugUpper": 0.7, "mouthPucker": 0.3}),
    "chew": Prompt("Lower your jaw but keep your lips together.", {"jawOpen": 0.45, "mouthClose": 0.45}),
    "look_up": Prompt("Look up.", {"browInnerUp": 0.2}, (0.0, 19.0)),
    "look_down": Prompt("Look down.", {}, (0.0, -22.0)),
    "look_left": Prompt("Look to the left.", {}, (-24.0, 0.0)),
    "look_right": Prompt("Look to the right.", {}, (24.0, 0.0)),
}
