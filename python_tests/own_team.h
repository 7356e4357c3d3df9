// A team of threads of our own, as csrc/ops/team_run.h makes one of torch's: kernels run without
// Python and torch.
#pragma once

#include <thread>
#include <vector>

#include "kernels/cpu/recurrence.h"

namespace fastseq::tests {

// 64-byte aligned.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : room_(bytes + 64) {}
  char* data() { return room_.data() + (64 - reinterpret_cast<uintptr_t>(room_.data()) % 64) % 64; }

 private:
  std::vector<char> room_;
};

inline int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// bytes, member: the kernel's functions of their names; a team of one runs here.
template <class Args, class Bytes, class MemberBytes, class Run>
void run_team(const Args& args, int64_t threads, const Bytes& bytes, const MemberBytes& member,
              const Run& run) {
  const int64_t shared = whole_lines(bytes(args));
  std::vector<int64_t> own(threads + 1);
  int64_t most = 0;
  for (int64_t n = 1; n <= threads; ++n) {
    own[n] = whole_lines(member(args, n));
    most = n * own[n] > most ? n * own[n] : most;
  }
  Scratch scratch(shared + most);
  std::vector<Barrier> groups(threads);
  Team team{threads, groups.data()};
  const auto work = [&] {
    Member self;
    if (!join(team, 1, self)) return;
    run(args, self, scratch.data(), scratch.data() + shared + self.id * own[self.count]);
  };
  std::vector<std::thread> workers;
  for (int64_t part = 1; part < threads; ++part) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
}

// Backward of what forward made, but for the gradients, which come from outside or are made.
inline RecurrenceBackward back_from(const RecurrenceForward& f) {
  RecurrenceBackward b{};
  b.cell = f.cell;
  b.seq = f.seq;
  b.hidden = f.hidden;
  b.state = f.state;
  b.y = f.y;
  b.gates = f.gates;
  b.cells = f.cells;
  b.h0 = f.h0;
  b.c0 = f.c0;
  b.weight_hh = f.weight_hh;
  b.weight_hr = f.weight_hr;
  b.in = f.in;
  b.asked = f.asked;
  return b;
}

}  // namespace fastseq::tests
