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
struct StripPlan {
  int length;   // pixels of a strip, at most
  int strips;   // of a plane
  int threads;  // of a block
  Cut channels;
  int rows = 0;     // where strips are bands: rows of outputs that a band pools
  int outputs = 0;  // of a pool that touch a strip, at most

  int64_t blocks(const Images& images) const {
    return images.batch * channels.count * static_cast<int64_t>(strips);
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

// Strips that cover a plane evenly, each thread moving `moves` vectors. `most`: pixels, at most.
template <int V>
StripPlan even_strips(const Images& images, int moves, int64_t most, int64_t least_channels) {
  const int64_t strips = divide_up(images.pixels(), most);
  const auto length = static_cast<int>(divide_up(images.pixels(), strips));
  return {length, static_cast<int>(strips), strip_threads<V>(length, moves),
          cut(images.batch * strips, images.channels, least_channels)};
}
template <int V>
constexpr int64_t most_pixels(int moves) {
  return int64_t{moves} * device::kBlock - V + 1;
}

// For LRN over n channels.
template <int V>
StripPlan lrn_strips(const Images& images, int moves, int64_t n) {
  return even_strips<V>(images, moves, most_pixels<V>(moves), 4 * n);
}

// Strips whose pixels take their gradients from outputs of a pool, of which a thread moves
// `gathers` vectors; no strips if a row of outputs is too long for that.
template <int V>
StripPlan gather_strips(const Images& images, const Window<true>& window, int moves,
                        int64_t least_channels) {
  for (int64_t most = most_pixels<V>(moves); most >= 64; most -= 32) {
    StripPlan plan = even_strips<V>(images, moves, most, least_channels);
    const int rows = (plan.length + window.width - 2) / window.width + 1;  // that a strip touches
    const int output_rows = (rows - 1) / 2 + 2;
    plan.outputs = (output_rows < window.h.out ? output_rows : window.h.out) * window.w.out;
    const int threads = strip_threads<V>(plan.outputs, 1);
    if (plan.threads < threads) plan.threads = threads;
    if (plan.threads <= device::kBlock) return plan;
  }
  return {};
}

// Bands: strips of whole rows, of which each pools some rows of outputs, a thread one output. The
// height is the one that costs a plane least: what its bands load, rows of their neighbours
// included, and what their threads could, idle ones included. No strips if even a row of outputs is
// too much.
template <int V>
StripPlan choose_band(const Images& images, const Window<true>& window, int moves,
                      int64_t least_channels) {
  StripPlan best{};
  int64_t least = 0;
  for (int rows = 1; rows <= window.h.out; ++rows) {
    const int64_t length = static_cast<int64_t>(window.h.span(rows)) * window.width;
    const int64_t outputs = static_cast<int64_t>(rows) * window.w.out;
    if (length > most_pixels<V>(moves)) break;
    StripPlan plan{};
    plan.length = static_cast<int>(length);
    plan.strips = static_cast<int>(divide_up(window.h.out, rows));
    plan.threads = strip_threads<V>(plan.length, moves);
    plan.rows = rows;
    plan.outputs = static_cast<int>(outputs);
    if (V * vectors_for<V>(plan.outputs) > plan.threads) continue;
    const int64_t cost = plan.strips * (length + int64_t{moves} * plan.threads);
    if (best.strips && cost >= least) continue;
    least = cost;
    best = plan;
  }
  best.channels = cut(images.batch * best.strips, images.channels, least_channels);
  return best;
}

}  // namespace fastseq::cuda
