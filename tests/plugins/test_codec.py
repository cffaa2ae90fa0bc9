"""The codec before any training: shortcuts that are exact, eyes that the gaze turns, gradients, files."""

import numpy as np
import pytest
import torch

from ufe_avatar.codec import (
    CODE_SIZE,
    CONDITIONS,
    LINEAR_NUMBERS,
    READ_TEXELS,
    Codec,
    Subject,
)
from ufe_avatar.eyeballs import gaze_matrix, gaze_of
from ufe_avatar.networks.atlas import build_atlas
from ufe_avatar.networks.size import Size
from ufe_core.errors import ContractError
from ufe_core.geometry import gaze_rotation
from ufe_core.head import EYE_LEFT, EYE_RIGHT

from .gazes import AHEAD, directions

SIZE = Size(64, 4, 0.125, CONDITIONS)
POSITION = torch.tensor([[30.0, -10, 900]])
FACES = 12


GAZE = directions((20, 10), (-15, 25)).view(1, 6)


@pytest.fixture(scope="module")
def neutrals(head):
    """Two people: the mean head, and one that is larger, wider and has its eyes elsewhere."""
    mean = torch.from_numpy(head.template)
    other = mean * torch.tensor([1.1, 1.0, 1.05]) + torch.tensor([0.5, -2.0, 3.0])
    generator = torch.Generator().manual_seed(2)
    return torch.stack([mean, other]), torch.rand(2, 3, 96, 96, generator=generator)


@pytest.fixture(scope="module")
def data(head):
    """Displacements that random mixtures of a few make, and the texture differences that go with them."""
    rng = np.random.default_rng(0)
    actions = torch.from_numpy(head.actions)[[17, 20, 24, 36, 41]]
    amounts = torch.from_numpy(rng.uniform(size=(FACES, len(actions))).astype(np.float32))
    smooth = torch.from_numpy(rng.normal(size=(5, 3, READ_TEXELS, READ_TEXELS)).astype(np.float32)) * 0.05
    smooth *= Codec(SIZE, head.topology).still  # next to the eyeballs, no texture is read
    return torch.einsum("na,avd->nvd", amounts, actions), torch.einsum("na,acij->ncij", amounts, smooth)


def new_codec(head, data, seed=0):
    torch.manual_seed(seed)
    codec = Codec(SIZE, head.topology)
    codec.set_rest(torch.from_numpy(head.template))
    codec.fit_statistics(*data)
    return codec.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def codec(head, data):
    return new_codec(head, data)


@pytest.fixture(scope="module")
def silent(head, data):
    """A codec whose networks add nothing to its shortcuts."""
    codec = new_codec(head, data)
    for layer in (codec.texture, codec.upm.decoder_assembler.rgbdec.layers["t3"][0]):
        layer.g.zero_()
    return codec


@pytest.fixture(scope="module")
def altered(head, data):
    """A codec whose every weight counts, as after training."""
    codec = new_codec(head, data)
    generator = torch.Generator().manual_seed(5)
    for parameter in codec.parameters():
        parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return codec


def eye_rows(head):
    return [np.flatnonzero(head.part == part) for part in (EYE_LEFT, EYE_RIGHT)]


def without_eyes(mesh, head):
    return mesh[:, ~np.isin(head.part, [EYE_LEFT, EYE_RIGHT])]


def rows_of(subject, *rows):
    conditioning = [
        [one[list(rows)] for one in part] if isinstance(part, list) else part[list(rows)]
        for part in subject.conditioning
    ]
    return Subject(subject.geometry[list(rows)], subject.texture[list(rows)], type(subject.conditioning)(*conditioning))


def subject_of(codec, neutrals, *rows):
    geometry, texture = neutrals
    return rows_of(codec.identity(texture, geometry), *rows)


def faces_of(neutrals, data, person):
    """Textures, geometries and their neutrals, of all mixtures on a person; textures as codes read them."""
    geometry, texture = neutrals
    moved, changed = data
    small = torch.nn.functional.interpolate(texture, (READ_TEXELS, READ_TEXELS), mode="bilinear", antialias=True)
    resting = small[person].expand(FACES, -1, -1, -1)
    neutral = geometry[person].expand(FACES, -1, -1)
    return resting + changed, neutral + moved, resting, neutral


