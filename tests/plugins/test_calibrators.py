import pytest
import torch
from torch.nn import functional

from ufe_calibrators.attention import CrossAttention, SelfAttention
from ufe_calibrators.early_fusion import EarlyFusion
from ufe_calibrators.late_fusion import LateFusion
from ufe_calibrators.none import NoCalibration
from ufe_calibrators.plugin import (
    AttentionConfig,
    EarlyFusionConfig,
    LateFusionConfig,
    NoneConfig,
    PoolingConfig,
)
from ufe_calibrators.pooling import Pooling
from ufe_core.errors import ConfigError
from ufe_core.plugins import catalogue

K, M, U, H = 6, 3, 2, 4
ALL = torch.ones(U, M, dtype=torch.bool)
NARROW = AttentionConfig(width=16, heads=2, layers=2)
MAKE = {
    "late_fusion": (LateFusion, LateFusionConfig()), "early_fusion": (EarlyFusion, EarlyFusionConfig()),
    "pooling": (Pooling, PoolingConfig()), "cross_attention": (CrossAttention, NARROW),
    "self_attention": (SelfAttention, NARROW),
}  # fmt: skip


def make(name, anchors=M):
    """A calibrator whose every parameter matters."""
    torch.manual_seed(0)
    kind, config = MAKE[name]
    module = kind(config, channels=K, anchors=anchors)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


@pytest.fixture
def fusion():
    return make("late_fusion")


def maps(*shape, seed=1):
    return torch.randn(*shape, K, H, H, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def calibrated(module, current, anchors, present, users):
    cached = module.precompute(anchors, present)
    return module(current, {name: value[users] for name, value in cached.items()})


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


@pytest.mark.parametrize("name", MAKE)
class TestEvery:
    """What holds for all that use anchors."""

    users = torch.tensor([0, 1, 1, 0, 1])

    def test_frames_depend_on_their_own_users_anchors(self, name):
        module, current, anchors = make(name), maps(5, seed=2), maps(U, M)
        found = calibrated(module, current, anchors, ALL, self.users)
        assert found.shape == (5, module.outputs, H, H)
        changed = anchors.clone()
        changed[1, 2] += 1
        moved = (calibrated(module, current, changed, ALL, self.users) - found).abs().amax((1, 2, 3))
        assert bool((moved[self.users == 1] > 1e-6).all()) and bool((moved[self.users == 0] == 0).all())

    @pytest.mark.parametrize("present", [[True, False, True], [False, False, False]])
    def test_a_missing_anchor_is_not_looked_at(self, name, present):
        module, current, anchors = make(name), maps(5, seed=2), maps(U, M)
        there = torch.tensor([[True] * M, present])
        found = calibrated(module, current, anchors, there, self.users)
        changed = anchors.clone()
        changed[1, ~there[1]] = torch.nan  # nothing at all may leak, not even through a product with zero
        assert torch.equal(calibrated(module, current, changed, there, self.users), found)
        assert bool(found.isfinite().all())
        whole = calibrated(module, current, anchors, ALL, self.users)
        assert not torch.allclose(found[self.users == 1], whole[self.users == 1])
        assert torch.allclose(found[self.users == 0], whole[self.users == 0], atol=1e-12)

    def test_no_anchors_at_all(self, name):
        module = make(name, anchors=0)
        found = calibrated(module, maps(5, seed=2), maps(U, 0), ALL[:, :0], self.users)
        assert found.shape == (5, module.outputs, H, H) and bool(found.isfinite().all())

    def test_every_parameter_gets_a_gradient(self, name):
        module, present = make(name), ALL.clone()
        present[0, 1] = False
        if name == "pooling":
            present[1] = False  # what stands for nothing counts where nobody is there
        if name in ("late_fusion", "early_fusion"):
            present = torch.tensor([[True] * M, [False] * M])
        found = calibrated(module, maps(5, seed=2), maps(U, M), present, self.users)
        found.square().sum().backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in module.parameters())

    def test_one_row_serves_all_frames_of_a_user(self, name):
        """A live session has one user: caches with one row are broadcast."""
        module, current = make(name), maps(5, seed=2)
        cached = module.precompute(maps(1, M), ALL[:1])
        rows = {key: value.expand(5, *value.shape[1:]) for key, value in cached.items()}
        torch.testing.assert_close(module(current, cached), module(current, rows))


