"""Small rigid geometry shared by sources and decoders."""

from __future__ import annotations

import numpy as np


def rotation_vector_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of an axis-angle vector [3], radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix: np.ndarray = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def gaze_rotation(gaze: np.ndarray) -> np.ndarray:
    """The rotation [N, 3, 3] about an axis in the plane z = 0 that turns (0, 0, 1) into unit vectors [N, 3]."""
    x, y, z = np.moveaxis(gaze, -1, 0)
    k = 1 / (1 + z)
    rows = [[1 - x * x * k, -x * y * k, x], [-x * y * k, 1 - y * y * k, y], [-x, -y, z]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def rotate_eyeballs(vertices: np.ndarray, gaze: np.ndarray, eyes: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Turn each eyeball about its centre, in place.

    Args:
        vertices: float32 [N, V, 3], mm, head coordinates, eyes looking straight ahead.
        gaze: float32 [N, 6], unit vectors of the left, then the right eye.
        eyes: vertex indices [n] and centre [3] of the left, then the right eye.
    """
    for k, (rows, centre) in enumerate(eyes):
        rotation = gaze_rotation(gaze[:, 3 * k : 3 * k + 3].astype(np.float64))
        local = vertices[:, rows].astype(np.float64) - centre
        vertices[:, rows] = np.einsum("nij,nvj->nvi", rotation, local) + centre
    return vertices
