// x W^T by the tiles of the time loop (linear.h): rows divided among the team's members.
#include "linear.h"

#include "recurrence_common.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class S>
struct Linear {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  static constexpr int64_t L = lanes_of<A>;

  static PanelShape shape(const LinearArguments& a) {
    return {a.outputs, a.inner, kPlainWide, false};
  }

  static int64_t team_bytes(const LinearArguments& a) {
    return packed_size<D>(shape(a)) * static_cast<int64_t>(sizeof(Item));
  }
  static int64_t member_bytes(const LinearArguments& a, int64_t /*members*/) {
    return kBlockRows * padded<Item>(a.inner) * static_cast<int64_t>(sizeof(Item));
  }

  static void run(const LinearArguments& a, const Member& member, char* team, char* own) {
    const PanelShape panels = shape(a);
    Item* const packed = reinterpret_cast<Item*>(team);
    Item* const rows = reinterpret_cast<Item*>(own);
    const int64_t count = panel_count<D>(panels), stride = padded<Item>(a.inner);
    const WeightView<S> weight{static_cast<const S*>(a.weight), 0, a.output_stride, a.inner_stride};
    const Range some = share(count, member.id, member.count);
    for (int64_t p = some.first; p < some.last; ++p) pack_panel<D>(panels, weight, p, packed);
    wait(member.team->everyone, member.count);
    const Range mine = share(a.rows, member.id, member.count);
    for (int64_t n0 = mine.first; n0 < mine.last; n0 += kBlockRows) {
      const int64_t n = mine.last - n0 < kBlockRows ? mine.last - n0 : kBlockRows;
      for (int64_t r = 0; r < n; ++r) {
        load_items<D>(rows + r * stride, static_cast<const S*>(a.x) + (n0 + r) * a.inner, a.inner);
      }
      const auto save = [&](int64_t panel, int64_t r, const A* tile) {
        S* const to = static_cast<S*>(a.y) + (n0 + r) * a.outputs;
        for (int64_t v = 0; v < kPlainWide; ++v) {
          const int64_t u = (panel * kPlainWide + v) * L;
          if (u >= a.outputs) break;
          store_n<A>(to + u, load<A>(tile + v * L), a.outputs - u);
        }
      };
      sweep_tiles<D, kPlainWide>(panels, packed, 0, count, rows, stride, n, save);
    }
  }
};

template <class S>
constexpr LinearKernel kernel_of() {
  return {Linear<S>::team_bytes, Linear<S>::member_bytes, Linear<S>::run};
}

}  // namespace

#if defined(FASTSEQ_BF16_ALONE)
const LinearKernel linear_table[kDTypes] = {{}, {}, kernel_of<BFloat16>(), {}};
#else
const LinearKernel linear_table[kDTypes] = {kernel_of<float>(), kernel_of<double>(),
                                            kernel_of<BFloat16>(), kernel_of<Half>()};
#endif

}  // namespace fastseq::FASTSEQ_CAPABILITY
