"""Draws the regions and weights of docs/metrics.md: `python docs/make_regions_figure.py`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ufe_avatar.views import Views
from ufe_core.geometry import rotation_vector_matrix
from ufe_core.head import EYE_LEFT, EYE_RIGHT, Head, load_head
from ufe_core.ops.rasterize import interpolate, rasterize
from ufe_core.plugins import catalogue
from ufe_core.types import CameraSpec

HERE = Path(__file__).parent
SIZE, FINE = 420, 3
SKIN, FACE, LOWER = (np.array(c) for c in ([0.80, 0.80, 0.80], [0.55, 0.73, 0.92], [0.98, 0.74, 0.47]))
CORNERS, CENTRES = "#c0182b", "#0b7a3b"


def draw_head(
    head: Head, camera: CameraSpec, turn: np.ndarray, colour: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shaded mean head in vertex colours [V, 3]: image, pixel of each vertex, which vertices are in view."""
    points = torch.from_numpy((head.template @ turn.T).astype(np.float32))[None]
    faces, large = torch.from_numpy(head.faces.astype(np.int32)), camera.resized(SIZE * FINE, SIZE * FINE)
    screen = Views.of([large]).project(points)
    ids = rasterize(screen, faces, height=large.height, width=large.width)
    corner = points[0, faces.long()]
    flat = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal = torch.zeros_like(points[0])
    for k in range(3):
        normal.index_add_(0, faces[:, k].long(), flat)
    seen = torch.cat([torch.nn.functional.normalize(normal, dim=1), torch.from_numpy(colour).float()], 1)[None]
    pixels = interpolate(screen, torch.cat([seen, screen[..., 2:]], -1), faces, ids)[0].numpy()
    light = 0.45 + 0.55 * np.clip(pixels[..., 2:3], 0, 1)
    image = np.where(ids[0].numpy()[..., None] >= 0, pixels[..., 3:6] * light, 1.0)
    at, depth = screen[0, :, :2].numpy(), screen[0, :, 2].numpy()
    column, row = np.clip(at.astype(int), 0, large.width - 1).T
    covered = pixels[row, column, 6]
    in_view = (depth < covered + 2.5) & (normal.numpy()[:, 2] > 0)
    small = cv2.resize(image.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.clip(small, 0, 1), at / FINE, in_view


def draw_regions(axes: Axes, head: Head, camera: CameraSpec, turn: np.ndarray) -> None:
    """Face and lower face as coloured skin and dots; mouth corners and lip centres as marks."""
    regions = head.topology.regions
    colour = np.tile(SKIN, (len(head.template), 1))
    colour[regions["face"]] = FACE
    colour[regions["lower_face"]] = LOWER
    colour[np.isin(head.part, [EYE_LEFT, EYE_RIGHT])] = 0.95
    image, at, in_view = draw_head(head, camera, turn, colour)
    axes.imshow(image)
    upper = np.setdiff1d(regions["face"], regions["lower_face"])
    for rows, ink in ((upper, "#1d4f91"), (regions["lower_face"], "#a3480a")):
        rows = rows[in_view[rows]]
        axes.scatter(*at[rows].T, s=1.6, color=ink, linewidths=0)
    for name, ink, mark in (("mouth_corners", CORNERS, "o"), ("lip_centres", CENTRES, "D")):
        rows = regions[name] if np.allclose(turn, np.eye(3)) else regions[name][:: 1 if name == "lip_centres" else 2]
        axes.scatter(*at[rows].T, s=26, marker=mark, facecolor=ink, edgecolor="white", linewidths=0.8, zorder=3)


def draw_weights(axes: Axes, head: Head, camera: CameraSpec, turn: np.ndarray) -> None:
    """W2 as colour."""
    colour = colormaps["viridis"](head.topology.weights / 3)[:, :3]
    axes.imshow(draw_head(head, camera, turn, colour)[0])


def regions_png() -> None:
    """Vertex regions and weights on the mean head, from the front and from 40 degrees aside."""
    head = load_head()
    decoder = catalogue().create("decoder", "blendshape")
    camera = decoder.frontal_camera(SIZE)
    views = {"from the front": np.eye(3), "40° aside": rotation_vector_matrix(np.radians([0.0, 40.0, 0.0]))}
    figure = Figure(figsize=(12.4, 4.15), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left = 0.005
    for draw, title in ((draw_regions, "vertex regions"), (draw_weights, r"weights $W_2$")):
        for view, turn in views.items():
            axes = figure.add_axes((left, 0.1, 0.235, 0.83))
            draw(axes, head, camera, turn)
            if draw is draw_regions and view == "from the front":
                mask = cv2.resize(decoder.face_mask(256).numpy().astype(np.float32), (SIZE, SIZE))
                axes.contour(mask, [0.5], colors="#222222", linewidths=1.1, linestyles="dashed")
            axes.set_title(f"{title}, {view}", fontsize=10)
            middle = SIZE * (0.5 if view == "from the front" else 0.57)
            axes.set_xlim(middle - SIZE * 0.44, middle + SIZE * 0.44)
            axes.set_ylim(SIZE * 0.98, SIZE * 0.02)
            axes.axis("off")
            left += 0.238
    marks = [
        Line2D([], [], ls="", marker="o", color=FACE, markeredgecolor="#1d4f91", label="face (with the lower face)"),
        Line2D([], [], ls="", marker="o", color=LOWER, markeredgecolor="#a3480a", label="lower_face"),
        Line2D([], [], ls="", marker="o", color=CORNERS, label="mouth_corners"),
        Line2D([], [], ls="", marker="D", color=CENTRES, label="lip_centres"),
        Line2D([], [], ls="dashed", color="#222222", label=r"face mask $W_1$"),
    ]
    figure.legend(handles=marks, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=5, frameon=False, fontsize=9,
                  columnspacing=1.2, handletextpad=0.3)  # fmt: skip
    bar = figure.add_axes((0.957, 0.16, 0.011, 0.7))
    bar.imshow(np.linspace(3, 0, 256)[:, None], aspect="auto", cmap="viridis", extent=(0, 1, 0, 3))
    bar.set_xticks([])
    bar.set_yticks([0, 0.2, 1, 2, 3], ["0", "0.2", "1", "2", "3"], fontsize=8)
    bar.yaxis.tick_right()
    canvas.draw()
    save(HERE / "regions.png", np.asarray(canvas.buffer_rgba())[..., :3])


def save(path: Path, image: np.ndarray, levels: int = 256) -> None:
    """Write a PNG; fewer grey levels make sensor noise cheap to store."""
    step = 256 / levels
    coarse = np.clip((image // step + 0.5) * step, 0, 255).astype(np.uint8) if levels < 256 else image
    cv2.imwrite(str(path), np.ascontiguousarray(coarse[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{path}  {image.shape[1]} x {image.shape[0]}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    regions_png()
