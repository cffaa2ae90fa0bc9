"""The networks at the public size against outputs of the public ava-256 code (tests/golden/ava256/README.md)."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ufe_avatar.networks.assembler import cut
from ufe_avatar.networks.atlas import build_atlas
from ufe_avatar.networks.decoders import Geometry
from ufe_avatar.networks.encoders import Conditioning, divergence
from ufe_avatar.networks.layers import ConvTransposeWN, ConvWN, LinearWN, rotation_matrices
from ufe_avatar.networks.model import Cameras, UniversalPriorModel
from ufe_avatar.networks.size import Size
from ufe_avatar.statistics import Averages, statistics
from ufe_core.types import MeshTopology

GOLDEN = Path(__file__).parents[1] / "golden" / "ava256"
ENTRIES = json.loads((GOLDEN / "state_dict.json").read_text())["entries"]
GRID = 32
SIDES = [8 << k for k in range(8)]


class Goldens:
    def __init__(self):
        self.file = safe_open(GOLDEN / "networks.safetensors", "np")
        self.shapes = json.loads(self.file.metadata()["tensors"])

    def __getitem__(self, name):
        return torch.from_numpy(self.file.get_tensor(name))


GOLDENS = Goldens()


def normal(name, shape):
    """The numbers of the rule for a name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(size=tuple(shape), dtype=np.float32))


def given(name, shape, scale=0.5):
    return scale * normal(f"input/{name}", shape)


def weight_of_rule(name, entry):
    n, role = normal(name, entry["shape"]), entry["role"]
    count = entry["shape"][0]
    rules = {
        "plain weight": lambda: n * np.float32((2 / np.prod(entry["shape"][1:])) ** 0.5),
        "warp offset": lambda: n,
        "untied output bias": lambda: 35 + n if "geodec" in name else 0.1 * n,
        "running primitive scale": lambda: 250 * (0.1 * n).exp(),
        "convtranspose_wn.g": lambda: np.float32((8 * count) ** 0.5) * (1 + 0.1 * n),
        "conv_wn.g": lambda: np.float32((2 * count) ** 0.5) * (1 + 0.1 * n),
        "linear_wn.g": lambda: np.float32((2 * count) ** 0.5) * (1 + 0.1 * n),
        "colour calibration": lambda: {"wcam": 1 + 0.1 * n, "bcam": 5 * n, "wident": 0.1 * n, "bident": n}[
            name.split(".")[-1]
        ],
    }
    return rules.get(role, lambda: 0.05 * n)()


def grid_mesh():
    """A paraboloid of 33 x 33 vertices: its topology, and its positions in mm."""
    j, i = np.divmod(np.arange((GRID + 1) ** 2), GRID + 1)
    x, y = 2 * i / GRID - 1, 2 * j / GRID - 1
    positions = np.stack([100 * x, 100 * y, 60 * (1 - x * x - y * y)], -1).astype(np.float32)
    uv = np.stack([i / GRID, 1 - j / GRID], -1).astype(np.float32)  # v from the top, as in MeshTopology
    a = (np.arange(GRID)[:, None] * (GRID + 1) + np.arange(GRID)).reshape(-1)
    faces = np.stack([a, a + 1, a + GRID + 2, a, a + GRID + 2, a + GRID + 1], -1).reshape(-1, 3)
    return MeshTopology(len(uv), faces, uv, faces, {}, np.ones(len(uv), np.float32)), torch.from_numpy(positions)


def difference(found, name):
    """The largest difference from a golden tensor, over the largest number of that."""
    key = name if name in GOLDENS.shapes else f"grid/{name}"
    golden = GOLDENS[key]
    if key.startswith("grid/") and key in GOLDENS.shapes:
        assert list(found.shape) == GOLDENS.shapes[key]["shape"]
    if found.numel() > 1024 and golden.numel() == 1024:
        name = key.removeprefix("grid/")
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"index/{name}".encode())))
        found = found.reshape(-1)[np.sort(generator.integers(0, found.numel(), size=1024, dtype=np.int64))]
    return float((found.reshape(-1) - golden.reshape(-1)).abs().max() / golden.abs().max())


