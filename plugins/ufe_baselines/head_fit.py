"""Fitting the head model to keypoints: actions, gaze and where the headset sits, by Gauss-Newton (Thies 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ufe_core.head import EYE_LEFT, EYE_RIGHT, load_head
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.types import CameraSpec, Detections

_STEEPEST = 0.2  # depth over distance from the optical axis: beyond 79 degrees no headset camera sees a face
_STEP_MM = 1e-3  # of the differences that tell how pixels move with points
_OUTLIER = 3.0  # a residual of so many deviations counts half
_ACTION, _ACTION_MOST = 0.4, 1.2  # deviation of an action's activation before anything is seen, and its bound
_RESTING_ACTION = 0.06  # the same where the face is known to rest: nobody rests exactly
_ACTION_LEAST = -0.1
_PINNED_ROUNDS = 6  # of holding actions at their bounds and letting go of them; more change next to nothing
_TURN, _SHIFT_MM = 0.05, 4.0  # deviation (radians, mm) of how the headset is put on
_SLIP_TURN, _SLIP_MM = 0.01, 0.8  # of how it moves after that
_GAZE = 0.35  # radians
POSE, GAZE = 6, 4  # turn and shift of the head in the headset; azimuth and altitude of both eyes


@dataclass(frozen=True)
class Fit:
    """What was fitted to B frames: `pose` [B, 6] (turn as axis times angle, shift in mm), `actions` [B, 52],
    `angles` [B, 4], azimuth and altitude of the left, then of the right eye, radians.
    """

    pose: Tensor
    actions: Tensor
    angles: Tensor

    @property
    def gaze(self) -> Tensor:
        """Unit vectors [B, 6]."""
        return gaze_of(self.angles).flatten(1)


class HeadFit(nn.Module):
    """Knows the head's actions and the headset's cameras, nominal ones; a person's neutral mesh is given to it.

    Args:
        rig: the tracking cameras, their intrinsics for images of the size that keypoints are in.
        keypoints: which points of the mesh each looks for.
        noise_px: deviation expected of them, pixels of these images.
        iterations: Gauss-Newton steps.
    """

    actions: Tensor
    at_points: Tensor

    def __init__(
        self, rig: Sequence[CameraSpec], keypoints: Sequence[KeypointNames], *, noise_px: float, iterations: int
    ) -> None:
        super().__init__()
        head = load_head()
        self.noise_px, self.iterations = noise_px, iterations
        self.lenses = nn.ModuleList(_Lens(camera) for camera in rig)
        count = max(len(one.vertices) for one in keypoints)
        self.rows = [torch.tensor([*one.vertices, *[0] * (count - len(one.vertices))]) for one in keypoints]
        self.pupils = [torch.tensor(one.pupils, dtype=torch.int64) for one in keypoints]
        self.eyes = [torch.from_numpy(np.flatnonzero(head.part == part)) for part in (EYE_LEFT, EYE_RIGHT)]
        actions = torch.from_numpy(np.ascontiguousarray(head.actions))
        self.register_buffer("actions", actions, persistent=False)

    @torch.no_grad()
    def forward(self, found: Detections, neutral: Tensor, pose: Tensor, known: Tensor, *, resting: bool = False) -> Fit:
        """Fit B frames.

        Args:
            found: keypoints [B, C, K].
            neutral: float32 [B, V, 3], mm, of the same people.
            pose: float32 [B, 6], where the headset is believed to sit, and
            known: float32 [B], 1 where that was fitted before, 0 where it is anybody's guess.
            resting: whether the face is known to rest.
        """
        b, double = len(neutral), torch.float64
        n = self.actions.shape[0]
        neutral, pose = neutral.to(double), pose.to(double)
        centres = torch.stack([neutral[:, rows].mean(1) for rows in self.eyes], 1)
        radius = torch.stack(
            [(neutral[:, rows] - centres[:, k, None]).norm(dim=-1).amax(1) for k, rows in enumerate(self.eyes)], 1
        )
        parts = [_Points(self, c, neutral, centres, radius) for c in range(len(self.lenses))]
        turn, shift = torch.where(known > 0, _SLIP_TURN, _TURN), torch.where(known > 0, _SLIP_MM, _SHIFT_MM)
        action, gaze = (
            neutral.new_full((b, n), _RESTING_ACTION if resting else _ACTION),
            neutral.new_full((b, GAZE), _GAZE),
        )
        spread = torch.cat([turn[:, None].expand(-1, 3), shift[:, None].expand(-1, 3), action, gaze], 1).to(double)
        start = torch.cat([pose, pose.new_zeros(b, n + GAZE)], 1)
        state = start.clone()
        least, most = torch.full_like(state, -torch.inf), torch.full_like(state, torch.inf)
        least[:, POSE : POSE + n], most[:, POSE : POSE + n] = _ACTION_LEAST, _ACTION_MOST
        for _ in range(self.iterations):
            hessian = torch.diag_embed(spread**-2)
            slope = (state - start) / spread**2
            for c, points in enumerate(parts):
                away, jacobian, usable = points.residuals(state, found.points[:, c].to(double))
                square = away.square().sum(-1) / self.noise_px**2
                weight = usable * found.visible[:, c] / (1 + square / _OUTLIER**2) / self.noise_px**2
                weighed = jacobian * weight[..., None, None]
                flat = jacobian.flatten(1, 2)
                hessian = hessian + weighed.flatten(1, 2).transpose(1, 2) @ flat
                slope = slope + (weighed.flatten(1, 2).transpose(1, 2) @ away.flatten(1)[..., None])[..., 0]
            state = state + bounded_step(hessian, slope, least - state, most - state)
        pose, actions, angles = state.float().split([POSE, n, GAZE], 1)
        return Fit(pose, actions, angles)

    def moved(self, fit: Fit, neutral: Tensor, rows: Tensor) -> Tensor:
        """Displacement [B, n, 3] of some vertices of neutral meshes [B, V, 3] in head coordinates, mm."""
        with torch.autocast(neutral.device.type, enabled=False):  # half precision would cost tenths of a degree of gaze
            return self._moved(fit, neutral.float(), rows)

    def _moved(self, fit: Fit, neutral: Tensor, rows: Tensor) -> Tensor:
        moved = torch.einsum("ba,avx->bvx", fit.actions, self.actions[:, rows])
        gaze = gaze_of(fit.angles)
        for k, eye in enumerate(self.eyes):
            inside = torch.isin(rows, eye)
            if inside.any():
                centre = neutral[:, eye].mean(1, keepdim=True)
                ball = neutral[:, rows[inside]] - centre
                moved = moved.clone()
                moved[:, inside] = ball @ _turned(gaze[:, k]).transpose(1, 2) - ball
        return moved


class _Points:
    """The points of one camera, of B people."""

    def __init__(self, fit: HeadFit, camera: int, neutral: Tensor, centres: Tensor, radius: Tensor) -> None:
        self.lens: Any = fit.lenses[camera]
        pupils = fit.pupils[camera]
        rows = fit.rows[camera]
        self.resting = neutral[:, rows]
        self.actions = fit.actions[:, rows].to(neutral.dtype)
        self.pupils, self.centres, self.radius = pupils, centres[:, pupils], radius[:, pupils]

    def residuals(self, state: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, K, 2] from points found to those of the state, their derivative [B, K, 2, P], and which count."""
        n = self.actions.shape[0]
        pose, actions, angles = state.split([POSE, n, GAZE], 1)
        skin = self.resting + torch.einsum("ba,akx->bkx", actions, self.actions)
        count = found.shape[1] - len(self.pupils)
        skin, of_actions = skin[:, :count], self.actions[:, :count].expand(len(state), -1, -1, -1)
        points, of_angles = skin, skin.new_zeros(len(state), GAZE, count, 3)
        if len(self.pupils):
            gaze, slope = gaze_of(angles), _gaze_slope(angles)
            pupils = self.centres + self.radius[..., None] * gaze[:, self.pupils]
            points = torch.cat([skin, pupils], 1)
            of_actions = torch.cat([of_actions, of_actions.new_zeros(len(state), n, len(self.pupils), 3)], 2)
            turned = skin.new_zeros(len(state), GAZE, len(self.pupils), 3)
            for k, eye in enumerate(self.pupils.tolist()):
                turned[:, 2 * eye : 2 * eye + 2, k] = self.radius[:, k, None, None] * slope[:, eye]
            of_angles = torch.cat([of_angles, turned], 2)
        rotation = rotation_of(pose[:, :3])
        at = points @ rotation.transpose(1, 2)
        pixels, of_points, usable = self.lens.seen(at + pose[:, None, 3:])
        of_turn = torch.stack([torch.linalg.cross(axis.expand_as(at), at) for axis in torch.eye(3).to(at)], 1)
        of_shift = torch.eye(3).to(at)[:, None].expand(len(state), 3, at.shape[1], 3)
        inner = torch.cat([of_actions, of_angles], 1) @ rotation[:, None].transpose(2, 3)
        moves = torch.cat([of_turn, of_shift, inner], 1)  # [B, P, K, 3]
        return pixels - found, torch.einsum("bkij,bpkj->bkip", of_points, moves), usable


