// The tensors of the mailbox's launches, for the machine.
#pragma once

#include "../../csrc/kernels/cuda/mailbox_backward.cuh"
#include "../../csrc/kernels/cuda/mailbox_forward.cuh"

namespace fastseq::cuda {

// Names the tensors of a launch, which are those of both directions where there are two.
template <class S, class Call>
struct MailboxNamer {
  const Call& a;
  std::vector<simt::Region>& regions;
  int64_t steps = a.seq.steps, batch = a.seq.batch, units = a.seq.directions * a.hidden;
  int64_t state = batch * units;
  int64_t every = (a.seq.table ? a.seq.table[steps] : steps * batch) * units;

  void operator()(const char* name, const void* p, int64_t elements, bool writable,
                  int64_t bytes = sizeof(S)) const {
    add_region(regions, name, p, elements, bytes, writable);
  }
  template <class Shape>
  void mailbox(const MailboxChunk& c) const {
    const int64_t both = a.seq.directions, tiles = both * divide_up(batch, kMailboxRows);
    const int64_t slot = tiles * Shape::pairs(a.hidden) * Shape::kPairWords;
    (*this)("mailbox", c.words, slot*(c.count + 1), true, sizeof(uint32_t));
    (*this)("weights", c.weights, both* c.blocks* Shape::kBlockWeights, false, sizeof(uint32_t));
    (*this)("kept", c.kept, state, true, sizeof(float));
    (*this)("table", a.seq.table, steps + 1 + batch, false, sizeof(int32_t));
    (*this)("reset", a.resets.marks, steps* batch, false, 1);
    (*this)("reset_h", a.resets.h, state, false);
    (*this)("reset_c", a.resets.c, state, false);
  }
};

template <class Shape>
void add_regions(const MailboxWeights<Shape>& a, std::vector<simt::Region>& regions) {
  const int64_t gates = Shape::kParts * Shape::kSums;
  add_region(regions, "weight_hh", a.weight_hh, a.directions * gates * a.hidden * a.hidden,
             sizeof(typename Shape::S), false);
  add_region(regions, "weights", a.packed, a.words(), sizeof(uint32_t), true);
}

template <class S, class C, int kHidden, int kWarps>
void add_regions(const ForwardBlock<S, C, kHidden, kWarps>& a, std::vector<simt::Region>& regions) {
  const MailboxNamer<S, MailboxForward> add{a, regions};
  add("pre", a.pre, add.every * C::kGates, false);
  add("h0", a.h0, add.state, false);
  add("c0", a.c0, add.state, false);
  add("bias_hn", a.bias_hn, add.units, false);
  add("y", a.y, add.every, true);
  add("h_n", a.h_n, add.state, true);
  add("c_n", a.c_n, add.state, true);
  add("gates", a.gates, add.every * C::kCached, true);
  add("cells", a.cells, add.every, true, sizeof(float));
  add.template mailbox<typename ForwardBlock<S, C, kHidden, kWarps>::Shape>(a.chunk);
}

template <class S, class C, int kHidden, int kWarps>
void add_regions(const BackwardBlock<S, C, kHidden, kWarps>& a,
                 std::vector<simt::Region>& regions) {
  const MailboxNamer<S, MailboxBackward> add{a, regions};
  add("grad_y", a.grad_y, add.every, false);
  add("grad_h_n", a.grad_h_n, add.state, false);
  add("grad_c_n", a.grad_c_n, add.state, false);
  add("y", a.y, add.every, false);
  add("gates", a.gates, add.every * C::kCached, false);
  add("cells", a.cells, add.every, false, sizeof(float));
  add("h0", a.h0, add.state, false);
  add("c0", a.c0, add.state, false);
  add("grad_pre", a.grad_pre, add.every * C::kGates, true);
  add("grad_aux", a.grad_aux, add.every, true);
  add("grad_h0", a.grad_h0, add.state, true);
  add("grad_c0", a.grad_c0, add.state, true);
  add("grad_reset_h", a.grad_reset_h, add.state, true, sizeof(float));
  add("grad_reset_c", a.grad_reset_c, add.state, true, sizeof(float));
  add.template mailbox<typename BackwardBlock<S, C, kHidden, kWarps>::Shape>(a.chunk);
}

}  // namespace fastseq::cuda
