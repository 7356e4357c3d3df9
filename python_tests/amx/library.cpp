// What test_amx.py calls: products of tiles, and whole layers, of the kernels as they are compiled
// for AMX, over the tile unit of tiles_on_host.h. Each returns null, or what the unit refused.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/recurrence_table.h"
#include "kernels/cpu/transposed_product.h"
#include "own_team.h"

#define ENTRY extern "C" __attribute__((visibility("default")))

// So small that every product asks early for the weights that come next.
const fastseq::Caches& fastseq::caches() {
  static const Caches found{1 << 10, 1 << 10, 1 << 20};
  return found;
}

namespace {

using namespace fastseq;
using namespace fastseq::FASTSEQ_CAPABILITY;
using tiles_on_host::unit;

template <class F>
const char* refused_by(const F& run) {
  static std::string said;
  try {
    run();
    if (unit.configured()) throw std::runtime_error("tiles are not given back");
    return nullptr;
  } catch (const std::runtime_error& error) {
    unit.release();
    said = error.what();
    return said.c_str();
  }
}

// Bytes of 0xff are NaN in either type: what nobody wrote shows.
template <class T>
std::vector<T> unwritten(int64_t n) {
  std::vector<T> made(n);
  std::memset(made.data(), 0xff, n * sizeof(T));
  return made;
}

// out[row][gate][unit] from a panel's tile of that row, or to it.
template <int kWide, class F>
void each_element(const PanelShape& shape, int64_t panel, int64_t row, const F& f) {
  constexpr int64_t L = lanes_of<float>;
  for (int64_t v = 0; v < panel_width<Tiles>(shape, panel); ++v) {
    const int64_t first = shape.gated ? panel * L : (panel * kWide + v) * L;
    const int64_t line = shape.gated ? row * kWide + v : row;
    for (int64_t u = first; u < std::min(first + L, shape.outputs); ++u) {
      f(v * L + u - first, line * shape.outputs + u);
    }
  }
}

template <int kWide>
void sweep(const PanelShape& shape, int64_t rows, const BFloat16* state, int64_t stride,
           const BFloat16* weight, float* out, bool add) {
  constexpr int64_t kTileRow = kWide * lanes_of<float>;
  const int64_t panels = panel_count<Tiles>(shape), K = shape.inner;
  auto packed = unwritten<BFloat16>(packed_size<Tiles>(shape) + 512);
  for (int64_t p = 0; p < panels; ++p) {
    pack_panel<Tiles>(shape, WeightView<BFloat16>{weight, shape.outputs * K, K, 1}, p,
                      packed.data());
  }
  if (!add) {
    for_each_tile<Tiles, kWide>(
        shape, packed.data(), 0, panels, state, stride, rows, [](int64_t, int64_t, Lines&) {},
        [&](int64_t panel, int64_t row, const float* tile) {
          each_element<kWide>(shape, panel, row,
                              [&](int64_t in_tile, int64_t at) { out[at] = tile[in_tile]; });
        });
    return;
  }
  auto sums = unwritten<float>((panels * rows + 1) * kTileRow);
  const auto each = [&](const auto& f) {
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t row = 0; row < rows; ++row) {
        float* const tile = sums.data() + (p * rows + row) * kTileRow;
        each_element<kWide>(shape, p, row, [&](int64_t i, int64_t at) { f(tile[i], out[at]); });
      }
    }
  };
  each([](float& sum, float before) { sum = before; });
  add_product<Tiles, kWide>(shape, packed.data(), 0, panels, state, stride, rows, sums.data(),
                            rows);
  each([](float sum, float& after) { after = sum; });
}

// Tensors by their addresses, in the order in which they are asked for.
struct Tensors {
  void* const* next;
  void* take() { return *next++; }
};

}  // namespace

// out [rows, outputs], or with gates (3 or 4) [rows, gates, outputs], is state times weight^T; or
// so much more than it was.
ENTRY const char* run_sweep(int64_t gates, int64_t outputs, int64_t inner, int64_t rows,
                            const BFloat16* state, int64_t stride, const BFloat16* weight,
                            float* out, bool add) {
  return refused_by([&] {
    const PanelShape shape{outputs, inner, gates ? gates : kPlainWide, gates > 0};
    if (gates == 3) {
      sweep<3>(shape, rows, state, stride, weight, out, add);
    } else {
      sweep<4>(shape, rows, state, stride, weight, out, add);
    }
  });
}

