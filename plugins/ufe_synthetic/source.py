"""Source `synthetic`: people who do not exist, performing in a headset that does not exist, with exact labels."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from ufe_core.errors import DataError
from ufe_core.head import Head, asset_key, load_head
from ufe_core.interfaces.source import Capture, FrameLabels, HMCSource, Neutral
from ufe_core.store import Store, code_fingerprint, fingerprint
from ufe_core.types import CameraSpec
from ufe_synthetic.headset import default_headset
from ufe_synthetic.people import TexelLayout, movement_of, neutral_geometry, paint, rng_of, texel_layout
from ufe_synthetic.performance import Performance, perform
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.render import Instant, Look, Sensor, Stage, radiance, rasterise, sense
from ufe_synthetic.scene import Scene, ambient_exposure, emitter_visibility
from ufe_synthetic.sensing import headset_pose, sensing_of

_CODE = (
    "ufe_core.geometry", "ufe_core.head", "ufe_core.ops.rasterize", "ufe_core.ops.rasterize_warp",
    "ufe_synthetic.headset", "ufe_synthetic.people", "ufe_synthetic.performance", "ufe_synthetic.render",
    "ufe_synthetic.render_warp", "ufe_synthetic.source",
)  # fmt: skip
_SHAPES_PER_FILE = 64
_FRAMES_PER_CALL = 8


class SyntheticSource(HMCSource[SyntheticConfig]):
    """Simulated captures: one session per subject, 48 segments of 24 frames each."""

    code_modules = _CODE

    def subjects(self) -> tuple[str, ...]:
        return tuple(f"S{k:03d}" for k in range(self.config.subjects))

    def captures(self, subjects: Sequence[str], *, session: int = 0) -> list[Capture]:
        return [SyntheticCapture(self, subject, self._number(subject)) for subject in subjects]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint({
            "source": "ufe/synthetic", "code": code_fingerprint(*_CODE), "head": asset_key(),
            "session": self.config.session, "warp": importlib.metadata.version("warp-lang"),
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
    def exposed(self) -> np.ndarray:
        """Ambient occlusion of the mean head, float32 [V]."""
        return ambient_exposure(self.head)

    @cached_property
    def _texels(self) -> TexelLayout:
        return texel_layout(self.head)

    def texture(self, number: int) -> np.ndarray:
        """A subject's neutral texture, uint8 [3, T, T]."""
        return paint(number, self.head, self._texels)

    def geometry(self, number: int) -> np.ndarray:
        """A subject's neutral geometry, float32 [V, 3]; shapes are made and kept a block of subjects at a time."""
        from safetensors.numpy import load_file, save_file

        block = number // _SHAPES_PER_FILE
        if block not in self._blocks:
            store = Store()
            key = fingerprint({"block": block, "head": asset_key(), "code": code_fingerprint("ufe_synthetic.people")})
            path = store.path("people", key)
            if not path.is_dir():
                numbers = list(range(block * _SHAPES_PER_FILE, (block + 1) * _SHAPES_PER_FILE))
                with store.building("people", key) as folder:
                    save_file({"geometry": neutral_geometry(numbers, self.head)}, folder / "people.safetensors")
            self._blocks[block] = load_file(path / "people.safetensors")["geometry"]
        shape: np.ndarray = self._blocks[block][number % _SHAPES_PER_FILE]
        return shape

    @cached_property
    def _blocks(self) -> dict[int, np.ndarray]:
        return {}


