"""Decoder: expression code, viewpoint, gaze and identity in; geometry and image out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from ufe_core.config import ComponentConfig
from ufe_core.errors import ContractError
from ufe_core.types import Avatar, CameraSpec, CodeSpace, Identity, MeshTopology, check_tensor

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)


class Decoder(nn.Module, ABC, Generic[ConfigT]):
    """The avatar (P§1): `identity` once per person, then `decode` and `render` for each code.

    All three are differentiable in the code, the gaze and the geometry, so that an encoder can be trained through
    them (P§5.1). A decoder's own parameters are frozen while an encoder trains.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()
    code_space: CodeSpace
    topology: MeshTopology

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def identity(self, texture: Tensor, geometry: Tensor) -> Identity:
        """Identity bias of U subjects (P§1.3, E_id).

        Args:
            texture: float32 [U, 3, T, T] in [0, 1], neutral texture in the topology's UV layout.
            geometry: float32 [U, V, 3], neutral geometry, mm.
        """

    @final
    def decode(
        self, expression: Tensor, gaze: Tensor, identity: Identity, *, viewpoint: CameraSpec | None = None
    ) -> Avatar:
        """Decode B codes (P§1.5, eq. 5).

        Args:
            expression: float32 [B, D] of this decoder's code space.
            gaze: float32 [B, 6], unit vectors.
            identity: one row per frame.
            viewpoint: where it will be seen from; None means the frontal view. Decoders without view-dependent
                appearance ignore it.

        Raises:
            ContractError: a shape does not fit this decoder.
        """
        name = type(self).__name__
        check_tensor(name, "decode.expression", expression, ("B", self.code_space.size), torch.float32)
        check_tensor(name, "decode.gaze", gaze, (expression.shape[0], 6), torch.float32)
        avatar = self._decode(expression, gaze, identity, viewpoint or self.frontal_camera(256))
        expected = (expression.shape[0], self.topology.vertex_count, 3)
        if tuple(avatar.geometry.shape) != expected:
            raise ContractError(
                f"{name}._decode returned geometry {list(avatar.geometry.shape)}; expected {list(expected)}."
            )
        return avatar

    @abstractmethod
    def _decode(self, expression: Tensor, gaze: Tensor, identity: Identity, viewpoint: CameraSpec) -> Avatar:
        """What `decode` checks and returns."""

    @abstractmethod
    def render(self, avatar: Avatar, camera: CameraSpec) -> Tensor:
        """Image float32 [B, 3, H, W] in [0, 1] of the avatar on black, differentiable in its geometry."""

    @abstractmethod
    def frontal_camera(self, size: int) -> CameraSpec:
        """`v_front` of P§5.1 at `size` x `size` pixels: one fixed camera in head coordinates (P§13.7, O58)."""

    @abstractmethod
    def face_mask(self, size: int) -> Tensor:
        """W1 of P§5.2: bool [size, size], the face as `frontal_camera(size)` sees it."""
