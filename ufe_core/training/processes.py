"""Training in several processes at once, as `torchrun` starts them: each takes some people of every batch.

Together they take the steps that one process would take: normalisations see the statistics of the whole batch, and
gradients are means over all of it.
"""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as collective

from ufe_core.errors import ConfigError

_PATIENCE = datetime.timedelta(hours=24)  # the others wait while the first one packs captures

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Processes:
    """Who trains: process `rank` of `count`, from 0."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Those that `torchrun` started with this one; alone where it did not."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
            atexit.register(_leave)  # left to the interpreter's end, threads of the group may abort it
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this one writes files and tells of progress."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process' part of so many people.

        Raises:
            ConfigError: they cannot be shared evenly.
        """
        if total % self.count:
            raise ConfigError(
                f"A batch of {total} people cannot be shared by {self.count} processes: set training.users to a "
                "multiple of their number."
            )
        own = total // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def in_turn(self, work: Callable[[], ValueT]) -> ValueT:
        """Do something in the first process, then in the others, which find what it made."""
        if self.first:
            made = work()
            self.wait()
            return made
        self.wait()
        return work()

    def agree(self, value: bool) -> bool:
        """Whether it is so in any of them."""
        if self.count == 1:
            return value
        flag = torch.tensor(float(value), device=self._device())
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            dist.barrier()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over the processes; what only some of them use has none in the others."""
        if self.count == 1:
            return
        grads = self._gradients(list(parameters))
        if not grads:
            return
        together = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(together)
        for grad, mean in zip(grads, (together / self.count).split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def _gradients(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Gradients of what any process uses, in the same order in all; zero where this one does not use it."""
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self._device())
        dist.all_reduce(used, dist.ReduceOp.MAX)
        grads = []
        for parameter, anywhere in zip(parameters, used.tolist(), strict=True):
            if not anywhere:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grads.append(parameter.grad)
        return grads

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means of numbers over the processes."""
        if self.count == 1:
            return values
        together = torch.stack([value.detach() for value in values.values()])
        dist.all_reduce(together)
        return dict(zip(values, together / self.count, strict=True))

    def share_statistics(self, module: nn.Module) -> None:
        """Let batch normalisations of a module see the batch of all processes."""
        if self.count == 1:
            return
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.__class__ = _shared(type(part), self.count)

    def _device(self) -> torch.device:
        return (
            torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        )


ALONE = Processes()


def _leave() -> None:
    """End what `join` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _shared(kind: type[Any], count: int) -> type[Any]:
    """A batch normalisation of this kind whose means and variances, in training, are those of all processes."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = kind.forward(self, x)
            return out
        over = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        values = x if x.dtype in (torch.float32, torch.float64) else x.float()
        both = torch.stack([values.mean(over), values.square().mean(over)])
        mean, square = collective.all_reduce(both) / count
        variance = (square - mean.square()).clamp_min(0)  # rounding may take it below
        with torch.no_grad():
            seen = count * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (seen / (seen - 1)), self.momentum)
            self.num_batches_tracked += 1
        y = (values - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        for name in ("drop", "act"):  # timm's normalisations have an activation
            rest = getattr(self, name, None)
            y = rest(y) if isinstance(rest, nn.Module) else y
        return y.to(x.dtype)

    return type(f"Shared{kind.__name__}", (kind,), {"forward": forward})
