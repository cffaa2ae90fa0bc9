from dataclasses import replace
from types import SimpleNamespace

import pytest

from ufe_core.budgets import TrainingConfig, budget_defaults, describe_budget
from ufe_core.errors import ConfigError, UnknownComponentError
from ufe_core.names import BUDGETS
from ufe_core.plugins import catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, Recipe, resolve_recipe, subjects_digest
from ufe_core.registry import load_registry
from ufe_core.types import CodeSpace

PEOPLE = ("S000", "S002")
CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")


def recipe(**options) -> Recipe:
    return resolve_recipe(catalogue(), **{"budget": "smoke", "decoder": "blendshape", **options})


def key(options, *, fingerprint="f" * 64, subjects=PEOPLE):
    return recipe(**options).key(SimpleNamespace(fingerprint=fingerprint), subjects)


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_sets_sizes_and_presets(budget):
    made = recipe(budget=budget)
    assert made.training == TrainingConfig(**budget_defaults(budget))
    spec = catalogue().get("encoder", "univ")
    for name, value in spec.presets.get(budget, {}).items():
        assert getattr(made.encoder.config, name) == value
    sizes = made.training
    assert f"{sizes.people} people x {sizes.frames} frames" in describe_budget(budget)
    assert f"{sizes.steps:,} steps" in describe_budget(budget)


def test_budgets_grow():
    steps = [recipe(budget=name).training.steps for name in BUDGETS]
    assert steps == sorted(steps) and len(set(steps)) == 4
    assert all(recipe(budget=name).training.people == 234 for name in BUDGETS[1:])


def test_a_wrong_budget_is_refused():
    with pytest.raises(ConfigError, match="No budget 'laptop'; there are smoke, cpu, gpu, paper"):
        recipe(budget="laptop")


def test_overrides_win_over_presets_and_budgets():
    made = recipe(overrides={"encoder": {"backbone": "resnet18"}, "training": {"steps": 5}})
    assert made.encoder.config.backbone == "resnet18" and made.training.steps == 5
    assert made.training.people == budget_defaults("smoke")["people"]


def test_an_unknown_option_is_answered_with_the_right_ones():
    with pytest.raises(ConfigError) as error:
        recipe(overrides={"training": {"stepz": 5}})
    assert "'stepz'" in str(error.value) and "Did you mean 'steps'?" in str(error.value)
    for name in TrainingConfig.model_fields:
        assert name in str(error.value)
    with pytest.raises(ConfigError, match="'backbones' is not known to 'ufe/univ'.*backbone, .*gaze_width"):
        recipe(overrides={"encoder": {"backbones": "x"}})
    with pytest.raises(ConfigError, match="'steps' of 'training' is 0; expected integer >= 1"):
        recipe(overrides={"training": {"steps": 0}})


def test_an_unknown_kind_is_answered_with_the_right_ones():
    with pytest.raises(
        ConfigError, match="source, decoder, encoder, calibrator, detector, pretraining, training; not 'metric'"
    ):
        recipe(overrides={"metric": {"x": 1}})


@pytest.mark.parametrize(
    "options", [{"calibrator": "late_fusion"}, {"calibrator": "none"}, {"overrides": {"calibrator": {}}}]
)
def test_a_calibrator_on_an_encoder_that_takes_none_is_refused(options):
    with pytest.raises(ConfigError, match="Encoder 'ufe/mean' takes no calibrator: leave --calibrator out"):
        recipe(encoder="mean", **options)


def test_unknown_components_are_answered_with_the_nearest():
    with pytest.raises(UnknownComponentError, match="univ"):
        recipe(encoder="unvi")
    with pytest.raises(UnknownComponentError, match="late_fusion"):
        recipe(calibrator="late-fusion")


def test_anchors_are_kept_only_where_they_are_used():
    assert recipe().anchors == DEFAULT_ANCHORS and recipe().calibrator.spec.id == "ufe/late_fusion"
    assert recipe(anchors=["neutral"]).anchors == ("neutral",)
    assert recipe(calibrator="none").anchors == ()
    assert recipe(encoder="mean").anchors == () and recipe(encoder="mean").calibrator is None


def test_equal_recipes_have_equal_keys():
    assert key({}) == key({})
    spelt_out = {
        "encoder": "ufe/univ", "decoder": "ufe/blendshape", "source": "ufe/synthetic", "calibrator": "ufe/late_fusion",
        "anchors": list(DEFAULT_ANCHORS), "overrides": {"training": {"steps": budget_defaults("smoke")["steps"]}},
    }  # fmt: skip
    assert key(spelt_out) == key({})
    assert key({"calibrator": "none"}) == key({"calibrator": "none", "anchors": ["jaw_open"]})


