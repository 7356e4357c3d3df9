"""Mutants of the recurrences' CUDA kernels: the steps, and one block that keeps its weights."""

from .mutant import Mutant

CUDA = "csrc/kernels/cuda/recurrence.cu"
SELF_FORWARD = "csrc/kernels/cuda/self_forward.cuh"
SELF_BACKWARD = "csrc/kernels/cuda/self_backward.cuh"
TABLE = "csrc/kernels/cuda/sequence_table.cu"
STEPS = TABLE.replace(".cu", ".h")
SELF = "simt/test_self.py"
BOTH = "simt/test_both_directions.py"
MASKS = "simt/test_masks.py"
DEVICE = "simt/test_recurrence_cuda.py::test_forward_and_backward_equal_the_cpu_op"

KERNELS_RECURRENCES_CUDA = [
    # ---- CUDA, on the machine of simt/
    Mutant(
        name="CUDA recurrence: a row begins at the state of another one",
        file=CUDA,
        old="row >= a.rows.carried",
        new="a.rows.carried == 0",
        tests=(f"{DEVICE}[1-False-True-True-torch.float64]",),
    ),
    Mutant(
        name="CUDA recurrence: h0 lacks what passes W_hh by",
        file=CUDA,
        old="static_cast<const A*>(a.carry)[i]",
        new="A(0)",
        tests=(f"{DEVICE}[1-False-False-False-torch.float64]",),
    ),
    Mutant(
        name="CUDA recurrence: the gradient of the cell states is left out",
        file=CUDA,
        old="dc += static_cast<const A*>(a.grad_cells)[at * H + u];",
        new=";",
        tests=(f"{DEVICE}[0-False-False-False-torch.float64]",),
    ),
    Mutant(
        name="CUDA recurrence: one thread too many makes a step",
        file=CUDA,
        at="if (i >= a.rows.active * H) return;\n  const int64_t row = i / H, u = i % H, at ="
        " a.rows.at + row;\n  const S* const pre",
        old="i >= a.rows.active * H",
        new="i > a.rows.active * H",
        tests=("simt/test_recurrence_cuda.py::test_ends_of_blocks",),
    ),
    # ---- what blocks and warps do together
    Mutant(
        name="a word is published as it is, though it may look empty",
        file="csrc/kernels/cuda/words.h",
        old="word == kEmpty ? kNaN : word",
        new="word",
        tests=("simt/test_machine.py::test_it_lets_right_kernels_be",),
    ),
    Mutant(
        name="a warp goes on when its first word is there",
        file="csrc/kernels/cuda/words.h",
        old="missing |= words[i] == kEmpty",
        new="missing |= words[0] == kEmpty",
        tests=("simt/test_words.py::test_the_mailbox_is_right_with_every_schedule",),
    ),
    # ---- one block that keeps its weights
    Mutant(
        name="Self: h goes into the buffer that others still read",
        file=SELF_FORWARD,
        old="keep(1 - now, j, h[j])",
        new="keep(now, j, h[j])",
        tests=(f"{SELF}::test_against_the_cpu_op[dense-0-torch.float16]",),
    ),
    Mutant(
        name="Self: a gate's weights are those of the gate after it",
        file=SELF_FORWARD,
        at="half % G + at.way.number * G",
        old="half % G",
        new="(half + 1) % G",
        tests=(f"{SELF}::test_ends_of_blocks_and_warps",),
    ),
    Mutant(
        name="Self: a row that has ended takes on the state of a step that is not its own",
        file=SELF_FORWARD,
        old="active ? device::round_to<S>(h_next) : h[j]",
        new="device::round_to<S>(h_next)",
        tests=(f"{SELF}::test_against_the_cpu_op[packed-0-torch.float16]",),
    ),
    Mutant(
        name="Self backward: a row that has not begun loses its gradient of h_n",
        file=SELF_BACKWARD,
        old="carry[j] = active ? direct : through;",
        new="carry[j] = active ? direct : 0.0f;",
        tests=(f"{SELF}::test_against_the_cpu_op[packed-0-torch.float16]",),
    ),
    Mutant(
        name="Self backward: what passes by W_hh counts only in rows that take part",
        file=SELF_BACKWARD,
        at="through = after_step(j)",
        old="after_step(j)",
        new="(at.active(j, t) ? after_step(j) : carry[j])",
        tests=(f"{SELF}::test_against_the_cpu_op[packed-0-torch.float16]",),
    ),
    Mutant(
        name="Self backward: GRU multiplies the gradients of the input's side",
        file=SELF_BACKWARD,
        old="active ? dr[gate] : 0.0f",
        new="active ? dx[gate] : 0.0f",
        tests=(f"{SELF}::test_against_the_cpu_op[dense-1-torch.float16]",),
    ),
    Mutant(
        name="Self backward: the state before a row's first step is another row's",
        file=SELF_BACKWARD,
        old="step + 1 < at.steps && at.active(j, p)",
        new="step + 1 < at.steps",
        tests=(f"{SELF}::test_against_the_cpu_op[packed-0-torch.float16]",),
    ),
    Mutant(
        name="Self backward: weights in shared memory are those of the step before",
        file=SELF_BACKWARD,
        old="spare.get(spare_at(s + 1)).words",
        new="spare.get(spare_at(s)).words",
        tests=(f"{SELF}::test_many_units[0-torch.float32]",),
    ),
    Mutant(
        name="a row of a packed batch is one step shorter",
        file=TABLE,
        old="t < seq.steps ? seq.active(t) : 0",
        new="t + 1 < seq.steps ? seq.active(t + 1) : 0",
        tests=(f"{SELF}::test_against_the_cpu_op[packed-2-torch.float16]",),
    ),
    Mutant(
        name="a table's second part is written over its first",
        file=TABLE,
        old="table + done",
        new="table",
        tests=(f"{SELF}::test_a_table_of_many_parts",),
    ),
    # ---- lengths and resets
    Mutant(
        name="a length beyond the steps is taken as it is",
        file=TABLE,
        old="length < a.steps ? static_cast<int>(length) : a.steps",
        new="static_cast<int>(length)",
        tests=(f"{MASKS}::test_lengths_out_of_range_count_as_the_nearest_bound",),
    ),
    Mutant(
        name="a mark counts in reverse where it counts forwards",
        file=STEPS,
        at="way.reverse() ? t + 1 : t, row",
        old="way.reverse() ? t + 1 : t",
        new="t",
        tests=(f"{MASKS}::test_one_block",),
    ),
    Mutant(
        name="a mark beyond a row's length counts",
        file=STEPS,
        at="return t < length && device::memory::load(marks",
        old="t < length",
        new="t < way.seq.steps",
        tests=(f"{MASKS}::test_one_block",),
    ),
    Mutant(
        name="Self: a block runs for the steps of its first row",
        file="csrc/kernels/cuda/self_block.cuh",
        old="most = most < steps ? steps : most;",
        new="if (i == 0) most = steps;",
        tests=(f"{MASKS}::test_one_block",),
    ),
    Mutant(
        name="Self: a reset leaves c as it is",
        file=SELF_FORWARD,
        old="c[j] = cut[j % 2] ? at.template replacing<S>(a.resets.c, j) : c_now;",
        new="c[j] = c_now;",
        tests=(f"{MASKS}::test_one_block",),
    ),
    Mutant(
        name="Self backward: gradients pass a reset",
        file=SELF_BACKWARD,
        old="if (!replaced[j % 2]) return grad;",
        new="return grad;",
        tests=(f"{MASKS}::test_one_block",),
    ),
    Mutant(
        name="Self backward: a step after a reset began with the row's own state",
        file=SELF_BACKWARD,
        old="if (cut[j % 2]) old = at.template replacing<S>(by, j);",
        new=";",
        tests=(f"{MASKS}::test_one_block",),
    ),
    Mutant(
        name="the loop of one launch leaves y beyond a length as it finds it",
        file="csrc/ops/persistent_cuda.cpp",
        old="torch::stable::zero_(call.out.y);",
        new=";",
        tests=(f"{MASKS}::test_one_block",),
    ),
    # ---- both directions in one launch
    Mutant(
        name="both directions run the same way",
        file=STEPS,
        old="seq.reverse != (number != 0)",
        new="seq.reverse",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="both directions: rows of steps are the first one's",
        file=STEPS,
        old="static_cast<int>(seq.rows - seq.batch)",
        new="-first()",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="both directions: states are the first one's",
        file=STEPS,
        old="number ? static_cast<int>(seq.batch) : 0",
        new="0",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="both directions: the second one has lengths of its own",
        file=STEPS,
        old="seq.length(row - first())",
        new="seq.length(row)",
        tests=(f"{BOTH}::test_lengths_and_resets_of_one_block",),
    ),
    Mutant(
        name="both directions: the second one has marks of its own",
        file=STEPS,
        old="(row - way.first())",
        new="row",
        tests=(f"{BOTH}::test_lengths_and_resets_of_one_block",),
    ),
    Mutant(
        name="Self: both directions multiply by the first one's weights",
        file=SELF_FORWARD,
        at="half % G + at.way.number * G",
        old="at.way.number * G",
        new="0",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="Self: both directions have the first one's b_hn",
        file=SELF_FORWARD,
        at="at.way.number * H + at.unit",
        old="at.way.number * H",
        new="0",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="Self backward: both directions multiply by the first one's weights",
        file=SELF_BACKWARD,
        old="gate + at.way.number * G",
        new="gate",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="Self: there are blocks for one direction alone",
        file="csrc/kernels/cuda/persistent.cu",
        old="args.seq.directions * divide_up(args.seq.batch, kSelfRows)",
        new="divide_up(args.seq.batch, kSelfRows)",
        tests=(f"{BOTH}::test_one_block",),
    ),
    Mutant(
        name="CUDA recurrence: every row has a step before",
        file=CUDA,
        old="r.carried = seq.active(p) < r.active ? seq.active(p) : r.active;",
        new="r.carried = r.active;",
        tests=(f"{DEVICE}[1-False-True-True-torch.float64]",),
    ),
]
