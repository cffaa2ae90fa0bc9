import pytest
import torch

from ufe_core.ops import rasterize as kernel
from ufe_core.ops import rasterize_reference as reference

SIDE = 48


def scene(views=2, faces=40, seed=0):
    """Random triangles of 5 to 40 pixels, in both windings, at depths of 50 to 200 mm."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(views, faces, 1, 2, generator=generator) * SIDE
    corner = torch.randn(views, faces, 3, 2, generator=generator) * 10
    depth = 50 + 150 * torch.rand(views, faces, 3, 1, generator=generator)
    screen = torch.cat([centre + corner, depth], -1).view(views, faces * 3, 3)
    return screen.contiguous(), torch.arange(faces * 3, dtype=torch.int32).view(faces, 3)


def triangle(*corners):
    return torch.tensor([corners], dtype=torch.float32), torch.tensor([[0, 1, 2]], dtype=torch.int32)


# Counter-clockwise seen from outside is clockwise on a screen whose y points down.
FRONT = ((5.0, 5.0, 100.0), (5.0, 40.0, 100.0), (40.0, 5.0, 100.0))


@pytest.mark.parametrize("cull", [True, False])
def test_kernel_sees_the_same_faces_as_the_reference(cull):
    screen, faces = scene()
    found = kernel.rasterize(screen, faces, height=SIDE, width=SIDE + 7, cull=cull)
    expected = torch.stack(
        [reference.rasterize(view.double(), faces, height=SIDE, width=SIDE + 7, cull=cull) for view in screen]
    )
    assert found.dtype == torch.int32
    assert (found >= 0).any() and (found < 0).any()
    # Only where an edge passes within rounding of a pixel's centre may single precision decide otherwise.
    assert (found != expected).float().mean() < 1e-3


def test_pixel_centres_decide_what_a_face_covers():
    screen, faces = triangle((1.0, 1.0, 10.0), (1.0, 3.0, 10.0), (3.0, 1.0, 10.0))
    ids = kernel.rasterize(screen, faces, height=4, width=4)[0]
    assert (ids >= 0).nonzero().tolist() == [[1, 1], [1, 2], [2, 1]]


def test_faces_seen_from_behind_are_dropped_only_when_asked():
    screen, faces = triangle(*FRONT)
    back = faces.flip(1).contiguous()
    seen = kernel.rasterize(screen, faces, height=SIDE, width=SIDE)
    assert (seen >= 0).any()
    assert (kernel.rasterize(screen, back, height=SIDE, width=SIDE) < 0).all()
    assert torch.equal(kernel.rasterize(screen, back, height=SIDE, width=SIDE, cull=False), seen)


@pytest.mark.parametrize(("depth", "covered"), [(2.9, False), (3.1, True), (0.0, False), (-50.0, False)])
def test_a_face_with_a_corner_nearer_than_3_mm_is_dropped(depth, covered):
    corners = [list(corner) for corner in FRONT]
    corners[1][2] = depth
    screen, faces = triangle(*corners)
    assert bool((kernel.rasterize(screen, faces, height=SIDE, width=SIDE) >= 0).any()) is covered


def test_the_nearer_face_wins_whatever_its_number():
    near, far = torch.tensor([FRONT]), torch.tensor([FRONT]) + torch.tensor([0.0, 0.0, 0.01])
    faces = torch.arange(6, dtype=torch.int32).view(2, 3)
    for order, winner in (((near, far), 0), ((far, near), 1)):
        ids = kernel.rasterize(torch.cat(order, 1), faces, height=SIDE, width=SIDE)
        assert set(ids.unique().tolist()) == {-1, winner}


def test_ties_go_to_the_lower_face_number_every_time():
    screen, face = triangle(*FRONT)
    faces = face.repeat(200, 1)
    for _ in range(5):
        assert set(kernel.rasterize(screen, faces, height=SIDE, width=SIDE).unique().tolist()) == {-1, 0}


def test_a_face_that_only_partly_lies_in_the_image_is_clipped_not_dropped():
    screen, faces = triangle((-100.0, -100.0, 50.0), (-100.0, 300.0, 50.0), (300.0, -100.0, 50.0))
    assert (kernel.rasterize(screen, faces, height=SIDE, width=SIDE) == 0).all()
    assert (kernel.rasterize(screen + torch.tensor([500.0, 0, 0]), faces, height=SIDE, width=SIDE) < 0).all()


def test_interpolation_is_perspective_correct():
    # A plane that recedes from 100 to 300 mm: halfway on the screen lies at the harmonic mean of depth.
    screen = torch.tensor([[[0.0, 0.0, 100.0], [0.0, 9.0, 100.0], [9.0, 0.0, 300.0], [9.0, 9.0, 300.0]]])
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]], dtype=torch.int32)
    ids = kernel.rasterize(screen, faces, height=9, width=9)
    value = kernel.interpolate(screen, screen[..., 2:].contiguous(), faces, ids)[0, :, 4, 0]
    assert value == pytest.approx(1 / (0.5 / 100 + 0.5 / 300), rel=1e-5)


def test_interpolation_and_both_gradients_agree_with_the_reference():
    screen, faces = scene(seed=3)
    attributes = torch.randn(2, screen.shape[1], 4, generator=torch.Generator().manual_seed(4))
    ids = kernel.rasterize(screen, faces, height=SIDE, width=SIDE, cull=False)
    weight = torch.randn(2, SIDE, SIDE, 4, generator=torch.Generator().manual_seed(5))
    ours = [screen.clone().requires_grad_(), attributes.clone().requires_grad_()]
    out = kernel.interpolate(*ours, faces, ids)
    (out * weight).sum().backward()
    theirs = [screen.double().requires_grad_(), attributes.double().requires_grad_()]
    expected = torch.stack([reference.interpolate(theirs[0][v], theirs[1][v], faces, ids[v]) for v in range(2)])
    (expected * weight.double()).sum().backward()
    assert torch.all(out[ids < 0] == 0)
    torch.testing.assert_close(out.double(), expected, atol=2e-4, rtol=1e-4)
    for name, mine, other in zip(("screen", "attributes"), ours, theirs, strict=True):
        error = (mine.grad.double() - other.grad).norm() / other.grad.norm()
        assert error < 1e-4, name


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_gradient_in_the_screen_position_is_the_slope_of_the_image(axis):
    screen, faces = triangle((4.0, 6.0, 80.0), (8.0, 44.0, 150.0), (43.0, 9.0, 110.0))
    attributes = torch.tensor([[[0.2], [-1.3], [2.1]]])
    ids = kernel.rasterize(screen, faces, height=SIDE, width=SIDE)  # visibility held fixed: it gives no gradient

    def loss(moved):
        return kernel.interpolate(moved, attributes, faces, ids).double().square().mean()

    leaf = screen.clone().requires_grad_()
    loss(leaf).backward()
    for vertex in range(3):
        step = torch.zeros_like(screen)
        step[0, vertex, axis] = 0.05 if axis < 2 else 0.5
        slope = (loss(screen + step) - loss(screen - step)) / (2 * step.max())
        assert float(leaf.grad[0, vertex, axis]) == pytest.approx(float(slope), rel=2e-3, abs=1e-6)


def test_attributes_may_have_their_own_indices_and_be_shared_by_all_views():
    screen, faces = scene(seed=6)
    ids = kernel.rasterize(screen, faces, height=SIDE, width=SIDE, cull=False)
    shuffle = torch.randperm(screen.shape[1], generator=torch.Generator().manual_seed(7))
    attributes = torch.randn(1, screen.shape[1], 2, generator=torch.Generator().manual_seed(8))
    elsewhere = torch.argsort(shuffle)[faces.long()].to(torch.int32)
    shuffled = attributes[:, shuffle].requires_grad_()
    plain = attributes.expand(2, -1, -1).contiguous().requires_grad_()
    a = kernel.interpolate(screen, plain, faces, ids)
    b = kernel.interpolate(screen, shuffled, faces, ids, attribute_faces=elsewhere)
    assert torch.equal(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(shuffled.grad[0], plain.grad.sum(0)[shuffle], atol=1e-3, rtol=1e-4)


def test_the_result_does_not_depend_on_the_other_views_of_a_batch():
    screen, faces = scene(views=3, seed=9)
    together = kernel.rasterize(screen, faces, height=SIDE, width=SIDE)
    alone = torch.cat([kernel.rasterize(screen[v : v + 1], faces, height=SIDE, width=SIDE) for v in range(3)])
    assert torch.equal(together, alone)
