// The recurrence on CUDA with all steps in one launch, on the current stream, without a word to
// the host, so that a graph can capture it.
//
// Built with FASTSEQ_SIMT it registers the same code as CPU ops of the library fastseq_simt.
#include "../kernels/cuda/persistent.h"
#include "on_device.h"
#include "recurrence_call.h"
#include "recurrence_schema.h"

namespace fastseq::ops {
namespace {

// What a launch has on the device beside its tensors, for as long as the stream's work takes.
struct Memory {
  Memory(const Tensor& like, const cuda::PersistentPlan& plan)
      : table(new_tensor(like, {plan.table}, ScalarType::Int)),
        mailbox(new_tensor(like, {plan.mailbox.bytes()}, ScalarType::Byte)) {}
  Tensor table;  // where a kernel reads what it cannot have from the host
  Tensor mailbox;
};

// Of both directions of a layer every tensor of rows, states and weights has a dimension of 2 in
// front, and W_hh says whether there is one.
int64_t directions_of(const Tensor& weight_hh) { return weight_hh.dim() == 3 ? 2 : 1; }

// How long the rows of a padded batch are, and where their states are replaced: on its device, and
// for both directions alike.
class Masks {
 public:
  Masks(const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& reset_h,
        const OptionalTensor& reset_c)
      : lengths_(dense(lengths)),
        reset_(dense(reset)),
        reset_h_(dense(reset_h)),
        reset_c_(dense(reset_c)) {}

  // Checks them, and adds them to the arguments of a call.
  template <class Arguments>
  void join(Arguments& args, const Sizes& sizes, const Tensor& like) const {
    const int64_t T = args.seq.steps, B = sizes.batch;
    FASTSEQ_CHECK(!args.seq.batch_sizes || (!lengths_ && !reset_),
                  "fastseq::recurrence: a packed batch takes neither lengths nor resets; pass a "
                  "padded one");
    FASTSEQ_CHECK(!lengths_ || (lengths_->dim() == 1 && lengths_->size(0) == B &&
                                lengths_->scalar_type() == ScalarType::Long),
                  "fastseq::recurrence: lengths should be a 1-D int64 tensor of ", B, " numbers");
    FASTSEQ_CHECK(!reset_ || (reset_->dim() == 2 && reset_->size(0) == T && reset_->size(1) == B &&
                              reset_->scalar_type() == ScalarType::Bool),
                  "fastseq::recurrence: reset should be a bool tensor of shape [", T, ", ", B, "]");
    for (const OptionalTensor* t : {&lengths_, &reset_}) {
      FASTSEQ_CHECK(!*t || (*t)->device() == like.device(),
                    "fastseq::recurrence: lengths and reset should be on the device of the input");
    }
    if (reset_h_) check_shape(*reset_h_, sizes.states(sizes.state), like, "reset_h");
    FASTSEQ_CHECK(!reset_c_ || args.cell == Cell::kLstm,
                  "fastseq::recurrence: reset_c belongs to LSTM");
    if (reset_c_) check_shape(*reset_c_, sizes.states(sizes.hidden), like, "reset_c");
    args.seq.lengths = static_cast<const int64_t*>(pointer(lengths_));
    args.extra.reset = static_cast<const bool*>(pointer(reset_));
    args.extra.reset_h = pointer(reset_h_);
    args.extra.reset_c = pointer(reset_c_);
  }

  bool replaces_h() const { return reset_ && reset_h_; }
  bool replaces_c() const { return reset_ && reset_c_; }

 private:
  OptionalTensor lengths_, reset_, reset_h_, reset_c_;
};

// What the recurrence makes of a row without a step.
void hand_on(Tensor& to, const OptionalTensor& from) {
  if (from) {
    torch::stable::copy_(to, *from);
  } else {
    torch::stable::zero_(to);
  }
}

// The gradients of what replaced the states, which kernels add up in the sum type.
struct ResetGradient {
  ResetGradient(const Tensor& like, bool wanted, const std::vector<int64_t>& shape)
      : made(new_tensor(like, wanted ? shape : std::vector<int64_t>{0})),
        sum(made.scalar_type() == sum_type(like) || !wanted
                ? made
                : new_tensor(like, shape, sum_type(like))) {
    torch::stable::zero_(sum);
  }
  void* pointer() { return made.numel() ? sum.mutable_data_ptr() : nullptr; }
  Tensor result() {
    if (made.scalar_type() != sum.scalar_type()) torch::stable::copy_(made, sum);
    return made;
  }

