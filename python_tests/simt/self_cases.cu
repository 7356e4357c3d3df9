// The recurrence in one launch, for test_self.py.
#include "../../csrc/kernels/cuda/self_forward.cuh"
#include "cases.h"

namespace fastseq {

template <class S, class C, int kHidden>
void add_regions(const cuda::SelfBlock<S, C, kHidden>& a, std::vector<simt::Region>& regions) {
  const int64_t state = a.batch * a.hidden, all = a.steps * state;
  const auto add = [&](const char* name, const void* p, int64_t elements, bool writable,
                       int64_t bytes = sizeof(S)) {
    add_region(regions, name, p, elements, bytes, writable);
  };
  add("pre", a.pre, all * C::kGates, false);
  add("h0", a.h0, state, false);
  add("c0", a.c0, state, false);
  add("weight_hh", a.weight_hh, C::kGates * a.hidden * a.hidden, false);
  add("bias_hn", a.bias_hn, a.hidden, false);
  add("y", a.y, all, true);
  add("h_n", a.h_n, state, true);
  add("c_n", a.c_n, state, true);
  add("gates", a.gates, all * C::kCached, true);
  add("cells", a.cells, all, true, sizeof(float));
}

namespace cases {
namespace {

template <class S>
const char* of_cell(Cell cell, const cuda::SelfForward& a) {
  switch (cell) {
    case Cell::kLstm:
      return a.hidden > 32 ? cuda::self_forward<S, LstmCell, 64>(a, nullptr)
                           : cuda::self_forward<S, LstmCell, 32>(a, nullptr);
    case Cell::kGru:
      return cuda::self_forward<S, GruCell, 32>(a, nullptr);
    case Cell::kRnnTanh:
      return cuda::self_forward<S, RnnTanhCell, 32>(a, nullptr);
    case Cell::kRnnRelu:
      return cuda::self_forward<S, RnnReluCell, 32>(a, nullptr);
  }
  return "no such cell";
}

}  // namespace
}  // namespace cases
}  // namespace fastseq

EXPORT const char* run_self(int dtype, int cell, void** t, int64_t steps, int64_t batch,
                            int64_t hidden, bool reverse) {
  using namespace fastseq;
  const cuda::SelfForward a{t[0], t[1], t[2], t[3],  t[4],  t[5],   t[6],
                            t[7], t[8], t[9], steps, batch, hidden, reverse};
  const auto kind = static_cast<Cell>(cell);
  if (dtype == 0) return cases::of_cell<float>(kind, a);
  if (dtype == 1) return cases::of_cell<BFloat16>(kind, a);
  return cases::of_cell<Half>(kind, a);
}
