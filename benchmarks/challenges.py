"""The four challenges of headset images (P§2.4) in numbers, measured on the simulated headset's training people.

    python benchmarks/challenges.py [--people 24] [--headset quest] [--json]

Visibility and obliquity are per camera; donning is over all people and both sessions; light over all tracking images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ufe_core.head import ACTIONS
from ufe_core.interfaces.source import SEGMENTS, Capture
from ufe_core.registry import load_registry
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.source import SyntheticCapture, SyntheticSource

SIZE, FRAMES = 128, 12
SKIN = [SEGMENTS.index(name) for name in ("skin", "lips")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--headset", default="quest")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    source = SyntheticSource(SyntheticConfig(headset=arguments.headset))
    everybody = load_registry().splits["synthetic"].train
    captures = source.captures(everybody[: arguments.people])
    report = {
        "people": arguments.people,
        "cameras": cameras_of(captures),
        "donning": donning_of(source, everybody),
        "light": light_of(captures),
    }
    print(json.dumps(report) if arguments.json else as_text(report))


def cameras_of(captures: Sequence[Capture]) -> dict[str, dict[str, float]]:
    """For each camera the share of the lips' outer border that is seen, and how obliquely skin is seen."""
    lips: dict[str, list[float]] = {}
    angles: dict[str, list[np.ndarray]] = {}
    across: dict[str, list[float]] = {}
    for capture in captures:
        assert isinstance(capture, SyntheticCapture)
        names = [camera.name for camera in capture.cameras]
        for index in capture.spread(FRAMES, seed=1):
            points = capture.keypoints([index], cameras=names, size=SIZE)
            tilt = obliquity(capture, index, names)
            for c, camera in enumerate(capture.cameras):
                which = [name.startswith("lip_outer") for name in capture.keypoint_set(camera).names]
                if any(which):
                    across.setdefault(camera.name, []).append(jaw_motion_angle(capture, index, camera.name))
                    lips.setdefault(camera.name, []).append(float(points.visible[0, c][which].mean()))
                angles.setdefault(camera.name, []).append(tilt[c])
    out = {}
    for camera in captures[0].cameras:
        tilts = np.concatenate(angles[camera.name])
        out[camera.name] = {
            "lip_border_visible": float(np.mean(lips[camera.name])) if camera.name in lips else float("nan"),
            "jaw_motion_to_line_of_sight_deg": float(np.mean(across.get(camera.name, [np.nan]))),
            "median_obliquity_deg": float(np.median(tilts)),
            "p90_obliquity_deg": float(np.percentile(tilts, 90)),
        }
    return out


def jaw_motion_angle(capture: SyntheticCapture, index: int, name: str) -> float:
    """Angle (degrees) between the way the chin goes when the jaw opens, and the camera's line of sight to it."""
    camera = next(one for one in capture.cameras_at(index) if one.name == name)
    points = capture.keypoint_set(camera)
    chin = points.vertices[[one.startswith("chin") for one in points.names]]
    motion = capture.stage.scene.head.actions[ACTIONS.index("jawOpen")][chin]
    sight = capture.geometry([index])[0, chin] - camera.position
    cosine = (motion * sight).sum(1) / np.linalg.norm(motion, axis=1) / np.linalg.norm(sight, axis=1)
    return float(np.degrees(np.arccos(np.abs(cosine))).mean())


def obliquity(capture: SyntheticCapture, index: int, names: list[str]) -> list[np.ndarray]:
    """Angle (degrees) between line of sight and surface at the pixels of skin, for each camera."""
    seen = capture.see([index], names, SIZE)[1]
    classes = capture.segmentation([index], cameras=names, size=SIZE)[0]
    corner = seen.vertices[0].numpy()[seen.level.faces.numpy()].astype(np.float64)
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    middle = corner.mean(1)
    at = {camera.name: camera.position for camera in capture.cameras_at(index)}
    out = []
    for c, name in enumerate(names):
        faces = (seen.keys[c].numpy() & 0x7FFFFFFF)[np.isin(classes[c], SKIN)]
        towards = at[name] - middle[faces]
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        out.append(np.degrees(np.arccos(np.clip((normal[faces] * towards).sum(1), 0, 1))))
    return out


