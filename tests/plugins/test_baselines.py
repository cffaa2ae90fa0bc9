"""The methods that the paper compares with: what each looks at, what it leaves alone, and that all of it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ufe_baselines.fomm import DenseMotion, first_order, sparse_fields
from ufe_baselines.head_fit import POSE, _Lens, _Posed, bounded_step, gaze_of, rotation_of
from ufe_baselines.keypoint_maps import Parts, drawn, groups_of
from ufe_baselines.regressor import found_in_views
from ufe_core.errors import ConfigError, ContractError
from ufe_core.head import load_head
from ufe_core.interfaces.detector import KeypointNames
from ufe_core.interfaces.encoder import EncoderNeeds
from ufe_core.plugins import catalogue
from ufe_core.recipe import choose, resolve_recipe
from ufe_core.types import AnchorSet, CodeSpace, Detections, FrameBatch

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
SIZE, CODES = 64, 9
ALL = ("geometry_guided", "flnet", "fomm", "necknet", "movement_sdk", "mesh_tracking", "mesh_tracking_gt")
WITH_KEYPOINTS = ("geometry_guided", "flnet", "fomm", "mesh_tracking")
WITH_REFERENCE = ("flnet", "fomm")
HALVES = Parts([range(6), range(6, 12)])  # of twelve keypoints
ONE = Parts([range(6)])


@pytest.fixture(scope="module")
def capture(synthetic):
    return synthetic.captures(["S002"])[0]


@pytest.fixture(scope="module")
def rig(capture):
    return tuple(capture.camera(name).resized(SIZE, SIZE) for name in CAMERAS)


@pytest.fixture(scope="module")
def keypoints(capture):
    sets = [(name, capture.keypoint_set(capture.camera(name))) for name in CAMERAS]
    return tuple(KeypointNames(name, one.names, tuple(map(int, one.vertices)), one.pupils) for name, one in sets)


@pytest.fixture
def make(keypoints, rig):
    def encoder(name, budget="smoke", **options):
        torch.manual_seed(0)
        chosen = choose(catalogue(), "encoder", name, budget, options)
        factory = chosen.spec.load()
        context = {"keypoints": keypoints} if "keypoints" in factory.inputs else {}
        context |= {"rig": rig} if factory.uses_rig else {}
        needs = EncoderNeeds(CAMERAS, SIZE, factory.reads_anchors or ())
        return factory(chosen.config, needs=needs, code_space=CodeSpace("nine", CODES), **context)

    return encoder


def detections(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Detections(SIZE * torch.rand(*shape, 4, 96, 2, generator=draw), torch.rand(*shape, 4, 96, generator=draw))


def images(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 4, SIZE, SIZE), generator=draw, dtype=torch.uint8)


def batch(encoder, count=4, seed=0):
    """Frames of two users, and their anchors."""
    head = load_head()
    neutral = torch.from_numpy(head.template).expand(2, -1, -1).contiguous()
    users = torch.arange(2).repeat_interleave(count // 2)
    mesh = neutral[users] + torch.randn(count, *head.template.shape, generator=torch.Generator().manual_seed(seed))
    names = encoder.needs.anchors
    frames = FrameBatch(images(count, seed=seed), CAMERAS, users, detections(count, seed=seed), mesh)
    present = torch.ones(2, len(names), dtype=torch.bool)
    found = detections(2, len(names), seed=seed + 1)
    return frames, AnchorSet(images(2, len(names), seed=seed + 1), names, CAMERAS, present, found, neutral)


@pytest.mark.parametrize("name", ALL)
def test_each_gives_codes_and_unit_gaze_and_enrols_once(make, name):
    encoder = make(name).eval()
    frames, anchors = batch(encoder)
    encoding = encoder.encode(frames, encoder.enroll(anchors))
    assert encoding.expression.shape == (4, CODES) and encoding.gaze.shape == (4, 6)
    with torch.no_grad():
        at_once = encoder(frames, anchors)
    torch.testing.assert_close(at_once.expression, encoding.expression, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(at_once.gaze, encoding.gaze, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ALL)
def test_each_is_whole_at_every_size(make, name, budget):
    encoder = make(name, budget).eval()
    frames, anchors = batch(encoder, count=2)
    assert encoder.encode(frames, encoder.enroll(anchors)).expression.shape == (2, CODES)


@pytest.mark.parametrize("name", ALL)
def test_every_weight_learns(make, name):
    encoder = make(name).train()
    given = batch(encoder)
    moved = {key: torch.zeros(()) for key, _ in encoder.named_parameters()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.01)
    for _ in range(2):  # residual branches of a ResNet are off in the first step
        optimizer.zero_grad()
        encoding = encoder(*given)
        (encoding.expression.square().sum() + encoding.gaze[:, 0].sum()).backward()
        moved = {key: moved[key] + p.grad.abs().max() for key, p in encoder.named_parameters()}
        optimizer.step()
    assert not [key for key, most in moved.items() if not most > 0]


@pytest.mark.parametrize("name", ALL)
def test_it_looks_at_what_it_declares_and_at_nothing_else(make, name):
    encoder = make(name).eval()
    frames, anchors = batch(encoder)
    calibration = encoder.enroll(anchors)
    before = encoder.encode(frames, calibration).expression
    other, _ = batch(encoder, seed=7)
    changed = {
        "images": FrameBatch(other.images, CAMERAS, frames.users, frames.keypoints, frames.geometry),
        "keypoints": FrameBatch(frames.images, CAMERAS, frames.users, other.keypoints, frames.geometry),
        "exact_mesh": FrameBatch(frames.images, CAMERAS, frames.users, frames.keypoints, frames.geometry.flip(0)),
    }
    reads = {what for what, given in changed.items() if not encoder.encode(given, calibration).expression.equal(before)}
    pixels = {"images"} if name in ("geometry_guided", "necknet", "movement_sdk") else set()
    assert reads == (set(encoder.inputs) & {"keypoints", "exact_mesh"}) | pixels


@pytest.mark.parametrize("name", [*WITH_KEYPOINTS, "mesh_tracking_gt"])
def test_without_its_inputs_it_says_what_is_lacking(make, name):
    encoder = make(name).eval()
    frames, anchors = batch(encoder)
    calibration = encoder.enroll(anchors)
    with pytest.raises(ContractError, match="needs frames with (keypoints|exact_mesh); they have none"):
        encoder.encode(FrameBatch.single_user(frames.images[:1], CAMERAS), calibration)


def test_what_needs_more_than_images_is_neither_run_live_nor_exported(make):
    from ufe_core.errors import UfeError
    from ufe_core.inference.live import EncoderStep

    with pytest.raises(UfeError, match="FlnetEncoder needs keypoints besides images"):
        EncoderStep(make("flnet"), ())
    EncoderStep(make("necknet"), ())


@pytest.mark.parametrize("name", [*WITH_REFERENCE, "mesh_tracking"])
def test_a_reference_is_needed_and_no_other_anchor(name):
    with pytest.raises(ConfigError, match=f"'ufe/{name}' needs the anchor 'neutral': give --anchors neutral"):
        resolve_recipe(catalogue(), encoder=name, anchors=("jaw_open",))
    assert resolve_recipe(catalogue(), encoder=name, anchors=("jaw_open", "neutral", "smile")).anchors == ("neutral",)


@pytest.mark.parametrize("name", [*WITH_REFERENCE, "mesh_tracking"])
def test_the_reference_of_one_wearer_may_be_missing(make, name):
    encoder = make(name).eval()
    frames, anchors = batch(encoder)
    lost = AnchorSet(
        anchors.images, anchors.names, CAMERAS, torch.tensor([[True], [False]]), anchors.keypoints, anchors.geometry
    )
    found = encoder.encode(frames, encoder.enroll(lost)).expression
    whole = encoder.encode(frames, encoder.enroll(anchors)).expression
    assert torch.allclose(found[:2], whole[:2], atol=1e-6) and not torch.allclose(found[2:], whole[2:], atol=1e-6)
    assert torch.isfinite(found).all()


def test_flnet_reads_displacements_not_places(make):
    encoder = make("flnet").eval()
    frames, anchors = batch(encoder)
    shift = torch.tensor([3.0, -2.0])
    moved = FrameBatch(
        frames.images, CAMERAS, frames.users, Detections(frames.keypoints.points + shift, frames.keypoints.visible)
    )
    reference = Detections(anchors.keypoints.points + shift, anchors.keypoints.visible)
    both = AnchorSet(anchors.images, anchors.names, CAMERAS, anchors.present, reference)
    before = encoder.encode(frames, encoder.enroll(anchors)).expression
    torch.testing.assert_close(encoder.encode(moved, encoder.enroll(both)).expression, before, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoder.encode(moved, encoder.enroll(anchors)).expression, before, atol=1e-4)


def test_flnet_bounds_what_a_point_that_is_not_found_says(make):
    """A point that was put somewhere far counts for a few deviations of what points do, not for hundreds."""
    encoder = make("flnet").eval()
    frames, anchors = batch(encoder)
    calibration = encoder.enroll(anchors)
    read = []
    for trunk in encoder.trunks:
        trunk.register_forward_hook(lambda module, given, out: read.append(given[0]))
    far = Detections(frames.keypoints.points + 1e4, frames.keypoints.visible)
    encoder.encode(FrameBatch(frames.images, CAMERAS, frames.users, far), calibration)
    assert len(read) == 2 and all(given.abs().max() == 4 for given in read)


@pytest.mark.parametrize("when", ["now", "in the reference"])
def test_flnet_takes_no_displacement_from_a_view_in_which_nothing_is_found(make, when):
    encoder = make("flnet").eval()
    frames, anchors = batch(encoder)
    if when == "in the reference":
        anchors.keypoints.visible[:, :, 2] = 0
    calibration = encoder.enroll(anchors)
    lost, elsewhere = frames.keypoints.visible.clone(), frames.keypoints.points.clone()
    if when == "now":
        lost[:, 2] = 0
    elsewhere[:, 2] = 7.0
    one, other = (
        encoder.encode(FrameBatch(frames.images, CAMERAS, frames.users, Detections(points, lost)), calibration)
        for points in (frames.keypoints.points, elsewhere)
    )
    assert torch.equal(one.expression, other.expression)


def test_first_order_motion_is_the_affine_map_that_moved_the_points():
    draw = torch.Generator().manual_seed(1)
    driving = torch.rand(3, 12, 2, generator=draw) - 0.5
    matrix, shift = torch.tensor([[1.2, 0.3], [-0.1, 0.8]]), torch.tensor([0.2, -0.1])
    reference = driving @ matrix.T + shift
    motions = first_order(driving, reference, torch.ones(3, 12), torch.ones(3), HALVES)
    torch.testing.assert_close(motions.jacobian, matrix.expand(3, 2, 2, 2), atol=0.06, rtol=0)
    grid = torch.rand(5, 5, 2, generator=draw) * 0.4 - 0.2
    fields = sparse_fields(motions, grid)
    torch.testing.assert_close(fields[:, 0], grid.expand(3, -1, -1, -1))
    torch.testing.assert_close(fields[:, 1:], (grid @ matrix.T + shift).expand(3, 2, -1, -1, -1), atol=0.04, rtol=0)


def test_motions_and_maps_are_what_each_part_alone_has():
    """Against loops over parts, whose points are in no order: least squares by a general inverse, whole Gaussians."""
    draw, groups = torch.Generator().manual_seed(0), [[3, 0, 7], [1], [2, 9, 4, 5], [8, 11]]
    driving, reference = (torch.rand(5, 12, 2, generator=draw) for _ in range(2))
    weight, known = torch.rand(5, 12, generator=draw), torch.tensor([1.0, 0, 1, 1, 1])
    motions = first_order(driving, reference, weight, known, Parts(groups))
    maps = drawn(32 * driving, weight, Parts(groups), 32, spread=1.5)
    at = torch.stack(torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="xy"), -1)
    for part, group in enumerate(groups):
        share = weight[:, group, None] + 1e-4
        share = share / share.sum(1, keepdim=True)
        centre, source = ((share * places[:, group]).sum(1) for places in (driving, reference))
        away, was = driving[:, group] - centre[:, None], reference[:, group] - source[:, None]
        spread, cross = ((share * values).mT @ away + 5e-4 * torch.eye(2) for values in (away, was))
        turned = known[:, None, None] * (cross @ torch.linalg.inv(spread) - torch.eye(2))
        torch.testing.assert_close(motions.driving[:, part], centre)
        torch.testing.assert_close(motions.reference[:, part], centre + known[:, None] * (source - centre))
        torch.testing.assert_close(motions.jacobian[:, part], torch.eye(2) + turned, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(motions.belief[:, part], weight[:, group].mean(1))
        away = (at - 32 * driving[:, group, None, None]).square().sum(-1)
        expected = (weight[:, group, None, None] * torch.exp(-away / (2 * 1.5**2))).amax(1)
        torch.testing.assert_close(maps[:, part], expected, atol=1e-6, rtol=1e-5)


def test_parts_whose_points_lie_on_a_line_have_finite_motion():
    line = torch.linspace(-0.5, 0.5, 6)[None, :, None] * torch.tensor([1.0, 0.5])
    motions = first_order(line, line + 0.1, torch.ones(1, 6), torch.ones(1), ONE)
    torch.testing.assert_close(motions.jacobian[0, 0], torch.eye(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(motions.reference - motions.driving, torch.full((1, 1, 2), 0.1))


def test_points_that_are_not_believed_do_not_tell_how_a_part_moves():
    """One point in six is nowhere: without belief in it, the motion is that of the others, in full."""
    draw = torch.Generator().manual_seed(3)
    driving = torch.rand(1, 6, 2, generator=draw)
    lost = driving + 0.1
    lost[0, 2] = 5.0
    believed = torch.tensor([[1.0, 1, 0, 1, 1, 1]])
    motions = first_order(driving, lost, believed, torch.ones(1), ONE)
    torch.testing.assert_close(motions.reference - motions.driving, torch.full((1, 1, 2), 0.1), atol=2e-3, rtol=0)
    torch.testing.assert_close(motions.jacobian[0, 0], torch.eye(2), atol=0.05, rtol=0)
    assert motions.belief.item() == pytest.approx(5 / 6)


def test_nothing_moves_without_a_reference():
    draw = torch.Generator().manual_seed(3)
    driving, reference = torch.rand(2, 6, 2, generator=draw), torch.rand(2, 6, 2, generator=draw)
    motions = first_order(driving, reference, torch.ones(2, 6), torch.tensor([1.0, 0.0]), ONE)
    still = (motions.reference - motions.driving).norm(dim=-1) + (motions.jacobian - torch.eye(2)).norm(dim=(-2, -1))
    assert still[0] > 0.1 and still[1] == 0


def test_the_warp_field_begins_with_each_part_s_motion_about_it_and_none_far_away():
    """Before anything is learned: near a part its own displacement, in the empty corner nothing."""
    driving = torch.tensor([[-0.5, -0.5], [0.5, -0.4]]).repeat_interleave(6, 0)[None]
    driving = driving + 0.02 * torch.randn(driving.shape, generator=torch.Generator().manual_seed(0))
    moved = torch.tensor([[0.2, 0.0], [0.0, -0.1]])
    reference = driving + moved.repeat_interleave(6, 0)
    dense = DenseMotion(2, 8, 5, 32).eval()
    torch.nn.init.zeros_(dense.masks.weight)
    torch.nn.init.zeros_(dense.masks.bias)
    with torch.no_grad():
        motions = first_order(driving, reference, torch.ones(1, 12), torch.ones(1), HALVES)
        field = dense(torch.rand(1, 1, 32, 32), motions, torch.ones(1))[0, :2].permute(1, 2, 0) / 10
    for part, (x, y) in enumerate(motions.driving[0]):
        here = field[int((y + 1) * 16), int((x + 1) * 16)]
        torch.testing.assert_close(here, moved[part], atol=0.04, rtol=0)
    assert field[-1, 0].abs().max() < 0.01


def test_a_view_in_which_nothing_is_found_warps_next_to_nothing(make):
    """A covered camera's points lie anywhere: before anything is learned, its warp field stays the identity."""
    draw = torch.Generator().manual_seed(0)
    driving, reference = torch.rand(1, 12, 2, generator=draw) - 0.5, torch.rand(1, 12, 2, generator=draw) - 0.5
    motions = first_order(driving, reference, torch.ones(1, 12), torch.ones(1), HALVES)
    dense = DenseMotion(2, 8, 5, 32).eval()
    torch.nn.init.zeros_(dense.masks.weight)
    torch.nn.init.zeros_(dense.masks.bias)
    with torch.no_grad():
        found, lost = (dense(torch.zeros(1, 1, 32, 32), motions, torch.tensor([sure]))[:, :2] for sure in (1.0, 0.0))
    assert lost.abs().max() < 0.02 * found.abs().max()


