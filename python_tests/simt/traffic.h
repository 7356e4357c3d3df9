// What launches move, counted as a GPU's memory would: what the lanes of a warp do at one place of
// the code is one request, and costs the 32-byte sectors that it touches, or, in shared memory, the
// wavefronts that its banks need. It counts; it does not time.
//
// Fibers do not run in step, so the lanes of a request are found again: by place, by how many
// barriers the thread has met, and by how often it was at the place since the last of them. Where a
// lane left out an access that others made, its next one stands in: such requests look scattered.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace fastseq::simt {

// One instruction of a warp.
struct Request {
  const char* tensor = nullptr;  // null: shared memory
  bool write = false;
  int bytes = 0;       // of each lane
  uint32_t lanes = 0;  // a bit for each that takes part
  std::array<uint64_t, 32> addresses{};

  int64_t sectors() const {
    std::set<uint64_t> found;
    add_units(0, 32, 32, found);
    return static_cast<int64_t>(found.size());
  }

  // Passes over the 32 banks, of four bytes each. Lanes of 8 and 16 bytes go by halves and quarters
  // of a warp; lanes that want the same word share it. `least`: if no bank were asked twice.
  void wavefronts(int64_t& needed, int64_t& least) const {
    const size_t team = bytes <= 4 ? 32 : static_cast<size_t>(128 / bytes);
    for (size_t first = 0; first < 32; first += team) {
      std::set<uint64_t> words;
      add_units(first, first + team, 4, words);
      std::array<int64_t, 32> bank{};
      for (uint64_t w : words) ++bank[w % 32];
      needed += *std::max_element(bank.begin(), bank.end());
      least += (static_cast<int64_t>(words.size()) + 31) / 32;
    }
  }

 private:
  // The units of so many bytes that lanes [first, last) touch.
  void add_units(size_t first, size_t last, uint64_t unit, std::set<uint64_t>& found) const {
    for (size_t i = first; i < last; ++i) {
      if (!(lanes >> i & 1)) continue;
      const uint64_t end = addresses[i] + static_cast<uint64_t>(bytes) - 1;
      for (uint64_t u = addresses[i] / unit; u <= end / unit; ++u) found.insert(u);
    }
  }
};

// Sums over requests of one kind: a tensor read, a tensor written, or shared memory.
struct Moved {
  int64_t requests = 0, lanes = 0, bytes = 0;
  int64_t units = 0, least = 0;  // sectors, or wavefronts and their least number
};

// The requests of a block that is alive.
class BlockTraffic {
 public:
  void start(int threads) {
    lanes_.assign(static_cast<size_t>(threads), Lane{});
    requests_.clear();
  }
  // A thread has come to a barrier, or to what its warp does as one.
  void meet(int thread) {
    Lane& lane = lanes_[static_cast<size_t>(thread)];
    ++lane.met;
    lane.visits.clear();
  }
  void add(int thread, const void* place, const char* tensor, bool write, uint64_t address,
           int bytes) {
    Lane& lane = lanes_[static_cast<size_t>(thread)];
    auto visit = std::find_if(lane.visits.begin(), lane.visits.end(),
                              [&](const auto& one) { return one.first == place; });
    if (visit == lane.visits.end()) visit = lane.visits.insert(visit, {place, 0});
    const Key key{thread / 32, lane.met, place, visit->second++};
    Request& request = requests_[key];
    request.tensor = tensor;
    request.write = write;
    request.bytes = bytes;
    request.lanes |= 1u << thread % 32;
    request.addresses[static_cast<size_t>(thread) % 32] = address;
  }
  void settle(std::map<std::string, Moved>& sums) const {
    for (const auto& [key, request] : requests_) {
      const std::string kind = request.write ? " write" : " read";
      Moved& sum = sums[(request.tensor ? request.tensor : "shared") + kind];
      const int64_t lanes = std::popcount(request.lanes);
      ++sum.requests;
      sum.lanes += lanes;
      sum.bytes += lanes * request.bytes;
      if (request.tensor) {
        sum.units += request.sectors();
      } else {
        request.wavefronts(sum.units, sum.least);
      }
    }
  }

 private:
  struct Key {
    int warp;
    uint32_t met;
    const void* place;
    uint32_t visit;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& k) const {
      uint64_t h = reinterpret_cast<uintptr_t>(k.place) * 0x9e3779b97f4a7c15u;
      h ^= (static_cast<uint64_t>(k.warp) << 48 | static_cast<uint64_t>(k.met) << 24 | k.visit) *
           0xc2b2ae3d27d4eb4fu;
      return h ^ h >> 29;
    }
  };
  struct Lane {
    uint32_t met = 0;
    std::vector<std::pair<const void*, uint32_t>> visits;
  };
  std::vector<Lane> lanes_;
  std::unordered_map<Key, Request, Hash> requests_;
};

// What a test asks for.
struct Traffic {
  bool on = false;
  std::map<std::string, Moved> sums;
};

}  // namespace fastseq::simt
