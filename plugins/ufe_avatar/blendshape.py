"""Decoder `blendshape`: 52 facial actions added to a neutral mesh, eyeballs turned by the gaze, rasterised."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ufe_avatar.eyeballs import gaze_matrix
from ufe_avatar.plugin import BlendshapeConfig
from ufe_avatar.views import Views, face_mask, frontal_camera
from ufe_core.errors import ContractError
from ufe_core.head import ACTIONS, EYE_LEFT, EYE_RIGHT, load_head
from ufe_core.interfaces.decoder import Decoder
from ufe_core.ops.rasterize import interpolate, rasterize
from ufe_core.types import Avatar, CameraSpec, CodeSpace, Identity

_AMBIENT, _DIFFUSE = 0.25, 0.75
_COS_PUPIL, _COS_IRIS = float(np.cos(np.radians(12.0))), float(np.cos(np.radians(27.0)))
_IRIS_COLOUR = (0.16, 0.11, 0.07)


class BlendshapeDecoder(Decoder[BlendshapeConfig]):
    """geometry = neutral + sum_k e_k action_k, in mm; texture = the neutral texture; no slabs.

    Identity tensors: `geometry` [U, V, 3], `texture` [U, 3, T, T], `eyes` [U, 2, 3] eyeball centres.
    """

    code_modules = (
        "ufe_avatar.eyeballs", "ufe_avatar.views", "ufe_core.head", "ufe_core.ops.rasterize",
        "ufe_core.ops.rasterize_warp",
    )  # fmt: skip
    actions: Tensor
    faces: Tensor
    uv_faces: Tensor
    painted: Tensor  # [1, T, 5]: direction in the eyeball's own frame (zero off the eyes), UV

    def __init__(self, config: BlendshapeConfig) -> None:
        super().__init__(config)
        head = load_head()
        self.code_space = CodeSpace("arkit-52", len(ACTIONS), ACTIONS)
        self.topology = head.topology
        owner = np.zeros(len(head.uv), np.int64)  # the vertex of each UV point
        owner[head.uv_faces.reshape(-1)] = head.faces.reshape(-1)
        direction = np.zeros_like(head.template)
        self._eye_rows = []
        for part in (EYE_LEFT, EYE_RIGHT):
            rows = np.flatnonzero(head.part == part)
            offset = head.template[rows] - head.template[rows].mean(0)
            direction[rows] = offset / np.linalg.norm(offset, axis=1, keepdims=True)
            self._eye_rows.append(torch.from_numpy(rows))
        for name, value in {
            "actions": head.actions.reshape(len(ACTIONS), -1),
            "faces": head.faces.astype(np.int32),
            "uv_faces": head.uv_faces.astype(np.int32),
            "painted": np.concatenate([direction[owner], head.uv], 1)[None],
        }.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)), persistent=False)

    def identity(self, texture: Tensor, geometry: Tensor) -> Identity:
        eyes = torch.stack([geometry[:, rows.to(geometry.device)].mean(1) for rows in self._eye_rows], 1)
        return Identity({"geometry": geometry, "texture": texture, "eyes": eyes})

    def _decode(self, expression: Tensor, gaze: Tensor, identity: Identity) -> Avatar:
        neutral, eyes = identity["geometry"], identity["eyes"]
        geometry = neutral + (expression @ self.actions).view(len(expression), -1, 3)
        for k, rows in enumerate(self._eye_rows):
            centre = eyes[:, None, k]
            rotation = gaze_matrix(gaze[:, 3 * k : 3 * k + 3])
            turned = (geometry[:, rows] - centre) @ rotation.transpose(1, 2) + centre
            geometry = geometry.index_copy(1, rows.to(geometry.device), turned)
        return Avatar(geometry, identity["texture"])

    def render(self, avatar: Avatar, camera: CameraSpec, *, mask: Tensor | None = None) -> Tensor:
        """R_mesh of eq. 6: rasterised, lit from the camera, textured; eyes painted by angle from their axis."""
        if avatar.texture is None:
            raise ContractError("The blendshape decoder renders avatars that it decoded; this one has no texture.")
        vertices = avatar.geometry
        screen = _seen(vertices, camera)
        ids = rasterize(screen, self.faces, height=camera.height, width=camera.width)
        normal = interpolate(screen, self._normals(vertices), self.faces, ids)
        fixed = interpolate(screen, self.painted, self.faces, ids, attribute_faces=self.uv_faces)
        axis, uv = fixed.split([3, 2], -1)
        albedo = functional.grid_sample(avatar.texture, uv * 2 - 1, align_corners=False, padding_mode="border")
        albedo = _paint_eyes(albedo.permute(0, 2, 3, 1), axis)
        towards = torch.as_tensor(-camera.rotation[2], dtype=normal.dtype, device=normal.device)
        facing = (functional.normalize(normal, dim=-1) * towards).sum(-1, keepdim=True).clamp_min(0)
        image = albedo * (_AMBIENT + _DIFFUSE * facing) * (ids >= 0)[..., None]
        return image.permute(0, 3, 1, 2).clamp(0, 1)

    def frontal_camera(self, size: int) -> CameraSpec:
        return frontal_camera(size)

    def face_mask(self, size: int) -> Tensor:
        return face_mask(size).to(self.actions.device)

    def _normals(self, vertices: Tensor) -> Tensor:
        a, b, c = (vertices.index_select(1, self.faces[:, k]) for k in range(3))
        normal = torch.linalg.cross(b - a, c - a)
        total = torch.zeros_like(vertices)
        for k in range(3):
            total = total.index_add(1, self.faces[:, k], normal)
        return functional.normalize(total, dim=-1)


def _seen(vertices: Tensor, camera: CameraSpec) -> Tensor:
    """Pixel x, pixel y and depth (mm) of vertices [B, V, 3]."""
    views = Views.of([camera], device=vertices.device, dtype=vertices.dtype)
    return views.project(vertices)


def _paint_eyes(albedo: Tensor, axis: Tensor) -> Tensor:
    """Iris and pupil on eyeball pixels; `axis` is the direction in the eyeball's own frame, zero off the eyes."""
    length = axis.norm(dim=-1, keepdim=True)
    cosine = axis[..., 2:] / length.clamp_min(1e-6)
    on_eye = length > 0.5
    iris = torch.sigmoid((cosine - _COS_IRIS) / 0.006) * on_eye
    pupil = torch.sigmoid((cosine - _COS_PUPIL) / 0.004) * on_eye
    return (albedo * (1 - iris) + albedo.new_tensor(_IRIS_COLOUR) * iris) * (1 - pupil) + 0.02 * pupil
