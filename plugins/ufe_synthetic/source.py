"""Source `synthetic`: people who do not exist, performing in a headset that does not exist, with exact labels."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ufe_core.errors import DataError
from ufe_core.head import Head, asset_key, load_head
from ufe_core.interfaces.source import SEGMENTS, Capture, DomeCapture, FrameLabels, HMCSource, Keypoints, Neutral
from ufe_core.ops.rasterize import EMPTY_KEY
from ufe_core.store import Store, code_fingerprint, fingerprint
from ufe_core.types import CameraSpec, Region, Side
from ufe_synthetic.appearance import Appearance, appearance_of
from ufe_synthetic.headset import Headset, load_headset
from ufe_synthetic.keypoints import KeypointSet, hidden, keypoint_set
from ufe_synthetic.people import movement_of, neutral_geometry, rng_of
from ufe_synthetic.performance import FRAMES_PER_SECOND, Motion, Performance
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.props import eyeballs, glasses, hand, hand_motion, lashes, shirt, teeth
from ufe_synthetic.record import record_of
from ufe_synthetic.render import Instant, Look, Stage, Visible, compress, radiance, rasterise, sense
from ufe_synthetic.scene import SEGMENT_OF, Part, Scene, ambient_exposure, emitter_visibility
from ufe_synthetic.sensing import Light, Sensing, headset_pose, sensing_of
from ufe_synthetic.texels import TexelLayout, texel_layout

if TYPE_CHECKING:
    from ufe_synthetic.dome import SyntheticDome

_CODE = (
    "ufe_core.geometry", "ufe_core.head", "ufe_core.ops.rasterize", "ufe_core.ops.rasterize_warp",
    *(
        f"ufe_synthetic.{name}" for name in (
            "acting", "appearance", "curves", "dome", "dome_texture", "dome_texture_warp", "gaze", "hair", "headset",
            "keypoints", "people", "performance", "prompts", "refine", "props.dentition", "props.eyeballs",
            "props.eyelashes", "props.eyewear", "props.garment", "props.hands", "props.mesh", "record", "render",
            "render_warp", "scene", "sensing", "source", "texels", "visemes", "wrinkles",
        )
    ),
)  # fmt: skip
_SHAPES_PER_FILE = 64
_FRAMES_PER_CALL = 8
_SHAPE_FILES = 8  # more than hold all labelled people; each takes some 10 MB
_STUDIOS = 4  # more than the threads that pack; each holds some 20 MB
_NEUTRAL_TEXTURE_PX = 256
_POINTS = 96
_HIDDEN_MM = 1.5  # a point is hidden by what lies further in front of it
_LABELLED, _WITH_GLASSES = 266, 0.15


class SyntheticSource(HMCSource[SyntheticConfig]):
    """Simulated captures: two sessions of each subject, 40,608 frames at 72 Hz each (P§7.2)."""

    code_modules = _CODE
    sessions = 2

    def subjects(self) -> tuple[str, ...]:
        return tuple(f"S{k:03d}" for k in range(self.config.subjects))

    def captures(self, subjects: Sequence[str], *, session: int = 0) -> list[Capture]:
        if not 0 <= session < self.sessions:
            raise DataError(f"Source 'synthetic' has sessions 0 to {self.sessions - 1}; {session} was asked for.")
        return [SyntheticCapture(self, self._number(subject), session) for subject in subjects]

    def dome(self, subjects: Sequence[str]) -> list[DomeCapture]:
        return [self.dome_of(self._number(subject)) for subject in subjects]

    def dome_of(self, number: int) -> SyntheticDome:
        """A subject's dome capture; only the last few are kept."""
        return self._domes(number)

    @cached_property
    def _domes(self) -> Callable[[int], SyntheticDome]:
        from ufe_synthetic.dome import SyntheticDome

        return lru_cache(maxsize=_STUDIOS)(lambda number: SyntheticDome(self, number))

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint({
            "source": "ufe/synthetic", "code": code_fingerprint(*_CODE), "head": asset_key(),
            "condition": self.config.condition, "headset": self.headset.digest,
            "warp": importlib.metadata.version("warp-lang"),
        })  # fmt: skip

    def _number(self, subject: str) -> int:
        digits = subject[1:]
        if not subject.startswith("S") or not digits.isdigit() or int(digits) >= self.config.subjects:
            last = self.config.subjects - 1
            raise DataError(f"Source 'synthetic' has no subject {subject!r}; it has S000 to S{last:03d}.")
        return int(digits)

    @cached_property
    def head(self) -> Head:
        """The mean head."""
        return load_head()

    @cached_property
    def headset(self) -> Headset:
        """The headset that everybody wears."""
        return load_headset(self.config.headset)

    def sensing(self, number: int, session: int) -> Sensing:
        """How a session's headset sits and is lit."""
        tracking = sum(camera.role == "tracking" for camera in self.headset.cameras)
        return sensing_of(number, session, len(self.headset.emitters), tracking, self.config.condition)

    def with_glasses(self, number: int) -> bool:
        """Whether a subject wears glasses under the source's condition."""
        return self.config.condition == "glasses" or wears_glasses(number)

    @cached_property
    def exposed(self) -> np.ndarray:
        """Ambient occlusion of the mean head, float32 [V]."""
        return ambient_exposure(self.head)

    @cached_property
    def _texels(self) -> TexelLayout:
        return texel_layout(self.head)

    @cached_property
    def _studios(self) -> Callable[[int, int], Studio]:
        return lru_cache(maxsize=_STUDIOS)(lambda number, session: Studio(self, number, session))

    def studio(self, number: int, session: int) -> Studio:
        """What rendering a session takes; only the last few are kept."""
        return self._studios(number, session)

    def keypoint_set(self, region: Region, side: Side) -> KeypointSet:
        """The 96 points that a camera of a region and side looks for."""
        if (region, side) not in self._keypoint_sets:
            self._keypoint_sets[region, side] = keypoint_set(self.head, "lower" if region == "lower" else "upper", side)
        return self._keypoint_sets[region, side]

    @cached_property
    def _keypoint_sets(self) -> dict[tuple[str, str], KeypointSet]:
        return {}

    def appearance(self, number: int, session: int) -> Appearance:
        """How a subject looks on the day of a session."""
        return appearance_of(number, self.head, self._texels, session)

    def geometry(self, number: int) -> np.ndarray:
        """A subject's neutral geometry, float32 [V, 3]; shapes are made and kept a block of subjects at a time."""
        block, row = divmod(number, _SHAPES_PER_FILE)
        shape: np.ndarray = self._shapes(block)[row]
        return shape

    @cached_property
    def _shapes(self) -> Callable[[int], np.ndarray]:
        """Neutral geometry [64, V, 3] of a block of subjects; only the last few are kept, however many there are."""
        return lru_cache(maxsize=_SHAPE_FILES)(self._load_shapes)

    def _load_shapes(self, block: int) -> np.ndarray:
        from safetensors.numpy import load_file, save_file

        store = Store()
        key = fingerprint({"block": block, "head": asset_key(), "code": code_fingerprint("ufe_synthetic.people")})
        path = store.path("people", key)
        if not path.is_dir():
            numbers = list(range(block * _SHAPES_PER_FILE, (block + 1) * _SHAPES_PER_FILE))
            with store.building("people", key) as folder:
                save_file({"geometry": neutral_geometry(numbers, self.head)}, folder / "people.safetensors")
        shapes: np.ndarray = load_file(path / "people.safetensors")["geometry"]
        return shapes

    def posed(self, number: int, motion: Motion) -> np.ndarray:
        """A subject's geometry in N frames of a performance, float32 [N, V, 3]."""
        return self._bare(number).pose(motion.expression, motion.gaze)

    @cached_property
    def _bare(self) -> Callable[[int], Scene]:
        """Scenes of heads alone: posing one takes no studio."""
        return lru_cache(maxsize=_STUDIOS)(lambda number: Scene(self.head, self.geometry(number), []))

    def parts(self, number: int) -> list[Part]:
        """What a subject's head lacks in the mean head, and what they wear."""
        return list(self._parts(number))

    @cached_property
    def _parts(self) -> Callable[[int], list[Part]]:
        return lru_cache(maxsize=_STUDIOS)(self._make_parts)

    def _make_parts(self, number: int) -> list[Part]:
        head, geometry = self.head, self.geometry(number)
        out = [
            *eyeballs(head, geometry), *teeth(head, geometry, rng_of(number, "teeth")),
            *lashes(head, geometry, rng_of(number, "lashes")), shirt(head, geometry, rng_of(number, "shirt")),
        ]  # fmt: skip
        if self.with_glasses(number):
            out += glasses(head, geometry, rng_of(number, "glasses"))
        return out


