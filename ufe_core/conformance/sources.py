"""Rules of sources."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from typing import Any

import numpy as np

from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import Broken, require, rule
from ufe_core.errors import DataError, PluginError
from ufe_core.head import SKIN, load_head
from ufe_core.interfaces.source import Capture, HMCSource
from ufe_core.packed import PackRequest, pack
from ufe_core.splits import DividesPeople, splits_of
from ufe_core.store import Store

_SIDE = 32
_HEAD_TO_CAMERA = "x_camera = rotation @ x_head + translation, +z out of the face and into the scene"
_OUTSIDE = 0.2  # of the triangles in an image, seen from outside: half and more by a headset's, few from inside


def made(candidate: Candidate) -> HMCSource[Any]:
    """The source."""
    source: HMCSource[Any] = candidate.factory(candidate.config)
    return source


def first(candidate: Candidate) -> Capture:
    """Its first person's capture."""
    source = made(candidate)
    return source.captures(source.subjects()[:1])[0]


def _some(capture: Capture) -> list[int]:
    return sorted({0, capture.frame_count // 2, capture.frame_count - 1})


@rule("source", "it has people, each once, and refuses others in one line")
def has_people(candidate: Candidate) -> None:
    source = made(candidate)
    people = source.subjects()
    require(people, "it has nobody")
    require(len(set(people)) == len(people), "somebody appears twice")
    require(source.fingerprint == made(candidate).fingerprint, "`fingerprint` changes from one instance to the next")
    try:
        source.captures(["nobody at all"])
    except DataError:
        return
    except Exception as error:
        raise Broken(f"somebody it does not have: {type(error).__name__}; raise DataError with a line") from error
    raise Broken("it gives a capture of somebody it does not have: raise DataError")


@rule("source", "`split`, where there is one, divides its people: nobody is in both parts")
def divides_people(candidate: Candidate) -> None:
    source, again = made(candidate), made(candidate)
    if not (isinstance(source, DividesPeople) and isinstance(again, DividesPeople)):
        return
    same = source.split() == again.split()
    try:
        splits_of(candidate.spec.id, made(candidate))
    except PluginError as error:
        raise Broken(str(error)) from error
    require(same, "`split` changes from one instance to the next")


@rule("source", "a capture says whose it is, its cameras (tracking ones first), segments and anchors")
def captures_say_what_they_are(candidate: Candidate) -> None:
    source, capture = made(candidate), first(candidate)
    require(capture.subject == source.subjects()[0], "`subject` is another one than was asked for")
    roles = [camera.role for camera in capture.cameras]
    require("tracking" in roles, "there is no tracking camera: an encoder would see nothing")
    require(roles == sorted(roles, key=lambda role: role != "tracking"), "tracking cameras must come first")
    names = [camera.name for camera in capture.cameras]
    require(len(set(names)) == len(names), "two cameras have one name")
    require(capture.segments, "it has no segments")
    ends = [(segment.start, segment.stop) for segment in capture.segments]
    require(all(a < b for a, b in ends), "a segment has no frames")
    require(ends[0][0] == 0, "the first segment must begin with frame 0")
    require(all(b == c for (_, b), (c, _) in pairwise(ends)), "segments must follow each other")
    outside = [name for name, index in capture.anchors.items() if not 0 <= index < capture.frame_count]
    require(not outside, f"anchor {', '.join(outside)} lies outside the capture")


@rule("source", "its tracking cameras look at the face: `rotation` and `translation` map head to camera coordinates")
def cameras_see_the_face(candidate: Candidate) -> None:
    places, outward = _face()
    for camera in first(candidate).cameras:
        if camera.role != "tracking":
            continue
        shown = camera.in_view(places) & camera.in_image(camera.project(places))
        towards = ((camera.position - places) * outward).sum(1) > 0
        require(shown.any(), f"no part of the face is in the image of camera '{camera.name}'. {_HEAD_TO_CAMERA}")
        x, y, z = camera.position.round()
        require(
            (shown & towards).sum() > _OUTSIDE * shown.sum(),
            f"camera '{camera.name}' sees the face from inside, from ({x:.0f}, {y:.0f}, {z:.0f}). {_HEAD_TO_CAMERA}",
        )


def _face() -> tuple[np.ndarray, np.ndarray]:
    """Middles and outward normals, both [N, 3], of the triangles of the mean face's skin that look ahead."""
    head = load_head()
    corners = head.template[head.faces[(head.part[head.faces] == SKIN).all(1)]].astype(np.float64)
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    ahead = outward[:, 2] > 0
    return corners.mean(1)[ahead], outward[ahead]


@rule("source", "frames are uint8, one plane for each camera asked for, and the same in any order")
def frames_are_images(candidate: Candidate) -> None:
    capture = first(candidate)
    cameras, rows = [camera.name for camera in capture.cameras[:2]], _some(capture)
    images = capture.frames(rows, cameras=cameras, size=_SIDE)
    expected = (len(rows), len(cameras), _SIDE, _SIDE)
    require(images.dtype == np.uint8 and images.shape == expected, f"frames are {images.dtype} {list(images.shape)}; "
            f"expected uint8 {list(expected)}")  # fmt: skip
    again = capture.frames(rows[::-1], cameras=cameras[::-1], size=_SIDE)[::-1, ::-1]
    require(np.array_equal(images, again), "the same frames in another order are other images")


@rule("source", "a frame or a camera that is not there is refused in one line")
def refuses_what_is_not_there(candidate: Candidate) -> None:
    capture = first(candidate)
    camera = capture.cameras[0].name
    for what, rows, names in (("frame", [capture.frame_count], [camera]), ("camera", [0], ["no such camera"])):
        try:
            capture.frames(rows, cameras=names, size=_SIDE)
        except DataError:
            continue
        except Exception as error:
            raise Broken(f"a {what} that is not there: {type(error).__name__}; raise DataError with a line") from error
        raise Broken(f"it gives images of a {what} that is not there: raise DataError")


@rule("source", "labels, where there are some, have a row for each frame and unit gaze vectors")
def labels_fit(candidate: Candidate) -> None:
    capture = first(candidate)
    rows = _some(capture)
    labels = capture.labels(rows)
    if labels is None:
        return
    require(labels.expression.shape[0] == len(rows) == labels.gaze.shape[0], "labels have not a row for each frame")
    length = np.linalg.norm(labels.gaze.reshape(-1, 2, 3), axis=-1)
    known = np.isfinite(length)
    require(np.allclose(length[known], 1, atol=1e-3), "a gaze is no unit vector")


@rule("source", "it can be packed, and what is packed is what it gives")
def packs(candidate: Candidate) -> None:
    source, capture = made(candidate), first(candidate)
    cameras = tuple(camera.name for camera in capture.cameras if camera.role == "tracking")
    request = PackRequest(2, _SIDE, cameras, tuple(capture.anchors)[:1])
    with tempfile.TemporaryDirectory() as folder:
        (packed,) = pack(source, [capture.subject], request, store=Store(folder))
        direct = capture.frames(packed.frames, cameras=cameras, size=_SIDE)
        require(np.array_equal(packed.images[:], direct), "packed frames differ from those that `frames` gives")
