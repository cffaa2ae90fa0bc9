"""What is added to anny's head must look right from every camera: hidden when it is hidden, never through the skin."""

import numpy as np
import pytest
import torch

from ufe_core.head import ACTIONS, EYE_LEFT, EYE_RIGHT, SKIN
from ufe_core.ops.rasterize import EMPTY_KEY, depth_keys, key_depths
from ufe_synthetic.people import rng_of
from ufe_synthetic.performance import FRAMES_PER_SECOND
from ufe_synthetic.prompts import PROMPTS, intent
from ufe_synthetic.props import eyeballs, glasses, hand, hand_motion, lashes, teeth
from ufe_synthetic.props.eyelashes import lid_margins
from ufe_synthetic.props.mesh import loft, rigid_fit, surface_points, turn
from ufe_synthetic.scene import MATERIALS, Scene

PEOPLE = (0, 9, 18, 36, 54, 63, 72, 81, 99, 108, 126, 144)
FEW = PEOPLE[::3]
PX = 4  # of a frontal picture, per mm
SECONDS = np.arange(0, 30, 1 / FRAMES_PER_SECOND)
AHEAD = np.array([[0, 0, 1, 0, 0, 1]], np.float32)
MOUTH, FACE = (-42, 42, 38, 122), (-85, 85, -70, 150)
TEETH, GUM = (list(MATERIALS).index(name) for name in ("teeth", "gum"))
SKINS = [list(MATERIALS).index(name) for name in ("skin", "lips")]


@pytest.fixture(scope="module")
def head(synthetic):
    return synthetic.head


@pytest.fixture(scope="module")
def made(synthetic, head):
    """A person's props by kind, made once."""
    kept = {}

    def make(kind, person):
        if (kind, person) not in kept:
            parts = kind(head, synthetic.geometry(person), rng_of(person, kind.__name__))
            kept[kind, person] = parts
        return kept[kind, person]

    return make


@pytest.fixture(scope="module")
def scene(synthetic, head, made):
    """A person's head with teeth."""
    kept = {}

    def make(person):
        if person not in kept:
            kept[person] = Scene(head, synthetic.geometry(person), made(teeth, person))
        return kept[person]

    return make


@pytest.fixture(scope="module", params=FEW)
def moving(request, synthetic):
    """A hand's vertices, the face that it touches, and its poses."""
    shape = hand(rng_of(request.param, "hand")).vertices
    face = synthetic.geometry(request.param)
    return shape, face, hand_motion(rng_of(request.param, "m"), SECONDS, shape, face)


def posed(part, expression):
    """Vertices of a part under activations [52]."""
    rest = part.vertices.astype(np.float64)
    return rest if part.actions is None else rest + np.tensordot(expression, part.actions, 1)


def picture(vertices, faces, window, turned=0.0):
    """Face number (-1 for none) and z (mm) of each pixel of an orthographic view of the front, or from aside."""
    left, right, top, bottom = window
    points = vertices @ turn(np.array([0.0, 1.0, 0.0]), np.radians(turned)).T
    screen = np.stack([(right - points[:, 0]) * PX, (points[:, 1] - top) * PX, 400 - points[:, 2]], 1)
    keys = depth_keys(
        torch.from_numpy(screen.astype(np.float32))[None], torch.from_numpy(np.ascontiguousarray(faces, np.int32)),
        height=(bottom - top) * PX, width=(right - left) * PX,
    )[0]  # fmt: skip
    empty = keys.numpy() == EMPTY_KEY
    return np.where(empty, -1, keys.numpy() & 0x7FFFFFFF), np.where(empty, -1000.0, 400 - key_depths(keys).numpy())


def materials_seen(scene, expression, turned=0.0):
    """Material of each pixel of the mouth's surroundings."""
    vertices = scene.pose(expression[None].astype(np.float32), AHEAD)[0]
    seen, _ = picture(vertices, scene.faces, MOUTH, turned)
    return np.where(seen >= 0, scene.material[seen], 0)


def square_mm(mask):
    return mask.sum() / PX**2


