// Threads, barriers, shuffles, memory and launches.
#include "../../csrc/kernels/cuda/cooperative.h"
#include "cases.h"

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

// ---- named barriers, four warps in a block

// Two teams of two warps, each with a barrier of its own.
void two_teams(int32_t* p) {
  const Shared<int32_t> s(0, 128);
  const int t = thread_index(), team = t / 64;
  s.set(t, t);
  sync(1 + team, 64);
  device::store(p + device::thread(), s.get(t ^ 63));
}
// Who was told by one who was told: 0 and 1 meet, then 1 and 2.
void handed_on(int32_t* p) {
  const Shared<int32_t> s(0, 32);
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  if (warp == 0) s.set(lane, 1);
  if (warp <= 1) sync(1, 64);
  if (warp == 1 || warp == 2) sync(2, 64);
  if (warp == 2) device::store(p + device::block_index() * 32 + lane, s.get(31 - lane));
}
void barrier_of_others(int32_t*) {
  const Shared<int32_t> s(0, 32);
  const int warp = thread_index() / 32, lane = thread_index() % 32;
  if (warp == 0) s.set(lane, 1);
  if (warp == 0 || warp == 1) sync(1, 64);
  if (warp == 2) s.get(lane);
}
void barrier_of_too_few(int32_t*) {
  if (thread_index() < 64) sync(1, 96);
}
void two_counts(int32_t*) { sync(1, thread_index() < 64 ? 64 : 128); }
void no_such_barrier(int32_t*) { sync(16, 128); }
void barrier_of_half_a_warp(int32_t*) {
  if (thread_index() % 32 < 16) sync(1, 64);
}
void warp_barrier(int32_t* p) {
  const Shared<int32_t> s(0, 128);
  const int t = thread_index();
  s.set(t, t);
  device::sync_warp();
  device::store(p + device::thread(), s.get(t ^ 1));
}
void warp_barrier_is_no_barrier(int32_t*) {
  const Shared<int32_t> s(0, 128);
  s.set(thread_index(), 1);
  device::sync_warp();
  s.get(thread_index() ^ 32);
}
void votes(int32_t* p) {
  const int t = thread_index();
  device::store(p + device::thread(), device::any(t == 5) * 2 + device::any(t < 0));
}

// ---- launches

void nothing(int32_t*) {}
struct Wide {
  static constexpr int kThreads = 512, kBlocks = 1;
};
FASTSEQ_KERNEL_FOR(Wide) wide(Wide) {}
FASTSEQ_KERNEL_FOR(Wide) generous(Wide) { Shared<int32_t>(0, 64 * 256).set(thread_index(), 1); }

struct Named {
  float *in, *out;
};
void add_regions(const Named& a, std::vector<simt::Region>& regions) {
  add_region(regions, "in", a.in, 8, sizeof(float), false);
  add_region(regions, "out", a.out, 8, sizeof(float), true);
}
float floats[24];
void outside(Named a) {
  if (thread_index() < 8) device::store(a.out + thread_index(), device::load(a.in + 8));
}
void read_only(Named a) {
  if (thread_index() < 8) device::store(a.in + thread_index(), 0);
}

using device::Grid;

template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, const Arguments&... arguments) {
  return device::launch(kernel, grid, nullptr, arguments...);
}
const char* with_room() {
  int64_t blocks = 0;
  device::room(generous, 512, 64 * 1024, blocks);  // one each, by shared memory
  return device::launch_together(wide, Grid{blocks, 512, 0}, nullptr, Wide{});
}
const char* without_room() {
  return device::launch_together(wide, Grid{9, 512, 0}, nullptr, Wide{});
}
const char* shared_not_asked_for() { return launch(generous, {1, 512, 64 * 1024 + 4}, Wide{}); }
const char* shared_asked_for() {
  if (const char* error = device::allow_shared(generous, 64 * 1024)) return error;
  return launch(generous, {1, 512, 64 * 1024}, Wide{});
}
const char* shared_beyond_the_device() { return device::allow_shared(generous, 99 * 1024 + 1); }

#define CASE(name) {#name, [] { return launch(name, {2, 64, 256}, data + 0); }}
#define WARPS(name) {#name, [] { return launch(name, {2, 128, 512}, data + 0); }}
#define LAUNCH(name, ...) {#name, [] { return launch(__VA_ARGS__); }}
#define HOST(name) {#name, name}
const Cases kCases{
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
    WARPS(two_teams),
    WARPS(handed_on),
    WARPS(barrier_of_others),
    WARPS(barrier_of_too_few),
    WARPS(two_counts),
    WARPS(no_such_barrier),
    WARPS(barrier_of_half_a_warp),
    WARPS(warp_barrier),
    WARPS(warp_barrier_is_no_barrier),
    WARPS(votes),
    LAUNCH(many_blocks, nothing, {40, 64, 0}, data + 0),
    LAUNCH(too_many_threads, nothing, {1, 1056, 0}, data + 0),
    LAUNCH(half_a_warp, nothing, {1, 48, 0}, data + 0),
    LAUNCH(beyond_the_usual_bounds, nothing, {1, 288, 0}, data + 0),
    LAUNCH(beyond_its_bounds, wide, {1, 544, 0}, Wide{}),
    LAUNCH(within_its_bounds, wide, {1, 512, 0}, Wide{}),
    LAUNCH(outside, outside, {1, 64, 0}, Named{floats, floats + 16}),
    LAUNCH(read_only, read_only, {1, 64, 0}, Named{floats, floats + 16}),
    HOST(with_room),
    HOST(without_room),
    HOST(shared_not_asked_for),
    HOST(shared_asked_for),
    HOST(shared_beyond_the_device),
};

}  // namespace
}  // namespace fastseq::cases

EXPORT const char* run_case(const char* name) {
  for (const fastseq::cases::Case& c : fastseq::cases::all) {
    if (!std::strcmp(c.name, name)) return c.run();
  }
  return "no such case";
}
EXPORT int32_t result(int i) { return fastseq::cases::data[i]; }
EXPORT const char* case_name(int i) {
  const auto& all = fastseq::cases::all;
  return i < static_cast<int>(all.size()) ? all[static_cast<size_t>(i)].name : nullptr;
}
