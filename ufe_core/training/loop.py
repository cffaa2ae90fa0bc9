"""The training loop: AdamW on the decoder losses, checkpoints, resume to the same bits (P§5, P§7.5)."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ufe_core.budgets import TrainingConfig
from ufe_core.errors import ArtifactError, DataError, UfeError
from ufe_core.interfaces.encoder import Encoder, TrainingStatistics
from ufe_core.interfaces.source import HMCSource
from ufe_core.packed import PackRequest, pack
from ufe_core.recipe import Recipe, subjects_digest, tracking_cameras
from ufe_core.registry import load_registry
from ufe_core.store import Store, write_atomic
from ufe_core.training.data import TrainingData
from ufe_core.training.losses import DecoderLoss
from ufe_core.types import Encoding, Labels
from ufe_core.weights import load_weights, save_weights, sha256_file

CHECKPOINT_EVERY_S = 30.0
_LOG_ROWS = 200
_TIMING = "timing.json"
_LOG_COLUMNS = ("step", "learning_rate", "total", "photometric", "geometry", "gaze")


@dataclass(frozen=True)
class Progress:
    """What a training run tells while it works.

    `stage` is `data` or `train`; `losses` are running means; `resumed_at` is where a run that goes on from a
    checkpoint began.
    """

    stage: str
    done: int
    total: int
    losses: dict[str, float]
    resumed_at: int = 0


Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder ready to use, and where its weights came from.

    `record` says how it was trained: budget, options, subjects, device, and `seconds`, 0 where nothing tells.
    """

    encoder: Encoder[Any]
    sha256: str | None
    path: Path | None
    record: dict[str, Any]


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or a GPU if there is one.

    Raises:
        UfeError: the device is not there, or there is none of that name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UfeError("No GPU is usable here (torch.cuda.is_available() is false). Use --device cpu.")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UfeError(f"There is no device {name!r}. Use auto, cpu, cuda or cuda:N.") from error


