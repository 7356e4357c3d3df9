// The tensors of a launch, as its argument blocks describe them.
#pragma once

#include "../../csrc/kernels/cells.h"
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

// One step of the recurrence is held to its own rows of the tensors.
template <class S>
struct StepRegions {
  std::vector<simt::Region>& regions;
  int64_t active;

  // The first rows of a tensor that has one for each row of the batch.
  void add(const char* name, const void* p, int64_t width, bool writable,
           int64_t bytes = sizeof(S)) const {
    add_region(regions, name, p, active * width, bytes, writable);
  }
  // The rows from `first` on of one that has them for all steps.
  void add_at(int64_t first, const char* name, const void* p, int64_t width, bool writable,
              int64_t bytes = sizeof(S)) const {
    if (p) add(name, static_cast<const char*>(p) + first * width * bytes, width, writable, bytes);
  }
};

// Of a cell's kernel of one step. With a projection (output) the states are not its own.
template <template <class, class, class> class OfCell, class S, class C, class Block>
void add_regions(const OfCell<S, C, Block>& a, std::vector<simt::Region>& regions) {
  constexpr int64_t kSum = sizeof(accumulate_t<S>);
  const int64_t H = a.hidden, at = a.rows.at;
  const StepRegions<S> now{regions, a.rows.active};
  now.add("output", a.output, H, true);
  now.add("cell", a.cell, H, true, kSum);
  if constexpr (requires { a.pre; }) {
    now.add_at(at, "pre", a.pre, C::kGates * H, false);
    now.add("product", a.product, C::kGates * H, false);
    add_region(regions, "bias_hn", a.bias_hn, H, sizeof(S), false);
    now.add_at(at, "gates", a.gates, C::kCached * H, true);
    now.add_at(at, "cells", a.cells, H, true, kSum);
    if (a.output) return;
    now.add("h_n", a.h_n, H, true);
    now.add_at(at, "y", a.y, H, true);
  } else {
    const StepRegions<S> before{regions, a.rows.carried};
    now.add_at(at, "gates", a.gates, C::kCached * H, false);
    now.add_at(at, "grad_gates", a.grad_gates, C::kCached * H, false);
    now.add_at(at, "cells", a.cells, H, false, kSum);
    before.add_at(a.rows.previous, "cells", a.cells, H, false, kSum);
    now.add_at(at, "grad_cells", a.grad_cells, H, false, kSum);
    now.add("c0", a.c0, H, false);
    now.add("side", a.side, C::kGates * H, true);
    now.add_at(at, "grad_pre", a.grad_pre, C::kGates * H, true);
    if (a.output) return;
    now.add("product", a.product, H, false);
    now.add("carry", a.carry, H, true, kSum);
    now.add_at(at, "grad_y", a.grad_y, H, false);
    now.add_at(at, "y", a.y, H, false);
    before.add_at(a.rows.previous, "y", a.y, H, false);
    now.add("h0", a.h0, H, false);
    if (C::kSplitsGates) now.add_at(at, "grad_aux", a.grad_aux, H, true);
  }
}

// The kernels around those of a cell: the gradient of a projected state, and the last one of all.
template <template <class, class> class Of, class S, class Block>
  requires requires(Block a) { a.carry; }
void add_regions(const Of<S, Block>& a, std::vector<simt::Region>& regions) {
  constexpr int64_t kSum = sizeof(accumulate_t<S>);
  if constexpr (requires { a.rows; }) {
    const StepRegions<S> now{regions, a.rows.active};
    now.add("product", a.product, a.state, false);
    now.add("carry", a.carry, a.state, true, kSum);
    now.add_at(a.rows.at, "grad_y", a.grad_y, a.state, false);
    now.add_at(a.rows.at, "grad_aux", a.grad_aux, a.state, true);
  } else {
    add_region(regions, "product", a.product, a.states, sizeof(S), false);
    add_region(regions, "carry", a.carry, a.states, kSum, false);
    add_region(regions, "cell", a.cell, a.cells, kSum, false);
    add_region(regions, "grad_h0", a.grad_h0, a.states, sizeof(S), true);
    add_region(regions, "grad_c0", a.grad_c0, a.cells, sizeof(S), true);
  }
}

// Of a block that runs all steps: SelfForwardBlock, SelfBackwardBlock.
template <template <class, class, int> class Block, class S, class C, int kHidden>
void add_regions(const Block<S, C, kHidden>& a, std::vector<simt::Region>& regions) {
  const int64_t steps = a.seq.steps, batch = a.seq.batch;
  // Of both directions where there are two: states, rows of all steps, units.
  const int64_t units = a.seq.directions * a.hidden, state = batch * units;
  const int64_t all = (a.seq.table ? a.seq.table[steps] : steps * batch) * units;
  const auto add = [&](const char* name, const void* p, int64_t elements, bool writable,
                       int64_t bytes = sizeof(S)) {
    add_region(regions, name, p, elements, bytes, writable);
  };
  constexpr bool kForward = requires { a.pre; };
  add("table", a.seq.table, steps + 1 + batch, false, sizeof(int32_t));
  add("reset", a.resets.marks, steps * batch, false, 1);
  add("reset_h", a.resets.h, state, false);
  add("reset_c", a.resets.c, state, false);
  add("h0", a.h0, state, false);
  add("c0", a.c0, state, false);
  add("weight_hh", a.weight_hh, C::kGates * a.hidden * units, false);
  add("y", a.y, all, kForward);
  add("gates", a.gates, all * C::kCached, kForward);
  add("cells", a.cells, all, kForward, sizeof(float));
  if constexpr (kForward) {
    add("pre", a.pre, all * C::kGates, false);
    add("bias_hn", a.bias_hn, units, false);
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
    add("grad_reset_h", a.grad_reset_h, state, true, sizeof(float));
    add("grad_reset_c", a.grad_reset_c, state, true, sizeof(float));
  }
}

}  // namespace fastseq

namespace fastseq::cuda {

// A tensor of so many elements, by its pointer; what is const is not written.
template <class T>
void add_tensor(std::vector<simt::Region>& regions, const char* name, T* p, int64_t elements) {
  add_region(regions, name, p, elements, sizeof(T), !std::is_const_v<T>);
}

template <class Places>
  requires requires(Places p) { p.wide; }
void add_tensor(std::vector<simt::Region>& regions, const char* name, const Places& places,
                int64_t elements) {
  constexpr bool kWritten = !std::is_const_v<std::remove_pointer_t<decltype(places.tensor)>>;
  add_region(regions, name, places.tensor, elements, places.wide ? 4 : 1, kWritten);
}

// The arguments of an image kernel. Those with a window pool, and their outputs are as many.
template <class Arguments>
  requires requires(Arguments a) { a.images; }
void add_regions(const Arguments& a, std::vector<simt::Region>& regions) {
  const int64_t inputs = a.images.numel();
  int64_t outputs = inputs;
  if constexpr (requires { a.window; }) {
    outputs = a.images.batch * a.images.channels * a.window.outputs();
    add_tensor(regions, "offsets", a.offsets, outputs);
  }
  if constexpr (requires { a.x; }) add_tensor(regions, "x", a.x, inputs);
  if constexpr (requires { a.y; }) add_tensor(regions, "y", a.y, outputs);
  if constexpr (requires { a.grad_y; }) add_tensor(regions, "grad_y", a.grad_y, outputs);
  if constexpr (requires { a.grad_x; }) add_tensor(regions, "grad_x", a.grad_x, inputs);
}

}  // namespace fastseq::cuda
