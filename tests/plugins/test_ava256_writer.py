import csv
import errno
import io
import json
import struct
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ufe_ava256 import writer
from ufe_ava256.plugin import Ava256Config
from ufe_ava256.source import Ava256Source
from ufe_core.cli.main import main
from ufe_core.config import ComponentConfig
from ufe_core.errors import ArtifactError, ConfigError, DataError
from ufe_core.geometry import rotation_vector_matrix
from ufe_core.interfaces.source import (
    Capture,
    DomeCapture,
    FrameLabels,
    HMCSource,
    Neutral,
    Segment,
    WriteRequest,
)
from ufe_core.types import CameraSpec, MeshTopology

SEGMENTS = (
    Segment("smile", 0, 5),
    Segment("neutral", 5, 9),
    Segment("speech_00", 9, 15, "speech"),
    Segment("range_of_motion", 15, 20, "free"),
)
VERTICES = 6


def pinhole(name, k, width=2668, height=4096):
    lens = np.array([[9000.0 + k, 0, 1300.25], [0, 9100.0, 2040.75], [0, 0, 1]])
    turn = rotation_vector_matrix(np.array([0.1 * k, 0.2, -0.3]))
    return CameraSpec(name, "centre", "whole", "augmented", width, height, lens, turn, np.array([1.0, -2.0, 990.0 + k]))


def smooth(size, phase, width=None):
    """A picture that survives compression: float [H, W] in 20..220."""
    y, x = np.mgrid[0:size, 0 : width or size] / size
    return 120 + 100 * np.sin(3 * x + 2 * y + phase)


class FakeCapture(Capture):
    segments = SEGMENTS
    conditions = {"glasses": False}  # noqa: RUF012
    cameras = tuple(
        CameraSpec(name, "left", "upper", "tracking", 40, 40, np.diag([30.0, 30, 1]), np.eye(3), np.zeros(3))
        for name in ("left_eye", "right_eye", "left_mouth", "right_mouth", "cyclop", "left_brow")
    )

    def __init__(self, subject, session):
        self.subject, self.id, self.anchors = subject, f"{subject}/{session}", {}

    def frames(self, indices, *, cameras, size):
        names = [camera.name for camera in self.cameras]
        return np.stack([
            np.stack([smooth(size, i + 10 * names.index(c)).astype(np.uint8) for c in cameras]) for i in indices
        ])  # fmt: skip

    def labels(self, indices):
        codes = np.asarray(indices, np.float32)[:, None] * np.linspace(0, 1, 52, dtype=np.float32)
        return FrameLabels(codes, np.tile(np.array([0, 0, 1], np.float32), (len(codes), 2)))

    def neutral(self, *, size=None):
        return None


class FakeDome(DomeCapture):
    segments = SEGMENTS
    cameras = (pinhole("cam400001", 0), pinhole("400002", 1, 1334, 2048))

    def __init__(self, subject):
        self.subject, self.id = subject, f"{subject}/dome"
        self.mesh = True

    def frames(self, indices, *, cameras, height):
        width = round(height * 2668 / 4096)
        one = [[np.stack([smooth(height, i + k + 0.3 * c, width) for c in range(3)]) for k in range(len(cameras))]
               for i in indices]  # fmt: skip
        return np.array(one).astype(np.uint8)

    def geometry(self, indices):
        base = np.random.default_rng(3).normal(0, 80, (VERTICES, 3))
        return np.stack([base + 0.37 * i for i in indices]).astype(np.float32)

    def texture(self, indices):
        return np.stack([np.stack([smooth(32, i + 0.3 * c) for c in range(3)]) for i in indices]).astype(np.uint8)

    def head_pose(self, indices):
        turns = [rotation_vector_matrix(np.array([0.01 * i, 0.1, 0.02])) for i in indices]
        return np.stack([np.concatenate([r, [[i / 3], [5.0], [-7.0]]], 1) for i, r in zip(indices, turns, strict=True)])

    def neutral(self):
        return Neutral(self.geometry([0])[0], self.texture([0])[0])

    def topology(self):
        if not self.mesh:
            return None
        faces = np.array([[0, 1, 2], [2, 1, 3], [3, 4, 5]])
        uv = np.array([[0.1, 0.2], [0.9, 0.25], [0.5, 0.7], [1.0, 1.0], [0.0, 0.0]], np.float32)
        return MeshTopology(VERTICES, faces, uv, np.array([[0, 1, 2], [2, 1, 3], [3, 4, 0]]), {}, np.ones(VERTICES))


