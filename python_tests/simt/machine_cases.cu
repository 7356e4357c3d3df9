// Kernels that do wrong, each in one way, and some that do right: what the machine must say of
// them.
#include "../../csrc/kernels/cuda/device.h"

namespace fastseq::cases {
namespace {

using device::Shared;
using device::sync;
using device::thread_index;

// What the launches below work on; 64 threads in each block.
int32_t data[256];

void good(int32_t* p) {
  const Shared<int32_t> s(0, 64);
  const int t = thread_index();
  s.set(t, t);
  sync();
  const int32_t other = s.get(63 - t);
  sync();
  s.set(t, other);
  device::store(p + device::thread(), s.get(t) + device::shuffle_xor(t, 1));
}

void shared_race(int32_t*) {
  const Shared<int32_t> s(0, 64);
  s.set(thread_index(), 1);
  sync();
  s.set(thread_index() / 2, 2);
}
void missing_barrier(int32_t* p) {
  const Shared<int32_t> s(0, 64);
  s.set(thread_index(), 1);
  device::store(p + device::thread(), s.get(63 - thread_index()));
}
void write_after_read(int32_t* p) {
  const Shared<int32_t> s(0, 64);
  s.set(thread_index(), 1);
  sync();
  device::store(p + device::thread(), s.get(63 - thread_index()));
  s.set(thread_index(), 2);
}
// A shuffle makes lanes meet, but it orders no memory.
void shuffle_is_no_barrier(int32_t*) {
  const Shared<int32_t> s(0, 64);
  s.set(thread_index(), 1);
  device::shuffle(0, 0);
  s.get(thread_index() ^ 1);
}
void global_race(int32_t* p) { device::store(p + thread_index() / 2, 1); }
void race_between_blocks(int32_t* p) { device::store(p + thread_index(), 1); }
void read_between_blocks(int32_t* p) {
  device::load(p + thread_index());
  if (device::block_index() == 1) device::store(p + thread_index(), 1);
}
// Within a block a barrier orders global memory too.
void global_behind_a_barrier(int32_t* p) {
  int32_t* const mine = p + device::block_index() * 64;
  device::store(mine + thread_index(), 1);
  sync();
  device::store(mine + 63 - thread_index(), 2);
}
void beyond_shared(int32_t*) {
  const Shared<int32_t> s(0, 32);
  s.set(thread_index(), 1);
}
void before_shared(int32_t*) {
  const Shared<int32_t> s(64, 16);
  if (thread_index() < 16) s.set(thread_index() - 1, 1);
}
void beyond_the_block(int32_t*) {
  const Shared<int32_t> s(0, 100);
  if (thread_index() == 0) s.set(99, 1);
}
void unwritten(int32_t*) { Shared<int32_t>(0, 64).get(thread_index()); }
void barrier_of_some(int32_t*) {
  if (thread_index() < 40) sync();
}
void two_barriers(int32_t*) {
  if (thread_index() < 32) {
    sync();
  } else {
    sync();
  }
}
void one_leaves_early(int32_t*) {
  if (thread_index() == 7) return;
  sync();
}
void barrier_beside_shuffle(int32_t*) {
  if (thread_index() < 16) {
    sync();
  } else {
    device::shuffle(1, 0);
  }
}
void shuffle_of_some(int32_t*) {
  if (thread_index() % 32 < 31) device::shuffle(1, 0);
}
void two_shuffles(int32_t*) {
  if (thread_index() % 2) {
    device::shuffle_down(1, 1);
  } else {
    device::shuffle_down(1, 1);
  }
}
void misaligned(int32_t* p) {
  int32_t out[2];
  device::read<2>(p + 1 + 2 * device::thread(), out);
}
void misaligned_shared(int32_t*) { Shared<int64_t>(4, 2).set(0, 1); }
// A warp may shuffle while the other waits elsewhere.
void shuffles(int32_t* p) {
  const int t = thread_index(), lane = t % 32;
  int v = t;
  if (t < 32) v += 100 * device::shuffle(lane, 5);
  sync();
  v = device::shuffle_up(v, 1);
  const int down = device::shuffle_down(lane, 3);
  device::store(p + device::thread(), v * 1000 + down);
}

struct Case {
  const char* name;
  void (*kernel)(int32_t*);
};
#define CASE(name) {#name, name}
const Case kCases[] = {
    CASE(good),
    CASE(shared_race),
    CASE(missing_barrier),
    CASE(write_after_read),
    CASE(shuffle_is_no_barrier),
    CASE(global_race),
    CASE(race_between_blocks),
    CASE(read_between_blocks),
    CASE(global_behind_a_barrier),
    CASE(beyond_shared),
    CASE(before_shared),
    CASE(beyond_the_block),
    CASE(unwritten),
    CASE(barrier_of_some),
    CASE(two_barriers),
    CASE(one_leaves_early),
    CASE(barrier_beside_shuffle),
    CASE(shuffle_of_some),
    CASE(two_shuffles),
    CASE(misaligned),
    CASE(misaligned_shared),
    CASE(shuffles),
};

}  // namespace
}  // namespace fastseq::cases

#define EXPORT extern "C" __attribute__((visibility("default")))

// Runs two blocks of the kernel. Null: the machine has nothing to say.
EXPORT const char* run_case(const char* name) {
  using namespace fastseq;
  for (const cases::Case& c : cases::kCases) {
    if (std::strcmp(c.name, name)) continue;
    return device::launch(c.kernel, device::Grid{2, 64, 256}, nullptr, cases::data + 0);
  }
  return "no such case";
}

EXPORT int32_t result(int i) { return fastseq::cases::data[i]; }
EXPORT const char* case_name(int i) {
  return i < static_cast<int>(std::size(fastseq::cases::kCases)) ? fastseq::cases::kCases[i].name
                                                                 : nullptr;
}
