// The planner: how a call is split over threads. Choices by shape live here and nowhere else, so
// that `fastseq.explain` can print what a call will do.
#pragma once

#include "../cells.h"
#include "caches.h"

namespace fastseq {

// Threads stand in a grid: `batches` slices of the batch, each with a time loop of its own, times
// `units` slices of the hidden units, which meet at a barrier after every step.
struct RecurrencePlan {
  int64_t batches, units;
};

// Whether a thread that goes through so many bytes of weights at every step finds them no longer in
// its L2 cache. What is little more than the cache stays there in part, and the hardware's own
// prefetches do.
FASTSEQ_HD bool streams(int64_t weight_bytes) { return weight_bytes > 2 * caches().l2; }

// Rows of a chunk of the input product: so many fill tiles well, and with their product take half
// of the L2 cache at most, where the recurrence finds it. Weights that are not there anyway are
// read once a chunk, so that it should have many rows. row_bytes: of a row and its product;
// weight_bytes: of the thread's share of W_ih.
FASTSEQ_HD int64_t chunk_rows(int64_t row_bytes, int64_t weight_bytes) {
  constexpr int64_t kLeast = 48, kMost = 192;
  if (streams(weight_bytes)) return kMost;
  const int64_t rows = caches().l2 / 2 / row_bytes;
  return rows < kLeast ? kLeast : rows < kMost ? rows : kMost;
}

// The smaller one, and one at least.
FASTSEQ_HD int64_t at_most(int64_t n, int64_t most) {
  const int64_t smaller = n < most ? n : most;
  return smaller < 1 ? 1 : smaller;
}

// Below this many multiply-adds a thread costs more than it brings (waking one: 1 to 10 us).
constexpr int64_t kLeastThreadWork = 120'000;
// ... and in every step, where threads meet at a barrier (0.2 to 1 us); more where rows could be
// cut instead, and nobody would meet.
constexpr int64_t kLeastStepWork = 5'000, kLeastSharedStepWork = 12'000;

// Threads that are worth having, of those allowed. rows: of all steps together.
FASTSEQ_HD int64_t useful_threads(Cell cell, int64_t rows, int64_t hidden, int64_t state,
                                  int64_t input, int64_t threads, const AskedPlan& asked) {
  if (asked.batches > 0) {
    const int64_t members = asked.batches * asked.units;
    return members < threads ? members : threads;
  }
  const int64_t work = rows * gates_of(cell) * hidden * (state + input);
  const int64_t most = work / kLeastThreadWork;
  return most < 1 ? 1 : most < threads ? most : threads;
}

// panels: blocks of hidden units that a thread takes whole.
FASTSEQ_HD RecurrencePlan plan_recurrence(Cell cell, int64_t steps, int64_t batch, int64_t hidden,
                                          int64_t state, int64_t panels, int64_t threads,
                                          const AskedPlan& asked) {
  if (asked.batches > 0) {  // as near to it as the shape and the threads allow
    const int64_t batches = at_most(asked.batches, at_most(threads, batch));
    return {batches, at_most(asked.units, at_most(threads / batches, panels))};
  }
  const int64_t weights = gates_of(cell) * hidden * state, work = batch * weights;
  const int64_t bytes = weights * static_cast<int64_t>(sizeof(float));
  // Each slice of the batch reads all of W_hh, a slice of the units its part alone. That matters at
  // every step where W_hh is larger than the L2 cache, and in the first steps where another core
  // has packed half of it: few rows have not work enough beside it. Fewer still leave most of a
  // tile empty.
  constexpr int64_t kFewSteps = 8, kMuch = 96 << 10;
  const bool far = 2 * bytes >= 3 * caches().l2 || (steps <= kFewSteps && bytes >= kMuch);
  const int64_t few = far ? 24 : 4;
  RecurrencePlan plan{1, 1};
  plan.batches = threads < batch / few ? threads : batch / few;
  if (plan.batches < 1) plan.batches = 1;
  plan.units = threads / plan.batches;
  if (plan.units > panels) plan.units = panels;
  const int64_t least = batch < threads ? kLeastStepWork : kLeastSharedStepWork;
  while (plan.units > 1 && work / (plan.batches * plan.units) < least) --plan.units;
  if (plan.units == 1 && plan.batches < threads) {
    plan.batches = threads < batch ? threads : batch;
  }
  return plan;
}

// What FASTSEQ_PLAN, or ask_for_plan, says; for every call from then on.
AskedPlan asked_plan();
void ask_for_plan(const AskedPlan& plan);

}  // namespace fastseq
