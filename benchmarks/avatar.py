"""How well the avatar `upm` shows people it never saw: reconstruction beside floors, codes across people, gaze control.

    python benchmarks/avatar.py [--people 32] [--weights FILE] [--out FOLDER]

Writes results.json and the picture subjects.jpg. What each part measures is told by its function.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from ufe_avatar.codec import CODE_SIZE, READ_TEXELS
from ufe_avatar.eyeballs import gaze_matrix, gaze_of
from ufe_avatar.mesh_render import MeshRenderer
from ufe_avatar.plugin import UpmConfig
from ufe_avatar.upm import UpmDecoder
from ufe_avatar.views import Views, camera_around
from ufe_avatar.volume_render import srgb
from ufe_bench.aggregate import PairedDifference, Summary, paired_difference, summarise
from ufe_core.head import load_head
from ufe_core.ops.rasterize import interpolate, rasterize
from ufe_core.packed_dome import DomeRequest, PackedDome, pack_domes
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.types import CameraSpec, Identity
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.source import SyntheticCapture, SyntheticSource

FRAMES, TRAINING_FRAMES, NEUTRAL_TEXELS, HEIGHT = 8, 16, 256, 384
GAZE_DEGREES = (-20, -10, 0, 10, 20)
_EYE_PX = 256
_IRIS_COSINE, _LEAST_IRIS_PX = np.cos(np.radians(35)), 1500  # what is compared: the iris and a little around it
_VIEWS = (-45.0, 0.0, 45.0)

ItemT = TypeVar("ItemT")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=32, help="how many of the test subjects")
    parser.add_argument("--weights", default="released", help="as decoder.weights")
    parser.add_argument("--out", type=Path, default=Path("docs/avatar"))
    arguments = parser.parse_args()
    split, source, store = load_registry().splits["synthetic"], SyntheticSource(SyntheticConfig()), Store()
    people = split.test[: arguments.people]
    decoder = UpmDecoder(UpmConfig(weights=arguments.weights)).eval().requires_grad_(False)
    with torch.inference_mode():
        seen = pack_domes(source, list(people), _request(FRAMES), store=store)
        learnt = pack_domes(source, list(split.train), _request(TRAINING_FRAMES), store=store)
        report = {
            "people": len(people), "frames": FRAMES, "avatar": decoder.code_space.name,
            "reconstruction": reconstruction(decoder, seen, learnt),
            "across_people": across_people(decoder, source, people),
            "gaze": gaze_control(decoder, seen[: min(8, len(seen))]),
        }  # fmt: skip
        arguments.out.mkdir(parents=True, exist_ok=True)
        _write(arguments.out / "subjects.jpg", subject_sheet(decoder, source, people[:: max(1, len(people) // 2)][:2]))
    text = json.dumps(report, indent=1)
    (arguments.out / "results.json").write_text(text + "\n")
    print(text)


def reconstruction(
    decoder: UpmDecoder, seen: Sequence[PackedDome], learnt: Sequence[PackedDome]
) -> dict[str, dict[str, Any]]:
    """Read a frame's code from its exact texture and mesh, decode it, compare with the dome's image, mesh and texture.

    Beside it, rendered as a textured mesh: the person's neutral face; the neutral plus a linear PCA of as many numbers
    as the code has, of how meshes and textures of the training people differ from neutral, both scaled to the same
    variance; and the true mesh with its true texture, as far as a mesh can show it; and the avatar less the PCA, person
    by person. Pixels count where the true mesh is seen above the shoulders. L1 of 255, PSNR in dB, mesh in mm over
    the face, texture L1 of 255 at 64 texels.
    """
    pca = _Pca(learnt)
    render = MeshRenderer(decoder.topology)
    face = torch.from_numpy(decoder.topology.region("face"))
    eyes = [torch.from_numpy(decoder.topology.region(f"eye_{side}")) for side in ("left", "right")]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dome in _told(seen, "reconstruction"):
        count = len(dome.frames)
        mesh, image = torch.from_numpy(dome.geometry[:].copy()), torch.from_numpy(dome.images[:, 0].copy()) / 255
        texture = torch.from_numpy(dome.texture[:].copy()) / 255
        resting = torch.from_numpy(dome.neutral_geometry.copy()).expand(count, -1, -1)
        painted = (torch.from_numpy(dome.neutral_texture.copy()) / 255).expand(count, -1, -1, -1)
        small = (torch.from_numpy(dome.resting_texture.copy()) / 255).expand(count, -1, -1, -1)
        rotation, translation, focal, centre = (
            torch.from_numpy(getattr(dome, name)[:, 0].copy())
            for name in ("rotation", "translation", "focal", "centre")
        )
        views = Views(rotation, translation, focal, centre, image.shape[-1], image.shape[-2])
        counted = _head_pixels(decoder, mesh, views)

        code = decoder.read(texture, mesh, small, resting)
        identity = decoder.identity(painted[:1], resting[:1]).rows(torch.zeros(count, dtype=torch.int64))
        avatar = decoder.decode(code, gaze_of(mesh, resting, eyes), identity)
        moved, changed = pca(mesh - resting, texture - small)
        shown = {
            "upm": (
                avatar.geometry, small + _resized(decoder.texture_of(avatar) - painted, READ_TEXELS),
                decoder.render_views(avatar, views),
            ),
            "neutral": (resting, small, render(resting, painted, views)[0]),
            "pca": (
                resting + moved, small + changed,
                render(resting + moved, (painted + _resized(changed, NEUTRAL_TEXELS)).clamp(0, 1), views)[0],
            ),
            "true mesh and texture": (
                mesh, texture,
                render(mesh, (painted + _resized(texture - small, NEUTRAL_TEXELS)).clamp(0, 1), views)[0],
            ),
        }  # fmt: skip
        for name, (geometry, unwrapped, made) in shown.items():
            wrong = (made - image) * counted
            square = wrong.square().sum((1, 2, 3)) / (3 * counted.sum((1, 2, 3)))
            values = {
                "image_l1": 255 * float((wrong.abs().sum((1, 2, 3)) / (3 * counted.sum((1, 2, 3)))).mean()),
                "psnr_db": float((-10 * square.log10()).mean()),
                "mesh_mm": float((geometry - mesh)[:, face].norm(dim=-1).mean()),
                "texture_l1": 255 * float((unwrapped - texture).abs().mean()),
            }
            for key, value in values.items():
                found.setdefault(name, {}).setdefault(key, {})[dome.subject] = value
    rows = {name: {key: _interval(summarise(values)) for key, values in row.items()} for name, row in found.items()}
    apart = {key: paired_difference(values, found["pca"][key]) for key, values in found["upm"].items()}
    return {**rows, "upm - pca": {key: _interval(value) for key, value in apart.items()}}


def across_people(decoder: UpmDecoder, source: SyntheticSource, people: Sequence[str]) -> dict[str, Any]:
    """Decode with person B what was read from person A, and compare with B doing what A did.

    Beside it, B's own code of the same doing, and B at rest. Mesh in mm over the face, texture L1 of 255.
    """
    face = torch.from_numpy(decoder.topology.region("face"))
    found: dict[str, dict[str, dict[str, float]]] = {}
    captures = source.captures(list(people))
    neutrals = {capture.subject: _neutral_of(capture) for capture in _told(captures, "resting faces")}
    for performer, b in _told(list(zip(captures, [*people[1:], people[0]], strict=True)), "across people"):
        assert isinstance(performer, SyntheticCapture)
        frames = performer.spread(FRAMES, seed=2)
        motion = performer._performance.motion(frames)
        read = torch.from_numpy(performer.texture(frames, size=READ_TEXELS)) / 255
        code = decoder.read(read, torch.from_numpy(performer.geometry(frames)), *neutrals[performer.subject][1:])
        number = int(b[1:])
        scene = source.studio(number, 0).scene
        mesh = torch.from_numpy(scene.pose(motion.expression, motion.gaze)[:, : scene.head_count])
        texture = torch.from_numpy(source.dome_of(number).texture_of(motion, size=READ_TEXELS)) / 255
        painted, small, still = neutrals[b]
        identity = decoder.identity(painted, still[:1]).rows(torch.zeros(FRAMES, dtype=torch.int64))
        gaze = torch.from_numpy(motion.gaze)
        shown = {"neutral": (still, small)}
        for name, some in (("code of A", code), ("code of B", decoder.read(texture, mesh, small, still))):
            avatar = decoder.decode(some, gaze, identity)
            shown[name] = avatar.geometry, small + _resized(decoder.texture_of(avatar) - painted, READ_TEXELS)
        for name, (geometry, unwrapped) in shown.items():
            row = found.setdefault(name, {"mesh_mm": {}, "texture_l1": {}})
            row["mesh_mm"][b] = float((geometry - mesh)[:, face].norm(dim=-1).mean())
            row["texture_l1"][b] = 255 * float((unwrapped - texture).abs().mean())
    return {name: {key: _interval(summarise(values)) for key, values in row.items()} for name, row in found.items()}


def gaze_control(decoder: UpmDecoder, seen: Sequence[PackedDome]) -> dict[str, Any]:
    """Hold the expression, turn the gaze, and find in close-up renderings how far what is seen of each eye has turned.

    That is the turn about the eyeball's middle that makes the rendering most like the one that looks ahead, searched
    without knowing the gaze; its angle from the gaze is the error.
    """
    still_code = torch.zeros(1, CODE_SIZE)
    ahead = torch.tensor([0.0, 0.0, 1.0])
    errors: dict[str, list[float]] = {}
    for dome in _told(seen, "gaze"):
        still = torch.from_numpy(dome.neutral_geometry.copy())[None]
        identity = decoder.identity(torch.from_numpy(dome.neutral_texture.copy())[None] / 255, still)
        for name in ("left", "right"):
            rows = torch.from_numpy(decoder.topology.region(f"eye_{name}"))
            middle = still[0, rows].mean(0)
            camera = _close_up(middle.numpy())
            front = _Eye(decoder, still_code, ahead, identity, camera, rows)
            for gaze in _turns():
                turned = _Eye(decoder, still_code, gaze, identity, camera, rows)
                found = _turn_between(front, turned, middle)
                cosine = float((found * gaze).sum().clamp(-1, 1))
                errors.setdefault(dome.subject, []).append(float(np.degrees(np.arccos(cosine))))
    means = {subject: float(np.mean(values)) for subject, values in errors.items()}
    every = np.concatenate(list(errors.values()))
    return {"error_deg": _interval(summarise(means)), "p95_deg": round(float(np.percentile(every, 95)), 2)}


class _Eye:
    """A close-up of one eye: its image [3, H, W], and the mesh's points [H, W, 3] where it shows the eyeball."""

    def __init__(
        self, decoder: UpmDecoder, code: Tensor, gaze: Tensor, identity: Identity, camera: CameraSpec, rows: Tensor
    ) -> None:
        avatar = decoder.decode(code, torch.cat([gaze, gaze])[None], identity)
        self.image, self.views = decoder.render(avatar, camera)[0], Views.of([camera])
        faces = torch.from_numpy(decoder.topology.faces.astype(np.int32))
        screen = self.views.project(avatar.geometry)
        ids = rasterize(screen, faces, height=_EYE_PX, width=_EYE_PX)
        eyeball = torch.isin(faces.long(), rows).all(1)
        self.shown = (ids >= 0)[0] & eyeball[ids[0].clamp_min(0).long()]
        self.points = interpolate(screen, avatar.geometry, faces, ids)[0]


