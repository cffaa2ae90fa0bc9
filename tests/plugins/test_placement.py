"""Where primitives sit on the simulator's head, recomputed from texels, planes and boxes in plain numpy."""

from collections import defaultdict

import numpy as np
import pytest
import torch
import warp as wp

from ufe_avatar.codec import CODE_SIZE, CONDITIONS, Codec
from ufe_avatar.networks.atlas import build_atlas
from ufe_avatar.networks.size import Size
from ufe_avatar.placement import Placement
from ufe_avatar.placement_warp import rise
from ufe_core.ops.kernels import warp
from ufe_core.types import MeshTopology

from .gazes import AHEAD

SIZES = [(64, 4), (128, 8)]
IN_FRONT = (0.0, 0.0, 900.0)
ABOVE = (16.0, 16.0, -900.0)  # of the flat meshes below, whose upper side looks against z as the head's skin does
RAISED_MM = 0.03  # slabs begin so much before the mesh
SEEN_MM = 0.2  # and show what lies on the ray so much before a voxel


def islands(topology):
    """Of each face the connected part of the UV layout, by walking from face to face."""
    faces_at = defaultdict(list)
    for face, points in enumerate(topology.uv_faces.tolist()):
        for point in points:
            faces_at[point].append(face)
    owner = np.full(len(topology.uv_faces), -1)
    for first in range(len(owner)):
        if owner[first] >= 0:
            continue
        owner[first], todo = first, [first]
        while todo:
            for point in topology.uv_faces[todo.pop()].tolist():
                for face in faces_at[point]:
                    if owner[face] < 0:
                        owner[face] = first
                        todo.append(face)
    return owner


