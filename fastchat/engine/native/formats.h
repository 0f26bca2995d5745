// How a packed matrix holds its weights, and how registers get them out again.
//
// A matrix is cut into groups of 64 outputs, a group into chunks of 32 inputs, a chunk into panels
// of two vectors of outputs. Chunks follow each other in memory, so one product reads one stream.
// Every format gives
//   kBytes       of a panel's chunk
//   kColumns     whether each output has a factor, applied at the end
//   kPartial     whether a chunk is summed by itself and then scaled (int4)
//   kWideAlone   panels that a single row takes at once: one makes the smoothest stream of memory,
//                two keep up where weights take work to widen
//   multiply()   adds a chunk's products for kRows rows and kWide panels to sums in registers
//   unpack()     writes a chunk as floats, the very numbers that multiply() uses
#pragma once

#include "vectors.h"

namespace fastchat {

constexpr int kChunk = 32;
constexpr int kPanel = 2 * kLanes;
constexpr int kGroup = 64;
constexpr int kPanels = kGroup / kPanel;

// How far ahead of the weights that are multiplied others are fetched.
constexpr int64_t kAhead = 8192;

template <int kRows, int kWide>
using Sums = Floats[kWide][kRows][2];

struct Float32 {
  static constexpr int64_t kBytes = 4 * kChunk * kPanel;
  static constexpr int kWideAlone = 1;
  static constexpr bool kColumns = false, kPartial = false;

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, const float* x, int64_t stride,
                                       Sums<kRows, kWide>& sums) {
#pragma GCC unroll 4
    for (int k = 0; k < kChunk; ++k) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * kBytes + 4 * k * kPanel;
        const Floats first = load<Floats>(at), second = load<Floats>(at + 4 * kLanes);
        fetch<8 * kLanes>(at + kAhead);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Floats factor = broadcast(x[r * stride + k]);
          sums[p][r][0] = fma(factor, first, sums[p][r][0]);
          sums[p][r][1] = fma(factor, second, sums[p][r][1]);
        }
      }
    }
  }

  static FASTCHAT_INLINE void unpack(const uint8_t* chunk, float* to) {
    std::memcpy(to, chunk, kBytes);
  }
};

// Words of two inputs: [k / 2][output], the even input in the low half.
struct BFloat16 {
  static constexpr int64_t kBytes = 2 * kChunk * kPanel;
  static constexpr int kWideAlone = 1;
  static constexpr bool kColumns = false, kPartial = false;

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, const float* x, int64_t stride,
                                       Sums<kRows, kWide>& sums) {
#pragma GCC unroll 2
    for (int k = 0; k < kChunk; k += 2) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * kBytes + 2 * k * kPanel;
        const Words first = load<Words>(at), second = load<Words>(at + 4 * kLanes);
        fetch<8 * kLanes>(at + kAhead);
        const Floats even[2] = {low_half(first), low_half(second)};
        const Floats odd[2] = {high_half(first), high_half(second)};
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Floats factor = broadcast(x[r * stride + k]);
          sums[p][r][0] = fma(factor, even[0], sums[p][r][0]);
          sums[p][r][1] = fma(factor, even[1], sums[p][r][1]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Floats factor = broadcast(x[r * stride + k + 1]);
          sums[p][r][0] = fma(factor, odd[0], sums[p][r][0]);
          sums[p][r][1] = fma(factor, odd[1], sums[p][r][1]);
        }
      }
    }
  }

  static FASTCHAT_INLINE void unpack(const uint8_t* chunk, float* to) {
    for (int k = 0; k < kChunk; k += 2) {
      const Words first = load<Words>(chunk + 2 * k * kPanel);
      const Words second = load<Words>(chunk + 2 * k * kPanel + 4 * kLanes);
      store(to + k * kPanel, low_half(first));
      store(to + k * kPanel + kLanes, low_half(second));
      store(to + (k + 1) * kPanel, high_half(first));
      store(to + (k + 1) * kPanel + kLanes, high_half(second));
    }
  }
};

// Bytes [k][output], -127..127.
struct Int8 {
  static constexpr int64_t kBytes = kChunk * kPanel;
  static constexpr int kWideAlone = 2;
  static constexpr bool kColumns = true, kPartial = false;

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, const float* x, int64_t stride,
                                       Sums<kRows, kWide>& sums) {
#pragma GCC unroll 4
    for (int k = 0; k < kChunk; ++k) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * kBytes + k * kPanel;
        const Floats first = from_bytes(at), second = from_bytes(at + kLanes);
        if (k * kPanel % 64 == 0) fetch<64>(at + kAhead);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Floats factor = broadcast(x[r * stride + k]);
          sums[p][r][0] = fma(factor, first, sums[p][r][0]);
          sums[p][r][1] = fma(factor, second, sums[p][r][1]);
        }
      }
    }
  }

  static FASTCHAT_INLINE void unpack(const uint8_t* chunk, float* to) {
    for (int at = 0; at < kChunk * kPanel; at += kLanes) store(to + at, from_bytes(chunk + at));
  }
};

