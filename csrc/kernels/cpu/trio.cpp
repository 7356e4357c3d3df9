// ReLU -> LRN across channels -> max-pool in one pass on a CPU: x is read once, the pooled result
// written once; what lies between stays in the cache. The numbers are those of the three ops in a
// row, bit by bit: the normalized values are rounded to the storage type before pooling.
#include "images_table.h"
#include "lrn_walk.h"
#include "pool_gradient.h"
#include "pool_walk.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

constexpr int64_t kForwardPixels = 1'024;  // of a band of input rows of [C, H, W]
constexpr int64_t kBackwardPixels = 512;
constexpr int64_t kLeastOuts = 4;  // output rows of a band: neighbours share input rows
constexpr int64_t kItemsPerThread = 4;

// Output rows of a band of which `most` input rows are wanted, at least kLeastOuts.
int64_t band_outs(const PoolSide& h, int64_t most) {
  const int64_t reach = (h.kernel - 1) * h.dilation + 1;
  const int64_t outs = most > reach ? (most - reach) / h.stride + 1 : 1;
  return clamped(outs, kLeastOuts < h.out ? kLeastOuts : h.out, h.out);
}

// Input rows of any band of so many output rows.
int64_t band_rows(const TrioForward& a, int64_t outs) {
  const int64_t rows = (outs - 1) * a.pool.h.stride + (a.pool.h.kernel - 1) * a.pool.h.dilation + 1;
  return rows < a.images.height ? rows : a.images.height;
}

// The rows of x that output rows [first, last) look at.
struct InputRows {
  int64_t begin, end;

  InputRows(const TrioForward& a, int64_t first, int64_t last) {
    const PoolSide& h = a.pool.h;
    begin = clamped(h.start(first), 0, a.images.height);
    end = clamped(h.start(last - 1) + (h.kernel - 1) * h.dilation + 1, begin, a.images.height);
  }
};

template <class S>
constexpr int64_t kBytes = static_cast<int64_t>(sizeof(accumulate_t<S>));

// [C, H, W]: channel by channel, the normalized band of rows is pooled as soon as it is complete.
template <class Kind, int kSize, bool kSave, class Window>
void forward_planes(const TrioForward& a, const ImagesPlan& plan, int64_t item,
                    typename Kind::A* scratch) {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t C = a.images.channels, H = a.images.height, W = a.images.width;
  const int64_t outs = a.pool.w.out, each = pieces(a.pool.h.out, plan.tile);
  const int64_t image = item / each, first = item % each * plan.tile;
  const int64_t last = first + plan.tile < a.pool.h.out ? first + plan.tile : a.pool.h.out;
  const InputRows rows(a, first, last);
  const int64_t pixels = (rows.end - rows.begin) * W;
  A* const band = scratch;
  A* const pool_scratch = band + whole_vectors<A>(pixels);
  PlanePool<A, kSave, Window> pool(a.pool, H, W, pool_scratch);
  pool.prepare();
  A* const lrn_scratch = pool_scratch + whole_vectors<A>(pool.size);
  const S* const x = static_cast<const S*>(a.x) + (image * C * H + rows.begin) * W;
  const auto row = [&](int64_t h) { return band + (h - rows.begin) * W; };
  lrn_forward_planes<Kind, kSize>(
      LrnNumbers<A>(a.lrn), x, H * W, C, pixels, lrn_scratch,
      [&](int64_t, int64_t p, V v) { store<A>(band + p, rounded_to<A, S>(v)); },
      [&](int64_t c) {
        const int64_t at = (image * C + c) * a.pool.h.out * outs;
        S* const y = static_cast<S*>(a.y) + at;
        const auto offsets = places_at<Window>(a.offsets, a.pool, at);
        pool.run(first, last, row,
                 [&](int64_t o_h, int64_t o_w, int64_t n, V value, Places<A> place) {
                   store_n<A>(y + o_h * outs + o_w, value, n);
                   if (kSave && a.offsets) store_places<A>(offsets + o_h * outs + o_w, place, n);
                 });
      });
}

