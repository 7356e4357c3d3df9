// How a launch over channels_last images is cut where blocks walk down rows (rows.cuh): into tiles
// of columns, bands of rows and groups of channels.
#pragma once

#include "strip_plan.h"

namespace fastseq::cuda {

// Columns and rows are counted in steps of the usual window: an output each, or two pixels.
struct RowCuts {
  Cut columns, rows, channels;
};
struct RowPlan : RowCuts {
  int threads = 0;    // of a block; 0: no block has room
  int64_t bytes = 0;  // of shared memory

  device::Grid grid(const Images& images) const {
    const int64_t of_image = static_cast<int64_t>(channels.count) * columns.count * rows.count;
    return {images.batch * of_image, threads, bytes};
  }
};

// What a tile of some columns and channels asks of its block: vectors of 16 bytes that it moves
// from one step to the next, `moves` at most by each thread, and shared memory.
struct TileNeeds {
  int64_t vectors, moves, threads, bytes;
};

inline int64_t whole_warps(int64_t threads) {
  return divide_up(threads, device::kWarp) * device::kWarp;
}

// Vectors of V elements for a row's part of `columns` pixels. Flat: they begin anywhere, and lie
// side by side; else each begins where a vector does.
template <int V, bool kFlat>
FASTSEQ_HD int row_vectors(int columns, int channels) {
  return kFlat ? vectors_for<V>(columns * channels) : columns * (channels / V);
}
// Bytes of shared memory for two such rows.
template <class T, int V, bool kFlat>
FASTSEQ_HD int64_t row_bytes(int columns, int channels) {
  return 2 * static_cast<int64_t>(sizeof(T)) * V * row_vectors<V, kFlat>(columns, channels);
}

// Pairs of the pixels along one side, from the first window's start on.
FASTSEQ_HD int pairs(const Side<true>& side, int pixels) { return (pixels + side.padding + 1) / 2; }

// Within a row's part, indices of elements are ints.
inline bool has_rows(const Images& images) {
  return images.channels_last && images.channels < int64_t{1} << 20;
}

// The least that a band has of rows: another one reads a row again.
constexpr int64_t kLeastRows = 8;

// The cheapest tiles of `columns` that fit a block. They cost the vectors that they move, which is
// what a launch takes its time for, four times, and once those that their threads could. Its
// channels are all of them, or a power of two from 32 on where `groups` says that they need not be
// together: whole sectors even of bytes. needs(columns, channels) says what a tile takes.
template <class Needs>
RowPlan choose_rows(const Images& images, int columns, int rows, bool groups, const Needs& needs) {
  RowPlan best{};
  int64_t least = 0;
  const auto all = static_cast<int>(images.channels);
  for (int channels = groups && all > 32 ? 32 : all;; channels = at_most(2 * channels, all)) {
    const int64_t count = divide_up(all, channels);
    for (int width = 1;;) {
      const TileNeeds tile = needs(width, channels);
      if (tile.threads > device::kBlock || tile.bytes > device::kSharedLimit) break;
      const int64_t tiles = divide_up(columns, width);
      const int last = columns - static_cast<int>(tiles - 1) * width;
      const int64_t vectors = (tiles - 1) * tile.vectors + needs(last, channels).vectors;
      const int64_t cost = count * (4 * vectors + tiles * tile.moves * tile.threads);
      if (!best.threads || cost < least) {
        least = cost;
        best.columns = {width, static_cast<int>(tiles)};
        best.channels = {channels, static_cast<int>(count)};
        best.threads = static_cast<int>(tile.threads);
        best.bytes = tile.bytes;
      }
      if (tiles == 1) break;
      width = static_cast<int>(divide_up(columns, tiles - 1));  // the narrowest of fewer tiles
    }
    if (channels == all) break;
  }
  best.rows = cut(images.batch * best.channels.count * best.columns.count, rows, kLeastRows);
  return best;
}

}  // namespace fastseq::cuda
