import json
import threading
import time
from typing import ClassVar

import numpy as np
import pytest

from ufe_core.config import ComponentConfig
from ufe_core.errors import DataError
from ufe_core.interfaces.source import Capture, FrameLabels, HMCSource, Neutral, Segment
from ufe_core.packed import PackRequest, open_packed, pack, pack_key
from ufe_core.store import Store

REQUEST = PackRequest(frames=6, size=8, cameras=("b", "a"), anchors=("smile", "neutral"))


class FakeCapture(Capture):
    """Pixels say which frame and camera they are of."""

    cameras = ()
    segments = (Segment("rest", 0, 10), Segment("talk", 10, 14, "speech"), Segment("free", 14, 40, "free"))
    conditions: ClassVar = {"glasses": True, "donning_mm": 1.25}

    def __init__(self, source, subject):
        self.source, self.subject, self.id = source, subject, f"{subject}/0"
        self.anchors = {"neutral": 3, "smile": 12, "pout": 20}

    def frames(self, indices, *, cameras, size):
        self.source.rendered.append(self.subject)
        time.sleep(self.source.slow)
        level = {"a": 100, "b": 200}
        return np.stack([
            np.stack([np.full((size, size), level[c] + i, np.uint8) for c in cameras]) for i in indices
        ])  # fmt: skip

    def labels(self, indices):
        rows = np.asarray(indices, np.float32)[:, None]
        return FrameLabels(rows * np.ones((1, 3), np.float32), rows * np.ones((1, 6), np.float32))

    def neutral(self):
        return Neutral(np.full((4, 3), 7, np.float32), np.full((3, 2, 2), 9, np.uint8))


class FakeSource(HMCSource):
    def __init__(self, version="1", slow=0.0, capture=FakeCapture):
        super().__init__(ComponentConfig())
        self.version, self.slow, self.capture, self.rendered = version, slow, capture, []

    def subjects(self):
        return tuple("ABCDEFGH")

    def captures(self, subjects):
        return [self.capture(self, subject) for subject in subjects]

    @property
    def fingerprint(self):
        return self.version


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def folder(store):
    """A packed capture on disk."""
    source = FakeSource()
    pack(source, ["A"], REQUEST, store=store)
    return store.path("captures", pack_key(source, source.captures(["A"])[0], REQUEST))


def test_what_is_packed_comes_back(store):
    source = FakeSource()
    (packed,) = pack(source, ["A"], REQUEST, store=store)
    capture = source.captures(["A"])[0]
    rows = [*capture.spread(6, seed=0), 12, 3]
    np.testing.assert_array_equal(packed.images, capture.frames(rows, cameras=("b", "a"), size=8))
    np.testing.assert_array_equal(packed.expression, capture.labels(rows).expression)
    np.testing.assert_array_equal(packed.gaze, capture.labels(rows).gaze)
    np.testing.assert_array_equal(packed.geometry, capture.neutral().geometry)
    np.testing.assert_array_equal(packed.texture, capture.neutral().texture)
    assert packed.frame_rows.tolist() == [0, 1, 2, 3, 4, 5] and packed.anchor_rows.tolist() == [6, 7]
    names = ["rest" if i < 10 else "talk" if i < 14 else "free" for i in rows]
    assert list(packed.segments) == names
    assert (packed.subject, packed.capture) == ("A", "A/0")
    assert packed.conditions == {"glasses": True, "donning_mm": 1.25}


def test_images_are_mapped_not_read_and_cannot_be_written(store):
    (packed,) = pack(FakeSource(), ["A"], REQUEST, store=store)
    with pytest.raises(ValueError, match="read-only"):
        packed.images[0] = 0


def test_packed_once_nothing_is_rendered_again(store):
    source = FakeSource()
    first = pack(source, ["A", "B"], REQUEST, store=store)
    assert sorted(source.rendered) == ["A", "B"]
    second = pack(source, ["B", "A"], REQUEST, store=store)
    assert len(source.rendered) == 2
    assert [p.sha256 for p in second] == [p.sha256 for p in reversed(first)]


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 5}, {"size": 9}, {"cameras": ("a", "b")}, {"anchors": ("neutral", "smile")}, {"seed": 1},
    ],
)  # fmt: skip
def test_every_part_of_the_request_is_in_the_key(change):
    source = FakeSource()
    capture = source.captures(["A"])[0]
    changed = PackRequest(**{**vars(REQUEST), **change})
    assert pack_key(source, capture, REQUEST) != pack_key(source, capture, changed)


def test_the_key_follows_the_source_and_the_capture():
    keys = {
        pack_key(source, source.captures([subject])[0], REQUEST)
        for source in (FakeSource("1"), FakeSource("2"))
        for subject in "AB"
    }
    assert len(keys) == 4


def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path):
    results = []
    for threads in (1, 4):
        ready = []
        packed = pack(FakeSource(slow=0.01), "ABCDEFGH", REQUEST, store=Store(tmp_path / str(threads)),
                      threads=threads, progress=ready.append)  # fmt: skip
        assert sorted(ready) == list("ABCDEFGH")
        results.append([(p.subject, p.sha256) for p in packed])
    assert results[0] == results[1]
    assert [subject for subject, _ in results[0]] == list("ABCDEFGH")