def test_shapes_and_types(codec, neutrals, data):
    mean, log_deviation = codec.encode(*faces_of(neutrals, data, 1))
    assert mean.shape == log_deviation.shape == (FACES, CODE_SIZE) and mean.dtype == torch.float32
    torch.testing.assert_close(log_deviation[:, LINEAR_NUMBERS:].exp().mean(), torch.tensor(0.1), rtol=0.2, atol=0)
    assert log_deviation[:, :LINEAR_NUMBERS].exp().max() < 0.03, "linear parts of codes begin more certain"
    decoded = codec.decode(mean[:2], GAZE.expand(2, -1), subject_of(codec, neutrals, 0, 1), POSITION.expand(2, -1))
    vertices = neutrals[0].shape[1]
    assert decoded.geometry.shape == (2, vertices, 3) and decoded.texture.shape == (2, 3, 64, 64)
    primitives = decoded.primitives
    seen = primitives.position.shape[1]
    assert 0.2 < seen / len(codec.placement().kept) < 0.8, "those that face the eye"
    assert primitives.position.shape == primitives.scale.shape == (2, seen, 3)
    assert primitives.rotation.shape == (2, seen, 3, 3) and primitives.slab.shape == (2, seen, 4, 8, 8, 4)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in primitives.tensors)
    assert primitives.slab[..., :3].min() >= 0 and primitives.scale.min() > 0
    turned = primitives.rotation.transpose(-1, -2) @ primitives.rotation
    torch.testing.assert_close(turned, torch.eye(3).expand_as(turned), atol=1e-4, rtol=0)


@pytest.mark.parametrize("finer", [1, 2, 3])
def test_slabs_are_the_same_with_and_without_a_gradient(codec, neutrals, data, finer):
    """Without one a kernel fills them at once; with one they are made of torch's own steps."""
    mean, _ = codec.encode(*faces_of(neutrals, data, 1))
    subject, asked = subject_of(codec, neutrals, 0, 1), (GAZE.expand(2, -1), POSITION.expand(2, -1))
    code = mean[:2].detach().requires_grad_()
    slow = codec.decode(code, asked[0], subject, asked[1], finer=finer).primitives.slab
    with torch.no_grad():
        fast = codec.decode(code, asked[0], subject, asked[1], finer=finer).primitives.slab
    assert slow.requires_grad and not fast.requires_grad and slow.std() > 0.1
    torch.testing.assert_close(fast, slow.detach(), atol=2e-5, rtol=2e-5)


def test_other_conditions_are_refused(head):
    with pytest.raises(ContractError, match=f"take {CONDITIONS} conditions, not 6"):
        Codec(Size(64, 4, 0.125, 6), head.topology)


@pytest.mark.parametrize("person", [0, 1])
def test_a_face_made_of_the_components_is_decoded_as_it_is(silent, neutrals, data, head, person):
    """Untrained: neutral + the linear part, on whoever; the texture is the resting one."""
    codec = silent
    faces = faces_of(neutrals, data, person)
    code, _ = codec.encode(*faces)
    subject = subject_of(codec, neutrals, *[person] * FACES)
    decoded = codec.decode(code, AHEAD.expand(FACES, -1), subject, POSITION.expand(FACES, -1))
    off = (without_eyes(decoded.geometry, head) - without_eyes(faces[1], head)).abs().max()
    assert off < 1e-3 and (faces[1] - faces[3]).abs().max() > 5
    torch.testing.assert_close(decoded.texture, subject.texture, atol=1e-6, rtol=0)
    torch.testing.assert_close(decoded.geometry[:, np.concatenate(eye_rows(head))],
                               faces[3][:, np.concatenate(eye_rows(head))], atol=1e-4, rtol=0)  # fmt: skip


def test_components_are_those_of_a_singular_value_decomposition(codec, data, head):
    """About 0, strongest first, each scaled so that its coefficient varies by 1 over the data."""
    moved = data[0].clone()
    moved[:, np.concatenate(eye_rows(head))] = 0
    _, strength, vectors = torch.linalg.svd(moved.flatten(1).double(), full_matrices=False)
    count = int((strength > 1e-4 * strength[0]).sum())
    assert count == 5
    found = codec.basis[:count].flatten(1).double()
    expected = vectors[:count] * strength[:count, None] / FACES**0.5
    sign = (found * expected).sum(1, keepdim=True).sign()
    torch.testing.assert_close(found * sign, expected, atol=1e-4, rtol=1e-3)
    assert (codec.basis[count:] == 0).all()


