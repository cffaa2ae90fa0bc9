"""What people are measured on: their captures as a suite asks for them, and the stage on which avatars are driven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ufe_bench.evaluate import Material, Stage
from ufe_bench.resolve import Setup
from ufe_core.inputs import prepared
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.encoder import Encoder
from ufe_core.interfaces.source import HMCSource
from ufe_core.labels import labelled
from ufe_core.packed import PackedCapture, PackRequest, pack
from ufe_core.plugins import Catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, Chosen
from ufe_core.store import Store, fingerprint
from ufe_core.training.progress import Counter, Listener, Progress


class MaterialStore:
    """Packs the captures of measured people once, and keeps stages: a method and its floors share both.

    Args:
        catalogue: the installed components.
        store: where captures are kept.
        device: where to compute.
        tell: told of progress.
    """

    def __init__(self, catalogue: Catalogue, store: Store, device: torch.device, tell: Listener) -> None:
        self.catalogue, self.store, self.device, self.tell = catalogue, store, device, tell
        self._packed: dict[tuple[PackRequest, tuple[str, ...], str, str], list[PackedCapture]] = {}
        self._stages: dict[str, Stage] = {}

    def material(self, setup: Setup, encoder: Encoder[Any]) -> Material:
        """The captures that a suite asks for, with what the encoder is given besides images."""
        suite, needs, kind = setup.request.suite, encoder.needs, type(encoder)
        texture = setup.decoder.reads_texture
        wanted = PackRequest(suite.frames, needs.size, needs.cameras, needs.anchors, texture=texture)
        (live,) = setup.source.captures(setup.people[:1])
        fewer = replace(wanted, frames=suite.condition_frames)
        under = {name: self._under(setup, name) for name in suite.conditions}

        def clips(count: int) -> PackRequest:
            return replace(wanted, frames=count * suite.clip_frames, clip=suite.clip_frames)

        return Material(
            self._captures(setup, setup.source, wanted, kind, "test people"),
            self._captures(setup, setup.source, clips(suite.clips), kind, "clips of speech") if suite.clips else (),
            suite.clip_frames,
            {
                name: self._captures(setup, source, fewer, kind, f"test people, {name}")
                for name, source in under.items()
            },
            {
                name: self._captures(setup, source, clips(suite.condition_clips), kind, f"clips of speech, {name}")
                for name, source in under.items() if suite.condition_clips
            },
            {segment.name: segment.kind for segment in live.segments},
        )  # fmt: skip

    def stage(self, setup: Setup) -> Stage:
        """The stage of a suite, which keeps the truth."""
        size, metrics = setup.request.suite.render_size, [chosen.describe() for chosen in setup.metrics]
        key = fingerprint([setup.recipe.decoder.describe(), metrics, size])
        if key not in self._stages:
            self._stages[key] = stage_of(setup.decoder, setup.metrics, size, self.device)
        return self._stages[key]

    def _under(self, setup: Setup, condition: str) -> HMCSource[Any]:
        chosen = setup.recipe.source
        options = {**chosen.config.model_dump(mode="json"), "condition": condition}
        source: HMCSource[Any] = self.catalogue.create("source", chosen.spec.id, options)
        return source

    def _captures(
        self, setup: Setup, source: HMCSource[Any], wanted: PackRequest, encoder: type[Encoder[Any]], whose: str
    ) -> list[PackedCapture]:
        # The default anchors that there are are always packed, so that a method and its floors read the same files.
        there = source.captures(setup.people[:1])[0].anchors
        usual = [name for name in DEFAULT_ANCHORS if name in there]
        request = replace(wanted, anchors=tuple(dict.fromkeys((*wanted.anchors, *usual))))
        known = (request, setup.people, source.fingerprint, setup.decoder.code_space.name)
        total = len(setup.people)
        if known not in self._packed:
            count = Counter(lambda done: self.tell(Progress(whose, done, total, {})))
            captures = pack(source, setup.people, request, store=self.store, progress=count)
            self._packed[known] = labelled(
                captures, source, setup.decoder, store=self.store,
                progress=lambda done: self.tell(Progress(f"labels of {whose}", done, total, {})),
            )  # fmt: skip
        return prepared(
            self._packed[known], encoder, source, detector=setup.recipe.detector, store=self.store, device=self.device,
            progress=lambda done: self.tell(Progress(f"keypoints of {whose}", done, total, {})),
        )  # fmt: skip


def stage_of(decoder: Decoder[Any], metrics: Sequence[Chosen], render_size: int, device: torch.device) -> Stage:
    """A decoder in front of its frontal camera, rendered at `render_size` pixels, and metrics by name."""
    mask = decoder.face_mask(render_size).to(device)
    made = {
        chosen.spec.name: chosen.spec.load()(chosen.config, topology=decoder.topology, face_mask=mask)
        for chosen in metrics
    }
    return Stage(decoder, made, decoder.frontal_camera(render_size), mask, device)
