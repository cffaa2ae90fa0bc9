"""The values that pass between components, checked where they are made.

Every tensor's shape, unit and dtype is written beside its field; axis letters are those of CONVENTIONS.md.
A wrong shape, dtype or value raises `ContractError` naming the type and the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ufe_core.errors import ArtifactError, ContractError

Side = Literal["left", "right", "centre"]
Region = Literal["upper", "lower", "whole"]
Role = Literal["tracking", "augmented"]
LensModel = Literal["brown_conrady", "fisheye"]

_NEWTON_STEPS = 40
_STEEPEST = 1.5  # radians: where the search for a direction starts at the most


def _require(condition: bool, owner: str, name: str, expected: str, found: object) -> None:
    if not condition:
        raise ContractError(f"{owner}.{name}: expected {expected}, found {found}.")


def check_tensor(owner: str, name: str, value: Any, shape: tuple[int | str, ...], dtype: torch.dtype) -> None:
    """Hold a tensor to a dtype and a shape whose strings stand for free axes.

    Raises:
        ContractError: names `owner.name`, what was expected and what was found.
    """
    label = f"{str(dtype).removeprefix('torch.')} [{', '.join(map(str, shape))}]"
    _require(isinstance(value, Tensor), owner, name, label, type(value).__name__)
    found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    fits = value.dtype == dtype and value.ndim == len(shape)
    fits = fits and all(isinstance(n, str) or n == m for n, m in zip(shape, value.shape, strict=False))
    _require(fits, owner, name, label, found)


@dataclass(frozen=True)
class CameraSpec:
    """One camera of a headset (or the frontal view): OpenCV model, pose in head coordinates.

    `intrinsics` is float64 [3, 3] in pixels; `rotation` float64 [3, 3] and `translation` float64 [3] (mm) map head to
    camera coordinates. `distortion` is float64 [5]: (k1, k2, p1, p2, k3) of a `brown_conrady` lens, (k1, k2, k3, k4, 0)
    of a `fisheye` lens, as CONVENTIONS.md has them.
    """

    name: str
    side: Side
    region: Region
    role: Role
    width: int
    height: int
    intrinsics: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))
    model: LensModel = "brown_conrady"

    def __post_init__(self) -> None:
        owner = f"CameraSpec {self.name!r}"
        for name, shape in (
            ("intrinsics", (3, 3)),
            ("rotation", (3, 3)),
            ("translation", (3,)),
            ("distortion", (5,)),
        ):
            value = getattr(self, name)
            _require(np.shape(value) == shape, owner, name, f"array {list(shape)}", list(np.shape(value)))
            _require(bool(np.isfinite(value).all()), owner, name, "finite numbers", "NaN or infinity")
        skew = np.abs(self.rotation @ self.rotation.T - np.eye(3)).max()
        _require(bool(skew < 1e-5), owner, "rotation", "a rotation matrix", "a matrix that is not orthonormal")
        _require(self.width > 0 and self.height > 0, owner, "width/height", "> 0", (self.width, self.height))
        _require(self.model in get_args(LensModel), owner, "model", " or ".join(get_args(LensModel)), self.model)
        four = self.model != "fisheye" or self.distortion[4] == 0
        _require(four, owner, "distortion", "(k1, k2, k3, k4, 0) of a fisheye lens", self.distortion)

    def resized(self, width: int, height: int) -> CameraSpec:
        """The same camera at another image size; `K` scales with the pixel grid."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return replace(self, width=width, height=height, intrinsics=scale @ self.intrinsics)

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> CameraSpec:
        """The camera after its headset moved by `p -> rotation p + translation` in head coordinates."""
        inverse = self.rotation @ rotation.T
        return replace(self, rotation=inverse, translation=self.translation - inverse @ translation)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project head-space points [..., 3] (mm) to pixels float64 [..., 2]; they mean nothing where not `in_view`."""
        camera = np.asarray(points, np.float64) @ self.rotation.T + self.translation
        if self.model == "fisheye":
            across = np.hypot(camera[..., 0], camera[..., 1])
            bent, _ = self._bend(np.arctan2(across, camera[..., 2]))
            on_axis = across < 1e-12
            scale = bent / np.where(on_axis, 1.0, across)
            flat = camera[..., :2] * np.where(on_axis, 0.0, scale)[..., None]
        else:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # beside or behind the camera
                flat = self._brown_conrady(camera[..., :2] / camera[..., 2:])[0]
        return flat @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2]

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """Directions in which the camera sees pixels [..., 2]: unit vectors float64 [..., 3], camera coordinates.

        The inverse of `project` by Newton's method; NaN for pixels that the lens shows nothing in.
        """
        flat = np.linalg.solve(self.intrinsics[:2, :2], (pixels - self.intrinsics[:2, 2])[..., None])[..., 0]
        radius = np.hypot(flat[..., 0], flat[..., 1])
        angle = self._unbend(radius)
        towards = flat / np.where(radius > 0, radius, 1.0)[..., None]
        if self.model == "brown_conrady" and self.distortion[2:4].any():
            angle, towards = self._undo_tangential(flat, angle, towards)
        return np.concatenate([towards * np.sin(angle)[..., None], np.cos(angle)[..., None]], -1)

    def in_view(self, points: np.ndarray) -> np.ndarray:
        """Which head-space points [..., 3] lie in front of the camera and within `max_angle`, bool [...].

        Such points have one pixel each, inside the image or not; of others `project` may give a pixel that belongs
        to a direction in view.
        """
        camera = np.asarray(points, np.float64) @ self.rotation.T + self.translation
        angle = np.arctan2(np.hypot(camera[..., 0], camera[..., 1]), camera[..., 2])
        inside: np.ndarray = (camera[..., 2] > 0) & (angle < self.max_angle)
        return inside

    def in_image(self, pixels: np.ndarray) -> np.ndarray:
        """Which pixels [..., 2] lie inside the image, bool [...]."""
        return np.asarray(((pixels >= 0) & (pixels < [self.width, self.height])).all(-1))

    @cached_property
    def max_angle(self) -> float:
        """Angle from the optical axis (radians, at most pi / 2) below which the lens' radial polynomial rises."""
        return _max_angle(self.model, tuple(self._radial.tolist()))

    @property
    def position(self) -> np.ndarray:
        """Optical centre in head coordinates, float64 [3], mm."""
        return -self.rotation.T @ self.translation

    @property
    def _radial(self) -> np.ndarray:
        """Coefficients of 1, s, s^2 ... in bent radius / radius; s = the squared angle (fisheye) or tangent."""
        order = [0, 1, 2, 3] if self.model == "fisheye" else [0, 1, 4]
        return np.concatenate([[1.0], self.distortion[order]])

    def _bend(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance from the image's centre over focal length, at angles from the axis; and its derivative."""
        radius = angle if self.model == "fisheye" else np.tan(angle)
        stretch = np.ones_like(radius) if self.model == "fisheye" else 1 + radius * radius
        bent, slope = np.zeros_like(radius), np.zeros_like(radius)
        for power, factor in reversed(list(enumerate(self._radial))):
            bent = bent * radius * radius + factor
            slope = slope * radius * radius + (2 * power + 1) * factor
        return bent * radius, slope * stretch

    def _unbend(self, bent: np.ndarray) -> np.ndarray:
        """Angles from the axis that `_bend` takes to `bent`, NaN beyond the lens' reach; Newton between bounds."""
        low, high = np.zeros_like(bent), np.full_like(bent, self.max_angle)
        angle = np.arctan(bent)
        for _ in range(_NEWTON_STEPS):
            angle = np.where((angle >= low) & (angle <= high), angle, (low + high) / 2)
            reached, slope = self._bend(angle)
            low, high = np.where(reached < bent, angle, low), np.where(reached < bent, high, angle)
            angle = angle - (reached - bent) / np.where(slope > 0, slope, 1.0)
        return np.where(bent <= self._bend(np.array(self.max_angle))[0], angle, np.nan)

    def _brown_conrady(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bent image plane [..., 2] of the ideal one, and the derivative [..., 2, 2]."""
        k1, k2, p1, p2, k3 = self.distortion
        x, y = flat[..., 0], flat[..., 1]
        r2 = x * x + y * y
        radial, slope = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))
        bent = [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ]
        mixed = slope * x * y + 2 * p1 * x + 2 * p2 * y
        along_x = np.stack([radial + slope * x * x + 2 * p1 * y + 6 * p2 * x, mixed], -1)
        along_y = np.stack([mixed, radial + slope * y * y + 6 * p1 * y + 2 * p2 * x], -1)
        return np.stack(bent, -1), np.stack([along_x, along_y], -1)

    def _undo_tangential(
        self, bent: np.ndarray, angle: np.ndarray, towards: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Angle and bearing in the image plane of bent points, from those that the radial terms alone give."""
        start = np.where(np.isnan(angle), self.max_angle, angle)
        flat = towards * np.tan(np.minimum(start, _STEEPEST))[..., None]
        for _ in range(_NEWTON_STEPS):
            reached, slope = self._brown_conrady(flat)
            singular = np.abs(np.linalg.det(slope)) < 1e-12
            slope = np.where(singular[..., None, None], np.eye(2), slope)
            flat = flat - np.linalg.solve(slope, (reached - bent)[..., None])[..., 0]
        radius = np.hypot(flat[..., 0], flat[..., 1])
        angle = np.arctan(radius)
        missed = np.abs(self._brown_conrady(flat)[0] - bent).max(-1) > 1e-9
        angle = np.where(missed | (angle > self.max_angle), np.nan, angle)
        return angle, flat / np.where(radius > 0, radius, 1.0)[..., None]


@lru_cache(maxsize=64)
def _max_angle(model: LensModel, radial: tuple[float, ...]) -> float:
    """`CameraSpec.max_angle` of a lens; cameras that move keep theirs."""
    slope = np.array(radial) * (2 * np.arange(len(radial)) + 1)
    roots = np.roots(np.trim_zeros(slope, "b")[::-1])
    turns = roots.real[(np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots))) & (roots.real > 0)]
    if not len(turns):
        return float(np.pi / 2)
    first = float(np.sqrt(turns.min()))
    return min(first, float(np.pi / 2)) if model == "fisheye" else float(np.arctan(first))