def test_data_that_does_not_move_has_no_components(head):
    codec = Codec(SIZE, head.topology)
    still = torch.zeros(3, len(head.template), 3), torch.zeros(3, 3, READ_TEXELS, READ_TEXELS)
    codec.fit_statistics(*still)
    assert (codec.basis == 0).all()
    face = still[1][:1] + 0.5, still[0][:1], still[1][:1] + 0.5, still[0][:1]
    assert codec.encode(*face)[0].isfinite().all()


def test_the_zero_code_is_the_resting_face(silent, neutrals):
    codec = silent
    subject = subject_of(codec, neutrals, 0, 1)
    decoded = codec.decode(torch.zeros(2, CODE_SIZE), AHEAD.expand(2, -1), subject, POSITION.expand(2, -1))
    torch.testing.assert_close(decoded.geometry, neutrals[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded.texture, subject.texture, atol=1e-6, rtol=0)


def test_a_resting_face_has_no_linear_part(codec, neutrals):
    geometry, texture = neutrals[0], neutrals[1][..., :READ_TEXELS, :READ_TEXELS]
    code, _ = codec.encode(texture, geometry, texture, geometry)
    assert (code[:, :LINEAR_NUMBERS] == 0).all()


def test_codes_are_read_off_differences_from_the_resting_face(altered, neutrals, data):
    """The same movement and change on two people is the same code, networks' part included."""
    codes = [altered.encode(*faces_of(neutrals, data, person))[0] for person in (0, 1)]
    torch.testing.assert_close(codes[0], codes[1], atol=2e-3, rtol=0)
    assert (codes[0][0] - codes[0][1]).abs().max() > 0.1


def test_codes_do_not_see_the_eyes(altered, neutrals, data, head):
    """Neither where eyeballs are turned nor their texture: that is the gaze's."""
    faces = faces_of(neutrals, data, 0)
    eyeballs = np.isin(build_atlas(head.topology, READ_TEXELS).vertices, np.concatenate(eye_rows(head))).all(-1)
    painted = faces[0].masked_fill(torch.from_numpy(eyeballs), 0.9)
    assert eyeballs.sum() > 50 and torch.equal(altered.encode(painted, *faces[1:])[0], altered.encode(*faces)[0])
    turned = faces[1].clone()
    rows = eye_rows(head)[0]
    turned[:, rows] = turned[:, rows].flip(-1) + 3
    assert torch.equal(altered.encode(faces[0], turned, *faces[2:])[0], altered.encode(*faces)[0])


def test_eyeballs_turn_by_exactly_the_gaze(altered, neutrals, head):
    """Whatever the weights: eyeballs are the person's resting ones turned about their centres, and nothing else."""
    subject = subject_of(altered, neutrals, 0, 1)
    code = torch.randn(2, CODE_SIZE, generator=torch.Generator().manual_seed(3))
    geometry = altered.geometry(code, GAZE.expand(2, -1), subject)
    for k, rows in enumerate(eye_rows(head)):
        turn = gaze_rotation(GAZE[:, 3 * k : 3 * k + 3].double().numpy())[0]
        for person in range(2):
            rest = neutrals[0][person, rows].double().numpy()
            expected = (rest - rest.mean(0)) @ turn.T + rest.mean(0)
            assert np.abs(geometry[person, rows].numpy() - expected).max() < 1e-3
            found = gaze_of(geometry, neutrals[0], altered.eyes)[person, 3 * k : 3 * k + 3]
            angle = torch.rad2deg(torch.linalg.cross(found, GAZE[0, 3 * k : 3 * k + 3]).norm().asin())
            assert angle < 0.05


def test_gaze_moves_the_rest_of_the_face_only_through_the_decoder(codec, altered, neutrals, head):
    """Untrained, the decoder adds nothing and the rest is still; then gaze, a condition of D, reaches the lids too."""
    code = torch.randn(1, CODE_SIZE, generator=torch.Generator().manual_seed(3))

    def moved(model):
        subject = subject_of(model, neutrals, 1)
        ahead, aside = (without_eyes(model.geometry(code, gaze, subject), head) for gaze in (AHEAD, GAZE))
        return float((ahead - aside).abs().max())

    assert moved(codec) == 0
    assert 0 < moved(altered) < 5


def test_geometry_alone_is_that_of_the_whole_decoder(altered, neutrals):
    subject = subject_of(altered, neutrals, 1, 0)
    code = torch.randn(2, CODE_SIZE, generator=torch.Generator().manual_seed(4))
    whole = altered.decode(code, GAZE.expand(2, -1), subject, POSITION.expand(2, -1)).geometry
    alone = altered.geometry(code, GAZE.expand(2, -1), subject)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)
    residual = (whole - altered.geometry(torch.zeros(2, CODE_SIZE), GAZE.expand(2, -1), subject)).abs().max()
    assert residual > 0.1


