#include "capability.h"

#include <cstdlib>
#include <cstring>

namespace fastseq {
namespace {

#if defined(FASTSEQ_HAS_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#endif

}  // namespace

bool capability_available(Capability capability) {
  switch (capability) {
    case Capability::kBaseline:
      return true;
    case Capability::kAvx2:
#if defined(FASTSEQ_HAS_AVX2)
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
#else
      return false;
#endif
    case Capability::kAvx512:
#if defined(FASTSEQ_HAS_AVX512)
      return has_avx512();
#else
      return false;
#endif
    case Capability::kAvx512Bf16:
#if defined(FASTSEQ_HAS_AVX512_BF16)
      return has_avx512() && __builtin_cpu_supports("avx512bf16");
#else
      return false;
#endif
  }
  return false;
}

namespace {

Capability choose() {
  if (const char* const name = std::getenv("FASTSEQ_CPU_CAPABILITY")) {
    for (int i = 0; i < kCapabilities; ++i) {
      const auto capability = static_cast<Capability>(i);
      if (std::strcmp(name, kCapabilityNames[i]) == 0 && capability_available(capability)) {
        return capability;
      }
    }
  }
  for (int i = kCapabilities - 1; i > 0; --i) {
    if (capability_available(static_cast<Capability>(i))) return static_cast<Capability>(i);
  }
  return Capability::kBaseline;
}

}  // namespace

Capability capability() {
  static const Capability chosen = choose();
  return chosen;
}

}  // namespace fastseq
