// Strips: a block owns a stretch of pixels, the same in every plane of its image, and walks over
// the planes, K of them at a time.
//
// A plane of 55 x 55 pixels begins anywhere in memory, so a strip is moved as the aligned vectors
// of 16 bytes that hold it, and lies in shared memory as far behind a vector's start as it does
// outside:
//
//     memory         ..xx|xxxx|....|xxxx|xxx.      x: the strip in one plane, |: vectors
//     shared memory  ..xx|xxxx|....|xxxx|xxx.      one such row for each of K planes
//
// K is the number of elements in a vector. So the strips of planes c and c + K begin alike, and
// which vectors and elements a thread moves does not change on its way.
#pragma once

#include "strip_plan.h"

namespace fastseq::cuda {

// A block's place: its image, its pixels, and its channels [from, to).
struct StripWalk {
  int64_t image;
  int strip, from, to;

  FASTSEQ_DEVICE StripWalk(const Images& images, const Strips& strips,
                           int64_t block = device::block_index()) {
    const int64_t rest = device::divide(block, strips.count);
    strip = static_cast<int>(block - rest * strips.count);
    image = device::divide(rest, strips.channels.count);
    from = static_cast<int>(rest - image * strips.channels.count) * strips.channels.size;
    to = from + strips.channels.size;
    if (to > images.channels) to = static_cast<int>(images.channels);
  }
};

// Where a strip lies in a tensor of planes: `length` elements from element `start` of plane 0 on.
template <class T>
struct StripOf {
  T* tensor;
  int64_t elements, start, plane;
  int length;
};

// Moves a strip's planes, `c` and the K - 1 after it, between memory and shared memory; each thread
// moves R vectors of V elements. `first` is the c of the first stage, and every c is first + n K.
template <class T, int V, int R>
class StripMover {
 public:
  static constexpr int K = V;
  using Element = std::remove_const_t<T>;
  using Pack = device::Pack<Element, V>;

  FASTSEQ_DEVICE StripMover(const StripOf<T>& at, int first, int64_t shared)
      : at_(at),
        slots_(vectors_for<V>(at.length)),
        memory_(shared, K * slots_ * V),
        start_(lowest(static_cast<int64_t>(reinterpret_cast<uintptr_t>(at.tensor) / sizeof(T)) +
                      at.start + first * at.plane)),
        step_(lowest(at.plane)) {
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      plane_[r] = item(r) / slots_;
      vector_[r] = (item(r) - plane_[r] * slots_) * V - shift(plane_[r]);
    }
  }

  // Asks for the vectors of planes [c, c + K) that are in [from, to); others are zeros.
  FASTSEQ_DEVICE void fetch(int c, int from, int to) {
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      packs_[r] = Pack{};
      const int plane = c + plane_[r];
      if (plane_[r] >= K || plane < from || plane >= to || vector_[r] >= at_.length) continue;
      const int64_t e = at_.start + plane * at_.plane + vector_[r];
      if (e >= 0 && e + V <= at_.elements) packs_[r] = Pack::read(at_.tensor + e);
    }
  }
  // Puts what fetch() asked for into shared memory.
  FASTSEQ_DEVICE void put(int c, int from, int to) const {
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      const int plane = c + plane_[r], to_element = item(r) * V;
      if (plane_[r] >= K) continue;
      memory_.set(to_element, packs_[r]);
      if (plane < from || plane >= to || vector_[r] >= at_.length) continue;
      const int64_t e = at_.start + plane * at_.plane + vector_[r];
      if (e >= 0 && e + V <= at_.elements) continue;
      FASTSEQ_UNROLL(1) for (int i = 0; i < V; ++i) {  // the tensor ends within the vector
        if (e + i < 0 || e + i >= at_.elements) continue;
        memory_.set(to_element + i, device::memory::load(at_.tensor + e + i));
      }
    }
  }

  // Element i of the strip in plane c + k.
  FASTSEQ_DEVICE Element get(int k, int i) const { return memory_.get(row(k) + i); }
  FASTSEQ_DEVICE void set(int k, int i, Element x) const { memory_.set(row(k) + i, x); }
  FASTSEQ_DEVICE int row(int k) const { return k * slots_ * V + shift(k); }

  // Writes what shared memory holds of planes [c, c + K) in [from, to): whole vectors as such, and
  // the few elements before and behind them one by one.
  FASTSEQ_DEVICE void store(int c, int from, int to) const {
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      const int plane = c + plane_[r];
      if (plane_[r] >= K || plane < from || plane >= to) continue;
      if (vector_[r] < 0 || vector_[r] + V > at_.length) continue;
      memory_.template pack<V>(item(r) * V)
          .write(at_.tensor + at_.start + plane * at_.plane + vector_[r]);
    }
    // The strip's first V elements and its last V, as far as no whole vector holds them.
    FASTSEQ_UNROLL(1)
    for (int one = device::thread_index(); one < 2 * V * K; one += device::block_size()) {
      const int k = one / (2 * V), end = one & (2 * V - 1), plane = c + k;
      const int i = end < V ? end : at_.length - 2 * V + end;
      const int whole = end < V ? end + shift(k) : (shift(k) + at_.length) & (V - 1);
      const bool mine = end < V ? shift(k) && whole < V : 2 * V - end <= whole;
      if (!mine || plane < from || plane >= to) continue;
      device::memory::store(at_.tensor + at_.start + plane * at_.plane + i, get(k, i));
    }
  }

 private:
  // How far an element lies behind the start of a vector.
  FASTSEQ_DEVICE static int lowest(int64_t element) { return static_cast<int>(element & (V - 1)); }
  // The vectors of all K planes have numbers; this is the thread's r-th.
  FASTSEQ_DEVICE static int item(int r) {
    return device::thread_index() + r * device::block_size();
  }
  // How far the strip of plane c + k begins behind the start of a vector.
  FASTSEQ_DEVICE int shift(int k) const { return (start_ + k * step_) & (V - 1); }

  StripOf<T> at_;
  int slots_;
  device::Shared<Element> memory_;
  int start_, step_;          // of the strip of plane c, and from plane to plane
  int plane_[R], vector_[R];  // of this thread's vectors: from c on, and from the strip's start on
  Pack packs_[R];
};

// A block's strip in a tensor of the images' size.
template <class T>
FASTSEQ_DEVICE StripOf<T> strip_of(T* tensor, const Images& images, const Strips& strips,
                                   const StripWalk& walk) {
  const int64_t P = images.pixels(), first = static_cast<int64_t>(walk.strip) * strips.length;
  const int64_t length = P - first < strips.length ? P - first : strips.length;
  return {tensor, images.numel(), walk.image * images.channels * P + first, P,
          static_cast<int>(length)};
}

// The v-th pixel of a strip that a thread owns; they are a block apart. It may lie beyond the
// strip.
FASTSEQ_DEVICE int strip_pixel(int v) { return device::thread_index() + v * device::block_size(); }

}  // namespace fastseq::cuda
