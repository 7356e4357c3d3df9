// Which instruction set's kernels run: the best one that this machine has and this build contains,
// or the one named by the environment variable FASTSEQ_CPU_CAPABILITY. AMX runs only by its name:
// no machine has shown that it is right.
#pragma once

namespace fastseq {

enum class Capability : int { kBaseline = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kAmx = 4 };
constexpr int kCapabilities = 5;
constexpr const char* kCapabilityNames[kCapabilities] = {"baseline", "avx2", "avx512",
                                                         "avx512_bf16", "amx"};

// Compiled into this build, and supported by this machine. Of AMX: the kernel is asked for leave.
bool capability_available(Capability capability);

// The kernels in use. Read from the environment once, at the first call; an unknown or unavailable
// name falls back to the best available one (the Python side has refused it with a sentence by
// then).
Capability capability();

}  // namespace fastseq
