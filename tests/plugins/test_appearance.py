import numpy as np
import pytest

from ufe_core.head import ACTIONS, MOUTH_CAVITY, SKIN
from ufe_synthetic.appearance import appearance_of, noise, traits_of
from ufe_synthetic.hair import FACIAL_HAIR, growth_area
from ufe_synthetic.people import body_of, movement_of, phenotypes_of
from ufe_synthetic.texels import texel_layout
from ufe_synthetic.wrinkles import FOLDS, wrinkle_gain

SIZE = 256
MAPS = ("infrared", "rgb", "gloss", "relief", "wrinkles", "wrinkle_gain")
PEOPLE = [k for k in range(60) if k % 7]


@pytest.fixture(scope="module")
def layout(head):
    return texel_layout(head, SIZE)


@pytest.fixture(scope="module")
def painted(head, layout):
    made = {}

    def paint(subject, session=0):
        return made.setdefault((subject, session), appearance_of(subject, head, layout, session))

    return paint


def first(kind):
    return next(k for k in range(400) if traits_of(k).facial_hair == kind)


def at(layout, x, y):
    """Texel (row, column) in front at a point of the face."""
    column, row = np.rint(layout.texels_in_front(np.array([x, y], float))).astype(int)
    return row, column


def around(layout, x, y, reach=4.0):
    """Texels within `reach` mm of a point of the face."""
    return np.linalg.norm(layout.position - layout.position[at(layout, x, y)], axis=-1) < reach


class TestLayout:
    def test_a_point_in_front_is_found(self, layout):
        for x, y in ((0, 30), (-30, 30), (40, -40), (0, 100), (55, 60)):
            np.testing.assert_allclose(layout.position[at(layout, x, y)][:2], (x, y), atol=1.5)

    def test_tangents_predict_the_next_texel(self, layout):
        rows, columns = np.mgrid[70:150, 90:170]
        for k, step in enumerate(((0, 1), (1, 0))):
            moved = layout.position[rows + step[0], columns + step[1]] - layout.position[rows, columns]
            error = np.linalg.norm(moved - layout.tangents[rows, columns, k], axis=-1)
            assert np.median(error) < 0.15 * np.median(np.linalg.norm(moved, axis=-1))

    def test_texels_cover_the_skin_once(self, head, layout):
        face = np.isin(head.faces, head.topology.region("face")).all(1)
        corner = head.template[head.faces[face]]
        skin = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum() / 2
        flat = head.uv[head.uv_faces[face]] * SIZE
        u, v = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
        share = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2
        middle = np.clip(flat.mean(1).astype(int), 0, SIZE - 1)
        assert (share * layout.area_mm2[middle[:, 1], middle[:, 0]]).sum() == pytest.approx(skin, rel=0.1)

    def test_the_lids_edge_lies_in_front_of_the_eyes(self, layout):
        edge = np.abs(layout.lid_mm) < 0.5
        x, y, z = layout.position[edge].T
        assert (np.abs(np.abs(x) - 32) < 15).all() and (np.abs(y) < 11).all() and (z > 5).all()
        assert y[layout.lid_upper[edge]].mean() < -2 < y[~layout.lid_upper[edge]].mean()


