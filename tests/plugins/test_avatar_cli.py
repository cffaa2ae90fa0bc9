"""`ufe avatar`: what drives avatars, and the sheets, pictures and videos of them."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ufe_avatar.cli import avatar
from ufe_avatar.performance import Performance, exact_pictures, identity_of, pictures, read_performance
from ufe_avatar.plugin import UpmConfig
from ufe_avatar.show import angles, titled
from ufe_avatar.training import UpmTraining
from ufe_avatar.upm import UpmDecoder
from ufe_avatar.video import write_video
from ufe_avatar.views import camera_around
from ufe_core.errors import ArtifactError, ConfigError, DataError, UfeError
from ufe_core.weights import load_weights, save_weights

FRAMES = [658, 3668, 4763]  # the jaw open, a smile, lips puckered
SIZE = 24
BLENDSHAPE = ("--decoder", "blendshape", "--size", str(SIZE))


@pytest.fixture(scope="module")
def captures(synthetic):
    return synthetic.captures(["S000", "S003"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory, head):
    """An avatar that has learnt nothing, as small as can be."""
    torch.manual_seed(0)
    training = UpmTraining(UpmTraining.options(**UpmTraining.presets["smoke"]), head.topology)
    training.codec.set_rest(torch.from_numpy(head.template))
    tensors, facts = training.weights()
    path = tmp_path_factory.mktemp("upm") / "tiny.safetensors"
    save_weights(path, tensors, {"component": "ufe/upm", "config": {}, **facts})
    return path


@pytest.fixture(scope="module")
def upm(weights):
    return UpmDecoder(UpmConfig(weights=str(weights))).eval()


@pytest.fixture
def ufe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(avatar, list(arguments))

    return run


def done(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def tiles(path):
    """Rows and columns of tiles in a sheet: each has black around a head; paper and ink are never black."""
    black = (np.asarray(Image.open(path).convert("RGB")) == 0).all(-1)
    return tuple(int(np.diff(black.any(axis).astype(int)).clip(0).sum()) for axis in (1, 0))


class TestPerformance:
    def test_labels_are_the_codes_of_a_decoder_that_takes_them(self, captures, decoder, synthetic):
        found = read_performance(captures[0], decoder, FRAMES)
        labels = captures[0].labels(FRAMES)
        assert torch.equal(found.expression, torch.from_numpy(labels.expression))
        assert torch.equal(found.gaze, torch.from_numpy(labels.gaze))
        assert found.code_space == "arkit-52" and len(found) == 3

    def test_another_decoder_reads_its_codes_off_the_exact_faces(self, captures, upm, synthetic):
        heard = []
        found = read_performance(captures[0], upm, FRAMES, progress=heard.append)
        texture = torch.from_numpy(captures[0].texture(FRAMES[1:2], size=upm.reads_texture)).float() / 255
        geometry = torch.from_numpy(captures[0].geometry(FRAMES[1:2]))
        neutral = synthetic.dome(["S000"])[0].neutral(size=upm.reads_texture)
        resting = torch.from_numpy(neutral.texture)[None].float() / 255, torch.from_numpy(neutral.geometry)[None]
        with torch.no_grad():
            codes = upm.read(texture, geometry, *resting)
        torch.testing.assert_close(found.expression[1:2], codes)
        assert torch.equal(found.gaze, torch.from_numpy(captures[0].labels(FRAMES).gaze))
        assert (found.expression[0] - found.expression[1]).abs().max() > 1e-3 and heard == [3]

    def test_codes_come_back_from_a_file_bit_for_bit(self, captures, decoder, tmp_path, synthetic):
        made = read_performance(captures[0], decoder, FRAMES).looking(10, -20)
        made.save(tmp_path / "codes.safetensors")
        again = Performance.load(tmp_path / "codes.safetensors", decoder)
        assert torch.equal(again.expression, made.expression) and torch.equal(again.gaze, made.gaze)
        tensors, spec = load_weights(tmp_path / "codes.safetensors")
        assert {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()} == {
            "expression": (torch.float32, (3, 52)), "gaze": (torch.float32, (3, 6)),
        }  # fmt: skip
        assert spec["code_space"] == "arkit-52"

    def test_codes_of_another_code_space_are_refused(self, captures, decoder, upm, weights, tmp_path, synthetic):
        path = tmp_path / "codes.safetensors"
        read_performance(captures[0], decoder, FRAMES[:1]).save(path)
        with pytest.raises(ArtifactError, match=r"holds codes of 'arkit-52'; UpmDecoder takes 'upm-\w{12}'\. Use the"):
            Performance.load(path, upm)
        with pytest.raises(ArtifactError, match="holds no codes that drive an avatar, but 'ufe/upm'"):
            Performance.load(weights, upm)

    def test_eyes_turn_by_azimuth_and_altitude(self):
        rest = Performance(torch.zeros(2, 52), torch.zeros(2, 6), "arkit-52")
        x, y, z = rest.looking(30, 10).gaze[1, :3].tolist()
        assert np.degrees(np.arctan2(x, z)) == pytest.approx(30, abs=1e-4)
        assert np.degrees(np.arcsin(-y)) == pytest.approx(10, abs=1e-4)
        assert torch.equal(rest.looking(30, 10).gaze[:, :3], rest.looking(30, 10).gaze[:, 3:])

    @pytest.mark.parametrize("which", ["decoder", "upm"])
    def test_pictures_are_what_the_decoder_renders(self, captures, which, request, synthetic):
        avatar_of = request.getfixturevalue(which)
        performance = read_performance(captures[0], avatar_of, [*FRAMES, *FRAMES])  # more than are shown at a time
        person, camera = identity_of(captures[1], avatar_of), camera_around(20, 5, SIZE)
        made = np.stack(list(pictures(avatar_of, person, performance, camera)))
        with torch.no_grad():
            rows = person.rows(torch.zeros(6, dtype=torch.int64))
            shown = avatar_of.render(avatar_of.decode(performance.expression, performance.gaze, rows), camera)
        expected = (255 * shown.pow(1 / 2.2)).permute(0, 2, 3, 1).numpy()
        assert made.shape == (6, SIZE, SIZE, 3) and np.abs(made - expected).max() <= 1
        assert np.array_equal(made[:3], made[3:]) and made.max() > 50

    def test_the_avatar_of_exact_labels_looks_like_the_exact_face(self, captures, decoder, synthetic):
        camera = camera_around(0, 0, 64)
        exact = np.stack(list(exact_pictures(captures[0], decoder, FRAMES, camera)))
        performance = read_performance(captures[0], decoder, FRAMES)
        made = np.stack(list(pictures(decoder, identity_of(captures[0], decoder), performance, camera)))
        covered = [(image > 0).any(-1) for image in (exact, made)]
        assert (covered[0] == covered[1]).mean() > 0.98
        assert np.abs(exact[..., 0].astype(float) - made[..., 0]).mean() < 20

    def test_labels_that_are_no_codes_are_refused(self, captures, decoder, monkeypatch, synthetic):
        capture = captures[0]
        short = capture.labels([0])
        monkeypatch.setattr(type(capture), "labels", lambda *_: type(short)(short.expression[:, :5], short.gaze))
        with pytest.raises(DataError, match=r"labels of 5 numbers; the codes of BlendshapeDecoder have 52"):
            read_performance(capture, decoder, [0])
        monkeypatch.setattr(type(capture), "neutral", lambda *_, **__: None)
        with pytest.raises(DataError, match="has no neutral face"):
            identity_of(capture, decoder)


class TestRender:
    def test_a_sheet_has_a_row_for_each_view_and_a_column_for_each_frame(self, ufe):
        said = done(ufe("render", *BLENDSHAPE, "--frames", "658,3668-3669", "--view", "0,0", "--view", "-40,0"))
        assert tiles("avatar.png") == (2, 3)
        assert re.match(r"avatar.png  \d+ x \d+ pixels \(ufe/blendshape: S000, 3 frames x 2 views, 24 px\)$", said)
        assert [path.name for path in Path().iterdir()] == ["avatar.png"], "nothing half-written stays"

    def test_by_itself_it_shows_the_expressions_of_a_calibration(self, ufe):
        done(ufe("render", *BLENDSHAPE))
        assert tiles("avatar.png") == (1, 6)

    def test_the_exact_face_stands_below_the_avatar(self, ufe):
        done(ufe("render", *BLENDSHAPE, "--truth", "--frames", "658,3668"))
        assert tiles("avatar.png") == (2, 2)

    def test_one_frame_from_one_view_is_a_plain_picture(self, ufe, captures, decoder, synthetic):
        done(ufe("render", *BLENDSHAPE, "--subject", "S003", "--frames", "658", "--gaze", "25,-10", "--view", "15,5"))
        performance = read_performance(captures[1], decoder, [658]).looking(25, -10)
        (expected,) = pictures(decoder, identity_of(captures[1], decoder), performance, camera_around(15, 5, SIZE))
        assert np.array_equal(np.asarray(Image.open("avatar.png")), expected)

    def test_saved_codes_drive_another_person_as_their_owner_does(self, ufe):
        one = ("--frames", "3668", "--out")
        done(ufe("render", *BLENDSHAPE, *one, "own.png", "--save-codes", "smile.safetensors"))
        done(ufe("render", *BLENDSHAPE, *one, "a.png", "--subject", "S003", "--of", "S000"))
        said = ufe("render", *BLENDSHAPE, "--subject", "S003", "--codes", "smile.safetensors", "--out", "b.png")
        assert "S003, 1 frame, 24 px" in done(said)
        own, a, b = (np.asarray(Image.open(f"{name}.png")) for name in ("own", "a", "b"))
        assert np.array_equal(a, b) and not np.array_equal(a, own)

    def test_a_segment_is_a_video_of_its_frames(self, ufe, captures):
        said = done(ufe("render", *BLENDSHAPE, "--segment", "jaw_open", "--every", "200", "--view", "0,0",
                        "--view", "30,0", "--out", "jaw.mp4", "--fps", "12"))  # fmt: skip
        video = cv2.VideoCapture("jaw.mp4")
        assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 12)
        image = video.read()[1]
        assert image.shape == (SIZE, 2 * SIZE, 3) and image.max() > 50
        assert said.startswith("jaw.mp4  0.2 s at 12 fps")

    def test_the_codec_avatar_is_shown_with_its_weights(self, ufe, weights):
        done(ufe("render", "--size", "16", "--set", f"decoder.weights={weights}", "--frames", "658,3668"))
        assert Image.open("avatar.png").format == "PNG"


class TestRetarget:
    def test_a_sheet_has_the_performer_first_then_a_row_for_each_person(self, ufe):
        said = done(ufe("retarget", *BLENDSHAPE, "--onto", "S002,S003", "--frames", "658,3668"))
        assert tiles("retarget.png") == (3, 2) and "ufe/blendshape: S000, S002, S003, 2 frames" in said

    def test_nobody_held_out_is_shown_unasked(self, ufe, synthetic):
        said = done(ufe("retarget", *BLENDSHAPE, "--from", "S003", "--frames", "658"))
        shown = re.search(r": (.+), 1 frame", said)[1].split(", ")
        assert shown[0] == "S003" and len(set(shown)) == 4
        synthetic.captures(shown)  # refuses held-out people

    def test_onto_oneself_it_is_what_render_shows(self, ufe):
        view = ("--segment", "smile_teeth", "--every", "300", "--view", "20,0")
        done(ufe("render", *BLENDSHAPE, *view, "--subject", "S003", "--out", "a.gif"))
        done(ufe("retarget", *BLENDSHAPE, *view, "--from", "S003", "--onto", "S003", "--out", "b.gif"))
        a, b = ([np.asarray(image.convert("RGB")) for image in frames_of(name)] for name in ("a.gif", "b.gif"))
        assert len(a) == len(b) == 2
        for alone, both in zip(a, b, strict=True):
            assert np.array_equal(both, np.concatenate([alone, alone], 1))


def frames_of(path):
    video = Image.open(path)
    for k in range(video.n_frames):
        video.seek(k)
        yield video


class TestVideo:
    def test_images_of_odd_sides_and_of_every_colour_come_back(self, tmp_path):
        colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)
        images = [np.broadcast_to(colour, (33, 47, 3)) for colour in colours]
        assert write_video(tmp_path / "a.mp4", images, fps=10) == 3
        assert write_video(tmp_path / "a.gif", images, fps=10) == 3
        video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
        for expected in colours.astype(int):
            image = video.read()[1][:33, :47, ::-1].astype(int)
            assert np.abs(image[4:-4, 4:-4] - expected).max() < 10
        gif = [np.asarray(image.convert("RGB")) for image in frames_of(tmp_path / "a.gif")]
        assert np.array_equal(np.stack(gif), np.stack(images))

    @pytest.mark.parametrize("count", [1, 32])
    def test_every_frame_comes_back_in_its_place(self, tmp_path, count):
        images = [np.full((16, 24, 3), 8 * k, np.uint8) for k in range(count)]
        assert write_video(tmp_path / "a.mp4", images, fps=72) == count
        video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
        found = [video.read()[1].astype(int).mean() for _ in images]
        np.testing.assert_allclose(found, [image.mean() for image in images], atol=3.9)  # of 8 apart
        assert not video.read()[0] and video.get(cv2.CAP_PROP_FPS) == 72

    def test_it_is_of_a_kind_that_browsers_play(self, tmp_path):
        """VP9 with the box that says so; MPEG-4 part 2, OpenCV's usual, plays in none of them."""
        write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)], fps=10)
        data = (tmp_path / "a.mp4").read_bytes()
        assert data[4:8] == b"ftyp" and b"vp09" in data and b"vpcC" in data and b"mp4v" not in data

    def test_an_opencv_without_the_encoder_is_told_in_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ufe_avatar.video._CODEC", "none")
        with pytest.raises(ArtifactError, match=r"OpenCV has no VP9 here\. End --out in '\.gif'\.$"):
            write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)], fps=10)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
    def test_an_interruption_leaves_what_was_there(self, tmp_path, name):
        def images():
            yield np.zeros((16, 16, 3), np.uint8)
            raise KeyboardInterrupt

        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(KeyboardInterrupt):
            write_video(tmp_path / name, images(), fps=10)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_bytes() == b"old"


class TestWrongInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("render", "--subject", "S2660"), "has no subject 'S2660'. Did you mean"),
            (("render", "--of", "S0000"), "has no subject 'S0000'. Did you mean"),
            (("retarget", "--onto", "S003,S9"), "has no subject 'S9'."),
            (("render", "--segment", "smile_teet"), "has no segment 'smile_teet'. Did you mean 'smile_teeth'?"),
            (("render", "--segment", "chew", "--frames", "3"), "--segment and --frames both say what to show"),
            (("render", "--frames", "3,x"), "--frames '3,x' is no list of frames, such as 10,20,30 or 100-160"),
            (("render", "--frames", "9-3"), "--frames '9-3' is no list of frames"),
            (("render", "--frames", "40607-40608"), "has frames 0 to 40607; --frames asks for 40607-40608"),
            (("render", "--frames", "0-900", "--size", "900"), "Ask for fewer subjects"),
            (("render", "--view", "1"), "--view '1' is no direction: give azimuth and altitude"),
            (("render", "--gaze", "0,90"), "--gaze '0,90' is no direction"),
            (("render", "--out", "a.jpg"), "--out 'a.jpg' has to end in .png, .mp4 or .gif"),
            (("render", "--out", "none/a.png"), "there is no folder 'none'. Make it first"),
            (("render", "--out", "."), "--out '.' is a folder"),
            (("render", "--save-codes", "a.txt"), "--save-codes 'a.txt' has to end in .safetensors"),
            (("render", "--out", "a.mp4"), "name a --segment, such as 'range_of_motion', or give --frames"),
            (("render", "--codes", "a.safetensors"), "There is no file 'a.safetensors' of codes. 'ufe avatar"),
            (("render", "--codes", "a.safetensors", "--of", "S003"), "brings its own performance: leave out --of."),
            (("render", "--truth", "--gaze", "3,3"), "leave out --of and --gaze"),
            (("render", "--set", "encoder.x=1"), "options can be set of: source, decoder"),
            (("render", "--device", "tpu7"), "There is no device 'tpu7'"),
            (("convert", "a.pt", "a.bin"), "OUT 'a.bin' has to end in .safetensors"),
            (("convert", "a.pt", "none/a.safetensors"), "OUT 'none/a.safetensors': there is no folder 'none'"),
            (("convert", "a.pt", "a.safetensors"), "a.pt cannot be read: No such file or directory"),
            (("statistics", "x", "y.csv", "a.safetensors", "--first", "3"), "y.csv cannot be read: No such file"),
            (("render", "--view", "1,2,3"), "--view '1,2,3' is no direction"),
            (("render", "--subject", ""), "has no subject ''. It has 266: S000 to S265"),
        ],
    )
    def test_it_is_answered_in_one_line_and_writes_nothing(self, ufe, arguments, message):
        few = ("--decoder", "blendshape") if arguments[0] in ("render", "retarget") else ()
        error = ufe(arguments[0], *few, *arguments[1:]).exception
        assert isinstance(error, UfeError), error
        assert message in str(error) and "\n" not in str(error)
        assert not list(Path().iterdir())

    def test_weights_that_are_missing_or_something_else(self, ufe):
        Path("notes.txt").write_text("notes")
        save_weights(Path("univ.safetensors"), {}, {"component": "ufe/univ", "config": {}})
        for name, message in (
            ("none.safetensors", "'none.safetensors' do not exist. Train or fetch them first."),
            ("notes.txt", "'notes.txt' is not a safetensors file. Name a file that ufe wrote;"),
            (
                "univ.safetensors",
                "of 'ufe/univ', not of 'ufe/upm'. Name a file that 'ufe train --decoder upm --out' wrote.",
            ),
        ):
            error = ufe("render", "--set", f"decoder.weights={name}").exception
            assert isinstance(error, UfeError) and message in str(error)

    def test_codes_of_another_code_space(self, ufe, upm):
        Performance(torch.zeros(1, upm.code_space.size), torch.zeros(1, 6), "upm-x").save(Path("c.safetensors"))
        error = ufe("render", *BLENDSHAPE, "--codes", "c.safetensors").exception
        assert isinstance(error, ArtifactError) and "takes 'arkit-52'" in str(error)

    @pytest.mark.parametrize("out", ["a.png", "a.mp4", "a.gif"])
    def test_an_interruption_leaves_nothing_half_written(self, ufe, monkeypatch, out):
        """In the middle of drawing, as by Ctrl-C."""

        def interrupted(*_):
            yield np.zeros((SIZE, SIZE, 3), np.uint8)
            raise KeyboardInterrupt

        monkeypatch.setattr("ufe_avatar.show.pictures", interrupted)
        assert ufe("render", *BLENDSHAPE, "--frames", "1,2", "--out", out).exit_code != 0
        assert not list(Path().iterdir())

    @pytest.mark.parametrize("text", ["", "1,2,3", "a,b", "nan,0", "inf,0", "0,-89"])
    def test_what_is_no_direction(self, text):
        with pytest.raises(ConfigError, match="is no direction"):
            angles(text, "--view")


