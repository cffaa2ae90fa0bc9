import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ufe_core.errors import ContractError
from ufe_core.interfaces.encoder import TrainingStatistics
from ufe_core.plugins import catalogue
from ufe_core.recipe import DEFAULT_ANCHORS, resolve_recipe
from ufe_core.types import AnchorSet, Calibration, CodeSpace, FrameBatch, Labels
from ufe_universal.backbone import split_backbone

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
CALIBRATORS = ("none", "late_fusion", "early_fusion", "pooling", "cross_attention", "self_attention")
SIZE, CODES, USERS = 64, 9, 3
OWNERS = torch.tensor([2, 0, 1, 0, 2])


def make(calibrator="late_fusion", anchors=("neutral", "jaw_open", "eyes_closed"), **overrides):
    """An encoder whose statistics and normalisation have left their starting values, ready to encode."""
    recipe = resolve_recipe(
        catalogue(), encoder="univ", calibrator=calibrator, anchors=anchors, budget="smoke", overrides=overrides
    )
    encoder = recipe.make_encoder(CAMERAS, CodeSpace("test", CODES))
    generator = torch.Generator().manual_seed(3)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for module in encoder.calibrate.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # attention starts at nothing
            nn.init.normal_(module.weight, std=0.5)
    for perceptron in (encoder.fuse, encoder.gaze):
        nn.init.normal_(perceptron[-1].weight, std=3.0)
    encoder.fit_statistics(
        TrainingStatistics(
            Labels(torch.rand(20, CODES, generator=generator), torch.tensor([[0.0, 0, 1, 0, 0, 1]] * 20)),
            [pictures(4, seed=9)],
        )
    )
    return encoder.eval()