@dataclass(frozen=True)
class CodeSpace:
    """What an expression code means: its name, its size D, and a name for each entry where there is one.

    Codes of one name are taken for the same: a decoder that learned what its codes mean names its weights in it.
    """

    name: str
    size: int
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeshTopology:
    """The mesh that a decoder's geometry lives on; fixed across subjects.

    `faces` int64 [F, 3]; `uv` float32 [T, 2] in [0, 1], row 0 of a texture at v = 0; `uv_faces` int64 [F, 3];
    `regions` names vertex sets (int64 [n]): metrics use `face`, `lower_face`, `mouth_corners` (left, right) and
    `lip_centres` (upper, lower: their middles, not where they meet). `weights` is float32 [V], the W2 of P§5.2.
    """

    vertex_count: int
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    regions: Mapping[str, np.ndarray]
    weights: np.ndarray

    def __post_init__(self) -> None:
        _require(self.faces.shape == self.uv_faces.shape, "MeshTopology", "uv_faces", "the shape of faces",
                 list(self.uv_faces.shape))  # fmt: skip
        _require(int(self.faces.max()) < self.vertex_count, "MeshTopology", "faces", "indices below V",
                 int(self.faces.max()))  # fmt: skip

    def region(self, name: str) -> np.ndarray:
        """Vertex indices of a named region.

        Raises:
            ContractError: the topology has no such region.
        """
        if name not in self.regions:
            raise ContractError(f"MeshTopology has no region {name!r}; it has {', '.join(self.regions)}.")
        return self.regions[name]


