// How a packed matrix holds its weights, and how registers get them out again.
//
// A matrix is cut into panels of two vectors of outputs, a panel into chunks of 32 inputs. A panel's
// chunks follow each other in memory and panels follow panels, so one row's product reads one
// stream. Every format gives
//   Input        what rows are made into: floats, or 16-bit whole numbers with a step a chunk
//   kBytes       of a panel's chunk
//   kColumns     whether each output has a factor, applied at the end
//   multiply()   adds a chunk's products for kRows rows and kWide panels to sums in registers
//   unpack()     writes a chunk as pairs of inputs, or inputs, side by side: the very numbers that
//                multiply() uses
// and, where Input is whole numbers,
//   kBias        what weights are held too high by; sums start so much lower
//   scales()     of a chunk's outputs, times the rows' step
#pragma once

#include "vectors.h"

namespace fastchat {

constexpr int kChunk = 32;
constexpr int kPanel = 2 * kLanes;
constexpr int kGroup = 64;
constexpr int kPanels = kGroup / kPanel;

// How far ahead of the weights that are multiplied others are fetched.
constexpr int64_t kAhead = 8192;

template <class Vector, int kRows, int kWide>
using Sums = Vector[kWide][kRows][2];

// Adds the products of a row's two numbers with two inputs' weights to its sums.
template <int kRows>
FASTCHAT_INLINE void add_pairs(Words first, Words second, const int16_t* x, int64_t stride,
                               Words (&sums)[kRows][2]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Words pair = broadcast_pair(x + r * stride);
    sums[r][0] = dot(first, pair, sums[r][0]);
    sums[r][1] = dot(second, pair, sums[r][1]);
  }
}

struct Float32 {
  using Input = float;
  static constexpr int64_t kBytes = 4 * kChunk * kPanel;
  static constexpr bool kColumns = false;

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, int64_t panel_bytes, const float* x,
                                       int64_t stride, Sums<Floats, kRows, kWide>& sums) {
#pragma GCC unroll 4
    for (int k = 0; k < kChunk; ++k) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * panel_bytes + 4 * k * kPanel;
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
  using Input = float;
  static constexpr int64_t kBytes = 2 * kChunk * kPanel;
  static constexpr bool kColumns = false;

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, int64_t panel_bytes, const float* x,
                                       int64_t stride, Sums<Floats, kRows, kWide>& sums) {
#pragma GCC unroll 2
    for (int k = 0; k < kChunk; k += 2) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * panel_bytes + 2 * k * kPanel;
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

// Words of four inputs: [k / 4][output]. Inputs 0 and 1 are a word's even bytes, 2 and 3 its odd
// ones, so that a mask and a shift give pairs of 16-bit numbers.
struct Int8 {
  using Input = int16_t;
  static constexpr int64_t kBytes = kChunk * kPanel;
  static constexpr bool kColumns = true;
  static constexpr int kBias = 128;

  static FASTCHAT_INLINE Words first_two(Words words) { return words & 0x00ff00ffu; }
  static FASTCHAT_INLINE Words last_two(Words words) { return (Words)((Shorts)words >> 8); }
  static int bits(int input) { return 8 * (input / 2) + 16 * (input % 2); }

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, int64_t panel_bytes, const int16_t* x,
                                       int64_t stride, Sums<Words, kRows, kWide>& sums) {
#pragma GCC unroll 4
    for (int k = 0; k < kChunk; k += 4) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * panel_bytes + k * kPanel;
        const Words first = load<Words>(at), second = load<Words>(at + 4 * kLanes);
        fetch<8 * kLanes>(at + kAhead);
        add_pairs<kRows>(first_two(first), first_two(second), x + k, stride, sums[p]);
        add_pairs<kRows>(last_two(first), last_two(second), x + k + 2, stride, sums[p]);
      }
    }
  }

  static FASTCHAT_INLINE void unpack(const uint8_t* chunk, int16_t* to) {
    for (int k = 0; k < kChunk; k += 4, to += 4 * kPanel)
      for (int half = 0; half < 2; ++half) {
        const Words words = load<Words>(chunk + k * kPanel + half * 4 * kLanes);
        store(to + half * 2 * kLanes, (Shorts)first_two(words) - uint16_t{kBias});
        store(to + 2 * kPanel + half * 2 * kLanes, (Shorts)last_two(words) - uint16_t{kBias});
      }
  }

  static FASTCHAT_INLINE Floats scales(const uint8_t*, int, float step) { return broadcast(step); }
};

