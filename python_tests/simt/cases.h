// Kernels that do wrong, each in one way, and some that do right: what the machine must say of
// them.
#pragma once

#include <cstring>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace fastseq::cases {

// Null: the machine has nothing to say.
struct Case {
  const char* name;
  const char* (*run)();
};

inline std::vector<Case> all;

struct Cases {
  Cases(std::initializer_list<Case> some) { all.insert(all.end(), some); }
};

}  // namespace fastseq::cases
