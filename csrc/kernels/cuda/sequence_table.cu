// The table of a packed batch, carried to the device in the arguments of its launches, and that of
// a padded one, made of lengths that are there already.
#include <algorithm>
#include <vector>

#include "common.h"
#include "sequence_table.h"

namespace fastseq::cuda {
namespace {

// Arguments of a launch may take 4,096 bytes.
struct TablePart {
  static constexpr int kNumbers = 1000;
  int32_t* table;  // from its first number of this part on
  int count;
  int32_t numbers[kNumbers];
};

FASTSEQ_KERNEL table_kernel(const TablePart part) {
  const int i = static_cast<int>(device::thread());
  if (i < part.count) device::store(part.table + i, part.numbers[i]);
}

struct PaddedTable {
  int32_t* table;
  const int64_t* lengths;
  int steps, batch;
};

FASTSEQ_KERNEL padded_table_kernel(const PaddedTable a) {
  const int i = static_cast<int>(device::thread()), row = i - a.steps - 1;
  if (row < 0) {
    device::store(a.table + i, i * a.batch);
  } else if (row < a.batch) {
    const int64_t length = device::memory::load(a.lengths + row);
    const int steps = length < 0 ? 0 : length < a.steps ? static_cast<int>(length) : a.steps;
    device::store(a.table + i, steps);
  }
}

}  // namespace

const char* write_table(const Sequence& seq, int32_t* table, void* stream) {
  if (seq.lengths) {
    const PaddedTable args{.table = table,
                           .lengths = seq.lengths,
                           .steps = static_cast<int>(seq.steps),
                           .batch = static_cast<int>(seq.batch)};
    return device::launch(padded_table_kernel, table_size(seq), as_stream(stream), args);
  }
  std::vector<int32_t> numbers(seq.offsets, seq.offsets + seq.steps + 1);
  // Rows fall step by step: those between two steps' sizes end where the longer one was.
  int64_t row = seq.batch;
  const int64_t lengths = seq.steps + 1;
  numbers.resize(static_cast<size_t>(lengths + seq.batch));
  for (int64_t t = 0; t <= seq.steps; ++t) {
    const int64_t active = t < seq.steps ? seq.active(t) : 0;
    while (row > active) numbers[static_cast<size_t>(lengths + --row)] = static_cast<int32_t>(t);
  }
  for (size_t done = 0; done < numbers.size(); done += TablePart::kNumbers) {
    const size_t count = std::min<size_t>(TablePart::kNumbers, numbers.size() - done);
    TablePart part{.table = table + done, .count = static_cast<int>(count), .numbers = {}};
    std::copy_n(numbers.begin() + static_cast<int64_t>(done), count, part.numbers);
    const char* const error =
        device::launch(table_kernel, static_cast<int64_t>(count), as_stream(stream), part);
    if (error) return error;
  }
  return nullptr;
}

}  // namespace fastseq::cuda
