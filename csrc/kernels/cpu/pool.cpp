// Overlapping max-pool on a CPU: one read of x, one write of y and of a byte per output; backward
// one read of these and one write of grad_x.
#include <type_traits>

#include "images_table.h"
#include "pool_gradient.h"
#include "pool_walk.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

constexpr int64_t kPlanePixels = 65'536;  // larger planes are cut into bands of rows

// Planes in bands of `tile` rows, or one row of pixels of [H, W, C] at a time.
template <class A>
ImagesPlan plan_of(const Images& images, int64_t rows, int64_t scratch) {
  constexpr auto bytes = static_cast<int64_t>(sizeof(A));
  if (images.channels_last) {
    return images_plan(images.batch * rows, 1, images.numel(), bytes * scratch);
  }
  const int64_t each = images.pixels() / rows;
  const int64_t tile = even_tile(rows, clamped(kPlanePixels / (each > 0 ? each : 1), 1, rows), 1);
  return images_plan(images.batch * images.channels * pieces(rows, tile), tile, images.numel(),
                     bytes * scratch);
}

// Item i: a plane and its rows [first, last).
struct Band {
  int64_t plane, first, last;

  Band(const ImagesPlan& plan, int64_t rows, int64_t i) {
    const int64_t each = pieces(rows, plan.tile);
    plane = i / each;
    first = i % each * plan.tile;
    last = first + plan.tile < rows ? first + plan.tile : rows;
  }
};

template <class S, bool kSave, class Window>
struct PoolForwardItems {
  using A = accumulate_t<S>;

  static void planes(const PoolForward& a, const ImagesPlan& plan, int64_t begin, int64_t end,
                     A* scratch) {
    const int64_t H = a.images.height, W = a.images.width, outs = a.pool.w.out;
    PlanePool<A, kSave, Window> walk(a.pool, H, W, scratch);
    walk.prepare();
    for (int64_t i = begin; i < end; ++i) {
      const Band band(plan, a.pool.h.out, i);
      const S* const x = static_cast<const S*>(a.x) + band.plane * H * W;
      const int64_t at = band.plane * a.pool.h.out * outs;
      S* const y = static_cast<S*>(a.y) + at;
      const auto offsets = places_at<Window>(a.offsets, a.pool, at);
      walk.run(
          band.first, band.last, [&](int64_t h) { return x + h * W; },
          [&](int64_t o_h, int64_t o_w, int64_t n, Vec<A> value, Places<A> place) {
            store_n<A>(y + o_h * outs + o_w, value, n);
            if (kSave && a.offsets) store_places<A>(offsets + o_h * outs + o_w, place, n);
          });
    }
  }

  static void pixels(const PoolForward& a, int64_t begin, int64_t end) {
    const int64_t H = a.images.height, W = a.images.width, C = a.images.channels;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / a.pool.h.out, o_h = i % a.pool.h.out;
      const S* const x = static_cast<const S*>(a.x) + image * H * W * C;
      S* const y = static_cast<S*>(a.y) + i * a.pool.w.out * C;
      const auto offsets = places_at<Window>(a.offsets, a.pool, i * a.pool.w.out * C);
      pool_pixels<A, kSave, S, Window>(
          a.pool, o_h, H, W, C, [&](int64_t h) { return x + h * W * C; },
          [&](int64_t o_w, int64_t c, int64_t n, Vec<A> value, Places<A> place) {
            store_n<A>(y + o_w * C + c, value, n);
            if (kSave && a.offsets) store_places<A>(offsets + o_w * C + c, place, n);
          });
    }
  }
};

// A row of the gradient, and what may be written beyond it.
template <class A>
int64_t line_size(int64_t width) {
  return whole_vectors<A>(width + 2 * lanes_of<A>);
}

template <class S, class Window>
struct PoolBackwardItems {
  using A = accumulate_t<S>;

