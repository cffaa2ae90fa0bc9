import json
import types

import pytest
from fake_source import FakeSource, RichCapture

from ufe_core.errors import DataError
from ufe_core.packed import open_packed

SMALL = ("--frames", "4", "--size", "16", "--cameras", "a,b", "--anchors", "neutral")


@pytest.fixture
def fake(monkeypatch):
    """The one source that the commands find: eight subjects, three cameras, every extra."""
    source = FakeSource(capture=RichCapture)
    spec = types.SimpleNamespace(id="acme/fake", summary="eight people")
    catalogue = types.SimpleNamespace(get=lambda kind, name: spec, create=lambda kind, name, options: source)
    monkeypatch.setattr("ufe_core.plugins.catalogue", lambda: catalogue)
    return source


@pytest.fixture
def ufe(ufe, fake):
    """The command line, which finds that source."""
    return ufe


@pytest.fixture
def packed(ufe, tmp_path):
    """A folder of two packed captures."""
    out = tmp_path / "packed"
    code, _, err = ufe("source", "pack", *SMALL, "--subject", "A", "--subject", "B", "--out", out)
    assert code == 0, err
    return out


def folders(root):
    return sorted(path for path in (root / "captures").iterdir() if not path.name.startswith("."))


class TestPack:
    def test_it_says_what_it_made_and_what_was_there(self, ufe, fake, tmp_path):
        for made, there in ((3, 0), (0, 3)):
            code, out, _ = ufe("source", "pack", *SMALL, "--count", 3, "--out", tmp_path / "p")
            assert code == 0
            assert f"3 packed captures of 'acme/fake' in '{tmp_path / 'p'}': {made} made, {there} already there" in out
            assert "Each: 4 frames and 1 anchors x 2 cameras, 16 px, session 0." in out
        assert sorted(set(fake.rendered)) == list("ABC")

    def test_json_names_every_capture(self, ufe, tmp_path):
        arguments = ("--session", 1, "--extras", "segmentation,cameras", "--seed", 3, "--json")
        code, out, _ = ufe("source", "pack", *SMALL, "--subject", "C", "--out", tmp_path / "p", *arguments)
        facts = json.loads(out)
        assert code == 0 and (facts["made"], facts["already_there"]) == (1, 0)
        assert facts["request"] == {
            "frames": 4, "size": 16, "cameras": ["a", "b"], "anchors": ["neutral"], "seed": 3, "session": 1,
            "extras": ["segmentation", "cameras"], "texture": 0, "clip": 1, "own_instants": False,
        }  # fmt: skip
        (entry,) = facts["captures"]
        one = open_packed(folders(tmp_path / "p")[0])
        assert (entry["capture"], entry["path"], entry["sha256"]) == ("C/1", str(one.path), one.sha256)
        assert facts["bytes"] == entry["bytes"] == sum(file.stat().st_size for file in one.path.iterdir())

    def test_without_a_folder_it_fills_the_store(self, ufe, monkeypatch, tmp_path):
        monkeypatch.setenv("UFE_HOME", str(tmp_path))
        assert ufe("source", "pack", *SMALL, "--count", 1)[0] == 0
        assert len(folders(tmp_path)) == 1 and not (tmp_path / "manifests").exists()

    def test_sizes_come_from_the_budget(self, ufe, tmp_path):
        _, out, _ = ufe("source", "pack", "--budget", "smoke", "--subject", "A", "--cameras", "a",
                        "--anchors", "all", "--out", tmp_path / "p", "--json")  # fmt: skip
        request = json.loads(out)["request"]
        assert (request["frames"], request["size"], len(request["anchors"])) == (16, 64, 3)

    def test_damaged_ones_are_made_again(self, ufe, packed):
        file = folders(packed)[0] / "frames.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        _, out, _ = ufe("source", "pack", *SMALL, "--subject", "A", "--subject", "B", "--out", packed)
        assert "1 made, 1 already there" in out and file.read_bytes() == whole

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--extras", "segmentaton"), 1, "There is no extra 'segmentaton'. Did you mean 'segmentation'?"),
            (("--anchors", "smyle"), 1, "has no anchor 'smyle'. Did you mean 'smile'?"),
            (("--cameras", "d"), 1, "has no camera 'd'."),
            (("--subject", "Z"), 1, "has no subject 'Z'."),
            (("--session", 7), 1, "There is no session 7; this source has sessions 0 to 1."),
            (("--count", 9), 1, "--count 9 is more than the 8 subjects"),
            (("--split", "main"), 1, "No split 'main' of 'acme/fake'."),
            (("--frames", 41), 1, "has 40 frames, 41 were asked for"),
            (("--anchor", "neutral"), 2, "--anchors"),
            (("--thread", 2), 2, "--threads"),
        ],
    )
    def test_a_wrong_option_is_one_line(self, ufe, tmp_path, arguments, code, message):
        found, out, err = ufe("source", "pack", *SMALL, *arguments, "--out", tmp_path / "p")
        assert (found, out) == (code, "") and message in err
        if code == 1:
            assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (KeyboardInterrupt(), 130, "interrupted; finished work is kept"),
            (OSError(28, "No space left on device"), 1, "the disk is full"),
            (DataError("frame 7 cannot be read"), 1, "frame 7 cannot be read"),
        ],
    )
    def test_what_stops_it_is_one_line_and_finished_work_is_kept(self, ufe, fake, tmp_path, error, code, message):
        class Failing(RichCapture):
            def frames(self, *args, **options):
                if self.subject == "B":
                    raise error
                return super().frames(*args, **options)

        fake.capture = Failing
        found, out, err = ufe("source", "pack", *SMALL, "--count", 3, "--threads", 1, "--out", tmp_path / "p")
        assert (found, out) == (code, "")
        assert message in err and err.strip().splitlines()[-1].startswith("ufe: ") and "Traceback" not in err
        assert [open_packed(path).subject for path in folders(tmp_path / "p")] == ["A"]


