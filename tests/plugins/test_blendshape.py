import cv2
import numpy as np
import pytest
import torch

from ufe_avatar.eyeballs import gaze_matrix
from ufe_avatar.views import Views
from ufe_core.errors import ContractError
from ufe_core.geometry import gaze_rotation
from ufe_core.head import ACTIONS, EYE_LEFT, EYE_RIGHT
from ufe_core.types import Avatar, Identity

from .gazes import AHEAD, directions


@pytest.fixture(scope="module")
def mean_person(decoder, head):
    """The mean head in a plain texture with a soft pattern."""
    grid = torch.linspace(0, 12, 128)
    pattern = 0.5 + 0.2 * torch.sin(grid)[:, None] * torch.cos(grid)
    return decoder.identity(pattern.expand(1, 3, -1, -1), torch.from_numpy(head.template)[None])


def code(**amounts):
    e = torch.zeros(1, len(ACTIONS))
    for name, value in amounts.items():
        e[0, ACTIONS.index(name)] = value
    return e


def unit(*degrees):
    """Gaze [1, 6] of azimuth and altitude of the left, then of the right eye."""
    return directions(degrees[:2], degrees[2:]).view(1, 6)


class TestGeometry:
    def test_the_zero_code_is_the_neutral_face(self, decoder, head, mean_person):
        avatar = decoder.decode(code(), AHEAD, mean_person)
        assert np.abs(avatar.geometry[0].numpy() - head.template).max() < 1e-4
        assert avatar.texture is mean_person.tensors["texture"]

    def test_it_says_what_its_code_means(self, decoder, head):
        assert (decoder.code_space.name, decoder.code_space.size) == ("arkit-52", 52)
        assert decoder.code_space.entries == ACTIONS
        assert decoder.topology.vertex_count == len(head.template)

    def test_one_action_moves_its_vertices_by_its_share(self, decoder, head, mean_person):
        moved = decoder.decode(code(mouthPucker=0.4), AHEAD, mean_person).geometry[0].numpy() - head.template
        np.testing.assert_allclose(moved, 0.4 * head.actions[ACTIONS.index("mouthPucker")], atol=1e-4)

    def test_it_is_linear_in_the_code(self, decoder, mean_person):
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.rand(1, 52, generator=generator) for _ in range(2))

        def offset(e):
            return decoder.decode(e, AHEAD, mean_person).geometry - decoder.decode(code(), AHEAD, mean_person).geometry

        torch.testing.assert_close(offset(a + 2 * b), offset(a) + 2 * offset(b), atol=1e-3, rtol=1e-4)

    @pytest.mark.parametrize("angles", [(25, 0, 25, 0), (-20, 15, 10, -18), (0, 0, 0, -20)])
    def test_gaze_turns_each_eyeball_rigidly_about_its_centre(self, decoder, head, mean_person, angles):
        gaze = unit(*angles)
        before, after = (
            decoder.decode(code(jawOpen=0.5), g, mean_person).geometry[0].double().numpy() for g in (AHEAD, gaze)
        )
        for k, part in enumerate((EYE_LEFT, EYE_RIGHT)):
            rows = head.part == part
            centre = head.template[rows].astype(float).mean(0)
            radius = np.linalg.norm(before[rows] - centre, axis=1), np.linalg.norm(after[rows] - centre, axis=1)
            np.testing.assert_allclose(*radius, atol=1e-3)
            # The mean head's eyeballs look straight ahead: what lay on +z now lies on the gaze.
            u, _, v = np.linalg.svd((before[rows] - centre).T @ (after[rows] - centre))
            axis = v.T @ np.diag([1, 1, np.linalg.det(v.T @ u.T)]) @ u.T @ [0, 0, 1]
            wanted = gaze[0, 3 * k : 3 * k + 3].double().numpy()
            assert np.degrees(np.arccos(np.clip(axis @ wanted, -1, 1))) < 0.1
        still = ~np.isin(head.part, [EYE_LEFT, EYE_RIGHT])
        np.testing.assert_array_equal(before[still], after[still])

    def test_its_gaze_rotation_is_that_of_the_sources(self):
        gaze = unit(25, -10, -30, 20).view(2, 3)
        np.testing.assert_allclose(gaze_matrix(gaze).numpy(), gaze_rotation(gaze.double().numpy()), atol=1e-6)

    def test_each_frame_is_decoded_by_its_own_identity(self, decoder, head):
        shapes = torch.from_numpy(np.stack([head.template, head.template * 1.1]))
        people = decoder.identity(torch.rand(2, 3, 8, 8), shapes)
        frames = people.rows(torch.tensor([1, 0, 1]))
        geometry = decoder.decode(torch.zeros(3, 52), AHEAD.expand(3, -1), frames).geometry
        torch.testing.assert_close(geometry, shapes[[1, 0, 1]], atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        ("expression", "gaze", "message"),
        [
            (torch.zeros(1, 51), AHEAD, r"BlendshapeDecoder\.decode\.expression: expected float32 \[B, 52\]"),
            (torch.zeros(2, 52), AHEAD, r"BlendshapeDecoder\.decode\.gaze: expected float32 \[2, 6\]"),
            (torch.zeros(1, 52).double(), AHEAD, "found float64"),
        ],
    )
    def test_a_code_of_another_shape_is_refused(self, decoder, mean_person, expression, gaze, message):
        with pytest.raises(ContractError, match=message):
            decoder.decode(expression, gaze, mean_person)