def donning_of(source: SyntheticSource, people: Sequence[str]) -> dict[str, float]:
    """How far headsets sit from their nominal place, and how much that changes by session and within one."""
    sits = []
    for session in (0, 1):
        drawn = [source.sensing(int(name[1:]), session) for name in people]
        sits.append(np.array([np.concatenate([one.translation_mm, one.rotation_deg]) for one in drawn]))
    first, again = sits
    slip = []
    for capture in source.captures(people[:24]):
        place = np.array([capture.cameras_at(index)[0].position for index in capture.spread(24, seed=2)])  # type: ignore[index]
        slip.append(np.linalg.norm(place - place.mean(0), axis=1))
    both = np.concatenate(sits)
    return {
        "rms_mm": float(np.sqrt((both[:, :3] ** 2).sum(1).mean())),
        "rms_deg": float(np.sqrt((both[:, 3:] ** 2).sum(1).mean())),
        "p95_mm": float(np.percentile(np.linalg.norm(both[:, :3], axis=1), 95)),
        "p95_deg": float(np.percentile(np.linalg.norm(both[:, 3:], axis=1), 95)),
        "between_sessions_rms_mm": float(np.sqrt(((first - again)[:, :3] ** 2).sum(1).mean())),
        "between_sessions_rms_deg": float(np.sqrt(((first - again)[:, 3:] ** 2).sum(1).mean())),
        "camera_moves_within_session_rms_mm": float(np.sqrt((np.concatenate(slip) ** 2).mean())),
    }


def light_of(captures: Sequence[Capture]) -> dict[str, float]:
    """Contrast and saturation within tracking images, and how brightness differs between sessions."""
    ratios, dark, white, brightness = [], [], [], []
    for capture in captures:
        assert isinstance(capture, SyntheticCapture)
        names = [camera.name for camera in capture.cameras if camera.role == "tracking"]
        rows = capture.spread(FRAMES, seed=3)
        images = capture.frames(rows, cameras=names, size=SIZE)
        face = np.isin(capture.segmentation(rows, cameras=names, size=SIZE), SKIN)
        linear = (images / 255.0) ** capture.headset.sensor.gamma
        for image, light, inside in zip(
            images.reshape(-1, SIZE, SIZE), linear.reshape(-1, SIZE, SIZE), face.reshape(-1, SIZE, SIZE), strict=True
        ):
            if inside.sum() > 100:
                low, high = np.percentile(light[inside], [1, 99])
                ratios.append(high / max(low, 1e-4))
            dark.append(float((image[inside] <= 5).mean()) if inside.any() else 0.0)
            white.append(float((image == 255).mean()))
        brightness.append(float(np.median(images[face])))
    return {
        "median_contrast_within_face": float(np.median(ratios)),
        "share_of_skin_in_the_dark": float(np.mean(dark)),
        "share_of_pixels_saturated": float(np.mean(white)),
        "brightness_p5": float(np.percentile(brightness, 5)),
        "brightness_p95": float(np.percentile(brightness, 95)),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as tables of Markdown."""
    lines = [
        "| camera | lip border seen | jaw motion to sight | skin to sight: median | 90 % |",
        "| --- |" + " --- |" * 4,
    ]
    for name, row in report["cameras"].items():
        lower = not np.isnan(row["lip_border_visible"])
        lips = f"{row['lip_border_visible']:.0%}" if lower else ""
        jaw = f"{row['jaw_motion_to_line_of_sight_deg']:.0f}°" if lower else ""
        skin = f"{row['median_obliquity_deg']:.0f}° | {row['p90_obliquity_deg']:.0f}°"
        lines.append(f"| {name} | {lips} | {jaw} | {skin} |")
    for part in ("donning", "light"):
        lines += ["", f"| {part} | |", "| --- | --- |"]
        lines += [f"| {name.replace('_', ' ')} | {value:.3g} |" for name, value in report[part].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
