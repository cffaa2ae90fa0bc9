"""The mesh that all captures share, from the OBJ file beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ufe_core.errors import DataError
from ufe_core.types import MeshTopology


def read_topology(path: Path) -> MeshTopology:
    """Triangles and texture coordinates of an OBJ file; `v` is turned over, so that row 0 of a texture is at v = 0.

    The file names no regions, and all its vertices weigh the same.

    Raises:
        DataError: the file cannot be read, or is no mesh of triangles with texture coordinates.
    """
    count, uv, faces, uv_faces = 0, [], [], []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                kind, *words = line.split() or [""]
                if kind == "v":
                    count += 1
                elif kind == "vt":
                    uv.append((float(words[0]), 1 - float(words[1])))
                elif kind == "f":
                    corners = [[int(part) - 1 for part in word.split("/")[:2]] for word in words]
                    faces.append([corner[0] for corner in corners])
                    uv_faces.append([corner[1] for corner in corners])
        triangles, uv_triangles = np.array(faces, np.int64), np.array(uv_faces, np.int64)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is no mesh of triangles with texture coordinates.") from error
    ends = ((triangles, count), (uv_triangles, len(uv)))
    if not faces or any(k.shape != (len(faces), 3) or k.min() < 0 or k.max() >= end for k, end in ends):
        raise DataError(f"{path} is no mesh of triangles with texture coordinates.")
    return MeshTopology(count, triangles, np.array(uv, np.float32), uv_triangles, {}, np.ones(count, np.float32))
