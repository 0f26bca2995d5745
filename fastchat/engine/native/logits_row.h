// One row of logits: its largest ones, its chances, and a token drawn from what is kept.
//
// A row is cut into blocks of 128 logits. One pass finds every block's maximum; what is kept after
// top-k, top-p and min-p is then said by one threshold on the logits, and only blocks whose
// maximum reaches it are looked at again. Nothing of the vocabulary's size is ever sorted.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "vectors.h"

namespace fastchat {

constexpr int kBlock = 128;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A bit for each lane of a comparison's result.
FASTCHAT_INLINE uint32_t lanes_of(Ints held) {
#if defined(__AVX2__)
  if constexpr (kLanes == 8) {
    __m256 wide;
    std::memcpy(&wide, &held, sizeof held);
    return static_cast<uint32_t>(_mm256_movemask_ps(wide));
  }
#endif
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= (held[lane] & 1u) << lane;
  return bits;
}

// A row of logits and what is found out about it. One for each thread, used again and again.
struct LogitsRow {
  const float* logits = nullptr;
  int64_t vocab = 0;
  int64_t blocks = 0;
  float top = 0;
  std::vector<float> tops;    // of each block
  std::vector<float> padded;  // the last block, filled up
  std::vector<float> chances;  // exp((logit - top) / temperature), where they were needed
  std::vector<double> sums;    // of each block's kept chances
  std::vector<float> found;
  std::vector<std::pair<float, float>> ranked;
  std::vector<float> copy;

  const float* block(int64_t index) const {
    return index + 1 == blocks && vocab % kBlock ? padded.data() : logits + index * kBlock;
  }

  // Fills `tops` and `top`; false if a logit is NaN.
  bool scan(const float* row, int64_t size) {
    logits = row;
    vocab = size;
    blocks = (size + kBlock - 1) / kBlock;
    tops.resize(blocks);
    if (const int64_t rest = size % kBlock) {
      padded.assign(kBlock, -kInfinity);
      std::memcpy(padded.data(), row + size - rest, rest * sizeof(float));
    }
    Ints broken{};
    top = -kInfinity;
    for (int64_t index = 0; index < blocks; ++index) {
      const float* from = block(index);
      Floats best[4];
      for (int part = 0; part < 4; ++part) {
        best[part] = loadf(from + part * kLanes);
        broken |= best[part] != best[part];
      }
      for (int step = 4; step < kBlock / kLanes; step += 4) {
        for (int part = 0; part < 4; ++part) {
          const Floats x = loadf(from + (step + part) * kLanes);
          broken |= x != x;
          best[part] = larger(x, best[part]);
        }
      }
      tops[index] = largest(larger(larger(best[0], best[1]), larger(best[2], best[3])));
      top = std::max(top, tops[index]);
    }
    return !lanes_of(broken);
  }

  int32_t first_top() const {
    for (int64_t index = 0; index < blocks; ++index) {
      if (tops[index] != top) continue;
      const float* from = block(index);
      for (int place = 0; place < kBlock; ++place)
        if (from[place] == top) return static_cast<int32_t>(index * kBlock + place);
    }
    return 0;
  }

  // The k-th largest logit, and in `found` the logits that reach it. k < vocab.
  float kth_largest(int64_t k) {
    float bound = -kInfinity;
    if (k <= blocks) {  // k blocks reach the k-th largest block maximum, so k logits do
      copy.assign(tops.begin(), tops.end());
      std::nth_element(copy.begin(), copy.begin() + (k - 1), copy.end(), std::greater<>());
      bound = copy[k - 1];
    }
    found.clear();
    collect(bound, [this](int64_t, float logit) { found.push_back(logit); });
    copy.assign(found.begin(), found.end());
    std::nth_element(copy.begin(), copy.begin() + (k - 1), copy.end(), std::greater<>());
    const float kth = copy[k - 1];
    found.erase(std::remove_if(found.begin(), found.end(), [kth](float x) { return x < kth; }),
                found.end());
    return kth;
  }

  // Calls take(id, logit) for the logits that reach a bound, in order of their ids.
  template <class Take>
  void collect(float bound, Take&& take) const {
    for (int64_t index = 0; index < blocks; ++index) {
      if (tops[index] < bound) continue;
      const float* from = block(index);
      const int64_t size = std::min<int64_t>(kBlock, vocab - index * kBlock);
      for (int step = 0; step < kBlock; step += kLanes) {
        for (uint32_t lanes = lanes_of(loadf(from + step) >= bound); lanes; lanes &= lanes - 1) {
          const int place = step + std::countr_zero(lanes);
          if (place < size) take(index * kBlock + place, from[place]);
        }
      }
    }
  }

  // Chances of all logits, and their sum by block. Returns the sum of all.
  double weigh_all(float cold) {
    chances.resize(blocks * kBlock);
    sums.assign(blocks, 0.0);
    double total = 0;
    for (int64_t index = 0; index < blocks; ++index) {
      const float* from = block(index);
      float* to = chances.data() + index * kBlock;
      Floats part[2] = {};
      for (int step = 0; step < kBlock / kLanes; step += 2) {
        for (int half = 0; half < 2; ++half) {
          const Floats x = exponential((loadf(from + (step + half) * kLanes) - top) * cold);
          store(to + (step + half) * kLanes, x);
          part[half] += x;
        }
      }
      sums[index] = sum(part[0] + part[1]);
      total += sums[index];
    }
    return total;
  }

