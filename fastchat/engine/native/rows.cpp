// What a layer does row by row beside its products: norms, filter taps, the gate, rotation.
#include <algorithm>
#include <cmath>

#include "cache.h"
#include "pool.h"
#include "vectors.h"

namespace fastchat {
namespace {

constexpr int64_t kAlone = 1 << 14;  // values that one thread deals with before others are awake

// Calls use(row) for all rows, on several threads if they hold enough values.
template <class Use>
void for_rows(Pool& pool, int64_t count, int64_t width, const Use& use) {
  if (count * width < kAlone) {
    for (int64_t row = 0; row < count; ++row) use(row);
    return;
  }
  const int64_t step = std::max<int64_t>(1, kAlone / 4 / std::max<int64_t>(1, width));
  pool.run((count + step - 1) / step, [&](int64_t item) {
    const int64_t end = std::min(count, (item + 1) * step);
    for (int64_t row = item * step; row < end; ++row) use(row);
  });
}

void norm_row(const float* x, const float* residual, const float* weight, float eps, int64_t width,
              float* out) {
  Floats squares = {};
  const auto value = [&](int64_t at, int lanes) FASTCHAT_LAMBDA {
    const Floats own = load_some(x + at, lanes);
    return residual ? own + load_some(residual + at, lanes) : own;
  };
  along(width, [&](int64_t at, int lanes) FASTCHAT_LAMBDA {
    const Floats v = value(at, lanes);
    squares = fma(v, v, squares);
  });
  const Floats scale = broadcast(1.0f / std::sqrt(sum(squares) / float(width) + eps));
  along(width, [&](int64_t at, int lanes) FASTCHAT_LAMBDA {
    store_some(out + at, value(at, lanes) * scale * load_some(weight + at, lanes), lanes);
  });
}

}  // namespace
}  // namespace fastchat

using namespace fastchat;

extern "C" {

int fastchat_rms_norm(Pool* pool, const float* x, const float* residual, const float* weight,
                      float eps, int64_t count, int64_t width, float* out) {
  for_rows(*pool, count, width, [&](int64_t row) {
    norm_row(x + row * width, residual ? residual + row * width : nullptr, weight, eps, width,
             out + row * width);
  });
  return 0;
}

int fastchat_filter_pairs(Pool* pool, const float* states, const int32_t* previous,
                          const float* stored, int64_t kept, int64_t count, int64_t width,
                          float* out) {
  for (int64_t row = 0; row < count; ++row)
    if (previous[row] >= count || previous[row] < -1 - kept) return 1;
  for_rows(*pool, count, 2 * width, [&](int64_t row) {
    const int64_t before = previous[row];
    float* to = out + row * 2 * width;
    if (before == -1) std::fill(to, to + width, 0.0f);
    else
      std::copy_n(before >= 0 ? states + before * width : stored + (-2 - before) * width, width, to);
    std::copy_n(states + row * width, width, to + width);
  });
  return 0;
}

int fastchat_silu_mul(Pool* pool, const float* gate_up, int64_t count, int64_t width, float* out) {
  for_rows(*pool, count, 4 * width, [&](int64_t row) {
    const float* gate = gate_up + row * 2 * width;
    along(width, [&](int64_t at, int lanes) FASTCHAT_LAMBDA {
      const Floats g = load_some(gate + at, lanes), u = load_some(gate + width + at, lanes);
      store_some(out + row * width + at, g / (1.0f + exponential(-g)) * u, lanes);
    });
  });
  return 0;
}

int fastchat_rope_store(Pool* pool, float* q, int64_t q_stride, const float* k, int64_t k_stride,
                        const float* v, int64_t v_stride, const int32_t* positions,
                        const float* cos_sin, int64_t known, int64_t count, int64_t heads,
                        int64_t width, int dtype, void* keys, void* values, int64_t blocks,
                        const int64_t* slots) {
  for (int64_t row = 0; row < count; ++row) {
    if (positions[row] < 0 || positions[row] >= known) return 1;
    if (slots[row] < 0 || slots[row] >= blocks * kBlockTokens) return 2;
  }
  const CacheShape shape{heads, width};
  with_cache(dtype, keys, values, shape, [&](auto cache) {
    for_rows(*pool, count, 4 * heads * width, [&](int64_t row) {
      const float* cosines = cos_sin + positions[row] * width;
      const int64_t half = width / 2;
      const float* sines = cosines + half;
      const auto turn = [&](const float* from, float* to) {
        for (int64_t d = 0; d < half; ++d) {
          const float a = from[d], b = from[d + half];
          to[d] = a * cosines[d] - b * sines[d];
          to[d + half] = b * cosines[d] + a * sines[d];
        }
      };
      float turned[kMaxWidth], value[kMaxWidth];
      std::fill(turned + width, turned + shape.padded(), 0.0f);
      std::fill(value + width, value + shape.padded(), 0.0f);
      for (int64_t head = 0; head < heads; ++head) {
        float* own = q + row * q_stride + head * width;
        turn(own, own);
        turn(k + row * k_stride + head * width, turned);
        cache.write_key(slots[row], head, turned);
        std::copy_n(v + row * v_stride + head * width, width, value);
        cache.write_value(slots[row], head, value);
      }
    });
  });
  return 0;
}
}
