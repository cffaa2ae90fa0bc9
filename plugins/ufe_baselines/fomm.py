"""First Order Motion Model (Siarohin et al. 2019): a dense warp field from keypoints and local affine terms.

Original: near each of K keypoints the motion between a reference ("source") image and a driving image is a first-order
expansion, T_k(z) = r_k + J_k (z - d_k): reference point r_k, driving point d_k, a 2 x 2 Jacobian J_k. A dense motion
network is shown the reference image warped by each T_k and how the keypoints' heat maps differ, and answers with a
mask for each T_k, one for the still background, and an occlusion map; the masked sum is the dense warp field, with
which a generator warps the reference. Keypoints and Jacobians are learnt without labels.

Kept: sparse first-order motions, the dense motion network (an hourglass of five levels, or four at 64 px) with what it
is shown, the masks and the occlusion map, the dense warp field against a reference frame of the same person.

Changed: the warp field is not what paints an image but what is read (P§10): the backbone of the universal encoder
regresses (e, g) from field and occlusion (P§13.8, O61). So no image is reconstructed, which taught the original where
each motion holds and what is occluded: here masks start from how near each part is, and the network learns what to
add; the channel of occlusion means whatever helps. Keypoints are those of the headset detector that every baseline
shares; each sparse motion belongs to one part of the face (brow, a quarter of the lips' outer rim ...), whose centre is
the mean of its keypoints and whose Jacobian is their least-squares fit. The detector's confidence, which the original's
keypoints lack, weighs them in that fit and is how strongly the part is drawn into the heat maps; where there is no
reference nothing moves, and in a view in which nothing is found parts have next to no mask. The hourglass is narrower
than the original's, as the images are smaller, but at budget `gpu` its maps are larger, 96 pixels for 64. The reference
is the neutral anchor (O60).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_baselines.keypoint_maps import Parts, groups_of
from ufe_baselines.plugin import FommConfig
from ufe_baselines.regressor import REFERENCE, Pooled, Reference, found_in_views
from ufe_core.face_encoder import REGIONS, by_region, mirrored_detections
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.types import AnchorSet, CodeSpace, Detections, FrameBatch

_RIDGE = 5e-4  # variance of detected points, half sides squared: parts that are as thin keep the identity across
_LEAST_WEIGHT = 1e-4  # of a point, so that a part of which nothing is seen has a centre
_LEAST_FOUND = 1e-4
_WIDEST, _LEAST_SIDE = 8, 8
_HEAT_VARIANCE = 0.01  # of the heat maps, as in the original (kp_variance), in half sides squared
_NEAR_VARIANCE, _NEAR_MOST = 0.04, 2.0  # masks start as a part's Gaussian; the still background is 2 deviations away


class Motions(NamedTuple):
    """First-order motions of G parts: `driving` and `reference` [B, G, 2] in [-1, 1], `jacobian` [B, G, 2, 2], and
    `belief` [B, G] in [0, 1], how surely each part is seen then and now.
    """

    driving: Tensor
    reference: Tensor
    jacobian: Tensor
    belief: Tensor


def first_order(driving: Tensor, reference: Tensor, weight: Tensor, known: Tensor, parts: Parts) -> Motions:
    """The affine motion of each part from where its keypoints are to where they were, by weighted least squares.

    Args:
        driving: float32 [B, K, 2], where keypoints are, in [-1, 1].
        reference: float32 [B, K, 2], where they were.
        weight: float32 [B, K], how far each is believed.
        known: float32 [B], 1 where there is a reference; where it is 0, nothing moves.
        parts: G groups of the keypoints.
    """
    driving, reference, weight = (values[:, parts.order] for values in (driving, reference, weight))
    share = weight + _LEAST_WEIGHT
    share = (share / (share @ parts.member.T)[:, parts.part])[..., None]
    centre, source = parts.member @ (share * driving), parts.member @ (share * reference)
    away, was = driving - centre[:, parts.part], reference - source[:, parts.part]
    spread, cross = (
        (parts.member @ ((share * values)[..., :, None] * away[..., None, :]).flatten(2)).unflatten(2, (2, 2))
        for values in (away, was)
    )
    identity, known = torch.eye(2, device=driving.device), known[:, None, None]
    turned = (cross + _RIDGE * identity) @ _inverse(spread + _RIDGE * identity) - identity
    belief = weight @ (parts.member / parts.member.sum(1, keepdim=True)).T
    return Motions(centre, centre + known * (source - centre), identity + known[..., None] * turned, belief)


def _inverse(matrices: Tensor) -> Tensor:
    """Of matrices [..., 2, 2]."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2))
    return adjugate / (a * d - b * c)[..., None, None]