  // Sums of the kept logits' chances by block. Returns the sum of all.
  double weigh_kept(float threshold, float cold, bool weighed) {
    sums.assign(blocks, 0.0);
    double total = 0;
    for (int64_t index = 0; index < blocks; ++index) {
      if (tops[index] < threshold) continue;
      const float* from = block(index);
      const float* known = chances.data() + index * kBlock;
      Floats part[2] = {};
      for (int step = 0; step < kBlock / kLanes; step += 2) {
        for (int half = 0; half < 2; ++half) {
          const int at = (step + half) * kLanes;
          const Floats x = loadf(from + at);
          const Floats chance = weighed ? loadf(known + at) : exponential((x - top) * cold);
          part[half] += x >= threshold ? chance : Floats{};
        }
      }
      sums[index] = sum(part[0] + part[1]);
      total += sums[index];
    }
    return total;
  }

  // The kept token at which the running sum of chances passes `target`.
  int32_t at(double target, float threshold, float cold) const {
    int64_t index = 0, last = -1;
    for (; index < blocks; ++index) {
      if (sums[index] <= 0) continue;
      last = index;
      if (target < sums[index]) break;
      target -= sums[index];
    }
    if (index == blocks) target = kInfinity;  // rounding carried it past the end
    const float* from = block(last);
    float chance[kBlock];
    for (int step = 0; step < kBlock; step += kLanes) {
      const Floats x = loadf(from + step);
      const Floats kept = x >= threshold ? exponential((x - top) * cold) : Floats{};
      store(chance + step, kept);
    }
    int place = 0;
    for (int next = 0; next < kBlock; ++next) {
      if (chance[next] <= 0) continue;
      place = next;
      if (target < chance[next]) break;
      target -= chance[next];
    }
    return static_cast<int32_t>(last * kBlock + place);
  }

  // The largest logit such that those that reach it hold `share` of the chances of `found`.
  float nucleus_of_found(float share, float cold) {
    ranked.clear();
    double total = 0;
    for (size_t start = 0; start < found.size(); start += kLanes) {
      const size_t size = std::min<size_t>(kLanes, found.size() - start);
      Floats x = broadcast(-kInfinity);
      std::memcpy(&x, found.data() + start, size * sizeof(float));
      const Floats chance = exponential((x - top) * cold);
      for (size_t lane = 0; lane < size; ++lane) {
        ranked.emplace_back(found[start + lane], chance[lane]);
        total += chance[lane];
      }
    }
    return nucleus_of_ranked(share * total, -kInfinity);
  }

  // The largest logit such that those of `ranked` that reach it hold `wanted`.
  float nucleus_of_ranked(double wanted, float otherwise) {
    std::sort(ranked.begin(), ranked.end(), std::greater<>());
    for (const auto& [logit, chance] : ranked) {
      wanted -= chance;
      if (wanted <= 0) return logit;
    }
    return otherwise;
  }

  // The largest logit such that those that reach it hold `share` of all chances, which have
  // been weighed.
  float nucleus(float share, float cold, double total) {
    constexpr int kBins = 1024;
    const double wanted = share * total;
    // Logits that are left out hold no more than the rest, even if all of them are as large.
    const double least = std::max((total - wanted) / vocab * 0.999, 1e-37);
    const float bound = std::max<float>(top + std::log(least) / cold, -3e38f);
    const float scale = kBins / (std::max(top - bound, 1e-20f) * 1.0001f);
    double bins[2][kBins + kLanes];
    std::memset(bins, 0, sizeof(bins));
    Ints spare;  // a place of its own for what each lane has to no purpose
    for (int lane = 0; lane < kLanes; ++lane) spare[lane] = kBins + lane;
    for (int64_t index = 0; index < blocks; ++index) {
      if (!((top - tops[index]) * scale < kBins)) continue;
      const float* from = block(index);
      const float* known = chances.data() + index * kBlock;
      for (int step = 0; step < kBlock; step += kLanes) {
        const Floats x = loadf(from + step);
        const Floats depth = (top - x) * scale;
        const Ints near = depth < static_cast<float>(kBins);
        if (!lanes_of(near)) continue;
        int32_t bin[kLanes];
        float weight[kLanes];
        store(bin, near ? __builtin_convertvector(depth, Ints) : spare);
        store(weight, loadf(known + step));
        for (int lane = 0; lane < kLanes; ++lane) bins[lane & 1][bin[lane]] += weight[lane];
      }
    }
    double left = wanted;
    int bin = 0;
    for (; bin < kBins; ++bin) {
      const double mass = bins[0][bin] + bins[1][bin];
      if (left - mass <= 0) break;
      left -= mass;
    }
    ranked.clear();
    for (int64_t index = 0; index < blocks; ++index) {
      if (!((top - tops[index]) * scale < bin + 1.0f)) continue;
      const float* from = block(index);
      const float* known = chances.data() + index * kBlock;
      for (int step = 0; step < kBlock; step += kLanes) {
        const Floats depth = (top - loadf(from + step)) * scale;
        const Ints inside = (depth >= static_cast<float>(bin)) & (depth < bin + 1.0f);
        for (uint32_t lanes = lanes_of(inside); lanes; lanes &= lanes - 1) {
          const int place = step + std::countr_zero(lanes);
          ranked.emplace_back(from[place], known[place]);
        }
      }
    }
    return nucleus_of_ranked(left, bound);
  }
};

}  // namespace fastchat
