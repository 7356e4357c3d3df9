// Who touched which address when: the race check's memory of a launch.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fastseq::simt {

// Memory that a launch may touch.
struct Region {
  const char* name;
  uintptr_t begin, end;
  bool writable;
};

// The last accesses to one element. Time is counted in epochs: each barrier of a block and each
// start of a block begins one, and blocks run one after another.
struct Cell {
  uint32_t writer = 0, write_epoch = 0;  // a thread's number in the launch, plus one
  uint32_t reader = 0, read_epoch = 0;
  bool several = false;  // several threads read it in read_epoch
  bool several_blocks = false;

  // The thread with which this access would race, or 0. Of one block's threads those accesses race
  // that lie in one epoch; of different blocks, all.
  uint32_t conflict(uint32_t me, bool write, uint32_t epoch, uint32_t first_of_block) const {
    const auto races = [&](uint32_t other, uint32_t when) {
      return other && other != me && (when == epoch || when < first_of_block);
    };
    if (races(writer, write_epoch)) return writer;
    if (!write) return 0;
    if (races(reader, read_epoch) || several_blocks) return reader;
    return several && read_epoch == epoch ? reader : 0;
  }

  void record(uint32_t me, bool write, uint32_t epoch, uint32_t first_of_block) {
    if (write) {
      writer = me;
      write_epoch = epoch;
      return;
    }
    several_blocks |= reader && read_epoch < first_of_block;
    several = read_epoch == epoch && (several || reader != me);
    reader = me;
    read_epoch = epoch;
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
