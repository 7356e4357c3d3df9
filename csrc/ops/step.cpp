// One step of a cell on the CPU, for streams and for the modules of single cells.
#include "../kernels/cpu/step.h"

#include <cstring>

#include "layer_call.h"
#include "team_run.h"

namespace fastseq::ops {
namespace {

// Whether a tensor is dense, of these sizes (columns < 0: of one dimension), and like another.
bool fits(const Tensor& t, int64_t rows, int64_t columns, ScalarType dtype) {
  if (columns < 0 ? t.dim() != 1 : t.dim() != 2 || t.size(1) != columns) return false;
  return t.size(0) == rows && t.scalar_type() == dtype && t.is_cpu() && t.is_contiguous();
}

// The arguments, checked. Where they are dense and fit, as almost always, that takes a few
// comparisons and copies nothing; a microsecond more would be a tenth of the step.
struct StepCall {
  OptionalTensor kept[7];  // dense copies of those that are not
  StepArguments args{};
  DType dtype;
  int64_t element_size;

  StepCall(const Tensor& x, const Tensor& h, const OptionalTensor& c, const Tensor& weight_ih,
           const Tensor& weight_hh, const OptionalTensor& bias_ih, const OptionalTensor& bias_hh,
           int64_t code)
      : dtype(dtype_of(h)), element_size(static_cast<int64_t>(h.element_size())) {
    const Cell cell = checked_cell(code);
    FASTSEQ_CHECK(x.dim() == 2 && h.dim() == 2, "fastseq::step: x and h should be 2-D, got ",
                  shape_string(x), " and ", shape_string(h));
    const int64_t B = h.size(0), H = h.size(1), I = x.size(1), GH = gates_of(cell) * H;
    const ScalarType type = h.scalar_type();
    const bool easy = fits(x, B, I, type) && fits(h, B, H, type) && (!c || fits(*c, B, H, type)) &&
                      c.has_value() == (cell == Cell::kLstm) && fits(weight_ih, GH, I, type) &&
                      fits(weight_hh, GH, H, type) && (!bias_ih || fits(*bias_ih, GH, -1, type)) &&
                      (!bias_hh || fits(*bias_hh, GH, -1, type)) && B > 0 && H > 0;
    if (!easy) check(cell, x, h, c, weight_ih, weight_hh, bias_ih, bias_hh);
    int used = 0;
    const auto data = [&](const Tensor& t) {
      if (easy || t.is_contiguous()) return t.const_data_ptr();
      kept[used] = torch::stable::contiguous(t);
      return kept[used++]->const_data_ptr();
    };
    const auto data_or_null = [&](const OptionalTensor& t) { return t ? data(*t) : nullptr; };
    args.cell = cell;
    args.batch = B;
    args.input = args.x_row = I;
    args.hidden = H;
    args.x = data(x);
    args.h = data(h);
    args.c = data_or_null(c);
    args.weight_ih = data(weight_ih);
    args.weight_hh = data(weight_hh);
    args.bias_ih = data_or_null(bias_ih);
    args.bias_hh = data_or_null(bias_hh);
  }

  // Raises where the arguments do not fit together.
  static void check(Cell cell, const Tensor& x, const Tensor& h, const OptionalTensor& c,
                    const Tensor& weight_ih, const Tensor& weight_hh, const OptionalTensor& bias_ih,
                    const OptionalTensor& bias_hh) {
    const Sizes n(cell, h, c, weight_hh, std::nullopt);
    const int64_t I = x.size(1), GH = n.gates * n.hidden;
    check_shape(x, {n.batch, I}, h, "x");
    check_shape(weight_ih, {GH, I}, h, "weight_ih");
    if (bias_ih) check_shape(*bias_ih, {GH}, h, "bias_ih");
    if (bias_hh) check_shape(*bias_hh, {GH}, h, "bias_hh");
  }

  // Writes the next states.
  void run(void* h_next, void* c_next) {
    args.h_next = h_next;
    args.c_next = c_next;
    if (args.batch <= kMostStepRows) return step_kernel(dtype)(args);
    RecurrenceForward loop{};
    loop.cell = args.cell;
    loop.seq.steps = 1;
    loop.seq.batch = args.batch;
    loop.hidden = loop.state = args.hidden;
    loop.h0 = args.h;
    loop.c0 = args.c;
    loop.weight_hh = args.weight_hh;
    loop.in = {true, args.x, args.input, args.batch * args.input, args.input, args.weight_ih};
    loop.bias_ih = args.bias_ih;
    loop.bias_hh = args.bias_hh;
    if (args.bias_hh && args.cell == Cell::kGru) {
      loop.bias_hn = static_cast<const char*>(args.bias_hh) + 2 * args.hidden * element_size;
    }
    const Workspace y(args.batch * args.hidden * element_size);
    loop.y = y.data();
    loop.h_n = h_next;
    loop.c_n = c_next;
    run_team(forward_kernel(dtype), loop);
  }
};

std::tuple<Tensor, Tensor> step(const Tensor& x, const Tensor& h, const OptionalTensor& c,
                                const Tensor& weight_ih, const Tensor& weight_hh,
                                const OptionalTensor& bias_ih, const OptionalTensor& bias_hh,
                                int64_t cell) {
  StepCall call(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, cell);
  const std::vector<int64_t> shape{call.args.batch, call.args.hidden};
  Tensor h_next = new_tensor(h, shape);
  Tensor c_next = new_tensor(h, c ? shape : std::vector<int64_t>{0});
  call.run(h_next.mutable_data_ptr(), c ? c_next.mutable_data_ptr() : nullptr);
  return {h_next, c_next};
}

void step_in_place(const Tensor& x, const Tensor& h, const OptionalTensor& c,
                   const Tensor& weight_ih, const Tensor& weight_hh, const OptionalTensor& bias_ih,
                   const OptionalTensor& bias_hh, int64_t cell) {
  FASTSEQ_CHECK(h.is_contiguous() && (!c || c->is_contiguous()),
                "fastseq::step_: states should be contiguous");
  StepCall call(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, cell);
  const int64_t bytes = call.args.batch * call.args.hidden * call.element_size;
  const Workspace next(2 * rounded(bytes));
  char* const c_next = next.data() + rounded(bytes);
  call.run(next.data(), c ? c_next : nullptr);
  std::memcpy(h.mutable_data_ptr(), next.data(), bytes);
  if (c) std::memcpy(c->mutable_data_ptr(), c_next, bytes);
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("step", TORCH_BOX(&fastseq::ops::step));
  m.impl("step_", TORCH_BOX(&fastseq::ops::step_in_place));
}
