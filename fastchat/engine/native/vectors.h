// Vectors of floats as wide as the processor's registers, in the compiler's own notation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace fastchat {

#if defined(FASTCHAT_LANES)
constexpr int kLanes = FASTCHAT_LANES;
#elif defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

#define FASTCHAT_INLINE inline __attribute__((always_inline))
// A loop that fills all registers is kept apart, so that nothing around it takes one.
#define FASTCHAT_APART __attribute__((noinline))
#define FASTCHAT_LAMBDA __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

template <class Vector>
FASTCHAT_INLINE Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

FASTCHAT_INLINE Floats loadf(const float* from) { return load<Floats>(from); }

template <class Vector>
FASTCHAT_INLINE void store(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

FASTCHAT_INLINE Floats broadcast(float value) { return value - Floats{}; }

// a * b + c, rounded once: everywhere the same bits, which a product and a sum would not be.
FASTCHAT_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  if constexpr (kLanes == 16) return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#endif
#if defined(__FMA__)
  constexpr int kParts = kLanes / 8;
  __m256 x[kParts], y[kParts], z[kParts];
  std::memcpy(x, &a, sizeof a);
  std::memcpy(y, &b, sizeof b);
  std::memcpy(z, &c, sizeof c);
  for (int part = 0; part < kParts; ++part) z[part] = _mm256_fmadd_ps(x[part], y[part], z[part]);
  std::memcpy(&c, z, sizeof c);
  return c;
#else
  for (int lane = 0; lane < kLanes; ++lane) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return c;
#endif
}

// The two bfloat16 values of a 32-bit word, the earlier one in its low half.
FASTCHAT_INLINE Floats low_half(Words words) { return (Floats)(words << 16); }
FASTCHAT_INLINE Floats high_half(Words words) { return (Floats)(words & 0xffff0000u); }

// kLanes signed bytes as floats. Compilers take the plain conversion apart lane by lane.
FASTCHAT_INLINE Floats from_bytes(const void* from) {
#if defined(__AVX512F__)
  if constexpr (kLanes == 16)
    return __builtin_convertvector((Ints)_mm512_cvtepi8_epi32(load<__m128i>(from)), Floats);
#endif
#if defined(__AVX2__)
  constexpr int kParts = kLanes / 8;
  __m256i wide[kParts];
  for (int part = 0; part < kParts; ++part)
    wide[part] = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const char*>(from) + 8 * part)));
  return __builtin_convertvector(load<Ints>(wide), Floats);
#else
  return __builtin_convertvector(__builtin_convertvector(load<Bytes>(from), Ints), Floats);
#endif
}

FASTCHAT_INLINE float to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

FASTCHAT_INLINE uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

FASTCHAT_INLINE float from_bfloat16(uint16_t half) { return to_float(uint32_t(half) << 16); }

// Rounds to the nearest, ties to even; a NaN stays one.
FASTCHAT_INLINE uint16_t to_bfloat16(float value) {
  const uint32_t bits = to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// IEEE half precision by moving its bits to where a float has them; 2^112 mends the exponent.
FASTCHAT_INLINE float from_float16(uint16_t half) {
  const uint32_t magnitude = uint32_t(half & 0x7fffu) << 13;
  const float value = to_float(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return to_float(to_bits(value) | special | uint32_t(half & 0x8000u) << 16);
}

FASTCHAT_INLINE Floats from_float16(Halves halves) {
  const Ints wide = (Ints)(__builtin_convertvector(halves, Words) << 16);
  return (Floats)((wide >> 3) & int32_t(0x8fffe000u)) * 0x1p112f;
}

// For finite values of at most 65504; ties to even.
FASTCHAT_INLINE uint16_t to_float16(float value) {
  const uint32_t sign = (to_bits(value) & 0x80000000u) >> 16;
  const float scaled = to_float(to_bits(value) & 0x7fffffffu) * 0x1p-112f;
  const uint32_t bits = to_bits(scaled);
  return static_cast<uint16_t>(sign | ((bits + 0xfffu + ((bits >> 13) & 1)) >> 13));
}

FASTCHAT_INLINE float sum(Floats vector) {
  float lanes[kLanes];
  store(lanes, vector);
  for (int step = kLanes / 2; step > 0; step /= 2)
    for (int lane = 0; lane < step; ++lane) lanes[lane] += lanes[lane + step];
  return lanes[0];
}

// Calls use(at, lanes) along a row; the last piece may have fewer lanes.
template <class Use>
FASTCHAT_INLINE void along(int64_t width, const Use& use) {
  int64_t at = 0;
  for (; at + kLanes <= width; at += kLanes) use(at, kLanes);
  if (at < width) use(at, static_cast<int>(width - at));
}

FASTCHAT_INLINE Floats load_some(const float* from, int lanes) {
  if (lanes == kLanes) return loadf(from);
  float padded[kLanes] = {};
  std::memcpy(padded, from, lanes * sizeof(float));
  return loadf(padded);
}

FASTCHAT_INLINE void store_some(float* to, Floats values, int lanes) {
  if (lanes == kLanes) store(to, values);
  else std::memcpy(to, &values, lanes * sizeof(float));
}

FASTCHAT_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

FASTCHAT_INLINE float largest(Floats vector) {
  float lanes[kLanes];
  store(lanes, vector);
  float best = lanes[0];
  for (int lane = 1; lane < kLanes; ++lane) best = lanes[lane] > best ? lanes[lane] : best;
  return best;
}

// e^x to about 2 units in the last place; 0 below -87, NaN for NaN.
FASTCHAT_INLINE Floats exponential(Floats x) {
  const Floats high = broadcast(88.0f), low = broadcast(-87.0f);
  const Floats kept = x > high ? high : (x < low ? low : x);
  const Floats magic = broadcast(12582912.0f);  // its last place is 1: adding it rounds
  const Floats shifted = fma(kept, broadcast(1.44269504f), magic);
  const Floats whole = shifted - magic;
  Floats rest = fma(whole, broadcast(-0.693359375f), kept);
  rest = fma(whole, broadcast(2.12194440e-4f), rest);
  Floats value = broadcast(1.9875691500e-4f);
  value = fma(value, rest, broadcast(1.3981999507e-3f));
  value = fma(value, rest, broadcast(8.3334519073e-3f));
  value = fma(value, rest, broadcast(4.1665795894e-2f));
  value = fma(value, rest, broadcast(1.6666665459e-1f));
  value = fma(value, rest, broadcast(5.0000001201e-1f));
  value = fma(value, rest * rest, rest) + 1.0f;
  const Floats grown = (Floats)((Ints)value + ((Ints)shifted << 23));
  const Floats zeroed = x < low ? Floats{} : grown;
  return x == x ? zeroed : x;
}

FASTCHAT_INLINE void prefetch(const void* address) { __builtin_prefetch(address, 0, 3); }

template <int kBytes>
FASTCHAT_INLINE void fetch(const uint8_t* address) {
#pragma GCC unroll 4
  for (int byte = 0; byte < kBytes; byte += 64) prefetch(address + byte);
}

}  // namespace fastchat
