// The recurrence on CUDA, step by step: one matrix product by ATen and one cell kernel a step, on
// the current stream, without a word to the host in between, so that a graph can capture it.
//
// Built with FASTSEQ_SIMT it registers the same code as CPU ops of the library fastseq_simt, over
// kernels compiled for the host: python_tests/simt runs it where there is no GPU.
#include <array>

#include "../kernels/cuda/recurrence.h"
#include "on_device.h"
#include "recurrence_call.h"
#include "recurrence_schema.h"

namespace fastseq::ops {
namespace {

// out = a b
void product(Tensor& out, const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(out)};
  if (torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION) != TORCH_SUCCESS) {
    fail_as_torch("fastseq: a matrix product failed");
  }
  torch::stable::detail::to<Tensor>(stack[0]);  // takes back the reference to `out`
}

Tensor rows(const Tensor& t, int64_t first, int64_t n) {
  Tensor whole = t;
  return torch::stable::narrow(whole, 0, first, n);
}

// [T, B, n] as [N, n]; packed rows are that already.
Tensor flat(const Tensor& t, int64_t width) { return torch::stable::view(t, {-1, width}); }

Tensor transposed(const Tensor& t) { return torch::stable::transpose(t, 0, 1); }

void copy(Tensor& to, const Tensor& from) { torch::stable::copy_(to, from); }

void zero(Tensor& t) { torch::stable::zero_(t); }

ForwardResult recurrence(const Tensor& pre, const Tensor& h0, const OptionalTensor& c0,
                         const Tensor& weight_hh, const OptionalTensor& bias_hn,
                         const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
                         int64_t code, bool reverse, bool save) {
  ForwardCall call(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, code, reverse, save);
  const RecurrenceForward& a = call.args;
  if (a.seq.batch == 0) return call.result();
  const OnDevice on(call.pre);
  const DType dtype = dtype_of(call.pre);
  const bool lstm = a.cell == Cell::kLstm;
  const int64_t B = a.seq.batch, H = a.hidden, R = a.state;

  copy(call.out.h_n, call.h0);  // the state lives in h_n and is updated in place
  Tensor cell;
  if (lstm) {
    cell = new_tensor(call.pre, {B, H}, sum_type(call.pre));
    copy(cell, *call.c0);
  }
  const Tensor w_hh = transposed(call.weight_hh);
  const Tensor gate_products = new_tensor(call.pre, {B, call.sizes.gates * H});
  const Tensor y = flat(call.out.y, R);
  Tensor w_hr, outputs;
  if (call.weight_hr) {
    w_hr = transposed(*call.weight_hr);
    outputs = new_tensor(call.pre, {B, H});
  }
  for (int64_t s = 0; s < a.seq.steps; ++s) {
    const int64_t t = a.seq.at(s), n = a.seq.active(t);
    Tensor gates = rows(gate_products, 0, n);
    product(gates, rows(call.out.h_n, 0, n), w_hh);
    check(cuda::step_forward(dtype, a,
                             {t, gates.const_data_ptr(), lstm ? cell.mutable_data_ptr() : nullptr,
                              call.weight_hr ? outputs.mutable_data_ptr() : nullptr},
                             on.stream));
    if (call.weight_hr) {
      Tensor y_t = rows(y, a.seq.offset(t), n);
      product(y_t, rows(outputs, 0, n), w_hr);
      Tensor state = rows(call.out.h_n, 0, n);
      copy(state, y_t);
    }
  }
  if (lstm) copy(call.out.c_n, cell);
  return call.result();
}

BackwardResult recurrence_backward(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                   const OptionalTensor& grad_c_n, const OptionalTensor& grad_gates,
                                   const OptionalTensor& grad_cells, const Tensor& y,
                                   const Tensor& gates, const Tensor& cells, const Tensor& h0,
                                   const OptionalTensor& c0, const Tensor& weight_hh,
                                   const OptionalTensor& weight_hr,
                                   const OptionalTensor& batch_sizes, int64_t code, bool reverse) {
  BackwardCall call(grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, y, gates, cells, h0, c0,
                    weight_hh, weight_hr, batch_sizes, code, reverse);
  const RecurrenceBackward& a = call.args;
  if (a.seq.batch == 0) return call.result();
  const OnDevice on(call.y);
  const DType dtype = dtype_of(call.y);
  const bool lstm = a.cell == Cell::kLstm, gru = a.cell == Cell::kGru;
  const int64_t B = a.seq.batch, H = a.hidden, R = a.state, GH = call.sizes.gates * H;

  const auto started = [&](const OptionalTensor& grad, int64_t width) {
    Tensor t = new_tensor(call.y, {B, width}, sum_type(call.y));
    if (grad) {
      copy(t, *grad);
    } else {
      zero(t);
    }
    return t;
  };
  const Tensor carry = started(call.grad_h_n, R);
  Tensor cell, side, outputs;
  if (lstm) cell = started(call.grad_c_n, H);
  if (gru) side = new_tensor(call.y, {B, GH});
  if (call.weight_hr) outputs = new_tensor(call.y, {B, H});
  Tensor products = new_tensor(call.y, {B, R});
  zero(products);
  const Tensor grad_pre = flat(call.grad_pre, GH);
  cuda::StepBackward step{0,
                          products.const_data_ptr(),
                          carry.mutable_data_ptr(),
                          lstm ? cell.mutable_data_ptr() : nullptr,
                          call.weight_hr ? outputs.const_data_ptr() : nullptr,
                          gru ? side.mutable_data_ptr() : nullptr};
  for (int64_t s = a.seq.steps - 1; s >= 0; --s) {
    step.t = a.seq.at(s);
    const int64_t at = a.seq.offset(step.t), n = a.seq.active(step.t);
    if (call.weight_hr) {
      check(cuda::state_gradient(dtype, a, step, on.stream));
      Tensor output = rows(outputs, 0, n);
      product(output, rows(flat(call.grad_aux, R), at, n), *call.weight_hr);
    }
    check(cuda::step_backward(dtype, a, step, on.stream));
    Tensor next = rows(products, 0, n);
    product(next, gru ? rows(side, 0, n) : rows(grad_pre, at, n), call.weight_hh);
  }
  check(cuda::finish_backward(dtype, a, step, on.stream));
  return call.result();
}

}  // namespace
}  // namespace fastseq::ops

#if defined(FASTSEQ_SIMT)
STABLE_TORCH_LIBRARY(fastseq_simt, m) {
  m.def(fastseq::ops::kRecurrenceSchema);
  m.def(fastseq::ops::kRecurrenceBackwardSchema);
}
STABLE_TORCH_LIBRARY_IMPL(fastseq_simt, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(fastseq, CUDA, m) {
#endif
  m.impl("recurrence", TORCH_BOX(&fastseq::ops::recurrence));
  m.impl("recurrence_backward", TORCH_BOX(&fastseq::ops::recurrence_backward));
}
