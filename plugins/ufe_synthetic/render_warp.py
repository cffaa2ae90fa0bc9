"""Warp kernels of the simulated cameras: projection, near light gathered at vertices, deferred shading, sensor."""

import warp as wp

from ufe_core.ops.rasterize_warp import corner_weights, key_gap

wp.set_module_options({"enable_backward": False})

#: Pixels that a thread works through: what a kernel's start costs is shared by as many.
RUN = wp.constant(16)

#: Rows of a material, and its columns in the table that `shade` reads.
EYE_MATERIAL = wp.constant(6)
_GLOSS = wp.constant(1)
_EXPONENT = wp.constant(2)
_WRAP = wp.constant(3)
_TEXTURED = wp.constant(4)
_EMPTY_KEY = wp.constant(wp.int64(0x7FFFFFFFFFFFFFFF))
_FACE_BITS = wp.constant(wp.int64(0x7FFFFFFF))


#: What a vertex brings to a pixel, in one cache line: position, normal, light (vectors), exposure, wrinkling, spare.
Corner = wp.types.vector(length=12, dtype=wp.float32)


#: What a face brings to a pixel: texture coordinates (u, v) of its first corner, how far the other two lie from
#: there, and gradients along its surface, 1/mm, of u and of v.
Facet = wp.types.vector(length=12, dtype=wp.float32)


@wp.struct
class Surface:
    """Meshes of N frames: `corners` [N, V], `screen` [views, V], `facets` [N, F]; the rest is per face [F].

    `across` holds the face on the other side of each edge (edge k lies opposite corner k), -1 where there is none.
    """

    corners: wp.array2d(dtype=Corner)
    screen: wp.array2d(dtype=wp.vec3)
    facets: wp.array2d(dtype=Facet)
    eye_direction: wp.array(dtype=wp.vec3)
    faces: wp.array(dtype=wp.vec3i)
    across: wp.array(dtype=wp.vec3i)
    face_material: wp.array(dtype=int)
    face_albedo: wp.array2d(dtype=float)


@wp.struct
class Paint:
    """A person's look in C colours.

    `maps` [T, T, 3 + C] holds gloss (in [0, 1]), relief and wrinkles (mm) of each texel, then its albedos.
    """

    maps: wp.array3d(dtype=float)
    iris: wp.array2d(dtype=float)
    pupil_rad: float
    iris_rad: float
    iris_albedo: wp.array(dtype=float)
    sclera_albedo: wp.array(dtype=float)


@wp.struct
class Seen:
    """What a pixel shows, but for its colour: `white` is what albedo 1 would send, `shine` comes on top in all colours.

    The albedo is that of the face, of the texture at (`x`, `y`) texels, or the eye's, in which `iris` is the iris'
    streak, `inside` the share of iris against sclera and `dark` that of the pupil.
    """

    white: float
    shine: float
    textured: bool
    eye: bool
    x: float
    y: float
    iris: float
    inside: float
    dark: float


@wp.struct
class Lamps:
    """Emitters of N frames: `place` and `direction` [N, L], `power` and `lobe` [L]; `ambient` and `pupil` [N]."""

    place: wp.array2d(dtype=wp.vec3)
    direction: wp.array2d(dtype=wp.vec3)
    power: wp.array(dtype=float)
    lobe: wp.array(dtype=float)
    ambient: wp.array(dtype=float)
    pupil: wp.array(dtype=float)
    gaze: wp.array2d(dtype=wp.vec3)


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
    lamps: Lamps,
    visible: wp.array2d(dtype=float),
    exposed: wp.array(dtype=float),
    wrinkle: wp.array2d(dtype=float),
    corners: wp.array2d(dtype=Corner),
):
    """Vector irradiance at each vertex: the sum over emitters of direction times irradiance at normal incidence.

    Emitters behind the surface's horizon fade out; `visible` [L, V] is the share of each that reaches a vertex.
    """
    frame, v = wp.tid()
    p = vertices[frame, v]
    n = normals[frame, v]
    total = wp.vec3(0.0, 0.0, 0.0)
    for m in range(lamps.power.shape[0]):
        share = visible[m, v]
        if share > 0.0:
            to_light = lamps.place[frame, m] - p
            r2 = wp.dot(to_light, to_light)
            to_light = to_light / wp.sqrt(r2)
            along = -wp.dot(to_light, lamps.direction[frame, m])
            facing = wp.clamp(wp.dot(n, to_light) * 4.0 + 1.0, 0.0, 1.0)
            if along > 0.0 and facing > 0.0:
                total = total + to_light * (share * facing * lamps.power[m] * wp.pow(along, lamps.lobe[m]) / r2)
    corners[frame, v] = Corner(
        p[0], p[1], p[2], n[0], n[1], n[2], total[0], total[1], total[2], exposed[v], wrinkle[frame, v], 0.0
    )


