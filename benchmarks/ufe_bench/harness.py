"""The main job: resolve the components, find or make data and weights, evaluate, write the result."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ufe_bench.enrolment import Enrolment
from ufe_bench.evaluate import PROTOCOL, Evaluation, Material, Stage, count_parameters, evaluate, measure_cost
from ufe_bench.failure import Failure, forget_failure, is_the_methods, record_failure
from ufe_bench.material import MaterialStore
from ufe_bench.provenance import budget_record, environment_record, options_apart, training_record
from ufe_bench.request import Request
from ufe_bench.resolve import Setup, floor_request, resolve
from ufe_bench.schema import (
    Components,
    Data,
    MetricInfo,
    Result,
    RunKey,
    Split,
    Weights,
    load_result,
    make_result,
    result_path,
    run_id_of,
    write_result,
)
from ufe_bench.suite import Suite
from ufe_core.errors import ArtifactError, ConfigError, DataError, MethodError, cause_of
from ufe_core.interfaces.encoder import Encoder
from ufe_core.plugins import Catalogue
from ufe_core.recipe import Chosen, Recipe, subjects_digest
from ufe_core.registry import ReleasedWeights, packaged_file
from ufe_core.registry import Split as PeopleSplit
from ufe_core.store import Store
from ufe_core.training.loop import TrainedEncoder, load_trained, trained
from ufe_core.training.progress import Listener, Progress

_FIRST = "setting up"
_STAGES = {"data": "rendering training people", "domes": "rendering the dome", "headset captures": "rendering captures",
           "labels": "labelling", "geometry": "decoding labels", "keypoints": "finding keypoints", "train": "training",
           "views": "warping views", "pretrain": "pre-training", "people": "getting to know people",
           "figures": "drawing figures", "timing": "timing rows in turn"}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A finished run: its result and file, the floors' results, and the file of weights that were trained for it.

    `failed` are the floors that have none, with the cause.
    """

    result: Result
    path: Path
    floors: list[Result]
    weights: Path | None = None
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What a result of a request says of itself, as far as it is known before.

    `people` are those of its split, `unlabelled` those whom a pre-training in steps learns from; `learns` is what the
    encoder says of itself; `hypothetical` whether it is given what no headset could measure; `released` the released
    weights that it would be measured with; `apart` the training options that set it apart from its budget.
    """

    split: Split
    people: PeopleSplit
    unlabelled: tuple[str, ...] | None
    seed: int
    components: Components
    data: Data
    metrics: Mapping[str, MetricInfo]
    learns: str
    hypothetical: bool
    released: ReleasedWeights | None
    apart: Mapping[str, Any]


@dataclass(frozen=True)
class Again:
    """A request measured anew: the key it would be kept by, its errors, and how many parameters the method has."""

    key: RunKey
    evaluation: Evaluation
    parameters: int


@dataclass(frozen=True)
class Ready:
    """A method as it is measured: its encoder, trained, the stage, what people are measured on, and their anchors.

    `detector` finds the keypoints that the encoder is given, where it is given some.
    """

    encoder: Encoder[Any]
    stage: Stage
    material: Material
    enrolment: Enrolment
    detector: Chosen | None


class Harness:
    """Runs methods; the test captures are packed once and shared by a method and its floors.

    Args:
        catalogue: the installed components.
        store: where captures and weights are kept.
        results: folder of result files.
        device: where to compute.
        listener: told of progress: packing, training, measuring.
        note: told one-line facts worth knowing.

    `doing` is what is being done, in words.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        results: Path,
        *,
        device: torch.device,
        listener: Listener | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.catalogue, self.store, self.results, self.device = catalogue, store, results, device
        self.doing = _FIRST
        self.listener = listener
        self.note = note or (lambda text: None)
        self._material = MaterialStore(catalogue, store, device, self.tell)

    def tell(self, progress: Progress) -> None:
        """Tell the listener, and remember what is being done."""
        self.doing = _in_words(progress.stage)
        if self.listener is not None:
            self.listener(progress)

    def run(self, request: Request, *, floors: bool = True, reuse: bool = False) -> Outcome:
        """Run a method and, unless told not to, its suite's floors; `reuse` takes a result that is there already.

        A method that fails leaves a record of it among the results, until its command has made one.

        Raises:
            UfeError: a component, an option, the data or the weights are not usable; says which and what to do.
            MethodError: the method failed, whatever it raised.
        """
        with self.its_failures(request, recorded=True):
            outcome = self._run(request, floors=floors, reuse=reuse)
        forget_failure(self.results, request.suite.id, request.method, request.command())
        return outcome

    @contextmanager
    def its_failures(self, request: Request, doing: str = _FIRST, *, recorded: bool = False) -> Iterator[None]:
        """Whatever a method raises becomes one error that says what was being done, recorded among the results or not.

        Raises:
            MethodError: the method failed, whatever it raised.
        """
        self.doing = doing
        try:
            yield
        except (Exception, SystemExit) as error:
            if not is_the_methods(error):
                raise
            text = f"{request.method} failed while {self.doing}: {cause_of(error)}"
            if recorded:
                self.record(request.suite, request.method, request.command(), error)
            raise MethodError(text) from error

    def _run(self, request: Request, *, floors: bool, reuse: bool) -> Outcome:
        setup = self.checked(request)
        failed: dict[str, str] = {}
        beside = self.floors(request, failed) if floors else []
        for floor in beside:
            is_it = floor.key.components.encoder.id == setup.recipe.encoder.spec.id
            if is_it and request == floor_request(request, request.encoder):
                return Outcome(floor, result_path(floor, self.results), beside, failed=failed)
        result, weights = self._measure(setup, reuse=reuse and not request.fresh)
        return Outcome(result, write_result(result, self.results), beside, weights, failed)

    def checked(self, request: Request) -> Setup:
        """What a request means; an encoder is made of its options and weights, and nothing rendered or trained.

        Raises:
            UfeError: a component, an option, an anchor, the weights or the split is not usable; says which and what
                to do.
        """
        setup = resolve(self.catalogue, request, self.device)
        if request.weights is not None:
            self._given(setup, request.weights)
        else:
            setup.recipe.make_encoder(setup.cameras, setup.decoder.code_space)
        return setup

    def ready(self, request: Request) -> Ready:
        """What `run` measures, for a closer look; what was made before is taken from the store.

        Raises:
            UfeError: a component, an option, the data or the weights are not usable; says which and what to do.
            MethodError: the method failed, whatever it raised.
        """
        with self.its_failures(request):
            setup = resolve(self.catalogue, replace(request, fresh=False), self.device)
            encoder, _ = self._encoder(setup, setup.released())
            return self._ready(setup, encoder.encoder)

    def again(
        self, request: Request, people: Sequence[str] | None = None, *, weights_file: Path | None = None
    ) -> Again:
        """Measure a request anew, all of its people or some, and write nothing.

        Weights come from `weights_file`, else they are the released ones, else those trained here, else trained now.

        Raises:
            UfeError: a component, an option, the data or the weights are not usable; says which and what to do.
            MethodError: the method failed, whatever it raised.
        """
        with self.its_failures(request):
            return self._again(request, people, weights_file)

    def _again(self, request: Request, people: Sequence[str] | None, weights_file: Path | None) -> Again:
        setup = resolve(self.catalogue, request, self.device)
        released = setup.released()
        if weights_file is None:
            encoder, weights = self._encoder(setup, released)
        else:
            encoder = load_trained(setup.recipe, weights_file, setup.cameras, setup.decoder.code_space, self.device)
            weights = Weights(sha256=encoder.sha256, origin="trained", command=request.training_command())
            if released is not None and released.sha256 == encoder.sha256:
                weights = Weights(sha256=encoder.sha256, origin="released", command=released.command)
        ready = self._ready(setup, encoder.encoder)
        total = len(setup.people if people is None else people)
        evaluation = evaluate(
            ready.encoder, ready.stage, ready.material, enrolment=request.enrolment, people=people,
            progress=lambda done: self.tell(Progress("measuring again", done, total, {})),
        )  # fmt: skip
        detector = setup.recipe.detector
        finder = detector.spec.load()(detector.config) if detector is not None else None
        parameters = count_parameters(ready.encoder, finder)
        return Again(_key(setup, encoder, weights), evaluation, parameters)

    def described(self, request: Request) -> Description:
        """What a request's result would say of itself before anything is rendered, trained or measured."""
        setup = resolve(self.catalogue, request, self.device)
        encoder = setup.recipe.encoder.spec.load()
        released = setup.released()
        return Description(
            split=setup.measured_people(),
            people=setup.split,
            unlabelled=setup.recipe.unlabelled()[1] if setup.recipe.learns_first else None,
            seed=setup.recipe.training.seed,
            components=setup.components(),
            data=setup.data(),
            metrics=setup.metric_infos(),
            learns=encoder.learns,
            hypothetical="exact_mesh" in encoder.inputs,
            released=released,
            apart={} if released is not None else options_apart(setup.recipe, request.tuned),
        )

    def record(self, suite: Suite, method: str, command: str, error: BaseException) -> None:
        """Keep among the results why a method has none, and what was being done."""
        failure = Failure(
            suite=suite.id, method=method, stage=self.doing, cause=cause_of(error), command=command,
            created=now(),
        )  # fmt: skip
        record_failure(failure, self.results)

    def _ready(self, setup: Setup, encoder: Encoder[Any]) -> Ready:
        material = self._material.material(setup, encoder)
        return Ready(
            encoder, self._material.stage(setup), material, setup.request.enrolment, setup.recipe.detector
        )  # fmt: skip

    def floors(self, request: Request, failed: dict[str, str] | None = None) -> list[Result]:
        """The results of the suite's floors on the data of a request.

        One that fails is recorded and the others go on; `failed` is told of it.
        """
        found = []
        for name in request.suite.floors:
            try:
                found.append(self._floor(request, name))
            except (Exception, SystemExit) as error:  # whatever a plugin does
                if not is_the_methods(error):
                    raise
                self.record(request.suite, name, floor_request(request, name).command(), error)
                if failed is not None:
                    failed[name] = cause_of(error)
        return found

    def _floor(self, request: Request, name: str) -> Result:
        """A floor's result on the same data, from its file if it was measured before."""
        floor = floor_request(request, name)
        result, _ = self._measure(resolve(self.catalogue, floor, self.device), reuse=True)
        write_result(result, self.results)
        forget_failure(self.results, request.suite.id, name, floor.command())
        return result

    def _measure(self, setup: Setup, *, reuse: bool = False) -> tuple[Result, Path | None]:
        """The result, and the file of the weights where they were trained and not released."""
        self.doing, request = _FIRST, setup.request
        encoder, weights = self._encoder(setup, setup.released())
        file = encoder.path if weights.origin == "trained" else None
        key = _key(setup, encoder, weights)
        found = self._known(key) if reuse else None
        if found is not None:
            return found, file
        ready = self._ready(setup, encoder.encoder)
        start = time.monotonic()
        name, people = f"measuring {setup.recipe.encoder.spec.name}", len(setup.people)
        evaluation = evaluate(
            ready.encoder, ready.stage, ready.material, enrolment=request.enrolment,
            progress=lambda done: self.tell(Progress(name, done, people, {})),
        )  # fmt: skip
        hypothetical = "exact_mesh" in ready.encoder.inputs
        measured = {subject.id for subject in evaluation.subjects}
        sound = next((capture for capture in ready.material.captures if capture.subject in measured), None)
        if sound is None:
            raise MethodError(f"it failed on every person: {evaluation.missing[0].reason}")
        cost = measure_cost(ready.encoder, sound, self.device, detector=setup.recipe.detector)
        result = make_result(
            key,
            evaluation.subjects,
            metrics=setup.metric_infos(),
            cost=cost.model_copy(update={"encode_ms": None}) if hypothetical else cost,
            environment=environment_record(key.components.parts),
            missing=evaluation.missing,
            training=training_record(encoder),
            trials=request.trials,
            segments=evaluation.segments,
            hypothetical=hypothetical,
            created=now(),
            seconds=round(time.monotonic() - start, 3),
            command=request.command(),
        )
        return result, file

    def _encoder(self, setup: Setup, released: ReleasedWeights | None) -> tuple[TrainedEncoder, Weights]:
        request, recipe = setup.request, setup.recipe
        if request.weights is not None:
            made = self._given(setup, request.weights)
            return made, Weights(sha256=made.sha256, origin="trained", command=request.training_command())
        if released is not None:
            if request.encoder not in request.suite.floors:
                self.note(f"Using released weights {released.id}; --train makes your own.")
            file = packaged_file(released.file)
            try:
                loaded = load_trained(
                    recipe, file, setup.cameras, setup.decoder.code_space, self.device, sha256=released.sha256
                )
            except ArtifactError as error:
                raise ArtifactError(
                    f"Released weights '{released.id}' cannot be used. {error} Install ufe again, or give --train."
                ) from error
            return loaded, Weights(sha256=loaded.sha256, origin="released", command=released.command)
        subjects = setup.split.part("train")
        made = trained(recipe, subjects, store=self.store, device=self.device, fresh=request.fresh, listener=self.tell)
        if made.sha256 is None:
            return made, Weights(sha256=None, origin="none", command=None)
        return made, Weights(sha256=made.sha256, origin="trained", command=request.training_command())

    def _given(self, setup: Setup, file: Path) -> TrainedEncoder:
        """The encoder of a file of weights."""
        made = load_trained(setup.recipe, file, setup.cameras, setup.decoder.code_space, self.device)
        _refuse_another_training(file, made, setup.recipe, setup.split.part("train"))
        return made

    def _known(self, key: RunKey) -> Result | None:
        """A sound and whole result of the same key that was written before."""
        for path in self.results.glob(f"{key.suite}/*/{run_id_of(key)}.json"):
            try:
                found = load_result(path)
            except DataError:
                return None  # it is measured again and written over
            return found if found.complete else None
        return None


