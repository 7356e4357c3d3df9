// Local response normalization across channels on a CPU: one read of x (and of grad_y) and one
// write, tile by tile.
#include "images_table.h"
#include "lrn_walk.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

// Pixels of a tile of [C, pixels]: the rings should stay in the first-level cache.
constexpr int64_t kForwardPixels = 512, kBackwardPixels = 256;
template <class A, class Planes, class Rows>
ImagesPlan plan_of(const Images& images, const LrnWindow& lrn, int64_t most, Planes planes_scratch,
                   Rows rows_scratch) {
  constexpr auto bytes = static_cast<int64_t>(sizeof(A));
  if (images.channels_last) {
    const int64_t tile = rows_of_tile<A>(lrn, images.channels);
    const int64_t rows = images.batch * images.pixels();
    return images_plan(pieces(rows, tile), tile, images.numel(),
                       bytes * rows_scratch(lrn, images.channels, tile));
  }
  const int64_t tile = even_tile(images.pixels(), most, lanes_of<A>);
  return images_plan(images.batch * pieces(images.pixels(), tile), tile, images.numel(),
                     bytes * planes_scratch(lrn, tile));
}

// Item i as a tile of [C, pixels].
struct PlanesTile {
  int64_t at, pixels;

  PlanesTile(const Images& images, const ImagesPlan& plan, int64_t i) {
    const int64_t each = pieces(images.pixels(), plan.tile), p = i % each * plan.tile;
    at = i / each * images.channels * images.pixels() + p;
    pixels = images.pixels() - p < plan.tile ? images.pixels() - p : plan.tile;
  }
};

// Item i as a tile of [pixels, C].
struct RowsTile {
  int64_t at, rows;

  RowsTile(const Images& images, const ImagesPlan& plan, int64_t i) {
    const int64_t all = images.batch * images.pixels(), first = i * plan.tile;
    at = first * images.channels;
    rows = all - first < plan.tile ? all - first : plan.tile;
  }
};

template <class Kind, int kSize>
void forward_item(const LrnForward& a, const ImagesPlan& plan, int64_t i,
                  typename Kind::A* scratch) {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;
  const LrnNumbers<A> lrn(a.lrn);
  const int64_t C = a.images.channels, P = a.images.pixels();
  if (a.images.channels_last) {
    const RowsTile tile(a.images, plan, i);
    S* const y = static_cast<S*>(a.y) + tile.at;
    lrn_forward_rows<Kind, kSize>(
        lrn, static_cast<const S*>(a.x) + tile.at, C, tile.rows, scratch,
        [&](int64_t r, int64_t c, V v) { store_n<A>(y + r * C + c, v, C - c); });
    return;
  }
  const PlanesTile tile(a.images, plan, i);
  S* const y = static_cast<S*>(a.y) + tile.at;
  lrn_forward_planes<Kind, kSize>(
      lrn, static_cast<const S*>(a.x) + tile.at, P, C, tile.pixels, scratch,
      [&](int64_t c, int64_t p, V v) {
        prefetch_to_write(y + (c + 1) * P + p);
        store_n<A>(y + c * P + p, v, tile.pixels - p);
      },
      [](int64_t) {});
}

template <class Kind, int kSize>
void backward_item(const LrnBackward& a, const ImagesPlan& plan, int64_t i,
                   typename Kind::A* scratch) {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;
  const LrnNumbers<A> lrn(a.lrn);
  const int64_t C = a.images.channels, P = a.images.pixels();
  if (a.images.channels_last) {
    const RowsTile tile(a.images, plan, i);
    const S* const g = static_cast<const S*>(a.grad_y) + tile.at;
    S* const dx = static_cast<S*>(a.grad_x) + tile.at;
    lrn_backward_rows<Kind, kSize>(
        lrn, static_cast<const S*>(a.x) + tile.at, C, tile.rows, scratch,
        [&](int64_t r, int64_t c) {
          prefetch_to_read(g + (r + tile.rows) * C + c);
          return load_n<A>(g + r * C + c, C - c);
        },
        [&](int64_t r, int64_t c, V v) {
          prefetch_to_write(dx + (r + tile.rows) * C + c);
          store_n<A>(dx + r * C + c, v, C - c);
        });
    return;
  }
  const PlanesTile tile(a.images, plan, i);
  const S* const g = static_cast<const S*>(a.grad_y) + tile.at;
  S* const dx = static_cast<S*>(a.grad_x) + tile.at;
  lrn_backward_planes<Kind, kSize>(
      lrn, static_cast<const S*>(a.x) + tile.at, P, C, tile.pixels, scratch, [](int64_t) {},
      [&](int64_t c, int64_t p) {
        prefetch_to_read(g + (c + 1) * P + p);
        return load_n<A>(g + c * P + p, tile.pixels - p);
      },
      [&](int64_t c, int64_t p, V v) {
        prefetch_to_write(dx + (c + 1) * P + p);
        store_n<A>(dx + c * P + p, v, tile.pixels - p);
      });
}

template <class S>
struct Lrn {
  using A = accumulate_t<S>;

  static ImagesPlan plan_forward(const LrnForward& a, int64_t) {
    return plan_of<A>(a.images, a.lrn, kForwardPixels, forward_planes_scratch<A>,
                      forward_rows_scratch<A>);
  }
  static ImagesPlan plan_backward(const LrnBackward& a, int64_t) {
    return plan_of<A>(a.images, a.lrn, kBackwardPixels, backward_planes_scratch<A>,
                      backward_rows_scratch<A>);
  }
  static void forward(const LrnForward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                      void* scratch) {
    with_kind<S, false>(a.lrn, [&](auto kind, auto size) {
      for (int64_t i = first; i < last; ++i) {
        forward_item<decltype(kind), decltype(size)::value>(a, plan, i, static_cast<A*>(scratch));
      }
    });
  }
  static void backward(const LrnBackward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                       void* scratch) {
    with_kind<S, false>(a.lrn, [&](auto kind, auto size) {
      for (int64_t i = first; i < last; ++i) {
        backward_item<decltype(kind), decltype(size)::value>(a, plan, i, static_cast<A*>(scratch));
      }
    });
  }

  static constexpr LrnTable table() { return {{plan_forward, forward}, {plan_backward, backward}}; }
};

}  // namespace

const LrnTable lrn_table[kDTypes] = {Lrn<float>::table(), Lrn<double>::table(),
                                     Lrn<BFloat16>::table(), Lrn<Half>::table()};

}  // namespace fastseq::FASTSEQ_CAPABILITY