// [H, W, C]: the normalized rows that the window still needs are kept, each made once in a band.
template <class Kind, int kSize, bool kSave, class Window>
void forward_pixels(const TrioForward& a, const ImagesPlan& plan, int64_t item,
                    typename Kind::A* scratch) {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t C = a.images.channels, H = a.images.height, W = a.images.width;
  const int64_t outs = a.pool.w.out, each = pieces(a.pool.h.out, plan.tile);
  const int64_t image = item / each, first = item % each * plan.tile;
  const int64_t last = first + plan.tile < a.pool.h.out ? first + plan.tile : a.pool.h.out;
  const InputRows rows(a, first, last);
  const int64_t slots = (a.pool.h.kernel - 1) * a.pool.h.dilation + 1;
  const int64_t stride = whole_vectors<A>(W * C) + Kind::L;
  A* const kept = scratch;  // [slots, stride]
  A* const lrn_scratch = kept + slots * stride;
  const LrnNumbers<A> lrn(a.lrn);
  const int64_t chunk = rows_of_tile<A>(a.lrn, C);
  const S* const x = static_cast<const S*>(a.x) + image * H * W * C;
  int64_t next = rows.begin;
  for (int64_t o_h = first; o_h < last; ++o_h) {
    const int64_t top = clamped(a.pool.h.start(o_h), 0, H);
    const int64_t end = InputRows(a, o_h, o_h + 1).end;
    if (next < top) next = top;
    for (; next < end; ++next) {
      A* const to = kept + next % slots * stride;
      for (int64_t w0 = 0; w0 < W; w0 += chunk) {
        lrn_forward_rows<Kind, kSize>(lrn, x + (next * W + w0) * C, C,
                                      W - w0 < chunk ? W - w0 : chunk, lrn_scratch,
                                      [&](int64_t w, int64_t c, V v) {
                                        store<A>(to + (w0 + w) * C + c, rounded_to<A, S>(v));
                                      });
      }
    }
    const int64_t at = (image * a.pool.h.out + o_h) * outs * C;
    S* const y = static_cast<S*>(a.y) + at;
    const auto offsets = places_at<Window>(a.offsets, a.pool, at);
    pool_pixels<A, kSave, A, Window>(
        a.pool, o_h, H, W, C, [&](int64_t h) { return kept + h % slots * stride; },
        [&](int64_t o_w, int64_t c, int64_t n, V value, Places<A> place) {
          store_n<A>(y + o_w * C + c, value, n);
          if (kSave && a.offsets) store_places<A>(offsets + o_w * C + c, place, n);
        });
  }
}

// Rows [first, first + plan.tile) of [C, H, W]: the gradient of the pool is gathered for the band,
// channel by channel, as the walk asks for it.
template <class Kind, int kSize, class Window>
void backward_planes(const TrioBackward& a, const ImagesPlan& plan, int64_t item,
                     typename Kind::A* scratch) {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t C = a.images.channels, H = a.images.height, W = a.images.width;
  const int64_t each = pieces(H, plan.tile), outs = a.pool.h.out * a.pool.w.out;
  const int64_t image = item / each, first = item % each * plan.tile;
  const int64_t last = first + plan.tile < H ? first + plan.tile : H, pixels = (last - first) * W;
  A* const band = scratch;  // the gradient of the normalized band
  A* const pool_scratch = band + whole_vectors<A>(pixels + 2 * Kind::L);
  const PlaneGradient<A, Window> pool(a.pool, W, pool_scratch);
  A* const lrn_scratch = pool_scratch + whole_vectors<A>(pool.size);
  const int64_t at = (image * C * H + first) * W;
  const S* const grad = static_cast<const S*>(a.grad_y) + image * C * outs;
  const auto offsets = places_at<Window>(a.offsets, a.pool, image * C * outs);
  S* const dx = static_cast<S*>(a.grad_x) + at;
  pool.prepare();
  lrn_backward_planes<Kind, kSize>(
      LrnNumbers<A>(a.lrn), static_cast<const S*>(a.x) + at, H * W, C, pixels, lrn_scratch,
      [&](int64_t c) {
        pool.forget();
        for (int64_t h = first; h < last; ++h) {
          pool.row(h, grad + c * outs, offsets + c * outs, band + (h - first) * W);
        }
      },
      [&](int64_t, int64_t p) { return rounded_to<A, S>(load<A>(band + p)); },
      [&](int64_t c, int64_t p, V v) {
        prefetch_to_write(dx + (c + 1) * H * W + p);
        store_n<A>(dx + c * H * W + p, v, pixels - p);
      });
}

// One row of [H, W, C].
template <class Kind, int kSize, class Window>
void backward_pixels(const TrioBackward& a, const ImagesPlan&, int64_t item,
                     typename Kind::A* scratch) {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t C = a.images.channels, H = a.images.height, W = a.images.width;
  const int64_t image = item / H, h = item % H, outs = a.pool.h.out * a.pool.w.out * C;
  A* const line = scratch;  // the gradient of the normalized row
  A* const lrn_scratch = line + whole_vectors<A>(W * C) + Kind::L;
  pool_gradient_pixels<A, Window>(a.pool, h, W, C, static_cast<const S*>(a.grad_y) + image * outs,
                                  places_at<Window>(a.offsets, a.pool, image * outs), line);
  const LrnNumbers<A> lrn(a.lrn);
  const int64_t chunk = rows_of_tile<A>(a.lrn, C);
  for (int64_t w0 = 0; w0 < W; w0 += chunk) {
    const int64_t at = (item * W + w0) * C;
    const A* const g = line + w0 * C;
    S* const dx = static_cast<S*>(a.grad_x) + at;
    lrn_backward_rows<Kind, kSize>(
        lrn, static_cast<const S*>(a.x) + at, C, W - w0 < chunk ? W - w0 : chunk, lrn_scratch,
        [&](int64_t w, int64_t c) { return rounded_to<A, S>(load_n<A>(g + w * C + c, C - c)); },
        [&](int64_t w, int64_t c, V v) {
          prefetch_to_write(dx + (chunk + w) * C + c);
          store_n<A>(dx + w * C + c, v, C - c);
        });
  }
}

