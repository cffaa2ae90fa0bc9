"""The networks at small sizes, the atlas, and checkpoints."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from ufe_avatar.checkpoint import convert, load
from ufe_avatar.networks.assembler import cut
from ufe_avatar.networks.atlas import build_atlas, interpolate, tables
from ufe_avatar.networks.encoders import sample
from ufe_avatar.networks.layers import ConvTransposeWN, ConvWN, rotation_matrices
from ufe_avatar.networks.model import BUILT, Cameras, UniversalPriorModel, primitive_volume
from ufe_avatar.networks.rays import camera_rays
from ufe_avatar.networks.size import Size
from ufe_avatar.statistics import Averages, Statistics, first_captures, read_averages, statistics
from ufe_core.errors import ConfigError, DataError
from ufe_core.types import MeshTopology

SMALL = Size(uv=64, width=0.125)
CORNERS = np.array([[-1, 1, 0], [1, 1, 0], [-1, -1, 0], [1, -1, 0]], np.float32)


def topology(vertices, uv, faces, uv_faces=None):
    faces = np.array(faces, np.int64)
    points = np.array(faces if uv_faces is None else uv_faces, np.int64)
    return MeshTopology(vertices, faces, np.array(uv, np.float32), points, {}, np.ones(vertices, np.float32))


SQUARE = topology(4, [[0, 0], [1, 0], [0, 1], [1, 1]], [[0, 1, 2], [1, 3, 2]])


def model_of(size, **options):
    torch.manual_seed(0)
    model = UniversalPriorModel(size, 4, **options)
    model.set_atlas(build_atlas(SQUARE, size.uv))
    model.set_statistics(torch.from_numpy(100 * CORNERS), 2.0)
    return model


def inputs(size, count=2):
    torch.manual_seed(1)
    return torch.randn(count, 4, 3), torch.randn(count, 3, size.uv, size.uv)


def run(model, size, **options):
    verts, texture = inputs(size)
    neutral = verts.flip(0), texture.flip(0)
    mu, logstd = model.encode_expression(verts, texture, *neutral)
    people = model.encode_identity(*neutral)
    placed = model.decode(mu, people, torch.tensor([[0.0, 0, 900], [100, 0, 900]]), **options)
    return mu, logstd, people, placed


# Sizes.


@pytest.mark.parametrize(
    "size",
    [SMALL, Size(uv=128, width=0.25), Size(uv=256, width=0.0625), Size(uv=128, width=0.125, voxels=4)],
    ids=lambda size: f"{size.uv}-{size.voxels}",
)
def test_shapes(size):
    with torch.no_grad():
        mu, logstd, people, placed = run(model_of(size), size)
    side, count = size.voxels, (size.uv // size.voxels) ** 2
    assert mu.shape == logstd.shape == people.z_geo.shape == people.z_tex.shape == (2, 16, 4, 4)
    for maps in (people.b_geo, people.b_tex):
        assert [b.shape[-1] for b in maps] == [8 << k for k in range(size.levels)]
        assert [b.shape[1] for b in maps] == list(size.bias_channels)
    assert placed.verts.shape == (2, 4, 3)
    assert placed.positions.shape == placed.scales.shape == (2, count, 3)
    assert placed.rotations.shape == (2, count, 3, 3)
    assert placed.template.shape == (2, count, side, side, side, 4)
    assert all(part.isfinite().all() for part in vars(placed).values())


def test_width_changes_the_number_of_weights_and_no_output():
    counts = [sum(p.numel() for p in UniversalPriorModel(Size(64, width=w), 4).parameters()) for w in (0.125, 0.25, 1)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("options", [{"uv": 96}, {"uv": 2048}, {"voxels": 3}, {"uv": 64, "voxels": 16}, {"width": 0}])
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        Size(**options)


# Gradients and conditions.


def march_nothing_much(origin, direction, extent, placed):
    """Stands for a marcher: lets gradients through from all that it is given."""
    seen = sum(part.flatten(1).mean(1) for part in (placed.positions, placed.rotations, placed.scales))
    return 1e-3 * (seen[:, None] + placed.template.mean((1, 2, 3, 4)))[:, None, None].expand(*origin.shape[:3], 4)


def test_gradients_reach_every_weight():
    size = Size(uv=64, width=0.125, conditions=6)
    model = model_of(size, cameras=2, identities=2)
    model.decoder_assembler.adaptwarps.fill_(10)
    with torch.no_grad():  # at the start the untied biases and the warp are zero, which is as good a place as any
        model.id_encoder.bias.normal_()
    mu, logstd, _, placed = run(model, size, conditions=torch.randn(2, 6))
    index = torch.tensor([0, 1])
    lens = Cameras(torch.tensor([[0, 0, 900.0]] * 2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 50.0),
                   torch.full((2, 2), 3.0), index, index)  # fmt: skip
    picture = model.picture(placed, lens, torch.rand(2, 5, 7, 2), march_nothing_much)
    loss = picture.image.square().mean() + placed.verts.square().mean() + sample(mu, logstd).square().mean()
    loss.backward()
    lacking = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # The finest bias maps are made and not used, as in the public networks.
    unused = ("geo.layers.b0", "tex.layers.b0", *(f"comb.layers.{part}3" for part in ("g", "t", "g2t", "t2g")))
    assert {name for name in lacking if not name.startswith(tuple(f"id_encoder.{part}." for part in unused))} == set()


def test_conditions_steer_both_decoders():
    size = Size(uv=64, width=0.125, conditions=6)
    model = model_of(size)
    model.decoder_assembler.adaptwarps.fill_(10)
    with torch.no_grad():
        one, other = (run(model, size, conditions=torch.full((2, 6), value))[3] for value in (0.0, 1.0))
    for part in ("verts", "positions", "template"):
        assert not torch.equal(getattr(one, part), getattr(other, part))
    assert not torch.equal(one.template[..., :3], other.template[..., :3])
    assert not torch.equal(one.template[..., 3], other.template[..., 3])


def test_a_code_acts_locally():
    """An entry of the code reaches only texels of its own cell of the 4 x 4 grid and of the eight around it (P§1.6)."""
    model = model_of(SMALL)
    people = model.encode_identity(*inputs(SMALL))
    code = torch.zeros(2, 16, 4, 4)
    changed = code.clone()
    changed[:, :, 0, 0] = 1
    with torch.no_grad():
        before, after = (model.decoder_assembler.geodec(c, people.z_geo, people.b_geo).opacity for c in (code, changed))
    reached = (before != after).any(0).any(0)
    assert reached[:16, :16].all()
    assert not reached[32:].any() and not reached[:, 32:].any()


def test_a_code_of_256_numbers_is_the_grid_row_by_row():
    model = model_of(SMALL)
    mu, _, people, placed = run(model, SMALL)
    flat = model.decode(mu.flatten(1), people, torch.tensor([[0.0, 0, 900], [100, 0, 900]]))
    torch.testing.assert_close(flat.verts, placed.verts)


# Layers.


def test_first_weights_pass_unchanged_through_the_norm():
    for layer in (ConvWN(3, 5, 4, 2, 1), ConvTransposeWN(3, 5)):
        assert layer.weight.std() > 0
        torch.testing.assert_close(layer.g, layer.weight.square().sum().sqrt().expand(5))
        assert not layer.bias.any()


def test_transposed_convolution_starts_without_a_checkerboard():
    layer = ConvTransposeWN(3, 2)
    out = layer(torch.ones(1, 3, 6, 6))[..., 2:-2, 2:-2]
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))


def test_rotations_agree_with_the_exponential():
    vectors = torch.randn(8, 3, dtype=torch.float64)
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    torch.testing.assert_close(rotation_matrices(vectors), torch.linalg.matrix_exp(skew), atol=1e-4, rtol=0)


# The atlas.


def test_atlas_interpolates_texture_coordinates_to_the_texel_itself():
    rng = np.random.default_rng(0)
    points = np.concatenate([[[0, 0], [1, 0], [0, 1], [1, 1]], rng.random((30, 2))])
    from scipy.spatial import Delaunay

    atlas = build_atlas(topology(34, points, Delaunay(points).simplices), 64)
    image = interpolate(torch.from_numpy(points)[None].float(), *tables(atlas))[0]
    line = (torch.arange(64) + 0.5) / 64
    torch.testing.assert_close(image[0], line.expand(64, 64), atol=1e-6, rtol=0)
    torch.testing.assert_close(image[1], line[:, None].expand(64, 64), atol=1e-6, rtol=0)
    assert atlas.covered.all() and atlas.barycentrics.min() >= 0


def test_texels_outside_the_mesh_show_its_nearest_point():
    triangle = np.array([[0.2, 0.2], [0.6, 0.2], [0.2, 0.6]])
    atlas = build_atlas(topology(3, triangle, [[0, 1, 2]]), 32)
    rows, columns = np.indices((32, 32))
    centre = (np.stack([columns, rows], -1) + 0.5) / 32
    assert atlas.covered.mean() == pytest.approx(0.08, abs=0.02)
    np.testing.assert_array_equal(atlas.covered, (centre.min(-1) >= 0.2) & (centre.sum(-1) <= 0.8))
    dense = np.random.default_rng(0).dirichlet([0.5, 0.5, 0.5], 20000) @ triangle
    for row, column in ((0, 0), (31, 31), (0, 31), (31, 3), (10, 25)):
        found = np.linalg.norm(atlas.barycentrics[row, column] @ triangle - centre[row, column])
        assert found == pytest.approx(np.linalg.norm(dense - centre[row, column], axis=1).min(), abs=5e-3)


def test_vertices_count_at_their_first_corner_and_unused_ones_at_the_first_point():
    uv = [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.9, 0.1]]
    atlas = build_atlas(topology(5, uv, [[0, 1, 2], [1, 3, 2]], [[1, 2, 3], [5, 4, 3]]), 16)
    wanted = [[-1, 1], [1, 1], [-1, -1], [1, -1], [0, 0]]  # the second corner of vertex 1 is not looked at
    np.testing.assert_allclose(atlas.coordinates, wanted, atol=1e-6)


def test_a_mesh_outside_the_unit_square_is_refused():
    with pytest.raises(DataError, match="covers a texel"):
        build_atlas(topology(3, [[2, 2], [3, 2], [2, 3]], [[0, 1, 2]]), 16)


# Placement.


def test_primitives_lie_on_the_mesh_and_touch():
    model = model_of(SMALL)
    assembler = model.decoder_assembler
    people = model.encode_identity(*inputs(SMALL))
    placed = model.decode(
        torch.zeros(2, 256),
        people,
        torch.ones(2, 3),
        guide=torch.zeros(2, 4, 3),
        residual_weight=0.0,
        update_scale=True,
    )
    middle = (torch.arange(8) * 8 + 4.5) / 64  # texel 4 of each eight
    x, y = torch.meshgrid(100 * (2 * middle - 1), 100 * (1 - 2 * middle), indexing="xy")
    wanted = torch.stack([x, y, torch.zeros(8, 8)], -1).view(-1, 3) / 256
    torch.testing.assert_close(placed.positions, wanted.expand(2, -1, -1), atol=1e-6, rtol=0)
    turned = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])  # columns: along u, along rows, their cross product
    torch.testing.assert_close(placed.rotations, turned.expand(2, 64, 3, 3), atol=6e-3, rtol=0)
    apart = 200 / 8 / 256
    torch.testing.assert_close(placed.scales, torch.full((2, 64, 3), 0.8 * 2 / apart), rtol=1e-4, atol=0)
    model.decode(torch.zeros(2, 256), people, torch.ones(2, 3), guide=torch.zeros(2, 4, 3))
    torch.testing.assert_close(assembler.adaptwarps, torch.full((64,), 2 / apart), rtol=1e-4, atol=0)  # not updated


def test_primitive_volume():
    scales = torch.tensor([[[1.0, 2, 4], [2, 2, 2]], [[1, 1, 1], [2, 1, 1]]])
    assert float(primitive_volume(scales)) == pytest.approx(((1 / 8 + 1 / 8) + (1 + 1 / 2)) / 2)


def test_slabs_are_cut_voxel_by_voxel():
    slabs = torch.randn(1, 8 * 3, 32, 32)
    cells = cut(slabs, 8)
    for h, w, d, y, x, c in np.random.default_rng(0).integers([4, 4, 8, 8, 8, 3], size=(50, 6)):
        assert cells[0, h * 4 + w, d, y, x, c] == slabs[0, d * 3 + c, 8 * h + y, 8 * w + x]


def test_rays_go_through_their_pixels():
    rotation = rotation_matrices(torch.tensor([[3.1, 0.2, 0.1]]))
    centre, focal, princpt = torch.tensor([[50.0, -20, 800]]), torch.tensor([[900.0, 950]]), torch.tensor([[30.0, 20]])
    pixels = torch.rand(1, 4, 5, 2) * 50
    origin, direction, extent = camera_rays(centre, rotation, focal, princpt, pixels, radius_mm=256)
    for t in (extent[..., :1], extent[..., 1:]):
        point = origin + t * direction
        torch.testing.assert_close(point.abs().amax(-1), torch.ones(1, 4, 5), atol=1e-4, rtol=0)  # on the cube
        seen = (point * 256 - centre) @ rotation[0].T
        torch.testing.assert_close(seen[..., :2] / seen[..., 2:] * focal + princpt, pixels, atol=2e-2, rtol=0)


# Checkpoints.


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as the public code writes it, of random weights and a mesh of four vertices."""
    model = UniversalPriorModel(Size(), 4, cameras=3, identities=2)
    model.decoder_assembler.geodec.coords.normal_()
    state = OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items())
    path = tmp_path_factory.mktemp("published") / "aeparams.pt"
    torch.save(state, path)
    return path, state


