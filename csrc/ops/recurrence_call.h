// What the CPU and the CUDA op of the recurrence share: argument checks, sizes, and the outputs'
// allocation.
#pragma once

#include <algorithm>

#include "../kernels/cells.h"
#include "memory.h"

namespace fastseq::ops {

inline void check_shape(const Tensor& t, const std::vector<int64_t>& shape, const Tensor& like,
                        const char* name) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; same && i < shape.size(); ++i) same = t.size(i) == shape[i];
  if (!same) {
    std::string expected = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
      expected += (i ? ", " : "") + std::to_string(shape[i]);
    }
    FASTSEQ_CHECK(false, "fastseq::recurrence: ", name, " should have shape ", expected, "], got ",
                  shape_string(t));
  }
  FASTSEQ_CHECK(t.scalar_type() == like.scalar_type(), "fastseq::recurrence: ", name,
                " should have the dtype of the input");
  FASTSEQ_CHECK(t.device() == like.device(), "fastseq::recurrence: ", name,
                " should be on the device of the input");
}

// Sizes of a tensor of both directions, which has a dimension of 2 in front, or of one alone.
inline std::vector<int64_t> each(int64_t directions, std::vector<int64_t> shape) {
  if (directions > 1) shape.insert(shape.begin(), directions);
  return shape;
}

inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}
inline OptionalTensor dense(const OptionalTensor& t) {
  return t ? OptionalTensor(dense(*t)) : std::nullopt;
}
inline const void* pointer(const OptionalTensor& t) { return t ? t->const_data_ptr() : nullptr; }

// A call's steps and rows; owns what Sequence points to.
struct Steps {
  std::vector<int64_t> batch_sizes, offsets, order;
  Sequence seq{};

  // sizes: of a packed batch. lengths: of the rows of a padded one. directions: of `rows`.
  Steps(const Tensor& rows, const OptionalTensor& sizes, int64_t batch, bool reverse,
        const OptionalTensor& lengths = std::nullopt, int64_t directions = 1) {
    seq.batch = batch;
    seq.reverse = reverse;
    seq.directions = directions;
    const int64_t lead = directions - 1;  // dimensions in front
    const char* const both = lead ? "2, " : "";
    if (!sizes) {
      FASTSEQ_CHECK(rows.dim() == 3 + lead && rows.size(1 + lead) == batch,
                    "fastseq::recurrence: expected a tensor of shape [", both, "T, ", batch,
                    ", ...], got ", shape_string(rows));
      seq.steps = rows.size(lead);
      if (lengths) sort_by(*lengths);
      return;
    }
    FASTSEQ_CHECK(!lengths, "fastseq::recurrence: a packed batch has its lengths already");
    FASTSEQ_CHECK(sizes->is_cpu() && sizes->dim() == 1 && sizes->scalar_type() == ScalarType::Long,
                  "fastseq::recurrence: batch_sizes should be a 1-D int64 tensor on the CPU");
    const Tensor own = dense(*sizes);
    const int64_t* const p = own.const_data_ptr<int64_t>();
    batch_sizes.assign(p, p + own.numel());
    offsets.push_back(0);
    int64_t before = batch;
    for (const int64_t n : batch_sizes) {
      FASTSEQ_CHECK(n > 0 && n <= before,
                    "fastseq::recurrence: batch_sizes should be positive, not increase, and start "
                    "at the batch size ",
                    batch, " or below; got ", n, " after ", before);
      before = n;
      offsets.push_back(offsets.back() + n);
    }
    FASTSEQ_CHECK(rows.dim() == 2 + lead && rows.size(lead) == offsets.back(),
                  "fastseq::recurrence: expected packed rows of shape [", both, offsets.back(),
                  ", ...], the sum of batch_sizes, got ", shape_string(rows));
    seq.steps = static_cast<int64_t>(batch_sizes.size());
    seq.batch_sizes = batch_sizes.data();
    seq.offsets = offsets.data();
  }

