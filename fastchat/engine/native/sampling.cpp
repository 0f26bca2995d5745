// Picks one token from each row of logits. Knows nothing of requests or of text.
//
// A row is cut into blocks of 128 logits. One pass finds every block's maximum; what is kept after
// top-k, top-p and min-p is then said by one threshold on the logits, and only blocks whose
// maximum reaches it are looked at again. Nothing of the vocabulary's size is ever sorted.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "pool.h"

namespace {

typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));

constexpr int kLanes = 8;
constexpr int kBlock = 128;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum Status : int32_t { kFine = 0, kNan = 1, kInfinite = 2, kNothingLeft = 3 };

Floats all(float value) { return Floats{} + value; }

Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }

// exp of values that are 0 or less, to 2 units in the last place; 0 below -87.
Floats exp_below(Floats x) {
  const Ints alive = x > -87.0f;
  x = alive ? x : all(-87.0f);
  const Ints n = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, Ints);
  const Floats whole = __builtin_convertvector(n, Floats);
  const Floats r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  const Ints scale = (n + 127) << 23;
  return alive ? y * reinterpret_cast<const Floats&>(scale) : Floats{};
}

float sum(Floats x) {
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

float largest(Floats x) {
  float best = x[0];
  for (int lane = 1; lane < kLanes; ++lane) best = std::max(best, x[lane]);
  return best;
}

bool any(Ints x) {
  int32_t found = 0;
  for (int lane = 0; lane < kLanes; ++lane) found |= x[lane];
  return found != 0;
}

// A row of logits and what is found out about it. One for each thread, used again and again.
struct RowView {
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
        best[part] = load(from + part * kLanes);
        broken |= best[part] != best[part];
      }
      for (int step = 4; step < kBlock / kLanes; step += 4) {
        for (int part = 0; part < 4; ++part) {
          const Floats x = load(from + (step + part) * kLanes);
          broken |= x != x;
          best[part] = x > best[part] ? x : best[part];
        }
      }
      best[0] = best[1] > best[0] ? best[1] : best[0];
      best[2] = best[3] > best[2] ? best[3] : best[2];
      tops[index] = largest(best[2] > best[0] ? best[2] : best[0]);
      top = std::max(top, tops[index]);
    }
    return !any(broken);
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
      for (int64_t place = 0; place < size; ++place)
        if (from[place] >= bound) take(index * kBlock + place, from[place]);
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
          const Floats x = exp_below((load(from + (step + half) * kLanes) - top) * cold);
          *reinterpret_cast<Floats*>(to + (step + half) * kLanes) = x;
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
          const Floats x = load(from + at);
          const Floats chance = weighed ? load(known + at) : exp_below((x - top) * cold);
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
      const Floats x = load(from + step);
      const Floats kept = x >= threshold ? exp_below((x - top) * cold) : Floats{};
      std::memcpy(chance + step, &kept, sizeof(kept));
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
      Floats x = all(-kInfinity);
      std::memcpy(&x, found.data() + start, size * sizeof(float));
      const Floats chance = exp_below((x - top) * cold);
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
    double bins[4][kBins];
    std::memset(bins, 0, sizeof(bins));
    for (int64_t index = 0; index < blocks; ++index) {
      if (tops[index] < bound) continue;
      const float* from = block(index);
      const float* known = chances.data() + index * kBlock;
      for (int step = 0; step < kBlock; step += kLanes) {
        const Floats x = load(from + step);
        const Floats depth = (top - x) * scale;
        const Ints near = depth < static_cast<float>(kBins);
        if (!any(near)) continue;
        const Ints bin = __builtin_convertvector(near ? depth : all(0), Ints);
        const Floats chance = load(known + step);
        const Floats weight = near ? chance : Floats{};
        for (int lane = 0; lane < kLanes; ++lane) bins[lane & 3][bin[lane]] += weight[lane];
      }
    }
    double left = wanted;
    int bin = 0;
    for (; bin < kBins; ++bin) {
      const double mass = (bins[0][bin] + bins[1][bin]) + (bins[2][bin] + bins[3][bin]);
      if (left - mass <= 0) break;
      left -= mass;
    }
    ranked.clear();
    const float edge = top - (bin + 1) / scale * 1.0001f;
    for (int64_t index = 0; index < blocks; ++index) {
      if (tops[index] < edge) continue;
      const float* from = block(index);
      const float* known = chances.data() + index * kBlock;
      for (int step = 0; step < kBlock; step += kLanes) {
        const Floats depth = (top - load(from + step)) * scale;
        const Ints inside = (depth >= static_cast<float>(bin)) & (depth < bin + 1.0f);
        if (!any(inside)) continue;
        for (int lane = 0; lane < kLanes; ++lane)
          if (inside[lane]) ranked.emplace_back(from[step + lane], known[step + lane]);
      }
    }
    return nucleus_of_ranked(left, edge);
  }
};

}  // namespace

extern "C" {

// One call's rows, each array by its address. Mirrored in fastchat/engine/sampling/native.py.
struct SamplingJob {
  int64_t rows, stride, vocab;
  float* logits;
  // of each row
  const float *temperature, *top_p, *min_p, *penalty;
  const int32_t* top_k;
  const double* uniform;
  const uint32_t* const* masks;     // null where every token is allowed
  const int32_t* alternatives;      // -1 where no log-probabilities are wanted
  // where each row's entries start in the lists below, and at the end where the last stops
  const int32_t *seen_starts, *shift_starts, *ban_starts;
  const int32_t *seen, *shifted, *banned;
  const float* shifts;
  // results
  int64_t widest;  // places for alternatives in each row
  int32_t *token, *status;
  float* logprob;
  int32_t* best;
  float* best_logprob;
};
}

