"""Pre-training `mae_novel_view` and `mae_original_view` (P§6): masked views reconstructed through the code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_core.errors import ConfigError, DataError
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.pretraining import Pretraining, UnlabelledBatch, ViewRole, Views
from ufe_core.types import Encoding
from ufe_pretraining.canonical import Canonical
from ufe_pretraining.plugin import MaskedConfig
from ufe_pretraining.unet import UNet

_POINTS = 96
_MOVING = {"lip", "lid"}  # words in the names of keypoints that move most
_STRAYED = 0.02  # share of the frames whose keypoints may be wrong
_MARGIN = 1 / 24  # of the image's side: how far around its keypoints a mouth or an eye reaches
_TILE_PX, _GAP_PX, _HEADER_PX = 104, 8, 18
_REMOVED = 0.25  # grey of what was removed
_DEVIATION_FLOOR = 4 / 255  # of a pixel, where nothing ever changes


class NovelView(Pretraining[MaskedConfig]):
    """E'_univ encodes the tracking views; for each augmented view a U-Net is given the view with 90 % of its patches
    removed, a learned embedding of the person, and the code, and reconstructs the view (eq. 17, 18, 20 to 22).

    Little but the code can tell the expression. Views are warped to a template first, so that a mouth counts alike
    wherever the headset sits (P§6.5).
    """

    views: ClassVar[ViewRole | None] = "augmented"
    finder: ClassVar[str] = "heatmap_augmented"
    code_modules = (
        "ufe_pretraining.masked", "ufe_pretraining.canonical", "ufe_pretraining.unet",
    )  # fmt: skip

    moving: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: MaskedConfig, *, encoder: Encoder[Any], views: tuple[str, ...]) -> None:
        super().__init__(config, encoder=encoder, views=views)
        halvings = len(config.channels)
        if self.size % config.patch or self.size % 2**halvings:
            raise ConfigError(
                f"Images of {self.size} pixels cannot be cut into patches of {config.patch} and halved {halvings} "
                "times: change pretraining.patch or the number of pretraining.channels."
            )
        if config.person_start == "image" and config.channels[-1] < len(views):
            raise ConfigError(
                f"pretraining.person_start=image needs a last channel of {len(views)} or more, one a view."
            )
        self.low = self.size // 2**halvings
        code = encoder.code_space.size + 6
        self.networks = nn.ModuleList([
            UNet(config.channels, inputs=2, code=code, side=self.low, norm=config.norm) for _ in views
        ])  # fmt: skip
        self.networks.to(memory_format=torch.channels_last)
        self.canonical = Canonical(len(views), _POINTS, self.size, config.sigma)
        cells = self.size // config.patch
        self.register_buffer("moving", torch.zeros(len(views), cells, cells, dtype=torch.bool))
        self.register_buffer("mean", torch.full((len(views), self.size, self.size), 0.5))
        self.register_buffer("deviation", torch.full((len(views), self.size, self.size), 0.25))

    @classmethod
    def detector(cls, config: MaskedConfig) -> str | None:
        return cls.finder if config.aligned else None

    @property
    def person_shape(self) -> tuple[int, ...]:
        """u^id: as the lowest map of a U-Net."""
        return (self.config.channels[-1], self.low, self.low)

    def fit_statistics(self, sample: Sequence[Views]) -> None:
        """The template, which patches hold what moves most, whatever it does: the mouth or an eye; and the mean and
        the deviation of each pixel over people and what they do.
        """
        self._fit_alignment(sample)
        made = torch.cat([torch.from_numpy(self.targets(views)) for views in sample]).float() / 255
        self.mean.copy_(made.mean(0))
        self.deviation.copy_(made.std(0).clamp_min(_DEVIATION_FLOOR))

    def _fit_alignment(self, sample: Sequence[Views]) -> None:
        if any(views.found is None for views in sample):
            return
        points = sample[0].found.points.shape[-2] if sample[0].found is not None else 0
        if points != _POINTS:
            raise DataError(f"Canonicalisation needs {_POINTS} keypoints a view; the detector finds {points}.")
        self.canonical.fit(sample)
        patch, margin = self.config.patch, self.size * _MARGIN
        edges = torch.arange(self.moving.shape[-1]) * patch
        device = self.canonical.template.device
        found = [views.found.map(lambda value: value.to(device)) for views in sample if views.found is not None]
        warped = torch.cat([self.canonical.carried(one.points, one) for one in found]).cpu()
        for k, names in enumerate(sample[0].names):
            rows = [j for j, name in enumerate(names) if _MOVING & set(name.split("_"))]
            if not rows:
                continue
            places = warped[:, k, rows]  # [N, P, 2]
            low = places.min(1).values.quantile(_STRAYED, 0) - margin
            high = places.max(1).values.quantile(1 - _STRAYED, 0) + margin
            across, down = ((edges + patch > low[axis]) & (edges < high[axis]) for axis in (0, 1))
            self.moving[k] = down[:, None] & across[None]

    def person_start(self, views: Views) -> np.ndarray | None:
        """The mean of a person's anchors, each view in as few pixels as its share of u^id's channels holds.

        A step has few of many people, so that from noise a short pre-training learns little of anyone.
        """
        if self.config.person_start == "noise":
            return None
        channels, low, _ = self.person_shape
        finer = math.isqrt(channels // len(self.view_names))  # pixels across a cell of u^id
        made = torch.from_numpy(self.targets(views)).float().mean(0) / 255
        small = functional.adaptive_avg_pool2d((made - self.mean.cpu()) / self.deviation.cpu(), low * finer)
        folded = functional.pixel_unshuffle(small[None], finer)[0]
        start = folded.new_zeros(self.person_shape)
        start[: len(folded)] = folded
        return start.numpy()

    def targets(self, views: Views) -> np.ndarray:
        if views.found is None:
            return views.images
        device = self.canonical.template.device
        made = self.canonical(torch.from_numpy(views.images).to(device), views.found.map(lambda v: v.to(device)))
        return np.ascontiguousarray(made.cpu().numpy())

    def targets_of(self) -> dict[str, Any] | None:
        return (
            {"template": self.canonical.template.tolist(), "sigma": self.config.sigma} if self.config.aligned else None
        )

    def losses(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, Tensor]:
        truth = self._truth(batch)
        removed = self._draw_mask(len(truth))
        if self.config.hidden > 0:
            hides = torch.rand(len(truth), 1, 1, 1, device=truth.device) < self.config.hidden
            removed = removed | (hides & self.moving)
        found = self.reconstruct(truth, removed, encoder(batch.frames, batch.anchors), batch.person)
        wrong = (found.float() - truth) ** 2
        if self.config.masked_only:
            pixels = self._pixels(removed)
            each = (wrong * pixels).sum((-2, -1)) / pixels.sum((-2, -1))
        else:
            each = wrong.mean((-2, -1))
        each = each if self.config.squared else (each + 1e-8).sqrt()
        return {"reconstruction": each.mean(), "total": each.mean()}

    def reconstruct(self, truth: Tensor, removed: Tensor, said: Encoding, person: Tensor) -> Tensor:
        """Views [B, K, S, S] from what is left of them, codes, and embeddings of the people.

        Args:
            truth: float32 [B, K, S, S] in [0, 1].
            removed: bool [B, K, n, n], patches that are not to be seen.
            said: of the encoder, B of them.
            person: u^id [B, F, h, h].
        """
        pixels = self._pixels(removed)
        seen = torch.stack([(truth - self.mean) / self.deviation * (1 - pixels), pixels], 2)
        code = torch.cat([said.expression, said.gaze], 1)
        made = [
            network(seen[:, k].contiguous(memory_format=torch.channels_last), code, person)
            for k, network in enumerate(self.networks)
        ]
        return self.mean + self.deviation * torch.stack(made, 1)

    @torch.no_grad()
    def measure(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> dict[str, float]:
        """Root mean squares, in grey levels, where the mouth and the eyes are, of which nothing was left to be seen.

        `right` with the frame's own code, `other` with that of another frame of the same person, `zero` without any;
        over all views, and by view. Where no keypoints tell what moves, they are of all that was removed.
        """
        truth = self._truth(batch)
        variants = self._with_codes(encoder, batch, _next(truth, len(batch.subjects)))
        known = self.moving.expand(len(truth), -1, -1, -1) if self.moving.any() else self._hidden(len(truth))
        pixels = self._pixels(known)

        def error(found: Tensor, views: slice) -> float:
            wrong, there = ((found - truth) ** 2 * pixels)[:, views], pixels[:, views]
            return float((wrong.sum() / there.sum()).sqrt() * 255)

        over_all = {name: error(found, slice(None)) for name, found in variants.items()}
        by_view = {
            f"{view}: {name}": error(found, slice(k, k + 1))
            for k, view in enumerate(self.view_names) for name, found in variants.items() if pixels[:, k].any()
        }  # fmt: skip
        return {**over_all, **by_view}

    @torch.no_grad()
    def picture(self, encoder: Encoder[Any], batch: UnlabelledBatch) -> np.ndarray:
        """A row for each person, and in it for each view: as the camera saw it, warped to the template, what was left
        of it, the reconstruction with its code, that frame of the same person which looks least like it where it
        moves, and the reconstruction with the code of that.
        """
        truth = self._truth(batch)
        other = self._least_alike(truth, len(batch.subjects))
        variants = self._with_codes(encoder, batch, other)
        hidden = self._pixels(self._hidden(len(truth)))
        columns = {
            "camera": truth if batch.views is None else batch.views.float() / 255, "warped": truth,
            "left over": truth * (1 - hidden) + _REMOVED * hidden, "own code": variants["right"],
            "another frame": truth[other], "code of that": variants["other"],
        }  # fmt: skip
        gap = np.zeros((_TILE_PX, _GAP_PX), np.uint8)
        rows = []
        for n in range(0, len(truth), len(truth) // len(batch.subjects)):
            tiles = []
            for k in range(truth.shape[1]):
                tiles += [*(_tile(images[n, k]) for images in columns.values()), gap]
            rows.append(np.hstack(tiles[:-1]))
        starts = [k * (len(columns) * _TILE_PX + _GAP_PX) for k in range(len(self.view_names))]
        titles = [(title, start + c * _TILE_PX) for start in starts for c, title in enumerate(columns)]
        heads = [_header(words, rows[0].shape[1]) for words in (zip(self.view_names, starts, strict=True), titles)]
        return np.repeat(np.vstack([*heads, *rows])[..., None], 3, -1)

    def _least_alike(self, truth: Tensor, people: int) -> Tensor:
        """For each frame of a batch that of the same person which differs most where the face moves, int64 [B]."""
        pixels = self._pixels(self.moving) if self.moving.any() else truth.new_ones(truth.shape[1:])
        frames = (truth * pixels).flatten(1).unflatten(0, (people, -1))
        return _within(torch.cdist(frames, frames).argmax(2))

    def _with_codes(self, encoder: Encoder[Any], batch: UnlabelledBatch, other: Tensor) -> dict[str, Tensor]:
        """Reconstructions of views of which all that moves was removed: with own codes, with others, and with none."""
        truth, said = self._truth(batch), encoder(batch.frames, batch.anchors)
        none = Encoding(torch.zeros_like(said.expression), torch.zeros_like(said.gaze))
        codes = {"right": said, "other": Encoding(said.expression[other], said.gaze[other]), "zero": none}
        hidden = self._hidden(len(truth))
        return {
            name: self.reconstruct(truth, hidden, code, batch.person).float().clamp(0, 1)
            for name, code in codes.items()
        }

    def _truth(self, batch: UnlabelledBatch) -> Tensor:
        if batch.targets is None:
            raise DataError("There are no views to reconstruct.")
        return batch.targets.float() / 255

    def _draw_mask(self, count: int) -> Tensor:
        """Which patches are removed, bool [B, K, n, n]: as many in each view, drawn."""
        views, cells, _ = self.moving.shape
        removed = round(self.config.mask_ratio * cells * cells)
        order = torch.rand(count, views, cells * cells, device=self.moving.device).argsort(-1).argsort(-1)
        return (order < removed).view(count, views, cells, cells)

    def _hidden(self, count: int) -> Tensor:
        """A drawn mask, always the same one, and all that moves."""
        with torch.random.fork_rng(devices=[self.moving.device] if self.moving.is_cuda else []):
            torch.manual_seed(0)
            return self._draw_mask(count) | self.moving

    def _pixels(self, patches: Tensor) -> Tensor:
        """Patches [B, K, n, n] as pixels, float32 [B, K, S, S]."""
        patch = self.config.patch
        return patches.float().repeat_interleave(patch, -1).repeat_interleave(patch, -2)


class OriginalView(NovelView):
    """The same, but it is the tracking views that are reconstructed."""

    views: ClassVar[ViewRole | None] = "tracking"
    finder = "heatmap"


def _next(truth: Tensor, people: int) -> Tensor:
    """For each frame of a batch the next one of the same person, int64 [B]."""
    each = torch.arange(len(truth) // people, device=truth.device)
    return _within(each.roll(-1).expand(people, -1))


def _within(frames: Tensor) -> Tensor:
    """Numbers [U, n] of frames among a person's own as rows of the batch, [U n]."""
    people, each = frames.shape
    return (frames + each * torch.arange(people, device=frames.device)[:, None]).flatten()


def _tile(image: Tensor) -> np.ndarray:
    grey = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return np.asarray(cv2.resize(grey, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_LINEAR))


def _header(words: Iterable[tuple[str, int]], width: int) -> np.ndarray:
    """A strip uint8 [H, width] with words at places."""
    strip = np.zeros((_HEADER_PX, width), np.uint8)
    for text, left in words:
        cv2.putText(strip, text, (left + 2, _HEADER_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (230,), 1, cv2.LINE_AA)
    return strip