@pytest.mark.parametrize("when", ["now", "in the reference"])
def test_a_view_is_believed_as_far_as_points_are_found_in_it(when):
    sure, covered = (Detections(torch.zeros(1, 4, 96, 2), torch.full((1, 4, 96), 0.4)) for _ in range(2))
    covered.visible[:, 2] = 0.02
    given = (covered, sure) if when == "now" else (sure, covered)
    torch.testing.assert_close(found_in_views(*given), torch.tensor([[1.0, 1.0, 0.2, 1.0]]))


def test_a_part_as_thin_as_points_are_uncertain_is_not_turned_by_their_noise():
    """Points on a line that moved along with it, but for noise across: the Jacobian stays near the identity."""
    draw = torch.Generator().manual_seed(0)
    line = torch.linspace(-0.2, 0.2, 6)[None, :, None] * torch.tensor([1.0, 0.0])
    noise = 0.01 * torch.randn(200, 2, 6, 2, generator=draw)
    motions = first_order(line + noise[:, 0], line + noise[:, 1], torch.ones(200, 6), torch.ones(200), ONE)
    assert (motions.jacobian[:, 0] - torch.eye(2)).norm(dim=(-2, -1)).mean() < 0.25


def test_without_a_reference_the_warp_field_is_nothing(make):
    encoder = make("fomm").eval()
    frames, anchors = batch(encoder)
    lost = AnchorSet(
        anchors.images, anchors.names, CAMERAS, torch.zeros(2, 1, dtype=torch.bool), anchors.keypoints, anchors.geometry
    )
    fields = []
    for dense in encoder.dense:
        dense.register_forward_hook(lambda module, given, field: fields.append(field))
    encoder.encode(frames, encoder.enroll(lost))
    assert all(field[:, :2].abs().max() < 1e-5 for field in fields) and len(fields) == 2
    encoder.encode(frames, encoder.enroll(anchors))
    assert fields[2][:, :2].abs().max() > 0.1


