// Which strips (strip.cuh) a launch has: how long, how many, and of how many threads each.
#pragma once

#include "pooling.h"

namespace fastseq::cuda {

FASTSEQ_HD int at_least(int a, int b) { return a < b ? b : a; }
FASTSEQ_HD int at_most(int a, int b) { return a < b ? a : b; }

// Channels (or rows, or columns) of a block, and blocks that share those of an image.
struct Cut {
  int size, count;
};

// Of an image a launch has the strips of its pixels times the cuts of its channels.
struct Strips {
  int length;  // pixels of a strip, at most
  int count;   // strips of a plane
  Cut channels;
  int rows = 0;  // where strips are bands: rows of outputs that a band pools
};
// Count 0: strips do not serve.
struct StripPlan : Strips {
  int threads;  // of a block
  int outputs;  // of a pool that touch a strip, at most

  int64_t blocks(const Images& images) const {
    return images.batch * channels.count * static_cast<int64_t>(count);
  }
};

// Vectors of V elements that hold `length` elements wherever these begin.
template <int V>
FASTSEQ_HD int vectors_for(int length) {
  return (length + 2 * V - 2) / V;
}

// Bytes of shared memory for a strip of V planes.
template <class T, int V>
FASTSEQ_HD int64_t strip_bytes(int length) {
  return static_cast<int64_t>(sizeof(T)) * V * V * vectors_for<V>(length);
}

// Two blocks for each multiprocessor of the largest machines: an H200 has 132, a B200 148.
constexpr int64_t kEnoughBlocks = 2 * 148;

// Cuts of a walk of `length` channels or rows, each of `least` or more: as many as it takes to have
// enough blocks, and none where half as many blocks are there without, since a cut reads some
// channels or rows again.
inline Cut cut(int64_t blocks, int64_t length, int64_t least) {
  const int64_t wanted = blocks > 0 && blocks < kEnoughBlocks ? kEnoughBlocks / blocks : 1;
  const int64_t most = length > least ? length / least : 1;
  const int64_t size = length > 0 ? divide_up(length, wanted < most ? wanted : most) : 1;
  return {static_cast<int>(size), static_cast<int>(divide_up(length, size))};
}

// Indices of pixels and channels are ints; a plane of a few pixels leaves a block without work.
inline bool has_strips(const Images& images) {
  constexpr int64_t limit = int64_t{1} << 28;
  return !images.channels_last && images.pixels() >= 64 && images.pixels() < limit &&
         images.channels < limit;
}

// Threads, in whole warps, that move a strip of V planes as `moves` vectors each.
template <int V>
int strip_threads(int length, int moves) {
  return static_cast<int>(divide_up(V * vectors_for<V>(length), moves * device::kWarp)) *
         device::kWarp;
}

// Strips of at most so many pixels that cover a plane evenly, each thread moving `moves` vectors.
template <int V>
StripPlan even_strips(const Images& images, int moves, int64_t most) {
  StripPlan plan{};
  const int64_t count = divide_up(images.pixels(), most);
  plan.count = static_cast<int>(count);
  plan.length = static_cast<int>(divide_up(images.pixels(), count));
  plan.threads = strip_threads<V>(plan.length, moves);
  return plan;
}
// That so many threads move.
template <int V>
constexpr int64_t most_pixels(int moves, int threads) {
  return int64_t{moves} * threads - V + 1;
}

// For LRN over n channels.
template <int V>
StripPlan lrn_strips(const Images& images, int moves, int64_t n) {
  StripPlan plan = even_strips<V>(images, moves, most_pixels<V>(moves, device::kBlock));
  plan.channels = cut(images.batch * plan.count, images.channels, 4 * n);
  return plan;
}

// How strips that a pool looks at are chosen. Those of larger blocks share fewer rows with their
// neighbours, but a multiprocessor has room for few such blocks: two of kThreads, of which the
// kernel knows.
struct PoolStrips {
  int moves, threads;  // vectors of a thread; threads of a block, at most

  // What all strips of a plane cost: the elements that they load, kEdge more of each for the
  // sectors that it shares with others, four times, since that is what a launch takes its time for;
  // and once those that the room they take could.
  static constexpr int64_t kEdge = 16;
  int64_t cost(int64_t loads, const StripPlan& plan) const {
    const int room = 2 * threads, blocks = room / plan.threads;
    return 4 * (loads + kEdge * plan.count) + int64_t{moves} * plan.count * (room / blocks);
  }
};

// Strips whose pixels take their gradients from outputs of a pool, of which a thread moves a vector
// a stage; no strips if a row of outputs is too long for that.
template <int V>
StripPlan gather_strips(const Images& images, const Window<true>& window, const PoolStrips& kind,
                        int64_t least_channels) {
  StripPlan best{};
  int64_t least = 0;
  for (int64_t most = most_pixels<V>(kind.moves, kind.threads); most >= 64; most -= 32) {
    StripPlan plan = even_strips<V>(images, kind.moves, most);
    const int rows = (plan.length + window.width - 2) / window.width + 1;  // that a strip touches
    plan.outputs = at_most((rows - 1) / 2 + 2, window.h.out) * window.w.out;
    plan.threads = at_least(plan.threads, strip_threads<V>(plan.outputs, 1));
    if (plan.threads > kind.threads) continue;
    const int64_t cost = kind.cost(plan.count * int64_t{plan.length + plan.outputs}, plan);
    if (best.count && cost > least) break;
    least = cost;
    best = plan;
  }
  best.channels = cut(images.batch * best.count, images.channels, least_channels);
  return best;
}

// Bands: strips of whole rows, of which each pools some rows of outputs, a thread one output. The
// height is the one that costs a plane least. No strips if even a row of outputs is too much.
template <int V>
StripPlan choose_band(const Images& images, const Window<true>& window, const PoolStrips& kind,
                      int64_t least_channels) {
  StripPlan best{};
  int64_t least = 0;
  for (int rows = 1; rows <= window.h.out; ++rows) {
    const int64_t length = static_cast<int64_t>(window.h.span(rows)) * window.width;
    if (length > most_pixels<V>(kind.moves, kind.threads)) break;
    StripPlan plan{};
    plan.length = static_cast<int>(length);
    plan.count = static_cast<int>(divide_up(window.h.out, rows));
    plan.rows = rows;
    plan.outputs = rows * window.w.out;
    plan.threads = strip_threads<V>(plan.length, kind.moves);
    if (V * vectors_for<V>(plan.outputs) > plan.threads) continue;
    // Neighbours share a row.
    const int64_t loads = int64_t{window.h.span(window.h.out) + plan.count - 1} * window.width;
    const int64_t cost = kind.cost(loads, plan);
    if (best.count && cost >= least) continue;
    least = cost;
    best = plan;
  }
  best.channels = cut(images.batch * best.count, images.channels, least_channels);
  return best;
}

}  // namespace fastseq::cuda
