"""Folded networks are the same networks; a live encoder says what its encoder says."""

import pytest
import timm
import torch
from torch import nn

from ufe_core.errors import ArtifactError, ContractError
from ufe_core.inference import onnx as onnx_module
from ufe_core.inference.fold import folded
from ufe_core.inference.live import LiveEncoder, for_inference
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.types import AnchorSet, CodeSpace, Encoding, FrameBatch

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
SIZE = 64


def unsettled(module):
    """Normalisations that have left their starting values."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, std=0.2, generator=generator)
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def norms(module):
    """How many normalisations there are; a traced module may keep what they normalise with, and not them."""
    return sum(name.endswith("running_mean") for name in module.state_dict())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "efficientnet_b0"])
def test_a_folded_backbone_has_no_normalisation_and_the_same_output(name):
    torch.manual_seed(0)
    network = unsettled(timm.create_model(name, in_chans=1, num_classes=0)).double()
    images = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    made = folded(network)
    assert norms(network) > 10 and norms(made) == 0
    torch.testing.assert_close(made(images), network(images), atol=1e-9, rtol=1e-9)


def test_what_cannot_be_folded_stays():
    """A normalisation before its convolution, one that shares its input, one whose module decides by values."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.shared = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

        def forward(self, x):
            if x.sum() > 1e9:
                return x
            y = self.conv(self.first(x))
            return self.inner(y + self.shared(y))

    torch.manual_seed(0)
    network, images = unsettled(Odd()), torch.randn(2, 3, 5, 5)
    made = folded(network)
    assert norms(network) == 3 and norms(made) == 2
    torch.testing.assert_close(made(images), network(images))


