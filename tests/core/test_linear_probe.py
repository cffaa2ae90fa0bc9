"""What a linear probe does with the outputs of the frozen encoder before it learns."""

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
