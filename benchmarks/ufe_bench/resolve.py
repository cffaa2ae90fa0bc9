"""What measuring a request needs, resolved: recipe, source, people, avatar and metrics; and what a key says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ufe_bench.provenance import component_record
from ufe_bench.request import Request
from ufe_bench.schema import Components, Data, MetricInfo, Split
from ufe_core.config import did_you_mean
from ufe_core.errors import DataError, RegistryError
from ufe_core.interfaces.decoder import Decoder
from ufe_core.interfaces.source import HMCSource
from ufe_core.plugins import Catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, Chosen, Recipe, choose, resolve_recipe, subjects_digest
from ufe_core.registry import ReleasedWeights, load_registry
from ufe_core.registry import Split as PeopleSplit
from ufe_core.released import released_for
from ufe_core.splits import find_split
from ufe_core.store import code_fingerprint, fingerprint

#: Training options that decide the frames a floor is measured on, or what `mean` is the mean of.
_DATA_OPTIONS = ("people", "frames", "own_instants", "size")


@dataclass(frozen=True)
class Setup:
    """A request, resolved: `people` are measured, through `cameras`."""

    request: Request
    recipe: Recipe
    source: HMCSource[Any]
    split: PeopleSplit
    decoder: Decoder[Any]
    people: tuple[str, ...]
    cameras: tuple[str, ...]
    metrics: tuple[Chosen, ...]

    def metric_infos(self) -> dict[str, MetricInfo]:
        """How each metric is printed, and which way is better."""
        kinds = {chosen.spec.name: chosen.spec.load() for chosen in self.metrics}
        return {
            name: MetricInfo(
                label=kind.label, unit=kind.unit, higher_is_better=kind.higher_is_better, temporal=kind.temporal
            )
            for name, kind in kinds.items()
        }

    def components(self) -> Components:
        """What a key says of the components."""
        recipe = self.recipe
        return Components(
            source=component_record(recipe.source),
            decoder=component_record(recipe.decoder),
            encoder=component_record(recipe.encoder),
            calibrator=component_record(recipe.calibrator) if recipe.calibrator else None,
            detector=component_record(recipe.detector) if recipe.detector else None,
            pretraining=component_record(recipe.pretraining) if recipe.pretraining else None,
            view_detector=component_record(recipe.view_detector) if recipe.view_detector else None,
            metrics=tuple(component_record(chosen) for chosen in self.metrics),
        )

    def measured_people(self) -> Split:
        """What a key says of the people who are measured."""
        suite, people = self.request.suite, self.people
        return Split(id=f"{suite.split}.{suite.part}", sha256=subjects_digest(people), subjects=len(people))

    def data(self) -> Data:
        """What a key says of the captures."""
        request, suite = self.request, self.request.suite
        asked = [suite.frames, suite.clips, suite.clip_frames, suite.conditions, suite.condition_frames]
        more = asked[1:] if suite.clips or suite.conditions else []
        more += [suite.condition_clips] if suite.condition_clips else []
        made_by = [self.source.fingerprint, code_fingerprint("ufe_core.instants")]
        return Data(
            fingerprint=fingerprint([*made_by, list(self.people), suite.frames, *more]),
            version=self.recipe.source.spec.data_version, frames=suite.frames, size=self.recipe.training.size,
            enrolment=request.enrolment,
            anchors=self.recipe.anchors if request.anchors != DEFAULT_ANCHORS else None,
            render_size=suite.render_size if suite.is_own else None,
        )  # fmt: skip

    def released(self) -> ReleasedWeights | None:
        """The released weights of the request: there are some, it changes no option, and asks for no training."""
        request = self.request
        changed = request.overrides or request.anchors != DEFAULT_ANCHORS
        if changed or request.train or request.fresh or request.weights is not None:
            return None
        return released_for(self.recipe)


def resolve(catalogue: Catalogue, request: Request, device: torch.device) -> Setup:
    """Find out all that a request means, before any long work.

    Raises:
        UfeError: a component, an option, an anchor or the split is not usable; says which and what to do.
    """
    suite = request.suite
    recipe = resolve_recipe(
        catalogue, source=request.source, decoder=request.decoder, encoder=request.encoder,
        calibrator=request.calibrator, detector=request.detector, pretraining=request.pretraining,
        anchors=request.anchors, budget=request.budget, overrides=request.options,
    )  # fmt: skip
    home, source = recipe.source.spec.id, recipe.make_source()
    split = find_split(suite.split, home, source)
    people = split.part(suite.part)
    if set(people) & set(split.train):
        raise RegistryError(
            f"Suite {suite.id!r} measures '{suite.split}.{suite.part}', people that methods are trained on: give "
            "it another part, such as 'test'."
        )
    known = source.captures([people[0]])[0].anchors
    for anchor in recipe.anchors:
        if anchor not in known:
            hint = did_you_mean(anchor, [*known, *load_registry().anchor_sets])
            raise DataError(f"There is no anchor {anchor!r}.{hint} '{home}' has {', '.join(known)}.")
    metrics = tuple(choose(catalogue, "metric", name, request.budget, {}) for name in suite.metrics)
    by_name = {chosen.spec.name: chosen.spec.id for chosen in metrics}
    for chosen in metrics:
        if by_name[chosen.spec.name] != chosen.spec.id:
            raise RegistryError(
                f"Suite {suite.id!r} has '{chosen.spec.id}' and '{by_name[chosen.spec.name]}': results tell metrics by "
                "their short names. Leave one out, or give yours another name."
            )
    decoder = recipe.make_decoder(device)
    return Setup(request, recipe, source, split, decoder, people, recipe.cameras(source, people[0]), metrics)


def floor_request(request: Request, name: str) -> Request:
    """What measures a floor on the data of a request: its people, source and avatar, and nothing of its method."""
    given = request.overrides or {}
    kept = {kind: given[kind] for kind in ("source", "decoder") if kind in given}
    training = given.get("training", {})
    of_row = request.suite.row(request.row).set.get("training", {}) if request.row is not None else {}
    sizes = {option: training[option] for option in _DATA_OPTIONS if option in training and option not in of_row}
    if sizes:
        kept["training"] = sizes
    return replace(
        request, encoder=name, calibrator=None, detector=None, pretraining=None, anchors=DEFAULT_ANCHORS,
        enrolment="own",
        row=None, train=False, fresh=False, weights=None, tuned={}, trials=(), overrides=kept or None,
    )  # fmt: skip
