// ReLU -> LRN -> max-pool: which kernel runs. Backward is LRN's own, which gathers its gradient
// from the outputs that chose a pixel and reads x through the ReLU.
#include "lrn_last.cuh"
#include "trio_forward.cuh"

namespace fastseq::cuda {
namespace {

// The gradient of LRN's output, gathered through the pool.
template <class S, class O, bool kFixed>
struct Chosen {
  const S* grad_y;
  const O* offsets;
  const Window<kFixed>& window;

  template <int V>
  FASTSEQ_DEVICE auto at(const Images& images, int64_t image, int64_t pixel) const {
    static_assert(V == 1);
    const int64_t h = device::divide(pixel, window.width);
    const Gather<kFixed> gather(window, static_cast<int>(h),
                                static_cast<int>(pixel - h * window.width));
    const int64_t outputs = window.outputs(), start = image * images.channels * outputs;
    return [this, gather, outputs, start](int64_t c, accumulate_t<S>(&g)[1]) {
      gather.template gradient<1>(grad_y, offsets, start + c * outputs, 1, g);
    };
  }
  template <int V>
  FASTSEQ_DEVICE void run(const Images& images, int64_t element, accumulate_t<S> (&g)[V]) const {
    const int64_t C = images.channels;
    if (V > 1 && (sizeof(O) > 1 || C % V)) {  // wide offsets, or a run that lies in several pixels
      FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
        accumulate_t<S> one[1];
        run<1>(images, element + i, one);
        g[i] = one[0];
      }
      return;
    }
    const int64_t rest = device::divide(element, C), row = device::divide(rest, window.width);
    const int64_t image = device::divide(row, window.height);
    const Gather<kFixed> gather(window, static_cast<int>(row - image * window.height),
                                static_cast<int>(rest - row * window.width));
    const int64_t base = image * window.outputs() * C + element - rest * C;
    if constexpr (V == 1 || sizeof(O) == 1) {
      gather.template gradient<V>(grad_y, offsets, base, C, g);
    }
  }
};

template <class S, class O, bool kFixed>
FASTSEQ_DEVICE Chosen<S, O, kFixed> chosen(const TrioBackward& a, const Window<kFixed>& window) {
  return {static_cast<const S*>(a.grad_y), static_cast<const O*>(a.offsets), window};
}

template <class S, class O, bool kFixed, int N>
FASTSEQ_KERNEL_OF(device::kBlock, 2)
trio_planes_backward(Of<S, TrioBackward> a, Norm<S, N> norm, Window<kFixed> window, Chunks chunks) {
  if constexpr (N == 0) {
    planes_backward_any<S, Relu>(a, norm, chunks, chosen<S, O>(a, window));
  } else {
    planes_backward<S, N, 1, Relu>(a, norm, chunks, chosen<S, O>(a, window));
  }
}

template <class S, class O, bool kFixed, int N>
FASTSEQ_KERNEL_OF(device::kBlock, 2)
trio_last_backward(Of<S, TrioBackward> a, Norm<S, N> norm, Window<kFixed> window, bool in_line) {
  last_backward<S, N, Relu>(a, norm, chosen<S, O>(a, window), in_line);
}

template <class S, class O, bool kFixed>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_direct_backward(Of<S, TrioBackward> a, Norm<S, 0> norm, Window<kFixed> window) {
  direct_backward<S, false, Relu>(a, norm, chosen<S, O>(a, window));
}

// f(Constant<N>): AlexNet's and GoogLeNet's 5 under the usual window, or any size; more copies
// would take minutes to compile.
template <class S, bool kFixed, class F>
const char* with_trio_size(const LrnWindow& lrn, const F& f) {
  if constexpr (kFixed && sizeof(S) < 8) {
    if (lrn.size == 5 && is_fast(lrn.beta)) return f(Constant<5>{});
  }
  return f(Constant<0>{});
}

template <class S, class O, bool kFixed>
const char* forward(const Of<S, TrioForward>& a, device::Stream stream) {
  using A = accumulate_t<S>;
  constexpr int64_t size = sizeof(A);
  const Images& s = a.images;
  const Window<kFixed> window(s, a.pool);
  const auto direct = [&] {
    return device::launch(trio_direct_forward<S, O, kFixed>,
                          s.batch * s.channels * window.outputs(), stream, a, Norm<S, 0>(a.lrn),
                          window);
  };
  if (!s.channels_last) {
    const int64_t room = device::kSharedLimit / (2 * kStage * size);
    const PlanesTile tile{choose_tile(window, smaller(room, PlanesTile::kThreads), 8)};
    if (tile.oh == 0) return direct();
    const int threads = static_cast<int>(divide_up(tile.inputs(), device::kWarp)) * device::kWarp;
    const int64_t tiles = s.batch * tile.down * tile.across;
    const Chunks chunks(tiles * threads, s.channels, a.lrn.size);
    const device::Grid grid{tiles * chunks.count, threads, 2 * kStage * size * tile.inputs()};
    return with_trio_size<S, kFixed>(a.lrn, [&](auto n) {
      constexpr int N = decltype(n)::kValue;
      return device::launch(trio_planes_forward<S, O, kFixed, N>, grid, stream, a,
                            Norm<S, N>(a.lrn), window, tile, chunks);
    });
  }
  if (a.lrn.size > kLongestLineWindow) return direct();
  const int shift = sizeof(A) == 8 ? 4 : 5, group = 1 << shift;
  const LastTile last{group, shift, divide_up(s.channels, group)};
  const int64_t bytes = size * last.pitch(a.lrn.before(), a.lrn.after()) + sizeof(int64_t);
  const PoolTile tile =
      choose_tile(window, smaller(device::kSharedLimit / bytes, device::kBlock), 0);
  if (tile.oh == 0) return direct();
  const device::Grid grid{s.batch * tile.down * tile.across * last.groups, device::kBlock,
                          bytes * tile.inputs()};
  return with_trio_size<S, kFixed>(a.lrn, [&](auto n) {
    constexpr int N = decltype(n)::kValue;
    return device::launch(trio_last_forward<S, O, kFixed, N>, grid, stream, a, Norm<S, N>(a.lrn),
                          window, tile, last);
  });
}

template <class S, class O, bool kFixed>
const char* backward(const Of<S, TrioBackward>& a, device::Stream stream) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  const Window<kFixed> window(s, a.pool);
  const int64_t n = a.lrn.size;
  const auto direct = [&] {
    return device::launch(trio_direct_backward<S, O, kFixed>, s.numel(), stream, a,
                          Norm<S, 0>(a.lrn), window);
  };
  if (s.channels_last) {
    if (n > kLongestLineWindow) return direct();
    constexpr int V = kPack<S>;
    const LastBackwardTile<A, V> tile(static_cast<int>(a.lrn.before()),
                                      static_cast<int>(a.lrn.after()), device::kBlock);
    const device::Grid grid{divide_up(s.numel(), device::kBlock * V), device::kBlock, tile.bytes()};
    const bool in_line = aligned(a.x, 16) && aligned(a.grad_y, 16) && aligned(a.grad_x, 16) &&
                         aligned(a.offsets, 16);
    return with_trio_size<S, kFixed>(a.lrn, [&](auto fixed_n) {
      constexpr int N = decltype(fixed_n)::kValue;
      return device::launch(trio_last_backward<S, O, kFixed, N>, grid, stream, a, Norm<S, N>(a.lrn),
                            window, in_line);
    });
  }
  return with_trio_size<S, kFixed>(a.lrn, [&](auto fixed_n) {
    constexpr int N = decltype(fixed_n)::kValue;
    const int threads = N ? device::kBlock : ring_threads<A>(n);
    if (threads == 0) return direct();
    const int64_t walks = s.batch * s.pixels();
    const Chunks chunks(walks, s.channels, n);
    const int64_t bytes = N ? 0 : n * threads * static_cast<int64_t>(sizeof(A));
    return device::launch(trio_planes_backward<S, O, kFixed, N>,
                          {divide_up(walks * chunks.count, threads), threads, bytes}, stream, a,
                          Norm<S, N>(a.lrn), window, chunks);
  });
}

}  // namespace

const char* trio_forward(DType dtype, const TrioForward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype, [&](auto type) {
    using S = decltype(type);
    return with_window(a.pool, [&](auto offset, auto fixed) {
      return forward<S, decltype(offset), decltype(fixed)::kValue != 0>(Of<S, TrioForward>(a),
                                                                        as_stream(stream));
    });
  });
}

const char* trio_backward(DType dtype, const TrioBackward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype, [&](auto type) {
    using S = decltype(type);
    return with_window(a.pool, [&](auto offset, auto fixed) {
      return backward<S, decltype(offset), decltype(fixed)::kValue != 0>(Of<S, TrioBackward>(a),
                                                                         as_stream(stream));
    });
  });
}

}  // namespace fastseq::cuda