def pictures(*shape, seed=0):
    """Random pictures of coarse blocks: noise of single pixels would look alike to any network."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (*shape, 4, 4, 4), dtype=torch.uint8, generator=generator)
    return coarse.repeat_interleave(SIZE // 4, -1).repeat_interleave(SIZE // 4, -2)


def frames(seed=0):
    return FrameBatch(pictures(len(OWNERS), seed=seed), CAMERAS, OWNERS)


def anchors(encoder, *, present=None, seed=1):
    names = encoder.needs.anchors
    every = torch.ones(USERS, len(names), dtype=torch.bool)
    return AnchorSet(pictures(USERS, len(names), seed=seed), names, CAMERAS, every if present is None else present)


@pytest.fixture(scope="module")
def encoder():
    return make()


def close(a, b, tolerance=1e-5):
    return all(float((getattr(a, name) - getattr(b, name)).abs().max()) <= tolerance for name in ("expression", "gaze"))


@pytest.mark.parametrize("names", [("neutral", "jaw_open"), ()], ids=["two", "none"])
@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_enrolling_then_encoding_is_the_forward_pass(calibrator, names):
    encoder = make(calibrator, names)
    with torch.inference_mode():
        at_once = encoder(frames(), anchors(encoder))
    found = encoder.encode(frames(), encoder.enroll(anchors(encoder)))
    assert found.expression.shape == (5, CODES) and found.gaze.shape == (5, 6)
    assert torch.allclose(found.gaze.view(-1, 3).norm(dim=1), torch.ones(10), atol=1e-6)
    assert close(found, at_once)
    assert float(found.expression.std(0).min()) > 1e-3, "an encoder that does not look would pass"


@pytest.mark.parametrize("calibrator", CALIBRATORS[1:])
def test_a_missing_anchor_is_the_same_in_both_ways(calibrator):
    encoder = make(calibrator)
    present = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    given = anchors(encoder, present=present)
    with torch.inference_mode():
        at_once = encoder(frames(), given)
    found = encoder.encode(frames(), encoder.enroll(given))
    assert close(found, at_once)
    assert not close(found, encoder.encode(frames(), encoder.enroll(anchors(encoder))))


def test_an_anchor_that_shows_nothing_is_told_and_taken_as_missing(encoder, caplog):
    present = torch.tensor([[True, True, False], [True] * 3, [True] * 3])
    missing = encoder.encode(frames(), encoder.enroll(anchors(encoder, present=present)))
    given = anchors(encoder)
    given.images[0, 2] = torch.randint(0, 4, given.images[0, 2].shape, dtype=torch.uint8)  # a covered sensor's noise
    blank = encoder.encode(frames(), encoder.enroll(given))
    torch.testing.assert_close(blank.expression, missing.expression)
    assert [record.getMessage() for record in caplog.records] == [
        f"Anchor {encoder.needs.anchors[2]!r} of user 0 shows nothing in any camera: it is taken as missing. "
        "Pose for it again."
    ]
    one_camera = anchors(encoder)
    one_camera.images[0, 2, 1:] = 0
    assert not one_camera.without_blank()[1].any(), "what one camera shows is something"


def test_what_stands_in_the_place_of_a_missing_anchor_does_not_matter(encoder):
    present = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    before = encoder.encode(frames(), encoder.enroll(anchors(encoder, present=present)))
    given = anchors(encoder, present=present)
    given.images[~present] = pictures(3, seed=66)
    assert torch.equal(encoder.encode(frames(), encoder.enroll(given)).expression, before.expression)
    given.images[0, 1] = pictures(1, seed=66)[0]
    assert not torch.equal(encoder.encode(frames(), encoder.enroll(given)).expression, before.expression)


def test_a_batch_of_one_gives_what_the_batch_gives(encoder):
    calibration = encoder.enroll(anchors(encoder))
    together = encoder.encode(frames(), calibration)
    for row, owner in enumerate(OWNERS):
        images = frames().images[row : row + 1]
        alone = encoder.encode(FrameBatch(images, CAMERAS, owner[None]), calibration)
        only = Calibration(calibration.encoder, {k: v[owner : owner + 1] for k, v in calibration.tensors.items()})
        single = encoder.encode(FrameBatch.single_user(images, CAMERAS), only)
        for found in (alone, single):
            assert torch.allclose(found.expression[0], together.expression[row], atol=1e-5)
            assert torch.allclose(found.gaze[0], together.gaze[row], atol=1e-5)


def test_every_frame_is_calibrated_by_its_own_user(encoder):
    before = encoder.encode(frames(), encoder.enroll(anchors(encoder)))
    given = anchors(encoder)
    given.images[0] = pictures(3, seed=77)
    after = encoder.encode(frames(), encoder.enroll(given))
    changed = (before.expression != after.expression).any(1)
    assert changed.tolist() == (OWNERS == 0).tolist()


def test_gaze_sees_the_upper_cameras_only(encoder):
    calibration = encoder.enroll(anchors(encoder))
    before = encoder.encode(frames(), calibration)
    images = frames().images.clone()
    images[:, 2:] = pictures(5, seed=50)[:, 2:]
    lower = encoder.encode(FrameBatch(images, CAMERAS, OWNERS), calibration)
    assert torch.equal(lower.gaze, before.gaze)
    assert bool((lower.expression != before.expression).any(1).all())
    images[:, :2] = pictures(5, seed=50)[:, :2]
    upper = encoder.encode(FrameBatch(images, CAMERAS, OWNERS), calibration)
    assert bool((upper.gaze != before.gaze).any(1).all())


def test_gaze_ignores_the_lower_cameras_of_anchors_too(encoder):
    given = anchors(encoder)
    before = encoder.encode(frames(), encoder.enroll(given))
    given.images[:, :, 2:] = 0
    after = encoder.encode(frames(), encoder.enroll(given))
    assert torch.equal(after.gaze, before.gaze)
    assert bool((after.expression != before.expression).any(1).all())


def test_left_and_right_share_a_network_in_mirrored_orientation(encoder):
    """A right image that mirrors the left one has the left one's features; weights are those of two networks."""
    seen = {}
    hooks = [
        network.register_forward_hook(lambda _, __, output, region=region: seen.update({region: output}))
        for region, network in encoder.extract.items()
    ]
    images = pictures(2)
    images[:, 1], images[:, 3] = images[:, 0].flip(-1), images[:, 2].flip(-1)
    encoder.encode(FrameBatch.single_user(images, CAMERAS), encoder.enroll(anchors(encoder)))
    for hook in hooks:
        hook.remove()
    for maps in seen.values():
        left, right = maps[0::2], maps[1::2]
        assert torch.allclose(left, right, atol=1e-6) and not torch.allclose(left[0], left[1])
    one = split_backbone(encoder.config.backbone, stride=16)
    backbone = sum(p.numel() for part in (one.head, one.tail) for p in part.parameters())
    own = sum(p.numel() for part in (encoder.extract, encoder.reduce) for p in part.parameters())
    assert own == 2 * backbone


def test_the_sides_are_told_apart(encoder):
    images = frames().images
    swapped = images[:, [1, 0, 3, 2]].flip(-1)
    calibration = encoder.enroll(anchors(encoder))
    found = [encoder.encode(FrameBatch(x.contiguous(), CAMERAS, OWNERS), calibration) for x in (images, swapped)]
    assert not close(*found, tolerance=1e-3)