def sparse_fields(motions: Motions, grid: Tensor) -> Tensor:
    """T_k(z) = r_k + J_k (z - d_k) at a grid [S, S, 2], and the identity first: [B, 1 + G, S, S, 2]."""
    away = grid - motions.driving[:, :, None, None]
    moved = torch.einsum("bgij,bgyxj->bgyxi", motions.jacobian, away) + motions.reference[:, :, None, None]
    still = grid.expand(len(moved), 1, *grid.shape)
    return torch.cat([still, moved], 1)


class FommEncoder(Reference[FommConfig]):
    """Dense motion for each face region, and a backbone on it; see the module."""

    code_modules = (*Reference.code_modules, "ufe_baselines.fomm", "ufe_baselines.keypoint_maps")

    def __init__(
        self, config: FommConfig, *, needs: EncoderNeeds, code_space: CodeSpace,
        keypoints: tuple[KeypointNames, ...],
    ) -> None:  # fmt: skip
        super().__init__(config, needs=needs, code_space=code_space)
        parts = [Parts(groups_of(keypoints[2 * region].names)) for region in range(2)]
        self.parts = nn.ModuleList(parts)
        self.side = max(needs.size // 2, _LEAST_SIDE)  # the original works at a quarter of its larger images
        self.dense = nn.ModuleList(
            DenseMotion(len(of_region), config.width, config.levels, self.side) for of_region in parts
        )
        networks = [Pooled(config.backbone, config.backbone_options, inputs=3, cells=config.cells) for _ in range(2)]
        self.regions = nn.ModuleList(networks)
        count = 2 * networks[0].features
        self.read_out(2 * count, count, fuse_width=config.fuse_width, gaze_width=config.gaze_width)

    def _enroll(self, anchors: AnchorSet) -> dict[str, Tensor]:
        at = self.needs.anchors.index(REFERENCE)
        known = anchors.present[:, at].float()
        views = self.views(anchors.images[:, at].float() * known[:, None, None, None]).flatten(0, 1)
        small = functional.interpolate(views, (self.side, self.side), mode="bilinear", antialias=True)
        by_user = small.view(len(REGIONS), len(known), -1, self.side, self.side).transpose(0, 1)
        return {**super()._enroll(anchors), "image": by_user}

    def features(self, frames: FrameBatch, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        assert frames.keypoints is not None
        side = frames.images.shape[-1]
        now = mirrored_detections(frames.keypoints, side)
        before = mirrored_detections(Detections(kept["points"], kept["visible"]), side)
        weight = by_region(now.visible * before.visible)
        known = (before.visible.flatten(1).amax(1) > 0).float().repeat_interleave(2)  # left and right
        driving, reference = by_region(2 * now.points / side - 1), by_region(2 * before.points / side - 1)
        found = by_region(found_in_views(now, before))
        made = []
        for k, (dense, network) in enumerate(zip(self.dense, self.regions, strict=True)):
            with torch.autocast(driving.device.type, enabled=False):  # half precision would round motions away
                motions = first_order(driving[k], reference[k], weight[k], known, cast("Parts", self.parts[k]))
            image = kept["image"][:, k].flatten(0, 1)[:, None]
            field = functional.interpolate(
                dense(image, motions, found[k]), (side, side), mode="bilinear", align_corners=False
            )
            made.append(network(field).view(len(frames.images), -1))
        return made[0], made[1]


class DenseMotion(nn.Module):
    """From sparse motions of G parts to the warp field less the identity, times ten, and occlusion: [B, 3, S, S].

    Args:
        parts: G.
        width: channels of the finest maps; twice, four and at most eight times as many below.
        levels: how many times maps are halved, as far as 2 x 2 cells are left.
        side: S.
    """

    def __init__(self, parts: int, width: int, levels: int, side: int) -> None:
        super().__init__()
        self.side, levels = side, min(levels, side.bit_length() - 2)
        widths = [width * min(2**k, _WIDEST) for k in range(levels + 1)]
        self.first = _block(2 * (parts + 1), width, 1)
        self.down = nn.ModuleList(_block(above, below, 2) for above, below in pairwise(widths))
        self.up = nn.ModuleList(_block(above + below, above, 1) for above, below in pairwise(widths))
        self.masks, self.occlusion = nn.Conv2d(width, parts + 1, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, reference: Tensor, motions: Motions, found: Tensor) -> Tensor:
        """The field of a batch.

        Args:
            reference: float32 [B, 1, S, S], reference images, standardised.
            motions: towards them.
            found: float32 [B] in [0, 1], how far the view's keypoints are believed at all.
        """
        side = self.side
        centres = (torch.arange(side, device=reference.device) + 0.5) * (2 / side) - 1
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)
        with torch.autocast(reference.device.type, enabled=False):
            fields = sparse_fields(motions, grid)
        batch, count = fields.shape[:2]
        warped = functional.grid_sample(
            reference.repeat_interleave(count, 0), fields.flatten(0, 1), align_corners=False, padding_mode="border"
        ).view(batch, count, side, side)
        heat = motions.belief[:, :, None, None] * (_heat(motions.driving, grid) - _heat(motions.reference, grid))
        x = self._hourglass(torch.cat([warped, functional.pad(heat, (0, 0, 0, 0, 1, 0))], 1))
        masks = (self.masks(x).float() + _nearness(motions.driving, found, grid)).softmax(1)
        field = (masks[..., None] * (fields - grid)).sum(1)
        return torch.cat([10 * field.permute(0, 3, 1, 2), self.occlusion(x).sigmoid()], 1)

    def _hourglass(self, x: Tensor) -> Tensor:
        x = self.first(x)
        above: list[Tensor] = []
        for halve in self.down:
            above.append(x)
            x = halve(x)
        for mix, skip in zip(reversed(self.up), reversed(above), strict=True):
            x = mix(torch.cat([skip, functional.interpolate(x, skip.shape[-2:])], 1))
        return x


def _nearness(centres: Tensor, found: Tensor, grid: Tensor) -> Tensor:
    """Logits of the still background and of parts about centres [B, G, 2] on a grid [S, S, 2], [B, 1 + G, S, S].

    A part that something hides keeps its own: it is found nearly as well. Those of a view in which nothing is found
    are far below the background's.
    """
    parts = -(grid - centres[:, :, None, None]).square().sum(-1) / (2 * _NEAR_VARIANCE)
    parts = parts + found.clamp_min(_LEAST_FOUND).log()[:, None, None, None]
    return functional.pad(parts, (0, 0, 0, 0, 1, 0), value=-(_NEAR_MOST**2) / 2)


def _heat(centres: Tensor, grid: Tensor) -> Tensor:
    """Gaussians about centres [B, G, 2] on a grid [S, S, 2]: [B, G, S, S]."""
    return torch.exp(-(grid - centres[:, :, None, None]).square().sum(-1) / (2 * _HEAT_VARIANCE))


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
