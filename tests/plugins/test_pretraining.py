"""Pretext tasks: the warp against its formula, the masks, InfoNCE against a loop, and published weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ufe_core.errors import ConfigError
from ufe_core.interfaces.pretraining import UnlabelledBatch, Views
from ufe_core.plugins import catalogue
from ufe_core.recipe import resolve_recipe
from ufe_core.types import AnchorSet, Detections, Encoding, FrameBatch
from ufe_core.weights import sha256_file
from ufe_pretraining.canonical import Canonical
from ufe_pretraining.contrastive import found_again, info_nce
from ufe_pretraining.unet import UNet
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.source import SyntheticSource

CAMERAS = ("left_eye", "right_eye", "left_mouth", "right_mouth")
NAMES = tuple(f"lip_{k}" if k < 8 else f"chin_{k}" for k in range(96))


def test_without_the_warp_nothing_tells_what_moves_so_nothing_of_it_is_hidden():
    for given in ({"budget": "cpu"}, {"overrides": {"pretraining": {"hidden": 0.3}}}):
        overrides = {"pretraining": {**given.pop("overrides", {}).get("pretraining", {}), "aligned": False}}
        made = resolve_recipe(catalogue(), pretraining="mae_novel_view", overrides=overrides, **given)
        assert made.pretraining.config.hidden == 0


def canonical(views=2, points=5, size=24, sigma=40.0, seed=0):
    made = Canonical(views, points, size, sigma)
    made.template.copy_(torch.from_numpy(np.random.default_rng(seed).uniform(4, size - 4, (views, points, 2))))
    return made


def detections(points, sure=None):
    visible = torch.ones(points.shape[:-1]) if sure is None else sure
    return Detections(points.float(), visible.float())


def test_the_field_is_the_formula_of_the_paper():
    """P§6.6, in loops."""
    warp, rng = canonical(), np.random.default_rng(1)
    points = warp.template[None].numpy() + rng.normal(0, 2, (3, 2, 5, 2))
    sure = rng.uniform(0.1, 1, (3, 2, 5))
    field = warp.field(detections(torch.from_numpy(points), torch.from_numpy(sure))).numpy()
    sigma = 40.0 * 24 / 192
    for n, k, y, x in [(0, 0, 3, 7), (1, 1, 20, 2), (2, 0, 11, 12), (2, 1, 0, 23)]:
        total, moved = 0.0, np.zeros(2)
        for j in range(5):
            away = warp.template[k, j].numpy() - np.array([x + 0.5, y + 0.5])
            weight = sure[n, k, j] * math.exp(-(away @ away) / (2 * sigma**2))
            total += weight
            moved += weight * (points[n, k, j] - warp.template[k, j].numpy())
        np.testing.assert_allclose(field[n, k, y, x], moved / (total + 1e-6), rtol=1e-4, atol=1e-5)


def test_a_face_that_is_where_the_template_has_it_stays():
    warp = canonical()
    images = torch.randint(0, 256, (2, 2, 24, 24), dtype=torch.uint8)
    assert torch.equal(warp(images, detections(warp.template.expand(2, -1, -1, -1))), images)


def test_a_face_that_is_shifted_is_shifted_back():
    """By whole pixels, so that nothing is interpolated."""
    warp = canonical()
    images = torch.randint(0, 256, (1, 2, 24, 24), dtype=torch.uint8)
    moved = torch.roll(images, (3, -2), (-2, -1))  # 3 down, 2 to the left
    found = detections(warp.template[None] + torch.tensor([-2.0, 3.0]))
    assert torch.equal(warp(moved, found)[..., 3:20, 3:20], images[..., 3:20, 3:20])


def test_points_are_carried_where_their_pixels_go():
    """A bright dot at a point of the image is found at the point's place in the warped one."""
    warp, rng = canonical(views=1, size=48), np.random.default_rng(2)
    warp.template.copy_(torch.from_numpy(rng.uniform(14, 34, (1, 5, 2))))
    found = detections(warp.template[None] + torch.from_numpy(rng.normal(0, 2.5, (1, 1, 5, 2))))
    images = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    images[0, 0, 20:24, 25:29] = 255  # its middle lies at (27, 22)
    warped = warp(images, found)[0, 0].double()
    centres = torch.arange(48) + 0.5
    middle = torch.stack([(warped.sum(0) * centres).sum(), (warped.sum(1) * centres).sum()]) / warped.sum()
    carried = warp.carried(torch.tensor([[[[27.0, 22.0]]]]), found)[0, 0, 0]
    assert (carried - middle).norm() < 0.35


