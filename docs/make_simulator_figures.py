"""Draws the pictures of docs/simulator.md and the README: `python docs/make_simulator_figures.py [NAME ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from make_regions_figure import save
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ufe_core.head import ACTIONS, SKIN, load_head
from ufe_core.interfaces.source import SEGMENTS
from ufe_core.ops.rasterize import rasterize
from ufe_core.types import CameraSpec
from ufe_synthetic.dome import SyntheticDome, in_head
from ufe_synthetic.headset import load_headset
from ufe_synthetic.performance import FRAMES_PER_SECOND
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.sensing import CONDITIONS
from ufe_synthetic.source import SyntheticCapture, SyntheticSource

HERE = Path(__file__).parent / "simulator"
SIZE, GAP, LABEL, FINE = 200, 4, 20, 3
TRACKING = ("left_eye", "right_eye", "left_mouth", "right_mouth")
#: Colour of each segmentation class, in the order of `SEGMENTS`.
COLOURS = np.array([
    [0, 0, 0], [222, 184, 150], [214, 96, 110], [250, 250, 240], [196, 70, 90], [90, 20, 30], [120, 190, 240],
    [120, 80, 200], [240, 160, 60], [70, 70, 70], [60, 140, 60],
], np.uint8)  # fmt: skip


def capture_of(subject: str, session: int = 0, **options: str) -> SyntheticCapture:
    """A capture of the simulated headset under some options of the source."""
    found = SyntheticSource(SyntheticConfig(**options)).captures([subject], session=session)[0]  # type: ignore[arg-type]
    assert isinstance(found, SyntheticCapture)
    return found


def frame_in(capture: SyntheticCapture, segment: str, action: str | None = None) -> int:
    """The middle frame of a segment, or the one where an action is strongest."""
    chosen = next(one for one in capture.segments if one.name == segment)
    rows = range(chosen.start, chosen.stop, 4)
    if action is None:
        return (chosen.start + chosen.stop) // 2
    return rows[int(capture.labels(rows).expression[:, ACTIONS.index(action)].argmax())]


def seen(capture: SyntheticCapture, index: int, cameras: Sequence[str], size: int = SIZE) -> list[np.ndarray]:
    """Images of one frame, grey as RGB."""
    return [np.repeat(image[..., None], 3, 2) for image in capture.frames([index], cameras=cameras, size=size)[0]]


def sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]]) -> np.ndarray:
    """Images in rows, a title over each."""
    height, width = rows[0][0].shape[:2]
    columns = max(map(len, rows))
    out = np.full((len(rows) * (height + LABEL + GAP), columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for r, (images, names) in enumerate(zip(rows, titles, strict=True)):
        top = r * (height + LABEL + GAP)
        for c, (image, name) in enumerate(zip(images, names, strict=True)):
            left = c * (width + GAP)
            out[top + LABEL : top + LABEL + height, left : left + width] = image
            cv2.putText(out, name, (left + 2, top + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
    return out


def readme() -> None:
    """Two people in the four tracking cameras."""
    rows = []
    for subject, segment, action in (("S004", "smile_teeth", "mouthSmileLeft"), ("S013", "jaw_open", "jawOpen")):
        capture = capture_of(subject)
        rows.append(seen(capture, frame_in(capture, segment, action), TRACKING, 260))
    save(HERE.parent / "simulator.png", sheet(rows, [TRACKING, TRACKING]), levels=48)


def headsets() -> None:
    """Where cameras, emitters, barrels and gasket of both headsets are, from the front and from the side."""
    head = load_head()
    skin = head.template[head.part == SKIN]
    figure = Figure(figsize=(11, 3.9), dpi=90, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for n, name in enumerate(("quest", "ava256")):
        headset = load_headset(name)
        for m, (across, title) in enumerate(((0, "from the front"), (2, "from the subject's left"))):
            axes = figure.add_subplot(1, 4, 2 * n + m + 1)
            axes.scatter(skin[:, across], skin[:, 1], s=0.5, color="#c9a58a")
            axes.scatter(headset.vertices[:, across], headset.vertices[:, 1], s=0.5, color="#8f8f8f")
            axes.scatter(headset.emitters[:, across], headset.emitters[:, 1], s=14, color="#c0182b", marker="*")
            for camera in headset.cameras:
                place, ahead = camera.position, camera.rotation[2] * 16
                ink = "#1d4f91" if camera.role == "tracking" else "#0b7a3b"
                axes.arrow(place[across], place[1], ahead[across], ahead[1], color=ink, width=1.2, head_width=6)
            axes.set_xlim((85, -85) if across == 0 else (-100, 110))
            axes.set_ylim(125, -85)
            axes.set_aspect("equal")
            axes.set_title(f"{name}, {title}", fontsize=9)
            axes.axis("off")
    key = "blue: tracking cameras   green: augmented cameras   red: infrared emitters   grey: gasket, lens barrels"
    figure.text(0.5, 0.03, key, ha="center", fontsize=9)
    figure.subplots_adjust(0.01, 0.07, 0.99, 0.93, 0.02)
    canvas.draw()
    save(HERE / "headsets.png", np.asarray(canvas.buffer_rgba())[..., :3])


def challenges() -> None:
    """One row for each of the four challenges."""
    open_mouth, bearded = capture_of("S013"), capture_of("S004")
    row = frame_in(open_mouth, "jaw_open", "jawOpen")
    mouth = frame_in(bearded, "lip_pucker", "mouthPucker")
    first = [*seen(open_mouth, row, ("right_mouth", "right_mouth_front")),
             *seen(bearded, mouth, ("right_mouth", "right_mouth_front"))]  # fmt: skip
    shut = frame_in(open_mouth, "lips_pressed")
    second = [*seen(open_mouth, shut, ("right_mouth", "right_mouth_front")),
              *seen(open_mouth, row, ("right_mouth", "right_mouth_front"))]  # fmt: skip
    worn = [capture_of("S013", s, condition=c) for s, c in ((0, "ordinary"), (1, "ordinary"), (0, "aggressive_donning"),
                                                         (1, "aggressive_donning"))]  # fmt: skip
    third = [seen(one, 60, ("left_eye",))[0] for one in worn]
    lit = sorted((capture_of(f"S{k:03d}") for k in range(2, 18)), key=lambda one: one.frames([60], cameras=TRACKING,
                                                                                           size=48).mean())  # fmt: skip
    fourth = [seen(one, 60, ("right_mouth",))[0] for one in (lit[0], lit[5], lit[10], lit[-1])]
    titles = [
        ["1 incomplete: tracking", "augmented camera", "moustache: tracking", "augmented camera"],
        ["2 oblique: jaw closed", "augmented camera", "jaw open: few pixels move", "augmented camera"],
        [f"3 donning: {one.conditions['donning_mm']} mm {one.conditions['donning_deg']} deg" for one in worn],
        [f"4 light: exposure {one.conditions['exposure']}" for one in (lit[0], lit[5], lit[10], lit[-1])],
    ]
    save(HERE / "challenges.png", sheet([first, second, third, fourth], titles), levels=48)


def people() -> None:
    """Eight people at rest."""
    names = ("S000", "S002", "S004", "S007", "S011", "S022", "S035", "S060")
    made = [seen(capture_of(name), 60, ("left_eye_front", "right_mouth_front")) for name in names]
    rows = [[images[0] for images in made], [images[1] for images in made]]
    save(HERE / "people.png", sheet(rows, [names, [""] * len(names)]), levels=48)


def hand_in_view(capture: SyntheticCapture, camera: str) -> int:
    """The frame of the first twenty seconds where the hand covers most of a camera's image."""
    rows = range(0, 1440, 48)
    classes = capture.segmentation(rows, cameras=[camera], size=48)
    return rows[int((classes == SEGMENTS.index("hand")).sum((1, 2, 3)).argmax())]