def test_frames_are_named_by_anchor_else_by_segment(captures):
    anchor = captures[0].anchors["smile_teeth"]
    assert titled(captures[0], [anchor, 24770]) == [f"smile_teeth · {anchor}", "speech_00 · 24770"]


def test_statistics_are_those_of_the_first_captures(ufe):
    from ufe_avatar.statistics import Statistics

    rng = np.random.default_rng(0)
    meshes = rng.normal(size=(3, 5, 3))
    for k, mesh in enumerate(meshes):
        folder = Path(f"m--t--{k}/decoder")
        for part in ("uv_image", "kinematic_tracking"):
            (folder / part).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / "uv_image" / "color_mean.png")
        np.save(folder / "kinematic_tracking" / "registration_vertices_mean.npy", mesh)
        (folder / "kinematic_tracking" / "registration_vertices_variance.txt").write_text("6.25\n")
    Path("ids.csv").write_text("mcd,sid,mct\nm,0,t\nm,1,t\nm,2,t\n")
    said = done(ufe("statistics", ".", "ids.csv", "s.safetensors", "--first", "2"))
    assert said == "s.safetensors  of 2 captures, 5 vertices, textures of 8 texels\n"
    np.testing.assert_allclose(Statistics.load(Path("s.safetensors")).vertmean, meshes[:2].mean(0), rtol=1e-5)


def test_the_command_is_installed_and_light():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'avatar = "ufe_avatar.cli:avatar"' in text
    code = "import sys, ufe_avatar.cli; print(sorted({'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("command", [[], ["render"], ["retarget"], ["convert"], ["statistics"]])
def test_help_teaches_by_example(ufe, command):
    assert "ufe avatar " in done(ufe(*command, "--help")).partition("Example")[2]