class Scene:
    """A mesh, its atlas and placement, and cells taken apart one by one; what lies below `neck_mm` is neck."""

    def __init__(self, topology, mesh, uv, voxels, neck_mm=np.inf):
        self.topology, self.uv, self.voxels, self.across = topology, uv, voxels, 2 * voxels
        self.atlas = build_atlas(topology, uv)
        self.placement = Placement(topology, self.atlas, voxels, 2)
        self.placement.set_rest(torch.from_numpy(mesh), neck_mm=neck_mm)
        self.island = islands(topology)
        self.place(mesh)

    def place(self, mesh, eye=IN_FRONT):
        """Put the primitives on another mesh, seen from `eye`; `on_plane` is where their planes' middles are."""
        self.mesh = mesh
        placed = self.placement(torch.from_numpy(mesh)[None], torch.tensor([eye]))
        names = ("centre", "axes", "half_size", "places", "shell", "facing")
        found = {name: getattr(placed, name)[0].numpy() for name in names}
        self.centre, self.axes, self.half_size, self.places, self.shell, self.facing = found.values()
        self.shell = self.shell.reshape(-1, self.voxels, self.across, self.across)
        # Where no slab is deepened.
        self.on_plane = self.centre - self.placement.shift.numpy()[:, None] * self.axes[..., 2]
        self.spacing = 2 * self.half_size[:, 2] / (self.voxels - 1)
        towards = np.einsum("ki,kij->kj", np.array(eye) - self.on_plane, self.axes)
        self.slant = towards[:, :2] / -towards[:, 2:]  # of rays, on primitives that face the eye

    def opacity_at(self, k, points):
        """The shell of primitive k, interpolated at points [n, 3], in mm behind where it begins."""
        local = (points - self.centre[k]) @ self.axes[k] / self.half_size[k]
        grid = torch.from_numpy(local).float()[None, None, None]
        field = torch.from_numpy(self.shell[k])[None, None]
        return torch.nn.functional.grid_sample(field, grid, align_corners=True)[0, 0, 0, 0].numpy() * self.spacing[k]

    def texels(self, cell):
        """Rows and columns of a cell's texels, row by row."""
        row, column = divmod(cell, self.uv // self.voxels)
        rows, columns = np.indices((self.voxels, self.voxels)).reshape(2, -1)
        return rows + row * self.voxels, columns + column * self.voxels

    def own(self, cell):
        """Which of them its primitive covers: those of the island of the covered one nearest to the middle."""
        rows, columns = self.texels(cell)
        covered = self.atlas.covered[rows, columns]
        if not covered.any():
            return covered
        away = np.hypot(rows + 0.5 - rows.mean() - 0.5, columns + 0.5 - columns.mean() - 0.5)
        island = self.island[self.atlas.faces[rows, columns]]
        return covered & (island == island[np.where(covered, away, np.inf).argmin()])

    def points(self, cell):
        """Positions [n, 3] of its own texels' centres, and where these are in the texture, [n, 2] texels."""
        rows, columns = (value[self.own(cell)] for value in self.texels(cell))
        corners = self.mesh[self.topology.faces[self.atlas.faces[rows, columns]]].astype(np.float64)
        found = np.einsum("nk,nkd->nd", self.atlas.barycentrics[rows, columns], corners)
        return found, np.stack([columns, rows], -1) + 0.5


@pytest.fixture(scope="module", params=SIZES, ids=[f"{uv}-{voxels}" for uv, voxels in SIZES])
def scene(request, head):
    return Scene(head.topology, head.template, *request.param)


def square(*, seam=None, uv_side=32):
    """A unit square of texels, 1 mm each, or two beside a seam at a texel; in the plane z = 0."""
    sides = ((0, 1),) if seam is None else ((0, (seam - 0.05) / uv_side), ((seam + 0.05) / uv_side, 1))
    uv = np.array([[u, v] for side in sides for v in (0, 1) for u in side], np.float32)
    faces = np.array([[0, 2, 1], [1, 2, 3], [4, 6, 5], [5, 6, 7]], np.int64)[: 2 * len(sides)]
    topology = MeshTopology(len(uv), faces, uv, faces, {}, np.ones(len(uv), np.float32))
    return topology, np.concatenate([uv * uv_side, np.zeros((len(uv), 1))], 1).astype(np.float32)


def sheet(side):
    """A square of `side` x `side` texels, 1 mm each, of two faces a texel; in the plane z = 0."""
    at = np.arange(side + 1)
    uv = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    corner = (at[:-1, None] * (side + 1) + at[None, :-1]).ravel()
    below, beside = corner + side + 1, corner + 1
    faces = np.concatenate([np.stack(c, 1) for c in ((corner, below, beside), (beside, below, below + 1))])
    weights = np.ones(len(uv), np.float32)
    topology = MeshTopology(len(uv), faces, (uv / side).astype(np.float32), faces, {}, weights)
    return topology, np.concatenate([uv, np.zeros((len(uv), 1))], 1).astype(np.float32)


def test_cells_without_mesh_are_dropped_and_no_others(scene):
    cells = range((scene.uv // scene.voxels) ** 2)
    holds = [cell for cell in cells if scene.own(cell).any()]
    assert scene.placement.kept.tolist() == holds and 0 < len(holds) < len(cells)
    assert len(scene.half_size) == len(scene.shell) == len(scene.places) == len(holds)


def test_every_texel_that_a_cell_covers_is_inside_its_box(scene):
    filled = []
    for k, cell in enumerate(scene.placement.kept.tolist()):
        points, _ = scene.points(cell)
        reached = np.abs((points - scene.centre[k]) @ scene.axes[k]).max(0)
        assert (reached < scene.half_size[k]).all(), f"a texel of cell {cell} sticks out of its box"
        filled.append(reached / scene.half_size[k])
    assert np.median(filled, 0)[:2].min() > 0.5, "boxes are no larger than their texels need"


def test_a_primitive_lies_on_the_plane_that_fits_its_texels(scene):
    lines = 0
    for k, cell in enumerate(scene.placement.kept.tolist()):
        points, texels = scene.points(cell)
        np.testing.assert_allclose(scene.on_plane[k], points.mean(0), atol=1e-3)
        away = texels - texels.mean(0)
        if np.linalg.matrix_rank(away) < 2:
            lines += 1
            continue
        right, down = np.linalg.lstsq(away, points - points.mean(0), rcond=None)[0]
        along = right / np.linalg.norm(right)
        normal = np.cross(right, down)
        normal /= np.linalg.norm(normal)
        expected = np.stack([along, np.cross(normal, along), normal], 1)
        np.testing.assert_allclose(scene.axes[k], expected, atol=1e-3)
        apart = [np.linalg.norm(right), expected[:, 1] @ down]
        np.testing.assert_allclose(scene.placement.apart[k], np.maximum(apart, 1e-3), rtol=2e-3, atol=1e-4)
    assert 0 < lines < len(scene.centre) / 5, "a few cells hold a line of texels; most, a patch"
    eye = np.eye(3)[None].repeat(len(scene.axes), 0)
    np.testing.assert_allclose(scene.axes.transpose(0, 2, 1) @ scene.axes, eye, atol=1e-6)


def test_primitives_follow_the_mesh(scene):
    """Turned, moved and grown meshes have turned, moved and grown primitives; several at a time are each their own."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    mesh = scene.mesh.astype(np.float64)
    both = torch.from_numpy(np.stack([mesh, 2 * mesh @ turn.T + [5, -7, 9]])).float()
    eyes = np.stack([IN_FRONT, 2 * np.array(IN_FRONT) @ turn.T + [5, -7, 9]])
    placed = scene.placement(both, torch.from_numpy(eyes).float())
    np.testing.assert_allclose(placed.centre[0], scene.centre, atol=1e-4)
    shift = scene.placement.shift.numpy()[:, None] * placed.axes[1, ..., 2].numpy()
    np.testing.assert_allclose(placed.centre[1].numpy() - shift, 2 * scene.on_plane @ turn.T + [5, -7, 9], atol=1e-3)
    np.testing.assert_allclose(placed.axes[1], turn @ scene.axes, atol=2e-3)
    np.testing.assert_allclose(placed.half_size[1, :, :2], 2 * scene.half_size[:, :2], rtol=5e-3)
    np.testing.assert_allclose(placed.half_size[1, :, 2], scene.half_size[:, 2])
    across = 2 / scene.uv / scene.placement.apart.numpy().clip(1e-3)  # of a millimetre at rest, in the texture's unit
    steep = np.hypot(*scene.slant.T) < 2  # where rays pass what a voxel shows nearer to it than half of SEEN_MM
    away = np.abs((placed.places[1] - placed.places[0]).numpy()).max(1)
    assert (away[steep & scene.facing] < 2e-3 + SEEN_MM * across[steep & scene.facing]).all()


@pytest.mark.parametrize("eye", [ABOVE, (916.0, 16.0, -900.0)], ids=["above", "aslant"])
def test_voxels_show_the_texels_that_rays_passed_before_them(eye):
    """On a flat square that place is known: where a voxel's centre lies, and a little towards the eye."""
    flat = Scene(*square(), 32, 4)
    flat.place(flat.mesh, eye)
    line = np.linspace(-1, 1, 8)
    for k, cell in enumerate(flat.placement.kept.tolist()):
        row, column = divmod(cell, 8)
        np.testing.assert_allclose(flat.on_plane[k], [4 * column + 2, 4 * row + 2, 0], atol=1e-5)
        at = line * flat.half_size[k, 0]
        x, y = (np.clip(at + SEEN_MM * slant, -2.5, 2.5) for slant in flat.slant[k])
        across, down = np.meshgrid(4 * column + 2 + x, 4 * row + 2 + y)
        expected = np.stack([across.ravel(), down.ravel()], -1)
        inner = ((expected >= 0.5) & (expected <= 31.5)).all(1)
        np.testing.assert_allclose((flat.places[k] + 1)[inner] * 16, expected[inner], atol=1e-4)
    assert np.abs(flat.slant).max() < (0.02 if eye == ABOVE else 1.1)
    np.testing.assert_allclose(flat.half_size[:, :2], 2.8, rtol=1e-5)
    np.testing.assert_allclose(flat.placement.apart, 1, rtol=1e-5)


@pytest.mark.parametrize("bent", [False, True], ids=["sheared", "bent"])
def test_voxels_keep_to_their_texels_on_a_mesh_of_another_shape(bent):
    """A square of many faces, at rest flat, is sheared and stretched, or bent into a bowl: voxels' columns that lie on
    the mesh show the texels that lie there, and their shells begin on it."""
    topology, mesh = sheet(32)
    scene = Scene(topology, mesh, 32, 4)
    x, y = mesh[:, 0].astype(np.float64), mesh[:, 1].astype(np.float64)
    moved = np.stack([1.3 * x + 0.4 * y, 0.9 * y, 0 * x], 1)
    if bent:
        moved = np.stack([x, y, 0.01 * np.square(x - 13) + 0.008 * np.square(y - 17)], 1)
    scene.place(moved.astype(np.float32), ABOVE)
    local = np.stack(np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8)), -1).reshape(-1, 2)
    inner = np.abs(local).max(1) < 0.7
    for k, cell in enumerate(scene.placement.kept.tolist()):
        offset = np.concatenate([local * scene.half_size[k, :2], np.zeros((64, 1))], 1)
        point = scene.on_plane[k] + offset @ scene.axes[k].T
        texel = (scene.places[k] + 1) * 16
        if bent:
            rest = np.stack([texel[:, 0], texel[:, 1]], 1)
            there = np.stack([*rest.T, 0.01 * np.square(rest[:, 0] - 13) + 0.008 * np.square(rest[:, 1] - 17)], 1)
        else:
            there = np.stack([1.3 * texel[:, 0] + 0.4 * texel[:, 1], 0.9 * texel[:, 1], 0 * texel[:, 0]], 1)
        across = (there - point) @ scene.axes[k][:, :2]
        assert np.abs(across[inner]).max() < 0.12, f"cell {cell}"
        assert np.abs(scene.opacity_at(k, there[inner]) - RAISED_MM).max() < 0.05


def test_a_shell_begins_just_before_the_mesh_and_ends_a_little_behind_it():
    """Flat, with many voxels: along every column signed distances, to where it begins or to where it ends."""
    flat = Scene(*square(), 32, 16)
    flat.place(flat.mesh, ABOVE)
    depth = np.linspace(-1, 1, 16) * flat.half_size[0, 2] + float(flat.placement.shift[0])
    begins, ends = depth + RAISED_MM, 2 * flat.spacing[0] - RAISED_MM - depth
    inner = flat.shell[:, :, 8:-8, 8:-8]  # border texels' outer columns are off the square
    expected = np.clip(np.minimum(begins, ends) / flat.spacing[0], -1, 1)[:, None, None]
    np.testing.assert_allclose(inner, np.broadcast_to(expected, inner.shape), atol=1e-4)
    assert expected.min() == -1 and expected.max() > 0.5


def test_shells_begin_where_the_heads_surface_is(scene):
    """At texels that face the eye, interpolated between voxels: on the mesh, as far as voxels can follow it."""
    away = []
    for k, cell in enumerate(scene.placement.kept.tolist()):
        points, texels = scene.points(cell)
        faces = scene.atlas.faces[tuple((texels - 0.5).astype(int).T[::-1])]
        a, b, c = scene.mesh[scene.topology.faces[faces]].astype(np.float64).transpose(1, 0, 2)
        towards = np.array(IN_FRONT) - a
        cosine = (np.cross(b - a, c - a) * towards).sum(1)
        cosine /= np.linalg.norm(np.cross(b - a, c - a), axis=1) * np.linalg.norm(towards, axis=1)
        away.extend(scene.opacity_at(k, points[cosine > 0.3]) - RAISED_MM)
    assert len(away) > 500
    within = np.mean(np.abs(away) < 32 / scene.uv)
    assert within > 0.8, f"{within:.2f} of {len(away)} texels have their shell within {32 / scene.uv} mm"


def test_only_what_faces_the_eye_is_there(scene, head):
    """From the front and from behind together, every primitive is seen; what faces away is empty."""
    seen = []
    for eye in (IN_FRONT, (0.0, 0.0, -900.0)):
        scene.place(scene.mesh, eye)
        assert (scene.shell[~scene.facing] <= 0).all() and 0.2 < scene.facing.mean() < 0.9
        seen.append(scene.facing)
    scene.place(scene.mesh)
    assert np.mean(seen[0] | seen[1]) > 0.99 and np.mean(seen[0] & seen[1]) < 0.6


def test_slabs_end_with_their_island(head):
    """A voxel whose place is more than two texels from its island is empty."""
    scene = Scene(head.topology, head.template, 128, 8)
    island = np.where(scene.atlas.covered, scene.island[scene.atlas.faces], -1)
    rows, columns = np.indices(island.shape)
    outside = 0
    for k, cell in enumerate(scene.placement.kept.tolist()):
        own_rows, own_columns = (value[scene.own(cell)] for value in scene.texels(cell))
        mine = island == island[own_rows[0], own_columns[0]]
        low, high = own_rows.min() - 4, own_rows.max() + 5
        near = mine & (rows >= low) & (rows < high) & (np.abs(columns - own_columns.mean()) < 2 * scene.voxels)
        where = np.stack([columns[near], rows[near]], -1) + 0.5
        texel = (scene.places[k] + 1) * scene.uv / 2
        away = np.abs(texel[:, None] - where[None]).max(-1).min(1)
        empty = scene.shell[k].reshape(scene.voxels, -1).max(0) <= 0
        assert empty[away > 2].all(), f"cell {cell}"
        outside += int((away > 2).sum())
    assert outside > 0


def test_a_cell_with_two_islands_is_that_of_the_one_nearest_to_its_middle():
    """A seam at texel 10.7: of its cells, three texels in a row are left of it, and no voxel shows the other side."""
    scene = Scene(*square(seam=10.7), 32, 4)
    planes = scene.on_plane.reshape(8, 8, 3)
    np.testing.assert_allclose(planes[:, 2, 0], 9.5, atol=1e-4)  # texels 8, 9 and 10
    np.testing.assert_allclose(planes[:, 3, 0], 14, atol=1e-4)
    shown = (scene.places.reshape(8, 8, 64, 2)[:, 2, :, 0] + 1) * 16
    assert shown.max() <= 10.5 + 1 + 1e-4
    for k, cell in enumerate(scene.placement.kept.tolist()):
        points, _ = scene.points(cell)
        assert (np.abs((points - scene.centre[k]) @ scene.axes[k]) < scene.half_size[k]).all()


def test_the_codec_marches_these_boxes(head):
    """At rest, with no motion beside the mesh, those that face the eye have these centres, axes, sizes and shells."""
    throat = head.template[head.topology.region("face"), 1].max() - 28
    scene = Scene(head.topology, head.template, 128, 4, throat)
    torch.manual_seed(0)
    codec = Codec(Size(128, 4, 0.125, CONDITIONS), head.topology).requires_grad_(False)
    rest = torch.from_numpy(head.template)[None]
    codec.set_rest(rest[0])
    motion = codec.upm.decoder_assembler.geodec.motion[-1]
    motion.g.zero_()
    motion.bias.zero_()
    codec.upm.decoder_assembler.rgbdec.layers["t4"][0].g.zero_()
    codec.texture.g.zero_()
    subject = codec.identity(torch.full((1, 3, 128, 128), 0.5), rest)
    made = codec.decode(torch.zeros(1, CODE_SIZE), AHEAD, subject, torch.tensor([[0.0, 0, 900]])).primitives
    seen = scene.facing
    np.testing.assert_allclose(made.position[0] * codec.radius_mm, scene.centre[seen], atol=1e-3)
    np.testing.assert_allclose(made.rotation[0], scene.axes[seen], atol=1e-3)
    np.testing.assert_allclose(codec.radius_mm / made.scale[0], scene.half_size[seen], rtol=1e-3)
    share, shell = made.slab[0, ..., 3] / made.slab[0, ..., 3].amax(), scene.shell[seen]
    assert np.corrcoef(share.flatten(), shell.ravel())[0, 1] > 0.9
    assert np.array_equal(share.sign(), np.sign(shell))
    np.testing.assert_allclose(made.slab[..., :3], 0.5, atol=1e-5)


def test_those_of_the_neck_are_as_deep_as_each_mesh_asks(head):
    """A throat that bulges in and out by 12 mm is inside their boxes; elsewhere boxes are as they were."""
    throat = 105.0
    scene = Scene(head.topology, head.template, 128, 4, throat)
    plain = Scene(head.topology, head.template, 128, 4)
    neck = scene.placement.on_neck.numpy()
    assert 0.03 < neck.mean() < 0.2 and (scene.on_plane[neck, 1] > throat - 6).all()
    np.testing.assert_allclose(scene.half_size[~neck], plain.half_size[~neck])
    assert (scene.half_size[neck, 2] >= plain.half_size[neck, 2] - 1e-4).all()
    moved = head.template.astype(np.float64)
    moved[:, 2] += 12 * np.sin(moved[:, 0] / 5) * np.clip((moved[:, 1] - throat) / 10, 0, 1)
    outside = {}
    for name, each in (("plain", plain), ("deeper", scene)):
        each.place(moved.astype(np.float32))
        reached = []
        for k in np.flatnonzero(neck & (scene.on_plane[:, 1] > throat + 10)):
            points, _ = each.points(int(each.placement.kept[k]))
            depth = (points - each.centre[k]) @ each.axes[k][:, 2] / each.half_size[k, 2]
            reached.extend(np.abs(depth) > 1)
        outside[name] = np.mean(reached)
    assert outside["plain"] > 0.1 and outside["deeper"] < 0.15 * outside["plain"]


@wp.kernel
def ask_rise(offsets: wp.array3d(dtype=wp.vec3), missed: wp.array3d(dtype=wp.vec2), found: wp.array3d(dtype=float)):
    image, k, p = wp.tid()
    found[image, k, p] = rise(offsets, image, k, p, 8, missed[image, k, p])


def rises(offsets, missed):
    found = torch.empty(missed.shape[:3])
    wp.launch(ask_rise, dim=tuple(found.shape), device="cpu", inputs=[
        wp.from_torch(offsets.contiguous(), dtype=wp.vec3), wp.from_torch(missed, dtype=wp.vec2), wp.from_torch(found),
    ])  # fmt: skip
    return found


def test_a_columns_mesh_is_as_deep_as_its_slope_takes_it_to_there():
    """On a tilted plane exactly, from wherever columns have their points; folded points tell nothing."""
    warp()
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    at = torch.stack([column, row], -1).view(1, 1, 64, 2) + 0.2 * torch.rand(2, 3, 64, 2, generator=generator)
    missed = torch.rand(2, 3, 64, 2, generator=generator) - 0.5
    slope = torch.tensor([0.3, -0.8])
    found = rises(torch.cat([at, at @ slope[:, None] + 2], -1), missed)
    torch.testing.assert_close(found, missed @ slope, atol=1e-5, rtol=0)
    assert not rises(torch.cat([at.flip(3), at @ slope[:, None]], -1), missed).any()
