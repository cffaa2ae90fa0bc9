from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ufe_avatar import raymarch
from ufe_avatar.raymarch import Primitives, Rays, _rank, march
from ufe_core.errors import ContractError
from ufe_core.ops.rasterize import warp

from . import raymarch_reference as reference

GOLDEN = Path(__file__).parents[1] / "golden" / "ava256" / "raymarch.safetensors"
NAMES = ("position", "rotation", "scale", "slab")
STEP = 0.03


def primitives(*, volumes=2, count=6, density=0.3, seed=0, kind=torch.float64, voxels=(4, 5, 6)):
    """Oriented boxes around the origin."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    slab = torch.cat([uniform(volumes, count, *voxels, 3), density * uniform(volumes, count, *voxels, 1)], -1)
    rotation = torch.linalg.qr(normal(volumes, count, 3, 3))[0]
    tensors = 0.25 * normal(volumes, count, 3), rotation, 1 / (0.25 + 0.2 * uniform(volumes, count, 3)), slab
    return Primitives(*(tensor.to(kind).requires_grad_() for tensor in tensors))


def rays(count=40, *, cameras=2, spread=0.25, seed=1, kind=torch.float64):
    """Rays towards the origin, those of the cameras mixed."""
    generator = torch.Generator().manual_seed(seed)
    origin = torch.tensor([[0.0, 0, -2], [1.5, 0.2, -1], [0.1, 0, 0.2]], dtype=torch.float64)[:cameras]
    image = torch.arange(count, dtype=torch.int32) % cameras
    aside = spread * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    towards = torch.nn.functional.normalize(-origin[image.long()] + aside, dim=-1)
    return Rays.through_cube(origin.to(kind), towards.to(kind), image)


def rgba(marched):
    return torch.cat([marched.colour, marched.opacity[:, None]], 1)


def gradients(out, volume):
    """Of a weighted sum; the weights depend on the shape alone."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(out)
    return torch.autograd.grad((out * weights).sum(), volume.tensors)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("count", [1, 4, 6, 7])
@pytest.mark.parametrize("density", [0.3, 8.0])
def test_float64_meets_the_dense_reference(count, density):
    volume, lines = primitives(count=count, density=density), rays()
    found, expected = rgba(march(lines, volume, step=STEP)), reference.march(lines, volume, step=STEP)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    for name, mine, theirs in zip(NAMES, gradients(found, volume), gradients(expected, volume), strict=True):
        assert relative(mine, theirs) < 1e-10, name


@pytest.mark.parametrize("density", [0.3, 8.0])
def test_float32_meets_the_dense_reference_in_float64(density):
    volume, lines = primitives(density=density, kind=torch.float32), rays(kind=torch.float32)
    exact = Primitives(*(tensor.detach().double().requires_grad_() for tensor in volume.tensors))
    wide = Rays(lines.origin.double(), lines.direction.double(), lines.image, lines.near.double(), lines.far.double())
    found, expected = rgba(march(lines, volume, step=STEP)), reference.march(wide, exact, step=STEP)
    assert float((found - expected).detach().abs().max()) < 1e-5
    for name, mine, theirs in zip(NAMES, gradients(found, volume), gradients(expected, exact), strict=True):
        assert relative(mine, theirs) < 1e-4, name


