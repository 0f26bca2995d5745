// out = x W^T with packed W. Each output is summed over the inputs in their order, whatever else is
// computed beside it, so a row has the same bits in every batch.
//
// Up to kTile rows read the packed weights straight into registers; more rows share a panel that
// was unpacked into the first cache.
#include <algorithm>

#include "formats.h"
#include "pool.h"
#include "scratch.h"

namespace fastchat {
namespace {

constexpr int kTile = 6;           // rows whose sums fit into registers beside one panel
constexpr int kBlock = 8;          // chunks of inputs that stay in the first cache
constexpr int kWidth = kBlock * kChunk;
constexpr int kRowBlock = 192;     // rows whose inputs stay in the second cache
constexpr int64_t kItemBytes = 1 << 18;

template <class Format>
constexpr int panels_at_once(int rows) {
  const int fit = rows == 1 ? Format::kWideAlone : rows <= 3 ? 2 : 1;
  return std::min(fit, kPanels);
}

// Rows made ready: [block of inputs][row][kWidth], zero beyond the inputs.
struct Rows {
  const float* values;  // int4: shrunk as its format says
  const float* starts;  // int4: -8 times the sum of each chunk, [row][chunk]
  int64_t count, chunks;

  const float* at(int64_t block, int64_t row) const {
    return values + (block * count + row) * kWidth;
  }
};

template <bool kPartial>
void prepare_row(const float* x, int64_t inputs, int64_t row, const Rows& rows) {
  static constexpr float kShrink[8] = {1.0f,     0x1p-4f,  0x1p-8f,  0x1p-12f,
                                       0x1p-16f, 0x1p-20f, 0x1p-24f, 1.0f};
  for (int64_t chunk = 0; chunk < rows.chunks; ++chunk) {
    float* to = const_cast<float*>(rows.at(chunk / kBlock, row)) + chunk % kBlock * kChunk;
    const int64_t first = chunk * kChunk, kept = std::min<int64_t>(kChunk, inputs - first);
    std::memcpy(to, x + first, kept * sizeof(float));
    std::fill(to + kept, to + kChunk, 0.0f);
    if constexpr (kPartial) {
      Floats total = {};
      for (int k = 0; k < kChunk; k += kLanes) total += loadf(to + k);
      const_cast<float*>(rows.starts)[row * rows.chunks + chunk] = -8.0f * sum(total);
      for (int k = 0; k < kChunk; ++k) to[k] *= kShrink[k % 8];
    }
  }
}

// Sums of `chunks` chunks for kRows rows and kWide panels, straight from the packed weights.
template <class Format, int kRows, int kWide>
FASTCHAT_APART void few_rows(const uint8_t* weights, int chunks, const float* x, const float* starts,
              int64_t start_stride, float* kept, int64_t panel_stride) {
  Sums<kRows, kWide> sums;
  const auto each = [&](auto&& use) FASTCHAT_LAMBDA {
#pragma GCC unroll 4
    for (int p = 0; p < kWide; ++p)
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h)
          use(p, r, h, kept + p * panel_stride + r * kPanel + h * kLanes);
  };
  if constexpr (!Format::kPartial)
    each([&](int p, int r, int h, float* at) FASTCHAT_LAMBDA { sums[p][r][h] = loadf(at); });
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const uint8_t* at = weights + chunk * Format::kBytes * kPanels;
    if constexpr (Format::kPartial)
      each([&](int p, int r, int h, float*) FASTCHAT_LAMBDA {
        sums[p][r][h] = broadcast(starts[r * start_stride + chunk]);
      });
    Format::template multiply<kRows, kWide>(at, x + chunk * kChunk, kWidth, sums);
    if constexpr (Format::kPartial) {
      Floats scales[kWide][2];
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) Format::scales(at + p * Format::kBytes, scales[p]);
      each([&](int p, int r, int h, float* to) FASTCHAT_LAMBDA {
        store(to, fma(sums[p][r][h], scales[p][h], loadf(to)));
      });
    }
  }
  if constexpr (!Format::kPartial)
    each([&](int p, int r, int h, float* at) FASTCHAT_LAMBDA { store(at, sums[p][r][h]); });
}