class SyntheticCapture(Capture):
    """One simulated session."""

    def __init__(self, source: SyntheticSource, subject: str, number: int) -> None:
        self._source = source
        self._number = number
        self._session = source.config.session
        self.subject = subject
        self.id = f"{subject}/{self._session}"
        headset = default_headset()
        self.cameras = headset.cameras
        self._sensing = sensing_of(number, self._session, len(headset.emitters), 4)
        performance = self._performance
        self.segments, self.anchors = performance.segments, performance.anchors
        self.conditions = {
            "donning_mm": round(float(np.linalg.norm(self._sensing.translation_mm)), 3),
            "donning_deg": round(float(np.linalg.norm(self._sensing.rotation_deg)), 3),
            "exposure": round(self._sensing.exposure, 3),
            "ambient": round(self._sensing.ambient, 3),
        }

    @cached_property
    def _performance(self) -> Performance:
        return perform(self._number, movement_of(self._number), self._session)

    @cached_property
    def _look(self) -> Look:
        rng = rng_of(self._number, "eyes")
        iris_deg, pupil_deg = rng.uniform(25, 29), rng.uniform(9, 15)
        albedo = np.ascontiguousarray(self._source.texture(self._number)[0], np.float32) / 255
        flat = np.zeros_like(albedo)
        return Look(
            albedo, flat + 0.5, flat, flat, np.ones((8, 16), np.float32), iris_deg, pupil_deg,
            float(rng.uniform(0.2, 0.5)), 0.72,
        )  # fmt: skip

    @cached_property
    def _scene(self) -> Scene:
        return Scene(self._source.head, self._source.geometry(self._number), ())

    @cached_property
    def _stage(self) -> Stage:
        source, headset, sensing = self._source, default_headset(), self._sensing
        rotation, translation = headset_pose(sensing.rotation_deg, sensing.translation_mm)
        visible = emitter_visibility(
            self._scene, headset.emitters @ rotation.T + translation, self._directions @ rotation.T
        )
        return Stage(
            self._scene, source.head, self._look, source.exposed, visible, headset.power * sensing.emitter_gain,
            np.ones(len(headset.power)),
        )  # fmt: skip

    @cached_property
    def _directions(self) -> np.ndarray:
        towards = np.array([0.0, 20.0, 0.0]) - default_headset().emitters
        return np.asarray(towards / np.linalg.norm(towards, axis=1, keepdims=True))

    def labels(self, indices: Sequence[int]) -> FrameLabels:
        rows = self._check(indices)
        return FrameLabels(self._performance.expression[rows], self._performance.gaze[rows])

    def neutral(self) -> Neutral:
        return Neutral(self._source.geometry(self._number), self._source.texture(self._number))

    def vertices(self, indices: Sequence[int]) -> np.ndarray:
        """Exact geometry float32 [N, V, 3] of the frames, mm, head coordinates."""
        labels = self.labels(indices)
        return self._scene.pose(labels.expression, labels.gaze)[:, : self._scene.head_count]

    def camera_poses(self, index: int, size: int = 400) -> tuple[list[CameraSpec], tuple[np.ndarray, np.ndarray]]:
        """The eight cameras of one frame as the headset really sat, and the rigid motion that put them there."""
        slip = self._performance.slip[index]
        motion = headset_pose(self._sensing.rotation_deg + slip[:3], self._sensing.translation_mm + slip[3:])
        return [camera.resized(size, size).moved(*motion) for camera in self.cameras], motion

    def frames(self, indices: Sequence[int], *, cameras: Sequence[str], size: int) -> np.ndarray:
        rows = self._check(indices)
        columns = [self.cameras.index(self.camera(name)) for name in cameras]
        out = np.empty((len(rows), len(columns), size, size), np.uint8)
        sensing, headset = self._sensing, default_headset()
        for start in range(0, len(rows), _FRAMES_PER_CALL):
            block = rows[start : start + _FRAMES_PER_CALL]
            seen = [self.camera_poses(index, size) for index in block]
            views = [[poses[k] for k in columns] for poses, _ in seen]
            motions = [motion for _, motion in seen]
            labels, light = self.labels(block), sensing.light(np.array(block) / 72)
            instant = Instant(
                self._scene.pose(labels.expression, labels.gaze, motions),
                np.zeros((len(block), self._scene.head_count), np.float32), labels.gaze, np.ones(len(block)),
                np.stack([headset.emitters @ r.T + t for r, t in motions]),
                np.stack([self._directions @ r.T for r, _ in motions]), light.ambient,
            )  # fmt: skip
            linear = radiance(self._stage, instant, rasterise(self._stage, instant, views))
            seeds = np.array([
                int(np.random.default_rng([self._number, self._session, index, column, size]).integers(2**31))
                for index in block
                for column in columns
            ])  # fmt: skip
            grey = sense(linear, np.repeat(light.exposure, len(columns)), seeds, Sensor())
            out[start : start + len(block)] = grey.reshape(len(block), len(columns), size, size)
        return out

    def _check(self, indices: Sequence[int]) -> list[int]:
        rows = [int(index) for index in indices]
        bad = [index for index in rows if not 0 <= index < self.frame_count]
        if bad:
            raise DataError(f"Capture {self.id!r} has frames 0 to {self.frame_count - 1}; {bad[0]} was asked for.")
        return rows
