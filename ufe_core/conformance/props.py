"""Small made-up data that components are tried on: random, always the same, and of the shapes that they will meet."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ufe_core.conformance.rule import NotTried
from ufe_core.errors import ConfigError
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import Encoder, TrainingStatistics
from ufe_core.types import AnchorSet, CameraSpec, CodeSpace, Detections, FrameBatch, Labels, MeshTopology

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
SIZE, CODES, POINTS = 64, 12, 96
VERTICES = 60  # of the mesh that metrics see; encoders that look at meshes are given the mean head's
_SKIN = 44  # vertices of that mesh before the eyes
SPACE = CodeSpace("twelve", CODES, tuple(f"entry{k}" for k in range(CODES)))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(*shape: int, seed: int = 0) -> Tensor:
    """Images uint8 [..., SIZE, SIZE]: smooth, so that small networks see something in them."""
    coarse = torch.rand(int(np.prod(shape)), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    fine = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return (fine * 255).to(torch.uint8).view(*shape, SIZE, SIZE)


def gazes(count: int, seed: int = 0) -> Tensor:
    """Unit vectors float32 [count, 6]."""
    directions = drawn(count, 2, 3, seed=seed) * 0.2 + torch.tensor([0.0, 0.0, 1.0])
    return nn.functional.normalize(directions, dim=-1).flatten(1)


def detections(*shape: int, seed: int = 0) -> Detections:
    """Keypoints [..., 4, POINTS]."""
    make = torch.Generator().manual_seed(seed)
    points = SIZE * torch.rand(*shape, len(CAMERAS), POINTS, 2, generator=make)
    return Detections(points, torch.rand(*shape, len(CAMERAS), POINTS, generator=make))


def keypoint_names() -> tuple[KeypointNames, ...]:
    """Of each camera: which vertices of the mean head its keypoints are."""
    names = tuple(f"point_{k:02d}" for k in range(POINTS))
    upper = (*names[:-2], "pupil_left", "pupil_right")
    vertices = tuple(range(0, 40 * POINTS, 40))
    return tuple(
        KeypointNames(camera, upper, vertices[:-2], (0, 1)) if k < 2 else KeypointNames(camera, names, vertices, ())
        for k, camera in enumerate(CAMERAS)
    )


def refused(error: ConfigError) -> NotTried:
    """What to raise where a component, as it is made, says that it is for another headset than the made-up one."""
    return NotTried(
        f"it refuses the headset that rules are tried on ({', '.join(CAMERAS)}; {SIZE} pixels): "
        f"{' '.join(str(error).split())}"
    )


def rig(cameras: tuple[str, ...] = CAMERAS) -> tuple[CameraSpec, ...]:
    """Nominal cameras before the face."""
    lens = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    return tuple(
        CameraSpec(
            name, "left" if k % 2 == 0 else "right", "upper" if k < 2 else "lower", "tracking", SIZE, SIZE, lens,
            np.eye(3), np.array([0.0, 0.0, 150.0]),
        )
        for k, name in enumerate(CAMERAS) if name in cameras
    )  # fmt: skip


@functools.cache
def head() -> Tensor:
    """The mean head's vertices float32 [V, 3], mm."""
    from ufe_core.head import load_head

    return torch.from_numpy(np.asarray(load_head().template, np.float32))


def mesh() -> np.ndarray:
    """Vertices float32 [VERTICES, 3] of a dome, mm."""
    make = np.random.default_rng(0)
    x, y = make.uniform(-60, 60, VERTICES), make.uniform(-60, 60, VERTICES)
    return np.stack([x, y, 30 - (x**2 + y**2) / 200], 1).astype(np.float32)


def topology() -> MeshTopology:
    """Of that mesh: triangles of neighbours in number, and the regions of the head, nested as there."""
    from ufe_core.head import load_head

    faces = np.stack([np.arange(VERTICES - 2), np.arange(1, VERTICES - 1), np.arange(2, VERTICES)], 1)
    uv = (mesh()[:, :2] + 60) / 120
    eyes = np.arange(_SKIN, VERTICES)
    rows = {
        "face": np.arange(40), "lower_face": np.arange(20), "mouth_corners": np.array([0, 1]),
        "lip_centres": np.array([2, 3]), "lip_seam": np.array([4, 5]), "lips": np.arange(8),
        "eyelids": np.arange(30, 40), "eye_left": eyes[: len(eyes) // 2], "eye_right": eyes[len(eyes) // 2 :],
        "skin": np.arange(_SKIN),
    }  # fmt: skip
    regions = {name: rows.get(name, rows["skin"]) for name in load_head().region_names}
    weights = np.ones(VERTICES, np.float32)
    weights[eyes] = 0
    return MeshTopology(VERTICES, faces, uv.astype(np.float32), faces, regions, weights)


def frames(encoder: Encoder[Any], count: int, users: Tensor, seed: int = 0) -> FrameBatch:
    """Frames of some users, with what the encoder says it needs."""
    inputs = encoder.inputs
    return FrameBatch(
        images(count, len(CAMERAS), seed=seed), CAMERAS, users,
        detections(count, seed=seed) if "keypoints" in inputs else None,
        head() + drawn(count, len(head()), 3, seed=seed) if "exact_mesh" in inputs else None,
    )  # fmt: skip


def anchors(encoder: Encoder[Any], users: int, seed: int = 100) -> AnchorSet:
    """Anchors of some users, all there, with what the encoder says it needs."""
    names, inputs = encoder.needs.anchors, encoder.inputs
    return AnchorSet.complete(
        images(users, len(names), len(CAMERAS), seed=seed), names, CAMERAS,
        keypoints=detections(users, len(names), seed=seed) if "keypoints" in inputs else None,
        geometry=head().expand(users, -1, -1).contiguous() if "neutral_mesh" in inputs else None,
    )  # fmt: skip


def unsettle(module: nn.Module) -> None:
    """Give batch normalisations, in place, statistics and weights that are not those they begin with."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(part.bias, std=0.2, generator=generator)


def statistics(encoder: Encoder[Any]) -> TrainingStatistics:
    """Labels and images of people who do not exist, and their labels at the anchors that an encoder needs."""
    anchors = {
        name: Labels(drawn(8, CODES, seed=20 + k), gazes(8, seed=20 + k))
        for k, name in enumerate(encoder.needs.anchors)
    }
    labels = Labels(drawn(64, CODES, seed=7), gazes(64, seed=7))
    return TrainingStatistics(labels, [images(8, len(encoder.needs.cameras), seed=8)], anchors)
