// Which rows take part in which step, and where a state is replaced, for kernels that run all
// steps: a Sequence points to memory of the host, which a kernel cannot read.
#pragma once

#include "device.h"

namespace fastseq::cuda {

// Steps of a batch as a kernel sees them, its rows counted in 32 bits. Of a ragged one, a table on
// the device holds the row at which each step starts, where the last one ends, and then the steps
// of each row of the batch; null: each row has all.
struct TableOfSteps {
  int64_t steps, batch, rows;  // T, B, N
  const int32_t* table;        // [T + 1 + B]
  bool reverse;                // the first direction; the second one runs the other way
  int64_t directions;          // 1 or 2

  // Row of every [N, ...] tensor at which step t starts.
  FASTSEQ_DEVICE int offset(int t) const {
    return table ? device::load(table + t) : t * static_cast<int>(batch);
  }
  FASTSEQ_DEVICE int length(int row) const {
    return table ? device::load(table + steps + 1 + row) : static_cast<int>(steps);
  }
};

// One direction of a call. Tensors of both lie one behind the other in one allocation, so that to a
// kernel a direction is a number of rows to skip, which is the same for all lanes: a second set of
// pointers would need registers, and backward has none left. What follows of its number is made
// where it is needed, for the same reason. Rows are counted as in tensors of states, [D, B, ...].
struct Direction {
  const TableOfSteps& seq;
  int number;  // 0, or 1: the second one

  // Whether it runs from the last step to the first.
  FASTSEQ_DEVICE bool reverse() const { return seq.reverse != (number != 0); }
  // Its rows, from the first one on.
  FASTSEQ_DEVICE int first() const { return number ? static_cast<int>(seq.batch) : 0; }
  FASTSEQ_DEVICE int end() const { return first() + static_cast<int>(seq.batch); }
  FASTSEQ_DEVICE int length(int row) const { return seq.length(row - first()); }
  // Where step t starts in tensors of all steps, [D, N, ...]: a row is still to be added.
  FASTSEQ_DEVICE int offset(int t) const {
    return seq.offset(t) + (number ? static_cast<int>(seq.rows - seq.batch) : 0);
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
  FASTSEQ_DEVICE bool before(const Direction& way, int t, int row, int length) const {
    return marks && t < length && marked(way, way.reverse() ? t + 1 : t, row, length);
  }
  FASTSEQ_DEVICE bool after(const Direction& way, int t, int row, int length) const {
    return marks && (t > 0 || !way.reverse()) &&
           marked(way, way.reverse() ? t : t + 1, row, length);
  }

 private:
  // Marks are those of both directions.
  FASTSEQ_DEVICE bool marked(const Direction& way, int t, int row, int length) const {
    const int batch = static_cast<int>(way.seq.batch);
    return t < length && device::memory::load(marks + t * batch + (row - way.first()));
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
          .rows = seq.rows(),
          .table = is_ragged(seq) ? table : nullptr,
          .reverse = seq.reverse,
          .directions = seq.directions};
}

inline Resets resets_of(const Extras& extra) {
  return {.marks = extra.reset, .h = extra.reset_h, .c = extra.reset_c};
}

}  // namespace fastseq::cuda