def test_a_published_checkpoint_is_converted_and_loaded(published, tmp_path):
    source, state = published
    target = tmp_path / "upm.safetensors"
    convert(source, target)
    written = safetensors.torch.load_file(target)
    assert written.keys() == {name.removeprefix("module.") for name in state}
    assert all(torch.equal(written[name.removeprefix("module.")], value) for name, value in state.items())
    normal = Statistics(np.zeros((3, 4, 4), np.float32), 1.0, CORNERS, 2.5)
    model = load(target, normal)
    assert torch.equal(model.decoder_assembler.rgbdec.bias, state["module.decoder_assembler.rgbdec.bias"])
    assert torch.equal(model.decoder_assembler.vertmean, torch.from_numpy(CORNERS))
    assert len(model.colorcal.wcam) == 3 and len(model.colorcal.wident) == 2
    with pytest.raises(DataError, match=r"is of 4 vertices, and its statistics of 3\.$"):
        load(target, Statistics(normal.texmean, 1.0, CORNERS[:3], 2.5))


def test_a_checkpoint_cut_short_is_refused(published, tmp_path):
    source, _ = published
    path = tmp_path / "cut.pt"
    path.write_bytes(source.read_bytes()[:-1000])
    refuse(path, "is no checkpoint of torch 1.6 or newer, or was cut short.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("module.bottleneck.mu.g"), "it lacks 'bottleneck.mu.g'."),
        (lambda s: s.update({"module.extra": torch.zeros(1)}), "it has an unknown 'extra'."),
        (
            lambda s: s.update({"module.bottleneck.mu.g": torch.zeros(3)}),
            "'bottleneck.mu.g' is float32 [3] instead of float32 [16].",
        ),
        (
            lambda s: s.update({"module.colorcal.bcam": torch.full((3, 3), torch.nan)}),
            "'colorcal.bcam' that are not finite",
        ),
        (lambda s: s["module.id_encoder.uv_tidx"].fill_(4), "has texels on vertices that its mesh of 4 lacks."),
        (lambda s: s.clear(), "is no checkpoint of an ava-256 avatar: it lacks"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(published, tmp_path, monkeypatch, change, message):
    state = OrderedDict((name, value.clone() if "uv_tidx" in name else value) for name, value in published[1].items())
    change(state)
    arrays = {name: value.numpy() for name, value in state.items()}
    monkeypatch.setattr("ufe_avatar.checkpoint.read_tensors", lambda path: arrays)  # they are large to write
    refuse(tmp_path / "other.pt", message)


def refuse(path, message):
    with pytest.raises(DataError) as caught:
        convert(path, path.with_suffix(".safetensors"))
    text = str(caught.value)
    assert str(path) in text and message in text and "\n" not in text
    assert not path.with_suffix(".safetensors").exists()


class Evil:
    def __reduce__(self):
        return open, ("/nonexistent/owned", "w")


NAMES_A_FUNCTION = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
CHANGES = b"}X\x05\x00\x00\x00_callK\x01s"  # {"_call": 1}


def zipped(path, data, **arrays):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, value in arrays.items():
            archive.writestr(f"archive/data/{key}", value)


def pickled(value):
    return pickle.dumps(value, protocol=2)


def tensor_pickle(offset, size, stride, count=4):
    """What `torch.save` writes of a dictionary of one tensor, with numbers of one's choice."""

    class Tensor:
        def __reduce__(self):
            import torch._utils

            return torch._utils._rebuild_tensor_v2, (STORAGE, offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "x", "cpu", count) if value is STORAGE else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump({"a": Tensor()})
    return file.getvalue()


STORAGE = object()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickled({"a": Evil()}), "which is no part of a tensor."),
        (NAMES_A_FUNCTION + CHANGES + b"b.", "is refused or damaged"),
        (NAMES_A_FUNCTION + b"N" + CHANGES + b"\x86b.", "is refused or damaged: read only."),
        (pickled([1, 2]), "is no dictionary of tensors"),
        (pickled({"a": 1}), "is no dictionary of tensors"),
        (b"\x80\x02}", "is refused or damaged"),
        (tensor_pickle(0, (5,), (1,)), "a tensor that reaches beyond its array."),
        (tensor_pickle(1, (4,), (1,)), "a tensor that reaches beyond its array."),
        (tensor_pickle(3, (2,), (-3,)), "a tensor that reaches beyond its array."),
        (tensor_pickle(0, (2**40,), (0,)), "a tensor larger than its array."),
        (tensor_pickle(0, (4,), (1,), count=5), "array x has not the size that is said."),
    ],
)
def test_a_file_that_does_more_than_name_tensors_is_refused(tmp_path, data, message):
    path = tmp_path / "bad.pt"
    zipped(path, data, x=np.zeros(4, np.float32).tobytes())
    refuse(path, message)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "bad.pt"
    refuse(path, "cannot be read: No such file or directory.")
    path.write_bytes(pickle.dumps({"a": Evil()}))
    refuse(path, "is no checkpoint of torch 1.6 or newer, or was cut short.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled({}))
    refuse(path, "it is compressed, which torch never does.")


def test_what_need_not_be_stored_follows_from_the_mesh():
    """A model without the built entries, given the mesh, is the same model."""
    model = model_of(SMALL)
    learnt = {name: value for name, value in model.state_dict().items() if name not in BUILT}
    other = model_of(SMALL)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert set(other.load_state_dict(learnt, strict=False).missing_keys) == set(BUILT)
    with torch.no_grad():
        one, two = run(model, SMALL)[3], run(other, SMALL)[3]
    assert all(torch.equal(getattr(one, part), getattr(two, part)) for part in vars(one))


# Statistics.


def test_statistics_of_captures_on_disk(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    listing = tmp_path / "ids.csv"
    listing.write_text("mcd,sid,mct\n20230101,AAA001,0900\n20230102,BBB002,1000\n20230103,CCC003,1100\n")
    for name in ("20230101--0900--AAA001", "20230102--1000--BBB002"):
        decoder = tmp_path / name / "decoder"
        (decoder / "uv_image").mkdir(parents=True)
        (decoder / "kinematic_tracking").mkdir()
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(decoder / "uv_image" / "color_mean.png")
        np.save(decoder / "kinematic_tracking" / "registration_vertices_mean.npy", rng.normal(size=(5, 3)))
        (decoder / "kinematic_tracking" / "registration_vertices_variance.txt").write_text("6.25\n")
    folders = first_captures(tmp_path, listing, 2)
    averages = [read_averages(folder) for folder in folders]
    found = statistics(averages)
    textures, meshes = (np.stack([getattr(one, name) for one in averages]) for name in ("texmean", "vertmean"))
    assert [one.vertstd for one in averages] == [2.5, 2.5]
    np.testing.assert_allclose(found.texmean, textures.mean(0), rtol=1e-6)
    assert found.texstd == pytest.approx(textures.std(0).__pow__(2).mean() ** 0.5)
    assert found.vertstd == pytest.approx((meshes.var(0).mean() + 6.25) ** 0.5)
    assert found.vertmean.dtype == found.texmean.dtype == np.float32
    found.save(tmp_path / "s.safetensors")
    again = Statistics.load(tmp_path / "s.safetensors")
    assert (again.texstd, again.vertstd) == (found.texstd, found.vertstd)
    assert np.array_equal(again.texmean, found.texmean) and np.array_equal(again.vertmean, found.vertmean)
    with pytest.raises(DataError, match=r"color_mean.png is missing or damaged"):
        read_averages(first_captures(tmp_path, listing, 3)[2])
    with pytest.raises(DataError, match="lists 3 of the 4 captures that were asked for"):
        first_captures(tmp_path, listing, 4)
    with pytest.raises(DataError, match="There is no folder '.*nowhere' of captures"):
        first_captures(tmp_path / "nowhere", listing, 2)


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\xff\xfe\x00", b"mcd,sid\na,b\n", b"mcd,sid,mct\na,b\n"])
def test_another_file_is_no_list_of_captures(tmp_path, data):
    listing = tmp_path / "ids.csv"
    listing.write_bytes(data)
    with pytest.raises(DataError, match=r"ids\.csv is no list of captures: a CSV file with columns mcd, sid, mct"):
        first_captures(tmp_path, listing, 1)


def test_another_file_holds_no_statistics(tmp_path):
    right = {"texmean": (3, 2, 2), "texstd": (1,), "vertmean": (4, 3), "vertstd": (1,)}
    changes = {"texmean": (1, 2, 2), "vertmean": (4, 2), "texstd": (2,), "vertstd": (0,), "more": (1,)}
    path = tmp_path / "s.safetensors"
    for shapes in (*({**right, name: shape} for name, shape in changes.items()), {"texmean": (3, 2, 2)}):
        safetensors.numpy.save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)
        with pytest.raises(DataError, match="holds no statistics of captures"):
            Statistics.load(path)


def test_statistics_of_nothing_or_of_different_meshes_are_refused():
    one = Averages(np.zeros((3, 2, 2), np.float32), np.zeros((4, 3), np.float32), 1.0)
    other = Averages(np.zeros((3, 2, 2), np.float32), np.zeros((5, 3), np.float32), 1.0)
    with pytest.raises(DataError, match="at least one"):
        statistics([])
    with pytest.raises(DataError, match="differ in shape"):
        statistics([one, other])
