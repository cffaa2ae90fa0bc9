"""Batch normalisations folded into the convolutions before them: the same numbers, fewer passes over memory."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.fx import Graph, Node, Tracer
from torch.nn.utils import fusion

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Tracer(Tracer):
    """Looks into no normalisation, whoever wrote it: torch's own are not looked into anyway."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BATCH_NORMS) or super().is_leaf_module(m, module_qualified_name)


@torch.no_grad()
def folded(module: ModuleT) -> ModuleT:
    """A copy for evaluation in which every normalisation that follows a convolution alone is part of it.

    Which follow which is read off `forward`. Of modules that cannot be traced (their forward decides by values) the
    children are looked into, and stay as they are where nothing can be told of them. What a normalisation does
    besides (timm's `BatchNormAct2d` has an activation) is kept.
    """
    made = copy.deepcopy(module).eval().requires_grad_(False)
    _fold(made)
    return made


def _fold(module: nn.Module) -> None:
    if not any(isinstance(part, _BATCH_NORMS) for part in module.modules()):
        return
    graph = _traced(module)
    if graph is None:
        for child in module.children():
            _fold(child)
        return
    for name, norm_name in _followed(graph):
        convolution, norm = module.get_submodule(name), module.get_submodule(norm_name)
        if isinstance(convolution, _CONVOLUTIONS) and isinstance(norm, _BATCH_NORMS) and norm.running_mean is not None:
            _replace(module, name, fusion.fuse_conv_bn_eval(convolution, norm))
            _replace(module, norm_name, _rest_of(norm))


def _traced(module: nn.Module) -> Graph | None:
    try:
        return _Tracer().trace(module)
    except Exception:  # tracing runs the module's own code, which may fail on stand-ins in any way
        return None


def _followed(graph: Graph) -> list[tuple[str, str]]:
    """Names of modules that are called once each, the second on what the first gives, which nothing else takes."""
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    found = []
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, Node) or before.op != "call_module":
            continue
        pair = str(before.target), str(node.target)
        if len(before.users) == called.count(pair[0]) == called.count(pair[1]) == 1:
            found.append(pair)
    return found


def _rest_of(norm: nn.Module) -> nn.Module:
    """What a normalisation does after normalising."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def _replace(module: nn.Module, target: str, made: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(module.get_submodule(parent), name, made)
