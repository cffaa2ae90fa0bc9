"""Decoders trained on dome captures: the same bytes again, resumed, and never of held-out people."""

import dataclasses
import os
import signal
import subprocess
import sys

import cv2
import pytest
import torch

from ufe_core.errors import ArtifactError, ConfigError, DataError, UfeError
from ufe_core.plugins import catalogue
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.components import resolve_component_recipe, trained_component
from ufe_core.training.progress import Counter
from ufe_core.weights import load_weights
from ufe_synthetic.source import SyntheticSource

from .told import Told

SPLIT = load_registry().splits["synthetic"]
CPU = torch.device("cpu")
QUICK = {"people": 2, "frames": 2, "steps": 5, "height": 48, "rays": 32, "picture_every": 2}

CHILD = """
import os, signal, sys
import torch
from ufe_core.plugins import catalogue
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.components import resolve_component_recipe, trained_component

root, overrides = sys.argv[1], eval(sys.argv[2])
torch.set_num_threads(1)

def listener(progress):
    if progress.stage == "train":
        print(progress.done, flush=True)
        if progress.done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

recipe = resolve_component_recipe(catalogue(), "decoder", "upm", budget="smoke", overrides={"training": overrides})
trained_component(recipe, load_registry().splits["synthetic"].train, store=Store(root), device=torch.device("cpu"),
                fresh=True, listener=listener, checkpoint_every_s=0)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home"))


def recipe(**training):
    overrides = {"training": {**QUICK, **training}}
    return resolve_component_recipe(catalogue(), "decoder", "upm", budget="smoke", overrides=overrides)


def run(store, made=None, subjects=SPLIT.train, **options):
    told = Told()
    done = trained_component(made or recipe(), subjects, store=store, device=CPU, listener=told, **options)
    return done, told


@pytest.fixture(scope="module")
def straight(store):
    """The weights of a training that nothing interrupts, and what lies beside them."""
    done, told = run(store)
    return done, told, beside(done)


def beside(done):
    """The bytes of all files but the one that tells how long it took."""
    folder = done.path.parent
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "timing.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_progress_tells_domes_then_steps(straight):
    _, told, _ = straight
    stages = [(p.stage, p.done, p.total) for p in told]
    assert stages == [("domes", 1, 2), ("domes", 2, 2), *(("train", n, 5) for n in range(1, 6))]
    terms = {"photometric", "coverage", "geometry", "texture", "kl", "volume", "total"}
    assert set(told[-1].losses) == terms and all(p.resumed_at == 0 for p in told)


def test_the_total_weighs_the_terms(straight):
    """Running means of the terms, weighed, are that of the total."""
    losses, config = straight[1][-1].losses, recipe().training
    weighed = sum(getattr(config, name) * value for name, value in losses.items() if name != "total")
    assert losses["total"] == pytest.approx(weighed, rel=1e-4)


def test_the_weights_say_how_they_were_made(straight, store):
    done = straight[0]
    tensors, spec = load_weights(done.path)
    assert spec["component"] == "ufe/upm" and spec["size"] == {"uv": 64, "voxels": 4, "width": 0.125}
    assert done.record["config"] == recipe().training.model_dump(mode="json")
    assert (done.record["subjects"], done.record["budget"], done.record["source"]) == (2, "smoke", "ufe/synthetic")
    assert done.record["seconds"] > 0
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert not list((store.root / "training").glob("*/*")), "a finished training leaves nothing behind"


def test_pictures_show_how_far_it_is(straight):
    """One every few steps and at the end: of each person the truth, the avatar and their difference."""
    pictures = straight[0].path.parent / "pictures"
    assert sorted(file.name for file in pictures.iterdir()) == [f"step_{n:06d}.png" for n in (2, 4, 5)]
    for file in pictures.iterdir():
        image = cv2.imread(str(file))
        height, width = image.shape[:2]
        assert height == 3 * 48 and width % 2 == 0
        truth, avatar, error = image[:48], image[48:96], image[96:]
        assert truth.max() > 100 and avatar.max() > 60 and 0 < error.mean() < truth.mean()
    log = straight[2]["log.csv"].decode().splitlines()
    assert log[0] == "step,learning_rate,total,coverage,geometry,kl,photometric,texture,volume" and len(log) == 6


def test_trained_once_is_trained(straight, store):
    done, told = run(store)
    assert done.sha256 == straight[0].sha256 and told == []


def test_the_same_command_gives_the_same_bytes(straight, store):
    done, told = run(store, fresh=True)
    assert len(told.of("train")) == 5 and beside(done) == straight[2]


def test_another_seed_gives_other_weights_and_reads_the_same_captures(straight, store):
    """Its folder of captures is another's too: no dome is rendered twice for the same frames."""
    before = {file.name: file.stat().st_mtime_ns for file in (store.root / "domes").iterdir()}
    done, _ = run(store, recipe(seed=1, steps=1))
    after = {file.name: file.stat().st_mtime_ns for file in (store.root / "domes").iterdir()}
    assert before == after and done.path != straight[0].path and done.sha256 != straight[0].sha256


