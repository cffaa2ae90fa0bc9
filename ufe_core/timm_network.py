"""Networks of timm by name, with one clear line where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from ufe_core.errors import ConfigError


def timm_network(name: str, *, inputs: int, options: Mapping[str, Any] | None = None, **more: Any) -> nn.Module:
    """A network of timm without classifier, its weights drawn.

    Args:
        name: a timm model.
        inputs: channels of the images.
        options: keyword arguments for `timm.create_model`, as a user gives them.
        more: such arguments of whoever calls.

    Raises:
        ConfigError: timm has no such model, or cannot build it with these options.
    """
    import timm

    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f" Did you mean {', '.join(near)}?" if near else " timm.list_models() names them all."
        raise ConfigError(f"timm has no model {name!r}.{hint}")
    given = dict(options or {})
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, in_chans=inputs, num_classes=0, **more, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"timm cannot build {name!r} with options {given}: {error}") from error
    return network
