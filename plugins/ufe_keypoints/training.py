"""How `heatmap` learns: from the simulator's exact keypoints of training people (P§13.4, O37)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ufe_core.budgets import AugmentationConfig, ComponentTrainingConfig
from ufe_core.errors import DataError
from ufe_core.face_encoder import mirrored_points
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.source import HMCSource
from ufe_core.interfaces.training import ComponentTraining
from ufe_core.packed import PackedCapture, PackRequest, pack
from ufe_core.pictures import draw_points
from ufe_core.store import Store
from ufe_core.training.augment import Augmentation
from ufe_keypoints.network import Found, Networks, points_a_view
from ufe_keypoints.spoiled import covered, dimmed, patched

_SESSION = 1  # encoders learn from session 0: what is found there is found in images that no training saw
_SPREAD_CELLS = 1.0  # deviation of the target distributions
_STATISTICS_FRAMES = 4
_UNTOLD = 0.15  # chance that a view is not told of to the others, and that none is
_MODEL_FRAMES = 16  # of each person, of which the point model learns
_SHOWN, _SHOWN_PX = 6, 192


class HeatmapTrainingConfig(ComponentTrainingConfig, AugmentationConfig):
    """How the detector is trained; `size` and `width` say how large it is."""

    own_instants: bool = Field(
        True, description="Frames of each at instants of their own; else everybody's at the same"
    )
    size: int = Field(
        192, ge=32, le=400, multiple_of=16, description="Side of the images that it looks at, pixels; a multiple of 16"
    )
    width: int = Field(32, ge=8, le=256, description="Channels of the finest maps; 2, 3 and 4 times as many below")
    reach: int = Field(3, ge=0, description="Cells about a map's peak that a point is the mean of; 0: the whole map")
    together: bool = Field(True, description="Each view is told what the others show of the same face")
    point_model: bool = Field(True, description="Found points are drawn to where points of a face are")
    sharp: bool = Field(True, description="Augmentation: images are moved without being blurred")
    batch: int = Field(32, ge=1, description="People in a batch, one frame of each")
    stretch: float = Field(1.15, ge=1, le=2, description="Augmentation: largest stretching along some direction")
    patched: float = Field(0.1, ge=0, le=1, description="Augmentation: chance that something hides part of a view")
    dimmed: float = Field(0.1, ge=0, le=1, description="Augmentation: chance that a view is dim")
    covered: float = Field(0.05, ge=0, le=1, description="Augmentation: chance that a camera is covered")
    heat: float = Field(1.0, ge=0, description="Weight of the maps' cross-entropy with Gaussians")
    seen: float = Field(1.0, ge=0, description="Weight of the cross-entropy of what is seen")
    hidden: float = Field(0.3, ge=0, le=1, description="Weight of points that are hidden, beside those that are seen")


class HeatmapTraining(ComponentTraining[HeatmapTrainingConfig, PackedCapture]):
    """Every step draws people and a frame of each, moves the images, and compares points, maps and visibility."""

    options = HeatmapTrainingConfig
    code_modules = ("ufe_keypoints.training", "ufe_keypoints.spoiled", "ufe_core.training.augment")
    role: ClassVar[str] = "tracking"
    presets: ClassVar = {
        "smoke": {"people": 4, "frames": 4, "steps": 8, "warmup": 2, "size": 64, "width": 8, "batch": 4,
                  "picture_every": 4},
        "cpu": {"frames": 64, "steps": 4500, "warmup": 100, "size": 64, "width": 24, "learning_rate": 3e-3, "seen": 2.0,
                "rotation_deg": 10.0, "shift": 0.04, "gain": 0.2},
        "gpu": {"frames": 128, "steps": 12_000, "warmup": 300, "size": 192, "batch": 64, "learning_rate": 3e-3,
                "shift": 0.04, "gain": 0.2},
        "paper": {"frames": 512, "size": 192, "width": 64, "batch": 64},
    }  # fmt: skip

    def __init__(self, config: HeatmapTrainingConfig, keypoints: Sequence[KeypointNames]) -> None:
        super().__init__()
        self.config, self.keypoints = config, tuple(keypoints)
        count = points_a_view(keypoints, self.role)
        self.networks = Networks(count, self._widths, config.reach, config.together, config.point_model)
        self.networks.to(memory_format=torch.channels_last)

    @classmethod
    def begin(cls, config: HeatmapTrainingConfig, source: HMCSource[Any], subjects: Sequence[str]) -> HeatmapTraining:
        capture = source.captures(subjects[:1])[0]
        keypoints = []
        for camera in capture.cameras:
            if camera.role != cls.role:
                continue
            points = capture.keypoint_set(camera)
            if points is None:
                raise DataError(f"Capture {capture.id!r} has no keypoints: no detector can learn from this source.")
            vertices = tuple(int(vertex) for vertex in points.vertices)
            keypoints.append(KeypointNames(camera.name, points.names, vertices, points.pupils))
        return cls(config, keypoints)

    def collect(
        self, source: HMCSource[Any], subjects: Sequence[str], store: Store, progress: Callable[[str], None]
    ) -> list[PackedCapture]:
        cameras = tuple(one.camera for one in self.keypoints)
        session = min(_SESSION, source.sessions - 1)
        request = PackRequest(
            self.config.frames, self.config.size, cameras, (), session=session, extras=("keypoints",),
            own_instants=self.config.own_instants,
        )  # fmt: skip
        return pack(source, subjects, request, store=store, progress=progress)

    def fit_statistics(self, data: Sequence[PackedCapture]) -> None:
        """Mean and deviation of the grey levels of each region."""
        regions = np.concatenate([capture.images[:_STATISTICS_FRAMES] for capture in data]) / np.float32(255)
        pairs = torch.from_numpy(regions).unflatten(1, (2, 2))
        self.networks.mean.copy_(pairs.mean((0, 2, 3, 4)))
        self.networks.deviation.copy_(pairs.transpose(0, 1).flatten(1).std(1))

    def losses(self, data: Sequence[PackedCapture], step: int) -> dict[str, Tensor]:
        config = self.config
        rng = np.random.default_rng([config.seed, 3, step])
        people = rng.choice(len(data), min(config.batch, len(data)), replace=False)
        rows = rng.integers(config.frames, size=len(people))
        images, points, seen = (self._placed(values) for values in _drawn(data, people, rows, config, rng))
        told = rng.random(images.shape[:2]) >= _UNTOLD
        told &= rng.random((len(told), 1)) >= _UNTOLD
        found: Found = self.networks(images.float() / 255, self._placed(told))
        side = config.size
        inside = ((points >= 0) & (points < side)).all(-1)
        weight = torch.where(seen, 1.0, config.hidden) * inside
        away = torch.linalg.vector_norm(found.points - points, dim=-1) * (_SHOWN_PX / side)
        cells = mirrored_points(points, side) * (found.heat.shape[-1] / side)
        terms = {
            "points": (away * weight).sum() / weight.sum(),
            "heat": (_cross_entropy(found.heat, cells) * weight).sum() / weight.sum(),
            "seen": functional.binary_cross_entropy_with_logits(found.seen, seen.float()),
        }
        total = terms["points"] + config.heat * terms["heat"] + config.seen * terms["seen"]
        return {**terms, "total": total}

    @torch.no_grad()
    def finish(self, data: Sequence[PackedCapture], progress: Callable[[str], None]) -> None:
        """What faces look like, and how wrong the networks are of them."""
        if self.networks.point_model is None:
            return
        exact, found = [], []
        for capture in data:
            rows = np.linspace(0, self.config.frames - 1, min(self.config.frames, _MODEL_FRAMES)).astype(int)
            images = self._placed(np.array(capture.images[rows]))
            found.append(self.networks(images.float() / 255).points.cpu())
            exact.append(torch.from_numpy(np.array(capture.extras["keypoints"][rows])))
            progress(capture.subject)
        self.networks.point_model.fit(torch.cat(exact), torch.cat(found), self.config.size)

    @torch.no_grad()
    def picture(self, data: Sequence[PackedCapture]) -> np.ndarray:
        """What it finds on the last people: green where it believes that a point is seen, red where not."""
        rows = []
        for number, capture in enumerate(data[-_SHOWN:]):
            images = self._placed(np.array(capture.images[number % self.config.frames])[None])
            found: Found = self.networks(images.float() / 255)
            large = np.stack([cv2.resize(image, (_SHOWN_PX, _SHOWN_PX)) for image in images[0].cpu().numpy()])
            places = found.points[0].cpu().numpy() * (_SHOWN_PX / self.config.size)
            rows.append(np.hstack(list(draw_points(large, places, (found.seen[0] > 0).cpu().numpy()))))
        return np.concatenate(rows)

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The networks, how they were made, and which vertices the keypoints are."""
        keypoints = [
            {"camera": one.camera, "names": one.names, "vertices": one.vertices, "pupils": one.pupils}
            for one in self.keypoints
        ]
        facts = {
            "size": self.config.size, "widths": self._widths, "reach": self.config.reach,
            "together": self.config.together, "point_model": self.config.point_model, "keypoints": keypoints,
        }  # fmt: skip
        return self.networks.state_dict(), facts

    @property
    def _widths(self) -> list[int]:
        return [self.config.width * factor for factor in (1, 2, 3, 4)]

    def _placed(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.networks.mean.device)