class Branches(nn.Module):
    """Two convolutions that share a normalisation, beside one of its own, behind a method that is not `forward`."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.shared = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.last, self.own = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def features(self, x):
        return self.shared(self.one(x)) + self.shared(self.other(x))

    def forward(self, x):
        return self.own(self.last(self.features(x)))


def test_a_normalisation_of_two_convolutions_stays_as_it_is_in_neither():
    torch.manual_seed(0)
    network, images = unsettled(Branches()).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    made = folded(network)
    assert norms(network) == 2 and norms(made) == 1
    torch.testing.assert_close(made(images), network(images))


def test_a_folded_child_keeps_its_methods():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = timm.create_model("resnet10t", in_chans=1, num_classes=0)

        def forward(self, x):
            return self.backbone.forward_features(x).mean() if x.sum() > 0 else x

    torch.manual_seed(0)
    network, images = unsettled(Whole()).double(), torch.rand(2, 1, 32, 32, dtype=torch.float64)
    made = folded(network)
    assert norms(network) > 10 and norms(made) == 0
    torch.testing.assert_close(made(images), network(images), atol=1e-9, rtol=1e-9)


def encoder_of(calibrator, size=SIZE, backbone="mobilenetv3_small_050"):
    recipe = resolve_recipe(
        catalogue(), calibrator=calibrator, budget="smoke",
        overrides={"training": {"size": size}, "encoder": {"backbone": backbone}},
    )  # fmt: skip
    encoder = unsettled(recipe.make_encoder(CAMERAS, CodeSpace("test", 9)))
    nn.init.normal_(encoder.fuse[-1].weight, std=0.3)
    encoder.fingerprint = "this"
    images = torch.randint(0, 256, (1, len(recipe.anchors), 4, size, size), dtype=torch.uint8)
    return encoder, encoder.enroll(AnchorSet.complete(images, recipe.anchors, CAMERAS))


def frames(count, seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 4, size, size), dtype=torch.uint8, generator=generator)


CALIBRATORS = ["none", "late_fusion", "early_fusion", "pooling", "cross_attention", "self_attention"]


@pytest.mark.parametrize(
    ("calibrator", "runtime"), [*((name, "torch") for name in CALIBRATORS), ("late_fusion", "onnx")]
)
def test_a_live_encoder_says_what_its_encoder_says(calibrator, runtime, device):
    """Of one frame after another."""
    if runtime == "onnx" and device.type == "cuda":
        pytest.skip("ONNX Runtime is for the CPU here")
    encoder, calibration = encoder_of(
        calibrator, backbone="resnet10t" if runtime == "onnx" else "mobilenetv3_small_050"
    )
    encoder, calibration = encoder.to(device), calibration.to(device)
    live = LiveEncoder(encoder, calibration, batch=2, runtime=runtime)
    assert live.runtime == runtime
    for seed in (0, 1):
        images = frames(2, seed).to(device)
        found, expected = live(images), encoder.encode(FrameBatch.single_user(images, CAMERAS), calibration)
        torch.testing.assert_close(found.expression, expected.expression, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.gaze, expected.gaze, atol=1e-4, rtol=0)
        assert expected.expression.std() > 0.05


def test_the_copy_for_inference_takes_the_same_calibrations_and_leaves_the_original_alone():
    encoder, calibration = encoder_of("late_fusion")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    made = for_inference(encoder)
    assert norms(made) == 0 < norms(encoder)
    images = FrameBatch.single_user(frames(3), CAMERAS)
    torch.testing.assert_close(
        made.encode(images, calibration).expression, encoder.encode(images, calibration).expression, atol=1e-4, rtol=0
    )
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_what_a_live_encoder_refuses():
    encoder, calibration = encoder_of("late_fusion")
    live = LiveEncoder(encoder, calibration, runtime="torch")
    for images in (frames(2), frames(1, size=32), frames(1).float()):
        with pytest.raises(ContractError, match=r"takes uint8 images \[1, 4, 64, 64\]"):
            live(images)
    other, _ = encoder_of("late_fusion")
    other.fingerprint = "that"
    with pytest.raises(ContractError, match="made by encoder this, not by that"):
        LiveEncoder(other, calibration)
    both = type(calibration)(
        "this", {name: value.repeat_interleave(2, 0) for name, value in calibration.tensors.items()}
    )
    with pytest.raises(ContractError, match="one wearer"):
        LiveEncoder(encoder, both)


def test_where_nothing_is_asked_for_what_onnx_lacks_runs_in_torch(monkeypatch, caplog):
    encoder, calibration = encoder_of("none", backbone="resnet10t")
    plain = type(encoder)._encode

    def odd(self, images, kept):
        found = plain(self, images, kept)
        return Encoding(torch.special.bessel_j0(found.expression), found.gaze)

    monkeypatch.setattr(type(encoder), "_encode", odd)
    live = LiveEncoder(encoder, calibration)
    assert live.runtime == "torch" and "cannot be exported to ONNX" in caplog.text
    expected = encoder.encode(FrameBatch.single_user(frames(1), CAMERAS), calibration)
    torch.testing.assert_close(live(frames(1)).expression, expected.expression, atol=1e-4, rtol=0)
    with pytest.raises(ArtifactError, match="cannot be exported to ONNX"):
        LiveEncoder(encoder, calibration, runtime="onnx")


def test_what_this_onnx_runtime_cannot_run_runs_in_torch(caplog, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def too_new(*_, **__):
        raise RuntimeError("Unsupported model IR version: 99\nmore")

    encoder, calibration = encoder_of("late_fusion")
    monkeypatch.setattr(onnx_module, "_model", lambda *_: b"a model")
    monkeypatch.setattr(runtime, "InferenceSession", too_new)
    assert LiveEncoder(encoder, calibration).runtime == "torch"
    assert "ONNX Runtime cannot run UnivEncoder: Unsupported model IR version: 99 It runs in torch" in caplog.text
    with pytest.raises(ArtifactError, match="cannot run UnivEncoder"):
        LiveEncoder(encoder, calibration, runtime="onnx")