  // [T, B, n] or [N, n], of each direction
  std::vector<int64_t> shape(int64_t n) const {
    if (seq.offsets && !seq.order) return each(seq.directions, {seq.rows(), n});
    return each(seq.directions, {seq.steps, seq.batch, n});
  }
  int64_t rows_in_memory() const {
    return seq.directions * (seq.order ? seq.steps * seq.batch : seq.rows());
  }

 private:
  // Rows in the order of their lengths, longest first, so that those of a step are the first ones.
  void sort_by(const Tensor& lengths) {
    FASTSEQ_CHECK(lengths.is_cpu() && lengths.dim() == 1 && lengths.size(0) == seq.batch &&
                      lengths.scalar_type() == ScalarType::Long,
                  "fastseq::recurrence: lengths should be a 1-D int64 tensor of ", seq.batch,
                  " numbers, got shape ", shape_string(lengths));
    const Tensor own = dense(lengths);
    const int64_t* const length = own.const_data_ptr<int64_t>();
    batch_sizes.assign(seq.steps, 0);
    order.resize(seq.batch + 1);  // never null
    for (int64_t b = 0; b < seq.batch; ++b) {
      FASTSEQ_CHECK(length[b] >= 0 && length[b] <= seq.steps,
                    "fastseq::recurrence: lengths should be between 0 and the ", seq.steps,
                    " steps of the input, got ", length[b], " for row ", b);
      if (length[b] > 0) ++batch_sizes[length[b] - 1];
      order[b] = b;
    }
    std::stable_sort(order.begin(), order.end() - 1,
                     [&](int64_t i, int64_t j) { return length[i] > length[j]; });
    for (int64_t t = seq.steps - 2; t >= 0; --t) batch_sizes[t] += batch_sizes[t + 1];
    offsets.assign(1, 0);
    for (const int64_t n : batch_sizes) offsets.push_back(offsets.back() + n);
    seq.batch_sizes = batch_sizes.data();
    seq.offsets = offsets.data();
    seq.order = order.data();
  }
};

inline Cell checked_cell(int64_t code) {
  FASTSEQ_CHECK(code >= 0 && code <= 3,
                "fastseq::recurrence: cell should be 0 (LSTM), 1 (GRU), "
                "2 (tanh RNN) or 3 (ReLU RNN), got ",
                code);
  return static_cast<Cell>(code);
}

struct Sizes {
  int64_t batch, hidden, state, gates, cached, directions;

  Sizes(Cell cell, const Tensor& h0, const OptionalTensor& c0, const Tensor& weight_hh,
        const OptionalTensor& weight_hr, int64_t of = 1)
      : directions(of) {
    const int64_t lead = directions - 1;
    FASTSEQ_CHECK(h0.dim() == 2 + lead && weight_hh.dim() == 2 + lead,
                  "fastseq::recurrence: h0 and weight_hh should be ", lead ? 3 : 2, "-D, got ",
                  shape_string(h0), " and ", shape_string(weight_hh));
    gates = gates_of(cell);
    cached = cached_of(cell);
    batch = h0.size(lead);
    state = h0.size(1 + lead);
    hidden = weight_hh.size(lead) / gates;
    FASTSEQ_CHECK(state > 0 && hidden > 0, "fastseq::recurrence: sizes should be positive");
    if (lead) check_shape(h0, states(state), h0, "h0");
    check_shape(weight_hh, each(directions, {gates * hidden, state}), h0, "weight_hh");
    FASTSEQ_CHECK((cell == Cell::kLstm) == c0.has_value(),
                  "fastseq::recurrence: c0 belongs to LSTM, and LSTM needs it");
    if (c0) check_shape(*c0, states(hidden), h0, "c0");
    FASTSEQ_CHECK(!weight_hr || cell == Cell::kLstm,
                  "fastseq::recurrence: weight_hr belongs to LSTM");
    if (weight_hr) {
      check_shape(*weight_hr, each(directions, {state, hidden}), h0, "weight_hr");
    } else {
      FASTSEQ_CHECK(state == hidden, "fastseq::recurrence: without weight_hr, h0 should have ",
                    hidden, " columns, got ", state);
    }
  }