@wp.kernel
def texture_facets(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    uv_faces: wp.array(dtype=wp.vec3i),
    uv: wp.array(dtype=wp.vec2),
    facets: wp.array2d(dtype=Facet),
):
    """Where each face lies in the texture, and how that changes along it: slopes in the map become slopes in space."""
    frame, run = wp.tid()
    for k in range(run * RUN, wp.min(run * RUN + RUN, faces.shape[0])):
        f = faces[k]
        t = uv_faces[k]
        p = vertices[frame, f[0]]
        e1 = vertices[frame, f[1]] - p
        e2 = vertices[frame, f[2]] - p
        t0 = uv[t[0]]
        t1 = uv[t[1]] - t0
        t2 = uv[t[2]] - t0
        facet = wp.cross(e1, e2)
        area2 = wp.max(wp.dot(facet, facet), 1.0e-12)
        d1 = wp.cross(e2, facet) / area2
        d2 = wp.cross(facet, e1) / area2
        u = t1[0] * d1 + t2[0] * d2
        v = t1[1] * d1 + t2[1] * d2
        facets[frame, k] = Facet(t0[0], t0[1], t1[0], t1[1], t2[0], t2[1], u[0], u[1], u[2], v[0], v[1], v[2])


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
def streaks(image: wp.array2d(dtype=float), along: float, turn: float):
    """The iris' texture at a share of its radius and a share of a turn, bilinear."""
    y = along * float(image.shape[0] - 1)
    x = turn * float(image.shape[1] - 1)
    r = wp.min(int(y), image.shape[0] - 2)
    c = wp.min(int(x), image.shape[1] - 2)
    fy = y - float(r)
    fx = x - float(c)
    top = image[r, c] * (1.0 - fx) + image[r, c + 1] * fx
    low = image[r + 1, c] * (1.0 - fx) + image[r + 1, c + 1] * fx
    return top * (1.0 - fy) + low * fy


@wp.func
def surface_weights(a: wp.vec3, b: wp.vec3, c: wp.vec3, x: float, y: float):
    """Weights of a face's corners, in space, at the screen position (x, y)."""
    ax = a[0] - x  # screen weights times depths, up to a factor that the last division takes out
    ay = a[1] - y
    bx = b[0] - x
    by = b[1] - y
    cx = c[0] - x
    cy = c[1] - y
    wa = (bx * cy - by * cx) * b[2] * c[2]
    wb = (cx * ay - cy * ax) * a[2] * c[2]
    wc = (ax * by - ay * bx) * a[2] * b[2]
    share = 1.0 / (wa + wb + wc)
    return wp.vec3(wa * share, wb * share, wc * share)


@wp.func
def mirrored_emitters(lamps: Lamps, frame: int, p: wp.vec3, n: wp.vec3, to_camera: wp.vec3):
    """Light that a polished surface at p throws from the emitters towards the camera."""
    shine = float(0.0)
    for m in range(lamps.power.shape[0]):
        to_light = lamps.place[frame, m] - p
        r2 = wp.dot(to_light, to_light)
        s = wp.dot(n, wp.normalize(to_light / wp.sqrt(r2) + to_camera))
        if s > 0.99:
            shine = shine + wp.pow(s, 2400.0) * lamps.power[m] / r2
    return shine


@wp.func
def eye_glow(
    surface: Surface,
    paint: Paint,
    lamps: Lamps,
    frame: int,
    f: wp.vec3i,
    w: wp.vec3,
    p: wp.vec3,
    n: wp.vec3,
    light: wp.vec3,
    exposed: float,
    to_camera: wp.vec3,
    gloss: float,
):
    """An eyeball, painted by angle from its axis; a steeper cornea reflects every emitter."""
    seen = Seen()
    seen.eye = True
    d = wp.normalize(
        w[0] * surface.eye_direction[f[0]] + w[1] * surface.eye_direction[f[1]] + w[2] * surface.eye_direction[f[2]]
    )
    angle = wp.acos(wp.clamp(d[2], -1.0, 1.0))
    side = int(0)
    if p[0] > 0.0:
        side = 1
    if angle < paint.iris_rad * 1.15:
        hole = paint.pupil_rad * lamps.pupil[frame]
        along = wp.clamp((angle - hole) / (paint.iris_rad - hole), 0.0, 1.0)
        streak = streaks(paint.iris, along, wp.atan2(d[1], d[0]) / 6.2831853 + 0.5)
        inside = 1.0 - ramp(angle, paint.iris_rad * 0.94, paint.iris_rad * 1.08)
        limbus = 1.0 - 0.35 * ramp(along, 0.8, 1.0)
        seen.iris = streak * limbus
        seen.inside = inside
        seen.dark = 1.0 - ramp(angle, hole * 0.95, hole * 1.05)
        n = wp.normalize(n + (wp.normalize(n - 0.45 * lamps.gaze[frame, side]) - n) * inside)
    shine = mirrored_emitters(lamps, frame, p, n, to_camera)
    diffuse = wp.max((wp.dot(light, n) + 0.3 * wp.length(light)) / 1.3, 0.0)
    seen.white = diffuse + lamps.ambient[frame] * exposed
    seen.shine = gloss * shine
    return seen


