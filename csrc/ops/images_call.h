// What the CPU and the CUDA ops on images share: argument checks, memory formats, the outputs'
// allocation, and the kernels' argument blocks. A call owns every tensor that its block points to.
#pragma once

#include "../kernels/images.h"
#include "checks.h"

namespace fastseq::ops {

using torch::headeronly::MemoryFormat;
using Pair = std::vector<int64_t>;  // (height, width)

// The kernels' memory and their sums of sizes grow with a window, which is no wider than this.
constexpr int64_t kWidest = int64_t{1} << 15;

// Whether strides suggest [N, H, W, C] (c10::is_channels_last_strides): the order of the strides
// says so, and ambiguous cases count as [N, C, H, W].
inline bool suggests_channels_last(const Tensor& t) {
  const int64_t dims = t.dim();
  if (dims != 4 && dims != 5) return false;
  int64_t least = 0;
  if (t.stride(1) == 0) return false;
  for (int64_t step = 0; step < dims; ++step) {
    const int64_t d = step == 0 ? 1 : (dims - step) % dims == 1 ? 0 : dims - step;
    if (t.size(d) == 0 || t.stride(d) < least) return false;
    if (d == 0 && least == t.stride(1)) return false;
    least = t.stride(d);
    if (t.size(d) > 1) least *= t.size(d);
  }
  return true;
}

inline MemoryFormat format_of(int64_t dims, bool channels_last) {
  if (!channels_last) return MemoryFormat::Contiguous;
  return dims == 5 ? MemoryFormat::ChannelsLast3d : MemoryFormat::ChannelsLast;
}

inline Tensor dense(const Tensor& t, bool channels_last) {
  if (!channels_last && t.is_contiguous()) return t;
  return torch::stable::contiguous(t, format_of(t.dim(), channels_last));
}

inline Tensor new_images(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype,
                         bool channels_last) {
  if (!channels_last) return new_tensor(like, shape, dtype);
  std::vector<int64_t> strides(shape.size());
  strides[1] = 1;
  int64_t stride = shape[1];
  for (size_t i = shape.size(); i-- > 2;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  strides[0] = stride;
  return new_strided(like, shape, strides, dtype);
}

inline std::vector<int64_t> shape_of(const Tensor& t) {
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < t.dim(); ++i) shape.push_back(t.size(i));
  return shape;
}

// [N, C, ...]: the last spatial dimension is the width, all others together are the height.
inline Images with_channels(const Tensor& x, bool channels_last) {
  FASTSEQ_CHECK(x.dim() >= 3, "fastseq: expected an input of 3 or more dimensions, got ",
                shape_string(x));
  Images images{x.size(0), x.size(1), 1, x.size(x.dim() - 1), channels_last};
  for (int64_t d = 2; d < x.dim() - 1; ++d) images.height *= x.size(d);
  return images;
}

// [N, C, H, W] or [C, H, W].
inline Images planes_of(const Tensor& x, bool channels_last) {
  const int64_t d = x.dim();
  FASTSEQ_CHECK(d == 3 || d == 4, "fastseq: expected [N, C, H, W] or [C, H, W], got ",
                shape_string(x));
  return {d == 4 ? x.size(0) : 1, x.size(d - 3), x.size(d - 2), x.size(d - 1), channels_last};
}

inline void check_like(const Tensor& t, const Tensor& like, const std::vector<int64_t>& shape,
                       const char* name) {
  FASTSEQ_CHECK(shape_of(t) == shape, "fastseq: ", name, " has the wrong shape, ", shape_string(t));
  FASTSEQ_CHECK(t.scalar_type() == like.scalar_type() && t.device() == like.device(),
                "fastseq: ", name, " should have the dtype and the device of the input");
}

inline LrnWindow lrn_window(const Tensor& x, int64_t size, double alpha, double beta, double k,
                            bool within_channel) {
  FASTSEQ_CHECK(size > 0, "fastseq: local_response_norm needs a size above 0, got ", size);
  FASTSEQ_CHECK(size <= kWidest, "fastseq: local_response_norm takes a size of at most ", kWidest,
                ", got ", size);
  FASTSEQ_CHECK(!within_channel || x.dim() == 4,
                "fastseq: local_response_norm within a channel expects [N, C, H, W], got ",
                shape_string(x));
  return {size, alpha, beta, k, within_channel};
}

// at::pooling_output_shape
inline PoolSide pool_side(int64_t pixels, int64_t kernel, int64_t stride, int64_t padding,
                          int64_t dilation, bool ceil_mode) {
  FASTSEQ_CHECK(kernel > 0 && stride > 0 && dilation > 0 && padding >= 0,
                "fastseq: max_pool2d needs kernel_size, stride and dilation above 0 and padding "
                "of at least 0, got ",
                kernel, ", ", stride, ", ", dilation, " and ", padding);
  FASTSEQ_CHECK(kernel <= kWidest && stride <= kWidest && dilation <= kWidest,
                "fastseq: max_pool2d takes kernel_size, stride and dilation of at most ", kWidest,
                ", got ", kernel, ", ", stride, " and ", dilation);
  FASTSEQ_CHECK(padding <= kernel / 2,
                "fastseq: max_pool2d needs a padding of at most half the window, got ", padding,
                " for a kernel_size of ", kernel);
  const int64_t room = pixels + 2 * padding - dilation * (kernel - 1) - 1;
  const int64_t up = room + (ceil_mode ? stride - 1 : 0);
  int64_t out = (up >= 0 ? up / stride : -((-up + stride - 1) / stride)) + 1;
  // The last window must start inside the image or its left padding.
  if (ceil_mode && (out - 1) * stride >= pixels + padding) --out;
  return {kernel, stride, padding, dilation, out};
}

inline PoolWindow pool_window(const Images& images, const Pair& kernel, const Pair& stride,
                              const Pair& padding, const Pair& dilation, bool ceil_mode) {
  FASTSEQ_CHECK(
      kernel.size() == 2 && stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
      "fastseq: max_pool2d takes pairs (height, width)");
  const PoolWindow pool{
      pool_side(images.height, kernel[0], stride[0], padding[0], dilation[0], ceil_mode),
      pool_side(images.width, kernel[1], stride[1], padding[1], dilation[1], ceil_mode)};
  FASTSEQ_CHECK(pool.h.out > 0 && pool.w.out > 0, "fastseq: max_pool2d would give an output of ",
                pool.h.out, " x ", pool.w.out, " pixels for an input of ", images.height, " x ",
                images.width);
  return pool;
}

inline std::vector<int64_t> pooled_shape(const Tensor& x, const PoolWindow& pool) {
  std::vector<int64_t> shape = shape_of(x);
  shape[shape.size() - 2] = pool.h.out;
  shape[shape.size() - 1] = pool.w.out;
  return shape;
}

inline ScalarType offset_type(const PoolWindow& pool) {
  return pool.wide() ? ScalarType::Int : ScalarType::Byte;
}

// Offsets, as forward returned them.
inline void check_offsets(const Tensor& offsets, const Tensor& grad_y, const PoolWindow& pool) {
  FASTSEQ_CHECK(shape_of(offsets) == shape_of(grad_y) &&
                    offsets.scalar_type() == offset_type(pool) &&
                    offsets.device() == grad_y.device(),
                "fastseq: offsets should be those that forward returned with save, of shape ",
                shape_string(grad_y), ", got ", shape_string(offsets));
}

struct LrnCall {
  Tensor x, y;
  LrnForward args{};

