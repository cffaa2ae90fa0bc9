"""See posed scenes through the headset's cameras: radiance in linear light, then what the sensors report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ufe_core.ops.kernels import kernels, warp
from ufe_core.ops.rasterize import depth_keys
from ufe_synthetic.refine import Refinement, refine
from ufe_synthetic.scene import MATERIALS, Scene

if TYPE_CHECKING:
    from ufe_core.head import Head
    from ufe_core.types import CameraSpec
    from ufe_synthetic.headset import SensorModel

_POWER = 1500.0  # brings skin at 45 mm to mid grey at exposure 1
_SURFACE_GAP_MM = 2.0
_WIDEST_RAD = 1.45  # depth along the axis, which sorts what is seen, vanishes at a right angle
_TEXELS_PER_PX = 2.7  # an image pixel covers about as many texels of the face in its finest part
_FINE_FROM_PX = 256  # images at least this wide show facets of the plain mesh
_FINE_ABOVE_Z_MM, _FINE_ABOVE_Y_MM = -25.0, 120.0
_BEHIND_MM, _EARS_MM, _JAW_Y_MM = -95.0, 20.0, 90.0  # the headset's cameras see further back below the jaw
_LENS = list(MATERIALS).index("lens")
_KERNELS = "ufe_synthetic.render_warp"


@dataclass(frozen=True)
class Look:
    """A person's maps at one texture size, in C colours: one in infrared, three for red, green and blue.

    `albedo` float32 [C, T, T]; `gloss` (in [0, 1]), `relief`, `wrinkles` (mm) float32 [T, T]; `iris` float32 [R, A],
    radius by turn, a factor on `iris_albedo` [C]; `iris_deg` and `pupil_deg` seen from the eyeball's centre.
    """

    albedo: np.ndarray
    gloss: np.ndarray
    relief: np.ndarray
    wrinkles: np.ndarray
    iris: np.ndarray
    iris_deg: float
    pupil_deg: float
    iris_albedo: np.ndarray
    sclera_albedo: np.ndarray


@dataclass(frozen=True)
class Instant:
    """What changes from frame to frame, N frames.

    `vertices` float32 [N, count, 3]; `wrinkle` float32 [N, V]; `gaze` float32 [N, 6]; `pupil` [N]; `emitters` and
    `directions` [N, L, 3] in head coordinates; `ambient` [N].
    """

    vertices: np.ndarray
    wrinkle: np.ndarray
    gaze: np.ndarray
    pupil: np.ndarray
    emitters: np.ndarray
    directions: np.ndarray
    ambient: np.ndarray


@dataclass(frozen=True)
class Level:
    """A scene's meshes at one fineness, as the kernels read them; `albedo` float32 [C, F]."""

    faces: Tensor
    across: Tensor
    uv_faces: Tensor
    uv: Tensor
    material: Tensor
    albedo: Tensor
    row_start: Tensor
    row_face: Tensor
    eye_direction: Tensor
    exposed: Tensor
    visible: Tensor