@pytest.mark.parametrize("voxels", [(2, 2, 2), (4, 8, 8), (3, 2, 9)])
@pytest.mark.parametrize("kind, most, most_gradient", [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-10)])
def test_slabs_of_any_size_between_any_distances_meet_the_dense_reference(voxels, kind, most, most_gradient):
    volume, lines = primitives(count=15, density=8.0, kind=kind, voxels=voxels), rays(30, kind=kind)
    share = torch.rand(2, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(kind)
    near = lines.near + 0.3 * share[0]
    lines = Rays(lines.origin, lines.direction, lines.image, near, near + 0.5 + share[1])
    found, expected = rgba(march(lines, volume, step=STEP)), reference.march(lines, volume, step=STEP)
    assert float((found - expected).detach().abs().max()) < most
    assert 0 < int((found[:, 3] >= 1).sum()) < 30
    for name, mine, theirs in zip(NAMES, gradients(found, volume), gradients(expected, volume), strict=True):
        assert relative(mine, theirs) < most_gradient, name


def row_of_boxes(begins, counts, kind):
    """Boxes on the z axis with their first samples at `begins`, so many each, and the ray through them."""
    count = len(begins)
    generator = torch.Generator().manual_seed(6)
    first, samples = (torch.tensor(values, dtype=torch.float64) for values in (begins, counts))
    position = torch.stack([0.1 * torch.randn(count, generator=generator).double(), torch.zeros(count).double(),
                            STEP * (first + (samples - 1) / 2) - 1], 1)  # fmt: skip
    scale = torch.stack([torch.ones(count).double(), torch.ones(count).double(), 2 / (STEP * samples)], 1)
    slab = 0.1 + torch.rand(1, count, 3, 4, 5, 4, generator=generator, dtype=torch.float64)
    rotation = torch.eye(3, dtype=torch.float64).expand(1, count, 3, 3).contiguous()
    lines = Rays(
        torch.tensor([[0.0, 0.0, -1.0]], dtype=kind), torch.tensor([[0.0, 0.0, 1.0]], dtype=kind),
        torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=kind), torch.full((1,), 3.0, dtype=kind),
    )  # fmt: skip
    tensors = [tensor.to(kind) for tensor in (position[None], rotation, scale[None], slab)]
    return Primitives(*tensors), lines


def saturating_in(sample, volume, lines):
    """The boxes, their opacity scaled so that the ray saturates half way through that sample."""
    thin = Primitives(*(tensor.double().clone() for tensor in volume.tensors))
    thin.slab[..., 3] *= 1e-3

    def until(end):
        far = torch.full((1,), (end + 0.5) * STEP, dtype=torch.float64)
        part = Rays(lines.origin.double(), lines.direction.double(), lines.image, lines.near.double(), far)
        return 1e3 * float(reference.march(part, thin, step=STEP)[0, 3])

    slab = volume.slab.clone()
    slab[..., 3] *= 2 / (until(sample - 1) + until(sample))
    return Primitives(*(t.requires_grad_() for t in (volume.position, volume.rotation, volume.scale, slab)))


@pytest.mark.parametrize("kind, most, most_gradient", [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-10)])
@pytest.mark.parametrize("sample", [0, 1, 6, 7, 8, 9, 14, 15, 16, 17, 23, 24])
def test_a_ray_may_saturate_anywhere_in_a_chunk(sample, kind, most, most_gradient):
    volume, lines = row_of_boxes([3, 5, 3, 10], [25, 30, 8, 20], kind)
    volume = saturating_in(3 + sample, volume, lines)
    found, expected = rgba(march(lines, volume, step=STEP)), reference.march(lines, volume, step=STEP)
    assert found[0, 3].item() == 1
    assert float((found - expected).detach().abs().max()) < most
    for name, mine, theirs in zip(NAMES, gradients(found, volume), gradients(expected, volume), strict=True):
        assert float((mine - theirs).abs().max()) <= most_gradient * float(theirs.abs().max()), name


