// A stack on weights that were packed once, for serving: one op a call, and nothing about a weight
// is done twice.
#include <cstring>

#include "../kernels/cpu/capability.h"
#include "layer_call.h"
#include "team_run.h"

namespace fastseq::ops {
namespace {

// In front of each layer and direction. The layout behind it is that of one instruction set.
struct alignas(kAlign) Label {
  char what[8];
  int32_t capability, dtype;
  int64_t cell, input, hidden, state;
  int64_t panel_bytes;  // panels and biases; behind them b_hn as it is, of a GRU with biases
  int64_t bytes;        // of all, this included
};
static_assert(sizeof(Label) == kAlign);
constexpr char kWhat[8] = {'f', 's', '-', 'p', 'a', 'c', 'k', '1'};

int64_t size_of(DType dtype) {
  return dtype == DType::kDouble ? 8 : dtype == DType::kFloat ? 4 : 2;
}

// What of a call depends on the weights alone.
RecurrenceForward on(const Label& label, const char* packed) {
  RecurrenceForward a{};
  a.cell = static_cast<Cell>(label.cell);
  a.hidden = label.hidden;
  a.state = label.state;
  a.in.given = true;
  a.in.size = label.input;
  a.packed = packed;
  if (label.state != label.hidden) a.weight_hr = packed;
  const int64_t biases = label.bytes - label.panel_bytes - static_cast<int64_t>(sizeof(Label));
  if (a.cell == Cell::kGru && biases > 0) a.bias_hn = packed + label.panel_bytes;
  return a;
}

Tensor pack_layer(const Tensor& weight_ih_, const Tensor& weight_hh_,
                  const OptionalTensor& bias_ih_, const OptionalTensor& bias_hh_,
                  const OptionalTensor& weight_hr_, int64_t code) {
  const Cell cell = checked_cell(code);
  const Tensor weight_ih = dense(weight_ih_), weight_hh = dense(weight_hh_);
  const OptionalTensor bias_ih = dense(bias_ih_), bias_hh = dense(bias_hh_);
  const OptionalTensor weight_hr = dense(weight_hr_);
  FASTSEQ_CHECK(weight_ih.dim() == 2 && weight_hh.dim() == 2,
                "fastseq::pack_layer: weights should be 2-D, got ", shape_string(weight_ih),
                " and ", shape_string(weight_hh));
  const int64_t G = gates_of(cell), H = weight_hh.size(0) / G, R = weight_hh.size(1);
  const int64_t I = weight_ih.size(1);
  FASTSEQ_CHECK(H > 0 && R > 0, "fastseq::pack_layer: sizes should be positive");
  FASTSEQ_CHECK(weight_hr.has_value() == (R != H) && (!weight_hr || cell == Cell::kLstm),
                "fastseq::pack_layer: weight_hr belongs to an LSTM whose weight_hh is not [", G * H,
                ", ", H, "], got ", shape_string(weight_hh));
  check_shape(weight_hh, {G * H, R}, weight_hh, "weight_hh");
  check_shape(weight_ih, {G * H, I}, weight_hh, "weight_ih");
  if (bias_ih) check_shape(*bias_ih, {G * H}, weight_hh, "bias_ih");
  if (bias_hh) check_shape(*bias_hh, {G * H}, weight_hh, "bias_hh");
  if (weight_hr) check_shape(*weight_hr, {R, H}, weight_hh, "weight_hr");
  const DType dtype = dtype_of(weight_hh);

  Label label{};
  std::memcpy(label.what, kWhat, sizeof(kWhat));
  label.capability = static_cast<int32_t>(capability());
  label.dtype = static_cast<int32_t>(dtype);
  label.cell = code;
  label.input = I;
  label.hidden = H;
  label.state = R;
  RecurrenceForward a = on(label, nullptr);
  a.weight_hh = weight_hh.const_data_ptr();
  a.in.weight_ih = weight_ih.const_data_ptr();
  a.weight_hr = pointer(weight_hr);
  a.bias_ih = pointer(bias_ih);
  a.bias_hh = pointer(bias_hh);
  const RecurrenceKernels& kernels = recurrence_kernels(dtype);
  const int64_t tail = cell == Cell::kGru && bias_hh ? rounded(H * size_of(dtype)) : 0;
  label.panel_bytes = rounded(kernels.packed_bytes(a));
  label.bytes = static_cast<int64_t>(sizeof(Label)) + label.panel_bytes + tail;

  const Tensor made = new_tensor(weight_hh, {label.bytes}, ScalarType::Byte);
  char* const to = static_cast<char*>(made.mutable_data_ptr());
  std::memset(to, 0, static_cast<size_t>(label.bytes));
  std::memcpy(to, &label, sizeof(Label));
  kernels.pack(a, to + sizeof(Label));
  if (tail > 0) {
    const int64_t n = H * size_of(dtype);
    std::memcpy(to + sizeof(Label) + label.panel_bytes, static_cast<const char*>(a.bias_hh) + 2 * n,
                static_cast<size_t>(n));
  }
  return made;
}

// The packed layers of a stack, read one after the other.
class Layers {
 public:
  explicit Layers(const Tensor& packed)
      : at_(static_cast<const char*>(packed.const_data_ptr())), left_(packed.numel()) {}

