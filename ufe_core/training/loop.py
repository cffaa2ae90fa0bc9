"""Encoders trained on the decoder losses (P§5): from the store if there, else now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ufe_core.errors import ArtifactError, DataError
from ufe_core.inputs import prepared
from ufe_core.instants import instants_of
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.encoder import Encoder, TrainingStatistics
from ufe_core.interfaces.source import HMCSource
from ufe_core.labels import labelled
from ufe_core.linear_probe import LinearProbe
from ufe_core.packed import PackedCapture, PackRequest, pack
from ufe_core.recipe import DEFAULT_ANCHORS, Recipe, subjects_digest, tracking_cameras
from ufe_core.splits import refuse_held_out
from ufe_core.store import Store, fingerprint, write_atomic
from ufe_core.training.critic import CodeCritic
from ufe_core.training.data import Batch, TrainingData, labels_of, statistics_of
from ufe_core.training.losses import DecoderLoss
from ufe_core.training.optimise import CHECKPOINT_EVERY_S, Optimisation
from ufe_core.training.pretrain import initialised, refuse_unfit
from ufe_core.training.processes import Processes
from ufe_core.training.progress import Counter, Listener, Progress
from ufe_core.training.runs import TIMING, seconds_beside, tell_wait, uses_bfloat16
from ufe_core.types import Encoding, Identity, Labels
from ufe_core.weights import difference, load_weights, save_weights, sha256_file, with_younger_options

_PROBED_BATCHES = 32  # of which the outputs of a frozen encoder are measured


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder ready to use, and where its weights came from.

    `record` says how it was trained: budget, options, subjects, device, and `seconds`, 0 where nothing tells.
    """

    encoder: Encoder[Any]
    sha256: str | None
    path: Path | None
    record: dict[str, Any]


def trained(
    recipe: Recipe, subjects: Sequence[str], *, store: Store, device: torch.device, fresh: bool = False,
    listener: Listener | None = None, checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    packed_anchors: Sequence[str] = DEFAULT_ANCHORS,
) -> TrainedEncoder:  # fmt: skip
    """The encoder of a recipe: from the store if it was trained before, else trained now or trained on.

    A run that was killed goes on from its last checkpoint and ends with the weights it would have had. Ctrl-C
    writes a checkpoint after the step that is under way; a second one leaves at once. Under `torchrun` its processes
    share every batch and take the steps that one would.

    Args:
        recipe: what to train.
        subjects: the training subjects; `recipe.training.people` of them, the first ones, are used.
        store: where captures, checkpoints and weights are kept.
        device: where to compute.
        fresh: train again from the first step, even if weights or a checkpoint are there.
        listener: told of progress.
        checkpoint_every_s: seconds between checkpoints.
        packed_anchors: what captures are packed with besides the recipe's anchors, so that other recipes read the
            same files; those that a source does not have are left out.

    Raises:
        ArtifactError: the weights in the store are damaged, or it cannot be written.
        DataError: a subject is held out, or a capture cannot train.
        ConfigError: a batch's people cannot be shared by the processes.
    """
    processes = Processes.join(device)
    tell: Listener = listener if listener is not None and processes.first else (lambda progress: None)
    source = recipe.make_source()
    subjects = list(subjects)[: recipe.training.people]
    refuse_held_out(recipe.source.spec.id, source, subjects)
    decoder = recipe.make_decoder(device)
    cameras = recipe.cameras(source, subjects[0])
    encoder = _place(recipe.make_encoder(cameras, decoder.code_space), device)
    if encoder.learns == "nothing":
        encoder.fingerprint = recipe.encoder.code
        return TrainedEncoder(encoder.eval(), None, None, {})
    key = recipe.key(source, subjects)
    file = store.path("weights", key) / "weights.safetensors"
    with store.lock("weights", key, on_wait=tell_wait) if processes.first else contextlib.nullcontext():
        if processes.agree(processes.first and (fresh or not file.is_file())):
            if processes.first:
                if fresh:
                    store.remove("training", key)
                store.remove("weights", key)  # a folder without its file would keep the new one out
            processes.wait()
            refuse_unfit(recipe, source, subjects[0])
            if encoder.learns == "statistics":
                statistics = label_statistics(recipe, source, subjects, decoder, store, tell, packed_anchors)
                encoder.fit_statistics(statistics)
                if processes.first:
                    _save(recipe, encoder, subjects, store, key, seconds=0.0, device=device, log=b"")
            else:
                run = _Run(recipe, encoder, decoder, store, key, device, tell, packed_anchors, processes)
                run.train(source, subjects, checkpoint_every_s)
        if processes.first:
            store.remove("training", key)
    processes.wait()
    return load_trained(recipe, file, cameras, decoder.code_space, device)


