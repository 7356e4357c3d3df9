// Local response normalization: which kernel runs.
#include "lrn_last.cuh"
#include "lrn_planes.cuh"
#include "lrn_within.cuh"

namespace fastseq::cuda {
namespace {

// Rings of three kinds for each pixel: registers for two blocks only, kept full by unrolled loads.
template <class S, int N, int V>
FASTSEQ_KERNEL_OF(device::kBlock, 2)
planes_backward_kernel(Of<S, LrnBackward> a, Norm<S, N> norm, Chunks chunks) {
  const Given<S> given{static_cast<const S*>(a.grad_y)};
  if constexpr (N == 0) {
    planes_backward_any<S, Identity>(a, norm, chunks, given);
  } else {
    planes_backward<S, N, V, Identity>(a, norm, chunks, given);
  }
}

template <class S, int N>
FASTSEQ_KERNEL last_backward_kernel(Of<S, LrnBackward> a, Norm<S, N> norm, bool in_line) {
  last_backward<S, N, Identity>(a, norm, Given<S>{static_cast<const S*>(a.grad_y)}, in_line);
}

template <class S, bool kWithin>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
direct_backward_kernel(Of<S, LrnBackward> a, Norm<S, 0> norm) {
  direct_backward<S, kWithin, Identity>(a, norm, Given<S>{static_cast<const S*>(a.grad_y)});
}

// Pixels that a thread of the NCHW kernels owns where they start at multiples of it: 8 bytes of S,
// in backward two at most, which has three rings for each.
template <class S>
constexpr int kForwardPixels = static_cast<int>(8 / sizeof(S));
template <class S>
constexpr int kBackwardPixels = sizeof(S) == 8 ? 1 : 2;

template <int N, int V, class F>
const char* with_pixels(bool in_line, const F& f) {
  if constexpr (N > 0) {
    if (in_line) return f(Constant<V>{});
  }
  return f(Constant<1>{});
}

template <class S>
const char* forward(const Of<S, LrnForward>& a, device::Stream stream) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  const int64_t n = a.lrn.size;
  if (a.lrn.within_channel) {
    const auto direct = [&] {
      return device::launch(direct_forward<S, true>, s.numel(), stream, a, Norm<S, 0>(a.lrn));
    };
    if (n > 64) return direct();
    return with_tile<A>(
        s, [n](const Tile& tile) { return tile.forward_values(n); },
        [&](const Tile& tile, int64_t bytes) {
          const device::Grid grid{tile.blocks(s), device::kBlock, bytes};
          return with_size(a.lrn, [&](auto size) {
            constexpr int N = decltype(size)::kValue <= 5 ? decltype(size)::kValue : 0;
            return device::launch(within_forward<S, N>, grid, stream, a, Norm<S, N>(a.lrn), tile);
          });
        },
        direct);
  }
  if (s.channels_last) {
    if (n > kLongestLineWindow) {
      return device::launch(direct_forward<S, false>, s.numel(), stream, a, Norm<S, 0>(a.lrn));
    }
    constexpr int V = kPack<S>;
    const int64_t runs = device::kBlock + runs_for<V>(static_cast<int>(a.lrn.before())) +
                         runs_for<V>(static_cast<int>(a.lrn.after()));
    const device::Grid grid{divide_up(s.numel(), device::kBlock * V), device::kBlock,
                            Line<A, V>::bytes(runs)};
    const bool in_line = aligned(a.x, 16) && aligned(a.y, 16);
    return with_size(a.lrn, [&](auto size) {
      constexpr int N = decltype(size)::kValue;
      return device::launch(last_forward<S, N>, grid, stream, a, Norm<S, N>(a.lrn), in_line);
    });
  }
  const bool in_line = aligned(a.x, 8) && aligned(a.y, 8) && s.pixels() % kForwardPixels<S> == 0;
  return with_size(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    return with_pixels<N, kForwardPixels<S>>(in_line, [&](auto pixels) {
      constexpr int V = decltype(pixels)::kValue;
      const int64_t walks = s.batch * s.pixels() / V;
      const Chunks chunks(walks, s.channels, n);
      return device::launch(planes_forward<S, N, V>, walks * chunks.count, stream, a,
                            Norm<S, N>(a.lrn), chunks);
    });
  });
}

template <class S>
const char* backward(const Of<S, LrnBackward>& a, device::Stream stream) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  const int64_t n = a.lrn.size;
  const auto direct = [&](auto within) {
    constexpr bool kWithin = decltype(within)::kValue;
    return device::launch(direct_backward_kernel<S, kWithin>, s.numel(), stream, a,
                          Norm<S, 0>(a.lrn));
  };
  if (a.lrn.within_channel) {
    if (n > 64) return direct(Constant<1>{});
    return with_tile<A>(
        s, [n](const Tile& tile) { return tile.backward_values(n); },
        [&](const Tile& tile, int64_t bytes) {
          const device::Grid grid{tile.blocks(s), device::kBlock, bytes};
          return with_size(a.lrn, [&](auto size) {
            constexpr int N = decltype(size)::kValue <= 5 ? decltype(size)::kValue : 0;
            return device::launch(within_backward<S, N>, grid, stream, a, Norm<S, N>(a.lrn), tile);
          });
        },
        [&] { return direct(Constant<1>{}); });
  }
  if (s.channels_last) {
    if (n > kLongestLineWindow) return direct(Constant<0>{});
    constexpr int V = kPack<S>;
    const LastBackwardTile<A, V> tile(static_cast<int>(a.lrn.before()),
                                      static_cast<int>(a.lrn.after()), device::kBlock);
    const device::Grid grid{divide_up(s.numel(), device::kBlock * V), device::kBlock, tile.bytes()};
    const bool in_line = aligned(a.x, 16) && aligned(a.grad_y, 16) && aligned(a.grad_x, 16);
    return with_size(a.lrn, [&](auto size) {
      constexpr int N = decltype(size)::kValue;
      return device::launch(last_backward_kernel<S, N>, grid, stream, a, Norm<S, N>(a.lrn),
                            in_line);
    });
  }
  const bool in_line = aligned(a.x, 8) && aligned(a.grad_y, 8) && aligned(a.grad_x, 8) &&
                       s.pixels() % kBackwardPixels<S> == 0;
  return with_size(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    return with_pixels<N, kBackwardPixels<S>>(in_line, [&](auto pixels) {
      constexpr int V = decltype(pixels)::kValue;
      const int threads = N ? device::kBlock : ring_threads<A>(n);
      if (threads == 0) return direct(Constant<0>{});
      const int64_t walks = s.batch * s.pixels() / V;
      const Chunks chunks(walks, s.channels, n);
      const int64_t bytes = N ? 0 : n * threads * static_cast<int64_t>(sizeof(A));
      return device::launch(planes_backward_kernel<S, N, V>,
                            {divide_up(walks * chunks.count, threads), threads, bytes}, stream, a,
                            Norm<S, N>(a.lrn), chunks);
    });
  });
}

}  // namespace

const char* lrn_forward(DType dtype, const LrnForward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  return with_dtype(dtype, [&](auto type) {
    return forward(Of<decltype(type), LrnForward>(a), as_stream(stream));
  });
}

const char* lrn_backward(DType dtype, const LrnBackward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  return with_dtype(dtype, [&](auto type) {
    return backward(Of<decltype(type), LrnBackward>(a), as_stream(stream));
  });
}

}  // namespace fastseq::cuda
