"""Headsets as data: cameras, infrared emitters, sensor and what stands in the view, read from a TOML file (P§2.1).

`headsets/quest.toml` documents the format; `load_headset` takes the name of a shipped file or the path of another.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ufe_core.config import did_you_mean
from ufe_core.errors import ConfigError, ContractError, DataError
from ufe_core.types import CameraSpec, LensModel, Region, Role, Side
from ufe_synthetic.performance import FRAMES_PER_SECOND

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).with_name("headsets")
_BARREL_SECTIONS, _GASKET_SECTIONS = 32, 36
#: Strips of each wall: at the face, outside, in front, inside. Cameras sit beside the walls, and a renderer that drops
#: faces which reach behind a camera must lose little of them.
_BARREL_STRIPS, _GASKET_STRIPS = (1, 2, 1, 1), (1, 2, 1, 7)
_REGION_ORDER, _SIDE_ORDER = ("upper", "lower", "whole"), ("left", "right", "centre")
_MIRROR = np.diag([-1.0, 1.0, 1.0])

Vector = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
Albedo = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Headset:
    """One headset, its parts in nominal head coordinates.

    `cameras`: tracking ones first, upper before lower and left before right, then augmented ones as the file has them;
    `rate_hz` of all of them, which are synchronised (P§2.2). `emitters` float64 [L, 3] mm; `directions` float64 [L, 3],
    unit, out of the light; `power` float64 [L]; `lobe` float64 [L], the exponent m of an intensity that falls off as
    cos^m. `vertices` float32 [P, 3] mm, `faces` int32 [Q, 3] and `albedo` float32 [Q] of what occludes. `digest`:
    sha256 of the file.
    """

    name: str
    summary: str
    rate_hz: float
    cameras: tuple[CameraSpec, ...]
    emitters: np.ndarray
    directions: np.ndarray
    power: np.ndarray
    lobe: np.ndarray
    sensor: SensorModel
    vertices: np.ndarray
    faces: np.ndarray
    albedo: np.ndarray
    digest: str

    def occluders(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices float32 [P, 3] and faces int32 [Q, 3] of the barrels and the gasket, which move with the headset.

        Each is a closed solid, its faces counter-clockwise seen from outside, so nothing of it needs two sides.
        """
        return self.vertices, self.faces


