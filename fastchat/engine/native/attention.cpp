// Causal attention of new rows over a cache in blocks.
//
// One item is one head of up to kRowTile rows of one sequence. It goes over the context in spans of
// 64 tokens counted from the sequence's start, whatever the rows: scores, a running maximum, the
// weighted values. A row meets every span, token and width in the same order alone, in a tile and
// after any cut of its prompt, so it has the same bits.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cache.h"
#include "pool.h"
#include "scratch.h"

namespace fastchat {
namespace {

constexpr int kSpan = 64;
constexpr int kSpanBlocks = kSpan / kBlockTokens;
constexpr int kTokenVectors = kBlockTokens / kLanes;
constexpr int kRowTile = 48;
constexpr int kRowsAtOnce = 6;

constexpr int at_once(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

// Blocks of one head in a span, and what to bring into the caches meanwhile, block for block.
template <class Value>
struct Span {
  const Value* blocks[kSpanBlocks];
  const Value* ahead[kSpanBlocks];

  // The first rows have fetched what lies ahead.
  void stay() { std::copy_n(blocks, kSpanBlocks, ahead); }
};

FASTCHAT_INLINE void widen(const float* from, Floats (&to)[2]) {
  to[0] = loadf(from);
  to[1] = loadf(from + kLanes);
}

FASTCHAT_INLINE void widen(const uint16_t* from, Floats (&to)[2]) {
  const Words words = load<Words>(from);
  to[0] = low_half(words);
  to[1] = high_half(words);
}

template <int kRows, int kWide>
FASTCHAT_INLINE void add_products(const float* q, int64_t width,
                                  const Floats (&key)[kTokenVectors], int b,
                                  Floats (&sums)[kRows][kWide][kTokenVectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Floats factor = broadcast(q[r * width]);
#pragma GCC unroll 2
    for (int v = 0; v < kTokenVectors; ++v) sums[r][b][v] = fma(factor, key[v], sums[r][b][v]);
  }
}

// Scores of kRows rows against kWide blocks from block `first` on; rows of q lie `width` apart.
template <class Value, int kRows, int kWide>
FASTCHAT_APART void score(const Span<Value>& span, int first, const float* q, int64_t width,
                          float* scores) {
  Floats sums[kRows][kWide][kTokenVectors] = {};
  constexpr int kStep = sizeof(Value) == 4 ? 1 : 2;
  for (int64_t d = 0; d < width; d += kStep) {
#pragma GCC unroll 4
    for (int b = 0; b < kWide; ++b) {
      const Value* at = span.blocks[first + b] + d * kBlockTokens;
      prefetch(span.ahead[first + b] + d * kBlockTokens);
      if constexpr (kStep == 1) {
        Floats key[kTokenVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTokenVectors; ++v) key[v] = loadf(at + v * kLanes);
        add_products<kRows, kWide>(q + d, width, key, b, sums);
      } else {
        Floats even[kTokenVectors], odd[kTokenVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kTokenVectors; ++v)
          even[v] = low_half(load<Words>(at + 2 * v * kLanes));
        add_products<kRows, kWide>(q + d, width, even, b, sums);
        asm("" : "+r"(at));  // reads the words again, for want of registers to keep them
#pragma GCC unroll 2
        for (int v = 0; v < kTokenVectors; ++v)
          odd[v] = high_half(load<Words>(at + 2 * v * kLanes));
        add_products<kRows, kWide>(q + d + 1, width, odd, b, sums);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int b = 0; b < kWide; ++b)
#pragma GCC unroll 2
      for (int v = 0; v < kTokenVectors; ++v)
        store(scores + r * kSpan + (first + b) * kBlockTokens + v * kLanes, sums[r][b][v]);
}

// out = out * fade + weights x values, for kWide pairs of vectors from width `first` on.
template <class Value, int kRows, int kWide>
FASTCHAT_APART void mix(const Span<Value>& span, int tokens, int64_t first, const float* weights,
                        const float* fades, int64_t width, float* out) {
  Floats sums[kRows][kWide][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int w = 0; w < kWide; ++w)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h)
        sums[r][w][h] =
            loadf(out + r * width + first + w * kPair + h * kLanes) * broadcast(fades[r]);
  for (int begin = 0, b = 0; begin < tokens; begin += kBlockTokens, ++b) {
    const int end = std::min(tokens - begin, kBlockTokens);
    for (int t = 0; t < end; ++t) {
      const Value* at = span.blocks[b] + t * width + first;
      for (int byte = 0; byte < int(kWide * kPair * sizeof(Value)); byte += 64)
        prefetch(reinterpret_cast<const uint8_t*>(span.ahead[b] + t * width + first) + byte);
#pragma GCC unroll 4
      for (int w = 0; w < kWide; ++w) {
        Floats value[2];
        widen(at + w * kPair, value);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Floats weight = broadcast(weights[r * kSpan + begin + t]);
          sums[r][w][0] = fma(weight, value[0], sums[r][w][0]);
          sums[r][w][1] = fma(weight, value[1], sums[r][w][1]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int w = 0; w < kWide; ++w)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h)
        store(out + r * width + first + w * kPair + h * kLanes, sums[r][w][h]);
}

// Turns a row's scores of one span into weights; of them the first `seen` count.
struct Softmax {
  float peak = -INFINITY;
  float total = 0;

  FASTCHAT_APART float take(float* scores, int64_t seen) {
    Ints lane;
    for (int i = 0; i < kLanes; ++i) lane[i] = i;
    constexpr int kVectors = kSpan / kLanes;
    Floats kept[kVectors];
    Floats best = broadcast(peak);
    for (int v = 0; v < kVectors; ++v) {
      const Ints visible = lane + v * kLanes < static_cast<int32_t>(std::min<int64_t>(seen, kSpan));
      kept[v] = visible ? loadf(scores + v * kLanes) : broadcast(-INFINITY);
      best = larger(kept[v], best);
    }
    const float before = peak;
    peak = largest(best);
    Floats sums = {};
    for (int v = 0; v < kVectors; ++v) {
      const Floats weight = exponential(kept[v] - peak);
      sums += weight;
      store(scores + v * kLanes, weight);
    }
    const float fade = exponential(broadcast(before - peak))[0];
    total = total * fade + sum(sums);
    return fade;
  }
};

struct Sequences {
  const float* q;
  int64_t q_stride;
  const int32_t* starts;
  const int32_t* contexts;
  const int32_t* tables;
  int64_t longest, heads, width;
  float scale;
  float* out;
};

template <class Cache>
class Item {
  using Value = typename Cache::Value;

 public:
  Item(const Cache& cache, const Sequences& all) : cache_(cache), all_(all) {}

  // Rows [begin, end) of a sequence, counted from its first new row.
  void run(int64_t sequence, int64_t head, int64_t begin, int64_t end) const {
    thread_local Scratch memory;
    const int64_t width = cache_.shape.padded(), rows = end - begin;
    float* q = memory.floats(rows * (2 * width + kSpan));
    float* mixed = q + rows * width;
    float* scores = mixed + rows * width;
    const int64_t row = all_.starts[sequence] + begin;
    read_queries(row, rows, head, q);
    std::fill(mixed, mixed + rows * width, 0.0f);

    Softmax softmax[kRowTile];
    float fades[kRowTile];
    const int64_t fresh = all_.starts[sequence + 1] - all_.starts[sequence];
    const int64_t seen = all_.contexts[sequence] - fresh + begin + 1;  // tokens the first row sees
    const int64_t context = seen + rows - 1;
    Span<Value> keys, values;
    for (int64_t start = 0; start < context; start += kSpan) {
      const int tokens = static_cast<int>(std::min<int64_t>(kSpan, context - start));
      find(sequence, head, start, context, keys, values);
      for (int64_t r = 0; r < rows; keys.stay()) r += score_some(keys, tokens, rows, r, q, scores);
      for (int64_t r = 0; r < rows; ++r)
        fades[r] = softmax[r].take(scores + r * kSpan, seen + r - start);
      for (int64_t r = 0; r < rows; values.stay())
        r += mix_some(values, tokens, rows, r, scores, fades, mixed);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float inverse = 1.0f / softmax[r].total;
      float* to = all_.out + ((row + r) * all_.heads + head) * all_.width;
      for (int64_t d = 0; d < all_.width; ++d) to[d] = mixed[r * width + d] * inverse;
    }
  }

 private:
  void read_queries(int64_t row, int64_t rows, int64_t head, float* to) const {
    const int64_t width = cache_.shape.padded();
    for (int64_t r = 0; r < rows; ++r, to += width) {
      const float* from = all_.q + (row + r) * all_.q_stride + head * all_.width;
      for (int64_t d = 0; d < all_.width; ++d) to[d] = from[d] * all_.scale;
      std::fill(to + all_.width, to + width, 0.0f);
    }
  }

  // While a span is read the next one is fetched, keys with keys and values with values.
  void find(int64_t sequence, int64_t head, int64_t start, int64_t context, Span<Value>& keys,
            Span<Value>& values) const {
    const int32_t* table = all_.tables + sequence * all_.longest;
    const int64_t last = (context - 1) / kBlockTokens;
    for (int b = 0; b < kSpanBlocks; ++b) {
      const int64_t block = start / kBlockTokens + b;
      const int64_t own = table[std::min(block, last)];
      const int64_t next = table[std::min(block + kSpanBlocks, last)];
      keys.blocks[b] = cache_.key_block(own, head);
      values.blocks[b] = cache_.value_block(own, head);
      keys.ahead[b] = cache_.key_block(next, head);
      values.ahead[b] = cache_.value_block(next, head);
    }
  }

  template <class Use>
  static int64_t with_rows(int64_t left, const Use& use) {
    const int64_t tiles = (left + kRowsAtOnce - 1) / kRowsAtOnce, rows = (left + tiles - 1) / tiles;
    switch (rows) {
      case 1: use.template operator()<1>(); break;
      case 2: use.template operator()<2>(); break;
      case 3: use.template operator()<3>(); break;
      case 4: use.template operator()<4>(); break;
      case 5: use.template operator()<5>(); break;
      default: use.template operator()<6>();
    }
    return rows;
  }

  int64_t score_some(const Span<Value>& keys, int tokens, int64_t rows, int64_t r, const float* q,
                     float* scores) const {
    const int64_t width = cache_.shape.padded();
    const int blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    return with_rows(rows - r, [&]<int kRows>() {
      constexpr int kWide = at_once(kRows);
      int b = 0;
      for (; b + kWide <= blocks; b += kWide)
        score<Value, kRows, kWide>(keys, b, q + r * width, width, scores + r * kSpan);
      for (; b < blocks; ++b)
        score<Value, kRows, 1>(keys, b, q + r * width, width, scores + r * kSpan);
    });
  }

  int64_t mix_some(const Span<Value>& values, int tokens, int64_t rows, int64_t r,
                   const float* scores, const float* fades, float* mixed) const {
    const int64_t width = cache_.shape.padded();
    return with_rows(rows - r, [&]<int kRows>() {
      constexpr int kWide = at_once(kRows);
      int64_t first = 0;
      for (; first + kWide * kPair <= width; first += kWide * kPair)
        mix<Value, kRows, kWide>(values, tokens, first, scores + r * kSpan, fades + r, width,
                                 mixed + r * width);
      for (; first < width; first += kPair)
        mix<Value, kRows, 1>(values, tokens, first, scores + r * kSpan, fades + r, width,
                             mixed + r * width);
    });
  }

  const Cache& cache_;
  const Sequences& all_;
};

struct Tile {
  int64_t sequence, begin, end, cost;
};

std::vector<Tile> longest_first(const Sequences& all, int64_t count) {
  std::vector<Tile> tiles;
  for (int64_t sequence = 0; sequence < count; ++sequence) {
    const int64_t rows = all.starts[sequence + 1] - all.starts[sequence];
    for (int64_t begin = 0; begin < rows; begin += kRowTile) {
      const int64_t end = std::min<int64_t>(rows, begin + kRowTile);
      tiles.push_back({sequence, begin, end, (all.contexts[sequence] - rows + end) * (end - begin + 2)});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.cost > b.cost; });
  return tiles;
}

// 0, or which argument is wrong.
int wrong(const Sequences& all, int64_t count, int64_t rows, int64_t blocks) {
  if (count > 0 && all.starts[0] != 0) return 1;
  if (count > 0 ? all.starts[count] != rows : rows != 0) return 1;
  for (int64_t sequence = 0; sequence < count; ++sequence) {
    const int64_t own = int64_t(all.starts[sequence + 1]) - all.starts[sequence];
    const int64_t context = all.contexts[sequence];
    if (own < 0) return 1;
    if (context < own || context > all.longest * kBlockTokens) return 2;
    const int32_t* table = all.tables + sequence * all.longest;
    for (int64_t b = 0; own > 0 && b * kBlockTokens < context; ++b)
      if (table[b] < 0 || table[b] >= blocks) return 3;
  }
  return 0;
}

}  // namespace
}  // namespace fastchat

extern "C" {

int64_t fastchat_cache_width(int64_t width) { return fastchat::CacheShape{1, width}.padded(); }

int fastchat_attend(fastchat::Pool* pool, const float* q, int64_t q_stride, int64_t rows,
                    void* keys, void* values, int dtype, int64_t blocks, const int32_t* starts,
                    const int32_t* contexts, const int32_t* tables, int64_t count, int64_t longest,
                    int64_t heads, int64_t width, float* out, float scale) {
  using namespace fastchat;
  const Sequences all{q, q_stride, starts, contexts, tables, longest, heads, width, scale, out};
  if (const int fault = wrong(all, count, rows, blocks)) return fault;
  const std::vector<Tile> tiles = longest_first(all, count);
  with_cache(dtype, keys, values, {heads, width}, [&](auto cache) {
    const Item<decltype(cache)> item(cache, all);
    pool->run(static_cast<int64_t>(tiles.size()) * heads, [&](int64_t index) {
      const Tile& tile = tiles[index / heads];
      item.run(tile.sequence, index % heads, tile.begin, tile.end);
    });
  });
  return 0;
}
}
