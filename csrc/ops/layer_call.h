// A layer's call: what the recurrence checks and allocates, and the same for its input product.
#pragma once

#include <cstring>

#include "recurrence_call.h"
#include "recurrence_schema.h"

namespace fastseq::ops {

// The layer's input as the kernels read it: any strides but the last. Without weight_ih it is the
// input side of the pre-activations already.
struct InputSide {
  Tensor x;
  OptionalTensor weight_ih;
  LayerInput in{};

  InputSide(const Tensor& x_, const OptionalTensor& weight_ih_, const Sizes& sizes,
            const Steps& steps, const Tensor& like)
      : x(weight_ih_ ? rows_dense(x_) : dense(x_)), weight_ih(dense(weight_ih_)) {
    if (!weight_ih) {
      check_shape(x, steps.shape(sizes.gates * sizes.hidden), like, "x");
      return;
    }
    FASTSEQ_CHECK(weight_ih->dim() == 2, "fastseq::recurrence: weight_ih should be 2-D, got ",
                  shape_string(*weight_ih));
    const int64_t I = weight_ih->size(1);
    check_shape(*weight_ih, {sizes.gates * sizes.hidden, I}, like, "weight_ih");
    check_shape(x, steps.shape(I), like, "x");
    const bool padded = x.dim() == 3;
    in = {true,
          x.const_data_ptr(),
          I,
          padded ? x.stride(0) : 0,
          x.stride(padded ? 1 : 0),
          weight_ih->const_data_ptr()};
  }

 private:
  static Tensor rows_dense(const Tensor& t) {
    const int64_t last = t.dim() - 1;
    return last < 0 || t.stride(last) == 1 || t.size(last) == 1 ? t : dense(t);
  }
};

struct LayerForwardCall {
  Tensor h0, weight_hh;
  OptionalTensor c0, bias_ih, bias_hh, weight_hr;
  Sizes sizes;
  Steps steps;
  InputSide input;
  ForwardOutputs out;
  RecurrenceForward args{};

  LayerForwardCall(const Tensor& x, const Tensor& h0_, const OptionalTensor& c0_,
                   const OptionalTensor& weight_ih, const Tensor& weight_hh_,
                   const OptionalTensor& bias_ih_, const OptionalTensor& bias_hh_,
                   const OptionalTensor& weight_hr_, const OptionalTensor& batch_sizes,
                   int64_t code, bool reverse, bool save,
                   const OptionalTensor& lengths = std::nullopt)
      : h0(dense(h0_)),
        weight_hh(dense(weight_hh_)),
        c0(dense(c0_)),
        bias_ih(dense(bias_ih_)),
        bias_hh(dense(bias_hh_)),
        weight_hr(dense(weight_hr_)),
        sizes(checked_cell(code), h0, c0, weight_hh, weight_hr),
        steps(x, batch_sizes, sizes.batch, reverse, lengths),
        input(x, weight_ih, sizes, steps, h0),
        out(h0, steps, sizes, checked_cell(code) == Cell::kLstm, save) {
    const int64_t H = sizes.hidden;
    if (bias_ih) check_shape(*bias_ih, {sizes.gates * H}, h0, "bias_ih");
    if (bias_hh) check_shape(*bias_hh, {sizes.gates * H}, h0, "bias_hh");
    args.cell = checked_cell(code);
    args.seq = steps.seq;
    args.hidden = H;
    args.state = sizes.state;
    args.h0 = h0.const_data_ptr();
    args.c0 = pointer(c0);
    args.weight_hh = weight_hh.const_data_ptr();
    args.weight_hr = pointer(weight_hr);
    args.in = input.in;
    if (!input.in.given) args.pre = input.x.const_data_ptr();
    args.bias_ih = pointer(bias_ih);
    args.bias_hh = pointer(bias_hh);
    if (bias_hh && args.cell == Cell::kGru) {
      args.bias_hn = static_cast<const char*>(args.bias_hh) + 2 * H * bias_hh->element_size();
    }
    out.fill(args);
  }

  ForwardResult result() const { return out.result(); }
};

using LayerBackwardResult =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Gate gradients (`time.grad_pre`, `time.grad_aux`) are scratch here.
struct LayerBackwardCall {
  BackwardCall time;
  InputSide input;
  Tensor grad_x, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, grad_weight_hr;
  RecurrenceBackward args;

  LayerBackwardCall(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                    const OptionalTensor& grad_c_n, const OptionalTensor& grad_gates,
                    const OptionalTensor& grad_cells, const Tensor& x, const Tensor& y,
                    const Tensor& gates, const Tensor& cells, const Tensor& h0,
                    const OptionalTensor& c0, const OptionalTensor& weight_ih,
                    const Tensor& weight_hh, const OptionalTensor& weight_hr,
                    const OptionalTensor& batch_sizes, int64_t code, bool reverse, int64_t wanted,
                    const OptionalTensor& lengths = std::nullopt)
      : time(grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, y, gates, cells, h0, c0, weight_hh,
             weight_hr, batch_sizes, code, reverse, lengths, 1, (wanted & kWantStates) != 0),
        input(x, weight_ih, time.sizes, time.steps, time.h0),
        args(time.args) {
    const Sizes& n = time.sizes;
    const int64_t GH = n.gates * n.hidden, I = input.in.given ? input.in.size : GH;
    const auto make = [&](int64_t flag, const std::vector<int64_t>& shape) {
      return new_tensor(y, wanted & flag ? shape : std::vector<int64_t>{0});
    };
    grad_x = make(kWantInput, time.steps.shape(I));
    if (!input.in.given) wanted &= ~kWantWeightIh;
    grad_weight_ih = make(kWantWeightIh, {GH, I});
    grad_weight_hh = make(kWantWeightHh, {GH, n.state});
    grad_bias_ih = make(kWantBiases, {GH});
    grad_bias_hh = make(kWantBiases, {GH});
    grad_weight_hr = make(time.weight_hr ? int64_t{kWantWeightHr} : 0, {n.state, n.hidden});
    advise_huge_pages(grad_x);
    const auto pointer_if = [&](int64_t flag, const Tensor& t) {
      return wanted & flag ? t.mutable_data_ptr() : nullptr;
    };
    args.in = input.in;
    args.grad_x = pointer_if(kWantInput, grad_x);
    args.grad_weight_ih = pointer_if(kWantWeightIh, grad_weight_ih);
    args.grad_weight_hh = pointer_if(kWantWeightHh, grad_weight_hh);
    args.grad_bias = pointer_if(kWantBiases, grad_bias_ih);
    args.grad_weight_hr = time.weight_hr ? pointer_if(kWantWeightHr, grad_weight_hr) : nullptr;
    if ((wanted & kWantBiases) && args.cell == Cell::kGru) {
      args.grad_bias_hn =
          static_cast<char*>(grad_bias_hh.mutable_data_ptr()) + 2 * n.hidden * y.element_size();
    }
  }

  // The two biases are added before the gates, so they share their gradient, but for GRU's n.
  LayerBackwardResult result() const {
    const int64_t same = args.grad_bias_hn ? 2 * args.hidden : grad_bias_ih.numel();
    if (same > 0 && grad_bias_ih.numel() > 0) {
      std::memcpy(grad_bias_hh.mutable_data_ptr(), grad_bias_ih.const_data_ptr(),
                  static_cast<size_t>(same) * grad_bias_ih.element_size());
    }
    return {grad_x,         time.grad_h0, time.grad_c0, grad_weight_ih,
            grad_weight_hh, grad_bias_ih, grad_bias_hh, grad_weight_hr};
  }
};

}  // namespace fastseq::ops