@dataclass(frozen=True)
class Labels:
    """Ground truth of frames: `expression` float32 [B, D], `gaze` float32 [B, 6] unit vectors (P§1.6)."""

    expression: Tensor
    gaze: Tensor

    def __post_init__(self) -> None:
        check_tensor("Labels", "expression", self.expression, ("B", "D"), torch.float32)
        check_tensor("Labels", "gaze", self.gaze, (self.expression.shape[0], 6), torch.float32)

    def rows(self, index: Tensor | slice) -> Labels:
        """Those of these frames."""
        return Labels(self.expression[index], self.gaze[index])

    def to(self, device: torch.device) -> Labels:
        """The same on another device."""
        return Labels(self.expression.to(device), self.gaze.to(device))


@dataclass(frozen=True)
class Detections:
    """What a keypoint detector found in images of C cameras, K points in each; any axes may come before.

    `points` float32 [..., C, K, 2]: pixels (x, y) of the images; `visible` float32 [..., C, K]: how sure it is, 0 to 1,
    that a point is inside the image and hidden by nothing. Hidden points are where it believes them to be.
    """

    points: Tensor
    visible: Tensor

    def __post_init__(self) -> None:
        check_tensor("Detections", "visible", self.visible, tuple(self.points.shape[:-1]), torch.float32)
        check_tensor("Detections", "points", self.points, (*self.visible.shape, 2), torch.float32)

    def map(self, change: Callable[[Tensor], Tensor]) -> Detections:
        """Both tensors after the same indexing, reshaping of leading axes, or move to a device."""
        return Detections(change(self.points), change(self.visible))


