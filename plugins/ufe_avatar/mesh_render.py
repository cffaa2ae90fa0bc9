"""R_mesh of eq. 6: a textured mesh rasterised, differentiable in geometry, texture and viewpoint (P§1.5)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_avatar.views import Views
from ufe_core.errors import ContractError
from ufe_core.ops.antialias import MeshEdges, antialias
from ufe_core.ops.rasterize import depth_keys, interpolate, key_depths, key_faces
from ufe_core.types import MeshTopology


class MeshRenderer(nn.Module):
    """Renders meshes of one topology. The texture is all there is of appearance: nothing is lit here.

    Gradients reach the geometry and the viewpoint both from inside the faces and from silhouettes.
    """

    faces: Tensor
    uv: Tensor
    uv_faces: Tensor
    edge_ends: Tensor
    edge_faces: Tensor

    def __init__(self, topology: MeshTopology) -> None:
        super().__init__()
        self.vertex_count = topology.vertex_count
        edges = MeshEdges.of(topology.faces)
        for name, value in {
            "faces": torch.from_numpy(topology.faces.astype(np.int32)),
            "uv": torch.from_numpy(topology.uv[None].astype(np.float32)),
            "uv_faces": torch.from_numpy(topology.uv_faces.astype(np.int32)),
            "edge_ends": edges.ends, "edge_faces": edges.faces,
        }.items():  # fmt: skip
            self.register_buffer(name, value, persistent=False)

    def forward(self, geometry: Tensor, texture: Tensor, views: Views) -> tuple[Tensor, Tensor]:
        """Render B meshes, one for each view.

        Args:
            geometry: float32 [B, V, 3], mm, head coordinates.
            texture: float32 [B, K, T, T] in the topology's UV layout, row 0 at v = 0.
            views: B pinhole cameras.

        Returns:
            Image float32 [B, K, H, W] on black, and coverage float32 [B, 1, H, W] in [0, 1].

        Raises:
            ContractError: batch sizes or the number of vertices do not fit.
        """
        if geometry.shape[1:] != (self.vertex_count, 3) or not len(geometry) == len(texture) == len(views):
            raise ContractError(
                f"MeshRenderer was given geometry {list(geometry.shape)}, texture {list(texture.shape)} and "
                f"{len(views)} views; expected [B, {self.vertex_count}, 3], [B, K, T, T] and B views."
            )
        screen = views.project(geometry)
        keys = depth_keys(screen, self.faces, height=views.height, width=views.width)
        ids = key_faces(keys)
        uv = interpolate(screen, self.uv, self.faces, ids, attribute_faces=self.uv_faces)
        colour = functional.grid_sample(texture, uv * 2 - 1, align_corners=False, padding_mode="border")
        layers = torch.cat([colour, torch.ones_like(colour[:, :1])], 1).movedim(1, -1) * (ids >= 0)[..., None]
        edges = MeshEdges(self.edge_ends, self.edge_faces)
        layers = antialias(layers, key_depths(keys), screen, self.faces, edges).movedim(-1, 1)
        return layers[:, :-1], layers[:, -1:]
