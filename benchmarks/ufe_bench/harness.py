"""The main job: resolve the components, find or make data and weights, evaluate, write the result."""

from __future__ import annotations

import datetime
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ufe_bench.evaluate import Stage, evaluate, measure_cost
from ufe_bench.schema import (
    Budget, ComponentRecord, Components, Data, Environment, MetricInfo, Result, RunKey, Split, TrainingRecord, Weights,
    load_result, make_result, result_path, run_id_of, write_result,
)  # fmt: skip
from ufe_bench.suite import Suite
from ufe_core import __version__
from ufe_core.errors import ArtifactError, DataError
from ufe_core.interfaces.metric import Metric
from ufe_core.packed import PackedCapture, PackRequest, pack
from ufe_core.plugins import Catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, Chosen, Recipe, choose, resolve_recipe, subjects_digest, tracking_cameras
from ufe_core.registry import ReleasedWeights, checkout_root, load_registry, packaged_file
from ufe_core.store import Store, fingerprint
from ufe_core.training.loop import Listener, Progress, TrainedEncoder, load_trained, trained


@dataclass(frozen=True)
class Request:
    """What a user asked `ufe bench` for. `train` leaves released weights aside; `fresh` trains again."""

    suite: Suite
    encoder: str = "univ"
    calibrator: str | None = None
    decoder: str = "blendshape"
    source: str = "synthetic"
    budget: str = "cpu"
    anchors: tuple[str, ...] = DEFAULT_ANCHORS
    overrides: Mapping[str, Mapping[str, Any]] | None = None
    train: bool = False
    fresh: bool = False

    def command(self, verb: str = "bench") -> str:
        """The command that asks for this, in canonical form."""
        words = ["ufe", verb, "--encoder", self.encoder]
        if self.calibrator:
            words += ["--calibrator", self.calibrator]
        defaults = {"decoder": "blendshape", "source": "synthetic", "budget": "cpu"}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                words += [f"--{name}", getattr(self, name)]
        if verb == "bench" and self.suite.name != "main":
            words += ["--suite", self.suite.name]
        if self.anchors != DEFAULT_ANCHORS:
            words += ["--anchors", ",".join(self.anchors)]
        for kind, fields in sorted((self.overrides or {}).items()):
            words += [word for k, v in sorted(fields.items()) for word in ("--set", f"{kind}.{k}={v}")]
        if verb == "bench" and self.train:
            words.append("--train")
        return shlex.join(words)


@dataclass(frozen=True)
class Outcome:
    """A finished run: its result and file, the floors' results, and what pictures need."""

    result: Result
    path: Path
    floors: list[Result]


