"""Mutants of the gate before every op with derivatives, of the gradients, of the references."""

from .mutant import Mutant

GATE = "fastseq/autograd/_op.py"
REFERENCE = "fastseq/reference"
LAYER = "test_layer.py::test_against_the_reference[all-{}-packed-{}-R=H]"
SECOND = "test_recurrent_gradients.py::test_second_derivative_is_torch_nns"

PYTHON_GRADIENTS = [
    # ---- the gate
    Mutant(
        name="gate: no tensor has a tangent",
        file=GATE,
        old="return forward_mode() and any(",
        new="return False and any(",
        tests=("test_forward_mode.py::test_raw_ops_have_tangents[layer]",),
    ),
    Mutant(
        name="gate: from Python, forward mode takes the short way",
        file=GATE,
        old="        or forward_ad._current_level >= 0\n",
        new="",
        tests=("test_forward_mode.py::test_dual_numbers[frozen-gradients on-LRN]",),
    ),
    Mutant(
        name="gate: a compiler sees none of the ops",
        file=GATE,
        old="        is_compiling()\n        or forward_ad",
        new="        forward_ad",
        tests=("test_compilers.py::test_one_dynamic_graph_serves_every_size[LSTM]",),
    ),
    Mutant(
        name="gate: a transform sees none of the ops",
        file=GATE,
        old="        or _transforming()\n",
        new="",
        tests=(
            "test_functorch.py::test_per_sample_gradients[False-GRU-num_layers-bidirectional-bias]",
        ),
    ),
    Mutant(
        name="gate: a node saves nothing for its backward",
        file=GATE,
        old="        function.setup_context(ctx, args, made)\n        return made",
        new="        return made",
        tests=("test_lrn.py::test_derivatives",),
    ),
    Mutant(
        name="gate: torch.jit.trace sees none of the ops",
        file=GATE,
        old="        or _tracing() is not None\n",
        new="",
        tests=("test_jit.py::test_traced_recurrences_train[LSTM]",),
    ),
    Mutant(
        name="gate: a transform's node is made with all levels at once",
        file=GATE,
        old="self._one_level(*args) if _transforming() else self.apply(*args)",
        new="self.apply(*args)",
        tests=(
            "test_functorch.py::test_per_sample_gradients[False-GRU-num_layers-bidirectional-bias]",
        ),
    ),
    Mutant(
        name="gate: the first tensor alone may want a gradient",
        file=GATE,
        old="for t in tensors:\n",
        new="for t in tensors[:1]:\n",
        tests=(
            "test_recurrent_parity.py::test_one_gradient_alone_is_wanted[plain-bias_hh_l0-GRU]",
        ),
    ),
    Mutant(
        name="gate: a graph is made under no_grad",
        file=GATE,
        old="    if torch.is_grad_enabled():\n",
        new="    if True:\n",
        tests=(
            "test_recurrent_gradients.py::test_ops_keep_activations_where_a_gradient_is_asked_for",
        ),
    ),
    Mutant(
        name="gate: within a transform, gradients are off below its level",
        file=GATE,
        old="torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True)",
        new="forward_ad._set_fwd_grad_enabled(True)",
        tests=("test_forward_mode.py::test_hessian[GRU]",),
    ),
    Mutant(
        name="gate: within a transform, tangents are off below its level",
        file=GATE,
        old="torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True)",
        new="torch.enable_grad()",
        tests=("test_forward_mode.py::test_hessian[GRU]",),
    ),
    Mutant(
        name="gate: step_ takes what asks for a gradient",
        file=GATE,
        old="if wants_graph(args[:count]) or _has_tangent(args[:count]):",
        new="if False:",
        tests=("test_forward_mode.py::test_what_overwrites_its_arguments_has_no_derivative",),
    ),
    Mutant(
        name="gate: step_ takes what carries a tangent",
        file=GATE,
        old="wants_graph(args[:count]) or _has_tangent(args[:count])",
        new="wants_graph(args[:count])",
        tests=("test_forward_mode.py::test_what_overwrites_its_arguments_has_no_derivative",),
    ),
    Mutant(
        name="gate: autograd does not hear what step_ overwrites",
        file=GATE,
        old="torch._C._increment_version(tensors)",
        new="pass",
        tests=(
            "test_forward_mode.py::test_what_overwrites_its_arguments_has_no_derivative",
            "test_streaming.py::test_a_graph_notices_what_a_step_overwrites",
        ),
    ),
    # ---- gradients
    Mutant(
        name="b_hh has no gradient unless b_ih has one",
        file="fastseq/autograd/layer.py",
        old="(b_ih or b_hh) << 3",
        new="b_ih << 3",
        tests=("test_recurrent_parity.py::test_one_gradient_alone_is_wanted",),
    ),
    Mutant(
        name="x has no gradient unless a weight has one",
        file="fastseq/autograd/layer.py",
        old="return x | w_ih",
        new="return (x and w_ih) | w_ih",
        tests=("test_recurrent_parity.py::test_one_gradient_alone_is_wanted",),
    ),
    Mutant(
        name="h0 has no gradient unless c0 has one",
        file="fastseq/autograd/layer.py",
        old="(h0 or c0) << 5",
        new="c0 << 5",
        tests=("test_extended_layer.py::test_feature[lengths-1-False]",),
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
        name="layer norm: in forward mode, the gradient is an op that begins a vjp",
        file="fastseq/autograd/extended_layer.py",
        old="formula = forward_mode() or not",
        new="formula = not",
        tests=("test_forward_mode.py::test_hessian[GRU, layer norm]",),
    ),
    Mutant(
        name="CUDA's composition: in reverse, W_hh meets the states of the step before",
        file="fastseq/ops/layer_cuda.py",
        old="(slice(None, -1), -1, slice(1, None)) if reverse else "
        "(slice(1, None), 0, slice(None, -1))",
        new="(slice(1, None), 0, slice(None, -1))",
        tests=(
            "test_layer.py::test_composed_of_the_recurrence_and_atens_products"
            "[torch.float32-backwards-padded-LSTM-R=H]",
        ),
    ),
    Mutant(
        name="CUDA's composition: packed rows in reverse begin with others' h0",
        file="fastseq/ops/layer_cuda.py",
        old="add(h0, later, n - later)",
        new="add(h0, 0, n - later)",
        tests=(
            "test_layer.py::test_composed_of_the_recurrence_and_atens_products"
            "[torch.float32-backwards-packed-LSTM-R=H]",
        ),
    ),
    Mutant(
        name="CUDA's composition: pieces of a packed batch that do not meet are joined",
        file="fastseq/ops/layer_cuda.py",
        old=" and pieces[-1][2] == first",
        new="",
        tests=("test_layer_cuda.py::test_states_before_the_rows_of_a_packed_batch",),
    ),
    Mutant(
        name="CUDA's composition: a piece for each step of a packed batch",
        file="fastseq/ops/layer_cuda.py",
        old=" and pieces[-1][2] == first",
        new=" and False",
        tests=("test_layer_cuda.py::test_states_before_the_rows_of_a_packed_batch",),
    ),
    # ---- the reference, which second derivatives run
    Mutant(
        name="reference: a GRU's b_hn is added outside of r",
        file="fastseq/ops/layer_cuda.py",
        old="if kind != Cell.GRU:",
        new="if True:",
        tests=(LAYER.format("forwards", "GRU"),),
    ),
    Mutant(
        name="reference: rows of a reverse direction stay in its order",
        file=f"{REFERENCE}/recurrence.py",
        old="rows[::-1] if reverse else rows",
        new="rows",
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
        name="reference: in forward mode, too, layer_norm is torch's",
        file=f"{REFERENCE}/extended_layer.py",
        old="if forward_ad._current_level < 0:",
        new="if True:",
        tests=("test_forward_mode.py::test_hessian[GRU, layer norm]",),
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
]
