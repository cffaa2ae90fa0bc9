"""Decoder `upm` with weights of its own: trained for a few steps, loaded, read, decoded, rendered."""

import json

import pytest
import torch

from ufe_avatar.codec import CODE_SIZE, READ_TEXELS
from ufe_avatar.plugin import UpmConfig
from ufe_avatar.upm import UpmDecoder
from ufe_avatar.views import Views
from ufe_core.errors import ArtifactError, ContractError, UfeError
from ufe_core.plugins import catalogue
from ufe_core.registry import load_registry
from ufe_core.store import Store
from ufe_core.training.components import resolve_component_recipe, trained_component
from ufe_core.types import Avatar
from ufe_core.weights import load_weights, save_weights

from .gazes import AHEAD

PEOPLE = load_registry().splits["synthetic"].train[:3]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    overrides = {"training": {"people": 2, "frames": 3, "steps": 3, "height": 64, "learning_rate": 0.02}}
    recipe = resolve_component_recipe(catalogue(), "decoder", "upm", budget="smoke", overrides=overrides)
    return trained_component(recipe, PEOPLE, store=Store(tmp_path_factory.mktemp("home")), device=CPU)


@pytest.fixture(scope="module")
def upm(weights):
    return UpmDecoder(UpmConfig(weights=str(weights.path))).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def people(synthetic):
    """Neutral textures and geometries of two people: one that it was trained on, one that it was not."""
    neutrals = [dome.neutral(size=96) for dome in synthetic.dome([PEOPLE[0], PEOPLE[2]])]
    texture = torch.stack([torch.from_numpy(neutral.texture) for neutral in neutrals]).float() / 255
    return texture, torch.stack([torch.from_numpy(neutral.geometry) for neutral in neutrals])


@pytest.fixture(scope="module")
def faces(synthetic):
    """Three frames of each of the two, as `read` takes them, and their gaze."""
    parts = []
    for dome in synthetic.dome([PEOPLE[0], PEOPLE[2]]):
        frames = dome.spread(3, seed=3)
        neutral = dome.neutral(size=READ_TEXELS)
        values = (dome.texture(frames, size=READ_TEXELS), dome.geometry(frames), neutral.texture, neutral.geometry)
        texture, geometry, neutral_texture, neutral_geometry = map(torch.from_numpy, values)
        parts.append((
            texture.float() / 255, geometry, neutral_texture.float().expand_as(texture) / 255,
            neutral_geometry.expand_as(geometry), torch.from_numpy(dome.labels(frames).gaze),
        ))  # fmt: skip
    joined = [torch.cat(values) for values in zip(*parts, strict=True)]
    return joined[:4], joined[4]


@pytest.fixture(scope="module")
def avatar(upm, people, faces):
    """Six frames: three of each person."""
    identity = upm.identity(*people).rows(torch.tensor([0, 0, 0, 1, 1, 1]))
    return upm.decode(upm.read(*faces[0]), faces[1], identity)


def test_reading_decoding_and_rendering_give_what_the_interface_says(upm, avatar, faces):
    code = upm.read(*faces[0])
    assert code.shape == (6, CODE_SIZE) and code.dtype == torch.float32 and upm.code_space.size == CODE_SIZE
    assert upm.reads_texture == READ_TEXELS
    assert avatar.geometry.shape == (6, upm.topology.vertex_count, 3) and avatar.texture is None
    image = upm.render(avatar, upm.frontal_camera(24))
    assert image.shape == (6, 3, 24, 24) and image.dtype == torch.float32
    assert image.min() == 0 and 0.05 < image.max() <= 1
    face = upm.face_mask(24)
    assert image[..., face].mean() > 5 * image[..., :3, :3].mean(), "a head in the middle, black in the corner"


def test_three_steps_keep_the_shortcuts_of_people_it_knows(avatar, faces):
    """Components of two people's frames: the third person's face is within a few mm all the same."""
    off = (avatar.geometry - faces[0][1]).norm(dim=-1).mean(1)
    moved = (faces[0][1] - faces[0][3]).norm(dim=-1).mean(1)
    assert off.max() < 5 and moved.max() > 0.3


