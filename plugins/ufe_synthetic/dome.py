"""Dome captures of the simulated people: colour cameras and even light all around the head (P§1.2).

The world's axes are those of head coordinates while the subject sits still, +x to their right, +y down, +z to the
front; its origin is the middle of the dome. Cameras and lights are fixed to the world, the head moves in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ufe_core.errors import DataError
from ufe_core.geometry import rotation_vector_matrix
from ufe_core.head import ACTIONS, EYE_SOCKET, MOUTH_CAVITY, TONGUE, Head, load_head
from ufe_core.interfaces.source import DomeCapture, FrameLabels, Neutral, Segment
from ufe_core.types import CameraSpec, MeshTopology, Side
from ufe_synthetic.appearance import Appearance, appearance_of
from ufe_synthetic.curves import waves
from ufe_synthetic.dome_texture import Atlas, Gathered, Unwrapped
from ufe_synthetic.people import movement_of, rng_of
from ufe_synthetic.performance import FRAMES_PER_SECOND, SCRIPT, Motion, Performance
from ufe_synthetic.refine import Refinement, refine
from ufe_synthetic.render import Instant, Level, Look, Stage, Visible, radiance, rasterise
from ufe_synthetic.scene import MATERIALS, Scene, edges_of, lit_share, smoothed
from ufe_synthetic.texels import TexelLayout, texel_layout

if TYPE_CHECKING:
    from ufe_synthetic.source import SyntheticSource

#: Every third frame of the performance is a frame of the dome: 24 a second.
EVERY = 3
SENSOR_WIDTH, SENSOR_HEIGHT = 2668, 4096
#: The middle of the dome, in head coordinates of a head that sits still.
CENTRE_MM = np.array([0.0, 50.0, -65.0])

#: Rows of cameras: elevation, and azimuths to either side, deg; 0 is in front. Denser in front of the face.
_ROWS = (
    (0, (0, 15, 30, 45, 65, 90, 120, 150, 180)),
    (22, (0, 22, 45, 75, 120)),
    (-22, (0, 22, 45, 75)),
    (45, (0, 50, 130)),
    (-40, (0, 35)),
)
#: Rows and azimuths of the cameras that textures are averaged over.
_TEXTURE_ROWS = ((0, (0, 30, 65, 120, 180)), (22, (0,)), (-22, (0, 45)), (45, (50, 130)))
_DISTANCE_MM, _DISTANCE_SPREAD_MM = 1000.0, 60.0
_FIELD_MM = 440.0  # what an image's height covers at the middle of the dome

_LIGHTS, _LIGHTS_MM, _LOWEST_LIGHT_DEG = 28, 1300.0, -45.0
_LIGHT_POWER, _AMBIENT = 140.0, 0.15
#: Share of the light on what the shadow maps of the resting head cannot tell.
_INSIDE_LIGHT, _OPEN_LIGHT = 0.4, {"eye": 0.85, "teeth": 0.65, "cloth": 0.8}
_ROW = {name: row for row, name in enumerate(MATERIALS)}

_TAKE = 1000  # the performance's session: no headset's has this number
_TEXELS = 512
_ROUND_ABOVE_Y_MM = 170.0  # a shirt lies close over what is below
_PIXELS_PER_CALL = 2**22
_STUDIOS = 4

_NECK_MM = np.array([0.0, 150.0, -70.0])
_TURN_DEG, _SHIFT_MM = np.array([5.0, 6.0, 3.0]), np.array([6.0, 4.0, 7.0])

#: Linear RGB albedo of what bears no paint, and gloss of all: even light from all sides leaves little of it.
_COLOURS = {
    "teeth": (0.68, 0.62, 0.50),
    "tongue": (0.46, 0.165, 0.14),
    "mouth": (0.27, 0.085, 0.08),
    "lash": (0.030, 0.022, 0.018),
    "cloth": (0.008, 0.008, 0.009),  # everybody wears a black cape, which the background swallows
    "gum": (0.46, 0.165, 0.14),
}
_GLOSS = {"skin": 0.09, "lips": 0.16, "teeth": 0.2, "tongue": 0.14, "mouth": 0.06, "eye": 8.0, "gum": 0.15}
#: `MATERIALS` with this gloss, [M, 5]; the albedo of each in red, green and blue, [3, M].
_MATERIALS = np.array([[albedo, _GLOSS.get(name, gloss), *rest] for name, (albedo, gloss, *rest) in MATERIALS.items()])
_RGB = np.array([_COLOURS.get(name, (row[0],) * 3) for name, row in MATERIALS.items()]).T

#: Poses, beside the resting one, in which a texel is looked for that a frame does not show.
_UNFOLDED = (
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    {"jawOpen": 1.0, "mouthUpperUpLeft": 0.7, "mouthUpperUpRight": 0.7},
    {"jawOpen": 0.8, "tongueOut": 1.0},
)


def _rig() -> tuple[CameraSpec, ...]:
    cameras: list[CameraSpec] = []
    for elevation, azimuths in _ROWS:
        for azimuth in azimuths:
            for turned in (azimuth,) if azimuth in (0, 180) else (azimuth, -azimuth):
                cameras.append(_camera(len(cameras), elevation, turned))
    return tuple(cameras)


def _towards(elevation_deg: float, azimuth_deg: float) -> np.ndarray:
    """Unit vector from the middle of the dome; azimuth 90 is on the subject's right."""
    up, turn = np.radians(elevation_deg), np.radians(azimuth_deg)
    return np.array([np.cos(up) * np.sin(turn), -np.sin(up), np.cos(up) * np.cos(turn)])