// The same sums from an unpacked panel.
template <bool kPartial, int kRows>
FASTCHAT_APART void tile(const float* panel, const float* scales, int chunks, const float* x, const float* starts,
          int64_t start_stride, float* kept) {
  Floats sums[kRows][2];
  const int turns = kPartial ? chunks : 1, steps = kPartial ? kChunk : chunks * kChunk;
  for (int turn = 0; turn < turns; ++turn, panel += kChunk * kPanel, x += kChunk) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h)
        sums[r][h] = kPartial ? broadcast(starts[r * start_stride + turn])
                              : loadf(kept + r * kPanel + h * kLanes);
#pragma GCC unroll 4
    for (int k = 0; k < steps; ++k) {
      const Floats first = loadf(panel + k * kPanel), second = loadf(panel + k * kPanel + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Floats factor = broadcast(x[r * kWidth + k]);
        sums[r][0] = fma(factor, first, sums[r][0]);
        sums[r][1] = fma(factor, second, sums[r][1]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        float* to = kept + r * kPanel + h * kLanes;
        if constexpr (kPartial)
          store(to, fma(sums[r][h], loadf(scales + turn * kPanel + h * kLanes), loadf(to)));
        else
          store(to, sums[r][h]);
      }
  }
}

template <class Format>
class Product {
 public:
  Product(const uint8_t* weights, const Layout& layout, const Rows& rows, const float* bias,
          bool add, float* out)
      : weights_(weights), layout_(layout), rows_(rows), bias_(bias), add_(add), out_(out) {}

  // All outputs of one group for rows [begin, end).
  void group(int64_t index, int64_t begin, int64_t end) const {
    thread_local Scratch memory;
    const int64_t rows = end - begin;
    float* kept = memory.floats(rows * kGroup + kWidth * kPanel + kBlock * kPanel);
    float* panel = kept + rows * kGroup;
    std::fill(kept, panel, 0.0f);
    const uint8_t* group = weights_ + index * layout_.group_bytes();
    for (int64_t chunk = 0, block = 0; chunk < rows_.chunks; chunk += kBlock, ++block) {
      const int chunks = static_cast<int>(std::min<int64_t>(kBlock, rows_.chunks - chunk));
      const Place place{group + chunk * layout_.chunk_bytes, chunks, rows_.at(block, begin),
                        rows_.starts + begin * rows_.chunks + chunk};
      switch (rows) {
        case 1: few<1>(place, kept); break;
        case 2: few<2>(place, kept); break;
        case 3: few<3>(place, kept); break;
        case 4: few<4>(place, kept); break;
        case 5: few<5>(place, kept); break;
        case 6: few<6>(place, kept); break;
        default: many(place, rows, kept, panel);
      }
    }
    for (int p = 0; p < kPanels; ++p)
      finish(index * kGroup + p * kPanel, begin, rows, kept + p * rows * kPanel);
  }

 private:
  struct Place {
    const uint8_t* weights;
    int chunks;
    const float* x;
    const float* starts;
  };

  template <int kRows>
  void few(const Place& place, float* kept) const {
    constexpr int kWide = panels_at_once<Format>(kRows);
    for (int p = 0; p < kPanels; p += kWide) {
      few_rows<Format, kRows, kWide>(
          place.weights + p * Format::kBytes, place.chunks, place.x, place.starts, rows_.chunks,
          kept + p * kRows * kPanel, kRows * kPanel);
    }
  }