def test_the_template_is_the_mean_without_outliers():
    rng = np.random.default_rng(3)
    points = torch.from_numpy(rng.normal(10, 1, (40, 2, 5, 2)))
    lost = points.clone()
    lost[7, 1, 2] = torch.tensor([500.0, -80.0])
    warp = canonical()
    warp.fit([Views(np.zeros((1, 2, 24, 24), np.uint8), detections(row[None])) for row in lost])
    others = torch.cat([points[:7, 1, 2], points[8:, 1, 2]])
    assert (warp.template[1, 2] - others.mean(0)).norm() < 0.5
    assert (warp.template[0] - points[:, 0].mean(0)).abs().max() < 0.5


def made(name, **options):
    recipe = resolve_recipe(
        catalogue(), decoder="blendshape", budget="smoke", pretraining=name, overrides={"pretraining": options}
    )
    encoder = recipe.make_network(CAMERAS, recipe.make_decoder().code_space)
    views = ("w", "x", "y", "z") if recipe.pretraining.spec.load().views else ()
    method = recipe.pretraining.spec.load()(recipe.pretraining.config, encoder=encoder, views=views)
    return encoder.eval(), method.eval()


def batch_for(encoder, method, seed=0):
    """Two people, two frames each."""
    make, size = torch.Generator().manual_seed(seed), encoder.needs.size
    images = torch.randint(0, 256, (4, 4, size, size), dtype=torch.uint8, generator=make)
    held = torch.randint(0, 256, (2, 6, 4, size, size), dtype=torch.uint8, generator=make)
    frames = FrameBatch(images, CAMERAS, torch.tensor([0, 0, 1, 1]))
    anchors = AnchorSet.complete(held, encoder.needs.anchors, CAMERAS)
    shape = method.person_shape
    people = None if shape is None else torch.randn(2, *shape, generator=make)
    targets = torch.randint(0, 256, (4, 4, size, size), dtype=torch.uint8, generator=make)
    return UnlabelledBatch(((frames, anchors),) * method.versions, targets, torch.tensor([5, 9]), people)


def test_nine_tenths_of_every_view_are_removed():
    _, method = made("mae_novel_view", aligned=False)
    removed = method._draw_mask(6)
    assert removed.shape == (6, 4, 8, 8) and (removed.sum((-2, -1)) == round(0.9 * 64)).all()
    assert len({row.numpy().tobytes() for row in removed.flatten(0, 1)}) == 24, "each view has its own"
    pixels = method._pixels(removed)
    assert pixels.shape == (6, 4, 64, 64) and torch.equal(pixels[:, :, ::8, ::8].bool(), removed)


def test_the_networks_see_nothing_of_what_was_removed():
    encoder, method = made("mae_novel_view", aligned=False)
    batch = batch_for(encoder, method)
    truth, removed = method._truth(batch), method._draw_mask(4)
    said = encoder(batch.frames, batch.anchors)
    found = method.reconstruct(truth, removed, said, batch.person)
    other = torch.where(method._pixels(removed).bool(), torch.rand_like(truth), truth)
    assert torch.equal(method.reconstruct(other, removed, said, batch.person), found)
    seen = torch.where(method._pixels(removed).bool(), truth, torch.rand_like(truth))
    assert not torch.equal(method.reconstruct(seen, removed, said, batch.person), found)


