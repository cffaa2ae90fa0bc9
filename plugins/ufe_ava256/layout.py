"""The public ava-256 layout: names of files and entries, and how its numbers relate to CONVENTIONS.md.

A capture is the folder `<mcd>--<mct>--<sid>` (date, time, subject), with `decoder/` (the dome) and `encoder/` (the
headset). Reader and writer both take names and conversions from here, so what one writes the other finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ufe_core.types import Region, Role, Side

DOME, HEADSET = "decoder", "encoder"
FRAME_LIST = "frame_list.csv"
FRAME_LIST_HEADER = ("seg_id", "frame_id")

CALIBRATION = f"{DOME}/camera_calibration.json"
HEAD_POSE = f"{DOME}/head_pose/head_pose.zip"
MESHES = f"{DOME}/kinematic_tracking/registration_vertices.zip"
MESH_MEAN = f"{DOME}/kinematic_tracking/registration_vertices_mean.npy"
MESH_VARIANCE = f"{DOME}/kinematic_tracking/registration_vertices_variance.txt"
TEXTURES = f"{DOME}/uv_image/color.zip"
TEXTURE_MEAN = f"{DOME}/uv_image/color_mean.png"
TEXTURE_VARIANCE = f"{DOME}/uv_image/color_variance.txt"
EXPRESSION_CODES = f"{DOME}/expression_codes"
LABELS = f"{HEADSET}/encodings_gt.pt"
LABEL_FRAMES = f"{HEADSET}/encodings_framelist.csv"

#: Beside the captures: the mesh that all of them share, and the list of captures that the public code ships.
TOPOLOGY = "assets/face_topology.obj"
CAPTURE_LIST = "256_ids.csv"
CAPTURE_LIST_HEADER = ("mcd", "sid", "mct")

#: Vertices of the public mesh; a capture of another mesh brings its own `TOPOLOGY`.
VERTEX_COUNT = 7306
CODE_SIZE = 256

#: Size to which the intrinsics of dome cameras refer, whatever the size of the stored images.
SENSOR_WIDTH, SENSOR_HEIGHT = 2668, 4096
#: The layout puts pixel centres at integers, CONVENTIONS.md at halves: x_ufe = x_layout + 0.5, at the sensor's size.
PIXEL_CENTRE = 0.5
#: Head axes: the layout has +x the subject's left, +y up, +z out of the face. x_layout = HEAD_AXES x_ufe, and back.
#: The origin is the layout's own, somewhere inside the head.
HEAD_AXES = np.diag([-1.0, -1.0, 1.0])
PROJECTION_MODEL, DISTORTION_MODEL = "Pinhole", "RadialAndTangential"

NEUTRAL_SEGMENT, NEUTRAL_FALLBACK = "EXP_neutral_peak", "EXP_eye_neutral"
FREE_SEGMENT = "EXP_free_face"

_FOLDER = re.compile(r"(?P<mcd>\d{8})--(?P<mct>\d{4})--(?P<sid>[A-Za-z0-9_]+)")
_CAMERA_ID = re.compile(r"[A-Za-z0-9_-]+")
_TIMESTAMP = re.compile(r"-\d{4}(-\d{2}){5}$")


@dataclass(frozen=True)
class HeadsetCamera:
    """One of the five released infrared views: its name here, its archive's, and what it is for.

    No calibration is public. `position_mm` and `look_at_mm` (head coordinates) are chosen after what the camera is
    called and are nominal only.
    """

    name: str
    stem: str
    side: Side
    region: Region
    role: Role
    position_mm: tuple[float, float, float]
    look_at_mm: tuple[float, float, float]

    @property
    def archive(self) -> str:
        """Path of its images below the capture's folder."""
        return f"{HEADSET}/image/{self.stem}.zip"


#: Tracking cameras in the order of CONVENTIONS.md, then the augmented one. "Left" is taken for the subject's left.
HEADSET_CAMERAS = (
    HeadsetCamera(
        "left_eye", "cam-left-eye-atl-temporal", "left", "upper", "tracking", (-57, 6, 42), (-32, -2, 8)),
    HeadsetCamera(
        "right_eye", "cam-right-eye-atl-temporal", "right", "upper", "tracking", (57, 6, 42), (32, -2, 8)),
    HeadsetCamera("left_mouth", "cam-left-mouth", "left", "lower", "tracking", (-36, 45, 68), (-6, 71, 20)),
    HeadsetCamera("right_mouth", "cam-right-mouth", "right", "lower", "tracking", (36, 45, 68), (6, 71, 20)),
    HeadsetCamera("cyclop", "cam-cyclop", "centre", "upper", "augmented", (0, -17, 54), (0, -7, 14)),
)  # fmt: skip


def capture_folder(mcd: str, mct: str, sid: str) -> str:
    """Name of a capture's folder from its date (yyyymmdd), time (hhmm) and subject."""
    return f"{mcd}--{mct}--{sid}"


def subject_of(folder: str) -> str | None:
    """The subject of a capture's folder; None where the name is not one of a capture."""
    match = _FOLDER.fullmatch(folder)
    return match["sid"] if match else None


def dome_archive(camera: str) -> str:
    """Path of a dome camera's images below the capture's folder."""
    return f"{DOME}/image/cam{camera}.zip"


def is_camera_id(text: str) -> bool:
    """Whether a text may stand in a file name as the id of a dome camera."""
    return _CAMERA_ID.fullmatch(text) is not None


def stem(frame: int) -> str:
    """What the file of a frame is called, without suffix: six digits."""
    return f"{frame:06d}"


def anchor_of(segment: str) -> str:
    """The anchor that a segment is for: its name in lower case without `EXP_` and the time of recording."""
    return _TIMESTAMP.sub("", segment).removeprefix("EXP_").lower()


def is_neutral(segment: str) -> bool:
    """Whether a headset segment shows the resting face, as the public headset loader tells."""
    return segment.startswith(("neutral", "EXP_neutral"))


def kind_of(segment: str) -> str:
    """Kind of a segment: `speech`, `free` or `expression`. Names of sentences begin with `SEN`."""
    if segment.startswith("SEN"):
        return "speech"
    return "free" if segment.startswith((FREE_SEGMENT, "free")) else "expression"