  // [B, n], of each direction
  std::vector<int64_t> states(int64_t n) const { return each(directions, {batch, n}); }
};

using ForwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// Allocates what forward returns.
struct ForwardOutputs {
  Tensor y, h_n, c_n, gates, cells;

  ForwardOutputs(const Tensor& like, const Steps& steps, const Sizes& sizes, bool lstm, bool save) {
    const int64_t H = sizes.hidden, R = sizes.state;
    const std::vector<int64_t> none{0};
    y = new_tensor(like, steps.shape(R));
    h_n = new_tensor(like, sizes.states(R));
    c_n = new_tensor(like, lstm ? sizes.states(H) : none);
    gates = new_internal(like, save && sizes.cached ? steps.shape(sizes.cached * H) : none);
    cells = new_internal(like, save && lstm ? steps.shape(H) : none, sum_type(like));
    if (like.is_cpu()) advise_huge_pages(y);
  }

  void fill(RecurrenceForward& args) const {
    const auto pointer_or_null = [](const Tensor& t) {
      return t.numel() ? t.mutable_data_ptr() : nullptr;
    };
    args.y = y.mutable_data_ptr();
    args.h_n = h_n.mutable_data_ptr();
    args.c_n = pointer_or_null(c_n);
    args.gates = pointer_or_null(gates);
    args.cells = pointer_or_null(cells);
  }

  ForwardResult result() const { return {y, h_n, c_n, gates, cells}; }
};
using BackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Checks every argument, allocates every output, and fills the kernel's argument block. Keeps the
// dense copies alive for as long as the block is in use.
struct ForwardCall {
  Tensor pre, h0, weight_hh;
  OptionalTensor c0, bias_hn, weight_hr;
  Sizes sizes;
  Steps steps;
  ForwardOutputs out;
  RecurrenceForward args{};

  ForwardCall(const Tensor& pre_, const Tensor& h0_, const OptionalTensor& c0_,
              const Tensor& weight_hh_, const OptionalTensor& bias_hn_,
              const OptionalTensor& weight_hr_, const OptionalTensor& batch_sizes, int64_t code,
              bool reverse, bool save, int64_t directions = 1)
      : pre(dense(pre_)),
        h0(dense(h0_)),
        weight_hh(dense(weight_hh_)),
        c0(dense(c0_)),
        bias_hn(dense(bias_hn_)),
        weight_hr(dense(weight_hr_)),
        sizes(checked_cell(code), h0, c0, weight_hh, weight_hr, directions),
        steps(pre, batch_sizes, sizes.batch, reverse, std::nullopt, directions),
        out(pre, steps, sizes, checked_cell(code) == Cell::kLstm, save) {
    const Cell cell = checked_cell(code);
    const int64_t H = sizes.hidden;
    check_shape(pre, steps.shape(sizes.gates * H), h0, "pre");
    if (bias_hn) {
      FASTSEQ_CHECK(cell == Cell::kGru, "fastseq::recurrence: bias_hn belongs to GRU");
      check_shape(*bias_hn, each(directions, {H}), h0, "bias_hn");
    }
    args.cell = cell;
    args.seq = steps.seq;
    args.hidden = H;
    args.state = sizes.state;
    args.pre = pre.const_data_ptr();
    args.h0 = h0.const_data_ptr();
    args.c0 = pointer(c0);
    args.weight_hh = weight_hh.const_data_ptr();
    args.bias_hn = pointer(bias_hn);
    args.weight_hr = pointer(weight_hr);
    out.fill(args);
  }

  ForwardResult result() const { return out.result(); }
};

struct BackwardCall {
  OptionalTensor grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells;
  Tensor y, gates, cells, h0, weight_hh;
  OptionalTensor c0, weight_hr;
  Sizes sizes;
  Steps steps;
  Tensor grad_pre, grad_aux, grad_h0, grad_c0;
  RecurrenceBackward args{};

