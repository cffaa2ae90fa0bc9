"""How fast the simulated headset renders, beside peers that only find what is visible, in one run.

    python benchmarks/perf/render.py [--repeats 15] [--json]

Eight views of 192 x 192 of one person. Peers: Embree (`pip install ".[perf]"`), which only intersects precomputed rays
with the same triangles, and warp's own BVH rays. Ours is the finished frame: posing, rasterising, shading, sensor.
Writing is what packing a frame adds: a checksum and a file.
Methods alternate within a repeat, so a drift of the machine's clock meets all alike, and each runs a few times in a
row, so that none pays for what another left in the caches; ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread means one thread, also inside numpy

import numpy as np
import torch
import warp as wp

from ufe_core.ops.rasterize import depth_keys, interpolate, rasterize
from ufe_core.packed_file import BlockWriter, Layout
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.render import radiance, rasterise, sense
from ufe_synthetic.source import SyntheticSource

try:
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh
except ImportError:
    rtcore_scene = None  # that peer is left out

SIZE, FRAME, BATCH, ROW = 192, 9000, 16, 4


@wp.kernel
def cast(mesh: wp.uint64, origin: wp.array(dtype=wp.vec3), towards: wp.array(dtype=wp.vec3), hit: wp.array(dtype=int)):
    """The face that each ray meets first."""
    k = wp.tid()
    query = wp.mesh_query_ray(mesh, origin[k], towards[k], 1.0e4)
    hit[k] = -1
    if query.result:
        hit[k] = query.face


def main() -> None:
    """Time everything in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    methods, facts = prepare()
    for run in methods.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(arguments.repeats):
        for name, run in methods.items():
            calls = 1 if name.startswith(str(BATCH)) else ROW
            start = time.perf_counter()
            for _ in range(calls):
                run()
            times[name].append((time.perf_counter() - start) * 1000 / calls)
    median = {name: statistics.median(values) for name, values in times.items()}
    phases = ("pose", "rasterise", "shade", "sensor", "write")
    report = {
        **facts,
        "median_ms": median,
        "min_ms": {name: min(values) for name, values in times.items()},
        "share": {name: median[name] / sum(median[phase] for phase in phases) for name in phases},
        "ratios": {
            **{
                f"T1 embreex hits / {ours}": median["embreex hits"] / median[ours]
                for ours in ("finished frame", "bare rasteriser")
                if "embreex hits" in median
            },
            "T2 warp BVH hits / bare rasteriser": median["warp BVH hits"] / median["bare rasteriser"],
            "T3 R_mesh forward and backward / forward": median["R_mesh both"] / median["R_mesh forward"],
            "T4 one thread / two": median[f"{BATCH} frames, 1 thread"] / median[f"{BATCH} frames, 2 threads"],
        },
    }
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"{facts['faces']} faces, 8 views of {SIZE} x {SIZE}, {facts['covered']:.0%} covered")
    for name, value in median.items():
        print(f"{name:24s} median {value:8.2f} ms   min {min(times[name]):8.2f} ms")
    print("share of a frame: " + ", ".join(f"{name} {value:.0%}" for name, value in report["share"].items()))
    for name, value in report["ratios"].items():
        print(f"{name:44s} {value:6.2f}")


def prepare() -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """What to time, all on one frame of one person."""
    people = SyntheticSource(SyntheticConfig()).captures(["S000", "S002", "S003", "S004", "S005"])
    capture = next(one for one in people if one.conditions["jpeg_quality"] == "none")  # three sessions of four
    names = [camera.name for camera in capture.cameras]
    instant, seen = capture.see([FRAME], names, SIZE)
    linear = radiance(capture.stage, instant, seen)[0]
    cameras = [camera.resized(SIZE, SIZE) for camera in capture.cameras_at(FRAME)]
    origin, towards = rays(cameras)
    faces = seen.level.faces
    triangles = np.ascontiguousarray(seen.vertices[0].numpy()[faces.numpy()])
    mesh = wp.Mesh(wp.array(seen.vertices[0].numpy(), dtype=wp.vec3), wp.array(faces.numpy().ravel(), dtype=int))
    hit = wp.zeros(len(origin), dtype=int)
    start, along = wp.array(origin, dtype=wp.vec3), wp.array(towards, dtype=wp.vec3)
    frames = list(range(FRAME, FRAME + BATCH))
    halves = [frames[: BATCH // 2], frames[BATCH // 2 :]]
    pool = ThreadPoolExecutor(2)
    screen = seen.screen.clone().requires_grad_(True)
    colours = seen.vertices.repeat(len(names), 1, 1).requires_grad_(True)

    image = capture.frames([FRAME], cameras=names, size=SIZE)
    written = BlockWriter(Path(tempfile.mkdtemp()), "benchmark")
    written.begin(Layout.of({"frames": image}, 1, ["frames"]))

    def mesh_forward() -> torch.Tensor:
        return interpolate(screen, colours, faces, rasterize(screen, faces, height=SIZE, width=SIZE))

    methods: dict[str, Callable[[], object]] = {
        "warp BVH hits": lambda: wp.launch(cast, dim=len(origin), inputs=[mesh.id, start, along, hit]),
        "bare rasteriser": lambda: depth_keys(seen.screen, faces, height=SIZE, width=SIZE),
        "finished frame": lambda: capture.frames([FRAME], cameras=names, size=SIZE),
        "pose": lambda: capture.instant([FRAME]),
        "rasterise": lambda: rasterise(capture.stage, instant, [cameras]),
        "shade": lambda: radiance(capture.stage, instant, seen),
        "sensor": lambda: sense(linear, np.ones(len(names)), np.arange(len(names)), capture.headset.sensor, 400),
        "write": lambda: written.write(0, {"frames": image}),
        "R_mesh forward": mesh_forward,
        "R_mesh both": lambda: mesh_forward().sum().backward(),
        f"{BATCH} frames, 1 thread": lambda: capture.frames(frames, cameras=names, size=SIZE),
        f"{BATCH} frames, 2 threads": lambda: list(
            pool.map(lambda half: capture.frames(half, cameras=names, size=SIZE), halves)
        ),
    }
    if rtcore_scene is not None:
        embree = rtcore_scene.EmbreeScene()
        TriangleMesh(embree, triangles)
        methods = {"embreex hits": lambda: embree.run(origin, towards), **methods}
    methods["warp BVH hits"]()
    return methods, {"faces": len(faces), "covered": float((hit.numpy() >= 0).mean())}


def rays(cameras: list) -> tuple[np.ndarray, np.ndarray]:
    """Origin and unit direction of every pixel of every camera, float32 [R, 3] each, head coordinates."""
    column, row = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    pixels = np.stack([column, row], -1).reshape(-1, 2)
    towards = [camera.unproject(pixels) @ camera.rotation for camera in cameras]
    origin = [np.broadcast_to(camera.position, (len(pixels), 3)) for camera in cameras]
    return np.concatenate(origin).astype(np.float32), np.concatenate(towards).astype(np.float32)


if __name__ == "__main__":
    main()
