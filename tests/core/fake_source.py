"""Sources without rendering: every value tells which frame and camera it is of."""

import time
from typing import ClassVar

import numpy as np

from ufe_core.config import ComponentConfig
from ufe_core.interfaces.source import Capture, FrameLabels, HMCSource, Keypoints, Neutral, Segment
from ufe_core.types import CameraSpec


class FakeCapture(Capture):
    """Pixels say which frame and camera they are of."""

    cameras = ()
    segments = (Segment("rest", 0, 10), Segment("talk", 10, 14, "speech"), Segment("free", 14, 40, "free"))
    conditions: ClassVar = {"glasses": True, "donning_mm": 1.25}
    traits: ClassVar = {"age_years": 41.5, "freckles": 3, "gain.jawOpen": 0.9, "gain.cheekPuff": 1.1}

    def __init__(self, source, subject, session=0):
        self.source, self.subject, self.session, self.id = source, subject, session, f"{subject}/{session}"
        self.anchors = {"neutral": 3, "smile": 12, "pout": 20}

    def frames(self, indices, *, cameras, size):
        self.source.rendered.append(self.subject)
        time.sleep(self.source.slow)
        level = {"a": 100, "b": 200}
        return np.stack([
            np.stack([np.full((size, size), level[c] + i, np.uint8) for c in cameras]) for i in indices
        ])  # fmt: skip

    def labels(self, indices):
        rows = np.asarray(indices, np.float32)[:, None]
        return FrameLabels(rows * np.ones((1, 3), np.float32), rows * np.ones((1, 6), np.float32))

    def neutral(self, *, size=None):
        return Neutral(np.full((4, 3), 7, np.float32), np.full((3, size or 2, size or 2), 9, np.uint8))


class RichCapture(FakeCapture):
    """One that has every extra; each value tells frame and camera."""

    def __init__(self, *args):
        super().__init__(*args)
        lens = np.array([[4.0, 0, 4], [0, 4, 4], [0, 0, 1]])  # 90 degrees
        self.cameras = (
            CameraSpec("a", "left", "upper", "tracking", 8, 8, lens, np.eye(3), np.array([0.0, 20, -30])),
            CameraSpec("b", "left", "upper", "tracking", 8, 8, lens, np.eye(3), np.zeros(3), np.arange(5) / 70),
            CameraSpec("c", "left", "upper", "augmented", 8, 8, lens, np.eye(3), np.zeros(3), np.zeros(5), "fisheye"),
        )

    def geometry(self, indices):
        return np.asarray(indices, np.float32)[:, None, None] + np.zeros((1, 5, 3), np.float32)

    def cameras_at(self, index):
        turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        return tuple(camera.moved(turned, np.full(3, index + 0.1)) for camera in reversed(self.cameras))

    def keypoints(self, indices, *, cameras, size):
        points = np.array([[[[i, ord(c) - ord("a")]] * 3 for c in cameras] for i in indices], np.float32)
        return Keypoints(points, points[..., 0] % 2 == 0)

    def segmentation(self, indices, *, cameras, size):
        return np.stack([np.full((len(cameras), size, size), i % 11, np.uint8) for i in indices])


class FakeSource(HMCSource):
    sessions = 2

    def __init__(self, version="1", slow=0.0, capture=FakeCapture):
        super().__init__(ComponentConfig())
        self.version, self.slow, self.capture, self.rendered = version, slow, capture, []

    def subjects(self):
        return tuple("ABCDEFGH")

    def captures(self, subjects, *, session=0):
        return [self.capture(self, subject, session) for subject in subjects]

    @property
    def fingerprint(self):
        return self.version
