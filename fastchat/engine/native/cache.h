// Where keys and values lie. Blocks of 16 tokens; within a block, head after head.
//
// Keys run over tokens, so that one register holds the scores of several: [width][16]. Values run
// over their width: [16][width]. The width is padded to two vectors. In bfloat16 two numbers
// share a 32-bit word: two neighbours of the width in keys; in values two that are kLanes apart,
// so that widening the words of one register gives two vectors in order.
#pragma once

#include "vectors.h"

namespace fastchat {

constexpr int kBlockTokens = 16;
constexpr int kPair = 2 * kLanes;
constexpr int64_t kMaxWidth = 1024;

struct CacheShape {
  int64_t heads, width;
  int64_t padded() const { return (width + kPair - 1) / kPair * kPair; }
  int64_t head_values() const { return padded() * kBlockTokens; }
};

struct FloatCache {
  using Value = float;
  static constexpr int64_t kSize = 4;
  CacheShape shape;
  float* keys;
  float* values;

  const float* key_block(int64_t block, int64_t head) const {
    return keys + (block * shape.heads + head) * shape.head_values();
  }
  const float* value_block(int64_t block, int64_t head) const {
    return values + (block * shape.heads + head) * shape.head_values();
  }
  // Both take padded() numbers.
  void write_key(int64_t slot, int64_t head, const float* from) const {
    float* to = const_cast<float*>(key_block(slot / kBlockTokens, head)) + slot % kBlockTokens;
    for (int64_t d = 0; d < shape.padded(); ++d) to[d * kBlockTokens] = from[d];
  }
  void write_value(int64_t slot, int64_t head, const float* from) const {
    float* to = const_cast<float*>(value_block(slot / kBlockTokens, head));
    std::memcpy(to + slot % kBlockTokens * shape.padded(), from, shape.padded() * sizeof(float));
  }
};

struct HalfCache {
  using Value = uint16_t;
  static constexpr int64_t kSize = 2;
  CacheShape shape;
  uint16_t* keys;
  uint16_t* values;

  const uint16_t* key_block(int64_t block, int64_t head) const {
    return keys + (block * shape.heads + head) * shape.head_values();
  }
  const uint16_t* value_block(int64_t block, int64_t head) const {
    return values + (block * shape.heads + head) * shape.head_values();
  }
  void write_key(int64_t slot, int64_t head, const float* from) const {
    auto* to = const_cast<uint16_t*>(key_block(slot / kBlockTokens, head)) + slot % kBlockTokens * 2;
    for (int64_t d = 0; d < shape.padded(); ++d)
      to[d / 2 * 2 * kBlockTokens + d % 2] = to_bfloat16(from[d]);
  }
  void write_value(int64_t slot, int64_t head, const float* from) const {
    auto* to = const_cast<uint16_t*>(value_block(slot / kBlockTokens, head)) +
               slot % kBlockTokens * shape.padded();
    for (int64_t d = 0; d < shape.padded(); ++d) to[place(d)] = to_bfloat16(from[d]);
  }

 private:
  static int64_t place(int64_t d) { return d / kPair * kPair + d % kLanes * 2 + d / kLanes % 2; }
};

template <class Use>
void with_cache(int dtype, void* keys, void* values, CacheShape shape, const Use& use) {
  if (dtype == 0) use(FloatCache{shape, static_cast<float*>(keys), static_cast<float*>(values)});
  else use(HalfCache{shape, static_cast<uint16_t*>(keys), static_cast<uint16_t*>(values)});
}

}  // namespace fastchat
