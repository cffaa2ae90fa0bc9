"""Warp kernels of the simulated cameras: projection, near light gathered at vertices, deferred shading, sensor."""

import warp as wp

from ufe_core.ops.rasterize_warp import corner_weights, perspective

wp.set_module_options({"enable_backward": False})

#: Rows of a material, and its columns in the table that `shade` reads.
EYE_MATERIAL = wp.constant(6)
_ALBEDO = wp.constant(0)
_GLOSS = wp.constant(1)
_EXPONENT = wp.constant(2)
_WRAP = wp.constant(3)
_TEXTURED = wp.constant(4)
_EMPTY_KEY = wp.constant(wp.int64(0x7FFFFFFFFFFFFFFF))


@wp.struct
class Surface:
    """Meshes of N frames: `vertices`, `normals`, `light` [N, V]; `wrinkle` and `exposed` [N, V], [V]."""

    vertices: wp.array2d(dtype=wp.vec3)
    normals: wp.array2d(dtype=wp.vec3)
    light: wp.array2d(dtype=wp.vec3)
    wrinkle: wp.array2d(dtype=float)
    exposed: wp.array(dtype=float)
    eye_direction: wp.array(dtype=wp.vec3)
    faces: wp.array(dtype=wp.vec3i)
    uv_faces: wp.array(dtype=wp.vec3i)
    uv: wp.array(dtype=wp.vec2)
    face_material: wp.array(dtype=int)


@wp.struct
class Paint:
    """A person's maps: `albedo` and `gloss` in [0, 1], `relief` and `wrinkles` in mm; iris and pupil."""

    albedo: wp.array2d(dtype=float)
    gloss: wp.array2d(dtype=float)
    relief: wp.array2d(dtype=float)
    wrinkles: wp.array2d(dtype=float)
    iris: wp.array2d(dtype=float)
    cos_iris: float
    pupil_rad: float
    iris_rad: float
    iris_albedo: float
    sclera_albedo: float


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


@wp.kernel
def gather_light(
    vertices: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    emitters: wp.array2d(dtype=wp.vec3),
    directions: wp.array2d(dtype=wp.vec3),
    power: wp.array(dtype=float),
    lobe: wp.array(dtype=float),
    visible: wp.array2d(dtype=float),
    light: wp.array2d(dtype=wp.vec3),
):
    """Vector irradiance at each vertex: the sum over emitters of direction times irradiance at normal incidence.

    Emitters behind the surface's horizon fade out; `visible` [L, V] is the share of each that reaches a vertex.
    """
    frame, v = wp.tid()
    p = vertices[frame, v]
    n = normals[frame, v]
    total = wp.vec3(0.0, 0.0, 0.0)
    for m in range(power.shape[0]):
        share = visible[m, v]
        if share > 0.0:
            to_light = emitters[frame, m] - p
            r2 = wp.dot(to_light, to_light)
            to_light = to_light / wp.sqrt(r2)
            along = -wp.dot(to_light, directions[frame, m])
            facing = wp.clamp(wp.dot(n, to_light) * 4.0 + 1.0, 0.0, 1.0)
            if along > 0.0 and facing > 0.0:
                total = total + to_light * (share * facing * power[m] * wp.pow(along, lobe[m]) / r2)
    light[frame, v] = total


