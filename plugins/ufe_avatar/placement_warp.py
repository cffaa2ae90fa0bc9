"""Warp kernels that make primitives ready: which columns of voxels show what, how deep, and with which colours."""

# mypy: ignore-errors
# Kernels are written in warp's own language.

import warp as wp

wp.set_module_options({"enable_backward": False})

_BEYOND_MM = wp.constant(3.0)  # how far a column's mesh is taken to go on as it slopes
_LEAST_AREA_MM2 = wp.constant(0.05)  # between columns, for them to tell how the mesh slopes
_SEEN_MM = wp.constant(0.2)  # how deep rays are stopped: what a voxel shows lay on the ray before it
_LEAST_COSINE = wp.constant(0.2)
_LOOSE_MM = wp.constant(2.0)  # how far before its primitive a column's mesh may lie; further off it belongs to others
_DEEPER_MM = wp.constant(6.0)  # how far primitives of necks follow the mesh beyond what they hold at rest
_RAISED_MM = wp.constant(0.03)  # slabs begin so much before the mesh: at outlines rays are in it for a short way only
_NECK_RAISED_MM = wp.constant(0.2)  # necks' voxels are further apart: it takes rays more of them to be stopped
_THICK = wp.constant(2.0)  # of the distance of voxels in depth: how far behind the mesh slabs end
_CUBIC = wp.constant(-0.75)  # of the kernel of cubic interpolation


@wp.struct
class Primitives:
    """K primitives of A x A columns, as `Placement` has them; the atlas is `side` texels wide.

    They reach `before_mm` off the mesh and `behind_mm` into the head; steps of texels are at least `least_step_mm`.
    """

    texel: wp.array2d(dtype=wp.vec2)
    known: wp.array2d(dtype=float)
    there: wp.array2d(dtype=float)
    triangles: wp.array3d(dtype=int)
    low: wp.array(dtype=wp.vec2)
    high: wp.array(dtype=wp.vec2)
    middle: wp.array(dtype=wp.vec2)
    shift: wp.array(dtype=float)
    half_depth: wp.array(dtype=float)
    on_neck: wp.array(dtype=wp.bool)
    line: wp.array(dtype=float)
    side: float
    before_mm: float
    behind_mm: float
    least_step_mm: float


@wp.struct
class Planes:
    """Where they are on each of B meshes: [B, K]."""

    centre: wp.array2d(dtype=wp.vec3)
    axes: wp.array2d(dtype=wp.mat33)
    down: wp.array2d(dtype=wp.vec2)
    apart: wp.array2d(dtype=wp.vec2)
    half_size: wp.array2d(dtype=wp.vec3)


@wp.kernel
def face_eye(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    eye: wp.array(dtype=wp.vec3),
    facing: wp.array2d(dtype=wp.bool),
):
    """Which faces of each mesh an eye sees from outside."""
    image, k = wp.tid()
    f = faces[k]
    a = vertices[image, f[0]]
    normal = wp.cross(vertices[image, f[1]] - a, vertices[image, f[2]] - a)
    facing[image, k] = wp.dot(normal, eye[image] - a) > 0.0


@wp.func
def in_plane(planes: Planes, primitives: Primitives, image: int, k: int, p: int):
    """Where a column is in its primitive's plane, mm."""
    across = primitives.line.shape[0]
    half = planes.half_size[image, k]
    return wp.vec2(primitives.line[p % across] * half[0], primitives.line[p / across] * half[1])


@wp.func
def slope_of(along: wp.vec3, across: wp.vec3):
    """How much deeper a surface is by the way right and down, from two steps on it; nothing where it tells nothing."""
    area = along[0] * across[1] - along[1] * across[0]
    if area <= _LEAST_AREA_MM2:
        return wp.vec2(0.0, 0.0)
    right = along[2] * across[1] - along[1] * across[2]
    down = along[0] * across[2] - along[2] * across[0]
    return wp.vec2(right, down) / area


