import numpy as np
import pytest

from ufe_core.budgets import TrainingConfig
from ufe_core.training.augment import Augmentation, CutMix

SIDE = 16
NONE = {"rotation_deg": 0, "scale": 1, "shift": 0, "gain": 0, "cutmix_patches": 0}


def images(users=3, count=2, cameras=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (users, count, cameras, SIDE, SIDE), dtype=np.uint8)


def cutmix(before, patches, rng):
    return CutMix.draw(patches, before.shape[:3], before.shape[-1], rng).apply(before)


def single(affine, gain=1.0):
    return Augmentation(np.array(affine, np.float64).reshape(1, 1, 2, 3), np.full((1, 1), gain))


def test_nothing_changes_when_every_option_is_off():
    rng = np.random.default_rng(0)
    augment = Augmentation.draw(TrainingConfig(**NONE), 3, 4, rng)
    before = images()
    after = cutmix(augment.apply(before), 0, rng)
    assert np.array_equal(after, before)


@pytest.mark.parametrize(
    ("affine", "moved_to"),
    [
        ([[0, -1, 0], [1, 0, 0]], (12, 12)),  # a quarter turn about the centre: +x goes to +y
        ([[-1, 0, 0], [0, -1, 0]], (12, 3)),
        ([[1, 0, 0.25], [0, 1, -0.125]], (2, 14)),  # shifts are in half sides: 2 px right, 1 px up
    ],
)
def test_a_known_transform_moves_a_known_pixel(affine, moved_to):
    image = np.zeros((1, 1, 1, SIDE, SIDE), np.uint8)
    image[0, 0, 0, 3, 12] = 200
    out = single(affine).apply(image)[0, 0, 0]
    assert out[moved_to] == 200 and int(out.astype(int).sum()) == 200


@pytest.mark.parametrize("sharp", [False, True])
def test_points_move_with_what_they_are_on(sharp):
    """The middle of a small square is where its point is, before and after."""
    image = np.zeros((1, 1, 1, 64, 64), np.uint8)
    image[..., 20:25, 40:45] = 200
    turn = np.radians(12)
    augment = single([[1.05 * np.cos(turn), -np.sin(turn), 0.1], [np.sin(turn), 1.05 * np.cos(turn), -0.05]])
    moved = augment.apply(image, sharp=sharp)[0, 0, 0].astype(float)
    rows, columns = np.indices(moved.shape) + 0.5
    middle = [(columns * moved).sum() / moved.sum(), (rows * moved).sum() / moved.sum()]
    found = augment.move(np.array([42.5, 22.5]).reshape(1, 1, 1, 1, 2), 64)
    assert found.flatten() == pytest.approx(middle, abs=0.05)


def test_sharp_keeps_fine_detail_that_linear_blurs():
    """Waves of 4 pixels, shifted by half a pixel."""
    waves = (128 + 100 * np.cos(np.arange(64) * np.pi / 2)).astype(np.uint8)
    image = np.broadcast_to(waves, (64, 64)).reshape(1, 1, 1, 64, 64).copy()
    half = single([[1, 0, 1 / 64], [0, 1, 0]])
    inside = np.s_[0, 0, 0, 8:-8, 8:-8]
    was, linear, sharp = (
        one[inside].astype(float).std() for one in (image, half.apply(image), half.apply(image, sharp=True))
    )
    assert linear == pytest.approx(was / np.sqrt(2), rel=0.02) and 0.93 * was < sharp < 1.02 * was


def test_scaling_keeps_the_centre_and_spreads_from_it():
    image = np.zeros((1, 1, 1, SIDE, SIDE), np.uint8)
    image[..., 6:10, 6:10] = 100
    out = single([[2, 0, 0], [0, 2, 0]]).apply(image)[0, 0, 0].astype(float)
    assert np.array_equal(out, out[::-1]) and np.array_equal(out, out[:, ::-1])
    assert out.sum() == pytest.approx(4 * image.sum(), rel=0.01)


def test_gain_multiplies_and_saturates():
    image = np.array([0, 10, 100, 200], np.uint8).reshape(1, 1, 1, 2, 2)
    assert single([[1, 0, 0], [0, 1, 0]], gain=1.5).apply(image).flatten().tolist() == [0, 15, 150, 255]


