// Local response normalization within a channel on a CPU: the window is n x n pixels. Squares are
// summed along a row first, then the last n rows of such sums are summed down.
//
// An item is some channels of one image. Its rows are laid out as [W, inner] in the buffers, inner
// being 1 for [C, H, W] and the item's channels for [H, W, C], so that a step along the row is
// `inner` elements in both.
#include "images_table.h"
#include "lrn_walk.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

constexpr int64_t kRowElements = 4'096;  // of a row of [H, W, C], as far as C can be split

template <class A>
struct Shape {
  int64_t height, width, inner;
  int64_t segments, length, step;  // a row in memory: segments of `length`, `step` apart
  int64_t row_step;                // from row to row in memory
  int64_t elements;                // of a row
  int64_t before, after;           // of the window along a row, in elements
  int64_t padded;                  // elements of a row buffer with its margins

  Shape(const Images& images, const LrnWindow& lrn, int64_t inner)
      : height(images.height), width(images.width), inner(inner) {
    const bool last = images.channels_last;
    segments = last ? width : 1;
    length = last ? inner : width;
    step = last ? images.channels : 0;
    row_step = last ? width * images.channels : width;
    elements = width * inner;
    before = lrn.before() * inner;
    after = lrn.after() * inner;
    padded = whole_vectors<A>(before + after + elements + 2 * lanes_of<A>);
  }

  // f(offset in memory, offset in a row buffer, elements that remain) for each vector of a row.
  template <class F>
  FASTSEQ_INLINE void each(const F& f) const {
    for (int64_t s = 0; s < segments; ++s) {
      for (int64_t e = 0; e < length; e += lanes_of<A>) {
        f(s * step + e, s * length + e, length - e);
      }
    }
  }
  // Zeros behind a row, where its last vector may have written.
  FASTSEQ_INLINE void close(A* row, int64_t margin) const {
    for (int64_t e = 0; e < margin + lanes_of<A>; ++e) row[elements + e] = 0;
  }
};

template <class A, int kSize>
FASTSEQ_INLINE void sum_along(const Shape<A>& shape, int64_t size, const A* from, A* to) {
  const int64_t n = kSize ? kSize : size;
  for (int64_t e = 0; e < shape.elements; e += lanes_of<A>) {
    Vec<A> sum = load<A>(from + e);
    for (int64_t i = 1; i < n; ++i) sum += load<A>(from + e + i * shape.inner);
    store<A>(to + e, sum);
  }
}

template <class Kind, int kSize>
struct Within {
  using S = typename Kind::S;
  using A = typename Kind::A;
  using V = typename Kind::V;

  const LrnNumbers<A> lrn;
  const Shape<A> shape;
  const Power<A, Kind::kBeta> power;
  A* const row;  // one row with margins
  const Ring<A, kSize> sums, term_sums;
  const Ring<A, 0> direct;

  Within(const LrnWindow& window, const Shape<A>& shape, A* scratch)
      : lrn(window),
        shape(shape),
        power(window.beta),
        row(scratch),
        sums{row + shape.padded, window.size, shape.padded},
        term_sums{sums.base + window.size * shape.padded, window.size, shape.padded},
        direct{term_sums.base + window.size * shape.padded, window.before() + 1, shape.padded} {
    fill_row(row, shape.padded);
    sums.clear();
  }

  // Sums of squares along row r; zeros beyond the image.
  FASTSEQ_INLINE void add_row(const S* x, int64_t r) const {
    A* const to = sums.row(r);
    if (r >= shape.height) return fill_row(to, shape.padded);
    A* const squares = row + shape.before;
    shape.each([&](int64_t at, int64_t e, int64_t n) {
      const V v = Kind::input(x + r * shape.row_step + at, n);
      store<A>(squares + e, v * v);
    });
    shape.close(squares, shape.after);
    sum_along<A, kSize>(shape, lrn.size, row, to);
  }

  // Rows of squares ahead of row 0.
  void start(const S* x) const {
    for (int64_t r = 0; r < lrn.after; ++r) add_row(x, r);
  }

  FASTSEQ_INLINE V normalizer(const RingSum<A, kSize>& sum, const A* newest, int64_t e) const {
    return lrn.k + lrn.scale * sum(e, load<A>(newest + e));
  }

  void forward(const S* x, S* y) const {
    start(x);
    for (int64_t h = 0; h < shape.height; ++h) {
      add_row(x, h + lrn.after);
      const RingSum<A, kSize> sum(sums, h - lrn.before, lrn.size);
      const A* const newest = sums.row(h + lrn.after);
      const int64_t at = h * shape.row_step;
      shape.each([&](int64_t i, int64_t e, int64_t n) {
        const V v = Kind::input(x + at + i, n) * power(normalizer(sum, newest, e));
        store_n<A>(y + at + i, v, n);
      });
    }
  }