@pytest.mark.parametrize(
    ("camera", "parts"),
    [(0, ("lid",)), (1, ("lid",)), (2, ("lip_inner", "lip_outer")), (3, ("lip_inner", "lip_outer"))],
)
def test_rings_are_cut_into_arcs_that_end_near_the_corners(keypoints, camera, parts):
    """Of eyes and mouth: no arc has more than a point beyond a corner."""
    names = keypoints[camera].names
    arcs, whole = groups_of(names), {name.rpartition("_")[0] for name in names}
    assert sorted(k for group in arcs for k in group) == list(range(96)) and len(arcs) >= len(whole) + 3 * len(parts)
    places = load_head().template[list(keypoints[camera].vertices)]
    for part in parts:
        ring = [k for k, name in enumerate(names) if name.rpartition("_")[0] == part]
        cut = [group for group in arcs if group[0] in ring]
        assert all(4 <= len(group) <= 8 and group == list(range(group[0], group[-1] + 1)) for group in cut)
        corners = [ring[places[ring, 0].argmin()], ring[places[ring, 0].argmax()]]
        beyond = [
            min(corner - group[0], group[-1] - corner) for group in cut for corner in corners if corner in group
        ]  # fmt: skip
        assert len(cut) % 4 == 0 and len(beyond) == 2 and max(beyond) <= 1