@wp.func
def rise(offsets: wp.array3d(dtype=wp.vec3), image: int, k: int, p: int, across: int, missed: wp.vec2):
    """How much deeper the mesh lies where a column is than at its point, `missed` mm from there.

    Points of neighbouring columns tell how it slopes.
    """
    row = p / across
    column = p % across
    left = wp.max(column - 1, 0)
    right = wp.min(column + 1, across - 1)
    above = wp.max(row - 1, 0)
    below = wp.min(row + 1, across - 1)
    first = row * across
    along = (offsets[image, k, first + right] - offsets[image, k, first + left]) / float(right - left)
    down = offsets[image, k, below * across + column] - offsets[image, k, above * across + column]
    slope = slope_of(along, down / float(below - above))
    return wp.clamp(wp.dot(slope, missed), -_BEYOND_MM, _BEYOND_MM)


@wp.kernel
def place(
    points: wp.array3d(dtype=wp.vec3),
    eye: wp.array(dtype=wp.vec3),
    face_seen: wp.array2d(dtype=wp.bool),
    planes: Planes,
    primitives: Primitives,
    offsets: wp.array3d(dtype=wp.vec3),
    heights: wp.array3d(dtype=float),
    places: wp.array3d(dtype=wp.vec2),
    shell: wp.array4d(dtype=float),
    reach: wp.array2d(dtype=wp.vec2),
    facing: wp.array2d(dtype=wp.bool),
):
    """What `Placed` says of one primitive, from the points of the mesh at its columns [B, K, A * A].

    `reach` is between which depths it lies: as at rest, and on the neck where columns lie.
    """
    image, k = wp.tid()
    across = primitives.line.shape[0]
    count = across * across
    centre = planes.centre[image, k]
    axes = planes.axes[image, k]
    to_plane = wp.transpose(axes)
    for p in range(count):
        offsets[image, k, p] = to_plane * (points[image, k, p] - centre)

    towards = to_plane * wp.normalize(eye[image] - centre)
    depth = wp.max(-towards[2], _LEAST_COSINE)
    before = wp.vec2(towards[0], towards[1]) * (_SEEN_MM / depth)
    step_down = wp.max(planes.down[image, k][1], primitives.least_step_mm)
    step_right = wp.max(planes.apart[image, k][0], primitives.least_step_mm)
    skew = planes.down[image, k][0]
    low = primitives.low[k]
    high = primitives.high[k]
    shift = primitives.shift[k]
    half = primitives.half_depth[k]
    first = shift - half
    last = shift + half
    nearest = first
    farthest = last
    for p in range(count):
        offset = offsets[image, k, p]
        missed = in_plane(planes, primitives, image, k, p) - wp.vec2(offset[0], offset[1])
        moved = missed + before
        rows = moved[1] / step_down
        columns = (moved[0] - rows * skew) / step_right
        known = primitives.known[k, p]
        texel = primitives.texel[k, p] + known * wp.vec2(columns, rows)
        at = primitives.middle[k] + wp.max(wp.min(texel, high), low)
        place_ = wp.vec2(2.0 * at[0] / primitives.side - 1.0, 2.0 * at[1] / primitives.side - 1.0)
        if not (wp.isfinite(place_[0]) and wp.isfinite(place_[1])):
            place_ = wp.vec2(0.0, 0.0)  # of a mesh that is not finite; images must not be read there
        places[image, k, p] = place_
        height = offset[2] + rise(offsets, image, k, p, across, missed)
        heights[image, k, p] = height
        if primitives.on_neck[k] and known > 0.0 and wp.abs(height - shift) < half + _DEEPER_MM:
            nearest = wp.min(nearest, height - 0.5 * primitives.before_mm)
            farthest = wp.max(farthest, height + primitives.behind_mm)
    reach[image, k] = wp.vec2(nearest, farthest)

    layers = shell.shape[2]
    spacing = (farthest - nearest) / float(layers - 1)
    raised = float(_RAISED_MM)
    if primitives.on_neck[k]:
        raised = _NECK_RAISED_MM
    any_seen = bool(False)
    for p in range(count):
        seen = bool(False)
        for corner in range(4):
            seen = seen or face_seen[image, primitives.triangles[k, p, corner]]
        any_seen = any_seen or seen
        height = heights[image, k, p]
        shown = seen and height > nearest - _LOOSE_MM
        there = primitives.there[k, p]
        for layer in range(layers):
            behind = (nearest + spacing * float(layer) - height + raised) / spacing
            inside = wp.clamp(wp.min(behind, _THICK - behind), -1.0, 1.0)
            if not shown:
                inside = wp.min(inside, 0.0)
            shell[image, k, layer, p] = inside * there
    facing[image, k] = any_seen


