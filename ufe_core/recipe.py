"""A recipe: the components, options and budget that decide a trained encoder, and its key in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufe_core.budgets import RELEASED, TRAINED, PretrainingConfig, TrainingConfig, budget_defaults
from ufe_core.components import ComponentSpec
from ufe_core.config import ComponentConfig, build_config
from ufe_core.errors import ConfigError, PluginError
from ufe_core.plugins import Catalogue
from ufe_core.store import canonical_json, code_fingerprint, fingerprint

if TYPE_CHECKING:
    import torch

    from ufe_core.interfaces.decoder import Decoder
    from ufe_core.interfaces.encoder import Encoder, EncoderNeeds
    from ufe_core.interfaces.source import HMCSource
    from ufe_core.types import CameraSpec, CodeSpace

#: P§13.2, O13; the order is fixed across subjects.
DEFAULT_ANCHORS = ("neutral", "jaw_open", "eyes_wide", "eyes_closed", "cheek_puff", "brows_lowered")

#: Whose options `--set KIND.OPTION=VALUE` may change in a recipe.
OWNERS = ("source", "decoder", "encoder", "calibrator", "detector", "pretraining", "training")

#: What is meant where nothing is said.
DEFAULT_ENCODER, DEFAULT_DECODER, DEFAULT_DETECTOR = "univ", "upm", "heatmap"

_TRAINING_CODE = (
    "ufe_core.inputs", "ufe_core.instants", "ufe_core.interfaces.encoder", "ufe_core.labels",
    "ufe_core.training.augment", "ufe_core.training.critic", "ufe_core.training.data", "ufe_core.training.loop",
    "ufe_core.training.losses", "ufe_core.training.optimise", "ufe_core.training.processes",
)  # fmt: skip
_PROBE_CODE = ("ufe_core.linear_probe",)
_START_CODE = ("ufe_core.training.pretrain",)  # what an encoder takes over from its pre-training
_PRETRAINING_CODE = (
    "ufe_core.headset_only", "ufe_core.inputs", "ufe_core.instants", "ufe_core.interfaces.encoder",
    "ufe_core.interfaces.pretraining", "ufe_core.training.augment", "ufe_core.training.kept_views",
    "ufe_core.training.optimise", "ufe_core.training.pretrain", "ufe_core.training.rows",
    "ufe_core.training.unlabelled", "ufe_core.training.unlabelled_people",
)  # fmt: skip
_DECODERS: dict[str, Decoder[Any]] = {}  # the last ones that were made, by what decides them
_DECODERS_KEPT = 2


@dataclass(frozen=True)
class Chosen:
    """A component with its resolved options and where it comes from."""

    spec: ComponentSpec
    config: ComponentConfig
    distribution: str
    version: str

    @property
    def code(self) -> str:
        """Fingerprint of the source code that decides what the component computes."""
        factory = self.spec.load()
        own = self.spec.target.partition(":")[0]
        return code_fingerprint(*sorted({own, *getattr(factory, "code_modules", ())}))

    def describe(self) -> dict[str, Any]:
        """What a key and a result file say of the component."""
        return {
            "id": self.spec.id, "dist": self.distribution, "version": self.version,
            "config": self.options(), "code": self.code,
        }  # fmt: skip

    def options(self) -> dict[str, Any]:
        """Its options, and which weights they stand for."""
        options = self.config.model_dump(mode="json")
        factory = self.spec.load()
        weights_of = getattr(factory, "weights_sha256", None)
        sha256 = weights_of(self.config) if weights_of is not None else None
        return options if sha256 is None else {**options, getattr(factory, "weights_option", "weights"): sha256}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a trained encoder, but the training subjects."""

    source: Chosen
    decoder: Chosen
    encoder: Chosen
    calibrator: Chosen | None
    detector: Chosen | None
    anchors: tuple[str, ...]
    budget: str
    training: TrainingConfig
    overrides: Mapping[str, Any]
    pretraining: Chosen | None = None
    view_detector: Chosen | None = None

    def describe(self) -> dict[str, Any]:
        """What decides the weights, as JSON values."""
        probe = _PROBE_CODE if self.training.update == "linear" else ()
        start = _START_CODE if self.pretraining is not None else ()
        return {
            "decoder": self.decoder.describe(), "encoder": self.encoder.describe(),
            "calibrator": self.calibrator.describe() if self.calibrator else None,
            "detector": self.detector.describe() if self.detector else None,
            "source": self.source.describe(), "anchors": list(self.anchors),
            "training": self.training.model_dump(mode="json"),
            "code": code_fingerprint(*_TRAINING_CODE, *probe, *start),
            **self.describe_pretraining(),
        }  # fmt: skip

    def describe_pretraining(self) -> dict[str, Any]:
        """What decides the pre-training, as JSON values; nothing where there is none."""
        if self.pretraining is None:
            return {}
        finder = self.view_detector
        return {"pretraining": self.pretraining.describe(), "view_detector": finder and finder.describe()}

    def key(self, source: HMCSource[Any], subjects: Sequence[str]) -> str:
        """Store key of the weights that this recipe gives on these subjects."""
        facts = {**self.describe(), "data": source.fingerprint, "subjects": list(subjects)}
        if self.pretraining is not None and self.learns_first:
            facts["pretrained"] = self.pretraining_key()
        return fingerprint(facts)

    @property
    def learns_first(self) -> bool:
        """Whether the encoder is pre-trained in steps."""
        return self.pretraining is not None and self.pretraining.spec.load().learns == "steps"

    @property
    def given_weights(self) -> Path | None:
        """The file of the pre-trained encoder, where one is given instead of a training."""
        named = (
            getattr(self.pretraining.config, "weights", TRAINED) if self.learns_first and self.pretraining else TRAINED
        )
        return Path(named).expanduser() if named != TRAINED else None

    def pretraining_facts(self) -> dict[str, Any]:
        """What a file of the pre-training's weights says of the components inside."""
        assert self.pretraining is not None, "there is no pre-training"
        calibrator = self.calibrator
        return {
            "component": self.pretraining.spec.id,
            "encoder": {"id": self.encoder.spec.id, "config": self.encoder.config.model_dump(mode="json")},
            "calibrator": calibrator
            and {"id": calibrator.spec.id, "config": calibrator.config.model_dump(mode="json")},
            "anchors": list(self.anchors), "size": self.training.size,
        }  # fmt: skip

    def pretraining_key(self) -> str:
        """Store key of the weights that the recipe's pre-training gives."""
        given = self.given_weights
        if given is not None:
            from ufe_core.weights import sha256_file

            return fingerprint({"pretrained": sha256_file(given)})
        return fingerprint(self.pretrained_from())

    def pretrained_from(self) -> dict[str, Any]:
        """What decides the weights of the recipe's pre-training, as JSON values: neither labels nor the avatar."""
        source, people = self.unlabelled()
        cameras = tracking_cameras(source, people[0])
        return {
            "encoder": self.encoder.describe(), "calibrator": self.calibrator and self.calibrator.describe(),
            "anchors": list(self.anchors), "cameras": list(cameras), "size": self.training.size,
            "code_space": self.make_decoder().code_space.size,
            "code": code_fingerprint(*_PRETRAINING_CODE), "data": source.fingerprint,
            "people": subjects_digest(people), **self.describe_pretraining(),
        }  # fmt: skip

    def unlabelled(self) -> tuple[HMCSource[Any], tuple[str, ...]]:
        """What pre-training reads: a source that gives nothing but headset images, and whose.

        Raises:
            DataError: the source has nobody to pre-train on.
        """
        assert self.pretraining is not None, "there is no pre-training"
        return unlabelled_people(self.source, getattr(self.pretraining.config, "people", 1))

    def make_source(self) -> HMCSource[Any]:
        """The source."""
        source: HMCSource[Any] = self.source.spec.load()(self.source.config)
        return source

    def make_decoder(self, device: torch.device | str = "cpu") -> Decoder[Any]:
        """The decoder, frozen, on a device: one for all who ask in this process, since building one takes a while."""
        key = canonical_json([self.decoder.describe(), str(device)])
        if key not in _DECODERS:
            made: Decoder[Any] = self.decoder.spec.load()(self.decoder.config)
            while len(_DECODERS) >= _DECODERS_KEPT:
                _DECODERS.pop(next(iter(_DECODERS)))
            _DECODERS[key] = made.eval().requires_grad_(False).to(device)
        return _DECODERS[key]

    def cameras(self, source: HMCSource[Any], subject: str) -> tuple[str, ...]:
        """Names of the tracking cameras, which the encoder sees, in order.

        Raises:
            ConfigError: the encoder takes cameras in other places.
        """
        cameras = _tracking(source, subject)
        wanted, found = self.encoder.spec.load().camera_places, tuple((one.region, one.side) for one in cameras)
        if wanted is not None and found != wanted:
            takes, has = (", ".join(f"{side} {region}" for region, side in places) for places in (wanted, found))
            raise ConfigError(
                f"Encoder '{self.encoder.spec.id}' takes tracking cameras {takes}; those of this source are {has}. "
                "Choose another --encoder, or another headset."
            )
        return tuple(camera.name for camera in cameras)

    def make_encoder(self, cameras: tuple[str, ...], code_space: CodeSpace) -> Encoder[Any]:
        """The encoder, untrained, or where linear probing is asked for, one frozen and what is to be trained on it.

        Raises:
            ConfigError: the encoder takes no calibrator but one was chosen, or the other way round.
        """
        encoder = self.make_network(cameras, code_space)
        if self.training.update == "full":
            return encoder
        from ufe_core.linear_probe import LinearProbe

        return LinearProbe(encoder)

    def make_network(
        self, cameras: tuple[str, ...], code_space: CodeSpace, *, seed: int | None = None
    ) -> Encoder[Any]:  # fmt: skip
        """The encoder itself, untrained; its initial weights depend on the seed alone: the training's unless given.

        Raises:
            ConfigError: the encoder takes no calibrator but one was chosen, or the other way round.
        """
        import torch

        torch.manual_seed(self.training.seed if seed is None else seed)
        factory = self.encoder.spec.load()
        context: dict[str, Any] = {"needs": self.needs(cameras), "code_space": code_space}
        if factory.calibrated:
            if self.calibrator is None:
                raise ConfigError(f"Encoder '{self.encoder.spec.id}' needs a calibrator: give --calibrator.")
            from ufe_core.interfaces.calibrator import CalibratorFactory

            context["calibrator"] = CalibratorFactory(self.calibrator.spec.load(), self.calibrator.config)
        if self.detector is not None:
            context["keypoints"] = self.detector.spec.load()(self.detector.config).keypoints
        if factory.uses_rig:
            source = self.make_source()
            (capture,) = source.captures(source.subjects()[:1])
            context["rig"] = tuple(
                capture.camera(name).resized(self.training.size, self.training.size) for name in cameras
            )
        encoder: Encoder[Any] = factory(self.encoder.config, **context)
        return encoder

    def needs(self, cameras: tuple[str, ...]) -> EncoderNeeds:
        """What the encoder is given under this recipe."""
        from ufe_core.interfaces.encoder import EncoderNeeds

        return EncoderNeeds(cameras, self.training.size, self.anchors)


