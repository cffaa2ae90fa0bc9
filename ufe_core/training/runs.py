"""What every training run does alike: where it computes, how it waits and keeps time."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import torch

from ufe_core.budgets import Precision
from ufe_core.errors import UfeError

TIMING = "timing.json"


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or a GPU if there is one.

    Raises:
        UfeError: the device is not there, or there is none of that name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UfeError("No GPU is usable here (torch.cuda.is_available() is false). Use --device cpu.")
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun starts a process for each GPU
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return device
    except RuntimeError as error:
        raise UfeError(f"There is no device {name!r}. Use auto, cpu, cuda or cuda:N.") from error


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether the networks run in bfloat16: by choice, else where the hardware has it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return "avx512_bf16" in _cpu_flags() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def tell_wait(holder: str) -> None:
    """Say that another process trains the same."""
    logging.getLogger("ufe").warning("The same training is under way in %s; waiting for it.", holder)


def seconds_beside(file: Path) -> float:
    """How long training took; kept beside the weights, whose bytes must not depend on it."""
    try:
        return float(json.loads((file.parent / TIMING).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
