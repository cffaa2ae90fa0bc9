"""How fast R_vol marches: against torch and against C++ on the same hits, and as primitives grow in number.

    python benchmarks/perf/raymarch.py [--size 128] [--repeats 9] [--json]

The scene: boxes of 8 x 8 x 8 voxels over the outer head, twice its area in all, so thin that no ray saturates, sampled
100 times along a ray that meets them, seen from the front. Torch is given, free of charge, which samples of which
rays fall into which boxes, and computes on two threads; ours is the whole call. C++ (compiled here, if there is a
compiler) is given the sorted hit lists and marches on one thread, as our march does. Rounds alternate.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufe_avatar.raymarch import Primitives, Rays, _Grid, _Part, march
from ufe_core.head import SKIN, load_head

COUNTS = (256, 1024, 4096)
TARGETS = {
    "torch / ours, forward": 6.0, "torch / ours, forward and backward": 5.0, "our march / C++ march": 2.0,
    "4096 / 256 boxes": 1.5,
}  # fmt: skip
_SAMPLES, _VOXELS, _RADIUS_MM = 100, 8, 256.0
_EYE = torch.tensor([[0.0, 0.0, 2.3]])  # straight ahead, units of 256 mm


@dataclass(frozen=True)
class Scene:
    """Rays and boxes, and the step that takes 100 samples."""

    rays: Rays
    boxes: Primitives
    step: float


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points, each the farthest from those before."""
    chosen, distance = [0], np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


def surface(samples: int = 40_000) -> tuple[np.ndarray, np.ndarray, float]:
    """Points on the skin, their normals, and its area; in units of 256 mm."""
    head = load_head()
    faces = head.faces[(head.part[head.faces] == SKIN).all(1)]
    a, b, c = (head.template[faces[:, k]].astype(np.float64) / _RADIUS_MM for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1) / 2
    rng = np.random.default_rng(0)
    face = rng.choice(len(faces), samples, p=area / area.sum())
    u, v = np.sort(rng.uniform(size=(2, samples)), axis=0)
    points = (a[face].T * u + b[face].T * (v - u) + c[face].T * (1 - v)).T
    return points, cross[face] / (2 * area[face])[:, None], float(area.sum())


def scene(count: int, size: int) -> Scene:
    """The scene of so many boxes in an image of `size` x `size` rays."""
    points, normals, area = surface()
    chosen = farthest_points(points, count)
    normal = torch.from_numpy(normals[chosen])
    aside = torch.tensor([0.0, 1.0, 0.1], dtype=torch.float64).expand_as(normal)
    right = torch.nn.functional.normalize(torch.linalg.cross(aside, normal), dim=1)
    rotation = torch.stack([right, torch.linalg.cross(normal, right), normal], 2)
    half = (2 * area / count) ** 0.5 / 2
    generator = torch.Generator().manual_seed(0)
    slab = torch.rand(1, count, _VOXELS, _VOXELS, _VOXELS, 4, generator=generator)
    slab[..., 3] *= 0.3
    boxes = Primitives(
        torch.from_numpy(points[chosen]).float()[None], rotation.float()[None],
        torch.full((1, count, 3), 1 / half), slab,
    )  # fmt: skip
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(place, place, indexing="ij")
    towards = torch.stack([-x, y, -torch.full_like(x, 3.7)], -1).reshape(-1, 3)
    rays = Rays.through_cube(
        _EYE, torch.nn.functional.normalize(towards, dim=1), torch.zeros(size**2, dtype=torch.int32)
    )
    met = march(rays, boxes, step=0.004).hits > 0
    length = _length_inside(rays, boxes)[met].mean()
    return Scene(rays, boxes, float(length) / _SAMPLES)