def test_the_loss_is_equation_22():
    """Root mean squares of images, their mean over views and frames; in variants, squares, and removed pixels."""
    encoder, method = made("mae_novel_view", aligned=False)
    batch = batch_for(encoder, method)
    torch.manual_seed(1)
    total = method.losses(encoder, batch)["total"]
    torch.manual_seed(1)
    removed, truth = method._draw_mask(4), method._truth(batch)
    found = method.reconstruct(truth, removed, encoder(batch.frames, batch.anchors), batch.person)
    by_hand = [((found[n, k] - truth[n, k]) ** 2).mean().sqrt() for n in range(4) for k in range(4)]
    torch.testing.assert_close(total, torch.stack(by_hand).mean(), rtol=1e-4, atol=1e-5)
    method.config = method.config.model_copy(update={"masked_only": True, "squared": True})
    torch.manual_seed(1)
    only = method.losses(encoder, batch)["total"]
    pixels = method._pixels(removed).bool()
    squares = [((found[n, k] - truth[n, k]) ** 2)[pixels[n, k]].mean() for n in range(4) for k in range(4)]
    torch.testing.assert_close(only, torch.stack(squares).mean(), rtol=1e-4, atol=1e-5)


def test_networks_that_say_nothing_show_the_mean_of_all_people():
    encoder, method = made("mae_novel_view", aligned=False)
    drawn = np.random.default_rng(0).integers(60, 200, (10, 4, 64, 64), dtype=np.uint8)
    method.fit_statistics([Views(drawn[:4]), Views(drawn[4:])])
    torch.testing.assert_close(method.deviation * 255, torch.from_numpy(drawn.astype(np.float32).std(0, ddof=1)))
    for network in method.networks:
        torch.nn.init.zeros_(network.out.weight)
        torch.nn.init.zeros_(network.out.bias)
    batch = batch_for(encoder, method)
    truth = method._truth(batch)
    found = method.reconstruct(truth, method._draw_mask(4), encoder(batch.frames, batch.anchors), batch.person)
    mean = torch.from_numpy(drawn.astype(np.float32).mean(0)) / 255
    torch.testing.assert_close(found, mean.expand_as(found))


def test_a_person_begins_as_their_anchors_in_few_pixels():
    """Cell (y, x) of u^id holds what the views, standardised, show there, the finer pixels of a cell as channels."""
    _, method = made("mae_novel_view", aligned=False, person_start="image", channels=(8, 16, 16))
    drawn = np.random.default_rng(0).integers(0, 256, (6, 4, 64, 64), dtype=np.uint8)
    method.fit_statistics([Views(drawn)])
    start = method.person_start(Views(drawn[:2]))
    assert start.shape == method.person_shape == (16, 8, 8) and start.dtype == np.float32
    said = (drawn[:2].astype(np.float64).mean(0) - drawn.mean(0)) / drawn.std(0, ddof=1)
    for view, y, x, down, across in ((0, 0, 0, 0, 0), (3, 7, 2, 1, 0), (2, 4, 6, 0, 1)):
        top, left = 8 * y + 4 * down, 8 * x + 4 * across
        shown = said[view, top : top + 4, left : left + 4].mean()
        assert start[4 * view + 2 * down + across, y, x] == pytest.approx(shown, abs=1e-4)
    _, narrow = made("mae_novel_view", aligned=False, person_start="image", channels=(8, 8, 6))
    assert not narrow.person_start(Views(drawn))[4:].any(), "a channel a view, and two that hold nothing"
    with pytest.raises(ConfigError, match="a last channel of 4 or more"):
        made("mae_novel_view", aligned=False, person_start="image", channels=(8, 8, 2))
    _, noise = made("mae_novel_view", aligned=False, person_start="noise")
    assert noise.person_start(Views(drawn)) is None


@pytest.mark.parametrize(("share", "frames"), [(0.0, 0), (0.5, 1), (1.0, 4)])
def test_of_some_frames_all_that_moves_is_hidden(share, frames, monkeypatch):
    encoder, method = made("mae_novel_view", aligned=False)
    method.config = method.config.model_copy(update={"hidden": share})  # as if a template said what moves
    method.moving[:, 2:6, 1:5] = True
    seen = []
    reconstruct = method.reconstruct
    monkeypatch.setattr(method, "reconstruct", lambda *given: (seen.append(given[1]), reconstruct(*given))[1])
    torch.manual_seed(1)
    method.losses(encoder, batch_for(encoder, method))
    hidden = (seen[0] | ~method.moving).all((-1, -2, -3))
    assert hidden.sum() == frames