@wp.kernel
def project(
    vertices: wp.array2d(dtype=wp.vec3),
    frame_of_view: wp.array(dtype=int),
    rotation: wp.array(dtype=wp.mat33),
    translation: wp.array(dtype=wp.vec3),
    focal: wp.array(dtype=wp.vec2),
    centre: wp.array(dtype=wp.vec2),
    distortion: wp.array2d(dtype=float),
    fisheye: wp.array(dtype=int),
    tan_limit: wp.array(dtype=float),
    screen: wp.array2d(dtype=wp.vec3),
):
    """Pixel and depth of each vertex; depth 0, which drops a vertex's faces, outside the lens' cone."""
    view, v = wp.tid()
    q = rotation[view] * vertices[frame_of_view[view], v] + translation[view]
    if q[2] <= 0.0:
        screen[view, v] = wp.vec3(0.0, 0.0, 0.0)
        return
    x = q[0] / q[2]
    y = q[1] / q[2]
    r2 = x * x + y * y
    limit = tan_limit[view]
    if r2 > limit * limit:
        screen[view, v] = wp.vec3(0.0, 0.0, 0.0)
        return
    k1 = distortion[view, 0]
    k2 = distortion[view, 1]
    k3 = distortion[view, 2]
    k4 = distortion[view, 3]
    xd = float(0.0)
    yd = float(0.0)
    if fisheye[view] > 0:
        r = wp.sqrt(r2)
        scale = float(1.0)
        if r > 1.0e-6:
            t = wp.atan(r)
            t2 = t * t
            scale = t * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) / r
        xd = x * scale
        yd = y * scale
    else:
        radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * distortion[view, 4]))
        xd = x * radial + 2.0 * k3 * x * y + k4 * (r2 + 2.0 * x * x)
        yd = y * radial + k3 * (r2 + 2.0 * y * y) + 2.0 * k4 * x * y
    screen[view, v] = wp.vec3(focal[view][0] * xd + centre[view][0], focal[view][1] * yd + centre[view][1], q[2])


