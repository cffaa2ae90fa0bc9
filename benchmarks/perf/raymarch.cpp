// The bound for our march: the same hit lists marched in C++, four colour channels at a time, fast exponential, one thread.
#include <algorithm>
#include <cmath>
#include <cstring>

typedef float vec4 __attribute__((vector_size(16)));

static inline float fast_exp(float x) {  // relative error 2e-5, for x in [-80, 0]
  float two = x * 1.44269504f, whole = std::floor(two), part = two - whole;
  float curve = 1.f + part * (0.6931472f + part * (0.2401597f + part * (0.0558171f + part * (0.0089893f + part * 0.0018768f))));
  int bits = (int(whole) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return curve * power;
}

extern "C" void march(int rays, float step, const int* start, const int* primitive, const float* enter,
                      const float* leave, const float* near, const float* limit, const float* origin,
                      const float* direction, const float* position, const float* rotation, const float* scale,
                      const vec4* slab, vec4* out) {
  const int size = 8, row = size, layer = size * size, voxels = layer * size, most = 4096;
  static thread_local vec4 local[most], slope[most];
  for (int ray = 0; ray < rays; ray++) {
    const int first = start[ray], count = std::min(start[ray + 1] - first, most);
    const float *tn = enter + first, *tf = leave + first, *d = direction + 3 * ray;
    const int* box = primitive + first;
    for (int h = 0; h < count; h++) {
      const float *r = rotation + 9 * box[h], *s = scale + 3 * box[h], *p = position + 3 * box[h];
      for (int k = 0; k < 3; k++) {
        float a = 0, b = 0;
        for (int j = 0; j < 3; j++) a += r[3 * j + k] * (origin[j] - p[j]), b += r[3 * j + k] * d[j];
        local[h][k] = a * s[k], slope[h][k] = b * s[k];
      }
      local[h][3] = slope[h][3] = 0;
    }
    vec4 seen = {0, 0, 0, 0};
    float opacity = 0;
    int low = 0, high = 0;
    int n = count ? std::max(0, int(std::ceil((tn[0] - near[ray]) / step))) : 0;
    while (low < count && opacity < 1) {
      const float t = near[ray] + n * step;
      if (t >= limit[ray]) break;
      while (high < count && tn[high] <= t) high++;
      while (low < high && tf[low] < t) low++;
      if (low == high) {
        if (low < count) n = std::max(n + 1, int(std::ceil((tn[low] - near[ray]) / step)));
        continue;
      }
      for (int h = low; h < high; h++) {
        if (tf[h] < t || opacity >= 1) continue;
        const vec4 y = local[h] + slope[h] * t;
        if (std::fabs(y[0]) >= 1 || std::fabs(y[1]) >= 1 || std::fabs(y[2]) >= 1) continue;
        const vec4 g = (y + 1.f) * 3.5f;
        const int ix = std::min(int(g[0]), 6), iy = std::min(int(g[1]), 6), iz = std::min(int(g[2]), 6);
        const float fx = g[0] - ix, fy = g[1] - iy, fz = g[2] - iz;
        const vec4* v = slab + (size_t)box[h] * voxels + iz * layer + iy * row + ix;
        vec4 a = v[0] + (v[1] - v[0]) * fx, b = v[row] + (v[row + 1] - v[row]) * fx;
        v += layer;
        vec4 c = v[0] + (v[1] - v[0]) * fx, e = v[row] + (v[row + 1] - v[row]) * fx;
        a += (b - a) * fy, c += (e - c) * fy, a += (c - a) * fz;
        vec4 q = y * y;
        q *= q, q *= q;
        float weight = a[3] * fast_exp(-8.f * (q[0] + q[1] + q[2])) * step;
        weight = std::min(weight, 1 - opacity);
        opacity += weight;
        a[3] = 1;
        seen += a * weight;
      }
      n++;
    }
    out[ray] = seen;
  }
}