class _Lens(nn.Module):
    """A camera in torch: the model of `CameraSpec.project`."""

    rotation: Tensor
    translation: Tensor
    intrinsics: Tensor

    def __init__(self, camera: CameraSpec) -> None:
        super().__init__()
        self.fisheye, self.distortion = camera.model == "fisheye", tuple(float(k) for k in camera.distortion)
        for name in ("rotation", "translation", "intrinsics"):
            value = torch.from_numpy(np.array(getattr(camera, name), np.float64))
            self.register_buffer(name, value, persistent=False)

    def seen(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, K, 2] of head points [B, K, 3], their derivative [B, K, 2, 3], and which are well in view.

        Others tell nothing: beside the camera a point is anywhere, and moves without bounds.
        """
        at = points @ self.rotation.T + self.translation
        steps = _STEP_MM * torch.eye(3).to(at)
        slope = [(self._project(at + step) - self._project(at - step)) / (2 * _STEP_MM) for step in steps]
        in_view = at[..., 2] > _STEEPEST * at[..., :2].norm(dim=-1)
        of_points = torch.stack(slope, -1) @ self.rotation
        return self._project(at), torch.where(in_view[..., None, None], of_points, 0.0), in_view

    def _project(self, at: Tensor) -> Tensor:
        x, y, z = at.unbind(-1)
        if self.fisheye:
            across = torch.hypot(x, y).clamp_min(1e-9)
            angle = torch.atan2(across, z)
            k1, k2, k3, k4, _ = self.distortion
            s = angle.square()
            scale = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) / across
            flat = torch.stack([x * scale, y * scale], -1)
        else:
            k1, k2, p1, p2, k3 = self.distortion
            depth = z.clamp_min(1.0)
            x, y = x / depth, y / depth
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            flat = torch.stack(
                [
                    x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                    y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
                ],
                -1,
            )
        return flat @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2]


def bounded_step(hessian: Tensor, slope: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """The step d [B, P] that minimises d' H d / 2 + s' d between bounds, as far as a few rounds of pinning tell.

    What goes beyond a bound is held there, what would gain by leaving it is let go, and the rest is solved for again.
    Merely cut off after the solve, it would leave the others where they fit only what was cut off.

    Args:
        hessian: H [B, P, P], positive definite.
        slope: s [B, P].
        least: lower bounds [B, P], minus infinity where there is none.
        most: upper ones, infinity where there is none.
    """
    step = -torch.linalg.solve(hessian, slope)
    pinned = torch.zeros_like(step, dtype=torch.bool)
    for _ in range(_PINNED_ROUNDS):
        pull = (hessian @ step[..., None])[..., 0] + slope
        outwards = ((step <= least) & (pull > 0)) | ((step >= most) & (pull < 0))
        before, pinned = pinned, (step < least) | (step > most) | (pinned & outwards)
        if torch.equal(pinned, before):
            break
        held = torch.where(pinned, step.clamp(least, most), 0.0)
        free = (~pinned).to(step)
        left = hessian * free[:, :, None] * free[:, None] + torch.diag_embed(pinned.to(step))
        rest = (slope + (hessian @ held[..., None])[..., 0]) * free
        step = held - torch.linalg.solve(left, rest)
    return step.clamp(least, most)


def rotation_of(turn: Tensor) -> Tensor:
    """Rotations [B, 3, 3] by axis times angle [B, 3]."""
    x, y, z = turn.unbind(-1)
    none = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([none, -z, y, z, none, -x, -y, x, none], -1).unflatten(-1, (3, 3)))


def gaze_of(angles: Tensor) -> Tensor:
    """Unit vectors [B, 2, 3] of azimuth and altitude [B, 4] (P§5.3)."""
    azimuth, altitude = angles.unflatten(1, (2, 2)).unbind(-1)
    level = altitude.cos()
    return torch.stack([azimuth.sin() * level, -altitude.sin(), azimuth.cos() * level], -1)


def _gaze_slope(angles: Tensor) -> Tensor:
    """Derivative [B, eye, angle, 3] of `gaze_of`."""
    azimuth, altitude = angles.unflatten(1, (2, 2)).unbind(-1)
    sin_a, cos_a, sin_h, cos_h = azimuth.sin(), azimuth.cos(), altitude.sin(), altitude.cos()
    of_azimuth = torch.stack([cos_a * cos_h, torch.zeros_like(sin_a), -sin_a * cos_h], -1)
    of_altitude = torch.stack([-sin_a * sin_h, -cos_h, -cos_a * sin_h], -1)
    return torch.stack([of_azimuth, of_altitude], 2)


def _turned(gaze: Tensor) -> Tensor:
    """Rotations [B, 3, 3] that take straight ahead to gaze directions [B, 3] without roll."""
    azimuth, altitude = torch.atan2(gaze[:, 0], gaze[:, 2]), torch.asin((-gaze[:, 1]).clamp(-1, 1))
    none = torch.zeros_like(azimuth)
    across = rotation_of(torch.stack([none, azimuth, none], -1))
    return across @ rotation_of(torch.stack([altitude, none, none], -1))
