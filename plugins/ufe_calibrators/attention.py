"""Calibrators `cross_attention` and `self_attention` (P§4.5): cells of feature maps as tokens of a transformer."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ufe_calibrators.plugin import AttentionConfig
from ufe_core.interfaces.calibrator import Calibrator


class _Attention(Calibrator[AttentionConfig]):
    """What both have: maps to tokens and back, and which keys are there.

    A token knows its place in the map (sines and cosines of it) and whose it is: the frame's, or the anchor's of that
    number. One more key, learned, stands for nobody, so that there is something to attend to without anchors. What is
    found is added to the features, and is nothing at first. Every cell of the map is a token, where O9 pools them to
    6 x 6: at 192 pixels that is four times as many, and self-attention costs accordingly more than the paper's.
    """

    def __init__(self, config: AttentionConfig, *, channels: int, anchors: int) -> None:
        super().__init__(config, channels=channels, anchors=anchors)
        self.enter = nn.Linear(channels, config.width)
        self.leave = nn.Linear(config.width, channels)
        self.whose = nn.Parameter(0.02 * torch.randn(1 + anchors, config.width))
        self.nobody = nn.Parameter(0.02 * torch.randn(1, config.width))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def _frame_tokens(self, features: Tensor) -> Tensor:
        """Tokens [B, h w, W] of maps [B, K, h, w]."""
        return self._tokens(features) + self.whose[0]

    def _anchor_tokens(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [U, 1 + M h w, W] of maps [U, M, K, h, w], nobody's first, and bool [U, 1 + M h w], who is there."""
        users = len(features)
        tokens, there = [self.nobody.expand(users, 1, -1)], [present.new_ones(users, 1)]
        if self.anchors:
            cells = features.shape[-2] * features.shape[-1]
            maps = torch.where(present[:, :, None, None, None], features, 0).flatten(0, 1)
            own = self._tokens(maps).unflatten(0, (users, -1)) + self.whose[1:, None]
            tokens.append(own.flatten(1, 2))
            there.append(present.repeat_interleave(cells, 1))
        return torch.cat(tokens, 1), torch.cat(there, 1)

    def _tokens(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[-2:]
        return self.enter(maps.flatten(2).transpose(1, 2)) + _places(height, width, self.config.width, maps)

    def _added(self, features: Tensor, tokens: Tensor) -> Tensor:
        found = self.leave(tokens).transpose(1, 2).unflatten(2, tuple(features.shape[-2:]))
        return features + found


class CrossAttention(_Attention):
    """Queries are the frame's tokens, keys and values the anchors', computed once for each user."""

    def __init__(self, config: AttentionConfig, *, channels: int, anchors: int) -> None:
        super().__init__(config, channels=channels, anchors=anchors)
        self.blocks = nn.ModuleList(_CrossBlock(config) for _ in range(config.layers))

    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Each block's keys and values `k.I`, `v.I` [U, heads, N, W / heads], and `there`, bool [U, N]."""
        tokens, there = self._anchor_tokens(features, present)
        kept = {"there": there}
        for i, block in enumerate(cast("list[_CrossBlock]", self.blocks)):
            kept[f"k.{i}"], kept[f"v.{i}"] = block.keys(tokens)
        return kept

    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """The features plus what their tokens found among the anchors'."""
        tokens = self._frame_tokens(features)
        for i, block in enumerate(cast("list[_CrossBlock]", self.blocks)):
            tokens = block(tokens, cached[f"k.{i}"], cached[f"v.{i}"], cached["there"])
        return self._added(features, tokens)


class SelfAttention(_Attention):
    """One transformer over the frame's and the anchors' tokens together.

    From the second block on anchors' tokens depend on the frame. What depends on them alone is their part of the first
    block: its tokens, queries, keys and values.
    """

    def __init__(self, config: AttentionConfig, *, channels: int, anchors: int) -> None:
        super().__init__(config, channels=channels, anchors=anchors)
        self.blocks = nn.ModuleList(_SelfBlock(config) for _ in range(config.layers))

    def precompute(self, features: Tensor, present: Tensor) -> dict[str, Tensor]:
        """`tokens` [U, N, W], their `qkv` [U, 3, heads, N, W / heads] in the first block, and `there`, bool [U, N]."""
        tokens, there = self._anchor_tokens(features, present)
        return {"tokens": tokens, "qkv": cast(_SelfBlock, self.blocks[0]).qkv(tokens), "there": there}

    def forward(self, features: Tensor, cached: dict[str, Tensor]) -> Tensor:
        """The features plus what the transformer makes of their tokens."""
        own = self._frame_tokens(features)
        count = own.shape[1]
        tokens = torch.cat([own, cached["tokens"].expand(len(own), -1, -1)], 1)
        there = functional.pad(cached["there"], (count, 0), value=True)
        first = cached["qkv"].expand(len(own), -1, -1, -1, -1)
        blocks = cast("list[_SelfBlock]", self.blocks)
        qkv = torch.cat([blocks[0].qkv(own), first], 3)
        for i, block in enumerate(blocks):
            wanted = count if block is blocks[-1] else tokens.shape[1]  # nobody reads what anchors become in the last
            tokens = block(tokens, qkv if i == 0 else block.qkv(tokens), there, wanted)
        return self._added(features, tokens)


class _CrossBlock(nn.Module):
    """Attention of some tokens to others, and a perceptron; both normalise what they take and add what they find."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm, self.norm_keys = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.query, self.key_value = nn.Linear(config.width, config.width), nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.perceptron = _perceptron(config.width)

    def keys(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [U, heads, N, W / heads] of tokens [U, N, W]."""
        key, value = _split(self.key_value(self.norm_keys(tokens)), 2, self.heads).unbind(1)
        return key, value

    def forward(self, tokens: Tensor, key: Tensor, value: Tensor, there: Tensor) -> Tensor:
        """Tokens [B, T, W] after the block."""
        query = _split(self.query(self.norm(tokens)), 1, self.heads)[:, 0]
        tokens = tokens + self.out(_attend(query, key, value, there))
        return tokens + self.perceptron(tokens)


class _SelfBlock(nn.Module):
    """The same of tokens to each other."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.project, self.out = nn.Linear(config.width, 3 * config.width), nn.Linear(config.width, config.width)
        self.perceptron = _perceptron(config.width)

    def qkv(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values [B, 3, heads, N, W / heads] of tokens [B, N, W]."""
        return _split(self.project(self.norm(tokens)), 3, self.heads)

    def forward(self, tokens: Tensor, qkv: Tensor, there: Tensor, wanted: int) -> Tensor:
        """The first tokens [B, wanted, W] after the block; those not `there`, bool [B, N], are not attended to."""
        query, key, value = qkv.unbind(1)
        query, tokens = query[:, :, :wanted], tokens[:, :wanted]
        tokens = tokens + self.out(_attend(query, key, value, there))
        return tokens + self.perceptron(tokens)


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def _split(tokens: Tensor, parts: int, heads: int) -> Tensor:
    """[B, N, parts W] as [B, parts, heads, N, W / heads]."""
    return tokens.unflatten(2, (parts, heads, -1)).permute(0, 2, 3, 1, 4)


def _attend(query: Tensor, key: Tensor, value: Tensor, there: Tensor) -> Tensor:
    """What queries [B, heads, T, W / heads] find, [B, T, W]; one row of keys serves all."""
    key, value = (rows.expand(len(query), -1, -1, -1) for rows in (key, value))
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None])
    return found.transpose(1, 2).flatten(2)


def _places(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sines and cosines of a map's rows and columns, [h w, channels]: a quarter of the channels each, the rest 0."""
    quarter = channels // 4
    rates = math.pi * 2.0 ** torch.linspace(-1, math.log2(max(height, width)), quarter, device=like.device)
    row, column = ((torch.arange(n, device=like.device) + 0.5) / n for n in (height, width))
    rows, columns = (torch.cat([(at[:, None] * rates).sin(), (at[:, None] * rates).cos()], 1) for at in (row, column))
    grid = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return functional.pad(torch.cat(grid, -1).flatten(0, 1), (0, channels - 4 * quarter)).to(like.dtype)
