// Rows: a block owns neighbouring columns of a channels_last image, of all channels or a group of
// them, and walks down its rows, two at a time, as the usual window moves (3 x 3, two apart).
//
// Where channels are whole vectors of 16 bytes, a thread moves and computes vectors. Else a row's
// part is *flat*: a run of elements that begins anywhere, moved as the aligned vectors that hold it
// and kept as far behind a vector's start as it lies outside (strip.cuh has a drawing); a thread
// then computes single elements, and results go out through shared memory, too.
#pragma once

#include "row_plan.h"
#include "strip.cuh"

namespace fastseq::cuda {

// Of `length` elements that begin `shift` behind a vector's start, the first V and the last V have
// a lane each, 2 V in all. The element that a lane moves by itself; -1: a whole vector holds it.
template <int V>
FASTSEQ_DEVICE int end_of(int lane, int shift, int length) {
  if (lane < V) return shift && shift + lane < V && lane < length ? lane : -1;
  if (shift && shift + length < V) return -1;
  const int rest = (shift + length) & (V - 1), i = length - 2 * V + lane;
  return 2 * V - lane <= rest ? i : -1;
}

// Of the V elements from element e of a tensor on, puts those that it has into shared memory.
template <int V, class T>
FASTSEQ_DEVICE void put_end(const device::Shared<std::remove_const_t<T>>& memory, int to, T* tensor,
                            int64_t e, int64_t elements) {
  FASTSEQ_UNROLL(1) for (int i = 0; i < V; ++i) {
    if (e + i < 0 || e + i >= elements) continue;
    memory.set(to + i, device::memory::load(tensor + e + i));
  }
}

// A block's place: its image, columns [column, column + columns), steps [from, to) down the rows,
// and channels [channel, channel + channels).
struct RowWalk {
  int64_t image;
  int column, columns, from, to, channel, channels;

  // These cut `width` columns and `height` steps. Groups of channels are neighbours.
  FASTSEQ_DEVICE RowWalk(const Images& images, const RowCuts& cuts, int width, int height,
                         int64_t block = device::block_index()) {
    int64_t rest = block;
    const auto next = [&](const Cut& cut) {
      const int64_t above = device::divide(rest, cut.count);
      const int first = static_cast<int>(rest - above * cut.count) * cut.size;
      rest = above;
      return first;
    };
    channel = next(cuts.channels);
    column = next(cuts.columns);
    from = next(cuts.rows);
    image = rest;
    channels = at_most(cuts.channels.size, static_cast<int>(images.channels) - channel);
    columns = at_most(cuts.columns.size, width - column);
    to = at_most(from + cuts.rows.size, height);
  }
};

// A block's part of a tensor's rows: `columns` pixels, `step` elements apart, of which it has some
// channels. Row h begins at element `start` + h * `pitch`.
template <class T>
struct RowsOf {
  T* tensor;
  int64_t elements, start, pitch;
  int columns, channels, step;

  // Columns [first, last) of an image of height x width pixels.
  FASTSEQ_DEVICE RowsOf(T* p, const Images& images, const RowWalk& walk, int height, int width,
                        int first, int last)
      : tensor(p),
        elements(images.batch * images.channels * height * width),
        start((walk.image * height * width + first) * images.channels + walk.channel),
        pitch(images.channels * width),
        columns(last - first),
        channels(walk.channels),
        step(static_cast<int>(images.channels)) {}
};

// Moves K rows at a time, 1 or 2, between memory and shared memory, which has room for two: row h
// and row h + 2 take the same place. Each thread moves R vectors of V elements. Elements of a part
// are counted from its first pixel's on, as they lie in shared memory (get), or in memory (write).
// kGroups: of a pixel's channels the part may have some.
template <class T, int V, int R, int K, bool kFlat, bool kGroups = !kFlat>
class RowMover {
 public:
  static constexpr int kMoves = R;
  using Element = std::remove_const_t<T>;
  template <int N>
  using Pack = device::Pack<Element, N>;

  FASTSEQ_DEVICE RowMover(const RowsOf<T>& at, int first, int64_t shared)
      : at_(at),
        first_(first),
        slots_(row_vectors<V, kFlat>(at.columns, at.channels)),
        memory_(shared, 2 * slots_ * V) {
    if constexpr (kGroups) {
      const int of_pixel = at.channels / V;
      FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
        const int vector = slot_of(r) / V, pixel = vector / of_pixel;
        offset_[r] = pixel * at.step + (vector - pixel * of_pixel) * V;
      }
    }
  }

