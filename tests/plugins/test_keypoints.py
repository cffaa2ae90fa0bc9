"""Keypoints: 96 a view, chosen by rule, mirrored between sides, pupils where the gaze leaves the eye."""

import numpy as np
import pytest

from ufe_core.errors import ContractError
from ufe_core.head import ACTIONS, SKIN
from ufe_synthetic.headset import load_headset
from ufe_synthetic.keypoints import COUNT, keypoint_set

FLIP = np.array([-1.0, 1.0, 1.0])
VIEWS = [(region, side) for region in ("upper", "lower") for side in ("left", "right", "centre")]
PUPILS = np.array([[[-31.0, 0, 17], [31.0, 0, 17]]])


@pytest.mark.parametrize(("region", "side"), VIEWS)
def test_a_view_has_96_points_with_names_of_their_own(head, region, side):
    points = keypoint_set(head, region, side)
    assert len(points.names) == COUNT == len(set(points.names))
    assert len(set(points.vertices.tolist())) == len(points.vertices) == (94 if region == "upper" else 96)
    assert (head.part[points.vertices] == SKIN).all()
    assert sorted(points.pupils) == ([0, 1] if region == "upper" else [])
    assert points.positions(head.template[None], PUPILS).shape == (1, COUNT, 3)


@pytest.mark.parametrize("region", ["upper", "lower"])
def test_left_views_mirror_right_views_point_by_point(head, region):
    left, right = (keypoint_set(head, region, side) for side in ("left", "right"))
    np.testing.assert_allclose(head.template[left.vertices], head.template[right.vertices] * FLIP, atol=1e-4)
    assert left.names[:94] == right.names[:94]
    a, b = (points.positions(head.template[None], PUPILS)[0] for points in (left, right))
    np.testing.assert_allclose(a, b * FLIP, atol=1e-3)


def test_a_centre_view_is_its_own_mirror(head):
    points = keypoint_set(head, "upper", "centre")
    at = points.positions(head.template[None], PUPILS)[0]
    np.testing.assert_allclose(at[:47], at[47:94] * FLIP, atol=1e-4)
    assert [name.replace("left", "right") for name in points.names[:47]] == list(points.names[47:94])


def test_the_choice_is_stable(head):
    """Trained detectors depend on it: a change here is a change of what their outputs mean."""
    first, again = keypoint_set(head, "lower", "right"), keypoint_set(head, "lower", "right")
    np.testing.assert_array_equal(first.vertices, again.vertices)
    groups = {}
    for region in ("upper", "lower"):
        for name in keypoint_set(head, region, "right").names:
            groups[name.rpartition("_")[0]] = groups.get(name.rpartition("_")[0], 0) + 1
    assert groups == {
        "lid": 28, "lid_skin": 14, "brow": 12, "nose_bridge": 10, "cheek": 14, "temple": 8, "forehead": 8, "pupil": 2,
        "lip_inner": 38, "lip_outer": 24, "nose_base": 8, "nasolabial": 8, "chin": 10, "jaw": 8,
    }  # fmt: skip


def shift(head, region, side, action):
    """How far (mm) each group of points moves with an action."""
    points = keypoint_set(head, region, side)
    moved = head.template + head.actions[ACTIONS.index(action)]
    distance = np.linalg.norm(
        points.positions(moved[None], PUPILS)[0] - points.positions(head.template[None], PUPILS)[0], axis=-1
    )
    out = {}
    for name, moved_mm in zip(points.names, distance, strict=True):
        group = name.rpartition("_")[0]
        out[group] = max(out.get(group, 0.0), moved_mm)
    return out


def test_points_lie_on_the_features_that_they_are_called_after(head):
    assert shift(head, "upper", "right", "eyeBlinkRight")["lid"] > 5
    assert shift(head, "upper", "right", "eyeBlinkLeft")["lid"] < 0.1
    assert shift(head, "upper", "left", "eyeBlinkLeft")["lid"] > 5
    assert shift(head, "upper", "right", "browOuterUpRight")["brow"] > 2
    jaw = shift(head, "lower", "right", "jawOpen")
    assert jaw["lip_inner"] > 8 and jaw["chin"] > 8 and jaw["nose_base"] < jaw["chin"] / 4
    assert shift(head, "lower", "right", "noseSneerRight")["nasolabial"] > 1
    lower = keypoint_set(head, "lower", "right")
    at = dict(zip(lower.names, lower.positions(head.template[None], PUPILS)[0], strict=True))
    inner, outer = (np.array([at[n] for n in at if n.startswith(ring)]) for ring in ("lip_inner", "lip_outer"))
    assert outer[:, 1].min() < inner[:, 1].min() - 4 and outer[:, 1].max() > inner[:, 1].max() + 4
    assert set(head.topology.region("mouth_corners")) <= set(lower.vertices)
    assert set(head.topology.region("lip_centres")) <= set(lower.vertices)


def test_rings_go_round_once(head):
    points = keypoint_set(head, "upper", "right")
    ring = head.template[points.vertices[:28]].astype(float)
    angle = np.arctan2(*(ring - ring.mean(0)).T[:2])
    assert (np.diff(angle) > 0).all()


def test_pupils_are_those_of_the_eyes_named(head):
    for side in ("left", "right", "centre"):
        points = keypoint_set(head, "upper", side)
        at = dict(zip(points.names, points.positions(head.template[None], PUPILS)[0], strict=True))
        assert at["pupil_left"].tolist() == PUPILS[0, 0].tolist()
        assert at["pupil_right"].tolist() == PUPILS[0, 1].tolist()


@pytest.mark.parametrize("name", ["quest", "ava256"])
def test_nearly_all_points_of_a_view_fall_into_its_image(head, name):
    for camera in load_headset(name).cameras:
        pixels = camera.project(
            keypoint_set(head, camera.region, camera.side).positions(head.template[None], PUPILS)[0]
        )
        assert ((pixels > 0) & (pixels < 400)).all(1).sum() >= 90, camera.name


def test_there_is_no_set_for_a_whole_face(head):
    with pytest.raises(ContractError, match="'upper' or the 'lower' region, not 'whole'"):
        keypoint_set(head, "whole", "left")
