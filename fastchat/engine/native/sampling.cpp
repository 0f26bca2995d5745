// Picks one token from each row of logits. Knows nothing of requests or of text.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "logits_row.h"
#include "pool.h"

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

using namespace fastchat;

enum Status : int32_t { kFine = 0, kNan = 1, kInfinite = 2, kNothingLeft = 3 };

struct Scratch {
  LogitsRow view;
  std::vector<float> row;
  std::vector<std::pair<float, int32_t>> best;
};

void forbid(float* row, int64_t vocab, const uint32_t* mask) {
  Ints bits;
  for (int lane = 0; lane < kLanes; ++lane) bits[lane] = 1 << lane;
  const int64_t whole = vocab / 32;
  for (int64_t word = 0; word < whole; ++word) {
    const uint32_t allowed = mask[word];
    if (allowed == 0xffffffffu) continue;
    for (int part = 0; part < 32; part += kLanes) {
      float* at = row + word * 32 + part;
      const Ints here = Ints{} + static_cast<int32_t>(allowed >> part);
      store(at, (here & bits) != 0 ? loadf(at) : broadcast(-kInfinity));
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

int32_t pick(const SamplingJob& job, int64_t index, LogitsRow& view) {
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
  LogitsRow& view = scratch.view;
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
  LogitsRow& view = scratch.view;
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
