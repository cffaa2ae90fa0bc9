"""Bytes of each kind of file that the ava-256 layout holds; equal values give equal bytes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ufe_ava256 import layout
from ufe_core.errors import DataError
from ufe_core.types import CameraSpec, MeshTopology

#: Diagonal of the turn between head axes here and in the layout.
AXES = np.diag(layout.HEAD_AXES)
_SPEED = 9  # a tenth of the time that 6 takes, for files 5 % larger
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def avif_bytes(image: np.ndarray, quality: int) -> bytes:
    """AVIF of uint8 [H, W] or [H, W, 3]; one thread, as another number of threads gives other bytes."""
    file = io.BytesIO()
    sampling = "4:0:0" if image.ndim == 2 else "4:4:4"
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, "AVIF", quality=quality, speed=_SPEED, subsampling=sampling, codec="aom", max_threads=1
    )
    return file.getvalue()


def calibration_entry(camera: CameraSpec) -> dict[str, Any]:
    """A camera's calibration: for an image of 2668 x 4096 with pixel centres at whole numbers, K and T transposed."""
    if camera.distortion.any() or camera.model != "brown_conrady":
        raise DataError(f"Dome camera {camera.name!r} has lens distortion; the ava256 layout holds pinhole images.")
    intrinsics = camera.resized(layout.SENSOR_WIDTH, layout.SENSOR_HEIGHT).intrinsics.copy()
    intrinsics[:2, 2] -= layout.PIXEL_CENTRE
    pose = np.eye(4)
    pose[:3, :3], pose[3, :3] = camera.rotation.T, camera.translation
    return {
        "cameraId": camera_id(camera),
        "projectionModel": layout.PROJECTION_MODEL,
        "distortionModel": layout.DISTORTION_MODEL,
        "K": intrinsics.T.tolist(),
        "distortion": [0.0, 0.0, 0.0, 0.0],
        "T": pose.tolist(),
    }


def camera_id(camera: CameraSpec) -> str:
    """What the files of a dome camera are called by.

    Raises:
        DataError: its name has characters that a file's name should not.
    """
    code = camera.name.removeprefix("cam")
    if not layout.is_camera_id(code):
        raise DataError(f"Dome camera {camera.name!r} cannot be a file's name: letters, digits, '_' and '-' only.")
    return code


def pose_text(pose: np.ndarray) -> bytes:
    """Head to world, 3 lines of 4 numbers, from the layout's head coordinates."""
    turned = np.concatenate([pose[:, :3] * AXES, pose[:, 3:]], 1)
    return "".join(" ".join(repr(float(x)) for x in row) + "\n" for row in turned).encode()


def ply_bytes(vertices: np.ndarray) -> bytes:
    """Binary PLY of vertices float32 [V, 3]."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    return header.encode() + np.ascontiguousarray(vertices, "<f4").tobytes()


def obj_bytes(geometry: np.ndarray, topology: MeshTopology) -> bytes:
    """Vertices of `geometry`, texture coordinates with v upwards, and faces, numbered from 1."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in (geometry * AXES).tolist()]
    lines += [f"vt {u:.9g} {1 - v:.9g}" for u, v in topology.uv.astype(np.float64).tolist()]
    corners = np.stack([topology.faces, topology.uv_faces], -1) + 1
    lines += ["f " + " ".join(f"{vertex}/{uv}" for vertex, uv in face) for face in corners.tolist()]
    return ("\n".join(lines) + "\n").encode()


def tensor_bytes(values: np.ndarray) -> bytes:
    """What `torch.save` writes of a float32 tensor."""
    import torch

    file = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(values, np.float32)), file)
    return file.getvalue()


def npy_bytes(values: np.ndarray) -> bytes:
    """A numpy file."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def png_bytes(image: np.ndarray) -> bytes:
    """PNG of uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A CSV file with a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


def json_bytes(value: Any) -> bytes:
    """A JSON file, numbers in full precision."""
    return (json.dumps(value, indent=1) + "\n").encode()


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A new archive of entries that are stored as they are; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        yield archive


def add_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a member whose bytes in the archive depend on name and data alone."""
    entry = zipfile.ZipInfo(name, _ZIP_TIME)
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    archive.writestr(entry, data)