def test_batches_equal_single_frames_and_people_are_not_mixed(upm, avatar, people, faces):
    """Each frame alone, with an identity made of its person alone."""
    camera, code = upm.frontal_camera(20), upm.read(*faces[0])
    together = upm.render(avatar, camera)
    for n in range(6):
        person = slice(n // 3, n // 3 + 1)
        identity = upm.identity(people[0][person], people[1][person])
        read = upm.read(*(value[n : n + 1] for value in faces[0]))
        torch.testing.assert_close(read[0], code[n], atol=1e-4, rtol=1e-4)
        alone = upm.decode(code[n : n + 1], faces[1][n : n + 1], identity)
        torch.testing.assert_close(alone.geometry[0], avatar.geometry[n], atol=1e-3, rtol=0)
        torch.testing.assert_close(upm.render(alone, camera)[0], together[n], atol=2e-3, rtol=0)
    swapped = upm.decode(code, faces[1], upm.identity(*people).rows(torch.tensor([1, 1, 1, 0, 0, 0])))
    assert (swapped.geometry - avatar.geometry).abs().amax((1, 2)).min() > 1
    assert (upm.render(swapped, camera) - together).abs().amax((1, 2, 3)).min() > 0.02


def test_an_avatar_has_the_neutral_face_of_its_person(upm, people):
    resting = upm.decode(torch.zeros(2, CODE_SIZE), AHEAD.expand(2, -1), upm.identity(*people))
    assert (resting.geometry - people[1]).norm(dim=-1).mean() < 2
    assert (people[1][0] - people[1][1]).norm(dim=-1).mean() > 2.5


def test_the_first_few_of_an_avatar_are_rendered_as_in_the_whole(upm, avatar):
    camera = upm.frontal_camera(16)
    whole = upm.render(avatar, camera)
    torch.testing.assert_close(upm.render(avatar.first(5), camera), whole[:5], atol=2e-3, rtol=0)


def test_inside_a_mask_an_image_is_what_it_is_without(upm, avatar):
    camera, some = upm.frontal_camera(24), avatar.first(2)
    mask = upm.face_mask(24)
    assert mask.dtype == torch.bool and 0.1 < mask.float().mean() < 0.9
    whole, masked = upm.render(some, camera), upm.render(some, camera, mask=mask)
    torch.testing.assert_close(masked[..., mask], whole[..., mask], atol=1e-5, rtol=0)
    assert (masked[..., ~mask] == 0).all() and whole[..., ~mask].max() > 0
    single = torch.zeros(24, 24, dtype=torch.bool)
    single[12, 11] = True
    torch.testing.assert_close(
        upm.render(some, camera, mask=single)[..., 12, 11], whole[..., 12, 11], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("masked", [False, True])
def test_an_encoder_can_be_trained_through_it(upm, people, faces, masked):
    code = upm.read(*faces[0])[:2].clone().requires_grad_()
    gaze = faces[1][:2].clone().requires_grad_()
    made = upm.decode(code, gaze, upm.identity(*people))
    image = upm.render(made, upm.frontal_camera(24), mask=upm.face_mask(24) if masked else None)
    by_image = torch.autograd.grad(image.sum(), (code, gaze), retain_graph=True)
    by_mesh = torch.autograd.grad(made.geometry.square().sum(), (code, gaze))
    for grad in (*by_image, *by_mesh):
        assert grad.isfinite().all() and (grad.abs().amax(1) > 0).all()


def test_a_code_of_another_size_and_a_bare_mesh_are_refused(upm, people):
    with pytest.raises(ContractError, match=r"UpmDecoder\.decode\.expression"):
        upm.decode(torch.zeros(1, 52), AHEAD, upm.identity(*people))
    with pytest.raises(ContractError, match="this one has no code"):
        upm.render(Avatar(people[1]), upm.frontal_camera(16))


def test_the_identity_of_another_decoder_and_views_of_others_are_refused(upm, people, avatar, decoder):
    with pytest.raises(ContractError, match=r"has eyes, geometry, texture, not 'b_geo\.0': it was made by another"):
        upm.decode(torch.zeros(2, CODE_SIZE), AHEAD.expand(2, -1), decoder.identity(*people))
    with pytest.raises(ContractError, match="an avatar for each view; found 6 and 1"):
        upm.render_views(avatar, Views.of([upm.frontal_camera(16)]))


def test_another_file_is_another_code_space(upm, weights, tmp_path):
    tensors, spec = load_weights(weights.path)
    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    same.write_bytes(weights.path.read_bytes())
    save_weights(other, {**tensors, "rest": tensors["rest"] + 1}, spec)
    spaces = [UpmDecoder(UpmConfig(weights=str(path))).code_space for path in (same, other)]
    assert spaces[0] == upm.code_space and spaces[1].name != upm.code_space.name
    assert UpmDecoder.weights_sha256(UpmConfig(weights=str(same))) == weights.sha256
    assert UpmDecoder.weights_sha256(UpmConfig(weights=str(other))) != weights.sha256


def damaged(path, tensors, spec, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "altered":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    elif how == "no weights":
        path.write_text(json.dumps({"weights": "none"}))
    elif how == "of an encoder":
        save_weights(path, tensors, {**spec, "component": "ufe/univ"})
    elif how == "of another size":
        save_weights(path, tensors, {**spec, "size": {"uv": 128, "voxels": 4, "width": 0.125}})
    elif how == "without a size":
        save_weights(path, tensors, {name: value for name, value in spec.items() if name != "size"})
    elif how == "of an impossible size":
        save_weights(path, tensors, {**spec, "size": {"uv": 100, "voxels": 4, "width": 0.125}})
    elif how == "with a tensor missing":
        save_weights(path, {name: value for name, value in tensors.items() if name != "basis"}, spec)
    else:
        path.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "truncated", "altered", "no weights", "of an encoder", "of another size", "without a size",
        "of an impossible size",
        "with a tensor missing", "not there",
    ],
)  # fmt: skip
def test_a_file_that_is_no_upm_is_refused_in_one_line_that_names_it(weights, tmp_path, how):
    path = tmp_path / "avatar.safetensors"
    path.write_bytes(weights.path.read_bytes())
    damaged(path, *load_weights(weights.path), how)
    with pytest.raises(ArtifactError, match=r"avatar\.safetensors") as error:
        UpmDecoder(UpmConfig(weights=str(path)))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_has_no_hash(tmp_path):
    with pytest.raises(UfeError, match=r"nothing\.safetensors"):
        UpmDecoder.weights_sha256(UpmConfig(weights=str(tmp_path / "nothing.safetensors")))
