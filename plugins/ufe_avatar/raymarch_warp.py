"""Warp kernels of `ufe_avatar.raymarch`, for float32 and float64 alike; gradients are written out.

A ray is o + t d; sample n lies at t = near + n step. A primitive sees the local point y = s * R^T (o + t d - p), which
along a ray is `local + t slope`, and its slab where all |y| < 1. Rays are sorted by image and cell of a grid over each
image's directions, so that what a primitive may cover is a few runs of neighbouring rays.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp

from ufe_avatar import raymarch_native as native
from ufe_avatar.raymarch_native import CHUNK

#: Primitives, and rays, that a thread works through: what a kernel's start costs is shared by as many.
PRIMITIVES = wp.constant(16)
RAYS = wp.constant(32)
#: Rows of cells in a strip. A strip's cells are numbered column by column, so that neighbours above and below are
#: close in memory too, and with them the primitives that they meet.
STRIP = wp.constant(8)
#: Of a step: how far from a primitive a sample may be taken for one inside, which marching then decides.
SLACK = wp.constant(0.001)
#: How many samples ahead the way back fetches voxels, at every second sample.
AHEAD = wp.constant(6)


@cache
def kernels(real: Any) -> SimpleNamespace:
    """The kernels for `wp.float32` or `wp.float64`."""
    vec2, vec3, vec4, vec5 = (wp.types.vector(length=n, dtype=real) for n in (2, 3, 4, 5))
    mat33 = wp.types.matrix(shape=(3, 3), dtype=real)
    zero, one, half = real(0.0), real(1.0), real(0.5)
    far = real(1.0e30)

    @wp.kernel(enable_backward=False, module="unique")
    def add_directions(image: wp.array(dtype=int), direction: wp.array(dtype=vec3), total: wp.array(dtype=vec4)):
        """Sum of the directions of each image's rays, and how many they are."""
        run = wp.tid()
        some = vec4()
        first = run * RAYS
        end = wp.min(first + RAYS, image.shape[0])
        for ray in range(first, end):
            some = some + vec4(direction[ray][0], direction[ray][1], direction[ray][2], one)
            if ray == end - 1 or image[ray + 1] != image[ray]:
                wp.atomic_add(total, image[ray], some)
                some = vec4()

    @wp.func
    def on_plane(seen: vec3, least: real):
        """Where a direction in an image's frame meets the plane at distance 1."""
        depth = wp.max(seen[2], least)
        return vec2(seen[0] / depth, seen[1] / depth)

    @wp.kernel(enable_backward=False, module="unique")
    def bound(
        image: wp.array(dtype=int),
        direction: wp.array(dtype=vec3),
        frame: wp.array(dtype=mat33),
        wide: real,
        least: wp.array(dtype=vec5),
    ):
        """The least of u, v, -u, -v and the depth of each image's rays."""
        run = wp.tid()
        some = vec5(far, far, far, far, far)
        first = run * RAYS
        end = wp.min(first + RAYS, image.shape[0])
        for ray in range(first, end):
            seen = frame[image[ray]] * direction[ray]
            at = on_plane(seen, wide)
            some = wp.min(some, vec5(at[0], at[1], -at[0], -at[1], seen[2]))
            if ray == end - 1 or image[ray + 1] != image[ray]:
                wp.atomic_min(least, image[ray], some)
                some = vec5(far, far, far, far, far)

    @wp.kernel(enable_backward=False, module="unique")
    def number(
        image: wp.array(dtype=int),
        direction: wp.array(dtype=vec3),
        frame: wp.array(dtype=mat33),
        wide: real,
        low: wp.array(dtype=vec2),
        per_unit: wp.array(dtype=vec2),
        sides: wp.array(dtype=int),
        most: int,
        cell: wp.array(dtype=int),
        cells: wp.array(dtype=int),
    ):
        """The cell of each ray, where an image has `most` of them, and how many rays each has, two further on."""
        run = wp.tid()
        for ray in range(run * RAYS, wp.min(run * RAYS + RAYS, image.shape[0])):
            b = image[ray]
            place = wp.cw_mul(on_plane(frame[b] * direction[ray], wide) - low[b], per_unit[b])
            side = sides[b]
            column = wp.clamp(int(place[0]), 0, side - 1)
            row = wp.clamp(int(place[1]), 0, side - 1)
            chosen = b * most + (row // STRIP * side + column) * STRIP + row % STRIP
            cell[ray] = chosen
            wp.atomic_add(cells, chosen + 2, 1)

    @wp.kernel(enable_backward=False, module="unique")
    def arrange(
        image: wp.array(dtype=int),
        direction: wp.array(dtype=vec3),
        near: wp.array(dtype=real),
        limit: wp.array(dtype=real),
        beyond: real,
        cell: wp.array(dtype=int),
        cells: wp.array(dtype=int),
        order: wp.array(dtype=int),
        to_image: wp.array(dtype=int),
        to_direction: wp.array(dtype=vec3),
        to_near: wp.array(dtype=real),
        to_limit: wp.array(dtype=real),
    ):
        """Move the rays to their cells, of which cell c begins at `cells[c + 1]`: afterwards it ends there."""
        run = wp.tid()
        for ray in range(run * RAYS, wp.min(run * RAYS + RAYS, image.shape[0])):
            to = wp.atomic_add(cells, cell[ray] + 1, 1)
            order[to] = ray
            to_image[to] = image[ray]
            to_direction[to] = direction[ray]
            to_near[to] = near[ray]
            to_limit[to] = limit[ray] + beyond

    @wp.func
    def passage(local: vec3, slope: vec3):
        """Entry and exit of a ray into the cube |y| <= 1; entry is not before exit where it misses."""
        enter = real(-1.0e30)
        leave = real(1.0e30)
        for k in range(3):
            if slope[k] == zero:
                if wp.abs(local[k]) >= one:
                    leave = real(-1.0e30)
            else:
                length = one / slope[k]
                a = (-one - local[k]) * length
                b = (one - local[k]) * length
                enter = wp.max(enter, wp.min(a, b))
                leave = wp.min(leave, wp.max(a, b))
        return vec2(enter, leave)

    @wp.func
    def cell_range(
        image: int,
        position: vec3,
        rotation: mat33,
        scale: vec3,
        origin: vec3,
        frame: mat33,
        low: vec2,
        per_unit: vec2,
        side: int,
    ):
        """First and last column and row of the cells that a primitive may cover; all if it is beside or behind."""
        u_low = far
        u_high = -far
        v_low = far
        v_high = -far
        nearest = far
        middle = frame * (position - origin)
        axes = frame * rotation * wp.diag(vec3(one / scale[0], one / scale[1], one / scale[2]))
        for corner in range(8):
            x = wp.where((corner & 1) == 0, one, -one)
            y = wp.where((corner & 2) == 0, one, -one)
            z = wp.where((corner & 4) == 0, one, -one)
            seen = middle + axes * vec3(x, y, z)
            nearest = wp.min(nearest, seen[2])
            nearness = one / wp.max(seen[2], real(1.0e-6))
            u_low = wp.min(u_low, seen[0] * nearness)
            u_high = wp.max(u_high, seen[0] * nearness)
            v_low = wp.min(v_low, seen[1] * nearness)
            v_high = wp.max(v_high, seen[1] * nearness)
        span = wp.vec4i(0, side - 1, 0, side - 1)
        if nearest > real(1.0e-4):
            slack = real(0.01)
            last = real(side - 1)
            x0 = (u_low - low[0]) * per_unit[0] - slack
            x1 = (u_high - low[0]) * per_unit[0] + slack
            y0 = (v_low - low[1]) * per_unit[1] - slack
            y1 = (v_high - low[1]) * per_unit[1] + slack
            if x1 < zero or y1 < zero or x0 > last + one or y0 > last + one:
                span = wp.vec4i(0, -1, 0, -1)
            else:
                span = wp.vec4i(
                    int(wp.clamp(wp.floor(x0), zero, last)),
                    int(wp.clamp(wp.floor(x1), zero, last)),
                    int(wp.clamp(wp.floor(y0), zero, last)),
                    int(wp.clamp(wp.floor(y1), zero, last)),
                )
        return span

    @wp.kernel(enable_backward=False, module="unique")
    def gather(
        position: wp.array2d(dtype=vec3),
        rotation: wp.array2d(dtype=mat33),
        scale: wp.array2d(dtype=vec3),
        origin: wp.array(dtype=vec3),
        frame: wp.array(dtype=mat33),
        low: wp.array(dtype=vec2),
        per_unit: wp.array(dtype=vec2),
        sides: wp.array(dtype=int),
        cells: wp.array(dtype=int),
        offset: int,
        direction: wp.array(dtype=vec3),
        near: wp.array(dtype=real),
        limit: wp.array(dtype=real),
        step: real,
        cover: wp.array2d(dtype=wp.vec4i),
        start: wp.array(dtype=int),
        count: wp.array(dtype=int),
        filling: int,
        primitive: wp.array(dtype=int),
        span: wp.array(dtype=wp.vec2i),
    ):
        """Count the primitives that each ray meets, or, where `filling`, note them from `start` on.

        With each primitive stand the numbers of its first and last sample; a grazed one may have none. The rays are
        those from `offset` on in the grid. Counting notes the cells that each primitive may cover, none if no ray met
        it, for filling.
        """
        image, run = wp.tid()
        side = sides[image]
        most = (cells.shape[0] - 1) // sides.shape[0]
        end = offset + direction.shape[0]
        if side == 0 or cells[image * most] >= end or cells[image * most + most] <= offset:
            return
        slack = real(SLACK) * step
        o = origin[image]
        view = frame[image]
        for k in range(run * PRIMITIVES, wp.min(run * PRIMITIVES + PRIMITIVES, position.shape[1])):
            p = position[image, k]
            r = rotation[image, k]
            s = scale[image, k]
            area = cover[image, k]
            if filling == 0:
                area = cell_range(image, p, r, s, o, view, low[image], per_unit[image], side)
            turned = wp.diag(s) * wp.transpose(r)
            local = turned * (o - p)
            met = int(0)
            for strip in range(area[2] // STRIP, area[3] // STRIP + 1):
                top = wp.max(area[2] - strip * STRIP, 0)
                bottom = wp.min(area[3] - strip * STRIP, STRIP - 1)
                for column in range(area[0], area[1] + 1):
                    cell = image * most + (strip * side + column) * STRIP
                    last = wp.min(cells[cell + bottom + 1], end) - offset
                    for ray in range(wp.max(cells[cell + top] - offset, 0), last):
                        at = passage(local, turned * direction[ray])
                        if at[0] < at[1] and at[1] > near[ray] and at[0] < limit[ray]:
                            met = met + 1
                            slot = wp.atomic_add(count, ray, 1)
                            if filling > 0:
                                place = start[ray] + slot
                                primitive[place] = k
                                begin = near[ray]
                                enter = wp.max(at[0] - slack, begin)
                                leave = wp.min(at[1] + slack, limit[ray])
                                span[place] = wp.vec2i(
                                    int(wp.ceil((enter - begin) / step)), int(wp.floor((leave - begin) / step))
                                )
            if filling == 0:
                cover[image, k] = wp.where(met > 0, area, wp.vec4i(0, -1, 0, -1))

    @wp.kernel(enable_backward=False, module="unique")
    def sort(start: wp.array(dtype=int), primitive: wp.array(dtype=int), span: wp.array(dtype=wp.vec2i)):
        """Sort each ray's primitives by first sample, then by number."""
        run = wp.tid()
        for ray in range(run * RAYS, wp.min(run * RAYS + RAYS, start.shape[0] - 1)):
            first = start[ray]
            for i in range(first + 1, start[ray + 1]):
                k = primitive[i]
                own = span[i]
                j = int(i)
                while j > first:
                    before = span[j - 1]
                    if before[0] < own[0] or (before[0] == own[0] and primitive[j - 1] < k):
                        break
                    primitive[j] = primitive[j - 1]
                    span[j] = before
                    j = j - 1
                primitive[j] = k
                span[j] = own

    @wp.func
    def inside(y: vec3):
        return wp.abs(y[0]) < one and wp.abs(y[1]) < one and wp.abs(y[2]) < one

    @wp.func_native(native.FADE[real])
    def window(x: real, y: real, z: real) -> real:
        """exp(-8 (x^8 + y^8 + z^8))."""
        ...

    @wp.func
    def fade(y: vec3):
        return window(y[0], y[1], y[2])

    @wp.func
    def fade_slope(y: vec3):
        """Logarithmic derivative of the fade."""
        a = wp.cw_mul(y, y)
        return real(-64.0) * wp.cw_mul(wp.cw_mul(y, a), wp.cw_mul(a, a))

    @wp.func
    def locate(y: vec3, size: wp.vec3i):
        """The voxel before y in each direction, counted from the slab's first, and how far y is to the next."""
        place = wp.cw_mul(y + vec3(one), half * vec3(real(size[0] - 1), real(size[1] - 1), real(size[2] - 1)))
        x = wp.clamp(int(place[0]), 0, size[0] - 2)
        row = wp.clamp(int(place[1]), 0, size[1] - 2)
        layer = wp.clamp(int(place[2]), 0, size[2] - 2)
        return (layer * size[1] + row) * size[0] + x, place - vec3(real(x), real(row), real(layer))

    @wp.func_native(native.VALUE)
    def value(slab: wp.array(dtype=vec4), at: int, row: int, layer: int, fx: real, fy: real, fz: real) -> vec4:
        """Colour and opacity between voxel `at` and its neighbours."""
        ...

    @wp.func_native(native.SPREAD)
    def spread(
        slab: wp.array(dtype=vec4), grad: wp.array(dtype=vec4), at: int, row: int, layer: int, fx: real, fy: real,
        fz: real, towards: vec4,
    ) -> vec3:  # fmt: skip
        """Add to `grad` what the gradient `towards` of a value means for the voxels, and give that of the place."""
        ...

    @wp.func_native(native.FETCH)
    def fetch_voxels(slab: wp.array(dtype=vec4), at: int, row: int, layer: int):
        """Have the CPU load voxel `at` and its neighbours into its cache."""
        ...

    @wp.func
    def fetch(slab: wp.array(dtype=vec4), base: int, y: vec3, size: wp.vec3i):
        """Load what a sample near y will read; elsewhere what is nearest to it."""
        at, _share = locate(y, size)
        fetch_voxels(slab, base + at, size[0], size[0] * size[1])

    @wp.func
    def sample(slab: wp.array(dtype=vec4), base: int, y: vec3, size: wp.vec3i):
        """Trilinear colour and opacity at y; voxel centres of the outer layers lie at -1 and +1."""
        at, share = locate(y, size)
        return value(slab, base + at, size[0], size[0] * size[1], share[0], share[1], share[2])

    @wp.func_native(native.ADD_SAMPLES[real])
    def add_samples(
        slab: wp.array(dtype=vec4), base: int, size: wp.vec3i, local: vec3, slope: vec3, near: real, step: real, n: int,
        first: int, last: int, end: int, opacity: real, seen: wp.fixedarray(dtype=vec4, shape=(CHUNK,)),
    ) -> int:  # fmt: skip
        """Add colour and opacity of a primitive's samples `first` to `last` to `seen`, which begins with sample `n`.

        Returns `end`, or the sample with which these alone saturate a ray of such an opacity: later ones do not count.
        """
        ...

    @wp.func
    def into(rotation: mat33, scale: vec3, v: vec3):
        """A vector in a primitive's axes and half sizes."""
        return wp.cw_mul(scale, wp.transpose(rotation) * v)

    @wp.kernel(enable_backward=False, module="unique")
    def march(
        order: wp.array(dtype=int),
        image: wp.array(dtype=int),
        position: wp.array2d(dtype=vec3),
        rotation: wp.array2d(dtype=mat33),
        scale: wp.array2d(dtype=vec3),
        slab: wp.array(dtype=vec4),
        size: wp.vec3i,
        rank: wp.array(dtype=int),
        origin: wp.array(dtype=vec3),
        direction: wp.array(dtype=vec3),
        near: wp.array(dtype=real),
        step: real,
        start: wp.array(dtype=int),
        primitive: wp.array(dtype=int),
        span: wp.array(dtype=wp.vec2i),
        out: wp.array(dtype=vec4),
        hits: wp.array(dtype=wp.int64),
        last_colour: wp.array(dtype=vec4),
        last: wp.array(dtype=wp.vec2i),
    ):
        """Colour and opacity of each ray, and how many primitives it meets.

        A ray goes on by a chunk of samples, primitive by primitive, as long as that does not saturate it. A ray that
        saturates notes the colour of its last sample and that sample's share in `last_colour`, and its number and the
        primitive's rank in `last`; others note -1.
        """
        run = wp.tid()
        voxels = size[0] * size[1] * size[2]
        seen = wp.zeros(shape=(CHUNK,), dtype=vec4)
        for ray in range(run * RAYS, wp.min(run * RAYS + RAYS, start.shape[0] - 1)):
            first = start[ray]
            stop = start[ray + 1]
            hits[order[ray]] = wp.int64(stop - first)
            last[ray] = wp.vec2i(-1, -1)
            last_colour[ray] = vec4()
            b = image[ray]
            colour = vec3()
            opacity = real(0.0)
            low = int(first)
            high = int(first)
            n = int(0)
            # Primitives from `low` to `high` have begun; those before `low` have ended.
            while low < stop and opacity < one:
                if low == high:
                    n = wp.max(n, span[low][0])
                end = n + CHUNK - 1
                while high < stop and span[high][0] <= end:
                    high = high + 1
                for i in range(CHUNK):
                    seen[i] = vec4()
                for h in range(low, high):
                    begin = wp.max(span[h][0], n)
                    final = wp.min(span[h][1], end)
                    if begin <= final:
                        k = primitive[h]
                        local = into(rotation[b, k], scale[b, k], origin[b] - position[b, k])
                        slope = into(rotation[b, k], scale[b, k], direction[ray])
                        base = (b * position.shape[1] + k) * voxels
                        end = add_samples(
                            slab, base, size, local, slope, near[ray], step, n, begin, final, end, opacity, seen
                        )
                i = int(0)
                while n + i <= end and opacity + seen[i][3] < one:
                    colour = colour + vec3(seen[i][0], seen[i][1], seen[i][2])
                    opacity = opacity + seen[i][3]
                    i = i + 1
                n = n + i
                if n <= end:  # it saturates: only in that step does the order of primitives count
                    t = near[ray] + real(n) * step
                    before = int(-1)
                    while opacity < one:
                        chosen = int(-1)
                        lowest = int(2147483647)
                        for h in range(low, high):
                            if span[h][0] <= n and span[h][1] >= n:
                                place = rank[primitive[h]]
                                if place > before and place < lowest:
                                    lowest = place
                                    chosen = h
                        if chosen < 0:
                            break
                        before = lowest
                        k = primitive[chosen]
                        local = into(rotation[b, k], scale[b, k], origin[b] - position[b, k])
                        slope = into(rotation[b, k], scale[b, k], direction[ray])
                        y = local + slope * t
                        if inside(y):
                            v = sample(slab, (b * position.shape[1] + k) * voxels, y, size)
                            weight = wp.max(v[3], zero) * fade(y) * step
                            if opacity + weight >= one:
                                weight = one - opacity
                                opacity = one
                                last_colour[ray] = vec4(v[0], v[1], v[2], weight)
                                last[ray] = wp.vec2i(n, before)
                            else:
                                opacity = opacity + weight
                            colour = colour + vec3(v[0], v[1], v[2]) * weight
                    n = n + 1
                while low < high and span[low][1] < n:
                    low = low + 1
            out[order[ray]] = vec4(colour[0], colour[1], colour[2], opacity)

    @wp.kernel(enable_backward=False, module="unique")
    def march_backward(
        order: wp.array(dtype=int),
        image: wp.array(dtype=int),
        position: wp.array2d(dtype=vec3),
        rotation: wp.array2d(dtype=mat33),
        scale: wp.array2d(dtype=vec3),
        slab: wp.array(dtype=vec4),
        size: wp.vec3i,
        rank: wp.array(dtype=int),
        origin: wp.array(dtype=vec3),
        direction: wp.array(dtype=vec3),
        near: wp.array(dtype=real),
        step: real,
        start: wp.array(dtype=int),
        primitive: wp.array(dtype=int),
        span: wp.array(dtype=wp.vec2i),
        lane: int,
        lanes: int,
        out_grad: wp.array(dtype=vec4),
        last_colour: wp.array(dtype=vec4),
        last: wp.array(dtype=wp.vec2i),
        position_grad: wp.array2d(dtype=vec3),
        rotation_grad: wp.array2d(dtype=mat33),
        scale_grad: wp.array2d(dtype=vec3),
        slab_grad: wp.array(dtype=vec4),
    ):
        """Gradients of `march`; sample positions and the choice of the saturating sample are constants.

        Given that choice no sample depends on another, so each primitive is followed from its first to its last. Only
        primitives of the `lane` are.
        """
        run = wp.tid()
        row = size[0]
        layer = size[0] * size[1]
        per_unit = half * vec3(real(size[0] - 1), real(size[1] - 1), real(size[2] - 1))
        for ray in range(run * RAYS, wp.min(run * RAYS + RAYS, start.shape[0] - 1)):
            b = image[ray]
            d = direction[ray]
            g = out_grad[order[ray]]
            final = last[ray]
            # What a sample's opacity adds: its colour and opacity, or, once the ray saturates, its colour instead of
            # the last sample's.
            instead = -g[3]
            if final[0] >= 0:
                instead = g[0] * last_colour[ray][0] + g[1] * last_colour[ray][1] + g[2] * last_colour[ray][2]
            for h in range(start[ray], start[ray + 1]):
                k = primitive[h]
                if k % lanes != lane:
                    continue
                r = rotation[b, k]
                s = scale[b, k]
                x = origin[b] - position[b, k]
                local = into(r, s, x)
                slope = into(r, s, d)
                base = (b * position.shape[1] + k) * layer * size[2]
                stop = int(span[h][1])
                if final[0] >= 0 and final[0] <= stop:
                    stop = final[0] - wp.where(rank[k] > final[1], 1, 0)
                local_grad = vec3()
                slope_grad = vec3()
                for n in range(span[h][0], stop + 1):
                    t = near[ray] + real(n) * step
                    y = local + slope * t
                    if inside(y):
                        if n % 2 == 0:
                            later = local + slope * (t + real(AHEAD) * step)
                            fetch(slab, base, later, size)
                            fetch(slab_grad, base, later, size)
                        at, share = locate(y, size)
                        v = value(slab, base + at, row, layer, share[0], share[1], share[2])
                        if v[3] > zero:
                            window = fade(y)
                            weight = v[3] * window * step
                            rate = (g[0] * v[0] + g[1] * v[1] + g[2] * v[2] - instead) * step * window
                            if n == final[0] and rank[k] == final[1]:
                                weight = last_colour[ray][3]
                                rate = zero
                            w = vec4(g[0] * weight, g[1] * weight, g[2] * weight, rate)
                            change = spread(slab, slab_grad, base + at, row, layer, share[0], share[1], share[2], w)
                            y_grad = wp.cw_mul(change, per_unit) + fade_slope(y) * (rate * v[3])
                            local_grad = local_grad + y_grad
                            slope_grad = slope_grad + y_grad * t
                offset = wp.cw_mul(s, local_grad)
                turn = wp.cw_mul(s, slope_grad)
                wp.atomic_add(position_grad, b, k, -(r * offset))
                wp.atomic_add(rotation_grad, b, k, wp.outer(x, offset) + wp.outer(d, turn))
                stretch = wp.cw_mul(local_grad, local) + wp.cw_mul(slope_grad, slope)
                wp.atomic_add(scale_grad, b, k, wp.cw_div(stretch, s))

    return SimpleNamespace(
        vec2=vec2, vec3=vec3, vec4=vec4, vec5=vec5, mat33=mat33, add_directions=add_directions, bound=bound,
        number=number, arrange=arrange, gather=gather, sort=sort, march=march, march_backward=march_backward,
    )  # fmt: skip