  // Row j of t, summed along the row, and of g s^-beta.
  FASTSEQ_INLINE void add_terms(const S* g, const S* x, int64_t j) const {
    A* const to = term_sums.row(j);
    if (j >= shape.height) return fill_row(to, shape.padded);
    add_row(x, j + lrn.after);
    const RingSum<A, kSize> sum(sums, j - lrn.before, lrn.size);
    const A* const newest = sums.row(j + lrn.after);
    A* const terms = row + shape.after;  // the mirrored window: `after` elements to the left
    A* const own = direct.row(j);
    const int64_t at = j * shape.row_step;
    shape.each([&](int64_t i, int64_t e, int64_t n) {
      V f, q;
      power.both(normalizer(sum, newest, e), f, q);
      const V grad = load_n<A>(g + at + i, n);
      store<A>(terms + e, grad * Kind::input(x + at + i, n) * q);
      store<A>(own + e, grad * f);
    });
    for (int64_t e = 0; e < shape.after; ++e) row[e] = 0;
    shape.close(terms, shape.before);
    sum_along<A, kSize>(shape, lrn.size, row, to);
    for (int64_t e = 0; e < shape.before; ++e) row[e] = 0;  // for the next row of squares
  }

  void backward(const S* g, const S* x, S* dx) const {
    term_sums.clear();
    start(x);
    for (int64_t j = 0; j < shape.height + lrn.before; ++j) {
      add_terms(g, x, j);
      const int64_t h = j - lrn.before, at = h * shape.row_step;
      if (h < 0) continue;
      const RingSum<A, kSize> sum(term_sums, h - lrn.after, lrn.size);
      const A* const newest = term_sums.row(j);
      const A* const own = direct.row(h);
      shape.each([&](int64_t i, int64_t e, int64_t n) {
        const V total = sum(e, load<A>(newest + e));
        const V v = load<A>(own + e) - lrn.slope * Kind::input(x + at + i, n) * total;
        store_n<A>(dx + at + i, v, n);
      });
    }
  }
};

// Channels of an item.
template <class A>
int64_t inner_of(const Images& images) {
  if (!images.channels_last) return 1;
  const int64_t most = kRowElements / images.width;
  return even_tile(images.channels, most < lanes_of<A> ? lanes_of<A> : most, lanes_of<A>);
}

template <class A>
ImagesPlan plan_of(const Images& images, const LrnWindow& lrn, int64_t rings) {
  const int64_t inner = inner_of<A>(images);
  const Shape<A> shape(images, lrn, inner);
  const int64_t rows = 1 + rings * lrn.size + (rings > 1 ? lrn.before() + 1 : 0);
  return images_plan(images.batch * pieces(images.channels, inner), inner, images.numel(),
                     rows * shape.padded * static_cast<int64_t>(sizeof(A)));
}

template <class S>
struct LrnWithin {
  using A = accumulate_t<S>;

  static ImagesPlan plan_forward(const LrnForward& a, int64_t) {
    return plan_of<A>(a.images, a.lrn, 1);
  }
  static ImagesPlan plan_backward(const LrnBackward& a, int64_t) {
    return plan_of<A>(a.images, a.lrn, 2);
  }

  // f(Within, offset in memory) for items [first, last).
  template <class Args, class F>
  static void each(const Args& a, const ImagesPlan& plan, int64_t first, int64_t last,
                   void* scratch, const F& f) {
    const Images& images = a.images;
    with_kind<S, false>(a.lrn, [&](auto kind, auto size) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t each = pieces(images.channels, plan.tile);
        const int64_t image = i / each, c = i % each * plan.tile, left = images.channels - c;
        const Shape<A> shape(images, a.lrn, left < plan.tile ? left : plan.tile);
        const Within<decltype(kind), decltype(size)::value> within(a.lrn, shape,
                                                                   static_cast<A*>(scratch));
        f(within, image * images.channels * images.pixels() + c * images.channel_stride());
      }
    });
  }
  static void forward(const LrnForward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                      void* scratch) {
    each(a, plan, first, last, scratch, [&](const auto& within, int64_t at) {
      within.forward(static_cast<const S*>(a.x) + at, static_cast<S*>(a.y) + at);
    });
  }
  static void backward(const LrnBackward& a, const ImagesPlan& plan, int64_t first, int64_t last,
                       void* scratch) {
    each(a, plan, first, last, scratch, [&](const auto& within, int64_t at) {
      within.backward(static_cast<const S*>(a.grad_y) + at, static_cast<const S*>(a.x) + at,
                      static_cast<S*>(a.grad_x) + at);
    });
  }

  static constexpr LrnTable table() { return {{plan_forward, forward}, {plan_backward, backward}}; }
};

}  // namespace

const LrnTable lrn_within_table[kDTypes] = {LrnWithin<float>::table(), LrnWithin<double>::table(),
                                            LrnWithin<BFloat16>::table(), LrnWithin<Half>::table()};

}  // namespace fastseq::FASTSEQ_CAPABILITY