def conditions() -> None:
    """The same person and frame under each condition."""
    columns = []
    subject = next(
        name for name in (f"S{k:03d}" for k in range(5, 60))
        if capture_of(name, condition="blocked_camera").conditions["blocked"] == "left_mouth"
    )  # fmt: skip
    for name in CONDITIONS:
        capture = capture_of(subject, condition=name)
        index = hand_in_view(capture, TRACKING[2]) if name == "hand" else 3000
        columns.append(seen(capture, index, TRACKING[1:3]))
    titles = [list(CONDITIONS), [""] * len(CONDITIONS)]
    save(HERE / "conditions.png", sheet([[one[0] for one in columns], [one[1] for one in columns]], titles), levels=48)


def expressions() -> None:
    """Wrinkles, teeth, tongue and lids of one person."""
    capture = capture_of("S034")
    shown = (
        ("neutral", None), ("brows_raised", "browInnerUp"), ("brows_lowered", "browDownLeft"),
        ("nose_wrinkle", "noseSneerLeft"), ("smile_teeth", "mouthSmileLeft"), ("lip_pucker", "mouthPucker"),
        ("tongue_out", "tongueOut"), ("eyes_closed", "eyeBlinkLeft"),
    )  # fmt: skip
    made = [seen(capture, frame_in(capture, *one), ("left_eye_front", "right_mouth_front")) for one in shown]
    titles = [[name for name, _ in shown], [""] * len(shown)]
    save(HERE / "expressions.png", sheet([[one[0] for one in made], [one[1] for one in made]], titles), levels=48)