  LrnCall(const Tensor& x_, int64_t size, double alpha, double beta, double k, bool within)
      : LrnCall(x_, suggests_channels_last(x_), size, alpha, beta, k, within) {}

 private:
  LrnCall(const Tensor& x_, bool last, int64_t size, double alpha, double beta, double k,
          bool within)
      : x(dense(x_, last)), y(new_images(x, shape_of(x), x.scalar_type(), last)) {
    args = {with_channels(x, last), lrn_window(x, size, alpha, beta, k, within), x.const_data_ptr(),
            y.mutable_data_ptr()};
  }
};

struct LrnBackwardCall {
  Tensor grad_y, x, grad_x;
  LrnBackward args{};

  LrnBackwardCall(const Tensor& grad_y_, const Tensor& x_, int64_t size, double alpha, double beta,
                  double k, bool within) {
    check_like(grad_y_, x_, shape_of(x_), "the gradient of local_response_norm");
    const bool last = suggests_channels_last(x_);
    x = dense(x_, last);
    grad_y = dense(grad_y_, last);
    grad_x = new_images(x, shape_of(x), x.scalar_type(), last);
    args = {with_channels(x, last), lrn_window(x, size, alpha, beta, k, within),
            grad_y.const_data_ptr(), x.const_data_ptr(), grad_x.mutable_data_ptr()};
  }
};

// What pool and trio forward return.
struct Pooled {
  Tensor y, offsets;

  Pooled(const Tensor& x, const PoolWindow& pool, bool channels_last, bool save)
      : y(new_images(x, pooled_shape(x, pool), x.scalar_type(), channels_last)),
        offsets(save ? new_images(x, pooled_shape(x, pool), offset_type(pool), channels_last)
                     : new_tensor(x, {0}, offset_type(pool))) {}

  void* offsets_pointer() const { return offsets.numel() ? offsets.mutable_data_ptr() : nullptr; }
};

using PooledResult = std::tuple<Tensor, Tensor>;

struct PoolCall {
  Tensor x;
  PoolForward args{};
  std::optional<Pooled> out;

  PoolCall(const Tensor& x_, const Pair& kernel, const Pair& stride, const Pair& padding,
           const Pair& dilation, bool ceil_mode, bool save) {
    const bool last = suggests_channels_last(x_);
    x = dense(x_, last);
    const Images images = planes_of(x, last);
    const PoolWindow pool = pool_window(images, kernel, stride, padding, dilation, ceil_mode);
    out.emplace(x, pool, last, save);
    args = {images, pool, x.const_data_ptr(), out->y.mutable_data_ptr(), out->offsets_pointer()};
  }