@wp.func
def relief(paint: Paint, row: int, col: int, wrinkled: float):
    """How far a texel stands out, mm."""
    return paint.maps[row, col, 1] + wrinkled * paint.maps[row, col, 2]


@wp.func
def look(
    surface: Surface,
    paint: Paint,
    lamps: Lamps,
    materials: wp.array2d(dtype=float),
    view: int,
    frame: int,
    k: int,
    x: float,
    y: float,
    eye: wp.vec3,
):
    """What a camera at `eye` sees of face `k` at screen position (x, y)."""
    f = surface.faces[k]
    w = surface_weights(surface.screen[view, f[0]], surface.screen[view, f[1]], surface.screen[view, f[2]], x, y)
    c0 = surface.corners[frame, f[0]]
    c1 = surface.corners[frame, f[1]]
    c2 = surface.corners[frame, f[2]]
    at = w[0] * c0 + w[1] * c1 + w[2] * c2
    p = wp.vec3(at[0], at[1], at[2])
    n = wp.vec3(at[3], at[4], at[5])  # nearly of length 1: the mesh is smooth
    light = wp.vec3(at[6], at[7], at[8])
    exposed = at[9]
    to_camera = wp.normalize(eye - p)
    material = surface.face_material[k]
    gloss = materials[material, _GLOSS]
    if material == EYE_MATERIAL:
        return eye_glow(surface, paint, lamps, frame, f, w, p, wp.normalize(n), light, exposed, to_camera, gloss)
    seen = Seen()
    if materials[material, _TEXTURED] > 0.5:
        d = surface.facets[frame, k]
        size = float(paint.maps.shape[0])
        tx = wp.clamp((d[0] + w[1] * d[2] + w[2] * d[4]) * size - 0.5, 0.0, size - 1.001)
        ty = wp.clamp((d[1] + w[1] * d[3] + w[2] * d[5]) * size - 0.5, 0.0, size - 1.001)
        col = int(tx)
        row = int(ty)
        fx = tx - float(col)
        fy = ty - float(row)
        wrinkled = at[10]
        g00 = paint.maps[row, col, 0]
        g10 = paint.maps[row + 1, col, 0]
        top_gloss = g00 + fx * (paint.maps[row, col + 1, 0] - g00)
        gloss = gloss * (top_gloss + fy * (g10 + fx * (paint.maps[row + 1, col + 1, 0] - g10) - top_gloss))
        h00 = relief(paint, row, col, wrinkled)
        h10 = relief(paint, row + 1, col, wrinkled)
        upper = relief(paint, row, col + 1, wrinkled) - h00
        lower = relief(paint, row + 1, col + 1, wrinkled) - h10
        along = upper + fy * (lower - upper)
        down = h10 + fx * lower - (h00 + fx * upper)
        slope = wp.vec2(along, down) * size
        g = slope[0] * wp.vec3(d[6], d[7], d[8]) + slope[1] * wp.vec3(d[9], d[10], d[11])
        n = wp.normalize(n - (g - wp.dot(n, g) * n))
        seen.textured = True
        seen.x = tx
        seen.y = ty
    elif wp.dot(n, to_camera) < 0.0:
        n = -n  # the inside of a thin prop
    strength = wp.length(light)
    wrap = materials[material, _WRAP]
    diffuse = wp.max((wp.dot(light, n) + wrap * strength) / (1.0 + wrap), 0.0)
    seen.white = diffuse + lamps.ambient[frame] * exposed
    if strength > 0.0:
        mirrored = 2.0 * wp.dot(n, to_camera) * n - to_camera
        s = wp.max(wp.dot(mirrored, light), 0.0)
        exponent = materials[material, _EXPONENT]
        # Schlick's lobe: a power without `pow`
        seen.shine = gloss * strength * s / (exponent * strength - exponent * s + s)
    return seen