class Stage:
    """A scene made ready for the kernels, with its person's look and the emitters' strength.

    `exposed` float32 [V] and `visible` float32 [L, count] are what `ambient_exposure` and `emitter_visibility` say;
    `power` and `lobe` [L] the emitters' strength and the exponent of their cosine lobe. The head's faces behind
    z = `behind_mm` at rest, above the jaw from the ears on, are left out: no headset camera sees them. `materials`
    replaces the values of `MATERIALS`, and `colours` [C, M] their albedo, which is that in infrared.
    """

    def __init__(
        self, scene: Scene, head: Head, look: Look, exposed: np.ndarray, visible: np.ndarray, power: np.ndarray,
        lobe: np.ndarray, behind_mm: float = _BEHIND_MM, materials: np.ndarray | None = None,
        colours: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        rest = scene.rest[scene.faces]
        back = behind_mm + np.where(rest[..., 1].min(1) < _JAW_Y_MM, _EARS_MM, 0.0)
        lens = scene.material == _LENS
        self._kept = np.flatnonzero(((rest[..., 2].max(1) > back) | (scene.faces[:, 0] >= scene.head_count)) & ~lens)
        self._lenses = np.flatnonzero(lens)
        self.scene, self.look, self._head = scene, look, head
        self._visible = np.ascontiguousarray(visible, np.float32)
        self._exposed = np.full(scene.count, 0.5, np.float32)
        self._exposed[: scene.head_count] = exposed
        self._direction = np.zeros((scene.count, 3), np.float32)
        for rows, centre in scene.eyes:
            offset = scene.rest[rows] - centre
            self._direction[rows] = offset / np.linalg.norm(offset, axis=1, keepdims=True)
        table = np.array(list(MATERIALS.values())) if materials is None else materials
        self.materials = torch.from_numpy(table.astype(np.float32))
        albedo = table[None, :, 0] if colours is None else colours
        self._albedo = np.where(np.isnan(scene.albedo), albedo[:, scene.material], scene.albedo).astype(np.float32)
        self.power = torch.from_numpy((power * _POWER).astype(np.float32))
        self.lobe = torch.from_numpy(lobe.astype(np.float32))
        self._maps = np.stack([look.gloss, look.relief, look.wrinkles, *look.albedo], -1).astype(np.float32)

    def maps(self, width: int) -> Tensor:
        """Gloss, relief, wrinkles and albedo float32 [T, T, 3 + C], T no finer than images of that width can show."""
        size = self._maps.shape[0]
        while size > _TEXELS_PER_PX * width:
            size //= 2
        if size not in self._coarser:
            import cv2

            averaged = cv2.resize(self._maps, (size, size), interpolation=cv2.INTER_AREA)
            self._coarser[size] = torch.from_numpy(np.ascontiguousarray(averaged))
        return self._coarser[size]

    @cached_property
    def _coarser(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def coarse(self) -> Level:
        """The scene's own meshes."""
        return self._whole(self._kept)

    @property
    def opaque(self) -> np.ndarray:
        """The faces that hide what is behind them, int [F, 3]."""
        return self.scene.faces[self._kept]

    @cached_property
    def lenses(self) -> Level | None:
        """The lenses of glasses, through which the rest is seen; None without glasses."""
        return self._whole(self._lenses) if len(self._lenses) else None

    def _whole(self, chosen: np.ndarray) -> Level:
        scene = self.scene
        return _level(
            scene.faces[chosen], scene.uv_faces[chosen], self._head.uv, scene.material[chosen],
            self._albedo[:, chosen], scene.count, self._direction, self._exposed, self._visible,
        )  # fmt: skip

    @cached_property
    def refinement(self) -> Refinement:
        """Midpoints on the face and the eyeballs."""
        scene = self.scene
        faces = scene.faces[self._kept]
        rest = scene.rest[faces]
        front = (rest[..., 2] > _FINE_ABOVE_Z_MM) & (rest[..., 1] < _FINE_ABOVE_Y_MM)
        chosen = np.asarray((front & (faces < scene.head_count)).all(1))
        return refine(faces, scene.uv_faces[self._kept], chosen, scene.count, len(self._head.uv))

    @cached_property
    def fine(self) -> Level:
        """The meshes with curved midpoints, for large images."""
        finer = self.refinement
        uv = self._head.uv
        return _level(
            finer.faces, finer.uv_faces, np.concatenate([uv, uv[finer.uv_edges].mean(1)]),
            self.scene.material[self._kept][finer.parent], self._albedo[:, self._kept][:, finer.parent],
            self.scene.count + len(finer.edges), finer.average(self._direction), finer.average(self._exposed),
            finer.average(self._visible.T).T,
        )  # fmt: skip


def _level(
    faces: np.ndarray, uv_faces: np.ndarray, uv: np.ndarray, material: np.ndarray, albedo: np.ndarray, count: int,
    direction: np.ndarray, exposed: np.ndarray, visible: np.ndarray,
) -> Level:  # fmt: skip
    order = np.argsort(faces.reshape(-1), kind="stable")
    counts = np.bincount(faces.reshape(-1), minlength=count)
    row_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    arrays = (
        faces,
        _across(faces),
        uv_faces,
        uv,
        material,
        albedo,
        row_start,
        (order // 3).astype(np.int32),
        direction,
        exposed,
        visible,
    )
    return Level(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def _across(faces: np.ndarray) -> np.ndarray:
    """The face over each edge, int32 [F, 3]: column k is over the edge opposite corner k; -1 at borders."""
    ends = np.stack([faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]], -1).reshape(-1, 2).astype(np.int64)
    size = int(faces.max()) + 1
    forth, back = ends @ np.array([size, 1]), ends @ np.array([1, size])
    order = np.argsort(forth, kind="stable")
    at = np.minimum(np.searchsorted(forth[order], back), len(order) - 1)
    found = np.where(forth[order][at] == back, order[at] // 3, -1)
    return np.ascontiguousarray(found.reshape(-1, 3), np.int32)


def views_of(cameras: Sequence[Sequence[CameraSpec]]) -> dict[str, Tensor]:
    """The cameras of N frames, flattened frame by frame, as the arrays that the projection kernel reads."""
    flat = [camera for row in cameras for camera in row]
    k = np.stack([camera.intrinsics for camera in flat])
    arrays = {
        "frame": np.repeat(np.arange(len(cameras)), len(cameras[0])).astype(np.int32),
        "rotation": np.stack([camera.rotation for camera in flat]),
        "translation": np.stack([camera.translation for camera in flat]),
        "focal": k[:, [0, 1], [0, 1]],
        "centre": k[:, :2, 2],
        "distortion": np.stack([camera.distortion for camera in flat]),
        "fisheye": np.array([camera.model == "fisheye" for camera in flat], np.int32),
        "tan_limit": np.tan([min(camera.max_angle, _WIDEST_RAD) for camera in flat]),
        "eye": np.stack([camera.position for camera in flat]),
    }
    return {
        name: torch.from_numpy(np.ascontiguousarray(value, value.dtype if value.dtype == np.int32 else np.float32))
        for name, value in arrays.items()
    }


@dataclass(frozen=True)
class Visible:
    """What the cameras of N frames see of a level's meshes.

    `vertices` and `normals` float32 [N, count, 3]; `screen` float32 [views, count, 3]; `keys` int64
    [views, H, W], the z-buffer; `lens_keys` that of the glasses' lenses alone, None without glasses.
    """

    level: Level
    vertices: Tensor
    normals: Tensor
    screen: Tensor
    keys: Tensor
    lens_keys: Tensor | None
    views: dict[str, Tensor]


def rasterise(stage: Stage, instant: Instant, cameras: Sequence[Sequence[CameraSpec]]) -> Visible:
    """Project and z-buffer a scene; `cameras[n]` are frame n's cameras in head coordinates, all of one size."""
    wp = warp()
    camera, views = cameras[0][0], views_of(cameras)
    level, vertices = stage.coarse, torch.from_numpy(instant.vertices)
    if camera.width >= _FINE_FROM_PX:
        normals = _vertex_normals(level, vertices).numpy()
        level, vertices = stage.fine, torch.from_numpy(stage.refinement.curve(instant.vertices, normals))
    count = len(views["frame"])
    screen = torch.empty(count, vertices.shape[1], 3)
    wp.launch(kernels(_KERNELS).project, dim=(count, vertices.shape[1]), device="cpu", inputs=[
        wp.from_torch(vertices, dtype=wp.vec3), wp.from_torch(views["frame"]),
        wp.from_torch(views["rotation"], dtype=wp.mat33), wp.from_torch(views["translation"], dtype=wp.vec3),
        wp.from_torch(views["focal"], dtype=wp.vec2), wp.from_torch(views["centre"], dtype=wp.vec2),
        wp.from_torch(views["distortion"]),
        wp.from_torch(views["fisheye"]), wp.from_torch(views["tan_limit"]), wp.from_torch(screen, dtype=wp.vec3),
    ])  # fmt: skip

    def z_buffer(faces: Tensor) -> Tensor:
        return depth_keys(screen, faces, height=camera.height, width=camera.width)

    lens_keys = z_buffer(stage.lenses.faces) if stage.lenses else None
    shown = z_buffer(level.faces)
    return Visible(level, vertices, _vertex_normals(level, vertices), screen, shown, lens_keys, views)


def _vertex_normals(level: Level, vertices: Tensor) -> Tensor:
    """Area-weighted unit normals float32 [N, count, 3]."""
    wp = warp()
    normals = torch.empty_like(vertices)
    wp.launch(kernels(_KERNELS).vertex_normals, dim=tuple(vertices.shape[:2]), device="cpu", inputs=[
        wp.from_torch(vertices, dtype=wp.vec3), wp.from_torch(level.faces, dtype=wp.vec3i),
        wp.from_torch(level.row_start), wp.from_torch(level.row_face), wp.from_torch(normals, dtype=wp.vec3),
    ])  # fmt: skip
    return normals


@dataclass(frozen=True)
class Lit:
    """Light on the meshes of N frames, whatever their colours: `corners` [N, count, 12], `facets` [N, F, 12]."""

    corners: Tensor
    facets: Tensor
    lamps: Any


def illuminate(stage: Stage, instant: Instant, seen: Visible) -> Lit:
    """What reaches the meshes; the same for all stages of a scene whose emitters agree."""
    wp, shaders, level = warp(), kernels(_KERNELS), seen.level
    frames, count = seen.vertices.shape[:2]
    wrinkle = np.zeros((frames, stage.scene.count), np.float32)
    wrinkle[:, : stage.scene.head_count] = instant.wrinkle
    if count > stage.scene.count:
        wrinkle = np.ascontiguousarray(stage.refinement.average(wrinkle.T).T)
    lamps = _lamps(wp, shaders, stage, instant)
    corners = torch.empty(frames, count, 12)
    wp.launch(shaders.gather_light, dim=(frames, count), device="cpu", inputs=[
        wp.from_torch(seen.vertices, dtype=wp.vec3), wp.from_torch(seen.normals, dtype=wp.vec3), lamps,
        wp.from_torch(level.visible), wp.from_torch(level.exposed), wp.from_torch(torch.from_numpy(wrinkle)),
        wp.from_torch(corners, dtype=shaders.Corner),
    ])  # fmt: skip
    facets = torch.empty(frames, len(level.faces), 12)
    runs = -(-len(level.faces) // int(shaders.RUN))
    wp.launch(shaders.texture_facets, dim=(frames, runs), device="cpu", inputs=[
        wp.from_torch(seen.vertices, dtype=wp.vec3), wp.from_torch(level.faces, dtype=wp.vec3i),
        wp.from_torch(level.uv_faces, dtype=wp.vec3i), wp.from_torch(level.uv, dtype=wp.vec2),
        wp.from_torch(facets, dtype=shaders.Facet),
    ])  # fmt: skip
    return Lit(corners, facets, lamps)


def radiance(stage: Stage, instant: Instant, seen: Visible, *, lit: Lit | None = None, softened: bool = True) -> Tensor:
    """Linear light float32 [C, views, H, W].

    Args:
        stage: whose look, in C colours.
        instant: of the frames.
        seen: what cameras see of them.
        lit: what `illuminate` gave, where that is known.
        softened: draw the edges of surfaces without steps.
    """
    wp, shaders, level = warp(), kernels(_KERNELS), seen.level
    lit = lit or illuminate(stage, instant, seen)
    surface = shaders.Surface()
    surface.facets = wp.from_torch(lit.facets, dtype=shaders.Facet)
    surface.corners = wp.from_torch(lit.corners, dtype=shaders.Corner)
    surface.screen = wp.from_torch(seen.screen, dtype=wp.vec3)
    surface.eye_direction = wp.from_torch(level.eye_direction, dtype=wp.vec3)
    surface.faces = wp.from_torch(level.faces, dtype=wp.vec3i)
    surface.across = wp.from_torch(level.across, dtype=wp.vec3i)
    surface.face_material, surface.face_albedo = wp.from_torch(level.material), wp.from_torch(level.albedo)
    sharp = torch.empty(len(stage.look.albedo), *seen.keys.shape)
    wp.launch(shaders.shade, dim=_runs(seen.keys), device="cpu", inputs=[
        wp.from_torch(seen.keys), wp.from_torch(seen.views["frame"]), surface,
        _paint(wp, shaders, stage, sharp.shape[3]), lit.lamps, wp.from_torch(stage.materials),
        wp.from_torch(seen.views["eye"], dtype=wp.vec3), wp.from_torch(sharp),
    ])  # fmt: skip
    if stage.lenses is not None and seen.lens_keys is not None:
        normals = _vertex_normals(stage.lenses, seen.vertices[:, : stage.scene.count].contiguous())
        wp.launch(shaders.glaze, dim=_runs(seen.keys), device="cpu", inputs=[
            wp.from_torch(seen.keys), wp.from_torch(seen.lens_keys), wp.from_torch(seen.views["frame"]),
            wp.from_torch(seen.vertices, dtype=wp.vec3), wp.from_torch(seen.screen, dtype=wp.vec3),
            wp.from_torch(normals, dtype=wp.vec3), wp.from_torch(stage.lenses.faces, dtype=wp.vec3i), lit.lamps,
            float(stage.materials[_LENS, 1]), wp.from_torch(seen.views["eye"], dtype=wp.vec3), wp.from_torch(sharp),
        ])  # fmt: skip
    if not softened:
        return sharp
    out = torch.empty_like(sharp)
    wp.launch(shaders.soften_edges, dim=_runs(seen.keys), device="cpu", inputs=[
        wp.from_torch(seen.keys), surface, _SURFACE_GAP_MM, wp.from_torch(sharp), wp.from_torch(out),
    ])  # fmt: skip
    return out


def _runs(images: Tensor) -> tuple[int, int, int]:
    """Threads of a kernel over images [views, H, W]."""
    return images.shape[0], images.shape[1], -(-images.shape[2] // int(kernels(_KERNELS).RUN))


def _lamps(wp: Any, shaders: Any, stage: Stage, instant: Instant) -> Any:
    lamps = shaders.Lamps()

    def array(values: np.ndarray, dtype: Any = None) -> Any:
        return wp.from_torch(torch.from_numpy(np.ascontiguousarray(values, np.float32)), dtype=dtype)

    lamps.place, lamps.direction = array(instant.emitters, wp.vec3), array(instant.directions, wp.vec3)
    lamps.power, lamps.lobe = wp.from_torch(stage.power), wp.from_torch(stage.lobe)
    lamps.ambient, lamps.pupil = array(instant.ambient), array(instant.pupil)
    lamps.gaze = array(instant.gaze.reshape(-1, 2, 3), wp.vec3)
    return lamps


def _paint(wp: Any, shaders: Any, stage: Stage, width: int) -> Any:
    paint, look = shaders.Paint(), stage.look
    paint.maps = wp.from_torch(stage.maps(width))
    paint.iris = wp.from_torch(torch.from_numpy(np.ascontiguousarray(look.iris, np.float32)))
    paint.iris_rad, paint.pupil_rad = float(np.radians(look.iris_deg)), float(np.radians(look.pupil_deg))
    paint.iris_albedo, paint.sclera_albedo = (
        wp.from_torch(torch.from_numpy(value.astype(np.float32))) for value in (look.iris_albedo, look.sclera_albedo)
    )
    return paint


def sense(light: Tensor, exposure: np.ndarray, seeds: np.ndarray, sensor: SensorModel, full_px: int) -> np.ndarray:
    """Grey levels uint8 [views, H, W] of radiance; noise and blur shrink with the image, as if binned.

    Args:
        light: float32 [views, H, W], as `radiance` gives it.
        exposure: gain of each view, [views].
        seeds: of each view's noise, [views].
        sensor: what turns light into grey levels.
        full_px: width of the sensor, at which its noise and blur hold.
    """
    import cv2

    wp = warp()
    share = min(light.shape[-1] / full_px, 1.0)
    blur = sensor.blur_px * light.shape[-1] / full_px
    if blur > 0.3:
        blurred = [cv2.GaussianBlur(image, (0, 0), blur) for image in light.numpy()]
        light = torch.from_numpy(np.stack(blurred))
    out = torch.empty(light.shape, dtype=torch.uint8)
    wp.launch(kernels(_KERNELS).sense, dim=_runs(light), device="cpu", inputs=[
        wp.from_torch(light), wp.from_torch(torch.from_numpy(exposure.astype(np.float32))),
        wp.from_torch(torch.from_numpy(seeds.astype(np.int32))), sensor.black, sensor.vignetting,
        wp.from_torch(_response(sensor, share)), 2 ** (8 - sensor.bits), wp.from_torch(out),
    ])  # fmt: skip
    return out.numpy()


def _response(sensor: SensorModel, share: float, steps: int = 4096) -> Tensor:
    """Grey level and its noise for `steps` amounts of light from none to saturation, float32 [steps, 2]."""
    level = 255 * np.linspace(0, 1, steps) ** (1 / sensor.gamma)
    noise = share * np.sqrt(sensor.read_noise**2 + sensor.shot_noise**2 * level)
    return torch.from_numpy(np.stack([level, noise], -1).astype(np.float32))


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """A frame after its way through a lossy link, uint8 [H, W]."""
    import cv2

    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))
