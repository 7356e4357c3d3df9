// Number types, cell kinds and the argument blocks that a kernel launcher takes.
// Raw pointers and sizes only: no torch header may be included below csrc/ops.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define FASTSEQ_HD __host__ __device__ __forceinline__
#else
// Always inlined: the CPU kernels are compiled once per instruction set, and an out-of-line copy of
// a shared function could be merged by the linker into a build for a machine without AVX-512.
#define FASTSEQ_HD inline __attribute__((always_inline))
#endif

namespace fastseq {

// Storage-only 16-bit types; arithmetic happens in float.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Codes are part of the op schemas: append, never renumber.
enum class Cell : int64_t { kLstm = 0, kGru = 1, kRnnTanh = 2, kRnnRelu = 3 };

enum class DType : int { kFloat = 0, kDouble = 1, kBFloat16 = 2, kHalf = 3 };
constexpr int kDTypes = 4;

// The type that sums, cell states and caches of cell states are kept in.
template <class S>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class S>
using accumulate_t = typename Accumulate<S>::type;

// Which rows of the batch take part in which step.
//
// Rows are stored step after step: the rows of step t start at row offset(t) of every [N, ...]
// tensor, N being the number of (step, row) pairs. Rows are sorted by length, longest first, so
// the rows that take part in a step are always the first active(t).
struct Sequence {
  int64_t steps;               // T
  int64_t batch;               // B
  const int64_t* batch_sizes;  // [T], non-increasing; null when every row has T steps
  const int64_t* offsets;      // [T + 1], sums of batch_sizes; null likewise
  bool reverse;                // the recurrence runs from the last step to the first
  // [B] place in the batch of each sorted row, where rows are stored [T, B] as the batch came,
  // those beyond a length included; null where they are stored as they take part.
  const int64_t* order;
  // [B] steps of each row of a batch [T, B], in any order and on the device: CUDA's own way, by
  // which nothing waits for them. What is out of range counts as the nearest bound. Null: T.
  const int64_t* lengths = nullptr;
  // 2: both directions of a layer in one call, on CUDA. The second one runs the other way, and all
  // tensors of rows, states and weights have a dimension of 2 in front.
  int64_t directions = 1;

  FASTSEQ_HD int64_t active(int64_t t) const { return batch_sizes ? batch_sizes[t] : batch; }
  FASTSEQ_HD int64_t offset(int64_t t) const { return offsets ? offsets[t] : t * batch; }
  FASTSEQ_HD int64_t rows() const { return offset(steps); }
  // Where row b is in the batch, and where its step t is stored.
  FASTSEQ_HD int64_t place(int64_t b) const { return order ? order[b] : b; }
  FASTSEQ_HD int64_t row(int64_t t, int64_t b) const {
    return order ? t * batch + order[b] : offset(t) + b;
  }
  // Step number s of the recurrence, in the order in which it runs.
  FASTSEQ_HD int64_t at(int64_t s) const { return reverse ? steps - 1 - s : s; }
  // The row that holds the state before step t of batch row b; -1: it is the initial state.
  FASTSEQ_HD int64_t previous_row(int64_t t, int64_t b) const {
    const int64_t p = reverse ? t + 1 : t - 1;
    if (p < 0 || p >= steps || b >= active(p)) return -1;
    return row(p, b);
  }
};

// What a layer may do beside the plain recurrence; null: it does not.
struct Extras {
  const bool* reset;    // [T, B]      the state is replaced before this step ...
  const void* reset_h;  // S [B, R]    ... by this, or by zeros
  const void* reset_c;  // S [B, H]
  const void* drop;     // S [B, R]    factors of h' where W_hh reads it
  const void* zone_h;   // S [N, R]    1 where h stays as it was before the step, else 0
  const void* zone_c;   // S [N, H]    the same of c
  const void* norm_hh;  // S [G*H]     gains of a layer norm of W_hh h'
  const void* norm_c;   // S [H]       gain and bias of one of c, on its way to h; LSTM only
  const void* norm_c_bias;
  double epsilon;  // of both

  FASTSEQ_HD bool any() const { return reset || drop || zone_h || zone_c || norm_hh; }

  // A mark stands between a step and the one before it in time, and the recurrence crosses it in
  // either direction: whether the state before step t of row b is replaced, and the one after it.
  FASTSEQ_HD bool resets(const Sequence& seq, int64_t t, int64_t b) const {
    return reset && (seq.reverse ? marked_later(seq, t, b) : marked(seq, t, b));
  }
  FASTSEQ_HD bool resets_after(const Sequence& seq, int64_t t, int64_t b) const {
    return reset && (seq.reverse ? t > 0 && marked(seq, t, b) : marked_later(seq, t, b));
  }
  // Whether even the first step finds its state replaced.
  FASTSEQ_HD bool resets_first(const Sequence& seq, int64_t b) const {
    return reset && !seq.reverse && seq.steps > 0 && b < seq.active(0) && marked(seq, 0, b);
  }

