// All decoder layers of Yuan2 over one step in one call: the kernels one after the other, so that
// nothing between them waits for an interpreter. What is computed is what the kernels compute.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "pool.h"
#include "scratch.h"

using fastchat::Pool;

extern "C" {

int fastchat_matmul(Pool*, int, const uint8_t*, int64_t, int64_t, const float*, int64_t,
                    const int64_t*, int64_t, const float*, int, float*);
int fastchat_rms_norm(Pool*, const float*, const float*, const float*, float, int64_t, int64_t,
                      float*);
int fastchat_filter_pairs(Pool*, const float*, const int32_t*, const float*, int64_t, int64_t,
                          int64_t, float*);
int fastchat_silu_mul(Pool*, const float*, int64_t, int64_t, float*);
int fastchat_rope_store(Pool*, float*, int64_t, const float*, int64_t, const float*, int64_t,
                        const int32_t*, const float*, int64_t, int64_t, int64_t, int64_t, int,
                        void*, void*, int64_t, const int64_t*);
int fastchat_attend(Pool*, const float*, int64_t, int64_t, void*, void*, int, int64_t,
                    const int32_t*, const int32_t*, const int32_t*, int64_t, int64_t, int64_t,
                    int64_t, float*, float);

// The structures below are laid out in layers.py too.
struct YuanMatrix {
  const uint8_t* data;
  int64_t kind, outputs, inputs;
};

struct YuanLayer {
  YuanMatrix conv1, conv2, qk, value, output, up_gate, down;
  const float *conv1_bias, *conv2_bias, *filter_norm, *input_norm, *mlp_norm;
  float *inputs, *narrow;  // kept filter states, (places, H) and (places, H / 2)
  void *keys, *values;
};

struct YuanNetwork {
  const YuanLayer* layers;
  int64_t count, hidden, intermediate, heads;
  int64_t places, blocks, cache_dtype, positions;
  const float* angles;
  float eps, filter_eps;
};

struct YuanStep {
  int64_t tokens, sequences, longest, states, rows;
  const int32_t *positions, *previous, *starts, *contexts, *tables;
  const int64_t *slots, *state_rows, *state_places, *kept_rows;
};
}

namespace {

struct Buffers {
  float *normed, *pairs, *middle, *wide, *filtered, *qk, *value, *attended, *up_gate, *gated;

  Buffers(fastchat::Scratch& memory, int64_t tokens, int64_t hidden, int64_t intermediate) {
    const int64_t sizes[] = {hidden,     2 * hidden, hidden / 2, hidden,           hidden,
                             2 * hidden, hidden,     hidden,     2 * intermediate, intermediate};
    float** targets[] = {&normed, &pairs, &middle,   &wide,    &filtered,
                         &qk,     &value, &attended, &up_gate, &gated};
    int64_t total = 0;
    for (const int64_t size : sizes) total += aligned(tokens * size);
    float* at = memory.floats(total);
    for (int index = 0; index < 10; ++index) {
      *targets[index] = at;
      at += aligned(tokens * sizes[index]);
    }
  }

  static int64_t aligned(int64_t count) { return (count + 15) / 16 * 16; }
};

class Forward {
 public:
  Forward(Pool* pool, const YuanNetwork& network, const YuanStep& step, fastchat::Scratch& memory)
      : pool_(pool),
        net_(network),
        step_(step),
        buffers_(memory, step.tokens, network.hidden, network.intermediate) {}

  // states (tokens, H): in and out. With kept rows, these stand in front after the last layer.
  int run(float* states) {
    int64_t rows = step_.tokens;
    for (int64_t index = 0; index < net_.count; ++index) {
      const YuanLayer& layer = net_.layers[index];
      if (const int fault = attention(layer, states)) return fault;
      if (index + 1 == net_.count && step_.kept_rows) rows = keep(states);
      feed_forward(layer, states, rows);
    }
    return 0;
  }