def edge_uses(faces):
    """How often each directed edge is used, and whether its opposite is."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    directed, count = np.unique(edges, axis=0, return_counts=True)
    known = set(map(tuple, directed.tolist()))
    return count, np.array([(b, a) in known for a, b in directed.tolist()])


def volume(vertices, faces):
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def components(faces):
    """Faces of each connected piece."""
    owner = np.arange(faces.max() + 1)
    while True:
        least = owner[faces].min(1)
        before = owner.copy()
        np.minimum.at(owner, faces.ravel(), np.repeat(least, 3))
        owner = owner[owner]
        if (owner == before).all():
            return [faces[owner[faces[:, 0]] == piece] for piece in np.unique(owner[faces])]


class TestMesh:
    def test_a_lofted_prism_encloses_its_volume(self):
        angle = np.arange(40) * 2 * np.pi / 40
        ring = np.stack([3 * np.cos(angle), 3 * np.sin(angle), np.zeros(40)], 1)
        vertices, faces = loft(
            np.stack([ring, ring + np.array([0, 0, 5.0])]), start=np.zeros(3), end=np.array([0, 0, 5.0])
        )
        assert volume(vertices, faces) == pytest.approx(5 * 9 * 20 * np.sin(2 * np.pi / 40))
        count, paired = edge_uses(faces)
        assert (count == 1).all() and paired.all()

    def test_a_rigid_fit_recovers_a_rotation(self):
        rng = np.random.default_rng(3)
        points, axis = rng.normal(size=(20, 3)), np.array([0.6, 0.0, 0.8])
        rotation, shift = rigid_fit(points, points @ turn(axis, 0.7).T + [1, 2, 3])
        np.testing.assert_allclose(rotation, turn(axis, 0.7), atol=1e-9)
        np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-9)

    def test_surface_points_leave_no_wide_gap(self):
        vertices, faces = np.array([[0, 0, 0], [10, 0, 0], [0, 7, 0.0]]), np.array([[0, 1, 2]])
        points = surface_points(vertices, faces, 0.5)
        probes = np.random.default_rng(0).dirichlet([1, 1, 1], 200) @ vertices
        assert np.linalg.norm(probes[:, None] - points, axis=-1).min(1).max() < 0.5


@pytest.mark.parametrize("kind", [teeth, lashes, glasses])
def test_a_person_alone_decides(kind, synthetic, head):
    one, again = (kind(head, synthetic.geometry(9), rng_of(9, "x")) for _ in range(2))
    other = kind(head, synthetic.geometry(9), rng_of(18, "x"))
    assert all(
        a.vertices.tobytes() == b.vertices.tobytes() and a.faces.tobytes() == b.faces.tobytes()
        for a, b in zip(one, again, strict=True)
    )
    assert any(a.vertices.tobytes() != b.vertices.tobytes() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("person", FEW)
def test_solids_are_closed_and_face_outwards(made, person):
    """All but gums, lashes and lenses, which are sheets; crowns are open at their roots, inside the gum."""
    frame, pads = made(glasses, person)[:2]
    for part in (frame, pads, hand(rng_of(person, "hand"))):
        for piece in components(part.faces):
            count, paired = edge_uses(piece)
            assert (count == 1).all() and paired.all()
            middle = part.vertices[np.unique(piece)].mean(0)
            assert volume(part.vertices - middle, piece) > 0
    for crowns in made(teeth, person)[::2]:
        pieces = components(crowns.faces)
        assert len(pieces) == 14
        for piece in pieces:
            count, paired = edge_uses(piece)
            assert (count == 1).all() and (~paired).sum() == 8  # the ring at the root
            assert volume(crowns.vertices - crowns.vertices[np.unique(piece)].mean(0), piece) > 0


class TestTeeth:
    @pytest.mark.parametrize("person", PEOPLE)
    def test_lips_at_rest_hide_them_and_a_smile_bares_them(self, scene, person):
        rest = materials_seen(scene(person), np.zeros(52))
        assert square_mm(np.isin(rest, (TEETH, GUM))) < 0.6
        smile = materials_seen(scene(person), intent(PROMPTS["smile_teeth"].meant))
        assert square_mm(smile == TEETH) > 30
        assert square_mm(smile == TEETH) > 3 * square_mm(smile == GUM)
        wide = materials_seen(scene(person), intent({"jawOpen": 1.0}))
        assert square_mm(wide == TEETH) > 20

    @pytest.mark.parametrize("person", FEW)
    @pytest.mark.parametrize("turned", [0.0, 40.0, -40.0])
    def test_they_never_come_through_the_skin(self, scene, head, person, turned):
        """No tooth or gum is seen in front of skin that would be seen there without it."""
        whole = scene(person)
        own = len(head.faces)
        codes = np.stack([intent(prompt.meant) for prompt in PROMPTS.values()]).astype(np.float32)
        for vertices in whole.pose(codes, np.repeat(AHEAD, len(codes), 0)):
            assert self.poking(whole, vertices, own, turned) < 0.5

    def test_that_would_be_noticed(self, scene, head):
        whole = scene(PEOPLE[0])
        vertices = whole.pose(np.zeros((1, 52), np.float32), AHEAD)[0]
        vertices[whole.head_count :, 2] += 25.0
        assert self.poking(whole, vertices, len(head.faces), 0.0) > 20

    def poking(self, scene, vertices, own, turned):
        with_teeth, near = picture(vertices, scene.faces, MOUTH, turned)
        without, far = picture(vertices, scene.faces[:own], MOUTH, turned)
        skin = (without >= 0) & np.isin(scene.material[without], SKINS)
        return square_mm((with_teeth >= own) & skin & (near - far > 0.2))

    def test_the_lower_row_follows_the_jaw_and_the_upper_stays(self, made, synthetic, head):
        upper, upper_gum, lower, lower_gum = made(teeth, PEOPLE[1])
        assert upper.actions is None and upper_gum.actions is None
        jaw = [ACTIONS.index(name) for name in ("jawOpen", "jawForward", "jawLeft", "jawRight")]
        for part in (lower, lower_gum):
            moved = np.abs(part.actions).max((1, 2))
            assert (moved[jaw] > 2).all()
            assert np.delete(moved, jaw).max() == 0
        incisors = lower.vertices[:, 2] > lower.vertices[:, 2].max() - 2
        opened = lower.actions[ACTIONS.index("jawOpen"), incisors].mean(0)
        chin = head.actions[ACTIONS.index("jawOpen"), head.part == SKIN, 1].max()
        assert 0.6 * chin < opened[1] < 1.05 * chin
        left, right = (lower.actions[ACTIONS.index(name)].mean(0)[0] for name in ("jawLeft", "jawRight"))
        assert left < -2 and right > 2  # +x is the subject's right

    def test_it_follows_without_bending(self, made):
        lower = made(teeth, PEOPLE[1])[2]
        moved = posed(lower, intent({"jawOpen": 1.0}))
        some = np.random.default_rng(1).choice(len(moved), (60, 2))
        before, after = (np.linalg.norm(p[some[:, 0]] - p[some[:, 1]], axis=1) for p in (lower.vertices, moved))
        np.testing.assert_allclose(before, after, atol=1e-3)

    @pytest.mark.parametrize("person", FEW)
    def test_they_have_the_size_of_teeth(self, made, person):
        upper, _, lower, _ = made(teeth, person)
        for part, widest in ((upper, (45, 68)), (lower, (42, 66))):
            assert widest[0] < np.ptp(part.vertices[:, 0]) < widest[1]
        assert upper.vertices[:, 2].max() > lower.vertices[:, 2].max() + 1  # overjet


class TestLashes:
    POSES = (
        *({"eyeBlink*": amount} for amount in (0.0, 0.25, 0.5, 0.75, 1.0)),
        {"eyeWide*": 1.0}, {"eyeSquint*": 1.0}, {"browDown*": 1.0}, {"eyeLookUp*": 1.0}, {"eyeLookDown*": 1.0},
        {"browDown*": 0.9, "eyeWide*": 0.9},
    )  # fmt: skip

    def blades(self, part, expression, side):
        """Vertices [K, 5, 3] of the lashes of one side: root, root, middle, middle, tip."""
        moved = posed(part, expression).reshape(-1, 5, 3)
        return moved[part.vertices.reshape(-1, 5, 3)[:, 0, 0] * side > 0]

    @pytest.mark.parametrize("person", PEOPLE)
    def test_their_roots_stay_on_the_lids_margin(self, made, synthetic, head, person):
        part = made(lashes, person)[0]
        for meant in self.POSES:
            expression = intent(meant)
            face = synthetic.geometry(person) + np.tensordot(expression, head.actions, 1)
            for eye in (EYE_LEFT, EYE_RIGHT):
                side = np.sign(head.template[head.part == eye, 0].mean())
                share = np.linspace(0, 1, 9)[:, None, None]
                lines = [face[margin] for margin in lid_margins(head, eye)]
                line = np.concatenate(
                    [(a + share * (b - a)).reshape(-1, 3) for a, b in ((x[:-1], x[1:]) for x in lines)]
                )
                roots = self.blades(part, expression, side)[:, :2].mean(1)
                assert np.linalg.norm(roots[:, None] - line, axis=-1).min(1).max() < 1.0

    @pytest.mark.parametrize("person", PEOPLE)
    def test_no_point_lies_in_the_eyeball(self, made, synthetic, head, person):
        part, geometry = made(lashes, person)[0], synthetic.geometry(person)
        for meant in self.POSES:
            for ball, eye in zip(eyeballs(head, geometry), (EYE_LEFT, EYE_RIGHT), strict=True):
                centre = geometry[head.part == eye].mean(0)
                radius = np.linalg.norm(ball.vertices - centre, axis=1).max()
                points = self.blades(part, intent(meant), np.sign(centre[0]))
                assert np.linalg.norm(points - centre, axis=-1).min() > radius - 0.1

    @pytest.mark.parametrize("person", FEW)
    def test_lids_and_brow_bury_few(self, made, synthetic, head, person):
        """Seen from the front, of the lashes' tips only a few lie under the skin, brow down and eyes wide included."""
        part = made(lashes, person)[0]
        skin = head.faces[(head.part[head.faces] == SKIN).all(1)]
        for meant in self.POSES:
            face = synthetic.geometry(person) + np.tensordot(intent(meant), head.actions, 1)
            _, height = picture(face, skin, FACE)
            tips = posed(part, intent(meant)).reshape(-1, 5, 3)[:, 4]
            column, row = ((FACE[1] - tips[:, 0]) * PX).astype(int), ((tips[:, 1] - FACE[2]) * PX).astype(int)
            buried = height[row, column] > tips[:, 2] + 0.3
            assert buried.mean() < 0.1

    @pytest.mark.parametrize("person", FEW)
    def test_upper_lashes_go_down_with_the_lid_and_lower_ones_stay(self, made, head, person):
        part = made(lashes, person)[0]
        for side in (-1, 1):
            rest, shut = (self.blades(part, intent({"eyeBlink*": a}), side) for a in (0.0, 1.0))
            upper = rest[:, 4, 1] < rest[:, :2, 1].mean(1)  # tips above their roots; +y is down
            assert 0.5 < upper.mean() < 0.8
            drop = (shut - rest)[:, :2, 1].mean(1)
            assert np.median(drop[upper]) > 5 and np.abs(np.median(drop[~upper])) < 2
            across = shut[upper, 0, 0]
            amid = np.abs(across - across.mean()) < 0.25 * np.ptp(across)  # those at the corners point aside
            assert (shut[upper, 4, 1] > shut[upper, :2, 1].mean(1))[amid].mean() > 0.9

    def test_they_move_in_proportion_so_that_half_a_blink_is_half_way(self, made):
        part = made(lashes, PEOPLE[0])[0]
        rest, half, full = (posed(part, intent({"eyeBlink*": a})) for a in (0.0, 0.5, 1.0))
        np.testing.assert_allclose(half, (rest + full) / 2, atol=1e-4)