def attention(query, key, value, heads, there):
    """Softmax attention head by head, [T, W] of [T, W], [N, W], [N, W]."""
    out = []
    for q, k, v in zip(query.chunk(heads, 1), key.chunk(heads, 1), value.chunk(heads, 1), strict=True):
        weights = (q @ k.T / k.shape[1] ** 0.5).masked_fill(~there, -torch.inf).softmax(1)
        out.append(weights @ v)
    return torch.cat(out, 1)


def tokens_of(module, current, anchors, present):
    """One user's tokens: the frame's, then nobody's, then every anchor's; and which are there."""
    cells = H * H
    frame = module._tokens(current[None])[0] + module.whose[0]
    others = [module.nobody, *(module._tokens(anchors[m : m + 1])[0] + module.whose[1 + m] for m in range(M))]
    there = torch.tensor([True, *(bool(present[m]) for m in range(M) for _ in range(cells))])
    return frame, torch.cat(others), there


def test_cross_attention_with_cached_keys_is_attention_written_out():
    module, current, anchors = make("cross_attention"), maps(1, seed=2)[0], maps(M)
    present = torch.tensor([True, False, True])
    found = calibrated(module, current[None], anchors[None], present[None], torch.tensor([0]))[0]
    frame, others, there = tokens_of(module, current, anchors, present)
    for block in module.blocks:
        key, value = block.key_value(block.norm_keys(others)).chunk(2, 1)
        frame = frame + block.out(attention(block.query(block.norm(frame)), key, value, block.heads, there))
        frame = frame + block.perceptron(frame)
    torch.testing.assert_close(found, current + module.leave(frame).T.unflatten(1, (H, H)), atol=1e-10, rtol=0)


def test_self_attention_with_a_cached_first_block_is_a_transformer_written_out():
    module, current, anchors = make("self_attention"), maps(1, seed=2)[0], maps(M)
    present = torch.tensor([True, False, True])
    found = calibrated(module, current[None], anchors[None], present[None], torch.tensor([0]))[0]
    frame, others, there = tokens_of(module, current, anchors, present)
    tokens, there = torch.cat([frame, others]), torch.cat([torch.ones(H * H, dtype=torch.bool), there])
    for block in module.blocks:
        query, key, value = block.project(block.norm(tokens)).chunk(3, 1)
        tokens = tokens + block.out(attention(query, key, value, block.heads, there))
        tokens = tokens + block.perceptron(tokens)
    expected = current + module.leave(tokens[: H * H]).T.unflatten(1, (H, H))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["cross_attention", "self_attention"])
def test_attention_adds_nothing_at_first_and_knows_place_and_owner(name):
    kind, config = MAKE[name]
    module = kind(config, channels=K, anchors=M).double()
    current, anchors = maps(2, seed=2), maps(U, M)
    users = torch.arange(2)
    assert torch.equal(calibrated(module, current, anchors, ALL, users), current)
    module = make(name)
    found = calibrated(module, current, anchors, ALL, users)
    for other in (anchors.flip(1), anchors.flip(4)):
        assert not torch.allclose(calibrated(module, current, other, ALL, users), found, atol=1e-3)


def test_pooling_does_not_know_the_order_of_anchors():
    module, current, anchors = make("pooling"), maps(5, seed=2), maps(U, M)
    users = torch.tensor([0, 1, 1, 0, 1])
    found = calibrated(module, current, anchors, ALL, users)
    torch.testing.assert_close(calibrated(module, current, anchors.flip(1), ALL, users), found)
    points = torch.stack([module.point(anchors[:, m]) for m in range(M)]).amax(0)
    expected = module.current(current) + module.pooled(points)[users]
    torch.testing.assert_close(found, expected)


def test_early_fusion_is_images_beside_each_other():
    module, current, anchors = make("early_fusion"), maps(5, seed=2), maps(U, M)
    users, present = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([[True, False, True], [True, True, True]])
    assert module.stage == "images" and module.outputs == (1 + M) * K
    found = calibrated(module, current, anchors, present, users)
    assert torch.equal(found[:, :K], current)
    for row, user in enumerate(users.tolist()):
        for m in range(M):
            expected = anchors[user, m] if present[user, m] else module.missing[m].expand(K, H, H)
            assert torch.equal(found[row, (1 + m) * K : (2 + m) * K], expected)


def test_heads_divide_the_width():
    with pytest.raises(ConfigError, match=r"heads \(3\) must divide width \(128\)"):
        catalogue().create("calibrator", "cross_attention", {"heads": 3})