def load_trained(recipe: Recipe, file: Path, cameras: tuple[str, ...], code_space: Any, device: torch.device,
                 sha256: str | None = None) -> TrainedEncoder:  # fmt: skip
    """Load a weights file into the encoder that a recipe describes.

    Raises:
        ArtifactError: the file is damaged, or was made for other components, options, cameras or codes.
    """
    tensors, spec = load_weights(file, sha256=sha256)
    encoder = recipe.make_encoder(cameras, code_space)
    found = _with_younger_options(recipe, spec)
    for name, value in weights_spec(recipe, encoder).items():
        other = difference(name, found.get(name), value)
        if other is not None:
            raise ArtifactError(
                f"{file} was made with another {other}. Use the options it was made with, or train anew."
            )
    try:
        encoder.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        )
    except RuntimeError as error:
        raise ArtifactError(f"{file} does not fit {recipe.encoder.spec.id!r}: {str(error).splitlines()[-1]}") from error
    digest = sha256_file(file)
    encoder.fingerprint = fingerprint([digest, recipe.encoder.code, recipe.calibrator and recipe.calibrator.code])
    _place(encoder, device).eval()
    record = {"seconds": seconds_beside(file), **spec.get("training", {})}
    return TrainedEncoder(encoder, digest, file, record)


def _place(encoder: Encoder[Any], device: torch.device) -> Encoder[Any]:
    encoder.to(device).to(memory_format=torch.channels_last)
    return encoder


def weights_spec(recipe: Recipe, encoder: Encoder[Any]) -> dict[str, Any]:
    """What a weights file says of the encoder inside, besides its training record."""
    calibrator, detector, pretraining = recipe.calibrator, recipe.detector, recipe.pretraining
    return {
        "component": recipe.encoder.spec.id,
        "config": recipe.encoder.config.model_dump(mode="json"),
        "calibrator": calibrator
        and {"id": calibrator.spec.id, "config": calibrator.config.model_dump(mode="json")},
        **({"detector": {"id": detector.spec.id, "config": detector.options()}} if detector else {}),
        "decoder": recipe.decoder.spec.id,
        "code_space": {"name": encoder.code_space.name, "size": encoder.code_space.size},
        "cameras": list(encoder.needs.cameras), "size": encoder.needs.size,
        "anchors": list(encoder.needs.anchors),
        "pretraining": pretraining
        and {"id": pretraining.spec.id, "config": pretraining.options()},
        "update": "linear" if isinstance(encoder, LinearProbe) else None,
    }  # fmt: skip


def _with_younger_options(recipe: Recipe, spec: dict[str, Any]) -> dict[str, Any]:
    """What a file says of itself, with the defaults of options that are younger than it."""
    found: dict[str, Any] = dict(with_younger_options(spec, recipe.encoder))
    for name, chosen in (
        ("calibrator", recipe.calibrator), ("detector", recipe.detector), ("pretraining", recipe.pretraining),
    ):  # fmt: skip
        found[name] = with_younger_options(found.get(name), chosen)
    return found


def label_statistics(
    recipe: Recipe, source: HMCSource[Any], subjects: Sequence[str], decoder: Decoder[Any], store: Store,
    tell: Listener, packed_anchors: Sequence[str] = DEFAULT_ANCHORS,
) -> TrainingStatistics:  # fmt: skip
    """Labels of the frames and anchors that training would use; no pixel is read unless the decoder reads faces."""
    pairs = []
    if decoder.reads_texture:
        for packed in training_captures(recipe, source, subjects, decoder, store, tell, packed_anchors):
            pairs.append(labels_of(packed, recipe.anchors))
    else:
        request = _request(recipe, source, subjects, decoder, packed_anchors)
        for capture in source.captures(subjects):
            frames = instants_of(capture, request)
            labels = capture.labels([*frames, *(capture.anchors[name] for name in recipe.anchors)])
            if labels is None:
                raise DataError(f"Capture {capture.id!r} has no labels.")
            parts = [torch.from_numpy(value).split([len(frames), len(recipe.anchors)]) for value in
                     (labels.expression, labels.gaze)]  # fmt: skip
            pairs.append((Labels(parts[0][0], parts[1][0]), Labels(parts[0][1], parts[1][1])))
    return statistics_of(pairs, recipe.anchors)