def _turns() -> list[Tensor]:
    """Gazes to try, unit vectors: left and right, up and down."""
    pairs = [(azimuth, 0) for azimuth in GAZE_DEGREES if azimuth] + [(0, altitude) for altitude in (-10, 10)]
    return [_towards(*pair) for pair in pairs]


def _towards(azimuth_deg: float, altitude_deg: float) -> Tensor:
    x, y = np.sin(np.radians([azimuth_deg, altitude_deg]))
    return torch.tensor([x, y, np.sqrt(1 - x * x - y * y)], dtype=torch.float32)


def _turn_between(front: _Eye, turned: _Eye, middle: Tensor) -> Tensor:
    """Where an eye looks, a unit vector: the turn that correlates best, to a quarter of a degree."""
    points, seen = turned.points[turned.shown] - middle, turned.image[:, turned.shown]
    shown = front.shown[None, None].float()

    def likeness(azimuth: float, altitude: float) -> float:
        towards = _towards(azimuth, altitude)
        before = points @ gaze_matrix(towards[None])[0] + middle  # turned back
        place = front.views.project(before[None])[0, :, :2] * (2 / _EYE_PX) - 1
        known = functional.grid_sample(shown, place[None, None], align_corners=False)[0, 0, 0] > 0.999
        known &= functional.cosine_similarity(points, towards[None], dim=1) > _IRIS_COSINE
        was = functional.grid_sample(front.image[None], place[None, None], align_corners=False)[0, :, 0]
        if int(known.sum()) < _LEAST_IRIS_PX:
            return -1.0
        return float(torch.corrcoef(torch.stack([was[:, known].flatten(), seen[:, known].flatten()]))[0, 1])

    best = (0.0, 0.0)
    for step, reach in ((3.0, 30.0), (1.0, 3.0), (0.25, 1.0)):
        around = np.arange(-reach, reach + step / 2, step)
        best = max(((best[0] + x, best[1] + y) for x in around for y in around), key=lambda pair: likeness(*pair))
    return _towards(*best)