class FakeSource(HMCSource):
    sessions = 2

    def __init__(self, version="1", domes=FakeDome):
        super().__init__(ComponentConfig())
        self.version, self.domes, self.opened = version, domes, []

    def subjects(self):
        return ("S000", "S001", "S002")

    def captures(self, subjects, *, session=0):
        self.opened += subjects
        return [FakeCapture(subject, session) for subject in subjects]

    def dome(self, subjects):
        return [self.domes(subject) for subject in subjects]

    @property
    def fingerprint(self):
        return self.version


def request(*subjects, **changes):
    usual = {"frames": 6, "headset_size": 40, "dome_height": 64, "options": {"texture": 48}}
    return WriteRequest(subjects or ("S001",), **{**usual, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An export of one subject, and its capture's folder."""
    out = tmp_path_factory.mktemp("export") / "captures"
    (one,) = writer.write(out, FakeSource(), request())
    return out, one.path


def rows_of(path):
    return list(csv.reader(path.read_text().splitlines()))


def members(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def picture(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def dome_frames(path):
    return [int(frame) for _, frame in rows_of(path / "decoder/frame_list.csv")[1:]]


class TestLayout:
    """Each file against the description of the layout, with no code of the reader."""

    def test_files_and_the_list_of_captures(self, written):
        out, path = written
        assert path.name == "20000101--0000--SYN001"
        assert rows_of(out / "256_ids.csv") == [["mcd", "sid", "mct"], ["20000101", "SYN001", "0000"]]
        assert not [p for p in out.rglob(".*")]
        headset = (
            "left-eye-atl-temporal",
            "right-eye-atl-temporal",
            "left-mouth",
            "right-mouth",
            "cyclop",
            "left-brow",
        )
        assert set(tree(path)) == {
            *(f"encoder/image/cam-{name}.zip" for name in headset),
            "encoder/frame_list.csv", "encoder/encodings_gt.pt", "encoder/encodings_framelist.csv",
            "decoder/camera_calibration.json", "decoder/frame_list.csv", "decoder/head_pose/head_pose.zip",
            "decoder/image/cam400001.zip", "decoder/image/cam400002.zip",
            "decoder/kinematic_tracking/registration_vertices.zip",
            "decoder/kinematic_tracking/registration_vertices_mean.npy",
            "decoder/kinematic_tracking/registration_vertices_variance.txt",
            "decoder/uv_image/color.zip", "decoder/uv_image/color_mean.png", "decoder/uv_image/color_variance.txt",
            "ufe-export.json",
        }  # fmt: skip

    def test_frame_lists_name_segments_as_the_public_ones_do(self, written):
        _, path = written
        header, *rows = rows_of(path / "decoder/frame_list.csv")
        assert header == ["seg_id", "frame_id"]
        assert [name for name, _ in rows] == [
            "EXP_smile", "EXP_neutral_peak", "EXP_neutral_peak", "SEN_speech_00", "SEN_speech_00", "EXP_free_face"
        ]  # fmt: skip
        assert all(str(int(frame)) == frame for _, frame in rows)
        headset = [name for name, _ in rows_of(path / "encoder/frame_list.csv")[1:]]
        assert {"EXP_neutral", "EXP_smile", "SEN_speech_00", "EXP_free_face"} == set(headset)

    @pytest.mark.parametrize("name", ["400001", "400002"])
    def test_calibration_is_transposed_and_projects_where_ours_does(self, written, name):
        _, path = written
        (krt,) = [c for c in json.loads((path / "decoder/camera_calibration.json").read_text())["KRT"]
                  if c["cameraId"] == name]  # fmt: skip
        assert (krt["projectionModel"], krt["distortionModel"]) == ("Pinhole", "RadialAndTangential")
        assert krt["distortion"] == [0, 0, 0, 0]
        k, world = np.array(krt["K"]).T, np.array(krt["T"])[:4, :3].T
        frame = dome_frames(path)[2]
        pose = np.loadtxt(io.BytesIO(members(path / "decoder/head_pose/head_pose.zip")[f"{frame:06d}.txt"]))
        assert pose.shape == (3, 4) and np.linalg.det(pose[:, :3]) == pytest.approx(1)
        ply = members(path / "decoder/kinematic_tracking/registration_vertices.zip")[f"{frame:06d}.ply"]
        theirs = np.frombuffer(ply.split(b"end_header\n")[1], "<f4").reshape(-1, 3).astype(np.float64)
        seen = (theirs @ pose[:, :3].T + pose[:, 3]) @ world[:, :3].T + world[:, 3]
        pixels = (seen @ k.T)[:, :2] / seen[:, 2:]

        dome = FakeDome("S001")
        ours = dome.geometry([frame])[0] @ dome.head_pose([frame])[0][:, :3].T + dome.head_pose([frame])[0][:, 3]
        camera = next(c for c in dome.cameras if c.name.removeprefix("cam") == name)
        halves = camera.project(ours) * 4096 / camera.height
        np.testing.assert_allclose(pixels, halves - 0.5, atol=1e-6)

    def test_meshes_have_x_to_the_left_and_y_up(self, written):
        _, path = written
        meshes = members(path / "decoder/kinematic_tracking/registration_vertices.zip")
        assert list(meshes) == [f"{frame:06d}.ply" for frame in dome_frames(path)]
        for name, data in meshes.items():
            head, body = data.split(b"end_header\n")
            assert head.decode().split("\n") == [
                "ply", "format binary_little_endian 1.0", f"element vertex {VERTICES}", "property float x",
                "property float y", "property float z", "",
            ]  # fmt: skip
            ours = FakeDome("S001").geometry([int(name[:6])])[0]
            assert np.array(struct.unpack(f"<{3 * VERTICES}f", body)).astype(np.float32).tolist() == (
                (ours * [-1, -1, 1]).astype(np.float32).ravel().tolist()
            )

    def test_images(self, written):
        _, path = written
        for k, name in enumerate(("400001", "400002")):
            images = members(path / f"decoder/image/cam{name}.zip")
            assert list(images) == [f"cam{name}/{frame:06d}.avif" for frame in dome_frames(path)]
            for member, data in images.items():
                seen = picture(data)
                assert seen.shape == (64, 42, 3)
                frame = int(member[-11:-5])
                truth = FakeDome("S001").frames([frame], cameras=["400001", "400002"], height=64)[0, k]
                assert np.abs(seen.astype(int) - np.moveaxis(truth, 0, -1)).max() <= 6

    @pytest.mark.parametrize("flat", [False, True])
    def test_headset_images_in_both_styles(self, written, tmp_path, flat):
        _, path = written
        if flat:
            options = {"members": "flat", "texture": 48}
            path = writer.write(tmp_path, FakeSource(), request(parts=("headset",), options=options))[0].path
        frames = [int(frame) for _, frame in rows_of(path / "encoder/frame_list.csv")[1:]]
        stems = ("left-eye-atl-temporal", "right-eye-atl-temporal", "left-mouth", "right-mouth", "cyclop")
        for k, stem in enumerate(stems):
            images = members(path / f"encoder/image/cam-{stem}.zip")
            inner = "" if flat else f"cam-{stem}/"
            assert list(images) == [f"{inner}{frame:06d}.avif" for frame in frames]
            for frame, data in zip(frames, images.values(), strict=True):
                seen = picture(data)
                grey = seen if seen.ndim == 2 else seen[..., 0]  # Pillow before 12 gives three equal channels
                assert np.abs(grey.astype(int) - smooth(40, frame + 10 * k).astype(np.uint8)).max() <= 5

    def test_textures_and_statistics(self, written):
        _, path = written
        frames = dome_frames(path)
        colours = members(path / "decoder/uv_image/color.zip")
        assert list(colours) == [f"color/{frame:06d}.avif" for frame in frames]
        stack = np.stack([picture(data).astype(float) for data in colours.values()])
        assert stack.shape == (6, 48, 48, 3)
        mean = picture((path / "decoder/uv_image/color_mean.png").read_bytes())
        np.testing.assert_allclose(mean, stack.mean(0), atol=4)
        assert abs(mean - stack.mean(0)).mean() < 1
        variance = float((path / "decoder/uv_image/color_variance.txt").read_text())
        assert variance == pytest.approx(((stack - stack.mean(0)) ** 2).mean(), rel=0.01)
        meshes = FakeDome("S001").geometry(frames) * [-1, -1, 1]
        mean = np.load(path / "decoder/kinematic_tracking/registration_vertices_mean.npy")
        assert mean.dtype == np.float32
        np.testing.assert_allclose(mean, meshes.mean(0), atol=1e-4)
        variance = float((path / "decoder/kinematic_tracking/registration_vertices_variance.txt").read_text())
        assert variance == pytest.approx(((meshes - meshes.mean(0)) ** 2).mean(), rel=1e-4)

    def test_topology_has_v_upwards_and_faces_from_one(self, written):
        out, _ = written
        lines = [line.split() for line in (out / "assets/face_topology.obj").read_text().splitlines()]
        points = np.array([line[1:] for line in lines if line[0] == "v"], float)
        uv = np.array([line[1:] for line in lines if line[0] == "vt"], float)
        faces = [[tuple(map(int, corner.split("/"))) for corner in line[1:]] for line in lines if line[0] == "f"]
        dome = FakeDome("S000")
        np.testing.assert_array_equal(points.astype(np.float32), dome.neutral().geometry * np.float32([-1, -1, 1]))
        np.testing.assert_allclose(uv, dome.topology().uv * [1, -1] + [0, 1], atol=1e-7)
        assert faces == [[(1, 1), (2, 2), (3, 3)], [(3, 3), (2, 2), (4, 4)], [(4, 4), (5, 5), (6, 1)]]

    def test_labels_are_the_codes_of_the_listed_frames(self, written):
        import torch

        _, path = written
        codes = torch.load(path / "encoder/encodings_gt.pt", weights_only=True)
        rows = rows_of(path / "encoder/encodings_framelist.csv")
        assert rows == rows_of(path / "encoder/frame_list.csv")
        frames = [int(frame) for _, frame in rows[1:]]
        np.testing.assert_array_equal(codes.numpy(), FakeCapture("S001", 0).labels(frames).expression)


class TestSpread:
    def test_every_segment_gets_its_share_and_the_neutral_one_always_some(self):
        for count in range(1, 21):
            chosen = writer.spread(SEGMENTS, count)
            assert len(set(chosen)) == count and chosen == sorted(chosen)
            shares = [sum(s.start <= k < s.stop for k in chosen) for s in SEGMENTS]
            assert shares[1] >= 1
            assert all(max(shares) - n <= 1 or n == s.stop - s.start for n, s in zip(shares, SEGMENTS, strict=True))
        assert writer.spread(SEGMENTS, 99) == list(range(20))

    def test_one_frame_of_a_segment_is_its_middle(self):
        assert writer.spread((Segment("neutral", 10, 20),), 1) == [15]


class TestNames:
    def test_each_subject_and_session_has_its_own(self):
        many = types.SimpleNamespace(subjects=lambda: tuple(f"person-{k}" for k in range(2001)))
        names = [writer.capture_name(many, f"person-{k}", 0) for k in (0, 999, 1000, 2000)]
        assert [name[-6:] for name in names] == ["SYN000", "SYN999", "SYO000", "SYP000"]
        assert writer.capture_name(many, "person-0", 31) == "20000201--0000--SYN000"

    def test_public_names_stay(self):
        real = types.SimpleNamespace(subjects=lambda: ("AAN112", "ABC001"))
        assert writer.capture_name(real, "ABC001", 0).endswith("--ABC001")


class TestFolder:
    def test_equal_requests_give_equal_bytes(self, written, tmp_path):
        out, _ = written
        writer.write(tmp_path / "again", FakeSource(), request())
        assert tree(tmp_path / "again") == tree(out)

    def test_whole_captures_stay_and_cut_ones_are_made_again(self, tmp_path):
        first = writer.write(tmp_path, FakeSource(), request("S000", "S001"))
        before = tree(tmp_path)
        mesh_mean = first[1].path / "decoder/kinematic_tracking/registration_vertices_mean.npy"
        mesh_mean.write_bytes(mesh_mean.read_bytes()[:-1])
        (tmp_path / ".20000101--0000--SYN002.part").mkdir()
        source, told = FakeSource(), []
        again = writer.write(tmp_path, source, request("S000", "S001", "S002"), listener=lambda *n: told.append(n))
        assert [one.new for one in again] == [False, True, True] and source.opened == ["S001", "S002"]
        assert {name: data for name, data in tree(tmp_path).items() if name in before} == {
            **before, "256_ids.csv": tree(tmp_path)["256_ids.csv"]
        }  # fmt: skip
        assert [row[1] for row in rows_of(tmp_path / "256_ids.csv")[1:]] == ["SYN000", "SYN001", "SYN002"]
        assert told[0] == (12, 36) and told[-1] == (36, 36) and told == sorted(told)

    def test_a_run_cut_short_leaves_no_half_capture(self, tmp_path):
        def interrupt(done, total):
            if done >= 14:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            writer.write(tmp_path / "x", FakeSource(), request("S000", "S001"), listener=interrupt)
        assert [p.name for p in (tmp_path / "x").glob("*--*")] == ["20000101--0000--SYN000"]
        assert not list((tmp_path / "x").glob(".*"))
        writer.write(tmp_path / "x", FakeSource(), request("S000", "S001"))
        writer.write(tmp_path / "y", FakeSource(), request("S000", "S001"))
        assert tree(tmp_path / "x") == tree(tmp_path / "y")

    def test_a_folder_of_something_else_is_refused_and_untouched(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(ConfigError, match="holds files and is no export. Give a new or empty folder"):
            writer.write(tmp_path, FakeSource(), request())
        assert list(tree(tmp_path)) == ["thesis.tex"]
        with pytest.raises(ConfigError, match="is a file"):
            writer.write(tmp_path / "thesis.tex", FakeSource(), request())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"frames": 7}, "an export with frames 6, not 7"),
            ({"options": {"texture": 48, "quality": 50}}, "an export with quality 90, not 50"),
        ],
    )
    def test_an_export_made_otherwise_is_refused(self, written, changes, message):
        with pytest.raises(ConfigError, match=message):
            writer.write(written[0], FakeSource(), request(**changes))

    def test_an_export_of_another_source_is_refused(self, written):
        with pytest.raises(ConfigError, match="another version or other options of the source made"):
            writer.write(written[0], FakeSource("2"), request())

    def test_a_full_disk_is_one_line(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
        with pytest.raises(ArtifactError, match="the disk is full. Free some space and run the same command again"):
            writer.write(tmp_path, FakeSource(), request())
        assert not [p for p in tmp_path.iterdir() if p.is_dir() and p.name != "assets"]


class TestSessionsAndParts:
    def test_another_donning_lies_beside_the_first(self, tmp_path):
        for session in (0, 1):
            writer.write(tmp_path, FakeSource(), request(session=session, parts=("headset",)))
        assert rows_of(tmp_path / "256_ids.csv")[1:] == [["20000101", "SYN001", "0000"], ["20000102", "SYN001", "0000"]]

    def test_a_part_that_is_not_there_yet_is_added(self, written, tmp_path):
        told = []
        assert writer.write(tmp_path, FakeSource(), request(parts=("headset",)))[0].new
        added = writer.write(tmp_path, FakeSource(), request(parts=("dome",)), listener=lambda *n: told.append(n))
        assert added[0].new and tree(tmp_path) == tree(written[0]) and told[-1] == (6, 6)
        assert not writer.write(tmp_path, FakeSource(), request())[0].new


@pytest.fixture(scope="module")
def source(written):
    """The export as source `ava256` reads it."""
    source = Ava256Source(Ava256Config(root=written[0]))
    assert source.subjects() == ("SYN001",)
    return source


class TestRoundTrip:
    """What is written, read back by source `ava256`."""

    def test_dome(self, source, written):
        (read,), true = source.dome(["SYN001"]), FakeDome("S001")
        frames = dome_frames(written[1])
        rows = list(range(len(frames)))
        assert [segment.kind for segment in read.segments] == ["expression", "expression", "speech", "free"]
        np.testing.assert_array_equal(read.geometry(rows), true.geometry(frames))
        np.testing.assert_array_equal(read.head_pose(rows), true.head_pose(frames))
        images = read.frames(rows, cameras=["400001", "400002"], height=64).astype(int)
        assert np.abs(images - true.frames(frames, cameras=["cam400001", "400002"], height=64)).max() <= 6
        assert read.texture(rows).shape == (6, 3, 48, 48)
        np.testing.assert_array_equal(read.topology().faces, true.topology().faces)
        np.testing.assert_array_equal(read.topology().uv_faces, true.topology().uv_faces)
        np.testing.assert_allclose(read.topology().uv, true.topology().uv, atol=1e-7)
        first_neutral = frames.index(min((f for f in frames if 5 <= f < 9), key=str))
        np.testing.assert_array_equal(read.neutral().geometry, read.geometry([first_neutral])[0])

    def test_cameras_see_each_vertex_where_the_source_has_it(self, source, written):
        (read,), true, frame = source.dome(["SYN001"]), FakeDome("S001"), dome_frames(written[1])[3]
        pose = true.head_pose([frame])[0]
        world = true.geometry([frame])[0] @ pose[:, :3].T + pose[:, 3]
        for ours, theirs in zip(true.cameras, read.cameras, strict=True):
            whole = ours.resized(2668, 4096)
            for name in ("intrinsics", "rotation", "translation"):
                np.testing.assert_allclose(getattr(theirs, name), getattr(whole, name), rtol=0, atol=1e-12)
            np.testing.assert_allclose(theirs.project(world), whole.project(world), atol=1e-8)

    def test_headset(self, source, written):
        (read,), true = source.captures(["SYN001"]), FakeCapture("S001", 0)
        frames = [int(frame) for _, frame in rows_of(written[1] / "encoder/frame_list.csv")[1:]]
        rows, names = list(range(len(frames))), [camera.name for camera in true.cameras[:5]]
        assert [camera.name for camera in read.cameras] == names and "neutral" in read.anchors
        images = read.frames(rows, cameras=names, size=40).astype(int)
        assert np.abs(images - true.frames(frames, cameras=names, size=40)).max() <= 5
        np.testing.assert_array_equal(read.labels(rows).expression, true.labels(frames).expression)
        assert read.conditions["frames_left_out"] == 0


class TestRefusals:
    def dome(self, **changes):
        return type("OddDome", (FakeDome,), changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"segments": SEGMENTS[:1]}, "has no neutral segment"),
            ({"topology": lambda self: None}, "does not bring its mesh's topology"),
            ({"cameras": (FakeCapture.cameras[0].__class__(
                "a", "left", "upper", "tracking", 40, 40, np.eye(3), np.eye(3), np.zeros(3), np.full(5, 0.1)),)},
             "'a' has lens distortion"),
            ({"cameras": (pinhole("../a", 0),)}, r"'\.\./a' cannot be a file's name"),
        ],
    )  # fmt: skip
    def test_what_the_layout_cannot_hold(self, tmp_path, changes, message):
        with pytest.raises(DataError, match=message):
            writer.write(tmp_path, FakeSource(domes=self.dome(**changes)), request())

    def test_options(self, tmp_path):
        with pytest.raises(ConfigError, match="Option 'qualty' is not known to 'the ava256 layout'.*quality"):
            writer.write(tmp_path / "x", FakeSource(), request(options={"qualty": 3}))
        with pytest.raises(ConfigError, match="frames is 1; it must be 2 or more"):
            request(frames=1)
        with pytest.raises(ConfigError, match="parts are headset and dome"):
            request(parts=("legs",))
        assert not (tmp_path / "x").exists()

    def test_a_source_without_writer_says_so(self, tmp_path):
        with pytest.raises(ConfigError, match="FakeSource has no writer"):
            FakeSource.write(tmp_path, FakeSource(), request())


