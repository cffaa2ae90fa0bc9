"""Pre-training `simclr` (P§6.8): images of one instant are told from images of all others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.face_encoder import REGIONS, by_region
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.pretraining import Pretraining, UnlabelledBatch
from ufe_pretraining.plugin import ContrastiveConfig


class Contrastive(Pretraining[ContrastiveConfig]):
    """InfoNCE for each face region on what the encoder sees in single cameras, projected by a perceptron.

    An image's positives are the region's other camera in the same frame, and both in another augmentation; its
    negatives are the same region in all other frames of the batch, the same person's among them.
    """

    versions = 2
    code_modules = ("ufe_pretraining.contrastive", "ufe_core.face_encoder")

    def __init__(self, config: ContrastiveConfig, *, encoder: Encoder[Any], views: tuple[str, ...]) -> None:
        super().__init__(config, encoder=encoder, views=views)
        width = _feature_width(encoder)
        self.project = nn.ModuleDict({
            region: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.projection))
            for region in REGIONS
        })  # fmt: skip

    def losses(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, Tensor]:
        return self._losses_of(self._projected(encoder, batch))

    @torch.no_grad()
    def measure(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, float]:
        """Its losses, and how often an image's other camera is found: among all frames, and among the person's own."""
        projected = self._projected(encoder, batch)
        found = {name: float(value) for name, value in self._losses_of(projected).items()}
        for region, features in projected.items():
            found[f"{region} found"] = found_again(features)
            found[f"{region} found in person"] = found_again(features, batch.frames.users)
        return found

    def _losses_of(self, projected: dict[str, Tensor]) -> dict[str, Tensor]:
        terms = {
            region: info_nce(features, self.config.temperature, self.config.positives)
            for region, features in projected.items()
        }
        return {**terms, "total": torch.stack(list(terms.values())).mean()}

    def _projected(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, Tensor]:
        """Features of both regions, float32 [B, V, 2, F] of unit length: frames, versions, cameras."""
        seen = torch.stack([encoder.view_features(frames, anchors) for frames, anchors in batch.versions], 1)
        regions = by_region(seen.flatten(0, 1))  # [2, B V 2, F]
        return {
            region: functional.normalize(self.project[region](part).float(), dim=-1).unflatten(0, (*seen.shape[:2], 2))
            for region, part in zip(REGIONS, regions, strict=True)
        }


def info_nce(features: Tensor, temperature: float, positives: str) -> Tensor:
    """Mean over images and their positives of -log(positive / (positive + all negatives)), of similarities.

    Args:
        features: float32 [B, V, C, F] of unit length: frames, versions, cameras of a region.
        temperature: divides similarities.
        positives: `cameras`, `versions` or `both`: what of one frame belongs together; the rest of it is left out.
    """
    versions, cameras = features.shape[1:3]
    flat = features.flatten(0, 2)
    with torch.autocast(flat.device.type, enabled=False):  # a tenth of a bfloat16's step is what it has to tell
        alike = flat @ flat.T / temperature
    place = torch.arange(len(flat), device=flat.device)
    frame, version, camera = place // (versions * cameras), place // cameras % versions, place % cameras
    same = frame[:, None] == frame
    wanted = same & (place[:, None] != place)
    if positives == "cameras":
        wanted = wanted & (version[:, None] == version)
    elif positives == "versions":
        wanted = wanted & (camera[:, None] == camera)
    others = torch.logsumexp(alike.masked_fill(same, -torch.inf), 1, keepdim=True)
    each = torch.logaddexp(alike, others) - alike
    return each[wanted].mean()


def found_again(features: Tensor, groups: Tensor | None = None) -> float:
    """Share of images that are most like the other camera's of the same frame and version, of those of all frames.

    Args:
        features: float32 [B, V, 2, F] of unit length: frames, versions, cameras.
        groups: int64 [B]: frames of other groups do not count.
    """
    alike = torch.einsum("bvcf,dvcf->vcbd", features, features.flip(2))
    if groups is not None:
        alike = alike.masked_fill(groups[:, None] != groups, -torch.inf)
    return float((alike.argmax(-1) == torch.arange(len(features), device=features.device)).float().mean())


def _feature_width(encoder: Encoder[Any]) -> int:
    """F of the encoder's features of single cameras, by trying it on a black frame."""
    from ufe_core.types import AnchorSet, FrameBatch

    needs, training = encoder.needs, encoder.training
    device = next(encoder.parameters()).device
    shape = (len(needs.cameras), needs.size, needs.size)
    frames = FrameBatch.single_user(torch.zeros(1, *shape, dtype=torch.uint8, device=device), needs.cameras)
    held = torch.zeros(1, len(needs.anchors), *shape, dtype=torch.uint8, device=device)
    with torch.no_grad():
        width = encoder.eval().view_features(frames, AnchorSet.complete(held, needs.anchors, needs.cameras)).shape[-1]
    encoder.train(training)
    return width
