"""Warp kernel of the dome's textures: what pinhole cameras saw, gathered texel by texel."""

# mypy: ignore-errors
# Kernels are written in warp's own language.

import warp as wp

from ufe_core.ops.rasterize_warp import depth_key, key_gap

wp.set_module_options({"enable_backward": False})

#: Cosine of the viewing angle from which on a camera counts; it counts for what the cosine lies above.
GRAZING = wp.constant(0.2)
_FACE_BITS = wp.constant(wp.int64(0x7FFFFFFF))
_SLACK_MM = wp.constant(1.5)
_SLACK_PX = wp.constant(2.5)


@wp.func
def shows(
    keys: wp.array3d(dtype=wp.int64),
    face_kind: wp.array(dtype=int),
    view: int,
    row: int,
    column: int,
    depth: float,
    slack: float,
    kind: int,
):
    """Whether a bilinear look-up reads a surface of this kind, and it and all pixels around it hold this depth."""
    own = depth_key(1.0 / depth, 0)
    gap = key_gap(own, slack)
    own = own >> wp.int64(31)
    for dr in range(-1, 3):
        for dc in range(-1, 3):
            if wp.abs(float((keys[view, row + dr, column + dc] >> wp.int64(31)) - own)) > gap:
                return False
    for dr in range(2):
        for dc in range(2):
            if face_kind[int(keys[view, row + dr, column + dc] & _FACE_BITS)] != kind:
                return False
    return True


@wp.func
def bilinear(images: wp.array4d(dtype=float), colour: int, view: int, row: int, column: int, fx: float, fy: float):
    top = images[colour, view, row, column] * (1.0 - fx) + images[colour, view, row, column + 1] * fx
    low = images[colour, view, row + 1, column] * (1.0 - fx) + images[colour, view, row + 1, column + 1] * fx
    return top * (1.0 - fy) + low * fy


@wp.func
def cosine_of(texels: wp.array3d(dtype=float), i: int, j: int, eye: wp.vec3):
    """Of the angle at which an eye sees a texel."""
    p = wp.vec3(texels[i, j, 0], texels[i, j, 1], texels[i, j, 2])
    n = wp.normalize(wp.vec3(texels[i, j, 3], texels[i, j, 4], texels[i, j, 5]))
    return wp.dot(n, wp.normalize(eye - p))


@wp.func
def in_camera(texels: wp.array3d(dtype=float), i: int, j: int, rotation: wp.mat33, translation: wp.vec3):
    return rotation * wp.vec3(texels[i, j, 0], texels[i, j, 1], texels[i, j, 2]) + translation


@wp.func
def position(q: wp.vec3, focal: wp.vec2, centre: wp.vec2):
    """Column and row of a point in a camera's coordinates, from the middle of the first pixel."""
    return wp.vec2(focal[0] * q[0] / q[2] + centre[0] - 0.5, focal[1] * q[1] / q[2] + centre[1] - 0.5)


@wp.kernel
def find_views(
    texels: wp.array3d(dtype=float),
    texel_kind: wp.array2d(dtype=int),
    face_kind: wp.array(dtype=int),
    rotation: wp.array(dtype=wp.mat33),
    translation: wp.array(dtype=wp.vec3),
    focal: wp.array(dtype=wp.vec2),
    centre: wp.array(dtype=wp.vec2),
    eye: wp.array(dtype=wp.vec3),
    keys: wp.array3d(dtype=wp.int64),
    views: wp.array2d(dtype=int),
    read: wp.array3d(dtype=wp.bool),
):
    """Which views show a texel, as bits, and which pixels are read for it; `texels` holds its position and normal.

    `texel_kind` is -1 where the layout is bare.
    """
    i, j = wp.tid()
    found = int(0)
    kind = texel_kind[i, j]
    if kind >= 0:
        for view in range(focal.shape[0]):
            cosine = cosine_of(texels, i, j, eye[view])
            q = in_camera(texels, i, j, rotation[view], translation[view])
            if cosine > GRAZING and q[2] > 0.0:
                at = position(q, focal[view], centre[view])
                column = int(wp.floor(at[0]))
                row = int(wp.floor(at[1]))
                inside = column >= 1 and row >= 1 and column < keys.shape[2] - 2 and row < keys.shape[1] - 2
                slope = wp.sqrt(1.0 - cosine * cosine) / cosine
                slack = _SLACK_MM + _SLACK_PX * slope * q[2] / focal[view][1]
                if inside and shows(keys, face_kind, view, row, column, q[2], slack, kind):
                    found = found | (1 << view)
                    for dr in range(2):
                        for dc in range(2):
                            read[view, row + dr, column + dc] = True
    views[i, j] = found


@wp.kernel
def average(
    texels: wp.array3d(dtype=float),
    views: wp.array2d(dtype=int),
    rotation: wp.array(dtype=wp.mat33),
    translation: wp.array(dtype=wp.vec3),
    focal: wp.array(dtype=wp.vec2),
    centre: wp.array(dtype=wp.vec2),
    eye: wp.array(dtype=wp.vec3),
    light: wp.array4d(dtype=float),
    out: wp.array2d(dtype=wp.vec4),
):
    """Sum of weighted colour, and of weights, of each texel."""
    i, j = wp.tid()
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    for view in range(focal.shape[0]):
        if (views[i, j] >> view) & 1:
            q = in_camera(texels, i, j, rotation[view], translation[view])
            at = position(q, focal[view], centre[view])
            column = int(wp.floor(at[0]))
            row = int(wp.floor(at[1]))
            fx = at[0] - float(column)
            fy = at[1] - float(row)
            total = total + (cosine_of(texels, i, j, eye[view]) - GRAZING) * wp.vec4(
                wp.min(bilinear(light, 0, view, row, column, fx, fy), 1.0),
                wp.min(bilinear(light, 1, view, row, column, fx, fy), 1.0),
                wp.min(bilinear(light, 2, view, row, column, fx, fy), 1.0),
                1.0,
            )
    out[i, j] = total