class _Run:
    """One training run of an encoder."""

    def __init__(self, recipe: Recipe, encoder: Encoder[Any], decoder: Any, store: Store, key: str,
                 device: torch.device, tell: Listener, packed_anchors: Sequence[str],
                 processes: Processes) -> None:  # fmt: skip
        self.recipe, self.encoder, self.decoder = recipe, encoder, decoder
        self.store, self.key, self.device = store, key, device
        self.config = recipe.training
        self.tell, self.processes, self._packed_anchors = tell, processes, packed_anchors
        adversarial = self.config.adversarial > 0 and self.config.adversarial_from < self.config.steps
        self.critic = CodeCritic(decoder.code_space.size, self.config).to(device) if adversarial else None
        self.optimisation = Optimisation(
            encoder,
            [
                *encoder.parameter_groups(self.config.weight_decay),
                *(self.critic.groups() if self.critic is not None else ()),
            ],
            self.config, store.path("training", key) / "checkpoint.safetensors", component=recipe.encoder.spec.id,
            listener=self.tell, beside=self.critic, processes=processes,
        )  # fmt: skip

    def train(self, source: HMCSource[Any], subjects: Sequence[str], checkpoint_every_s: float) -> None:
        """Pack the data, restore the checkpoint if there is one, take the remaining steps, save."""
        device, optimisation, processes = self.device, self.optimisation, self.processes
        data = processes.in_turn(lambda: self._data(source, subjects))
        own = processes.share(data.users)
        texture, geometry = data.neutrals()
        identities = self.decoder.identity(texture.to(device), geometry.to(device))
        loss = DecoderLoss(self.decoder, self.config, device)
        true_geometry = self._true_geometry(loss, data, identities)
        if not optimisation.restore():
            statistics = self._initialise(data)
            if self.critic is not None:
                self.critic.fit_statistics(statistics.labels)
        bfloat16 = uses_bfloat16(self.config.precision, device)
        self.encoder.train()
        processes.share_statistics(self.encoder)

        def losses(whole: Batch) -> dict[str, Tensor]:
            batch = whole.part(own).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                encoding: Encoding = self.encoder(batch.frames, batch.anchors)
            identity = identities.rows(batch.subjects[batch.frames.users])
            geometry = None if true_geometry is None else true_geometry[batch.rows]
            terms = loss(encoding, batch.labels, identity, processes, geometry=geometry)
            if self.critic is not None:
                terms |= self._adversarial(self.critic, encoding, batch.labels)
                terms["total"] = terms["total"] + self.config.adversarial * terms["adversarial"] + terms["critic"]
            return terms

        batches = data.batches(optimisation.step, self.config.steps)
        optimisation.run(batches, losses, checkpoint_every_s=checkpoint_every_s)
        if processes.first:
            _save(
                self.recipe, self.encoder, subjects, self.store, self.key, seconds=optimisation.seconds,
                device=device, log=optimisation.log_csv(), first=optimisation.facts,
            )  # fmt: skip

    def _true_geometry(self, loss: DecoderLoss, data: TrainingData, identities: Identity) -> Tensor | None:
        labels, subjects = data.all_labels()
        return loss.true_geometry(
            labels.to(self.device), identities.rows(subjects.to(self.device)),
            progress=lambda done: self.tell(Progress("geometry", done, len(subjects), {})),
        )  # fmt: skip

    def _initialise(self, data: TrainingData) -> TrainingStatistics:
        """Give the encoder what its pre-training taught it, and what the statistics of the training people say."""
        recipe, probe = self.recipe, self.encoder if isinstance(self.encoder, LinearProbe) else None
        network = self.encoder if probe is None else probe.frozen
        self.optimisation.facts = self.processes.in_turn(
            lambda: initialised(recipe, network, store=self.store, device=self.device, listener=self.tell)
        )
        statistics = data.statistics()
        if recipe.learns_first:
            statistics = replace(statistics, images=())  # its first layers know what images look like
        self.encoder.fit_statistics(statistics)
        if probe is not None:
            network.fit_images(statistics.images)
            batches = (data.batch(step).to(self.device) for step in range(min(_PROBED_BATCHES, self.config.steps)))
            probe.fit_outputs((batch.frames, batch.anchors) for batch in batches)
        return statistics

    def _adversarial(self, critic: CodeCritic, encoding: Encoding, labels: Labels) -> dict[str, Tensor]:
        """The terms of L_disc; nothing before it joins in."""
        if self.optimisation.step < self.config.adversarial_from:
            nothing = encoding.expression.new_zeros(())
            return {"critic": nothing, "adversarial": nothing}
        return critic.losses(encoding.expression, labels.expression, self.processes)

    def _data(self, source: HMCSource[Any], subjects: Sequence[str]) -> TrainingData:
        cameras, anchors = self.encoder.needs.cameras, self.encoder.needs.anchors
        captures = training_captures(
            self.recipe, source, subjects, self.decoder, self.store, self.tell, self._packed_anchors
        )
        captures = prepared(
            captures, type(self.encoder), source, detector=self.recipe.detector, store=self.store, device=self.device,
            progress=lambda done: self.tell(Progress("keypoints", done, len(captures), {})),
        )  # fmt: skip
        return TrainingData(captures, cameras, anchors, self.config, moves_images=not self.encoder.uses_rig)


