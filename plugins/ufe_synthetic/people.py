"""Who the simulated subjects are: shape, skin and an idiosyncratic way of moving, all drawn from their number.

A subject is a pure function of its index: subject 17 is the same person in a set of 20 and in a set of 2,000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ufe_core.head import (
    ACTIONS,
    EYE_LEFT,
    EYE_RIGHT,
    Head,
    anny_model,
    open_lids,
    to_head_mm,
)

_PEOPLE_SEED = 20240728
_SHAPE_PREFIXES = (
    "cheek-",
    "chin-",
    "ear-",
    "eyebrows-",
    "eye-",
    "forehead-",
    "head-",
    "mouth-",
    "nose-",
    "neck-double",
)
_NOT_SHAPE = ("head-trans", "eye-trans-up", "mouth-trans-out", "nose-trans-out", "head-age", "head-fat")

#: Actions of the left and the right side that are twins.
PAIRS = tuple(
    (a, ACTIONS.index(name[: -len("Left")] + "Right"))
    for a, name in enumerate(ACTIONS)
    if name.endswith("Left") and name not in ("jawLeft", "mouthLeft")
)
#: What may come along with an action: muscles pull on more than one thing.
_DRAGGED = {
    "mouthSmile": ("cheekSquint", "eyeSquint", "mouthDimple"),
    "mouthDimple": ("mouthSmile", "mouthPress"),
    "mouthStretch": ("mouthFrown", "jawOpen"),
    "mouthFrown": ("mouthShrugLower", "browDown"),
    "mouthUpperUp": ("noseSneer", "cheekSquint"),
    "mouthLowerDown": ("mouthStretch", "jawOpen"),
    "mouthPucker": ("mouthFunnel",),
    "mouthFunnel": ("mouthPucker", "jawOpen"),
    "mouthPress": ("mouthShrugLower", "mouthRollUpper"),
    "mouthRollLower": ("mouthRollUpper", "mouthPress"),
    "mouthRollUpper": ("mouthRollLower",),
    "mouthShrugLower": ("mouthShrugUpper", "mouthPress"),
    "mouthShrugUpper": ("mouthShrugLower", "noseSneer"),
    "mouthLeft": ("jawLeft",),
    "mouthRight": ("jawRight",),
    "jawLeft": ("mouthLeft",),
    "jawRight": ("mouthRight",),
    "jawOpen": ("mouthLowerDown", "browInnerUp"),
    "cheekPuff": ("mouthPress", "eyeSquint"),
    "cheekSquint": ("eyeSquint", "noseSneer"),
    "noseSneer": ("mouthUpperUp", "browDown", "eyeSquint"),
    "eyeSquint": ("cheekSquint", "browDown"),
    "eyeWide": ("browInnerUp", "browOuterUp"),
    "browDown": ("eyeSquint", "noseSneer"),
    "browInnerUp": ("browOuterUp", "eyeWide"),
    "browOuterUp": ("browInnerUp", "eyeWide"),
}
_RESTING = (
    "mouthSmile", "mouthFrown", "mouthPress", "mouthStretch", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthPucker", "mouthUpperUp", "browDown", "browInnerUp", "browOuterUp", "eyeSquint", "eyeWide", "jawForward",
    "jawOpen", "jawLeft", "jawRight", "noseSneer",
)  # fmt: skip


_KNEE = 0.8
_LIDS = np.array([name.startswith("eyeBlink") for name in ACTIONS])


@dataclass(frozen=True)
class Movement:
    """How a person's face obeys: `realised = squeeze(rest + coupling @ intent)`.

    `coupling` float64 [52, 52], column = what is meant; `rest` and `limit` float64 [52]. What goes beyond `_KNEE` of
    its limit nears the limit ever more slowly, as muscles do; lids close all the way.
    """

    coupling: np.ndarray
    rest: np.ndarray
    limit: np.ndarray

    def realise(self, intent: np.ndarray) -> np.ndarray:
        """Activations float32 [N, 52] that this person shows when meaning `intent` [N, 52]."""
        meant = np.maximum(self.rest + intent @ self.coupling.T, 0)
        knee = self.limit * np.where(_LIDS, 1.0, _KNEE)
        room = np.maximum(self.limit - knee, 1e-9)
        return (np.minimum(meant, knee) + room * np.tanh(np.maximum(meant - knee, 0) / room)).astype(np.float32)

    def traits(self) -> dict[str, float]:
        """Summary numbers for the record.

        `expressiveness`: mean gain; `asymmetry`: mean |ln(left gain / right gain)|; `leak`: mean share of a one-sided
        intent that the other side shows; `coupling`: mean of what other actions an action drags along, summed;
        `range`: mean limit; `resting`: sum of the resting activations.
        """
        own = np.diag(self.coupling)
        left, right = np.array(PAIRS).T
        leak = (self.coupling[right, left] + self.coupling[left, right]) / 2
        dragged = self.coupling.sum(0) - own
        dragged[left] -= self.coupling[right, left]
        dragged[right] -= self.coupling[left, right]
        return {
            "expressiveness": float(own.mean()),
            "asymmetry": float(np.abs(np.log(own[left] / own[right])).mean()),
            "leak": float(leak.mean()),
            "coupling": float(dragged.mean()),
            "range": float(self.limit.mean()),
            "resting": float(self.rest.sum()),
        }


def rng_of(subject: int, purpose: str) -> np.random.Generator:
    """The random stream of one aspect of one subject; aspects do not disturb each other."""
    return np.random.default_rng([_PEOPLE_SEED, subject, *purpose.encode()])


def movement_of(subject: int) -> Movement:
    """Gains, asymmetries, couplings, range and resting face of a subject (the idiosyncrasy of P§2).

    Gains are a person's expressiveness times an action's own; left and right share one up to a side's bias and a
    small rest. A one-sided intent leaks to the other side. Actions drag along what shares their muscles
    (`_DRAGGED`), and now and then something of the person's own.
    """
    rng = rng_of(subject, "movement")
    count = len(ACTIONS)
    gain = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.20, count))
    limit = rng.uniform(0.75, 1.0, count)
    lopsided = rng.normal(0, 0.06)
    habit = rng.uniform(0.02, 0.25)  # of moving both sides at once
    coupling = np.zeros((count, count))
    for left, right in PAIRS:
        gain[right], limit[right] = gain[left], limit[left]
    for a, name in enumerate(ACTIONS):
        side = lopsided * (name.endswith("Left") - float(name.endswith("Right")))
        gain[a] *= np.exp(side + rng.normal(0, 0.06))
        if name.startswith("eyeBlink"):  # everybody can close the eyes
            limit[a], gain[a] = 1.0, max(1.0, gain[a])
        coupling[a, a] = gain[a]
    for left, right in PAIRS:
        if "eyeLook" not in ACTIONS[left]:
            leak = np.clip(habit * np.exp(rng.normal(0, 0.4)), 0, 0.15 if "eyeBlink" in ACTIONS[left] else 0.35)
            for a, b in ((left, right), (right, left)):
                coupling[b, a] = leak * gain[b]
                coupling[a, a] = (1 - leak) * gain[a]
    for a, name in enumerate(ACTIONS):
        for b in _dragged(name):
            coupling[b, a] += abs(rng.normal(0, 0.14))
        own = int(rng.integers(count))
        if own != a and coupling[own, a] == 0 and "eyeLook" not in ACTIONS[own] and ACTIONS[own] != "tongueOut":
            coupling[own, a] = abs(rng.normal(0, 0.06))
    return Movement(coupling, _resting_face(rng), limit)


def _resting_face(rng: np.random.Generator) -> np.ndarray:
    """Activations float64 [52] of a relaxed face: a few actions a little, twins alike but not equal."""
    rest = np.zeros(len(ACTIONS))
    for stem in rng.choice(_RESTING, 4, replace=False):
        amount = abs(rng.normal(0, 0.07))
        for name in (stem, f"{stem}Left", f"{stem}Right"):
            if name in ACTIONS:
                rest[ACTIONS.index(name)] = amount * np.exp(rng.normal(0, 0.25))
    return rest


def _dragged(name: str) -> list[int]:
    """Actions that may come along with an action, on its own side where it has one."""
    side = "Left" if name.endswith("Left") else "Right" if name.endswith("Right") else ""
    stem = name.removesuffix(side) if side and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight") else name
    out = []
    for other in _DRAGGED.get(stem, ()):
        sides = (side,) if side and f"{other}{side}" in ACTIONS else ("", "Left", "Right")
        out += [ACTIONS.index(f"{other}{s}") for s in sides if f"{other}{s}" in ACTIONS]
    return out


def body_of(subject: int) -> dict[str, float]:
    """A subject's anny phenotype values: `gender` 0 is male, 1 female; `age` 0.5 is 25 years, 1 is 90."""
    return _body(rng_of(subject, "shape"))