class Studio:
    """What rendering one session takes: the person's appearance, the scene, and what the kernels read of both."""

    def __init__(self, source: SyntheticSource, number: int, session: int) -> None:
        head, headset, sensing = source.head, source.headset, source.sensing(number, session)
        self.appearance = source.appearance(number, session)
        geometry, condition = source.geometry(number), source.config.condition
        parts = source.parts(number)
        if condition == "hand":
            parts.append(hand(rng_of(number, "hand")))
        fittings = Part(*headset.occluders(), "headset", follows="headset", albedo=headset.albedo)
        self.scene = Scene(head, geometry, [*parts, fittings])
        rotation, translation = headset_pose(sensing.rotation_deg, sensing.translation_mm)
        visible = emitter_visibility(
            self.scene, headset.emitters @ rotation.T + translation, headset.directions @ rotation.T
        )
        self.stage = Stage(
            self.scene, head, _look(self.appearance), source.exposed, visible, headset.power * sensing.emitter_gain,
            headset.lobe,
        )  # fmt: skip


def wears_glasses(number: int) -> bool:
    """None of the labelled 266 people does (P§7.1), some of all others do."""
    return number >= _LABELLED and bool(rng_of(number, "wears glasses").uniform() < _WITH_GLASSES)


def _look(appearance: Appearance) -> Look:
    """The infrared side of an appearance."""
    eye = appearance.eye
    return Look(
        appearance.infrared[None].astype(np.float32) / 255, appearance.gloss.astype(np.float32) / 255,
        appearance.relief, appearance.wrinkles, eye.texture, eye.iris_deg, eye.pupil_deg,
        np.array([eye.iris_ir]), np.array([eye.sclera_ir]),
    )  # fmt: skip