def test_a_batch_is_its_frames_and_what_is_seen_depends_on_who_and_from_where(altered, neutrals):
    subject = subject_of(altered, neutrals, 0, 1)
    code = torch.randn(2, CODE_SIZE, generator=torch.Generator().manual_seed(4))
    places = torch.tensor([[0.0, 0, 900], [400, 0, 800]])
    both = altered.decode(code, GAZE.expand(2, -1), subject, places)
    seen = []
    for k in range(2):
        one = altered.decode(code[k : k + 1], GAZE, rows_of(subject, k), places[k : k + 1])
        count = one.primitives.position.shape[1]
        for mine, ours in zip(one.primitives.tensors, both.primitives.tensors, strict=True):
            away = (mine[0] - ours[k, :count]).abs()
            rounded = away > 1e-4 + 1e-3 * mine[0].abs()  # a batch is summed in another order
            assert rounded.float().mean() < 1e-4 and away.max() <= 1e-3 * mine[0].abs().max()
        assert (both.primitives.scale[k, count:] >= 1e6).all(), "others are no more than points"
        assert torch.equal(one.primitives.rank, both.primitives.rank[:count])
        torch.testing.assert_close(one.texture[0], both.texture[k], atol=1e-5, rtol=0)
        seen.append(count)
    assert seen[0] != seen[1] and max(seen) == both.primitives.position.shape[1]
    elsewhere = altered.decode(code, GAZE.expand(2, -1), subject, places.flip(0))
    assert torch.equal(elsewhere.geometry, both.geometry) and not torch.equal(elsewhere.texture, both.texture)
    nearer = altered.decode(code, GAZE.expand(2, -1), subject, 0.5 * places)
    assert torch.equal(nearer.texture, both.texture), "it depends on the direction alone"
    assert 0 < both.primitives.position.shape[1] - nearer.primitives.position.shape[1] < 0.2 * max(seen)


@pytest.mark.parametrize("seen", ["geometry", "colour", "opacity", "place"])
def test_gradients_reach_code_and_gaze(altered, neutrals, seen):
    code = torch.randn(2, CODE_SIZE, generator=torch.Generator().manual_seed(4)).requires_grad_()
    gaze = GAZE.expand(2, -1).clone().requires_grad_()
    decoded = altered.decode(code, gaze, subject_of(altered, neutrals, 0, 1), POSITION.expand(2, -1))
    slab = decoded.primitives.slab
    value = {"geometry": decoded.geometry, "colour": slab[..., :3], "opacity": slab[..., 3],
             "place": decoded.primitives.position}[seen]  # fmt: skip
    value.square().mean().backward()
    parts = (code.grad[:, :LINEAR_NUMBERS], code.grad[:, LINEAR_NUMBERS:], gaze.grad[:, :3], gaze.grad[:, 3:])
    assert all(part.isfinite().all() and (part.abs().amax(1) > 0).all() for part in parts)