def test_several_captures_are_made_at_a_time(store):
    running, most, lock = 0, 0, threading.Lock()

    class Counting(FakeCapture):
        def frames(self, *args, **options):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            try:
                time.sleep(0.05)
                return super().frames(*args, **options)
            finally:
                with lock:
                    running -= 1

    pack(FakeSource(capture=Counting), "ABCD", REQUEST, store=store, threads=2)
    assert most == 2


def damage_truncate(folder):
    file = folder / "frames.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def damage_flip(folder):
    file = folder / "frames.safetensors"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(bytes(data))


def damage_no_data(folder):
    (folder / "frames.safetensors").unlink()


def damage_no_json(folder):
    (folder / "capture.json").unlink()


def damage_half_json(folder):
    file = folder / "capture.json"
    file.write_text(file.read_text()[:100])


def damage_other_json(folder):
    (folder / "capture.json").write_text("[]")


def damage_format(folder):
    file = folder / "capture.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": "ufe.packed/0"}))


def damage_rows(folder):
    file = folder / "capture.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, "frames": meta["frames"][:-1]}))


DAMAGES = [
    (damage_truncate, r"frames\.safetensors is truncated or missing: \d+ bytes expected, \d+ bytes found"),
    (damage_flip, r"frames\.safetensors was altered"),
    (damage_no_data, r"frames\.safetensors is truncated or missing: .* no file found"),
    (damage_no_json, r"capture\.json cannot be read \(FileNotFoundError"),
    (damage_half_json, r"capture\.json cannot be read \(JSONDecodeError"),
    (damage_other_json, r"capture\.json cannot be read"),
    (damage_format, r"capture\.json is of format 'ufe\.packed/0'; this version reads 'ufe\.packed/1'"),
    (damage_rows, r"frames\.safetensors: images have shape \[8, 2, 8, 8\], not what capture\.json says"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_a_damaged_capture_is_refused_by_name(folder, damage, message):
    open_packed(folder)
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        open_packed(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES], ids=[d.__name__ for d, _ in DAMAGES])
def test_a_damaged_capture_is_made_again(store, folder, damage, caplog):
    whole = open_packed(folder).sha256
    damage(folder)
    source = FakeSource()
    (packed,) = pack(source, ["A"], REQUEST, store=store)
    assert source.rendered == ["A"]
    assert packed.sha256 == whole == open_packed(folder).sha256
    assert "It is made again" in caplog.text


def test_a_missing_anchor_is_named_and_leaves_nothing_behind(store):
    request = PackRequest(**{**vars(REQUEST), "anchors": ("neutral", "frown")})
    with pytest.raises(DataError, match=r"Capture 'A/0' has no anchor 'frown'; it has neutral, smile, pout"):
        pack(FakeSource(), ["A"], request, store=store)
    left = [path.name for path in (store.root / "captures").rglob("*") if path.is_file()]
    assert left == []


def test_a_failing_capture_leaves_the_finished_ones(store):
    class Failing(FakeCapture):
        def frames(self, indices, *, cameras, size):
            if self.subject == "C":
                raise DataError("frame 7 of 'C/0' cannot be read")
            return super().frames(indices, cameras=cameras, size=size)

    source = FakeSource(capture=Failing)
    with pytest.raises(DataError, match="frame 7 of 'C/0'"):
        pack(source, "ABC", REQUEST, store=store, threads=1)
    mended = FakeSource()
    pack(mended, "ABC", REQUEST, store=store)
    assert mended.rendered == ["C"]


def test_a_source_without_labels_packs_empty_ones(store):
    class Unlabelled(FakeCapture):
        def labels(self, indices):
            return None

        def neutral(self):
            return None

    (packed,) = pack(FakeSource(capture=Unlabelled), ["A"], REQUEST, store=store)
    assert packed.expression.size == packed.gaze.size == packed.geometry.size == packed.texture.size == 0
    assert packed.images.shape == (8, 2, 8, 8)


class TestSpread:
    capture = FakeCapture(FakeSource(), "A")

    def shares(self, count, seed=0):
        chosen = self.capture.spread(count, seed=seed)
        return [sum(s.start <= i < s.stop for i in chosen) for s in self.capture.segments]

    def test_every_segment_gives_alike_until_it_is_used_up(self):
        assert self.shares(9) == [3, 3, 3]
        assert self.shares(12) == [4, 4, 4]
        assert self.shares(20) == [8, 4, 8]
        assert self.shares(40) == [10, 4, 26]
        assert sorted(self.shares(10)) == [3, 3, 4]

    def test_frames_are_distinct_and_in_order(self):
        for count in (1, 7, 40):
            chosen = self.capture.spread(count, seed=5)
            assert len(chosen) == count and chosen == sorted(set(chosen))

    def test_it_depends_on_the_seed_alone(self):
        assert self.capture.spread(8, seed=1) == self.capture.spread(8, seed=1)
        assert self.capture.spread(8, seed=1) != self.capture.spread(8, seed=2)

    def test_over_seeds_every_instant_of_a_segment_is_as_likely(self):
        seen = np.zeros(40)
        for seed in range(400):
            seen[self.capture.spread(3, seed=seed)] += 1
        assert np.abs(seen[:10] / 400 - 0.1).max() < 0.06
        assert np.abs(seen[14:] / 400 - 1 / 26).max() < 0.04

    def test_more_than_there_are_is_refused(self):
        with pytest.raises(DataError, match=r"Capture 'A/0' has 40 frames, 41 were asked for"):
            self.capture.spread(41, seed=0)
