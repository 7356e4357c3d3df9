// Whole recurrences on teams of threads, without Python and torch, for ThreadSanitizer: forward and
// all gradients of every cell, dense and packed, with every way to divide them. What a team makes
// must also be, to the last bit, what one thread makes.
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cells.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/recurrence.h"
#include "own_team.h"

using namespace fastseq;
using tests::run_team;

namespace {

constexpr int64_t kSteps = 6, kInput = 9;

// Tensors of a case, all of float.
class Room {
 public:
  float* zeros(int64_t n) {
    kept_.push_back(std::vector<float>(n + 1));
    return kept_.back().data();
  }
  float* random(int64_t n) {
    float* const p = zeros(n);
    std::uniform_real_distribution<float> draw(-0.5f, 0.5f);
    for (int64_t i = 0; i < n; ++i) p[i] = draw(engine_);
    return p;
  }
  bool same(const Room& other) const {
    for (size_t i = 0; i < kept_.size(); ++i) {
      if (std::memcmp(kept_[i].data(), other.kept_[i].data(), 4 * kept_[i].size())) return false;
    }
    return kept_.size() == other.kept_.size();
  }

 private:
  std::mt19937 engine_{7};
  std::vector<std::vector<float>> kept_;
};

struct Case {
  Cell cell;
  int64_t batch, hidden;
  bool packed, reverse, projected;
};

void compute(const Case& c, int64_t threads, const AskedPlan& plan, Room& room) {
  const bool lstm = c.cell == Cell::kLstm;
  const int64_t G = gates_of(c.cell), H = c.hidden, R = c.projected ? H / 2 : H, B = c.batch;
  std::vector<int64_t> sizes, offsets{0};
  for (int64_t t = 0; t < kSteps; ++t) {
    sizes.push_back(B - (B - 1) * t / (kSteps - 1));
    offsets.push_back(offsets.back() + sizes.back());
  }
  Sequence seq{kSteps, B, nullptr, nullptr, c.reverse, nullptr};
  if (c.packed) seq.batch_sizes = sizes.data(), seq.offsets = offsets.data();
  const int64_t N = seq.rows(), cached = cached_of(c.cell) * H;
  RecurrenceForward f{};
  f.cell = c.cell;
  f.seq = seq;
  f.hidden = H;
  f.state = R;
  f.h0 = room.random(B * R);
  f.c0 = lstm ? room.random(B * H) : nullptr;
  f.weight_hh = room.random(G * H * R);
  f.weight_hr = c.projected ? room.random(R * H) : nullptr;
  f.in = {true, room.random(N * kInput), kInput, B * kInput, kInput, room.random(G * H * kInput)};
  f.bias_ih = room.random(G * H);
  f.bias_hh = room.random(G * H);
  if (c.cell == Cell::kGru) f.bias_hn = static_cast<const float*>(f.bias_hh) + 2 * H;
  f.y = room.zeros(N * R);
  f.h_n = room.zeros(B * R);
  f.c_n = lstm ? room.zeros(B * H) : nullptr;
  f.gates = cached ? room.zeros(N * cached) : nullptr;
  f.cells = lstm ? room.zeros(N * H) : nullptr;
  f.asked = plan;
  RecurrenceBackward b = tests::back_from(f);
  b.grad_y = room.random(N * R);
  b.grad_h_n = room.random(B * R);
  b.grad_c_n = lstm ? room.random(B * H) : nullptr;
  b.grad_pre = room.zeros(N * G * H);
  b.grad_aux = room.zeros(N * H);
  b.grad_h0 = room.zeros(B * R);
  b.grad_c0 = lstm ? room.zeros(B * H) : nullptr;
  b.grad_x = room.zeros(N * kInput);
  b.grad_weight_ih = room.zeros(G * H * kInput);
  b.grad_weight_hh = room.zeros(G * H * R);
  b.grad_weight_hr = c.projected ? room.zeros(R * H) : nullptr;
  b.grad_bias = room.zeros(G * H);
  b.grad_bias_hn = c.cell == Cell::kGru ? room.zeros(H) : nullptr;
  const RecurrenceKernels& k = recurrence_kernels(DType::kFloat);
  run_team(f, threads, k.forward_team_bytes, k.forward_member_bytes, k.forward_run);
  run_team(b, threads, k.backward_team_bytes, k.backward_member_bytes, k.backward_run);
}

}  // namespace

int main() {
  constexpr AskedPlan kPlans[] = {{1, 2, 0}, {2, 1, 0}, {1, 4, 5}, {2, 2, 0}, {4, 1, 7}, {3, 1, 0}};
  int64_t cases = 0, wrong = 0;
  for (const Cell cell : {Cell::kLstm, Cell::kGru, Cell::kRnnTanh, Cell::kRnnRelu}) {
    for (const int64_t batch : {1, 5, 12}) {
      for (int kind = 0; kind < 8; ++kind) {
        const Case c{cell, batch, 40, (kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0};
        if (c.projected && cell != Cell::kLstm) continue;
        Room alone;
        compute(c, 1, {}, alone);
        for (const AskedPlan& plan : kPlans) {
          Room together;
          compute(c, plan.batches * plan.units, plan, together);
          ++cases;
          wrong += !together.same(alone);
        }
      }
    }
  }
  std::printf("%lld cases, %lld differ\n", static_cast<long long>(cases),
              static_cast<long long>(wrong));
  return wrong ? 1 : 0;
}
