"""The reader of the public ava-256 layout, on small captures that are built here from its description alone."""

import csv
import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image

from ufe_ava256 import archives, pickles
from ufe_ava256.plugin import Ava256Config
from ufe_ava256.source import Ava256Source
from ufe_ava256.splits import split_of
from ufe_core.cli.main import main
from ufe_core.conformance import examined
from ufe_core.errors import DataError
from ufe_core.packed import PackRequest, pack
from ufe_core.plugins import catalogue
from ufe_core.splits import held_out_people, training_people
from ufe_core.store import Store

CAMERAS = ("cam-cyclop", "cam-left-eye-atl-temporal", "cam-right-eye-atl-temporal", "cam-left-mouth", "cam-right-mouth")
FRAMES = [("neutral-2023-04-05-17-52-51", n) for n in range(40, 43)]
FRAMES += [("EXP_jaw_open", n) for n in range(43, 48)]
FRAMES += [("SEN_rainbow", n) for n in range(48, 50)] + [("EXP_free_face", n) for n in range(50, 54)]
#: Frame 998 comes before 1002, and as text after it.
DOME = [("EXP_smile", 5), ("EXP_smile", 6), ("EXP_neutral_peak", 998), ("EXP_neutral_peak", 1002), ("EXP_free_face", 7)]
VERTICES = 5
TURN = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
TRACKING = ("left_eye", "right_eye", "left_mouth", "right_mouth")


def avif(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=100, subsampling="4:4:4")
    return file.getvalue()


def level(camera, frame):
    """Grey level that an image is painted with."""
    return 20 + 40 * camera + 2 * (frame % 16)


def write_zip(path, entries, compression=zipfile.ZIP_STORED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def write_list(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("seg_id", "frame_id"), *rows])


def headset_entries(camera, flat, grey=True):
    pixels = (np.full((16, 12), level(camera, frame), np.uint8) for _, frame in FRAMES)
    inner = "" if flat else f"{CAMERAS[camera]}/"
    return {
        f"{inner}{frame:06d}.avif": avif(image if grey else np.repeat(image[..., None], 3, -1))
        for image, (_, frame) in zip(pixels, FRAMES, strict=True)
    }


def mesh(frame, count=VERTICES):
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3) + frame


def ply(vertices, text=False):
    kind = "ascii" if text else "binary_little_endian"
    header = f"ply\nformat {kind} 1.0\ncomment made for a test\nelement vertex {len(vertices)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    body = "\n".join(" ".join(map(str, row)) for row in vertices.tolist()).encode() if text else vertices.tobytes()
    return header.encode() + body


