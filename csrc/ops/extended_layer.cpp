// A recurrent layer on the CPU with lengths, resets, dropped and kept states, layer norm.
#include "layer_call.h"
#include "team_run.h"

namespace fastseq::ops {
namespace {

using Optional = const OptionalTensor&;

// What a layer does beside the plain recurrence: checked, dense, and as the kernels read it.
struct ExtrasCall {
  OptionalTensor reset, reset_h, reset_c, drop, zone_h, zone_c, norm_hh, norm_c, norm_c_bias;
  double epsilon;

  Extras checked(const Sizes& n, const Steps& steps, const Tensor& like, bool lstm) {
    const int64_t B = n.batch, H = n.hidden, R = n.state;
    FASTSEQ_CHECK(!reset || !steps.seq.offsets || steps.seq.order,
                  "fastseq::recurrence: a packed batch cannot be reset; pass a padded one and "
                  "lengths");
    if (reset) {
      FASTSEQ_CHECK(reset->scalar_type() == ScalarType::Bool && reset->dim() == 2 &&
                        reset->size(0) == steps.seq.steps && reset->size(1) == B &&
                        reset->device() == like.device(),
                    "fastseq::recurrence: reset should be a bool tensor of shape [",
                    steps.seq.steps, ", ", B, "], got ", shape_string(*reset));
      reset = dense(*reset);
    }
    take(reset_h, {B, R}, like, "reset_h");
    take(reset_c, {B, H}, like, "reset_c");
    take(drop, {B, R}, like, "drop");
    take(zone_h, steps.shape(R), like, "zone_h");
    take(zone_c, steps.shape(H), like, "zone_c");
    take(norm_hh, {n.gates * H}, like, "norm_hh");
    take(norm_c, {H}, like, "norm_c");
    take(norm_c_bias, {H}, like, "norm_c_bias");
    FASTSEQ_CHECK(lstm || (!reset_c && !zone_c && !norm_c && !norm_c_bias),
                  "fastseq::recurrence: reset_c, zone_c, norm_c and norm_c_bias belong to LSTM");
    const bool norms = norm_hh.has_value() == (norm_c && norm_c_bias) &&
                       norm_c.has_value() == norm_c_bias.has_value();
    FASTSEQ_CHECK(!lstm || norms,
                  "fastseq::recurrence: LSTM needs norm_hh, norm_c and norm_c_bias together");
    return {reset ? static_cast<const bool*>(reset->const_data_ptr()) : nullptr,
            pointer(reset_h),
            pointer(reset_c),
            pointer(drop),
            pointer(zone_h),
            pointer(zone_c),
            pointer(norm_hh),
            pointer(norm_c),
            pointer(norm_c_bias),
            epsilon};
  }