  // The next one, which should be of these sizes.
  RecurrenceForward next(int64_t cell, int64_t input, int64_t hidden, int64_t state, DType dtype) {
    Label label;
    FASTSEQ_CHECK(left_ >= static_cast<int64_t>(sizeof(Label)),
                  "fastseq::packed_stack: the packed weights are those of fewer layers");
    std::memcpy(&label, at_, sizeof(Label));
    FASTSEQ_CHECK(std::memcmp(label.what, kWhat, sizeof(kWhat)) == 0 && label.bytes <= left_,
                  "fastseq::packed_stack: these bytes are no packed weights");
    FASTSEQ_CHECK(label.capability == static_cast<int32_t>(capability()),
                  "fastseq::packed_stack: the weights were packed for the instruction set ",
                  label.capability >= 0 && label.capability < kCapabilities
                      ? kCapabilityNames[label.capability]
                      : "?",
                  ", and this machine uses ", kCapabilityNames[static_cast<int>(capability())],
                  "; pack them here (fastseq.freeze)");
    FASTSEQ_CHECK(label.dtype == static_cast<int32_t>(dtype),
                  "fastseq::packed_stack: the input has another dtype than the packed weights");
    FASTSEQ_CHECK(label.cell == cell && label.input == input && label.hidden == hidden &&
                      label.state == state,
                  "fastseq::packed_stack: the packed weights are of cell ", label.cell, ", input ",
                  label.input, ", hidden ", label.hidden, ", state ", label.state, "; expected ",
                  cell, ", ", input, ", ", hidden, ", ", state);
    const RecurrenceForward found = on(label, at_ + sizeof(Label));
    at_ += label.bytes;
    left_ -= label.bytes;
    return found;
  }
  bool done() const { return left_ == 0; }

 private:
  const char* at_;
  int64_t left_;
};

// Rows of both directions side by side.
void join(char* to, const char* forward, const char* backward, int64_t rows, int64_t bytes) {
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + 2 * i * bytes, forward + i * bytes, static_cast<size_t>(bytes));
    std::memcpy(to + (2 * i + 1) * bytes, backward + i * bytes, static_cast<size_t>(bytes));
  }
}