def camera_entry(name, **changes):
    intrinsics = np.array([[7000.0, 0, 1333.5], [0, 7100, 2047.5], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = TURN, (10, 20, 1000)
    entry = {
        "cameraId": name, "projectionModel": "Pinhole", "distortionModel": "RadialAndTangential",
        "K": intrinsics.T.tolist(), "distortion": [0.1, 0, 0, 0], "T": pose.T.tolist(),
    }  # fmt: skip
    return entry | changes


def build_headset(folder, *, flat=False, compression=zipfile.ZIP_STORED):
    write_list(folder / "encoder/frame_list.csv", FRAMES)
    for k, name in enumerate(CAMERAS):
        write_zip(folder / f"encoder/image/{name}.zip", headset_entries(k, flat, grey=k % 2 == 0), compression)


def build_dome(folder, *, vertices=VERTICES, text=False):
    below, numbers = folder / "decoder", [frame for _, frame in DOME]
    write_list(below / "frame_list.csv", DOME)
    (below / "camera_calibration.json").write_text(json.dumps({"KRT": [camera_entry("401"), camera_entry("400")]}))
    pose = "\n".join(" ".join(map(str, row)) for row in np.c_[TURN, [1.0, 2, 3]])
    write_zip(below / "head_pose/head_pose.zip", {f"{n:06d}.txt": pose for n in numbers})
    tracking = below / "kinematic_tracking"
    write_zip(tracking / "registration_vertices.zip", {f"{n:06d}.ply": ply(mesh(n, vertices), text) for n in numbers})
    np.save(tracking / "registration_vertices_mean.npy", mesh(0, vertices))
    textures = {f"color/{n:06d}.avif": avif(np.full((8, 8, 3), (n % 50, 60, 200), np.uint8)) for n in numbers}
    write_zip(below / "uv_image/color.zip", textures)
    half = np.zeros((64, 42, 3), np.uint8)
    half[:32] = (200, 100, 50)
    for name in ("400", "401"):
        write_zip(below / f"image/cam{name}.zip", {f"cam{name}/{n:06d}.avif": avif(half) for n in numbers})


def build_topology(root):
    lines = [f"v {k} 0 0" for k in range(VERTICES)] + [
        "vt 0 0",
        "vt 1 0.25",
        "vt 0 1",
        "f 1/1 2/2 3/3",
        "f 3/3 4/2 5/1",
    ]
    (root / "assets").mkdir(parents=True)
    (root / "assets/face_topology.obj").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two sound captures: one flat and deflated, one with inner folders; built once, copied where one is damaged."""
    root = tmp_path_factory.mktemp("ava")
    build_topology(root)
    build_headset(root / "20220101--0900--AAA001")
    build_dome(root / "20220101--0900--AAA001")
    build_headset(root / "20220102--0905--BBB002", flat=True, compression=zipfile.ZIP_DEFLATED)
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def source(root, **options):
    return Ava256Source(Ava256Config(root=root, **options))


def one(root, subject="AAA001", **options):
    return source(root, **options).captures([subject])[0]


def test_it_keeps_to_every_rule_of_sources(made):
    spec = catalogue().get("source", "ava256")
    found = list(examined([spec], options={"source": {"root": str(made)}}))
    assert [f"{one.rule}: {one.line}" for one in found if one.outcome == "broken"] == []
    assert sum(one.outcome == "kept" for one in found) >= 10


def rewrite(path, change):
    """Change the entries of an archive, a dict from name to bytes."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    write_zip(path, entries)


def flip(path, name, at=-3):
    """Turn over a byte in the middle of a stored entry, past the zip's own bookkeeping."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read(name)
    whole = bytearray(path.read_bytes())
    where = bytes(whole).index(data) + len(data) + at
    whole[where] ^= 0xFF
    path.write_bytes(whole)


A, B = "20220101--0900--AAA001", "20220102--0905--BBB002"
MOUTH = f"{A}/encoder/image/cam-left-mouth.zip"


class TestHeadset:
    @pytest.mark.parametrize("subject", ["AAA001", "BBB002"])
    def test_every_image_is_the_one_of_its_camera_and_frame(self, made, subject):
        capture = one(made, subject)
        names = [camera.name for camera in capture.cameras]
        images = capture.frames(range(len(FRAMES)), cameras=names, size=8)
        order = [CAMERAS.index(f"cam-{stem}") for stem in (
            "left-eye-atl-temporal", "right-eye-atl-temporal", "left-mouth", "right-mouth", "cyclop")]  # fmt: skip
        wanted = np.array([[level(camera, frame) for camera in order] for _, frame in FRAMES])
        assert images.shape == (len(FRAMES), 5, 8, 8)
        assert np.abs(images - wanted[..., None, None].astype(int)).max() <= 1

    def test_cameras_have_their_roles_and_the_size_that_was_met(self, made):
        cameras = one(made).cameras
        assert tuple(camera.name for camera in cameras) == (*TRACKING, "cyclop")
        assert [camera.role for camera in cameras] == ["tracking"] * 4 + ["augmented"]
        assert [camera.region for camera in cameras] == ["upper", "upper", "lower", "lower", "upper"]
        assert [camera.side for camera in cameras] == ["left", "right", "left", "right", "centre"]
        assert all((camera.width, camera.height) == (12, 16) for camera in cameras)
        assert cameras[0].position[0] < 0 < cameras[1].position[0], "+x is the subject's right"
        for camera in cameras:
            assert camera.in_view(np.array([[0, 30, 10.0]])).all(), "each looks at the face"

    def test_segments_are_those_of_the_frame_list_also_where_their_rows_are_mixed(self, root):
        write_list(root / A / "encoder/frame_list.csv", [FRAMES[0], FRAMES[4], FRAMES[1], FRAMES[12], FRAMES[3]])
        capture = one(root)
        assert [(s.name, s.start, s.stop, s.kind) for s in capture.segments] == [
            ("neutral-2023-04-05-17-52-51", 0, 2, "expression"),
            ("EXP_jaw_open", 2, 4, "expression"),
            ("EXP_free_face", 4, 5, "free"),
        ]
        images = capture.frames([3], cameras=["cyclop"], size=8)
        assert abs(int(images[0, 0, 0, 0]) - level(0, 43)) <= 1

    def test_anchors_are_the_middle_frames_of_expressions(self, made):
        assert dict(one(made).anchors) == {"neutral": 1, "jaw_open": 5}

    def test_free_face_can_be_held_out_or_taken_alone(self, made):
        assert one(made, free_face="without").frame_count == 10
        assert [s.name for s in one(made, free_face="only").segments] == ["EXP_free_face"]

    def test_an_index_out_of_range_and_an_unknown_camera_are_refused(self, made):
        with pytest.raises(DataError, match=r"frames 0 to 13; 14 was asked for"):
            one(made).frames([14], cameras=["cyclop"], size=8)
        with pytest.raises(DataError, match="no camera 'chin'"):
            one(made).frames([0], cameras=["chin"], size=8)

    def test_spread_of_sound_captures_is_every_captures(self, made):
        capture = one(made)
        assert capture.spread(9, seed=3) == super(type(capture), capture).spread(9, seed=3)

    def test_the_fingerprint_follows_the_files(self, root):
        before = source(root).fingerprint
        assert source(root).fingerprint == before
        flip(root / MOUTH, "cam-left-mouth/000044.avif")
        assert source(root).fingerprint != before

    def test_that_of_the_dome_follows_the_dome_s_files(self, root):
        """Cameras, images and poses too, which the headset's captures do not need."""
        headset, before = source(root).fingerprint, source(root).dome_fingerprint
        assert source(root).dome_fingerprint == before != headset
        calibration = root / A / "decoder/camera_calibration.json"
        calibration.write_text(calibration.read_text() + " ")
        assert source(root).dome_fingerprint != before and source(root).fingerprint == headset


class TestLabels:
    def write(self, root, codes, rows):
        torch.save(codes, root / A / "encoder/encodings_gt.pt")
        write_list(root / A / "encoder/encodings_framelist.csv", rows)

    def test_there_are_none_without_the_file(self, made):
        assert one(made).labels([0]) is None

    def test_each_frame_has_its_own_whatever_the_order_of_the_list(self, root):
        rows = FRAMES[::-1]
        self.write(root, torch.tensor([[float(frame)] * 256 for _, frame in rows]).reshape(-1, 16, 4, 4), rows)
        labels = one(root).labels([0, 7, 2])
        assert labels.expression.shape == (3, 256) and labels.expression[:, 0].tolist() == [40, 47, 42]
        assert np.isnan(labels.gaze).all() and labels.gaze.shape == (3, 6), "the layout has no gaze"

    @pytest.mark.parametrize("wrap", [lambda codes: {"codes": codes}, list])
    def test_the_tensor_may_be_wrapped(self, root, wrap):
        self.write(root, wrap(torch.arange(14.0)[:, None].repeat(1, 256)), FRAMES)
        assert one(root).labels([3]).expression[0, 9] == 3

    def test_frames_without_a_label_are_left_out_and_counted(self, root):
        self.write(root, torch.ones(12, 256), FRAMES[2:])
        capture = one(root)
        assert capture.frame_count == 12 and capture.dropped == {"encoder/encodings_framelist.csv": 2}
        assert one(root, labels=False).frame_count == 14 and one(root, labels=False).labels([0]) is None

    @pytest.mark.parametrize(("codes", "reason"), [
        (torch.ones(3, 256), "has 3 codes; .* lists 14 frames"),
        (torch.full((14, 256), torch.nan), "not finite"),
        ({"a": 1}, "holds no tensor"),
        ([torch.ones(2), torch.ones(3)], "holds no tensor"),
    ])  # fmt: skip
    def test_what_is_no_label_file_is_refused(self, root, codes, reason):
        self.write(root, codes, FRAMES)
        with pytest.raises(DataError, match=rf"encodings_gt\.pt .*{reason}"):
            one(root).labels([0])

    def test_nothing_in_it_is_executed(self, root, tmp_path):
        write_list(root / A / "encoder/encodings_framelist.csv", FRAMES)
        torch.save(Trap(tmp_path / "sprung"), root / A / "encoder/encodings_gt.pt")
        with pytest.raises(DataError, match=r"encodings_gt\.pt is refused"):
            one(root).labels([0])
        assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestPickles:
    @pytest.mark.parametrize("protocol", range(2, 6))
    def test_arrays_tensors_and_containers_come_back(self, tmp_path, protocol):
        value = OrderedDict(
            a=np.arange(6, dtype=np.float32).reshape(2, 3), b={3: [1.5, (2, "x")]}, c=np.float64(2.5), d=b"\xff\x00",
            e=torch.arange(6.0).reshape(2, 3).T, f=np.asfortranarray(np.eye(3)), g=np.arange(4, dtype=">i2"),
        )  # fmt: skip
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
        found = pickles.load_pickle(tmp_path / "x.pkl")
        for key in "aefg":
            assert np.array_equal(np.asarray(found[key]), np.asarray(value[key])), key
        assert (found["b"], found["c"], found["d"]) == (value["b"], 2.5, b"\xff\x00")

    @pytest.mark.parametrize("call", [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x011\x85R.",
        b"ctorch.storage\n_load_from_bytes\n(cbuiltins\nlen\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n}S'_call'\nI1\nsb.",
        *(b"c%s\n(N}S'x'\nI1\nstb." % name for name in (
            b"collections\nOrderedDict", b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode")),
        b"cnumpy.f2py\nmain\n)R.", b"(lp0\n", b"", b"garbage", b"\x80\x04\x95",
    ])  # fmt: skip
    def test_anything_else_is_refused_in_one_line(self, tmp_path, call):
        (tmp_path / "x.pkl").write_bytes(call)
        with pytest.raises(DataError, match=r"x\.pkl is refused or damaged: ") as caught:
            pickles.load_pickle(tmp_path / "x.pkl")
        assert "\n" not in str(caught.value)

    def test_a_trap_does_not_spring(self, tmp_path):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({1: Trap(tmp_path / "sprung")}))
        with pytest.raises(DataError, match=r"names 'posix\.mkdir'|names 'nt\.mkdir'"):
            pickles.load_pickle(tmp_path / "x.pkl")
        assert not (tmp_path / "sprung").exists()


class TestDome:
    def dome(self, root, **options):
        return source(root, **options).dome(["AAA001"])[0]

    @pytest.mark.parametrize("text", [False, True])
    def test_meshes_turn_from_the_layouts_head_axes_to_ours(self, root, text):
        build_dome(root / A, text=text)
        found = self.dome(root).geometry([1])[0]
        wanted = mesh(6) * (-1, -1, 1)  # +x left, +y up there; +x right, +y down here
        assert found.dtype == np.float32 and np.array_equal(found, wanted)

    def test_a_vertex_lands_where_the_published_route_puts_it(self, made):
        """K [R|t] H v, the pixel centre at integers there and at halves here."""
        dome = self.dome(made)
        vertex, pose = dome.geometry([0])[0, 2].astype(float), dome.head_pose([0])[0]
        camera = next(camera for camera in dome.cameras if camera.name == "401")
        ours = camera.project(pose[:, :3] @ vertex + pose[:, 3])
        entry = camera_entry("401")
        world = TURN @ mesh(5)[2].astype(float) + (1, 2, 3)
        outside = np.array(entry["T"])[:4, :3].T
        pixel = np.array(entry["K"]).T @ (outside[:, :3] @ world + outside[:, 3])
        assert ours == pytest.approx(pixel[:2] / pixel[2] + 0.5, abs=1e-6)

    def test_cameras_come_in_the_order_of_the_file_and_undistorted(self, made):
        cameras = self.dome(made).cameras
        assert [camera.name for camera in cameras] == ["401", "400"]
        assert all((camera.width, camera.height) == (2668, 4096) for camera in cameras)
        assert not cameras[0].distortion.any()

    def test_images_keep_the_sensors_aspect(self, made):
        images = self.dome(made).frames([0, 1], cameras=["400"], height=32)
        assert images.shape == (2, 1, 3, 32, 21)
        assert np.abs(images[0, 0, :, 4, 4].astype(int) - (200, 100, 50)).max() <= 3 and images[0, 0, :, 28].max() <= 3

    def test_textures_and_the_neutral_face(self, made):
        dome = self.dome(made)
        assert np.abs(dome.texture([0])[0, :, 0, 0].astype(int) - (5, 60, 200)).max() <= 2
        assert np.array_equal(dome.neutral().geometry, mesh(1002) * (-1, -1, 1)), "as text, 1002 is before 998"
        assert np.array_equal(one(made).neutral().geometry, dome.neutral().geometry)
        assert one(made, "BBB002").neutral() is None

    def test_the_neutral_frame_falls_back(self, root):
        rewrite(root / A / "decoder/uv_image/color.zip", lambda entries: entries.pop("color/001002.avif"))
        assert np.array_equal(self.dome(root).neutral().geometry, mesh(998) * (-1, -1, 1))
        rewrite(root / A / "decoder/uv_image/color.zip", lambda entries: entries.update({"color/000998.avif": b"x"}))
        with pytest.raises(DataError, match=r"000998\.avif in .*color\.zip is no readable image"):
            self.dome(root)
        write_list(root / A / "decoder/frame_list.csv", [("EXP_eye_neutral", 6), ("EXP_eye_neutral", 5)])
        assert np.array_equal(self.dome(root).neutral().geometry, mesh(5) * (-1, -1, 1))
        write_list(root / A / "decoder/frame_list.csv", DOME[:2])
        with pytest.raises(DataError, match="no neutral face: no frame of EXP_neutral_peak or EXP_eye_neutral"):
            self.dome(root)

    def test_a_broken_neutral_frame_gives_way_to_the_next(self, root, caplog):
        flip(root / A / "decoder/kinematic_tracking/registration_vertices.zip", "001002.ply")
        assert np.array_equal(one(root).neutral().geometry, mesh(998) * (-1, -1, 1))
        assert "takes another neutral frame: 001002.ply in" in caplog.text

    def test_topology_has_row_0_of_a_texture_at_v_0(self, made, root):
        topology = self.dome(made).topology()
        assert topology.vertex_count == VERTICES and topology.faces.tolist() == [[0, 1, 2], [2, 3, 4]]
        assert topology.uv.tolist() == [[0, 1], [1, 0.75], [0, 0]] and topology.uv_faces.tolist() == [
            [0, 1, 2],
            [2, 1, 0],
        ]
        (root / "assets/face_topology.obj").unlink()
        build_dome(root / A, vertices=7306)
        assert self.dome(root).topology() is None and self.dome(root).geometry([0]).shape == (1, 7306, 3)

    def test_expression_codes(self, root):
        assert self.dome(root).expression_codes([0]) is None
        codes = {f"{frame:06d}": np.full((16, 4, 4), frame, np.float64) for _, frame in DOME}
        folder = root / A / "decoder/expression_codes"
        folder.mkdir()
        (folder / "aeparams_1440000.pkl").write_bytes(pickle.dumps(codes))
        found = self.dome(root).expression_codes([3, 0])
        assert found.dtype == np.float32 and found.shape == (2, 256) and found[:, 7].tolist() == [1002, 5]
        (folder / "aeparams_1440000.pkl").write_bytes(pickle.dumps({5: [1.0]}))
        with pytest.raises(DataError, match=r"aeparams_1440000\.pkl is no dictionary"):
            self.dome(root).expression_codes([0])

    def test_frames_without_mesh_texture_or_pose_are_counted(self, root, caplog):
        rewrite(root / A / "decoder/kinematic_tracking/registration_vertices.zip", lambda e: e.pop("000005.ply"))
        dome = self.dome(root)
        assert dome.frame_count == 4 and dome.dropped == {"decoder/kinematic_tracking/registration_vertices.zip": 1}
        assert "1 of 1 captures lack listed entries, 1 in all" in caplog.text

    def test_missing_images_are_told_beforehand_and_cameras_without_any_left_out(self, root, caplog):
        rewrite(root / A / "decoder/image/cam400.zip", lambda entries: entries.pop("cam400/000006.avif"))
        (root / A / "decoder/image/cam401.zip").unlink()
        dome = self.dome(root)
        assert [camera.name for camera in dome.cameras] == ["400"] and "without 1 of its 2 cameras" in caplog.text
        assert dome.present(["400"]).tolist() == [True, False, True, True, True]
        with pytest.raises(DataError, match=r"There is no 000006\.avif in .*cam400\.zip"):
            dome.frames([1], cameras=["400"], height=32)

    @pytest.mark.parametrize(("change", "reason"), [
        ({"K": [[7000, 0, 0], [0, float("nan"), 0], [1, 2, 1]]}, "'401'.* NaN or infinity"),
        ({"T": (2 * np.eye(4)).tolist()}, "no rotation"),
        ({"T": [[1, 0], [0, 1]]}, "lacks a K of 3 x 3 or a T of 4 x 4"),
        ({"K": [[7000, 0, 1333.5], [0, 7100, 2047.5], [0, 0, 1]]}, "stored transposed"),
        ({"cameraId": "../../401"}, "letters, digits"),
        ({"cameraId": "400"}, "more than once"),
    ])  # fmt: skip
    def test_a_calibration_that_is_none_is_refused(self, root, change, reason):
        path = root / A / "decoder/camera_calibration.json"
        path.write_text(json.dumps({"KRT": [camera_entry("401", **change), camera_entry("400")]}))
        with pytest.raises(DataError, match=rf"camera_calibration\.json.*{reason}"):
            self.dome(root)

    @pytest.mark.parametrize("text", ["", "{}", '{"KRT": []}', '{"KRT": [1]}', "[" * 5000])
    def test_a_calibration_file_that_holds_none_is_refused(self, root, text):
        (root / A / "decoder/camera_calibration.json").write_text(text)
        with pytest.raises(DataError, match=r"camera_calibration\.json"):
            self.dome(root)

    def test_another_mesh_is_refused_at_open(self, root):
        build_dome(root / A, vertices=6)
        with pytest.raises(DataError, match=r"registration_vertices_mean\.npy is of shape \[6, 3\].* has 5 vertices"):
            self.dome(root)
        (root / A / "decoder/kinematic_tracking/registration_vertices_mean.npy").unlink()
        with pytest.raises(DataError, match=r"001002\.ply in .*registration_vertices\.zip has 6 vertices"):
            self.dome(root)

    @pytest.mark.parametrize(("data", "reason"), [
        (b"", "no PLY file"),
        (ply(mesh(5))[:-4], "cut short"),
        (ply(mesh(5) * np.float32(np.nan)), "not finite"),
        (ply(mesh(5), text=True)[:-9], "cut short|no numbers"),
        (ply(mesh(5)).replace(b"float y", b"float q"), "without a vertex element of x, y and z"),
        (ply(mesh(5)).replace(b"vertex 5", b"vertex x"), "cannot be read"),
    ])  # fmt: skip
    def test_a_damaged_mesh_is_named(self, root, data, reason):
        archive = root / A / "decoder/kinematic_tracking/registration_vertices.zip"
        rewrite(archive, lambda entries: entries.update({"000005.ply": data}))
        with pytest.raises(DataError, match=rf"000005\.ply in .*registration_vertices\.zip .*({reason})"):
            self.dome(root).geometry([0])

    @pytest.mark.parametrize("text", ["1 2 3", "x " * 12, "nan " * 12, "2 0 0 0 0 2 0 0 0 0 2 0"])
    def test_a_damaged_head_pose_is_named(self, root, text):
        rewrite(root / A / "decoder/head_pose/head_pose.zip", lambda entries: entries.update({"000005.txt": text}))
        with pytest.raises(DataError, match=r"000005\.txt in .*head_pose\.zip is no"):
            self.dome(root).head_pose([0])


class TestDamage:
    @pytest.mark.parametrize(("text", "reason"), [
        ("", r"has columns ''; expected 'seg_id,frame_id'"),
        ("seg_id,frame\nx,1\n", "has columns 'seg_id,frame'"),
        ("seg_id,frame_id\n", "lists nothing"),
        ("seg_id,frame_id\na,1\nb,000001\n", "lists frame 1 more than once"),
        ("seg_id,frame_id\na,-1\n", "'a,-1'"),
        ("seg_id,frame_id\na\n", "'a,'"),
        ("seg_id,frame_id\na,../../1\n", r"'a,\.\./\.\./1'"),
    ])  # fmt: skip
    def test_a_frame_list_that_is_none_is_refused(self, root, text, reason):
        (root / A / "encoder/frame_list.csv").write_text(text)
        with pytest.raises(DataError, match=rf"encoder.frame_list\.csv .*{reason}"):
            one(root)

    def test_frames_that_lack_an_entry_are_left_out_with_a_count(self, root, caplog):
        rewrite(root / MOUTH, lambda e: [e.pop(f"cam-left-mouth/{n:06d}.avif") for n in (41, 44)])
        rewrite(root / MOUTH.replace("left", "right"), lambda e: e.pop("cam-right-mouth/000041.avif"))
        capture = one(root)
        assert capture.frame_count == 12 and capture.conditions["frames_left_out"] == 2
        assert capture.dropped == {
            "encoder/image/cam-left-mouth.zip": 2, "encoder/image/cam-right-mouth.zip": 1
        }  # fmt: skip
        assert [(s.start, s.stop) for s in capture.segments] == [(0, 2), (2, 6), (6, 8), (8, 12)]
        assert len(caplog.records) == 1 and "2 not in encoder/image/cam-left-mouth.zip" in caplog.text

    @pytest.mark.parametrize("damage", ["missing", "empty", "cut", "nothing in it"])
    def test_an_archive_that_cannot_be_read_costs_its_camera_and_is_named(self, root, caplog, damage):
        path = root / MOUTH
        data = path.read_bytes()
        path.unlink()
        if damage == "nothing in it":
            write_zip(path, {})
        elif damage != "missing":
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
        capture = one(root)
        assert [camera.name for camera in capture.cameras] == ["left_eye", "right_eye", "right_mouth", "cyclop"]
        assert "without camera left_mouth" in caplog.text and "cam-left-mouth.zip" in caplog.text
        with pytest.raises(DataError, match="no camera 'left_mouth'"):
            capture.frames([0], cameras=TRACKING, size=8)

    def test_a_capture_without_any_image_is_refused(self, root):
        for name in CAMERAS:
            (root / A / f"encoder/image/{name}.zip").unlink()
        with pytest.raises(DataError, match="no archive of a headset camera"):
            one(root)

    @pytest.mark.parametrize(
        "name", ["../000040.avif", "/000040.avif", "a/../../000040.avif", "..\\000040.avif", "C:/x"]
    )
    def test_entries_cannot_point_outside(self, root, name):
        rewrite(root / MOUTH, lambda entries: entries.update({name: b"x"}))
        with pytest.raises(DataError, match=r"cam-left-mouth\.zip is refused: .* points outside the archive"):
            one(root)

    def test_two_entries_of_one_frame_are_refused(self, root):
        rewrite(root / MOUTH, lambda entries: entries.update({"000041.avif": b"x"}))
        with pytest.raises(DataError, match=r"cam-left-mouth\.zip has more than one entry 000041\.avif"):
            one(root)

    def test_a_broken_frame_is_named_when_it_is_read(self, root):
        flip(root / MOUTH, "cam-left-mouth/000044.avif")
        with pytest.raises(DataError, match=r"000044\.avif in .*cam-left-mouth\.zip is damaged: .* checksum"):
            one(root).frames([4], cameras=TRACKING, size=8)

    def test_spread_and_anchors_leave_broken_frames_out_with_a_count(self, root, caplog):
        flip(root / MOUTH, "cam-left-mouth/000045.avif")  # the anchor jaw_open
        rewrite(root / MOUTH.replace("left", "right"), lambda e: e.update({"cam-right-mouth/000050.avif": b"no image"}))
        capture = one(root)
        assert capture.anchors["jaw_open"] == 4
        assert capture.spread(12, seed=0) == [k for k in range(14) if k not in (5, 10)]
        assert sum(capture.dropped.values()) == 2 and len(caplog.records) == 2
        assert "000045.avif" in caplog.text and "000050.avif" in caplog.text
        with pytest.raises(DataError, match="has 12 frames that can be read, 13 were asked for"):
            capture.spread(13, seed=0)

    def test_packing_goes_on_with_other_frames_where_pixels_turn_out_broken(self, root, tmp_path, monkeypatch):
        """Bytes and header right, pixels not: only decoding them tells."""
        decode = archives.decode_image
        first = one(root).spread(12, seed=0)
        broken = (first[2], first[9])
        names = tuple(f"{FRAMES[index][1]:06d}" for index in broken)

        def fails(data, name):
            if name.startswith(names):
                raise DataError(f"{name} is no readable image.")
            return decode(data, name)

        monkeypatch.setattr("ufe_ava256.headset.decode_image", fails)
        opened, events = source(root), []
        request = PackRequest(12, 16, TRACKING, ("jaw_open",))
        packed = pack(opened, ["AAA001"], request, store=Store(tmp_path / "s"), listener=events.append)[0]
        assert set(packed.frames[:12]) == set(range(14)) - set(broken)
        for row, index in enumerate(packed.frames):
            assert packed.images[row, 0, 0, 0] == pytest.approx(level(1, FRAMES[index][1]), abs=1)
        assert sum(event.rows for event in events) == 13
        assert opened.captures(["AAA001"])[0].dropped == {"encoder/image/cam-left-eye-atl-temporal.zip": 2}
        with pytest.raises(DataError, match="12 frames that can be read, 13 were asked for"):
            pack(opened, ["AAA001"], PackRequest(13, 16, TRACKING, ()), store=Store(tmp_path / "s"))


class TestZipDirectory:
    def entries(self):
        rng = np.random.default_rng(1)
        sizes = rng.integers(0, 300, 40)
        return {f"{'cam-x/' * (k % 2)}{k:06d}.avif": rng.bytes(size) for k, size in enumerate(sizes)} | {
            "cam-x/": b"", "cam-x/000001.avif.txt": b"?", "notes.txt": b"hello", "a/b/000009.avif": b"too deep"
        }  # fmt: skip

    @pytest.mark.parametrize("large", [False, True])
    @pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n"])
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_every_entry_comes_back(self, tmp_path, monkeypatch, large, before, compression):
        if large:  # what files beyond 4 GB are written with
            monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
        path, entries = tmp_path / "x.zip", self.entries()
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.comment = b"made for a test"
            for name, data in entries.items():
                archive.writestr(name, data)
        path.write_bytes(before + path.read_bytes())
        archive = archives.Archive(path, "avif")
        assert archive.frames.tolist() == list(range(40))
        for k in range(40):
            assert archive.read(k) == entries[f"{'cam-x/' * (k % 2)}{k:06d}.avif"]
        assert archive.has(np.array([0, 39, 40, -1])).tolist() == [True, True, False, False]

    def test_whatever_bytes_change_it_is_one_error_or_the_same_data(self, tmp_path):
        """A flipped or lost byte never gives other data, and never another kind of error."""
        write_zip(tmp_path / "x.zip", self.entries(), zipfile.ZIP_DEFLATED)
        sound, rng, refused = (tmp_path / "x.zip").read_bytes(), np.random.default_rng(2), 0
        wanted = {k: archives.Archive(tmp_path / "x.zip", "avif").read(k) for k in range(40)}
        for trial in range(300):
            spoilt = bytearray(sound if trial % 3 else sound[: rng.integers(len(sound))])
            for at in rng.integers(0, max(1, len(spoilt)), 2):
                spoilt[at : at + 1] = rng.bytes(1)
            path = tmp_path / f"{trial}.zip"
            path.write_bytes(spoilt)
            archive = archives.Archive(path, "avif")
            try:
                for frame in archive.frames.tolist():
                    data = archive.read(frame)
                    assert data in wanted.values()
            except DataError as error:
                refused += 1
                assert "\n" not in str(error) and f"{trial}.zip" in str(error)
        assert refused > 100

    def test_a_line_break_in_a_name_is_refused(self, tmp_path):
        write_zip(tmp_path / "x.zip", {"a\n/000001.avif": b"x", "000002.avif": b"y"})
        with pytest.raises(DataError, match=r"x\.zip is refused: the name of its entry"):
            archives.Archive(tmp_path / "x.zip", "avif").read(2)


class TestOpening:
    def test_archive_directories_are_read_once_and_archives_stay_open(self, made, monkeypatch):
        directories, opened = [], []
        real, open_file = archives.read_directory, archives._File.__init__

        def read(path, suffix):
            directories.append(str(path))
            return real(path, suffix)

        def counted(file, path):
            opened.append(str(path))
            open_file(file, path)

        monkeypatch.setattr(archives, "read_directory", read)
        monkeypatch.setattr(archives._File, "__init__", counted)
        archives._opened.cache_clear()
        reader = source(made)
        captures = reader.captures(["AAA001", "BBB002"])
        assert len(directories) == 10 and opened == [], "opening reads directories and no entry"
        for capture in (*captures, *reader.captures(["AAA001"])):
            capture.frames(range(10), cameras=TRACKING, size=8)
            capture.anchors, capture.cameras  # noqa: B018
            capture.spread(5, seed=1)
        assert len(directories) == len(set(directories)) == 10
        assert len(opened) == len(set(opened)) == 10

    def test_an_archive_that_is_written_anew_is_opened_anew(self, root):
        one(root).frames([0], cameras=["left_mouth"], size=8)
        rewrite(root / MOUTH, lambda e: e.update({"cam-left-mouth/000040.avif": avif(np.full((16, 12), 7, np.uint8))}))
        assert abs(int(one(root).frames([0], cameras=["left_mouth"], size=8)[0, 0, 0, 0]) - 7) <= 1

    def test_no_dome_archive_is_opened_for_headset_captures(self, made, monkeypatch):
        seen = []
        real = archives.read_directory
        monkeypatch.setattr(archives, "read_directory", lambda path, kind: seen.append(path.parts) or real(path, kind))
        source(made).captures(["AAA001"])
        assert seen and not any("decoder" in parts for parts in seen)

    def test_a_second_recording_of_a_person_is_a_session(self, root):
        build_headset(root / "20230303--1200--AAA001")
        opened = source(root)
        assert opened.subjects() == ("AAA001", "BBB002") and opened.sessions == 2
        assert opened.captures(["AAA001"], session=1)[0].id == "20230303--1200--AAA001"
        with pytest.raises(DataError, match="'BBB002' was recorded 1 times; there is no session 1"):
            opened.captures(["BBB002"], session=1)

    def test_a_capture_without_a_part_says_so(self, made):
        with pytest.raises(DataError, match=r"BBB002' has no decoder/frame_list\.csv"):
            source(made).dome(["BBB002"])


class TestSplits:
    people = tuple(f"{a}{b}C{n:03d}" for a in "ABCD" for b in "EFGH" for n in range(16))

    def test_all_256_are_in_one_part_each(self):
        parts = split_of(self.people)
        assert {name: len(members) for name, members in parts.items()} == {
            "train": 224, "new_identity": 20, "driving": 12
        }  # fmt: skip
        assert sorted(sum(parts.values(), ())) == sorted(self.people)
        assert split_of(self.people[::-1]) == parts

    def test_whom_the_whole_data_holds_out_no_smaller_copy_trains_on(self):
        whole = split_of(self.people)
        for some in (self.people[:100], self.people[::3], self.people[:40]):
            assert not {*whole["new_identity"], *whole["driving"]} & set(split_of(some)["train"])

    def test_the_list_of_captures_decides_where_only_some_are_there(self, root):
        with pytest.raises(DataError, match="Part 'train' has none of the 2 subjects"):
            source(root, part="train").subjects()
        everybody = [*self.people, "AAA001", "BBB002"]
        with (root / "256_ids.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("mcd", "sid", "mct"), *(("20220101", sid, "0900") for sid in everybody)])
        parts = split_of(everybody)
        found = [
            s for name in parts if set(parts[name]) & {"AAA001", "BBB002"} for s in source(root, part=name).subjects()
        ]
        assert sorted(found) == ["AAA001", "BBB002"]

    @pytest.mark.parametrize("part", ["all", "driving"])
    def test_no_training_reads_whom_ufe_holds_out_whatever_the_part(self, root, part):
        everybody = [*self.people, "AAA001", "BBB002"]
        driven = sorted(split_of(everybody)["driving"])[0]
        shutil.copytree(root / "20220101--0900--AAA001", root / f"20230101--0900--{driven}")
        with (root / "256_ids.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("mcd", "sid", "mct"), *(("20220101", sid, "0900") for sid in everybody)])
        opened = source(root, part=part)
        assert held_out_people("ufe/ava256", opened) == {driven}
        if part == "driving":
            with pytest.raises(DataError, match="nobody to train on"):
                training_people("ufe/ava256", opened)
        else:
            assert training_people("ufe/ava256", opened) == ("AAA001", "BBB002")

    def test_a_small_copy_without_the_list_says_that_all_are_held_out(self, root, caplog):
        with pytest.raises(DataError, match="nobody to train on"):
            training_people("ufe/ava256", source(root))
        assert "without 256_ids.csv these are taken for all" in caplog.text


class TestCommands:
    @pytest.fixture
    def ufe(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("UFE_HOME", str(tmp_path / "home"))

        def run(*arguments):
            with pytest.raises(SystemExit) as caught:
                main(("source", *arguments))
            out, err = capsys.readouterr()
            return caught.value.code, out, err

        return run

    def test_info_preview_pack_and_verify(self, made, tmp_path, ufe):
        options = ("--source", "ava256", "--set", f"source.root={made}")
        code, out, _ = ufe("info", *options, "--json")
        facts = json.loads(out)
        assert code == 0 and facts["frames_per_capture"] == 14 and facts["anchors"] == ["neutral", "jaw_open"]
        assert ufe("preview", *options, "--count", "2", "--size", "32", "--out", str(tmp_path / "p.png"))[0] == 0
        assert ufe("pack", *options, "--frames", "6", "--size", "16", "--out", str(tmp_path / "packed"))[0] == 0
        code, out, _ = ufe("verify", str(tmp_path / "packed"))
        assert code == 0 and "2 packed captures" in out and "all sound" in out

    @pytest.mark.parametrize(("where", "subject", "message"), [
        ("nowhere", "AAA001", "There is no folder .*nowhere'. Set source.root to the folder of the captures"),
        ("assets", "AAA001", "assets' holds no captures; expected folders <date>--<time>--<subject>"),
        ("..", "AAA001", "There are some in '.*copy'"),
        (".", "AAA0O1", "no subject 'AAA0O1'. Did you mean 'AAA001'?"),
    ])  # fmt: skip
    def test_mistakes_give_one_clear_line(self, root, ufe, where, subject, message):
        arguments = ("preview", "--source", "ava256", "--set", f"source.root={root / where}", "--subject", subject)
        code, _, err = ufe(*arguments)
        assert code == 1 and len(err.strip().splitlines()) == 1 and re.search(message, err), err