@pytest.mark.parametrize("kind, most", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("begin", [0, 6, 7, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16])
def test_boxes_may_begin_and_end_where_chunks_do(begin, count, kind, most):
    volume, lines = row_of_boxes([0, begin, begin + 30, begin + 31], [12, count, count, 1], kind)
    found = rgba(march(lines, volume, step=STEP))
    assert float((found - reference.march(lines, volume, step=STEP)).abs().max()) < most
    # What a ray sees is the sum of what it sees of each box, as long as it does not saturate.
    alone = [
        rgba(march(lines, Primitives(*(tensor[:, k : k + 1].contiguous() for tensor in volume.tensors)), step=STEP))
        for k in range(4)
    ]
    assert all(one[0, 3] > 0 for one in alone)
    torch.testing.assert_close(found, sum(alone), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind, most, most_gradient", [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-10)])
@pytest.mark.parametrize("density", [0.6, 16.0])
def test_opacity_that_interpolates_to_less_than_nothing_is_none(density, kind, most, most_gradient):
    thick = primitives(count=12, density=density, kind=kind)
    slab = (thick.slab.detach() - torch.tensor([0, 0, 0, 0.5 * density], dtype=kind)).requires_grad_()
    volume, lines = Primitives(thick.position, thick.rotation, thick.scale, slab), rays(30, kind=kind)
    assert 0.3 < float((slab[..., 3] < 0).double().mean()) < 0.7
    found, expected = rgba(march(lines, volume, step=STEP)), reference.march(lines, volume, step=STEP)
    assert float((found - expected).detach().abs().max()) < most
    assert float(found[:, 3].detach().mean()) > 0.03
    for name, mine, theirs in zip(NAMES, gradients(found, volume), gradients(expected, volume), strict=True):
        assert relative(mine, theirs) < most_gradient, name


@pytest.mark.parametrize("kind, most, most_gradient", [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-12, 1e-10)])
def test_ranks_say_which_of_boxes_that_saturate_together_come_first(kind, most, most_gradient):
    boxes, lines = primitives(count=12, density=16, kind=kind), rays(30, kind=kind)
    rank = torch.randperm(12, generator=torch.Generator().manual_seed(5)).int()
    given = boxes.tensors
    volume = Primitives(*given, rank)
    found, expected = rgba(march(lines, volume, step=STEP)), reference.march(lines, volume, step=STEP)
    assert float((found - expected).detach().abs().max()) < most
    assert float((found - rgba(march(lines, boxes, step=STEP))).detach().abs().max()) > 1e-3
    for name, mine, theirs in zip(NAMES, gradients(found, volume), gradients(expected, volume), strict=True):
        assert relative(mine, theirs) < most_gradient, name
    # Boxes may then be listed in any order, and others that no ray meets among them.
    listed = torch.randperm(12, generator=torch.Generator().manual_seed(6))
    far = [boxes.position[:, :2] + 50, *(tensor[:, :2] for tensor in given[1:])]
    more = [torch.cat([tensor[:, listed], other], 1) for tensor, other in zip(given, far, strict=True)]
    same = march(lines, Primitives(*more, torch.cat([rank[listed], torch.tensor([12, 13]).int()])), step=STEP)
    torch.testing.assert_close(rgba(same), found, atol=most, rtol=0)


def test_the_dense_cases_saturate_and_the_thin_ones_do_not():
    thin, dense = (march(rays(), primitives(density=density), step=STEP).opacity for density in (0.3, 8.0))
    assert (thin < 1).all() and 0.2 < float((dense >= 1).double().mean()) < 0.9


def test_a_camera_among_the_primitives_sees_what_the_reference_sees():
    volume, lines = primitives(volumes=3, count=12), rays(60, cameras=3, spread=1.0)
    torch.testing.assert_close(
        rgba(march(lines, volume, step=STEP)), reference.march(lines, volume, step=STEP), atol=1e-12, rtol=0
    )


def test_rays_in_all_directions_see_what_the_reference_sees():
    volume = primitives(volumes=1, count=12)
    generator = torch.Generator().manual_seed(5)
    towards = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator, dtype=torch.float64), dim=-1)
    lines = Rays.through_cube(torch.zeros(1, 3, dtype=torch.float64), towards, torch.zeros(64, dtype=torch.int32))
    found = march(lines, volume, step=STEP)
    assert (found.hits > 0).all()
    torch.testing.assert_close(rgba(found), reference.march(lines, volume, step=STEP), atol=1e-12, rtol=0)