namespace {

struct Scratch {
  RowView view;
  std::vector<float> row;
  std::vector<std::pair<float, int32_t>> best;
};

void forbid(float* row, int64_t vocab, const uint32_t* mask) {
  const Ints bits = {1, 2, 4, 8, 16, 32, 64, 128};
  const int64_t whole = vocab / 32;
  for (int64_t word = 0; word < whole; ++word) {
    float* at = row + word * 32;
    const uint32_t allowed = mask[word];
    if (allowed == 0xffffffffu) continue;
    for (int part = 0; part < 4; ++part) {
      const Ints here = Ints{} + static_cast<int32_t>(allowed >> (8 * part));
      const Floats x = load(at + part * kLanes);
      *reinterpret_cast<Floats*>(at + part * kLanes) = (here & bits) != 0 ? x : all(-kInfinity);
    }
  }
  for (int64_t id = whole * 32; id < vocab; ++id)
    if (!(mask[id / 32] >> (id % 32) & 1)) row[id] = -kInfinity;
}

void edit(const SamplingJob& job, int64_t index, float* row) {
  const float penalty = job.penalty[index];
  for (int32_t i = job.seen_starts[index]; i < job.seen_starts[index + 1]; ++i) {
    float& logit = row[job.seen[i]];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  for (int32_t i = job.shift_starts[index]; i < job.shift_starts[index + 1]; ++i)
    row[job.shifted[i]] += job.shifts[i];
  if (job.masks[index]) forbid(row, job.vocab, job.masks[index]);
  for (int32_t i = job.ban_starts[index]; i < job.ban_starts[index + 1]; ++i)
    row[job.banned[i]] = -kInfinity;
}

int32_t pick(const SamplingJob& job, int64_t index, RowView& view) {
  const float temperature = job.temperature[index];
  if (temperature == 0) return view.first_top();
  const float cold = 1.0f / temperature;
  const float min_p = job.min_p[index], top_p = job.top_p[index];
  const int32_t k = job.top_k[index];
  float threshold = -kInfinity;
  bool weighed = false;
  if (k > 0 && k < job.vocab) {
    threshold = view.kth_largest(k);
    if (top_p < 1) threshold = std::max(threshold, view.nucleus_of_found(top_p, cold));
  } else if (top_p < 1) {
    const double total = view.weigh_all(cold);
    threshold = view.nucleus(top_p, cold, total);
    weighed = true;
  }
  if (min_p > 0) threshold = std::max(threshold, view.top + temperature * std::log(min_p));
  // -inf marks what is ruled out, and reaches no threshold.
  threshold = std::min(std::max(threshold, -std::numeric_limits<float>::max()), view.top);
  const double total = view.weigh_kept(threshold, cold, weighed);
  return view.at(job.uniform[index] * total, threshold, cold);
}

// Log-probabilities under the logits as the model gave them.
struct Reference {
  float top;
  double log_total;
};

Reference refer(const SamplingJob& job, int64_t index, Scratch& scratch) {
  RowView& view = scratch.view;
  const Reference reference{view.top, std::log(view.weigh_all(1.0f))};
  const int64_t count = std::min<int64_t>(job.alternatives[index], job.vocab);
  if (count == 0) return reference;
  auto& best = scratch.best;
  best.clear();
  const float bound = count < job.vocab ? view.kth_largest(count) : -kInfinity;
  view.collect(bound, [&best](int64_t id, float logit) {
    best.emplace_back(-logit, static_cast<int32_t>(id));
  });
  std::partial_sort(best.begin(), best.begin() + count, best.end());
  for (int64_t rank = 0; rank < count; ++rank) {
    job.best[index * job.widest + rank] = best[rank].second;
    job.best_logprob[index * job.widest + rank] =
        static_cast<float>(-best[rank].first - reference.top - reference.log_total);
  }
  return reference;
}

Status judged(bool sound, float top) {
  if (!sound) return kNan;
  if (top == kInfinity) return kInfinite;
  return top == -kInfinity ? kNothingLeft : kFine;
}

void sample_row(const SamplingJob& job, int64_t index, Scratch& scratch) {
  float* row = job.logits + index * job.stride;
  const float* original = row;
  RowView& view = scratch.view;
  const bool logprobs = job.alternatives[index] >= 0;
  Reference reference{};
  job.token[index] = -1;
  if (logprobs) {
    const bool sound = view.scan(row, job.vocab);
    job.status[index] = judged(sound, view.top);
    if (job.status[index] != kFine) return;
    reference = refer(job, index, scratch);
    scratch.row.assign(row, row + job.vocab);
    row = scratch.row.data();
  }
  edit(job, index, row);
  const bool sound = view.scan(row, job.vocab);
  job.status[index] = judged(sound, view.top);
  if (job.status[index] != kFine) return;
  const int32_t token = pick(job, index, view);
  job.token[index] = token;
  if (logprobs)
    job.logprob[index] =
        static_cast<float>(original[token] - reference.top - reference.log_total);
}

}  // namespace

extern "C" void fastchat_sample(fastchat::Pool* pool, const SamplingJob* job) {
  pool->run(job->rows, [job](int64_t index) {
    thread_local Scratch scratch;
    sample_row(*job, index, scratch);
  });
}
