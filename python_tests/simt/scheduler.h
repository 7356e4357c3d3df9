// Who runs when: the fibers of all blocks that are alive, what they wait for, and who waits for
// ever.
#pragma once

#include <functional>

#include "block.h"
#include "fibers.h"
#include "gpu.h"
#include "relaxed.h"
#include "tensors.h"

namespace fastseq::simt {

class Scheduler {
 public:
  Traffic traffic;

  int64_t block_index() const { return here_->index; }
  int thread_index() const { return thread_; }
  int block_size() const { return threads_; }
  [[noreturn]] void fail(const std::string& what) const {
    throw Fault(here_->who(thread_) + " " + what);
  }

 protected:
  void reset(uint64_t seed, int threads) {
    random_ = seed * 0x9e3779b97f4a7c15u + 1;
    threads_ = threads;
    until_yield_ = 1 + random(512);
    ready_.clear();
    words_.clear();
  }
  // Runs all blocks of a launch. After a fault: abandon().
  void play(const Launch& launch, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    std::vector<int64_t> order(static_cast<size_t>(launch.blocks));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random(i)]);
    // Nothing but a cooperative launch promises that two blocks ever meet.
    size_t room = order.size();
    if (!launch.together) room = std::min(room, size_t{1} + random(kCrowd));
    slots_.resize(std::max(slots_.size(), room));
    size_t begun = 0;
    for (; begun < room; ++begun) begin(slots_[begun], order[begun], launch);
    // Some launches see their words late, and some have a block that hardly ever runs.
    const uint64_t patience = uint64_t{1} << random(8);
    const uint64_t slow = random(2 * room);
    for (;;) {
      if (words_.pending() && (ready_.empty() || random(patience) == 0)) {
        wake(words_.deliver(random(words_.pending())));
        continue;
      }
      if (ready_.empty()) break;
      size_t pick = random(ready_.size());
      const auto slot_of = [&](size_t i) {
        return static_cast<uint64_t>(ready_[i]) / static_cast<uint64_t>(threads_);
      };
      for (int tries = 8; tries && slot_of(pick) == slow; --tries) pick = random(ready_.size());
      Block& block = slots_[slot_of(pick)];
      step(block, pick);
      if (block.ended < threads_) continue;
      if (traffic.on) block.traffic.settle(traffic.sums);
      if (begun < order.size()) begin(block, order[begun++], launch);
    }
    stuck(room, order.size() - begun);
  }

  void abandon() { fibers_.abandon(); }

  // ---- for the thread that runs

  Thread& me() { return here_->team[static_cast<size_t>(thread_)]; }
  int fiber() const { return static_cast<int>(here_ - slots_.data()) * threads_ + thread_; }
  Observer observer() const { return here_->observer(thread_); }

  // A switch at one access in a few hundred shakes the order of threads at little cost.
  void maybe_yield() {
    if (--until_yield_) return;
    until_yield_ = 64 + random(512);
    fibers_.pause();
  }

  void wait(State state, const Site& site) {
    me().state = state;
    me().site = site;
    if (traffic.on) here_->traffic.meet(thread_);
    fibers_.pause();
  }
  void wake(const std::vector<int>& fibers) {
    for (int f : fibers) {
      Block& block = slots_[static_cast<size_t>(f / threads_)];
      if (block.team[static_cast<size_t>(f % threads_)].state == State::kPoll) {
        wake(block, f % threads_);
      }
    }
  }

  static void meet_(void* const*) {}

  Tensors tensors_;
  Words words_;
  Block* here_ = nullptr;
  int thread_ = 0, threads_ = 0;

 private:
  uint64_t random(uint64_t below) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_ % below;
  }

  void wake(Block& block, int t) {
    block.team[static_cast<size_t>(t)].state = State::kReady;
    ready_.push_back(static_cast<int>(&block - slots_.data()) * threads_ + t);
  }

  [[noreturn]] static void diverged(const Block& block, int a, int b) {
    throw Fault("divergence: " + block.waits(a) + ", but " + block.waits(b));
  }

  // The running thread has come to a barrier, perhaps as the last one.
  void arrive(Block& block) {
    const int id = me().barrier;
    Barrier& one = block.barriers[static_cast<size_t>(id)];
    one.waiting.push_back(thread_);
    if (static_cast<int>(one.waiting.size()) < one.expected) return;
    const std::vector<int> team = std::exchange(one.waiting, {});
    std::vector<int> warps;
    for (int t : team) {
      // Warps may meet at a named barrier from different lines, lanes may not.
      const int first = t / 32 * 32, leader = id ? first : 0;
      if (!block.together(leader, t)) diverged(block, leader, t);
      if (t == first) warps.push_back(t / 32);
    }
    for (int w : warps) {
      for (int t = 32 * w; t < 32 * w + 32; ++t) {
        if (!block.together(32 * w, t)) diverged(block, 32 * w, t);
      }
    }
    for (int t : team) wake(block, t);
    if (static_cast<int>(team.size()) == threads_) {
      block.clock.all_meet();
    } else {
      block.clock.meet(warps);
    }
  }

  // The running thread has come to what its warp does as one.
  void join(Block& block) {
    const int warp = thread_ / 32, first = warp * 32;
    int& there = block.at_collective[static_cast<size_t>(warp)];
    if (++there < 32) return;
    there = 0;
    void* operands[32];
    for (int i = 0; i < 32; ++i) {
      if (!block.together(first, first + i)) diverged(block, first, first + i);
      operands[i] = block.team[static_cast<size_t>(first + i)].operands;
    }
    const Collective what = block.team[static_cast<size_t>(first)].collective;
    if (what == &meet_) block.clock.meet({warp});
    try {
      what(operands);
    } catch (const Fault& fault) {
      fail(fault.what());
    }
    for (int i = 0; i < 32; ++i) wake(block, first + i);
  }

  void begin(Block& block, int64_t number, const Launch& launch) {
    block.start(number, threads_, launch.shared);
    for (int t = 0; t < threads_; ++t) wake(block, t);
  }

  // Runs the picked thread until it waits, ends or yields.
  void step(Block& block, size_t pick) {
    here_ = &block;
    const int fiber = ready_[pick];
    thread_ = fiber % threads_;
    fibers_.resume(fiber, *kernel_);
    if (fibers_.finished(fiber)) me().state = State::kEnded;
    const State state = me().state;
    if (state == State::kReady) return;
    // Others may have been woken meanwhile, behind the picked one.
    ready_[pick] = ready_.back();
    ready_.pop_back();
    if (state == State::kEnded) ++block.ended;
    if (state == State::kBarrier) arrive(block);
    if (state == State::kWarp) join(block);
  }

  // No thread can go on and no word is on its way: right if all have ended.
  void stuck(size_t room, size_t not_begun) const {
    std::string polls;
    for (size_t i = 0; i < room; ++i) polls += waiting(slots_[i]);
    if (!polls.empty()) {
      if (not_begun) polls += "; " + std::to_string(not_begun) + " blocks find no room to begin";
      throw Fault("deadlock" + polls);
    }
    for (size_t i = 0; i < room; ++i) {
      const Block& block = slots_[i];
      if (block.ended == threads_) continue;
      // Name a thread that waits and one that does not wait with it.
      int waiting = 0;
      while (block.team[static_cast<size_t>(waiting)].state == State::kEnded) ++waiting;
      for (int t = 0; t < threads_; ++t) {
        if (!block.together(waiting, t)) diverged(block, waiting, t);
      }
      throw Fault("divergence: " + block.waits(waiting) + " for ever");
    }
  }

  // A thread of the block that polls, how many do, and one that waits for those.
  std::string waiting(const Block& block) const {
    int polls = -1, others = 0, behind = -1;
    for (int t = 0; t < threads_; ++t) {
      const State state = block.team[static_cast<size_t>(t)].state;
      if (state == State::kPoll && polls >= 0) ++others;
      if (state == State::kPoll && polls < 0) polls = t;
      if ((state == State::kBarrier || state == State::kWarp) && behind < 0) behind = t;
    }
    if (polls < 0) return "";
    std::string text = "; " + block.waits(polls) + " " +
                       tensors_.word(block.team[static_cast<size_t>(polls)].empty.back());
    if (others) text += ", as " + std::to_string(others) + " others do";
    if (behind >= 0) text += "; " + block.waits(behind);
    return text;
  }

  static constexpr uint64_t kCrowd = 4;  // blocks of an ordinary launch that are alive, at most

  uint64_t random_ = 1, until_yield_ = 1;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Block> slots_;
  std::vector<int> ready_;  // fibers, of which each slot has threads_
  Fibers fibers_;
};

}  // namespace fastseq::simt
