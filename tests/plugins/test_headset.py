"""Headsets are data: what a file says is what the cameras, lights and walls are, and a wrong file says where."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ufe_core.errors import ConfigError, DataError
from ufe_core.head import EYE_LEFT, EYE_RIGHT, EYE_SOCKET, SKIN, load_head
from ufe_core.ops.rasterize import depth_keys, key_depths
from ufe_synthetic import headset as module
from ufe_synthetic.headset import SensorModel, load_headset
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.sensing import headset_pose
from ufe_synthetic.source import SyntheticSource

SHIPPED = ("quest", "ava256")
FOLDER = Path(module.__file__).with_name("headsets")
FLIP = np.array([-1.0, 1.0, 1.0])
MINIMAL = """
name = "mine"
summary = "One camera"
[[cameras]]
name = "eye"
mirror = true
region = "upper"
role = "tracking"
model = "fisheye"
distortion = [-0.03, 0.01, 0, 0]
fov_deg = 90
position_mm = [50, 10, 45]
look_at_mm = [30, 0, 10]
[[emitters]]
position_mm = [10, 0, 50]
direction = [0, 0, -2]
power = 0.5
mirror = true
"""


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_the_quest_has_the_cameras_of_the_paper():
    headset = load_headset("quest")
    tracking = [camera.name for camera in headset.cameras if camera.role == "tracking"]
    assert tracking == ["left_eye", "right_eye", "left_mouth", "right_mouth"]
    assert [camera.role for camera in headset.cameras] == ["tracking"] * 4 + ["augmented"] * 4
    assert {(camera.width, camera.height) for camera in headset.cameras} == {(400, 400)}
    assert headset.rate_hz == 72
    assert 6 <= len(headset.emitters) <= 8
    assert {camera.model for camera in headset.cameras} == {"fisheye", "brown_conrady"}


def test_the_ava256_headset_has_one_camera_more_than_tracking_needs():
    names = [camera.name for camera in load_headset("ava256").cameras]
    assert names == ["left_eye", "right_eye", "left_mouth", "right_mouth", "cyclop"]


@pytest.mark.parametrize("name", SHIPPED)
def test_tracking_mouth_cameras_look_almost_along_the_jaw_and_others_less(name):
    """P§2.4: obliqueness. The jaw opens down and back; augmented cameras see that motion at a wider angle."""
    opening = np.array([0.0, 0.94, -0.34])
    along = {c.name: abs(c.rotation[2] @ opening) for c in load_headset(name).cameras if c.region == "lower"}
    tracking = [value for key, value in along.items() if key.endswith("_mouth")]
    assert min(tracking) > 0.55
    assert all(value < 0.3 for key, value in along.items() if key.endswith("_front"))


@pytest.mark.parametrize("name", SHIPPED)
def test_left_images_are_flipped_right_images(name):
    headset = load_headset(name)
    by_name = {camera.name: camera for camera in headset.cameras}
    points = np.random.default_rng(0).uniform([-30, -20, 0], [30, 90, 25], (40, 3))
    for camera in headset.cameras:
        if camera.side != "left":
            continue
        right = by_name[camera.name.replace("left", "right")]
        expected = right.project(points) * [-1, 1] + [right.width, 0]
        np.testing.assert_allclose(camera.project(points * FLIP), expected, atol=1e-9)


def test_mirroring_covers_lenses_that_are_off_centre(tmp_path):
    text = MINIMAL.replace('model = "fisheye"', "").replace("[-0.03, 0.01, 0, 0]", "[-0.1, 0.02, 0.003, -0.004, 0.001]")
    text = text.replace("fov_deg = 90", "fx = 200\nfy = 210\ncx = 190\ncy = 204")
    left, right = load_headset(written(tmp_path, text)).cameras
    points = np.random.default_rng(0).uniform([15, -15, 0], [45, 15, 15], (40, 3))
    np.testing.assert_allclose(left.project(points * FLIP), right.project(points) * [-1, 1] + [400, 0], atol=1e-9)


@pytest.mark.parametrize("model", ["fisheye", "brown_conrady"])
def test_a_field_of_view_ends_at_the_image_edges(tmp_path, model):
    text = MINIMAL.replace("fisheye", model)
    text = text.replace("[-0.03, 0.01, 0, 0]", "[-0.1, 0.02, 0, 0, 0]") if model == "brown_conrady" else text
    right = load_headset(written(tmp_path, text)).cameras[1]
    edges = right.unproject(np.array([[0.0, 200.0], [400.0, 200.0]]))
    assert np.degrees(np.arccos(edges[0] @ edges[1])) == pytest.approx(90, abs=1e-6)
    assert right.intrinsics[0, 0] == right.intrinsics[1, 1]


def test_a_camera_looks_at_what_it_is_told_to_and_stays_upright(tmp_path):
    left, right = load_headset(written(tmp_path, MINIMAL)).cameras
    np.testing.assert_allclose(right.position, [50, 10, 45], atol=1e-9)
    np.testing.assert_allclose(left.project(np.array([-30.0, 0, 10])), [200, 200], atol=1e-9)
    assert right.rotation[0, 1] == pytest.approx(0)
    assert right.rotation[1, 1] > 0


def test_emitters_are_mirrored_and_their_directions_have_length_one(tmp_path):
    headset = load_headset(written(tmp_path, MINIMAL))
    np.testing.assert_array_equal(headset.emitters, [[-10, 0, 50], [10, 0, 50]])
    np.testing.assert_array_equal(headset.directions, [[0, 0, -1], [0, 0, -1]])
    np.testing.assert_array_equal(headset.power, [0.5, 0.5])
    np.testing.assert_array_equal(headset.lobe, [1, 1])
    assert headset.sensor == SensorModel()
    assert [len(part) for part in headset.occluders()] == [0, 0]


def test_a_pose_may_be_given_as_a_matrix(tmp_path):
    one = load_headset(written(tmp_path, MINIMAL)).cameras[1]
    pose = f"rotation = {one.rotation.tolist()}\ntranslation_mm = {one.translation.tolist()}"
    text = MINIMAL.replace("position_mm = [50, 10, 45]\nlook_at_mm = [30, 0, 10]", pose)
    for camera, again in zip(load_headset("quest").cameras, load_headset("quest").cameras, strict=True):
        assert camera is again  # cached
    np.testing.assert_array_equal(load_headset(written(tmp_path, text)).cameras[1].rotation, one.rotation)


def test_an_edited_file_is_read_again(tmp_path):
    first = load_headset(written(tmp_path, MINIMAL))
    second = load_headset(written(tmp_path, MINIMAL.replace("power = 0.5", "power = 0.7")))
    assert (first.power[0], second.power[0]) == (0.5, 0.7)
    assert first.digest != second.digest


BARREL = """[[occluders]]
kind = "barrel"
position_mm = [1, 2, 4]
radius_mm = 3
length_mm = 2
[[emitters]]
"""
GASKET = """[[occluders]]
kind = "gasket"
points_mm = [[0, -40, 0], [40, -30, 0], [40, 30, 0], [0, 30, 0]]
front_mm = 9
nose = { half_width_mm = 20, depth_mm = 5 }
[[emitters]]
"""
SAY = re.escape
WRONG = {
    "no TOML": ("fov_deg = 90", "fov_deg = ", "is no TOML"),
    "unknown field": ("fov_deg = 90", "fov = 90", "give either fov_deg|cameras[0].fov ('eye'): Extra inputs"),
    "both lenses": ("fov_deg = 90", "fov_deg = 90\nfx = 3", "cameras[0] ('eye'): give either fov_deg, or fx, fy,"),
    "half a pose": ("look_at_mm = [30, 0, 10]", "", "give either position_mm and look_at_mm, or rotation"),
    "wide": ("fov_deg = 90", "fov_deg = 190", "cameras[0].fov_deg ('eye'): Input should be less than 180"),
    "folding": ("-0.03, 0.01, 0, 0", "-0.6, 0, 0, 0", "fov_deg: this distortion folds the image back at 85.4 degrees"),
    "coefficients": ("-0.03, 0.01, 0, 0", "-0.03, 0.01", "distortion: a fisheye lens has 4 coefficients, found 2"),
    "left": ("[50, 10, 45]", "[-50, 10, 45]", "mirror: write the subject's right camera, which has x > 0"),
    "side twice": ("mirror = true", 'mirror = true\nside = "left"', "give either side, or mirror = true"),
    "straight down": ("[30, 0, 10]", "[50, 90, 45]", "look_at_mm: must not lie straight above or below"),
    "no tracking": ("tracking", "augmented", "cameras: none has role = 'tracking'"),
    "rate": ('summary = "One camera"', 'summary = "x"\nrate_hz = 90', "rate_hz: people act at 72 frames a second"),
    "dark": ("power = 0.5", "power = 0", "emitters[0].power: Input should be greater than 0"),
    "nowhere": ("[0, 0, -2]", "[0, 0, 0]", "emitters[0]: direction: must not be zero"),
    "infinite": ("[0, 0, -2]", "[0, 0, inf]", "emitters[0].direction[2]: Input should be a finite number"),
    "barrel": ("[[emitters]]", BARREL.replace("3\n", "-3\n"), "occluders[0].radius_mm: Input should be greater than 0"),
    "kind": ("[[emitters]]", BARREL.replace('"barrel"', '"wall"'), "occluders[0]: Input tag 'wall'"),
    "gasket": ("[[emitters]]", GASKET.replace("[0, 30, 0]", "[1, 30, 0]"), "points_mm: start and end at x = 0"),
    "shallow": ("[[emitters]]", GASKET.replace("= 5", "= 10"), "front_mm: the foam must end in front of its face side"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_names_itself_and_the_field(tmp_path, case):
    old, new, message = WRONG[case]
    assert old in MINIMAL
    path = written(tmp_path, MINIMAL.replace(old, new))
    expected = "|".join(SAY(part) for part in message.split("|"))
    with pytest.raises(DataError, match=rf"^Headset file {SAY(str(path))}.*({expected})") as caught:
        load_headset(path)
    assert "\n" not in str(caught.value)


def test_sound_occluders_are_taken(tmp_path):
    for solid in (BARREL, GASKET):
        assert len(load_headset(written(tmp_path, MINIMAL.replace("[[emitters]]", solid))).albedo) > 100


def test_each_camera_has_the_noise_of_its_own_sensor_whichever_is_asked_for_beside_it(tmp_path):
    quest = (FOLDER / "quest.toml").read_text()
    mixed = quest.replace('name = "mouth"\n', 'name = "mouth"\nwidth = 640\nheight = 640\n')
    source = SyntheticSource(SyntheticConfig(headset=str(written(tmp_path, mixed))))
    (capture,) = source.captures(["S003"])
    both = capture.frames([5], cameras=["left_eye", "left_mouth"], size=64)
    for column, name in enumerate(("left_eye", "left_mouth")):
        np.testing.assert_array_equal(both[:, column], capture.frames([5], cameras=[name], size=64)[:, 0])


def test_two_cameras_of_one_name_are_refused(tmp_path):
    camera = MINIMAL[MINIMAL.index("[[cameras]]") : MINIMAL.index("[[emitters]]")]
    with pytest.raises(DataError, match="cameras: two are called 'left_eye'"):
        load_headset(written(tmp_path, MINIMAL + camera))


def test_an_unknown_name_or_a_missing_file_says_what_there_is(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no headset 'qest'; there are ava256, quest, or give.*Did you mean 'quest'\?"
    ):
        load_headset("qest")
    with pytest.raises(DataError, match=r"Headset file .*none\.toml cannot be read: No such file"):
        load_headset(tmp_path / "none.toml")


@pytest.mark.parametrize("name", SHIPPED)
def test_occluders_are_closed_solids_seen_from_outside(name):
    headset = load_headset(name)
    vertices, faces = headset.occluders()
    assert vertices.dtype == np.float32
    assert faces.dtype == np.int32
    assert len(headset.albedo) == len(faces) <= 1500
    edges = np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    assert len(np.unique(edges, axis=0)) == len(edges)  # each once in each direction: closed, and oriented alike
    np.testing.assert_array_equal(np.unique(edges, axis=0), np.unique(edges[:, ::-1], axis=0))
    at = vertices.astype(np.float64)
    a, b, c = (at[faces[:, k]] for k in range(3))
    assert (np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-3).all()
    ring = np.hypot(at[:, 0] - 32, at[:, 1] + 1) < 25
    barrel = faces[ring[faces].all(1)]
    assert len(barrel) > 100
    assert (at[barrel[:, 0]] * np.cross(at[barrel[:, 1]], at[barrel[:, 2]])).sum() > 0
    flipped = np.unique(np.round(at * FLIP, 3) + 0.0, axis=0)
    np.testing.assert_array_equal(flipped, np.unique(np.round(at, 3) + 0.0, axis=0))


DONNINGS = [(np.zeros(3), np.zeros(3))] + [
    (5 * np.array(turn), 6 * np.array(shift))
    for turn, shift in [((1, 1, 1), (1, 1, 1)), ((-1, -1, -1), (-1, -1, -1)), ((-1, 1, 0), (0, 1, -1)),
                        ((1, -1, 0), (0, -1, -1)), ((0, 1, 1), (1, -1, 1)), ((0, -1, 1), (-1, 1, 1))]
]  # fmt: skip


def watched(head, camera):
    """Vertices that a camera is there for: its lid rims and front of the eyes, or the lips."""
    if camera.region == "lower":
        return np.flatnonzero((head.albedo_mask[:, 0] > 0.5) & (head.part == SKIN))
    socket = (head.part[head.faces] == EYE_SOCKET).any(1)
    rows = np.intersect1d(head.faces[socket], head.faces[~socket])
    rows = np.union1d(rows, np.flatnonzero(np.isin(head.part, (EYE_LEFT, EYE_RIGHT)) & (head.template[:, 2] > 11)))
    sign = {"left": -1, "right": 1, "centre": 0}[camera.side]
    return rows[head.template[rows, 0] * sign >= 0]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_headset_frames_its_images_and_hides_neither_eyes_nor_mouth(name):
    head, headset = load_head(), load_headset(name)
    vertices, faces = headset.occluders()
    corners, triangles = vertices.astype(np.float64), torch.from_numpy(faces)
    for camera in headset.cameras:
        rows, hidden, framed = watched(head, camera), [], []
        for turn, shift in DONNINGS:
            rotation, translation = headset_pose(turn, shift)
            moved, walls = camera.moved(rotation, translation), corners @ rotation.T + translation
            depth = np.where(moved.in_view(walls), walls @ moved.rotation[2] + moved.translation[2], 0)
            pixels = np.where(depth[:, None] > 0, moved.project(walls), 0)
            screen = np.concatenate([pixels, depth[:, None]], 1).astype(np.float32)
            keys = depth_keys(torch.from_numpy(screen)[None], triangles, height=400, width=400)
            nearest = key_depths(keys)[0].numpy()
            points = head.template[rows].astype(np.float64)
            pixel = moved.project(points)
            assert ((pixel > 0) & (pixel < 400)).all(), camera.name
            column, row = pixel.astype(int).T
            hidden.append((points @ moved.rotation[2] + moved.translation[2] > nearest[row, column]).mean())
            framed.append(np.isfinite(nearest).mean())
        assert max(hidden) <= (0.05 if camera.name == "cyclop" else 0), camera.name
        assert framed[0] > 0.01, camera.name