@dataclass(frozen=True)
class FrameBatch:
    """Tracking-camera images of B instants, and what else the encoder declares as its `inputs`.

    `images` is uint8 [B, C, H, W] in the order of `cameras`; `users` is int64 [B], each frame's row in the
    calibration it is encoded with (all zero for a single wearer). `keypoints` is [B, C, K] of these images;
    `geometry` float32 [B, V, 3], mm, the exact mesh, which only rows marked as hypothetical are given.
    """

    images: Tensor
    cameras: tuple[str, ...]
    users: Tensor
    keypoints: Detections | None = None
    geometry: Tensor | None = None

    def __post_init__(self) -> None:
        count, cameras = self.images.shape[0], len(self.cameras)
        check_tensor("FrameBatch", "images", self.images, ("B", cameras, "H", "W"), torch.uint8)
        check_tensor("FrameBatch", "users", self.users, (count,), torch.int64)
        if self.keypoints is not None:
            check_tensor("FrameBatch", "keypoints", self.keypoints.visible, (count, cameras, "K"), torch.float32)
        if self.geometry is not None:
            check_tensor("FrameBatch", "geometry", self.geometry, (count, "V", 3), torch.float32)

    @classmethod
    def single_user(cls, images: Tensor, cameras: tuple[str, ...], **inputs: Any) -> FrameBatch:
        """Frames that all belong to one wearer; `keypoints` and `geometry` by name."""
        return cls(images, cameras, torch.zeros(images.shape[0], dtype=torch.int64, device=images.device), **inputs)

    def part(self, rows: slice) -> FrameBatch:
        """Some of the frames."""
        return self._map(lambda value: value[rows])

    def to(self, device: torch.device) -> FrameBatch:
        """The same frames on another device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> FrameBatch:
        keypoints = self.keypoints and self.keypoints.map(change)
        geometry = None if self.geometry is None else change(self.geometry)
        return FrameBatch(change(self.images), self.cameras, change(self.users), keypoints, geometry)


_BLANK_LEVELS = 2.0  # an image whose grey levels, of 255, deviate less shows no more than a sensor's noise


@dataclass(frozen=True)
class AnchorSet:
    """Calibration expressions of U users: `images` uint8 [U, M, C, H, W], in the order of `names`.

    `present` is bool [U, M]; a missing anchor is all zero and marked False. As far as the encoder declares them as its
    `inputs`, `keypoints` is [U, M, C, K] of these images, and `geometry` float32 [U, V, 3], mm, the neutral mesh that
    the users' avatars are made of.
    """

    images: Tensor
    names: tuple[str, ...]
    cameras: tuple[str, ...]
    present: Tensor
    keypoints: Detections | None = None
    geometry: Tensor | None = None

    def __post_init__(self) -> None:
        shape = ("U", len(self.names), len(self.cameras), "H", "W")
        check_tensor("AnchorSet", "images", self.images, shape, torch.uint8)
        check_tensor("AnchorSet", "present", self.present, tuple(self.images.shape[:2]), torch.bool)
        if self.keypoints is not None:
            found = (*self.images.shape[:3], "K")
            check_tensor("AnchorSet", "keypoints", self.keypoints.visible, found, torch.float32)
        if self.geometry is not None:
            check_tensor("AnchorSet", "geometry", self.geometry, (self.images.shape[0], "V", 3), torch.float32)

    @classmethod
    def complete(cls, images: Tensor, names: tuple[str, ...], cameras: tuple[str, ...], **inputs: Any) -> AnchorSet:
        """An anchor set with nothing missing; `keypoints` and `geometry` by name."""
        present = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        return cls(images, names, cameras, present, **inputs)

    def without_blank(self) -> tuple[AnchorSet, Tensor]:
        """The set with anchors that no camera shows anything of marked as missing, and which these are, bool [U, M]."""
        grey = self.images.float().flatten(3)
        variance = (grey - grey.mean(-1, keepdim=True)).square().mean(-1)
        blank = self.present & (variance < _BLANK_LEVELS**2).all(-1)
        images = self.images.masked_fill(blank[:, :, None, None, None], 0)
        return replace(self, images=images, present=self.present & ~blank), blank

    def part(self, users: slice) -> AnchorSet:
        """The anchors of some of the users."""
        return self._map(lambda value: value[users])

    def to(self, device: torch.device) -> AnchorSet:
        """The same anchors on another device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> AnchorSet:
        keypoints = self.keypoints and self.keypoints.map(change)
        geometry = None if self.geometry is None else change(self.geometry)
        return AnchorSet(change(self.images), self.names, self.cameras, change(self.present), keypoints, geometry)


