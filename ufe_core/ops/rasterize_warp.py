"""Warp kernels of `ufe_core.ops.rasterize`; gradients are written out, warp's own adjoint is not used."""

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.func
def corner_weights(a: wp.vec3, b: wp.vec3, c: wp.vec3, x: float, y: float):
    """Screen-space barycentric weights of the corners at pixel position (x, y)."""
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    wb = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
    wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
    return wp.vec3(1.0 - wb - wc, wb, wc)


@wp.func
def perspective(w: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Weights that interpolate linearly in space, from weights that do so on the screen."""
    p = wp.vec3(w[0] / a[2], w[1] / b[2], w[2] / c[2])
    return p / (p[0] + p[1] + p[2])


#: Faces that a thread works through: what a kernel's start costs is shared by as many.
RUN = wp.constant(16)

# Keys hold nearness, which is linear on the screen: no division at a pixel.
_NEAREST = wp.constant(0.34)
_TICKS = wp.constant(float(2**31 - 256) / 0.34)


@wp.func
def depth_key(inverse: float, face: int):
    """Key of a face at inverse depth `inverse` (1/mm)."""
    return (wp.int64(wp.uint32((_NEAREST - inverse) * _TICKS)) << wp.int64(31)) | wp.int64(face)


@wp.func
def key_gap(key: wp.int64, gap: float):
    """How far two keys' upper parts are apart where depths differ by `gap` (mm) at the depth of `key`."""
    inverse = _NEAREST - float(key >> wp.int64(31)) / _TICKS
    return gap * inverse * inverse * _TICKS


@wp.kernel
def depth_test(
    screen: wp.array2d(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    near: float,
    cull: int,
    depth: wp.array3d(dtype=wp.int64),
):
    view, run = wp.tid()
    height = depth.shape[1]
    width = depth.shape[2]
    for k in range(run * RUN, wp.min(run * RUN + RUN, faces.shape[0])):
        f = faces[k]
        a = screen[view, f[0]]
        b = screen[view, f[1]]
        c = screen[view, f[2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0.0 or (cull > 0 and area > 0.0) or a[2] < near or b[2] < near or c[2] < near:
            continue
        x_low = wp.min(a[0], wp.min(b[0], c[0]))
        x_high = wp.max(a[0], wp.max(b[0], c[0]))
        y_low = wp.min(a[1], wp.min(b[1], c[1]))
        y_high = wp.max(a[1], wp.max(b[1], c[1]))
        if x_high < 0.5 or y_high < 0.5 or x_low > float(width) or y_low > float(height):
            continue
        x0 = wp.max(int(wp.ceil(x_low - 0.5)), 0)
        x1 = wp.min(int(wp.floor(x_high - 0.5)), width - 1)
        y0 = wp.max(int(wp.ceil(y_low - 0.5)), 0)
        y1 = wp.min(int(wp.floor(y_high - 0.5)), height - 1)
        inverse_a = 1.0 / a[2]
        slope_b = 1.0 / b[2] - inverse_a
        slope_c = 1.0 / c[2] - inverse_a
        wb_dx = (c[1] - a[1]) / area
        wc_dx = -(b[1] - a[1]) / area
        for y in range(y0, y1 + 1):
            w = corner_weights(a, b, c, float(x0) + 0.5, float(y) + 0.5)
            wb = w[1]
            wc = w[2]
            entered = int(0)
            for x in range(x0, x1 + 1):
                if wb >= 0.0 and wc >= 0.0 and wb + wc <= 1.0:
                    entered = 1
                    key = depth_key(inverse_a + wb * slope_b + wc * slope_c, k)
                    if key < depth[view, y, x]:
                        wp.atomic_min(depth, view, y, x, key)
                elif entered > 0:
                    break  # a face is convex: its row has ended
                wb = wb + wb_dx
                wc = wc + wc_dx


@wp.kernel
def interpolate(
    screen: wp.array2d(dtype=wp.vec3),
    attributes: wp.array3d(dtype=float),
    faces: wp.array(dtype=wp.vec3i),
    attribute_faces: wp.array(dtype=wp.vec3i),
    ids: wp.array3d(dtype=int),
    out: wp.array4d(dtype=float),
):
    view, i, j = wp.tid()
    k = ids[view, i, j]
    if k < 0:
        return
    f = faces[k]
    a = screen[view, f[0]]
    b = screen[view, f[1]]
    c = screen[view, f[2]]
    w = perspective(corner_weights(a, b, c, float(j) + 0.5, float(i) + 0.5), a, b, c)
    t = attribute_faces[k]
    row = wp.min(view, attributes.shape[0] - 1)
    for n in range(attributes.shape[2]):
        out[view, i, j, n] = (
            w[0] * attributes[row, t[0], n] + w[1] * attributes[row, t[1], n] + w[2] * attributes[row, t[2], n]
        )


@wp.kernel
def interpolate_backward(
    screen: wp.array2d(dtype=wp.vec3),
    attributes: wp.array3d(dtype=float),
    faces: wp.array(dtype=wp.vec3i),
    attribute_faces: wp.array(dtype=wp.vec3i),
    ids: wp.array3d(dtype=int),
    out_grad: wp.array4d(dtype=float),
    screen_grad: wp.array2d(dtype=wp.vec3),
    attribute_grad: wp.array3d(dtype=float),
):
    view, i, j = wp.tid()
    k = ids[view, i, j]
    if k < 0:
        return
    f = faces[k]
    a = screen[view, f[0]]
    b = screen[view, f[1]]
    c = screen[view, f[2]]
    flat = corner_weights(a, b, c, float(j) + 0.5, float(i) + 0.5)
    w = perspective(flat, a, b, c)
    w_grad = wp.vec3(0.0, 0.0, 0.0)
    t = attribute_faces[k]
    row = wp.min(view, attributes.shape[0] - 1)
    for n in range(attributes.shape[2]):
        g = out_grad[view, i, j, n]
        w_grad = w_grad + g * wp.vec3(attributes[row, t[0], n], attributes[row, t[1], n], attributes[row, t[2], n])
        wp.atomic_add(attribute_grad, row, t[0], n, g * w[0])
        wp.atomic_add(attribute_grad, row, t[1], n, g * w[1])
        wp.atomic_add(attribute_grad, row, t[2], n, g * w[2])
    # w = p / sum(p) with p = flat / depth
    total = flat[0] / a[2] + flat[1] / b[2] + flat[2] / c[2]
    mean = wp.dot(w, w_grad)
    p_grad = (w_grad - wp.vec3(mean, mean, mean)) / total
    flat_grad = wp.vec3(p_grad[0] / a[2], p_grad[1] / b[2], p_grad[2] / c[2])
    # moving corner m by d moves weight n by -flat[m] * gradient(weight n) . d
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    slope_b = wp.vec2(c[1] - a[1], a[0] - c[0]) / area
    slope_c = wp.vec2(a[1] - b[1], b[0] - a[0]) / area
    pull = (flat_grad[1] - flat_grad[0]) * slope_b + (flat_grad[2] - flat_grad[0]) * slope_c
    a_z = -p_grad[0] * flat[0] / (a[2] * a[2])
    b_z = -p_grad[1] * flat[1] / (b[2] * b[2])
    c_z = -p_grad[2] * flat[2] / (c[2] * c[2])
    wp.atomic_add(screen_grad, view, f[0], wp.vec3(-flat[0] * pull[0], -flat[0] * pull[1], a_z))
    wp.atomic_add(screen_grad, view, f[1], wp.vec3(-flat[1] * pull[0], -flat[1] * pull[1], b_z))
    wp.atomic_add(screen_grad, view, f[2], wp.vec3(-flat[2] * pull[0], -flat[2] * pull[1], c_z))
