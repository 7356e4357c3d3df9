"""Mutants of the recurrences' kernels and of the ops around them."""

from .mutant import Mutant

CPU = "csrc/kernels/cpu"
CELLS = "csrc/kernels/cells.h"
TYPES = "csrc/kernels/types.h"
FORWARD = f"{CPU}/recurrence_forward.cpp"
FORWARD_ROWS = f"{CPU}/forward_rows.h"
BACKWARD = f"{CPU}/recurrence_backward.cpp"
OPTIONS = f"{CPU}/forward_options.h"
OPTIONS_BACK = f"{CPU}/backward_options.h"
GRADIENTS = f"{CPU}/layer_gradients.h"

PLAIN = "test_layer.py::test_against_the_reference"
SIZES = "test_layer.py::test_against_the_reference_at_odd_sizes"
FEATURE = "test_extended_layer.py::test_feature"

KERNELS_RECURRENCES = [
    # ---- gradients of the initial states, and single rows
    Mutant(
        name="a single step packs no W_hh even where initial states want their gradients",
        file=f"{CPU}/backward_scratch.h",
        old="return a.seq.steps > 1 || a.grad_h0 || a.grad_reset_h;",
        new="return a.seq.steps > 1 || a.grad_reset_h;",
        tests=(f"{PLAIN}[all-forwards-one step-GRU-R=H]",),
    ),
    Mutant(
        name="one row's second panel is the first one again",
        file=f"{CPU}/tiles.h",
        old="panel + p * size + v * L * D::kPair",
        new="panel + v * L * D::kPair",
        tests=("test_invariance.py::test_layers[False-GRU-torch.float32]",),
    ),
    # ---- cells
    Mutant(
        name="LSTM: the gradient of f lacks its slope",
        file=CELLS,
        old="dx[1] = (d_c * c_prev + extra[1]) * f * (1 - f);",
        new="dx[1] = (d_c * c_prev + extra[1]) * f;",
        tests=(f"{PLAIN}[all-forwards-padded-LSTM-R=H]",),
    ),
    Mutant(
        name="LSTM: the slope of tanh(c) is taken at c",
        file=CELLS,
        old="1 - tc * tc",
        new="1 - c * c",
        tests=(f"{PLAIN}[all-forwards-padded-LSTM-R=H]",),
    ),
    Mutant(
        name="LSTM: the gradient of the activations themselves is left out",
        file=CELLS,
        old="dx[3] = (dh * tc + extra[3]) * o * (1 - o);",
        new="dx[3] = (dh * tc) * o * (1 - o);",
        tests=(f"{PLAIN}[gates-forwards-padded-LSTM-R=H]",),
    ),
    Mutant(
        name="GRU: z counts the other way round",
        file=CELLS,
        old="h = n + z * (h_prev - n);",
        new="h = h_prev + z * (n - h_prev);",
        tests=(f"{PLAIN}[all-forwards-padded-GRU-R=H]",),
    ),
    Mutant(
        name="GRU: h' passes no gradient on by itself",
        file=CELLS,
        old="dh_direct = dh * z;",
        new="dh_direct = dh - dh;",
        tests=(f"{PLAIN}[all-forwards-padded-GRU-R=H]",),
    ),
    Mutant(
        name="GRU: backward has q without r",
        file=CELLS,
        old="dr[2] = dx[2] * reset + extra[3];",
        new="dr[2] = dx[2] + extra[3];",
        tests=(f"{PLAIN}[all-forwards-padded-GRU-R=H]",),
    ),
    Mutant(
        name="tanh RNN: its slope is 1 - h",
        file=CELLS,
        old="dh * (1 - h * h)",
        new="dh * (1 - h)",
        tests=(f"{PLAIN}[all-forwards-padded-RNN_TANH-R=H]",),
    ),
    Mutant(
        name="ReLU RNN: a gradient passes at zero",
        file=f"{CPU}/vec.h",
        old="(h <= 0) ? V{} : dh",
        new="(h < 0) ? V{} : dh",
        tests=("test_recurrent_numbers.py::test_relu_has_no_slope_at_zero",),
    ),
    Mutant(
        name="ReLU RNN: its loop is that of tanh",
        file=f"{CPU}/recurrence_common.h",
        old="if (relu) return RnnReluCell::forward<M>(x, r, h_prev, c_prev, zone, cache, c, h);",
        new="RnnTanhCell::forward<M>(x, r, h_prev, c_prev, zone, cache, c, h);",
        tests=(f"{PLAIN}[all-forwards-padded-RNN_RELU-R=H]",),
    ),
    # ---- numbers
    Mutant(
        name="bfloat16 rounds half up",
        file=f"{CPU}/vec.h",
        old="(bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16",
        new="(bits + 0x8000u) >> 16",
        tests=("test_rounding.py::test_ties_go_to_even",),
    ),
    Mutant(
        name="float16 rounds half up",
        file=f"{CPU}/vec.h",
        old="(a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13",
        new="(a - 0x38000000u + 0x1000u) >> 13",
        tests=("test_rounding.py::test_ties_go_to_even",),
    ),
    Mutant(
        name="sigmoid's polynomial lacks a term",
        file=f"{CPU}/vec.h",
        old="1.3843559427e-3f * y.r + 8.3742355928e-3f",
        new="0.0f * y.r + 8.3742355928e-3f",
        tests=("test_recurrent_numbers.py::test_gates_are_exact",),
    ),
    Mutant(
        name="tanh is 1 too early",
        file=f"{CPU}/vec.h",
        old="reduced(at_most(a + a, 18.1f))",
        new="reduced(at_most(a + a, 15.1f))",
        tests=("test_recurrent_numbers.py::test_gates_are_exact",),
    ),
    Mutant(
        name="LSTM: c is kept in 16 bits between steps",
        file=FORWARD,
        old="store<A>(c_state, c);",
        new="store<A>(c_state, rounded_to<A, S>(c));",
        tests=("test_rounding.py::test_cell_states_and_their_gradients_are_not",),
    ),
    Mutant(
        name="LSTM: the gradient of c is kept in 16 bits between steps",
        file=BACKWARD,
        old="store<A>(all.cell + p.row * all.m_stride + u, dc);",
        new="store<A>(all.cell + p.row * all.m_stride + u, rounded_to<A, S>(dc));",
        tests=("test_rounding.py::test_cell_states_and_their_gradients_are_not",),
    ),
    # ---- products
    Mutant(
        name="a long product begins anew at its second block",
        file=f"{CPU}/tiles.h",
        at="panel + g0 * inner_step, count, out, g0 > 0,",
        old="g0 > 0",
        new="false",
        tests=(
            "test_layer.py::test_against_the_reference_with_wide_states[torch.float32-2-1031-None]",
        ),
    ),
    Mutant(
        name="W's gradient begins anew at its second block of rows",
        file=f"{CPU}/transposed_product.h",
        old="n0 + g > 0",
        new="g > 0",
        tests=(f"{SIZES}[forwards-torch.float32-many rows-RNN_TANH-R=H]",),
    ),
    Mutant(
        name="a bias's gradient is that of its last rows",
        file=f"{CPU}/transposed_product.h",
        old="column_totals[u] += column_sums[u];",
        new="column_totals[u] = column_sums[u];",
        tests=(f"{SIZES}[forwards-torch.float32-many rows-RNN_TANH-R=H]",),
    ),
    Mutant(
        name="GRU: b_hn counts twice",
        file=f"{CPU}/forward_scratch.h",
        old="a.cell == Cell::kGru && v == 2",
        new="false",
        tests=(f"{PLAIN}[all-forwards-padded-GRU-R=H]",),
    ),
    Mutant(
        name="GRU: b_hn has the gradient of b_in",
        file="csrc/ops/layer_call.h",
        old="args.grad_bias_hn ? 2 * args.hidden : grad_bias_ih.numel()",
        new="grad_bias_ih.numel()",
        tests=(f"{PLAIN}[all-forwards-padded-GRU-R=H]",),
    ),
    Mutant(
        name="projection: W_hr's gradient takes c for tanh(c)",
        file=GRADIENTS,
        at="load_n<A>(o + u, left) * VecMath::tanh(v)",
        old="VecMath::tanh(v)",
        new="v",
        tests=(f"{PLAIN}[all-forwards-padded-LSTM-R=3]",),
    ),
    Mutant(
        name="linear: rows beyond the first 48 are those again",
        file=f"{CPU}/linear.cpp",
        at="static_cast<const S*>(a.x) + (n0 + r) * a.inner",
        old="(n0 + r)",
        new="r",
        tests=("test_recurrent_numbers.py::test_linear_by_sizes",),
    ),
    # ---- ragged batches
    Mutant(
        name="reverse: a row begins at the state of another one",
        file=TYPES,
        at="p >= steps || b >= active(p)",
        old="b >= active(p)",
        new="false",
        tests=(f"{PLAIN}[all-backwards-packed-LSTM-R=H]",),
    ),
    Mutant(
        name="packed: the final state of a row is that of a longer one",
        file=FORWARD_ROWS,
        old="a.seq.active(last) <= row",
        new="a.seq.active(last) < row",
        tests=(f"{PLAIN}[all-forwards-packed-GRU-R=H]",),
    ),
    Mutant(
        name="packed: the gate gradients of a row that has begun are lost",
        file=BACKWARD,
        old="copy_row(all.next + row * all.g_stride, all.now + row * all.g_stride, all.g_stride);",
        new=";",
        tests=(f"{PLAIN}[all-backwards-packed-RNN_TANH-R=H]",),
    ),
    Mutant(
        name="lengths: outputs of absent rows are not cleared",
        file=FORWARD_ROWS,
        old="fill_row(static_cast<S*>(a.y) + at * R, R);",
        new=";",
        tests=("test_absent_rows.py::test_zeros_where_rows_are_absent",),
    ),
    Mutant(
        name="lengths: gradients of absent inputs are not cleared",
        file=GRADIENTS,
        old="fill_row(static_cast<S*>(a.grad_x) + row * width, width);",
        new=";",
        tests=("test_absent_rows.py::test_zeros_where_rows_are_absent",),
    ),
    Mutant(
        name="lengths: a row of length 0 takes reset_state",
        file=TYPES,
        old="seq.steps > 0 && b < seq.active(0) && marked(seq, 0, b)",
        new="seq.steps > 0 && marked(seq, 0, b)",
        tests=("test_absent_rows.py::test_a_row_of_no_steps_is_not_reset",),
    ),
    Mutant(
        name="lengths below zero are taken for zero",
        file="csrc/ops/recurrence_call.h",
        old="length[b] >= 0 && length[b] <= seq.steps",
        new="length[b] <= seq.steps",
        tests=("test_beyond.py::test_mistakes",),
    ),
    # ---- beside
    Mutant(
        name="reset: in reverse a mark cuts after its step",
        file=TYPES,
        old="seq.reverse ? marked_later(seq, t, b) : marked(seq, t, b)",
        new="marked(seq, t, b)",
        tests=(f"{FEATURE}[reset-0-True]", f"{FEATURE}[reset-1-True]"),
    ),
    Mutant(
        name="reset_state: its gradient is that of the last mark",
        file=OPTIONS_BACK,
        old="store<A>(sum, load<A>(sum) + gradient)",
        new="store<A>(sum, gradient)",
        tests=(f"{FEATURE}[reset reset_state-0-False]",),
    ),
    Mutant(
        name="recurrent dropout: the dropped state is not rounded",
        file=OPTIONS,
        old="return rounded_to<A, S>(h * load_n<A>(factor, a.state - u));",
        new="return h * load_n<A>(factor, a.state - u);",
        tests=("test_rounding.py::test_a_dropped_state_is_rounded",),
    ),
    Mutant(
        name="recurrent dropout: W_hh's gradient reads a state not rounded",
        file=GRADIENTS,
        old="rounded_to<A, S>(h * load_n<A>(factor + u, left))",
        new="h * load_n<A>(factor + u, left)",
        tests=("test_rounding.py::test_a_dropped_state_is_rounded",),
    ),
    Mutant(
        name="recurrent dropout: what was dropped has a gradient",
        file=OPTIONS_BACK,
        old="return product * load_n<A>(factor, a.state - u);",
        new="return product;",
        tests=(f"{FEATURE}[drop-0-False]",),
    ),
    Mutant(
        name="zoneout: c has no gradient past the cell",
        file=CELLS,
        old="dc = d_c * f + kept;",
        new="dc = d_c * f;",
        tests=(f"{FEATURE}[zone-0-False]",),
    ),
    Mutant(
        name="zoneout: h has no gradient past the cell",
        file=BACKWARD,
        old="store<A>(carry, past);",
        new="store<A>(carry, V{});",
        tests=(f"{FEATURE}[zone-1-False]",),
    ),
    Mutant(
        name="layer norm: the variance is over n - 1",
        file=f"{CPU}/moments.h",
        old="total(square) / count",
        new="total(square) / (count - 1)",
        tests=(f"{FEATURE}[norm-2-False]",),
    ),
    Mutant(
        name="layer norm: backward forgets the deviation",
        file=OPTIONS_BACK,
        old="(through - mean - normed * slope) * of.scale",
        new="(through - mean) * of.scale",
        tests=(f"{FEATURE}[norm-1-False]",),
    ),
    Mutant(
        name="layer norm: c's bias has the gradient of its gain",
        file=OPTIONS_BACK,
        old="store_n<A>(gains + H + u, d, n);",
        new="store_n<A>(gains + H + u, d * normed, n);",
        tests=(f"{FEATURE}[norm-0-False]",),
    ),
    # ---- single steps
    Mutant(
        name="step: b_hh is left out",
        file=f"{CPU}/step.cpp",
        old="sums.total() + bias(a.bias_hh, g)",
        new="sums.total()",
        tests=("test_quick.py::test_quick_cells_are_torch_nns[torch.float32-1-LSTMCell]",),
    ),
    Mutant(
        name="step: GRU's r scales the input's side as well",
        file=f"{CPU}/step.cpp",
        old="C::kSplitsGates && g == 2",
        new="false",
        tests=("test_quick.py::test_quick_cells_are_torch_nns[torch.float32-2-GRUCell]",),
    ),
    Mutant(
        name="step_: c stays as it was",
        file="csrc/ops/step.cpp",
        old="if (c) std::memcpy(c->mutable_data_ptr(), c_next, bytes);",
        new=";",
        tests=(
            "test_streaming.py::test_a_stream_is_the_sequence[zeros-inference-torch.float32-LSTM-plain]",
        ),
    ),
    # ---- threads and memory
    Mutant(
        name="a late thread is waited for",
        file=f"{CPU}/team.h",
        old="nanoseconds() - start > kPatience",
        new="false",
        tests=("test_late_threads.py::test_a_late_part_is_left_out",),
    ),
    Mutant(
        name="the limit of kept memory never holds",
        file="csrc/ops/memory.cpp",
        old="k.bytes + header->bytes > most_kept_bytes()",
        new="false",
        tests=("test_memory_limit.py::test_no_more_is_kept_than_the_limit",),
    ),
    Mutant(
        name="memory that is given back counts on",
        file="csrc/ops/memory.cpp",
        old="bytes -= found->bytes;",
        new=";",
        tests=("test_memory_limit.py::test_all_of_it_is_given_back",),
    ),
    Mutant(
        name="empty_cache returns 0",
        file="csrc/ops/memory.cpp",
        old="return bytes;",
        new="return 0;",
        tests=("test_memory_limit.py::test_no_more_is_kept_than_the_limit",),
    ),
]
