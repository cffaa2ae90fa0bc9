"""R_vol of eq. 4: front-to-back marching of rays through oriented volumetric primitives (P§1.4; Lombardi et al. 2021).

The arithmetic is that of the public ava-256 release: additive opacity that saturates at 1, a slab faded towards its
faces by exp(-8 (|x|^8 + |y|^8 + |z|^8)), and samples on one grid for all primitives that a ray meets. What a ray costs
grows with the primitives that it meets; memory grows with rays and with such meetings.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ufe_core.errors import ContractError
from ufe_core.ops.kernels import load, warp
from ufe_core.types import check_tensor

_MOST_CELLS_ASIDE = 512
_WIDE = 0.2  # cosine: images with rays further from their middle than this are not divided into cells
_LEAST_RAYS = 512  # that are worth a thread
_MOST_RAYS = 2**18  # marched at a time
_MOST_HITS = 2**31 - 1
_END = 1e-5


@dataclass(frozen=True)
class Primitives:
    """K oriented boxes in each of B volumes: the slabs M of eq. 4.

    `position` [B, K, 3] their centres; `rotation` [B, K, 3, 3], whose columns are their axes; `scale` [B, K, 3], the
    inverse of half their sizes; `slab` [B, K, D, H, W, 4], red, green, blue and opacity per unit of length, not
    negative, of voxels whose outer layers lie on the faces. The axes count W, H, D.

    Raises:
        ContractError: shapes do not fit.
    """

    position: Tensor
    rotation: Tensor
    scale: Tensor
    slab: Tensor

    def __post_init__(self) -> None:
        shape, kind = tuple(self.position.shape[:2]), self.position.dtype
        check_tensor("Primitives", "position", self.position, (*shape, 3), kind)
        check_tensor("Primitives", "rotation", self.rotation, (*shape, 3, 3), kind)
        check_tensor("Primitives", "scale", self.scale, (*shape, 3), kind)
        check_tensor("Primitives", "slab", self.slab, (*shape, "D", "H", "W", 4), kind)
        if min(self.slab.shape[2:5]) < 2:
            raise ContractError(
                f"Primitives: slab is {list(self.slab.shape)}; slabs have 2 voxels or more along each axis."
            )


@dataclass(frozen=True)
class Rays:
    """R rays, in any order, of B cameras.

    `origin` [B, 3] the cameras' places; `direction` [R, 3] unit vectors; `image` int32 [R] which camera and volume a
    ray belongs to; `near` and `far` [R] between which distances it is marched.
    """

    origin: Tensor
    direction: Tensor
    image: Tensor
    near: Tensor
    far: Tensor

    @classmethod
    def through_cube(cls, origin: Tensor, direction: Tensor, image: Tensor, half_size: float = 1.0) -> Rays:
        """Rays that are marched where they pass the cube |x|, |y|, |z| <= `half_size`."""
        start = origin[image.long()]
        away = torch.where(direction == 0, torch.finfo(direction.dtype).tiny, direction)
        a, b = (-half_size - start) / away, (half_size - start) / away
        near = torch.minimum(a, b).amax(1).clamp_min(0)
        return cls(origin, direction, image, near, torch.maximum(a, b).amin(1))

    def __len__(self) -> int:
        return len(self.direction)


@dataclass(frozen=True)
class Marched:
    """What rays saw: `colour` [R, 3], times opacity; `opacity` [R] in [0, 1]; `hits` int64 [R], primitives met."""

    colour: Tensor
    opacity: Tensor
    hits: Tensor


def march(rays: Rays, primitives: Primitives, *, step: float) -> Marched:
    """March rays through primitives.

    Args:
        rays: of as many cameras as there are volumes; lengths in the primitives' unit.
        primitives: float32 or float64; the result is differentiable in all four tensors, not in the rays.
        step: distance between samples.

    Raises:
        ContractError: shapes, types or devices do not fit, or the rays meet more primitives than can be numbered.
    """
    count, kind = len(rays), primitives.position.dtype
    check_tensor("march", "rays.origin", rays.origin, (len(primitives.position), 3), kind)
    check_tensor("march", "rays.direction", rays.direction, (count, 3), kind)
    check_tensor("march", "rays.image", rays.image, (count,), torch.int32)
    for name in ("near", "far"):
        check_tensor("march", f"rays.{name}", getattr(rays, name), (count,), kind)
    if step <= 0:
        raise ContractError(f"march was given a step of {step}; it must be more than 0.")
    out, hits = _March.apply(rays, step, primitives.position, primitives.rotation, primitives.scale, primitives.slab)
    return Marched(out[:, :3], out[:, 3], hits)


class _March(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rays: Rays, step: float, position: Tensor, rotation: Tensor, scale: Tensor, slab: Tensor
    ) -> tuple[Tensor, Tensor]:
        tensors = [tensor.detach().contiguous() for tensor in (position, rotation, scale, slab)]
        order, parts = _sorted_parts(rays)
        _kernels_of(slab.dtype)  # before threads ask for them
        marches = _on_threads(lambda part: _Part(part, tensors, step), parts)
        out = torch.zeros(len(rays), 4, dtype=slab.dtype, device=slab.device)
        hits = torch.zeros(len(rays), dtype=torch.int64, device=slab.device)
        for part, rows in zip(marches, order, strict=True):
            out[rows], hits[rows] = part.out, part.hits
        ctx.order, ctx.marches = order, marches if any(ctx.needs_input_grad) else None
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(hits)
        return out, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        tensors = list(ctx.saved_tensors)
        jobs = [(part, grads[0][rows].contiguous()) for part, rows in zip(ctx.marches, ctx.order, strict=True)]
        threads = _threads(len(jobs), tensors[0].device)

        def one(lane: int) -> list[Tensor]:
            total = [torch.zeros_like(tensor) for tensor in tensors]
            for part, grad in jobs[lane::threads]:
                part.backward(tensors, grad, total)
            return total

        first, *others = _on_threads(one, list(range(threads)))
        for other in others:
            for mine, more in zip(first, other, strict=True):
                mine += more
        return (None, None, *first)


def _threads(jobs: int, device: torch.device) -> int:
    """Warp runs a launch on one core; launches from several threads run side by side."""
    return max(1, min(torch.get_num_threads(), jobs)) if device.type == "cpu" else 1


def _on_threads(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    if len(items) == 1 or torch.get_num_threads() == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(work, items))


def _sorted_parts(rays: Rays) -> tuple[list[Tensor], list[Rays]]:
    """The rays sorted by image and divided for threads and memory: which rays each part has, and the parts."""
    order = torch.argsort(rays.image, stable=True)
    lanes = torch.get_num_threads() if rays.direction.device.type == "cpu" else 1
    size = min(_MOST_RAYS, max(_LEAST_RAYS, -(-len(rays) // lanes)))
    rows = list(order.split(size)) if len(rays) else []
    return rows, [
        Rays(rays.origin, rays.direction[some], rays.image[some], rays.near[some], rays.far[some]) for some in rows
    ]


@dataclass(frozen=True)
class _Grid:
    """Cells over the directions of each image's rays, and the rays in the order of their cells.

    `frame` [B, 3, 3] has each image's right, down and middle as rows; cells lie in the plane at distance 1.
    """

    frame: Tensor
    low: Tensor
    per_unit: Tensor
    sides: Tensor
    cells: Tensor
    order: Tensor

    @classmethod
    def over(cls, rays: Rays) -> _Grid:
        """The grid of rays: about one ray in each cell."""
        images, image, kind = len(rays.origin), rays.image.long(), rays.direction.dtype
        device = rays.direction.device
        count = torch.bincount(image, minlength=images)
        middle = torch.zeros(images, 3, dtype=kind, device=device).index_add(0, image, rays.direction)
        middle = functional.normalize(middle + (count == 0)[:, None], dim=1)
        aside = functional.one_hot(middle.abs().argmin(1), 3).to(kind)
        right = functional.normalize(torch.linalg.cross(aside, middle), dim=1)
        frame = torch.stack([right, torch.linalg.cross(middle, right), middle], 1)
        seen = (frame[image] @ rays.direction[..., None])[..., 0]
        depth = torch.full((images,), torch.inf, dtype=kind, device=device).scatter_reduce(0, image, seen[:, 2], "amin")
        flat = seen[:, :2] / seen[:, 2:].clamp_min(_WIDE)
        where = image[:, None].expand(-1, 2)
        low = torch.full((images, 2), torch.inf, dtype=kind, device=device).scatter_reduce(0, where, flat, "amin")
        high = torch.full((images, 2), -torch.inf, dtype=kind, device=device).scatter_reduce(0, where, flat, "amax")
        side = torch.where(depth < _WIDE, 1, count.double().sqrt().ceil().long().clamp(1, _MOST_CELLS_ASIDE))
        per_unit = side[:, None] / (high - low).clamp_min(1e-6)
        wide = (depth < _WIDE)[:, None]
        low, per_unit = torch.where(wide, -1e20, low), torch.where(wide, 5e-21, per_unit)
        column, row = (
            ((flat - low[image]) * per_unit[image]).long().clamp_min(0).minimum(side[image, None] - 1).unbind(1)
        )
        strip = int(_kernels().STRIP)
        number = (row // strip * side[image] + column) * strip + row % strip
        most = int((-(-side // strip) * strip * side).max()) if images else 0
        order = torch.argsort(image * most + number, stable=True)
        ends = torch.bincount(image * most + number, minlength=images * most).cumsum(0)
        cells = functional.pad(ends.view(images, most), (1, 0))
        cells[1:, 0] = ends.view(images, most)[:-1, -1]
        return cls(
            frame.contiguous(), low.contiguous(), per_unit.contiguous(), torch.where(count > 0, side, 0).int(),
            cells.int().contiguous(), order,
        )  # fmt: skip


class _Part:
    """Some rays marched, and what going back takes: `out` [R, 4] and `hits` [R] in the order of the rays."""

    def __init__(self, rays: Rays, tensors: list[Tensor], step: float) -> None:
        grid = _Grid.over(rays)
        self._order, self._step, self._origin = grid.order, step, rays.origin.contiguous()
        self._image, self._direction = rays.image[grid.order], rays.direction[grid.order]
        self._near, self._limit = rays.near[grid.order], rays.far[grid.order] + _END
        self._rank = _rank(tensors[0].shape[1]).to(rays.direction.device)
        self._gather(grid, tensors)
        out = self.march(tensors)
        self.out, self.hits = torch.empty_like(out), torch.empty_like(grid.order)
        self.out[grid.order], self.hits[grid.order] = out, self._start.diff().long()

    def march(self, tensors: list[Tensor]) -> Tensor:
        """Colour and opacity [R, 4] of the rays in the grid's order."""
        size = len(self._direction)
        out, self._last_colour = (self._direction.new_zeros(size, 4) for _ in range(2))
        self._last = torch.empty(size, 2, dtype=torch.int32, device=out.device)
        self._launch("march", -(-size // int(_kernels().RAYS)), [
            *self._arguments(tensors), self._vec4(out),
            self._vec4(self._last_colour), _pairs(self._last),
        ])  # fmt: skip
        return out

    def backward(self, tensors: list[Tensor], grad: Tensor, total: list[Tensor]) -> None:
        """Add the gradients of position, rotation, scale and slab to `total`."""
        position, rotation, scale, slab = total
        self._launch("march_backward", -(-len(grad) // int(_kernels().RAYS)), [
            *self._arguments(tensors), self._vec4(grad[self._order].contiguous()), self._vec4(self._last_colour),
            _pairs(self._last), self._vec3(position), self._mat33(rotation), self._vec3(scale),
            self._vec4(slab.view(-1, 4)),
        ])  # fmt: skip

    def _gather(self, grid: _Grid, tensors: list[Tensor]) -> None:
        """Which primitives each ray meets, by first sample; those of ray r from `_start[r]` on."""
        rays, device = len(self._direction), self._direction.device
        wp = warp()
        runs = (len(self._origin), -(-tensors[0].shape[1] // int(_kernels().PRIMITIVES)))
        common = [
            self._vec3(tensors[0]), self._mat33(tensors[1]), self._vec3(tensors[2]), self._vec3(self._origin),
            self._mat33(grid.frame), wp.from_torch(grid.low, dtype=self._module.vec2),
            wp.from_torch(grid.per_unit, dtype=self._module.vec2), wp.from_torch(grid.sides),
            wp.from_torch(grid.cells), self._vec3(self._direction), wp.from_torch(self._near),
            wp.from_torch(self._limit), self._step,
        ]  # fmt: skip
        count = torch.zeros(rays, dtype=torch.int32, device=device)
        self._start = torch.zeros(rays + 1, dtype=torch.int32, device=device)
        self._make_room(0)
        self._launch("gather", runs, [*common, wp.from_torch(self._start), 0, wp.from_torch(count), *self._hits()])
        total = int(count.sum(dtype=torch.int64))
        if total > _MOST_HITS:
            raise ContractError(
                f"{rays} rays meet primitives {total} times; {_MOST_HITS} can be numbered. March fewer rays at a time."
            )
        self._start[1:] = count.cumsum(0)
        self._make_room(total)
        count.zero_()
        self._launch("gather", runs, [*common, wp.from_torch(self._start), 1, wp.from_torch(count), *self._hits()])
        self._launch("sort", -(-rays // int(_kernels().RAYS)), [wp.from_torch(self._start), *self._hits()])

    def _make_room(self, hits: int) -> None:
        """For which primitive each hit is of [hits], and the numbers of its first and last sample [hits, 2]."""
        self._primitive, self._span = (self._rank.new_empty(shape) for shape in ((hits,), (hits, 2)))

    def _hits(self) -> list[Any]:
        return [warp().from_torch(self._primitive), _pairs(self._span)]

    def _arguments(self, tensors: list[Tensor]) -> list[Any]:
        wp = warp()
        position, rotation, scale, slab = tensors
        depth, height, width = slab.shape[2:5]
        return [
            wp.from_torch(self._image), self._vec3(position), self._mat33(rotation), self._vec3(scale),
            self._vec4(slab.view(-1, 4)), wp.vec3i(width, height, depth), wp.from_torch(self._rank),
            self._vec3(self._origin), self._vec3(self._direction), wp.from_torch(self._near), self._step,
            wp.from_torch(self._start), *self._hits(),
        ]  # fmt: skip

    @property
    def _module(self) -> Any:
        return _kernels_of(self._direction.dtype)

    def _vec3(self, tensor: Tensor) -> Any:
        return warp().from_torch(tensor, dtype=self._module.vec3)

    def _vec4(self, tensor: Tensor) -> Any:
        return warp().from_torch(tensor, dtype=self._module.vec4)

    def _mat33(self, tensor: Tensor) -> Any:
        return warp().from_torch(tensor, dtype=self._module.mat33)

    def _launch(self, name: str, size: Any, inputs: list[Any]) -> None:
        wp, kernel, device = warp(), getattr(self._module, name), self._direction.device
        load(kernel.module, device)
        with wp.ScopedDevice(wp.device_from_torch(device)):
            wp.launch(kernel, dim=size, inputs=inputs)


def _pairs(tensor: Tensor) -> Any:
    wp = warp()
    return wp.from_torch(tensor, dtype=wp.vec2i)


@cache
def _rank(count: int) -> Tensor:
    """When each of K primitives is visited in the step that saturates, int32 [K].

    The order is a walk, left to right, through the leaves of an implicit complete binary tree of K leaves: the
    deepest ones come first, which are the last of the row above completed.
    """
    full = 1 << (count - 1).bit_length() if count > 1 else 1
    return ((torch.arange(count) - (full - count)) % count).int()


@cache
def _kernels() -> Any:
    warp()
    from ufe_avatar import raymarch_warp

    return raymarch_warp


def _kernels_of(kind: torch.dtype) -> Any:
    wp = warp()
    return _kernels().kernels(wp.float64 if kind == torch.float64 else wp.float32)