def load_headset(name_or_path: str | Path) -> Headset:
    """A headset by the name of a shipped file, or by the path of a `.toml` file.

    Raises:
        ConfigError: no shipped headset has that name.
        DataError: the file is missing, is no TOML, or describes no headset; the message names the field.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        known = sorted(file.stem for file in _FOLDER.glob("*.toml"))
        if str(name_or_path) not in known:
            raise ConfigError(
                f"There is no headset {str(name_or_path)!r}; there are {', '.join(known)}, or give the path of a .toml "
                f"file.{did_you_mean(str(name_or_path), known)}"
            )
        path = _FOLDER / f"{name_or_path}.toml"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Headset file {path} cannot be read: {error.strerror}.") from error
    return _parse(content, str(path))


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SensorModel(_Table):
    """An image sensor and its exposure; noise and blur are those at full resolution."""

    black: float = Field(0.012, ge=0, lt=1, description="Light below this share of saturation reads as black")
    read_noise: float = Field(2.4, ge=0, description="Standard deviation in the dark, grey levels of 255")
    shot_noise: float = Field(0.5, ge=0, description="The part that grows with light: variance = shot_noise^2 * level")
    gamma: float = Field(1.6, gt=0, description="Grey level = 255 * light^(1 / gamma)")
    vignetting: float = Field(0.35, ge=0, le=1, description="Share of the light that is lost in the image's corners")
    blur_px: float = Field(0.9, ge=0, description="Standard deviation of the lens' blur, sensor pixels")
    bits: int = Field(8, ge=1, le=8, description="Bits that a pixel is read out with")


class _Camera(_Table):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    mirror: bool = False
    side: Side | None = None
    region: Region
    role: Role
    width: int = Field(400, gt=0)
    height: int = Field(400, gt=0)
    model: LensModel = "brown_conrady"
    distortion: tuple[float, ...] = ()
    fov_deg: float | None = Field(None, gt=0, lt=180)
    fx: Positive | None = None
    fy: Positive | None = None
    cx: float | None = None
    cy: float | None = None
    position_mm: Vector | None = None
    look_at_mm: Vector | None = None
    rotation: tuple[Vector, Vector, Vector] | None = None
    translation_mm: Vector | None = None

    @model_validator(mode="after")
    def _complete(self) -> _Camera:
        matrix = [value is not None for value in (self.fx, self.fy, self.cx, self.cy)]
        if any(matrix) == (self.fov_deg is not None) or any(matrix) != all(matrix):
            raise ValueError("give either fov_deg, or fx, fy, cx and cy")
        aimed = [self.position_mm is not None, self.look_at_mm is not None]
        posed = [self.rotation is not None, self.translation_mm is not None]
        if any(aimed) == any(posed) or any(aimed) != all(aimed) or any(posed) != all(posed):
            raise ValueError("give either position_mm and look_at_mm, or rotation and translation_mm")
        if self.mirror == (self.side is not None):
            raise ValueError("give either side, or mirror = true, which makes a left and a right camera")
        count = 4 if self.model == "fisheye" else 5
        if len(self.distortion) not in (0, count):
            raise ValueError(f"distortion: a {self.model} lens has {count} coefficients, found {len(self.distortion)}")
        spec = self._written()
        if self.mirror and spec.position[0] <= 0:
            raise ValueError("mirror: write the subject's right camera, which has x > 0; the left one is its mirror")
        return self

    def specs(self) -> list[CameraSpec]:
        """The camera, or the left and the right one."""
        spec = self._written()
        return [_mirrored(spec, f"left_{self.name}"), spec] if self.mirror else [spec]

    def _written(self) -> CameraSpec:
        rotation, translation = self._pose()
        distortion = np.zeros(5)
        distortion[: len(self.distortion)] = self.distortion
        name = f"right_{self.name}" if self.mirror else self.name
        return CameraSpec(
            name, self.side or "right", self.region, self.role, self.width, self.height,
            self._intrinsics(distortion), rotation, translation, distortion, self.model,
        )  # fmt: skip

    def _pose(self) -> tuple[np.ndarray, np.ndarray]:
        if self.position_mm is not None and self.look_at_mm is not None:
            return _look_at(np.array(self.position_mm), np.array(self.look_at_mm))
        rotation = np.array(self.rotation)
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6) or np.linalg.det(rotation) < 0:
            raise ValueError("rotation: its rows must be the right-handed unit axes of the camera in head coordinates")
        return rotation, np.array(self.translation_mm)

    def _intrinsics(self, distortion: np.ndarray) -> np.ndarray:
        """`K`; from a field of view, square pixels that reach it at the image's left and right edge."""
        if self.fov_deg is None:
            return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]], np.float64)
        lens = CameraSpec("", "centre", "whole", "tracking", 1, 1, np.eye(3), np.eye(3), np.zeros(3), distortion,
                          self.model)  # fmt: skip
        half = np.radians(self.fov_deg) / 2
        if half >= lens.max_angle:
            raise ValueError(
                f"fov_deg: this distortion folds the image back at {2 * np.degrees(lens.max_angle):.1f} degrees"
            )
        left, right = lens.project(np.array([[-np.sin(half), 0, np.cos(half)], [np.sin(half), 0, np.cos(half)]]))
        focal = self.width / (right[0] - left[0])
        return np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1.0]])


class _Emitter(_Table):
    position_mm: Vector
    direction: Vector
    power: Positive
    lobe: float = Field(1.0, ge=0)
    mirror: bool = False

    @model_validator(mode="after")
    def _points_somewhere(self) -> _Emitter:
        if not any(self.direction):
            raise ValueError("direction: must not be zero")
        return self