def test_a_killed_training_goes_on_to_the_same_bytes(straight, store):
    """Another process, killed at step 3 before its checkpoint and its picture; pictures of before are kept."""
    arguments = [str(store.root), repr(QUICK)]
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=300)
    assert child.stdout.split() == ["1", "2", "3"], child.stderr
    assert child.returncode == -signal.SIGKILL
    done, told = run(store)
    assert [(p.done, p.resumed_at) for p in told.of("train")] == [(3, 2), (4, 2), (5, 2)]
    assert beside(done) == straight[2]


def test_ctrl_c_ends_the_step_and_keeps_it(straight, store):
    def listener(progress):
        if progress.stage == "train" and progress.done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained_component(recipe(), SPLIT.train, store=store, device=CPU, fresh=True, listener=listener)
    done, told = run(store)
    assert [(p.done, p.resumed_at) for p in told.of("train")] == [(4, 3), (5, 3)]
    assert beside(done) == straight[2]


class Stop(Exception):
    """Raised by a listener."""


def stopped_at(store, step):
    def listener(progress):
        if progress.stage == "train" and progress.done == step:
            raise Stop

    with pytest.raises(Stop):
        trained_component(
            recipe(), SPLIT.train, store=store, device=CPU, fresh=True, listener=listener, checkpoint_every_s=0
        )
    (checkpoint,) = (store.root / "training").glob("*/checkpoint.safetensors")
    return checkpoint


def test_a_damaged_checkpoint_is_named_and_left_behind(straight, store, caplog):
    checkpoint = stopped_at(store, 3)
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    done, told = run(store)
    assert str(checkpoint) in caplog.text and "Training starts from the beginning" in caplog.text
    assert len(told.of("train")) == 5 and beside(done) == straight[2]


def test_fresh_forgets_the_checkpoint(store):
    stopped_at(store, 3)
    _, told = run(store, fresh=True)
    assert len(told.of("train")) == 5 and told[-1].resumed_at == 0


def test_damaged_weights_are_refused_until_the_user_decides(straight, store):
    path = run(store)[0].path
    os.truncate(path, 5000)
    with pytest.raises(ArtifactError, match=rf"Weights '{path}' are truncated"):
        run(store)
    done, _ = run(store, fresh=True)
    assert beside(done) == straight[2]


def test_a_training_that_went_astray_says_so_in_one_line(store, tmp_path):
    with pytest.raises(UfeError, match="diverged at step|went astray|not finite") as error:
        run(store, recipe(learning_rate=1e30, clip_norm=1e30))
    assert "\n" not in str(error.value)


