"""Dome captures: what geometry, head pose, cameras, images and textures say about one another."""

import numpy as np
import pytest
import torch

from ufe_core.errors import DataError
from ufe_core.head import EYE_LEFT, EYE_RIGHT, SKIN
from ufe_core.interfaces.source import SEGMENTS as CLASSES
from ufe_core.ops.rasterize import EMPTY_KEY, interpolate, rasterize
from ufe_synthetic.dome import CAMERAS, TEXTURE_CAMERAS, SyntheticDome, lights
from ufe_synthetic.dome_texture import Gathered
from ufe_synthetic.plugin import SyntheticConfig
from ufe_synthetic.scene import SEGMENT_OF
from ufe_synthetic.source import SyntheticSource

HEIGHT, TEXTURE = 256, 128
FRAME = 1000
AROUND = ("dome_00", "dome_09", "dome_15", "dome_16", "dome_25")  # front, both sides, and from above and below


@pytest.fixture(scope="module")
def dome(synthetic):
    return SyntheticDome(synthetic, 20, TEXTURE)


def on_screen(dome, frame, camera):
    """Pixel and depth of each of the head's vertices, from what the capture says alone."""
    pose = dome.head_pose([frame])[0]
    world = dome.geometry([frame])[0] @ pose[:, :3].T + pose[:, 3]
    depth = world @ camera.rotation[2] + camera.translation[2]
    return np.concatenate([camera.project(world), depth[:, None]], 1)


def resized(dome, name, height=HEIGHT):
    return dome.camera(name).resized(dome.width(height), height)


def classes(dome, frame, names, height=HEIGHT):
    seen = dome.see(frame, names, height)[1]
    keys = seen.keys.numpy()
    material = seen.level.material.numpy()[np.minimum(keys & 0x7FFFFFFF, len(seen.level.material) - 1)]
    return np.where(keys == EMPTY_KEY, CLASSES.index("background"), SEGMENT_OF[material])


class TestRig:
    def test_forty_portrait_cameras_look_at_the_middle_upright(self):
        assert len({camera.name for camera in CAMERAS}) == 40
        for camera in CAMERAS:
            towards = -camera.position / np.linalg.norm(camera.position)
            assert (camera.width, camera.height) == (2668, 4096)
            assert camera.rotation[2] == pytest.approx(towards, abs=1e-9)
            assert np.linalg.det(camera.rotation) == pytest.approx(1)
            assert camera.rotation[1, 1] > 0.6 and abs(camera.rotation[0, 1]) < 1e-9
            assert 900 < np.linalg.norm(camera.position) < 1100

    def test_sides_are_the_subjects(self):
        for camera in CAMERAS:
            x = camera.position[0]
            assert camera.side == ("centre" if abs(x) < 1e-6 else "right" if x > 0 else "left")

    def test_the_front_is_denser_and_the_back_is_seen(self):
        z = np.array([camera.position[2] for camera in CAMERAS])
        assert (z > 500).sum() > 20 and (z < -500).sum() >= 3

    def test_textures_come_from_mirrored_cameras(self):
        places = np.array([c.rotation[2] for c in CAMERAS if c.name in TEXTURE_CAMERAS])
        mirrored = places * [-1, 1, 1]
        assert np.abs(places[:, None] - mirrored).sum(-1).min(1) == pytest.approx(0, abs=1e-9)

    def test_lights_are_spread_over_the_dome(self):
        towards = lights() / np.linalg.norm(lights(), axis=1, keepdims=True)
        nearest = np.sort(towards @ towards.T, axis=1)[:, -2]
        assert 20 <= len(towards) <= 32
        assert np.degrees(np.arccos(nearest)).min() > 20
        assert np.abs(towards.mean(0)[[0, 2]]).max() < 0.05


class TestHeadPose:
    def test_it_is_rigid_small_and_moves(self, dome):
        poses = dome.head_pose(range(0, dome.frame_count, 97))
        rotation, place = poses[:, :, :3], poses[:, :, 3]
        assert rotation @ rotation.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (len(poses), 1, 1)))
        assert np.linalg.det(rotation) == pytest.approx(1)
        degrees = np.degrees(np.arccos((np.trace(rotation, axis1=1, axis2=2) - 1) / 2))
        assert degrees.max() > 2 and degrees.max() < 12
        assert place.std(0).max() > 1 and np.abs(place - place.mean(0)).max() < 30

    def test_it_has_no_jumps(self, dome):
        poses = dome.head_pose(range(500, 700))
        moved = np.linalg.norm(np.diff(poses @ [0, 0, 100, 1], axis=0), axis=1)
        assert 0 < moved.max() < 2.5

    def test_people_move_each_in_their_own_way(self, synthetic, dome):
        assert not np.allclose(SyntheticDome(synthetic, 21).head_pose([FRAME]), dome.head_pose([FRAME]))


