import numpy as np
import pytest
import torch

from ufe_core.budgets import TrainingConfig
from ufe_core.errors import DataError
from ufe_core.packed import PackedCapture
from ufe_core.training.data import TrainingData
from ufe_core.training.prefetch import prefetched

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
ANCHORS = ("neutral", "jaw_open")
FRAMES, PEOPLE, SIDE = 6, 5, 16
STILL = {"rotation_deg": 0, "scale": 1, "shift": 0, "gain": 0, "cutmix_patches": 0, "anchor_dropout": 0}


def capture(person, *, labelled=True, images=None):
    """A person whose every image, label and vertex tells who it is of and which frame it is."""
    rng = np.random.default_rng(person)
    rows = FRAMES + len(ANCHORS)
    if images is None:
        images = rng.integers(0, 256, (rows, 4, SIDE, SIDE), dtype=np.uint8)
    expression = np.arange(rows, dtype=np.float32)[:, None] + 100 * person + np.zeros((rows, 3), np.float32)
    gaze = np.tile(np.array([0, 0, 1], np.float32), (rows, 2))
    none = np.zeros((0, 0), np.float32)
    return PackedCapture(
        f"S{person:03d}", f"S{person:03d}/0", images, expression if labelled else none, gaze if labelled else none,
        np.full((7, 3), person, np.float32), np.full((3, 4, 4), person, np.uint8), np.zeros((0, 0, 0), np.uint8),
        np.arange(FRAMES), {name: FRAMES + k for k, name in enumerate(ANCHORS)}, ("talk",) * rows, {}, {}, "",
    )  # fmt: skip


def data(people=PEOPLE, make=capture, **options):
    config = TrainingConfig(**{"users": 3, "frames_per_user": 2, "frames": FRAMES, "size": 32, **options})
    captures = [make(person) for person in range(people)]
    return TrainingData(captures, CAMERAS, ANCHORS, config)


def flat(batch):
    parts = (batch.frames.images, batch.frames.users, batch.anchors.images, batch.anchors.present,
             batch.labels.expression, batch.labels.gaze, batch.subjects, batch.rows)  # fmt: skip
    return [part.clone() for part in parts]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def test_a_batch_depends_on_seed_and_step_alone():
    first = data()
    later = data()
    for step in (9, 2, 4):  # whatever was asked for before
        later.batch(step)
    assert same(first.batch(3), later.batch(3))
    assert not same(first.batch(3), first.batch(4))
    assert not same(first.batch(3), data(seed=1).batch(3))


def test_a_batch_holds_a_few_frames_of_a_few_people_and_their_anchors_once():
    batch = data(**STILL).batch(0)
    assert batch.frames.images.shape == (6, 4, SIDE, SIDE) and batch.anchors.images.shape == (3, 2, 4, SIDE, SIDE)
    assert batch.frames.users.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(batch.subjects.tolist())) == 3
    assert bool(batch.anchors.present.all()) and batch.anchors.names == ANCHORS