@pytest.fixture(scope="module")
def atlas():
    return build_atlas(grid_mesh()[0], 1024)


@pytest.fixture(scope="module")
def model(atlas):
    positions = grid_mesh()[1]
    model = UniversalPriorModel(Size(), len(positions), cameras=3, identities=2).eval().requires_grad_(False)
    model.set_atlas(atlas)
    model.set_statistics(positions, 2.5)
    state = {name: weight_of_rule(name, entry) for name, entry in ENTRIES.items() if entry["role"] != "built"}
    built = {name for name, entry in ENTRIES.items() if entry["role"] == "built"}
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys and set(report.missing_keys) == built
    return model


# Single layers.


@pytest.mark.parametrize(
    ("name", "source", "layer"),
    [
        ("conv_k4s2", "x3", lambda: ConvWN(3, 5, 4, 2, 1)),
        ("conv_k3s1", "x3", lambda: ConvWN(3, 5, 3, 1, 1)),
        ("conv_k1", "x3", lambda: ConvWN(3, 5, 1, 1, 0)),
        ("convt_k4s2", "x4", lambda: ConvTransposeWN(4, 6)),
        ("linear", "xl", lambda: LinearWN(3, 16)),
    ],
)
def test_layer(name, source, layer):
    layer = layer()
    layer.load_state_dict(
        {key: normal(f"micro/{name}.{key}", value.shape) for key, value in layer.state_dict().items()}
    )
    x = given(f"micro/{source}", {"x3": (2, 3, 10, 10), "x4": (2, 4, 5, 5), "xl": (4, 3)}[source], 1)
    torch.testing.assert_close(layer(x).detach(), GOLDENS[f"micro/{name}.y"], atol=1e-6, rtol=0)


def test_rotations():
    found = rotation_matrices(GOLDENS["micro/rodrigues.in"])
    torch.testing.assert_close(found, GOLDENS["micro/rodrigues.out"], atol=1e-6, rtol=0)


