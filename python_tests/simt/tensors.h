// The tensors of a launch: where it may read and write, and what messages call a place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastseq::simt {

// Memory that a launch may touch.
struct Region {
  const char* name;
  uintptr_t begin, end;
  bool writable;
};

class Tensors {
 public:
  void set(const std::vector<Region>& regions) { regions_ = regions; }
  bool known() const { return !regions_.empty(); }
  const Region* of(uintptr_t address, size_t bytes) const {
    for (const Region& r : regions_) {
      if (address >= r.begin && address + bytes <= r.end) return &r;
    }
    return nullptr;
  }
  std::string word(const uint32_t* p) const {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const Region* const region = of(address, 4);
    if (!region) return "a word of global memory";
    return "word " + std::to_string((address - region->begin) / 4) + " of " + region->name;
  }

 private:
  std::vector<Region> regions_;
};

}  // namespace fastseq::simt