@wp.func
def albedo_of(surface: Surface, paint: Paint, seen: Seen, face: int, colour: int):
    """How much of the light what was seen sends back in one colour."""
    if seen.eye:
        iris = paint.iris_albedo[colour] * seen.iris
        own = paint.sclera_albedo[colour] * (1.0 - seen.inside) + iris * seen.inside
        return own * (1.0 - seen.dark) + 0.02 * seen.dark
    if seen.textured:
        col = int(seen.x)
        row = int(seen.y)
        fx = seen.x - float(col)
        fy = seen.y - float(row)
        m00 = paint.maps[row, col, 3 + colour]
        m10 = paint.maps[row + 1, col, 3 + colour]
        top = m00 + fx * (paint.maps[row, col + 1, 3 + colour] - m00)
        return top + fy * (m10 + fx * (paint.maps[row + 1, col + 1, 3 + colour] - m10) - top)
    return surface.face_albedo[colour, face]


@wp.kernel
def shade(
    keys: wp.array3d(dtype=wp.int64),
    frame_of_view: wp.array(dtype=int),
    surface: Surface,
    paint: Paint,
    lamps: Lamps,
    materials: wp.array2d(dtype=float),
    eye: wp.array(dtype=wp.vec3),
    out: wp.array4d(dtype=float),
):
    """Radiance at the middle of each pixel, in each colour."""
    view, i, run = wp.tid()
    for j in range(run * RUN, wp.min(run * RUN + RUN, keys.shape[2])):
        key = keys[view, i, j]
        if key == _EMPTY_KEY:
            for colour in range(out.shape[0]):
                out[colour, view, i, j] = 0.0
        else:
            face = int(key & _FACE_BITS)
            frame = frame_of_view[view]
            seen = look(surface, paint, lamps, materials, view, frame, face, float(j) + 0.5, float(i) + 0.5, eye[view])
            for colour in range(out.shape[0]):
                albedo = albedo_of(surface, paint, seen, face, colour)
                out[colour, view, i, j] = albedo * seen.white + seen.shine


@wp.kernel
def glaze(
    keys: wp.array3d(dtype=wp.int64),
    lens_keys: wp.array3d(dtype=wp.int64),
    frame_of_view: wp.array(dtype=int),
    vertices: wp.array2d(dtype=wp.vec3),
    screen: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    lamps: Lamps,
    gloss: float,
    eye: wp.array(dtype=wp.vec3),
    out: wp.array4d(dtype=float),
):
    """Lay lenses over what is seen through them: a little light is lost, surroundings and emitters are reflected."""
    view, i, run = wp.tid()
    for j in range(run * RUN, wp.min(run * RUN + RUN, keys.shape[2])):
        key = lens_keys[view, i, j]
        if key < keys[view, i, j]:
            frame = frame_of_view[view]
            f = faces[int(key & _FACE_BITS)]
            w = surface_weights(
                screen[view, f[0]], screen[view, f[1]], screen[view, f[2]], float(j) + 0.5, float(i) + 0.5
            )
            p = w[0] * vertices[frame, f[0]] + w[1] * vertices[frame, f[1]] + w[2] * vertices[frame, f[2]]
            n = wp.normalize(w[0] * normals[frame, f[0]] + w[1] * normals[frame, f[1]] + w[2] * normals[frame, f[2]])
            shine = mirrored_emitters(lamps, frame, p, n, wp.normalize(eye[view] - p))
            for colour in range(out.shape[0]):
                through = 0.92 * out[colour, view, i, j]
                out[colour, view, i, j] = through + 0.08 * lamps.ambient[frame] + gloss * shine