def test_where_nothing_moved_the_warp_field_is_nothing():
    points = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(2)) - 0.5
    motions = first_order(points, points, torch.ones(2, 12), torch.ones(2), HALVES)
    dense = DenseMotion(2, 8, 5, 32).eval()
    with torch.no_grad():
        field = dense(torch.rand(2, 1, 32, 32), motions, torch.ones(2))
    assert field.shape == (2, 3, 32, 32) and field[:, :2].abs().max() < 1e-4


def test_heat_maps_peak_at_their_points_and_fade_with_confidence():
    points = torch.tensor([[[10.5, 20.5], [40.5, 8.5], [50.5, 50.5]]])
    maps = drawn(points, torch.tensor([[1.0, 0.5, 0.0]]), Parts([[0], [1, 2]]), 64, spread=1.5)
    assert maps.shape == (1, 2, 64, 64)
    assert maps[0, 0, 20, 10] == pytest.approx(1) and maps[0, 0].argmax() == 20 * 64 + 10
    assert maps[0, 1, 8, 40] == pytest.approx(0.5) and maps[0, 1, 50, 50] < 1e-6


def test_points_side_by_side_stay_apart_in_a_heat_map():
    """Where Gaussians overlap the greatest counts: a ring is a ring, not a disc."""
    line = torch.stack([torch.arange(10.5, 50, 1.5), torch.full((27,), 30.5)], -1)[None]
    maps = drawn(line, torch.ones(1, 27), Parts([range(27)]), 64, spread=1.5)
    assert maps.max() <= 1 and maps[0, 0, 33, 30] < 0.2 and maps[0, 0, 30, 15:45].min() > 0.8


