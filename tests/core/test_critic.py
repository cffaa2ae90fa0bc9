"""The discriminator on codes against a second reading of eq. 15, and what it is for."""

import pytest
import torch
from torch import nn

from ufe_core.budgets import TrainingConfig
from ufe_core.training.critic import CodeCritic
from ufe_core.types import Labels

SIZE = 6


def codes(count, seed):
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def critic(**options):
    torch.manual_seed(0)
    made = CodeCritic(SIZE, TrainingConfig(**options))
    real = codes(200, 1) * torch.arange(1.0, SIZE + 1) + 3
    made.fit_statistics(Labels(real, torch.zeros(200, 6)))
    return made, real


def test_codes_are_standardised():
    made, real = critic()
    seen = []
    made.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    made(real)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(SIZE), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].std(0), torch.ones(SIZE))


def test_the_critics_term_is_equation_15():
    """With h linear in standardised codes its slope is known: no draw of points between changes the penalty."""
    made, real = critic(penalty=7.0)
    slope = torch.tensor([0.3, -0.4, 0.0, 1.2, 0.5, -0.1])
    made.layers = nn.Linear(SIZE, 1)
    with torch.no_grad():
        made.layers.weight.copy_(slope[None])
    fake = codes(200, 2)
    penalty = 7 * (float(slope.norm()) - 1) ** 2
    expected = float((made(fake).mean() - made(real).mean()).detach()) + penalty
    assert float(made.losses(fake, real)["critic"].detach()) == pytest.approx(expected, rel=1e-4)


def test_points_lie_between_the_two_codes_of_a_pair():
    made, real = critic()
    fake = codes(200, 2)
    seen = []
    made.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    made.losses(fake, real)
    between = seen[0] * made.deviation + made.mean
    share = (between - real) / (fake - real)
    assert float(share.min()) > -1e-2 and float(share.max()) < 1.01 and 0.4 < float(share.mean()) < 0.6
    torch.testing.assert_close(share.std(1), torch.zeros(200), atol=1e-2, rtol=0)


def test_each_sides_gradient_reaches_that_side_alone_and_their_signs_differ():
    made, real = critic()
    fake = codes(200, 2).requires_grad_()
    terms = made.losses(fake, real)
    (of_codes,) = torch.autograd.grad(terms["adversarial"], fake, retain_graph=True)
    expected = torch.autograd.grad(-made(fake).mean(), fake)[0]
    torch.testing.assert_close(of_codes, expected)
    assert torch.autograd.grad(terms["critic"], fake, retain_graph=True, allow_unused=True)[0] is None
    reached = torch.autograd.grad(terms["adversarial"], list(made.parameters()), retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in reached)
    own = torch.autograd.grad(terms["critic"], list(made.parameters()), allow_unused=True)
    assert all(bool((gradient != 0).any()) for gradient in own[:-1])  # the last bias moves both means alike


def test_a_trained_critic_brings_codes_to_where_the_others_are():
    """Numbers that start 3 deviations off come near, driven by the critic alone."""
    made, real = critic()
    fake = (3 * made.deviation + real[torch.randperm(200, generator=torch.Generator().manual_seed(5))]).clone()
    shift = nn.Parameter(torch.zeros(SIZE))
    optimiser = torch.optim.AdamW(
        [{"params": [shift], "lr": 0.03}, *({**group, "lr": 2e-3} for group in made.groups())]
    )
    for _ in range(400):
        terms = made.losses(fake + shift * made.deviation, real)
        optimiser.zero_grad()
        (terms["adversarial"] + terms["critic"]).backward()
        optimiser.step()
    off = ((fake + shift * made.deviation).mean(0) - real.mean(0)) / made.deviation
    assert float(off.detach().square().mean().sqrt()) < 1.0
