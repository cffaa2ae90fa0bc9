import functools
import json
import multiprocessing
import os
import shutil
import threading
import time

import numpy as np
import pytest
from fake_source import FakeCapture, FakeSource, RichCapture
from safetensors.numpy import load_file

from ufe_core.errors import ArtifactError, ConfigError, DataError
from ufe_core.packed import PackRequest, open_packed, pack, pack_key, verify_packed
from ufe_core.packed_set import missing_captures, pack_in_processes, write_manifest
from ufe_core.store import Store

REQUEST = PackRequest(frames=6, size=8, cameras=("b", "a"), anchors=("smile", "neutral"))


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
    assert packed.resting_texture.size == 0
    assert packed.frame_rows.tolist() == [0, 1, 2, 3, 4, 5] and packed.anchor_rows == dict(
        zip(REQUEST.anchors, (6, 7), strict=True)
    )
    assert packed.rows_of(REQUEST.anchors[::-1]).tolist() == [7, 6]
    with pytest.raises(DataError, match="packed without anchor 'lip_pucker'"):
        packed.rows_of(["lip_pucker"])
    names = ["rest" if i < 10 else "talk" if i < 14 else "free" for i in rows]
    assert list(packed.segments) == names
    assert (packed.subject, packed.capture) == ("A", "A/0")
    assert packed.conditions == {"glasses": True, "donning_mm": 1.25}
    assert packed.traits == dict(capture.traits) and packed.traits["age_years"] == 41.5


def test_images_are_mapped_not_read_and_cannot_be_written(store):
    (packed,) = pack(FakeSource(), ["A"], REQUEST, store=store)
    with pytest.raises(TypeError, match="does not support item assignment"):
        packed.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        packed.images[0][0] = 0


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
        {"session": 1}, {"extras": ("geometry",)},
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


def region(folder, tensor):
    """First and last byte (exclusive) of a tensor in the data file."""
    with (folder / "frames.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return [8 + length + offset for offset in json.loads(file.read(length))[tensor]["data_offsets"]]


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(bytes(data))


def damage_truncate(folder):
    os.truncate(folder / "frames.safetensors", region(folder, "images")[0] + 3 * 128 + 1)


def damage_longer(folder):
    with (folder / "frames.safetensors").open("ab") as file:
        file.write(b"x")


def damage_image(folder):
    flip(folder / "frames.safetensors", region(folder, "images")[0] + 6 * 128 + 77)


def damage_label(folder):
    flip(folder / "frames.safetensors", region(folder, "gaze")[1] - 1)


def damage_neutral(folder):
    flip(folder / "frames.safetensors", region(folder, "texture")[0])


def damage_header(folder):
    flip(folder / "frames.safetensors", 40)


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
    file.write_text(file.read_text().replace("ufe.packed/3", "ufe.packed/2"))


def damage_rows(folder):
    file = folder / "capture.json"
    file.write_text(file.read_text().replace('"glasses": true', '"glasses": false'))


DAMAGES = [
    (damage_truncate, r"frames\.safetensors is truncated .*: \d+ bytes expected, \d+ found: it lacks "
                      r"(the neutral texture, )?images from frame \d+ on(, the neutral texture)?\."),
    (damage_longer, r"frames\.safetensors is truncated or altered: \d+ bytes expected, \d+ found\."),
    (damage_image, r"frames\.safetensors is damaged \(images of frame 12\)"),
    (damage_label, r"frames\.safetensors is damaged \(gaze of frame 3\)"),
    (damage_neutral, r"frames\.safetensors is damaged \(the neutral texture\)"),
    (damage_header, r"frames\.safetensors is damaged \(its header\)"),
    (damage_no_data, r"frames\.safetensors is missing or cannot be read \(No such file"),
    (damage_no_json, r"capture\.json cannot be read \(FileNotFoundError"),
    (damage_half_json, r"capture\.json cannot be read \(JSONDecodeError"),
    (damage_other_json, r"capture\.json cannot be read"),
    (damage_format, r"capture\.json is of format 'ufe\.packed/2'; this version reads 'ufe\.packed/3'"),
    (damage_rows, r"capture\.json was altered"),
]  # fmt: skip


def everything(path):
    packed = open_packed(path)
    packed.check()
    return packed


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_a_damaged_capture_is_refused_by_name(folder, damage, message):
    everything(folder)
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        everything(folder)
    assert str(folder) in str(caught.value) and "Delete its folder" in str(caught.value)
    assert verify_packed(folder) == [str(caught.value)]


def test_any_flipped_bit_is_found(folder):
    assert verify_packed(folder) == []
    for name in ("capture.json", "frames.safetensors"):
        file = folder / name
        whole = file.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 150)):
            flip(file, at)
            assert any(name in line for line in verify_packed(folder)), f"byte {at} of {name}"
            file.write_bytes(whole)


