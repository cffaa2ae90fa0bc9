import cv2
import numpy as np
import pytest
import torch

from ufe_core.errors import ArtifactError, ContractError
from ufe_core.geometry import gaze_rotation, rotate_eyeballs, rotation_vector_matrix
from ufe_core.types import (
    AnchorSet,
    Avatar,
    AvatarCode,
    Calibration,
    CameraSpec,
    Encoding,
    FrameBatch,
    Identity,
    Labels,
    MeshTopology,
)
from ufe_core.weights import save_weights

RNG = np.random.default_rng(0)
TURN = rotation_vector_matrix(np.array([0.1, -0.3, 0.2]))


def camera(**changes):
    values = {
        "name": "left_eye", "side": "left", "region": "upper", "role": "tracking", "width": 400, "height": 300,
        "intrinsics": np.array([[310.0, 0.7, 203.0], [0, 305.0, 148.0], [0, 0, 1]]), "rotation": TURN,
        "translation": np.array([4.0, -7.0, 90.0]), "distortion": np.array([-0.11, 0.03, 0.002, -0.004, 0.01]),
    }  # fmt: skip
    return CameraSpec(**{**values, **changes})


POINTS = RNG.uniform(-25, 25, (50, 3))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("intrinsics", np.eye(4), r"expected array \[3, 3\], found \[4, 4\]"),
        ("translation", np.zeros((3, 1)), r"expected array \[3\], found \[3, 1\]"),
        ("distortion", np.zeros(4), r"expected array \[5\], found \[4\]"),
        ("rotation", np.diag([1.0, 2.0, 1.0]), "a rotation matrix"),
        ("rotation", np.full((3, 3), np.nan), "finite numbers, found NaN"),
        ("translation", np.array([0, np.inf, 0]), "finite numbers"),
        ("width", 0, r"> 0, found \(0, 300\)"),
    ],
)
def test_a_wrong_camera_names_the_camera_and_the_field(field, value, message):
    with pytest.raises(ContractError, match=rf"CameraSpec 'left_eye'\.{field}.*{message}"):
        camera(**{field: value})


def u8(*shape):
    return torch.zeros(shape, dtype=torch.uint8)


def f32(*shape):
    return torch.zeros(shape)


EYES = ("left_eye", "right_eye")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FrameBatch(u8(3, 4, 8, 8), EYES, torch.zeros(3, dtype=torch.int64)),
            r"FrameBatch\.images: expected uint8 \[B, 2, H, W\], found uint8 \[3, 4, 8, 8\]",
        ),
        (
            lambda: FrameBatch(f32(3, 2, 8, 8), EYES, torch.zeros(3, dtype=torch.int64)),
            r"FrameBatch\.images: expected uint8 .*, found float32",
        ),
        (
            lambda: FrameBatch(u8(3, 2, 8, 8), EYES, torch.zeros(2, dtype=torch.int64)),
            r"FrameBatch\.users: expected int64 \[3\], found int64 \[2\]",
        ),
        (lambda: FrameBatch(u8(3, 2, 8, 8), EYES, torch.zeros(3)), r"FrameBatch\.users: expected int64"),
        (
            lambda: FrameBatch(np.zeros((3, 2, 8, 8), np.uint8), EYES, torch.zeros(3)),
            r"FrameBatch\.images: expected uint8 .*, found ndarray",
        ),
        (
            lambda: AnchorSet.complete(u8(1, 6, 2, 8, 8), ("neutral",), EYES),
            r"AnchorSet\.images: expected uint8 \[U, 1, 2, H, W\]",
        ),
        (
            lambda: AnchorSet(u8(1, 1, 2, 8, 8), ("neutral",), EYES, torch.ones(1, 1)),
            r"AnchorSet\.present: expected bool \[1, 1\], found float32",
        ),
        (lambda: Labels(f32(4, 52), f32(3, 6)), r"Labels\.gaze: expected float32 \[4, 6\], found float32 \[3, 6\]"),
        (lambda: Labels(f32(4, 52).double(), f32(4, 6)), r"Labels\.expression: expected float32 \[B, D\], .*float64"),
        (lambda: Encoding(f32(52), f32(1, 6)), r"Encoding\.expression: expected float32 \[B, D\]"),
        (lambda: Encoding(f32(2, 52), f32(2, 2, 3)), r"Encoding\.gaze: expected float32 \[2, 6\]"),
        (lambda: Avatar(f32(2, 3, 10)), r"Avatar\.geometry: expected float32 \[B, V, 3\], found float32 \[2, 3, 10\]"),
        (
            lambda: MeshTopology(3, np.array([[0, 1, 3]]), np.zeros((3, 2)), np.array([[0, 1, 2]]), {}, np.zeros(3)),
            r"MeshTopology\.faces: expected indices below V, found 3",
        ),
        (
            lambda: MeshTopology(3, np.array([[0, 1, 2]]), np.zeros((3, 2)), np.zeros((2, 3), int), {}, np.zeros(3)),
            r"MeshTopology\.uv_faces: expected the shape of faces, found \[2, 3\]",
        ),
    ],
)
def test_a_wrong_value_is_refused_at_the_border_by_name(make, message):
    with pytest.raises(ContractError, match=message):
        make()


