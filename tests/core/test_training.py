"""Whole trainings at the smoke budget: they learn, resume to the same bits, and never touch held-out people."""

import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from ufe_core.budgets import TrainingConfig
from ufe_core.errors import ArtifactError, DataError
from ufe_core.plugins import catalogue
from ufe_core.recipe import Recipe, resolve_recipe
from ufe_core.registry import load_registry
from ufe_core.store import Store, fingerprint
from ufe_core.training.loop import label_statistics, trained, training_captures
from ufe_core.training.optimise import learning_rate
from ufe_core.training.runs import pick_device
from ufe_synthetic.source import SyntheticCapture, SyntheticSource

from .small import SMALL_ENCODER
from .told import Told

SPLIT = load_registry().splits["synthetic"]
CPU = torch.device("cpu")
TERMS = ["adversarial", "critic", "gaze", "geometry", "photometric"]
QUICK = {"frames": 4, "frames_per_user": 2, "steps": 10, "render_frames": 2}
OVERRIDES = {"training": QUICK, "encoder": SMALL_ENCODER}

CHILD = """
import os, signal, sys
import torch
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.loop import trained

root, overrides = sys.argv[1], eval(sys.argv[2])
torch.set_num_threads(1)

def listener(progress):
    if progress.stage == "train":
        print(progress.done, flush=True)
        if progress.done == 6:
            os.kill(os.getpid(), signal.SIGKILL)

recipe = resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", overrides=overrides)
trained(recipe, load_registry().splits["synthetic"].train, store=Store(root), device=torch.device("cpu"),
        fresh=True, listener=listener, checkpoint_every_s=0)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home"))


def recipe(**training) -> Recipe:
    overrides = {**OVERRIDES, "training": {**QUICK, **training}}
    return resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", overrides=overrides)


def run(store, made=None, *, device=CPU, **options):
    told = Told()
    done = trained(made or recipe(), SPLIT.train, store=store, device=device, listener=told, **options)
    return done, told


@pytest.fixture(scope="module")
def straight(store):
    """The weights of a training that nothing interrupts."""
    return run(store)


def test_progress_tells_captures_then_steps(straight):
    _, told = straight
    assert [(p.stage, p.done, p.total) for p in told] == [
        *(("data", n, 4) for n in range(1, 5)), ("geometry", 16, 16), *(("train", n, 10) for n in range(1, 11))
    ]  # fmt: skip
    assert set(told.of("train")[-1].losses) == {"total", *TERMS}
    assert all(p.resumed_at == 0 for p in told)


def test_what_is_minimised_is_the_weighted_sum_and_the_discriminator_joins_in_at_its_step(store, device):
    """The log has running means, which are linear in what they are of."""
    made = recipe(adversarial=0.3, adversarial_from=4)
    for told in run(store, made, device=device)[1].of("train"):
        losses = told.losses
        weighted = [getattr(made.training, name) * losses[name] for name in ("photometric", "geometry", "gaze")]
        weighted += [0.3 * losses["adversarial"], losses["critic"]]
        assert losses["total"] == pytest.approx(sum(weighted), rel=1e-4)
        assert (losses["critic"] == losses["adversarial"] == 0) == (told.done <= 4)


def test_the_weights_say_how_they_were_made(straight, store):
    done, _ = straight
    made = recipe()
    assert done.record["config"] == made.training.model_dump(mode="json")
    assert (done.record["subjects"], done.record["budget"]) == (4, "smoke") and done.record["seconds"] > 0
    codes = [made.encoder.code, made.calibrator.code]
    assert done.encoder.training is False and done.encoder.fingerprint == fingerprint([done.sha256, *codes])
    assert done.record["precision"] in ("float32", "bfloat16")
    assert not list((store.root / "training").glob("*/checkpoint*")), "a finished training leaves no checkpoint"
    log = done.path.with_name("log.csv").read_text().splitlines()
    assert log[0] == ",".join(["step", "learning_rate", "total", *TERMS]) and len(log) == 11


def test_trained_once_is_trained(straight, store):
    done, told = run(store)
    assert done.sha256 == straight[0].sha256 and told == []


def test_the_same_command_gives_the_same_bytes(straight, store):
    log = straight[0].path.with_name("log.csv").read_bytes()
    done, told = run(store, fresh=True)
    assert len(told.of("train")) == 10
    assert done.sha256 == straight[0].sha256 and done.path.with_name("log.csv").read_bytes() == log


def test_training_learns(store):
    """Four people's frames by heart: the loss falls well below where it began."""
    overrides = {
        "training": {
            **QUICK,
            "steps": 100,
            "learning_rate": 2e-3,
            "rotation_deg": 0,
            "scale": 1,
            "cutmix_patches": 0,
            "adversarial": 0,
        },
        "encoder": SMALL_ENCODER,
    }
    made = resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", overrides=overrides)
    told = run(store, made)[1].of("train")
    first, last = told[0].losses, told[-1].losses
    assert last["total"] < 0.75 * first["total"]
    assert last["geometry"] < 0.8 * first["geometry"] and last["gaze"] < 0.6 * first["gaze"]