def tracking_cameras(source: HMCSource[Any], subject: str) -> tuple[str, ...]:
    """Names of the tracking cameras, in order; the only ones an encoder may see."""
    return tuple(camera.name for camera in _tracking(source, subject))


def _tracking(source: HMCSource[Any], subject: str) -> tuple[CameraSpec, ...]:
    capture = source.captures([subject])[0]
    return tuple(camera for camera in capture.cameras if camera.role == "tracking")


def choose(catalogue: Catalogue, kind: str, name: str, budget: str, overrides: Mapping[str, Any]) -> Chosen:
    """Resolve a component's options: defaults, then the budget's presets, then overrides."""
    spec = catalogue.get(kind, name)
    config = build_config(spec.config, {**spec.presets.get(budget, {}), **overrides}, owner=spec.id, kind=kind)
    origin = catalogue.provenance(spec)
    return Chosen(spec, config, origin.distribution, origin.version)


def resolve_recipe(
    catalogue: Catalogue, *, source: str = "synthetic", decoder: str = DEFAULT_DECODER,
    encoder: str = DEFAULT_ENCODER, calibrator: str | None = None, anchors: Sequence[str] = DEFAULT_ANCHORS,
    detector: str | None = None, pretraining: str | None = None, budget: str = "cpu",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:  # fmt: skip
    """Turn names and `--set` overrides into a recipe; no `calibrator` or `detector` means the usual one, if any.

    No `pretraining` means none. The detector is the encoder's, or, of one that takes no keypoints, the pre-training's.

    Raises:
        UnknownComponentError: a name is not registered.
        ConfigError: an option is unknown, its value not allowed, or its component not in the recipe.
        ArtifactError: pre-trained weights that are named are missing, damaged or of another method.
    """
    extra = dict(overrides or {})
    unknown = sorted(set(extra) - set(OWNERS))
    if unknown:
        raise ConfigError(f"--set knows {', '.join(OWNERS)}; not {unknown[0]!r}.")
    chosen = {
        kind: choose(catalogue, kind, name, budget, extra.get(kind, {}))
        for kind, name in (("source", source), ("decoder", decoder), ("encoder", encoder))
    }
    factory = chosen["encoder"].spec.load()
    fusion: Chosen | None = None
    if factory.calibrated:
        fusion = choose(catalogue, "calibrator", calibrator or "late_fusion", budget, extra.get("calibrator", {}))
    elif calibrator is not None or "calibrator" in extra:
        raise ConfigError(f"Encoder '{chosen['encoder'].spec.id}' takes no calibrator: leave --calibrator out.")
    first = _pretraining(
        catalogue, pretraining, chosen["encoder"], budget, extra.get("pretraining", {}),
        seed=extra.get("training", {}).get("seed", 0),
    )  # fmt: skip
    takes_keypoints = "keypoints" in factory.inputs
    usual = DEFAULT_DETECTOR if takes_keypoints else _view_detector(first)
    finder: Chosen | None = None
    if usual is not None:
        finder = choose(catalogue, "detector", detector or usual, budget, extra.get("detector", {}))
    elif detector is not None or "detector" in extra:
        raise ConfigError(f"Encoder '{chosen['encoder'].spec.id}' takes no keypoints here: leave --detector out.")
    uses_anchors = fusion.spec.load().uses_anchors if fusion is not None else factory.uses_anchors
    given = _anchors_for(chosen["encoder"].spec.id, factory.reads_anchors, anchors) if uses_anchors else ()
    changed = dict(extra.get("training", {}))
    training = build_config(TrainingConfig, {**budget_defaults(budget), **changed}, owner="training")
    if training.update == "linear" and (factory.learns != "weights" or factory.inputs != ("images",)):
        raise ConfigError(
            f"Encoder '{chosen['encoder'].spec.id}' cannot be probed: it does not learn from images alone. Leave "
            "training.update out."
        )
    recipe = Recipe(
        chosen["source"], chosen["decoder"], chosen["encoder"], fusion, finder if takes_keypoints else None, given,
        budget, training, changed, first, None if takes_keypoints else finder,
    )  # fmt: skip
    if first is None or getattr(first.config, "weights", TRAINED) != RELEASED:
        return recipe
    as_usual = choose(catalogue, "source", source, budget, {}) == chosen["source"] and (
        usual is None or choose(catalogue, "detector", usual, budget, {}) == finder
    )
    from ufe_core.pretrained_file import options_in, released_file

    file = released_file(recipe, extra.get("pretraining", {})) if as_usual else None
    config = options_in(file, first) if file else first.config.model_copy(update={"weights": TRAINED})
    return replace(recipe, pretraining=replace(first, config=config))


def _pretraining(
    catalogue: Catalogue, name: str | None, encoder: Chosen, budget: str, overrides: Mapping[str, Any], *, seed: int
) -> Chosen | None:
    """What goes before training; None where nothing does. Its seed is the training's unless one is given."""
    if name is None and overrides:
        raise ConfigError(
            f"There is no pre-training: give --pretraining, or leave pretraining.{next(iter(overrides))} out."
        )
    chosen = choose(catalogue, "pretraining", name or "none", budget, overrides)
    factory, learner = chosen.spec.load(), encoder.spec.load()
    if factory.learns == "nothing":
        return None
    if learner.learns != "weights" or learner.inputs != ("images",) or learner.uses_rig:
        raise ConfigError(
            f"Encoder '{encoder.spec.id}' cannot be pre-trained: it does not learn from images alone. Leave "
            "--pretraining out."
        )
    if factory.learns != "steps":
        return chosen
    if not isinstance(chosen.config, PretrainingConfig):
        raise PluginError(
            f"Pre-training '{chosen.spec.id}' learns in steps, and its options do not derive from PretrainingConfig."
        )
    if chosen.config.weights not in (TRAINED, RELEASED):
        from ufe_core.pretrained_file import options_in

        return replace(chosen, config=options_in(Path(chosen.config.weights).expanduser(), chosen, overrides))
    return chosen if "seed" in overrides else replace(chosen, config=chosen.config.model_copy(update={"seed": seed}))


def _view_detector(pretraining: Chosen | None) -> str | None:
    """Name of the detector that finds keypoints in what a pre-training reconstructs, where it needs one."""
    return None if pretraining is None else pretraining.spec.load().detector(pretraining.config)


def _anchors_for(encoder: str, reads: Sequence[str] | None, anchors: Sequence[str]) -> tuple[str, ...]:
    """Which of the anchors an encoder is given: those that it reads, or all."""
    missing = [name for name in reads or () if name not in anchors]
    if missing:
        raise ConfigError(
            f"Encoder '{encoder}' needs the anchor {missing[0]!r}: give --anchors {','.join(reads or ())}."
        )
    return tuple(anchors if reads is None else reads)


def training_subjects(source: Chosen) -> tuple[str, ...]:
    """The training part of the source's split; every subject of a source that has none.

    Raises:
        DataError: all its people are held out.
    """
    from ufe_core.splits import training_people

    return training_people(source.spec.id, source.spec.load()(source.config))


def unlabelled_people(chosen: Chosen, count: int) -> tuple[HMCSource[Any], tuple[str, ...]]:
    """Up to `count` people for pre-training, and a source that gives nothing but their headset images.

    They are those that the registry sets aside for it; of a source without such, all that it does not hold out.

    Raises:
        DataError: there is nobody.
    """
    from ufe_core.errors import DataError
    from ufe_core.headset_only import HeadsetOnly
    from ufe_core.splits import held_out_people, splits_of

    factory = chosen.spec.load()
    source: HMCSource[Any] = factory(chosen.config)
    for split in splits_of(chosen.spec.id, source).values():
        if split.unlabelled is not None:
            people, options = split.unlabelled.people(count)
            config = build_config(
                chosen.spec.config, {**chosen.config.model_dump(), **options}, owner=chosen.spec.id
            )  # fmt: skip
            return HeadsetOnly(factory(config)), people
    held_out = held_out_people(chosen.spec.id, source)
    rest = tuple(subject for subject in source.subjects() if subject not in held_out)[:count]
    if not rest:
        raise DataError(f"Source '{chosen.spec.id}' has nobody to pre-train on: all its people are held out.")
    return HeadsetOnly(source), rest


def subjects_digest(subjects: Sequence[str]) -> str:
    """sha256 of a list of subjects, one a line."""
    return hashlib.sha256("\n".join(subjects).encode()).hexdigest()