// out [x_columns, y_columns] = x^T y, and the sums of x's columns.
ENTRY const char* run_transposed(int64_t rows, int64_t x_columns, int64_t y_columns,
                                 const BFloat16* x, const BFloat16* y, BFloat16* out,
                                 BFloat16* sums) {
  return refused_by([&] {
    using Product = TransposedProduct<BFloat16>;
    const auto line = [&](int64_t n) {
      return [=](int64_t u, int64_t left) { return load_n<float>(y + n * y_columns + u, left); };
    };
    const int64_t panels = Product::panels_of(y_columns);
    tests::Scratch scratch(Product(x, rows, x_columns, x_columns, panels, nullptr).bytes);
    const Product product(x, rows, x_columns, x_columns, panels, scratch.data());
    std::memset(scratch.data(), 0xff, product.bytes);
    product.run(sums, Target<BFloat16, decltype(line)>{out, y_columns, line});
  });
}

// A layer forward and backward, by a team of batches times units. sizes: cell, steps, batch, input,
// hidden, state, reverse, batches, units.
ENTRY const char* run_layer(const int64_t* sizes, void* const* tensors) {
  return refused_by([&] {
    const auto [T, B, I, H, R] = std::tuple(sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]);
    const int64_t threads = sizes[7] * sizes[8];
    constexpr auto kType = static_cast<int>(DType::kBFloat16);
    Tensors p{tensors};
    RecurrenceForward f{};
    f.cell = static_cast<Cell>(sizes[0]);
    f.seq = {T, B, nullptr, nullptr, sizes[6] != 0, nullptr};
    f.hidden = H;
    f.state = R;
    f.asked = {sizes[7], sizes[8], 0};
    const bool gru = f.cell == Cell::kGru;
    const int64_t G = gates_of(f.cell);
    f.in = {true, p.take(), I, B * I, I, nullptr};
    f.h0 = p.take();
    f.c0 = p.take();
    f.in.weight_ih = p.take();
    f.weight_hh = p.take();
    f.bias_ih = p.take();
    f.bias_hh = p.take();
    f.weight_hr = p.take();
    if (gru) f.bias_hn = static_cast<const BFloat16*>(f.bias_hh) + 2 * H;
    f.y = p.take();
    f.h_n = p.take();
    f.c_n = p.take();
    f.gates = p.take();
    f.cells = p.take();
    const ForwardTable& forward = FASTSEQ_CAPABILITY::forward_table[kType];
    tests::run_team(f, threads, forward.team_bytes, forward.member_bytes, forward.run);

    auto grad_pre = unwritten<BFloat16>(T * B * G * H),
         grad_aux = unwritten<BFloat16>(T * B * std::max(H, R));
    RecurrenceBackward b = tests::back_from(f);
    b.grad_y = p.take();
    b.grad_h_n = p.take();
    b.grad_c_n = p.take();
    b.grad_pre = grad_pre.data();
    b.grad_aux = grad_aux.data();
    b.grad_x = p.take();
    b.grad_h0 = p.take();
    b.grad_c0 = p.take();
    b.grad_weight_ih = p.take();
    b.grad_weight_hh = p.take();
    b.grad_bias = p.take();
    void* const grad_bias_hh = p.take();
    if (gru) b.grad_bias_hn = static_cast<BFloat16*>(grad_bias_hh) + 2 * H;
    b.grad_weight_hr = p.take();
    const BackwardTable& backward = FASTSEQ_CAPABILITY::backward_table[kType];
    tests::run_team(b, threads, backward.team_bytes, backward.member_bytes, backward.run);
    std::memcpy(grad_bias_hh, b.grad_bias, (gru ? 2 : G) * H * sizeof(BFloat16));
  });
}

// Programs that the hardware would refuse, by number; null as well beyond the last.
ENTRY const char* run_mistake(int number) {
  return refused_by([&] {
    TileShapes shapes;
    for (int i = 0; i < 3; ++i) {
      shapes.row_bytes[i] = 64;
      shapes.rows[i] = 16;
    }
    unsigned char memory[1024] = {};
    if (number == 0) return tile::zero<0>();
    if (number == 1) shapes.palette = 2;
    if (number == 2) shapes.reserved[0] = 1;
    if (number == 3) shapes.rows[9] = 1;
    if (number == 4) shapes.rows[0] = 17;
    if (number == 5) shapes.row_bytes[0] = 65;
    if (number == 6) shapes.rows[0] = 0;
    if (number == 7) shapes.rows[1] = 15;
    if (number == 8) shapes.row_bytes[2] = 60;
    if (number == 9) shapes.row_bytes[1] = 60;
    tile::configure(&shapes);
    if (number == 10) tile::load<3>(memory, 64);
    if (number == 11) tile::multiply<0, 1, 1>();
    if (number == 12) return;  // with tiles that nobody gives back
    tile::zero<0>();
    tile::load<1>(memory, 64);
    tile::load<2>(memory, 64);
    tile::multiply<0, 1, 2>();
    tile::store<0>(memory, 64);
    tile::release();
  });
}
