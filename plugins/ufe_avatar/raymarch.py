"""R_vol of eq. 4: front-to-back marching of rays through oriented volumetric primitives (P§1.4; Lombardi et al. 2021).

The arithmetic is that of the public ava-256 release: additive opacity that saturates at 1, a slab faded towards its
faces by exp(-8 (|x|^8 + |y|^8 + |z|^8)), and samples on one grid for all primitives that a ray meets. Beyond it,
opacity that interpolates to less than 0 is none: voxels before a surface may say how far off it is, and so where it is
between them. What a ray costs grows with the primitives that it meets; memory grows with rays and such meetings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
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
    inverse of half their sizes; `slab` [B, K, D, H, W, 4], red, green, blue and opacity per unit of length, none where
    it is negative, of voxels whose outer layers lie on the faces. The axes count W, H, D. `rank` int32 [K] says when
    each is visited in the step that saturates, from 0; without it in the order of the ava-256 release.

    Raises:
        ContractError: shapes do not fit.
    """

    position: Tensor
    rotation: Tensor
    scale: Tensor
    slab: Tensor
    rank: Tensor | None = None

    def __post_init__(self) -> None:
        shape, kind = tuple(self.position.shape[:2]), self.position.dtype
        check_tensor("Primitives", "position", self.position, (*shape, 3), kind)
        check_tensor("Primitives", "rotation", self.rotation, (*shape, 3, 3), kind)
        check_tensor("Primitives", "scale", self.scale, (*shape, 3), kind)
        check_tensor("Primitives", "slab", self.slab, (*shape, "D", "H", "W", 4), kind)
        if self.rank is not None:
            check_tensor("Primitives", "rank", self.rank, shape[1:], torch.int32)
        if min(self.slab.shape[2:5]) < 2:
            raise ContractError(
                f"Primitives: slab is {list(self.slab.shape)}; slabs have 2 voxels or more along each axis."
            )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What images are differentiable in: position, rotation, scale, slab."""
        return self.position, self.rotation, self.scale, self.slab

    def visits(self) -> Tensor:
        """`rank`, or the release's."""
        return _rank(self.position.shape[1]).to(self.position.device) if self.rank is None else self.rank


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
        ContractError: shapes, types or devices do not fit, rays are of no camera, or they meet more primitives than can
            be numbered.
    """
    count, kind = len(rays), primitives.position.dtype
    check_tensor("march", "rays.origin", rays.origin, (len(primitives.position), 3), kind)
    check_tensor("march", "rays.direction", rays.direction, (count, 3), kind)
    check_tensor("march", "rays.image", rays.image, (count,), torch.int32)
    for name in ("near", "far"):
        check_tensor("march", f"rays.{name}", getattr(rays, name), (count,), kind)
    cameras = len(rays.origin)
    if count and not 0 <= int(rays.image.min()) <= int(rays.image.max()) < cameras:
        raise ContractError(f"march was given rays of cameras that are not among the {cameras}, numbered from 0.")
    if step <= 0:
        raise ContractError(f"march was given a step of {step}; it must be more than 0.")
    out, hits = _March.apply(rays, step, primitives.visits(), *primitives.tensors)
    return Marched(out[:, :3], out[:, 3], hits)


class _March(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rays: Rays, step: float, rank: Tensor, position: Tensor, rotation: Tensor, scale: Tensor, slab: Tensor
    ) -> tuple[Tensor, Tensor]:
        tensors = [tensor.detach().contiguous() for tensor in (position, rotation, scale, slab)]
        grid = _Grid.over(rays)
        out = slab.new_empty(len(rays), 4)
        hits = torch.empty(len(rays), dtype=torch.int64, device=slab.device)

        def one(some: _Grid) -> _Part:
            part = _Part(some, tensors, step, rank)
            part.march(tensors, out, hits)
            return part

        parts = _on_threads(one, grid.parts())
        ctx.parts = parts if any(ctx.needs_input_grad) else None
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(hits)
        return out, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        tensors, grad = list(ctx.saved_tensors), grads[0].contiguous()
        totals = [_zeros(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        lanes = max(1, min(_lanes(tensors[0].device), len(ctx.parts)))

        # Every lane follows all rays, but into its own primitives: no two add to the same number.
        def one(lane: int) -> None:
            for part in ctx.parts:
                part.backward(tensors, grad, totals, lane, lanes)

        _on_threads(one, list(range(lanes)))
        return (None, None, None, *totals)


def _zeros(shape: Sequence[int], kind: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; numpy has Linux give large arrays huge pages, with which 90 MB are there in a fifth of the time."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=kind, device=device)
    return torch.from_numpy(np.zeros(tuple(shape), str(kind).removeprefix("torch.")))


def _lanes(device: torch.device) -> int:
    """Warp runs a launch on one core; launches from several threads run side by side."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def _on_threads(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    if len(items) == 1 or torch.get_num_threads() == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(work, items))


