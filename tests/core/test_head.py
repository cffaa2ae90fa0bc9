import numpy as np
import pytest
import torch

from ufe_core.errors import ArtifactError
from ufe_core.head import ACTIONS, EYE_LEFT, EYE_RIGHT, SKIN, load_head
from ufe_core.ops.rasterize import rasterize
from ufe_core.store import Store

# The order in which Live Link Face numbers its blendshapes: receivers go by number, so it must never move.
LIVE_LINK = """
    eyeBlinkLeft eyeLookDownLeft eyeLookInLeft eyeLookOutLeft eyeLookUpLeft eyeSquintLeft eyeWideLeft eyeBlinkRight
    eyeLookDownRight eyeLookInRight eyeLookOutRight eyeLookUpRight eyeSquintRight eyeWideRight jawForward jawLeft
    jawRight jawOpen mouthClose mouthFunnel mouthPucker mouthLeft mouthRight mouthSmileLeft mouthSmileRight
    mouthFrownLeft mouthFrownRight mouthDimpleLeft mouthDimpleRight mouthStretchLeft mouthStretchRight mouthRollLower
    mouthRollUpper mouthShrugLower mouthShrugUpper mouthPressLeft mouthPressRight mouthLowerDownLeft
    mouthLowerDownRight mouthUpperUpLeft mouthUpperUpRight browDownLeft browDownRight browInnerUp browOuterUpLeft
    browOuterUpRight cheekPuff cheekSquintLeft cheekSquintRight noseSneerLeft noseSneerRight tongueOut
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def regions(head):
    return head.topology.regions


def travel(head, action):
    return np.linalg.norm(head.actions[ACTIONS.index(action)], axis=-1)


def test_there_are_52_actions_in_the_order_of_live_link_face(head):
    assert list(ACTIONS) == LIVE_LINK
    assert head.actions.shape == (52, len(head.template), 3)
    for action in ACTIONS:
        assert 0.5 < travel(head, action).max() < 80, action


def test_an_action_of_one_side_moves_that_side(head):
    left = head.template[:, 0] < 0  # the subject's left has negative x
    for action in ACTIONS:
        if action.endswith("Left") and action not in ("jawLeft", "mouthLeft"):
            moved = travel(head, action)
            assert moved[left].sum() > 0.6 * moved.sum(), action


@pytest.mark.parametrize(("action", "sign"), [("jawLeft", -1), ("jawRight", 1), ("mouthLeft", -1), ("mouthRight", 1)])
def test_sideways_actions_go_to_the_side_they_name(head, action, sign):
    rows = head.topology.region("lips")
    assert sign * head.actions[ACTIONS.index(action), rows, 0].mean() > 1


def test_left_and_right_actions_mirror_each_other(head):
    mirrored = head.template * [-1, 1, 1]
    twin = np.array([np.argmin(((head.template - p) ** 2).sum(1)) for p in mirrored])
    assert np.abs(head.template[twin] - mirrored).max() < 0.1
    for action in ACTIONS:
        if action.endswith("Left"):
            left = head.actions[ACTIONS.index(action)]
            right = head.actions[ACTIONS.index(action[:-4] + "Right")]
            assert np.abs(right - left[twin] * [-1, 1, 1]).mean() < 0.05, action


def test_the_origin_lies_midway_between_the_eyes_and_the_face_looks_along_z(head, regions):
    left, right = (head.template[regions[name]].mean(0) for name in ("eye_left", "eye_right"))
    assert np.abs((left + right) / 2).max() < 0.1
    assert left[0] < 0 < right[0] and 55 < right[0] - left[0] < 70
    nose = head.template[regions["face"]][:, 2].argmax()
    assert abs(head.template[regions["face"]][nose, 0]) < 2


@pytest.mark.parametrize("name", ["face", "lower_face", "lips", "eyelids"])
def test_regions_are_symmetric(head, regions, name):
    points = head.template[regions[name]]
    mirrored = points * [-1, 1, 1]
    nearest = np.linalg.norm(mirrored[:, None] - points[None], axis=-1).min(1)
    assert nearest.max() < 0.5


def test_regions_nest_and_are_skin(head, regions):
    assert set(regions["lower_face"]) < set(regions["face"])
    assert set(regions["face"]) < set(regions["skin"])
    assert (head.part[regions["face"]] == SKIN).all()
    assert 0.25 < len(regions["lower_face"]) / len(regions["face"]) < 0.5
    lower = head.template[regions["lower_face"]]
    assert lower[:, 1].min() > 0.5 * head.template[regions["lip_centres"]][:, 1].mean()  # below the nose


def test_mouth_corners_and_lip_centres_lie_on_the_lips(head, regions):
    corners, centres = head.template[regions["mouth_corners"]], head.template[regions["lip_centres"]]
    assert set(regions["mouth_corners"]) | set(regions["lip_centres"]) <= set(regions["lips"])
    assert corners[0, 0] < -15 and corners[1, 0] > 15
    assert np.abs(centres[:, 0]).max() < 1
    assert centres[0, 1] < centres[1, 1], "upper lip first, and y points down"
    assert 8 < centres[1, 1] - centres[0, 1] < 18, "from the middle of one lip to that of the other"
    assert (np.abs(corners[:, 1] - centres[:, 1].mean()) < 5).all()
    seam = head.template[regions["lip_seam"]]
    assert 0 < seam[1, 1] - seam[0, 1] < 5, "the resting mouth is closed, or nearly"
    assert (seam[:, 2] < centres[:, 2] - 4).all(), "where lips meet lies behind where they stand out"


def test_opening_the_jaw_parts_the_lips_and_smiling_widens_the_mouth(head, regions):
    def extent(name, *actions):
        pose = head.template + sum(head.actions[ACTIONS.index(action)] for action in actions)
        a, b = pose[regions[name]]
        return np.linalg.norm(a - b)

    rest = head.template[regions["lip_centres"]]
    assert extent("lip_centres", "jawOpen") > np.linalg.norm(rest[0] - rest[1]) + 15
    width = head.template[regions["mouth_corners"]]
    assert extent("mouth_corners", "mouthSmileLeft", "mouthSmileRight") > np.linalg.norm(width[0] - width[1]) + 4
    assert extent("mouth_corners", "mouthPucker") < np.linalg.norm(width[0] - width[1]) - 4


def test_no_action_moves_an_eyeball(head):
    eyes = (head.part == EYE_LEFT) | (head.part == EYE_RIGHT)
    assert eyes.sum() > 100
    assert (head.actions[:, eyes] == 0).all()


def test_geometry_weights_follow_the_paper(head, regions):
    weights = head.topology.weights
    assert (weights[regions["eye_left"]] == 0).all() and (weights[regions["eye_right"]] == 0).all()
    assert weights.max() <= 3.0 + 1e-6
    assert weights[regions["lip_centres"]].min() > 2.5
    assert weights[head.template[:, 2] < -60].max() <= 0.2 + 1e-6
    assert weights[regions["face"]].mean() > 3 * 0.2


def test_no_two_faces_overlap_in_the_texture(head):
    size = 512
    flat = np.concatenate([head.uv * size, np.full((len(head.uv), 1), 100)], 1).astype(np.float32)
    screen, faces = torch.from_numpy(flat)[None], head.uv_faces.astype(np.int32)

    def owner(order):
        ids = rasterize(screen, torch.from_numpy(faces[order].copy()), height=size, width=size, cull=False)[0].numpy()
        return np.where(ids < 0, -1, order[ids])

    forward = owner(np.arange(len(faces)))
    backward = owner(np.arange(len(faces))[::-1])  # of two faces on one texel, the other one wins
    assert (forward != backward).sum() == 0
    assert (head.uv >= 0).all() and (head.uv <= 1).all()
    assert (forward >= 0).mean() > 0.7
    in_face = np.isin(head.faces, head.topology.region("face")).all(1)
    assert in_face[forward[forward >= 0]].mean() > 0.3


def test_a_damaged_head_is_named(tmp_path, head):
    from ufe_core.head import asset_key

    store = Store(tmp_path)
    folder = store.path("head", asset_key())
    folder.mkdir(parents=True)
    (folder / "head.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header")
    with pytest.raises(ArtifactError, match=r"head.* is damaged .*Delete that folder; it is made again"):
        load_head(store)
