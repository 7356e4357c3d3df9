// The planner: how a call is split over threads. Choices by shape live here and nowhere else, so
// that `fastseq.explain` can print what a call will do.
#pragma once

#include "../cells.h"

namespace fastseq {

// Threads stand in a grid: `batches` slices of the batch, each with a time loop of its own, times
// `units` slices of the hidden units, which meet at a barrier after every step.
struct RecurrencePlan {
  int64_t batches, units;
};

// Below this many multiply-adds a thread costs less than it brings (waking one: about 1 us).
constexpr int64_t kLeastThreadWork = 50'000;
// ... and in every step, where threads meet at a barrier (about 0.2 us).
constexpr int64_t kLeastStepWork = 5'000;

// Threads that are worth having, of those allowed. rows: of all steps together.
FASTSEQ_HD int64_t useful_threads(Cell cell, int64_t rows, int64_t hidden, int64_t state,
                                  int64_t input, int64_t threads) {
  const int64_t work = rows * gates_of(cell) * hidden * (state + input);
  const int64_t most = work / kLeastThreadWork;
  return most < 1 ? 1 : most < threads ? most : threads;
}

// panels: blocks of hidden units that a thread takes whole.
FASTSEQ_HD RecurrencePlan plan_recurrence(Cell cell, int64_t batch, int64_t hidden, int64_t state,
                                          int64_t panels, int64_t threads) {
  constexpr int64_t kFewRows = 4;  // a slice of fewer rows leaves most of a tile empty
  const int64_t step = batch * gates_of(cell) * hidden * state;
  RecurrencePlan plan{1, 1};
  plan.batches = threads < batch / kFewRows ? threads : batch / kFewRows;
  if (plan.batches < 1) plan.batches = 1;
  plan.units = threads / plan.batches;
  if (plan.units > panels) plan.units = panels;
  while (plan.units > 1 && step / (plan.batches * plan.units) < kLeastStepWork) --plan.units;
  if (plan.units == 1 && plan.batches < threads) {
    plan.batches = threads < batch ? threads : batch;
  }
  return plan;
}

}  // namespace fastseq
