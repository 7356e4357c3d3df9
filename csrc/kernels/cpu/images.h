// The CPU kernels on images as the torch side sees them: a call is a number of items of work that
// share nothing, each with a scratch block of its thread.
#pragma once

#include "../images.h"

namespace fastseq {

struct ImagesPlan {
  int64_t items;          // independent pieces
  int64_t tile;           // pixels, rows or outputs of an item, as the kernel counts them
  int64_t scratch_bytes;  // of each thread, 64-byte aligned
  int64_t grain;          // least number of items that is worth a thread
};

template <class Args>
struct ImagesKernel {
  ImagesPlan (*plan)(const Args&, int64_t threads);
  // Items [first, last).
  void (*run)(const Args&, const ImagesPlan&, int64_t first, int64_t last, void* scratch);
};

// Of the instruction set in use (capability.h).
struct ImagesKernels {
  ImagesKernel<LrnForward> lrn_forward, lrn_within_forward;
  ImagesKernel<LrnBackward> lrn_backward, lrn_within_backward;
  ImagesKernel<PoolForward> pool_forward;
  ImagesKernel<PoolBackward> pool_backward;
  ImagesKernel<TrioForward> trio_forward;
  ImagesKernel<TrioBackward> trio_backward;
};

const ImagesKernels& images_kernels(DType dtype);

// Below this many elements a thread costs more to wake than it does.
constexpr int64_t kLeastElements = 16'384;

inline ImagesPlan images_plan(int64_t items, int64_t tile, int64_t elements,
                              int64_t scratch_bytes) {
  const int64_t each = items > 0 ? elements / items : 0;
  const int64_t grain = kLeastElements / (each > 0 ? each : 1);
  return {items, tile, scratch_bytes, grain > 0 ? grain : 1};
}

// n pieces of at most `most`, of about equal size and a multiple of `unit`.
inline int64_t even_tile(int64_t n, int64_t most, int64_t unit) {
  if (n <= 0) return unit;
  const int64_t pieces = (n + most - 1) / most;
  return ((n + pieces - 1) / pieces + unit - 1) / unit * unit;
}

inline int64_t pieces(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }

}  // namespace fastseq