def test_every_damage_is_named_not_the_first_alone(folder):
    frames = open_packed(folder).frames
    for tensor, row, size in (("images", 0, 128), ("images", 1, 128), ("images", 4, 128), ("gaze", 2, 24)):
        flip(folder / "frames.safetensors", region(folder, tensor)[0] + row * size)
    lines = "\n".join(verify_packed(folder))
    assert f"gaze of frame {frames[2]})" in lines
    for row in (0, 1, 4):
        assert str(frames[row]) in lines.split("images of frames ")[1]


def test_a_damaged_frame_is_never_handed_out_and_the_others_are(folder):
    damage_image(folder)
    packed = open_packed(folder)
    assert packed.images[:6].shape == (6, 2, 8, 8) and packed.images[[7, 2]].shape == (2, 2, 8, 8)
    for index in (6, -2, slice(5, 7), [0, 6], np.arange(8) > 5, np.s_[6, 0], np.s_[..., 0], slice(None)):
        for _ in range(2):
            with pytest.raises(DataError, match="images of frame 12"):
                packed.images[index]
    with pytest.raises(DataError, match="images of frame 12"):
        np.asarray(packed.images)


def test_opening_reads_no_image(folder, monkeypatch):
    from ufe_core import packed_file

    sizes = []
    crc = packed_file.zlib.crc32
    monkeypatch.setattr(packed_file.zlib, "crc32", lambda data: sizes.append(len(data)) or crc(data))
    packed = open_packed(folder)
    assert 128 not in sizes
    packed.images[[1, 3]], packed.images[3], packed.images[1:4]
    assert sizes.count(128) == 3, "each frame is checked once, when it is first read"


def test_the_data_is_a_safetensors_file(folder):
    packed, loaded = open_packed(folder), load_file(folder / "frames.safetensors")
    np.testing.assert_array_equal(loaded["images"], packed.images)
    np.testing.assert_array_equal(loaded["expression"], packed.expression)
    np.testing.assert_array_equal(loaded["texture"], packed.texture)


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES], ids=[d.__name__ for d, _ in DAMAGES])
def test_a_damaged_capture_is_made_again(store, folder, damage, caplog):
    whole = open_packed(folder).sha256
    damage(folder)
    source = FakeSource()
    (packed,) = pack(source, ["A"], REQUEST, store=store)
    assert source.rendered == ["A"]
    assert packed.sha256 == whole == everything(folder).sha256 and verify_packed(folder) == []
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

        def neutral(self, *, size=None):
            return None

    (packed,) = pack(FakeSource(capture=Unlabelled), ["A"], REQUEST, store=store)
    assert len(packed.expression) == len(packed.gaze) == packed.geometry.size == packed.texture.size == 0
    assert packed.images.shape == (8, 2, 8, 8)