class TestRendering:
    def test_the_frontal_camera_frames_the_head_upright_and_unmirrored(self, decoder, head):
        camera = decoder.frontal_camera(256)
        points = camera.project(head.template[head.topology.region("face")].astype(float))
        assert points.min() > 0 and points.max() < 256
        assert 0.5 < np.ptp(points[:, 1]) / 256 < 0.95
        left, right = (camera.project(head.template[head.part == p].mean(0).astype(float)) for p in (3, 4))
        assert left[0] > right[0], "seen from the front, the subject's left eye is on the right"
        mouth = camera.project(head.template[head.topology.region("lips")].mean(0).astype(float))
        assert mouth[1] > left[1], "the mouth is below the eyes"

    def test_projection_is_that_of_the_camera(self, decoder, head):
        camera = decoder.frontal_camera(200)
        screen = Views.of([camera]).project(torch.from_numpy(head.template)[None])[0].double().numpy()
        np.testing.assert_allclose(screen[:, :2], camera.project(head.template.astype(float)), atol=1e-3)

    def test_an_image_of_the_avatar_on_black(self, decoder, mean_person):
        image = decoder.render(decoder.decode(code(), AHEAD, mean_person), decoder.frontal_camera(96))
        assert image.shape == (1, 3, 96, 96) and image.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        covered = (image[0] > 0).any(0)
        assert 0.3 < covered.float().mean() < 0.8
        assert not covered[0, :8].any() and covered[48, 48]

    def test_texture_and_gaze_are_seen(self, decoder, mean_person):
        camera = decoder.frontal_camera(128)
        base = decoder.render(decoder.decode(code(), AHEAD, mean_person), camera)
        darker = Identity({**mean_person.tensors, "texture": mean_person.tensors["texture"] * 0.5})
        dimmed = decoder.render(decoder.decode(code(), AHEAD, darker), camera)
        assert dimmed.mean() < 0.6 * base.mean()
        aside = decoder.render(decoder.decode(code(), unit(25, 0, 25, 0), mean_person), camera)
        changed = (aside - base).abs().amax((0, 1)) > 0.02
        rows = changed.any(1).nonzero().flatten()
        assert 20 < changed.sum() < 0.05 * changed.numel(), "the eyes alone"
        assert rows.min() > 0.3 * 128 and rows.max() < 0.6 * 128

    def test_the_pupils_are_drawn_where_the_eyes_look(self, decoder, head, mean_person):
        camera, gaze = decoder.frontal_camera(512), unit(-15, 5, -15, 5)
        image = decoder.render(decoder.decode(code(eyeWideLeft=1, eyeWideRight=1), gaze, mean_person), camera)[0]
        for k, part in enumerate((EYE_LEFT, EYE_RIGHT)):
            ball = head.template[head.part == part].astype(float)
            centre, radius = ball.mean(0), np.linalg.norm(ball - ball.mean(0), axis=1).mean()
            x, y = camera.project(centre + radius * gaze[0, 3 * k : 3 * k + 3].double().numpy()).astype(int)
            assert image[:, y, x].max() < 0.06

    def test_an_avatar_without_texture_is_refused(self, decoder, head):
        with pytest.raises(ContractError, match="has no texture"):
            decoder.render(Avatar(torch.from_numpy(head.template)[None]), decoder.frontal_camera(32))

    @pytest.mark.parametrize("size", [64, 128])
    def test_the_face_mask_covers_the_face_and_not_the_rest(self, decoder, head, size):
        mask = decoder.face_mask(size).numpy()
        assert mask.shape == (size, size) and mask.dtype == bool
        assert 0.15 < mask.mean() < 0.5
        camera = decoder.frontal_camera(size)
        in_front = head.template[head.topology.region("face")]
        x, y = np.floor(camera.project(in_front[in_front[:, 2] > 0].astype(float))).astype(int).T
        assert mask[y, x].mean() > 0.97
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2, "one piece"
        assert not mask[: size // 10].any() and not mask[:, : size // 12].any()
        mirrored = np.mean(mask != mask[:, ::-1])
        assert mirrored < 0.02


class TestGradients:
    SIZE = 96

    def loss(self, decoder, person, e, gaze, target):
        image = decoder.render(decoder.decode(e, gaze, person), decoder.frontal_camera(self.SIZE))
        return (image - target)[:, :, decoder.face_mask(self.SIZE)].double().square().mean()

    @pytest.mark.parametrize("action", ["jawForward", "cheekPuff", "mouthPucker", "browInnerUp"])
    def test_the_image_pulls_an_action_back_to_the_truth(self, decoder, mean_person, action):
        """Silhouettes give no gradient, so the slope is held to finite differences in sign and rough size.

        The steps are small: over a larger one more pixels of the lips' silhouette change sides.
        """
        with torch.no_grad():
            avatar = decoder.decode(code(**{action: 0.6}), AHEAD, mean_person)
            target = decoder.render(avatar, decoder.frontal_camera(self.SIZE))
        k = ACTIONS.index(action)
        for start in (0.3, 0.9):
            e = code(**{action: start}).requires_grad_()
            self.loss(decoder, mean_person, e, AHEAD, target).backward()
            with torch.no_grad():
                ends = [
                    self.loss(decoder, mean_person, code(**{action: start + d}), AHEAD, target) for d in (-0.02, 0.02)
                ]
            slope = float(ends[1] - ends[0]) / 0.04
            found = float(e.grad[0, k])
            assert found * slope > 0
            assert 0.25 < found / slope < 3
            assert found * (start - 0.6) > 0, "downhill leads to the truth"

    def test_descent_on_the_image_finds_the_expression(self, decoder, mean_person):
        truth = code(jawOpen=0.5, mouthSmileLeft=0.6, browInnerUp=0.7)
        with torch.no_grad():
            target = decoder.render(decoder.decode(truth, AHEAD, mean_person), decoder.frontal_camera(self.SIZE))
        e = torch.zeros(1, 52, requires_grad=True)
        rows = [ACTIONS.index(name) for name in ("jawOpen", "mouthSmileLeft", "browInnerUp")]
        optimiser = torch.optim.Adam([e], lr=0.05)
        for _ in range(40):
            optimiser.zero_grad()
            self.loss(decoder, mean_person, e, AHEAD, target).backward()
            e.grad[0, [k for k in range(52) if k not in rows]] = 0
            optimiser.step()
        assert (e - truth)[0, rows].abs().max() < 0.2

    def test_gaze_gets_a_gradient_through_the_image(self, decoder, mean_person):
        with torch.no_grad():
            target = decoder.render(
                decoder.decode(code(), unit(12, 0, 12, 0), mean_person), decoder.frontal_camera(self.SIZE)
            )
        gaze = unit(4, 0, 4, 0).requires_grad_()
        self.loss(decoder, mean_person, code(), gaze, target).backward()
        assert gaze.grad[0, 0] < 0 and gaze.grad[0, 3] < 0, "turning towards +x brings it closer"

    def test_geometry_is_differentiable_in_identity_code_and_gaze(self, decoder, head):
        shape = torch.from_numpy(head.template)[None].requires_grad_()
        e, gaze = torch.zeros(1, 52, requires_grad=True), AHEAD.clone().requires_grad_()
        person = decoder.identity(torch.zeros(1, 3, 4, 4), shape)
        decoder.decode(e, gaze, person).geometry.square().sum().backward()
        for leaf in (shape, e, gaze):
            assert leaf.grad is not None and bool(leaf.grad.abs().sum() > 0)