def test_anchors_pass_through_phi_exp_at_enrolment_only(encoder):
    counted = {"upper": 0, "lower": 0}
    hooks = []
    for region, network in encoder.extract.items():

        def count(module, inputs, region=region):
            counted[region] += len(inputs[0])

        hooks.append(network.register_forward_pre_hook(count))
    calibration = encoder.enroll(anchors(encoder))
    assert counted == {"upper": 2 * USERS * 3, "lower": 2 * USERS * 3}
    for times in (1, 2):
        encoder.encode(frames(), calibration)
        assert counted == {region: 2 * USERS * 3 + times * 2 * len(OWNERS) for region in counted}
    counted.update(upper=0, lower=0)
    encoder(frames(), anchors(encoder))
    assert counted == {region: 2 * (USERS * 3 + len(OWNERS)) for region in counted}, "in training once a person"
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("calibrator", ["late_fusion", "pooling"])
def test_a_frame_costs_the_same_with_six_anchors_as_with_none(calibrator):
    counts = []
    for names in ((), DEFAULT_ANCHORS):
        made = make(calibrator, names)
        calibration = made.enroll(anchors(made))
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            made.encode(frames(), calibration)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_a_calibration_survives_saving(encoder, tmp_path):
    calibration = encoder.enroll(anchors(encoder))
    calibration.save(tmp_path / "me.safetensors")
    again = encoder.encode(frames(), Calibration.load(tmp_path / "me.safetensors"))
    assert torch.equal(again.expression, encoder.encode(frames(), calibration).expression)


def test_a_calibration_of_another_encoder_is_refused(encoder):
    calibration = encoder.enroll(anchors(encoder))
    other = make()
    other.fingerprint = "1234567890abcdef"
    with pytest.raises(
        ContractError, match=r"made by encoder \(untrained\), not by 1234567890ab: enroll the user again"
    ):
        other.encode(frames(), calibration)


def test_wrong_input_is_named(encoder):
    calibration, given = encoder.enroll(anchors(encoder)), anchors(encoder)
    shuffled = (*CAMERAS[2:], *CAMERAS[:2])
    with pytest.raises(ContractError, match=r"needs cameras \['left_eye', .*was given \['left_mouth'"):
        encoder.encode(FrameBatch(frames().images, shuffled, OWNERS), calibration)
    alone = encoder.enroll(given.part(slice(0, 1)))
    with pytest.raises(
        ContractError, match=r"calibration is of 1 user, numbered from 0; frames are of users \[0, 1, 2\]"
    ):
        encoder.encode(frames(), alone)
    small = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)
    with pytest.raises(ContractError, match="needs frames of 64 x 64 pixels, was given 32 x 32"):
        encoder.encode(FrameBatch.single_user(small, CAMERAS), calibration)
    with pytest.raises(
        ContractError, match=r"needs anchors \['neutral', 'jaw_open', 'eyes_closed'\].*given \['jaw_open'"
    ):
        encoder.enroll(AnchorSet.complete(given.images[:, 1:], given.names[1:], CAMERAS))
    with pytest.raises(ContractError, match="needs anchors of 64 x 64 pixels, was given 32 x 32"):
        encoder.enroll(AnchorSet.complete(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8), given.names, CAMERAS))


@pytest.mark.parametrize(
    ("calibrator", "names"),
    [("none", ()), ("cross_attention", DEFAULT_ANCHORS), ("late_fusion", DEFAULT_ANCHORS)],
)  # fmt: skip
def test_encoders_that_differ_in_their_calibrator_begin_alike(calibrator, names):
    """Else what a calibrator gains is in part what another seed gains."""

    def drawn(calibrator, names):
        recipe = resolve_recipe(catalogue(), calibrator=calibrator, anchors=names, budget="smoke")
        return recipe.make_encoder(CAMERAS, CodeSpace("test", CODES))

    one, other = drawn("late_fusion", ("neutral", "jaw_open")).state_dict(), drawn(calibrator, names).state_dict()
    shared = [name for name in one if not name.startswith("calibrate.")]
    assert len(shared) > 50 and shared == [name for name in other if not name.startswith("calibrate.")]
    assert all(torch.equal(one[name], other[name]) for name in shared)


def test_every_parameter_gets_a_gradient():
    encoder = make().train()
    present = torch.tensor([[False, True, True], [True, False, True], [True, True, False]])
    found = encoder(frames(), anchors(encoder, present=present))
    (found.expression.square().sum() + (found.gaze * torch.rand(5, 6)).sum()).backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert silent == []


def test_statistics_are_of_each_region_and_entry():
    encoder = make()
    images = torch.zeros(2, 4, SIZE, SIZE, dtype=torch.uint8)
    images[:, :2, :, ::2], images[:, 2:] = 255, 51  # upper: half white; lower: a fifth everywhere
    expression = torch.tensor([[0.0] * CODES, [1.0] * CODES, [0.5] * CODES])
    expression[:, 0] = 0.25  # an action that nobody makes must not blow up its scale
    labels = Labels(expression, torch.tensor([[0.0, 0, 1, 0, 0, 1]] * 3))
    encoder.fit_statistics(TrainingStatistics(labels, [images[:1], images[1:]]))
    assert encoder.image_mean.tolist() == pytest.approx([0.5, 0.2])
    assert encoder.image_std.tolist() == pytest.approx([0.5, 1e-3], rel=1e-3)
    assert encoder.code_mean.tolist() == pytest.approx([0.25] + [0.5] * (CODES - 1))
    assert encoder.code_std.tolist() == pytest.approx([0.02] + [0.5] * (CODES - 1))