class TestExtras:
    REQUEST = PackRequest(**{**vars(REQUEST), "extras": ("cameras", "segmentation", "keypoints", "geometry")})

    def test_they_come_back_beside_the_images(self, store):
        source = FakeSource(capture=RichCapture)
        (packed,) = pack(source, ["A"], self.REQUEST, store=store)
        capture, rows = source.captures(["A"])[0], list(packed.frames)
        points = capture.keypoints(rows, cameras=("b", "a"), size=8)
        for name, expected in {
            "geometry": capture.geometry(rows), "keypoints": points.points, "visible": points.visible,
            "segmentation": capture.segmentation(rows, cameras=("b", "a"), size=8),
        }.items():  # fmt: skip
            np.testing.assert_array_equal(packed.extras[name], expected)
            assert packed.extras[name].dtype == expected.dtype
        assert [camera.name for camera in packed.cameras] == ["b", "a"]
        for row in (0, 7):
            for mine, true in zip(packed.cameras_at(row), capture.cameras_at(rows[row])[1:], strict=True):
                assert mine.name == true.name
                for part in ("intrinsics", "rotation", "translation", "distortion"):
                    np.testing.assert_array_equal(getattr(mine, part), getattr(true, part))
        assert (packed.images[:] == pack(source, ["A"], REQUEST, store=store)[0].images[:]).all()

    def test_damage_to_one_is_named(self, store):
        (packed,) = pack(FakeSource(capture=RichCapture), ["A"], self.REQUEST, store=store)
        flip(packed.path / "frames.safetensors", region(packed.path, "extra.segmentation")[0] + 2 * 128)
        (line,) = verify_packed(packed.path)
        assert f"segmentation of frame {packed.frames[2]})" in line
        with pytest.raises(DataError, match="segmentation of frame"):
            open_packed(packed.path).extras["segmentation"][2]

    def test_their_order_does_not_matter(self):
        assert PackRequest(**{**vars(self.REQUEST), "extras": self.REQUEST.extras[::-1]}) == self.REQUEST

    def test_an_unknown_one_is_answered_with_the_nearest(self):
        with pytest.raises(ConfigError, match=r"There is no extra 'keypoint'\. Did you mean 'keypoints'\?"):
            PackRequest(**{**vars(REQUEST), "extras": ("keypoint",)})

    @pytest.mark.parametrize("extra", ["geometry", "keypoints", "segmentation", "cameras"])
    def test_one_that_the_source_lacks_is_one_line(self, store, extra):
        request = PackRequest(**{**vars(REQUEST), "extras": (extra,)})
        with pytest.raises(DataError, match=f"^Capture 'A/0' has no {extra}. Pack it without the extra '{extra}'.$"):
            pack(FakeSource(), ["A"], request, store=store)

    def test_a_second_donning_is_packed_apart(self, store):
        source = FakeSource()
        request = PackRequest(**{**vars(REQUEST), "session": 1})
        assert pack(source, ["A"], request, store=store)[0].capture == "A/1"
        with pytest.raises(DataError, match="no session 2; this source has sessions 0 to 1"):
            pack(source, ["A"], PackRequest(**{**vars(REQUEST), "session": 2}), store=store)


LONG = PackRequest(frames=36, size=8, cameras=("a", "b"), anchors=("neutral",))


class Fragile(RichCapture):
    """Fails when a block would go past `source.limit` frames."""

    def frames(self, indices, *, cameras, size):
        self.source.count = getattr(self.source, "count", 0) + len(indices)
        if self.source.count > getattr(self.source, "limit", 1e9):
            raise self.source.error
        return super().frames(indices, cameras=cameras, size=size)


def fragile(limit=1e9, error=None):
    source = FakeSource(capture=Fragile)
    source.limit, source.error = limit, error or DataError("frame 9 cannot be read")
    return source


def bytes_of(store):
    root = store.root / "captures"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


