"""`ufe train` as a user meets it, and what it shows while it works."""

import io
import json
import re

import pytest
import torch
from click.testing import CliRunner

from ufe_core.budgets import TrainingConfig, describe_budget
from ufe_core.cli.progress import TrainingDisplay
from ufe_core.cli.train import train
from ufe_core.errors import ArtifactError, ConfigError
from ufe_core.names import BUDGETS
from ufe_core.registry import load_registry
from ufe_core.training.curve import draw_curve
from ufe_core.training.progress import Progress
from ufe_core.weights import load_weights, sha256_file

TINY = ["--decoder", "blendshape", "--budget", "smoke"]
for _option in ("frames=2", "people=2", "frames_per_user=2", "steps=4", "render_frames=1"):
    TINY += ["--set", f"training.{_option}"]


@pytest.fixture
def ufe_train(tmp_path, monkeypatch):
    monkeypatch.setenv("UFE_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(train, list(arguments), catch_exceptions=True)

    return run


def squeezed(text):
    return re.sub(r"\s+", " ", text)


def test_help_teaches_budgets_options_resuming_and_places(ufe_train):
    text = squeezed(ufe_train("--help").output)
    for budget in BUDGETS:
        assert squeezed(describe_budget(budget)) in text
    for name in TrainingConfig.model_fields:
        assert f" {name} " in text
    assert "run the same command again: it goes on from the last checkpoint" in text
    assert "UFE_HOME" in text and "weights.safetensors, log.csv, curve.png; for avatars and detectors" in text


def test_it_trains_shows_where_the_weights_are_and_keeps_a_curve(ufe_train, tmp_path):
    out = tmp_path / "new" / "mine.safetensors"
    result = ufe_train(*TINY, "--calibrator", "none", "--device", "cpu", "--out", str(out))
    assert result.exit_code == 0, result.output
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(facts) == ["weights", "sha256", "seconds", "curve", "out"]
    assert sha256_file(facts["weights"]) == sha256_file(out) == facts["sha256"] and float(facts["seconds"]) > 0
    assert load_weights(out)[1]["component"] == "ufe/univ"
    with open(facts["curve"], "rb") as picture:
        assert picture.read(8) == b"\x89PNG\r\n\x1a\n"
    plan, *lines = result.stderr.splitlines()
    assert plan.startswith("univ + none through blendshape: 2 people x 2 frames of 64 px, 4 steps of 4; cpu, ")
    assert any(line.startswith("captures: 2/2") for line in lines)
    assert any(
        re.match(r"training: 4/4, loss \S+  photo \S+  geo \S+  gaze \S+  adv \S+  critic \S+$", line) for line in lines
    )

    again = ufe_train(*TINY, "--calibrator", "none", "--device", "cpu", "--json")
    found = json.loads(again.stdout)
    assert (found["sha256"], found["trained"], found["weights"]) == (facts["sha256"], False, facts["weights"])
    assert found["record"]["subjects"] == 2

    half = tmp_path / "half.safetensors"
    assert ufe_train(*TINY, "--calibrator", "none", "--device", "cpu", "--out", str(half), "--half").exit_code == 0
    (whole, spec), (halved, same) = load_weights(out), load_weights(half)
    assert spec == same and half.stat().st_size < 0.6 * out.stat().st_size
    for name, value in whole.items():
        expected = value.half() if value.is_floating_point() else value
        assert halved[name].dtype == expected.dtype and torch.equal(halved[name], expected)
    assert "give --out too" in str(ufe_train(*TINY, "--half").exception)


def test_the_people_it_trains_on_are_the_training_people(ufe_train, monkeypatch):
    from ufe_core.training import loop

    seen = []
    monkeypatch.setattr(loop, "trained", lambda recipe, subjects, **_: seen.append(subjects))
    ufe_train("--encoder", "mean", "--decoder", "blendshape")
    assert seen == [load_registry().splits["synthetic"].train] and len(seen[0]) == 234


@pytest.fixture
def avatars(monkeypatch, tmp_path):
    """Stands in for the training of a decoder; tells which recipes and people it was given."""
    from ufe_core.training import components

    seen, folder = [], tmp_path / "weights"

    def trained_component(recipe, subjects, *, listener, **_):
        seen.append((recipe, subjects))
        (folder / "pictures").mkdir(parents=True)
        (folder / "log.csv").write_text("step,learning_rate,total,geometry\n1,0.1,5,3\n2,0.1,4,2\n")
        (folder / "weights.safetensors").write_bytes(b"weights")
        listener(Progress("domes", 1, 1, {}))
        listener(Progress("train", 2, 2, {"total": 4.0, "texture": 2.0}, resumed_at=1))
        return components.TrainedComponent(folder / "weights.safetensors", "abc", {"seconds": 12.5, "subjects": 2})

    monkeypatch.setattr(components, "trained_component", trained_component)
    return seen


def test_a_decoder_alone_is_what_is_trained(ufe_train, avatars, tmp_path):
    out = tmp_path / "mine.safetensors"
    result = ufe_train("--decoder", "upm", "--budget", "smoke", "--set", "training.uv=128", "--out", str(out))
    assert result.exit_code == 0, result.output
    ((recipe, people),) = avatars
    assert recipe.training.uv == 128 and recipe.component.spec.id == "ufe/upm"
    assert people == load_registry().splits["synthetic"].train
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(facts) == ["weights", "sha256", "seconds", "curve", "pictures", "out"]
    assert out.read_bytes() == b"weights" and facts["pictures"] == str(tmp_path / "weights" / "pictures")
    plan, *lines = result.stderr.splitlines()
    assert plan.startswith("upm: dome captures of 4 people x 4 frames, 8 steps; ")
    assert "resuming after step 1 of 8" in lines and any(line.startswith("domes: 1/1") for line in lines)


def test_json_of_an_avatar_tells_where_its_pictures_are(ufe_train, avatars, tmp_path):
    found = json.loads(ufe_train("--decoder", "upm", "--budget", "smoke", "--json").stdout)
    assert found["pictures"] == str(tmp_path / "weights" / "pictures") and found["out"] is None
    assert (found["trained"], found["resumed_at"], found["record"]["subjects"]) == (True, 1, 2)


@pytest.mark.parametrize("option", [["--encoder", "mean"], ["--calibrator", "none"], ["--anchors", "neutral"]])
def test_a_decoder_beside_anything_of_an_encoder_is_what_is_seen_through(ufe_train, avatars, monkeypatch, option):
    from ufe_core.training import loop

    seen = []
    monkeypatch.setattr(loop, "trained", lambda recipe, subjects, **_: seen.append(recipe))
    ufe_train("--decoder", "blendshape", *option)
    assert not avatars and [recipe.decoder.spec.id for recipe in seen] == ["ufe/blendshape"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder", "blendshape"], "Decoder 'ufe/blendshape' learns nothing: there is nothing to train"),
        (["--decoder", "upm", "--set", "training.stepz=3"], "Did you mean 'steps'"),
        (["--decoder", "upm", "--set", "encoder.backbone=resnet18"], "--set knows source and training; not 'encoder'"),
    ],
)
def test_a_wrong_request_for_an_avatar_is_refused_in_words(ufe_train, avatars, arguments, message):
    error = ufe_train(*arguments).exception
    assert isinstance(error, ConfigError) and message in str(error) and not avatars


