"""Fitting the head model to keypoints: actions, gaze and where the headset sits, by Gauss-Newton (Thies 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.head import EYE_LEFT, EYE_RIGHT, load_head
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.types import CameraSpec, Detections

_STEEPEST = 0.2  # depth over distance from the optical axis: beyond 79 degrees no headset camera sees a face
_LEAST_DEPTH_MM = 1.0
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


class HeadFit(nn.Module):
    """Knows the head's actions and the headset's cameras, nominal ones; a person's neutral mesh is given to it.

    Args:
        rig: the tracking cameras, their intrinsics for images of the size that keypoints are in.
        keypoints: which points of the mesh each looks for.
        noise_px: deviation expected of them, pixels of these images.
        iterations: Gauss-Newton steps.
    """

    actions: Tensor

    def __init__(
        self, rig: Sequence[CameraSpec], keypoints: Sequence[KeypointNames], *, noise_px: float, iterations: int
    ) -> None:
        super().__init__()
        head = load_head()
        self.noise_px, self.iterations = noise_px, iterations
        actions = torch.from_numpy(np.ascontiguousarray(head.actions))
        self.views = nn.ModuleList(
            _View(camera, points, actions) for camera, points in zip(rig, keypoints, strict=True)
        )
        self.eyes = [torch.from_numpy(np.flatnonzero(head.part == part)) for part in (EYE_LEFT, EYE_RIGHT)]
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
        views = [cast("_View", view) for view in self.views]
        at_rest = [view.at_rest(neutral, centres) for view in views]
        points, visible = found.points.to(double), found.visible.to(double)
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
            hessian, slope = torch.diag_embed(spread**-2), (state - start) / spread**2
            posed = _Posed.of(state, radius)
            for c, view in enumerate(views):
                at = view.turned(posed, at_rest[c])
                pixels, of_points, usable = view.lens.seen(at + posed.shift)
                away = pixels - points[:, c]
                square = away.square().sum(-1) / self.noise_px**2
                weight = usable * visible[:, c] / (1 + square / _OUTLIER**2) / self.noise_px**2
                root = weight.sqrt()[..., None]
                terms = view.terms(posed, at, of_points * root[..., None], away * root).flatten(1, 2)
                normal = terms.mT @ terms
                hessian[:, view.columns[:, None], view.columns] += normal[:, :-1, :-1]
                slope[:, view.columns] += normal[:, :-1, -1]
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


class _Posed(NamedTuple):
    """What points of all cameras share in a state: `rotation` [B, 3, 3] and `shift` [B, 1, 3] of the head, `actions`
    [B, A], where pupils lie from the centres of their eyeballs, `pupils` [B, 2, 3], and the derivative of that by
    their azimuth and altitude, `of_angles` [B, 2, 3, 2].
    """

    rotation: Tensor
    shift: Tensor
    actions: Tensor
    pupils: Tensor
    of_angles: Tensor

    @classmethod
    def of(cls, state: Tensor, radius: Tensor) -> _Posed:
        """Of states [B, P] and the radii [B, 2] of eyeballs."""
        pose, actions, angles = state.split([POSE, state.shape[1] - POSE - GAZE, GAZE], 1)
        pupils, of_angles = radius[..., None] * gaze_of(angles), radius[..., None, None] * _gaze_slope(angles).mT
        return cls(rotation_of(pose[:, :3]), pose[:, None, 3:], actions, pupils, of_angles)


class _View(nn.Module):
    """A camera and the K points that it looks for: vertices, then pupils.

    `columns` [P'] are the numbers of a state that move any of them; `acting` are the actions of these, and `moves`
    [K, 3, A'] says how.
    """

    rows: Tensor
    acting: Tensor
    moves: Tensor
    columns: Tensor

    def __init__(self, camera: CameraSpec, keypoints: KeypointNames, actions: Tensor) -> None:
        super().__init__()
        self.lens = _Lens(camera)
        self.pupils = keypoints.pupils
        rows = torch.tensor(keypoints.vertices)
        moves = functional.pad(actions[:, rows].double(), (0, 0, 0, len(self.pupils)))
        acting = torch.nonzero(moves.abs().amax((1, 2)))[:, 0]
        columns = [torch.arange(POSE), POSE + acting, POSE + len(actions) + torch.arange(GAZE if self.pupils else 0)]
        moves = moves[acting].permute(1, 2, 0).contiguous()
        buffers = {"rows": rows, "acting": acting, "moves": moves, "columns": torch.cat(columns)}
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def at_rest(self, neutral: Tensor, centres: Tensor) -> Tensor:
        """Where points of the skin rest, and what pupils turn about: [B, K, 3]."""
        return torch.cat([neutral[:, self.rows], centres[:, self.pupils]], 1)

    def turned(self, posed: _Posed, at_rest: Tensor) -> Tensor:
        """Points [B, K, 3] of the posed head, before it is shifted."""
        points = at_rest + torch.einsum("ba,kxa->bkx", posed.actions[:, self.acting], self.moves)
        points[:, len(self.rows) :] += posed.pupils[:, self.pupils]
        return points @ posed.rotation.mT

    def terms(self, posed: _Posed, at: Tensor, of_points: Tensor, away: Tensor) -> Tensor:
        """Derivatives of residuals `away` [B, K, 2] by `columns`, and they themselves: [B, K, 2, P' + 1].

        `at` is what `turned` gave, `of_points` [B, K, 2, 3] the derivative by shifted points.
        """
        inner = (of_points.flatten(1, 2) @ posed.rotation).view_as(of_points)
        of_turn = torch.linalg.cross(at[:, :, None], of_points)
        parts = [of_turn, of_points, torch.einsum("bkix,kxa->bkia", inner, self.moves)]
        if self.pupils:
            of_angles = inner.new_zeros(*inner.shape[:3], GAZE)
            for k, eye in enumerate(self.pupils, len(self.rows)):
                of_angles[:, k, :, 2 * eye : 2 * eye + 2] = inner[:, k] @ posed.of_angles[:, eye]
            parts.append(of_angles)
        return torch.cat([*parts, away[..., None]], -1)


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
        flat, of_flat = self._fisheye(at) if self.fisheye else self._brown_conrady(at)
        focal = self.intrinsics[:2, :2].T
        of_points = (of_flat @ focal).mT @ self.rotation
        in_view = at[..., 2] > _STEEPEST * at[..., :2].norm(dim=-1)
        return flat @ focal + self.intrinsics[:2, 2], torch.where(in_view[..., None, None], of_points, 0.0), in_view

    def _fisheye(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Image plane [..., 2] of points [..., 3] in camera coordinates, and its derivative [..., 3, 2] by them."""
        k1, k2, k3, k4, _ = self.distortion
        x, y, z = at.unbind(-1)
        across = torch.hypot(x, y).clamp_min(1e-9)
        angle = torch.atan2(across, z)
        s = angle.square()
        scale = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) / across
        slope = (1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))) / (across.square() + z.square())
        stretch = (slope * z - scale) / across.square()  # of `scale` with the distance from the axis, over that
        mixed = x * y * stretch
        of_flat = [scale + x * x * stretch, mixed, mixed, scale + y * y * stretch, -x * slope, -y * slope]
        return at[..., :2] * scale[..., None], torch.stack(of_flat, -1).unflatten(-1, (3, 2))

    def _brown_conrady(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The same for a lens that bends the image plane."""
        k1, k2, p1, p2, k3 = self.distortion
        depth = at[..., 2].clamp_min(_LEAST_DEPTH_MM)
        x, y = at[..., 0] / depth, at[..., 1] / depth
        r2 = x * x + y * y
        radial, slope = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))
        flat = torch.stack(
            [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y],
            -1,
        )
        mixed = slope * x * y + 2 * p1 * x + 2 * p2 * y
        along_x, along_y = (
            radial + slope * x * x + 2 * p1 * y + 6 * p2 * x,
            radial + slope * y * y + 6 * p1 * y + 2 * p2 * x,
        )
        of_flat = [along_x, mixed, mixed, along_y, -(x * along_x + y * mixed), -(x * mixed + y * along_y)]
        return flat, torch.stack(of_flat, -1).unflatten(-1, (3, 2)) / depth[..., None, None]


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