def test_a_point_that_hides_for_the_first_time_does_not_drown_all_others(make):
    """In training every point is seen and moves by pixels; then all are hidden, where they were."""
    encoder = make("flnet").train()
    frames, anchors = batch(encoder)
    points = anchors.keypoints.points[:, 0]
    for seed in range(30):
        moved = points[frames.users] + torch.randn(4, 4, 96, 2, generator=torch.Generator().manual_seed(seed))
        sure = 0.99 + 0.01 * torch.rand(4, 4, 96, generator=torch.Generator().manual_seed(seed))
        encoder(FrameBatch(frames.images, CAMERAS, frames.users, Detections(moved, sure)), anchors)
    encoder.eval()
    calibration = encoder.enroll(anchors)
    seen, hidden = (
        torch.cat(encoder.features(FrameBatch(frames.images, CAMERAS, frames.users, Detections(moved, sure * factor)),
                                   calibration.rows(frames.users)), 1)
        for factor in (1, 0)
    )  # fmt: skip
    assert (seen - hidden).norm() < 2 * seen.norm()


def test_parts_of_the_face_are_told_by_names(keypoints):
    groups = groups_of(keypoints[0].names)
    assert sorted(k for group in groups for k in group) == list(range(96))
    parts = [{keypoints[0].names[k].rpartition("_")[0] for k in group} for group in groups]
    assert all(len(part) == 1 for part in parts) and len(set.union(*parts)) < len(groups) <= 16


