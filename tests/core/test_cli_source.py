import json

import cv2
import numpy as np
import pytest

from ufe_core.cli.contact_sheet import SheetRow, draw_sheet, sheet_size
from ufe_core.cli.main import main
from ufe_core.errors import ConfigError
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_core.registry import load_registry
from ufe_core.types import CameraSpec

FEW = ("--size", "16", "--anchors", "neutral", "--cameras", "left_eye")


@pytest.fixture
def ufe(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def camera(name):
    side = "left" if name.startswith("left") else "right" if name.startswith("right") else "centre"
    return CameraSpec(name, side, "upper", "tracking", 8, 8, np.eye(3), np.eye(3), np.zeros(3))


def sheet(names, *, size=40, subjects=2, anchors=("neutral", "jaw_open")):
    """A sheet whose images are flat, each of its own grey level, and those levels [S, M, C]."""
    shape = (subjects, len(anchors), len(names))
    levels = 40 + 3 * np.arange(np.prod(shape)).reshape(shape)
    rows = [
        SheetRow(f"S{s:03d}", ("train",), np.tile(levels[s][..., None, None], (size, size)).astype(np.uint8))
        for s in range(subjects)
    ]
    png = draw_sheet(rows, [camera(name) for name in names], anchors, caption="a test")
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE), levels


def corner_of(image, level, size=40):
    """Upper left corner of the tile of a grey level; every pixel of the tile must be there."""
    rows, columns = np.nonzero(image == level)
    top, left = rows.min(), columns.min()
    for k in range(top, image.shape[0] - size):  # text may have a few pixels of the same level
        for c in np.unique(columns[rows == k]):
            if (image[k : k + size, c : c + size] == level).all():
                return int(k), int(c)
    raise AssertionError(f"no whole tile of level {level} (first pixel at {top}, {left})")


class TestContactSheet:
    def test_every_pixel_of_every_image_is_there_in_its_place(self):
        image, levels = sheet(("left_eye", "right_eye", "left_mouth", "right_mouth"))
        at = np.array([[[corner_of(image, v) for v in m] for m in s] for s in levels])  # [S, M, C, (row, column)]
        eyes, mouths = at[..., :2, :], at[..., 2:, :]
        assert (eyes[..., 0, 0] == eyes[..., 1, 0]).all() and (eyes[..., 0, 1] < eyes[..., 1, 1]).all()
        assert (mouths[..., 0] > eyes[..., 0]).all() and (mouths[..., 1] == eyes[..., 1]).all()
        assert (at[:, 1, :, 1].min() > at[:, 0, :, 1].max()) and (at[1, ..., 0].min() > at[0, ..., 0].max())

    def test_cameras_without_partners_stand_in_one_line(self):
        image, levels = sheet(("left_eye", "right_eye", "chin"))
        at = np.array([corner_of(image, v) for v in levels[0, 0]])
        assert len(set(at[:, 0])) == 1 and (np.diff(at[:, 1]) >= 40).all()

    def test_its_size_is_known_before_it_is_drawn(self):
        image, _ = sheet(("left_eye", "right_eye", "chin"), subjects=3)
        cameras = [camera(name) for name in ("left_eye", "right_eye", "chin")]
        assert sheet_size(cameras, subjects=3, anchors=2, size=40) == image.shape[::-1]

    def test_one_too_large_to_draw_is_refused(self):
        with pytest.raises(ConfigError, match=r"would be \d+ x \d+ pixels; .* Ask for fewer"):
            sheet_size([camera("chin")], subjects=1000, anchors=15, size=128)


class TestInfo:
    def test_it_says_what_the_source_gives(self, ufe):
        code, out, _ = ufe("source", "info", "--json")
        facts = json.loads(out)
        assert code == 0
        assert facts["subjects"] == {"count": 266, "first": "S000", "last": "S265"}
        assert facts["splits"] == {"train": 234, "test": 32}
        assert [c["name"] for c in facts["cameras"]][:4] == ["left_eye", "right_eye", "left_mouth", "right_mouth"]
        eye = facts["cameras"][0]
        assert (eye["side"], eye["region"], eye["role"]) == ("left", "upper", "tracking")
        assert eye["resolution"] == [400, 400] and all(60 < angle < 180 for angle in eye["fov_deg"])
        assert facts["labels"] is True and facts["label_sizes"] == {"expression": 52, "gaze": 6}
        assert facts["frames_per_capture"] == sum(s["frames"] for s in facts["segments"])
        assert set(DEFAULT_ANCHORS) < set(facts["anchors"])

    def test_options_of_the_source_change_it(self, ufe):
        _, out, _ = ufe("source", "info", "--json", "--set", "source.subjects=20")
        facts = json.loads(out)
        assert facts["subjects"]["count"] == 20
        assert facts["splits"] == {"train": 18, "test": 2}

    def test_for_people_it_is_a_page(self, ufe):
        code, out, _ = ufe("source", "info")
        assert code == 0
        for word in (
            "266",
            "234 train, 32 test",
            "right_mouth_front",
            "400 x 400",
            " deg ",
            "donning_mm",
            "lip_pucker",
        ):
            assert word in out

    def test_list_shows_the_sources_alone(self, ufe):
        code, out, _ = ufe("source", "list", "--json")
        assert code == 0
        assert {c["kind"] for c in json.loads(out)["components"]} == {"source"}


