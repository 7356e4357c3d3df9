#include "capability.h"

#include <cstdlib>
#include <cstring>

#if defined(FASTSEQ_HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastseq {
namespace {

#if defined(FASTSEQ_HAS_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#endif
#if defined(FASTSEQ_HAS_AVX512_BF16)
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

#if defined(FASTSEQ_HAS_AMX)
bool has_amx() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // of edx, leaf 7
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16) &&
         (d & kAmxTile);
}

// Linux lets a process use tiles once it has asked, since they are 8 KB more to save for a thread.
// The leave is the whole process's, and of what it forks.
bool may_use_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool leave = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return leave;
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
      return has_avx512_bf16();
#else
      return false;
#endif
    case Capability::kAmx:
#if defined(FASTSEQ_HAS_AMX)
      return has_amx() && may_use_tiles();
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
  for (int i = static_cast<int>(Capability::kAvx512Bf16); i > 0; --i) {
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