def killed_at_6(store):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(store.root), repr(OVERRIDES)], capture_output=True, text=True, timeout=300
    )
    assert child.stdout.split() == ["1", "2", "3", "4", "5", "6"] and child.returncode == -signal.SIGKILL, child.stderr


def interrupted_at_6(store):
    interrupt_at(store, 6, checkpoint_every_s=1e9)


@pytest.mark.parametrize(("stop", "resumed_at"), [(killed_at_6, 5), (interrupted_at_6, 6)], ids=["kill -9", "Ctrl-C"])
def test_an_interrupted_training_goes_on_to_the_same_bytes(straight, store, stop, resumed_at):
    """The signal comes before the step's checkpoint. Ctrl-C lets the step end and keeps it; kill -9 does not."""
    log = straight[0].path.with_name("log.csv").read_bytes()
    stop(store)
    done, told = run(store)
    assert [p.done for p in told.of("train")] == list(range(resumed_at + 1, 11))
    assert {p.resumed_at for p in told.of("train")} == {resumed_at}
    assert done.sha256 == straight[0].sha256 and done.path.with_name("log.csv").read_bytes() == log


def interrupt_at(store, step, **options):
    """Leave a checkpoint after a step and give its file."""

    def listener(progress):
        if progress.stage == "train" and progress.done == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(recipe(), SPLIT.train, store=store, device=CPU, fresh=True, listener=listener, **options)
    (checkpoint,) = (store.root / "training").glob("*/checkpoint.safetensors")
    return checkpoint


def test_ctrl_c_in_the_last_step_stops_too_and_loses_nothing(straight, store):
    interrupt_at(store, 10)
    done, told = run(store)
    assert told.of("train") == [] and done.sha256 == straight[0].sha256