def labels() -> None:
    """Keypoints (green: visible, red: hidden) and segmentation."""
    capture = capture_of("S013")
    index, size = frame_in(capture, "smile_teeth", "mouthSmileLeft"), 320
    cameras = ("left_eye", "right_mouth", "right_mouth_front")
    points = capture.keypoints([index], cameras=cameras, size=size)
    classes = capture.segmentation([index], cameras=cameras, size=size)[0]
    drawn = []
    for c, image in enumerate(seen(capture, index, cameras, size)):
        canvas = np.ascontiguousarray(image)
        for place, shown in zip(points.points[0, c], points.visible[0, c], strict=True):
            if (place > 0).all() and (place < size).all():
                ink = (90, 230, 110) if shown else (230, 70, 60)
                cv2.circle(canvas, (round(float(place[0])), round(float(place[1]))), 2, ink, -1, cv2.LINE_AA)
        drawn.append(canvas)
    maps = [COLOURS[classes[c]] for c in range(len(cameras))]
    present = ", ".join(SEGMENTS[k] for k in np.unique(classes) if k)
    save(HERE / "labels.png", sheet([drawn, maps], [cameras, [f"classes here: {present}", "", ""]]), levels=64)


def performance() -> None:
    """Actions, gaze and headset slip over time, in an expression and in speech."""
    capture = capture_of("S013")
    figure = Figure(figsize=(11, 5.2), dpi=90, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    inks = ("#1d4f91", "#c0182b", "#0b7a3b", "#a3480a", "#6b4fa0")
    for c, (name, actions) in enumerate((
        ("smile_teeth", ("mouthSmileLeft", "cheekSquintLeft", "jawOpen", "eyeBlinkLeft")),
        ("speech_03", ("jawOpen", "mouthClose", "mouthFunnel", "eyeBlinkLeft")),
    )):  # fmt: skip
        segment = next(one for one in capture.segments if one.name == name)
        rows = range(segment.start, segment.stop)
        seconds = np.arange(len(rows)) / FRAMES_PER_SECOND
        found = capture.labels(rows)
        upper, middle, lower = (figure.add_subplot(3, 2, 2 * r + c + 1) for r in range(3))
        for action, ink in zip(actions, inks, strict=False):
            upper.plot(seconds, found.expression[:, ACTIONS.index(action)], color=ink, lw=1.1, label=action)
        upper.set_title(name, fontsize=10)
        upper.legend(fontsize=7, ncols=2, loc="upper right")
        upper.set_ylim(-0.02, 1.45)
        for eye, ink in ((0, inks[0]), (3, inks[1])):
            side = "left" if eye == 0 else "right"
            middle.plot(
                seconds, np.degrees(np.arcsin(found.gaze[:, eye])), color=ink, lw=1, label=f"{side} eye, to the right"
            )
        middle.plot(seconds, -np.degrees(np.arcsin(found.gaze[:, 1])), color=inks[2], lw=1, label="up")
        middle.legend(fontsize=7, ncols=3, loc="upper right")
        middle.set_ylim(-22, 30)
        place = np.array([capture.cameras_at(row)[0].position for row in rows[::6]])
        for axis, ink in zip(range(3), inks, strict=False):
            lower.plot(seconds[::6], place[:, axis] - place[:, axis].mean(), color=ink, lw=1, label="xyz"[axis])
        lower.legend(fontsize=7, ncols=3, loc="upper right")
        lower.set_ylim(-0.45, 0.75)
        lower.set_xlabel("s", fontsize=8)
        for axes, what in ((upper, "activation"), (middle, "gaze, degrees"), (lower, "left eye camera, mm")):
            axes.tick_params(labelsize=7)
            if c == 0:
                axes.set_ylabel(what, fontsize=8)
    figure.tight_layout()
    canvas.draw()
    save(HERE / "performance.png", np.asarray(canvas.buffer_rgba())[..., :3])


def dome() -> None:
    """Three people in six cameras of the dome, and what is unwrapped of them."""
    height, views, rows = 250, ("dome_00", "dome_05", "dome_09", "dome_15", "dome_17", "dome_37"), []
    source = SyntheticSource(SyntheticConfig())
    for number in (3, 20, 60):
        capture = SyntheticDome(source, number)
        smile = next(segment for segment in capture.segments if segment.name == "smile_teeth")
        frames = range(smile.start, smile.stop)
        index = frames[int(capture.labels(frames).expression[:, ACTIONS.index("mouthSmileLeft")].argmax())]
        images = np.moveaxis(capture.frames([index], cameras=views, height=height)[0], 1, -1)
        texture = np.moveaxis(capture.texture([index])[0], 0, -1)
        rows.append(np.concatenate([*images, cv2.resize(texture, (height, height), interpolation=cv2.INTER_CUBIC)], 1))
    save(HERE / "dome.png", srgb(np.concatenate(rows)), levels=64)


def dome_frame() -> None:
    """One frame of the dome: five cameras, the registered mesh in two of them, the texture, and the mesh in it."""
    height, views = 300, ("dome_00", "dome_03", "dome_10", "dome_33", "dome_37")
    capture = SyntheticDome(SyntheticSource(SyntheticConfig()), 13)
    smile = next(segment for segment in capture.segments if segment.name == "smile_teeth")
    frames = range(smile.start, smile.stop)
    index = frames[int(capture.labels(frames).expression[:, ACTIONS.index("mouthSmileLeft")].argmax())]
    images = [srgb(np.moveaxis(image, 0, -1)) for image in capture.frames([index], cameras=views, height=height)[0]]
    geometry, pose, topology = capture.geometry([index])[0], capture.head_pose([index])[0], capture.topology()
    meshes = [
        wired(geometry, topology.faces, in_head(capture.camera(name), pose), capture.width(height), height)
        for name in views[:2]
    ]
    side = (5 * capture.width(height) + GAP - 2 * capture.width(height)) // 2
    texture = srgb(np.moveaxis(capture.texture([index], size=FINE * side)[0], 0, -1))
    layout = drawn(texture, topology.uv * FINE * side, topology.uv_faces, ink=(255, 255, 255))
    flat = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in (texture, layout)]
    below = [sheet([meshes], [["mesh in dome_00", "mesh in dome_03"]]),
             sheet([flat], [["texture, averaged over views", "the mesh in it"]])]  # fmt: skip
    lower = np.full((below[0].shape[0], images[0].shape[1] * 5 + GAP * 4, 3), 255, np.uint8)
    lower[:, : below[0].shape[1]] = below[0]
    lower[: below[1].shape[0], -below[1].shape[1] :] = below[1]
    save(HERE / "dome_frame.png", np.concatenate([sheet([images], [views]), lower]), levels=40)