@dataclass(frozen=True)
class Calibration:
    """What an encoder keeps of its users' anchors after enrolment.

    `tensors` maps a name to a tensor [U, ...]; they depend on the anchors alone, so one enrolment serves every
    later frame. `encoder` is the fingerprint of the encoder and weights that made it: another one refuses it.
    """

    encoder: str
    tensors: Mapping[str, Tensor]

    def rows(self, users: Tensor) -> dict[str, Tensor]:
        """Each tensor's rows for the frames of `users`, int64 [B]: [B, ...], or [1, ...] to broadcast."""
        if all(value.shape[0] == 1 for value in self.tensors.values()):
            return dict(self.tensors)
        return {name: value.index_select(0, users) for name, value in self.tensors.items()}

    def to(self, device: torch.device) -> Calibration:
        """The same on another device."""
        return Calibration(self.encoder, {name: value.to(device) for name, value in self.tensors.items()})

    def save(self, path: Path) -> None:
        """Write to a safetensors file, atomically."""
        from ufe_core.weights import save_weights

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        save_weights(path, tensors, {"component": "ufe/calibration", "config": {}, "encoder": self.encoder})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ArtifactError: there is no such file, it is damaged, or it is not a calibration.
        """
        from ufe_core.weights import load_weights

        if not path.is_file():
            raise ArtifactError(f"Calibration {path} does not exist. 'encoder.enroll(anchors).save(path)' writes one.")

        tensors, spec = load_weights(path)
        if spec["component"] != "ufe/calibration":
            raise ArtifactError(f"{path} is no calibration but holds {spec['component']!r}.")
        return cls(str(spec["encoder"]), tensors)


@dataclass(frozen=True)
class Encoding:
    """What an encoder says of B frames: `expression` float32 [B, D], `gaze` float32 [B, 6], unit vectors."""

    expression: Tensor
    gaze: Tensor

    def __post_init__(self) -> None:
        check_tensor("Encoding", "expression", self.expression, ("B", "D"), torch.float32)
        check_tensor("Encoding", "gaze", self.gaze, (self.expression.shape[0], 6), torch.float32)


def _chosen_rows(value: Tensor, rows: Tensor) -> Tensor:
    """`value.index_select(0, rows)` that leaves images in the layout that they have."""
    if value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return value.index_select(0, rows)


@dataclass(frozen=True)
class Identity:
    """The identity bias of U subjects (P§1.3): whatever tensors [U, ...] a decoder keeps of a person."""

    tensors: Mapping[str, Tensor]
    users: Tensor | None = None  # int64 [B]: this is one row for each of B frames, gathered when it is read

    def __getitem__(self, name: str) -> Tensor:
        """A tensor's rows.

        Raises:
            ContractError: there is none of this name.
        """
        if name not in self.tensors:
            raise ContractError(
                f"An identity has {', '.join(sorted(self.tensors)) or 'nothing'}, not {name!r}: it was made by another "
                "decoder. Make it with the decoder that is driven."
            )
        value = self.tensors[name]
        return value if self.users is None else _chosen_rows(value, self.users)

    def rows(self, users: Tensor) -> Identity:
        """The identity of each of B frames, given its subject's row, int64 [B]; nothing is copied yet."""
        return Identity(self.tensors, users if self.users is None else self.users.index_select(0, users))

    def to(self, device: torch.device) -> Identity:
        """The same identities on another device."""
        users = None if self.users is None else self.users.to(device)
        return Identity({name: value.to(device) for name, value in self.tensors.items()}, users)


