"""Mesh tracking (Thies et al. 2016, in both modes): a tracked mesh to code and gaze.

Original: "Face2Face" and "FaceVR" fit a parametric face model to images and drive another face by its parameters. The
paper compares with a hypothetical tracker that makes no error at all: the ground-truth mesh of its labels is the
input, and a network regresses (e, g) from it (P§9.1, marked *).

`mesh_tracking_gt` is that row: the exact mesh. No headset could give it.

`mesh_tracking` is a real one, which the paper does not have. Kept: a parametric head is fitted to each frame by
Gauss-Newton on reprojection errors, with priors and robust weights. Changed: the terms of the error are keypoints that
the shared detector found, not photometric ones, for infrared headset images of unknown light have no albedo to compare
with; each frame is fitted by itself, as every row here encodes it (O64), from a face at rest and from how the headset
sat when the neutral anchor was taken, not from the frame before. It is given more than a tracker in the field has: the
wearer's exact neutral mesh, as an avatar brings it, the cameras' exact lenses, and the simulator's own 52 actions as
its model of how faces move, though not how much each person's face obeys them. So it is an optimistic tracker of
keypoints, yet no bound: one that compares all pixels, or follows a face through time, may be nearer. A mesh, and
keypoints seen through lenses that are known, cannot be turned and scaled as images are: neither mode is augmented.

Both: vertex offsets from the neutral mesh, mm, of the eyeballs, so that gaze can be recovered (O69), of the lips, and
of vertices spread over the rest of the face, go through perceptrons (the point network of O61 would have to learn which
vertex is which).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ufe_baselines.head_fit import POSE, HeadFit
from ufe_baselines.plugin import MeshConfig, MeshTrackingConfig
from ufe_baselines.regressor import REFERENCE, Regressor
from ufe_core.errors import ContractError
from ufe_core.face_encoder import perceptron
from ufe_core.head import EYE_LEFT, EYE_RIGHT, load_head
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import AnchorSet, CameraSpec, CodeSpace, Detections, FrameBatch

ConfigT = TypeVar("ConfigT", bound=MeshConfig)

_NOISE_AT_PX = 192
_STILL_MM = 0.2  # coordinates that move less over the training frames are not blown up


class _OffsetRegressor(Regressor[ConfigT]):
    """Reads vertex offsets [B, n, 3] of the face and of the eyes."""

    def __init__(self, config: ConfigT, *, needs: EncoderNeeds, code_space: CodeSpace) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        head = load_head()
        face, lips = head.topology.region("face"), head.topology.region("lips")
        spread = face[_spread_over(head.template[face], config.vertices)]
        chosen = np.union1d(spread, lips)  # few of those spread lie on the rim of the lips, which says if they are shut
        self.vertex_count = len(head.template)
        self.face = torch.from_numpy(chosen.astype(np.int64))
        self.eyes = torch.from_numpy(np.flatnonzero(np.isin(head.part, (EYE_LEFT, EYE_RIGHT))))
        self.of_eyes, self.of_face = self._trunk(len(self.eyes)), self._trunk(len(self.face))
        self.read_out(2 * config.width, config.width, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def _trunk(self, vertices: int) -> nn.Sequential:
        width = self.config.width
        trunk = perceptron(3 * vertices, width, width, from_zero=False)
        scale = nn.BatchNorm1d(3 * vertices, eps=_STILL_MM**2, affine=False)  # what hardly moves stays small
        return nn.Sequential(scale, trunk, nn.Hardswish())

    def read(self, eyes: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """Features of offsets."""
        return self.of_eyes(eyes.flatten(1)), self.of_face(face.flatten(1))

    def _mesh(self, anchors: AnchorSet) -> Tensor:
        assert anchors.geometry is not None
        if anchors.geometry.shape[1] != self.vertex_count:
            raise ContractError(
                f"{type(self).__name__} fits the head of {self.vertex_count} vertices; this source's mesh has "
                f"{anchors.geometry.shape[1]}."
            )
        return anchors.geometry


def _spread_over(points: np.ndarray, count: int) -> np.ndarray:
    """Rows of at most `count` of the points [n, 3], each the farthest from those before; in order."""
    chosen, distance = [0], np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.sort(chosen)


class ExactMeshEncoder(_OffsetRegressor[MeshConfig]):
    """Hypothetical: it is given the exact mesh of each frame."""

    code_modules = (*Regressor.code_modules, "ufe_baselines.mesh_tracking")
    inputs = ("images", "neutral_mesh", "exact_mesh")

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        return {"neutral": self._mesh(anchors)}

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.geometry is not None
        moved = frames.geometry - kept["neutral"]
        return self.read(moved[:, self.eyes], moved[:, self.face])


class MeshTrackingEncoder(_OffsetRegressor[MeshTrackingConfig]):
    """A mesh fitted to keypoints; see the module."""

    code_modules = (*Regressor.code_modules, "ufe_baselines.mesh_tracking", "ufe_baselines.head_fit")
    inputs = ("images", "keypoints", "neutral_mesh")
    uses_anchors = True
    reads_anchors = (REFERENCE,)
    uses_rig = True

    def __init__(
        self, config: MeshTrackingConfig, *, needs: EncoderNeeds, code_space: CodeSpace,
        keypoints: tuple[KeypointNames, ...], rig: tuple[CameraSpec, ...],
    ) -> None:  # fmt: skip
        super().__init__(config, needs=needs, code_space=code_space)
        noise = config.noise_px * needs.size / _NOISE_AT_PX
        self.fit = HeadFit(rig, keypoints, noise_px=noise, iterations=config.iterations)

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        at = self.needs.anchors.index(REFERENCE)
        assert anchors.keypoints is not None
        neutral, known = self._mesh(anchors), anchors.present[:, at].float()
        found = anchors.keypoints.map(lambda value: value[:, at])
        found = Detections(found.points, found.visible * known[:, None, None])
        anywhere = neutral.new_zeros(len(neutral), POSE)
        put_on = self.fit(found, neutral, anywhere, torch.zeros_like(known), resting=True)
        return {"neutral": neutral, "pose": put_on.pose, "known": known}

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.keypoints is not None
        neutral = kept["neutral"]
        tracked = self.fit(frames.keypoints, neutral, kept["pose"], kept["known"])
        return self.read(*(self.fit.moved(tracked, neutral, rows) for rows in (self.eyes, self.face)))