class TestPerson:
    @pytest.mark.parametrize("subject", [3, 9])
    def test_is_a_pure_function_of_the_number(self, head, layout, painted, subject):
        before = painted(subject)
        appearance_of(subject + 1, head, layout)
        again = appearance_of(subject, head, layout)
        for name in MAPS:
            np.testing.assert_array_equal(getattr(before, name), getattr(again, name))
        np.testing.assert_array_equal(before.eye.texture, again.eye.texture)
        assert before.traits == again.traits

    def test_shapes_and_types(self, head, painted):
        one = painted(3)
        assert one.infrared.dtype == one.rgb.dtype == one.gloss.dtype == np.uint8
        assert one.infrared.shape == one.gloss.shape == one.relief.shape == one.wrinkles.shape == (SIZE, SIZE)
        assert one.rgb.shape == (3, SIZE, SIZE) and one.wrinkle_gain.shape == (52, len(head.template))
        assert one.relief.dtype == one.wrinkles.dtype == one.wrinkle_gain.dtype == one.eye.texture.dtype == np.float32
        np.testing.assert_array_equal(one.eye.texture[:, 0], one.eye.texture[:, -1])
        assert one.eye.texture.mean() == pytest.approx(1, abs=0.02) and one.eye.texture.std() > 0.05

    def test_people_differ(self, painted):
        a, b = painted(3), painted(9)
        for name in MAPS:
            assert not np.array_equal(getattr(a, name), getattr(b, name)), name
        assert np.corrcoef(a.eye.texture.ravel(), b.eye.texture.ravel())[0, 1] < 0.9

    def test_relief_is_as_deep_as_skin_is(self, layout, painted):
        for one in (painted(3), painted(first("beard"))):
            cheek = around(layout, 40, 20, 8)
            assert one.relief[cheek].std() < 0.12
            assert np.abs(one.relief).max() < 0.8
            assert -1.6 < one.wrinkles.min() < -0.3 and one.wrinkles.max() < 0.5

    def test_infrared_is_brighter_and_more_even_than_visible(self, layout, painted):
        cheek, lip = around(layout, 40, 25, 6), around(layout, 0, 74, 3)
        for subject in (3, 30, 12):
            one = painted(subject)
            infrared, green = one.infrared.astype(float), one.rgb[1].astype(float)
            assert infrared[cheek].mean() > green[cheek].mean()
            assert infrared[cheek].std() / infrared[cheek].mean() < green[cheek].std() / green[cheek].mean()
            contrast = [abs(1 - m[lip].mean() / m[cheek].mean()) for m in (infrared, green)]
            assert contrast[0] < 0.12 and contrast[0] < 0.6 * contrast[1]

    def test_skin_tones_are_closer_in_infrared(self, layout, painted):
        tones = sorted(range(60), key=lambda k: traits_of(k).melanin)
        cheek = around(layout, 40, 25, 6)
        light, dark = painted(tones[0]), painted(tones[-1])
        assert dark.infrared[cheek].mean() > 0.7 * light.infrared[cheek].mean()
        assert dark.rgb[1][cheek].mean() < 0.5 * light.rgb[1][cheek].mean()

    def test_brows_and_the_lash_line_are_darker_than_skin(self, layout, painted):
        for subject in (3, 2):
            one = painted(subject).infrared.astype(float)
            assert one[around(layout, 28, -19, 4)].min() < 0.75 * np.median(one[around(layout, 28, -38, 5)])
            lash = (np.abs(layout.lid_mm) < 0.6) & layout.lid_upper
            assert one[lash].mean() < 0.8 * np.median(one[around(layout, 40, 25, 6)])

    def test_facial_hair_grows_where_its_kind_does(self, layout):
        lips, still = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
        area = {kind: growth_area(layout, kind, lips, still) for kind in FACIAL_HAIR}
        lip, chin, cheek, brow = (at(layout, *p) for p in ((9, 53), (0, 102), (55, 80), (30, -30)))
        assert [round(float(area["moustache"][p])) for p in (lip, chin, cheek, brow)] == [1, 0, 0, 0]
        assert [round(float(area["goatee"][p])) for p in (lip, chin, cheek, brow)] == [1, 1, 0, 0]
        assert [round(float(area["beard"][p])) for p in (lip, chin, cheek, brow)] == [1, 1, 1, 0]

    def test_a_beard_is_strands_not_a_flat_patch(self, layout, painted):
        one = painted(first("beard"))
        chin, forehead = around(layout, 0, 104, 9), around(layout, 0, -45, 9)
        assert one.infrared[chin].mean() < 0.85 * one.infrared[forehead].mean()
        assert one.infrared[chin].std() > 3 * one.infrared[forehead].std()

    def test_texels_on_both_sides_of_a_seam_agree(self, head, layout, painted):
        corner = np.stack([head.faces.reshape(-1), head.uv_faces.reshape(-1)], 1)
        of_vertex = {}
        for vertex, uv in np.unique(corner, axis=0):
            of_vertex.setdefault(vertex, []).append(uv)
        skin_only = np.ones(len(head.template), bool)
        skin_only[head.faces[(head.part[head.faces] != SKIN).any(1)]] = False
        pairs = np.array([uv[:2] for vertex, uv in of_vertex.items() if len(uv) > 1 and skin_only[vertex]])
        assert len(pairs) > 20
        columns, rows = np.moveaxis(np.clip(np.rint(head.uv[pairs] * SIZE - 0.5).astype(int), 0, SIZE - 1), -1, 0)
        apart = np.linalg.norm(np.diff(layout.position[rows, columns], axis=1)[:, 0], axis=-1)
        near = apart < 4  # coarse texels land on different skin
        assert near.sum() > 12
        for field, limit in ((painted(3).rgb[1], 0.35), (painted(30).infrared, 0.2)):
            value = field[rows[near], columns[near]].astype(float)
            assert np.median(np.abs(value[:, 0] - value[:, 1]) / value.mean(1)) < limit / 3

    def test_noise_belongs_to_space(self):
        points = np.random.default_rng(0).uniform(-100, 100, (4000, 3)).astype(np.float32)
        same = noise(points, np.random.default_rng(5), 10.0)
        np.testing.assert_allclose(noise(points[:7], np.random.default_rng(5), 10.0), same[:7], atol=1e-4)
        assert abs(same.mean()) < 0.1 and same.std() == pytest.approx(1, abs=0.1)
        close = noise(points + np.float32(0.5), np.random.default_rng(5), 10.0)
        assert np.abs(close - same).mean() < 0.6 < np.abs(noise(points, np.random.default_rng(6), 10.0) - same).mean()

    def test_the_inside_of_the_mouth_is_dark(self, layout, painted):
        one = painted(3)
        assert one.infrared[layout.part == MOUTH_CAVITY].mean() < 0.7 * one.infrared[layout.part == SKIN].mean()