class TestPreview:
    def test_it_writes_a_png_and_says_so(self, ufe, tmp_path):
        out_file = tmp_path / "sheet.png"
        code, out, err = ufe(
            "source", "preview", *FEW, "--subject", "S004", "--subject", "S002", "--out", str(out_file)
        )
        assert (code, err) == (0, "")
        image = cv2.imread(str(out_file))
        assert str(out_file) in out and f"{image.shape[1]} x {image.shape[0]} pixels" in out
        assert "2 subjects x 1 cameras x 1 anchors" in out
        assert list(tmp_path.iterdir()) == [out_file], "nothing half-written stays"

    @pytest.mark.slow
    def test_by_itself_it_shows_no_held_out_person(self, monkeypatch, ufe, tmp_path):
        from ufe_core.cli import contact_sheet

        shown = []
        monkeypatch.setattr(
            contact_sheet, "draw_sheet", lambda rows, *_, **__: shown.extend(row.subject for row in rows) or b""
        )
        few = ("--set", "source.subjects=30", "--count", "26", "--out", str(tmp_path / "a.png"))
        assert ufe("source", "preview", *FEW, *few)[0] == 0
        assert len(shown) == 26 and not set(shown) & set(load_registry().split("synthetic", "test"))

    def test_a_seed_draws_the_same_people_again(self, ufe, tmp_path):
        made = []
        for k, seed in enumerate((5, 5, 6)):
            file = tmp_path / f"{k}.png"
            ufe("source", "preview", *FEW, "--count", "2", "--seed", str(seed), "--out", str(file))
            made.append(file.read_bytes())
        assert made[0] == made[1] != made[2]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--subject", "S2660"), "has no subject 'S2660'. Did you mean 'S26"),
            (("--anchors", "jawopen"), "has no anchor 'jawopen'. Did you mean 'jaw_open'? It has neutral, jaw_open,"),
            (("--anchors", ","), "names nothing. Say 'none'"),
            (("--cameras", "left_ey"), "has no camera 'left_ey'. Did you mean 'left_eye'? It has left_eye,"),
            (("--count", "235"), "--count 235 is more than the 234 subjects"),
            (("--set", "source.subject=3"), "Did you mean 'subjects'?"),
            (("--set", "encoder.x=3"), "options can be set of: source"),
            (("--source", "synthetik"), "Did you mean 'synthetic'?"),
        ],
    )
    def test_a_wrong_name_is_answered_with_the_nearest(self, ufe, tmp_path, arguments, message):
        code, out, err = ufe("source", "preview", *arguments, "--out", str(tmp_path / "a.png"))
        assert (code, out) == (1, "")
        assert message in err and err.count("\n") == 1
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("command", [("source", "pack"), ("keypoints", "measure")])
    def test_a_part_of_which_nobody_is_there_is_one_line(self, ufe, command):
        code, out, err = ufe(*command, "--set", "source.subjects=1", "--part", "test")
        assert (code, out) == (1, "") and err.count("\n") == 1
        assert "Part 'test', of 32 people, has nobody here: 'ufe/synthetic' with these options has 1 person." in err

    def test_a_place_that_cannot_be_written_is_one_line(self, ufe, tmp_path):
        for target, message in (
            (tmp_path, "is a folder"),
            (tmp_path / "none" / "a.png", "there is no folder"),
            (tmp_path / "a.jpg", "has to end in .png."),
        ):
            code, _, err = ufe("source", "preview", *FEW, "--count", "1", "--out", str(target))
            assert code == 1 and message in err and err.count("\n") == 1
        assert not list(tmp_path.iterdir())


class TestVerify:
    @pytest.fixture
    def packed(self, monkeypatch, tmp_path):
        """Two packed captures in a store of their own."""
        from ufe_core.packed import PackRequest, pack
        from ufe_core.plugins import catalogue
        from ufe_core.store import Store

        request = PackRequest(frames=1, size=16, cameras=("left_eye",), anchors=("neutral",))
        pack(catalogue().create("source", "synthetic"), ["S002", "S003"], request, store=Store(tmp_path))
        monkeypatch.setenv("UFE_HOME", str(tmp_path))
        return sorted(p for p in (tmp_path / "captures").iterdir() if not p.name.startswith("."))

    def test_sound_captures_pass(self, ufe, packed):
        code, out, _ = ufe("source", "verify")
        assert code == 0 and out.startswith("2 packed captures") and "all sound" in out

    def test_an_empty_store_passes(self, ufe, monkeypatch, tmp_path):
        monkeypatch.setenv("UFE_HOME", str(tmp_path))
        assert ufe("source", "verify")[0] == 0

    def test_a_damaged_one_is_named_and_left_alone(self, ufe, packed):
        file = packed[1] / "frames.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        code, out, err = ufe("source", "verify")
        assert code == 1
        assert str(file) in out and str(packed[0]) not in out and "1 of 2" in err
        code, out, _ = ufe("source", "verify", "--json")
        facts = json.loads(out)
        assert (code, facts["captures"], [d["path"] for d in facts["damaged"]]) == (1, 2, [str(packed[1])])
        assert file.is_file()
