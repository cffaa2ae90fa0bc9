"""What a linear probe does with the outputs of the frozen encoder before it learns."""

from types import SimpleNamespace

import torch
from torch import nn

from ufe_core.linear_probe import LinearProbe
from ufe_core.types import CodeSpace, Encoding


class Says(nn.Module):
    """Stands in for an encoder: says what it was given."""

    calibrated = uses_rig = False
    config = needs = None

    def __init__(self, size):
        super().__init__()
        self.code_space = CodeSpace("code", size)

    def forward(self, said, _):
        return Encoding(said[:, :-6], said[:, -6:])


def test_directions_in_which_outputs_vary_are_learned_as_fast():
    """Correlated outputs of very unequal size: whitened, but for directions too faint to say anything."""
    drawn = torch.Generator().manual_seed(0)
    sizes = torch.tensor([30.0, 3.0, 1.0, 0.3, 1e-4, 0, 0, 0, 0, 0])
    turn = torch.linalg.qr(torch.randn(10, 10, generator=drawn)).Q
    said = torch.randn(4000, 10, generator=drawn) * sizes @ turn * torch.logspace(-2, 2, 10) + 5
    probe = LinearProbe(Says(4))
    probe.fit_outputs([(part, None) for part in said.split(1000)])
    white = (said - probe.output_mean) / probe.output_std @ probe.output_map
    found, before = torch.linalg.eigvalsh(torch.cov(white.T)), torch.linalg.eigvalsh(torch.corrcoef(said.T))
    torch.testing.assert_close(found, before / (before + 1e-3), atol=0.01, rtol=0)
    assert before[-1] > 100 * before[-3] and found[-1] > 0.99 and found[-3] > 0.5
    assert found[:5].max() < 0.02 and white.mean(0).abs().max() < 1e-3


class Images(nn.Module):
    """Stands in for an encoder of images: a network that says outputs of which all but the mean is faint."""

    calibrated = uses_rig = False
    config = needs = None
    code_space = CodeSpace("code", 4)

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(12, 10)
        nn.init.normal_(self.network.weight, std=0.02)
        nn.init.constant_(self.network.bias, 3.0)

    def _encode(self, frames, _):
        said = self.network(frames.images.flatten(1))
        return Encoding(said[:, :-6], said[:, -6:])

    def forward(self, frames, calibration):
        return self._encode(frames, calibration)


def test_a_training_in_bfloat16_probes_what_an_encoder_says_in_full():
    """Faint directions are magnified, and bfloat16 would round them away."""
    torch.manual_seed(0)
    probe = LinearProbe(Images())
    frames = SimpleNamespace(images=torch.randn(400, 3, 4))
    probe.fit_outputs([(frames, None)])
    nn.init.normal_(probe.linear.weight)
    expected = probe._encode(frames, None)
    with torch.autocast("cpu", torch.bfloat16):
        found = probe._encode(frames, None)
    assert torch.equal(found.expression, expected.expression) and torch.equal(found.gaze, expected.gaze)
