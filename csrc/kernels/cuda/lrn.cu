// Local response normalization: which kernel runs.
#include "lrn_last.cuh"
#include "lrn_planes.cuh"
#include "lrn_strip.cuh"
#include "lrn_within.cuh"

namespace fastseq::cuda {
namespace {

// What strips do not serve: windows of other sizes, betas that need a power, tiny planes.
template <class S>
FASTSEQ_KERNEL planes_backward_kernel(Of<S, LrnBackward> a, Norm<S, 0> norm, Chunks chunks) {
  planes_backward_any<S, Identity>(a, norm, chunks, Given<S>{static_cast<const S*>(a.grad_y)});
}

template <class S, int N>
FASTSEQ_KERNEL last_backward_kernel(Of<S, LrnBackward> a, Norm<S, N> norm, bool in_line) {
  last_backward<S, N, kPack<S>, Identity>(a, norm, Given<S>{static_cast<const S*>(a.grad_y)},
                                          in_line);
}

template <class S, bool kWithin>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
direct_backward_kernel(Of<S, LrnBackward> a, Norm<S, 0> norm) {
  direct_backward<S, kWithin, Identity>(a, norm, Given<S>{static_cast<const S*>(a.grad_y)});
}

// f(Constant<N>): strips of windows of N channels, or 0: walks of single pixels.
template <class F>
const char* with_strips(const LrnWindow& lrn, const Images& images, const F& f) {
  return with_size(lrn, [&](auto size) {
    if constexpr (decltype(size)::kValue > 0) {
      if (has_strips(images)) return f(size);
    }
    return f(Constant<0>{});
  });
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
  return with_strips(a.lrn, s, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    if constexpr (N > 0) {
      constexpr int V = kPack<S>;
      const StripPlan plan = lrn_strips<V>(s, kStripPixels, n);
      const device::Grid grid{plan.blocks(s), plan.threads, 2 * strip_bytes<S, V>(plan.length)};
      return device::launch(strip_forward<S, N>, grid, stream, a, Norm<S, N>(a.lrn), plan);
    } else {
      const int64_t walks = s.batch * s.pixels();
      const Chunks chunks(walks, s.channels, n);
      return device::launch(planes_forward<S>, walks * chunks.count, stream, a, Norm<S, 0>(a.lrn),
                            chunks);
    }
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
  return with_strips(a.lrn, s, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    if constexpr (N > 0) {
      constexpr int V = kPack<S>;
      const StripPlan plan = lrn_strips<V>(s, kStripPixels, n);
      const device::Grid grid{plan.blocks(s), plan.threads, 3 * strip_bytes<S, V>(plan.length)};
      return device::launch(strip_backward_kernel<S, N>, grid, stream, a, Norm<S, N>(a.lrn), plan);
    } else {
      const int threads = ring_threads<A>(n);
      if (threads == 0) return direct(Constant<0>{});
      const int64_t walks = s.batch * s.pixels();
      const Chunks chunks(walks, s.channels, n);
      const int64_t bytes = n * threads * static_cast<int64_t>(sizeof(A));
      return device::launch(planes_backward_kernel<S>,
                            {divide_up(walks * chunks.count, threads), threads, bytes}, stream, a,
                            Norm<S, 0>(a.lrn), chunks);
    }
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