  static void planes(const PoolBackward& a, const ImagesPlan& plan, int64_t begin, int64_t end,
                     A* scratch) {
    const int64_t H = a.images.height, W = a.images.width, outs = a.pool.h.out * a.pool.w.out;
    A* const line = scratch;
    const PlaneGradient<A, Window> walk(a.pool, W, scratch + line_size<A>(W));
    walk.prepare();
    for (int64_t i = begin; i < end; ++i) {
      const Band band(plan, H, i);
      const S* const grad = static_cast<const S*>(a.grad_y) + band.plane * outs;
      const auto offsets = places_at<Window>(a.offsets, a.pool, band.plane * outs);
      S* const dx = static_cast<S*>(a.grad_x) + band.plane * H * W;
      walk.forget();
      for (int64_t h = band.first; h < band.last; ++h) {
        walk.row(h, grad, offsets, line);
        store_row(dx + h * W, line, W);
      }
    }
  }

  static void pixels(const PoolBackward& a, int64_t begin, int64_t end, A* line) {
    const int64_t H = a.images.height, W = a.images.width, C = a.images.channels;
    const int64_t outs = a.pool.h.out * a.pool.w.out * C;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / H, h = i % H;
      const S* const grad = static_cast<const S*>(a.grad_y) + image * outs;
      const auto offsets = places_at<Window>(a.offsets, a.pool, image * outs);
      S* const dx = static_cast<S*>(a.grad_x) + i * W * C;
      if constexpr (std::is_same_v<A, S>) {
        pool_gradient_pixels<A, Window>(a.pool, h, W, C, grad, offsets, dx);
      } else {
        pool_gradient_pixels<A, Window>(a.pool, h, W, C, grad, offsets, line);
        store_row(dx, line, W * C);
      }
    }
  }
};

template <class S>
struct Pool {
  using A = accumulate_t<S>;

  static ImagesPlan plan_forward(const PoolForward& a, int64_t) {
    const PlanePool<A, true, Known<0, 0>> walk(a.pool, a.images.height, a.images.width, nullptr);
    return plan_of<A>(a.images, a.pool.h.out, a.images.channels_last ? 0 : walk.size);
  }
  static ImagesPlan plan_backward(const PoolBackward& a, int64_t) {
    const Images& images = a.images;
    if (images.channels_last) {
      const int64_t line = std::is_same_v<A, S> ? 0 : images.width * images.channels;
      return plan_of<A>(images, images.height, whole_vectors<A>(line));
    }
    const PlaneGradient<A, Known<0, 0>> walk(a.pool, images.width, nullptr);
    return plan_of<A>(images, images.height, walk.size + line_size<A>(images.width));
  }

  template <bool kSave>
  static void forward_as(const PoolForward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                         void* scratch) {
    with_window<(sizeof(S) == 8)>(a.pool, [&](auto window) {
      using Window = decltype(window);
      if (a.images.channels_last) {
        return across_channels<Window, kSave>(a.pool, [&](auto window) {
          PoolForwardItems<S, kSave, decltype(window)>::pixels(a, first, last);
        });
      }
      PoolForwardItems<S, kSave, Window>::planes(a, plan, first, last, static_cast<A*>(scratch));
    });
  }
  static void forward(const PoolForward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                      void* scratch) {
    if constexpr (kCopies) {
      if (!a.offsets) return forward_as<false>(a, plan, first, last, scratch);
    }
    forward_as<true>(a, plan, first, last, scratch);
  }

  static void backward(const PoolBackward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                       void* scratch) {
    with_window<(sizeof(S) == 8)>(a.pool, [&](auto window) {
      using Window = decltype(window);
      if (a.images.channels_last) {
        return across_channels<Window, true>(a.pool, [&](auto window) {
          PoolBackwardItems<S, decltype(window)>::pixels(a, first, last, static_cast<A*>(scratch));
        });
      }
      PoolBackwardItems<S, Window>::planes(a, plan, first, last, static_cast<A*>(scratch));
    });
  }

  static constexpr PoolTable table() {
    return {{plan_forward, forward}, {plan_backward, backward}};
  }
};

}  // namespace

const PoolTable pool_table[kDTypes] = {Pool<float>::table(), Pool<double>::table(),
                                       Pool<BFloat16>::table(), Pool<Half>::table()};

}  // namespace fastseq::FASTSEQ_CAPABILITY