def _camera(number: int, elevation: float, azimuth: float) -> CameraSpec:
    towards = _towards(elevation, azimuth)
    place = towards * (_DISTANCE_MM + _DISTANCE_SPREAD_MM * np.sin(2.4 * number))
    down = np.array([0.0, 1.0, 0.0]) - towards * towards[1]
    down /= np.linalg.norm(down)
    rotation = np.stack([np.cross(down, -towards), down, -towards])
    focal = SENSOR_HEIGHT * _DISTANCE_MM / _FIELD_MM
    intrinsics = np.array([[focal, 0, SENSOR_WIDTH / 2], [0, focal, SENSOR_HEIGHT / 2], [0, 0, 1.0]])
    side: Side = "centre" if azimuth in (0, 180) else "right" if azimuth > 0 else "left"
    return CameraSpec(
        f"dome_{number:02d}", side, "whole", "augmented", SENSOR_WIDTH, SENSOR_HEIGHT, intrinsics, rotation,
        -rotation @ place,
    )  # fmt: skip


#: 40 pinhole cameras, in world coordinates; `dome_00` is straight ahead. No encoder sees one: all are "augmented".
CAMERAS = _rig()


def _among(rows: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[str, ...]:
    wanted = np.array([_towards(e, s * a) for e, azimuths in rows for a in azimuths for s in (1, -1)])
    return tuple(camera.name for camera in CAMERAS if (wanted @ -camera.rotation[2]).max() > 1 - 1e-6)


TEXTURE_CAMERAS = _among(_TEXTURE_ROWS)
SEGMENTS = tuple(Segment(s.name, -(-s.start // EVERY), -(-s.stop // EVERY), s.kind) for s in SCRIPT)


def lights() -> np.ndarray:
    """Where the lights stand, float64 [L, 3], mm, world: evenly on the dome but for its lowest part."""
    lowest = np.sin(np.radians(_LOWEST_LIGHT_DEG))
    k = np.arange(_LIGHTS) + 0.5
    up, turn = 1 - (1 - lowest) * k / _LIGHTS, np.pi * (3 - np.sqrt(5)) * k
    level = np.sqrt(1 - up**2)
    return _LIGHTS_MM * np.stack([level * np.sin(turn), -up, level * np.cos(turn)], -1)


def in_head(camera: CameraSpec, pose: np.ndarray) -> CameraSpec:
    """A camera in world coordinates as one in the head's, whose pose (head to world) is [3, 4]."""
    rotation = camera.rotation @ pose[:, :3]
    return replace(camera, rotation=rotation, translation=camera.rotation @ pose[:, 3] + camera.translation)


class _RoundStage(Stage):
    """A stage whose fine level rounds the whole head, not the face alone: a dome sees it from all sides."""

    @cached_property
    def refinement(self) -> Refinement:
        scene, faces = self.scene, self.scene.faces[self._kept]
        chosen = (faces < scene.head_count).all(1) & (scene.rest[faces][..., 1] < _ROUND_ABOVE_Y_MM).all(1)
        return refine(faces, scene.uv_faces[self._kept], np.asarray(chosen), scene.count, len(scene.head.uv))


class Studio:
    """What rendering a subject takes: appearance, scene without glasses, the stage in red, green and blue."""

    def __init__(self, source: SyntheticSource, number: int) -> None:
        head, geometry = source.head, source.geometry(number)
        self.appearance = appearance_of(number, head, _layout(), _TAKE)
        parts = [part for part in source.parts(number) if part.material not in ("glasses", "lens")]
        self.scene = Scene(head, geometry, [replace(part, albedo=None) for part in parts])
        lit = light_shares(self.scene, head)
        self.stage = _RoundStage(
            self.scene, head, _look(self.appearance), source.exposed, lit, np.full(_LIGHTS, _LIGHT_POWER),
            np.zeros(_LIGHTS), -np.inf, _MATERIALS, _RGB,
        )  # fmt: skip

    def see(self, instant: Instant, views: Sequence[CameraSpec]) -> Visible:
        """What cameras in head coordinates see, which has no colour yet."""
        return rasterise(self.stage, instant, [views])

    def shine(self, instant: Instant, seen: Visible, *, softened: bool = True) -> Tensor:
        """Linear light float32 [3, C, H, W] of what was seen."""
        return radiance(self.stage, instant, seen, softened=softened)

    def atlas(self, level: Level, size: int) -> Atlas:
        """Texture layout of T x T texels on the meshes of large or of small images."""
        key = (size, len(level.faces))
        if key not in self._atlases:
            self._atlases[key] = Atlas(self.scene, level, size)
        return self._atlases[key]

    @cached_property
    def _atlases(self) -> dict[tuple[int, int], Atlas]:
        return {}


@cache
def _layout() -> TexelLayout:
    return texel_layout(load_head(), _TEXELS)


@lru_cache(maxsize=_STUDIOS)
def _studio(source: SyntheticSource, number: int) -> Studio:
    """Those used lately; each holds some 60 MB."""
    return Studio(source, number)


def _look(appearance: Appearance) -> Look:
    """The visible side of an appearance."""
    eye = appearance.eye
    return Look(
        appearance.rgb.astype(np.float32) / 255, appearance.gloss.astype(np.float32) / 255, appearance.relief,
        appearance.wrinkles, eye.texture, eye.iris_deg, eye.pupil_deg, eye.iris_rgb, eye.sclera_rgb,
    )  # fmt: skip


def light_shares(scene: Scene, head: Head) -> np.ndarray:
    """Share of each of the dome's lights that reaches each vertex of the resting, unmoved head, float32 [L, count].

    The lights are far away, so their shadows are those of parallel light; they follow neither expression nor motion.
    """
    out = np.full((_LIGHTS, scene.count), _INSIDE_LIGHT, np.float32)
    points, neighbours = scene.neutral.astype(np.float64), edges_of(head.faces)
    inside = np.isin(head.part, (MOUTH_CAVITY, TONGUE, EYE_SOCKET))
    for k, place in enumerate(lights()):
        share = lit_share(points, head.faces, points, place / np.linalg.norm(place), parallel=True)
        share = smoothed(share, neighbours)
        share[inside] = _INSIDE_LIGHT
        out[k, : scene.head_count] = share
    for name, part_share in _OPEN_LIGHT.items():
        out[:, np.unique(scene.faces[scene.material == _ROW[name]])] = part_share
    return out


class SyntheticDome(DomeCapture):
    """One simulated dome capture: the script of the headset sessions in another take, 24 frames a second.

    The segment named `neutral` comes first. Images hold linear light without noise or lens errors, on black.

    Args:
        source: whose people.
        number: of the subject.
        texture_px: T, texels along a side of `texture` where none are asked for.
    """

    segments = SEGMENTS
    cameras = CAMERAS

    def __init__(self, source: SyntheticSource, number: int, texture_px: int = 256) -> None:
        self._source, self._number, self._texture_px = source, number, texture_px
        self.subject = f"S{number:03d}"
        self.id = f"{self.subject}/dome"
        self._performance = Performance(number, movement_of(number), _TAKE)
        self._resting: dict[int, Gathered] = {}

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], height: int) -> np.ndarray:
        rows, width = self._check(indices), self.width(height)
        out = np.empty((len(rows), len(cameras), 3, height, width), np.uint8)
        at_once = max(1, _PIXELS_PER_CALL // (height * width))
        for n, index in enumerate(rows):
            for start in range(0, len(cameras), at_once):
                some = cameras[start : start + at_once]
                light = self._studio.shine(*self.see(index, some, height))
                out[n, start : start + len(some)] = _quantised(light.movedim(0, 1).numpy())
        return out

    def geometry(self, indices: Sequence[int]) -> np.ndarray:
        return self._source.posed(self._number, self._motion(indices))

    def texture(self, indices: Sequence[int], *, size: int | None = None) -> np.ndarray:
        rows, size = self._check(indices), size or self._texture_px
        out = np.empty((len(rows), 3, size, size), np.uint8)
        for n, index in enumerate(rows):
            out[n] = _planes(self._gather(self._instant(index), self._pose(index), size).over(self._unfolded(size)))
        return out

    def texture_of(self, motion: Motion, *, size: int) -> np.ndarray:
        """Textures of the subject in any motion, the head unmoved, uint8 [N, 3, T, T]."""
        out = np.empty((len(motion.gaze), 3, size, size), np.uint8)
        for n in range(len(out)):
            row = slice(n, n + 1)
            posed = self._posed(motion.expression[row], motion.gaze[row], motion.pupil[row], _RESTING_POSE)
            out[n] = _planes(self._gather(posed, _RESTING_POSE, size).over(self._unfolded(size)))
        return out

    def texture_seen(self, indices: Sequence[int], *, size: int | None = None) -> np.ndarray:
        """Which texels of `texture` some camera saw in the very frame, bool [N, T, T].

        The others hold what was seen of them at rest or with eyes closed, mouth open or tongue out, and where that was
        nothing either, averages of the texels around them.
        """
        rows, size = self._check(indices), size or self._texture_px
        out = np.empty((len(rows), size, size), bool)
        for n, index in enumerate(rows):
            out[n] = self._unwrapped(self._instant(index), self._pose(index), size)[1].seen
        return out

    def head_pose(self, indices: Sequence[int]) -> np.ndarray:
        return np.array([self._pose(index) for index in self._check(indices)]).reshape(-1, 3, 4)

    def neutral(self, *, size: int | None = None) -> Neutral:
        """Geometry and texture at rest, nothing activated, eyes straight ahead, head unmoved."""
        return Neutral(self._source.geometry(self._number), _planes(self._unfolded(size or self._texture_px)))

    def topology(self) -> MeshTopology:
        return self._source.head.topology

    def labels(self, indices: Sequence[int]) -> FrameLabels:
        """Actions and gaze that the geometry was posed with."""
        motion = self._motion(indices)
        return FrameLabels(motion.expression, motion.gaze)

    def see(self, index: int, cameras: Sequence[str], height: int) -> tuple[Instant, Visible]:
        """Pose the scene for a frame and rasterise it in some cameras; what `frames` shades."""
        instant, pose = self._instant(*self._check([index])), self._pose(index)
        return instant, self._seen(instant, pose, cameras, height)

    @staticmethod
    def width(height: int) -> int:
        """Width of images of that height."""
        return round(height * SENSOR_WIDTH / SENSOR_HEIGHT)

    @property
    def _studio(self) -> Studio:
        return _studio(self._source, self._number)

    def _motion(self, indices: Sequence[int]) -> Motion:
        return self._performance.motion([EVERY * index for index in self._check(indices)])

    def _instant(self, index: int) -> Instant:
        motion = self._motion([index])
        return self._posed(motion.expression, motion.gaze, motion.pupil, self._pose(index))

    def _posed(self, expression: np.ndarray, gaze: np.ndarray, pupil: np.ndarray, pose: np.ndarray) -> Instant:
        """One frame [1, ...], with the world's lights where they are for the head."""
        studio, places = self._studio, (lights() - pose[:, 3]) @ pose[:, :3]
        inward = -lights() @ pose[:, :3] / _LIGHTS_MM
        return Instant(
            studio.scene.pose(expression, gaze), np.clip(expression @ studio.appearance.wrinkle_gain, 0, 1), gaze,
            pupil, places[None], inward[None], np.array([_AMBIENT]),
        )  # fmt: skip

    def _seen(self, instant: Instant, pose: np.ndarray, cameras: Sequence[str], height: int) -> Visible:
        for name in cameras:
            self.camera(name)
        return self._studio.see(instant, _views(tuple(cameras), height, tuple(pose.flat)))

    def _gather(self, instant: Instant, pose: np.ndarray, size: int, wanted: np.ndarray | None = None) -> Gathered:
        atlas, seen = self._unwrapped(instant, pose, size, wanted)
        return atlas.gather(seen, self._studio.shine(instant, seen.pixels, softened=False))  # it reads no edges

    def _unwrapped(
        self, instant: Instant, pose: np.ndarray, size: int, wanted: np.ndarray | None = None
    ) -> tuple[Atlas, Unwrapped]:
        seen = self._seen(instant, pose, TEXTURE_CAMERAS, 2 * size)
        atlas = self._studio.atlas(seen.level, size)
        return atlas, atlas.unwrap(seen, wanted)

    def _unfolded(self, size: int) -> Gathered:
        """The resting face, its folds looked into."""
        if size not in self._resting:
            self._resting[size] = self._look_into_folds(size)
        return self._resting[size]

    def _look_into_folds(self, size: int) -> Gathered:
        found = Gathered(np.zeros((size, size, 3), np.float32), np.zeros((size, size), bool))
        for actions in ({}, *_UNFOLDED):
            expression = np.zeros((1, len(ACTIONS)), np.float32)
            for name, amount in actions.items():
                expression[0, ACTIONS.index(name)] = amount
            ahead, pupil = np.array([[0, 0, 1, 0, 0, 1]], np.float32), np.ones(1, np.float32)
            posed = self._posed(expression, ahead, pupil, _RESTING_POSE)
            found = found.over(self._gather(posed, _RESTING_POSE, size, wanted=~found.seen))
        return found.filled()

    def _pose(self, index: int) -> np.ndarray:
        """Head to world [3, 4] in one frame: the head turns about the neck."""
        sway = self._sway
        turn, shift = sway.at(index * EVERY / FRAMES_PER_SECOND)
        rotation = rotation_vector_matrix(np.radians(turn))
        return np.concatenate([rotation, (_NECK_MM - rotation @ _NECK_MM + shift - CENTRE_MM)[:, None]], 1)

    @cached_property
    def _sway(self) -> _Sway:
        return _Sway.draw(rng_of(self._number, "dome sway"))

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name.

        Raises:
            DataError: the dome has no such camera.
        """
        if name not in _CAMERA_OF:
            raise DataError(f"Capture {self.id!r} has no camera {name!r}; it has dome_00 to {CAMERAS[-1].name}.")
        return _CAMERA_OF[name]

    def _check(self, indices: Sequence[int]) -> list[int]:
        rows = [int(index) for index in indices]
        bad = [index for index in rows if not 0 <= index < self.frame_count]
        if bad:
            raise DataError(f"Capture {self.id!r} has frames 0 to {self.frame_count - 1}; {bad[0]} was asked for.")
        return rows


_CAMERA_OF = {camera.name: camera for camera in CAMERAS}


@lru_cache(maxsize=16)
def _views(names: tuple[str, ...], height: int, pose: tuple[float, ...]) -> tuple[CameraSpec, ...]:
    """Cameras of a height in the coordinates of a head whose pose [3, 4] comes in rows; it rests in many frames."""
    width = SyntheticDome.width(height)
    return tuple(in_head(_CAMERA_OF[name].resized(width, height), np.reshape(pose, (3, 4))) for name in names)


_RESTING_POSE = np.concatenate([np.eye(3), -CENTRE_MM[:, None]], 1)


@dataclass(frozen=True)
class _Sway:
    """How a head sways: where it is on average, `rest` [6], and slow waves around it, hertz and phase [K, 6]."""

    rest: np.ndarray
    hertz: np.ndarray
    phase: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Sway:
        rest = rng.normal(0, [1.5, 1.5, 1.0, 3.0, 3.0, 3.0])
        return cls(rest, rng.uniform(0.02, 0.4, (5, 6)), rng.uniform(0, 2 * np.pi, (5, 6)))

    def at(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Rotation vector (deg) and shift (mm)."""
        reach = np.concatenate([_TURN_DEG, _SHIFT_MM])
        place = self.rest + reach * waves(np.array([seconds]), self.hertz, self.phase)[0]
        return place[:3], place[3:]


def _quantised(light: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(light, 0, 1) * 255 + 0.5, np.uint8)


def _planes(texture: Gathered) -> np.ndarray:
    """uint8 [3, T, T]."""
    return np.ascontiguousarray(np.moveaxis(_quantised(texture.colour), -1, 0))
