"""Decoder: expression code, gaze and identity in; geometry and image out; and how a decoder is itself trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from ufe_core.config import ComponentConfig
from ufe_core.errors import ContractError, DataError
from ufe_core.interfaces.source import HMCSource
from ufe_core.interfaces.training import ComponentTraining
from ufe_core.types import Avatar, CameraSpec, CodeSpace, Identity, MeshTopology, check_tensor

if TYPE_CHECKING:
    from typing_extensions import Self

    from ufe_core.budgets import DomeTrainingConfig
    from ufe_core.packed_dome import DomeRequest, PackedDome
    from ufe_core.store import Store

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)
OptionsT = TypeVar("OptionsT", bound="DomeTrainingConfig")


class DecoderTraining(ComponentTraining[OptionsT, "PackedDome"]):
    """How a decoder learns from dome captures (P§1.2)."""

    stage: ClassVar[str] = "domes"

    def __init__(self, config: OptionsT, topology: MeshTopology) -> None:
        super().__init__()
        self.config, self.topology = config, topology

    @classmethod
    def begin(cls, config: OptionsT, source: HMCSource[Any], subjects: Sequence[str]) -> Self:
        """A training on the mesh of the source's domes."""
        topology = source.dome(subjects[:1])[0].topology()
        if topology is None:
            raise DataError("The dome captures of this source bring no mesh topology: no decoder can train.")
        return cls(config, topology)

    @classmethod
    def fingerprint(cls, source: HMCSource[Any]) -> str:
        """Of the source's domes."""
        return source.dome_fingerprint

    @abstractmethod
    def request(self) -> DomeRequest:
        """What to take of each training subject's dome capture."""

    def collect(
        self, source: HMCSource[Any], subjects: Sequence[str], store: Store, progress: Callable[[str], None]
    ) -> Sequence[PackedDome]:
        """Pack what `request` asks for."""
        from ufe_core.packed_dome import pack_domes

        return pack_domes(source, subjects, self.request(), store=store, progress=progress)


class Decoder(nn.Module, ABC, Generic[ConfigT]):
    """The avatar (P§1): `identity` once per person, then `decode` and `render` for each code.

    All three are differentiable in the code and the gaze, so that an encoder can be trained through them (P§5.1).
    A decoder's own parameters are frozen while an encoder trains.

    A decoder whose codes are not the source's labels reads them off faces: it sets `reads_texture`, the side of the
    textures that it needs, and implements `read`. One that is itself trained says how in `trained_by`.
    """

    code_modules: ClassVar[tuple[str, ...]] = ()
    reads_texture: ClassVar[int] = 0
    trained_by: ClassVar[type[DecoderTraining[Any]] | None] = None
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

    @classmethod
    def weights_sha256(cls, config: ConfigT) -> str | None:
        """Of the weights that a decoder with these options loads; None for one without weights.

        Raises:
            ArtifactError: there are none, or they cannot be read.
        """
        return None

    def read(self, texture: Tensor, geometry: Tensor, neutral_texture: Tensor, neutral_geometry: Tensor) -> Tensor:
        """The codes float32 [B, D] of B exact faces: E_exp (P§1.3, eq. 1).

        Args:
            texture: float32 [B, 3, T, T] in [0, 1]; T is `reads_texture`.
            geometry: float32 [B, V, 3], mm.
            neutral_texture: of the same people, like `texture`.
            neutral_geometry: likewise, float32 [B, V, 3].
        """
        raise NotImplementedError(f"{type(self).__name__} takes the source's labels as its codes.")

    @final
    def decode(self, expression: Tensor, gaze: Tensor, identity: Identity) -> Avatar:
        """Decode B codes (P§1.5, eq. 5).

        Args:
            expression: float32 [B, D] of this decoder's code space.
            gaze: float32 [B, 6], unit vectors.
            identity: one row per frame.

        Raises:
            ContractError: a shape does not fit this decoder.
        """
        name = type(self).__name__
        check_tensor(name, "decode.expression", expression, ("B", self.code_space.size), torch.float32)
        check_tensor(name, "decode.gaze", gaze, (expression.shape[0], 6), torch.float32)
        avatar = self._decode(expression, gaze, identity)
        expected = (expression.shape[0], self.topology.vertex_count, 3)
        if tuple(avatar.geometry.shape) != expected:
            raise ContractError(
                f"{name}._decode returned geometry {list(avatar.geometry.shape)}; expected {list(expected)}."
            )
        return avatar

    @abstractmethod
    def _decode(self, expression: Tensor, gaze: Tensor, identity: Identity) -> Avatar:
        """What `decode` checks and returns."""

    @abstractmethod
    def render(self, avatar: Avatar, camera: CameraSpec, *, mask: Tensor | None = None) -> Tensor:
        """Image float32 [B, 3, H, W] in [0, 1] of avatars on black, as the camera sees them.

        Args:
            avatar: what `decode` gave; the image is differentiable in what it was decoded from.
            camera: a pinhole.
            mask: bool [H, W], the only pixels that matter: others may stay black where that saves work.
        """

    @abstractmethod
    def frontal_camera(self, size: int) -> CameraSpec:
        """`v_front` of P§5.1 at `size` x `size` pixels: one fixed camera in head coordinates (P§13.7, O58)."""

    @abstractmethod
    def face_mask(self, size: int) -> Tensor:
        """W1 of P§5.2: bool [size, size], the face as `frontal_camera(size)` sees it."""
