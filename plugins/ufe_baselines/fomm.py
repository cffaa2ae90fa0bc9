"""First Order Motion Model (Siarohin et al. 2019): a dense warp field from keypoints and local affine terms.

Original: near each of K keypoints the motion between a reference ("source") image and a driving image is a first-order
expansion, T_k(z) = r_k + J_k (z - d_k): reference point r_k, driving point d_k, a 2 x 2 Jacobian J_k. A dense motion
network is shown the reference image warped by each T_k and how the keypoints' heat maps differ, and answers with a
mask for each T_k, one for the still background, and an occlusion map; the masked sum is the dense warp field, with
which a generator warps the reference. Keypoints and Jacobians are learnt without labels.

Kept: sparse first-order motions, the dense motion network with what it is shown, the masks and the occlusion map, the
dense warp field against a reference frame of the same person.

Changed: the warp field is not what paints an image but what is read (P§10): the backbone of the universal encoder
regresses (e, g) from field and occlusion (P§13.8, O61). Keypoints are those of the headset detector that every baseline
shares; each sparse motion belongs to one part of the face (lids, brow, lips ...), whose centre is the mean of its
keypoints and whose Jacobian is their least-squares fit. The reference is the neutral anchor (O60).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_baselines.keypoint_maps import groups_of
from ufe_baselines.plugin import FommConfig
from ufe_baselines.regressor import Pooled, Reference, by_side, mirrored_images, mirrored_points
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import CodeSpace, Detections, FrameBatch

_RIDGE = 0.02  # keeps Jacobians of parts whose points lie on a line near the identity
_HEAT_VARIANCE = 0.01  # of the heat maps, as in the original (kp_variance), in half sides squared


class Motions(NamedTuple):
    """First-order motions of G parts: `driving` and `reference` [B, G, 2] in [-1, 1], `jacobian` [B, G, 2, 2]."""

    driving: Tensor
    reference: Tensor
    jacobian: Tensor


def first_order(driving: Tensor, reference: Tensor, weight: Tensor, groups: Sequence[Sequence[int]]) -> Motions:
    """The affine motion of each part from where its keypoints are to where they were, by weighted least squares.

    Args:
        driving: float32 [B, K, 2], where keypoints are, in [-1, 1].
        reference: float32 [B, K, 2], where they were.
        weight: float32 [B, K], how far each is believed.
        groups: indices of K, one list for each part.
    """
    centres, sources, jacobians = [], [], []
    identity = torch.eye(2, device=driving.device)
    for group in groups:
        share = weight[:, group, None] + 1e-4
        share = share / share.sum(1, keepdim=True)
        d, r = driving[:, group], reference[:, group]
        centre, source = (share * d).sum(1), (share * r).sum(1)
        away, was = d - centre[:, None], r - source[:, None]
        spread = (share * away).transpose(1, 2) @ away
        ridge = _RIDGE * spread.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * identity + 1e-6 * identity
        cross = (share * was).transpose(1, 2) @ away
        jacobians.append((cross + ridge) @ torch.linalg.inv(spread + ridge))
        centres.append(centre)
        sources.append(source)
    return Motions(torch.stack(centres, 1), torch.stack(sources, 1), torch.stack(jacobians, 1))


def sparse_fields(motions: Motions, grid: Tensor) -> Tensor:
    """T_k(z) = r_k + J_k (z - d_k) at a grid [S, S, 2], and the identity first: [B, 1 + G, S, S, 2]."""
    away = grid - motions.driving[:, :, None, None]
    moved = torch.einsum("bgij,bgyxj->bgyxi", motions.jacobian, away) + motions.reference[:, :, None, None]
    still = grid.expand(len(moved), 1, *grid.shape)
    return torch.cat([still, moved], 1)


class FommEncoder(Reference[FommConfig]):
    """Dense motion for each face region, and a backbone on it; see the module."""

    code_modules = ("ufe_baselines.fomm", "ufe_baselines.keypoint_maps", "ufe_baselines.regressor")

    def __init__(
        self, config: FommConfig, *, needs: EncoderNeeds, code_space: CodeSpace,
        keypoints: tuple[KeypointNames, ...],
    ) -> None:  # fmt: skip
        super().__init__(config, needs=needs, code_space=code_space)
        self.groups = [groups_of(keypoints[2 * region].names) for region in range(2)]
        self.dense = nn.ModuleList(DenseMotion(len(groups), config.width) for groups in self.groups)
        networks = [Pooled(config.backbone, config.backbone_options, inputs=3, cells=config.cells) for _ in range(2)]
        self.regions = nn.ModuleList(networks)
        count = 2 * networks[0].features
        self.read_out(count, count, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.keypoints is not None
        side = frames.images.shape[-1]
        now = mirrored_points(frames.keypoints, side)
        before = mirrored_points(Detections(kept["points"], kept["visible"]), side)
        weight = by_side(now.visible * before.visible)
        driving, reference = by_side(2 * now.points / side - 1), by_side(2 * before.points / side - 1)
        images = by_side(mirrored_images(self.standardised(kept["image"])))[:, :, None]
        made = []
        for k, (dense, network) in enumerate(zip(self.dense, self.regions, strict=True)):
            motions = first_order(driving[k], reference[k], weight[k], self.groups[k])
            field = dense(images[k], motions)
            made.append(network(field).view(len(frames.images), -1))
        return made[0], made[1]


class DenseMotion(nn.Module):
    """From sparse motions of G parts to the warp field less the identity, times ten, and occlusion: [B, 3, S, S]."""

    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        inputs = 2 * (parts + 1)
        self.down = nn.ModuleList(
            [_block(inputs, width, 1), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2)]
        )
        self.up = nn.ModuleList([_block(6 * width, 2 * width, 1), _block(3 * width, width, 1)])
        self.masks, self.occlusion = nn.Conv2d(width, parts + 1, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, reference: Tensor, motions: Motions) -> Tensor:
        """The field of a batch.

        Args:
            reference: float32 [B, 1, H, H], reference images, standardised.
            motions: towards them.
        """
        side = max(reference.shape[-1] // 2, 8)  # the original works at a quarter of its larger images
        small = functional.interpolate(reference, (side, side), mode="bilinear", align_corners=False, antialias=True)
        centres = (torch.arange(side, device=reference.device) + 0.5) * (2 / side) - 1
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)
        fields = sparse_fields(motions, grid)
        batch, count = fields.shape[:2]
        warped = functional.grid_sample(
            small.repeat_interleave(count, 0), fields.flatten(0, 1), align_corners=False, padding_mode="border"
        ).view(batch, count, side, side)
        heat = _heat(motions.driving, grid) - _heat(motions.reference, grid)
        x = torch.cat([warped, functional.pad(heat, (0, 0, 0, 0, 1, 0))], 1)
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        for stage, skip in zip(self.up, levels[-2::-1], strict=True):
            x = stage(torch.cat([functional.interpolate(x, scale_factor=2), skip], 1))
        masks = self.masks(x).softmax(1)
        field = (masks[..., None] * fields).sum(1) - grid
        return torch.cat([10 * field.permute(0, 3, 1, 2), self.occlusion(x).sigmoid()], 1)


def _heat(centres: Tensor, grid: Tensor) -> Tensor:
    """Gaussians about centres [B, G, 2] on a grid [S, S, 2]: [B, G, S, S]."""
    return torch.exp(-(grid - centres[:, :, None, None]).square().sum(-1) / (2 * _HEAT_VARIANCE))


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