@pytest.mark.parametrize("case", ["plain", "dense", "coarse", "inside", "order6"])
def test_golden_cases_of_the_public_marcher(case):
    with safe_open(GOLDEN, "pt") as file:
        golden = {key.split("/")[1]: file.get_tensor(key) for key in file.keys() if key.startswith(f"{case}/")}  # noqa: SIM118
    tensors = [golden[name][None].requires_grad_() for name in ("primpos", "primrot", "primscale", "template")]
    near, far = golden["tminmax"].reshape(-1, 2).unbind(1)
    origin = golden["raypos"].reshape(-1, 3)
    assert (origin == origin[0]).all()
    lines = Rays(
        origin[:1].contiguous(), golden["raydir"].reshape(-1, 3), torch.zeros(256, dtype=torch.int32),
        near.contiguous(), far.contiguous(),
    )  # fmt: skip
    found = rgba(march(lines, Primitives(*tensors), step=float(golden["stepsize"])))
    expected = golden["rgba"].reshape(-1, 4)
    assert float((found - expected).detach()[:, :3].abs().max()) < 0.02
    assert float((found - expected).detach()[:, 3].abs().max()) < 1e-4
    assert torch.equal(found[:, 3] >= 1, golden["saturated"].reshape(-1).bool())
    grads = torch.autograd.grad((found * golden["grad_out"].reshape(-1, 4)).sum(), tensors)
    for name, mine in zip(("primpos", "primrot", "primscale", "template"), grads, strict=True):
        theirs = golden[f"grad_{name}"]
        assert float((mine[0] - theirs).abs().max() / theirs.abs().max()) < 1e-3, name


def test_rays_of_the_golden_cameras_pass_the_cube_where_theirs_do():
    with safe_open(GOLDEN, "pt") as file:
        golden = {name: file.get_tensor(f"plain/{name}") for name in ("raypos", "raydir", "tminmax")}
    lines = Rays.through_cube(
        golden["raypos"].reshape(-1, 3)[:1], golden["raydir"].reshape(-1, 3), torch.zeros(256, dtype=torch.int32)
    )
    torch.testing.assert_close(torch.stack([lines.near, lines.far], 1), golden["tminmax"].reshape(-1, 2))


def test_hits_are_the_boxes_that_a_ray_passes():
    volume, lines = primitives(count=50), rays(600)
    start = lines.origin[lines.image.long()]
    expected = torch.zeros(600, dtype=torch.int64)
    for r in range(600):
        b = int(lines.image[r])
        turned = volume.rotation[b].transpose(1, 2)
        local = volume.scale[b] * (turned @ (start[r] - volume.position[b])[..., None])[..., 0]
        slope = volume.scale[b] * (turned @ lines.direction[r][:, None])[..., 0]
        a, c = (-1 - local) / slope, (1 - local) / slope
        enter, leave = torch.minimum(a, c).amax(1), torch.maximum(a, c).amin(1)
        met = (enter < leave) & (leave > lines.near[r]) & (enter < lines.far[r])
        expected[r] = met.sum()
    assert torch.equal(march(lines, volume, step=STEP).hits, expected)
    assert int(expected.max()) > 8


def test_any_subset_of_rays_sees_what_it_sees_among_all():
    volume, lines = primitives(), rays(2000, kind=torch.float64)
    whole = rgba(march(lines, volume, step=STEP))
    some = torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:77]
    part = Rays(lines.origin, lines.direction[some], lines.image[some], lines.near[some], lines.far[some])
    torch.testing.assert_close(rgba(march(part, volume, step=STEP)), whole[some], atol=1e-13, rtol=0)


