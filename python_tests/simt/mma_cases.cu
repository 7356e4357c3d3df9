// The product of a warp: on fragments as they are given, and on matrices through shared memory.
#include "cases.h"
#include "tile.cuh"

namespace fastseq::cases {
namespace {

using device::Shared;
using device::thread_index;

// ---- as given, register by register

struct Fragments {
  const uint32_t *a, *b;  // [32, 4], [32, 2]
  float* c;               // [32, 4]
};
template <class S>
void on_fragments(Fragments f) {
  const int lane = thread_index();
  uint32_t a[4], b[2];
  float c[4];
  for (int i = 0; i < 4; ++i) a[i] = f.a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) b[i] = f.b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) c[i] = f.c[lane * 4 + i];
  device::mma<S>(c, a, b);
  for (int i = 0; i < 4; ++i) f.c[lane * 4 + i] = c[i];
}

struct Rows {
  const uint16_t* in;  // [N, 8, 8]
  uint32_t* out;       // [32, N]
};
template <int N, bool kTransposed>
void on_rows(Rows r) {
  const int lane = thread_index();
  const Shared<Half> s(0, N * 64);
  for (int i = lane; i < N * 64; i += 32) s.set(i, {r.in[i]});
  device::sync();
  uint32_t out[N];
  device::load_matrices<N, kTransposed>(s, lane % (8 * N) * 8, out);
  for (int i = 0; i < N; ++i) r.out[lane * N + i] = out[i];
}

constexpr device::Grid kOneWarp{1, 32, 8192};

template <class F>
const char* of_type(int type, const F& f) {
  return type == 0 ? f(BFloat16{}) : type == 1 ? f(Half{}) : f(device::Tf32{});
}

}  // namespace
}  // namespace fastseq::cases

using namespace fastseq;

EXPORT const char* run_mma(int type, const uint32_t* a, const uint32_t* b, float* c) {
  return cases::of_type(type, [&](auto s) {
    return device::launch(cases::on_fragments<decltype(s)>, cases::kOneWarp, nullptr,
                          cases::Fragments{a, b, c});
  });
}

EXPORT const char* run_tile(int type, const float* a, const float* b, float* c, int mistake) {
  return cases::of_type(type, [&](auto s) {
    return device::launch(cases::on_tile<decltype(s)>, cases::kOneWarp, nullptr,
                          cases::Tile{a, b, c, mistake});
  });
}

EXPORT const char* run_ldmatrix(int count, bool transposed, const uint16_t* in, uint32_t* out) {
  const cases::Rows r{in, out};
  const auto kernel = count == 4   ? transposed ? cases::on_rows<4, true> : cases::on_rows<4, false>
                      : transposed ? cases::on_rows<2, true>
                                   : cases::on_rows<2, false>;
  return device::launch(kernel, cases::kOneWarp, nullptr, r);
}

EXPORT uint32_t round_to_tf32(float x) { return device::to_tf32(x).bits; }
EXPORT uint32_t pack_two(int type, float low, float high) {
  return type == 0 ? device::pack<BFloat16>(low, high) : device::pack<Half>(low, high);
}