class TestResume:
    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch):
        monkeypatch.setattr("ufe_core.packed._BLOCK_ROWS", 8)

    @pytest.fixture
    def uncut(self, tmp_path):
        made = Store(tmp_path / "uncut")
        pack(fragile(), ["A"], LONG, store=made)
        return bytes_of(made)

    @pytest.fixture
    def cut(self, tmp_path):
        """A store in which packing failed after two blocks of five."""
        store = Store(tmp_path / "cut")
        with pytest.raises(DataError, match="frame 9"):
            pack(fragile(limit=17), ["A"], LONG, store=store)
        return store

    def test_it_goes_on_within_a_capture_and_ends_with_the_same_bytes(self, uncut, cut):
        assert all(name.startswith(".partial/") for name in bytes_of(cut)), "nothing half-written is visible"
        source = fragile()
        pack(source, ["A"], LONG, store=cut)
        assert source.count == 37 - 16
        assert bytes_of(cut) == uncut

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
    def test_whatever_stopped_it(self, uncut, tmp_path, error):
        store = Store(tmp_path)
        expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ArtifactError
        with pytest.raises(expected) as caught:
            pack(fragile(limit=17, error=error), ["A"], LONG, store=store)
        if expected is ArtifactError:
            assert "the disk is full" in str(caught.value)
        source = fragile()
        pack(source, ["A"], LONG, store=store)
        assert source.count == 37 - 16
        assert {k: v for k, v in bytes_of(store).items() if not k.startswith("uncut")} == uncut

    def test_a_finished_block_that_was_damaged_since_is_made_again(self, uncut, cut):
        (data,) = (cut.root / "captures").rglob("frames.safetensors")
        flip(data, region(data.parent, "images")[0] + 9 * 128)
        source = fragile()
        pack(source, ["A"], LONG, store=cut)
        assert source.count == 37 - 8
        assert bytes_of(cut) == uncut

    @pytest.mark.parametrize("spoil", [
        lambda folder: os.truncate(folder / "frames.safetensors", 500),
        lambda folder: (folder / "frames.safetensors").unlink(),
        lambda folder: (folder / "blocks.log").write_bytes((folder / "blocks.log").read_bytes()[:-30]),
        lambda folder: (folder / "blocks.log").write_bytes(b"\xff\n12 {\n"),
        lambda folder: flip(folder / "frames.safetensors", 30),
        lambda folder: flip(folder / "blocks.log", 30),
    ])  # fmt: skip
    def test_a_spoilt_remainder_does_no_harm(self, uncut, cut, spoil):
        (data,) = (cut.root / "captures").rglob("frames.safetensors")
        spoil(data.parent)
        pack(fragile(), ["A"], LONG, store=cut)
        assert bytes_of(cut) == uncut

    def test_blocks_are_small_whatever_the_capture(self, store, monkeypatch):
        monkeypatch.setattr("ufe_core.packed._BLOCK_BYTES", 3 * 128)
        most = []

        class Watching(FakeCapture):
            def frames(self, indices, **options):
                most.append(len(indices))
                return super().frames(indices, **options)

        pack(FakeSource(capture=Watching), ["A"], LONG, store=store)
        assert max(most) == 3 and sum(most) == 37

    def test_a_stop_is_heeded_between_blocks(self, store):
        source = fragile()
        with pytest.raises(KeyboardInterrupt):
            pack(source, "AB", LONG, store=store, threads=1, stopped=lambda: getattr(source, "count", 0) >= 16)
        assert source.count == 16

    def test_frames_of_two_shapes_are_refused(self, store):
        class Growing(RichCapture):
            def geometry(self, indices):
                return np.zeros((len(indices), 5 + indices[0], 3), np.float32)

        request = PackRequest(**{**vars(LONG), "extras": ("geometry",)})
        with pytest.raises(DataError, match=r"gave geometry of shape \[\d+, 3\] for some frames and"):
            pack(FakeSource(capture=Growing), ["A"], request, store=store)


def _pack_elsewhere(root, barrier, results):
    barrier.wait()
    source = FakeSource(slow=0.02)
    pack(source, "ABCD", REQUEST, store=Store(root))
    results.put(source.rendered)


def test_several_processes_make_the_same_bytes(tmp_path):
    create = functools.partial(FakeSource, capture=RichCapture)
    events = []
    packed = pack_in_processes(
        create, "CAB", TestExtras.REQUEST, store=Store(tmp_path / "2"), processes=2, listener=events.append
    )  # fmt: skip
    assert [one.subject for one in packed] == list("CAB")
    assert sorted(event.subject for event in events if event.kind == "made") == list("ABC")
    assert sum(event.rows for event in events) == 3 * 8
    pack(create(), "ABC", TestExtras.REQUEST, store=Store(tmp_path / "1"))
    assert bytes_of(Store(tmp_path / "2")) == bytes_of(Store(tmp_path / "1"))
    wrong = PackRequest(**{**vars(REQUEST), "anchors": ("frown",)})
    with pytest.raises(DataError, match="has no anchor 'frown'"):
        pack_in_processes(create, "AB", wrong, store=Store(tmp_path / "2"), processes=1)


