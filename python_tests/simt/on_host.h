// What device.h, words.h and mma.h ask of the machine.
#pragma once

#include <type_traits>

#include "machine.h"

namespace fastseq::simt {

inline int64_t block_index() { return machine.block_index(); }
inline int thread_index() { return machine.thread_index(); }
inline int block_size() { return machine.block_size(); }
inline int lane() { return thread_index() % 32; }
inline void sync(const Site& site = Site::current()) { machine.barrier(site); }
inline void sync(int id, int threads, const Site& site = Site::current()) {
  machine.barrier(id, threads, site);
}
inline void sync_warp(const Site& site = Site::current()) { machine.warp_barrier(site); }

// ---- what a warp does as one

template <class T>
struct Exchange {
  T value;
  int source;  // the lane whose value is wanted
  T result;

  static void run(void* const* lanes) {
    for (int i = 0; i < 32; ++i) {
      Exchange& one = *static_cast<Exchange*>(lanes[i]);
      const int from = one.source >= 0 && one.source < 32 ? one.source : i;
      one.result = static_cast<const Exchange*>(lanes[from])->value;
    }
  }
};
// As in CUDA: a lane beyond the warp leaves one's own value, except that an index wraps around.
template <class T>
T exchange(T value, int source, const Site& site) {
  Exchange<T> mine{value, source, value};
  machine.collective(&Exchange<T>::run, &mine, site);
  return mine.result;
}
template <class T>
T shuffle(T value, int lane, const Site& site = Site::current()) {
  return exchange(value, lane & 31, site);
}
template <class T>
T shuffle_up(T value, int lanes, const Site& site = Site::current()) {
  return exchange(value, lane() - lanes, site);
}
template <class T>
T shuffle_down(T value, int lanes, const Site& site = Site::current()) {
  return exchange(value, lane() + lanes, site);
}
template <class T>
T shuffle_xor(T value, int mask, const Site& site = Site::current()) {
  return exchange(value, lane() ^ mask, site);
}
inline bool any(bool mine, const Site& site = Site::current()) {
  const auto vote = [](void* const* lanes) {
    bool some = false;
    for (int i = 0; i < 32; ++i) some |= *static_cast<bool*>(lanes[i]);
    for (int i = 0; i < 32; ++i) *static_cast<bool*>(lanes[i]) = some;
  };
  machine.collective(vote, &mine, site);
  return mine;
}

// ---- memory
// Inlined always, so that the machine sees the kernel's own line call it.
#define FASTSEQ_INLINE inline __attribute__((always_inline))

namespace memory {

template <class T>
FASTSEQ_INLINE T load(const T* p) {
  machine.global(p, sizeof(T), 1, false);
  return *p;
}
template <class T>
FASTSEQ_INLINE void store(T* p, T value) {
  machine.global(p, sizeof(T), 1, true);
  *p = value;
}
template <int V, class S>
FASTSEQ_INLINE void read(const S* p, S (&values)[V]) {
  machine.global(p, sizeof(S), V, false);
  std::memcpy(values, p, sizeof values);
}
template <int V, class S>
FASTSEQ_INLINE void write(S* p, const S (&values)[V]) {
  machine.global(p, sizeof(S), V, true);
  std::memcpy(p, values, sizeof values);
}

}  // namespace memory

template <class S, int V>
struct Pack {
  S values[V]{};

  FASTSEQ_INLINE static Pack read(const S* p) {
    Pack pack;
    memory::read<V>(p, pack.values);
    return pack;
  }
  FASTSEQ_INLINE void write(S* p) const { memory::write<V>(p, values); }
  void set(int i, S x) { values[i] = x; }
  S get(int i) const { return values[i]; }
};

template <class T>
class Shared {
 public:
  Shared(int64_t offset, int count) : offset_(offset), count_(count) {}
  FASTSEQ_INLINE T get(int i) const {
    T value;
    std::memcpy(&value, machine.shared(offset_, i, count_, sizeof(T), false), sizeof(T));
    return value;
  }
  FASTSEQ_INLINE void set(int i, T value) const {
    std::memcpy(machine.shared(offset_, i, count_, sizeof(T), true), &value, sizeof(T));
  }
  template <int V>
  FASTSEQ_INLINE Pack<T, V> pack(int i) const {
    Pack<T, V> found;
    std::memcpy(found.values, machine.shared(offset_, i, count_, sizeof(T), false, V),
                sizeof found.values);
    return found;
  }
  template <int V>
  FASTSEQ_INLINE void set(int i, Pack<T, V> pack) const {
    std::memcpy(machine.shared(offset_, i, count_, sizeof(T), true, V), pack.values,
                sizeof pack.values);
  }
  int64_t address(int i) const { return offset_ + i * static_cast<int64_t>(sizeof(T)); }

 private:
  int64_t offset_;
  int count_;
};

inline uint32_t load_relaxed(const uint32_t* p, const Site& site = Site::current()) {
  return machine.load_relaxed(p, site);
}
inline void store_relaxed(uint32_t* p, uint32_t word) { machine.store_relaxed(p, word); }

// ---- launches

// Arguments that hold tensors overload this (regions.h); then nothing else may be touched.
template <class T>
void add_regions(const T&, std::vector<Region>&) {}

// The __launch_bounds__ of a kernel stand in its argument block; else they are device.h's kBlock
// threads, and of how many blocks is not known here.
template <class... Parameters>
constexpr Bounds bounds_of() {
  Bounds bounds{256, 1};
  const auto look = [&]<class T>(const T*) {
    if constexpr (requires { T::kThreads + T::kBlocks; }) bounds = {T::kThreads, T::kBlocks};
  };
  (look(static_cast<const std::remove_reference_t<Parameters>*>(nullptr)), ...);
  return bounds;
}

template <class Grid, class... Parameters>
Launch launch_of(void (*kernel)(Parameters...), const Grid& grid, bool together) {
  return {grid.blocks,
          grid.threads,
          grid.shared,
          reinterpret_cast<const void*>(kernel),
          bounds_of<Parameters...>(),
          together};
}

template <class... Arguments>
const char* run(const Launch& launch, const std::function<void()>& kernel,
                const Arguments&... arguments) {
  std::vector<Region> regions;
  (add_regions(arguments, regions), ...);
  return machine.run(launch, kernel, regions);
}

}  // namespace fastseq::simt

#include "regions.h"