class TestVerify:
    def test_a_sound_folder_passes(self, ufe, packed):
        for folder in (packed, packed / "captures", folders(packed)[0]):
            code, out, _ = ufe("source", "verify", folder)
            assert code == 0 and "all sound" in out

    def test_every_damage_is_named(self, ufe, packed):
        first, second = folders(packed)
        (first / "capture.json").unlink()
        data = second / "frames.safetensors"
        data.write_bytes(data.read_bytes()[:-1])
        code, out, err = ufe("source", "verify", packed)
        assert code == 1 and "2 of 2 packed captures" in err
        assert f"{first / 'capture.json'} cannot be read" in out and f"{data} is truncated" in out
        code, out, _ = ufe("source", "verify", packed, "--json")
        assert code == 1 and [entry["path"] for entry in json.loads(out)["damaged"]] == [str(first), str(second)]

    def test_a_capture_that_was_lost_on_the_way_is_missed(self, ufe, packed):
        import shutil

        lost = folders(packed)[0]
        name = open_packed(lost).capture
        shutil.rmtree(lost)
        code, out, _ = ufe("source", "verify", packed)
        assert code == 1 and f"{lost} is missing: capture '{name}' was packed here" in out

    def test_a_folder_without_captures_is_an_error(self, ufe, tmp_path):
        code, _, err = ufe("source", "verify", tmp_path)
        assert code == 1 and "holds no packed captures" in err and err.count("\n") == 1

    def test_a_folder_that_moved_still_passes(self, ufe, packed, tmp_path):
        packed.rename(tmp_path / "moved")
        assert ufe("source", "verify", tmp_path / "moved")[0] == 0


class TestInfo:
    def test_of_a_packed_folder(self, ufe, packed):
        code, out, _ = ufe("source", "info", packed, "--json")
        facts = json.loads(out)
        assert code == 0 and [entry["capture"] for entry in facts["captures"]] == ["A/0", "B/0"]
        entry = facts["captures"][0]
        assert (entry["frames"], entry["anchors"], entry["cameras"]) == (4, ["neutral"], ["a", "b"])
        assert (entry["size"], entry["extras"], entry["session"]) == (16, [], 0)
        assert entry["conditions"] == {"glasses": True, "donning_mm": 1.25}
        assert entry["traits"]["freckles"] == 3
        code, out, _ = ufe("source", "info", packed)
        assert code == 0 and "2 packed captures" in out and "A/0" in out and "cameras: a, b" in out

    def test_of_a_source_tells_cameras_sessions_and_extras(self, ufe):
        code, out, _ = ufe("source", "info", "--json")
        facts = json.loads(out)
        assert code == 0 and facts["sessions"] == 2
        assert facts["extras"] == ["geometry", "keypoints", "segmentation", "cameras"]
        assert facts["segment_kinds"] == {"expression": 1, "speech": 1, "free": 1}
        plain, bent, fisheye = facts["cameras"]
        assert plain["model"] == "brown_conrady" and plain["position_mm"] == [0, -20, 30]
        assert plain["fov_deg"] == [90, 90] and bent["fov_deg"] != [90, 90]
        assert fisheye["model"] == "fisheye" and fisheye["fov_deg"] == [114.6, 114.6], "two radians"
        assert facts["traits"] == {"age_years": 41.5, "freckles": 3, "gain.jawOpen": 0.9, "gain.cheekPuff": 1.1}
        code, out, _ = ufe("source", "info")
        assert code == 0 and "2 for each subject" in out and "brown_conrady" in out
        assert "age_years 41.5, freckles 3, gain.* (2)" in out