 private:
  int attention(const YuanLayer& layer, float* states) {
    const int64_t tokens = step_.tokens, hidden = net_.hidden, width = hidden / net_.heads;
    const Buffers& b = buffers_;
    fastchat_rms_norm(pool_, states, nullptr, layer.input_norm, net_.eps, tokens, hidden, b.normed);
    if (pairs(b.normed, layer.inputs, hidden)) return 1;
    multiply(layer.conv1, b.pairs, tokens, layer.conv1_bias, false, b.middle);
    if (pairs(b.middle, layer.narrow, hidden / 2)) return 1;
    multiply(layer.conv2, b.pairs, tokens, layer.conv2_bias, false, b.wide);
    // After the reads: a sequence's state is kept where its earlier one was.
    keep_states(b.normed, layer.inputs, hidden);
    keep_states(b.middle, layer.narrow, hidden / 2);
    fastchat_rms_norm(pool_, b.wide, b.normed, layer.filter_norm, net_.filter_eps, tokens, hidden,
                      b.filtered);
    multiply(layer.qk, b.filtered, tokens, nullptr, false, b.qk);
    multiply(layer.value, b.normed, tokens, nullptr, false, b.value);
    if (fastchat_rope_store(pool_, b.qk, 2 * hidden, b.qk + hidden, 2 * hidden, b.value, hidden,
                            step_.positions, net_.angles, net_.positions, tokens, net_.heads, width,
                            static_cast<int>(net_.cache_dtype), layer.keys, layer.values,
                            net_.blocks, step_.slots))
      return 2;
    if (fastchat_attend(pool_, b.qk, 2 * hidden, tokens, layer.keys, layer.values,
                        static_cast<int>(net_.cache_dtype), net_.blocks, step_.starts,
                        step_.contexts, step_.tables, step_.sequences, step_.longest, net_.heads,
                        width, b.attended, 1.0f / std::sqrt(static_cast<float>(width))))
      return 3;
    return 0;
  }

  // From here on nothing reads the other rows: moves those that are wanted to the front.
  int64_t keep(float* states) {
    for (int64_t row = 0; row < step_.rows; ++row) {
      const int64_t from = step_.kept_rows[row];
      if (from == row) continue;
      for (float* of : {states, buffers_.attended})
        std::copy_n(of + from * net_.hidden, net_.hidden, of + row * net_.hidden);
    }
    return step_.rows;
  }

  void feed_forward(const YuanLayer& layer, float* states, int64_t rows) {
    const Buffers& b = buffers_;
    multiply(layer.output, b.attended, rows, nullptr, true, states);
    fastchat_rms_norm(pool_, states, nullptr, layer.mlp_norm, net_.eps, rows, net_.hidden,
                      b.normed);
    multiply(layer.up_gate, b.normed, rows, nullptr, false, b.up_gate);
    fastchat_silu_mul(pool_, b.up_gate, rows, net_.intermediate, b.gated);
    multiply(layer.down, b.gated, rows, nullptr, true, states);
  }

  void multiply(const YuanMatrix& matrix, const float* x, int64_t rows, const float* bias, bool add,
                float* out) {
    fastchat_matmul(pool_, static_cast<int>(matrix.kind), matrix.data, matrix.outputs,
                    matrix.inputs, x, rows, nullptr, rows, bias, add, out);
  }

  int pairs(const float* states, const float* stored, int64_t width) {
    return fastchat_filter_pairs(pool_, states, step_.previous, stored, net_.places, step_.tokens,
                                 width, buffers_.pairs);
  }

  void keep_states(const float* states, float* kept, int64_t width) {
    for (int64_t index = 0; index < step_.states; ++index)
      std::copy_n(states + step_.state_rows[index] * width, width,
                  kept + step_.state_places[index] * width);
  }

  Pool* pool_;
  const YuanNetwork& net_;
  const YuanStep& step_;
  const Buffers buffers_;
};

}  // namespace

// Rows in `kept_rows` ascend. Returns 0, or which of the step's arrays is wrong.
extern "C" int fastchat_layers(Pool* pool, const YuanNetwork* network, const YuanStep* step,
                               float* states) {
  thread_local fastchat::Scratch memory;
  for (int64_t index = 0; index < step->states; ++index) {
    const int64_t place = step->state_places[index], row = step->state_rows[index];
    if (place < 0 || place >= network->places || row < 0 || row >= step->tokens) return 4;
  }
  for (int64_t index = 0; step->kept_rows && index < step->rows; ++index)
    if (step->kept_rows[index] < index || step->kept_rows[index] >= step->tokens) return 5;
  return Forward(pool, *network, *step, memory).run(states);
}
