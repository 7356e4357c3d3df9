"""Mutants of the recurrences' Python: gradients, options, modules, streams, shapes, vmap, ONNX."""

from .mutant import Mutant

OPTIONS = "fastseq/functional/options.py"
FUNCTIONAL = "fastseq/functional/recurrence.py"
REFERENCE = "fastseq/reference"
LAYER = "test_layer.py::test_against_the_reference[all-{}-packed-{}-R=H]"
SECOND = "test_recurrent_gradients.py::test_second_derivative_is_torch_nns"

PYTHON_RECURRENCES = [
    # ---- gradients
    Mutant(
        name="b_hh has no gradient unless b_ih has one",
        file="fastseq/autograd/layer.py",
        old="need[5] or need[6]",
        new="need[5]",
        tests=("test_recurrent_parity.py::test_one_gradient_alone_is_wanted",),
    ),
    Mutant(
        name="b_hh has no gradient unless b_ih has one, with lengths",
        file="fastseq/autograd/extended_layer.py",
        old="need[5] or need[6]",
        new="need[5]",
        tests=("test_recurrent_parity.py::test_one_gradient_alone_is_wanted",),
    ),
    Mutant(
        name="x has no gradient unless a weight has one",
        file="fastseq/autograd/layer.py",
        old="needed = (need[0], need[3]",
        new="needed = (need[0] and need[3], need[3]",
        tests=("test_recurrent_parity.py::test_one_gradient_alone_is_wanted",),
    ),
    Mutant(
        name="linear: x's gradient is by the weight turned once more",
        file="fastseq/autograd/linear.py",
        old="not ctx.turned",
        new="ctx.turned",
        tests=("test_functorch.py::test_gradients_of_linear",),
    ),
    Mutant(
        name="linear: the weight's gradient is turned over",
        file="fastseq/autograd/linear.py",
        old="(x, grad) if ctx.turned else (grad, x)",
        new="(x, grad)",
        tests=("test_functorch.py::test_gradients_of_linear",),
    ),
    Mutant(
        name="the raw ops lose a gradient without a word",
        file="fastseq/ops/_common.py",
        old="t is not None and t.requires_grad for t in tensors",
        new="False for t in tensors",
        tests=("test_recurrent_errors.py::test_layer_ops_refuse_gradients",),
    ),
    # ---- the reference, which second derivatives run
    Mutant(
        name="reference: a GRU's b_hn is added outside of r",
        file=f"{REFERENCE}/layer.py",
        old="if kind != Cell.GRU:",
        new="if True:",
        tests=(LAYER.format("forwards", "GRU"),),
    ),
    Mutant(
        name="reference: packed rows follow the step before in reverse as well",
        file=f"{REFERENCE}/layer.py",
        old="    if reverse:\n        later",
        new="    if False:\n        later",
        tests=(LAYER.format("backwards", "GRU"),),
    ),
    Mutant(
        name="reference: an LSTM's c has no gradient of its own",
        file=f"{REFERENCE}/recurrence.py",
        old="dc[:active] + d * o * (1 - tc * tc) + e_c",
        new="dc[:active] + d * o * (1 - tc * tc)",
        tests=(f"{SECOND}[LSTM]", LAYER.format("forwards", "LSTM")),
    ),
    Mutant(
        name="reference: a ReLU passes gradients at zero",
        file=f"{REFERENCE}/recurrence.py",
        old="d.masked_fill(h <= 0, 0)",
        new="d",
        tests=(LAYER.format("forwards", "RNN_RELU"),),
    ),
    Mutant(
        name="reference: a mark beyond the length resets the final state",
        file=f"{REFERENCE}/extended_layer.py",
        old="here = here & (mark < extras.lengths)",
        new="here = here",
        tests=(
            "test_beyond.py::test_without_kernels_the_reference_runs",
            "test_extended_layer.py::test_feature[lengths reset reset_state-1-True]",
        ),
    ),
    Mutant(
        name="reference: dropout scales what h passes on by itself",
        file=f"{REFERENCE}/extended_layer.py",
        old="h_prev if extras.drop is None else h_prev * extras.drop[active]",
        new="h_prev if extras.drop is None else h_prev * extras.drop[active].sign()",
        tests=("test_extended_layer.py::test_feature[drop-1-False]",),
    ),
    # ---- options
    Mutant(
        name="zoneout draws p + 0.01",
        file=OPTIONS,
        old="round(p * 2**16)",
        new="round((p + 0.01) * 2**16)",
        tests=("test_regularisers.py::test_zoneout_keeps_a_share_of_p",),
    ),
    Mutant(
        name="zoneout of c takes h's probability",
        file=OPTIONS,
        old="_mask(x, hidden, options.zoneout[1])",
        new="_mask(x, hidden, options.zoneout[0] or 0.5)",
        tests=("test_regularisers.py::test_zoneout_keeps_a_share_of_p",),
    ),
    Mutant(
        name="weight_dropout is not scaled",
        file=FUNCTIONAL,
        old="dropped = _dropout(params[1], options.weight_dropout, training=True)",
        new="dropped = _dropout(params[1], options.weight_dropout, training=True)"
        " * (1 - options.weight_dropout)",
        tests=("test_regularisers.py::test_weight_dropout_scales_what_is_left",),
    ),
    Mutant(
        name="recurrent_dropout is not scaled",
        file=OPTIONS,
        old="dropout(torch.ones_like(h0), options.recurrent_dropout, training=True)",
        new="dropout(torch.ones_like(h0), options.recurrent_dropout, training=True).sign()",
        tests=("test_beyond.py::test_recurrent_dropout_is_one_mask_for_all_steps",),
    ),
    Mutant(
        name="regularisers are active in evaluation",
        file=OPTIONS,
        old="if train and options.recurrent_dropout > 0:",
        new="if options.recurrent_dropout > 0:",
        tests=("test_beyond.py::test_regularisers",),
    ),
    Mutant(
        name="layer norm: the biases are left out",
        file=OPTIONS,
        old="gain, bias, epsilon)",
        new="gain, None, epsilon)",
        tests=("test_beyond.py::test_layer_norm_by_its_formula",),
    ),
    Mutant(
        name="layer norm: biases begin at one",
        file="fastseq/nn/beyond.py",
        old='0.0 if name == "norm_c_bias" else 1.0',
        new="1.0",
        tests=("test_regularisers.py::test_layer_norm_begins_as_the_norm_alone",),
    ),
    Mutant(
        name="dropout follows the last layer too",
        file=FUNCTIONAL,
        old="layer < num_layers - 1",
        new="layer < num_layers",
        tests=(
            "test_recurrent_parity.py::test_options"
            "[train-zeros-torch.float32-LSTM-num_layers=3,dropout=0.4]",
        ),
    ),
    Mutant(
        name="cell states are those of the first direction",
        file=FUNCTIONAL,
        old="torch.cat(cells, -1).to(x.dtype)",
        new="cells[0].to(x.dtype)",
        tests=("test_regularisers.py::test_cell_states_of_both_directions",),
    ),
    # ---- modules
    Mutant(
        name="a probability of 1 is taken",
        file="fastseq/nn/beyond.py",
        old="0.0 <= p < 1.0",
        new="0.0 <= p <= 1.0",
        tests=("test_beyond.py::test_mistakes",),
    ),
    Mutant(
        name="lengths may be booleans",
        file="fastseq/nn/beyond.py",
        old=" or lengths.dtype == torch.bool",
        new="",
        tests=("test_recurrent_mistakes.py::test_lengths_are_numbers",),
    ),
    Mutant(
        name="reset may be numbers",
        file="fastseq/nn/beyond.py",
        old="if reset.dtype != torch.bool:",
        new="if False:",
        tests=("test_beyond.py::test_mistakes",),
    ),
    Mutant(
        name="packed: final states stay in sorted order",
        file="fastseq/nn/recurrent.py",
        old="_permuted(state, unsorted_indices)",
        new="state",
        tests=("test_recurrent_parity.py::test_packed[hx-[2, 5, 1, 4]-GRU-]",),
    ),
    Mutant(
        name="packed: initial states are taken in sorted order",
        file="fastseq/nn/recurrent.py",
        old="_permuted(state, sorted_indices)",
        new="state",
        tests=("test_recurrent_parity.py::test_packed[hx-[2, 5, 1, 4]-GRU-]",),
    ),
    Mutant(
        name="the quick cell ignores autocast",
        file="fastseq/nn/cells.py",
        old='or torch.is_autocast_enabled("cpu")',
        new="",
        tests=("test_streaming.py::test_autocast_is_obeyed_without_gradients",),
    ),
    Mutant(
        name="the quick cell ignores batch_invariant",
        file="fastseq/nn/cells.py",
        old="or _invariance.on()",
        new="",
        tests=("test_invariance.py::test_cells_inside_the_context",),
    ),
    Mutant(
        name="step ignores autocast",
        file="fastseq/nn/streaming.py",
        old="if torch.is_autocast_enabled(x.device.type):",
        new="if False:",
        tests=("test_streaming.py::test_autocast_is_obeyed_without_gradients",),
    ),
    Mutant(
        name="step overwrites the hx that it was given",
        file="fastseq/nn/streaming.py",
        old="tuple(s.detach().clone() for s in state.states)",
        new="tuple(s.detach() for s in state.states)",
        tests=(
            "test_streaming.py::test_a_stream_is_the_sequence[hx-inference-torch.float32-LSTM-plain]",
        ),
    ),
    Mutant(
        name="step draws masks in training",
        file="fastseq/nn/streaming.py",
        old="masks = module.recurrent_dropout, module.weight_dropout, *module.zoneout",
        new="masks = module.recurrent_dropout, module.weight_dropout",
        tests=("test_streaming.py::test_mistakes",),
    ),
    # ---- shapes for tracing, vmap, ONNX
    Mutant(
        name="fake: a GRU's backward has a gradient of c0",
        file="fastseq/ops/layer.py",
        old="[batch, hidden] if kind == Cell.LSTM else [0]",
        new="[batch, hidden]",
        tests=("test_layer.py::test_fakes_are_exact[torch.float32-padded-GRU-R=H]",),
    ),
    Mutant(
        name="fake: what is saved is made without saving",
        file="fastseq/ops/extended_layer.py",
        old="save and extras.norm_hh is not None",
        new="extras.norm_hh is not None",
        tests=("test_extended_layer.py::test_opcheck",),
    ),
    Mutant(
        name="fake: linear has the other side's size",
        file="fastseq/ops/linear.py",
        old="weight.shape[1 if turned else 0]",
        new="weight.shape[1]",
        tests=("test_extended_layer.py::test_opcheck_of_step_and_linear",),
    ),
    Mutant(
        name="vmap, one at a time: every example is the first",
        file="fastseq/ops/_vmap.py",
        old="a.select(dim, i)",
        new="a.select(dim, 0)",
        tests=("test_functorch.py::test_ensemble[GRU-plain]",),
    ),
    Mutant(
        name="vmap: W_hh's gradient reads the states that come later",
        file="fastseq/autograd/layer_vmap.py",
        old="[y[:, 1:], edge] if reverse else [edge, y[:, :-1]]",
        new="[edge, y[:, :-1]]",
        tests=(
            "test_functorch.py::test_per_sample_gradients[False-GRU-num_layers-bidirectional-bias]",
        ),
    ),
    Mutant(
        name="vmap: linear takes its examples from the first dimension",
        file="fastseq/ops/linear.py",
        old="x.movedim(in_dims[0], 0)",
        new="x",
        tests=("test_functorch.py::test_vmap_over_inputs[2-LSTM-layer_norm]",),
    ),
    Mutant(
        name="ONNX: an LSTM's gates stay in torch.nn's order",
        file="fastseq/onnx/recurrence.py",
        old="Cell.LSTM: (0, 3, 1, 2)",
        new="Cell.LSTM: (0, 1, 2, 3)",
        tests=("test_onnx.py::test_recurrent[torch.float32-1e-06]",),
    ),
    Mutant(
        name="ONNX: a GRU's r scales h",
        file="fastseq/onnx/recurrence.py",
        old="linear_before_reset=1",
        new="linear_before_reset=0",
        tests=("test_onnx.py::test_recurrent[torch.float32-1e-06]",),
    ),
    Mutant(
        name="ONNX: a projection in reverse begins at the first step",
        file="fastseq/onnx/recurrence.py",
        old="reversed(pads) if reverse else pads",
        new="pads",
        tests=("test_onnx.py::test_recurrent[torch.float32-1e-06]",),
    ),
    Mutant(
        name="export: a packed batch changes with the tensor that it was made of",
        file="fastseq/nn/ragged.py",
        old="input, lengths = input.clone(), lengths.clone()",
        new="pass",
        tests=("test_onnx_packed.py::test_an_exported_program_does_what_the_model_does",),
    ),
    Mutant(
        name="export: the data of one packed batch goes with the steps of another",
        file="fastseq/nn/ragged.py",
        old="data.lengths is not batch_sizes.lengths",
        new="False",
        tests=("test_onnx_packed.py::test_what_is_not_understood_is_refused",),
    ),
    Mutant(
        name="export: what was padding before a packed batch is padding after it",
        file="fastseq/nn/ragged.py",
        old="self._cleared and value == 0.0",
        new="value == 0.0",
        tests=("test_onnx_packed.py::test_an_exported_program_does_what_the_model_does",),
    ),
]
