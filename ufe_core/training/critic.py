"""The discriminator on codes (P§5.4): WGAN-GP (Gulrajani et al. 2017) between an encoder's codes and those of E_exp."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ufe_core.budgets import TrainingConfig
from ufe_core.training.processes import ALONE, Processes
from ufe_core.types import Labels

_WIDTHS = (256, 128)  # P§13.3 (O23)
_SLOPE = 0.2  # of the leaky ReLU below zero; O23 gives none
_LEAST_DEVIATION = 0.02  # of a code's number over the training frames


class CodeCritic(nn.Module):
    """h of eq. 15: how unlike E_exp's a code [B, D] is, one number each.

    Codes are standardised first, so that each of their numbers counts alike.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, config: TrainingConfig) -> None:
        super().__init__()
        self.penalty, self.rate = config.penalty, config.critic_rate
        wide, narrow = _WIDTHS
        self.layers = nn.Sequential(
            nn.Linear(size, wide), nn.LeakyReLU(_SLOPE), nn.Linear(wide, narrow), nn.LeakyReLU(_SLOPE),
            nn.Linear(narrow, 1),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def fit_statistics(self, labels: Labels) -> None:
        """Take mean and deviation of the training frames' codes."""
        self.mean.copy_(labels.expression.mean(0))
        self.deviation.copy_(labels.expression.std(0).clamp_min(_LEAST_DEVIATION))

    def forward(self, codes: Tensor) -> Tensor:
        """[B] of codes [B, D]."""
        return self.layers((codes - self.mean) / self.deviation)[:, 0]

    def losses(self, predicted: Tensor, real: Tensor, processes: Processes = ALONE) -> dict[str, Tensor]:
        """What each side minimises, of an encoder's codes and E_exp's [B, D]: two terms whose sum trains both.

        `critic` is eq. 15, whose gradient reaches this network alone; `adversarial` is -h of the predicted codes, whose
        gradient reaches the encoder alone (eq. 16 prints the same sign for both, which would part them).
        """
        made = predicted.detach()
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        drawn = torch.rand(len(made) * processes.count, 1, device=made.device)
        share = drawn[processes.share(len(drawn))]
        between = (share * made + (1 - share) * real).requires_grad_()
        (slope,) = torch.autograd.grad(self(between).sum(), between, create_graph=True)
        # In standardised codes, where h is to have a slope of 1.
        steep = torch.linalg.vector_norm(slope * self.deviation, dim=1)
        critic = self(made).mean() - self(real).mean() + self.penalty * (steep - 1).square().mean()
        return {"critic": critic, "adversarial": -functional_call(self, frozen, (predicted,)).mean()}

    def groups(self) -> list[dict[str, object]]:
        """Parameters as `Optimisation` takes them, with the rate and the moments that WGAN-GP asks for (O23)."""
        return [{"params": list(self.parameters()), "betas": (0.0, 0.9), "weight_decay": 0.0, "rate": self.rate}]