def wired(vertices: np.ndarray, faces: np.ndarray, camera: CameraSpec, width: int, height: int) -> np.ndarray:
    """A mesh as a camera sees it, lit from there, with the edges of its faces."""
    fine = camera.resized(width * FINE, height * FINE)
    seen = vertices @ fine.rotation.T + fine.translation
    pixels = fine.project(vertices)
    screen = torch.from_numpy(np.concatenate([pixels, seen[:, 2:]], 1).astype(np.float32))[None]
    ids = rasterize(screen, torch.from_numpy(faces.astype(np.int32)), height=fine.height, width=fine.width)[0].numpy()
    a, b, c = (seen[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    light = 70 + 165 * np.abs(normal[:, 2]) / np.linalg.norm(normal, axis=1)
    image = np.where(ids >= 0, light[ids], 0).astype(np.uint8)[..., None].repeat(3, 2)
    image = drawn(image, pixels, faces[np.unique(ids[ids >= 0])], ink=(40, 80, 140))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def drawn(image: np.ndarray, points: np.ndarray, faces: np.ndarray, ink: tuple[int, int, int]) -> np.ndarray:
    """An image with the edges of faces, half transparent; points are pixels."""
    canvas = np.ascontiguousarray(image).copy()
    corners = np.round(points[faces] * 16).astype(np.int32)  # to a sixteenth of a pixel
    cv2.polylines(canvas, list(corners), True, ink, 1, cv2.LINE_AA, shift=4)
    return cv2.addWeighted(canvas, 0.5, image, 0.5, 0)


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light as screens show it, both uint8."""
    light = linear / 255
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
    return (shown * 255 + 0.5).astype(np.uint8)


FIGURES = (readme, headsets, challenges, people, conditions, expressions, labels, performance, dome, dome_frame)

if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for figure in FIGURES:
        if len(sys.argv) == 1 or figure.__name__ in sys.argv[1:]:
            figure()