class AugmentedHeatmapTraining(HeatmapTraining):
    """The same for the cameras that only a training headset has (P§6.6)."""

    role = "augmented"


def _drawn(
    data: Sequence[PackedCapture], people: np.ndarray, rows: np.ndarray, config: HeatmapTrainingConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Images uint8 [B, C, S, S], moved and spoiled at random, keypoints moved with them, and which are seen then."""
    pairs = [(data[k], row) for k, row in zip(people, rows, strict=True)]
    images = np.stack([capture.images[row] for capture, row in pairs])
    points = np.stack([capture.extras["keypoints"][row] for capture, row in pairs])
    seen = np.stack([capture.extras["visible"][row] for capture, row in pairs])
    moved = Augmentation.draw(config, len(people), images.shape[1], rng, stretch=config.stretch)
    images, points = (
        moved.apply(images[:, None], sharp=config.sharp)[:, 0],
        moved.move(points[:, None], images.shape[-1])[:, 0],
    )
    inside = ((points >= 0) & (points < images.shape[-1])).all(-1)
    images, hidden = patched(images, points, config.patched, rng)
    images, _ = dimmed(images, config.dimmed, rng)
    images, dark = covered(images, config.covered, rng)
    return images, points.astype(np.float32), seen & inside & ~hidden & ~dark[..., None]


def _cross_entropy(heat: Tensor, cells: Tensor) -> Tensor:
    """Of logarithms of distributions [B, C, K, H, W] with Gaussians about points [B, C, K, 2] in cells."""
    centres = torch.arange(heat.shape[-1], device=heat.device) + 0.5
    across = (-((cells[..., None] - centres) ** 2) / (2 * _SPREAD_CELLS**2)).softmax(-1)  # [B, C, K, 2, side]
    by_row = torch.einsum("bckhw,bckw->bckh", heat, across[..., 0, :])
    return -(by_row * across[..., 1, :]).sum(-1)