def _length_inside(rays: Rays, boxes: Primitives) -> Tensor:
    """Length of each ray inside boxes; where they overlap it counts once."""
    fine = 0.001
    thin = Primitives(boxes.position, boxes.rotation, boxes.scale, torch.zeros_like(boxes.slab))
    part = _Part(_Grid.over(rays), [t.contiguous() for t in thin.tensors], fine, thin.visits())
    out = torch.zeros(len(rays))
    for row, (first, stop) in enumerate(zip(part._start[:-1].tolist(), part._start[1:].tolist(), strict=True)):
        samples = {n for a, b in part._span[first:stop].tolist() for n in range(a, b + 1)}
        out[part.grid.order[row]] = len(samples) * fine
    return out.clamp_min(fine)


def samples_of(part: _Part, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ray, primitive and distance of every sample inside a box."""
    ray = torch.repeat_interleave(torch.arange(len(part.grid.rays)), part._start.diff().long())
    first, last = part._span.long().unbind(1)
    count = (last - first + 1).clamp_min(0)
    hit = torch.repeat_interleave(torch.arange(len(ray)), count)
    number = torch.arange(len(hit)) - (count.cumsum(0) - count)[hit] + first[hit]
    return ray[hit], part._primitive[hit].long(), part.grid.rays.near[ray[hit]] + number * step


def torch_march(part: _Part, boxes: Primitives, samples: tuple[Tensor, Tensor, Tensor], step: float) -> Tensor:
    """What the rays of a part see, in torch alone; they must not saturate."""
    ray, box, distance = samples
    point = part.grid.rays.origin[0] + part.grid.rays.direction[ray] * distance[:, None]
    offset = (point - boxes.position[0, box])[:, None]
    y = boxes.scale[0, box] * torch.bmm(offset, boxes.rotation[0, box])[:, 0]
    place = (y + 1) * ((_VOXELS - 1) / 2)
    low = place.detach().floor().clamp(0, _VOXELS - 2)
    share, low = place - low, low.long()
    flat = boxes.slab.view(-1, 4)
    base = ((box * _VOXELS + low[:, 2]) * _VOXELS + low[:, 1]) * _VOXELS + low[:, 0]
    value = torch.zeros(len(box), 4)
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                weight = [share[:, k] if bit else 1 - share[:, k] for k, bit in enumerate((dx, dy, dz))]
                value = (
                    value
                    + flat[base + (dz * _VOXELS + dy) * _VOXELS + dx] * (weight[0] * weight[1] * weight[2])[:, None]
                )
    inside = (y.detach().abs() < 1).all(1)
    opacity = value[:, 3] * torch.exp(-8 * (y**8).sum(1)) * step * inside
    seen = torch.cat([value[:, :3] * opacity[:, None], opacity[:, None]], 1)
    return torch.zeros(len(part.grid.rays), 4).index_add(0, ray, seen)


def compiled_march(part: _Part, boxes: Primitives, step: float) -> Callable[[], Tensor] | None:
    """The same march in C++ on the same hit lists; None where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "march.so"
        source = Path(__file__).with_name("raymarch.cpp")
        subprocess.run(
            [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)], check=True
        )
        call = ctypes.CDLL(str(library)).march
    out = torch.zeros(len(part.grid.rays), 4)
    ray = torch.repeat_interleave(torch.arange(len(part.grid.rays)), part._start.diff().long())
    rays = part.grid.rays
    enter, leave = (rays.near[ray] + (part._span[:, k] + half) * step for k, half in enumerate((-0.5, 0.5)))
    tensors = [
        part._start, part._primitive, enter, leave, rays.near, rays.far, rays.origin,
        rays.direction, boxes.position, boxes.rotation, boxes.scale, boxes.slab, out,
    ]  # fmt: skip
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]

    def run() -> Tensor:
        call(len(rays), ctypes.c_float(step), *pointers)
        return out

    run.keep = tensors  # type: ignore[attr-defined]
    return run


def timed(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each; rounds alternate, the first does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values[1:]) for name, values in seconds.items()}


