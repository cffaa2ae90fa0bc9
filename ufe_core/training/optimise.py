"""Steps of AdamW that nothing stops: checkpoints, resume to the same bits, Ctrl-C (P§7.5)."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ufe_core.budgets import ScheduleConfig
from ufe_core.errors import ArtifactError, UfeError
from ufe_core.memory import keep_pages
from ufe_core.training.processes import ALONE, Processes
from ufe_core.training.progress import Listener, Progress
from ufe_core.training.rows import RowTable
from ufe_core.weights import load_weights, save_weights

CHECKPOINT_EVERY_S = 30.0
_LOG_ROWS = 200
_ROWS_IN_MEMORY = 4096  # changed rows of a table; so many make a checkpoint due

ItemT = TypeVar("ItemT")


class Optimisation:
    """AdamW on a module; everything that it keeps goes through its checkpoint.

    Args:
        module: what is trained.
        beside: what helps to train it and is trained with it, such as a discriminator; its gradients are clipped apart.
        groups: parameters of both, as `torch.optim.AdamW` takes them; one with a `rate` learns at that all along.
        schedule: steps and rates.
        checkpoint: the file.
        component: whose checkpoint it is.
        owner: whose options the steps and rates are, as `--set` names them.
        listener: told of progress.
        processes: who trains; the first of them writes checkpoints and tells.
        rows: a table of which each step's loss gathers a few rows, which are trained with it.
    """

    def __init__(
        self, module: nn.Module, groups: Iterable[dict[str, Any]], schedule: ScheduleConfig, checkpoint: Path, *,
        component: str, owner: str = "training", listener: Listener | None = None, beside: nn.Module | None = None,
        processes: Processes = ALONE, rows: RowTable | None = None,
    ) -> None:  # fmt: skip
        self.module, self.schedule, self.checkpoint, self.component = module, schedule, checkpoint, component
        self._owner = owner
        self.processes, self.rows = processes, rows
        self._parts = {"model": module} if beside is None else {"model": module, "beside": beside}
        self.tell: Listener = (lambda progress: None) if listener is None else listener
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.98), fused=True)
        self.step, self.seconds = 0, 0.0
        self.log: list[list[float]] = []
        self.running: dict[str, float] = {}
        self.facts: dict[str, Any] = {}  # JSON values that whoever trains wants to know again after a kill

    def restore(self) -> bool:
        """Go on from the checkpoint; False if there is none. A damaged one is named and left behind."""
        found = self._read_checkpoint()
        if found is None:
            if self.rows is not None:
                self.rows.reset()
            return False
        tensors, spec = found
        for part, module in self._parts.items():
            prefix = f"{part}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, field = name.split(".")
                parameter = parameters[int(index)]
                # The moments must lie in memory as their parameter does: another order may round otherwise.
                placed = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                state.setdefault(int(index), {})[field] = placed
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.seconds = int(spec["step"]), float(spec["seconds"])
        self.log, self.running = [list(row) for row in spec["log"]], dict(spec["running"])
        self.facts = dict(spec.get("facts", {}))
        if self.rows is not None:
            self.rows.restore({k.removeprefix("rows."): v for k, v in tensors.items() if k.startswith("rows.")})
        return True

    def _read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if not self.checkpoint.is_file():
            return None
        try:
            if self.rows is not None and not self.rows.was_there:
                raise ArtifactError(f"The table of people's rows beside {self.checkpoint} is missing or damaged.")
            return load_weights(self.checkpoint)
        except ArtifactError as error:
            logging.getLogger("ufe").warning("%s Training starts from the beginning.", error)
            return None

    def run(
        self, batches: Generator[tuple[int, ItemT], None, None], losses: Callable[[ItemT], dict[str, Tensor]], *,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S, after: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        """Take the remaining steps.

        Args:
            batches: of the remaining steps, each with its number.
            losses: the terms of a batch's loss by name, and their weighted sum, `total`.
            checkpoint_every_s: seconds between checkpoints; Ctrl-C writes one after the step that is under way.
            after: called with the number of steps done, after each.

        Raises:
            UfeError: the gradient is not finite.
            KeyboardInterrupt: Ctrl-C; the checkpoint is written.
        """
        keep_pages()
        schedule, before, first = self.schedule, self.seconds, self.step
        started = saved = time.monotonic()
        with contextlib.closing(batches), _Interrupt() as interrupt:
            for step, batch in batches:
                torch.manual_seed((schedule.seed * schedule.steps + step) % 2**63)
                rate = learning_rate(schedule, step)
                for group in self.optimizer.param_groups:
                    group["lr"] = group.get("rate", rate)
                terms = losses(batch)
                self.optimizer.zero_grad()
                terms["total"].backward()
                for part in self._parts.values():
                    self.processes.average_gradients(part.parameters())
                learning = [[p for p in part.parameters() if p.grad is not None] for part in self._parts.values()]
                norms = [torch.nn.utils.clip_grad_norm_(some, schedule.clip_norm) for some in learning if some]
                if not bool(torch.isfinite(torch.stack(norms)).all()):  # a GPU is waited for once
                    raise UfeError(
                        f"Training diverged at step {step}: the gradient is not finite. "
                        f"Try --set {self._owner}.learning_rate= with a smaller value."
                    )
                self.optimizer.step()
                if self.rows is not None:
                    self.rows.step(rate)
                self.step = step + 1
                values = self.processes.mean(terms)
                numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
                self._record(rate, dict(zip(values, numbers, strict=True)))
                self.tell(Progress("train", self.step, schedule.steps, dict(self.running), first))
                if after is not None:
                    after(self.step)
                now, last = time.monotonic(), self.step == schedule.steps
                asked = self.processes.agree(interrupt.asked)
                full = self.rows is not None and self.rows.changed >= _ROWS_IN_MEMORY
                if asked or (not last and (full or now - saved >= checkpoint_every_s)):
                    self.seconds = before + now - started
                    if self.processes.first:
                        self._save_checkpoint()
                    saved = now
                if asked:
                    self.processes.wait()
                    raise KeyboardInterrupt
        self.seconds = before + time.monotonic() - started
        if self.rows is not None and self.rows.changed:  # what is on disk must be what a checkpoint says
            self._save_checkpoint()

    def log_csv(self) -> bytes:
        """Running means of the losses, at most a few hundred rows."""
        text = io.StringIO()
        csv.writer(text).writerows([["step", "learning_rate", *self._columns()], *self.log])
        return text.getvalue().encode()

    def _columns(self) -> list[str]:
        return sorted(self.running, key=lambda name: (name != "total", name))

    def _record(self, rate: float, values: dict[str, float]) -> None:
        running, steps = self.running, self.schedule.steps
        for name, value in values.items():
            running[name] = value if name not in running else 0.95 * running[name] + 0.05 * value
        if self.step % max(1, steps // _LOG_ROWS) == 0 or self.step == steps:
            self.log.append([self.step, rate, *(running[name] for name in self._columns())])

    def _save_checkpoint(self) -> None:
        tensors: dict[str, Tensor] = {
            f"{part}.{k}": v for part, module in self._parts.items() for k, v in module.state_dict().items()
        }
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        spec = {
            "component": self.component, "config": {}, "step": self.step, "log": self.log, "running": self.running,
            "seconds": self.seconds, "facts": self.facts,
        }  # fmt: skip
        if self.rows is not None:
            tensors |= {f"rows.{name}": value for name, value in self.rows.pending().items()}
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_weights(self.checkpoint, tensors, spec)
        if self.rows is not None:
            self.rows.commit()


class _Interrupt:
    """Holds Ctrl-C back until the step is done, so that no checkpoint has half of one; a second goes through.

    Only the main thread is told of Ctrl-C, so in any other this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate (P§7.5, P§13.3 O26)."""
    if step < schedule.warmup:
        return schedule.learning_rate * (step + 1) / schedule.warmup
    part = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    span = schedule.learning_rate - schedule.final_rate
    return schedule.final_rate + span * 0.5 * (1 + math.cos(math.pi * part))