@pytest.fixture(scope="module")
def fitted(capture, rig, keypoints):
    """Frames fitted to their exact keypoints, beside the exact mesh."""
    from ufe_baselines.head_fit import HeadFit

    frames = capture.spread(8, seed=1)
    rows = [capture.anchors["neutral"], *frames]
    exact = capture.keypoints(rows, cameras=CAMERAS, size=SIZE)
    found = Detections(torch.from_numpy(exact.points), torch.from_numpy(exact.visible).float())
    neutral = torch.from_numpy(capture.neutral().geometry)[None]
    fit = HeadFit(rig, keypoints, noise_px=0.5, iterations=8)
    rest = fit(found.map(lambda v: v[:1]), neutral, torch.zeros(1, 6), torch.zeros(1), resting=True)
    everyone, pose, known = neutral.expand(8, -1, -1), rest.pose.expand(8, -1), torch.ones(8)
    tracked = fit(found.map(lambda v: v[1:]), everyone, pose, known)
    open_eyes = found.visible[1:, :2, -2].amin(1) > 0  # each camera sees its own pupil
    gaze = torch.from_numpy(capture.labels(frames).gaze).view(-1, 2, 3)
    return fit, tracked, neutral, torch.from_numpy(capture.geometry(frames)), gaze, open_eyes