def test_draws_stay_within_the_options():
    config = TrainingConfig(rotation_deg=15, scale=1.1, shift=0.02, gain=0.1)
    drawn = Augmentation.draw(config, 200, 4, np.random.default_rng(3))
    affine = drawn.affine
    assert np.log(drawn.gain).std() == pytest.approx(0.1, rel=0.1) and abs(np.log(drawn.gain).mean()) < 0.01
    scale = np.sqrt(np.abs(np.linalg.det(affine[..., :2])))
    angle = np.degrees(np.arctan2(affine[..., 1, 0], affine[..., 0, 0]))
    assert 1.08 < scale.max() <= 1.1 + 1e-9 and 1 / 1.1 - 1e-9 <= scale.min() < 0.92
    assert 14 < angle.max() <= 15 and -15 <= angle.min() < -14
    assert 0.038 < np.abs(affine[..., 2]).max() <= 0.04  # two hundredths of the side are four of the half side


def test_each_subject_and_camera_has_its_own_transform_and_frames_share_it():
    augment = Augmentation.draw(TrainingConfig(), 3, 4, np.random.default_rng(1))
    same = np.broadcast_to(images(1, 1, 1), (3, 2, 4, SIDE, SIDE))
    out = augment.apply(same)
    assert np.array_equal(out[:, 0], out[:, 1])
    assert len({out[u, 0, c].tobytes() for u in range(3) for c in range(4)}) == 12


@pytest.mark.parametrize("patches", [1, 3, 16])
def test_cutmix_changes_at_most_a_quarter_and_takes_it_from_another_subject(patches):
    level = np.array([10, 20, 30], np.uint8)
    before = np.broadcast_to(level[:, None, None, None, None], (3, 5, 4, 32, 32)).copy()
    out = cutmix(before, patches, np.random.default_rng(0))
    changed = out != before
    share = changed.mean((3, 4))
    assert share.min() > 0 and share.max() <= 0.25
    assert set(np.unique(out[0][changed[0]])) <= {20, 30}
    assert np.array_equal(before[:, 0, 0, 0, 0], level), "the images given must be left alone"


def test_points_under_a_patch_are_covered():
    before = np.broadcast_to(np.array([10, 20], np.uint8)[:, None, None, None, None], (2, 3, 4, 32, 32)).copy()
    mix = CutMix.draw(3, before.shape[:3], 32, np.random.default_rng(1))
    changed = mix.apply(before) != before
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    centres = np.stack([columns.ravel(), rows.ravel()], -1) + 0.5
    covered = mix.covers(np.broadcast_to(centres, (2, 3, 4, 1024, 2)))
    assert np.array_equal(covered, changed.reshape(covered.shape)) and covered.any() and not covered.all()
    assert not CutMix.draw(0, (2, 3, 4), 32, np.random.default_rng(1)).covers(np.ones((2, 3, 4, 5, 2))).any()


def test_one_subject_alone_has_nobody_to_mix_with():
    before = images(users=1)
    assert np.array_equal(cutmix(before, 3, np.random.default_rng(0)), before)


def test_equal_generators_draw_equally():
    def make(step):
        rng = np.random.default_rng([0, 1, step])
        return cutmix(Augmentation.draw(TrainingConfig(), 3, 4, rng).apply(images()), 3, rng)

    assert np.array_equal(make(5), make(5))
    assert not np.array_equal(make(5), make(6))


def test_stretching_keeps_areas_and_reaches_as_far_as_it_may():
    rng = np.random.default_rng(3)
    linear = Augmentation.draw(TrainingConfig(**NONE), 500, 4, rng, stretch=1.2).affine[..., :2].reshape(-1, 2, 2)
    assert np.linalg.det(linear) == pytest.approx(1)
    longest = np.linalg.svd(linear, compute_uv=False)[:, 0]
    assert 1 <= longest.min() < 1.01 and 1.19 < longest.max() <= 1.2
    directions = np.degrees(np.arctan2(*np.linalg.eigh(linear)[1][:, ::-1, 1].T)) % 180  # of the longer axes
    assert np.histogram(directions, 6, (0, 180))[0].min() > 200, "any direction"
    assert linear == pytest.approx(linear.transpose(0, 2, 1)), "nothing turns"