def test_divergence():
    found = divergence(*(given(f"micro/kl_{part}", (2, 16, 4, 4), 1) for part in ("mu", "ls")))
    torch.testing.assert_close(found.mean(-1), GOLDENS["micro/kl.out"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.mean()[None], GOLDENS["micro/kl.mean"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_statistics(count):
    captures = [
        Averages(
            (100 + given(f"micro/texmean{j}", (3, 4, 4), 20)).numpy(),
            given(f"micro/vertmean{j}", (6, 3), 30).numpy(),
            2 + 0.5 * j,
        )
        for j in range(count)
    ]
    for name, value in vars(statistics(captures)).items():
        golden = GOLDENS[f"micro/stats{count}.{name}"]
        np.testing.assert_allclose(np.reshape(value, golden.shape), golden, rtol=1e-6, atol=1e-5)


CAMERA, IDENTITY = torch.tensor([2, 0]), torch.tensor([1, 0])


def test_colour_calibration(model):
    image = given("micro/cc_image", (2, 3, 4, 5), 50)
    found = model.colorcal(image, CAMERA, IDENTITY)
    torch.testing.assert_close(found, GOLDENS["micro/colorcal.out"], atol=1e-4, rtol=0)


def test_background(model):
    found = model.bgmodel(GOLDENS["micro/bgmodel.samplecoords"], CAMERA, IDENTITY)
    torch.testing.assert_close(found, GOLDENS["micro/bgmodel.out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [8, 64, 256])
def test_warp(model, side):
    found = model.id_encoder.warp(given(f"micro/warp{side}", (1, 2, side, side), 1)).reshape(-1)
    golden = GOLDENS[f"micro/warp{side}.out"]
    assert (found[GOLDENS[f"micro/warp{side}.index"].long()] - golden).abs().max() < 5e-5 * golden.abs().max()


# The state dict and the atlas.


def test_names_and_shapes_are_those_of_a_checkpoint():
    with torch.device("meta"):
        model = UniversalPriorModel(Size(), 7306, cameras=3, identities=2)
    found = {name: (list(value.shape), str(value.dtype)) for name, value in model.state_dict().items()}
    assert found == {name: (entry["shape"], f"torch.{entry['dtype']}") for name, entry in ENTRIES.items()}
    assert {name for name, _ in model.named_buffers() if name in found} == {
        name for name, entry in ENTRIES.items() if entry["kind"] == "buffer"
    }


def test_rule_makes_the_weights_of_the_goldens():
    for name, entry in ENTRIES.items():
        if "rule_check" in entry:
            value = weight_of_rule(name, entry).reshape(-1)
            torch.testing.assert_close(value[:3].tolist(), entry["rule_check"]["first"][:3], atol=1e-6, rtol=1e-6)


def test_atlas(atlas):
    texel = GOLDENS["grid/uv.texel"].numpy()
    vertices, weights = atlas.vertices.reshape(-1, 3)[texel], atlas.barycentrics.reshape(-1, 3)[texel]
    positions = (grid_mesh()[1].numpy()[vertices] * weights[..., None]).sum(1)
    np.testing.assert_allclose(positions, GOLDENS["grid/uv.position"].numpy(), atol=2e-5)
    inside = weights.min(1) > 1e-6  # on an edge both triangles are right
    assert inside.mean() > 0.9 and atlas.covered.all()
    np.testing.assert_array_equal(vertices[inside], GOLDENS["grid/uv.idx"].numpy()[inside])
    np.testing.assert_allclose(weights[inside], GOLDENS["grid/uv.bary"].numpy()[inside], atol=2e-5)


# The networks, in the order in which data flows; the first that fails names the faulty part.


@pytest.fixture(scope="module")
def found(model):
    """Each tensor's difference from the golden one."""
    with torch.no_grad():
        people, differences = _identities(model)
        code, more = _expressions(model)
        differences |= more | _decoder(model) | _render(model, code, people)
        views = torch.tensor([[120.0, -30, 940], [-400, 60, 700]])
        return differences | _of_placed("e2e", model.decode(code, people, views))


def _identities(model):
    encoder = model.id_encoder
    verts, texture = given("grid/neut_verts", (2, 1089, 3)), given("neut_avgtex", (2, 3, 1024, 1024))
    image = encoder.position_image(verts)
    out = {"id_encoder.geomap": difference(image, "id_encoder.geomap")}
    maps = []
    for name, network, source in (("geo", encoder.geo, image), ("tex", encoder.tex, texture)):
        z, b = network(source)
        maps.append(b)
        out |= {key: difference(value, key) for key, value in _named(f"id_encoder.{name}.", z, b).items()}
    for name, b in zip(("geo", "tex"), encoder.comb(*maps), strict=True):
        keys = [f"id_encoder.comb.{name}{k}" for k in range(8)]
        out |= {key: difference(value, key) for key, value in zip(keys, b, strict=True)}
    del maps, b
    people = model.encode_identity(verts, texture)
    for part in ("geo", "tex"):
        key = f"id_cond.z_{part}"
        out[key] = difference(getattr(people, f"z_{part}"), key)
        for k, value in enumerate(getattr(people, f"b_{part}")):
            key = f"id_cond.b_{part}{k}"
            out[key] = difference(value, key)
    return people, out


def _named(prefix, z, maps):
    return {f"{prefix}z": z} | {f"{prefix}b{k}": value for k, value in enumerate(maps)}


def _expressions(model):
    values = {}
    for name in ("tex", "geo"):
        layer = getattr(model.expr_encoder, name)
        layer.register_forward_hook(lambda _, __, y, name=name: values.update({f"expr_encoder.{name}": y}))
    model.expr_encoder.register_forward_hook(lambda _, __, y: values.update({"expr_encoder.out": y}))
    mu, logstd = model.encode_expression(*_faces())
    values |= {"bottleneck.mu": mu, "bottleneck.logstd": logstd}
    return mu, {key: difference(value, key) for key, value in values.items()}


def _faces():
    verts = [given(f"grid/{name}", (2, 1089, 3)) for name in ("verts", "neut_verts")]
    textures = [given(name, (2, 3, 1024, 1024)) for name in ("avgtex", "neut_avgtex")]
    return verts[0], textures[0], verts[1], textures[1]


def _decoder(model):
    assembler = model.decoder_assembler
    maps = {
        part: [
            given(f"b_{part}{k}", (1, c, r, r))
            for k, (c, r) in enumerate(zip(Size().bias_channels, SIDES, strict=True))
        ]
        for part in ("geo", "tex")
    }
    z = {part: given(f"z_{part}", (1, 16, 4, 4)) for part in ("geo", "tex")}
    people = Conditioning(z["geo"], z["tex"], maps["geo"], maps["tex"])
    kept = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, y, name=name: kept.update({name: y}))
        for name, layer in (("geodec", assembler.geodec), ("rgbdec", assembler.rgbdec))
    ]
    placed = model.decode(given("expr_code", (1, 16, 4, 4), 1), people, torch.tensor([[120.0, -30, 940]]))
    for hook in hooks:
        hook.remove()
    geometry = kept["geodec"]
    names = dict(opacity="opacity", offsets="geo", position="posresid", rotation="rvecresid", scale="scaleresid")
    geometry = geometry._replace(opacity=cut(geometry.opacity, 8))
    out = {
        f"dec.geodec.{name}": difference(getattr(geometry, key), f"dec.geodec.{name}") for key, name in names.items()
    }
    out["dec.rgbdec"] = difference(cut(kept["rgbdec"], 8), "dec.rgbdec")
    return out | _of_placed("dec", placed) | _placements(assembler, geometry, placed.verts)


def _of_placed(prefix, placed):
    names = dict(verts="verts", positions="primpos", rotations="primrot", scales="primscale", template="template")
    return {f"{prefix}.{ours}": difference(getattr(placed, key), f"{prefix}.{ours}") for key, ours in names.items()}


def _placements(assembler, geometry: Geometry, verts):
    out = {}
    for weight in (0.0, 0.5):
        values = assembler.place(verts, geometry, weight, False)
        for part, value in zip(("primpos", "primrot", "primscale"), values, strict=True):
            out[f"dec.rw{weight}.{part}"] = difference(value, f"dec.rw{weight}.{part}")
    guide = given("grid/gt_geo", (1, 1089, 3))
    values = assembler.place(assembler.denormalised(guide), geometry, 0.0, False)
    out["dec.gt.verts"] = difference(verts, "dec.gt.verts")
    for part, value in zip(("primpos", "primrot"), values, strict=False):
        out[f"dec.gt.{part}"] = difference(value, f"dec.gt.{part}")
    before = assembler.adaptwarps.clone()
    assembler.adaptwarps.zero_()
    scales = assembler.place(assembler.denormalised(guide), geometry, 0.0, True)[2]
    out["dec.adapt.first"] = difference(assembler.adaptwarps, "dec.adapt.first")
    out["dec.adapt.first_primscale"] = difference(scales, "dec.adapt.first_primscale")
    assembler.place(assembler.denormalised(2 * guide), geometry, 0.0, True)
    out["dec.adapt.second"] = difference(assembler.adaptwarps, "dec.adapt.second")
    assembler.adaptwarps.copy_(before)
    return out


def _render(model, code, people):
    lens = [GOLDENS[f"grid/render.{name}"] for name in ("campos", "camrot", "focal", "princpt")]
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    pixels = torch.stack([x, y], -1).expand(2, -1, -1, -1)
    picture = model.picture(model.decode(code, people, lens[0]), Cameras(*lens, CAMERA, IDENTITY), pixels, march_slowly)
    found = {"irgbrec": picture.image, "ialpha": picture.alpha, "bg": picture.background, "encoding": code}
    return {f"render.{key}": float((value - GOLDENS[f"grid/render.{key}"]).abs().max()) for key, value in found.items()}


def march_slowly(origin, direction, extent, placed):
    """Every sample of every ray in every primitive; interface.md 5.2 of ava-256."""
    return torch.stack([
        _march_one(*(part[b].flatten(0, 1) for part in (origin, direction, extent)), placed, b).view(16, 16, 4)
        for b in range(len(origin))
    ])  # fmt: skip


def _march_one(origin, direction, extent, placed, b, step=1 / 256):
    turned, position, scale = placed.rotations[b], placed.positions[b], placed.scales[b]
    start = torch.einsum("rki,kij->rkj", origin[:, None] - position, turned) * scale  # [rays, K, 3]
    slope = torch.einsum("ri,kij->rkj", direction, turned) * scale
    walls = torch.stack([(-1 - start) / slope, (1 - start) / slope])
    entry, leave = walls.amin(0).amax(-1), walls.amax(0).amin(-1)
    ray, primitive = torch.nonzero(entry < leave, as_tuple=True)
    near, far = extent[:, 0], extent[:, 1]
    first = torch.full_like(near, torch.inf).scatter_reduce(0, ray, entry[ray, primitive], "amin").maximum(near)
    last = torch.zeros_like(far).scatter_reduce(0, ray, leave[ray, primitive], "amax").minimum(far)
    begin = near + ((first - near) / step).floor() * step
    n = ((entry[ray, primitive] - begin[ray]) / step).floor()[:, None] + torch.arange(12)
    t = begin[ray, None] + n * step
    assert (t[:, -1] > leave[ray, primitive]).all()  # no primitive is longer than what is looked at
    place = start[ray, primitive][:, None] + t[..., None] * slope[ray, primitive][:, None]
    counts = (n >= 0) & (t < last[ray, None] + 1e-5) & (place.abs() < 1).all(-1)
    pair, k = torch.nonzero(counts, as_tuple=True)
    place, ray, primitive, n = place[pair, k], ray[pair], primitive[pair], n[pair, k].long()
    value = _trilinear(placed.template[b], primitive, place)
    alpha = value[:, 3] * torch.exp(-8 * place.abs().pow(8).sum(-1)) * step
    order = torch.argsort((ray * 4096 + n) * len(position) + primitive)
    out = torch.zeros(len(origin), 4)
    for r in range(len(origin)):
        mine = order[ray[order] == r]
        total = alpha[mine].double().cumsum(0).clamp_max(1)
        weight = torch.diff(total, prepend=total.new_zeros(1)).float()
        out[r] = torch.cat([(weight[:, None] * value[mine, :3]).sum(0), weight.sum()[None]])
    return out


def _trilinear(template, primitive, place):
    side = template.shape[1]
    at = (place + 1) / 2 * (side - 1)
    low = at.floor().long().clamp(0, side - 2)
    part = at - low
    value = 0
    for corner in range(8):
        up = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])
        x, y, z = (low + up).unbind(-1)
        value = value + torch.where(up > 0, part, 1 - part).prod(-1)[:, None] * template[primitive, z, y, x]
    return value


def allowed(name):
    """How far off a tensor may be: the warp amplifies rounding, and frames are differences of neighbouring texels."""
    if name.startswith("id_cond.b_"):
        return 1e-4 * 2 ** max(0, int(name[-1]) - 3)
    if name.startswith("render."):  # grey levels, opacity, code
        return {"irgbrec": 0.1, "ialpha": 1e-3, "bg": 0.1, "encoding": 1e-5}[name.removeprefix("render.")]
    if name.endswith("primrot"):
        return 2e-3
    return 1e-4 if "adapt" in name or name.endswith("template") else 2e-5


NAMES = [name.removeprefix("grid/") for name in GOLDENS.shapes if name.startswith("grid/")]
RENDERED = [f"render.{part}" for part in ("encoding", "bg", "ialpha", "irgbrec")]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("uv.")] + RENDERED)
def test_network(found, name):
    assert found[name] <= allowed(name)