std::tuple<Tensor, Tensor, Tensor> packed_stack(const Tensor& x_, const OptionalTensor& h0_,
                                                const OptionalTensor& c0_, const Tensor& packed_,
                                                const OptionalTensor& batch_sizes, int64_t code,
                                                int64_t hidden, int64_t state, int64_t layers,
                                                int64_t directions) {
  const bool lstm = checked_cell(code) == Cell::kLstm, padded = !batch_sizes;
  FASTSEQ_CHECK(x_.dim() == (padded ? 3 : 2), "fastseq::packed_stack: x should be ",
                padded ? "3" : "2", "-D, got ", shape_string(x_));
  FASTSEQ_CHECK(layers > 0 && (directions == 1 || directions == 2),
                "fastseq::packed_stack: expected a layer at least, in 1 or 2 directions, got ",
                layers, " and ", directions);
  const int64_t last = x_.dim() - 1;
  const Tensor x = x_.stride(last) == 1 || x_.size(last) == 1 ? x_ : dense(x_);
  const Tensor packed = dense(packed_);
  FASTSEQ_CHECK(packed.dim() == 1 && packed.scalar_type() == ScalarType::Byte && packed.is_cpu(),
                "fastseq::packed_stack: packed weights should be 1-D bytes on the CPU");
  int64_t B = padded ? x.size(1) : 0;
  if (!padded) {
    FASTSEQ_CHECK(batch_sizes->is_cpu() && batch_sizes->dim() == 1 && batch_sizes->numel() > 0 &&
                      batch_sizes->scalar_type() == ScalarType::Long,
                  "fastseq::packed_stack: batch_sizes should be 1-D int64 on the CPU, not empty");
    B = dense(*batch_sizes).const_data_ptr<int64_t>()[0];
  }
  const OptionalTensor h0 = dense(h0_), c0 = dense(c0_);
  const int64_t LD = layers * directions, DR = directions * state;
  if (h0) check_shape(*h0, {LD, B, state}, x, "h0");
  if (c0) check_shape(*c0, {LD, B, hidden}, x, "c0");
  FASTSEQ_CHECK(!c0 || lstm, "fastseq::packed_stack: c0 belongs to LSTM");
  const Steps ahead(x, batch_sizes, B, false), back(x, batch_sizes, B, true);
  FASTSEQ_CHECK(ahead.seq.steps > 0, "fastseq::packed_stack: there should be a step at least");

  const DType dtype = dtype_of(x);
  const int64_t bytes = size_of(dtype), rows = ahead.seq.rows();
  const Tensor y = new_tensor(x, ahead.shape(DR));
  const Tensor h_n = new_tensor(x, {LD, B, state});
  const Tensor c_n =
      new_tensor(x, lstm ? std::vector<int64_t>{LD, B, hidden} : std::vector<int64_t>{0});
  advise_huge_pages(y);
  // What a layer leaves for the next one, by turns, and what its directions leave to be joined.
  const int64_t between = rounded(layers > 1 ? rows * DR * bytes : 0);
  const int64_t apart = rounded(directions > 1 ? rows * state * bytes : 0);
  const Workspace scratch(2 * between + 2 * apart + kAlign);
  char* const sides = scratch.data() + 2 * between;

  Layers weights(packed);
  LayerInput in{
      true,   x.const_data_ptr(), x.size(last), padded ? x.stride(0) : 0, x.stride(padded ? 1 : 0),
      nullptr};
  for (int64_t l = 0; l < layers; ++l) {
    char* const out = l + 1 < layers ? scratch.data() + l % 2 * between
                                     : static_cast<char*>(y.mutable_data_ptr());
    for (int64_t d = 0; d < directions; ++d) {
      RecurrenceForward a = weights.next(code, in.size, hidden, state, dtype);
      a.seq = d ? back.seq : ahead.seq;
      a.in = in;
      const auto part = [&](const Tensor& t, int64_t width) {
        return static_cast<char*>(t.mutable_data_ptr()) + (l * directions + d) * B * width * bytes;
      };
      if (h0) a.h0 = part(*h0, state);
      if (c0) a.c0 = part(*c0, hidden);
      a.h_n = part(h_n, state);
      if (lstm) a.c_n = part(c_n, hidden);
      a.y = directions > 1 ? sides + d * apart : out;
      if (B > 0) run_team(forward_kernel(dtype), a);
    }
    if (directions > 1) join(out, sides, sides + apart, rows, state * bytes);
    in = {true, out, DR, padded ? B * DR : 0, DR, nullptr};
  }
  FASTSEQ_CHECK(weights.done(),
                "fastseq::packed_stack: the packed weights are those of more layers");
  return {y, h_n, c_n};
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("pack_layer", TORCH_BOX(&fastseq::ops::pack_layer));
  m.impl("packed_stack", TORCH_BOX(&fastseq::ops::packed_stack));
}