def test_an_unknown_region_lists_the_known():
    topology = MeshTopology(3, np.array([[0, 1, 2]]), np.zeros((3, 2)), np.array([[0, 1, 2]]), {"face": 0}, np.zeros(3))
    with pytest.raises(ContractError, match="no region 'fase'; it has face"):
        topology.region("fase")


def test_projection_is_that_of_opencv():
    spec = camera(intrinsics=np.array([[310.0, 0, 203.0], [0, 305.0, 148.0], [0, 0, 1]]))  # OpenCV knows no skew
    vector, _ = cv2.Rodrigues(spec.rotation)
    expected, _ = cv2.projectPoints(POINTS, vector, spec.translation, spec.intrinsics, spec.distortion)
    np.testing.assert_allclose(spec.project(POINTS), expected[:, 0], atol=1e-8)


def test_projection_takes_any_leading_axes_and_applies_skew():
    spec = camera()
    grid = spec.project(POINTS.reshape(5, 10, 3))
    np.testing.assert_allclose(grid.reshape(-1, 2), spec.project(POINTS))
    straight = camera(intrinsics=spec.intrinsics * [[1, 0, 1], [1, 1, 1], [1, 1, 1]])
    assert np.abs(spec.project(POINTS) - straight.project(POINTS))[:, 0].max() > 0.01


def test_the_optical_centre_projects_from_nowhere():
    spec = camera()
    np.testing.assert_allclose(spec.rotation @ spec.position + spec.translation, 0, atol=1e-12)


def test_moving_the_camera_is_moving_the_points_the_other_way():
    spec = camera()
    turn, shift = rotation_vector_matrix(np.array([-0.05, 0.2, 0.1])), np.array([1.5, -2.0, 3.0])
    moved = spec.moved(turn, shift)
    np.testing.assert_allclose(moved.project(POINTS @ turn.T + shift), spec.project(POINTS), atol=1e-9)
    np.testing.assert_allclose(moved.position, turn @ spec.position + shift, atol=1e-9)


def test_resizing_scales_pixels_about_the_image_corner():
    spec = camera()
    small = spec.resized(100, 150)
    np.testing.assert_allclose(small.project(POINTS), spec.project(POINTS) * [0.25, 0.5], atol=1e-9)
    assert (small.width, small.height) == (100, 150)


def test_rotation_vectors_agree_with_opencv():
    for vector in (np.zeros(3), np.array([0.3, -1.2, 2.0]), np.array([1e-9, 0, 0])):
        np.testing.assert_allclose(rotation_vector_matrix(vector), cv2.Rodrigues(vector)[0], atol=1e-12)


def test_a_gaze_rotation_turns_straight_ahead_into_the_gaze_without_rolling():
    gaze = RNG.normal(size=(20, 3)) * [0.4, 0.4, 0] + [0, 0, 1]
    gaze /= np.linalg.norm(gaze, axis=1, keepdims=True)
    turn = gaze_rotation(gaze)
    np.testing.assert_allclose(turn @ [0, 0, 1], gaze, atol=1e-12)
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turn), 1)
    np.testing.assert_allclose(turn[:, 0, 1], turn[:, 1, 0], atol=1e-12)  # an axis in the plane z = 0: no torsion


def test_eyeballs_turn_about_their_own_centres_and_nothing_else_moves():
    vertices = RNG.normal(size=(1, 30, 3)).astype(np.float32)
    before = vertices.copy()
    rows = (np.arange(0, 10), np.arange(10, 20))
    centres = (np.array([1.0, 2, 3]), np.array([-1.0, 0, 1]))
    side = np.sin(0.4), 0.0, np.cos(0.4)
    gaze = np.array([[0, 0, 1, *side]], np.float32)
    rotate_eyeballs(vertices, gaze, list(zip(rows, centres, strict=True)))
    np.testing.assert_allclose(vertices[0, 20:], before[0, 20:])
    np.testing.assert_allclose(vertices[0, :10], before[0, :10], atol=1e-6)
    expected = (before[0, 10:20] - centres[1]) @ cv2.Rodrigues(np.array([0, 0.4, 0]))[0].T + centres[1]
    np.testing.assert_allclose(vertices[0, 10:20], expected, atol=1e-5)