  void many(const Place& place, int64_t rows, float* kept, float* panel) const {
    float* scales = panel + kWidth * kPanel;
    const int64_t tiles = (rows + kTile - 1) / kTile, least = rows / tiles, longer = rows % tiles;
    for (int p = 0; p < kPanels; ++p) {
      for (int chunk = 0; chunk < place.chunks; ++chunk) {
        const uint8_t* at = place.weights + (chunk * kPanels + p) * Format::kBytes;
        Format::unpack(at, panel + chunk * kChunk * kPanel);
        if constexpr (Format::kPartial) {
          Floats pair[2];
          Format::scales(at, pair);
          store(scales + chunk * kPanel, pair[0]);
          store(scales + chunk * kPanel + kLanes, pair[1]);
        }
      }
      int64_t row = 0;
      for (int64_t index = 0; index < tiles; ++index) {
        const int64_t count = least + (index < longer);
        const float* x = place.x + row * kWidth;
        const float* starts = place.starts + row * rows_.chunks;
        float* to = kept + (p * rows + row) * kPanel;
        const auto run = [&]<int kRows>() {
          tile<Format::kPartial, kRows>(panel, scales, place.chunks, x, starts, rows_.chunks, to);
        };
        switch (count) {
          case 3: run.template operator()<3>(); break;
          case 4: run.template operator()<4>(); break;
          case 5: run.template operator()<5>(); break;
          default: run.template operator()<6>();
        }
        row += count;
      }
    }
  }

  // Writes one panel's columns: times the column's factor, plus the bias, plus what was there.
  void finish(int64_t column, int64_t begin, int64_t rows, const float* kept) const {
    const int64_t width = std::min<int64_t>(kPanel, layout_.outputs - column);
    const float* factors = reinterpret_cast<const float*>(weights_ + layout_.column_offset());
    for (int64_t r = 0; r < rows; ++r) {
      float* to = out_ + (begin + r) * layout_.outputs + column;
      for (int64_t n = 0; n < width; ++n) {
        float value = kept[r * kPanel + n];
        if constexpr (Format::kColumns) value *= factors[column + n];
        if (bias_) value += bias_[column + n];
        to[n] = add_ ? to[n] + value : value;
      }
    }
  }

  const uint8_t* weights_;
  const Layout layout_;
  const Rows rows_;
  const float* bias_;
  const bool add_;
  float* out_;
};

template <class Format>
void multiply(Pool& pool, const uint8_t* weights, int64_t outputs, int64_t inputs, const float* x,
              const int64_t* picked, int64_t count, const float* bias, bool add, float* out) {
  thread_local Scratch memory;
  const Layout layout = Layout::of<Format>(outputs, inputs);
  const int64_t chunks = layout.chunks(), blocks = (chunks + kBlock - 1) / kBlock;
  float* values = memory.floats(count * (blocks * kWidth + chunks));
  const Rows rows{values, values + count * blocks * kWidth, count, chunks};
  const auto prepare = [&](int64_t row) {
    prepare_row<Format::kPartial>(x + (picked ? picked[row] : row) * inputs, inputs, row, rows);
  };
  if (count * inputs < 1 << 14)
    for (int64_t row = 0; row < count; ++row) prepare(row);
  else
    pool.run(count, prepare);

  const Product<Format> product(weights, layout, rows, bias, add, out);
  const int64_t cuts = (count + kRowBlock - 1) / kRowBlock;
  const int64_t fair = std::max<int64_t>(1, layout.groups() / (8 * pool.threads()));
  const int64_t enough = std::max<int64_t>(1, kItemBytes / std::max<int64_t>(1, layout.group_bytes()));
  const int64_t step = std::min(fair, enough), parts = (layout.groups() + step - 1) / step;
  pool.run(cuts * parts, [&](int64_t item) {
    const int64_t cut = item / parts, first = item % parts * step;
    const int64_t last = std::min(first + step, layout.groups());
    for (int64_t group = first; group < last; ++group)
      product.group(group, count * cut / cuts, count * (cut + 1) / cuts);
  });
}

}  // namespace
}  // namespace fastchat

extern "C" int fastchat_matmul(fastchat::Pool* pool, int kind, const uint8_t* weights,
                               int64_t outputs, int64_t inputs, const float* x, int64_t available,
                               const int64_t* rows, int64_t count, const float* bias, int add,
                               float* out) {
  if (rows)
    for (int64_t row = 0; row < count; ++row)
      if (rows[row] < 0 || rows[row] >= available) return 1;
  if (count == 0 || outputs == 0) return 0;
  fastchat::with_format(kind, [&](auto format) {
    fastchat::multiply<decltype(format)>(*pool, weights, outputs, inputs, x, rows, count, bias,
                                         add != 0, out);
  });
  return 0;
}
