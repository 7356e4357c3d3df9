// Words that blocks publish for each other: 32 bits that are their own flag (words.h). A store
// becomes visible late, and stores to different words in any order.
#pragma once

#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fastseq::simt {

constexpr uint32_t kEmptyWord = 0xffffffffu;

struct Word {
  uint32_t author = 0;       // the thread that published it in this launch, numbered from 1 on
  bool pending = false;      // nobody else sees that yet
  std::vector<int> waiters;  // fibers that found it empty, some long awake
};

class Words {
 public:
  Word& at(const uint32_t* p) { return all_[p]; }
  static uint32_t value(const uint32_t* p) {
    uint32_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }

  size_t pending() const { return stores_.size(); }
  void store(uint32_t* p, uint32_t value, uint32_t author) {
    Word& word = at(p);
    word.author = author;
    word.pending = true;
    stores_.push_back({p, value});
  }
  // Makes store number i visible; returns the fibers to wake.
  std::vector<int> deliver(size_t i) {
    const Store store = stores_[i];
    stores_[i] = stores_.back();
    stores_.pop_back();
    std::memcpy(store.p, &store.value, sizeof store.value);
    Word& word = at(store.p);
    word.pending = false;
    return std::exchange(word.waiters, {});
  }
  std::vector<int> deliver(const uint32_t* p) {
    size_t i = 0;
    while (stores_[i].p != p) ++i;
    return deliver(i);
  }
  void clear() {
    all_.clear();
    stores_.clear();
  }

 private:
  struct Store {
    uint32_t* p;
    uint32_t value;
  };
  std::unordered_map<const uint32_t*, Word> all_;
  std::vector<Store> stores_;
};

}  // namespace fastseq::simt