class Target(FakeSource):
    @classmethod
    def write(cls, folder, source, request, *, listener=None):
        return writer.write(folder, source, request, listener=listener)


@pytest.fixture
def ufe(capsys, monkeypatch):
    def spec(id, factory):
        return types.SimpleNamespace(id=id, summary="", load=lambda: factory)

    specs = {"synthetic": spec("ufe/synthetic", FakeSource), "ava256": spec("ufe/ava256", Target),
             "made": spec("acme/made", lambda config: FakeSource())}  # fmt: skip
    catalogue = types.SimpleNamespace(
        get=lambda kind, name: specs[name.split("/")[-1]], create=lambda kind, name, options: FakeSource()
    )
    monkeypatch.setattr("ufe_core.plugins.catalogue", lambda: catalogue)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["source", "export", *map(str, arguments)])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


class TestCommand:
    small = ("--as", "ava256", "--frames", 3, "--size", 32, "--headset-size", 32, "--set", "as.texture=16")

    def test_it_says_what_it_made_and_what_was_there(self, ufe, tmp_path):
        arguments = (*self.small, "--out", tmp_path / "x", "--subject", "S000", "--subject", "S002")
        code, out, err = ufe(*arguments)
        assert code == 0, err
        assert f"2 captures of 'ufe/synthetic' in '{tmp_path / 'x'}', as 'ufe/ava256' reads them: 2 made, 0" in out
        facts = json.loads(ufe(*arguments, "--json")[1])
        assert (facts["made"], facts["already_there"]) == (0, 2)
        assert [one["subject"] for one in facts["captures"]] == ["S000", "S002"]
        assert facts["bytes"] == sum(p.stat().st_size for one in facts["captures"] for p in Path(one["path"]).rglob("*")
                                     if p.is_file())  # fmt: skip

    def test_one_recording_alone(self, ufe, tmp_path):
        assert ufe(*self.small, "--out", tmp_path / "x", "--subject", "S001", "--only", "headset")[0] == 0
        assert sorted(p.name for p in (tmp_path / "x/20000101--0000--SYN001").iterdir()) == [
            "encoder", "ufe-export.json"
        ]  # fmt: skip

    def test_wrong_input_is_one_line(self, ufe, tmp_path):
        (tmp_path / "note").write_text("")
        for arguments, message in (
            ((*self.small, "--out", tmp_path, "--subject", "S001"), "holds files and is no export"),
            ((*self.small, "--out", tmp_path / "x", "--set", "as.members=zip"), "members"),
            ((*self.small, "--out", tmp_path / "x", "--set", "target.members=zip"), "source, as"),
            (("--as", "made", "--out", tmp_path / "x"), "Source 'acme/made' has no writer"),
            (("--as", "synthetic", "--out", tmp_path / "x"), "Source 'ufe/synthetic' has no writer"),
        ):
            code, out, err = ufe(*arguments)
            assert code == 1 and out == "" and err.startswith("ufe: error: ") and message in err
            assert err.count("\n") == 1
        assert ufe("--as", "ava256", "--out", tmp_path / "x", "--size", 3)[0] == 2
