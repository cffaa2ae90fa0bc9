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
    MOUTH_CAVITY,
    SKIN,
    TONGUE,
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
_TEXTURE_SIZE = 256


@dataclass(frozen=True)
class Movement:
    """How a person's face obeys: `realised = clip(rest + coupling @ intent, 0, limit)`, all [52]."""

    coupling: np.ndarray
    rest: np.ndarray
    limit: np.ndarray

    def realise(self, intent: np.ndarray) -> np.ndarray:
        """Activations float32 [N, 52] that this person shows when meaning `intent` [N, 52]."""
        return np.clip(self.rest + intent @ self.coupling.T, 0, self.limit).astype(np.float32)


def rng_of(subject: int, purpose: str) -> np.random.Generator:
    """The random stream of one aspect of one subject; aspects do not disturb each other."""
    return np.random.default_rng([_PEOPLE_SEED, subject, *purpose.encode()])


def movement_of(subject: int) -> Movement:
    """Gains, asymmetries, couplings, range and resting face of a subject."""
    rng = rng_of(subject, "movement")
    count = len(ACTIONS)
    gain = np.exp(rng.normal(0, 0.22, count))
    twins = {a: ACTIONS.index(_twin(name)) for a, name in enumerate(ACTIONS) if _twin(name) in ACTIONS}
    side = np.exp(rng.normal(0, 0.10, count))
    for a, b in twins.items():  # left and right share a gain, up to a small asymmetry
        if a < b:
            gain[b] = gain[a]
    coupling = np.diag(gain * side)
    for a in range(count):  # each action drags a few others along
        for b in rng.choice(count, 2, replace=False):
            if a != b and "eyeLook" not in ACTIONS[b] and ACTIONS[b] != "tongueOut":
                coupling[b, a] = abs(rng.normal(0, 0.10))
    rest = np.zeros(count)
    chosen = rng.choice(count, 6, replace=False)
    rest[chosen] = np.abs(rng.normal(0, 0.06, len(chosen)))
    limit = rng.uniform(0.75, 1.0, count)
    for a, b in twins.items():
        limit[b] = limit[a] if a < b else limit[b]
    for a, name in enumerate(ACTIONS):
        if name.startswith("eyeBlink"):  # everybody can close the eyes
            limit[a], coupling[a, a] = 1.0, max(1.0, coupling[a, a])
        if name.startswith("eyeLook") or name == "tongueOut":
            rest[a] = 0.0
    return Movement(coupling, rest, limit)


def _twin(name: str) -> str:
    """The same action on the right side of the face."""
    return name.replace("Left", "Right") if name.endswith("Left") and name != "jawLeft" else ""


def phenotypes_of(subject: int, labels: list[str], changes: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Anny's phenotype values and local face changes of a subject."""
    rng = rng_of(subject, "shape")
    phenotype = dict.fromkeys(labels, 0.5)
    phenotype |= {
        "gender": float(rng.uniform(0, 1)),
        "age": float(rng.uniform(0.55, 0.95)),
        "muscle": float(rng.uniform(0.2, 0.8)),
        "weight": float(rng.uniform(0.2, 0.8)),
        "height": 0.5,
        "proportions": float(rng.uniform(0.2, 0.8)),
    }
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


def paint(subject: int, head: Head, layout: TexelLayout) -> np.ndarray:
    """A subject's neutral texture, uint8 [3, T, T] linear RGB.

    The first channel (red) is close to what an infrared camera sees: skin is brighter and more even there.
    """
    rng = rng_of(subject, "skin")
    tone = rng.uniform(0.0, 1.0)
    skin = (1 - tone) * np.array([0.78, 0.56, 0.46]) + tone * np.array([0.42, 0.24, 0.17])
    position, part = layout.position, layout.part
    mottling = np.zeros(position.shape[:2])
    for octave in range(5):
        for _ in range(3):
            wave = np.cos(position @ rng.normal(0, 0.05 * 1.9**octave, 3) + rng.uniform(0, 6.28))
            mottling += (0.05 / 1.6**octave) * wave
    colour = skin * (1 + mottling)[..., None]
    for _ in range(rng.integers(3, 14)):  # moles and spots
        centre = position[rng.integers(layout.face_rows), rng.integers(position.shape[1])]
        distance = np.linalg.norm(position - centre, axis=-1)
        colour *= (1 - rng.uniform(0.1, 0.5) * np.exp(-0.5 * (distance / rng.uniform(0.8, 2.2)) ** 2))[..., None]
    lip = layout.masks[..., :1] * rng.uniform(0.5, 1.0)
    colour = colour * (1 - lip) + lip * skin * np.array([0.85, 0.62, 0.66])
    brow = np.clip(layout.masks[..., 1:] * rng.uniform(0.3, 1.1), 0, 1)
    colour = colour * (1 - 0.75 * brow)
    if rng.uniform() < 0.35:  # stubble or beard on the lower face
        strength = rng.uniform(0.1, 0.6)
        _, y, z = np.moveaxis(position, -1, 0)
        area = 1 / (1 + np.exp(-(y - 52) / 4)) * (z > -45) * (1 - layout.masks[..., 0])
        grain = 0.75 + 0.25 * rng.standard_normal(area.shape)
        colour = colour * (1 - strength * np.clip(area * grain, 0, 1))[..., None]
    colour[part == MOUTH_CAVITY] = np.array([0.30, 0.10, 0.10])
    colour[part == TONGUE] = np.array([0.62, 0.30, 0.30])
    colour[(part == EYE_LEFT) | (part == EYE_RIGHT)] = np.array([0.80, 0.78, 0.76])
    colour[part > EYE_RIGHT] = skin * 0.5
    return np.moveaxis(np.clip(colour * 255 + 0.5, 0, 255), -1, 0).astype(np.uint8)


@dataclass(frozen=True)
class TexelLayout:
    """What lies under each texel of the mean head: `position` [T, T, 3] mm, `part` [T, T], `masks` [T, T, 2]."""

    position: np.ndarray
    part: np.ndarray
    masks: np.ndarray

    @property
    def face_rows(self) -> int:
        """Rows above the strip of small islands."""
        return int(self.position.shape[0] * 0.85)


def texel_layout(head: Head, size: int = _TEXTURE_SIZE) -> TexelLayout:
    """Rasterise the head's attributes into its UV layout, and spread them one island border outward."""
    import torch

    from ufe_core.ops.rasterize import interpolate, rasterize

    flat = np.concatenate([head.uv * size, np.full((len(head.uv), 1), 100.0)], 1).astype(np.float32)
    owner = np.zeros(len(head.uv), np.int64)
    owner[head.uv_faces.reshape(-1)] = head.faces.reshape(-1)
    attributes = np.concatenate([head.template, head.part[:, None], head.albedo_mask], 1)[owner].astype(np.float32)
    screen, faces = torch.from_numpy(flat)[None], torch.from_numpy(head.uv_faces.astype(np.int32))
    ids = rasterize(screen, faces, height=size, width=size, cull=False)
    values = interpolate(screen, torch.from_numpy(attributes)[None], faces, ids)[0].numpy()
    covered = ids[0].numpy() >= 0
    while not covered.all():  # grow islands, so that bilinear lookups never meet an empty texel
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            neighbour, there = np.roll(values, step, axis), np.roll(covered, step, axis)
            fill = there & ~covered
            values[fill], covered[fill] = neighbour[fill], True
    part = np.rint(values[..., 3]).astype(np.int64)
    return TexelLayout(values[..., :3].astype(np.float64), np.where(part < SKIN, SKIN, part), values[..., 4:])