class Harness:
    """Runs methods on one suite; test captures are packed once and shared by a method and its floors."""

    def __init__(self, catalogue: Catalogue, store: Store, results: Path, *, device: torch.device,
                 listener: Listener | None = None, note: Callable[[str], None] | None = None) -> None:  # fmt: skip
        self.catalogue, self.store, self.results, self.device = catalogue, store, results, device
        self.tell: Listener = listener or (lambda progress: None)
        self.note = note or (lambda text: None)
        self._packed: dict[PackRequest, list[PackedCapture]] = {}

    def run(self, request: Request, *, floors: bool = True) -> Outcome:
        """Run a method and, unless told not to, the suite's floors."""
        beside = [self._floor(request, name) for name in request.suite.floors] if floors else []
        already = next((floor for floor in beside if floor.key.components.encoder.id.endswith(f"/{request.encoder}")), None)
        if already is not None and request.calibrator is None and not request.overrides:
            return Outcome(already, result_path(already, self.results), beside)
        result = self._measure(request)
        return Outcome(result, write_result(result, self.results), beside)

    def _floor(self, request: Request, name: str) -> Result:
        """A floor's result on the same data, from its file if it was measured before."""
        training = {k: v for k, v in (request.overrides or {}).get("training", {}).items() if k in ("people", "frames", "size")}
        floor = replace(
            request, encoder=name, calibrator=None, train=False, fresh=False, anchors=DEFAULT_ANCHORS,
            overrides={"training": training} if training else None,
        )  # fmt: skip
        result = self._measure(floor, reuse=True)
        write_result(result, self.results)
        return result

    def _measure(self, request: Request, *, reuse: bool = False) -> Result:
        suite = request.suite
        recipe = resolve_recipe(
            self.catalogue, source=request.source, decoder=request.decoder, encoder=request.encoder,
            calibrator=request.calibrator, anchors=request.anchors, budget=request.budget, overrides=request.overrides,
        )  # fmt: skip
        registry = load_registry()
        people = registry.split(suite.split, suite.part)
        source = recipe.make_source()
        if registry.splits[suite.split].source != recipe.source.spec.id:
            raise DataError(
                f"Suite {suite.id!r} is measured on '{registry.splits[suite.split].source}', not on '{recipe.source.spec.id}'."
            )
        cameras = tracking_cameras(source, people[0])
        decoder = recipe.make_decoder().to(self.device)
        released = None if request.train or request.fresh else released_weights(recipe, request)
        encoder, weights = self._encoder(request, recipe, released, cameras, decoder.code_space, registry.split(suite.split, "train"))
        chosen = [choose(self.catalogue, "metric", name, request.budget, {}) for name in suite.metrics]
        metrics: dict[str, Metric[Any]] = {
            c.spec.name: c.spec.load()(c.config, topology=decoder.topology, face_mask=decoder.face_mask(suite.render_size).to(self.device)).to(self.device)
            for c in chosen
        }
        key = RunKey(
            suite=suite.id,
            split=Split(id=f"{suite.split}.{suite.part}", sha256=subjects_digest(people), subjects=len(people)),
            protocol=suite.protocol,
            seed=recipe.training.seed,
            components=Components(
                source=_record(recipe.source), decoder=_record(recipe.decoder), encoder=_record(recipe.encoder),
                calibrator=_record(recipe.calibrator) if recipe.calibrator else None,
                metrics=tuple(_record(c) for c in chosen),
            ),
            budget=_budget(recipe, encoder, released),
            weights=weights,
            data=Data(fingerprint=fingerprint([source.fingerprint, list(people), suite.frames]), frames=suite.frames, size=recipe.training.size),
        )  # fmt: skip
        if reuse:
            found = self._known(key)
            if found is not None:
                return found
        captures = self._captures(source, people, PackRequest(suite.frames, recipe.training.size, cameras, encoder.encoder.needs.anchors))
        stage = Stage(decoder, metrics, decoder.frontal_camera(suite.render_size), self.device)
        start, done = time.monotonic(), 0

        def progress(subject: str) -> None:
            nonlocal done
            done += 1
            self.tell(Progress(f"measuring {recipe.encoder.spec.name}", done, len(captures), {}))

        evaluation = evaluate(encoder.encoder, stage, captures, progress=progress)
        cost = measure_cost(encoder.encoder, captures[0], self.device)
        return make_result(
            key, evaluation.subjects,
            metrics={n: MetricInfo(label=m.label, unit=m.unit, higher_is_better=m.higher_is_better) for n, m in metrics.items()},
            cost=cost, environment=environment(), missing=evaluation.missing, training=_training(recipe, encoder),
            created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(time.monotonic() - start, 3), command=request.command(),
        )  # fmt: skip

    def _encoder(self, request: Request, recipe: Recipe, released: ReleasedWeights | None, cameras: tuple[str, ...],
                 code_space: Any, train_subjects: Sequence[str]) -> tuple[TrainedEncoder, Weights]:  # fmt: skip
        if released is not None:
            self.note(f"Using released weights {released.id}; --train makes them anew.")
            file = packaged_file(released.file)
            try:
                loaded = load_trained(recipe, file, cameras, code_space, self.device, sha256=released.sha256)
            except ArtifactError as error:
                raise ArtifactError(f"Released weights '{released.id}': {error} Or train your own with --train.") from error
            return loaded, Weights(sha256=loaded.sha256, origin="released", command=released.command)
        made = trained(recipe, train_subjects, store=self.store, device=self.device, fresh=request.fresh, listener=self.tell)
        if made.sha256 is None:
            return made, Weights(sha256=None, origin="none", command=None)
        return made, Weights(sha256=made.sha256, origin="trained", command=request.command("train"))

    def _captures(self, source: Any, people: Sequence[str], wanted: PackRequest) -> list[PackedCapture]:
        # Anchors are always packed, so that a method and its floors read the same files.
        request = replace(wanted, anchors=tuple(dict.fromkeys((*wanted.anchors, *DEFAULT_ANCHORS))))
        if request not in self._packed:
            ready = 0

            def count(subject: str) -> None:
                nonlocal ready
                ready += 1
                self.tell(Progress("test people", ready, len(people), {}))

            self._packed[request] = pack(source, people, request, store=self.store, progress=count)
        return self._packed[request]

    def _known(self, key: RunKey) -> Result | None:
        """A result of the same key that was written before, if it is sound."""
        for path in self.results.glob(f"{key.suite}/*/{run_id_of(key)}.json"):
            try:
                return load_result(path)
            except DataError:
                return None  # measured again and written over
        return None


def released_weights(recipe: Recipe, request: Request) -> ReleasedWeights | None:
    """The released weights of a recipe, if there are any for exactly these options."""
    if request.overrides or request.anchors != DEFAULT_ANCHORS or recipe.calibrator is None:
        return None
    for weights in load_registry().weights:
        wanted = (weights.component, weights.calibrator, weights.decoder, weights.budget)
        if wanted == (recipe.encoder.spec.id, recipe.calibrator.spec.id, recipe.decoder.spec.id, recipe.budget):
            return weights
    return None


def _record(chosen: Chosen) -> ComponentRecord:
    described = chosen.describe()
    return ComponentRecord(code_sha256=described.pop("code"), **described)


def _budget(recipe: Recipe, encoder: TrainedEncoder, released: ReleasedWeights | None) -> Budget:
    config = encoder.record.get("config", recipe.training.model_dump(mode="json"))
    if encoder.encoder.learns != "weights":
        return Budget(name="none", released=False, people=config["people"] if encoder.encoder.learns == "statistics" else 0,
                      frames=config["frames"] if encoder.encoder.learns == "statistics" else 0, size=config["size"], steps=0)  # fmt: skip
    overrides = {} if released else {k: v for k, v in recipe.overrides.items() if k != "seed"}
    sizes = {name: config[name] for name in ("people", "frames", "size", "steps")}
    return Budget(name=recipe.budget, released=released is not None, overrides=overrides, **sizes)  # type: ignore[arg-type]


def _training(recipe: Recipe, encoder: TrainedEncoder) -> TrainingRecord | None:
    record = encoder.record
    if not record:
        return None
    return TrainingRecord(
        subjects=record["subjects"], subjects_sha256=record["subjects_sha256"], seed=record["config"]["seed"],
        steps=record["config"]["steps"] if encoder.encoder.learns == "weights" else 0, seconds=record["seconds"],
        device=record["device"],
    )  # fmt: skip


def environment() -> Environment:
    """The machine, the packages, and the commit when run from a checkout."""
    commit, dirty = None, None
    root = checkout_root()
    if root is not None:
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = bool(status) if status is not None else None
    return Environment(
        python=platform.python_version(), torch=torch.__version__, ufe=__version__, platform=platform.platform(),
        cpu=_cpu(), commit=commit, dirty=dirty,
    )  # fmt: skip


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
