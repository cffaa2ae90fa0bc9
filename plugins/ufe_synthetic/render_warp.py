"""Warp kernels of the simulated cameras: deferred shading under near point lights."""

import warp as wp

from ufe_core.ops.rasterize_warp import corner_weights, perspective

wp.set_module_options({"enable_backward": False})


@wp.kernel
def vertex_normals(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    row_start: wp.array(dtype=int),
    row_face: wp.array(dtype=int),
    normals: wp.array2d(dtype=wp.vec3),
):
    """Area-weighted, gathered vertex by vertex so that the sum has one order."""
    frame, v = wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    for n in range(row_start[v], row_start[v + 1]):
        f = faces[row_face[n]]
        a = vertices[frame, f[0]]
        total = total + wp.cross(vertices[frame, f[1]] - a, vertices[frame, f[2]] - a)
    normals[frame, v] = wp.normalize(total)


@wp.func
def texel(texture: wp.array2d(dtype=float), uv: wp.vec2):
    """Bilinear lookup; texel (r, c) has its centre at ((c + 0.5) / T, (r + 0.5) / T)."""
    size = texture.shape[0]
    x = wp.clamp(uv[0] * float(size) - 0.5, 0.0, float(size) - 1.001)
    y = wp.clamp(uv[1] * float(size) - 0.5, 0.0, float(size) - 1.001)
    c = int(x)
    r = int(y)
    fx = x - float(c)
    fy = y - float(r)
    top = texture[r, c] * (1.0 - fx) + texture[r, c + 1] * fx
    low = texture[r + 1, c] * (1.0 - fx) + texture[r + 1, c + 1] * fx
    return top * (1.0 - fy) + low * fy


@wp.func
def ramp(x: float, low: float, high: float):
    t = wp.clamp((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@wp.kernel
def shade(
    screen: wp.array2d(dtype=wp.vec3),
    ids: wp.array3d(dtype=int),
    frame_of_view: wp.array(dtype=int),
    vertices: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    uv: wp.array(dtype=wp.vec2),
    uv_faces: wp.array(dtype=wp.vec3i),
    eye_direction: wp.array(dtype=wp.vec3),
    texture: wp.array2d(dtype=float),
    iris: wp.vec3,
    eye: wp.array(dtype=wp.vec3),
    emitters: wp.array2d(dtype=wp.vec3),
    emitter_power: wp.array(dtype=float),
    ambient: float,
    out: wp.array3d(dtype=float),
):
    """Radiance of each pixel: albedo times inverse-square light, gloss, and eyes painted by angle from their axis.

    `eye_direction` is a vertex's direction in its eyeball's own frame (zero elsewhere); `iris` holds the cosines of
    pupil and iris radius and the iris' albedo; `eye` the cameras' positions.
    """
    view, i, j = wp.tid()
    k = ids[view, i, j]
    if k < 0:
        return
    frame = frame_of_view[view]
    f = faces[k]
    a = screen[view, f[0]]
    b = screen[view, f[1]]
    c = screen[view, f[2]]
    w = perspective(corner_weights(a, b, c, float(j) + 0.5, float(i) + 0.5), a, b, c)
    p = w[0] * vertices[frame, f[0]] + w[1] * vertices[frame, f[1]] + w[2] * vertices[frame, f[2]]
    n = wp.normalize(w[0] * normals[frame, f[0]] + w[1] * normals[frame, f[1]] + w[2] * normals[frame, f[2]])
    t = uv_faces[k]
    albedo = texel(texture, w[0] * uv[t[0]] + w[1] * uv[t[1]] + w[2] * uv[t[2]])
    d = w[0] * eye_direction[f[0]] + w[1] * eye_direction[f[1]] + w[2] * eye_direction[f[2]]
    is_eye = float(0.0)  # noqa: UP018 (a bare number would be a constant to warp)
    if wp.length(d) > 0.5:
        along = d[2] / wp.length(d)
        inside = ramp(along, iris[1] - 0.012, iris[1] + 0.006)
        pupil = ramp(along, iris[0] - 0.006, iris[0] + 0.006)
        albedo = albedo * (1.0 - inside) + iris[2] * inside
        albedo = albedo * (1.0 - pupil) + 0.02 * pupil
        is_eye = 1.0
    to_camera = wp.normalize(eye[view] - p)
    total = albedo * ambient
    for m in range(emitter_power.shape[0]):
        to_light = emitters[view, m] - p
        r2 = wp.dot(to_light, to_light)
        to_light = to_light / wp.sqrt(r2)
        facing = wp.dot(n, to_light)
        if facing > 0.0:
            half = wp.normalize(to_light + to_camera)
            shine = wp.max(wp.dot(n, half), 0.0)
            if is_eye > 0.0:
                shine = 1.2 * wp.pow(shine, 220.0)  # cornea
            else:
                shine = shine * shine * shine
                shine = 0.03 * shine * shine * shine * shine  # oily skin
            total = total + (albedo + shine) * facing * emitter_power[m] / r2
    out[view, i, j] = total
