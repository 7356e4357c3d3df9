// Which instruction set's kernels run: the best one that this machine has and this build contains,
// or the one named by the environment variable FASTSEQ_CPU_CAPABILITY.
#pragma once

namespace fastseq {

enum class Capability : int { kBaseline = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };
constexpr int kCapabilities = 4;
constexpr const char* kCapabilityNames[kCapabilities] = {"baseline", "avx2", "avx512",
                                                         "avx512_bf16"};

// Compiled into this build, and supported by this machine.
bool capability_available(Capability capability);

// The kernels in use. Read from the environment once, at the first call; an unknown or unavailable
// name falls back to the best available one (the Python side has refused it with a sentence by
// then).
Capability capability();

}  // namespace fastseq