class SyntheticCapture(Capture):
    """One simulated session of one subject."""

    def __init__(self, source: SyntheticSource, number: int, session: int) -> None:
        self._source, self._number, self._session = source, number, session
        self.subject = f"S{number:03d}"
        self.id = f"{self.subject}/{session}"
        self.headset = source.headset
        self.cameras = self.headset.cameras
        tracking = [camera.name for camera in self.cameras if camera.role == "tracking"]
        condition = source.config.condition
        self._sensing = source.sensing(number, session)
        self._performance = Performance(number, movement_of(number), session)
        self.segments = self._performance.segments
        self._blocked = tracking[self._sensing.blocked] if self._sensing.blocked is not None else None
        self.conditions = {
            "condition": condition,
            "session": session,
            "donning_mm": round(float(np.linalg.norm(self._sensing.translation_mm)), 3),
            "donning_deg": round(float(np.linalg.norm(self._sensing.rotation_deg)), 3),
            "environment": self._sensing.environment,
            "exposure": round(self._sensing.exposure, 3),
            "ambient": round(self._sensing.ambient, 3),
            "jpeg_quality": self._sensing.jpeg_quality or "none",
            **({"blocked": self._blocked} if self._blocked else {}),
        }

    @property
    def traits(self) -> Mapping[str, float | str | bool]:  # type: ignore[override]  # drawn when first asked for
        return record_of(self._number, self._session, glasses=self._source.with_glasses(self._number))

    @property
    def anchors(self) -> Mapping[str, int]:  # type: ignore[override]  # drawn when first asked for
        return self._performance.anchors

    @property
    def _studio(self) -> Studio:
        return self._source.studio(self._number, self._session)

    @property
    def stage(self) -> Stage:
        """The scene, made ready for the renderer."""
        return self._studio.stage

    def labels(self, indices: Sequence[int]) -> FrameLabels:
        motion = self._performance.motion(self._check(indices))
        return FrameLabels(motion.expression, motion.gaze)

    def neutral(self, *, size: int | None = None) -> Neutral:
        return self._dome.neutral(size=size or _NEUTRAL_TEXTURE_PX)

    def texture(self, indices: Sequence[int], *, size: int) -> np.ndarray:
        return self._dome.texture_of(self._performance.motion(self._check(indices)), size=size)

    @property
    def _dome(self) -> SyntheticDome:
        return self._source.dome_of(self._number)

    def geometry(self, indices: Sequence[int]) -> np.ndarray:
        return self._source.posed(self._number, self._performance.motion(self._check(indices)))

    def cameras_at(self, index: int) -> tuple[CameraSpec, ...]:
        pose = self._headset_poses(self._performance.motion(self._check([index])))[0]
        return tuple(camera.moved(*pose) for camera in self.cameras)

    def keypoints(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> Keypoints:
        rows, columns = self._check(indices), self._columns(cameras)
        points = np.empty((len(rows), len(columns), _POINTS, 2), np.float32)
        visible = np.empty((len(rows), len(columns), _POINTS), bool)
        scene, faces = self._studio.scene, self.stage.opaque
        for start in range(0, len(rows), _FRAMES_PER_CALL):
            some = rows[start : start + _FRAMES_PER_CALL]
            posed = self.instant(some).vertices
            heads, pupils = posed[:, : scene.head_count], posed[:, scene.pupils]
            for n, index in enumerate(some):
                sitting = self.cameras_at(index)
                for c, column in enumerate(columns):
                    camera = sitting[column].resized(size, size)
                    place = self.keypoint_set(camera).positions(heads[n : n + 1], pupils[n : n + 1])[0]
                    points[start + n, c] = camera.project(place)
                    shown = camera.in_view(place) & camera.in_image(points[start + n, c])
                    visible[start + n, c] = shown & ~hidden(place, posed[n], faces, camera, _HIDDEN_MM)
        return Keypoints(points, visible)

    def keypoint_set(self, camera: CameraSpec) -> KeypointSet:
        """The 96 points that a camera looks for: their names, and which vertices they are."""
        return self._source.keypoint_set(camera.region, camera.side)

    def segmentation(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        rows, columns = self._check(indices), self._columns(cameras)
        out = np.empty((len(rows), len(columns), size, size), np.uint8)
        for block in range(0, len(rows), _FRAMES_PER_CALL):
            some = rows[block : block + _FRAMES_PER_CALL]
            seen = self.see(some, cameras, size)[1]
            faces = (seen.keys & 0x7FFFFFFF).numpy()
            classes = SEGMENT_OF[seen.level.material.numpy()][np.minimum(faces, len(seen.level.material) - 1)]
            classes[seen.keys.numpy() == EMPTY_KEY] = SEGMENTS.index("background")
            out[block : block + len(some)] = classes.reshape(len(some), len(columns), size, size)
        return out

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        rows, columns = self._check(indices), self._columns(cameras)
        out = np.empty((len(rows), len(columns), size, size), np.uint8)
        for start in range(0, len(rows), _FRAMES_PER_CALL):
            some = rows[start : start + _FRAMES_PER_CALL]
            instant, seen = self.see(some, cameras, size)
            linear = radiance(self.stage, instant, seen)[0]
            exposure = np.repeat(self._light(some).exposure, len(columns))
            seeds = np.array([self._seed(index, column, size) for index in some for column in columns])
            widths = np.array([self.cameras[column].width for column in columns] * len(some))
            grey = np.empty((len(widths), size, size), np.uint8)
            for width in np.unique(widths):
                of = np.flatnonzero(widths == width)
                grey[of] = sense(linear[of], exposure[of], seeds[of], self.headset.sensor, int(width))
            out[start : start + len(some)] = grey.reshape(len(some), len(columns), size, size)
        if self._blocked is not None and self._blocked in cameras:
            out[:, list(cameras).index(self._blocked)] //= 12  # covered: next to no light, and noise
        if self._sensing.jpeg_quality is not None:
            for image in out.reshape(-1, size, size):
                image[:] = compress(image, self._sensing.jpeg_quality)
        return out

    def instant(self, indices: Sequence[int]) -> Instant:
        """The scene posed for some frames: performance, eyes, headset, hand and light."""
        motion, studio, headset = self._performance.motion(indices), self._studio, self.headset
        poses = self._headset_poses(motion)
        placed = {"headset": poses, "hand": self._hand_poses(indices)}
        return Instant(
            studio.scene.pose(motion.expression, motion.gaze, placed),
            np.clip(motion.expression @ studio.appearance.wrinkle_gain, 0, 1), motion.gaze, motion.pupil,
            np.stack([headset.emitters @ rotation.T + translation for rotation, translation in poses]),
            np.stack([headset.directions @ rotation.T for rotation, _ in poses]), self._light(indices).ambient,
        )  # fmt: skip

    def see(self, indices: Sequence[int], cameras: Sequence[str], size: int) -> tuple[Instant, Visible]:
        """Pose the scene for some frames and rasterise it in some cameras; what `frames` shades."""
        poses, instant = self._headset_poses(self._performance.motion(indices)), self.instant(indices)
        resized = [self.camera(name).resized(size, size) for name in cameras]
        views = [[camera.moved(*pose) for camera in resized] for pose in poses]
        return instant, rasterise(self.stage, instant, views)

    def _headset_poses(self, motion: Motion) -> list[tuple[np.ndarray, np.ndarray]]:
        sits = self._sensing
        return [headset_pose(sits.rotation_deg + slip[:3], sits.translation_mm + slip[3:]) for slip in motion.slip]

    def _hand_poses(self, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        scene = self._studio.scene
        if "hand" not in scene.rows:
            return []
        motion = hand_motion(
            rng_of(self._number, f"hand {self._session}"), np.asarray(indices) / FRAMES_PER_SECOND,
            scene.rest[scene.rows["hand"]], scene.neutral,
        )  # fmt: skip
        return [(pose[:, :3], pose[:, 3]) for pose in motion]

    def _light(self, rows: Sequence[int]) -> Light:
        return self._sensing.light(np.asarray(rows) / FRAMES_PER_SECOND)

    def _seed(self, index: int, column: int, size: int) -> int:
        return int(np.random.default_rng([self._number, self._session, index, column, size]).integers(2**31))

    def _columns(self, cameras: Sequence[str]) -> list[int]:
        return [self.cameras.index(self.camera(name)) for name in cameras]

    def _check(self, indices: Sequence[int]) -> list[int]:
        rows = [int(index) for index in indices]
        bad = [index for index in rows if not 0 <= index < self.frame_count]
        if bad:
            raise DataError(f"Capture {self.id!r} has frames 0 to {self.frame_count - 1}; {bad[0]} was asked for.")
        return rows