def test_equal_calls_give_equal_bits():
    runs = []
    for _ in range(2):
        volume = primitives(kind=torch.float32)
        out = rgba(march(rays(3000, kind=torch.float32), volume, step=STEP))
        runs.append([out, *gradients(out, volume)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_threads_change_no_image_and_no_gradient_and_the_order_of_rays_no_image():
    volume, lines = primitives(kind=torch.float32, density=8.0), rays(3000, kind=torch.float32)
    threads, images, grads = torch.get_num_threads(), [], []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            images.append(rgba(march(lines, volume, step=STEP)))
            grads.append(gradients(images[-1], volume))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(images[0], other) for other in images[1:])
    assert all(torch.equal(one, same) for others in grads[1:] for one, same in zip(grads[0], others, strict=True))
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    mixed = Rays(lines.origin, lines.direction[order], lines.image[order], lines.near[order], lines.far[order])
    assert torch.equal(rgba(march(mixed, volume, step=STEP)), images[0][order])


def test_memory_is_what_the_rays_meet():
    volume, lines = primitives(volumes=1, count=400), rays(100, cameras=1)
    tensors = [tensor.detach().contiguous() for tensor in volume.tensors]
    part = raymarch._Part(raymarch._Grid.over(lines), tensors, STEP, volume.visits())
    hits = torch.zeros(100, dtype=torch.int64)
    part.march(tensors, torch.zeros(100, 4, dtype=torch.float64), hits)
    assert int(hits.max()) > 64, "more than a list of a fixed and common length holds"
    kept = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
    assert max(len(value) for value in kept) == int(hits.sum())
    assert sum(value.numel() for value in kept) < 3 * int(hits.sum()) + 40 * 100 + 400


def test_more_hits_than_can_be_numbered_are_an_error(monkeypatch):
    volume, lines = primitives(), rays()
    hits = int(march(lines, volume, step=STEP).hits.sum())
    monkeypatch.setattr(raymarch, "_MOST_HITS", hits - 1)
    with pytest.raises(ContractError, match=f"40 rays meet primitives {hits} times; {hits - 1} can be numbered"):
        march(lines, volume, step=STEP)


@pytest.mark.parametrize("density", [0.3, 8.0])
def test_gradcheck(density):
    volume, lines = primitives(volumes=1, count=3, density=density), rays(5, cameras=1)
    tensors = volume.tensors
    # The window is 3e-4, not 0, at a box' face: a step across it is no slope.
    assert torch.autograd.gradcheck(
        lambda *given: rgba(march(lines, Primitives(*given), step=STEP)), tensors, eps=1e-7, atol=1e-4, rtol=1e-3,
        fast_mode=True,
    )  # fmt: skip


def test_no_rays_and_rays_that_meet_nothing_are_black():
    volume = primitives()
    assert rgba(march(rays(0), volume, step=STEP)).shape == (0, 4)
    lines = rays(10)
    away = Rays(lines.origin, -lines.direction, lines.image, torch.zeros_like(lines.near), torch.ones_like(lines.far))
    out = march(away, volume, step=STEP)
    assert not out.hits.any() and not rgba(out).any()
    assert all(not grad.any() for grad in gradients(rgba(out), volume))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8, 11, 16])
def test_the_order_of_visits_is_a_walk_through_a_complete_tree(count):
    order = reference.visiting_order(count)
    assert sorted(order) == list(range(count))
    assert [int(_rank(count)[k]) for k in order] == list(range(count))
    assert count != 6 or order == [2, 3, 4, 5, 0, 1]


def test_what_does_not_fit_is_refused_in_one_line():
    volume, lines = primitives(), rays()
    with pytest.raises(ContractError, match="rotation"):
        Primitives(volume.position, volume.rotation[:, :3], volume.scale, volume.slab)
    with pytest.raises(ContractError, match="2 voxels or more"):
        Primitives(volume.position, volume.rotation, volume.scale, volume.slab[:, :, :1])
    with pytest.raises(ContractError, match=r"rank: expected int32 \[6\], found int64 \[6\]"):
        Primitives(volume.position, volume.rotation, volume.scale, volume.slab, torch.arange(6))
    with pytest.raises(ContractError, match="rays.origin: expected float64"):
        march(rays(kind=torch.float32), volume, step=STEP)
    for image in (lines.image + 1, lines.image - 1):
        with pytest.raises(ContractError, match="not among the 2, numbered from 0"):
            march(Rays(lines.origin, lines.direction, image, lines.near, lines.far), volume, step=STEP)
    with pytest.raises(ContractError, match="more than 0"):
        march(lines, volume, step=0.0)
    with pytest.raises(ContractError, match=r"rays.origin: expected float64 \[2, 3\], found float64 \[1, 3\]"):
        march(rays(cameras=1), volume, step=STEP)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(
    "name", ["add_directions", "bound", "number", "arrange", "gather", "sort", "march", "march_backward"]
)
def test_kernels_compile_for_cuda_where_there_is_none(kind, name, tmp_path):
    wp = warp()
    if not wp.get_cuda_supported_archs():
        pytest.skip("this warp holds no compiler for CUDA")
    kernel = getattr(raymarch._kernels().kernels(getattr(wp, kind)), name)
    wp.compile_aot_module(kernel.module, arch=80, module_dir=tmp_path, use_ptx=True)
    assert len(list(tmp_path.glob("*.ptx"))) == 1
