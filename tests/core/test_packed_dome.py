import json
import logging

import numpy as np
import pytest

from ufe_core.errors import DataError
from ufe_core.interfaces.source import DomeCapture, Neutral, Segment
from ufe_core.packed_dome import DomeRequest, open_packed_dome, pack_domes
from ufe_core.store import Store
from ufe_core.types import CameraSpec

from .fake_source import FakeSource

WORLD = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a world whose x axis is the head's -z
SHIFT = np.array([3.0, 4.0, 5.0])


def camera(name, azimuth):
    """A camera 1 m from the origin of the head, as the world has it; azimuth 0 is straight ahead."""
    towards = np.array([np.sin(azimuth), 0, np.cos(azimuth)])
    rotation = np.stack([np.cross([0, 1, 0], -towards), [0, 1, 0], -towards])
    head_to_camera = np.concatenate([rotation, [[0], [0], [1000]]], 1)
    turned = head_to_camera[:, :3] @ WORLD.T
    lens = np.array([[400.0, 0, 30], [0, 400, 50], [0, 0, 1]])
    return CameraSpec(
        name, "centre", "whole", "augmented", 60, 100, lens, turned, head_to_camera[:, 3] - turned @ SHIFT
    )


class FakeDome(DomeCapture):
    segments = (Segment("neutral", 0, 6), Segment("talk", 6, 30, "speech"))
    cameras = tuple(camera(f"c{k}", np.radians(40.0 * k)) for k in range(9))

    def __init__(self, source, subject):
        self.source, self.subject, self.id = source, subject, f"{subject}/dome"

    def frames(self, indices, *, cameras, height):
        self.source.rendered.append(self.subject)
        shape = (3, height, round(height * 0.6))
        return np.stack([np.stack([np.full(shape, 10 * int(c[1]) + i, np.uint8) for c in cameras]) for i in indices])

    def geometry(self, indices):
        return np.asarray(indices, np.float32)[:, None, None] + np.zeros((1, 5, 3), np.float32)

    def texture(self, indices, *, size=None):
        return np.stack([np.full((3, size, size), i, np.uint8) for i in indices])

    def head_pose(self, indices):
        return np.stack([np.concatenate([WORLD, SHIFT[:, None]], 1) for _ in indices])

    def neutral(self, *, size=None):
        return Neutral(np.full((5, 3), 7, np.float32), np.full((3, size, size), 9, np.uint8))

    def topology(self):
        return None


class FakeDomes(FakeSource):
    def dome(self, subjects):
        return [FakeDome(self, subject) for subject in subjects]


REQUEST = DomeRequest(frames=8, views=2, height=20, texture=4, neutral_texture=6)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_what_is_packed_is_what_the_capture_gave(store):
    packed = pack_domes(FakeDomes(), "AB", REQUEST, store=store)[1]
    assert packed.subject == "B" and packed.capture == "B/dome" and len(packed.frames) == 8
    assert set(packed.segments) == {"neutral", "talk"}
    frames = np.array(packed.frames)
    assert (packed.geometry[:][:, 0, 0] == frames).all() and (packed.texture[:][:, 0, 0, 0] == frames).all()
    assert (packed.neutral_geometry == 7).all() and packed.neutral_texture.shape == (3, 6, 6)
    assert packed.resting_texture.shape == (3, 4, 4) and (packed.resting_texture == 9).all()
    assert packed.images.shape == (8, 2, 3, 20, 12)


def test_views_are_in_head_coordinates_and_of_the_cameras_that_saw_the_images(store):
    (packed,) = pack_domes(FakeDomes(), "A", REQUEST, store=store)
    point = np.array([10.0, -20.0, 30.0])
    for n, index in enumerate(packed.frames):
        for c in range(2):
            number = (int(packed.images[n][c, 0, 0, 0]) - index) // 10
            world = WORLD @ point + SHIFT
            expected = FakeDome.cameras[number].resized(12, 20).project(world)
            x, y, z = packed.rotation[n][c] @ point + packed.translation[n][c]
            found = np.array([x, y]) / z * packed.focal[n][c] + packed.centre[n][c]
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_only_cameras_in_front_of_the_face_are_drawn_and_all_of_them(store):
    request = DomeRequest(frames=20, views=2, height=20, texture=4, neutral_texture=6)
    (packed,) = pack_domes(FakeDomes(), "A", request, store=store)
    numbers = (packed.images[:][:, :, 0, 0, 0] - np.array(packed.frames)[:, None]) // 10
    assert set(numbers.ravel().tolist()) == {0, 1, 8}  # at 0, 40 and -40 degrees; 80 is too far aside
    assert (numbers[:, 0] != numbers[:, 1]).all()


def test_people_are_taken_at_other_instants_of_their_segments(store):
    first, second = pack_domes(FakeDomes(), "AB", REQUEST, store=store)
    assert first.frames != second.frames
    assert sorted(first.segments) == sorted(second.segments)


def test_a_second_call_renders_nothing_and_another_request_does(store):
    source = FakeDomes()
    first = pack_domes(source, "A", REQUEST, store=store)
    source.rendered.clear()
    assert pack_domes(source, "A", REQUEST, store=store)[0].sha256 == first[0].sha256
    assert not source.rendered
    pack_domes(source, "A", DomeRequest(8, 1, 20, 4, 6), store=store)
    assert source.rendered


def test_damage_is_found_told_and_made_good(store, caplog):
    (packed,) = pack_domes(FakeDomes(), "A", REQUEST, store=store)
    data = packed.path / "frames.safetensors"
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)
    with pytest.raises(DataError, match="is damaged"):
        reopened = open_packed_dome(packed.path)
        for name in ("images", "texture", "geometry"):
            getattr(reopened, name)[:]
    with caplog.at_level(logging.WARNING):
        (again,) = pack_domes(FakeDomes(), "A", REQUEST, store=store)
    assert "made again" in caplog.text and again.sha256 == packed.sha256


def test_a_headset_capture_is_not_taken_for_one_of_a_dome(store):
    (packed,) = pack_domes(FakeDomes(), "A", REQUEST, store=store)
    text = (packed.path / "capture.json").read_text()
    assert json.loads(text)["format"] == "ufe.dome/2"
    (packed.path / "capture.json").write_text(text.replace("ufe.dome/2", "ufe.packed/2"))
    with pytest.raises(DataError, match="format 'ufe.packed/2'"):
        open_packed_dome(packed.path)


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (DomeRequest(8, 4, 20, 4, 6), "has 3 cameras within 75 degrees of straight ahead.*4 were asked for"),
        (DomeRequest(31, 1, 20, 4, 6), "has 30 frames, 31 were asked for"),
    ],
)
def test_too_much_is_refused_in_one_line(store, request_, line):
    with pytest.raises(DataError, match=line):
        pack_domes(FakeDomes(), "A", request_, store=store)


def test_a_source_without_a_dome_says_so(store):
    with pytest.raises(DataError, match="has no dome captures"):
        pack_domes(FakeSource(), "A", REQUEST, store=store)