class TestGeometry:
    def test_its_projection_covers_what_the_images_show_of_the_skin(self, dome):
        faces = torch.from_numpy(dome.topology().faces.astype(np.int32))
        shown = classes(dome, FRAME, AROUND)
        images = dome.frames([FRAME], cameras=AROUND, height=HEIGHT)[0]
        for name, found, image in zip(AROUND, shown, images, strict=True):
            screen = torch.from_numpy(on_screen(dome, FRAME, resized(dome, name)).astype(np.float32))[None]
            drawn = rasterize(screen, faces, height=HEIGHT, width=found.shape[1])[0].numpy() >= 0
            above = np.s_[: int(screen[0, :, 1].numpy().min()) + HEIGHT // 3]  # the shirt begins further down
            seen = found[above] != CLASSES.index("background")
            assert (drawn[above] & seen).sum() > 0.985 * (drawn[above] | seen).sum()
            inside = drawn[above] & (found[above] == CLASSES.index("skin"))
            assert (image[0][above][inside] > 5).mean() > 0.99

    def test_the_renderers_pixels_triangulate_to_it(self, dome):
        names = ("dome_00", "dome_05", "dome_12", "dome_17")
        screen = dome.see(FRAME, names, HEIGHT)[1].screen.numpy().astype(np.float64)
        pose = dome.head_pose([FRAME])[0]
        points = dome.geometry([FRAME])[0][::50]
        normal, right = np.zeros((len(points), 3, 3)), np.zeros((len(points), 3))
        for name, pixels in zip(names, screen[:, : dome.topology().vertex_count : 50, :2], strict=True):
            camera = resized(dome, name)
            ray = camera.unproject(pixels) @ camera.rotation
            across = np.eye(3) - ray[:, :, None] * ray[:, None]
            normal, right = normal + across, right + across @ camera.position
        world = np.linalg.solve(normal, right[..., None])[..., 0]
        assert np.abs((world - pose[:, 3]) @ pose[:, :3] - points).max() < 0.02

    def test_it_is_free_of_head_motion(self, dome, synthetic):
        moved = dome.geometry([FRAME, FRAME + 400])
        still = synthetic.head.part == SKIN
        still &= np.abs(synthetic.head.actions).max((0, 2)) < 1e-3
        assert still.sum() > 500
        assert moved[0, still] == pytest.approx(moved[1, still], abs=1e-3)


class TestImages:
    def test_height_is_as_asked_and_width_keeps_the_aspect(self, dome):
        images = dome.frames([3], cameras=("dome_00", "dome_04"), height=96)
        assert images.shape == (1, 2, 3, 96, 63) and images.dtype == np.uint8

    def test_skin_is_exposed_well_and_next_to_nothing_saturates(self, dome):
        images = dome.frames([FRAME], cameras=AROUND, height=HEIGHT)[0]
        skin = classes(dome, FRAME, AROUND) == CLASSES.index("skin")
        assert 0.3 < np.median(images[:, 0][skin]) / 255 < 0.6  # red, of a person with light skin
        red, green, blue = (np.median(images[:, channel][skin]) for channel in range(3))
        assert red > 1.2 * green > 1.2 * blue
        assert (images == 255).any(1).mean() < 1e-3
        assert images[0, :, 0, 0].tolist() == [0, 0, 0]

    def test_light_is_even_from_side_to_side(self, dome):
        images = dome.frames([0], cameras=("dome_15", "dome_16"), height=HEIGHT)[0].astype(float)
        right, left = (image[image > 20].mean() for image in images)
        assert right == pytest.approx(left, rel=0.1)

    def test_bytes_depend_on_nothing_but_the_frame_and_camera(self, dome):
        names = ("dome_02", "dome_30", "dome_07")
        together = dome.frames([5, FRAME, 9000], cameras=names, height=96)
        fresh = SyntheticDome(SyntheticSource(SyntheticConfig()), 20, TEXTURE)
        apart = fresh.frames([FRAME], cameras=names[1:2], height=96)
        again = dome.frames([9000, FRAME, 5], cameras=names[::-1], height=96)
        assert np.array_equal(apart[0, 0], together[1, 1])
        assert np.array_equal(again[::-1, ::-1], together)
        assert np.array_equal(fresh.texture([FRAME]), dome.texture([7, FRAME])[1:])


class TestTexture:
    def test_drawn_on_the_mesh_it_gives_the_images_back(self, dome):
        topology = dome.topology()
        faces, uv_faces = (torch.from_numpy(f.astype(np.int32)) for f in (topology.faces, topology.uv_faces))
        uv = torch.from_numpy(topology.uv)[None]
        texture = np.moveaxis(dome.texture([FRAME])[0], 0, -1).astype(float)
        names = ("dome_00", "dome_05", "dome_12")
        images = dome.frames([FRAME], cameras=names, height=HEIGHT)[0]
        shown = classes(dome, FRAME, names)
        for name, image, found in zip(names, images, shown, strict=True):
            screen = torch.from_numpy(on_screen(dome, FRAME, resized(dome, name)).astype(np.float32))[None]
            ids = rasterize(screen, faces, height=HEIGHT, width=found.shape[1])
            where = interpolate(screen, uv, faces, ids, attribute_faces=uv_faces)[0].numpy()
            row, column = np.moveaxis((where[..., ::-1] * TEXTURE).astype(int).clip(0, TEXTURE - 1), -1, 0)
            skin = (ids[0].numpy() >= 0) & (found == CLASSES.index("skin"))
            difference = np.abs(texture[row, column] - np.moveaxis(image, 0, -1))[skin].max(1)
            assert np.median(difference) < 6
            assert np.percentile(difference, 95) < 25
            wrong = np.abs(texture[column, row] - np.moveaxis(image, 0, -1))[skin].max(1)
            assert np.median(wrong) > 2 * np.median(difference)

    def test_light_is_asked_only_where_texels_are_read(self, dome):
        """And the texture is that of the whole images."""
        studio, instant = dome._studio, dome._instant(FRAME)
        seen = dome._seen(instant, dome._pose(FRAME), TEXTURE_CAMERAS, 2 * TEXTURE)
        atlas = studio.atlas(seen.level, TEXTURE)
        unwrapped = atlas.unwrap(seen)
        read = unwrapped.pixels.keys != EMPTY_KEY
        assert 0.05 < read.float().mean() < 0.6 * (seen.keys != EMPTY_KEY).float().mean()
        few = atlas.gather(unwrapped, studio.shine(instant, unwrapped.pixels, softened=False))
        whole = atlas.gather(unwrapped, studio.shine(instant, seen, softened=False))
        assert np.array_equal(few.colour, whole.colour) and np.array_equal(few.seen, unwrapped.seen)

    def test_shut_eyes_hide_eyeballs_which_keep_their_resting_look(self, dome, synthetic):
        segments = {segment.name: segment for segment in dome.segments}
        open_ = (segments["eyes_wide"].start + segments["eyes_wide"].stop) // 2
        blink = dome.labels(range(segments["eyes_closed"].start, segments["eyes_closed"].stop)).expression[:, 0]
        shut = segments["eyes_closed"].start + int(blink.argmax())
        eyes = texels_of(synthetic.head, (EYE_LEFT, EYE_RIGHT))
        seen = dome.texture_seen([shut, open_])
        assert seen[1, eyes].sum() > 10 and not seen[0, eyes].any()
        hidden = eyes & ~seen[0]
        assert np.array_equal(dome.texture([shut])[0][:, hidden], dome.neutral().texture[:, hidden])

    def test_most_of_the_face_is_seen(self, dome, synthetic):
        face = texels_of(synthetic.head, (SKIN,)) & (np.arange(TEXTURE) < 0.8 * TEXTURE)
        assert dome.texture_seen([FRAME])[0][face].mean() > 0.93

    def test_lights_stay_in_the_world_when_the_head_turns(self, dome, synthetic):
        class LooksUp(SyntheticDome):
            def _pose(self, index):
                pose = super()._pose(index)
                c, s = np.cos(np.radians(50)), np.sin(np.radians(50))
                return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ pose

        head = synthetic.head
        texture, up = (one.texture([FRAME])[0].astype(float) for one in (dome, LooksUp(synthetic, 20, TEXTURE)))
        assert dome.head_pose([FRAME])[0] @ [0, 0, 100, 0] != pytest.approx([0, 0, 100], abs=0.1)
        at = (head.uv * TEXTURE).astype(int).clip(0, TEXTURE - 1)
        owner = np.zeros(len(at), int)
        owner[head.uv_faces] = head.faces
        x, y, z = head.template[owner].T
        chin = at[(np.abs(x) < 20) & (y > 95) & (y < 140) & (z > -40) & (downward(head)[owner] > 0.7)]
        assert len(chin) > 5
        brighter = up[:, chin[:, 1], chin[:, 0]].mean() / texture[:, chin[:, 1], chin[:, 0]].mean()
        assert brighter > 1.1

    def test_filling_leaves_what_was_seen_and_invents_no_colour(self):
        rng = np.random.default_rng(0)
        colour = rng.uniform(0.2, 0.6, (33, 33, 3)).astype(np.float32)
        seen = rng.uniform(size=(33, 33)) < 0.1
        filled = Gathered(np.where(seen[..., None], colour, 0), seen).filled()
        assert filled.seen.all()
        assert np.array_equal(filled.colour[seen], colour[seen])
        low, high = colour[seen].min(0), colour[seen].max(0)
        assert (filled.colour >= low - 1e-4).all() and (filled.colour <= high + 1e-4).all()
        flat = Gathered(np.where(seen[..., None], np.float32([0.4] * 3), 0), seen).filled()
        assert flat.colour == pytest.approx(0.4, abs=1e-4)


def downward(head):
    """How much each vertex of the mean head faces downward, [V]."""
    a, b, c = np.moveaxis(head.template[head.faces], 1, 0)
    total = np.zeros_like(head.template)
    for k in range(3):
        np.add.at(total, head.faces[:, k], np.cross(b - a, c - a))
    return total[:, 1] / np.linalg.norm(total, axis=1)


def texels_of(head, parts):
    """Which texels lie under faces of those parts, bool [T, T]."""
    flat = np.concatenate([head.uv * TEXTURE, np.full((len(head.uv), 1), 100.0)], 1).astype(np.float32)
    faces = head.uv_faces[np.isin(head.part[head.faces], parts).all(1)].astype(np.int32)
    ids = rasterize(torch.from_numpy(flat)[None], torch.from_numpy(faces), height=TEXTURE, width=TEXTURE, cull=False)
    return ids[0].numpy() >= 0


class TestCapture:
    def test_the_neutral_is_that_of_the_headset_captures(self, dome, synthetic):
        neutral = dome.neutral()
        assert np.array_equal(neutral.geometry, synthetic.captures(["S020"])[0].neutral().geometry)
        assert neutral.texture.shape == (3, TEXTURE, TEXTURE) and neutral.texture.dtype == np.uint8
        assert dome.topology().vertex_count == len(neutral.geometry)

    def test_it_begins_with_a_neutral_segment_near_the_neutral_geometry(self, dome):
        first = dome.segments[0]
        assert (first.name, first.start) == ("neutral", 0)
        middle = dome.geometry([first.stop // 2])[0]
        assert np.median(np.linalg.norm(middle - dome.neutral().geometry, axis=1)) < 1

    def test_segments_join_and_cover_every_frame(self, dome):
        stops = [segment.stop for segment in dome.segments]
        assert [segment.start for segment in dome.segments] == [0, *stops[:-1]]
        assert stops[-1] == dome.frame_count

    def test_it_is_another_take_than_the_headsets(self, dome, synthetic):
        worn = synthetic.captures(["S020"])[0].labels(range(0, 3000, 300)).expression
        assert not np.allclose(dome.labels(range(0, 1000, 100)).expression, worn, atol=0.05)

    def test_the_source_gives_one_for_each_subject(self, synthetic):
        assert [dome.subject for dome in synthetic.dome(["S020", "S003"])] == ["S020", "S003"]

    def test_mistakes_are_named(self, dome, synthetic):
        with pytest.raises(DataError, match="no subject 'S9x9'"):
            synthetic.dome(["S9x9"])
        with pytest.raises(DataError, match="no camera 'dome_40'; it has dome_00 to dome_39"):
            dome.frames([0], cameras=["dome_40"], height=64)
        for call in (dome.geometry, dome.texture, dome.head_pose, dome.labels):
            with pytest.raises(DataError, match=f"frames 0 to {dome.frame_count - 1}; {dome.frame_count} was asked"):
                call([dome.frame_count])
