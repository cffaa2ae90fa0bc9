"""The losses that compare what two codes decode to (P§5.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ufe_core.budgets import TrainingConfig
from ufe_core.interfaces.decoder import Decoder
from ufe_core.training.processes import ALONE, Processes
from ufe_core.types import Encoding, Identity, Labels

_TABLE_BYTES = 2**30
_DECODED_AT_A_TIME = 64


def gaze_angles(gaze: Tensor) -> Tensor:
    """Azimuth and altitude in radians [B, 2 eyes, 2] of unit vectors [B, 6] (delta of P§5.3)."""
    x, y, z = gaze.view(-1, 2, 3).unbind(-1)
    return torch.stack([torch.atan2(x, z), torch.asin((-y).clamp(-1 + 1e-6, 1 - 1e-6))], -1)


def gaze_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """L_gaze (eq. 14): squared angle differences summed over both eyes, mean over frames, radians squared."""
    return (gaze_angles(predicted) - gaze_angles(truth)).square().sum((1, 2)).mean()


def geometry_loss(predicted: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """L_geo (eq. 13): L1 distance of vertices [B, V, 3] under W2 [V], mean over its non-zero entries, mm."""
    difference = (predicted - truth).abs().sum(-1)
    return (difference * weights).sum(1).div((weights > 0).sum()).mean()


def photometric_loss(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """L_photo (eq. 12): L1 of images [B, 3, H, W] inside W1 [H, W], 0..255 scale, mean over its pixels."""
    difference = (predicted - truth).abs().mean(1) * mask
    return 255 * difference.sum((1, 2)).div(mask.sum()).mean()


def code_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """The loss that Table 2 puts in the place of L_photo and L_geo: the distance of codes [B, D], mean over frames."""
    return torch.linalg.vector_norm(predicted - truth, dim=1).mean()


class DecoderLoss:
    """Compares encodings through a frozen decoder, seen from the front; what has no weight is not computed.

    Only `render_frames` frames of a batch are rendered, spread over its people.
    """

    def __init__(self, decoder: Decoder[Any], config: TrainingConfig, device: torch.device) -> None:
        self.decoder = decoder
        self.config = config
        self.camera = decoder.frontal_camera(config.render_size)
        self.mask = decoder.face_mask(config.render_size).to(device).float()
        self.weights = torch.from_numpy(decoder.topology.weights).to(device)

    def __call__(
        self, encoding: Encoding, labels: Labels, identity: Identity, processes: Processes = ALONE, *,
        geometry: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The terms of eq. 16 but for L_disc, and their weighted sum, `total`.

        Args:
            encoding: of B frames.
            labels: theirs.
            identity: a row for each of them.
            processes: with which other frames these make a batch; means over them are those of the batch.
            geometry: what the labels decode to, float32 [B, V, 3], where that is known; decoded here where not.
        """
        config = self.config
        terms = {"gaze": gaze_loss(encoding.gaze, labels.gaze)}
        if config.code > 0:
            terms["code"] = code_loss(encoding.expression, labels.expression)
        rendered, share = self._rendered(len(labels.gaze), processes)
        if config.geometry > 0 or len(rendered):
            predicted = self.decoder.decode(encoding.expression, encoding.gaze, identity)
            if config.geometry > 0:
                true = self._decoded(labels, identity) if geometry is None else geometry
                terms["geometry"] = geometry_loss(predicted.geometry, true, self.weights)
            if len(rendered):
                rows = rendered.to(labels.gaze.device)
                with torch.no_grad():
                    truth = self.decoder.decode(labels.expression[rows], labels.gaze[rows], identity.rows(rows))
                    target = self.decoder.render(truth, self.camera, mask=self.mask > 0)
                image = self.decoder.render(predicted.rows(rows), self.camera, mask=self.mask > 0)
                terms["photometric"] = share * photometric_loss(image, target, self.mask)
        if share == 0:
            # Of all outputs: a process whose graph lacks a network that others' have would wait for them for ever.
            terms["photometric"] = 0 * encoding.expression.sum()
        weighted = [getattr(config, name) * value for name, value in terms.items()]
        return {**terms, "total": torch.stack(weighted).sum()}

    def true_geometry(
        self, labels: Labels, identity: Identity, progress: Callable[[int], None] | None = None
    ) -> Tensor | None:
        """What the labels of all N training frames decode to, float32 [N, V, 3]: no step changes it.

        None where it is better decoded in each step: there are too many frames to keep, or the steps see fewer.

        Args:
            labels: of the frames.
            identity: a row for each of them.
            progress: called with the number of frames done.
        """
        config, shape = self.config, (len(labels.gaze), len(self.weights), 3)
        seen = config.steps * config.users * config.frames_per_user
        if config.geometry == 0 or seen < shape[0] or 4 * math.prod(shape) > _TABLE_BYTES:
            return None
        table = torch.empty(shape, device=self.weights.device)
        for rows in torch.arange(shape[0], device=table.device).split(_DECODED_AT_A_TIME):
            table[rows] = self._decoded(labels.rows(rows), identity.rows(rows))
            if progress:
                progress(int(rows[-1]) + 1)
        return table

    @torch.no_grad()
    def _decoded(self, labels: Labels, identity: Identity) -> Tensor:
        return self.decoder.decode(labels.expression, labels.gaze, identity).geometry

    def _rendered(self, count: int, processes: Processes) -> tuple[Tensor, float]:
        """Which of this process' `count` frames are rendered, and their weight in the mean over all processes.

        The weight is 0 where only others render, and 1 where nobody does.
        """
        total = count * processes.count
        wanted = min(self.config.render_frames, total) if self.config.photometric > 0 else 0
        if not wanted:
            return torch.zeros(0, dtype=torch.int64), 1.0
        rows = torch.arange(wanted) * total // wanted - processes.rank * count
        own = rows[(rows >= 0) & (rows < count)]
        return own, len(own) * processes.count / wanted