  PooledResult result() const { return {out->y, out->offsets}; }
};

struct PoolBackwardCall {
  Tensor grad_y, offsets, grad_x;
  PoolBackward args{};

  PoolBackwardCall(const Tensor& grad_y_, const Tensor& offsets_, int64_t height, int64_t width,
                   bool last, const Pair& kernel, const Pair& stride, const Pair& padding,
                   const Pair& dilation) {
    Images images = planes_of(grad_y_, last);
    const int64_t dims = grad_y_.dim();
    FASTSEQ_CHECK(!last || dims == 4, "fastseq: channels_last images have 4 dimensions, got ",
                  shape_string(grad_y_));
    FASTSEQ_CHECK(height > 0 && width > 0,
                  "fastseq: max_pool2d_backward needs an input of at "
                  "least one pixel, got ",
                  height, " x ", width);
    images.height = height;
    images.width = width;
    PoolWindow pool = pool_window(images, kernel, stride, padding, dilation, true);
    // ceil_mode may have added an output on either side; the gradient's shape tells.
    FASTSEQ_CHECK(grad_y_.size(dims - 2) <= pool.h.out && grad_y_.size(dims - 1) <= pool.w.out,
                  "fastseq: the gradient of max_pool2d has the wrong shape, ",
                  shape_string(grad_y_));
    pool.h.out = grad_y_.size(dims - 2);
    pool.w.out = grad_y_.size(dims - 1);
    check_offsets(offsets_, grad_y_, pool);
    grad_y = dense(grad_y_, last);
    offsets = dense(offsets_, last);
    std::vector<int64_t> shape = shape_of(grad_y);
    shape[dims - 2] = height;
    shape[dims - 1] = width;
    grad_x = new_images(grad_y, shape, grad_y.scalar_type(), last);
    args = {images, pool, grad_y.const_data_ptr(), offsets.const_data_ptr(),
            grad_x.mutable_data_ptr()};
  }
};

struct TrioCall {
  Tensor x;
  TrioForward args{};
  std::optional<Pooled> out;

  TrioCall(const Tensor& x_, int64_t size, double alpha, double beta, double k, const Pair& kernel,
           const Pair& stride, const Pair& padding, const Pair& dilation, bool ceil_mode,
           bool save) {
    FASTSEQ_CHECK(x_.dim() == 4, "fastseq: relu_lrn_max_pool2d expects [N, C, H, W], got ",
                  shape_string(x_));
    const bool last = suggests_channels_last(x_);
    x = dense(x_, last);
    const Images images = planes_of(x, last);
    const PoolWindow pool = pool_window(images, kernel, stride, padding, dilation, ceil_mode);
    out.emplace(x, pool, last, save);
    args = {images,
            lrn_window(x, size, alpha, beta, k, false),
            pool,
            x.const_data_ptr(),
            out->y.mutable_data_ptr(),
            out->offsets_pointer()};
  }

  PooledResult result() const { return {out->y, out->offsets}; }
};

struct TrioBackwardCall {
  Tensor grad_y, offsets, x, grad_x;
  TrioBackward args{};

  TrioBackwardCall(const Tensor& grad_y_, const Tensor& offsets_, const Tensor& x_, int64_t size,
                   double alpha, double beta, double k, const Pair& kernel, const Pair& stride,
                   const Pair& padding, const Pair& dilation) {
    FASTSEQ_CHECK(x_.dim() == 4 && grad_y_.dim() == 4,
                  "fastseq: relu_lrn_max_pool2d expects [N, C, H, W], got ", shape_string(x_));
    const bool last = suggests_channels_last(x_);
    const Images images = planes_of(x_, last);
    PoolWindow pool = pool_window(images, kernel, stride, padding, dilation, true);
    FASTSEQ_CHECK(grad_y_.size(2) <= pool.h.out && grad_y_.size(3) <= pool.w.out,
                  "fastseq: the gradient of relu_lrn_max_pool2d has the wrong shape, ",
                  shape_string(grad_y_));
    pool.h.out = grad_y_.size(2);
    pool.w.out = grad_y_.size(3);
    check_like(grad_y_, x_, pooled_shape(x_, pool), "the gradient of relu_lrn_max_pool2d");
    check_offsets(offsets_, grad_y_, pool);
    x = dense(x_, last);
    grad_y = dense(grad_y_, last);
    offsets = dense(offsets_, last);
    grad_x = new_images(x, shape_of(x), x.scalar_type(), last);
    args = {images,
            lrn_window(x, size, alpha, beta, k, false),
            pool,
            grad_y.const_data_ptr(),
            offsets.const_data_ptr(),
            x.const_data_ptr(),
            grad_x.mutable_data_ptr()};
  }
};

}  // namespace fastseq::ops
