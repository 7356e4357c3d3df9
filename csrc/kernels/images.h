// Batches of images as the kernels see them, and the argument blocks of LRN, max-pool and the trio
// ReLU -> LRN -> max-pool. Raw pointers and sizes only.
#pragma once

#include "types.h"

namespace fastseq {

// A dense batch: [N, C, H, W], or [N, H, W, C] if channels_last. Sequences and volumes come as
// images whose H holds all leading spatial dimensions.
struct Images {
  int64_t batch, channels, height, width;
  bool channels_last;

  FASTSEQ_HD int64_t pixels() const { return height * width; }
  FASTSEQ_HD int64_t numel() const { return batch * channels * height * width; }
  // Neighbours along one dimension are so many elements apart.
  FASTSEQ_HD int64_t channel_stride() const { return channels_last ? 1 : pixels(); }
  FASTSEQ_HD int64_t pixel_stride() const { return channels_last ? channels : 1; }
};

// The parameters of local response normalization: y = x (k + scale * sum of x^2 in a window)^-beta.
struct LrnWindow {
  int64_t size;  // n: channels, or pixels along each side
  double alpha, beta, k;
  bool within_channel;  // the window is n x n pixels of one channel, not n channels of one pixel

  // The window of position i is [i - before, i + after]: torch's, longer to the left for an even n.
  FASTSEQ_HD int64_t before() const { return size / 2; }
  FASTSEQ_HD int64_t after() const { return (size - 1) / 2; }
  // alpha over the window's number of elements; those outside the image count as zeros.
  FASTSEQ_HD double scale() const {
    return alpha / static_cast<double>(within_channel ? size * size : size);
  }
};

// One dimension of a pooling window: output o looks at o * stride - padding + i * dilation for i in
// [0, kernel), as far as that lies inside the image.
struct PoolSide {
  int64_t kernel, stride, padding, dilation;
  int64_t out;  // outputs along this dimension

  FASTSEQ_HD int64_t start(int64_t o) const { return o * stride - padding; }
  // The first i that lies inside the image.
  FASTSEQ_HD int64_t first(int64_t o) const {
    const int64_t s = start(o);
    return s >= 0 ? 0 : (-s + dilation - 1) / dilation;
  }
  // One past the last i that lies inside an image of so many pixels.
  FASTSEQ_HD int64_t last(int64_t o, int64_t pixels) const {
    const int64_t room = pixels - start(o);
    const int64_t fit = room <= 0 ? 0 : (room + dilation - 1) / dilation;
    return fit < kernel ? fit : kernel;
  }
  // The outputs that look at pixel p are in [lowest(p), highest(p)]; with a dilation, not all of
  // these do.
  FASTSEQ_HD int64_t lowest(int64_t p) const {
    const int64_t reach = p + padding - (kernel - 1) * dilation;
    return reach <= 0 ? 0 : (reach + stride - 1) / stride;
  }
  FASTSEQ_HD int64_t highest(int64_t p) const {
    const int64_t o = (p + padding) / stride;
    return o < out ? o : out - 1;
  }
};

// A maximum is remembered by its place in the window, i_h * kernel_w + i_w: one byte for windows of
// up to 256 places, else an int32. Of equal values the first counts, of several NaN the last.
struct PoolWindow {
  PoolSide h, w;

  FASTSEQ_HD int64_t places() const { return h.kernel * w.kernel; }
  FASTSEQ_HD bool wide() const { return places() > 256; }
};

// x, y, grad_x, grad_y are of one type S. Outputs have the layout of the input.
struct LrnForward {
  Images images;
  LrnWindow lrn;
  const void* x;
  void* y;
};

struct LrnBackward {
  Images images;
  LrnWindow lrn;
  const void* grad_y;
  const void* x;
  void* grad_x;
};

struct PoolForward {
  Images images;  // of x
  PoolWindow pool;
  const void* x;
  void* y;
  void* offsets;  // uint8 or int32 as pool.wide() says, shape and layout of y; null: not wanted
};

struct PoolBackward {
  Images images;  // of x
  PoolWindow pool;
  const void* grad_y;
  const void* offsets;
  void* grad_x;
};

// y = max_pool(lrn(relu(x))); the LRN is across channels.
struct TrioForward {
  Images images;
  LrnWindow lrn;
  PoolWindow pool;
  const void* x;
  void* y;
  void* offsets;  // may be null
};

struct TrioBackward {
  Images images;
  LrnWindow lrn;
  PoolWindow pool;
  const void* grad_y;
  const void* offsets;
  const void* x;
  void* grad_x;
};

}  // namespace fastseq