  Tensor made, sum;
};

ForwardResult persistent(const Tensor& pre, const Tensor& h0, const OptionalTensor& c0,
                         const Tensor& weight_hh, const OptionalTensor& bias_hn,
                         const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
                         const OptionalTensor& lengths, const OptionalTensor& reset,
                         const OptionalTensor& reset_h, const OptionalTensor& reset_c, int64_t cell,
                         bool reverse, bool save) {
  ForwardCall call(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse, save,
                   directions_of(weight_hh));
  const Masks masks(lengths, reset, reset_h, reset_c);
  masks.join(call.args, call.sizes, call.pre);
  const OnDevice on(call.pre);
  const DType dtype = dtype_of(call.pre);
  cuda::PersistentPlan plan{};
  check(cuda::persistent_plan(dtype, call.args, plan));
  const Memory memory(call.pre, plan);
  if (lengths) {
    torch::stable::zero_(call.out.y);
    torch::stable::zero_(call.out.cells);
  }
  if (plan.stepless) {
    hand_on(call.out.h_n, call.h0);
    if (call.c0) hand_on(call.out.c_n, call.c0);
  }
  check(cuda::persistent_forward(dtype, call.args, plan, memory.table.mutable_data_ptr<int32_t>(),
                                 memory.mailbox.mutable_data_ptr(), on.stream));
  return call.result();
}

using PersistentBackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

PersistentBackwardResult persistent_backward(
    const OptionalTensor& grad_y, const OptionalTensor& grad_h_n, const OptionalTensor& grad_c_n,
    const OptionalTensor& grad_gates, const OptionalTensor& grad_cells, const Tensor& y,
    const Tensor& gates, const Tensor& cells, const Tensor& h0, const OptionalTensor& c0,
    const Tensor& weight_hh, const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& reset_h,
    const OptionalTensor& reset_c, int64_t cell, bool reverse) {
  BackwardCall call(grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, y, gates, cells, h0, c0,
                    weight_hh, weight_hr, batch_sizes, cell, reverse, std::nullopt,
                    directions_of(weight_hh));
  const Masks masks(lengths, reset, reset_h, reset_c);
  masks.join(call.args, call.sizes, call.y);
  const OnDevice on(call.y);
  const DType dtype = dtype_of(call.y);
  cuda::PersistentPlan plan{};
  check(cuda::persistent_plan(dtype, call.args, plan));
  const Memory memory(call.y, plan);
  const std::vector<int64_t> states = call.sizes.states(call.sizes.hidden);
  ResetGradient grad_reset_h(call.y, masks.replaces_h(), states);
  ResetGradient grad_reset_c(call.y, masks.replaces_c(), states);
  call.args.grad_reset_h = grad_reset_h.pointer();
  call.args.grad_reset_c = grad_reset_c.pointer();
  if (lengths) {
    torch::stable::zero_(call.grad_pre);
    torch::stable::zero_(call.grad_aux);
  }
  if (plan.stepless) {
    hand_on(call.grad_h0, call.grad_h_n);
    if (call.c0) hand_on(call.grad_c0, call.grad_c_n);
  }
  check(cuda::persistent_backward(dtype, call.args, plan, memory.table.mutable_data_ptr<int32_t>(),
                                  memory.mailbox.mutable_data_ptr(), on.stream));
  return {call.grad_pre, call.grad_aux,         call.grad_h0,
          call.grad_c0,  grad_reset_h.result(), grad_reset_c.result()};
}

}  // namespace
}  // namespace fastseq::ops

// Whether the current device has room for the kernel of such layers, of so many directions at once;
// a plain function, which neither a compiler nor a mode of dispatch follows. itemsize: bytes of a
// number, 2 or 4.
extern "C" __attribute__((visibility("default"))) int fastseq_persistent_room(
    int cell, int itemsize, int64_t hidden, int64_t batch, int64_t directions) {
  const auto dtype = itemsize == 2 ? fastseq::DType::kHalf : fastseq::DType::kFloat;
  return !fastseq::cuda::persistent_room(dtype, static_cast<fastseq::Cell>(cell), hidden, batch,
                                         directions);
}

#if defined(FASTSEQ_SIMT)
STABLE_TORCH_LIBRARY_FRAGMENT(fastseq_simt, m) {
  m.def(fastseq::ops::kPersistentSchema);
  m.def(fastseq::ops::kPersistentBackwardSchema);
}
STABLE_TORCH_LIBRARY_IMPL(fastseq_simt, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(fastseq, CUDA, m) {
#endif
  m.impl("recurrence_persistent", TORCH_BOX(&fastseq::ops::persistent));
  m.impl("recurrence_persistent_backward", TORCH_BOX(&fastseq::ops::persistent_backward));
}
