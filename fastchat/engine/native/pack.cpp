// Brings weight matrices into the packed layout, group by group: a source row is read once, in
// order, and nothing but the result is held.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>

#include "formats.h"
#include "pool.h"
#include "scratch.h"

namespace fastchat {
namespace {

// Rows of one matrix, which may lie in parts of equally many rows.
struct Source {
  const uint8_t* const* parts;
  int64_t part_rows;
  int dtype;  // 0 float32, 1 bfloat16, 2 float16
  int64_t stride;
  const int64_t* order;
  int64_t outputs, inputs;

  const uint8_t* address(int64_t n) const {
    const int64_t row = order ? order[n] : n;
    return parts[row / part_rows] + row % part_rows * stride * (dtype == 0 ? 4 : 2);
  }

  // Row n as floats, with zeros up to `padded`.
  void read(int64_t n, float* to, int64_t padded) const {
    std::fill(n < outputs ? to + inputs : to, to + padded, 0.0f);
    if (n >= outputs) return;
    const uint8_t* from = address(n);
    const auto* halves = reinterpret_cast<const uint16_t*>(from);
    if (dtype == 0) std::memcpy(to, from, inputs * sizeof(float));
    else if (dtype == 1)
      for (int64_t k = 0; k < inputs; ++k) to[k] = from_bfloat16(halves[k]);
    else
      for (int64_t k = 0; k < inputs; ++k) to[k] = from_float16(halves[k]);
  }

  // Row n of 16-bit numbers as it is.
  void read(int64_t n, uint16_t* to, int64_t padded) const {
    std::fill(n < outputs ? to + inputs : to, to + padded, uint16_t{0});
    if (n < outputs) std::memcpy(to, address(n), inputs * sizeof(uint16_t));
  }
};

// A panel's chunk of floats, [output][input] with `stride` floats between outputs.
struct Block {
  const float* values;
  int64_t stride;
  float at(int n, int k) const { return values[n * stride + k]; }
};

void put(Float32, const Block& from, float*, uint8_t* to) {
  float floats[kChunk * kPanel];
  for (int n = 0; n < kPanel; ++n)
    for (int k = 0; k < kChunk; ++k) floats[k * kPanel + n] = from.at(n, k);
  std::memcpy(to, floats, sizeof floats);
}

void put(BFloat16, const Block& from, float*, uint8_t* to) {
  uint32_t words[kChunk / 2 * kPanel];
  for (int n = 0; n < kPanel; ++n) {
    uint16_t row[kChunk];
    for (int k = 0; k < kChunk; ++k) row[k] = to_bfloat16(from.at(n, k));
    for (int k = 0; k < kChunk; k += 2)
      words[k / 2 * kPanel + n] = row[k] | uint32_t(row[k + 1]) << 16;
  }
  std::memcpy(to, words, sizeof words);
}

// A panel's chunk of bfloat16, which stays as it is: pairs of inputs change places.
void put_pairs(const uint16_t* rows, int64_t stride, uint8_t* to) {
  uint32_t words[kChunk / 2 * kPanel];
  for (int n = 0; n < kPanel; ++n)
    for (int k = 0; k < kChunk; k += 2)
      words[k / 2 * kPanel + n] =
          rows[n * stride + k] | uint32_t(rows[n * stride + k + 1]) << 16;
  std::memcpy(to, words, sizeof words);
}

int nearest(float value, int low, int high) {
  return std::clamp(static_cast<int>(std::nearbyint(value)), low, high);
}

Floats levels(Floats rounded) {
  const Floats low = broadcast(-8.0f), high = broadcast(7.0f);
  return rounded < low ? low : (rounded > high ? high : rounded);
}

void put(Int8, const Block& from, float* factors, uint8_t* to) {
  uint32_t words[kChunk / 4 * kPanel] = {};
  for (int n = 0; n < kPanel; ++n) {
    const float inverse = factors[n] > 0 ? 1 / factors[n] : 0.0f;
    for (int k = 0; k < kChunk; ++k) {
      const auto level = static_cast<uint32_t>(nearest(from.at(n, k) * inverse, -127, 127) + Int8::kBias);
      words[k / 4 * kPanel + n] |= level << Int8::bits(k % 4);
    }
  }
  std::memcpy(to, words, sizeof words);
}

// For each of a vector of outputs, the scale with the least squared error among those near the
// obvious one, which takes the largest weight to -8.
Floats best_scales(const Floats* values) {
  const Floats magic = broadcast(12582912.0f);  // its last place is 1: adding it rounds
  Floats peak = {};
  for (int k = 0; k < kChunk; ++k)
    peak = values[k] * values[k] > peak * peak ? values[k] : peak;
  const Floats reciprocal = peak != 0.0f ? 1.0f / peak : Floats{};
  Floats best = {}, best_gain = {};
  for (int step = -5; step <= 6; ++step) {
    const Floats inverse = (-8.0f + 0.25f * float(step)) * reciprocal;
    Floats cross = {}, square = {};
    for (int k = 0; k < kChunk; ++k) {
      const Floats level = levels(values[k] * inverse + magic - magic);
      cross = fma(level, values[k], cross);
      square = fma(level, level, square);
    }
    // The best scale for these levels is cross / square; it leaves sum(w^2) - cross^2 / square.
    const Floats scale = square > 0.0f ? cross / square : Floats{};
    const Floats gain = cross * scale;
    best = gain > best_gain ? scale : best;
    best_gain = larger(gain, best_gain);
  }
  return best;
}

void put(Int4, const Block& from, float* factors, uint8_t* to) {
  uint16_t scales[kPanel];
  uint32_t words[kChunk / 8 * kPanel] = {};
  const Floats magic = broadcast(12582912.0f);
  for (int half = 0; half < kPanel; half += kLanes) {
    float columns[kChunk][kLanes];
    for (int n = 0; n < kLanes; ++n) {
      const float shrink = factors[half + n] > 0 ? 1 / factors[half + n] : 0.0f;
      for (int k = 0; k < kChunk; ++k) columns[k][n] = from.at(half + n, k) * shrink;
    }
    Floats values[kChunk];
    std::memcpy(values, columns, sizeof values);
    const Floats wanted = best_scales(values);
    Floats inverse;
    for (int n = 0; n < kLanes; ++n) {
      scales[half + n] = to_float16(wanted[n]);
      const float scale = from_float16(scales[half + n]);
      inverse[n] = scale != 0 ? 1 / scale : 0.0f;
    }
    for (int k = 0; k < kChunk; ++k) {
      const Floats level = levels(values[k] * inverse + magic - magic) + float(Int4::kBias);
      const Words place = (Words)__builtin_convertvector(level, Ints) << Int4::bits(k % 8);
      uint32_t* at = words + k / 8 * kPanel + half;
      store(at, load<Words>(at) | place);
    }
  }
  std::memcpy(to, scales, sizeof scales);
  std::memcpy(to + Int4::kScaleBytes, words, sizeof words);
}

// What an output's numbers are divided by: int8's step, or what brings int4's scales near 1.
template <class Format>
float factor(const float* row, int64_t inputs) {
  float peak = 0;
  for (int64_t k = 0; k < inputs; ++k) peak = std::max(peak, std::fabs(row[k]));
  return std::is_same_v<Format, Int8> ? peak / 127 : peak / 8;
}

template <class Format>
void pack_group(const Source& source, const Layout& layout, int64_t group, uint8_t* to) {
  thread_local Scratch memory;
  const int64_t width = layout.chunks() * kChunk + 16;  // off the powers of two, for the caches
  float* rows = memory.floats(kPanel * width);
  float factors[kPanel] = {};
  for (int p = 0; p < kPanels; ++p) {
    const int64_t first = group * kGroup + p * kPanel;
    if (std::is_same_v<Format, BFloat16> && source.dtype == 1) {
      auto* halves = reinterpret_cast<uint16_t*>(rows);
      for (int n = 0; n < kPanel; ++n) source.read(first + n, halves + n * width, width);
      for (int64_t chunk = 0; chunk < layout.chunks(); ++chunk)
        put_pairs(halves + chunk * kChunk, width,
                  to + (group * kPanels + p) * layout.panel_bytes() + chunk * Format::kBytes);
      continue;
    }
    for (int n = 0; n < kPanel; ++n) {
      source.read(first + n, rows + n * width, width);
      if constexpr (Format::kColumns) factors[n] = factor<Format>(rows + n * width, source.inputs);
    }
    for (int64_t chunk = 0; chunk < layout.chunks(); ++chunk)
      put(Format{}, {rows + chunk * kChunk, width}, factors,
          to + (group * kPanels + p) * layout.panel_bytes() + chunk * Format::kBytes);
    if constexpr (Format::kColumns)
      std::memcpy(to + layout.column_offset() + first * sizeof(float), factors, sizeof factors);
  }
}

}  // namespace
}  // namespace fastchat