@wp.func
def end_of_surface(surface: Surface, view: int, face: int, x: float, y: float, dx: float, dy: float):
    """How far from (x, y), in steps of (dx, dy), the surface that `face` belongs to turns away; 2 if beyond a step.

    Walks from face to face over shared edges until the next one is missing or is seen from behind.
    """
    k = int(face)
    came_from = int(-1)
    reached = float(0.0)
    steps = int(0)
    while steps < 8:
        f = surface.faces[k]
        a = surface.screen[view, f[0]]
        b = surface.screen[view, f[1]]
        c = surface.screen[view, f[2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area >= 0.0 or a[2] <= 0.0 or b[2] <= 0.0 or c[2] <= 0.0:
            return reached
        w = corner_weights(a, b, c, x, y)
        slope_b = (dx * (c[1] - a[1]) - dy * (c[0] - a[0])) / area
        slope_c = (dy * (b[0] - a[0]) - dx * (b[1] - a[1])) / area
        slope_a = -slope_b - slope_c
        leave = float(2.0)
        edge = int(0)
        if slope_a < 0.0 and -w[0] / slope_a < leave:
            leave = -w[0] / slope_a
            edge = 0
        if slope_b < 0.0 and -w[1] / slope_b < leave:
            leave = -w[1] / slope_b
            edge = 1
        if slope_c < 0.0 and -w[2] / slope_c < leave:
            leave = -w[2] / slope_c
            edge = 2
        if leave >= 1.0:
            return 2.0
        reached = wp.max(reached, leave)
        following = surface.across[k][edge]
        if following < 0 or following == came_from:
            return reached
        came_from = k
        k = following
        steps = steps + 1
    return 2.0


@wp.kernel
def soften_edges(
    keys: wp.array3d(dtype=wp.int64),
    surface: Surface,
    gap: float,
    sharp: wp.array4d(dtype=float),
    out: wp.array4d(dtype=float),
):
    """Anti-aliasing: where a surface ends between two pixels' middles, the one it ends in gets a share of both.

    The end is found on the mesh, so the share is the true coverage along the line that joins the two pixels.
    """
    view, i, run = wp.tid()
    bottom = keys.shape[1] - 1
    right = keys.shape[2] - 1
    for j in range(run * RUN, wp.min(run * RUN + RUN, right + 1)):
        own = keys[view, i, j]
        up = keys[view, wp.max(i - 1, 0), j]
        down = keys[view, wp.min(i + 1, bottom), j]
        before = keys[view, i, wp.max(j - 1, 0)]
        after = keys[view, i, wp.min(j + 1, right)]
        share = wp.vec4(0.0, 0.0, 0.0, 0.0)  # of the pixels above, below, before and after
        nearest = wp.min(wp.min(up, down), wp.min(before, wp.min(after, own)))
        farthest = wp.max(wp.max(up, down), wp.max(before, wp.max(after, own)))
        d = int(4)
        if nearest != _EMPTY_KEY and float((farthest - nearest) >> wp.int64(31)) > key_gap(nearest, gap):
            d = 0
        while d < 4:  # warp unrolls `for`
            di = int(0)
            dj = int(0)
            other = up
            if d == 0:
                di = -1
            if d == 1:
                di = 1
                other = down
            if d == 2:
                dj = -1
                other = before
            if d == 3:
                dj = 1
                other = after
            near = wp.min(own, other)  # of the nearer, since keys sort by depth
            if wp.abs(float((own >> wp.int64(31)) - (other >> wp.int64(31)))) > key_gap(near, gap):
                sign = float(1.0)
                x = float(j) + 0.5
                y = float(i) + 0.5
                if other < own:
                    sign = -1.0
                    x = x + float(dj)
                    y = y + float(di)
                end = end_of_surface(surface, view, int(near & _FACE_BITS), x, y, sign * float(dj), sign * float(di))
                if end < 1.0:
                    share[d] = wp.max((0.5 - end) * sign, 0.0)
            d = d + 1
        total = wp.max(share[0] + share[1] + share[2] + share[3], 1.0)
        for colour in range(out.shape[0]):
            level = sharp[colour, view, i, j]
            change = float(0.0)
            if share[0] > 0.0:
                change = change + share[0] * (sharp[colour, view, i - 1, j] - level)
            if share[1] > 0.0:
                change = change + share[1] * (sharp[colour, view, i + 1, j] - level)
            if share[2] > 0.0:
                change = change + share[2] * (sharp[colour, view, i, j - 1] - level)
            if share[3] > 0.0:
                change = change + share[3] * (sharp[colour, view, i, j + 1] - level)
            out[colour, view, i, j] = level + change / total


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
    step: int,
    out: wp.array3d(dtype=wp.uint8),
):
    """Grey levels: vignetting, gain, saturation at both ends, then `response`: level and noise by clipped light.

    They are read out in multiples of `step`.
    """
    view, i, run = wp.tid()
    width = radiance.shape[2]
    y = (float(i) + 0.5) / float(radiance.shape[1]) * 2.0 - 1.0
    for j in range(run * RUN, wp.min(run * RUN + RUN, width)):
        x = (float(j) + 0.5) / float(width) * 2.0 - 1.0
        fall = 1.0 - vignetting * 0.5 * (x * x + y * y)
        light = wp.clamp(radiance[view, i, j] * fall * exposure[view] - black, 0.0, 1.0)
        row = int(light * float(response.shape[0] - 1))
        level = response[row, 0] + bell(seed[view], i * width + j) * response[row, 1]
        out[view, i, j] = wp.uint8((int(wp.clamp(level + 0.5, 0.0, 255.0)) / step) * step)
