import numpy as np
import pytest
import torch

from ufe_avatar.mesh_render import MeshRenderer
from ufe_avatar.views import Views
from ufe_core.errors import ContractError
from ufe_core.types import CameraSpec

SIZE = 96


def camera(turn=0.0, width=SIZE, height=SIZE, distortion=0.0):
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.diag([-1.0, 1.0, -1.0]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    intrinsics = np.array([[230.0, 0, width / 2 + 3], [0, 220.0, height / 2], [0, 0, 1]])
    return CameraSpec(
        "v", "centre", "whole", "augmented", width, height, intrinsics, rotation, np.array([2.0, -20.0, 600.0]),
        np.array([distortion, 0, 0, 0, 0]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def renderer(head):
    return MeshRenderer(head.topology)


@pytest.fixture
def scene(head):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    texture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    return torch.from_numpy(head.template)[None], texture


def test_views_agree_with_the_cameras_they_are_made_of(head):
    one, other = camera(0.4), camera(-1.0)
    views = Views.of([one, other], dtype=torch.float64)
    points = torch.from_numpy(head.template[::97].astype(np.float64))
    pixels = views.project(points.expand(2, -1, -1))
    for k, spec in enumerate((one, other)):
        np.testing.assert_allclose(pixels[k, :, :2].numpy(), spec.project(points.numpy()), atol=1e-9)
    back = points - views.position()[:, None]
    aligned = torch.nn.functional.normalize(back, dim=-1) * views.directions(pixels[..., :2])
    np.testing.assert_allclose(aligned.sum(-1).numpy(), 1, atol=1e-12)


def test_lenses_and_mixed_sizes_are_refused():
    with pytest.raises(ContractError, match="camera 'v' has a lens"):
        Views.of([camera(distortion=0.1)])
    with pytest.raises(ContractError, match="share an image size"):
        Views.of([camera(), camera(width=64)])


def test_a_texture_of_uv_coordinates_shows_where_each_vertex_is(head, renderer):
    """Whatever vertex is seen at a pixel, the pixel's colour is that vertex' place in the texture."""
    axis = (torch.arange(256) + 0.5) / 256
    texture = torch.stack([axis.expand(256, 256), axis[:, None].expand(256, 256)])[None]
    geometry, views = torch.from_numpy(head.template)[None], Views.of([camera(width=256, height=256)])
    image, cover = renderer(geometry, texture, views)
    screen = views.project(geometry)[0]
    depth, _ = renderer(geometry, torch.zeros(1, 1, 4, 4), views)
    assert depth.abs().max() == 0
    nose = int(head.template[:, 2].argmax())
    x, y = (int(v) for v in screen[nose, :2])
    corner = np.argwhere(head.faces == nose)[0]
    uv = head.uv[head.uv_faces[corner[0], corner[1]]]
    np.testing.assert_allclose(image[0, :, y, x].numpy(), uv, atol=0.02)
    assert cover[0, 0, y, x] == 1 and cover[0, 0, 0, 0] == 0


@pytest.mark.parametrize("what", ["shift", "turn", "texture", "geometry"])
def test_gradients_follow_finite_differences(what, renderer, scene):
    """Towards a smooth target, the slope along a direction agrees with what a step in that direction does."""
    geometry, texture = scene
    base = Views.of([camera()])
    generator = torch.Generator().manual_seed(1)
    direction = {
        "shift": torch.tensor([[1.0, 0.5, 0.0]]), "turn": torch.tensor([[0.0, 1.0, 0.0]]),
        "texture": torch.rand(texture.shape, generator=generator), "geometry": geometry - geometry.mean(1),
    }[what]  # fmt: skip
    size = {"shift": 1.5, "turn": 0.004, "texture": 0.1, "geometry": 0.003}[what]

    ramp = (torch.arange(SIZE) / SIZE) + 0.5 * (torch.arange(SIZE)[:, None] / SIZE) ** 2
    weight = ramp * torch.tensor([1.0, 0.5, -0.7])[:, None, None]

    def loss(amount):
        rotation, translation, shape, paint = base.rotation, base.translation, geometry, texture
        if what == "shift":
            translation = translation + amount * direction
        elif what == "turn":
            x, y, z = (amount * direction).unbind(-1)
            zero = torch.zeros_like(x)
            skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
            rotation = rotation @ torch.matrix_exp(skew)
        elif what == "texture":
            paint = paint + amount * direction
        else:
            shape = shape + amount * direction
        image, cover = renderer(shape, paint, Views(rotation, translation, base.focal, base.centre, SIZE, SIZE))
        return (image * weight).sum() + 0.3 * (cover * ramp).sum()

    amount = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(loss(amount), amount)
    with torch.no_grad():
        steps = torch.linspace(-1, 1, 21) * size
        values = torch.stack([loss(step) for step in steps])
    measured = (steps * (values - values.mean())).sum() / (steps**2).sum()
    assert abs(float(slope - measured)) < 0.15 * abs(float(measured)), (float(slope), float(measured))


def test_shapes_that_do_not_fit_are_refused_in_one_line(renderer, scene):
    geometry, texture = scene
    with pytest.raises(ContractError, match=r"geometry \[1, 10, 3\].*expected \[B, 4867, 3\]"):
        renderer(geometry[:, :10], texture, Views.of([camera()]))
    with pytest.raises(ContractError, match="2 views"):
        renderer(geometry, texture, Views.of([camera(), camera()]))