// kPanel scales in half precision, then words of eight inputs: [k / 8][output], input k in the
// bits from 4 * (k % 8) on, 8 more than its value. A word is masked but not shifted, which leaves
// the value times 16^(k % 8): the rows come with x[k] / 16^(k % 8), so the product is exact. (The
// top bits would read as negative and are shifted.) The 8 too many are taken off by starting a
// chunk's sum at -8 * sum(x).
struct Int4 {
  static constexpr int64_t kScaleBytes = 2 * kPanel;
  static constexpr int64_t kBytes = kScaleBytes + kChunk * kPanel / 2;
  static constexpr int kWideAlone = 2;
  static constexpr bool kColumns = true, kPartial = true;

  template <int kPlace>
  static FASTCHAT_INLINE Floats widen(Words words) {
    if constexpr (kPlace == 7) return __builtin_convertvector((Ints)(words >> 28), Floats);
    return __builtin_convertvector((Ints)words & (15 << (4 * kPlace)), Floats);
  }

  static FASTCHAT_INLINE void scales(const uint8_t* chunk, Floats (&to)[2]) {
    to[0] = from_float16(load<Halves>(chunk));
    to[1] = from_float16(load<Halves>(chunk + 2 * kLanes));
  }

  template <int kPlace, int kRows, int kWide>
  static FASTCHAT_INLINE void step(const Words (&words)[kWide][2], const float* x, int64_t stride,
                                   Sums<kRows, kWide>& sums) {
#pragma GCC unroll 4
    for (int p = 0; p < kWide; ++p) {
      const Floats first = widen<kPlace>(words[p][0]), second = widen<kPlace>(words[p][1]);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Floats factor = broadcast(x[r * stride + kPlace]);
        sums[p][r][0] = fma(factor, first, sums[p][r][0]);
        sums[p][r][1] = fma(factor, second, sums[p][r][1]);
      }
    }
  }

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, const float* x, int64_t stride,
                                       Sums<kRows, kWide>& sums) {
    for (int k = 0; k < kChunk; k += 8) {
      Words words[kWide][2];
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * kBytes + kScaleBytes + k / 8 * 4 * kPanel;
        words[p][0] = load<Words>(at);
        words[p][1] = load<Words>(at + 4 * kLanes);
        fetch<8 * kLanes>(at + kAhead);
      }
      step<0, kRows, kWide>(words, x + k, stride, sums);
      step<1, kRows, kWide>(words, x + k, stride, sums);
      step<2, kRows, kWide>(words, x + k, stride, sums);
      step<3, kRows, kWide>(words, x + k, stride, sums);
      step<4, kRows, kWide>(words, x + k, stride, sums);
      step<5, kRows, kWide>(words, x + k, stride, sums);
      step<6, kRows, kWide>(words, x + k, stride, sums);
      step<7, kRows, kWide>(words, x + k, stride, sums);
    }
  }

  template <int kPlace>
  static FASTCHAT_INLINE void unpack_place(const uint8_t* words, float* to) {
    store(to + kPlace * kPanel, widen<kPlace>(load<Words>(words)));
    store(to + kPlace * kPanel + kLanes, widen<kPlace>(load<Words>(words + 4 * kLanes)));
  }

  static FASTCHAT_INLINE void unpack(const uint8_t* chunk, float* to) {
    for (int k = 0; k < kChunk; k += 8, to += 8 * kPanel) {
      const uint8_t* words = chunk + kScaleBytes + k / 8 * 4 * kPanel;
      unpack_place<0>(words, to);
      unpack_place<1>(words, to);
      unpack_place<2>(words, to);
      unpack_place<3>(words, to);
      unpack_place<4>(words, to);
      unpack_place<5>(words, to);
      unpack_place<6>(words, to);
      unpack_place<7>(words, to);
    }
  }
};

// Where things lie in a packed matrix of one format.
struct Layout {
  int64_t outputs, inputs, chunk_bytes;
  bool columns;

  template <class Format>
  static Layout of(int64_t outputs, int64_t inputs) {
    return {outputs, inputs, Format::kBytes * kPanels, Format::kColumns};
  }
  int64_t groups() const { return (outputs + kGroup - 1) / kGroup; }
  int64_t chunks() const { return (inputs + kChunk - 1) / kChunk; }
  int64_t group_bytes() const { return chunks() * chunk_bytes; }
  int64_t column_offset() const { return groups() * group_bytes(); }
  int64_t bytes() const {
    return column_offset() + (columns ? groups() * kGroup * int64_t(sizeof(float)) : 0);
  }
};

// Calls use(Format{}) with the format of a code: 0 float32, 1 bfloat16, 2 int8, 3 int4.
template <class Use>
auto with_format(int code, Use&& use) {
  switch (code) {
    case 0: return use(Float32{});
    case 1: return use(BFloat16{});
    case 2: return use(Int8{});
    default: return use(Int4{});
  }
}

}  // namespace fastchat