def _key(setup: Setup, encoder: TrainedEncoder, weights: Weights) -> RunKey:
    suite, recipe = setup.request.suite, setup.recipe
    return RunKey(
        suite=suite.id,
        split=setup.measured_people(),
        protocol=PROTOCOL,
        seed=recipe.training.seed,
        components=setup.components(),
        budget=budget_record(recipe, encoder, released=weights.origin == "released", tuned=setup.request.tuned),
        weights=weights,
        data=setup.data(),
    )


def _refuse_another_training(file: Path, made: TrainedEncoder, recipe: Recipe, people: Sequence[str]) -> None:
    """Refuse weights that the options which a result would tell of do not make.

    Raises:
        ConfigError: they were trained with other options, on other people or not at all.
    """
    told = made.record.get("config")
    if told is None:
        raise ConfigError(f"'{file}' does not say how it was trained; only files of 'ufe train --out' do.")
    if made.record.get("source") != recipe.source.spec.id:
        raise ConfigError(f"'{file}' was trained on '{made.record.get('source')}', not on '{recipe.source.spec.id}'.")
    asked = recipe.training.model_dump(mode="json")
    other = {name: value for name, value in told.items() if asked.get(name, value) != value}
    if other:
        words = " ".join(f"--set training.{name}={json.dumps(value)}" for name, value in sorted(other.items()))
        raise ConfigError(f"'{file}' was trained with other options than are asked for: give {words}")
    if made.record["subjects_sha256"] != subjects_digest(people[: made.record["subjects"]]):
        raise ConfigError(f"'{file}' was trained on other people than the split's.")


def _in_words(stage: str) -> str:
    """What is done in a stage of which progress is told, as in 'it failed while ...'."""
    what, of, whose = stage.partition(" of ")
    if of and what in _STAGES:
        return f"{_STAGES[what]} of {whose}"
    return _STAGES.get(stage, stage if stage.startswith("measuring") else f"rendering {stage}")


def now() -> str:
    """The time, UTC, as results tell it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
