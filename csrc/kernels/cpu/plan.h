// The planner: how a call is split over threads. Choices by shape live here and nowhere else, so
// that `fastseq.explain` can print what a call will do.
#pragma once

#include "../cells.h"

namespace fastseq {

struct RecurrencePlan {
  int64_t slices;  // slices of the batch, each with its own time loop
};

// Below this many multiply-adds a slice costs less than waking a thread for it (about 1 us).
constexpr int64_t kLeastSliceWork = 50'000;

inline RecurrencePlan plan_recurrence(Cell cell, int64_t rows, int64_t batch, int64_t hidden,
                                      int64_t state, int64_t threads) {
  const int64_t work = rows * gates_of(cell) * hidden * state;
  int64_t slices = work / kLeastSliceWork;
  slices = slices > threads ? threads : slices;
  slices = slices > batch ? batch : slices;
  return {slices < 1 ? 1 : slices};
}

}  // namespace fastseq
