"""Whole pre-trainings at the smoke budget: headset images alone, the same bytes again, resumed, streamed."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from ufe_core.errors import ArtifactError, ConfigError, ContractError, DataError, UfeError
from ufe_core.interfaces.pretraining import Views
from ufe_core.packed import open_packed
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe, unlabelled_people
from ufe_core.registry import load_registry
from ufe_core.store import Store, fingerprint
from ufe_core.training import preview
from ufe_core.training import unlabelled_people as unlabelled_people_module
from ufe_core.training.components import resolve_component_recipe, trained_component
from ufe_core.training.kept_views import open_views
from ufe_core.training.loop import trained
from ufe_core.training.pretrain import initialised, pretrained
from ufe_core.training.preview import batch_of, gain_of, gains_of, person_of
from ufe_core.training.rows import RowTable
from ufe_core.training.unlabelled_people import UnlabelledPeople
from ufe_pretraining.masked import NovelView
from ufe_synthetic.source import SyntheticCapture

from .small import SMALL_ENCODER
from .told import Told

SPLIT = load_registry().splits["synthetic"]
CPU = torch.device("cpu")
OTHERS = ("S1003", "S1004")  # after the three of QUICK
QUICK = {"people": 3, "frames": 3, "steps": 6, "users": 2, "picture_every": 3, "aligned": False}
OVERRIDES = {"pretraining": QUICK, "encoder": SMALL_ENCODER}

CHILD = """
import os, signal, sys
import torch
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe, unlabelled_people
from ufe_core.store import Store
from ufe_core.training.pretrain import pretrained

torch.set_num_threads(1)

def listener(progress):
    if progress.stage == "pretrain":
        print(progress.done, flush=True)
        if progress.done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

recipe = resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", pretraining="mae_novel_view",
                        overrides=eval(sys.argv[2]))
pretrained(recipe, store=Store(sys.argv[1]), device=torch.device("cpu"), fresh=True, listener=listener,
           checkpoint_every_s=0)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home"))


def recipe(pretraining="mae_novel_view", *, training=None, **options):
    own = {name: value for name, value in QUICK.items() if pretraining.startswith("mae") or name != "aligned"}
    overrides = {"pretraining": {**own, **options}, "encoder": SMALL_ENCODER}
    if training:
        overrides["training"] = training
    return resolve_recipe(
        catalogue(), decoder="blendshape", budget="smoke", pretraining=pretraining, overrides=overrides
    )


def run(store, made=None, **options):
    told = Told()
    return pretrained(made or recipe(), store=store, device=CPU, listener=told, **options), told


@pytest.fixture(scope="module")
def straight(store):
    """A pre-training that nothing interrupts."""
    return run(store)


def test_it_tells_how_far_it_is(straight):
    done, told = straight
    assert [p.stage for p in told] == ["headset captures"] * 3 + ["people"] * 3 + ["pretrain"] * 6
    assert set(told.of("pretrain")[-1].losses) == {"total", "reconstruction"}
    assert sorted(path.name for path in (done.path.parent / "pictures").iterdir()) == ["step_000003.png",
                                                                                      "step_000006.png"]  # fmt: skip
    assert done.record["people"] == 3 and done.record["budget"] == "smoke"
    assert fingerprint(done.record["made_from"]) == recipe().pretraining_key(), "its file says all that decides it"


def test_once_is_enough_and_the_same_command_gives_the_same_bytes(straight, store):
    done, told = run(store)
    assert done.sha256 == straight[0].sha256 and told == []
    people = straight[0].people().values(range(3))
    again, told = run(store, fresh=True)
    assert again.sha256 == straight[0].sha256 and len(told.of("pretrain")) == 6
    assert np.array_equal(again.people().values(range(3)), people)


def killed_at_4(store):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(store.root), repr(OVERRIDES)], capture_output=True, text=True, timeout=300
    )
    assert child.stdout.split() == ["1", "2", "3", "4"] and child.returncode == -signal.SIGKILL, child.stderr


def interrupted_at_4(store):
    def listener(progress):
        if progress.stage == "pretrain" and progress.done == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pretrained(recipe(), store=store, device=CPU, fresh=True, listener=listener, checkpoint_every_s=1e9)