class TestAnotherDay:
    def test_it_is_the_same_person(self, painted):
        a, b = painted(3), painted(3, 1)
        assert {k for k in a.traits if a.traits[k] != b.traits[k]} == {"oiliness"}
        for name in set(MAPS) - {"gloss"}:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(a.eye.texture, b.eye.texture)
        assert not np.array_equal(a.gloss, b.gloss)

    def test_stubble_is_grown_or_shaved_and_nothing_else_changes(self, layout, painted):
        subject = first("stubble")
        a, b = painted(subject), painted(subject, 1)
        assert {k for k in a.traits if a.traits[k] != b.traits[k]} == {"oiliness", "beard_mm"}
        changed = (a.infrared != b.infrared) & (layout.part == SKIN)
        assert changed.mean() > 0.01
        assert (layout.position[changed][:, 1] > -20).mean() > 0.99, "on the lower face, and in texels of no face"
        np.testing.assert_array_equal(a.wrinkle_gain, b.wrinkle_gain)

    def test_a_beard_keeps_its_length(self):
        subject = first("beard")
        assert traits_of(subject).beard_mm == traits_of(subject, 1).beard_mm


class TestWrinkles:
    def test_actions_fold_their_own_region_only(self, head):
        gain = wrinkle_gain(head, dict.fromkeys(FOLDS, 1.0))
        x, y, _ = head.template.T
        for action, low, high in (("browInnerUp", -90, -10), ("browDownLeft", -50, 10), ("mouthShrugLower", 80, 120),
                                  ("mouthPucker", 45, 90), ("eyeSquintRight", -25, 30)):  # fmt: skip
            row = gain[ACTIONS.index(action)]
            assert row.max() > 0.4
            assert (row[(y < low) | (y > high)] == 0).all(), action
        assert (gain[ACTIONS.index("mouthSmileLeft")][x > 20] == 0).all(), "left is negative x"
        assert (gain[ACTIONS.index("mouthSmileRight")][x < -20] == 0).all()
        for action in ("jawOpen", "eyeLookUpLeft", "tongueOut"):
            assert not gain[ACTIONS.index(action)].any()
        assert not gain[:, head.part != SKIN].any()

    def test_a_face_at_rest_has_none_beyond_its_relief(self, painted):
        assert not (np.zeros(52, np.float32) @ painted(3).wrinkle_gain).any()

    def test_grooves_lie_where_skin_folds(self, layout, painted):
        total = np.mean([painted(k).wrinkles < -0.15 for k in (3, 9, 12, 30)], axis=0)
        for x, y in ((0, -50), (27, 53), (-27, 53)):
            assert total[around(layout, x, y, 10)].max() > 0.4
        assert total[around(layout, 0, 20, 5)].max() == 0, "the bridge of the nose is smooth"

    def test_they_deepen_with_age(self, painted):
        age = [traits_of(k).age_years for k in range(60)]
        young, old = painted(int(np.argmin(age))), painted(int(np.argmax(age)))
        assert old.wrinkle_gain.max() > 1.3 * young.wrinkle_gain.max()
        grooves = old.wrinkles < -0.4
        assert old.relief[grooves].mean() < -0.08


