// out = x W^T with packed W. Each output is summed over the inputs in their order, whatever else is
// computed beside it, so a row has the same bits in every batch.
//
// Up to kTile rows read the packed weights straight into registers; more rows share a panel that
// was unpacked into the first cache. Where weights have few bits, rows are made into 16-bit whole
// numbers too, with a power of two as the step of every chunk: sums within a chunk are exact.
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

// Rows made ready: [block of inputs][row][kWidth], zero beyond the inputs.
template <class Input>
struct Rows {
  Input* values;
  // Of whole numbers, [row][chunk]: the step, and what sums start at to make up for the bias.
  float* steps;
  uint32_t* starts;
  int64_t count, chunks;

  Input* at(int64_t block, int64_t row) const { return values + (block * count + row) * kWidth; }
};

// Whole numbers up to 2^15 times a step; a step that is no number if an input is none.
template <int kBias>
void round_chunk(const float* x, int16_t* to, float& step, uint32_t& start) {
  Ints largest = {};
  for (int k = 0; k < kChunk; k += kLanes) {
    const Ints bits = (Ints)loadf(x + k) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  int32_t top = 0;
  for (int lane = 0; lane < kLanes; ++lane) top = std::max(top, int32_t(largest[lane]));
  const int32_t exponent = std::max(top >> 23, 27);  // smaller ones lose their last bits
  const bool finite = exponent < 255;
  step = finite ? to_float(uint32_t(exponent - 14) << 23) : to_float(0x7fc00000u);
  const Floats grow = broadcast(finite ? to_float(uint32_t(268 - exponent) << 23) : 0.0f);
  const Floats magic = broadcast(12582912.0f);  // its last place is 1: adding it rounds
  const Floats most = broadcast(32767.0f);
  Ints total = {};
  for (int k = 0; k < kChunk; k += kLanes) {
    const Floats grown = loadf(x + k) * grow;
    const Ints whole = (Ints)((grown < most ? grown : most) + magic) - 0x4b400000;
    total += whole;
    store(to + k, __builtin_convertvector(whole, Signed16));
  }
  int32_t sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += total[lane];
  start = static_cast<uint32_t>(-kBias * sum);
}

template <class Format>
void prepare_row(const float* x, int64_t inputs, int64_t row,
                 const Rows<typename Format::Input>& rows) {
  for (int64_t chunk = 0; chunk < rows.chunks; ++chunk) {
    auto* to = rows.at(chunk / kBlock, row) + chunk % kBlock * kChunk;
    const int64_t first = chunk * kChunk, kept = std::min<int64_t>(kChunk, inputs - first);
    float padded[kChunk] = {};
    std::memcpy(padded, x + first, kept * sizeof(float));
    if constexpr (kWhole<Format>) {
      const int64_t place = row * rows.chunks + chunk;
      round_chunk<Format::kBias>(padded, to, rows.steps[place], rows.starts[place]);
    } else {
      std::memcpy(to, padded, sizeof padded);
    }
  }
}

template <int kRows, int kWide, class Use>
FASTCHAT_INLINE void for_sums(const Use& use) {
#pragma GCC unroll 4
  for (int p = 0; p < kWide; ++p)
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) use(p, r, h);
}

// Some chunks of some rows, and where their weights and sums lie.
template <class Input>
struct Place {
  const uint8_t* weights;
  int64_t panel_bytes;
  int chunks;
  const Input* x;
  const float* steps;
  const uint32_t* starts;
  int64_t step_stride;
  float* kept;
  int64_t kept_stride;  // from a panel to the next
};

// Sums of chunks for kRows rows and kWide panels, straight from the packed weights.
template <class Format, int kRows, int kWide>
FASTCHAT_APART void few_rows(const Place<typename Format::Input>& given) {
  const auto place = given;
  const auto kept = [&](int p, int r, int h) FASTCHAT_LAMBDA {
    return place.kept + p * place.kept_stride + r * kPanel + h * kLanes;
  };
  if constexpr (kWhole<Format>) {
    for (int chunk = 0; chunk < place.chunks; ++chunk) {
      const uint8_t* at = place.weights + chunk * Format::kBytes;
      Sums<Words, kRows, kWide> sums;
      for_sums<kRows, kWide>([&](int p, int r, int h) FASTCHAT_LAMBDA {
        sums[p][r][h] = Words{} + place.starts[r * place.step_stride + chunk];
      });
      Format::template multiply<kRows, kWide>(at, place.panel_bytes, place.x + chunk * kChunk,
                                              kWidth, sums);
      for_sums<kRows, kWide>([&](int p, int r, int h) FASTCHAT_LAMBDA {
        const float step = place.steps[r * place.step_stride + chunk];
        const Floats scale = Format::scales(at + p * place.panel_bytes, h, step);
        const Floats found = __builtin_convertvector((Ints)sums[p][r][h], Floats);
        store(kept(p, r, h), fma(found, scale, loadf(kept(p, r, h))));
      });
    }
  } else {
    Sums<Floats, kRows, kWide> sums;
    for_sums<kRows, kWide>([&](int p, int r, int h) FASTCHAT_LAMBDA {
      sums[p][r][h] = loadf(kept(p, r, h));
    });
    for (int chunk = 0; chunk < place.chunks; ++chunk)
      Format::template multiply<kRows, kWide>(place.weights + chunk * Format::kBytes,
                                              place.panel_bytes, place.x + chunk * kChunk, kWidth,
                                              sums);
    for_sums<kRows, kWide>([&](int p, int r, int h) FASTCHAT_LAMBDA {
      store(kept(p, r, h), sums[p][r][h]);
    });
  }
}

