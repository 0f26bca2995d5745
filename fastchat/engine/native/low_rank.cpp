// What LoRA adapters add to a product, each row with its own adapter: as many sums as the adapter
// has ranks, then as many rows of its other matrix, weighted by them.
#include <algorithm>

#include "pool.h"
#include "vectors.h"

namespace fastchat {
namespace {

constexpr int64_t kRows = 16;   // rows that share what they read of `up`
constexpr int64_t kWide = 512;  // outputs of an item

float dot(const float* a, const float* b, int64_t width) {
  Floats sums = {};
  along(width, [&](int64_t at, int lanes) FASTCHAT_LAMBDA {
    sums = fma(load_some(a + at, lanes), load_some(b + at, lanes), sums);
  });
  return sum(sums);
}

// out[begin, end) += sum over ranks of low[rank] * up[rank]. Rank by rank: rows of `up` often lie
// powers of two apart, where several read side by side would push each other out of the cache.
void add_ranks(const float* low, const float* up, int64_t ranks, int64_t outputs, int64_t begin,
               int64_t end, float* out) {
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const Floats factor = broadcast(low[rank]);
    const float* row = up + rank * outputs;
    along(end - begin, [&](int64_t at, int lanes) FASTCHAT_LAMBDA {
      const Floats sum = fma(factor, load_some(row + begin + at, lanes),
                             load_some(out + begin + at, lanes));
      store_some(out + begin + at, sum, lanes);
    });
  }
}

}  // namespace
}  // namespace fastchat

using namespace fastchat;

extern "C" {

// begins: (adapters + 1) the first rank of each; chosen: (count) an adapter's number, or -1.
// An adapter that adds nothing to this matrix may lie beyond those of `begins`.
// low: (count, widest) scratch.
void fastchat_low_rank(Pool* pool, const float* x, int64_t count, int64_t inputs,
                       const float* down, const float* up, int64_t outputs, const int64_t* begins,
                       int64_t adapters, const int64_t* chosen, int64_t widest, float* low,
                       float* out) {
  const auto adds = [&](int64_t row) { return chosen[row] >= 0 && chosen[row] < adapters; };
  pool->run(count, [&](int64_t row) {
    if (!adds(row)) return;
    const int64_t begin = begins[chosen[row]], end = begins[chosen[row] + 1];
    for (int64_t rank = begin; rank < end; ++rank)
      low[row * widest + rank - begin] = dot(x + row * inputs, down + rank * inputs, inputs);
  });
  const int64_t pieces = (outputs + kWide - 1) / kWide;
  pool->run((count + kRows - 1) / kRows * pieces, [&](int64_t item) {
    const int64_t from = item % pieces * kWide, to = std::min(outputs, from + kWide);
    const int64_t first = item / pieces * kRows, last = std::min(count, first + kRows);
    for (int64_t row = first; row < last; ++row) {
      if (!adds(row)) continue;
      const int64_t begin = begins[chosen[row]];
      add_ranks(low + row * widest, up + begin * outputs, begins[chosen[row] + 1] - begin, outputs,
                from, to, out + row * outputs);
    }
  });
}
}
