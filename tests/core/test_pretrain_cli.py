"""`ufe pretrain`: what it says, where it puts things, and what it refuses."""

import json

import cv2
import pytest

from ufe_core.weights import load_weights

QUICK = ("--budget", "smoke", "--decoder", "blendshape", "--device", "cpu", *(
    word for name, value in {"people": 2, "frames": 2, "steps": 2, "users": 2, "aligned": "false"}.items()
    for word in ("--set", f"pretraining.{name}={value}")
))  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UFE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def test_it_says_where_the_weights_are_and_how_fast_it_was(ufe, tmp_path):
    out = tmp_path / "mine.safetensors"
    code, text, told = ufe("pretrain", "run", *QUICK, "--out", out)
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert code == 0 and list(facts) == ["weights", "sha256", "seconds", "frames/s", "curve", "pictures", "out"]
    assert "mae_novel_view: univ on 2 people x 2 frames of 64 px, 2 steps of 4; cpu" in told
    assert "headset captures: 2/2" in told and "pre-training: 2/2, loss" in told
    assert out.stat().st_size > 1_000_000
    half, mine = tmp_path / "half.safetensors", ("--set", f"pretraining.weights={out}")
    assert ufe("pretrain", "run", *QUICK, *mine, "--out", half, "--half")[0] == 0
    assert 0.45 < half.stat().st_size / out.stat().st_size < 0.6
    assert ufe("pretrain", "run", *QUICK, "--set", f"pretraining.weights={half}", "--json")[0] == 0
    alone = tmp_path / "alone.safetensors"
    assert ufe("pretrain", "run", *QUICK, "--out", alone, "--encoder-only", "--half")[0] == 0
    everything, encoder = load_weights(half)[0], load_weights(alone)[0]
    assert encoder.keys() == {name for name in everything if name.startswith("encoder.")} < everything.keys()
    code, _, line = ufe("pretrain", "preview", *QUICK, "--set", f"pretraining.weights={alone}")
    assert code == 1 and "holds the encoder alone, which 'ufe train' takes" in line.splitlines()[-1]
    for flag in ("--half", "--encoder-only"):
        assert f"{flag} is of the file that --out names" in ufe("pretrain", "run", *QUICK, flag)[2]
    again = json.loads(ufe("pretrain", "run", *QUICK, "--json")[1])
    assert again["weights"] == facts["weights"] and again["record"]["people"] == 2


@pytest.mark.parametrize("people", ["seen", "unseen"])
def test_the_preview_is_a_picture_and_numbers(ufe, tmp_path, people):
    out = tmp_path / "picture.png"
    code, text, _ = ufe("pretrain", "preview", *QUICK, "--people", people, "--count", 2, "--out", out)
    assert code == 0 and text.startswith(f"mae_novel_view: 2 {people} people, session 0\n")
    first = [line.split()[0] for line in text.splitlines()[1:]]
    assert first[:3] == ["right", "other", "zero"] and first[-1] == "picture" and "left_mouth_front:" in first[3:-1]
    height, width, _ = cv2.imread(str(out)).shape
    assert width == 4 * 6 * 104 + 3 * 8 and height == 2 * 18 + 2 * 104


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--pretraining", "none"), "Pre-training 'none' does nothing: name another with --pretraining."),
        (("--pretraining", "imagenet"), "takes no steps: give it to 'ufe train --pretraining imagenet'"),
        (("--pretraining", "simclrr"), "Did you mean 'simclr'?"),
        (("--set", "pretraining.mask=0.5"), "Did you mean 'mask_ratio'?"),
        (("--encoder", "mean"), "cannot be pre-trained"),
        (("--set", "pretraining.people=0"), "people"),
    ],
)
def test_what_cannot_be_is_one_line(ufe, arguments, line):
    code, out, told = ufe("pretrain", "run", *arguments)
    assert code != 0 and line in told.replace("\n", " ") and "Traceback" not in told and not out
