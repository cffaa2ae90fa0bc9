import pytest
import torch
from torch.nn import functional

from ufe_calibrators.late_fusion import LateFusion
from ufe_calibrators.none import NoCalibration
from ufe_calibrators.plugin import LateFusionConfig, NoneConfig

K, M, U, H = 6, 3, 2, 4
ALL = torch.ones(U, M, dtype=torch.bool)


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    module = LateFusion(LateFusionConfig(), channels=K, anchors=M)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.double()


def maps(*shape, seed=1):
    return torch.randn(*shape, K, H, H, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def explicit(fusion, current, anchors, present):
    """One 1x1 convolution over the (M + 1) K concatenated channels, written out for one user."""
    filled = [anchors[m] if present[m] else fusion.missing[m].expand_as(anchors[m]) for m in range(len(anchors))]
    weight = torch.cat([fusion.current.weight, *(c.weight for c in fusion.cached)], 1)
    stacked = torch.cat([current, *(f.expand_as(current) for f in filled)], 1)
    return functional.conv2d(stacked, weight, fusion.bias.flatten())


@pytest.mark.parametrize("present", [[True, True, True], [True, False, True], [False, False, False]])
def test_the_cached_share_gives_the_convolution_over_all_channels(fusion, present):
    anchors, current = maps(U, M), maps(5, seed=2)
    users = torch.tensor([0, 1, 1, 0, 1])
    cached = fusion.precompute(anchors, torch.tensor([present] * U))
    found = fusion(current, {name: value[users] for name, value in cached.items()})
    for row, user in enumerate(users.tolist()):
        expected = explicit(fusion, current[row : row + 1], anchors[user], present)
        assert torch.allclose(found[row], expected[0], atol=1e-12)


def test_a_frame_pays_for_its_own_channels_only(fusion):
    cached = fusion.precompute(maps(U, M), ALL)
    assert {name: tuple(value.shape) for name, value in cached.items()} == {"share": (U, K, H, H)}


def test_a_missing_anchor_is_ignored_and_a_present_one_is_not(fusion):
    anchors, present = maps(U, M), ALL.clone()
    present[0, 1] = False
    share = fusion.precompute(anchors, present)["share"]
    changed = anchors.clone()
    changed[0, 1] = float("nan")  # nothing at all may leak, not even through a product with zero
    assert torch.equal(fusion.precompute(changed, present)["share"], share)
    changed = anchors.clone()
    changed[0, 2] += 1
    assert not torch.equal(fusion.precompute(changed, present)["share"][0], share[0])
    assert torch.equal(fusion.precompute(changed, present)["share"][1], share[1])


def test_the_learned_feature_of_a_missing_anchor_gets_a_gradient(fusion):
    present = ALL.clone()
    present[0, 1] = False
    fusion.precompute(maps(U, M), present)["share"].sum().backward()
    assert bool((fusion.missing.grad[1] != 0).any()) and bool((fusion.missing.grad[[0, 2]] == 0).all())


def test_training_sets_out_from_the_difference_to_the_first_anchor():
    torch.manual_seed(0)
    fusion = LateFusion(LateFusionConfig(), channels=K, anchors=M).double()
    current, anchors = 100 * maps(1), 100 * maps(1, M, seed=2)
    found = fusion(current, fusion.precompute(anchors, ALL[:1]))
    difference = current - anchors[:, 0]
    correlation = torch.corrcoef(torch.stack([found.flatten(), difference.flatten()]))[0, 1]
    assert float(correlation.detach()) > 0.95


def test_no_anchors_at_all():
    torch.manual_seed(0)
    fusion = LateFusion(LateFusionConfig(), channels=K, anchors=0).double()
    cached = fusion.precompute(maps(U, 0), ALL[:, :0])
    found = fusion(maps(U), cached)
    assert torch.allclose(found, fusion.current(maps(U)) + fusion.bias)


def test_none_is_the_identity():
    none = NoCalibration(NoneConfig(), channels=K, anchors=0)
    assert none.uses_anchors is False and not list(none.parameters())
    assert none.precompute(maps(U, 0), ALL[:, :0]) == {}
    features = maps(3)
    assert none(features, {}) is features