class TestGlasses:
    def nearest(self, synthetic, head, person, points):
        """Least distance (mm) from points to the resting skin, which is sampled every millimetre or so."""
        near = (head.part == SKIN) & (np.abs(head.template[:, 1]) < 70) & (head.template[:, 2] > -80)
        cloud = surface_points(synthetic.geometry(person), head.faces[near[head.faces].all(1)], 1.2)
        return min(
            float(np.linalg.norm(block[:, None] - cloud, axis=-1).min())
            for block in np.array_split(points, max(1, len(points) // 100))
        )

    @pytest.mark.parametrize("person", PEOPLE)
    def test_they_sit_before_the_eyes(self, made, synthetic, head, person):
        *_, right, left = made(glasses, person)
        geometry = synthetic.geometry(person)
        for lens, eye in ((right, EYE_RIGHT), (left, EYE_LEFT)):
            ball = geometry[head.part == eye]
            centre, front = ball.mean(0), ball[:, 2].max()
            low, high = lens.vertices.min(0), lens.vertices.max(0)
            assert (low[:2] < centre[:2] - 5).all() and (high[:2] > centre[:2] + 5).all()
            before = lens.vertices[np.linalg.norm(lens.vertices[:, :2] - centre[:2], axis=1).argmin(), 2] - front
            assert 10 < before < 36
            assert np.linalg.norm(lens.vertices - centre, axis=1).min() > front - centre[2] + 5
            normal = np.cross(*np.moveaxis(np.diff(lens.vertices[lens.faces], axis=1), 1, 0))
            assert (normal[:, 2] > 0).all()

    @pytest.mark.parametrize("person", PEOPLE)
    def test_they_do_not_cut_the_face(self, made, synthetic, head, person):
        frame, _, right, left = made(glasses, person)
        rim_and_bridge = frame.vertices[frame.vertices[:, 2] > right.vertices[:, 2].min() - 1]
        lenses = np.concatenate([right.vertices, left.vertices])
        _, face = picture(synthetic.geometry(person), head.faces, FACE)
        for points in (rim_and_bridge, lenses):
            column, row = ((FACE[1] - points[:, 0]) * PX).astype(int), ((points[:, 1] - FACE[2]) * PX).astype(int)
            assert (points[:, 2] - face[row, column]).min() > 0
        temples = frame.vertices[frame.vertices[:, 2] < right.vertices[:, 2].min() - 8]
        assert self.nearest(synthetic, head, person, temples) > 0.3

    @pytest.mark.parametrize("person", PEOPLE)
    def test_they_are_as_wide_as_the_head(self, made, synthetic, head, person):
        frame, *_ = made(glasses, person)
        skin = synthetic.geometry(person)[(head.part == SKIN) & (np.abs(head.template[:, 1]) < 25)]
        beside = np.ptp(skin[(skin[:, 2] > -60), 0])
        assert 125 < np.ptp(frame.vertices[:, 0]) < beside + 25

    @pytest.mark.parametrize("person", FEW)
    def test_both_sides_are_alike(self, made, person):
        for part in made(glasses, person)[:2]:
            other = part.vertices * np.float32([-1, 1, 1])
            assert np.linalg.norm(other[:, None] - part.vertices, axis=-1).min(1).max() < 0.01

    def test_there_is_more_than_one_style(self, made):
        bulk = {round(float(np.ptp(made(glasses, person)[2].vertices[:, 1])), 0) for person in PEOPLE}
        assert len(bulk) > 2


class TestHand:
    def test_it_moves_as_fast_as_a_hand_can_and_never_jumps(self, moving):
        _, _, poses = moving
        speed = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1) * FRAMES_PER_SECOND
        assert 200 < speed.max() < 1500  # mm/s
        jerkiness = np.linalg.norm(np.diff(poses[:, :, 3], 2, axis=0), axis=1) * FRAMES_PER_SECOND**2
        assert jerkiness.max() < 10_000  # mm/s^2: about one g
        between = np.einsum("nij,nij->n", poses[1:, :, :3], poses[:-1, :, :3])
        turning = np.degrees(np.arccos(np.clip((between - 1) / 2, -1, 1))) * FRAMES_PER_SECOND
        assert turning.max() < 300  # degrees/s

    def test_its_poses_are_rotations_with_the_palm_towards_the_face(self, moving):
        _, _, poses = moving
        rotation = poses[:, :, :3]
        np.testing.assert_allclose(
            rotation @ rotation.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-9
        )
        assert np.linalg.det(rotation).min() > 0.99
        assert (-rotation[:, 2, 2]).min() > 0.5  # +z of the hand, out of the palm, looks along -z of the head

    def test_it_touches_the_face_and_never_enters_it(self, moving, head):
        shape, face, poses = moving
        _, height = picture(face, head.faces, FACE)
        gaps = []
        for pose in poses[::6]:
            points = shape @ pose[:, :3].T + pose[:, 3]
            column, row = ((FACE[1] - points[:, 0]) * PX).astype(int), ((points[:, 1] - FACE[2]) * PX).astype(int)
            over = (column >= 0) & (row >= 0) & (column < height.shape[1]) & (row < height.shape[0])
            if over.any():
                gaps.append((points[over, 2] - height[row[over], column[over]]).min())
        assert min(gaps) > 0
        assert min(gaps) < 8  # it comes close enough to hide something

    def test_a_frame_does_not_depend_on_what_is_asked_for_with_it(self, synthetic):
        shape, face = hand(rng_of(9, "hand")).vertices, synthetic.geometry(9)
        whole = hand_motion(rng_of(9, "m"), SECONDS, shape, face)
        some = [700, 3, 1200]
        np.testing.assert_array_equal(hand_motion(rng_of(9, "m"), SECONDS[some], shape, face), whole[some])