// The same sums from one unpacked panel.
template <class Format, int kRows>
FASTCHAT_APART void tile(const float* panel, const Place<float>& given) {
  const auto place = given;
  Floats sums[kRows][2];
  for_sums<kRows, 1>([&](int, int r, int h) FASTCHAT_LAMBDA {
    sums[r][h] = loadf(place.kept + r * kPanel + h * kLanes);
  });
#pragma GCC unroll 4
  for (int k = 0; k < place.chunks * kChunk; ++k) {
    const Floats first = loadf(panel + k * kPanel), second = loadf(panel + k * kPanel + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Floats factor = broadcast(place.x[r * kWidth + k]);
      sums[r][0] = fma(factor, first, sums[r][0]);
      sums[r][1] = fma(factor, second, sums[r][1]);
    }
  }
  for_sums<kRows, 1>([&](int, int r, int h) FASTCHAT_LAMBDA {
    store(place.kept + r * kPanel + h * kLanes, sums[r][h]);
  });
}

template <class Format, int kRows>
FASTCHAT_APART void tile(const int16_t* panel, const Place<int16_t>& given) {
  const auto place = given;
  for (int chunk = 0; chunk < place.chunks; ++chunk, panel += kChunk * kPanel) {
    Words sums[kRows][2] = {};
    const int16_t* x = place.x + chunk * kChunk;
#pragma GCC unroll 4
    for (int k = 0; k < kChunk; k += 2)
      add_pairs<kRows>(load<Words>(panel + k * kPanel), load<Words>(panel + k * kPanel + kPanel),
                       x + k, kWidth, sums);
    const uint8_t* at = place.weights + chunk * Format::kBytes;
    for_sums<kRows, 1>([&](int, int r, int h) FASTCHAT_LAMBDA {
      const Floats scale = Format::scales(at, h, place.steps[r * place.step_stride + chunk]);
      float* to = place.kept + r * kPanel + h * kLanes;
      store(to, fma(__builtin_convertvector((Ints)sums[r][h], Floats), scale, loadf(to)));
    });
  }
}

// Calls use.operator()<kRows>() with a number of rows from 1 to kTile.
template <class Use>
void with_rows(int64_t rows, const Use& use) {
  switch (rows) {
    case 1: return use.template operator()<1>();
    case 2: return use.template operator()<2>();
    case 3: return use.template operator()<3>();
    case 4: return use.template operator()<4>();
    case 5: return use.template operator()<5>();
    default: return use.template operator()<kTile>();
  }
}

template <class Format>
class Product {
  using Input = typename Format::Input;

 public:
  Product(const uint8_t* weights, const Layout& layout, const Rows<Input>& rows, const float* bias,
          bool add, float* out)
      : weights_(weights), layout_(layout), rows_(rows), bias_(bias), add_(add), out_(out) {}

  // All rows, at most kTile, for panels [first, last): one stream of memory for one row.
  void few(int64_t first, int64_t last) const {
    const uint8_t* start = weights_ + first * layout_.panel_bytes();
    for (int64_t byte = 0; byte < std::min((last - first) * layout_.panel_bytes(), kAhead); byte += 64)
      prefetch(start + byte);
    with_rows(rows_.count, [&]<int kRows>() {
      constexpr int kWide = kRows == 1 ? 1 : kRows <= 3 ? 2 : 1;
      float kept[kWide * kRows * kPanel];
      for (int64_t panel = first; panel < last; panel += kWide) {
        std::fill(kept, kept + kWide * kRows * kPanel, 0.0f);
        for (int64_t chunk = 0; chunk < rows_.chunks; chunk += kBlock)
          few_rows<Format, kRows, kWide>(place(panel, chunk, 0, kept, kRows * kPanel));
        for (int p = 0; p < kWide; ++p) finish(panel + p, 0, kRows, kept + p * kRows * kPanel);
      }
    });
  }