def _body(rng: np.random.Generator) -> dict[str, float]:
    return {
        "gender": float(rng.uniform(0, 1)),
        "age": float(rng.uniform(0.55, 0.95)),
        "muscle": float(rng.uniform(0.2, 0.8)),
        "weight": float(rng.uniform(0.2, 0.8)),
        "height": 0.5,
        "proportions": float(rng.uniform(0.2, 0.8)),
    }


def phenotypes_of(subject: int, labels: list[str], changes: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Anny's phenotype values and local face changes of a subject."""
    rng = rng_of(subject, "shape")
    phenotype = dict.fromkeys(labels, 0.5) | _body(rng)
    drawn: dict[str, float] = {}
    local: dict[str, float] = {}
    for label in changes:
        name = re.sub(r"^[lr]-", "", label)
        if not name.startswith(_SHAPE_PREFIXES) or name.startswith(_NOT_SHAPE):
            continue
        scale = 0.18 if name.startswith(("head-", "eye-")) else 0.32
        if name not in drawn:
            drawn[name] = float(rng.normal(0, scale))
        asymmetry = rng.normal(0, 0.05) if label != name else 0.0
        local[label] = float(np.clip(drawn[name] + asymmetry, -1, 1))
    return phenotype, local


def neutral_geometry(subjects: list[int], head: Head) -> np.ndarray:
    """Resting geometry float32 [N, V, 3] (mm, head coordinates; zero activation) of subjects."""
    import torch

    model = anny_model()
    labels, changes = list(model.phenotype_labels), list(model.local_change_labels)
    drawn = [phenotypes_of(subject, labels, changes) for subject in subjects]
    with torch.inference_mode():
        out = model(
            phenotype_kwargs={k: torch.tensor([p[k] for p, _ in drawn]) for k in labels},
            local_changes_kwargs={k: torch.tensor([c[k] for _, c in drawn]) for k in drawn[0][1]},
        )
    bones = list(model.bone_labels)
    eyes = out["rest_bone_heads"][:, [bones.index("eye.L"), bones.index("eye.R")]].double().mean(1).numpy()
    vertices = out["rest_vertices"].double().numpy()[:, head.vertex_ids]
    geometry = open_lids(to_head_mm(vertices, eyes[:, None, :]), head.actions)
    for part in (EYE_LEFT, EYE_RIGHT):
        _look_ahead(geometry, head.template, np.flatnonzero(head.part == part))
    return np.ascontiguousarray(geometry, np.float32)


def _look_ahead(geometry: np.ndarray, template: np.ndarray, rows: np.ndarray) -> None:
    """Turn an eyeball of every subject back to where the mean head's looks: anny's shape changes turn it, in place."""
    rest = template[rows].astype(np.float64)
    rest = rest - rest.mean(0)
    for shape in geometry:
        centre = shape[rows].mean(0)
        u, _, v = np.linalg.svd(rest.T @ (shape[rows] - centre))
        turn = v.T @ np.diag([1.0, 1.0, np.linalg.det(v.T @ u.T)]) @ u.T
        shape[rows] = (shape[rows] - centre) @ turn + centre