class TestPreview:
    ARGUMENTS = ("--subject", "A", "--cameras", "a", "--size", "32")

    def test_frames_and_overlays_are_drawn(self, ufe, tmp_path):
        sizes = []
        for extra in ((), ("--frames", 2), ("--frames", 2, "--segmentation"), ("--frames", 2, "--keypoints")):
            file = tmp_path / f"{len(sizes)}.png"
            code, out, err = ufe("source", "preview", *self.ARGUMENTS, "--anchors", "smile", *extra, "--out", file)
            assert (code, err) == (0, "") and file.is_file()
            sizes.append([int(word) for word in out.split("  ")[1].split() if word.isdigit()][:2])
        assert sizes[0][0] < sizes[1][0] and sizes[0][1] < sizes[1][1], "frames, and a line that says where from"
        assert sizes[2][1] > sizes[1][1], "a legend"
        assert sizes[3] == sizes[1] and (tmp_path / "3.png").read_bytes() != (tmp_path / "1.png").read_bytes()

    def test_another_session_is_said(self, ufe, tmp_path):
        arguments = (*self.ARGUMENTS, "--anchors", "none", "--frames", 1, "--session", 1, "--out", tmp_path / "a.png")
        assert "1 frames, session 1, 32 px" in ufe("source", "preview", *arguments)[1]

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            (("--anchors", "none"), "There is nothing to show"),
            (("--session", 2), "There is no session 2"),
            (("--frames", 99), "has 40 frames, 99 were asked for"),
        ],
    )
    def test_what_cannot_be_shown_is_one_line(self, ufe, tmp_path, extra, message):
        code, _, err = ufe("source", "preview", *self.ARGUMENTS, *extra, "--out", tmp_path / "a.png")
        assert code == 1 and message in err and err.count("\n") == 1 and not list(tmp_path.iterdir())

    def test_an_overlay_that_the_source_lacks_is_one_line(self, ufe, fake, tmp_path, monkeypatch):
        for name in ("keypoints", "segmentation"):
            monkeypatch.setattr(RichCapture, name, lambda *_, **__: None)
            code, _, err = ufe(
                "source", "preview", *self.ARGUMENTS, "--anchors", "smile", f"--{name}", "--out", tmp_path / "a.png"
            )
            assert code == 1 and f"has no {name}. Leave out --{name}." in err


def test_keypoints_lie_where_they_should():
    import numpy as np

    from ufe_core.pictures import draw_points

    points = np.array([[[20.5, 8.5], [5.5, 30.5], [np.nan, 3]]], np.float32)
    drawn = draw_points(np.zeros((1, 40, 40), np.uint8), points, np.array([[True, False, True]]))[0].astype(int)
    green, red = drawn[..., 1] - drawn[..., 0], drawn[..., 0] - drawn[..., 1]
    rows, columns = np.nonzero(green > 60)
    assert abs(rows.mean() - 8) < 0.1 and abs(columns.mean() - 20) < 0.1
    rows, columns = np.nonzero(red > 60)
    assert abs(rows.mean() - 30) < 0.1 and abs(columns.mean() - 5) < 0.1
    assert (drawn[:6] == 0).all(), "what is not a number is nowhere"


def test_tints_tell_classes_apart_and_keep_the_picture():
    import numpy as np

    from ufe_core.cli.contact_sheet import tint
    from ufe_core.interfaces.source import SEGMENTS

    image = np.tile(np.linspace(60, 255, 8, dtype=np.uint8), (1, 2, 1))
    colours = [tint(image, np.full_like(image, k))[0, 0] for k in range(len(SEGMENTS))]
    assert (colours[0] == image[0, 0][:, None]).all(), "the background stays grey"
    assert len({tuple(colour[-1]) for colour in colours}) == len(SEGMENTS)
    assert all((np.diff(colour.astype(int).sum(-1)) > 0).all() for colour in colours)
