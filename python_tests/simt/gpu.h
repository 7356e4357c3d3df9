// The GPU that the machine is: how much of it there is, and which launches it refuses.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace fastseq::simt {

// What __launch_bounds__ says of a kernel: the most threads of a block, and the blocks that a
// multiprocessor's registers are for.
struct Bounds {
  int threads, blocks;
};

struct Launch {
  int64_t blocks;
  int threads;
  int64_t shared;
  const void* kernel;
  Bounds bounds;
  bool together;  // a cooperative one: all blocks at once, or none
};

// A small consumer card of capability 8.6, unless a test asks for another one.
struct Gpu {
  int multiprocessors = 8;
  int64_t threads = 1536, blocks = 16, shared = 100 * 1024;  // of each
  int64_t block_shared = 99 * 1024;                          // what a block may ask for
  static constexpr int64_t kReserved = 1024;  // shared memory of a block that the system takes
  static constexpr int64_t kUnasked = 48 * 1024;
  static constexpr int kMostThreads = 1024;

  // Blocks of a kernel that are alive at once.
  int64_t room(const Launch& launch) const {
    const int64_t by_shared = shared / (launch.shared + kReserved);
    const int64_t by_threads = threads / std::max(launch.threads, 1);
    return multiprocessors *
           std::min({by_shared, by_threads, blocks, static_cast<int64_t>(launch.bounds.blocks)});
  }

  // Null, or the runtime's words.
  const char* allow_shared(const void* kernel, int64_t bytes) {
    if (bytes < 0 || bytes > block_shared) return "invalid argument";
    allowed_[kernel] = bytes;
    return nullptr;
  }

  // Empty, or why the launch fails: in the runtime's words, and ours after them.
  std::string refusal(const Launch& launch) const {
    const auto asked = allowed_.find(launch.kernel);
    const int64_t allowed = std::max(asked == allowed_.end() ? 0 : asked->second, kUnasked);
    const std::string threads_of = std::to_string(launch.threads) + " threads in a block";
    if (launch.threads < 1 || launch.threads > kMostThreads) {
      return "invalid configuration argument: " + threads_of;
    }
    if (launch.threads % 32) return threads_of + ", which should hold whole warps";
    if (launch.threads > launch.bounds.threads) {
      return threads_of + " of a kernel whose __launch_bounds__ say " +
             std::to_string(launch.bounds.threads);
    }
    if (launch.shared > allowed) {
      return "invalid argument: " + std::to_string(launch.shared) +
             " bytes of shared memory, where the kernel may have " + std::to_string(allowed);
    }
    if (launch.together && launch.blocks > room(launch)) {
      return "too many blocks in cooperative launch";
    }
    return "";
  }

 private:
  std::map<const void*, int64_t> allowed_;
};

}  // namespace fastseq::simt