def test_a_listener_that_fails_ends_the_packing(tmp_path):
    def fails(event):
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        pack_in_processes(FakeSource, "ABCD", REQUEST, store=Store(tmp_path), processes=1, listener=fails)


def test_what_was_packed_is_missed_and_so_is_what_is_another_now(tmp_path):
    packed = pack(FakeSource(), "AB", REQUEST, store=Store(tmp_path))
    write_manifest(tmp_path, packed)
    assert list(missing_captures(tmp_path)) == []
    (other,) = pack(FakeSource(), "A", PackRequest(6, 16, ("a",), ()), store=Store(tmp_path))
    shutil.rmtree(packed[0].path)
    shutil.copytree(other.path, packed[0].path)
    ((path, line),) = missing_captures(tmp_path)
    assert path == packed[0].path and "is not what was packed here as capture 'A/0'" in line
    shutil.rmtree(packed[0].path)
    ((path, line),) = missing_captures(tmp_path)
    assert path == packed[0].path and "is missing" in line


def test_processes_that_pack_the_same_share_the_work(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_pack_elsewhere, args=(tmp_path / "many", barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    rendered = [subject for _ in workers for subject in results.get(timeout=30)]
    for worker in workers:
        worker.join()
    assert sorted(rendered) == list("ABCD"), "each capture was made by one process"
    pack(FakeSource(), "ABCD", REQUEST, store=Store(tmp_path / "one"))
    assert bytes_of(Store(tmp_path / "many")) == bytes_of(Store(tmp_path / "one"))


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
        self.capture.segments = self.capture.segments[2:]
        assert self.capture.spread(26, seed=0) == list(range(14, 40))
        with pytest.raises(DataError, match="26 frames, 27 were"):
            self.capture.spread(27, seed=0)


class TestInstants:
    def test_they_are_everybodys_or_each_ones_own(self, tmp_path):
        usual, own = PackRequest(6, 8, ("a",), ()), PackRequest(6, 8, ("a",), (), own_instants=True)
        people, store = tuple("ABCDEFGH"), Store(tmp_path)
        assert len({one.frames for one in pack(FakeSource(), people, usual, store=store)}) == 1
        taken = [one.frames for one in pack(FakeSource(), people, own, store=store)]
        assert len(set(taken)) > 5
        again = pack(FakeSource(), people[::-1], own, store=Store(tmp_path / "again"))
        assert [one.frames for one in again] == taken[::-1], "whoever else is packed"

    def test_the_usual_ones_are_kept_under_the_key_that_they_had(self):
        assert "own_instants" not in PackRequest(6, 8, ("a",), ()).describe()


class TestClips:
    def test_single_frames_are_kept_under_the_key_that_they_had(self):
        request = PackRequest(6, 16, ("a",), ())
        assert "clip" not in request.describe() and PackRequest(6, 16, ("a",), (), clip=3).describe()["clip"] == 3

    def test_frames_are_a_whole_number_of_clips(self):
        with pytest.raises(ConfigError, match="7 frames are no whole number of clips of 3"):
            PackRequest(7, 16, ("a",), (), clip=3)

    def test_a_clip_is_consecutive_frames_of_one_spoken_segment(self, synthetic_capture):
        frames = synthetic_capture.clips(4, 12, seed=0)
        runs = [frames[k : k + 12] for k in range(0, 48, 12)]
        kinds = {s.name: (s.start, s.stop) for s in synthetic_capture.segments if s.kind == "speech"}
        for run in runs:
            assert run == list(range(run[0], run[0] + 12))
            assert any(start <= run[0] and run[-1] < stop for start, stop in kinds.values())
        assert frames == synthetic_capture.clips(4, 12, seed=0) != synthetic_capture.clips(4, 12, seed=1)
        with pytest.raises(DataError, match="has 21 segments of kind 'speech' of 12 frames, 22 are needed"):
            synthetic_capture.clips(22, 12, seed=0)


@pytest.fixture
def synthetic_capture():
    from ufe_core.plugins import catalogue

    return catalogue().create("source", "synthetic").captures(["S002"])[0]