def test_gradients_reach_the_encoder_and_the_person_through_what_is_reconstructed():
    encoder, method = made("mae_novel_view", aligned=False)
    batch = batch_for(encoder.train(), method.train())
    batch.people.requires_grad_()
    method.losses(encoder, batch)["total"].backward()
    assert batch.people.grad.abs().max() > 0
    missing = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not [name for name in missing if not name.startswith("calibrate") or "missing" not in name], missing


def test_own_codes_others_and_none_are_told_apart_where_it_moves(monkeypatch):
    """Where it moves a frame is as bright as its code says; elsewhere nothing says what it is."""
    encoder, method = made("mae_novel_view", aligned=False)
    batch = batch_for(encoder, method)
    method.moving[:2, 2:4, 1:3] = True
    moves = method._pixels(method.moving).bool()
    grey = torch.tensor([40, 100, 200, 60], dtype=torch.uint8)  # of two people, two frames each
    batch = replace(batch, targets=torch.where(moves, grey.view(-1, 1, 1, 1), batch.targets))

    def says(frames, anchors):
        return Encoding(grey[:, None] / 255 * torch.ones(4, encoder.code_space.size), torch.zeros(4, 6))

    def reconstruct(truth, removed, said, person):
        assert removed[:, method.moving].all(), "nothing is left of what moves"
        return said.expression[:, :1, None, None].expand_as(truth)

    monkeypatch.setattr(method, "reconstruct", reconstruct)
    measured = method.measure(says, batch)
    assert measured["right"] == pytest.approx(0, abs=1e-4)
    assert measured["other"] == pytest.approx(math.sqrt((60**2 + 140**2) / 2), rel=1e-5), "of the same person"
    assert measured["zero"] == pytest.approx((grey.double() ** 2).mean().sqrt().item(), rel=1e-5)
    assert measured["x: other"] == pytest.approx(measured["other"]) and "y: other" not in measured

    side, columns = 104, 6  # of a tile; tiles of a view
    picture = method.picture(says, batch)[-2 * side :, :, 0]
    for person, (own, other) in enumerate([(40, 100), (200, 60)]):
        row = picture[person * side :][:side]
        tiles = [row[:, k * side : (k + 1) * side] for k in range(columns)]
        assert (tiles[3] == own).all() and (tiles[5] == other).all()
        middle = slice(5 * side // 16, 6 * side // 16), slice(3 * side // 16, 4 * side // 16)
        assert (tiles[1][middle] == own).any() and (tiles[4][middle] == other).any()


def test_what_moves_is_where_the_lips_are():
    _, method = made("mae_novel_view", aligned=False)
    template = torch.full((1, 4, 96, 2), 60.0)
    template[..., :8, :] = torch.tensor([30.0, 20.0]) + torch.arange(8)[:, None]
    jaw_down = template.clone()
    jaw_down[..., 7, 1] += 5
    sample = torch.cat([template, jaw_down])
    views = Views(np.zeros((2, 4, 64, 64), np.uint8), detections(sample), (NAMES,) * 4)
    method.fit_statistics([views])
    assert torch.equal(method.canonical.template, template[0]), "of the face at rest alone"
    low = method.canonical.carried(sample, detections(sample))[1, 2, :8, 1].max()
    assert low > 29, "the warp leaves most of what the jaw does"
    rows, columns = torch.nonzero(method.moving[2], as_tuple=True)
    margin = 64 / 24
    assert rows.min() == (20 - margin) // 8 and rows.max() == (27 + 0.98 * (float(low) - 27) + margin) // 8
    assert columns.min() == (30 - margin) // 8 and columns.max() == (37 + margin) // 8


def test_a_unet_has_the_shape_of_the_paper():
    """P§13.4, O32: five levels, 192 to 6 pixels, 192 channels below."""
    network = UNet((32, 64, 96, 128, 192), inputs=2, code=262, side=6)
    seen = []
    network.mix.register_forward_hook(lambda *args: seen.append(tuple(args[1][0].shape)))
    out = network(torch.zeros(1, 2, 192, 192), torch.zeros(1, 262), torch.zeros(1, 192, 6, 6))
    assert out.shape == (1, 192, 192) and seen == [(1, 3 * 192, 6, 6)]


def test_a_unet_can_draw_an_image_brighter_as_a_whole():
    """What its last convolution says three times as strongly is three times as bright: nothing normalises it."""
    torch.manual_seed(0)
    network = UNet((8, 8), inputs=2, code=5, side=4).eval()
    given = torch.rand(2, 2, 16, 16), torch.rand(2, 5), torch.rand(2, 8, 4, 4)
    with torch.no_grad():
        before = network(*given) - network.out.bias
        network.up[-1][3].weight *= 3
        torch.testing.assert_close(network(*given) - network.out.bias, 3 * before)
    assert before.abs().max() > 1e-3


@pytest.mark.parametrize("positives", ["cameras", "versions", "both"])
def test_info_nce_is_the_sum_over_pairs(positives):
    features = torch.nn.functional.normalize(torch.randn(3, 2, 2, 7, dtype=torch.float64), dim=-1)
    places = [(b, v, c) for b in range(3) for v in range(2) for c in range(2)]
    terms = []
    for one in places:
        negatives = sum(
            math.exp(float(features[one] @ features[other]) / 0.1) for other in places if other[0] != one[0]
        )
        for other in places:
            same_version, same_camera = other[1] == one[1], other[2] == one[2]
            wanted = {"cameras": same_version, "versions": same_camera, "both": True}[positives]
            if other[0] == one[0] and other != one and wanted:
                own = math.exp(float(features[one] @ features[other]) / 0.1)
                terms.append(-math.log(own / (own + negatives)))
    assert float(info_nce(features, 0.1, positives)) == pytest.approx(sum(terms) / len(terms), rel=1e-9)


def test_the_other_camera_is_found_among_all_frames_or_among_the_persons_own():
    """By hand: two people's two frames, which look alike in the other camera but for the person's own two."""
    features = torch.zeros(4, 1, 2, 4)
    features[range(4), 0, 0, range(4)] = 1.0
    features[range(4), 0, 1, [0, 1, 3, 2]] = 1.0  # the second person's frames are each taken for the other
    people = torch.tensor([0, 0, 1, 1])
    assert found_again(features) == 0.5 and found_again(features, people) == 0.5
    features[range(4), 0, 1] = torch.eye(4)[[2, 3, 0, 1]]  # each is taken for a frame of the other person
    assert found_again(features) == 0.0
    features[range(4), 0, 1] += 0.1 * torch.eye(4)
    assert found_again(features) == 0.0 and found_again(features, people) == 1.0


def test_contrastive_learning_moves_what_is_seen_in_single_cameras():
    encoder, method = made("simclr")
    batch = batch_for(encoder.train(), method.train())
    terms = method.losses(encoder, batch)
    assert set(terms) == {"upper", "lower", "total"}
    terms["total"].backward()
    assert all(p.grad is not None for p in encoder.reduce.parameters())
    assert all(p.grad is None for p in encoder.fuse.parameters()), "perceptrons are not taught"


def test_published_weights_fill_both_regions(tmp_path):
    """Colours are summed; a file of another model is refused in one line."""
    import timm

    weights = timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "model.safetensors")
    encoder, method = made("imagenet", file=str(tmp_path / "model.safetensors"))
    facts = method.initialise(encoder)
    assert facts["weights"] == sha256_file(tmp_path / "model.safetensors")
    saved = sorted(weights.items())[::-1]  # the same numbers in another file
    save_file({name: value.contiguous() for name, value in saved}, tmp_path / "again.safetensors", {"by": "someone"})
    encoder, again = made("imagenet", file=str(tmp_path / "again.safetensors"))
    assert again.initialise(encoder)["tensors_sha256"] == facts["tensors_sha256"]
    stem = encoder.extract["upper"][0][0].weight
    torch.testing.assert_close(stem, weights["conv_stem.weight"].sum(1, keepdim=True))
    for region in ("upper", "lower"):
        torch.testing.assert_close(encoder.extract[region][0][0].weight, stem)
    torch.testing.assert_close(encoder.reduce["lower"][-2][1].weight, weights["conv_head.weight"])
    save_file({"conv_stem.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "other.safetensors")
    encoder, method = made("imagenet", file=str(tmp_path / "other.safetensors"))
    with pytest.raises(ConfigError, match="These weights are not of timm's 'mobilenetv3_small_050'"):
        method.initialise(encoder)


def test_published_weights_are_known_by_what_is_in_the_file_wherever_it_lies(tmp_path):
    described = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        file = tmp_path / place / "model.safetensors"
        save_file({"conv_stem.weight": torch.ones(3, 3, 3, 3)}, file)
        options = {"pretraining": {"file": str(file)}, "encoder": {"backbone": "mobilenetv3_small_050"}}
        recipe = resolve_recipe(catalogue(), decoder="blendshape", budget="smoke", pretraining="imagenet",
                                overrides=options)  # fmt: skip
        described.append(recipe.describe_pretraining())
        assert described[-1]["pretraining"]["config"]["file"] == sha256_file(file)
    assert described[0] == described[1]


def test_a_hub_that_cannot_be_reached_is_one_line_that_says_what_to_do(monkeypatch):
    import timm

    create = timm.create_model

    def unreachable(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    recipe = resolve_recipe(
        catalogue(), decoder="blendshape", budget="smoke", pretraining="imagenet",
        overrides={"encoder": {"backbone": "mobilenetv3_small_100"}},
    )  # fmt: skip
    encoder = recipe.make_network(CAMERAS, recipe.make_decoder().code_space)
    method = recipe.pretraining.spec.load()(recipe.pretraining.config, encoder=encoder, views=())
    with pytest.raises(ConfigError, match=r"cannot be fetched \(OSError\)\. Get model\.safetensors from https://hugg"):
        method.initialise(encoder)


def test_the_warp_aligns_people_and_keeps_what_they_do():
    """Claim C28, with exact keypoints of people whom the template is not of: in every view the spread of their faces at
    rest shrinks by more than half; mouths open alike.
    """
    people = [f"S{k}" for k in range(1000, 1012)]
    captures = SyntheticSource(SyntheticConfig(subjects=1012)).captures(people)
    cameras = [camera.name for camera in captures[0].cameras if camera.role == "augmented"]

    def found(capture, rows):
        points = capture.keypoints(rows, cameras=cameras, size=64)
        return Detections(torch.from_numpy(points.points), torch.ones(points.visible.shape))

    rest = [found(capture, [capture.anchors["neutral"]]) for capture in captures]
    warp = Canonical(4, 96, 64, 40.0)
    warp.fit([Views(np.zeros((1, 4, 64, 64), np.uint8), one) for one in rest[:6]])
    before = torch.cat([one.points for one in rest[6:]])
    after = torch.cat([warp.carried(one.points, one) for one in rest[6:]])
    first, last = (torch.linalg.vector_norm(p - p.mean(0), dim=-1).mean((0, 2)) for p in (before, after))  # [views]
    assert (last < 0.5 * first).all(), (first, last)

    names = captures[0].keypoint_set(captures[0].camera(cameras[2])).names
    lips = [k for k, name in enumerate(names) if name.startswith("lip_inner")]
    opened = {"before": [], "after": []}
    for capture in captures[6:10]:
        some = found(capture, [*capture.spread(6, seed=0), capture.anchors["neutral"], capture.anchors["jaw_open"]])
        for name, points in (("before", some.points), ("after", warp.carried(some.points, some))):
            height = points[:, 2, lips, 1]
            opened[name] += (height.max(1).values - height.min(1).values).tolist()
    assert np.corrcoef(opened["before"], opened["after"])[0, 1] > 0.95