INGREDIENTS = [
    ({"calibrator": "none"}, {}),
    ({"encoder": "mean"}, {}),
    ({"anchors": DEFAULT_ANCHORS[:2]}, {}),
    ({"anchors": DEFAULT_ANCHORS[::-1]}, {}),
    ({"overrides": {"encoder": {"fuse_width": 64}}}, {}),
    ({"overrides": {"training": {"seed": 1}}}, {}),
    ({"overrides": {"training": {"steps": 13}}}, {}),
    ({"overrides": {"source": {"condition": "dim"}}}, {}),
    ({"overrides": {"source": {"headset": "ava256"}}}, {}),
    ({"budget": "cpu"}, {}),
    ({}, {"fingerprint": "e" * 64}),
    ({}, {"subjects": PEOPLE[:1]}),
    ({}, {"subjects": PEOPLE[::-1]}),
]


def test_the_key_changes_with_every_ingredient():
    keys = [key({}), *(key(options, **data) for options, data in INGREDIENTS)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "module",
    [
        "ufe_universal.backbone",
        "ufe_core.training.loop",
        "ufe_core.instants",
        "ufe_avatar.blendshape",
        "ufe_calibrators.late_fusion",
    ],
)
def test_the_key_changes_with_the_code(module, monkeypatch):
    from ufe_core import recipe as recipe_module

    before = key({})
    original = recipe_module.code_fingerprint
    monkeypatch.setattr(
        recipe_module, "code_fingerprint", lambda *names: original(*names) + ("changed" if module in names else "")
    )
    assert key({}) != before


def test_a_headset_whose_cameras_sit_elsewhere_is_refused_by_who_would_mistake_them(monkeypatch):
    source = recipe().make_source()
    assert recipe().cameras(source, "S000") == CAMERAS
    (capture,) = source.captures(["S000"])
    places = [("upper", "left"), ("upper", "right"), ("upper", "centre"), ("lower", "centre")]
    capture.cameras = tuple(
        replace(camera, region=region, side=side)
        for camera, (region, side) in zip(capture.cameras, places, strict=False)
    )
    monkeypatch.setattr(source, "captures", lambda subjects: [capture])
    told = (
        "takes tracking cameras left upper, right upper, left lower, right lower; those of this source are left upper, "
    )
    with pytest.raises(ConfigError, match=told + "right upper, centre upper, centre lower"):
        recipe().cameras(source, "S000")
    assert recipe(encoder="mean").cameras(source, "S000") == CAMERAS


def test_whatever_is_made_of_frames_is_keyed_by_the_code_that_takes_them(monkeypatch):
    from ufe_core import packed, packed_dome
    from ufe_core import recipe as recipe_module
    from ufe_core.training import components

    first = recipe(pretraining="simclr")
    detector = components.resolve_component_recipe(catalogue(), "detector", "heatmap")
    source = first.make_source()
    capture, (dome,) = source.captures(["S000"])[0], source.dome(["S000"])

    def keys():
        return [
            first.pretraining_key(), detector.key(source, ["S000"]),
            packed.pack_key(source, capture, packed.PackRequest(4, 32, ("left_eye",), ())),
            packed_dome.dome_key(source, dome, packed_dome.DomeRequest(4, 2, 32, 16, 16)),
        ]  # fmt: skip

    before, original = keys(), recipe_module.code_fingerprint
    for module in (packed, packed_dome, recipe_module, components):
        monkeypatch.setattr(
            module, "code_fingerprint", lambda *names: original(*names) + "changed" * ("ufe_core.instants" in names)
        )
    assert all(one != other for one, other in zip(before, keys(), strict=True))


def test_initial_weights_depend_on_the_seed_alone():
    import torch

    def weights(**training):
        torch.rand(3)  # whatever was drawn before
        encoder = recipe(overrides={"training": training}).make_encoder(CAMERAS, CodeSpace("test", 5))
        return torch.cat([value.flatten().float() for value in encoder.state_dict().values()])

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights(seed=1))


def test_the_digest_of_subjects_is_of_their_order_too():
    assert subjects_digest(["a", "b"]) != subjects_digest(["b", "a"])
    assert subjects_digest(["a", "b"]) != subjects_digest(["ab"])


def test_the_default_training_people_are_not_the_test_people():
    split = load_registry().splits["synthetic"]
    assert not set(split.train) & set(split.test) and (len(split.train), len(split.test)) == (234, 32)


def test_a_decoder_is_made_once_for_all_who_ask_for_the_same():
    def decoder(**asked):
        return recipe(**asked).make_decoder()

    one = decoder(decoder="upm")
    assert decoder(decoder="upm", overrides={"training": {"seed": 3}}) is one
    assert decoder(decoder="blendshape") is not one
    assert not one.training and not any(parameter.requires_grad for parameter in one.parameters())