def uses_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    """Whether the networks run in bfloat16: by choice, else where the hardware has it."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return "avx512_bf16" in _cpu_flags() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def trained(
    recipe: Recipe, subjects: Sequence[str], *, store: Store, device: torch.device, fresh: bool = False,
    listener: Listener | None = None, checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> TrainedEncoder:  # fmt: skip
    """The encoder of a recipe: from the store if it was trained before, else trained now or trained on.

    A run that was killed goes on from its last checkpoint and ends with the weights it would have had. Ctrl-C
    writes a checkpoint after the step that is under way; a second one leaves at once.

    Args:
        recipe: what to train.
        subjects: the training subjects; `recipe.training.people` of them, the first ones, are used.
        store: where captures, checkpoints and weights are kept.
        device: where to compute.
        fresh: train again from the first step, even if weights or a checkpoint are there.
        listener: told of progress.
        checkpoint_every_s: seconds between checkpoints.

    Raises:
        ArtifactError: the weights in the store are damaged, or it cannot be written.
        DataError: a subject is held out by the registry, or a capture cannot train.
    """
    source = recipe.make_source()
    subjects = list(subjects)[: recipe.training.people]
    refuse_held_out(recipe.source.spec.id, subjects)
    decoder = recipe.make_decoder().to(device)
    cameras = tracking_cameras(source, subjects[0])
    encoder = _place(recipe.make_encoder(cameras, decoder.code_space), device)
    if encoder.learns == "nothing":
        encoder.fingerprint = recipe.encoder.code
        return TrainedEncoder(encoder.eval(), None, None, {})
    key = recipe.key(source, subjects)
    file = store.path("weights", key) / "weights.safetensors"
    with store.lock("weights", key, on_wait=_tell_wait):
        if fresh:
            store.remove("training", key)
        if fresh or not file.is_file():
            store.remove("weights", key)  # a folder without its file would keep the new one out
            if encoder.learns == "statistics":
                encoder.fit_statistics(label_statistics(source, subjects, recipe.training))
                _save(recipe, encoder, subjects, store, key, seconds=0.0, device=device, log=[])
            else:
                run = _Run(recipe, encoder, decoder, store, key, device, listener)
                run.train(source, subjects, checkpoint_every_s)
    return load_trained(recipe, file, cameras, decoder.code_space, device)


def load_trained(recipe: Recipe, file: Path, cameras: tuple[str, ...], code_space: Any, device: torch.device,
                 sha256: str | None = None) -> TrainedEncoder:  # fmt: skip
    """Load a weights file into the encoder that a recipe describes.

    Raises:
        ArtifactError: the file is damaged, or was made for other components, options, cameras or codes.
    """
    tensors, spec = load_weights(file, sha256=sha256)
    encoder = recipe.make_encoder(cameras, code_space)
    expected = weights_spec(recipe, encoder)
    for name, value in expected.items():
        if spec.get(name) != value:
            raise ArtifactError(
                f"{file} was made with another {name}: {spec.get(name)!r}, not {value!r}. Use the options it "
                "was made with, or train anew."
            )
    try:
        encoder.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        )
    except RuntimeError as error:
        raise ArtifactError(f"{file} does not fit {recipe.encoder.spec.id!r}: {str(error).splitlines()[-1]}") from error
    encoder.fingerprint = digest = sha256_file(file)
    _place(encoder, device).eval()
    record = {"seconds": _seconds_beside(file), **spec.get("training", {})}
    return TrainedEncoder(encoder, digest, file, record)


def _place(encoder: Encoder[Any], device: torch.device) -> Encoder[Any]:
    encoder.to(device).to(memory_format=torch.channels_last)
    return encoder


def _tell_wait(holder: str) -> None:
    logging.getLogger("ufe").warning("The same training is under way in %s; waiting for it.", holder)


def _seconds_beside(file: Path) -> float:
    """How long training took; kept beside the weights, whose bytes must not depend on it."""
    try:
        return float(json.loads((file.parent / _TIMING).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def weights_spec(recipe: Recipe, encoder: Encoder[Any]) -> dict[str, Any]:
    """What a weights file says of the encoder inside, besides its training record."""
    calibrator = recipe.calibrator
    return {
        "component": recipe.encoder.spec.id,
        "config": recipe.encoder.config.model_dump(mode="json"),
        "calibrator": calibrator
        and {"id": calibrator.spec.id, "config": calibrator.config.model_dump(mode="json")},
        "decoder": recipe.decoder.spec.id,
        "code_space": {"name": encoder.code_space.name, "size": encoder.code_space.size},
        "cameras": list(encoder.needs.cameras), "size": encoder.needs.size,
        "anchors": list(encoder.needs.anchors),
    }  # fmt: skip


def refuse_held_out(source_id: str, subjects: Sequence[str]) -> None:
    """Refuse to train on a subject that the registry holds out.

    Raises:
        DataError: names the subjects.
    """
    held_out = {s for split in load_registry().splits.values() if split.source == source_id for s in split.test}
    overlap = [subject for subject in subjects if subject in held_out]
    if overlap:
        raise DataError(f"Subjects {', '.join(overlap[:5])} are held out for testing: no training may read them.")


def label_statistics(source: HMCSource[Any], subjects: Sequence[str], config: TrainingConfig) -> TrainingStatistics:
    """Labels of the frames that training would use; no pixel is read."""
    expression, gaze = [], []
    for capture in source.captures(subjects):
        labels = capture.labels(capture.spread(config.frames, seed=0))
        if labels is None:
            raise DataError(f"Capture {capture.id!r} has no labels.")
        expression.append(torch.from_numpy(labels.expression))
        gaze.append(torch.from_numpy(labels.gaze))
    return TrainingStatistics(Labels(torch.cat(expression), torch.cat(gaze)), ())


class _Run:
    """One training run; everything that it keeps goes through its checkpoint."""

    def __init__(self, recipe: Recipe, encoder: Encoder[Any], decoder: Any, store: Store, key: str,
                 device: torch.device, listener: Listener | None) -> None:  # fmt: skip
        self.recipe, self.encoder, self.decoder = recipe, encoder, decoder
        self.store, self.key, self.device = store, key, device
        self.config = recipe.training
        self.tell: Listener = (lambda progress: None) if listener is None else listener
        self.checkpoint = store.path("training", key) / "checkpoint.safetensors"
        groups = encoder.parameter_groups(self.config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.98))
        self.log: list[list[float]] = []
        self.running: dict[str, float] = {}
        self.seconds = 0.0

    def train(self, source: HMCSource[Any], subjects: Sequence[str], checkpoint_every_s: float) -> None:
        """Pack the data, restore the checkpoint if there is one, take the remaining steps, save."""
        config, device = self.config, self.device
        data = self._data(source, subjects)
        texture, geometry = data.neutrals()
        identities = self.decoder.identity(texture.to(device), geometry.to(device))
        loss = DecoderLoss(self.decoder, config, device)
        if not self._restore():
            self.encoder.fit_statistics(data.statistics())
        bfloat16 = uses_bfloat16(config, device)
        self.encoder.train()
        started = saved = time.monotonic()
        before = self.seconds
        with contextlib.closing(data.batches(self._step, config.steps)) as batches, _Interrupt() as interrupt:
            for step, cpu_batch in batches:
                batch = cpu_batch.to(device)
                torch.manual_seed((config.seed * config.steps + step) % 2**63)
                rate = learning_rate(config, step)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    encoding: Encoding = self.encoder(batch.frames, batch.anchors)
                terms = loss(encoding, batch.labels, identities.rows(batch.subjects[batch.frames.users]))
                self.optimizer.zero_grad()
                terms.total.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip_norm)
                if not bool(torch.isfinite(norm)):
                    raise UfeError(
                        f"Training diverged at step {step}: the gradient is not finite. "
                        "Try --set training.learning_rate= with a smaller value."
                    )
                self.optimizer.step()
                self._record(step, rate, terms.values())
                self.tell(Progress("train", step + 1, config.steps, dict(self.running), self._step))
                now = time.monotonic()
                last = step + 1 == config.steps
                if (interrupt.asked or now - saved >= checkpoint_every_s) and not last:
                    self.seconds = before + now - started
                    self._save_checkpoint(step + 1)
                    saved = now
                if interrupt.asked and not last:
                    raise KeyboardInterrupt
        self.seconds = before + time.monotonic() - started
        _save(
            self.recipe,
            self.encoder,
            subjects,
            self.store,
            self.key,
            seconds=self.seconds,
            device=device,
            log=self.log,
        )
        self.store.remove("training", self.key)

    def _data(self, source: HMCSource[Any], subjects: Sequence[str]) -> TrainingData:
        cameras, anchors = self.encoder.needs.cameras, self.encoder.needs.anchors
        request = PackRequest(self.config.frames, self.config.size, cameras, anchors)
        ready: list[str] = []
        lock = threading.Lock()

        def count(subject: str) -> None:
            with lock:
                ready.append(subject)
                self.tell(Progress("data", len(ready), len(subjects), {}))

        captures = pack(source, subjects, request, store=self.store, progress=count)
        return TrainingData(captures, cameras, anchors, self.config)

    def _record(self, step: int, rate: float, values: dict[str, float]) -> None:
        running, steps = self.running, self.config.steps
        for name, value in values.items():
            running[name] = value if name not in running else 0.95 * running[name] + 0.05 * value
        if (step + 1) % max(1, steps // _LOG_ROWS) == 0 or step + 1 == steps:
            self.log.append([step + 1, rate, *(running[name] for name in _LOG_COLUMNS[2:])])

    def _save_checkpoint(self, step: int) -> None:
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in self.encoder.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        spec = {
            "component": self.recipe.encoder.spec.id, "config": {}, "step": step, "log": self.log,
            "running": self.running, "seconds": self.seconds,
        }  # fmt: skip
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_weights(self.checkpoint, tensors, spec)

    def _restore(self) -> bool:
        """Go on from the checkpoint; False if there is none. A damaged one is named and left behind."""
        self._step = 0
        if not self.checkpoint.is_file():
            return False
        try:
            tensors, spec = load_weights(self.checkpoint)
        except ArtifactError as error:
            logging.getLogger("ufe").warning("%s Training starts from the beginning.", error)
            return False
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.encoder.load_state_dict(model)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, field = name.split(".")
                parameter = parameters[int(index)]
                # The moments must lie in memory as their parameter does: another order may round otherwise.
                placed = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                state.setdefault(int(index), {})[field] = placed
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self._step, self.seconds = int(spec["step"]), float(spec["seconds"])
        self.log, self.running = [list(row) for row in spec["log"]], dict(spec["running"])
        return True


class _Interrupt:
    """Holds Ctrl-C back until the step is done, so that no checkpoint has half of one; a second goes through.

    Only the main thread is told of Ctrl-C, so in any other this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate (P§7.5, P§13.3 O26)."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    part = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.final_rate + (config.learning_rate - config.final_rate) * 0.5 * (1 + math.cos(math.pi * part))


def _save(recipe: Recipe, encoder: Encoder[Any], subjects: Sequence[str], store: Store, key: str, *,
          seconds: float, device: torch.device, log: list[list[float]]) -> None:  # fmt: skip
    record = {
        "budget": recipe.budget, "config": recipe.training.model_dump(mode="json"), "subjects": len(subjects),
        "subjects_sha256": subjects_digest(subjects), "source": recipe.source.spec.id,
        "device": device.type, "torch": torch.__version__,
    }  # fmt: skip
    spec = {**weights_spec(recipe, encoder), "training": record}
    with store.building("weights", key) as folder:
        save_weights(folder / "weights.safetensors", encoder.state_dict(), spec)
        text = io.StringIO()
        csv.writer(text).writerows([_LOG_COLUMNS, *log])
        write_atomic(folder / "log.csv", text.getvalue().encode())
        write_atomic(folder / _TIMING, json.dumps({"seconds": round(seconds, 1)}).encode())
