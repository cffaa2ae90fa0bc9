"""R_vol as images: which rays a pixel is made of."""

import pytest
import torch

from ufe_avatar.networks.model import VOLUME_RADIUS_MM
from ufe_avatar.raymarch import Primitives
from ufe_avatar.views import Views, camera_around
from ufe_avatar.volume_render import march_images, march_pixels

SIDE = 32
VIEWS = Views.of([camera_around(0, 0, SIDE), camera_around(30, 10, SIDE)])
WITHIN = torch.tensor([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]])


@pytest.fixture(scope="module")
def box():
    """The same opaque, many-coloured box for both views, no side of it along pixels."""
    generator = torch.Generator().manual_seed(0)
    slab = torch.cat([torch.rand(1, 1, 4, 6, 6, 3, generator=generator), torch.full((1, 1, 4, 6, 6, 1), 5e3)], -1)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    half = torch.tensor([70.0, 50.0, 40.0]) / VOLUME_RADIUS_MM
    boxes = torch.zeros(1, 1, 3), turn[None, None], (1 / half)[None, None], slab
    return Primitives(*(value.expand(2, *value.shape[1:]).contiguous() for value in boxes))


def centres():
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).view(1, -1, 2).expand(2, -1, -1)


def of_pixels(box, offset):
    seen = march_pixels(box, VIEWS, centres() + torch.as_tensor(offset))
    return seen.transpose(1, 2).view(2, 4, SIDE, SIDE)


def test_pixels_on_outlines_are_means_of_four_rays_and_others_are_the_ray_through_their_centre(box):
    image, single = march_images(box, VIEWS), of_pixels(box, (0.0, 0.0))
    four = torch.stack([of_pixels(box, offset) for offset in WITHIN]).mean(0)
    opaque = torch.nn.functional.pad(single[:, 3:], (1, 1, 1, 1), "replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    outline = (opaque.amax((-1, -2)) - opaque.amin((-1, -2)) > 0.1).expand(-1, 3, -1, -1)
    assert 0.02 < outline.float().mean() < 0.4
    torch.testing.assert_close(image[outline], four[:, :3][outline], atol=1e-5, rtol=0)
    torch.testing.assert_close(image[~outline], single[:, :3][~outline], atol=1e-5, rtol=0)
    assert ((image - single[:, :3]).abs().amax(1) > 0.1).any()


def test_outlines_cover_pixels_as_far_as_they_do(box):
    """Against 64 rays a pixel: the mean error of what is covered falls by more than half."""
    white = Primitives(box.position, box.rotation, box.scale, box.slab.clone())
    white.slab[..., :3] = 1
    places = (torch.arange(8) + 0.5) / 8 - 0.5
    truth = sum(of_pixels(white, (float(x), float(y))) for x in places for y in places)[:, 0] / 64
    found, single = march_images(white, VIEWS)[:, 0], of_pixels(white, (0.0, 0.0))[:, 0]
    assert (found - truth).abs().mean() < 0.5 * (single - truth).abs().mean()


def test_inside_a_mask_the_image_is_the_same_and_outside_it_is_black(box):
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[5:20, 9:31] = True
    whole, some = march_images(box, VIEWS), march_images(box, VIEWS, mask)
    torch.testing.assert_close(some, whole * mask, atol=1e-5, rtol=0)
    assert not march_images(box, VIEWS, torch.zeros_like(mask)).any()


def test_gradients_pass_both_kinds_of_pixels(box):
    slab = box.slab.clone().requires_grad_()
    image = march_images(Primitives(box.position, box.rotation, box.scale, slab), VIEWS)
    (found,) = torch.autograd.grad((image * torch.rand_like(image)).sum(), slab)
    assert found.isfinite().all() and (found.abs().amax((1, 2, 3, 4)) > 0).all()
