"""Batches of people without labels, streamed from their captures."""

import torch
from fake_source import FakeSource

from ufe_core.budgets import PretrainingConfig
from ufe_core.headset_only import HeadsetOnly
from ufe_core.packed import PackRequest, pack
from ufe_core.store import Store
from ufe_core.training import unlabelled
from ufe_core.training.unlabelled import CaptureFiles, CapturePaths, UnlabelledData


def stream(store, people, **changed):
    source = HeadsetOnly(FakeSource())
    request = PackRequest(4, 8, ("a", "b"), ("neutral", "smile"))
    paths = [one.path for one in pack(source, people, request, store=store)]
    files = CaptureFiles([CapturePaths(path) for path in paths])
    options = {"frames": 4, "users": 3, "frames_per_user": 2, "rotation_deg": 0, "scale": 1, **changed}
    return UnlabelledData(files, ("a", "b"), ("neutral", "smile"), PretrainingConfig(**options))


def test_a_batch_is_of_different_people_with_their_own_anchors(tmp_path):
    """Pixels say which frame and camera they are of."""
    data = stream(Store(tmp_path), list("ABCDEFGH"), anchor_dropout=0)
    batch = data.batch(5)
    assert batch.frames.images.shape == (6, 2, 8, 8) and batch.anchors.images.shape == (3, 2, 2, 8, 8)
    assert len(set(batch.subjects.tolist())) == 3 and batch.frames.users.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.anchors.images[:, :, 0, 0, 0].tolist() == [[103, 112]] * 3 and batch.anchors.present.all()
    assert (batch.frames.images[:, 1].int() - batch.frames.images[:, 0].int() == 100).all()
    again = data.batch(5)
    assert torch.equal(again.frames.images, batch.frames.images) and torch.equal(again.subjects, batch.subjects)
    assert not torch.equal(data.batch(6).frames.images, batch.frames.images)


def test_only_a_few_captures_stay_open_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(unlabelled, "_OPEN", 3)
    data = stream(Store(tmp_path), list("ABCDEFGH"))
    drawn = set()
    for step, batch in data.batches(0, 30):
        drawn.update(batch.subjects.tolist())
        assert data.files.opened <= 3, step
    assert drawn == set(range(8))
