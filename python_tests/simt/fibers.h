// Fibers: functions that stop in the middle and go on later, each on a stack of its own.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace fastseq::simt {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// ucontext starts a fiber; later switches are _setjmp and _longjmp, which make no system call.
class Fibers {
 public:
  // Runs fiber i until it pauses or ends; what it throws is thrown here. A fiber that has ended
  // starts again.
  void resume(int i, const std::function<void()>& body) {
    while (static_cast<size_t>(i) >= all_.size()) all_.push_back(std::make_unique<Fiber>());
    current_ = all_[static_cast<size_t>(i)].get();
    if (current_->finished) current_->body = &body;
    current_->finished = false;
    enter();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }
  bool finished(int i) const { return all_[static_cast<size_t>(i)]->finished; }
  void pause() {
    Fiber* const me = current_;
    if (_setjmp(me->place) == 0) _longjmp(scheduler_, 1);
  }
  // Forgets fibers that stopped in the middle of a kernel: their frames own nothing.
  void abandon() {
    for (auto& fiber : all_) fiber->started = false, fiber->finished = true;
  }

 private:
  static constexpr size_t kStack = 128 * 1024;
  struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStack]};
    ucontext_t context;
    jmp_buf place;
    bool started = false, finished = true;
    const std::function<void()>* body = nullptr;
  };

  __attribute__((noinline)) void enter() {
    if (_setjmp(scheduler_) != 0) return;
    if (current_->started) _longjmp(current_->place, 1);
    current_->started = true;
    getcontext(&current_->context);
    current_->context.uc_stack.ss_sp = current_->stack.get();
    current_->context.uc_stack.ss_size = kStack;
    current_->context.uc_link = nullptr;
    starting = this;
    makecontext(&current_->context, &Fibers::loop, 0);
    setcontext(&current_->context);
  }

  static void loop() {
    Fibers* const self = starting;
    for (;;) {
      Fiber* const me = self->current_;
      try {
        (*me->body)();
      } catch (...) {
        self->failure_ = std::current_exception();
      }
      me->finished = true;
      self->pause();
    }
  }

  inline static Fibers* starting = nullptr;
  std::vector<std::unique_ptr<Fiber>> all_;
  Fiber* current_ = nullptr;
  jmp_buf scheduler_;
  std::exception_ptr failure_;
};

}  // namespace fastseq::simt
