// One step of a cell for a few rows (step.h).
//
// As many rows of weights as a vector has lanes are multiplied with the state at once, each into a
// sum of its own across the lanes; the sums are then added up lane by lane into one vector, the
// product of so many units. Bound by reading the weights.
#include "step.h"

#include "recurrence_common.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class A>
struct LaneIndex;
template <>
struct LaneIndex<float> {
  using type = int32_t;
};
template <>
struct LaneIndex<double> {
  using type = int64_t;
};

// Lane i of the result is the sum of all lanes of v[i].
template <class A>
FASTSEQ_INLINE Vec<A> lane_sums(Vec<A>* v) {
  constexpr int L = lanes_of<A>;
  using I = vec_t<typename LaneIndex<A>::type, L>;
  I even, odd;
  for (int i = 0; i < L; ++i) {
    even[i] = 2 * i;
    odd[i] = 2 * i + 1;
  }
#pragma GCC unroll 8
  for (int n = L; n > 1; n /= 2) {  // n vectors hold n sums, each over L lanes of n
#pragma GCC unroll 16
    for (int i = 0; i < n; i += 2) {
      v[i / 2] = __builtin_shuffle(v[i], v[i + 1], even) + __builtin_shuffle(v[i], v[i + 1], odd);
    }
  }
  return v[0];
}

// Sums, not yet across the lanes, of the products of `valid` neighbouring rows of a matrix
// [., inner] with a vector.
template <class S>
struct RowSums {
  using A = accumulate_t<S>;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;
  V sum[L] = {};

  FASTSEQ_INLINE void add(const S* rows, int64_t inner, int64_t valid, const S* vector) {
    const S* row[L];
#pragma GCC unroll 16
    for (int64_t j = 0; j < L; ++j) row[j] = rows + (j < valid ? j : 0) * inner;
    int64_t k = 0;
    for (; k + L <= inner; k += L) {
      const V s = load<A>(vector + k);
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j) sum[j] += s * load<A>(row[j] + k);
    }
    if (k == inner) return;
    const V s = load_n<A>(vector + k, inner - k);
#pragma GCC unroll 16
    for (int64_t j = 0; j < L; ++j) sum[j] += s * load_n<A>(row[j] + k, inner - k);
  }
  FASTSEQ_INLINE V total() { return lane_sums<A>(sum); }
};

template <class S, class C>
void run_cell(const StepArguments& a, const C& cell) {
  using A = accumulate_t<S>;
  using V = Vec<A>;
  constexpr int64_t L = lanes_of<A>;
  const int64_t H = a.hidden, I = a.input;
  const S* const w_ih = static_cast<const S*>(a.weight_ih);
  const S* const w_hh = static_cast<const S*>(a.weight_hh);
  for (int64_t u = 0; u < H; u += L) {
    const int64_t n = H - u, valid = n < L ? n : L;
    const auto bias = [&](const void* from, int64_t g) {
      return from ? load_n<A>(static_cast<const S*>(from) + g * H + u, n) : V{};
    };
    for (int64_t b = 0; b < a.batch; ++b) {
      V x[C::kGates], r[C::kGates], cache[C::kCached + 1], c{}, c_prev{}, h_prev{}, h;
      for (int64_t g = 0; g < C::kGates; ++g) {
        const int64_t row = g * H + u;
        RowSums<S> sums;
        sums.add(w_ih + row * I, I, valid, static_cast<const S*>(a.x) + b * a.x_row);
        x[g] = bias(a.bias_ih, g);
        if (C::kSplitsGates && g == 2) {
          x[g] += sums.total();
          sums = {};
        }
        sums.add(w_hh + row * H, H, valid, static_cast<const S*>(a.h) + b * H);
        r[g] = sums.total() + bias(a.bias_hh, g);
      }
      const int64_t at = b * H + u;
      if constexpr (C::kHasCellState) c_prev = load_n<A>(static_cast<const S*>(a.c) + at, n);
      if constexpr (C::kHasDirectPath) h_prev = load_n<A>(static_cast<const S*>(a.h) + at, n);
      cell.template forward<VecMath>(x, r, h_prev, c_prev, kNoZone<V>, cache, c, h);
      if constexpr (C::kHasCellState) store_n<A>(static_cast<S*>(a.c_next) + at, c, n);
      store_n<A>(static_cast<S*>(a.h_next) + at, h, n);
    }
  }
}

template <class S>
void run(const StepArguments& a) {
  with_loop_cell(a.cell, [&](auto cell) { run_cell<S>(a, cell); });
}

}  // namespace

const StepKernel step_table[kDTypes] = {run<float>, run<double>, run<BFloat16>, run<Half>};

}  // namespace fastseq::FASTSEQ_CAPABILITY
