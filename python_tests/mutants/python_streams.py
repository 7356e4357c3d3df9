"""Mutants of the ways that calls without gradients take, and of streams."""

from .mutant import Mutant

QUICK = "fastseq/nn/quick.py"
STREAMING = "fastseq/nn/streaming.py"

PYTHON_STREAMS = [
    # ---- quick calls
    Mutant(
        name="the quick cell ignores autocast",
        file=QUICK,
        old="input.dim() != 2 or not direct(autocast=True)",
        new="input.dim() != 2 or not direct()",
        tests=("test_quick.py::test_autocast_is_obeyed",),
    ),
    Mutant(
        name="the quick layer ignores autocast",
        file=QUICK,
        old="    if not direct(autocast=True):",
        new="    if not direct():",
        tests=("test_quick.py::test_autocast_is_obeyed",),
    ),
    Mutant(
        name="the quick layer takes no steps",
        file=QUICK,
        old="    if steps == 0:",
        new="    if False:",
        tests=("test_quick.py::test_the_quick_way_leaves_the_words_to_the_long_one",),
    ),
    Mutant(
        name="the quick layer ignores options",
        file=QUICK,
        old="not module._plain or ",
        new="",
        tests=("test_quick.py::test_what_is_not_so_simple_goes_the_long_way",),
    ),
    Mutant(
        name="the quick layer takes two dimensions of state",
        file=QUICK,
        old="            if any(state.dim() != 3 for state in hx):",
        new="            if False:",
        tests=("test_quick.py::test_the_quick_way_leaves_the_words_to_the_long_one",),
    ),
    Mutant(
        name="the quick layer forgets the projection",
        file=QUICK,
        old="weights[-1] if module.proj_size else None",
        new="None",
        tests=("test_quick.py::test_quick_layers_are_the_long_way",),
    ),
    Mutant(
        name="the quick layer leaves batch_first's output as the kernel made it",
        file=QUICK,
        old="        y.transpose_(0, 1)",
        new="        pass",
        tests=("test_quick.py::test_quick_layers_are_the_long_way",),
    ),
    Mutant(
        name="the quick cell ignores batch_invariant",
        file=QUICK,
        old="if invariance.on():",
        new="if False:",
        tests=("test_invariance.py::test_cells_inside_the_context",),
    ),
    # ---- streams
    Mutant(
        name="a step under autocast widens the state that it made",
        file=STREAMING,
        old="        if after[0].dtype != self.layers[0][0].dtype:",
        new="        if False:",
        tests=("test_streaming.py::test_autocast_is_obeyed_without_gradients",),
    ),
    Mutant(
        name="step ignores autocast",
        file=STREAMING,
        old="direct(autocast=True)",
        new="direct()",
        tests=("test_streaming.py::test_autocast_is_obeyed_without_gradients",),
    ),
    Mutant(
        name="step overwrites the hx that it was given",
        file=STREAMING,
        old="[t.clone() for t in s.detach().unbind(0)]",
        new="list(s.detach().unbind(0))",
        tests=(
            "test_streaming.py::test_a_stream_is_the_sequence[hx-inference-torch.float32-LSTM-plain]",
        ),
    ),
    Mutant(
        name="step passes hooks by",
        file=STREAMING,
        old="if _hooked(module):",
        new="if False:",
        tests=("test_streaming.py::test_hooks_are_called_at_every_step",),
    ),
    Mutant(
        name="step passes hooks of all modules by",
        file=STREAMING,
        old="        or hooks._global_forward_hooks\n",
        new="",
        tests=("test_streaming.py::test_hooks_are_called_at_every_step",),
    ),
    Mutant(
        name="step overwrites what a graph has saved, and says nothing",
        file=STREAMING,
        old="    overwritten([t for pair in state.layers for t in pair if t is not None])\n",
        new="",
        tests=("test_streaming.py::test_a_graph_notices_what_a_step_overwrites",),
    ),
    Mutant(
        name="step by the quick op loses tangents",
        file=STREAMING,
        old="not direct(autocast=True) or ",
        new="",
        tests=("test_forward_mode.py::test_streams_carry_tangents",),
    ),
    Mutant(
        name="step by the quick op ignores a projection",
        file=STREAMING,
        old="module.proj_size or ",
        new="",
        tests=(
            "test_streaming.py::test_a_stream_is_the_sequence"
            "[hx-inference-torch.float32-LSTM-proj_size]",
        ),
    ),
    Mutant(
        name="step says the op's words of a wrong input",
        file=STREAMING,
        old="                if i == 0:",
        new="                if False:",
        tests=("test_streaming.py::test_mistakes",),
    ),
    Mutant(
        name="step overwrites the state of a graph",
        file=STREAMING,
        old="        state = StreamState(state.given, state.batched)\n        state.take()",
        new="        state.take()",
        tests=("test_streaming.py::test_a_state_of_a_graph_is_not_overwritten",),
    ),
    Mutant(
        name="step by the quick op ignores the options",
        file=STREAMING,
        old="not module._plain or ",
        new="",
        tests=(
            "test_streaming.py::test_a_stream_is_the_sequence"
            "[zeros-inference-torch.float32-GRU-layer_norm]",
        ),
    ),
    Mutant(
        name="step ignores batch_invariant",
        file=STREAMING,
        old="or invariance.on()",
        new="",
        tests=("test_invariance.py::test_streams_inside_the_context",),
    ),
    Mutant(
        name="step goes on without the dropout between layers",
        file=STREAMING,
        old="    if module.dropout > 0 and module.num_layers > 1:",
        new="    if False:",
        tests=("test_streaming.py::test_mistakes",),
    ),
    Mutant(
        name="step draws masks in training",
        file=STREAMING,
        old="any((module.recurrent_dropout, module.weight_dropout, *module.zoneout))",
        new="any((module.recurrent_dropout, module.weight_dropout))",
        tests=("test_streaming.py::test_mistakes",),
    ),
]
