"""Batch normalisations folded into the convolutions before them: the same numbers, fewer passes over memory."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.fx import GraphModule, Tracer
from torch.nn.utils import fusion

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Tracer(Tracer):
    """Looks into no normalisation, whoever wrote it: torch's own are not looked into anyway."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BATCH_NORMS) or super().is_leaf_module(m, module_qualified_name)


@torch.no_grad()
def folded(module: nn.Module) -> nn.Module:
    """A copy for evaluation in which every normalisation that follows a convolution alone is part of it.

    Children that cannot be traced (their forward decides by values) are looked into, and stay where nothing can be
    told of them. What a normalisation does besides (timm's `BatchNormAct2d` has an activation) is kept.
    """
    made = copy.deepcopy(module).eval().requires_grad_(False)
    whole = _traced(made)
    if whole is not None:
        return whole
    _fold_children(made)
    return made


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if not any(isinstance(part, _BATCH_NORMS) for part in child.modules()):
            continue
        traced = None if isinstance(child, nn.ModuleDict | nn.ModuleList) else _traced(child)
        if traced is not None:
            setattr(module, name, traced)
        else:
            _fold_children(child)


def _traced(module: nn.Module) -> nn.Module | None:
    """The folded graph of a module, or None if there is no saying which of its parts follow which."""
    try:
        graph = GraphModule(module, _Tracer().trace(module))
    except Exception:  # tracing runs the module's own code, which may fail on stand-ins in any way
        return None
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            _fold_into(graph, node)
    graph.graph.lint()
    graph.recompile()
    return graph


def _fold_into(graph: GraphModule, node: torch.fx.Node) -> None:
    """Fold the normalisation that a node calls into the convolution whose output it alone takes, if it is so."""
    norm = graph.get_submodule(str(node.target))
    before = node.args[0] if node.args else None
    if not isinstance(norm, _BATCH_NORMS) or not isinstance(before, torch.fx.Node) or len(before.users) > 1:
        return
    if before.op != "call_module" or norm.running_mean is None:
        return
    convolution = graph.get_submodule(str(before.target))
    calls = [other for other in graph.graph.nodes if other.op == "call_module" and other.target == before.target]
    if not isinstance(convolution, _CONVOLUTIONS) or len(calls) > 1:
        return
    _replace(graph, str(before.target), fusion.fuse_conv_bn_eval(convolution, norm))
    _replace(graph, str(node.target), _rest_of(norm))


def _rest_of(norm: nn.Module) -> nn.Module:
    """What a normalisation does after normalising."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def _replace(graph: GraphModule, target: str, made: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(graph.get_submodule(parent), name, made)