@wp.func
def cubic(x: float):
    """Weights of the four texels around a place that is `x` beyond the second."""
    far = 1.0 + x
    back = 2.0 - x
    left = 1.0 - x
    return wp.vec4(
        ((_CUBIC * far - 5.0 * _CUBIC) * far + 8.0 * _CUBIC) * far - 4.0 * _CUBIC,
        ((_CUBIC + 2.0) * x - (_CUBIC + 3.0)) * x * x + 1.0,
        ((_CUBIC + 2.0) * left - (_CUBIC + 3.0)) * left * left + 1.0,
        ((_CUBIC * back - 5.0 * _CUBIC) * back + 8.0 * _CUBIC) * back - 4.0 * _CUBIC,
    )


@wp.func
def sampled(texture: wp.array4d(dtype=float), image: int, at: wp.vec2):
    """The texture's colour at a place in -1..1, cubic, the border going on beyond the border."""
    height = texture.shape[2]
    width = texture.shape[3]
    x = ((at[0] + 1.0) * float(width) - 1.0) / 2.0
    y = ((at[1] + 1.0) * float(height) - 1.0) / 2.0
    column = int(wp.floor(x))
    row = int(wp.floor(y))
    across = cubic(x - float(column))
    down = cubic(y - float(row))
    total = wp.vec3(0.0, 0.0, 0.0)
    for i in range(4):
        r = wp.clamp(row + i - 1, 0, height - 1)
        line = wp.vec3(0.0, 0.0, 0.0)
        for j in range(4):
            c = wp.clamp(column + j - 1, 0, width - 1)
            line = line + across[j] * wp.vec3(texture[image, 0, r, c], texture[image, 1, r, c], texture[image, 2, r, c])
        total = total + down[i] * line
    return total


@wp.func
def voxel(
    colour: wp.array4d(dtype=float), opacity: wp.array4d(dtype=float), image: int, layer: int, row: int, column: int
):
    """What the decoders say of a texel at a depth: colour, opacity."""
    return wp.vec4(
        colour[image, 3 * layer, row, column],
        colour[image, 3 * layer + 1, row, column],
        colour[image, 3 * layer + 2, row, column],
        opacity[image, layer, row, column],
    )


@wp.kernel
def fill(
    colour: wp.array4d(dtype=float),
    opacity: wp.array4d(dtype=float),
    texture: wp.array4d(dtype=float),
    cells: wp.array2d(dtype=wp.int64),
    places: wp.array3d(dtype=wp.vec2),
    shell: wp.array4d(dtype=float),
    across: int,
    slabs: wp.array4d(dtype=wp.vec4),
):
    """Slabs [B, N, S, A * A] of colour and opacity, from images of the decoders, whose cells have S x S texels."""
    image, n = wp.tid()
    layers = slabs.shape[2]
    grid = opacity.shape[3] / layers
    cell = int(cells[image, n])
    top = (cell / grid) * layers
    left = (cell % grid) * layers
    step = float(layers - 1) / float(across - 1)
    for p in range(across * across):
        shown = sampled(texture, image, places[image, n, p])
        y = float(p / across) * step
        x = float(p % across) * step
        row = wp.min(int(y), layers - 2)
        column = wp.min(int(x), layers - 2)
        fy = y - float(row)
        fx = x - float(column)
        for layer in range(layers):
            i = top + row
            j = left + column
            upper = voxel(colour, opacity, image, layer, i, j) * (1.0 - fx)
            upper = upper + voxel(colour, opacity, image, layer, i, j + 1) * fx
            lower = voxel(colour, opacity, image, layer, i + 1, j) * (1.0 - fx)
            lower = lower + voxel(colour, opacity, image, layer, i + 1, j + 1) * fx
            fine = upper * (1.0 - fy) + lower * fy
            slabs[image, n, layer, p] = wp.vec4(
                wp.max(fine[0] + shown[0], 0.0),
                wp.max(fine[1] + shown[1], 0.0),
                wp.max(fine[2] + shown[2], 0.0),
                fine[3] * shell[image, n, layer, p],
            )
