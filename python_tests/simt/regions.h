// The tensors of a launch, as its argument blocks describe them.
#pragma once

#include "../../csrc/kernels/cells.h"
#include "../../csrc/kernels/cuda/recurrence.h"
#include "../../csrc/kernels/images.h"
#include "tensors.h"

namespace fastseq {

inline void add_region(std::vector<simt::Region>& regions, const char* name, const void* p,
                       int64_t elements, int64_t bytes, bool writable) {
  const auto begin = reinterpret_cast<uintptr_t>(p);
  if (p) {
    regions.push_back({name, begin, begin + static_cast<uintptr_t>(elements * bytes), writable});
  }
}

inline int64_t pooled(const Images& images, const PoolWindow& pool) {
  return images.batch * images.channels * pool.h.out * pool.w.out;
}

// An argument block with its element type, cuda::Of<S, Block>.
template <template <class, class> class Of, class S, class Block>
void add_regions(const Of<S, Block>& a, std::vector<simt::Region>& regions) {
  const int64_t inputs = a.images.numel();
  constexpr bool kForward = requires { a.y; };
  if constexpr (requires { a.x; }) add_region(regions, "x", a.x, inputs, sizeof(S), false);
  if constexpr (requires { a.grad_x; }) {
    add_region(regions, "grad_x", a.grad_x, inputs, sizeof(S), true);
  }
  int64_t outputs = inputs;
  if constexpr (requires { a.pool; }) {
    outputs = pooled(a.images, a.pool);
    add_region(regions, "offsets", a.offsets, outputs, a.pool.wide() ? 4 : 1, kForward);
  }
  if constexpr (kForward) {
    add_region(regions, "y", a.y, outputs, sizeof(S), true);
  } else {
    add_region(regions, "grad_y", a.grad_y, outputs, sizeof(S), false);
  }
}

// The tensors of one step of the recurrence: of the whole sequence, and of this step.
struct RecurrenceSizes {
  int64_t rows, batch, hidden, state, gates, cached, active;

  template <class Block, class Rows>
  RecurrenceSizes(const Block& a, const Rows& step)
      : rows(a.seq.rows()),
        batch(a.seq.batch),
        hidden(a.hidden),
        state(a.state),
        gates(gates_of(a.cell)),
        cached(cached_of(a.cell)),
        active(batch) {
    if constexpr (requires { step.active; }) active = step.active;
  }
};

template <template <class, class> class Of, class S, class... Step>
void add_launch_regions(std::vector<simt::Region>& regions, const Of<S, RecurrenceForward>& a,
                        const cuda::StepForward& s, const Step&... step) {
  const RecurrenceSizes n(a, step...);
  const auto add = [&](const char* name, const void* p, int64_t elements, bool writable,
                       int64_t bytes = sizeof(S)) {
    add_region(regions, name, p, elements, bytes, writable);
  };
  const bool projected = s.output;
  constexpr int64_t kSum = sizeof(accumulate_t<S>);
  add("pre", a.pre, n.rows * n.gates * n.hidden, false);
  add("product", s.product, n.active * n.gates * n.hidden, false);
  add("bias_hn", a.bias_hn, n.hidden, false);
  add("cell", s.cell, n.batch * n.hidden, true, kSum);
  add("h_n", a.h_n, n.batch * n.state, !projected);
  add("y", a.y, n.rows * n.state, !projected);
  add("output", s.output, n.active * n.hidden, true);
  add("gates", a.gates, n.rows * n.cached * n.hidden, true);
  add("cells", a.cells, n.rows * n.hidden, true, kSum);
}

// Of any kernel of a backward step.
template <template <class, class> class Of, class S, class Step, class... More>
void add_launch_regions(std::vector<simt::Region>& regions, const Of<S, RecurrenceBackward>& a,
                        const cuda::StepBackward& s, const Step& step, const More&...) {
  const RecurrenceSizes n(a, step);
  const auto add = [&](const char* name, const void* p, int64_t elements, bool writable,
                       int64_t bytes = sizeof(S)) {
    add_region(regions, name, p, elements, bytes, writable);
  };
  constexpr int64_t kSum = sizeof(accumulate_t<S>);
  add("product", s.product, n.batch * n.state, false);
  add("carry", s.carry, n.batch * n.state, true, kSum);
  add("cell", s.cell, n.batch * n.hidden, true, kSum);
  add("output", s.output, n.active * n.hidden, false);
  add("side", s.side, n.active * n.gates * n.hidden, true);
  add("grad_y", a.grad_y, n.rows * n.state, false);
  add("grad_gates", a.grad_gates, n.rows * n.cached * n.hidden, false);
  add("grad_cells", a.grad_cells, n.rows * n.hidden, false, kSum);
  add("y", a.y, n.rows * n.state, false);
  add("gates", a.gates, n.rows * n.cached * n.hidden, false);
  add("cells", a.cells, n.rows * n.hidden, false, kSum);
  add("h0", a.h0, n.batch * n.state, false);
  add("c0", a.c0, n.batch * n.hidden, false);
  add("grad_pre", a.grad_pre, n.rows * n.gates * n.hidden, true);
  add("grad_aux", a.grad_aux, n.rows * (s.output ? n.state : n.hidden), true);
  add("grad_h0", a.grad_h0, n.batch * n.state, true);
  add("grad_c0", a.grad_c0, n.batch * n.hidden, true);
}

// Of a block that runs all steps: SelfForwardBlock, SelfBackwardBlock.
template <template <class, class, int> class Block, class S, class C, int kHidden>
void add_regions(const Block<S, C, kHidden>& a, std::vector<simt::Region>& regions) {
  const int64_t steps = a.seq.steps, batch = a.seq.batch, state = batch * a.hidden;
  int64_t all = steps * state;  // of all rows
  if (a.seq.table) {
    all = 0;
    for (int64_t b = 0; b < batch; ++b) all += a.seq.table[steps + b] * a.hidden;
  }
  const auto add = [&](const char* name, const void* p, int64_t elements, bool writable,
                       int64_t bytes = sizeof(S)) {
    add_region(regions, name, p, elements, bytes, writable);
  };
  constexpr bool kForward = requires { a.pre; };
  add("table", a.seq.table, steps + batch, false, sizeof(int32_t));
  add("h0", a.h0, state, false);
  add("c0", a.c0, state, false);
  add("weight_hh", a.weight_hh, C::kGates * a.hidden * a.hidden, false);
  add("y", a.y, all, kForward);
  add("gates", a.gates, all * C::kCached, kForward);
  add("cells", a.cells, all, kForward, sizeof(float));
  if constexpr (kForward) {
    add("pre", a.pre, all * C::kGates, false);
    add("bias_hn", a.bias_hn, a.hidden, false);
    add("h_n", a.h_n, state, true);
    add("c_n", a.c_n, state, true);
  } else {
    add("grad_y", a.grad_y, all, false);
    add("grad_h_n", a.grad_h_n, state, false);
    add("grad_c_n", a.grad_c_n, state, false);
    add("grad_pre", a.grad_pre, all * C::kGates, true);
    add("grad_aux", a.grad_aux, all, true);
    add("grad_h0", a.grad_h0, state, true);
    add("grad_c0", a.grad_c0, state, true);
  }
}

}  // namespace fastseq
