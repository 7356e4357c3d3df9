"""Mutants of the routes on a GPU: the choice, the road through torch's call, the precision."""

from .mutant import Mutant

CUDNN = "fastseq/autograd/cudnn.py"
ROUTE = "fastseq/functional/cuda_route.py"
STACK = "fastseq/functional/cuda_stack.py"
PRECISION = "fastseq/ops/precision.py"
PERSISTENT = "fastseq/ops/persistent.py"
ONCE = "simt/test_persistent_route.py"
BOTH = "simt/test_bidirectional_route.py"
MASKED = "fastseq/ops/extended_layer_cuda.py"
TESTS = "test_cuda_routes.py"
PLANNER = "test_cuda_planner.py"

PYTHON_ROUTES = [
    # ---- lengths and resets in one launch
    Mutant(
        name="in reverse a row begins with the zeros beyond its length",
        file=MASKED,
        old="before = before.where(within(y, lengths, 1), h0)",
        new="pass",
        tests=(f"{ONCE}::test_lengths_and_resets",),
    ),
    Mutant(
        name="what lies beyond a length reaches the gradient of W_ih",
        file=MASKED,
        old="x = x.where(within(x, masks.lengths), 0)",
        new="pass",
        tests=(f"{ONCE}::test_lengths_and_resets",),
    ),
    Mutant(
        name="a layer with lengths goes back by another route",
        file="fastseq/autograd/extended_layer.py",
        old="token = routes.resume(ctx.route)",
        new="token = None",
        tests=(f"{ONCE}::test_lengths_go_back_by_the_route_of_their_call",),
    ),
    Mutant(
        name="a checkpoint asks anew whether there are kernels",
        file="fastseq/functional/stack.py",
        old="    if kernels:\n",
        new="    if has_kernels(cell, x, h0, weight_hh, weight_hr, extras):\n",
        tests=(f"{ONCE}::test_a_checkpoint_runs_the_loops_again",),
    ),
    # ---- the choice
    Mutant(
        name="cuDNN's slow kernel is feared for tanh RNNs, too",
        file=ROUTE,
        old="return gated and small and persists",
        new="return small and persists",
        tests=(f"{PLANNER}::test_rules",),
    ),
    Mutant(
        name="a forced route does what it cannot",
        file=ROUTE,
        old="if (why := _first(wanted.cannot, facts)) is None:",
        new="if (why := _first((), facts)) is None:",
        tests=(f"{PLANNER}::test_a_route_is_forced_where_it_can_be",),
    ),
    Mutant(
        name="a forced route stays forced",
        file="fastseq/ops/routes.py",
        old="        yield\n    finally:\n        _forced.reset(token)",
        new="        yield\n    finally:\n        pass",
        tests=(f"{PLANNER}::test_force_is_undone_and_stays_in_its_thread",),
    ),
    Mutant(
        name="modes of dispatch do not see our ops",
        file=STACK,
        old=" or torch._C._len_torch_dispatch_stack() > 0",
        new="",
        tests=(f"{TESTS}::test_what_others_follow_goes_by_our_ops",),
    ),
    Mutant(
        name="states that do not fit go to cuDNN",
        file=STACK,
        old="if not fit or cuda_route",
        new="if cuda_route",
        tests=(f"{TESTS}::test_mistakes_get_our_words",),
    ),
    Mutant(
        name="the dtypes of a call by cuDNN are not checked",
        file=STACK,
        old="        check(input, states, params)",
        new="        pass",
        tests=(f"{TESTS}::test_mistakes_get_our_words",),
    ),
    Mutant(
        name="dropout in evaluation mode",
        file=STACK,
        old="dropout if train else 0.0",
        new="dropout",
        tests=(f"{TESTS}::test_gradients_in_evaluation_mode",),
    ),
    # ---- loops that are one launch
    Mutant(
        name="second derivatives are asked of the persistent kernels",
        file="fastseq/ops/layer_cuda.py",
        old="plain = not kind.cached or (grad_gates is None and grad_cells is None)",
        new="plain = True",
        tests=(f"{ONCE}::test_second_derivatives",),
    ),
    Mutant(
        name="backward goes by what is forced when it is called",
        file="fastseq/autograd/layer.py",
        old="token = routes.resume(ctx.route)",
        new="token = None",
        tests=(f"{ONCE}::test_a_route_is_forced_for_backward_as_well",),
    ),
    Mutant(
        name="TF32 that nobody allows",
        file=PERSISTENT,
        old="f.dtype == torch.float32 and not f.tf32",
        new="False",
        tests=(f"{ONCE}::test_float32_without_tf32_goes_step_by_step",),
    ),
    Mutant(
        name="a forced route is slow where it is by the rules",
        file=PERSISTENT,
        old="rules = CANNOT if route == PERSISTENT else (*CANNOT, *SLOW)",
        new="rules = (*CANNOT, *SLOW)",
        tests=(f"{ONCE}::test_rows_beyond_the_estimate_go_step_by_step_unless_asked",),
    ),
    Mutant(
        name="the rules choose what no GPU has run",
        file=PERSISTENT,
        old="lambda f: not SEEN_ON_A_GPU,",
        new="lambda f: False,",
        tests=(
            f"{PLANNER}::test_kernels_that_no_gpu_has_run_are_taken_only_when_asked_for",
            f"{ONCE}::test_what_no_gpu_has_run_goes_step_by_step_unless_asked",
        ),
    ),
    Mutant(
        name="a loop is launched where there is no room for it",
        file=PERSISTENT,
        old="lambda f: not f.room,",
        new="lambda f: False,",
        tests=(f"{ONCE}::test_many_units_where_there_is_room",),
    ),
    Mutant(
        name="a device is asked for room for one of both directions",
        file="fastseq/ops/persistent.py",
        old="hidden, batch, directions),",
        new="hidden, batch, 1),",
        tests=(f"{BOTH}::test_room_for_one_direction_alone",),
    ),
    Mutant(
        name="both directions: the gradient of x lacks the second one's",
        file="fastseq/ops/bidirectional_cuda.py",
        old=".addmm_(two, weights[1].ih)",
        new="",
        tests=(f"{BOTH}::test_the_same_numbers_as_apart",),
    ),
    Mutant(
        name="both directions: the second one's weights have gradients of the first one's states",
        file="fastseq/ops/bidirectional_cuda.py",
        old="reverse = number == 1",
        new="reverse = False",
        tests=(f"{BOTH}::test_the_same_numbers_as_apart",),
    ),
    Mutant(
        name="both directions: a second derivative is asked of one launch",
        file="fastseq/autograd/bidirectional.py",
        old="and not torch.is_grad_enabled()",
        new="",
        tests=(f"{BOTH}::test_second_derivatives",),
    ),
    Mutant(
        name="both directions: in one launch where weights are dropped",
        file="fastseq/functional/bidirectional.py",
        old="options.recurrent_dropout, *options.zoneout, options.weight_dropout",
        new="options.recurrent_dropout, *options.zoneout",
        tests=(f"{BOTH}::test_what_goes_apart",),
    ),
    Mutant(
        name="a device is asked for room for each batch",
        file=PERSISTENT,
        old="-(-batch // TILE)",
        new="batch",
        tests=(f"{PLANNER}::test_a_device_is_asked_for_room_once",),
    ),
    Mutant(
        name="the loop of one block wants room, too",
        file=PERSISTENT,
        old='kernel(cell, dtype, hidden) != "mailbox"',
        new='kernel(cell, dtype, hidden) == ""',
        tests=(f"{PLANNER}::test_a_device_is_asked_for_room_once",),
    ),
    Mutant(
        name="explain keeps what the routes before lack to itself",
        file=ROUTE,
        old="[*reasons, *route.chosen]",
        new="route.chosen",
        tests=(f"{PLANNER}::test_rules",),
    ),
    Mutant(
        name="single steps may be TF32 because recurrences may",
        file=PRECISION,
        old='"matmul" if single or not',
        new='"matmul" if not',
        tests=("test_precision.py::test_tf32_of_a_layer",),
    ),
    # ---- torch's call
    Mutant(
        name="cuDNN is asked for gradients that it has not kept",
        file=CUDNN,
        old="training = differentiated or drops",
        new="training = drops",
        tests=(f"{TESTS}::test_gradients_in_evaluation_mode",),
    ),
    Mutant(
        name="cuDNN keeps for a backward that never comes",
        file=CUDNN,
        old="training = differentiated or drops",
        new="training = True",
        tests=(f"{TESTS}::test_training_mode_is_asked_for_where_it_is_needed",),
    ),
    Mutant(
        name="a second derivative is asked of cuDNN",
        file=CUDNN,
        old="torch.is_grad_enabled() or batched(grads)",
        new="batched(grads)",
        tests=(f"{TESTS}::test_third_derivative",),
    ),
    Mutant(
        name="batched gradients are asked of cuDNN",
        file=CUDNN,
        old="torch.is_grad_enabled() or batched(grads)",
        new="torch.is_grad_enabled()",
        tests=(f"{TESTS}::test_batched_gradients",),
    ),
    Mutant(
        name="a weight within the input counts twice",
        file=CUDNN,
        old="t.view_as(t) if needed else t",
        new="t",
        tests=(f"{TESTS}::test_a_weight_that_the_input_is_made_of",),
    ),
    Mutant(
        name="a mask is drawn anew for the second derivative",
        file=CUDNN,
        old="if not differentiated or drops:",
        new="if not differentiated:",
        tests=(f"{TESTS}::test_second_derivative_under_dropout_is_refused_by_torch",),
    ),
    # ---- the weights
    Mutant(
        name="any buffer of weights is taken for cuDNN's",
        file=CUDNN,
        old="if weight.data_ptr() - start != offset or not weight.is_contiguous():",
        new="if False:",
        tests=(f"{TESTS}::test_layout_of_another_stack_is_not_taken_for_ours",),
    ),
    Mutant(
        name="gathering weights moves the caller's",
        file=CUDNN,
        old="made = tuple(_upon(w.contiguous()) for w in weights)",
        new="made = tuple(weights)",
        tests=(f"{TESTS}::test_computed_weights_are_gathered",),
    ),
    Mutant(
        name="a copy of a module leaves its weights scattered",
        file="fastseq/nn/recurrent.py",
        old="        super().__setstate__(state)  # type: ignore[no-untyped-call]\n"
        "        self.flatten_parameters()",
        new="        super().__setstate__(state)",
        tests=(f"{TESTS}::test_weights_lie_together_and_stay_what_they_are",),
    ),
    # ---- the precision of products
    Mutant(
        name="cells multiply in TF32",
        file=PRECISION,
        old="or cell or",
        new="or",
        tests=("test_precision.py::test_nothing_is_turned_for_others",),
    ),
    Mutant(
        name="the first thread to leave turns the switch back",
        file=PRECISION,
        old="            self.users -= 1\n            if not self.users:",
        new="            self.users -= 1\n            if True:",
        tests=("test_precision.py::test_the_last_of_several_threads_turns_it_back",),
    ),
    Mutant(
        name="an inherited precision becomes its own",
        file=PRECISION,
        old='"none" if before == _get("cuda", "all") else before',
        new="before",
        tests=("test_precision.py::test_what_was_inherited_is_inherited_again",),
    ),
]
