import numpy as np
import torch

from ufe_core.ops.antialias import MeshEdges, antialias
from ufe_core.ops.rasterize import depth_keys, key_depths, key_faces

SIDE = 32
# A square of two triangles, counter-clockwise seen from outside, that is clockwise where y points down.
SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


def square(left, top, right, bottom, depth=100.0):
    corners = [(left, top), (left, bottom), (right, bottom), (right, top)]
    return torch.tensor([[[x, y, depth] for x, y in corners]], dtype=torch.float32)


def coverage(screen, faces=SQUARE):
    faces_tensor = torch.from_numpy(faces.astype(np.int32))
    keys = depth_keys(screen, faces_tensor, height=SIDE, width=SIDE)
    image = (key_faces(keys) >= 0).float()[..., None]
    return antialias(image, key_depths(keys), screen, faces_tensor, MeshEdges.of(faces))[0, ..., 0]


def test_edges_of_a_square_know_the_faces_beside_them():
    edges = MeshEdges.of(SQUARE)
    assert edges.ends.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert edges.faces.tolist() == [[0, -1], [0, 1], [1, -1], [0, -1], [1, -1]]


def test_every_edge_of_a_closed_mesh_lies_between_two_faces_that_have_it():
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    edges = MeshEdges.of(tetrahedron)
    assert len(edges.ends) == 6
    for ends, faces in zip(edges.ends.tolist(), edges.faces.tolist(), strict=True):
        assert faces[0] != faces[1]
        assert all(set(ends) <= set(tetrahedron[face]) for face in faces)


def test_edges_are_as_dark_as_the_share_they_cover():
    image = coverage(square(8.3, 6.8, 20.6, 25.1))
    row, column = image[15], image[:, 15]
    torch.testing.assert_close(row[7:10], torch.tensor([0.0, 0.7, 1.0]))
    torch.testing.assert_close(row[19:22], torch.tensor([1.0, 0.6, 0.0]))
    torch.testing.assert_close(column[5:8], torch.tensor([0.0, 0.2, 1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(column[24:27], torch.tensor([1.0, 0.1, 0.0]), atol=1e-5, rtol=0)


def test_the_inner_edge_of_a_surface_is_not_blended():
    inside = coverage(square(4.0, 4.0, 28.0, 28.0))[5:27, 5:27]
    assert torch.equal(inside, torch.ones_like(inside))


def test_covered_area_has_the_gradient_of_the_true_area():
    screen = square(8.3, 6.8, 20.6, 25.1).requires_grad_()
    (gradient,) = torch.autograd.grad(coverage(screen).sum(), screen)
    # Moving the right side by 1 px adds one column of pixels: as many as the rows whose centres it crosses.
    assert abs(float(gradient[0, [2, 3], 0].sum()) - 18.0) <= 1.0
    assert abs(float(gradient[0, [0, 1], 0].sum()) + 18.0) <= 1.0
    assert float(gradient[..., 2].abs().max()) == 0


def test_a_nearer_surface_is_blended_over_the_farther_one():
    near, far = square(10.4, 0.0, 20.0, 32.0, depth=50.0), square(0.0, 0.0, 32.0, 32.0, depth=100.0)
    screen = torch.cat([near, far], 1)
    faces = torch.from_numpy(np.concatenate([SQUARE, SQUARE + 4]).astype(np.int32))
    keys = depth_keys(screen, faces, height=SIDE, width=SIDE)
    image = torch.where(key_faces(keys) < 2, 1.0, 0.2)[..., None]
    row = antialias(image, key_depths(keys), screen, faces, MeshEdges.of(faces.numpy()))[0, 16, :, 0]
    torch.testing.assert_close(row[9:12], torch.tensor([0.2, 0.2 + 0.8 * 0.6, 1.0]), atol=1e-5, rtol=0)


def test_a_surface_finer_than_the_pixels_has_the_gradient_of_its_area():
    """A disc of 2,400 faces: its area grows with its radius as its circumference, 2 pi r."""
    turn = torch.arange(96) / 96 * 2 * torch.pi
    rings = torch.linspace(0.02, 1, 13)
    unit = torch.stack([turn.cos(), turn.sin()], -1)[None] * rings[:, None, None]
    number = np.arange(13 * 96).reshape(13, 96)
    a, b = number[:-1], number[1:]
    quads = np.stack([a, b, np.roll(b, -1, 1), np.roll(a, -1, 1)], -1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]])
    radius = torch.tensor(11.0, requires_grad=True)
    flat = radius * unit.reshape(1, -1, 2) + torch.tensor([16.2, 15.7])
    screen = torch.cat([flat, torch.full_like(flat[..., :1], 100.0)], -1)
    image = coverage(screen, faces)
    (gradient,) = torch.autograd.grad(image.sum(), radius)
    assert abs(float(image.detach().sum()) / (torch.pi * 121) - 1) < 0.01
    assert abs(float(gradient) / (2 * torch.pi * 11) - 1) < 0.05