@wp.func
def ramp(x: float, low: float, high: float):
    t = wp.clamp((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@wp.func
def bilinear(image: wp.array2d(dtype=float), r: int, c: int, fy: float, fx: float):
    top = image[r, c] * (1.0 - fx) + image[r, c + 1] * fx
    low = image[r + 1, c] * (1.0 - fx) + image[r + 1, c + 1] * fx
    return top * (1.0 - fy) + low * fy


@wp.func
def slopes(image: wp.array2d(dtype=float), r: int, c: int, fy: float, fx: float):
    """Change of a map per texel along columns and rows."""
    across = (image[r, c + 1] - image[r, c]) * (1.0 - fy) + (image[r + 1, c + 1] - image[r + 1, c]) * fy
    down = (image[r + 1, c] - image[r, c]) * (1.0 - fx) + (image[r + 1, c + 1] - image[r, c + 1]) * fx
    return wp.vec2(across, down)


@wp.func
def glow(
    surface: Surface, paint: Paint, materials: wp.array2d(dtype=float), screen: wp.array2d(dtype=wp.vec3),
    view: int, frame: int, k: int, x: float, y: float, eye: wp.vec3, ambient: float,
    gaze: wp.array2d(dtype=wp.vec3), emitters: wp.array2d(dtype=wp.vec3), power: wp.array(dtype=float),
    pupil: float,
):
    """Radiance of face `k` towards the camera at screen position (x, y)."""
    f = surface.faces[k]
    a = screen[view, f[0]]
    b = screen[view, f[1]]
    c = screen[view, f[2]]
    flat = corner_weights(a, b, c, x, y)  # the pixel's centre may lie just outside a face seen by one subsample
    flat = wp.vec3(wp.max(flat[0], 0.0), wp.max(flat[1], 0.0), wp.max(flat[2], 0.0))
    w = perspective(flat / (flat[0] + flat[1] + flat[2]), a, b, c)
    p0 = surface.vertices[frame, f[0]]
    p1 = surface.vertices[frame, f[1]]
    p2 = surface.vertices[frame, f[2]]
    n = wp.normalize(
        w[0] * surface.normals[frame, f[0]] + w[1] * surface.normals[frame, f[1]] + w[2] * surface.normals[frame, f[2]]
    )
    light = w[0] * surface.light[frame, f[0]] + w[1] * surface.light[frame, f[1]] + w[2] * surface.light[frame, f[2]]
    exposed = w[0] * surface.exposed[f[0]] + w[1] * surface.exposed[f[1]] + w[2] * surface.exposed[f[2]]
    p = w[0] * p0 + w[1] * p1 + w[2] * p2
    to_camera = wp.normalize(eye - p)
    material = surface.face_material[k]
    if wp.dot(n, to_camera) < 0.0 and materials[material, _TEXTURED] < 0.5:
        n = -n  # the inside of a thin prop
    albedo = materials[material, _ALBEDO]
    gloss = materials[material, _GLOSS]
    if material == EYE_MATERIAL:
        d = (
            w[0] * surface.eye_direction[f[0]] + w[1] * surface.eye_direction[f[1]] + w[2] * surface.eye_direction[f[2]]
        )
        d = wp.normalize(d)
        angle = wp.acos(wp.clamp(d[2], -1.0, 1.0))
        albedo = paint.sclera_albedo
        side = int(0)
        if p[0] > 0.0:
            side = 1
        if angle < paint.iris_rad * 1.15:
            inner = paint.pupil_rad * pupil
            along = wp.clamp((angle - inner) / (paint.iris_rad - inner), 0.0, 1.0)
            turn = (wp.atan2(d[1], d[0]) / 6.2831853 + 0.5) * float(paint.iris.shape[1] - 1)
            r = wp.min(int(along * float(paint.iris.shape[0] - 1)), paint.iris.shape[0] - 2)
            q = wp.min(int(turn), paint.iris.shape[1] - 2)
            streak = bilinear(paint.iris, r, q, along * float(paint.iris.shape[0] - 1) - float(r), turn - float(q))
            inside = 1.0 - ramp(angle, paint.iris_rad * 0.94, paint.iris_rad * 1.08)
            limbus = 1.0 - 0.35 * ramp(along, 0.8, 1.0)
            albedo = albedo * (1.0 - inside) + paint.iris_albedo * streak * limbus * inside
            hole = 1.0 - ramp(angle, inner * 0.95, inner * 1.05)
            albedo = albedo * (1.0 - hole) + 0.02 * hole
            cornea = wp.normalize(n - 0.45 * gaze[frame, side])
            n = wp.normalize(n + (cornea - n) * inside)
        shine = float(0.0)
        for m in range(power.shape[0]):
            to_light = emitters[frame, m] - p
            r2 = wp.dot(to_light, to_light)
            half = wp.normalize(to_light / wp.sqrt(r2) + to_camera)
            s = wp.max(wp.dot(n, half), 0.0)
            if s > 0.99:
                shine = shine + wp.pow(s, 2400.0) * power[m] / r2
        strength = wp.length(light)
        diffuse = wp.max((wp.dot(light, n) + 0.3 * strength) / 1.3, 0.0)
        return albedo * (diffuse + ambient * exposed) + gloss * shine
    if materials[material, _TEXTURED] > 0.5:
        t = surface.uv_faces[k]
        t0 = surface.uv[t[0]]
        t1 = surface.uv[t[1]]
        t2 = surface.uv[t[2]]
        size = float(paint.albedo.shape[0])
        at = w[0] * t0 + w[1] * t1 + w[2] * t2
        tx = wp.clamp(at[0] * size - 0.5, 0.0, size - 1.001)
        ty = wp.clamp(at[1] * size - 0.5, 0.0, size - 1.001)
        col = int(tx)
        row = int(ty)
        fx = tx - float(col)
        fy = ty - float(row)
        albedo = bilinear(paint.albedo, row, col, fy, fx)
        gloss = gloss * bilinear(paint.gloss, row, col, fy, fx)
        amount = (
            w[0] * surface.wrinkle[frame, f[0]] + w[1] * surface.wrinkle[frame, f[1]] + w[2] * surface.wrinkle[frame, f[2]]
        )
        slope = slopes(paint.relief, row, col, fy, fx)
        if amount > 0.01:
            slope = slope + amount * slopes(paint.wrinkles, row, col, fy, fx)
        e1 = p1 - p0
        e2 = p2 - p0
        facet = wp.cross(e1, e2)
        area2 = wp.dot(facet, facet)
        if area2 > 0.0:
            rise1 = wp.dot(slope, t1 - t0) * size
            rise2 = wp.dot(slope, t2 - t0) * size
            g = (rise1 * wp.cross(e2, facet) + rise2 * wp.cross(facet, e1)) / area2
            n = wp.normalize(n - (g - wp.dot(n, g) * n))
    strength = wp.length(light)
    wrap = materials[material, _WRAP]
    diffuse = wp.max((wp.dot(light, n) + wrap * strength) / (1.0 + wrap), 0.0)
    total = albedo * (diffuse + ambient * exposed)
    if strength > 0.0:
        half = wp.normalize(light / strength + to_camera)
        total = total + gloss * strength * wp.pow(wp.max(wp.dot(n, half), 0.0), materials[material, _EXPONENT])
    return total


@wp.kernel
def shade(
    screen: wp.array2d(dtype=wp.vec3),
    keys: wp.array3d(dtype=wp.int64),
    frame_of_view: wp.array(dtype=int),
    surface: Surface,
    paint: Paint,
    materials: wp.array2d(dtype=float),
    eye: wp.array(dtype=wp.vec3),
    gaze: wp.array2d(dtype=wp.vec3),
    emitters: wp.array2d(dtype=wp.vec3),
    power: wp.array(dtype=float),
    ambient: wp.array(dtype=float),
    pupil: wp.array(dtype=float),
    ticks: float,
    gap: float,
    out: wp.array3d(dtype=float),
):
    """Radiance of each pixel from the depth keys of its 2 x 2 subsamples.

    Subsamples of one material at one depth are one surface and shaded once, at the middle of what they cover; each
    surface counts by its share of the pixel.
    """
    view, i, j = wp.tid()
    frame = frame_of_view[view]
    k0 = keys[view, 2 * i, 2 * j]
    k1 = keys[view, 2 * i, 2 * j + 1]
    k2 = keys[view, 2 * i + 1, 2 * j]
    k3 = keys[view, 2 * i + 1, 2 * j + 1]
    done = int(0)
    total = float(0.0)
    for s in range(4):
        key = k0
        if s == 1:
            key = k1
        if s == 2:
            key = k2
        if s == 3:
            key = k3
        if (done & (1 << s)) == 0 and key != _EMPTY_KEY:
            face = int(key & wp.int64(0x7FFFFFFF))
            material = surface.face_material[face]
            depth = float(key >> wp.int64(31)) / ticks
            count = float(0.0)
            x = float(0.0)
            y = float(0.0)
            for q in range(s, 4):
                other = k0
                if q == 1:
                    other = k1
                if q == 2:
                    other = k2
                if q == 3:
                    other = k3
                if (done & (1 << q)) == 0 and other != _EMPTY_KEY:
                    near = wp.abs(float(other >> wp.int64(31)) / ticks - depth) < gap
                    if near and surface.face_material[int(other & wp.int64(0x7FFFFFFF))] == material:
                        done = done | (1 << q)
                        count = count + 1.0
                        x = x + float(2 * j + (q & 1)) + 0.5
                        y = y + float(2 * i + (q >> 1)) + 0.5
            total = total + 0.25 * count * glow(
                surface, paint, materials, screen, view, frame, face, x / count, y / count, eye[view],
                ambient[frame], gaze, emitters, power, pupil[frame],
            )
    out[view, i, j] = total


@wp.func
def bell(seed: int, pixel: int):
    """A nearly normal number, mean 0 and variance 1: the four bytes of a hash summed (up to 3.5 deviations)."""
    bits = wp.rand_init(seed, pixel)
    a = int(bits & wp.uint32(255)) + int((bits >> wp.uint32(8)) & wp.uint32(255))
    b = int((bits >> wp.uint32(16)) & wp.uint32(255)) + int(bits >> wp.uint32(24))
    return (float(a + b) - 510.0) / 147.8


@wp.kernel
def sense(
    radiance: wp.array3d(dtype=float),
    exposure: wp.array(dtype=float),
    seed: wp.array(dtype=int),
    black: float,
    vignetting: float,
    response: wp.array2d(dtype=float),
    out: wp.array3d(dtype=wp.uint8),
):
    """Grey levels: vignetting, gain, saturation at both ends, then `response`: level and noise by clipped light."""
    view, i, j = wp.tid()
    width = radiance.shape[2]
    x = (float(j) + 0.5) / float(width) * 2.0 - 1.0
    y = (float(i) + 0.5) / float(radiance.shape[1]) * 2.0 - 1.0
    fall = 1.0 - vignetting * 0.5 * (x * x + y * y)
    light = wp.clamp(radiance[view, i, j] * fall * exposure[view] - black, 0.0, 1.0)
    row = int(light * float(response.shape[0] - 1))
    level = response[row, 0] + bell(seed[view], i * width + j) * response[row, 1]
    out[view, i, j] = wp.uint8(wp.clamp(level + 0.5, 0.0, 255.0))
