"""The released pre-training: what stands for it, what is trained instead, and what of it an encoder takes."""

import pytest
import torch

from ufe_core import pretrained_file
from ufe_core.config import defaults_of
from ufe_core.errors import ArtifactError
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe, tracking_cameras
from ufe_core.registry import load_registry, packaged_file
from ufe_core.store import Store
from ufe_core.training.loop import trained
from ufe_core.training.pretrain import initialised
from ufe_core.weights import load_weights, save_weights

SPLIT = load_registry().splits["synthetic"]
CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def asking_for_it(pretraining="mae_novel_view", overrides=None, **asked):
    given = {**(overrides or {})}
    given["pretraining"] = {"weights": "released", **given.get("pretraining", {})}
    return resolve_recipe(catalogue(), pretraining=pretraining, overrides=given, **asked)


def test_it_is_what_the_usual_options_give_and_known_by_its_hash():
    named, usual = asking_for_it(), resolve_recipe(catalogue(), pretraining="mae_novel_view")
    (released,) = (one for one in load_registry().weights if one.kind == "pretraining")
    assert named.given_weights == packaged_file(released.file)
    assert named.pretraining.options()["weights"] == released.sha256
    own = named.pretraining.config.model_copy(update={"weights": "trained"})
    assert own == usual.pretraining.config, "another preset needs another release"


def test_another_seed_of_the_labels_is_no_other_pretraining_but_one_that_is_asked_for_is():
    assert asking_for_it(overrides={"training": {"seed": 1}}).given_weights is not None
    assert asking_for_it(overrides={"pretraining": {"seed": 1}}).given_weights is None


@pytest.mark.parametrize(
    "asked",
    [
        {"pretraining": "simclr"}, {"budget": "smoke"}, {"calibrator": "none"}, {"decoder": "blendshape"},
        {"anchors": ("neutral", "jaw_open")}, {"overrides": {"training": {"size": 96}}},
        {"overrides": {"pretraining": {"people": 9}}}, {"overrides": {"encoder": {"cells": 3}}},
        {"overrides": {"source": {"condition": "glasses"}}}, {"detector": "heatmap"},
        {"overrides": {"detector": {"point_model": False}}},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_else_is_asked_for_is_trained(asked):
    """As without the word."""
    named = asking_for_it(**asked)
    usual = resolve_recipe(catalogue(), **{"pretraining": "mae_novel_view", **asked})
    assert named.given_weights is None and named.describe() == usual.describe()


def test_which_option_keeps_it_from_being_taken_is_told(caplog):
    pretrained_file._tell_once.cache_clear()
    asking_for_it(overrides={"pretraining": {"people": 9}})
    assert "has another pretraining.people: 512, not 9. It is not taken" in caplog.text
    asking_for_it(overrides={"encoder": {"cells": 3}})
    assert "has another encoder.config.cells: " in caplog.text


def test_options_that_are_younger_than_a_file_are_taken_for_their_defaults(store, tmp_path):
    """Of the encoder, of its calibrator, and of the pre-training itself."""
    tensors, spec = load_weights(asking_for_it().given_weights)
    held = spec["encoder"]["config"], spec["calibrator"]["config"], spec["config"]
    older = tmp_path / "older.safetensors"
    named = resolve_recipe(catalogue(), pretraining="mae_novel_view")
    for options, kind in zip(held, ("encoder", "calibrator", "pretraining"), strict=True):
        defaults = defaults_of(getattr(named, kind).spec.config)
        name = next(name for name in options if name in defaults and options[name] == defaults[name])
        del options[name]
    save_weights(older, tensors, spec)
    taken = resolve_recipe(
        catalogue(), pretraining="mae_novel_view", overrides={"pretraining": {"weights": str(older)}}
    )
    cameras = tracking_cameras(named.make_source(), SPLIT.train[0])
    assert initialised(taken, taken.make_network(cameras, taken.make_decoder().code_space), store=store, device=CPU)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"anchors": ("neutral", "jaw_open")}, "pre-trained with another anchors"),
        ({"decoder": "blendshape"}, "fit"),
    ],
)
def test_a_file_that_does_not_fit_is_found_out_before_anything_is_rendered(store, asked, told):
    (released,) = (one for one in load_registry().weights if one.kind == "pretraining")
    given = {"pretraining": {"weights": str(packaged_file(released.file))}}
    others = resolve_recipe(catalogue(), pretraining="mae_novel_view", overrides=given, **asked)
    heard = []
    with pytest.raises(ArtifactError, match=told):
        trained(others, SPLIT.train, store=store, device=CPU, listener=heard.append)
    assert heard == []


def test_the_encoder_is_what_the_file_holds_but_for_what_labels_teach(store):
    named = asking_for_it()
    source = named.make_source()
    encoder = named.make_network(tracking_cameras(source, SPLIT.train[0]), named.make_decoder().code_space)
    anew = {name: value.clone() for name, value in encoder.state_dict().items()}
    facts = initialised(named, encoder, store=store, device=CPU)
    held, _ = load_weights(named.given_weights)
    own = encoder.taught_by_labels()
    for name, value in encoder.state_dict().items():
        expected = anew[name] if name.startswith(own) else held[f"encoder.{name}"]
        torch.testing.assert_close(value, expected.to(value.dtype), msg=name)
    assert facts["people"] == 512 and facts["source"] == "ufe/synthetic"
