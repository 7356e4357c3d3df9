// Forward and backward of ONE unit at ONE step of each recurrent cell, for host and device.
//
// V is a number: float or double on a GPU, a vector of them on a CPU; M has the functions of such
// numbers (sigmoid, tanh, relu, relu_gradient). The formulas are those of torch.nn (gate order
// included):
//   LSTM  i, f, o = sigmoid(.), g = tanh(.)   c = f c' + i g         h = o tanh(c)
//   GRU   r, z = sigmoid(.)                   n = tanh(x_n + r q)    h = (1 - z) n + z h'
//   RNN                                       h = tanh(.) or max(., 0)
// where c', h' are the states before the step and q = W_hn h' + b_hn.
#pragma once

#include "types.h"

namespace fastseq {

template <class V>
constexpr const V* kNoZone = nullptr;

// What a cell reads and leaves at one step.
//   x[G]      input side of the pre-activations        r[G]  recurrent side, W_hh h' (+ b_hn)
//   cache[C]  activations that backward needs; C = 0 where h alone is enough
//   zone      1 where c stays c' (zoneout), else 0; null without it
struct LstmCell {
  static constexpr int kGates = 4;
  static constexpr int kCached = 4;  // i, f, g, o
  static constexpr bool kHasCellState = true;
  static constexpr bool kHasDirectPath = false;  // does h' reach h other than through W_hh?
  static constexpr bool kSplitsGates = false;    // do input and recurrent side differ in gradient?

  template <class M, class V>
  static FASTSEQ_HD void forward(const V* x, const V* r, V /*h_prev*/, V c_prev, const V* zone,
                                 V* cache, V& c, V& h) {
    const V i = M::sigmoid(x[0] + r[0]);
    const V f = M::sigmoid(x[1] + r[1]);
    const V g = M::tanh(x[2] + r[2]);
    const V o = M::sigmoid(x[3] + r[3]);
    c = f * c_prev + i * g;
    if (zone) c = (1 - *zone) * c + *zone * c_prev;
    h = o * M::tanh(c);
    cache[0] = i;
    cache[1] = f;
    cache[2] = g;
    cache[3] = o;
  }

  // extra[C]: gradients that reach the cached activations from elsewhere (double backward).
  // dc: gradient of c from the step after; becomes the gradient of c'.
  template <class M, class V>
  static FASTSEQ_HD void backward(const V* cache, V /*h*/, V c, V /*h_prev*/, V c_prev, V dh,
                                  const V* extra, const V* zone, V* dx, V* dr, V& dc,
                                  V& /*dh_direct*/) {
    const V i = cache[0], f = cache[1], g = cache[2], o = cache[3];
    const V tc = M::tanh(c);
    V d_c = dc + dh * o * (1 - tc * tc), kept{};
    if (zone) {
      kept = d_c * *zone;
      d_c = d_c - kept;
    }
    dx[0] = (d_c * g + extra[0]) * i * (1 - i);
    dx[1] = (d_c * c_prev + extra[1]) * f * (1 - f);
    dx[2] = (d_c * i + extra[2]) * (1 - g * g);
    dx[3] = (dh * tc + extra[3]) * o * (1 - o);
    for (int k = 0; k < kGates; ++k) dr[k] = dx[k];
    dc = d_c * f + kept;
  }
};

struct GruCell {
  static constexpr int kGates = 3;
  static constexpr int kCached = 4;  // r, z, n, q
  static constexpr bool kHasCellState = false;
  static constexpr bool kHasDirectPath = true;
  static constexpr bool kSplitsGates = true;

  template <class M, class V>
  static FASTSEQ_HD void forward(const V* x, const V* r, V h_prev, V /*c_prev*/, const V* /*zone*/,
                                 V* cache, V& /*c*/, V& h) {
    const V reset = M::sigmoid(x[0] + r[0]);
    const V z = M::sigmoid(x[1] + r[1]);
    const V n = M::tanh(x[2] + reset * r[2]);
    h = n + z * (h_prev - n);
    cache[0] = reset;
    cache[1] = z;
    cache[2] = n;
    cache[3] = r[2];
  }

  template <class M, class V>
  static FASTSEQ_HD void backward(const V* cache, V /*h*/, V /*c*/, V h_prev, V /*c_prev*/, V dh,
                                  const V* extra, const V* /*zone*/, V* dx, V* dr, V& /*dc*/,
                                  V& dh_direct) {
    const V reset = cache[0], z = cache[1], n = cache[2], q = cache[3];
    dx[2] = (dh * (1 - z) + extra[2]) * (1 - n * n);
    dx[1] = (dh * (h_prev - n) + extra[1]) * z * (1 - z);
    dx[0] = (dx[2] * q + extra[0]) * reset * (1 - reset);
    dr[0] = dx[0];
    dr[1] = dx[1];
    dr[2] = dx[2] * reset + extra[3];
    dh_direct = dh * z;
  }
};

template <bool kRelu>
struct ElmanCell {
  static constexpr int kGates = 1;
  static constexpr int kCached = 0;
  static constexpr bool kHasCellState = false;
  static constexpr bool kHasDirectPath = false;
  static constexpr bool kSplitsGates = false;

  template <class M, class V>
  static FASTSEQ_HD void forward(const V* x, const V* r, V /*h_prev*/, V /*c_prev*/,
                                 const V* /*zone*/, V* /*cache*/, V& /*c*/, V& h) {
    h = kRelu ? M::relu(x[0] + r[0]) : M::tanh(x[0] + r[0]);
  }

  template <class M, class V>
  static FASTSEQ_HD void backward(const V* /*cache*/, V h, V /*c*/, V /*h_prev*/, V /*c_prev*/,
                                  V dh, const V* /*extra*/, const V* /*zone*/, V* dx, V* dr,
                                  V& /*dc*/, V& /*dh_direct*/) {
    dx[0] = kRelu ? M::relu_gradient(h, dh) : dh * (1 - h * h);
    dr[0] = dx[0];
  }
};

using RnnTanhCell = ElmanCell<false>;
using RnnReluCell = ElmanCell<true>;

constexpr int gates_of(Cell cell) {
  return cell == Cell::kLstm ? LstmCell::kGates : cell == Cell::kGru ? GruCell::kGates : 1;
}
constexpr int cached_of(Cell cell) {
  return cell == Cell::kLstm ? LstmCell::kCached : cell == Cell::kGru ? GruCell::kCached : 0;
}

// f(a value of the cell's type), on the host. An op checks the code before it comes here.
template <class F>
auto with_cell(Cell cell, const F& f) {
  switch (cell) {
    case Cell::kLstm:
      return f(LstmCell{});
    case Cell::kGru:
      return f(GruCell{});
    case Cell::kRnnTanh:
      return f(RnnTanhCell{});
    case Cell::kRnnRelu:
      break;
  }
  return f(RnnReluCell{});
}

}  // namespace fastseq