def test_a_bounded_step_is_the_least_between_bounds():
    """Of random quadratics: nothing can be gained by moving any number within its bounds."""
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(50, 6, 6, generator=draw, dtype=torch.float64)
    hessian = root @ root.transpose(1, 2) + 0.5 * torch.eye(6)
    slope = torch.randn(50, 6, generator=draw, dtype=torch.float64)
    least, most = torch.full_like(slope, -0.2), torch.full_like(slope, 0.3)
    least[:, :2], most[:, :2] = -torch.inf, torch.inf

    def value(step):
        return 0.5 * torch.einsum("bi,bij,bj->b", step, hessian, step) + (slope * step).sum(1)

    step = bounded_step(hessian, slope, least, most)
    assert (step >= least).all() and (step <= most).all()
    cut_off = (-torch.linalg.solve(hessian, slope)).clamp(least, most)
    assert (value(step) <= value(cut_off) + 1e-9).all() and (value(step) < value(cut_off) - 1e-3).float().mean() > 0.5
    free = (step > least + 1e-9) & (step < most - 1e-9)
    pull = torch.einsum("bij,bj->bi", hessian, step) + slope
    assert pull[free].abs().max() < 1e-9 and (step < least + 1e-9).any() and (step > most - 1e-9).any()
    assert (pull[step <= least] >= 0).all() and (pull[step >= most] <= 0).all(), "held where leaving would gain"
    inside = bounded_step(hessian, slope, torch.full_like(slope, -1e3), torch.full_like(slope, 1e3))
    torch.testing.assert_close(inside, -torch.linalg.solve(hessian, slope))