def with_threads(count: int, run: Callable[[], Any]) -> Callable[[], Any]:
    """The call on so many threads."""

    def call() -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return run()
        finally:
            torch.set_num_threads(before)

    return call


def measure(size: int, repeats: int) -> dict[str, Any]:
    """Every time and ratio."""
    scenes = {count: scene(count, size) for count in COUNTS}
    middle = scenes[1024]
    tensors = [t.contiguous() for t in middle.boxes.tensors]
    part = _Part(_Grid.over(middle.rays), tensors, middle.step, middle.boxes.visits())
    seen = torch.zeros(len(middle.rays), 4), torch.zeros(len(middle.rays), dtype=torch.int64)
    samples = samples_of(part, middle.step)

    def ours(of: Scene, backward: bool) -> Tensor:
        boxes = Primitives(*(t.requires_grad_(backward) for t in of.boxes.tensors))
        seen = march(of.rays, boxes, step=of.step)
        if backward:
            torch.autograd.grad(seen.colour.sum() + seen.opacity.sum(), boxes.tensors)
        return torch.cat([seen.colour, seen.opacity[:, None]], 1).detach()

    def theirs(backward: bool) -> Tensor:
        boxes = Primitives(*(t.requires_grad_(backward) for t in middle.boxes.tensors))
        seen = torch_march(part, boxes, samples, middle.step)
        if backward:
            torch.autograd.grad(seen.sum(), boxes.tensors)
        return seen.detach()

    error = float((ours(middle, False)[part.grid.order] - theirs(False)).abs().max())
    runs: dict[str, Callable[[], Any]] = {
        "ours, 1 thread": with_threads(1, lambda: ours(middle, False)),
        "ours, 2 threads": with_threads(2, lambda: ours(middle, False)),
        "torch, 2 threads": with_threads(2, lambda: theirs(False)),
        "ours, forward and backward, 1 thread": with_threads(1, lambda: ours(middle, True)),
        "ours, forward and backward, 2 threads": with_threads(2, lambda: ours(middle, True)),
        "torch, forward and backward, 2 threads": with_threads(2, lambda: theirs(True)),
        "march alone, 1 thread": lambda: part.march(tensors, *seen),
        **{f"{count} boxes, 1 thread": with_threads(1, partial(ours, scenes[count], False)) for count in (256, 4096)},
    }
    native = compiled_march(part, middle.boxes, middle.step)
    if native is not None:
        runs["C++ march, 1 thread"] = native
        error = max(error, float((native() - theirs(False)).abs().max()))
    times = timed(runs, repeats)
    ratios = {
        "torch / ours, forward": times["torch, 2 threads"] / times["ours, 1 thread"],
        "torch / ours, forward and backward": times["torch, forward and backward, 2 threads"]
        / times["ours, forward and backward, 1 thread"],
        "4096 / 256 boxes": times["4096 boxes, 1 thread"] / times["256 boxes, 1 thread"],
        "1 / 2 threads, forward": times["ours, 1 thread"] / times["ours, 2 threads"],
        "1 / 2 threads, forward and backward": times["ours, forward and backward, 1 thread"]
        / times["ours, forward and backward, 2 threads"],
    }
    if native is not None:
        ratios["our march / C++ march"] = times["march alone, 1 thread"] / times["C++ march, 1 thread"]
    return {
        "rays": len(middle.rays), "samples": len(samples[0]), "largest_difference": error,
        "median_ms": times, "ratios": ratios, "targets": TARGETS,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="rays along a side of the image")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.size, options.repeats)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['rays']} rays, {found['samples']} samples, largest difference {found['largest_difference']:.1e}")
    for name, milliseconds in found["median_ms"].items():
        print(f"{name:42}{milliseconds:9.1f} ms")
    for name, ratio in found["ratios"].items():
        target = TARGETS.get(name)
        print(f"{name:42}{ratio:9.2f}" + (f"   target {target:g}" if target else ""))


if __name__ == "__main__":
    main()