def training_captures(
    recipe: Recipe, source: HMCSource[Any], subjects: Sequence[str], decoder: Decoder[Any], store: Store,
    tell: Listener, packed_anchors: Sequence[str] = DEFAULT_ANCHORS,
) -> list[PackedCapture]:  # fmt: skip
    """Packed captures of the training subjects, labelled by the decoder.

    Some anchors are always packed, by default the default ones, so that methods with and without calibration read the
    same files.
    """
    request = _request(recipe, source, subjects, decoder, packed_anchors)
    count = Counter(lambda done: tell(Progress("data", done, len(subjects), {})))
    captures = pack(source, subjects, request, store=store, progress=count)
    return labelled(
        captures, source, decoder, store=store,
        progress=lambda done: tell(Progress("labels", done, len(subjects), {})),
    )  # fmt: skip


def _request(
    recipe: Recipe, source: HMCSource[Any], subjects: Sequence[str], decoder: Decoder[Any],
    packed_anchors: Sequence[str],
) -> PackRequest:  # fmt: skip
    config = recipe.training
    known = source.captures(subjects[:1])[0].anchors
    usual = (name for name in packed_anchors if name in known)
    return PackRequest(
        config.frames, config.size, tracking_cameras(source, subjects[0]),
        tuple(dict.fromkeys((*usual, *recipe.anchors))), texture=decoder.reads_texture,
        own_instants=config.own_instants,
    )  # fmt: skip


def _save(recipe: Recipe, encoder: Encoder[Any], subjects: Sequence[str], store: Store, key: str, *,
          seconds: float, device: torch.device, log: bytes, first: dict[str, Any] | None = None) -> None:  # fmt: skip
    record: dict[str, Any] = {
        "budget": recipe.budget, "config": recipe.training.model_dump(mode="json"), "subjects": len(subjects),
        "subjects_sha256": subjects_digest(subjects), "source": recipe.source.spec.id,
        "device": device.type, "torch": torch.__version__,
        "precision": "bfloat16" if uses_bfloat16(recipe.training.precision, device) else "float32",
    }  # fmt: skip
    if first:
        record["pretraining"] = first
    spec = {**weights_spec(recipe, encoder), "training": record}
    with store.building("weights", key) as folder:
        save_weights(folder / "weights.safetensors", encoder.state_dict(), spec)
        write_atomic(folder / "log.csv", log)
        write_atomic(folder / TIMING, json.dumps({"seconds": round(seconds, 1)}).encode())
