"""Encoder `univ` (P§4): upper and lower face networks, calibrated by anchors, fused into one code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ufe_core.errors import ContractError
from ufe_core.face_encoder import REGIONS, FaceEncoder
from ufe_core.interfaces.calibrator import Calibrator, CalibratorFactory
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import AnchorSet, Calibration, CodeSpace, Encoding, FrameBatch
from ufe_universal.backbone import SplitBackbone, split_backbone
from ufe_universal.plugin import UnivConfig


class UnivEncoder(FaceEncoder[UnivConfig]):
    """z^P = phi_cal^P(phi_exp^P(x^P), phi_exp^P(y^P)), e = f_fuse(z^U, z^L), g = f_gaze(z^U) (eq. 7-9).

    Right images share a network with left ones (P§2.3); the order of concatenation tells the sides apart. With a
    calibrator that takes images phi_exp is nothing, and phi_cal the whole network.
    """

    calibrated = True
    code_modules = (*FaceEncoder.code_modules, "ufe_core.timm_network", "ufe_universal.univ", "ufe_universal.backbone")

    def __init__(
        self, config: UnivConfig, *, needs: EncoderNeeds, code_space: CodeSpace, calibrator: CalibratorFactory
    ) -> None:
        super().__init__(config, needs=needs, code_space=code_space)
        self.extract, self.calibrate, self.reduce = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        count = len(needs.anchors)
        for region in REGIONS:
            of_images = calibrator(1, count) if calibrator.stage == "images" else None
            split = self._split(of_images.outputs if of_images is not None else 1)
            features = split.features
            if of_images is not None:
                self.extract[region], self.calibrate[region] = nn.Identity(), of_images
                self.reduce[region] = nn.Sequential(split.head, split.tail)
            else:
                self.extract[region], self.reduce[region] = split.head, split.tail
                self.calibrate[region] = after = calibrator(split.channels, count)
                if after.outputs != split.channels:
                    raise ContractError(f"{type(after).__name__} makes {after.outputs} channels of {split.channels}.")
        self.read_out(4 * features, 2 * features, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def forward(self, frames: FrameBatch, anchors: AnchorSet) -> Encoding:
        """Enrol and encode in one pass, so that batch normalisation sees frames and anchors alike."""
        return self._fuse(self._seen(frames, anchors))

    def view_features(self, frames: FrameBatch, anchors: AnchorSet) -> Tensor:
        """What phi_cal makes of each camera, pooled: left eye, right eye, left mouth, right mouth."""
        return torch.cat(self._seen(frames, anchors), 1)

    def load_backbone(self, load: Callable[[str, Mapping[str, Any]], Mapping[str, Tensor]]) -> None:
        weights = load(self.config.backbone, self.config.backbone_options)
        for region in REGIONS:
            first = cast("Calibrator[Any]", self.calibrate[region])
            if first.stage == "images":
                split = self._split(first.outputs, weights)
                self.reduce[region].load_state_dict(nn.Sequential(split.head, split.tail).state_dict())
            else:
                split = self._split(1, weights)
                self.extract[region].load_state_dict(split.head.state_dict())
                self.reduce[region].load_state_dict(split.tail.state_dict())

    def _split(self, inputs: int, weights: Mapping[str, Tensor] | None = None) -> SplitBackbone:
        """A region's network, of images of so many channels."""
        config = self.config
        return split_backbone(
            config.backbone, stride=config.stride, inputs=inputs, cells=config.cells, options=config.backbone_options,
            weights=weights,
        )  # fmt: skip

    def _seen(self, frames: FrameBatch, anchors: AnchorSet) -> list[Tensor]:
        """Pooled features [B, 2, F] of both regions, of frames with their users' anchors."""
        count = anchors.images.flatten(0, 1).shape[0]
        if count == 0:
            cached = Calibration(self.fingerprint, self._enroll(anchors))
            return self._pool(self._extract(frames.images), cached.rows(frames.users))
        maps = self._extract(torch.cat([anchors.images.flatten(0, 1), frames.images]))
        kept = self._precompute([m[: 2 * count] for m in maps], anchors.present)
        return self._pool([m[2 * count :] for m in maps], Calibration(self.fingerprint, kept).rows(frames.users))

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        if anchors.images.shape[1] == 0:  # nothing to look at, but a calibrator may keep something all the same
            channels = [cast("Calibrator[Any]", self.calibrate[region]).channels for region in REGIONS]
            return self._precompute([self.image_mean.new_zeros(0, k, 1, 1) for k in channels], anchors.present)
        return self._precompute(self._extract(anchors.images.flatten(0, 1)), anchors.present)

    def _encode(self, frames: FrameBatch, calibration: Calibration) -> Encoding:
        return self._fuse(self._pool(self._extract(frames.images), calibration.rows(frames.users)))

    def _extract(self, images: Tensor) -> list[Tensor]:
        """phi_exp of both regions of images [B, 4, H, W]: maps [B 2, K, h, w] each, left then right."""
        return [
            self.extract[region](some.contiguous(memory_format=torch.channels_last))
            for region, some in zip(REGIONS, self.views(images), strict=True)
        ]

    def _precompute(self, maps: list[Tensor], present: Tensor) -> dict[str, Tensor]:
        """The calibrators' caches [U, 2, ...] of anchor feature maps [U M 2, K, h, w]."""
        users, count = present.shape
        cached: dict[str, Tensor] = {}
        for region, map_ in zip(REGIONS, maps, strict=True):
            by_side = map_.unflatten(0, (users, count, 2)).transpose(1, 2).flatten(0, 1)  # [U 2, M, K, h, w]
            calibrator = cast("Calibrator[Any]", self.calibrate[region])
            made = calibrator.precompute(by_side, present.repeat_interleave(2, 0))
            cached |= {f"{region}.{name}": value.unflatten(0, (users, 2)) for name, value in made.items()}
        return cached

    def _pool(self, maps: list[Tensor], rows: dict[str, Tensor]) -> list[Tensor]:
        """phi_cal of feature maps of frames: [B, 2, F] of both regions, left and right in fixed order."""
        batch = maps[0].shape[0] // 2
        pooled: list[Tensor] = []
        for region, map_ in zip(REGIONS, maps, strict=True):
            cached = {
                name.removeprefix(f"{region}."): value.expand(batch, *value.shape[1:]).flatten(0, 1)
                for name, value in rows.items()
                if name.startswith(f"{region}.")
            }
            calibrated = self.calibrate[region](map_, cached)
            pooled.append(self.reduce[region](calibrated).view(batch, 2, -1))
        return pooled

    def _fuse(self, pooled: list[Tensor]) -> Encoding:
        """From pooled features to the code: z^P, then the two perceptrons."""
        upper, lower = (features.flatten(1) for features in pooled)
        return self.coded(torch.cat([upper, lower], 1), upper)
