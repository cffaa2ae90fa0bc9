"""Lenses: OpenCV's formulas, their inverses, and how far they hold."""

import cv2
import numpy as np
import pytest

from ufe_core.errors import ContractError
from ufe_core.geometry import rotation_vector_matrix
from ufe_core.packed_meta import camera_of_json, camera_to_json
from ufe_core.types import CameraSpec

RNG = np.random.default_rng(0)
LENSES = {
    "pinhole": ("brown_conrady", [0, 0, 0, 0, 0]),
    "barrel": ("brown_conrady", [-0.11, 0.03, 0, 0, 0.001]),
    "decentred": ("brown_conrady", [-0.11, 0.03, 0.002, -0.004, 0.01]),
    "equidistant": ("fisheye", [0, 0, 0, 0, 0]),
    "fisheye": ("fisheye", [-0.03, 0.011, -0.006, 0.0008, 0]),
    "folding": ("fisheye", [-0.2, 0, 0, 0, 0]),
}


def camera(lens, **changes):
    model, distortion = LENSES[lens]
    values = {
        "name": "left_eye", "side": "left", "region": "upper", "role": "tracking", "width": 400, "height": 300,
        "intrinsics": np.array([[210.0, 0, 203.0], [0, 205.0, 148.0], [0, 0, 1]]),
        "rotation": rotation_vector_matrix(np.array([0.1, -0.3, 0.2])), "translation": np.array([4.0, -7.0, 60.0]),
        "distortion": np.array(distortion, float), "model": model,
    }  # fmt: skip
    return CameraSpec(**{**values, **changes})


def points_at(spec, angles):
    """Head-space points at angles from the optical axis, at random bearings and distances."""
    turn, far = RNG.uniform(0, 2 * np.pi, len(angles)), RNG.uniform(20, 90, len(angles))
    sine = np.sin(angles)
    rays = np.stack([sine * np.cos(turn), sine * np.sin(turn), np.cos(angles)], 1)
    return (far[:, None] * rays - spec.translation) @ spec.rotation, rays


@pytest.mark.parametrize("lens", LENSES)
def test_projection_is_that_of_opencv(lens):
    spec = camera(lens)
    points, _ = points_at(spec, np.linspace(0, 1.2, 60))
    vector = cv2.Rodrigues(spec.rotation)[0]
    if spec.model == "fisheye":
        expected, _ = cv2.fisheye.projectPoints(
            points[:, None], vector, spec.translation, spec.intrinsics, spec.distortion[:4]
        )
    else:
        expected, _ = cv2.projectPoints(points, vector, spec.translation, spec.intrinsics, spec.distortion)
    np.testing.assert_allclose(spec.project(points), expected.reshape(-1, 2), atol=1e-8)


@pytest.mark.parametrize("lens", LENSES)
def test_a_pixel_leads_back_to_the_direction_that_it_came_from(lens):
    spec = camera(lens, intrinsics=np.array([[210.0, 0.7, 203.0], [0, 205.0, 148.0], [0, 0, 1]]))
    points, rays = points_at(spec, np.linspace(0, min(0.97 * spec.max_angle, 1.35), 300))
    np.testing.assert_allclose(spec.unproject(spec.project(points)), rays, atol=1e-9)
    grid = spec.unproject(spec.project(points).reshape(30, 10, 2))
    np.testing.assert_allclose(np.linalg.norm(grid, axis=-1), 1, atol=1e-12)


def test_the_optical_axis_has_a_direction():
    for lens in LENSES:
        spec = camera(lens)
        on_axis = 40 * spec.rotation[2] + spec.position
        np.testing.assert_allclose(spec.project(on_axis), [203, 148], atol=1e-9)
        np.testing.assert_allclose(spec.unproject(np.array([203.0, 148.0])), [0, 0, 1], atol=1e-12)


def radius_px(spec, angle):
    ray = np.array([np.sin(angle), 0, np.cos(angle)])
    return np.linalg.norm(spec.project((ray - spec.translation) @ spec.rotation) - spec.intrinsics[:2, 2])


@pytest.mark.parametrize("lens", ["barrel", "folding"])
def test_the_cone_ends_where_the_image_folds_back(lens):
    spec = camera(lens, distortion=np.array([-0.2, 0, 0, 0, 0.0]))
    limit = spec.max_angle
    assert 0.5 < limit < np.pi / 2
    angles = np.linspace(0.01, limit - 0.01, 50)
    assert (np.diff([radius_px(spec, angle) for angle in angles]) > 0).all()
    assert radius_px(spec, limit + 0.02) < radius_px(spec, limit)
    beyond = np.array([203 + 1.01 * radius_px(spec, limit), 148])
    assert np.isnan(spec.unproject(beyond)).all()
    assert np.isfinite(spec.unproject(beyond - [0.03 * radius_px(spec, limit), 0])).all()


def test_lenses_that_never_fold_see_everything_in_front():
    assert camera("pinhole").max_angle == camera("equidistant").max_angle == np.pi / 2
    rising = np.array([0.2, 0.1, 0, 0, 0.3])
    assert camera("pinhole", distortion=rising).max_angle == np.pi / 2


def test_in_view_is_in_front_and_inside_the_cone():
    spec = camera("folding")
    inside, _ = points_at(spec, np.full(5, spec.max_angle - 1e-3))
    outside, _ = points_at(spec, np.full(5, spec.max_angle + 1e-3))
    behind, _ = points_at(spec, np.array([np.pi - 0.1]))
    assert spec.in_view(inside).all()
    assert not spec.in_view(outside).any()
    assert not spec.in_view(behind).any()
    assert spec.in_view(inside.reshape(5, 1, 3)).shape == (5, 1)


def test_resizing_moving_and_packing_keep_the_lens():
    spec = camera("fisheye")
    points, _ = points_at(spec, np.linspace(0, 1, 20))
    small = spec.resized(100, 150)
    np.testing.assert_allclose(small.project(points), spec.project(points) * [0.25, 0.5], atol=1e-9)
    turn, shift = rotation_vector_matrix(np.array([-0.05, 0.2, 0.1])), np.array([1.5, -2.0, 3.0])
    moved = spec.moved(turn, shift)
    np.testing.assert_allclose(moved.project(points @ turn.T + shift), spec.project(points), atol=1e-9)
    again = camera_of_json(camera_to_json(spec))
    assert again.model == "fisheye"
    np.testing.assert_array_equal(again.project(points), spec.project(points))


def test_a_point_given_in_single_precision_is_projected_in_double():
    spec = camera("fisheye")
    points = points_at(spec, np.linspace(0, 1, 20))[0].astype(np.float32)
    assert spec.project(points).dtype == np.float64
    np.testing.assert_array_equal(spec.project(points), spec.project(points.astype(np.float64)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "panorama"}, r"CameraSpec 'left_eye'\.model: expected brown_conrady or fisheye, found panorama"),
        ({"distortion": np.ones(5)}, r"CameraSpec 'left_eye'\.distortion: expected \(k1, k2, k3, k4, 0\) of a fisheye"),
    ],
)
def test_a_wrong_lens_is_refused_by_name(changes, message):
    with pytest.raises(ContractError, match=message):
        camera("fisheye", **changes)