  BackwardCall(const OptionalTensor& grad_y_, const OptionalTensor& grad_h_n_,
               const OptionalTensor& grad_c_n_, const OptionalTensor& grad_gates_,
               const OptionalTensor& grad_cells_, const Tensor& y_, const Tensor& gates_,
               const Tensor& cells_, const Tensor& h0_, const OptionalTensor& c0_,
               const Tensor& weight_hh_, const OptionalTensor& weight_hr_,
               const OptionalTensor& batch_sizes, int64_t code, bool reverse,
               const OptionalTensor& lengths = std::nullopt, int64_t directions = 1,
               bool wants_states = true)
      : grad_y(dense(grad_y_)),
        grad_h_n(dense(grad_h_n_)),
        grad_c_n(dense(grad_c_n_)),
        grad_gates(dense(grad_gates_)),
        grad_cells(dense(grad_cells_)),
        y(dense(y_)),
        gates(dense(gates_)),
        cells(dense(cells_)),
        h0(dense(h0_)),
        weight_hh(dense(weight_hh_)),
        c0(dense(c0_)),
        weight_hr(dense(weight_hr_)),
        sizes(checked_cell(code), h0, c0, weight_hh, weight_hr, directions),
        steps(y, batch_sizes, sizes.batch, reverse, lengths, directions) {
    const Cell cell = checked_cell(code);
    const int64_t H = sizes.hidden, R = sizes.state;
    const bool lstm = cell == Cell::kLstm;
    check_shape(y, steps.shape(R), h0, "y");
    if (sizes.cached) check_shape(gates, steps.shape(sizes.cached * H), h0, "gates");
    if (lstm) check_cells(cells, "cells");
    if (grad_y) check_shape(*grad_y, steps.shape(R), h0, "grad_y");
    if (grad_h_n) check_shape(*grad_h_n, sizes.states(R), h0, "grad_h_n");
    if (!lstm) grad_c_n = grad_cells = std::nullopt;
    if (!sizes.cached) grad_gates = std::nullopt;
    if (grad_c_n) check_shape(*grad_c_n, sizes.states(H), h0, "grad_c_n");
    if (grad_gates) check_shape(*grad_gates, steps.shape(sizes.cached * H), h0, "grad_gates");
    if (grad_cells) check_cells(*grad_cells, "grad_cells");

    std::vector<int64_t> aux{0};
    if (cell == Cell::kGru) aux = steps.shape(H);
    if (weight_hr) aux = steps.shape(R);
    grad_pre = new_internal(y, steps.shape(sizes.gates * H));
    grad_aux = new_internal(y, aux);
    const auto make = [&](bool yes, int64_t width) {
      return new_tensor(y, yes ? sizes.states(width) : std::vector<int64_t>{0});
    };
    grad_h0 = make(wants_states, R);
    grad_c0 = make(wants_states && lstm, H);
    args = {cell,
            steps.seq,
            H,
            R,
            pointer(grad_y),
            pointer(grad_h_n),
            pointer(grad_c_n),
            pointer(grad_gates),
            pointer(grad_cells),
            y.const_data_ptr(),
            gates.const_data_ptr(),
            cells.const_data_ptr(),
            h0.const_data_ptr(),
            pointer(c0),
            weight_hh.const_data_ptr(),
            pointer(weight_hr),
            grad_pre.mutable_data_ptr(),
            grad_aux.mutable_data_ptr(),
            wants_states ? grad_h0.mutable_data_ptr() : nullptr,
            wants_states && lstm ? grad_c0.mutable_data_ptr() : nullptr};
  }

  BackwardResult result() const { return {grad_pre, grad_aux, grad_h0, grad_c0}; }

 private:
  void check_cells(const Tensor& t, const char* name) const {
    FASTSEQ_CHECK(
        t.numel() == steps.rows_in_memory() * sizes.hidden && t.scalar_type() == sum_type(h0),
        "fastseq::recurrence_backward: ", name, " should be as forward returned it");
  }
};

}  // namespace fastseq::ops