  // All outputs of one group for rows [begin, end), more than kTile.
  void many(int64_t group, int64_t begin, int64_t end) const {
    thread_local Scratch memory;
    const int64_t rows = end - begin;
    float* kept = memory.floats(rows * kGroup + kWidth * kPanel);
    auto* unpacked = reinterpret_cast<Input*>(kept + rows * kGroup);
    std::fill(kept, kept + rows * kGroup, 0.0f);
    const int64_t tiles = (rows + kTile - 1) / kTile, least = rows / tiles, longer = rows % tiles;
    for (int64_t chunk = 0; chunk < rows_.chunks; chunk += kBlock)
      for (int p = 0; p < kPanels; ++p) {
        auto at = place(group * kPanels + p, chunk, begin, kept + p * rows * kPanel, 0);
        for (int c = 0; c < at.chunks; ++c)
          Format::unpack(at.weights + c * Format::kBytes, unpacked + c * kChunk * kPanel);
        for (int64_t index = 0; index < tiles; ++index) {
          const int64_t count = least + (index < longer);
          with_rows(count, [&]<int kRows>() { tile<Format, kRows>(unpacked, at); });
          at.x += count * kWidth;
          at.kept += count * kPanel;
          at.steps += count * at.step_stride;
        }
      }
    for (int p = 0; p < kPanels; ++p)
      finish(group * kPanels + p, begin, rows, kept + p * rows * kPanel);
  }

 private:
  Place<Input> place(int64_t panel, int64_t chunk, int64_t row, float* kept, int64_t stride) const {
    const int64_t at = row * rows_.chunks + chunk;
    return {weights_ + panel * layout_.panel_bytes() + chunk * Format::kBytes,
            layout_.panel_bytes(),
            static_cast<int>(std::min<int64_t>(kBlock, rows_.chunks - chunk)),
            rows_.at(chunk / kBlock, row),
            rows_.steps + at,
            rows_.starts + at,
            rows_.chunks,
            kept,
            stride};
  }

  // Writes one panel's columns: times the column's factor, plus the bias, plus what was there.
  void finish(int64_t panel, int64_t begin, int64_t rows, const float* kept) const {
    const int64_t column = panel * kPanel;
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
  const Rows<Input> rows_;
  const float* bias_;
  const bool add_;
  float* out_;
};

// Cuts [0, all) into items for threads that read memory in streams: first a long one for each, as a
// stream starts slowly, then short ones for whoever is done first.
struct Items {
  int64_t all, threads, longer, shorter;

  Items(int64_t count, int64_t workers) : all(count), threads(workers) {
    longer = all * 3 / (4 * threads);
    shorter = std::max<int64_t>(1, (all - longer * threads) / (4 * threads));
  }
  int64_t count() const {
    const int64_t rest = all - longer * threads;
    return (longer > 0 ? threads : 0) + (rest + shorter - 1) / shorter;
  }
  int64_t start(int64_t item) const {
    if (longer == 0) return std::min(all, item * shorter);
    const int64_t behind = std::max<int64_t>(0, item - threads);
    return std::min(all, std::min(item, threads) * longer + behind * shorter);
  }
};

// So many of `all` that there are some for every thread to even out, but no tiny ones.
int64_t share(int64_t all, int64_t bytes, int threads) {
  const int64_t fair = all / (8 * threads), enough = kItemBytes / std::max<int64_t>(1, bytes);
  return std::max<int64_t>(1, std::min(fair, enough));
}

template <class Format>
void multiply(Pool& pool, const uint8_t* weights, int64_t outputs, int64_t inputs, const float* x,
              const int64_t* picked, int64_t count, const float* bias, bool add, float* out) {
  using Input = typename Format::Input;
  thread_local Scratch memory;
  const Layout layout = Layout::of<Format>(outputs, inputs);
  const int64_t chunks = layout.chunks(), blocks = (chunks + kBlock - 1) / kBlock;
  float* steps = memory.floats(count * (blocks * kWidth + 2 * chunks));
  auto* starts = reinterpret_cast<uint32_t*>(steps + count * chunks);
  auto* values = reinterpret_cast<Input*>(starts + count * chunks);
  const Rows<Input> rows{values, steps, starts, count, chunks};
  const auto prepare = [&](int64_t row) {
    prepare_row<Format>(x + (picked ? picked[row] : row) * inputs, inputs, row, rows);
  };
  if (count * inputs < 1 << 14)
    for (int64_t row = 0; row < count; ++row) prepare(row);
  else
    pool.run(count, prepare);

  const Product<Format> product(weights, layout, rows, bias, add, out);
  if (count <= kTile) {
    const Items pairs(layout.panels() / 2, pool.threads());
    pool.run(pairs.count(), [&](int64_t item) {
      product.few(2 * pairs.start(item), 2 * pairs.start(item + 1));
    });
    return;
  }
  const int64_t cuts = (count + kRowBlock - 1) / kRowBlock;
  const int64_t step = share(layout.groups(), kPanels * layout.panel_bytes(), pool.threads());
  const int64_t parts = (layout.groups() + step - 1) / step;
  pool.run(cuts * parts, [&](int64_t item) {
    const int64_t cut = item / parts, first = item % parts * step;
    const int64_t last = std::min(first + step, layout.groups());
    for (int64_t group = first; group < last; ++group)
      product.many(group, count * cut / cuts, count * (cut + 1) / cuts);
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