class TestTraits:
    def test_distributions_are_those_drawn(self):
        traits = [traits_of(k) for k in PEOPLE]
        assert len(traits) >= 40
        for name, low, high in (("age_years", 31.5, 83.5), ("femininity", 0, 1), ("melanin", 0.06, 1.61),
                                ("redness", 0.18, 0.42), ("brow_arch_mm", 3.5, 8), ("oiliness", 0.2, 1)):  # fmt: skip
            values = np.array([getattr(t, name) for t in traits])
            assert (values >= low).all() and (values <= high).all(), name
            assert np.ptp(values) > 0.7 * (high - low), name
        men = [t for t in traits if t.sex == "male"]
        assert 0.25 < len(men) / len(traits) < 0.7
        assert {t.facial_hair for t in traits if t.sex == "female"} == {"none"}
        assert len({t.facial_hair for t in men}) >= 4
        assert 0.05 < np.mean([t.freckles > 0 for t in traits]) < 0.5
        assert len({t.eye for t in traits}) >= 3 and len({t.hair for t in traits}) >= 4

    def test_eyes_stay_in_range(self, painted):
        for subject in (3, 9, 12, 30):
            eye = painted(subject).eye
            assert 9 <= eye.pupil_deg <= 15 and 25 <= eye.iris_deg <= 29
            assert 0.25 < eye.iris_ir < 0.7 and eye.iris_ir < eye.sclera_ir + 0.1
            assert eye.iris_rgb.max() < 0.5 < eye.sclera_rgb.min()

    def test_traits_are_those_of_the_shape(self):
        labels = ["gender", "age", "muscle", "weight", "height", "proportions"]
        for subject in (0, 5):
            assert phenotypes_of(subject, labels, [])[0] == body_of(subject)


class TestMovement:
    @pytest.mark.parametrize("subject", [0, 5, 12])
    def test_everybody_can_close_the_eyes(self, subject):
        intent = np.zeros((1, 52))
        intent[0, [ACTIONS.index("eyeBlinkLeft"), ACTIONS.index("eyeBlinkRight")]] = 1
        shown = movement_of(subject).realise(intent)[0]
        assert shown[ACTIONS.index("eyeBlinkLeft")] == shown[ACTIONS.index("eyeBlinkRight")] == 1

    def test_a_one_sided_intent_leaks_and_a_symmetric_one_does_not_grow(self):
        left, right = ACTIONS.index("mouthSmileLeft"), ACTIONS.index("mouthSmileRight")
        leaks = [movement_of(k).coupling[right, left] for k in range(20)]
        assert min(leaks) > 0 and np.ptp(leaks) > 0.1
        for k in range(5):
            coupling = movement_of(k).coupling[np.ix_([left, right], [left, right])]
            assert coupling.sum(1).max() < 2 and (np.diag(coupling) > coupling.sum(1) / 2).all()

    def test_gaze_and_tongue_are_left_alone(self):
        for k in range(10):
            movement = movement_of(k)
            for a, name in enumerate(ACTIONS):
                if name.startswith("eyeLook") or name == "tongueOut":
                    assert movement.rest[a] == 0
                    assert np.count_nonzero(movement.coupling[a]) == 1, "nothing drags it"

    def test_traits_tell_people_apart(self):
        traits = [movement_of(k).traits() for k in range(20)]
        assert {tuple(t) for t in traits} == {("expressiveness", "asymmetry", "leak", "coupling", "range", "resting")}
        for name in traits[0]:
            values = [t[name] for t in traits]
            assert np.ptp(values) > 0.01 and min(values) >= 0