def test_calibration_comes_back_as_it_was_saved(tmp_path):
    kept = Calibration("abc123", {"upper": torch.randn(2, 3, 4), "lower": torch.randn(2, 5)})
    kept.save(tmp_path / "user.safetensors")
    again = Calibration.load(tmp_path / "user.safetensors")
    assert again.encoder == "abc123"
    assert {name: torch.equal(value, again.tensors[name]) for name, value in kept.tensors.items()} == {
        "upper": True,
        "lower": True,
    }


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:40], lambda b: b"", lambda b: b[:-1] + b"\xff"])
def test_a_damaged_calibration_is_named(tmp_path, damage):
    path = tmp_path / "user.safetensors"
    Calibration("abc123", {"upper": torch.randn(1, 300)}).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match="user.safetensors"):
        Calibration.load(path)


def test_weights_are_no_calibration(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(2)}, {"component": "ufe/univ", "config": {}})
    with pytest.raises(ArtifactError, match=r"w\.safetensors is no calibration but holds 'ufe/univ'"):
        Calibration.load(tmp_path / "w.safetensors")


def test_calibration_rows_follow_the_frames_and_one_user_is_broadcast():
    many = Calibration("x", {"a": torch.arange(6.0).view(3, 2)})
    assert many.rows(torch.tensor([2, 0, 2]))["a"].tolist() == [[4, 5], [0, 1], [4, 5]]
    one = Calibration("x", {"a": torch.arange(2.0).view(1, 2)})
    assert one.rows(torch.tensor([0, 0, 0]))["a"].shape == (1, 2)


def test_identity_rows_follow_the_frames_and_rows_of_rows_are_rows():
    """Gathered when read: nothing is copied before, and what is chosen twice is chosen from the first choice."""
    identity = Identity({"a": torch.arange(6.0).view(3, 2), "b": torch.arange(3.0)})
    assert identity["a"].tolist() == [[0, 1], [2, 3], [4, 5]]
    frames = identity.rows(torch.tensor([1, 0, 2, 2]))
    assert frames["a"].tolist() == [[2, 3], [0, 1], [4, 5], [4, 5]] and frames["b"].tolist() == [1, 0, 2, 2]
    again = frames.rows(torch.tensor([3, 0, 0]))
    assert again["a"].tolist() == [[4, 5], [2, 3], [2, 3]] and again["b"].tolist() == [2, 1, 1]
    assert again.tensors["a"] is identity.tensors["a"], "who reads `tensors` gets all subjects, once"
    moved = again.to(torch.device("cpu"))
    assert moved["a"].equal(again["a"])
    with pytest.raises(ContractError, match="An identity has a, b, not 'c': it was made by another decoder"):
        again["c"]


def test_gradients_reach_the_rows_that_were_read():
    value = torch.zeros(3, 2, requires_grad=True)
    Identity({"a": value}).rows(torch.tensor([2, 0, 2]))["a"].sum().backward()
    assert value.grad.tolist() == [[1, 1], [0, 0], [2, 2]]


@pytest.mark.parametrize("users", [None, torch.tensor([2, 2, 0, 1])], ids=["rows as they are", "rows of frames"])
def test_parts_of_an_avatar_keep_each_frames_person(users):
    identity = Identity({"who": torch.arange(4.0)}, users)
    who = torch.arange(4.0) if users is None else users.float()
    code = AvatarCode(torch.arange(8.0).view(4, 2), torch.arange(24.0).view(4, 6), identity)
    part = code.part(1, 4).part(1, 3)
    assert part.expression.tolist() == [[4, 5], [6, 7]] and part.gaze[:, 0].tolist() == [12, 18]
    assert part.identity["who"].equal(who[2:4])
    avatar = Avatar(torch.arange(4.0)[:, None, None].expand(4, 5, 3), torch.arange(4.0)[:, None, None, None], code)
    first = avatar.first(3)
    assert first.geometry[:, 0, 0].tolist() == [0, 1, 2] and first.texture.flatten().tolist() == [0, 1, 2]
    assert first.code.gaze.equal(code.gaze[:3]) and first.code.identity["who"].equal(who[:3])
    bare = Avatar(avatar.geometry).first(2)
    assert len(bare.geometry) == 2 and bare.texture is None and bare.code is None
