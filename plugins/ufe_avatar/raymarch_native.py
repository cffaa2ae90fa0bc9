"""What the kernels of `ufe_avatar.raymarch_warp` compute in C++: voxels beside a point, and many samples at once.

`number` is the type of the snippet's arguments, float or double.
"""

import warp as wp

#: Samples that a ray is marched at a time: as many are placed in a primitive at once.
CHUNK = wp.constant(8)

# Written out, because on the CPU warp computes vectors number by number. `pair` holds two neighbours along a row.
_TYPES = """
#if defined(__CUDA_ARCH__)
    typedef wp::vec_t<4, number> four;
    typedef wp::vec_t<8, number> pair;
#else
    typedef number four __attribute__((ext_vector_type(4), aligned(alignof(number))));
    typedef number pair __attribute__((ext_vector_type(8), aligned(alignof(number))));
#endif
"""
_VOXELS = """
    const wp::vec_t<4, number>* from = slab.data + at;
    const pair p00 = *reinterpret_cast<const pair*>(from);
    const pair p01 = *reinterpret_cast<const pair*>(from + row);
    const pair p10 = *reinterpret_cast<const pair*>(from + layer);
    const pair p11 = *reinterpret_cast<const pair*>(from + layer + row);
    const pair p0 = p00 + (p01 - p00) * fy;
    const pair p1 = p10 + (p11 - p10) * fy;
    const pair p = p0 + (p1 - p0) * fz;
"""
FETCH = """
#if !defined(__CUDA_ARCH__)
    __builtin_prefetch(slab.data + at);
    __builtin_prefetch(slab.data + at + row);
    __builtin_prefetch(slab.data + at + layer);
    __builtin_prefetch(slab.data + at + layer + row);
#endif
"""
VALUE = f"""
    typedef decltype(fx) number;
    {_TYPES}
    {_VOXELS}
    wp::vec_t<4, number> value;
    for (int k = 0; k < 4; k++)
        value[k] = p[k] + (p[k + 4] - p[k]) * fx;
    return value;
"""
SPREAD = f"""
    typedef decltype(fx) number;
    {_TYPES}
    {_VOXELS}
    pair g;
    for (int k = 0; k < 4; k++) {{
        g[k] = towards[k] * (number(1) - fx);
        g[k + 4] = towards[k] * fx;
    }}
    const pair g1 = g * fz;
    const pair g0 = g - g1;
    const pair g01 = g0 * fy;
    const pair g11 = g1 * fy;
    wp::vec_t<4, number>* to = grad.data + at;
#if defined(__CUDA_ARCH__)
    const pair shares[4] = {{g0 - g01, g01, g1 - g11, g11}};
    const int places[4] = {{0, row, layer, layer + row}};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++)
            atomicAdd(&to[places[i]].c[0] + k, shares[i][k]);
#else
    *reinterpret_cast<pair*>(to) += g0 - g01;
    *reinterpret_cast<pair*>(to + row) += g01;
    *reinterpret_cast<pair*>(to + layer) += g1 - g11;
    *reinterpret_cast<pair*>(to + layer + row) += g11;
#endif
    const pair near_rise = p01 - p00;
    const pair far_rise = p11 - p10;
    const pair rise = p1 - p0;
    wp::vec_t<3, number> slope;
    for (int k = 0; k < 4; k++)
        slope[0] += towards[k] * (p[k + 4] - p[k]);
    for (int k = 0; k < 8; k++) {{
        slope[1] += g0[k] * near_rise[k] + g1[k] * far_rise[k];
        slope[2] += g[k] * rise[k];
    }}
    return slope;
"""

# exp(-8 (x^8 + y^8 + z^8)) as `window`. In single precision to one part in 4e6, cheaper than the C library's call, and
# in a loop the compiler can take several at once.
_EXPONENTIAL = {
    wp.float64: "const number window = exp(power);",
    wp.float32: """
    const number twos = wp::max(power * 1.44269504f, -126.0f);
    const int whole = (int)(twos - 0.5f);
    const number part = twos - (number)whole;
    number window = part * 0.00015403530f + 0.0013333558f;
    window = part * window + 0.0096181291f;
    window = part * window + 0.055504109f;
    window = part * window + 0.24022651f;
    window = part * window + 0.69314718f;
    window = part * window + 1.0f;
    window *= wp::cast<number>((whole + 127) << 23);
    """,
}
_WINDOW = {
    real: f"""
    const number x2 = x * x, y2 = y * y, z2 = z * z;
    const number x4 = x2 * x2, y4 = y2 * y2, z4 = z2 * z2;
    const number power = number(-8) * (x4 * x4 + y4 * y4 + z4 * z4);
    {exponential}
    """
    for real, exponential in _EXPONENTIAL.items()
}
FADE = {real: f"typedef decltype(x) number; {window} return window;" for real, window in _WINDOW.items()}
ADD_SAMPLES = {
    real: f"""
    typedef decltype(step) number;
    {_TYPES}
    const int row = size[0];
    const int layer = size[0] * size[1];
    const int most[3] = {{size[0] - 2, size[1] - 2, size[2] - 2}};
    int places[{CHUNK}];
    number shares[3][{CHUNK}], lengths[{CHUNK}];
    for (int i = 0; i < {CHUNK}; i++) {{
        const number t = near + number(n + i) * step;
        const number x = local[0] + slope[0] * t;
        const number y = local[1] + slope[1] * t;
        const number z = local[2] + slope[2] * t;
        const number px = (x + 1) * (number(0.5) * number(size[0] - 1));
        const number py = (y + 1) * (number(0.5) * number(size[1] - 1));
        const number pz = (z + 1) * (number(0.5) * number(size[2] - 1));
        const int ix = wp::clamp((int)px, 0, most[0]);
        const int iy = wp::clamp((int)py, 0, most[1]);
        const int iz = wp::clamp((int)pz, 0, most[2]);
        places[i] = iz * layer + iy * row + ix;
        shares[0][i] = px - (number)ix;
        shares[1][i] = py - (number)iy;
        shares[2][i] = pz - (number)iz;
        {window}
        const bool inside = (wp::abs(x) < 1) & (wp::abs(y) < 1) & (wp::abs(z) < 1);
        lengths[i] = inside ? window * step : number(0);
    }}
    for (int i = first - n; i <= last - n; i++) {{
        const int at = base + places[i];
        {FETCH}
    }}
    for (int i = first - n; i <= last - n; i++) {{
        const int at = base + places[i];
        const number fx = shares[0][i], fy = shares[1][i], fz = shares[2][i];
        {_VOXELS}
        four value;
        for (int k = 0; k < 4; k++)
            value[k] = p[k] + (p[k + 4] - p[k]) * fx;
        const number weight = wp::max(value[3], number(0)) * lengths[i];
        value[3] = 1;
        four* sum = reinterpret_cast<four*>(seen.data + i);
        *sum = *sum + value * weight;
        opacity += weight;
        if (opacity >= 1)
            return n + i;
    }}
    return end;
    """
    for real, window in _WINDOW.items()
}
