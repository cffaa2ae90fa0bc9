"""Statistics over captures, by which the networks' inputs and outputs are normalised.

The public code computes them at every start from all captures of its list; here a small file keeps them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image
from safetensors import SafetensorError

from ufe_core.errors import DataError
from ufe_core.store import write_atomic

_TEXTURE_MEAN = "decoder/uv_image/color_mean.png"
_MESH_MEAN = "decoder/kinematic_tracking/registration_vertices_mean.npy"
_MESH_VARIANCE = "decoder/kinematic_tracking/registration_vertices_variance.txt"
_NAMED_BY = "mcd", "mct", "sid"  # columns of a list of captures whose values, in this order, name a folder


@dataclass(frozen=True)
class Averages:
    """Of one capture: `texmean` float32 [3, T, T] in 0..255, `vertmean` float32 [V, 3] and `vertstd` in mm."""

    texmean: np.ndarray
    vertmean: np.ndarray
    vertstd: float


@dataclass(frozen=True)
class Statistics:
    """Of several captures; a texture t is normalised as (t - texmean) / texstd, a mesh likewise.

    `texmean` is float32 [3, T, T] in 0..255, `texstd` a number of the same unit; `vertmean` float32 [V, 3] and
    `vertstd` are in mm.
    """

    texmean: np.ndarray
    texstd: float
    vertmean: np.ndarray
    vertstd: float

    def save(self, path: Path) -> None:
        """Write a safetensors file.

        Raises:
            ArtifactError: it cannot be written.
        """
        tensors = {name: np.ascontiguousarray(value) for name, value in vars(self).items()}
        write_atomic(path, safetensors.numpy.save(tensors))

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """What `save` wrote.

        Raises:
            DataError: the file cannot be read, or holds something else.
        """
        tensors = read_safetensors(path)
        if not (
            tensors.keys() == cls.__dataclass_fields__.keys()
            and (tensors["texmean"].shape[:1], tensors["vertmean"].shape[1:]) == ((3,), (3,))
            and tensors["texstd"].size == tensors["vertstd"].size == 1
        ):
            raise DataError(f"{path} holds no statistics of captures: texmean, texstd, vertmean and vertstd.")
        numbers = {name: float(tensors[name].item()) for name in ("texstd", "vertstd")}
        return cls(tensors["texmean"], numbers["texstd"], tensors["vertmean"], numbers["vertstd"])


def statistics(captures: Iterable[Averages]) -> Statistics:
    """Means over captures, and how far captures are from them.

    The textures' own deviations within a capture do not count, those of the meshes do. Of one capture, `texstd` is
    the deviation of its texture's channels from their mean, as in the public code.

    Raises:
        DataError: there is no capture, or their shapes differ.
    """
    textures, meshes, variance = _Sum(), _Sum(), 0.0
    one = None
    for one in captures:
        textures.add(one.texmean)
        meshes.add(one.vertmean)
        variance += one.vertstd**2
    if one is None:
        raise DataError("Statistics need at least one capture.")
    texstd = math.sqrt(textures.variance())
    if textures.count == 1:
        texstd = math.sqrt(one.texmean.astype(np.float64).var(0).mean())
    vertstd = math.sqrt(meshes.variance() + variance / meshes.count)
    return Statistics(textures.mean(), texstd, meshes.mean(), vertstd)


def read_averages(capture: Path) -> Averages:
    """The averages that a capture of ava-256 brings with it.

    Raises:
        DataError: one of the three files is missing or damaged.
    """
    path = capture
    try:
        path = capture / _TEXTURE_MEAN
        texture = np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)
        path = capture / _MESH_MEAN
        mesh = np.load(path, allow_pickle=False).astype(np.float32)
        path = capture / _MESH_VARIANCE
        variance = float(path.read_text(encoding="ascii"))
    except (OSError, ValueError, TypeError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is missing or damaged; statistics need it of every capture.") from error
    if mesh.ndim != 2 or mesh.shape[1] != 3 or not np.isfinite(mesh).all() or not 0 <= variance < math.inf:
        raise DataError(f"{capture} has a mean mesh or a variance that are not finite numbers of the right shape.")
    return Averages(texture, mesh, math.sqrt(variance))


def first_captures(root: Path, listing: Path, count: int) -> list[Path]:
    """Folders of the first captures of a list with columns `mcd`, `sid`, `mct`: a model was trained on the first N.

    Raises:
        DataError: the list cannot be read, or is shorter; or there is no such folder.
    """
    try:
        with listing.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = [header.index(name) for name in _NAMED_BY]
        names = ["--".join(row[column] for column in columns) for row in rows if row]
    except OSError as error:
        raise DataError(f"{listing} cannot be read: {error.strerror or error}.") from error
    except (IndexError, ValueError, csv.Error) as error:
        raise DataError(
            f"{listing} is no list of captures: a CSV file with columns mcd, sid, mct is wanted."
        ) from error
    if not root.is_dir():
        raise DataError(f"There is no folder '{root}' of captures.")
    if not 0 < count <= len(names):
        raise DataError(f"{listing} lists {len(names)} of the {count} captures that were asked for.")
    return [root / name for name in names[:count]]


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file.

    Raises:
        DataError: it cannot be read, or was cut short.
    """
    try:
        return safetensors.numpy.load(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no safetensors file, or was cut short.") from error


class _Sum:
    """Mean of arrays and mean squared deviation from it, in float64, one array at a time."""

    def __init__(self) -> None:
        self.count, self._squares = 0, 0.0
        self._total = np.zeros(())

    def add(self, array: np.ndarray) -> None:
        values = array.astype(np.float64)
        if self.count and values.shape != self._total.shape:
            raise DataError(f"Captures differ in shape: {list(self._total.shape)} and {list(values.shape)}.")
        self._total = self._total + values
        self._squares += float(np.square(values).sum())
        self.count += 1

    def mean(self) -> np.ndarray:
        return (self._total / self.count).astype(np.float32)

    def variance(self) -> float:
        spread = self._squares / self.count - float(np.square(self._total / self.count).sum())
        return max(0.0, spread / self._total.size)
