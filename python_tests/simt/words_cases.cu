// Words that blocks publish for each other.
#include "../../csrc/kernels/cuda/cooperative.h"
#include "cases.h"
#include "mailbox.cuh"

namespace fastseq::cases {
namespace {

using device::Grid;
using device::load_relaxed;
using device::publish;
using device::Shared;
using device::store_relaxed;
using device::thread_index;

struct Words {
  static constexpr int kThreads = 32, kBlocks = 1;
  uint32_t* p;  // [64]
};
void add_regions(const Words& a, std::vector<simt::Region>& regions) {
  add_region(regions, "words", a.p, 64, sizeof(uint32_t), true);
}

int64_t block() { return device::block_index(); }

// A word is handed over, to all lanes of the other block.
void hand_over(Words a) {
  if (block() == 0) {
    publish(a.p + thread_index(), 7);
  } else {
    uint32_t words[1];
    device::take(a.p + thread_index(), 0, words);
    publish(a.p + 32 + thread_index(), words[0] + 1);
  }
}
// Its author sees it at once.
void own_word(Words a) {
  uint32_t* const mine = a.p + block() * 32 + thread_index();
  publish(mine, 1);
  if (load_relaxed(mine) != 1) device::load(static_cast<const float*>(nullptr));
}
void nan_is_made_a_full_one(Words a) {
  uint32_t* const mine = a.p + block() * 32 + thread_index();
  publish(mine, device::kEmpty);
}
void empty_word(Words a) {
  if (block() == 1 && thread_index() == 3) store_relaxed(a.p, device::kEmpty);
}
void published_twice(Words a) { publish(a.p + thread_index(), 1); }
void plain_load_of_a_word(Words a) {
  publish(a.p + block() * 32 + thread_index(), 1);
  device::load(reinterpret_cast<const float*>(a.p) + block() * 32 + thread_index());
}
void half_of_a_word(Words a) {
  publish(a.p + block() * 32 + thread_index(), 1);
  device::load(reinterpret_cast<const Half*>(a.p) + 1 + 2 * (block() * 32 + thread_index()));
}
void upper_half_of_a_double(Words a) {
  if (block() == 0 && thread_index() == 0) {
    publish(a.p + 3, 1);
    device::load(reinterpret_cast<const double*>(a.p) + 1);
  }
}
void word_beside_a_plain_store(Words a) {
  float* const mine = reinterpret_cast<float*>(a.p) + block() * 32 + thread_index();
  device::store(mine, 1);
  load_relaxed(reinterpret_cast<uint32_t*>(mine));
}
void word_outside(Words a) {
  if (block() == 0) publish(a.p + 64, 1);
}
void misaligned_word(Words a) {
  load_relaxed(reinterpret_cast<uint32_t*>(reinterpret_cast<unsigned char*>(a.p) + 2));
}
// Waits for a word that nobody publishes.
void waits_for_ever(Words a) {
  uint32_t words[1];
  if (block() == 0) device::take(a.p + 5, 0, words);
}

alignas(16) uint32_t memory[64];

template <void kernel(Words)>
const char* on_words() {
  std::memset(memory, 0xff, sizeof memory);
  return device::launch_together(kernel, Grid{2, 32, 0}, nullptr, Words{memory});
}

#define CASE(name) {#name, on_words<name>}
const Cases kCases{
    CASE(hand_over),
    CASE(own_word),
    CASE(nan_is_made_a_full_one),
    CASE(empty_word),
    CASE(published_twice),
    CASE(plain_load_of_a_word),
    CASE(half_of_a_word),
    CASE(upper_half_of_a_double),
    CASE(word_beside_a_plain_store),
    CASE(word_outside),
    CASE(misaligned_word),
    CASE(waits_for_ever),
};

// Publishes x, then y; the other block waits for y, and looks for x.
struct Litmus {
  static constexpr int kThreads = 32, kBlocks = 1;
  uint32_t *x, *y;
  uint32_t* seen;
};
void litmus(Litmus a) {
  if (thread_index() > 0) return;
  if (block() == 0) {
    publish(a.x, 1);
    publish(a.y, 1);
  } else {
    while (load_relaxed(a.y) == device::kEmpty) {
    }
    *a.seen = load_relaxed(a.x);
  }
}

}  // namespace

inline void add_regions(const Mailbox& a, std::vector<simt::Region>& regions) {
  add_region(regions, "start", a.start, a.units, sizeof(int32_t), false);
  add_region(regions, "mailbox", a.words, a.steps * a.units, sizeof(uint32_t), true);
}

}  // namespace fastseq::cases

using namespace fastseq;

// What block 1 saw of x when it had seen y.
EXPORT int64_t litmus_outcome() {
  std::memset(cases::memory, 0xff, sizeof cases::memory);
  uint32_t seen = 0;
  const cases::Litmus a{cases::memory, cases::memory + 7, &seen};
  if (device::launch_together(cases::litmus, device::Grid{2, 32, 0}, nullptr, a)) return -1;
  return seen;
}

EXPORT const char* run_mailbox(const int32_t* start, uint32_t* words, int64_t steps, int64_t blocks,
                               int mistake, bool together) {
  const cases::Mailbox a{start, words, steps, blocks * cases::Mailbox::kUnits, mistake};
  const device::Grid grid{blocks, cases::Mailbox::kThreads, 4 * sizeof(uint32_t)};
  if (together) return device::launch_together(cases::mailbox, grid, nullptr, a);
  return device::launch(cases::mailbox, grid, nullptr, a);
}