class _Barrel(_Table):
    kind: Literal["barrel"]
    position_mm: Vector
    axis: Vector = (0.0, 0.0, 1.0)
    radius_mm: Positive
    length_mm: Positive
    thickness_mm: float = Field(2.0, gt=0)
    albedo: Albedo = 0.035
    mirror: bool = False

    @model_validator(mode="after")
    def _points_somewhere(self) -> _Barrel:
        if not any(self.axis):
            raise ValueError("axis: must not be zero")
        return self

    def solid(self) -> tuple[np.ndarray, np.ndarray]:
        """A tube with a wall."""
        axis = np.array(self.axis) / np.linalg.norm(self.axis)
        across = np.cross(axis, [1.0, 0.0, 0.0] if abs(axis[0]) < 0.7 else [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        angle = np.arange(_BARREL_SECTIONS) * 2 * np.pi / _BARREL_SECTIONS
        out = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * np.cross(axis, across)
        outer, length = self.radius_mm + self.thickness_mm, self.length_mm
        profile = [(self.radius_mm, 0.0), (outer, 0.0), (outer, length), (self.radius_mm, length)]
        rings = np.stack([np.array(self.position_mm) + r * out + h * axis for r, h in profile], 1)
        return _swept(rings, _BARREL_STRIPS)


class _NoseCut(_Table):
    half_width_mm: Positive
    depth_mm: Positive


class _Gasket(_Table):
    kind: Literal["gasket"]
    points_mm: tuple[Vector, ...] = Field(min_length=4)
    front_mm: float
    thickness_mm: float = Field(8.0, gt=0)
    nose: _NoseCut | None = None
    albedo: Albedo = 0.05

    @model_validator(mode="after")
    def _is_a_half(self) -> _Gasket:
        points = np.array(self.points_mm)
        if points[[0, -1], 0].any() or (points[1:-1, 0] <= 0).any():
            raise ValueError("points_mm: start and end at x = 0, and stay on the subject's right (x > 0) between")
        if self._face_side()[:, 2].max() >= self.front_mm:
            raise ValueError("front_mm: the foam must end in front of its face side, nose cut-out included")
        return self

    def _face_side(self) -> np.ndarray:
        """The middle of the foam where it touches the face, a closed line [N, 3]."""
        half = np.array(self.points_mm)
        line = _closed_curve(np.concatenate([half, (half @ _MIRROR)[-2:0:-1]]), _GASKET_SECTIONS)
        if self.nose is not None:
            x, y = line[:, 0], line[:, 1]
            near = (np.abs(x) < self.nose.half_width_mm) & (y > half[:, 1].mean())
            line[near, 2] += self.nose.depth_mm * np.cos(np.pi / 2 * x[near] / self.nose.half_width_mm) ** 2
        return line

    def solid(self) -> tuple[np.ndarray, np.ndarray]:
        """A wall along the line, from the face to the plane z = `front_mm`."""
        line = self._face_side()
        along = np.roll(line, -1, 0) - np.roll(line, 1, 0)
        aside = np.stack([along[:, 1], -along[:, 0], np.zeros(len(line))], 1)
        aside *= self.thickness_mm / 2 / np.linalg.norm(aside, axis=1, keepdims=True)
        ahead = np.concatenate([line[:, :2], np.full((len(line), 1), self.front_mm)], 1)
        return _swept(np.stack([line - aside, line + aside, ahead + aside, ahead - aside], 1), _GASKET_STRIPS)


_Occluder = Annotated[_Barrel | _Gasket, Field(discriminator="kind")]


class _File(_Table):
    name: str = Field(min_length=1)
    summary: str
    rate_hz: Positive = 72.0
    cameras: tuple[_Camera, ...] = Field(min_length=1)
    emitters: tuple[_Emitter, ...] = Field(min_length=1)
    sensor: SensorModel = SensorModel()
    occluders: tuple[_Occluder, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> _File:
        names = [spec.name for camera in self.cameras for spec in camera.specs()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"cameras: two are called {twice[0]!r}")
        if all(camera.role != "tracking" for camera in self.cameras):
            raise ValueError("cameras: none has role = 'tracking'")
        if self.rate_hz != FRAMES_PER_SECOND:
            raise ValueError(f"rate_hz: people act at {FRAMES_PER_SECOND:g} frames a second, and are seen at no other")
        return self


@cache
def _parse(content: bytes, path: str) -> Headset:
    try:
        table = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Headset file {path} is no TOML: {error}.") from error
    try:
        file = _File.model_validate(table)
    except ValidationError as error:
        raise DataError(_explained(path, table, error)) from error
    except ContractError as error:
        raise DataError(f"Headset file {path}: {error}") from error
    lights = [
        (light, side) for light in file.emitters for side in ((_MIRROR, np.eye(3)) if light.mirror else [np.eye(3)])
    ]
    directions = np.array([light.direction @ side for light, side in lights])
    vertices, faces, albedo = _solids(file.occluders)
    return Headset(
        file.name, file.summary, file.rate_hz, _ordered(file.cameras),
        np.array([light.position_mm @ side for light, side in lights]),
        directions / np.linalg.norm(directions, axis=1, keepdims=True),
        np.array([light.power for light, _ in lights]), np.array([light.lobe for light, _ in lights]),
        file.sensor, vertices, faces, albedo, hashlib.sha256(content).hexdigest(),
    )  # fmt: skip


def _explained(path: str, table: dict[str, Any], error: ValidationError) -> str:
    """One line that names the file, the first wrong field, and what is wrong with it."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    where, entry = "", ""
    at: Any = table
    part: Any
    for part in first["loc"]:
        if part in ("barrel", "gasket") and isinstance(at, dict) and at.get("kind") == part:
            continue
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
        known = isinstance(at, list) or (isinstance(at, dict) and part in at)
        at = at[part] if known else None
        if isinstance(at, dict) and isinstance(at.get("name"), str):
            entry = f" ({at['name']!r})"
    what = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    field = where.lstrip(".")
    return f"Headset file {path}: {field}{entry}: {what}.{more}" if field else f"Headset file {path}: {what}.{more}"


def _ordered(cameras: tuple[_Camera, ...]) -> tuple[CameraSpec, ...]:
    """Tracking cameras in the order of CONVENTIONS.md, then augmented ones as they were written."""
    specs = [spec for camera in cameras for spec in camera.specs()]
    tracking = sorted(
        (spec for spec in specs if spec.role == "tracking"),
        key=lambda spec: (_REGION_ORDER.index(spec.region), _SIDE_ORDER.index(spec.side)),
    )
    return (*tracking, *(spec for spec in specs if spec.role == "augmented"))


def _look_at(position: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose of an upright camera at `position` that looks at `target`."""
    right = np.cross(np.array([0.0, 1.0, 0.0]), target - position)
    if np.linalg.norm(right) < 1e-6:
        raise ValueError("look_at_mm: must not lie straight above or below position_mm, or on it; give a rotation")
    forward = (target - position) / np.linalg.norm(target - position)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rotation, -rotation @ position


def _mirrored(camera: CameraSpec, name: str) -> CameraSpec:
    """The left camera whose image, flipped, is what the right one would see of a mirrored face."""
    intrinsics, distortion = camera.intrinsics.copy(), camera.distortion.copy()
    intrinsics[0, 2] = camera.width - intrinsics[0, 2]
    if camera.model == "brown_conrady":
        distortion[3] *= -1
    return CameraSpec(
        name, "left", camera.region, camera.role, camera.width, camera.height, intrinsics,
        _MIRROR @ camera.rotation @ _MIRROR, _MIRROR @ camera.translation, distortion, camera.model,
    )  # fmt: skip


def _solids(occluders: tuple[_Barrel | _Gasket, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All solids in one mesh, with each face's albedo."""
    vertices: list[np.ndarray] = [np.zeros((0, 3))]
    faces: list[np.ndarray] = [np.zeros((0, 3), np.int64)]
    albedo: list[np.ndarray] = [np.zeros(0)]
    for occluder in occluders:
        points, triangles = occluder.solid()
        both = [(points @ _MIRROR, triangles[:, ::-1])] if isinstance(occluder, _Barrel) and occluder.mirror else []
        for own, order in [*both, (points, triangles)]:
            faces.append(order + sum(map(len, vertices)))
            vertices.append(own)
            albedo.append(np.full(len(order), occluder.albedo))
    return (
        np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32),
        np.concatenate(albedo).astype(np.float32),
    )  # fmt: skip


def _swept(corners: np.ndarray, strips: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The closed solid that a polygon sweeps on a closed way.

    `corners` [S, K, 3] are the polygon's stations; `strips` says into how many strips each of its K sides is cut.
    """
    parts = [
        start[:, None] * (1 - t) + stop[:, None] * t
        for start, stop, cuts in zip(np.moveaxis(corners, 1, 0), np.moveaxis(np.roll(corners, -1, 1), 1, 0), strips,
                                      strict=True)
        for t in [np.arange(cuts)[:, None] / cuts]
    ]  # fmt: skip
    rings = np.concatenate(parts, 1)
    stations, count = rings.shape[:2]
    here = np.arange(stations)[:, None] * count + np.arange(count)
    right, up = np.roll(here, -1, 1), np.roll(here, -1, 0)
    across = np.roll(right, -1, 0)
    faces = np.concatenate([np.stack(f, -1).reshape(-1, 3) for f in ((here, right, across), (here, across, up))])
    points = rings.reshape(-1, 3)
    a, b, c = (points[faces[:, k]] for k in range(3))
    volume = (a * np.cross(b, c)).sum()
    return points, faces if volume > 0 else faces[:, ::-1]


def _closed_curve(points: np.ndarray, count: int) -> np.ndarray:
    """`count` points at equal distances on a smooth closed curve through `points` [N, 3] (Catmull-Rom)."""
    a, b, c, d = (np.roll(points, shift, 0)[:, None] for shift in (1, 0, -1, -2))
    t = np.linspace(0, 1, 64, endpoint=False)[None, :, None]
    curve = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    curve = np.concatenate([curve.reshape(-1, 3), points[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.linspace(0, length[-1], count, endpoint=False)
    return np.stack([np.interp(at, length, column) for column in curve.T], 1)