def test_places_of_primitives_do_not_teach_the_mesh_that_is_added(head, data, neutrals):
    """Images move primitives with the code, not what the geometry decoder adds; the mesh's own loss does."""
    codec = new_codec(head, data).requires_grad_(True)
    code = torch.randn(1, CODE_SIZE, generator=torch.Generator().manual_seed(4))
    decoded = codec.decode(code, GAZE, subject_of(codec, neutrals, 1), POSITION)
    (last,) = (p for name, p in codec.named_parameters() if name.endswith("geodec.geo.2.g"))
    (from_places,) = torch.autograd.grad(
        decoded.primitives.position.square().mean(), last, retain_graph=True, allow_unused=True
    )
    (from_mesh,) = torch.autograd.grad(decoded.geometry.square().mean(), last)
    assert from_places is None or not from_places.any()
    assert from_mesh.abs().max() > 0


def test_what_was_learnt_is_all_there_is(altered, neutrals, data, head):
    torch.manual_seed(11)
    copy = Codec(SIZE, head.topology).eval().requires_grad_(False)
    copy.load_learnt(altered.learnt())
    faces = faces_of(neutrals, data, 1)
    assert torch.equal(copy.encode(*faces)[0], altered.encode(*faces)[0])
    code = altered.encode(*faces)[0][:2]
    one, two = (
        model.decode(code, GAZE.expand(2, -1), subject_of(model, neutrals, 0, 1), POSITION.expand(2, -1))
        for model in (altered, copy)
    )
    assert torch.equal(one.geometry, two.geometry) and torch.equal(one.texture, two.texture)
    for mine, other in zip(one.primitives.tensors, two.primitives.tensors, strict=True):
        assert torch.equal(mine, other)


def test_half_precision_is_loaded_and_other_sizes_are_refused(altered, neutrals, data, head):
    copy = Codec(SIZE, head.topology)
    half = {name: value.half() for name, value in altered.learnt().items()}
    copy.load_learnt(half)
    assert all(value.dtype == torch.float32 for value in copy.learnt().values())
    faces = faces_of(neutrals, data, 1)
    torch.testing.assert_close(copy.encode(*faces)[0], altered.encode(*faces)[0], atol=0.02, rtol=0.02)
    for wrong in (dict(list(half.items())[1:]), {**half, "unknown": torch.zeros(1)}):
        with pytest.raises(RuntimeError):
            copy.load_learnt(wrong)
    with pytest.raises(RuntimeError):
        Codec(Size(64, 4, 0.25, CONDITIONS), head.topology).load_learnt(half)


ANGLES = [(a, b) for a in (-35, -10, 0, 20, 35) for b in (-35, 0, 15, 35)]


def test_gaze_matrix_is_the_rotation_of_the_simulator():
    gaze = directions(*ANGLES)
    expected = gaze_rotation(gaze.double().numpy())
    np.testing.assert_allclose(gaze_matrix(gaze).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("person", [0, 1])
def test_gaze_is_read_back_from_the_eyeballs(codec, neutrals, head, person):
    """Of anyone, wherever the eyes are; also when the head's other vertices move and lie elsewhere."""
    left, right = directions(*ANGLES), directions(*ANGLES[::-1])
    neutral = neutrals[0][person].expand(len(left), -1, -1)
    posed = neutral + torch.randn(neutral.shape, generator=torch.Generator().manual_seed(0))
    for rows, gaze in zip(eye_rows(head), (left, right), strict=True):
        eye = neutral[:, rows]
        centre = eye.mean(1, keepdim=True)
        posed[:, rows] = (eye - centre) @ gaze_matrix(gaze).transpose(1, 2) + centre + 0.7
    found = gaze_of(posed, neutral, codec.eyes)
    torch.testing.assert_close(found, torch.cat([left, right], 1), atol=2e-5, rtol=0)
    torch.testing.assert_close(found[:, :3].norm(dim=1), torch.ones(len(found)), atol=1e-6, rtol=0)


def test_the_simulators_own_frames_have_the_gaze_that_it_says(synthetic, codec):
    from ufe_core.registry import load_registry

    subject = load_registry().splits["synthetic"].train[3]
    (dome,) = synthetic.dome([subject])
    indices = dome.spread(6, seed=1)
    geometry = torch.from_numpy(dome.geometry(indices))
    neutral = torch.from_numpy(dome.neutral(size=64).geometry).expand_as(geometry)
    truth = torch.from_numpy(dome.labels(indices).gaze)
    torch.testing.assert_close(gaze_of(geometry, neutral, codec.eyes), truth, atol=1e-3, rtol=0)