@dataclass(frozen=True)
class _Grid:
    """Cells over the directions of each image's rays, and some of the rays in the order of images and cells.

    `frame` [B, 3, 3] has each image's right, down and middle as rows; cells lie in the plane at distance 1, of each
    image `sides` [B] rows and columns. `cells` [B * C + 1] says how many rays lie before each cell; `first` of them
    are not among these. `order` int32 [R] has the number of each ray in what was asked for; `rays` end `_END` later.
    """

    frame: Tensor
    low: Tensor
    per_unit: Tensor
    sides: Tensor
    cells: Tensor
    first: int
    order: Tensor
    rays: Rays

    @classmethod
    def over(cls, rays: Rays) -> _Grid:
        """The grid of rays: about one ray in each cell."""
        wp, images, count, device = warp(), len(rays.origin), len(rays), rays.direction.device
        runs = -(-count // int(_kernels().RAYS))
        direction, near = rays.direction.contiguous(), rays.near.contiguous()
        given = [wp.from_torch(rays.image.contiguous()), _vec3(direction)]
        sums = direction.new_zeros(images, 4)
        _launch("add_directions", direction, runs, [*given, _vec4(sums)])
        rays_of = sums[:, 3:]
        middle = functional.normalize(sums[:, :3] + (rays_of == 0), dim=1)
        aside = functional.one_hot(middle.abs().argmin(1), 3).to(middle.dtype)
        right = functional.normalize(torch.linalg.cross(aside, middle), dim=1)
        frame = torch.stack([right, torch.linalg.cross(middle, right), middle], 1)
        least = direction.new_full((images, 5), torch.inf)
        _launch("bound", direction, runs, [*given, _mat33(frame), _WIDE, _vec5(least)])
        low, high, wide = least[:, :2], -least[:, 2:4], least[:, 4:] < _WIDE
        side = torch.where(wide, 1, rays_of.sqrt().ceil().clamp(1, _MOST_CELLS_ASIDE))
        per_unit = side / (high - low).clamp_min(1e-6)
        low, per_unit = torch.where(wide, -1e20, low).contiguous(), torch.where(wide, 5e-21, per_unit).contiguous()
        sides = torch.where(rays_of == 0, 0, side)[:, 0].int()
        strip = int(_kernels().STRIP)
        most = int((-(-sides // strip) * strip * sides).max()) if images else 0
        cell = torch.empty(count, dtype=torch.int32, device=device)
        cells = _zeros([images * most + 2], torch.int32, device)
        _launch("number", direction, runs, [
            *given, _mat33(frame), _WIDE, _vec2(low), _vec2(per_unit), wp.from_torch(sides), most, wp.from_torch(cell),
            wp.from_torch(cells),
        ])  # fmt: skip
        cells = cells.cumsum(0, dtype=torch.int32)
        order, image, far = torch.empty_like(cell), torch.empty_like(cell), torch.empty_like(near)
        moved = Rays(rays.origin.contiguous(), torch.empty_like(direction), image, torch.empty_like(near), far)
        _launch("arrange", direction, runs, [
            *given, wp.from_torch(near), wp.from_torch(rays.far.contiguous()), _END, wp.from_torch(cell),
            wp.from_torch(cells), wp.from_torch(order), wp.from_torch(moved.image), _vec3(moved.direction),
            wp.from_torch(moved.near), wp.from_torch(moved.far),
        ])  # fmt: skip
        return cls(frame, low, per_unit, sides, cells[:-1], 0, order, moved)

    def parts(self) -> list[_Grid]:
        """The same grid with some of the rays each, for threads and memory."""
        rays, count = self.rays, len(self.rays)
        size = min(_MOST_RAYS, max(_LEAST_RAYS, -(-count // _lanes(self.order.device))))
        pieces = zip(
            range(0, count, size), self.order.split(size), rays.direction.split(size), rays.image.split(size),
            rays.near.split(size), rays.far.split(size), strict=False,
        )  # fmt: skip
        return [
            replace(self, first=first, order=order, rays=Rays(rays.origin, *some))
            for first, order, *some in pieces
        ]  # fmt: skip


class _Part:
    """Some rays that are marched, and what going back takes."""

    def __init__(self, grid: _Grid, tensors: list[Tensor], step: float, rank: Tensor) -> None:
        self.grid, self._step, self._rank = grid, step, rank
        self._gather(tensors)

    def march(self, tensors: list[Tensor], out: Tensor, hits: Tensor) -> None:
        """Write colour and opacity into `out` [R, 4] and how many primitives are met into `hits` [R], of all rays."""
        rays = self.grid.rays
        self._last_colour = rays.direction.new_empty(len(rays), 4)
        self._last = torch.empty(len(rays), 2, dtype=torch.int32, device=out.device)
        self._launch("march", self._runs, [
            *self._arguments(tensors), _vec4(out), warp().from_torch(hits), _vec4(self._last_colour),
            _pairs(self._last),
        ])  # fmt: skip

    def backward(self, tensors: list[Tensor], grad: Tensor, totals: list[Tensor], lane: int, lanes: int) -> None:
        """Add the gradients of position, rotation, scale and slab to `totals`, those of every `lanes`-th primitive."""
        position, rotation, scale, slab = totals
        self._launch("march_backward", self._runs, [
            *self._arguments(tensors), lane, lanes, _vec4(grad), _vec4(self._last_colour), _pairs(self._last),
            _vec3(position), _mat33(rotation), _vec3(scale), _vec4(slab.view(-1, 4)),
        ])  # fmt: skip

    def _gather(self, tensors: list[Tensor]) -> None:
        """Which primitives each ray meets, by first sample; those of ray r from `_start[r]` on."""
        grid, rays, wp = self.grid, self.grid.rays, warp()
        images, primitives = tensors[0].shape[:2]
        count = torch.zeros(len(rays), dtype=torch.int32, device=rays.direction.device)
        start = count.new_zeros(len(rays) + 1)
        cover = count.new_empty(images, primitives, 4)
        runs = images, -(-primitives // int(_kernels().PRIMITIVES))
        common = [
            _vec3(tensors[0]), _mat33(tensors[1]), _vec3(tensors[2]), _vec3(rays.origin), _mat33(grid.frame),
            _vec2(grid.low), _vec2(grid.per_unit), wp.from_torch(grid.sides), wp.from_torch(grid.cells), grid.first,
            _vec3(rays.direction), wp.from_torch(rays.near), wp.from_torch(rays.far), self._step,
            wp.from_torch(cover, dtype=wp.vec4i), wp.from_torch(start), wp.from_torch(count),
        ]  # fmt: skip
        self._make_room(0)
        self._launch("gather", runs, [*common, 0, *self._hits()])
        total = int(count.sum(dtype=torch.int64))
        if total > _MOST_HITS:
            raise ContractError(
                f"{len(rays)} rays meet primitives {total} times; {_MOST_HITS} can be numbered. March fewer rays at a "
                "time."
            )
        torch.cumsum(count, 0, out=start[1:])
        self._start = start
        self._make_room(total)
        count.zero_()
        self._launch("gather", runs, [*common, 1, *self._hits()])
        self._launch("sort", self._runs, [wp.from_torch(start), *self._hits()])

    def _make_room(self, hits: int) -> None:
        """For which primitive each hit is of [hits], and the numbers of its first and last sample [hits, 2]."""
        self._primitive, self._span = (self._rank.new_empty(shape) for shape in ((hits,), (hits, 2)))

    def _hits(self) -> list[Any]:
        return [warp().from_torch(self._primitive), _pairs(self._span)]

    def _arguments(self, tensors: list[Tensor]) -> list[Any]:
        wp, rays = warp(), self.grid.rays
        position, rotation, scale, slab = tensors
        depth, height, width = slab.shape[2:5]
        return [
            wp.from_torch(self.grid.order), wp.from_torch(rays.image), _vec3(position), _mat33(rotation), _vec3(scale),
            _vec4(slab.view(-1, 4)), wp.vec3i(width, height, depth), wp.from_torch(self._rank), _vec3(rays.origin),
            _vec3(rays.direction), wp.from_torch(rays.near), self._step, wp.from_torch(self._start), *self._hits(),
        ]  # fmt: skip

    @property
    def _runs(self) -> int:
        return -(-len(self.grid.rays) // int(_kernels().RAYS))

    def _launch(self, name: str, size: Any, inputs: list[Any]) -> None:
        _launch(name, self.grid.rays.direction, size, inputs)


def _launch(name: str, like: Tensor, size: Any, inputs: list[Any]) -> None:
    """Run a kernel of the type and on the device of `like`."""
    wp, kernel = warp(), getattr(_kernels_of(like.dtype), name)
    load(kernel.module, like.device)
    with wp.ScopedDevice(wp.device_from_torch(like.device)):
        wp.launch(kernel, dim=size, inputs=inputs)


def _vec2(tensor: Tensor) -> Any:
    return warp().from_torch(tensor, dtype=_kernels_of(tensor.dtype).vec2)


def _vec3(tensor: Tensor) -> Any:
    return warp().from_torch(tensor, dtype=_kernels_of(tensor.dtype).vec3)


def _vec4(tensor: Tensor) -> Any:
    return warp().from_torch(tensor, dtype=_kernels_of(tensor.dtype).vec4)


def _vec5(tensor: Tensor) -> Any:
    return warp().from_torch(tensor, dtype=_kernels_of(tensor.dtype).vec5)


def _mat33(tensor: Tensor) -> Any:
    return warp().from_torch(tensor, dtype=_kernels_of(tensor.dtype).mat33)


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
