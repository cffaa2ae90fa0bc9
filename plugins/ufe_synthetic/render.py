"""Pose the head, see it through the headset's cameras, and turn light into grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ufe_core.geometry import rotate_eyeballs, rotation_vector_matrix
from ufe_core.head import EYE_LEFT, EYE_RIGHT, Head
from ufe_core.ops.rasterize import rasterize, warp
from ufe_core.types import CameraSpec

_SUPERSAMPLE = 2
_POWER = 1500.0  # brings skin at 45 mm to mid grey at exposure 1
_SHOT_NOISE = 0.35
_WIDEST_TAN = 1.9  # beyond this angle from the axis the lens polynomial folds back


@dataclass(frozen=True)
class Look:
    """A person's appearance: `texture` float32 [T, T] infrared albedo; `iris`: (cos pupil, cos iris, albedo)."""

    texture: np.ndarray
    iris: tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """Emitters float64 [L, 3] (mm, headset frame), their power [L], and diffuse ambient light."""

    emitters: np.ndarray
    power: np.ndarray
    ambient: float


class Renderer:
    """Renders posed heads; holds what is common to all people and frames."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.faces = torch.from_numpy(head.faces.astype(np.int32))
        self.uv = torch.from_numpy(head.uv)
        self.uv_faces = torch.from_numpy(head.uv_faces.astype(np.int32))
        order = np.argsort(head.faces.reshape(-1), kind="stable")
        self.row_face = torch.from_numpy((order // 3).astype(np.int32))
        counts = np.bincount(head.faces.reshape(-1), minlength=len(head.template))
        self.row_start = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))

    @cached_property
    def eye_direction(self) -> torch.Tensor:
        """Direction of each eyeball vertex from its eye's centre, straight gaze; zero elsewhere: float32 [V, 3]."""
        direction = np.zeros_like(self.head.template)
        for part in (EYE_LEFT, EYE_RIGHT):
            rows = self.head.part == part
            offset = self.head.template[rows] - self.head.template[rows].mean(0)
            direction[rows] = offset / np.linalg.norm(offset, axis=1, keepdims=True)
        return torch.from_numpy(direction)

    def radiance(
        self, vertices: torch.Tensor, cameras: list[list[CameraSpec]],
        headset_pose: list[tuple[np.ndarray, np.ndarray]], look: Look, light: Light,
    ) -> torch.Tensor:  # fmt: skip
        """Linear light float32 [N, C, H, W] of posed heads `vertices` float32 [N, V, 3].

        `cameras[n]` are frame n's cameras in head coordinates, already moved with the headset; `headset_pose[n]`
        the rotation and translation that moved it, which moves the emitters too.
        """
        from ufe_synthetic import render_warp as kernels

        wp = warp()
        count, views_per_frame = len(cameras), len(cameras[0])
        views = [camera for row in cameras for camera in row]
        height, width = views[0].height * _SUPERSAMPLE, views[0].width * _SUPERSAMPLE
        normals = torch.empty_like(vertices)
        wp.launch(kernels.vertex_normals, dim=tuple(vertices.shape[:2]), inputs=[
            wp.from_torch(vertices, dtype=wp.vec3), wp.from_torch(self.faces, dtype=wp.vec3i),
            wp.from_torch(self.row_start), wp.from_torch(self.row_face), wp.from_torch(normals, dtype=wp.vec3),
        ])  # fmt: skip
        points = vertices.numpy().astype(np.float64)
        screen = np.empty((len(views), vertices.shape[1], 3), np.float32)
        for k, camera in enumerate(views):
            world = points[k // views_per_frame]
            screen[k, :, :2] = camera.project(world) * _SUPERSAMPLE
            depth = world @ camera.rotation[2] + camera.translation[2]
            aside = np.linalg.norm(world @ camera.rotation[:2].T + camera.translation[:2], axis=1)
            screen[k, :, 2] = np.where(aside < _WIDEST_TAN * depth, depth, 0)  # depth 0 drops the vertex's faces
        screen_t = torch.from_numpy(screen)
        ids = rasterize(screen_t, self.faces, height=height, width=width)
        frame_of_view = torch.arange(count, dtype=torch.int32).repeat_interleave(views_per_frame)
        emitters = np.stack([light.emitters @ r.T + t for r, t in headset_pose]).repeat(views_per_frame, 0)
        eyes = np.stack([camera.position for camera in views]).astype(np.float32)
        out = torch.zeros(len(views), height, width)
        wp.launch(kernels.shade, dim=(len(views), height, width), inputs=[
            wp.from_torch(screen_t, dtype=wp.vec3), wp.from_torch(ids), wp.from_torch(frame_of_view),
            wp.from_torch(vertices, dtype=wp.vec3), wp.from_torch(normals, dtype=wp.vec3),
            wp.from_torch(self.faces, dtype=wp.vec3i), wp.from_torch(self.uv, dtype=wp.vec2),
            wp.from_torch(self.uv_faces, dtype=wp.vec3i), wp.from_torch(self.eye_direction, dtype=wp.vec3),
            wp.from_torch(torch.from_numpy(look.texture)), wp.vec3(*look.iris),
            wp.from_torch(torch.from_numpy(eyes), dtype=wp.vec3),
            wp.from_torch(torch.from_numpy(emitters.astype(np.float32)), dtype=wp.vec3),
            wp.from_torch(torch.from_numpy((light.power * _POWER).astype(np.float32))),
            light.ambient, wp.from_torch(out),
        ])  # fmt: skip
        fine = out.view(count, views_per_frame, height // _SUPERSAMPLE, _SUPERSAMPLE, width // _SUPERSAMPLE, -1)
        return fine.mean((3, 5))


def sense(radiance: np.ndarray, exposure: float, read_noise: float, rng: np.random.Generator) -> np.ndarray:
    """What a sensor reports, uint8: gain, shot and read noise, saturation at both ends, a display-like gamma."""
    level = np.clip(radiance * exposure, 0, 1) ** (1 / 1.6) * 255
    noise = rng.standard_normal(level.shape, dtype=np.float32)
    level = level + noise * np.sqrt(read_noise**2 + _SHOT_NOISE**2 * level)
    return np.clip(level + 0.5, 0, 255).astype(np.uint8)


def pose(neutral: np.ndarray, actions: np.ndarray, expression: np.ndarray, gaze: np.ndarray, head: Head,
         ) -> np.ndarray:  # fmt: skip
    """Vertices float32 [N, V, 3] of one person in N expressions: blendshapes, then eyeballs turned by gaze."""
    flat = actions.reshape(len(actions), -1)  # float64 and frame by frame: a frame's bits depend on no other frame
    moved = np.stack([neutral + (code.astype(np.float64) @ flat).reshape(-1, 3) for code in expression])
    return rotate_eyeballs(moved.astype(np.float32), gaze, [
        (np.flatnonzero(head.part == EYE_LEFT), neutral[head.part == EYE_LEFT].mean(0)),
        (np.flatnonzero(head.part == EYE_RIGHT), neutral[head.part == EYE_RIGHT].mean(0)),
    ])  # fmt: skip


def headset_pose(rotation_deg: np.ndarray, translation_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] of a headset turned about a point behind the lenses."""
    pivot = np.array([0.0, 20.0, 30.0])
    rotation = rotation_vector_matrix(np.radians(rotation_deg))
    return rotation, translation_mm + pivot - rotation @ pivot
