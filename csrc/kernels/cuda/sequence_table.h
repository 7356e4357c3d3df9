// Which rows take part in which step, for kernels that run all steps: a Sequence points to memory
// of the host, which a kernel cannot read.
#pragma once

#include "device.h"

namespace fastseq::cuda {

// Steps of a batch as a kernel sees them, its rows counted in 32 bits. Of a packed one, a table on
// the device holds the row at which each step starts, where the last one ends, and then the steps
// of each row of the batch; null: each row has all.
struct TableOfSteps {
  int64_t steps, batch;  // T, B
  const int32_t* table;  // [T + 1 + B]
  bool reverse;

  // Row of every [N, ...] tensor at which step t starts.
  FASTSEQ_DEVICE int offset(int t) const {
    return table ? device::load(table + t) : t * static_cast<int>(batch);
  }
  FASTSEQ_DEVICE int length(int row) const {
    return table ? device::load(table + steps + 1 + row) : static_cast<int>(steps);
  }
};

// Numbers in the table of a sequence: none of a dense batch.
inline int64_t table_size(const Sequence& seq) {
  return seq.batch_sizes ? seq.steps + 1 + seq.batch : 0;
}

// Writes the table of a packed batch. The numbers travel as arguments of small kernels, a thousand
// at a time: nothing is waited for, and a CUDA graph keeps them. Returns null, or what went wrong.
const char* write_table(const Sequence& seq, int32_t* table, void* stream);

inline TableOfSteps steps_of(const Sequence& seq, const int32_t* table) {
  return {.steps = seq.steps,
          .batch = seq.batch,
          .table = seq.batch_sizes ? table : nullptr,
          .reverse = seq.reverse};
}

}  // namespace fastseq::cuda
