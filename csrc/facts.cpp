// What Python asks of the CPU library beside its ops: plain C functions, which ctypes calls
// (fastseq/_native.py). So nothing here depends on a version of Python, and one wheel serves all.
#include "kernels/cpu/caches.h"
#include "kernels/cpu/capability.h"
#include "kernels/cpu/plan.h"
#include "kernels/cuda/persistent.h"

#define FASTSEQ_ENTRY extern "C" __attribute__((visibility("default")))

// Names of instruction sets, slowest first; null past the last.
FASTSEQ_ENTRY const char* fastseq_capability_name(int i) {
  return i >= 0 && i < fastseq::kCapabilities ? fastseq::kCapabilityNames[i] : nullptr;
}

// Whether this build contains that one and this machine has it.
FASTSEQ_ENTRY int fastseq_capability_available(int i) {
  return fastseq::capability_available(static_cast<fastseq::Capability>(i));
}

// The one whose kernels run.
FASTSEQ_ENTRY int fastseq_capability() { return static_cast<int>(fastseq::capability()); }

// Bytes of the L1, L2 and L3 caches.
FASTSEQ_ENTRY void fastseq_caches(int64_t* bytes) {
  const fastseq::Caches& found = fastseq::caches();
  bytes[0] = found.l1;
  bytes[1] = found.l2;
  bytes[2] = found.l3;
}

// How a recurrence is split over threads: those in use, slices of the batch, slices of the units.
// cell: a code of fastseq::Cell.
FASTSEQ_ENTRY void fastseq_plan_recurrence(int cell, int64_t steps, int64_t batch, int64_t input,
                                           int64_t hidden, int64_t state, int64_t threads,
                                           int64_t* plan) {
  const auto kind = static_cast<fastseq::Cell>(cell);
  const int64_t useful = fastseq::useful_threads(kind, steps * batch, hidden, state, input, threads,
                                                 fastseq::asked_plan());
  // Units that a thread takes whole: a vector of float32 of each gate, or four of a plain cell.
  const int64_t lanes = fastseq::capability() >= fastseq::Capability::kAvx512 ? 16
                        : fastseq::capability() == fastseq::Capability::kAvx2 ? 8
                                                                              : 4;
  const int64_t block = fastseq::gates_of(kind) > 1 ? lanes : 4 * lanes;
  const int64_t panels = (hidden + block - 1) / block;
  const auto chosen = fastseq::plan_recurrence(kind, steps, batch, hidden, state, panels, useful,
                                               fastseq::asked_plan());
  plan[0] = useful;
  plan[1] = chosen.batches;
  plan[2] = chosen.units;
}

// Asks for a plan, for every call from now on; zeros: the planner's own.
FASTSEQ_ENTRY void fastseq_ask_for_plan(int64_t batches, int64_t units, int64_t chunk) {
  fastseq::ask_for_plan({batches, units, chunk});
}

// The CUDA kernel that runs all steps of such a layer in one launch, built or not; or "".
FASTSEQ_ENTRY const char* fastseq_persistent_kernel(int cell, int itemsize, int64_t hidden) {
  const fastseq::DType dtype = itemsize == 2   ? fastseq::DType::kHalf
                               : itemsize == 4 ? fastseq::DType::kFloat
                                               : fastseq::DType::kDouble;
  switch (fastseq::cuda::persistent_kernel(static_cast<fastseq::Cell>(cell), dtype, hidden)) {
    case fastseq::cuda::Persistent::kSelf:
      return "self";
    case fastseq::cuda::Persistent::kMailbox:
      return "mailbox";
    case fastseq::cuda::Persistent::kNone:
      break;
  }
  return "";
}
