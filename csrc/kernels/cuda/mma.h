// The tensor cores' smallest product, c += a b with a [16, K], b [K, 8] and c [16, 8] spread over
// the 32 lanes of a warp, as PTX's mma.m16n8k16 (bfloat16, half) and mma.m16n8k8 (TF32) hold them.
// With g = lane / 4 and q = lane % 4, and in every register 4 bytes of one row of a or column of b:
//   a[0], a[1]  rows g and g + 8, bytes 4q to 4q + 3 of the first 16 (two numbers, or one of TF32)
//   a[2], a[3]  the same of the second 16 bytes
//   b[0], b[1]  column g, the first and the second 16 bytes
//   c[0..1], c[2..3]  rows g and g + 8, columns 2q and 2q + 1
// A 16-byte row of 8 rows in shared memory is what ldmatrix reads: a takes four, b two.
#pragma once

#include "device.h"

#if !defined(__CUDACC__)
#include "tensor_core.h"
#endif

namespace fastseq::device {

// float with 10 bits of fraction; what the product takes of 32-bit numbers.
struct Tf32 {
  uint32_t bits;
};

// K of one product.
template <class S>
constexpr int kDepth = static_cast<int>(32 / sizeof(S));

// Whether the device that is compiled for has products of all of them: from sm_80 on.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kMultiplies = false;
#else
constexpr bool kMultiplies = true;
#endif

#if defined(__CUDACC__)

// Null, or why the current device has no such products.
inline const char* refusal_of_products() {
  int device = 0, major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return major >= 8 ? nullptr : "needs compute capability 8.0";
}

#define FASTSEQ_MMA(shape_and_types, c, a, b)                                     \
  asm volatile("mma.sync.aligned." shape_and_types                                \
               " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

// c += a b, sums in float. All lanes of the warp take part. Before sm_80 there is no such product
// of bfloat16 and TF32: who chooses a kernel must know that; here it would trap.
template <class S>
FASTSEQ_DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
template <>
FASTSEQ_DEVICE void mma<BFloat16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  FASTSEQ_MMA("m16n8k16.row.col.f32.bf16.bf16.f32", c, a, b);
}
template <>
FASTSEQ_DEVICE void mma<Half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  FASTSEQ_MMA("m16n8k16.row.col.f32.f16.f16.f32", c, a, b);
}
template <>
FASTSEQ_DEVICE void mma<Tf32>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  FASTSEQ_MMA("m16n8k8.row.col.f32.tf32.tf32.f32", c, a, b);
}
#else
template <class S>
FASTSEQ_DEVICE void mma(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2]) {
  __trap();
}
// sm_75 multiplies half the depth at a time.
template <>
FASTSEQ_DEVICE void mma<Half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"
        " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
  }
}
#endif
#undef FASTSEQ_MMA

// N matrices of 8 rows of 16 bytes, one register of each: lane 8 m + r names the element at which
// row r of matrix m begins, aligned to 16 bytes. The register holds the lane's 4 bytes, as above;
// of a transposed matrix (16-bit numbers only) those of column g, rows 2q and 2q + 1.
template <int N, bool kTransposed = false, class S>
FASTSEQ_DEVICE void load_matrices(const Shared<S>& s, int i, uint32_t (&out)[N]) {
  static_assert(N == 2 || N == 4);
  static_assert(!kTransposed || sizeof(S) == 2);
  const uint32_t at = s.address(i);
  if constexpr (N == 4 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
  } else if constexpr (N == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
  } else if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(at)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(at)
                 : "memory");
  }
}

// Two numbers as 16 bits each, the first one below.
template <class S>
FASTSEQ_DEVICE uint32_t pack(float low, float high);
template <>
FASTSEQ_DEVICE uint32_t pack<BFloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  uint32_t word;
  __builtin_memcpy(&word, &both, sizeof word);
  return word;
}
template <>
FASTSEQ_DEVICE uint32_t pack<Half>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  uint32_t word;
  __builtin_memcpy(&word, &both, sizeof word);
  return word;
}

// Rounded to the nearest, ties away from zero. The product itself would cut bits off.
FASTSEQ_DEVICE Tf32 to_tf32(float x) {
  uint32_t bits = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
  __trap();
#endif
  return {bits};
}

#else

inline const char* refusal_of_products() { return nullptr; }

template <class S>
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         const simt::Site& site = simt::Site::current()) {
  simt::mma<kDepth<S> >(
      c, a, b,
      [](uint32_t word, int i) -> float {
        if constexpr (sizeof(S) == 4) {
          (void)i;
          return simt::from_tf32(word);
        } else {
          return to_float(S{static_cast<uint16_t>(word >> 16 * i)});
        }
      },
      site);
}

template <int N, bool kTransposed = false, class S>
void load_matrices(const Shared<S>& s, int i, uint32_t (&out)[N],
                   const simt::Site& site = simt::Site::current()) {
  static_assert(N == 2 || N == 4);
  static_assert(!kTransposed || sizeof(S) == 2);
  simt::load_matrices<N, kTransposed>(s, i, out, site);
}

template <class S>
uint32_t pack(float low, float high) {
  return uint32_t{from_float<S>(low).bits} | uint32_t{from_float<S>(high).bits} << 16;
}

inline Tf32 to_tf32(float x) { return {simt::to_tf32(x)}; }

#endif

}  // namespace fastseq::device