def test_users_subjects_labels_and_images_belong_together():
    source = data(**STILL)
    batch = source.batch(11)
    for row, user in enumerate(batch.frames.users.tolist()):
        person = source.captures[batch.subjects[user]]
        code = batch.labels.expression[row, 0].item()
        frame = int(code % 100)
        assert int(code // 100) == batch.subjects[user] and frame < FRAMES
        assert np.array_equal(batch.frames.images[row].numpy(), person.images[frame])
        assert np.array_equal(batch.anchors.images[user].numpy(), person.images[FRAMES:])


def test_frames_know_their_row_among_all_labels():
    source = data(**STILL)
    labels, subjects = source.all_labels()
    assert labels.expression.shape == (PEOPLE * FRAMES, 3)
    for batch in (source.batch(11), source.batch(11).part(slice(1, 3))):
        assert torch.equal(labels.rows(batch.rows).expression, batch.labels.expression)
        assert torch.equal(subjects[batch.rows], batch.subjects[batch.frames.users])


def test_frames_of_a_batch_do_not_repeat():
    for step in range(20):
        codes = data(**STILL).batch(step).labels.expression[:, 0].tolist()
        assert len(set(codes)) == len(codes)


def test_everyone_gets_a_turn():
    source = data()
    seen = {int(s) for step in range(30) for s in source.batch(step).subjects}
    assert seen == set(range(PEOPLE))


def test_frames_and_anchors_of_a_person_are_transformed_alike():
    """Every image of everyone is the same picture: what differs after augmentation is the transform."""
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    everywhere = np.broadcast_to(picture, (FRAMES + len(ANCHORS), 4, SIDE, SIDE))
    source = data(make=lambda person: capture(person, images=everywhere), cutmix_patches=0, rotation_deg=15, gain=0.1)
    batch = source.batch(0)
    for row, user in enumerate(batch.frames.users.tolist()):
        for anchor in range(len(ANCHORS)):
            assert torch.equal(batch.frames.images[row], batch.anchors.images[user, anchor])
    assert not torch.equal(batch.frames.images[0], batch.frames.images[2])


def test_cutmix_leaves_anchors_alone():
    options = {**STILL, "cutmix_patches": 3}
    mixed, plain = data(**options).batch(2), data(**STILL).batch(2)
    assert torch.equal(mixed.anchors.images, plain.anchors.images)
    changed = (mixed.frames.images != plain.frames.images).float().mean((2, 3))
    assert float(changed.min()) > 0 and float(changed.max()) <= 0.25


def test_anchors_are_left_out_one_by_one_and_all_at_once():
    source = data(**{**STILL, "anchor_dropout": 0.25})
    present = torch.cat([source.batch(step).anchors.present for step in range(300)]).float()
    each = 0.75 / (1 - 0.25 ** len(ANCHORS))  # of those who have any at all
    assert each - 0.03 < float(present[present.any(1)].mean()) < each + 0.03
    # All are gone where the person's are left out, or each of them by chance.
    expected = 0.25 + 0.75 * 0.25 ** len(ANCHORS)
    assert expected - 0.05 < float((~present.any(1)).float().mean()) < expected + 0.05


def test_batches_made_ahead_are_the_batches_asked_for():
    source = data()
    ahead = list(source.batches(3, 9))
    assert [step for step, _ in ahead] == list(range(3, 9))
    assert all(same(batch, source.batch(step)) for step, batch in ahead)


def test_leaving_early_stops_the_thread():
    batches = data().batches(0, 1000)
    next(batches)
    batches.close()
    assert list(batches) == []


def test_few_people_or_frames_make_smaller_batches():
    batch = data(people=2, frames_per_user=50).batch(0)
    assert batch.frames.images.shape[0] == 2 * FRAMES


def test_statistics_cover_every_frame_and_no_anchor():
    statistics = data().statistics()
    expected = [100 * person + frame for person in range(PEOPLE) for frame in range(FRAMES)]
    assert sorted(statistics.labels.expression[:, 0].tolist()) == expected
    assert sum(len(images) for images in statistics.images) == PEOPLE * 8


def test_statistics_have_the_labels_of_each_anchor_by_its_name():
    made = data()
    found = made.statistics().anchors
    assert tuple(found) == ANCHORS
    for name in ANCHORS:
        rows = [(one, one.anchor_rows[name]) for one in made.captures]
        assert found[name].expression.tolist() == [one.expression[row].tolist() for one, row in rows]
        assert found[name].gaze.tolist() == [one.gaze[row].tolist() for one, row in rows]


def test_a_capture_without_labels_cannot_train():
    with pytest.raises(DataError, match="Capture 'S002/0' has no labels or no neutral face"):
        data(make=lambda person: capture(person, labelled=person != 2))


def test_a_capture_without_gaze_is_refused():
    def blind(person):
        one = capture(person)
        one.gaze[2] = np.nan
        return one

    with pytest.raises(DataError, match="Capture 'S000/0' has labels without numbers"):
        data(make=blind)


def test_an_error_in_a_batch_made_ahead_is_raised_in_its_turn():
    source = data()
    make = source.batch
    source.batch = lambda step: make(step) if step < 4 else (_ for _ in ()).throw(DataError("frame 7 is damaged"))
    seen = []
    with pytest.raises(DataError, match="frame 7 is damaged"):
        for step, _ in source.batches(0, 9):
            seen.append(step)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_made_ahead_comes_in_order_with_any_number_of_threads(threads):
    assert list(prefetched(lambda step: step * step, 2, 40, threads=threads)) == [(k, k * k) for k in range(2, 40)]
    assert list(prefetched(lambda step: step, 5, 5, threads=threads)) == []