class TestFit:
    def test_exact_keypoints_give_the_mesh(self, fitted):
        fit, tracked, neutral, exact, *_ = fitted
        face = torch.from_numpy(load_head().topology.region("face").astype(np.int64))
        truth = exact[:, face] - neutral[:, face]
        away = (fit.moved(tracked, neutral.expand(8, -1, -1), face) - truth).norm(dim=-1).mean()
        assert away < 0.15 * truth.norm(dim=-1).mean()

    def test_and_the_gaze_where_pupils_are_seen(self, fitted):
        _, tracked, _, _, gaze, seen = fitted
        cosine = (gaze_of(tracked.angles) * gaze).sum(-1)[seen]
        assert len(cosine) > 3 and torch.rad2deg(cosine.clamp(-1, 1).acos()).mean() < 1.5

    def test_eyeballs_turn_about_their_centres(self, fitted):
        fit, tracked, neutral, exact, _, seen = fitted
        eyes = torch.cat(fit.eyes)
        moved = fit.moved(tracked, neutral.expand(8, -1, -1), eyes)
        assert (moved - (exact[:, eyes] - neutral[:, eyes]))[seen].norm(dim=-1).mean() < 0.4

    def test_hidden_points_pull_nothing(self, fitted, rig, keypoints):
        fit, _, neutral, *_ = fitted
        nowhere = Detections(torch.full((1, 4, 96, 2), 500.0), torch.zeros(1, 4, 96))
        rest = fit(nowhere, neutral, torch.zeros(1, 6), torch.zeros(1))
        assert rest.actions.abs().max() < 1e-6 and rest.pose.abs().max() < 1e-6 and rest.angles.abs().max() < 1e-6

    def test_residuals_have_the_derivative_that_differences_tell(self, fitted):
        """Of every number of the state, those that a camera does not list among them: they move none of its points."""
        fit, tracked, neutral, *_ = fitted
        state = torch.cat([tracked.pose, tracked.actions, tracked.angles], 1)[:2].double()
        mesh = neutral.double().expand(2, -1, -1)
        centres, radius = (
            torch.stack([mesh[:, rows].mean(1) for rows in fit.eyes], 1),
            torch.full((2, 2), 12.0).double(),
        )
        for view in fit.views:
            at_rest = view.at_rest(mesh, centres)

            def placed(state, view=view, at_rest=at_rest):
                posed = _Posed.of(state, radius)
                at = view.turned(posed, at_rest)
                return posed, at, *view.lens.seen(at + posed.shift)

            posed, at, pixels, of_points, usable = placed(state)
            found = state.new_zeros(*pixels.shape[:2], 2, state.shape[1])
            terms = view.terms(posed, at, of_points, pixels)
            found[..., view.columns] = terms[..., :-1]
            for k, step in enumerate(1e-5 * torch.eye(state.shape[1]).double()):
                if k < 3:  # a turn is composed, not added
                    moved = [
                        view.lens.seen(at @ rotation_of(sign * step[None, :3]).mT + posed.shift)[0] for sign in (1, -1)
                    ]
                else:
                    moved = [placed(state + sign * step)[2] for sign in (1, -1)]
                expected = (moved[0] - moved[1]) / 2e-5
                torch.testing.assert_close(found[..., k][usable], expected[usable], atol=1e-4, rtol=1e-5)
            assert POSE < len(view.columns) < state.shape[1] and torch.equal(terms[..., -1], pixels)

    @pytest.mark.parametrize("model", ["brown_conrady", "fisheye"])
    def test_lenses_see_what_cameras_project(self, rig, model):
        """With every coefficient of a lens, on its axis, and pixels that are skewed."""
        bent = [-0.11, 0.03, 0.002, -0.004, 0.01 * (model == "brown_conrady")]
        points = np.random.default_rng(0).uniform([-40, -40, 0], [40, 100, 30], (50, 3))
        for camera in rig:
            lens = replace(
                camera, model=model, distortion=np.array(bent), intrinsics=camera.intrinsics + 0.7 * np.eye(3, k=1)
            )
            points[0] = lens.position + 40 * lens.rotation[2]
            pixels, slope, usable = _Lens(lens).seen(torch.from_numpy(points)[None])
            good = usable[0].numpy()
            np.testing.assert_allclose(pixels[0].numpy()[good], lens.project(points)[good], atol=1e-6)
            for k, step in enumerate(1e-4 * np.eye(3)):
                moved = (lens.project(points + step) - lens.project(points - step)) / 2e-4
                np.testing.assert_allclose(slope[0, ..., k].numpy()[good], moved[good], atol=1e-5)
            assert good[0] and good.sum() > 20 and good[camera.in_view(points)].mean() > 0.8
            assert not slope[0][~usable[0]].any()
