// Who touched which address when: the race check's memory of a launch.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "clock.h"

namespace fastseq::simt {

// The last accesses to one element. A read that a later one hides here is found in another order.
struct Cell {
  uint32_t writer = 0, write_time = 0;
  uint32_t reader = 0, read_time = 0;
  uint32_t warps = 0;     // of reader's block, that read in read_time
  uint32_t stranger = 0;  // a reader in another block than that one
  bool several = false;   // several threads read in read_time
  bool relaxed = false;   // part of a word that is published

  // The thread with which this access would race, or 0.
  uint32_t conflict(const Observer& o, bool write) const {
    if (writer && writer != o.me && !o.knows(writer, write_time)) return writer;
    if (!write || !reader) return 0;
    if (stranger && !o.inside(stranger)) return stranger;
    if (!o.inside(reader)) return reader;
    if (reader == o.me && !several) return 0;
    return o.knows_all(warps, read_time) ? 0 : reader;
  }

  void record(const Observer& o, bool write) {
    const uint32_t now = o.clock->now();
    if (write) {
      writer = o.me;
      write_time = now;
      return;
    }
    if (reader && !o.inside(reader)) stranger = reader;
    const bool same = reader && o.inside(reader) && read_time == now;
    several = same && (several || reader != o.me);
    warps = (same ? warps : 0) | 1u << o.warp;
    reader = o.me;
    read_time = now;
  }
};

// A Cell for every address, made when first asked for.
class Shadow {
 public:
  Cell& at(uintptr_t address) {
    const uintptr_t number = address >> kBits;
    if (number != last_number_ || !last_) {
      last_number_ = number;
      auto& page = pages_[number];
      if (!page) page = take();
      last_ = page.get();
    }
    return last_->cells[address & (kSize - 1)];
  }
  void clear() {
    for (auto& [number, page] : pages_) free_.push_back(std::move(page));
    pages_.clear();
    last_ = nullptr;
  }

 private:
  static constexpr int kBits = 10, kSize = 1 << kBits;
  struct Page {
    Cell cells[kSize];
  };
  std::unique_ptr<Page> take() {
    if (free_.empty()) return std::make_unique<Page>();
    auto page = std::move(free_.back());
    free_.pop_back();
    *page = Page{};
    return page;
  }
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  std::vector<std::unique_ptr<Page>> free_;
  Page* last_ = nullptr;
  uintptr_t last_number_ = 0;
};

}  // namespace fastseq::simt