@dataclass(frozen=True)
class AvatarCode:
    """What drives B avatars: `expression` [B, D], `gaze` [B, 6], and who they are, one row each."""

    expression: Tensor
    gaze: Tensor
    identity: Identity

    def part(self, start: int, stop: int) -> AvatarCode:
        """Those from `start` to `stop`, exclusive."""
        return self.rows(torch.arange(start, stop, device=self.gaze.device))

    def rows(self, index: Tensor) -> AvatarCode:
        """Those of these numbers, int64 [N]."""
        return AvatarCode(self.expression[index], self.gaze[index], self.identity.rows(index))


@dataclass(frozen=True)
class Avatar:
    """What a decoder makes of codes.

    `geometry` float32 [B, V, 3], mm, head coordinates; `texture` float32 [B, 3, T, T], linear RGB, or None where the
    decoder makes it only when it renders; `code` is what the decoder needs for that.
    """

    geometry: Tensor
    texture: Tensor | None = None
    code: AvatarCode | None = None

    def first(self, count: int) -> Avatar:
        """The first few of the B."""
        return self.rows(torch.arange(count, device=self.geometry.device))

    def rows(self, index: Tensor) -> Avatar:
        """Those of these numbers, int64 [N]."""
        texture = None if self.texture is None else self.texture[index]
        return Avatar(self.geometry[index], texture, None if self.code is None else self.code.rows(index))

    def __post_init__(self) -> None:
        check_tensor("Avatar", "geometry", self.geometry, ("B", "V", 3), torch.float32)