def subject_sheet(decoder: UpmDecoder, source: SyntheticSource, people: Sequence[str]) -> np.ndarray:
    """Truth, avatar and twice the error: a row of people, three expressions from left, front and right of each."""
    rows = []
    for k, dome in enumerate(source.dome(people)):
        neutral = dome.neutral(size=NEUTRAL_TEXELS)
        painted = torch.from_numpy(neutral.texture)[None] / 255
        still = torch.from_numpy(neutral.geometry)[None]
        small = torch.from_numpy(dome.neutral(size=READ_TEXELS).texture)[None] / 255
        identity = decoder.identity(painted, still)
        eyes = [torch.from_numpy(decoder.topology.region(f"eye_{side}")) for side in ("left", "right")]
        columns = []
        for index in dome.spread(9, seed=k)[1::3]:
            mesh = torch.from_numpy(dome.geometry([index]))
            texture = torch.from_numpy(dome.texture([index], size=READ_TEXELS)) / 255
            avatar = decoder.decode(decoder.read(texture, mesh, small, still), gaze_of(mesh, still, eyes), identity)
            pose = dome.head_pose([index])[0]
            for angle in _VIEWS:
                camera = _nearest(dome.cameras, pose, angle)
                image = dome.frames([index], cameras=[camera.name], height=320)[0, 0]
                truth = torch.from_numpy(image) / 255
                sized = camera.resized(image.shape[2], image.shape[1])
                moved = _moved(sized, pose)
                made = decoder.render(avatar, moved)[0]
                columns.append(np.concatenate([srgb(truth), srgb(made), srgb(2 * (made - truth).abs())]))
        rows.append(np.concatenate(columns, 1))
    return np.concatenate(rows)