  // Asks for rows [h, h + K) as far as they are in [from, to); others are zeros.
  FASTSEQ_DEVICE void fetch(int h, int from, int to) {
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      packs_[r] = Pack<V>{};
      if (!has(r, h, from, to)) continue;
      const int64_t e = element(r, h);
      if (inside(e)) packs_[r] = Pack<V>::read(at_.tensor + e);
    }
  }
  // Puts what fetch() asked for into shared memory.
  FASTSEQ_DEVICE void put(int h, int from, int to) const {
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      if (row_of(r) >= K) continue;
      const int to_element = place(h + row_of(r)) + slot_of(r);
      memory_.set(to_element, packs_[r]);
      if (!kFlat || !has(r, h, from, to)) continue;
      const int64_t e = element(r, h);
      if (!inside(e)) put_end<V>(memory_, to_element, at_.tensor, e, at_.elements);
    }
  }

  // N elements of row h from element i on, as they lie in shared memory; and where they lie there.
  template <int N>
  FASTSEQ_DEVICE Pack<N> get(int h, int i) const {
    return memory_.template pack<N>(at(h, i));
  }
  FASTSEQ_DEVICE int at(int h, int i) const { return place(h) + shift(h) + i; }
  FASTSEQ_DEVICE const device::Shared<Element>& memory() const { return memory_; }
  // Writes N elements of row h, from element i of memory on. What is flat goes there by store().
  template <int N>
  FASTSEQ_DEVICE void write(int h, int i, const Pack<N>& pack) const {
    if constexpr (kFlat) {
      memory_.set(at(h, i), pack);
    } else {
      pack.write(at_.tensor + at_.start + h * at_.pitch + i);
    }
  }
  // Of rows [h, h + K) those in [from, to): whole vectors, and the few elements before and behind.
  FASTSEQ_DEVICE void store(int h, int from, int to) const {
    static_assert(kFlat);
    const int length = at_.columns * at_.channels;
    FASTSEQ_UNROLL(R) for (int r = 0; r < R; ++r) {
      const int row = h + row_of(r), first = slot_of(r) - shift(row);
      if (row_of(r) >= K || row < from || row >= to || first < 0 || first + V > length) continue;
      memory_.template pack<V>(place(row) + slot_of(r)).write(at_.tensor + element(r, h));
    }
    FASTSEQ_UNROLL(1)
    for (int one = device::thread_index(); one < 2 * V * K; one += device::block_size()) {
      const int row = h + one / (2 * V), end = one & (2 * V - 1);
      if (row < from || row >= to) continue;
      const int i = end_of<V>(end, shift(row), length);
      if (i < 0) continue;
      device::memory::store(at_.tensor + at_.start + row * at_.pitch + i, get<1>(row, i).get(0));
    }
  }

 private:
  // The vectors of K rows have numbers. Of the thread's r-th: its row, from the first on (K: none),
  // and its place in that row's shared memory.
  FASTSEQ_DEVICE static int item(int r) {
    return device::thread_index() + r * device::block_size();
  }
  FASTSEQ_DEVICE int row_of(int r) const {
    return (item(r) >= slots_) + (K == 2 && item(r) >= 2 * slots_);
  }
  FASTSEQ_DEVICE int slot_of(int r) const { return (item(r) - row_of(r) * slots_) * V; }
  FASTSEQ_DEVICE bool has(int r, int h, int from, int to) const {
    const int row = h + row_of(r);
    if (row_of(r) >= K || row < from || row >= to) return false;
    return !kFlat || slot_of(r) - shift(row) < at_.columns * at_.channels;
  }
  // Where the thread's r-th vector is in memory.
  FASTSEQ_DEVICE int64_t element(int r, int h) const {
    const int row = h + row_of(r);
    return at_.start + row * at_.pitch + (kGroups ? offset_[r] : slot_of(r) - shift(row));
  }
  FASTSEQ_DEVICE bool inside(int64_t e) const {
    return !kFlat || (e >= 0 && e + V <= at_.elements);
  }
  // Where a row's vectors begin in shared memory, and its elements behind that.
  FASTSEQ_DEVICE int place(int h) const { return ((h - first_) & 1) * slots_ * V; }
  FASTSEQ_DEVICE int shift(int h) const {
    if constexpr (!kFlat) return 0;
    const auto tensor = static_cast<int64_t>(reinterpret_cast<uintptr_t>(at_.tensor) / sizeof(T));
    return static_cast<int>((tensor + at_.start + h * at_.pitch) & (V - 1));
  }

  RowsOf<T> at_;
  int first_, slots_;
  device::Shared<Element> memory_;
  int offset_[R];  // of this thread's vectors, in memory's row; kGroups
  Pack<V> packs_[R];
};

}  // namespace fastseq::cuda