 private:
  FASTSEQ_HD bool marked(const Sequence& seq, int64_t t, int64_t b) const {
    return reset[t * seq.batch + seq.place(b)];
  }
  FASTSEQ_HD bool marked_later(const Sequence& seq, int64_t t, int64_t b) const {
    return t + 1 < seq.steps && b < seq.active(t + 1) && marked(seq, t + 1, b);
  }
};

// H: hidden size. R: size of the hidden state h (H, or proj_size). G: gates of the cell. C: values
// per unit that forward saves for backward. N: rows of all steps together.
// S: the tensors' type. A: accumulate_t<S>.
// The sequence that a layer reads, and the weights by which it does. Unless given, the input side
// of the pre-activations is.
struct LayerInput {
  bool given;
  const void* x;  // S [N, I]     dense batches: rows x_step apart in time, x_row in the batch
  int64_t size;   // I
  int64_t x_step, x_row;  // in elements; packed batches: x_row alone, from row to row
  const void* weight_ih;  // S [G*H, I]
};

// A plan that was asked for (FASTSEQ_PLAN) instead of the planner's: slices of the batch and of the
// units, and rows of a chunk of the input product. Zeros: as the planner has it.
struct AskedPlan {
  int64_t batches = 0, units = 0, chunk = 0;
};

struct RecurrenceForward {
  Cell cell;
  Sequence seq;
  int64_t hidden;         // H
  int64_t state;          // R
  const void* pre;        // S [N, G*H]  input side of the pre-activations, biases included
  const void* h0;         // S [B, R]
  const void* c0;         // S [B, H]    LSTM only
  const void* weight_hh;  // S [G*H, R]
  const void* bias_hn;    // S [H]       GRU only, may be null
  const void* weight_hr;  // S [R, H]    LSTM with projection, else null
  void* y;                // S [N, R]
  void* h_n;              // S [B, R]
  void* c_n;              // S [B, H]    LSTM only
  void* gates;            // S [N, C*H]  null when nothing is to be saved
  void* cells;            // A [N, H]    LSTM only, null when nothing is to be saved
  LayerInput in;          // instead of pre
  const void* bias_ih;    // S [G*H]     with x; may be null, like bias_hh
  const void* bias_hh;    // S [G*H]     of a cell that splits gates, the last H are bias_hn
  Extras extra;
  void* products;  // S [N, G*H]  W_hh h', with a layer norm; null when nothing is to be saved
  // Weights and biases as the kernels of this instruction set pack them, instead of the pointers
  // above, of which weight_hr still says whether there is a projection. Null: they are packed now.
  const void* packed;
  AskedPlan asked{};
};

struct RecurrenceBackward {
  Cell cell;
  Sequence seq;
  int64_t hidden;
  int64_t state;
  const void* grad_y;      // S [N, R]    may be null, like every incoming gradient
  const void* grad_h_n;    // S [B, R]
  const void* grad_c_n;    // S [B, H]
  const void* grad_gates;  // S [N, C*H]
  const void* grad_cells;  // A [N, H]
  const void* y;           // S [N, R]
  const void* gates;       // S [N, C*H]
  const void* cells;       // A [N, H]
  const void* h0;          // S [B, R]
  const void* c0;          // S [B, H]
  const void* weight_hh;   // S [G*H, R]
  const void* weight_hr;   // S [R, H]
  void* grad_pre;          // S [N, G*H]
  void* grad_aux;          // S           GRU: [N, H] gradient of q = W_hn h + b_hn
                           //             projection: [N, R] gradient of h; else null
  void* grad_h0;           // S [B, R]    may be null, and then
  void* grad_c0;           // S [B, H]    this one is
  // With x, the gradients of all that the layer reads; each may be null.
  LayerInput in{};
  void* grad_x = nullptr;          // S [N, I]
  void* grad_weight_ih = nullptr;  // S [G*H, I]
  void* grad_weight_hh = nullptr;  // S [G*H, R]
  void* grad_weight_hr = nullptr;  // S [R, H]
  void* grad_bias = nullptr;       // S [G*H]
  void* grad_bias_hn = nullptr;    // S [H]        of a cell that splits gates
  Extras extra{};
  void* grad_reset_h = nullptr;  // S [B, R]
  void* grad_reset_c = nullptr;  // S [B, H]
  // With a layer norm: what forward saved, rows of scratch whose sums are the gradients of gains
  // and biases, and those gradients.
  const void* products = nullptr;    // S [N, G*H]
  void* grad_products = nullptr;     // S [N, G*H]   gradient of W_hh h'
  void* rows_hh = nullptr;           // S [N, G*H]
  void* rows_c = nullptr;            // S [N, 2*H]   gain, bias
  void* grad_norm_hh = nullptr;      // S [G*H]
  void* grad_norm_c = nullptr;       // S [H]
  void* grad_norm_c_bias = nullptr;  // S [H]
  AskedPlan asked{};
};

}  // namespace fastseq