@pytest.mark.parametrize(("stop", "resumed_at"), [(killed_at_4, 3), (interrupted_at_4, 4)], ids=["kill -9", "Ctrl-C"])
def test_an_interrupted_one_goes_on_to_the_same_bytes(straight, store, stop, resumed_at):
    """The signal comes before the step's checkpoint. Ctrl-C lets the step end and keeps it; kill -9 does not."""
    people = straight[0].people().values(range(3))
    stop(store)
    done, told = run(store)
    assert [p.done for p in told.of("pretrain")] == list(range(resumed_at + 1, 7))
    assert done.sha256 == straight[0].sha256
    assert np.array_equal(done.people().values(range(3)), people)


def test_killed_while_it_saves_it_saves_again(straight, tmp_path, monkeypatch):
    """After the last step there is a checkpoint of it; the table of people's rows stays until all is in its place."""
    people, home = straight[0].people().values(range(3)), Store(tmp_path)

    def killed(self, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RowTable, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(home)
    done, told = run(home)
    assert told.of("pretrain") == [] and done.sha256 == straight[0].sha256
    assert np.array_equal(done.people().values(range(3)), people)
    assert not [path for path in (tmp_path / "training").iterdir() if path.name[0] != "."], "nothing is left behind"


def test_a_lost_table_of_people_begins_anew_and_says_so(straight, tmp_path, caplog):
    home = Store(tmp_path)

    def stop(progress):
        if progress.stage == "pretrain" and progress.done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pretrained(recipe(), store=home, device=CPU, listener=stop)
    (table,) = (tmp_path / "training").glob("*/rows.npy")
    table.unlink()
    done, told = run(home)
    assert "is missing or damaged. Training starts from the beginning" in caplog.text
    assert len(told.of("pretrain")) == 6 and done.sha256 == straight[0].sha256


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector of the augmented views that has learned next to nothing, in a file."""
    store = Store(tmp_path_factory.mktemp("detector"))
    options = {"people": 2, "frames": 2, "steps": 1, "batch": 2}
    made = resolve_component_recipe(
        catalogue(), "detector", "heatmap_augmented", budget="smoke", overrides={"training": options}
    )
    return trained_component(made, SPLIT.train, store=store, device=CPU).path


def test_any_strategy_goes_on_where_the_power_failed(detector, tmp_path):
    """With what is warped by keypoints and hidden, and with what is compared in two versions."""
    aligned = resolve_recipe(
        catalogue(), decoder="blendshape", budget="smoke", pretraining="mae_novel_view", detector="heatmap_augmented",
        overrides={
            "pretraining": {**QUICK, "aligned": True, "hidden": 0.5}, "detector": {"weights": str(detector)},
            "encoder": SMALL_ENCODER,
        },
    )  # fmt: skip
    for number, made in enumerate((aligned, recipe("simclr"))):
        straight, _ = run(Store(tmp_path / f"{number} straight"), made)
        home = Store(tmp_path / f"{number} cut")
        shutil.copytree(tmp_path / f"{number} straight" / "captures", home.root / "captures")

        def cut(progress):
            if progress.stage == "pretrain" and progress.done == 4:
                raise RuntimeError("no power")

        with pytest.raises(RuntimeError, match="no power"):
            pretrained(made, store=home, device=CPU, listener=cut, checkpoint_every_s=0)
        done, told = run(home, made)
        assert [p.done for p in told.of("pretrain")] == [4, 5, 6]
        assert done.sha256 == straight.sha256


def test_faces_are_warped_to_a_template_that_is_kept(tmp_path, detector, monkeypatch):
    """From the detector's points to what is reconstructed; kept views are checked, and made again where damaged."""
    for secret in ("labels", "neutral", "geometry", "keypoints"):
        monkeypatch.setattr(
            SyntheticCapture, secret, lambda self, *_, _name=secret, **__: pytest.fail(f"{_name} was read")
        )
    overrides = {
        "pretraining": {**QUICK, "aligned": True, "steps": 1}, "detector": {"weights": str(detector)},
        "encoder": SMALL_ENCODER,
    }  # fmt: skip
    made = resolve_recipe(
        catalogue(), decoder="blendshape", budget="smoke", pretraining="mae_novel_view", overrides=overrides
    )
    looked_at = []
    monkeypatch.setattr(unlabelled_people_module, "tell_if_coarse", lambda chosen, *sides: looked_at.append(sides))
    done, told = run(Store(tmp_path), made)
    assert len(told.of("views")) == 3 and looked_at == [(64, 64)], "sides of what the detector takes, and of the views"
    template = done.method.canonical.template
    assert template.shape == (4, 96, 2) and template.std() > 0 and done.method.moving.any()
    kept = sorted(file.parent for file in (tmp_path / "views").glob("*/views.npy"))
    first = kept[0]
    assert len(kept) == 3
    images = open_views(first)
    assert images.shape == (3, 4, 64, 64) and images[:].std() > 1
    data = bytearray((first / "views.npy").read_bytes())
    data[-5] ^= 255
    (first / "views.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"views\.npy.*Delete its folder; it is made again"):
        open_views(first)[:]


@pytest.mark.parametrize(
    "begin", [
        lambda made, store: trained(made, SPLIT.train, store=store, device=CPU),
        lambda made, store: pretrained(made, store=store, device=CPU),
    ], ids=["train", "pretrain"],
)  # fmt: skip
def test_a_detector_of_other_cameras_is_refused_before_anything_is_packed(tmp_path, begin):
    overrides = {"pretraining": {**QUICK, "aligned": True}}
    made = resolve_recipe(
        catalogue(), decoder="blendshape", budget="smoke", pretraining="mae_novel_view", detector="heatmap",
        overrides=overrides | {"training": TRAINING},
    )  # fmt: skip
    with pytest.raises(DataError, match=r"Detector 'ufe/heatmap' looks through left_eye.*the views are left_eye_front"):
        begin(made, Store(tmp_path))
    assert not (tmp_path / "captures").exists()


def test_one_that_diverges_says_which_option_to_change(tmp_path):
    with pytest.raises(UfeError, match=r"diverged at step \d+.*Try --set pretraining\.learning_rate="):
        run(Store(tmp_path), recipe(learning_rate=1e30, clip_norm=1e30))


def test_what_a_kill_at_the_very_end_leaves_is_cleared_away(straight, store):
    left = store.path("training", recipe().pretraining_key())
    left.mkdir(parents=True)
    (left / "rows.npy").write_bytes(b"as it was")
    done, told = run(store)
    assert done.sha256 == straight[0].sha256 and told == [] and not left.exists()


@pytest.mark.parametrize("name", ["mae_novel_view", "mae_original_view", "simclr"])
def test_nothing_but_headset_images_of_people_without_labels_is_read(tmp_path, monkeypatch, name):
    """Labels, faces and exact data fail where they are asked for; the people are neither trained on nor held out."""
    for secret in ("labels", "neutral", "geometry", "texture", "cameras_at", "keypoints", "segmentation"):
        monkeypatch.setattr(
            SyntheticCapture, secret, lambda self, *_, _name=secret, **__: pytest.fail(f"{_name} was read")
        )
    seen = set()
    frames = SyntheticCapture.frames
    monkeypatch.setattr(
        SyntheticCapture, "frames",
        lambda self, *args, **more: seen.add(self.subject) or frames(self, *args, **more),
    )  # fmt: skip
    done, _ = run(Store(tmp_path), recipe(name, steps=1))
    assert seen == {"S1000", "S1001", "S1002"} and not seen & {*SPLIT.train, *SPLIT.test}
    assert (done.average_person is None) == (name == "simclr")


TRAINING = {"people": 2, "frames": 3, "frames_per_user": 2, "users": 2, "steps": 3, "render_frames": 1}


def without_pretraining(training):
    overrides = {"training": training, "encoder": SMALL_ENCODER}
    return resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", overrides=overrides)


def test_training_begins_from_it(straight, store, tmp_path):
    """All but what labels teach is the pre-trained encoder's: a step of no length moves no weight."""
    still = {**TRAINING, "steps": 1, "warmup": 0, "learning_rate": 1e-300, "final_rate": 0.0}
    first, before = trained(recipe(training=still), SPLIT.train, store=store, device=CPU), straight[0].encoder
    after, moves = first.encoder.state_dict(), ("running_mean", "running_var", "num_batches_tracked")
    perceptrons = before.taught_by_labels()
    new = ("code_mean", "code_std", *(name for name in before.state_dict() if name.startswith(perceptrons)))
    assert perceptrons == ("fuse.", "gaze.")
    for name, value in before.state_dict().items():
        if not name.endswith(moves):
            assert torch.equal(after[name], value) == (name not in new), name
    plain = without_pretraining(still)
    without = trained(plain, SPLIT.train, store=store, device=CPU).encoder.state_dict()
    for name in new:
        torch.testing.assert_close(after[name], without[name], rtol=0, atol=1e-20)  # as without pre-training
    out = tmp_path / "before.safetensors"
    out.write_bytes(straight[0].path.read_bytes())
    given = trained(recipe(training=still, weights=str(out)), SPLIT.train, store=store, device=CPU)
    for name, value in given.encoder.state_dict().items():
        assert torch.equal(after[name], value), name
    assert given.record["pretraining"]["sha256"] == first.record["pretraining"]["sha256"] == straight[0].sha256


def test_a_training_after_it_differs_from_one_without(straight, store):
    first = trained(recipe(training=TRAINING), SPLIT.train, store=store, device=CPU)
    plain = without_pretraining(TRAINING)
    without = trained(plain, SPLIT.train, store=store, device=CPU)
    assert first.sha256 != without.sha256
    assert first.record["pretraining"]["people"] == 3 and "pretraining" not in without.record
    assert first.record["pretraining"]["sha256"] == straight[0].sha256
    again = trained(recipe(training=TRAINING), SPLIT.train, store=store, device=CPU, fresh=True)
    assert again.sha256 == first.sha256


def test_linear_probing_leaves_the_encoder_as_it_was(straight, store):
    """Weights and batch statistics; only the linear map learns."""
    made = recipe(training={**TRAINING, "update": "linear", "learning_rate": 0.1})
    probe = trained(made, SPLIT.train, store=store, device=CPU).encoder
    for name, value in probe.frozen.state_dict().items():
        assert torch.equal(value, straight[0].encoder.state_dict()[name]), name
    assert probe.linear.weight.abs().max() > 1e-3 and probe.output_map.std() > 0 and probe.calibrated
    assert {name for name, p in probe.named_parameters() if p.requires_grad} == {"linear.weight", "linear.bias"}


def test_a_probe_of_an_untrained_encoder_has_batch_statistics(store):
    """Without them its layers would not be what a network of random weights is in use."""
    plain = without_pretraining({**TRAINING, "update": "linear"})
    probe = trained(plain, SPLIT.train, store=store, device=CPU).encoder
    norms = [module for module in probe.frozen.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and all(norm.num_batches_tracked > 0 and norm.running_mean.any() for norm in norms)
    assert not any(norm.training for norm in norms)


def test_every_view_of_what_is_looked_at_is_measured_and_drawn(straight, store):
    """Other frames of the same people, or other people, in the session learned from or another."""
    done = straight[0]
    names = ("right", "other", "zero")
    for unseen, session in ((False, 0), (True, 0), (False, 1)):
        batch = batch_of(recipe(), done, 2, unseen=unseen, store=store, device=CPU, session=session)
        numbers = done.method.measure(done.encoder, batch)
        assert list(numbers) == [*names, *(f"{view}: {name}" for view in done.method.view_names for name in names)]
        assert all(np.isfinite(list(numbers.values())))
        of_views = [numbers[f"{view}: right"] ** 2 for view in done.method.view_names]
        assert numbers["right"] ** 2 == pytest.approx(np.mean(of_views)), "as many pixels of each"
        image = done.method.picture(done.encoder, batch)
        assert image.dtype == np.uint8 and image.ndim == 3


def test_a_person_of_what_is_looked_at_has_their_frames_and_anchors_alone(straight, store):
    done = straight[0]
    batch = batch_of(recipe(), done, 2, unseen=True, store=store, device=CPU)
    parts = [person_of(batch, k) for k in range(2)]
    assert [part.subjects.tolist() for part in parts] == [[subject] for subject in batch.subjects.tolist()]
    for whole, pieces in (
        (batch.frames.images, [part.frames.images for part in parts]),
        (batch.targets, [part.targets for part in parts]),
        (batch.anchors.images, [part.anchors.images for part in parts]), (batch.views, [part.views for part in parts]),
        (batch.person, [part.person for part in parts]),
    ):  # fmt: skip
        assert torch.equal(torch.cat(pieces), whole)
    errors = [done.method.measure(done.encoder, part)["right"] for part in parts]
    assert errors[0] != errors[1] and all(np.isfinite(errors))


def test_what_the_own_code_gains_is_over_people():
    gain = gain_of([1.0, 2.0, 3.0, 4.0], [2.0, 3.5, 2.5, 6.0])
    assert gain.mean == pytest.approx(1.0) and (gain.better, gain.people) == (3, 4)
    assert -0.5 <= gain.ci95[0] < 1 < gain.ci95[1] <= 2
    assert gain_of([1.0] * 4, [2.0] * 4).ci95 == (1.0, 1.0)
    each = [
        {"right": 1.0 + k, "other": 2.0 + k, "zero": 0.0, "an eye: right": 3.0, "an eye: other": 3.5 + k}
        for k in range(3)
    ]
    gains = gains_of(each)
    assert {name: gain.mean for name, gain in gains.items()} == {"other": 1.0, "zero": -2.0, "an eye: other": 1.5}
    assert gains["zero"].better == 0 and gains["an eye: other"].better == gains["other"].people == 3
    assert gains_of([{"accuracy": 0.5}]) == {}


def test_frames_that_it_learned_from_are_not_shown(straight, store, monkeypatch):
    """As if it had learned from half of what could be shown."""
    source, people = unlabelled_people(recipe().source, 2)
    held = UnlabelledPeople(recipe(), source, store, CPU)
    paths = held.pack(people, held.request(people[0], preview._FRAMES, seed=preview._SEED))
    learned = {}
    for packed in map(open_packed, paths):
        some = packed.frame_rows[: preview._FRAMES // 2]
        learned[packed.subject] = ([packed.frames[row] for row in some], packed.images[some][:, :4])
    with monkeypatch.context() as patch:
        patch.setattr(preview, "instants_of", lambda capture, request: learned[capture.subject][0])
        frames = batch_of(recipe(), straight[0], 2, unseen=False, store=store, device=CPU).frames.images.numpy()
    for image in frames:
        assert not any(np.array_equal(image, one) for _, images in learned.values() for one in images)
    assert len(frames) >= 4


def test_where_it_learned_from_all_frames_another_session_is_shown(straight, store, monkeypatch):
    monkeypatch.setattr(preview, "_FRAMES", QUICK["frames"])
    batch_of(recipe(), straight[0], 2, unseen=False, store=store, device=CPU)  # other frames of the same people
    monkeypatch.setattr(preview, "_SEED", 0)  # the very frames
    with pytest.raises(DataError, match="learned from nearly all frames of 'S1000': --session 1 shows others"):
        batch_of(recipe(), straight[0], 2, unseen=False, store=store, device=CPU)
    batch_of(recipe(), straight[0], 2, unseen=False, store=store, device=CPU, session=1)


def test_what_is_not_there_is_not_shown(straight, store):
    few = batch_of(recipe(), straight[0], 4, unseen=False, store=store, device=CPU)
    assert len(few.subjects) == 3
    with pytest.raises(DataError, match="'ufe/synthetic' has sessions 0 to 1, not 2"):
        batch_of(recipe(), straight[0], 2, unseen=False, store=store, device=CPU, session=2)


def test_a_copy_of_the_weights_is_taken_as_it_is(straight, store, tmp_path):
    """Nothing is trained; without what was learned of each person it can be shown on people whom it never saw."""
    file = tmp_path / "copy.safetensors"
    file.write_bytes(straight[0].path.read_bytes())
    named = recipe(weights=str(file))
    done, told = run(Store(tmp_path), named)
    assert done.path == file and done.sha256 == straight[0].sha256 and told == []
    own = straight[0].method.config.model_copy(update={"weights": str(file)})
    assert done.method.config == named.pretraining.config == own, "its own options, not the budget's"
    with pytest.raises(ConfigError, match=r"was pre-trained with sigma=40.0, not 10.0: leave pretraining.sigma"):
        recipe(weights=str(file), sigma=10.0)
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(file.read_bytes())
    assert recipe(weights=str(elsewhere)).describe() == named.describe(), "known by what is in it"
    with pytest.raises(ArtifactError, match=r"holds weights of 'ufe/mae_novel_view', not of 'ufe/simclr'"):
        resolve_recipe(catalogue(), pretraining="simclr", overrides={"pretraining": {"weights": str(file)}})
    with pytest.raises(ArtifactError, match="nowhere.safetensors' do not exist"):
        recipe(weights=str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(ConfigError, match="leave --fresh out"):
        run(Store(tmp_path), named, fresh=True)
    with pytest.raises(ArtifactError, match=r"people.npy holds no rows of people .*--people unseen"):
        batch_of(named, done, 2, unseen=False, store=store, device=CPU)


def test_whom_it_never_saw_it_takes_for_their_anchors_or_for_the_mean_of_all(straight, store):
    done, _ = straight
    average = done.people().values(range(3)).mean(0)
    assert np.allclose(done.average_person.numpy(), average, atol=1e-6)
    batch = batch_of(recipe(), done, 2, unseen=True, store=store, device=CPU)
    source, _ = unlabelled_people(recipe().source, 5)
    held = UnlabelledPeople(recipe(), source, store, CPU)
    packed = [open_packed(path) for path in held.pack(OTHERS, held.request(OTHERS[0], 2))]
    starts = [
        done.method.person_start(Views(one.images[sorted(one.anchor_rows.values())][:, 4:])) for one in packed
    ]  # fmt: skip
    assert np.allclose(batch.people.numpy(), np.stack(starts), atol=1e-5)
    noise = recipe(person_start="noise")
    plain, told = run(store, noise)
    assert told.of("people") == []
    unknown = batch_of(noise, plain, 2, unseen=True, store=store, device=CPU).people
    assert torch.equal(unknown[0], plain.average_person) and torch.equal(unknown[0], unknown[1])


def test_a_start_of_another_shape_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(NovelView, "person_start", lambda self, views: np.zeros(3, np.float32))
    with pytest.raises(ContractError, match=r"NovelView.person_start gave \(3,\); its person_shape is \(8, 2, 2\)"):
        run(Store(tmp_path))


def test_a_training_of_another_seed_may_follow_the_same_pretraining():
    plain, other = recipe(), recipe(training={"seed": 1})
    shared = recipe(training={"seed": 1}, seed=0)
    assert plain.pretraining_key() == shared.pretraining_key() != other.pretraining_key()
    source = plain.make_source()
    people = SPLIT.train[:2]
    assert len({one.key(source, people) for one in (plain, other, shared)}) == 3


def test_damaged_weights_and_wrong_options_are_one_line(straight, store, tmp_path):
    with pytest.raises(ConfigError, match="cannot be pre-trained: it does not learn from images alone"):
        resolve_recipe(catalogue(), encoder="mean", pretraining="simclr")
    with pytest.raises(ConfigError, match="There is no pre-training: give --pretraining"):
        resolve_recipe(catalogue(), overrides={"pretraining": {"steps": 3}})
    with pytest.raises(ConfigError, match="cannot be cut into patches of 7"):
        run(store, recipe(patch=7))
    with pytest.raises(ConfigError, match="There is no weights file .*nowhere"):
        file = {"pretraining": {"file": str(tmp_path / "nowhere")}}
        made = resolve_recipe(catalogue(), budget="smoke", pretraining="imagenet", overrides=file)
        initialised(made, made.make_network(("a", "b", "c", "d"), made.make_decoder().code_space), store=store,
                    device=CPU)  # fmt: skip
    path = run(store)[0].path
    os.truncate(path, 3000)
    with pytest.raises(ArtifactError, match="truncated"):
        run(store)
    path.unlink()
    assert run(store)[0].sha256 == straight[0].sha256