// kPanel scales in half precision, then words of eight inputs: [k / 8][output]. Even inputs have a
// word's low half, odd ones its high half, four bits each, so that shifts give pairs of numbers.
struct Int4 {
  using Input = int16_t;
  static constexpr int64_t kScaleBytes = 2 * kPanel;
  static constexpr int64_t kBytes = kScaleBytes + kChunk * kPanel / 2;
  static constexpr bool kColumns = true;
  static constexpr int kBias = 8;

  template <int kPlace>
  static FASTCHAT_INLINE Words widen(Words words) {
    if constexpr (kPlace == 3) return (Words)((Shorts)words >> 12);
    return (words >> (4 * kPlace)) & 0x000f000fu;
  }
  static int bits(int input) { return 4 * (input / 2) + 16 * (input % 2); }

  template <int kRows, int kWide>
  static FASTCHAT_INLINE void multiply(const uint8_t* chunk, int64_t panel_bytes, const int16_t* x,
                                       int64_t stride, Sums<Words, kRows, kWide>& sums) {
#pragma GCC unroll 4
    for (int k = 0; k < kChunk; k += 8) {
#pragma GCC unroll 4
      for (int p = 0; p < kWide; ++p) {
        const uint8_t* at = chunk + p * panel_bytes + kScaleBytes + k / 8 * 4 * kPanel;
        const Words first = load<Words>(at), second = load<Words>(at + 4 * kLanes);
        fetch<8 * kLanes>(at + kAhead);
        add_pairs<kRows>(widen<0>(first), widen<0>(second), x + k, stride, sums[p]);
        add_pairs<kRows>(widen<1>(first), widen<1>(second), x + k + 2, stride, sums[p]);
        add_pairs<kRows>(widen<2>(first), widen<2>(second), x + k + 4, stride, sums[p]);
        add_pairs<kRows>(widen<3>(first), widen<3>(second), x + k + 6, stride, sums[p]);
      }
    }
  }

  template <int kPlace>
  static FASTCHAT_INLINE void unpack_place(Words words, int16_t* to) {
    store(to + kPlace * 2 * kPanel, (Shorts)widen<kPlace>(words) - uint16_t{kBias});
  }

  static FASTCHAT_INLINE void unpack(const uint8_t* chunk, int16_t* to) {
    for (int k = 0; k < kChunk; k += 8, to += 8 * kPanel)
      for (int half = 0; half < 2; ++half) {
        const uint8_t* at = chunk + kScaleBytes + k / 8 * 4 * kPanel + half * 4 * kLanes;
        const Words words = load<Words>(at);
        unpack_place<0>(words, to + half * 2 * kLanes);
        unpack_place<1>(words, to + half * 2 * kLanes);
        unpack_place<2>(words, to + half * 2 * kLanes);
        unpack_place<3>(words, to + half * 2 * kLanes);
      }
  }

  // The step is a power of two: nothing is rounded.
  static FASTCHAT_INLINE Floats scales(const uint8_t* chunk, int half, float step) {
    return from_float16(load<Halves>(chunk + half * 2 * kLanes)) * broadcast(step);
  }
};

template <class Format>
constexpr bool kWhole = !std::is_same_v<typename Format::Input, float>;

// Where things lie in a packed matrix of one format.
struct Layout {
  int64_t outputs, inputs, chunk_bytes;
  bool columns;

  template <class Format>
  static Layout of(int64_t outputs, int64_t inputs) {
    return {outputs, inputs, Format::kBytes, Format::kColumns};
  }
  // Whole groups of 64 outputs, so that two panels can be taken at once.
  int64_t groups() const { return (outputs + kGroup - 1) / kGroup; }
  int64_t panels() const { return groups() * kPanels; }
  int64_t chunks() const { return (inputs + kChunk - 1) / kChunk; }
  int64_t panel_bytes() const { return chunks() * chunk_bytes; }
  int64_t column_offset() const { return panels() * panel_bytes(); }
  int64_t bytes() const {
    return column_offset() + (columns ? panels() * kPanel * int64_t(sizeof(float)) : 0);
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