def test_held_out_people_are_refused_and_never_opened(monkeypatch, tmp_path):
    for name in ("captures", "dome"):
        monkeypatch.setattr(SyntheticSource, name, lambda *_, **__: pytest.fail("a capture was opened"))
    mixed = [SPLIT.train[0], SPLIT.test[0]]
    with pytest.raises(DataError, match=f"{SPLIT.test[0]} are held out for testing: no training may read them"):
        run(Store(tmp_path), subjects=mixed)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_only_the_people_asked_for_are_opened(monkeypatch, store):
    opened = set()
    original = SyntheticSource.dome

    def dome(self, subjects):
        opened.update(subjects)
        return original(self, subjects)

    monkeypatch.setattr(SyntheticSource, "dome", dome)
    monkeypatch.setattr(SyntheticSource, "captures", lambda *_, **__: pytest.fail("a headset capture was opened"))
    run(store, fresh=True)
    assert opened == set(SPLIT.train[:2]) and not opened & set(SPLIT.test)


def test_a_source_without_domes_is_refused_in_one_line(monkeypatch, tmp_path):
    from ufe_core.interfaces.source import HMCSource

    monkeypatch.setattr(SyntheticSource, "dome", HMCSource.dome)
    with pytest.raises(DataError, match="has no dome captures") as error:
        run(Store(tmp_path))
    assert "\n" not in str(error.value)


def test_a_decoder_that_learns_nothing_is_refused_in_one_line():
    with pytest.raises(ConfigError) as error:
        resolve_component_recipe(catalogue(), "decoder", "blendshape")
    assert str(error.value).startswith("Decoder 'ufe/blendshape' learns nothing: there is nothing to train.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training": {"stepz": 3}}, "Did you mean 'steps'"),
        ({"training": {"width": 9}}, "width"),
        ({"training": {"render_size": 9}}, "render_size"),
        ({"source": {"headsett": "x"}}, "Did you mean 'headset'"),
        ({"encoder": {"backbone": "resnet18"}}, "--set knows source and training; not 'encoder'"),
        ({"decoder": {"weights": "x"}}, "--set knows source and training; not 'decoder'"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(overrides, message):
    with pytest.raises(ConfigError) as error:
        resolve_component_recipe(catalogue(), "decoder", "upm", overrides=overrides)
    assert message in str(error.value)


def test_a_size_that_cannot_be_is_refused_before_anything_is_rendered(tmp_path):
    with pytest.raises(ConfigError, match="64, 128, 256, 512 or 1024 texels; 100 was asked for"):
        run(Store(tmp_path), recipe(uv=100))
    assert not (tmp_path / "domes").exists()


def test_presets_of_the_decoder_make_the_budgets():
    def options(name):
        return resolve_component_recipe(catalogue(), "decoder", "upm", budget=name).training

    smoke, paper = options("smoke"), options("paper")
    assert (smoke.uv, smoke.steps, smoke.people) == (64, 8, 4) and (paper.uv, paper.people) == (1024, 234)
    assert recipe(steps=3).training.steps == 3


def test_what_decides_the_weights_is_in_the_key(monkeypatch):
    from ufe_core.training import components

    source = SyntheticSource(recipe().source.config)
    key = recipe().key(source, SPLIT.train[:2])
    assert recipe().key(source, SPLIT.train[:2]) == key
    others = [
        recipe(steps=6).key(source, SPLIT.train[:2]), recipe(uv=128).key(source, SPLIT.train[:2]),
        recipe().key(source, SPLIT.train[:1]), recipe().key(source, SPLIT.train[1::-1]),
    ]  # fmt: skip
    monkeypatch.setattr(components, "code_fingerprint", lambda *names: "changed")
    assert len({key, *others, recipe().key(source, SPLIT.train[:2])}) == 6


def test_a_budget_is_a_name_for_options_and_decides_nothing_itself():
    made = recipe()
    source = SyntheticSource(made.source.config)
    assert dataclasses.replace(made, budget="mine").key(source, "AB") == made.key(source, "AB")


def test_a_counter_counts_what_any_thread_tells_it():
    from concurrent.futures import ThreadPoolExecutor

    told = []
    count = Counter(told.append)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(50)))
    assert told == list(range(1, 51))