def test_after_a_training_ctrl_c_is_what_it_was_before(store):
    before = signal.getsignal(signal.SIGINT)
    interrupt_at(store, 1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_damaged_checkpoint_is_named_and_left_behind(straight, store, caplog):
    checkpoint = interrupt_at(store, 3)
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    with caplog.at_level(logging.WARNING, "ufe"):
        done, told = run(store)
    assert str(checkpoint) in caplog.text and "truncated" in caplog.text
    assert "Training starts from the beginning" in caplog.text
    assert len(told.of("train")) == 10 and done.sha256 == straight[0].sha256


def test_fresh_forgets_the_checkpoint(store):
    interrupt_at(store, 3)
    _, told = run(store, fresh=True)
    assert len(told.of("train")) == 10 and told.of("train")[0].resumed_at == 0


@pytest.mark.parametrize("mend", ["fresh", "delete"])
def test_truncated_weights_are_refused_until_the_user_decides(straight, store, mend):
    """Either way that the message offers makes them anew, bit for bit."""
    path = run(store)[0].path
    os.truncate(path, 5000)
    with pytest.raises(ArtifactError, match=rf"Weights '{path}' are truncated.*Delete it and run the command again"):
        run(store)
    if mend == "delete":
        path.unlink()
    done, told = run(store, fresh=mend == "fresh")
    assert len(told.of("train")) == 10 and done.sha256 == straight[0].sha256


def test_a_full_disk_is_one_line(store, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    run(store)
    monkeypatch.setattr("ufe_core.store.os.fsync", full)
    with pytest.raises(ArtifactError, match=r"^Cannot write .* the disk is full\. Free some space") as error:
        run(store, fresh=True)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert len(run(store)[1].of("train")) == 10


def test_the_schedule_warms_up_and_then_falls_as_a_cosine():
    config = TrainingConfig(steps=110, warmup=10, learning_rate=1e-3, final_rate=1e-6)
    assert [learning_rate(config, step) for step in (0, 4, 9)] == pytest.approx([1e-4, 5e-4, 1e-3])
    assert learning_rate(config, 10) == pytest.approx(1e-3)
    assert learning_rate(config, 60) == pytest.approx((1e-3 + 1e-6) / 2)
    assert learning_rate(config, 110) == pytest.approx(1e-6)


@pytest.mark.parametrize("own", [True, False])
def test_a_method_without_steps_learns_from_the_frames_that_others_train_on(store, own):
    made = recipe(people=3, own_instants=own)
    source, decoder, people = made.make_source(), made.make_decoder(), SPLIT.train[:3]
    known = label_statistics(made, source, people, decoder, store, Told())
    packed = training_captures(made, source, people, decoder, store, Told())
    instants = {tuple(one.frames[row] for row in one.frame_rows) for one in packed}
    assert len(instants) == (3 if own else 1)
    shown = torch.cat([torch.from_numpy(one.expression[one.frame_rows]) for one in packed])
    assert torch.equal(known.labels.expression, shown)


def test_a_device_that_is_not_there_is_refused():
    from ufe_core.errors import UfeError

    with pytest.raises(UfeError, match="There is no device 'quantum'. Use auto, cpu, cuda or cuda:N"):
        pick_device("quantum")


class Spy:
    """Stands in for the synthetic source and notes whose captures are opened and whose data are read."""

    def __init__(self, config):
        self.opened, self.read = set(), {"frames": set(), "labels": set(), "neutral": set()}
        spy = self

        class SpyCapture(SyntheticCapture):
            def frames(self, *args, **options):
                spy.read["frames"].add(self.subject)
                return super().frames(*args, **options)

            def labels(self, indices):
                spy.read["labels"].add(self.subject)
                return super().labels(indices)

            def neutral(self, *, size=None):
                spy.read["neutral"].add(self.subject)
                return super().neutral(size=size)

            def geometry(self, indices):
                spy.read["frames"].add(self.subject)
                return super().geometry(indices)

            def see(self, *args):
                spy.read["frames"].add(self.subject)  # keypoints and segmentation look here too
                return super().see(*args)

        class SpySource(SyntheticSource):
            def captures(self, subjects, *, session=0):
                spy.opened.update(subjects)
                return [SpyCapture(self, int(subject[1:]), session) for subject in subjects]

        self.source = SpySource(config)


@pytest.mark.parametrize("encoder", ["univ", "mean"])
def test_no_training_touches_a_held_out_person(encoder, monkeypatch, tmp_path):
    """A whole training from an empty store, watched through the source interface."""
    overrides = OVERRIDES if encoder == "univ" else {}
    made = resolve_recipe(catalogue(), encoder=encoder, decoder="blendshape", budget="smoke", overrides=overrides)
    spies = []

    def make_source(self):
        spies.append(Spy(self.source.config))
        return spies[-1].source

    monkeypatch.setattr(Recipe, "make_source", make_source)
    done, _ = run(Store(tmp_path), made)
    people = set(SPLIT.train[: made.training.people])
    opened = set().union(*(spy.opened for spy in spies))
    read = {kind: set().union(*(spy.read[kind] for spy in spies)) for kind in ("frames", "labels", "neutral")}
    assert len(SPLIT.test) == 32 and not (opened | set().union(*read.values())) & set(SPLIT.test)
    nobody = set()
    expected = people if encoder == "univ" else nobody  # the mean looks at labels alone
    assert opened == people and read == {"frames": expected, "labels": people, "neutral": expected}
    assert done.record["subjects"] == len(people)


def test_a_training_on_a_held_out_person_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(SyntheticSource, "captures", lambda *_: pytest.fail("a capture was opened"))
    mixed = [*SPLIT.train[:2], SPLIT.test[0], SPLIT.test[5]]
    with pytest.raises(DataError, match=rf"{SPLIT.test[0]}, {SPLIT.test[5]} are held out for testing: no training"):
        trained(recipe(), mixed, store=Store(tmp_path), device=CPU)


def test_another_recipe_does_not_take_the_weights(straight, tmp_path):
    from ufe_core.training.loop import load_trained

    copy = tmp_path / "weights.safetensors"
    shutil.copy(straight[0].path, copy)
    needs, space = straight[0].encoder.needs, straight[0].encoder.code_space
    loaded = load_trained(recipe(), copy, needs.cameras, space, CPU)
    assert loaded.sha256 == straight[0].sha256
    other = resolve_recipe(
        catalogue(), decoder="blendshape", calibrator="none", budget="smoke", overrides={"encoder": SMALL_ENCODER}
    )
    with pytest.raises(ArtifactError, match="made with another calibrator.id: 'ufe/late_fusion', not 'ufe/none'"):
        load_trained(other, copy, needs.cameras, space, CPU)