def test_a_folder_is_not_overwritten(ufe_train, tmp_path):
    result = ufe_train("--encoder", "mean", "--decoder", "blendshape", "--out", str(tmp_path))
    assert result.exit_code == 2 and "is a directory" in result.stderr
    assert not (tmp_path / "home").exists(), "refused before any work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "neutral"], "'ufe/neutral' learns nothing: there is nothing to train"),
        (["--set", "training.stepz=3"], "Did you mean 'steps'"),
        (
            ["--set", "metric.x=3"],
            "options can be set of: source, decoder, encoder, calibrator, detector, pretraining, training",
        ),
        (["--encoder", "mean", "--calibrator", "none"], "takes no calibrator"),
    ],
)
def test_a_wrong_request_is_refused_in_words(ufe_train, arguments, message):
    error = ufe_train(*arguments).exception
    assert isinstance(error, ConfigError) and message in str(error)


def lines_of(events, **options):
    stream = io.StringIO()
    with TrainingDisplay(stream=stream, **options) as listener:
        for event in events:
            listener(event)
    return stream.getvalue().splitlines()


def test_a_log_gets_an_occasional_line_and_the_end_of_each_stage():
    events = [
        *(Progress("data", n, 50, {}) for n in range(1, 51)),
        *(Progress("train", n, 90, {}) for n in range(1, 91)),
    ]
    assert lines_of(events, every_s=3600) == ["captures: 50/50", "training: 90/90"]
    assert len(lines_of(events, every_s=0)) == 140


def test_a_line_tells_rate_and_time_left_from_where_the_run_went_on(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("ufe_core.cli.progress.time.monotonic", lambda: next(clock))
    events = [Progress("train", done, 4000, {"gaze": 0.0123, "total": 12.5}, 1000) for done in (1000, 1020)]
    assert lines_of(events, every_s=5) == ["training: 1020/4000, 2.0/s, eta 24:50, loss 12.5  gaze 0.0123"]


def test_a_stage_that_comes_again_is_timed_anew(monkeypatch):
    clock = iter([0.0, 100.0, 1000.0, 1010.0])
    monkeypatch.setattr("ufe_core.cli.progress.time.monotonic", lambda: next(clock))
    events = [Progress("measuring", done, 40, {}) for done in (0, 40, 0, 20)]
    assert lines_of(events, every_s=5) == ["measuring: 40/40", "measuring: 20/40, 2.0/s, eta 0:10"]


def test_another_stage_can_be_named():
    assert lines_of([Progress("test", 1, 1, {})], titles={"test": "people"}) == ["people: 1/1"]


HEADER = "step,learning_rate,total,photometric,geometry,gaze\n"


def test_a_curve_needs_two_points_and_a_readable_log(tmp_path):
    log, picture = tmp_path / "log.csv", tmp_path / "curve.png"
    log.write_text(HEADER + "1,0.1,5,0,3,0.2\n")
    assert draw_curve(log, picture) is False and not picture.exists()
    log.write_text(HEADER + "1,0.1,5,0,3,0.2\n2,0.1,0.1,0,2,0.1\n")
    assert draw_curve(log, picture) is True and picture.stat().st_size > 1000
    log.write_text(HEADER + "1,0.1,5,x,3,0.2\n")
    with pytest.raises(ArtifactError, match=rf"Training log '{log}' cannot be read"):
        draw_curve(log, picture)