 private:
  static void take(OptionalTensor& t, const std::vector<int64_t>& shape, const Tensor& like,
                   const char* name) {
    if (!t) return;
    check_shape(*t, shape, like, name);
    t = dense(*t);
  }
};

// Where the input side is given, the one bias left is GRU's b_hn.
OptionalTensor bias_beside(const OptionalTensor& weight_ih, Optional bias_ih, Optional bias_hh,
                           Optional norm_hh) {
  FASTSEQ_CHECK(weight_ih.has_value() != norm_hh.has_value(),
                "fastseq::recurrence: with norm_hh, x should be the normalized input side and "
                "weight_ih None; without it, weight_ih is needed");
  FASTSEQ_CHECK(weight_ih || !bias_ih, "fastseq::recurrence: bias_ih belongs to weight_ih");
  return weight_ih ? bias_hh : std::nullopt;
}

using ExtendedResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ExtendedResult extended_layer(const Tensor& x, const Tensor& h0, Optional c0, Optional weight_ih,
                              const Tensor& weight_hh, Optional bias_ih, Optional bias_hh,
                              Optional weight_hr, Optional batch_sizes, Optional lengths,
                              Optional reset, Optional reset_h, Optional reset_c, Optional drop,
                              Optional zone_h, Optional zone_c, Optional norm_hh, Optional norm_c,
                              Optional norm_c_bias, double epsilon, int64_t cell, bool reverse,
                              bool save) {
  LayerForwardCall call(x, h0, c0, weight_ih, weight_hh, bias_ih,
                        bias_beside(weight_ih, bias_ih, bias_hh, norm_hh), weight_hr, batch_sizes,
                        cell, reverse, save, lengths);
  const bool lstm = call.args.cell == Cell::kLstm;
  ExtrasCall extras{reset,  reset_h, reset_c, drop,        zone_h,
                    zone_c, norm_hh, norm_c,  norm_c_bias, epsilon};
  call.args.extra = extras.checked(call.sizes, call.steps, call.h0, lstm);
  OptionalTensor bias_hn;
  if (!weight_ih && bias_hh) {
    FASTSEQ_CHECK(call.args.cell == Cell::kGru,
                  "fastseq::recurrence: without weight_ih, bias_hh is a GRU's b_hn");
    check_shape(*bias_hh, {call.sizes.hidden}, call.h0, "bias_hh");
    bias_hn = dense(*bias_hh);
    call.args.bias_hn = pointer(bias_hn);
  }
  const int64_t GH = call.sizes.gates * call.sizes.hidden;
  const Tensor products =
      new_internal(call.h0, norm_hh && save ? call.steps.shape(GH) : std::vector<int64_t>{0});
  call.args.products = products.numel() ? products.mutable_data_ptr() : nullptr;
  run_team(forward_kernel(dtype_of(h0)), call.args);
  const auto [y, h_n, c_n, gates, cells] = call.result();
  return {y, h_n, c_n, gates, cells, products};
}

using ExtendedBackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                          Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ExtendedBackwardResult extended_layer_backward(
    Optional grad_y, Optional grad_h_n, Optional grad_c_n, Optional grad_cells, const Tensor& y,
    const Tensor& gates, const Tensor& cells, const Tensor& products, const Tensor& x,
    const Tensor& h0, Optional c0, Optional weight_ih, const Tensor& weight_hh, Optional bias_ih,
    Optional bias_hh, Optional weight_hr, Optional batch_sizes, Optional lengths, Optional reset,
    Optional reset_h, Optional reset_c, Optional drop, Optional zone_h, Optional zone_c,
    Optional norm_hh, Optional norm_c, Optional norm_c_bias, double epsilon, int64_t cell,
    bool reverse, int64_t wanted) {
  bias_beside(weight_ih, bias_ih, bias_hh, norm_hh);
  LayerBackwardCall call(grad_y, grad_h_n, grad_c_n, std::nullopt, grad_cells, x, y, gates, cells,
                         h0, c0, weight_ih, weight_hh, weight_hr, batch_sizes, cell, reverse,
                         weight_ih ? wanted : wanted & ~kWantBiases, lengths);
  RecurrenceBackward& args = call.args;
  const Sizes& n = call.time.sizes;
  const bool lstm = args.cell == Cell::kLstm;
  ExtrasCall extras{reset,  reset_h, reset_c, drop,        zone_h,
                    zone_c, norm_hh, norm_c,  norm_c_bias, epsilon};
  args.extra = extras.checked(n, call.time.steps, call.time.h0, lstm);
  const auto made = [&](bool yes, const std::vector<int64_t>& shape, void*& pointer) {
    Tensor t = new_tensor(y, yes ? shape : std::vector<int64_t>{0});
    pointer = yes ? t.mutable_data_ptr() : nullptr;
    return t;
  };
  const int64_t H = n.hidden, GH = n.gates * H;
  const bool norm = norm_hh.has_value();
  const Tensor grad_reset_h = made(reset && reset_h, {n.batch, n.state}, args.grad_reset_h);
  const Tensor grad_reset_c = made(reset && reset_c, {n.batch, H}, args.grad_reset_c);
  const Tensor grad_norm_hh = made(norm, {GH}, args.grad_norm_hh);
  const Tensor grad_norm_c = made(norm && lstm, {H}, args.grad_norm_c);
  const Tensor grad_norm_c_bias = made(norm && lstm, {H}, args.grad_norm_c_bias);
  Tensor grad_bias_hn = call.grad_bias_hh;
  Tensor scratch[3];
  if (norm) {
    check_shape(products, call.time.steps.shape(GH), call.time.h0, "products");
    const auto rows = [&](Tensor& t, int64_t width, void*& pointer) {
      t = new_internal(y, {call.time.steps.seq.rows(), width});
      pointer = t.mutable_data_ptr();
    };
    rows(scratch[0], GH, args.grad_products);
    rows(scratch[1], GH, args.rows_hh);
    if (lstm) rows(scratch[2], 2 * H, args.rows_c);
    if (args.cell == Cell::kGru) grad_bias_hn = made(true, {H}, args.grad_bias_hn);
  }
  const Tensor saved = dense(products);
  args.products = saved.const_data_ptr();
  run_team(backward_kernel(dtype_of(y)), args);
  const auto [dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh, dw_hr] = call.result();
  return {dx,
          dh0,
          dc0,
          dw_ih,
          dw_hh,
          db_ih,
          norm ? grad_bias_hn : db_hh,
          dw_hr,
          grad_reset_h,
          grad_reset_c,
          grad_norm_hh,
          grad_norm_c,
          grad_norm_c_bias};
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("extended_layer", TORCH_BOX(&fastseq::ops::extended_layer));
  m.impl("extended_layer_backward", TORCH_BOX(&fastseq::ops::extended_layer_backward));
}