class _Pca:
    """The first principal components of displacements and texture differences together, about 0."""

    def __init__(self, domes: Sequence[PackedDome]) -> None:
        moved = np.concatenate([dome.geometry[:] - dome.neutral_geometry for dome in domes])
        changed = np.concatenate([dome.texture[:].astype(np.float32) - dome.resting_texture for dome in domes]) / 255
        self.shapes = moved.shape[1:], changed.shape[1:]
        self.scales = float(np.linalg.norm(moved)), float(np.linalg.norm(changed))
        data = torch.from_numpy(self._joined(moved, changed))
        _, vectors = torch.linalg.eigh((data @ data.T).double())
        components = vectors[:, -CODE_SIZE:].T.float() @ data
        self.components = components / components.norm(dim=1, keepdim=True)

    def _joined(self, moved: np.ndarray, changed: np.ndarray) -> np.ndarray:
        parts = [
            value.reshape(len(value), -1) / scale for value, scale in zip((moved, changed), self.scales, strict=True)
        ]
        return np.concatenate(parts, 1)

    def __call__(self, moved: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        data = torch.from_numpy(self._joined(moved.numpy(), changed.numpy()))
        kept = data @ self.components.T @ self.components
        size = int(np.prod(self.shapes[0]))
        first, second = kept[:, :size] * self.scales[0], kept[:, size:] * self.scales[1]
        return first.view(-1, *self.shapes[0]), second.view(-1, *self.shapes[1])


def _told(items: Sequence[ItemT], what: str) -> Iterable[ItemT]:
    """The items, with a progress bar on standard error."""
    return track(items, description=what, console=Console(stderr=True))


def _request(frames: int) -> DomeRequest:
    return DomeRequest(frames, 2, HEIGHT, READ_TEXELS, NEUTRAL_TEXELS)


def _resized(texture: Tensor, side: int) -> Tensor:
    if texture.shape[-1] == side:
        return texture
    mode = "area" if side < texture.shape[-1] else "bilinear"
    return functional.interpolate(texture, (side, side), mode=mode)


def _neutral_of(capture: SyntheticCapture) -> tuple[Tensor, Tensor, Tensor]:
    """Of the resting face the texture, the texture as codes are read from it, and the geometry."""
    neutral, resting = capture.neutral(), capture.neutral(size=READ_TEXELS)
    return (
        torch.from_numpy(neutral.texture)[None] / 255,
        (torch.from_numpy(resting.texture)[None] / 255).expand(FRAMES, -1, -1, -1),
        torch.from_numpy(neutral.geometry)[None].expand(FRAMES, -1, -1),
    )


def _head_pixels(decoder: UpmDecoder, mesh: Tensor, views: Views) -> Tensor:
    """Bool [B, 1, H, W]: where the mesh is seen, but for what lies 50 mm or more below the face, under clothes."""
    faces = torch.from_numpy(decoder.topology.faces.astype(np.int32))
    ids = rasterize(views.project(mesh), faces, height=views.height, width=views.width)
    down = torch.from_numpy(load_head().template[:, 1])
    bare = down[faces.long()].amax(1) < down[torch.from_numpy(decoder.topology.region("face"))].amax() + 50
    return (bare[ids.clamp_min(0).long()] & (ids >= 0))[:, None]


def _close_up(middle: np.ndarray) -> CameraSpec:
    """A camera straight in front of an eye, 40 mm of which fill its image."""
    front = camera_around(0, 0, _EYE_PX)
    position = middle + np.array([0.0, 0.0, 400.0])
    focal = _EYE_PX * 400.0 / 40.0
    intrinsics = np.array([[focal, 0, _EYE_PX / 2], [0, focal, _EYE_PX / 2], [0, 0, 1.0]])
    return CameraSpec("eye", "centre", "whole", "augmented", _EYE_PX, _EYE_PX, intrinsics, front.rotation,
                      -front.rotation @ position)  # fmt: skip


def _nearest(cameras: Sequence[CameraSpec], pose: np.ndarray, azimuth_deg: float) -> CameraSpec:
    """The camera seen from the head nearest to an azimuth at the height of the eyes."""
    wanted = camera_around(azimuth_deg, 0, 64)
    towards = -wanted.rotation[2]
    rotation, translation = pose[:, :3], pose[:, 3]

    def cosine(camera: CameraSpec) -> float:
        place = (-camera.rotation.T @ camera.translation - translation) @ rotation
        return float(place @ towards / np.linalg.norm(place))

    return max(cameras, key=cosine)


def _moved(camera: CameraSpec, pose: np.ndarray) -> CameraSpec:
    """A camera of the world in coordinates of a head."""
    rotation, translation = camera.rotation @ pose[:, :3], camera.rotation @ pose[:, 3] + camera.translation
    return CameraSpec(camera.name, camera.side, camera.region, camera.role, camera.width, camera.height,
                      camera.intrinsics, rotation, translation)  # fmt: skip


def _interval(found: Summary | PairedDifference) -> dict[str, Any]:
    return {"mean": round(found.mean, 4), "ci95": [round(end, 4) for end in found.ci95]}


def _write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
