// Which rows take part in which step, and where a state is replaced, for kernels that run all
// steps: a Sequence points to memory of the host, which a kernel cannot read.
#pragma once

#include "device.h"

namespace fastseq::cuda {

// Steps of a batch as a kernel sees them, its rows counted in 32 bits. Of a ragged one, a table on
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

// What replaces the states of rows in mid-sequence (Extras in types.h): a mark stands between a
// step and the one before it in time, and the recurrence crosses it in either direction.
struct Resets {
  const bool* marks;  // [T, B]   null: there are none
  const void* h;      // S [B, H] what replaces h; null: zeros
  const void* c;      // S [B, H] LSTM only

  // Whether the state before step t of a row is replaced, and the one after it. No mark counts
  // beyond the row's length, nor before the first step of a reverse recurrence.
  FASTSEQ_DEVICE bool before(const TableOfSteps& seq, int t, int row, int length) const {
    return marks && t < length && marked(seq, seq.reverse ? t + 1 : t, row, length);
  }
  FASTSEQ_DEVICE bool after(const TableOfSteps& seq, int t, int row, int length) const {
    return marks && (t > 0 || !seq.reverse) && marked(seq, seq.reverse ? t : t + 1, row, length);
  }

 private:
  FASTSEQ_DEVICE bool marked(const TableOfSteps& seq, int t, int row, int length) const {
    return t < length && device::memory::load(marks + t * static_cast<int>(seq.batch) + row);
  }
};

// Whether rows differ in length.
inline bool is_ragged(const Sequence& seq) { return seq.batch_sizes || seq.lengths; }

// Numbers in the table of a sequence: none where all rows have all steps.
inline int64_t table_size(const Sequence& seq) {
  return is_ragged(seq) ? seq.steps + 1 + seq.batch : 0;
}

// Writes the table of a ragged batch. Of a packed one the numbers travel as arguments of small
// kernels, a thousand at a time; lengths are on the device already. Nothing is waited for, and a
// CUDA graph keeps it. Returns null, or what went wrong.
const char* write_table(const Sequence& seq, int32_t* table, void* stream);

inline TableOfSteps steps_of(const Sequence& seq, const int32_t* table) {
  return {.steps = seq.steps,
          .batch = seq.batch,
          .table = is_ragged(seq) ? table : nullptr,
          .reverse = seq.reverse};
}

inline Resets resets_of(const Extras& extra) {
  return {.marks = extra.reset, .h = extra.reset_h, .c = extra.reset_c};
}

}  // namespace fastseq::cuda