extern "C" {

// Large pages spare the address translation of a kernel that reads all of some memory. To be asked
// for before it is first touched.
int fastchat_large_pages(uint8_t* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const auto page = uintptr_t{1} << 21, first = (reinterpret_cast<uintptr_t>(data) + page - 1) & -page;
  const auto last = (reinterpret_cast<uintptr_t>(data) + bytes) & -page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
  return 0;  // without them it is slower, no more
}

int64_t fastchat_packed_bytes(int kind, int64_t outputs, int64_t inputs) {
  return fastchat::with_format(kind, [&](auto format) {
    return fastchat::Layout::of<decltype(format)>(outputs, inputs).bytes();
  });
}

int fastchat_pack(fastchat::Pool* pool, int kind, const uint8_t* const* parts, int64_t part_rows,
                  int dtype, int64_t stride, const int64_t* order, int64_t available,
                  int64_t outputs, int64_t inputs, uint8_t* to) {
  using namespace fastchat;
  if (order)
    for (int64_t n = 0; n < outputs; ++n)
      if (order[n] < 0 || order[n] >= available) return 1;
  const Source source{parts, part_rows, dtype, stride, order, outputs, inputs};
  with_format(kind, [&](auto format) {
    using Format = decltype(format);
    const Layout layout = Layout::of<Format>(outputs, inputs);
    fastchat_large_pages(to, layout.bytes());
    pool->run(layout.groups(),
              [&](int64_t group) { pack_group<Format>(source, layout, group, to); });
  });
  return 0;
}
}
