// Runs a kernel for a team: one parallel region, whose threads form it.
#pragma once

#include <vector>

#include "../kernels/cpu/plan.h"
#include "../kernels/cpu/recurrence.h"
#include "memory.h"

namespace fastseq::ops {

template <class Args>
struct TeamKernel {
  int64_t (*team_bytes)(const Args&);
  int64_t (*member_bytes)(const Args&, int64_t members);
  void (*run)(const Args&, const Member&, char* team, char* own);
};

// threads: wanted; fewer may come.
template <class Args>
void run_team(const TeamKernel<Args>& kernel, const Args& args, int64_t threads) {
  const int64_t shared = rounded(kernel.team_bytes(args));
  // Fewer threads than asked for may come; the fewer, the more each needs.
  std::vector<int64_t> own(threads + 1);
  int64_t most = 0;
  for (int64_t n = 1; n <= threads; ++n) {
    own[n] = rounded(kernel.member_bytes(args, n));
    most = n * own[n] > most ? n * own[n] : most;
  }
  const Workspace memory(shared + most);
  char* const base = memory.data();
  std::vector<Barrier> groups(threads);
  Team team{threads, groups.data()};
  const auto work = [&](int64_t first, int64_t last) {
    Member self;
    if (!join(team, last - first, self)) return;
    kernel.run(args, self, base, base + shared + self.id * own[self.count]);
  };
  if (threads == 1) {
    work(0, 1);
  } else {
    torch::stable::parallel_for(0, threads, 1, work);
  }
}

// A recurrence, with as many threads as are worth having.
template <class Args>
void run_team(const TeamKernel<Args>& kernel, Args args) {
  args.asked = asked_plan();
  run_team(kernel, args,
           useful_threads(args.cell, args.seq.rows(), args.hidden, args.state, args.in.size,
                          torch::stable::get_num_threads(), args.asked));
}

inline TeamKernel<RecurrenceForward> forward_kernel(DType dtype) {
  const RecurrenceKernels& k = recurrence_kernels(dtype);
  return {k.forward_team_bytes, k.forward_member_bytes, k.forward_run};
}
inline TeamKernel<RecurrenceBackward> backward_kernel(DType dtype) {
  const RecurrenceKernels& k = recurrence_kernels(dtype);
  return {k.backward_team_bytes, k.backward_member_bytes, k.backward_run};
}

}  // namespace fastseq::ops