template <class S>
struct Trio {
  using A = accumulate_t<S>;
  using AnyWindow = Known<0, 0>;

  static ImagesPlan plan_forward(const TrioForward& a, int64_t threads) {
    const Images& images = a.images;
    const int64_t C = images.channels, W = images.width, outs = a.pool.h.out;
    if (images.channels_last) {
      const int64_t bands = pieces(kItemsPerThread * threads, images.batch);
      const int64_t tile =
          clamped(pieces(outs, bands), kLeastOuts < outs ? kLeastOuts : outs, outs);
      const int64_t slots = (a.pool.h.kernel - 1) * a.pool.h.dilation + 1;
      const int64_t size = slots * (whole_vectors<A>(W * C) + lanes_of<A>)+forward_rows_scratch<A>(
                                       a.lrn, C, rows_of_tile<A>(a.lrn, C));
      return images_plan(images.batch * pieces(outs, tile), tile, images.numel(), size * kBytes<S>);
    }
    const int64_t tile = even_tile(outs, band_outs(a.pool.h, kForwardPixels / W), 1);
    const int64_t pixels = band_rows(a, tile) * W;
    const PlanePool<A, true, AnyWindow> pool(a.pool, images.height, W, nullptr);
    const int64_t size = whole_vectors<A>(pixels) + whole_vectors<A>(pool.size) +
                         forward_planes_scratch<A>(a.lrn, pixels);
    return images_plan(images.batch * pieces(outs, tile), tile, images.numel(), size * kBytes<S>);
  }

  static ImagesPlan plan_backward(const TrioBackward& a, int64_t) {
    const Images& images = a.images;
    const int64_t C = images.channels, H = images.height, W = images.width;
    if (images.channels_last) {
      const int64_t size = whole_vectors<A>(W * C) + lanes_of<A> +
                           backward_rows_scratch<A>(a.lrn, C, rows_of_tile<A>(a.lrn, C));
      return images_plan(images.batch * H, 1, images.numel(), size * kBytes<S>);
    }
    const int64_t tile = even_tile(H, clamped(kBackwardPixels / W, 1, H), 1), pixels = tile * W;
    const PlaneGradient<A, AnyWindow> pool(a.pool, W, nullptr);
    const int64_t size = whole_vectors<A>(pixels + 2 * lanes_of<A>) + whole_vectors<A>(pool.size) +
                         backward_planes_scratch<A>(a.lrn, pixels);
    return images_plan(images.batch * pieces(H, tile), tile, images.numel(), size * kBytes<S>);
  }

  using Published = LrnKind<S, Beta::kThreeQuarters, true>;
  using Any = LrnKind<S, Beta::kDynamic, true>;

  // AlexNet's and GoogLeNet's numbers, for which there is a copy; more would take minutes to
  // compile.
  static constexpr bool kPublished = kCopies && sizeof(S) < 8;
  template <class Args>
  static bool published(const Args& a) {
    return a.lrn.beta == 0.75 && a.lrn.size == 5 && overlapping(a.pool);
  }

  template <class Kind, int kSize, bool kSave, class Window>
  static void forward_as(const TrioForward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                         void* scratch) {
    const auto run = a.images.channels_last ? forward_pixels<Kind, kSize, kSave, Window>
                                            : forward_planes<Kind, kSize, kSave, Window>;
    for (int64_t i = first; i < last; ++i) run(a, plan, i, static_cast<A*>(scratch));
  }
  static void forward(const TrioForward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                      void* scratch) {
    if constexpr (kPublished) {
      if (published(a)) {
        const auto run = a.offsets ? forward_as<Published, 5, true, Known<3, 2>>
                                   : forward_as<Published, 5, false, Known<3, 2>>;
        return run(a, plan, first, last, scratch);
      }
    }
    forward_as<Any, 0, true, AnyWindow>(a, plan, first, last, scratch);
  }

  template <class Kind, int kSize, class Window>
  static void backward_as(const TrioBackward& a, const ImagesPlan& plan, int64_t first,
                          int64_t last, void* scratch) {
    const auto run = a.images.channels_last ? backward_pixels<Kind, kSize, Window>
                                            : backward_planes<Kind, kSize, Window>;
    for (int64_t i = first; i < last; ++i) run(a, plan, i, static_cast<A*>(scratch));
  }
  static void backward(const TrioBackward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                       void* scratch) {
    if constexpr (kPublished) {
      if (published(a)) {
        return backward_as<Published, 5, Known<3, 2>>(a, plan, first, last, scratch);
      }
    }
    backward_as<Any, 0, AnyWindow>(a, plan, first, last, scratch);
  }

  static constexpr TrioTable table() {
    return {{plan_forward, forward}, {plan_backward, backward}};
  }
};

}  // namespace

const TrioTable trio_table[kDTypes] = {Trio<float>::table(), Trio<double>::table(),
                                       Trio<BFloat16>::table(), Trio<Half>::table()};

}  // namespace fastseq::FASTSEQ_CAPABILITY
