"""Mutants of the recurrence over many blocks."""

from .mutant import Mutant

MAILBOX = "csrc/kernels/cuda/mailbox.h"
BLOCK = "csrc/kernels/cuda/mailbox_block.cuh"
FORWARD = "csrc/kernels/cuda/mailbox_forward.cuh"
BACKWARD = "csrc/kernels/cuda/mailbox_backward.cuh"
TESTS = "simt/test_mailbox.py"
OPS = "simt/test_mailbox_ops.py"
AGAINST = f"{TESTS}::test_against_the_cpu_op"
RAGGED = f"{TESTS}::test_rows_of_different_lengths"
MASKS = f"{TESTS}::test_lengths_and_resets"
BOTH = "simt/test_both_directions.py"
TOGETHER = f"{BOTH}::test_a_launch_of_many_blocks"
LAUNCHES = f"{TESTS}::test_few_steps_and_many_launches"

KERNELS_MAILBOX = [
    Mutant(
        name="Mailbox: a step hands nothing over",
        file=FORWARD,
        old="hand(slot + me.slot_words(), h_next);",
        new="if (i != 1) hand(slot + me.slot_words(), h_next);",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: gradients go into the slot that their own step reads",
        file=BACKWARD,
        old="slot + me.slot_words()",
        new="slot",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: a launch finds what the last one left",
        file=MAILBOX,
        old="device::empty(words, plan.slot * (count + 1), stream)",
        new="nullptr",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: one word of a fragment stands for both",
        file=BLOCK,
        at="const uint32_t b[2] = {words[i][2 * j], words[i][2 * j + 1]};",
        old="words[i][2 * j]",
        new="words[i][2 * j + 1]",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: a warp waits for the first of its words",
        file=BLOCK,
        old="missing |= device::any_empty(words[i])",
        new="missing |= words[0][0] == device::kEmpty",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: partial sums of all turns lie in one place",
        file=BLOCK,
        old="turn % 2 * Shape::kWarps + warp",
        new="warp",
        tests=(f"{TESTS}::test_the_schedule_changes_nothing",),
    ),
    Mutant(
        name="Mailbox: rows beyond the batch are waited for",
        file=FORWARD,
        old="me.exists(tile, me.g)",
        new="true",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: weights of the upper half of K are those of the lower",
        file=MAILBOX,
        old="j / 2 * Shape::kRow",
        new="0",
        tests=(AGAINST,),
    ),
    Mutant(
        name="Mailbox: its blocks are not launched together",
        file=FORWARD,
        old="device::launch_together(mailbox_forward_kernel<S, C, kHidden, kWarps>, grid, stream,\n"
        "                                       Block(a, chunk))",
        new="device::launch(mailbox_forward_kernel<S, C, kHidden, kWarps>, grid, stream,"
        " Block(a, chunk))",
        tests=(f"{TESTS}::test_the_schedule_changes_nothing",),
    ),
    Mutant(
        name="Mailbox: no room is left to others",
        file=MAILBOX,
        old="room - kMailboxLeftFree",
        new="room",
        tests=(f"{TESTS}::test_who_does_not_fit_is_told",),
    ),
    Mutant(
        name="Mailbox: the second launch begins at the initial state",
        file=FORWARD,
        at="const bool goes_on = takes_part(before, length);",
        old="takes_part(before, length)",
        new="false",
        tests=(LAUNCHES,),
    ),
    Mutant(
        name="Mailbox: a row's last state is that of the last step",
        file=FORWARD,
        at="if (!takes_part(after, length)) {",
        old="length",
        new="longest",
        tests=(RAGGED,),
    ),
    Mutant(
        name="Mailbox: a row that has not begun hands over zeros",
        file=FORWARD,
        old="cell.kept(0)",
        new="active ? cell.kept(0) : 0.0f",
        tests=(RAGGED,),
    ),
    Mutant(
        name="Mailbox: the second launch back takes GRU's n for its recurrent side",
        file=BACKWARD,
        old="C::kSplitsGates && g == 2",
        new="false",
        tests=(LAUNCHES,),
    ),
    Mutant(
        name="Mailbox: a row that ends early has no gradient of h0",
        file=BACKWARD,
        old="!takes_part(now, longest) && !takes_part(before, longest)",
        new="!takes_part(now, longest)",
        tests=(RAGGED,),
    ),
    # ---- lengths and resets
    Mutant(
        name="Mailbox: a tile runs for the steps of its last row",
        file=BLOCK,
        old="longest = longest < length ? length : longest;",
        new="longest = length;",
        tests=(MASKS,),
    ),
    Mutant(
        name="Mailbox: a launch begins with a state that was replaced",
        file=FORWARD,
        old="a.resets.before(me.way, now, cell.row, length)",
        new="i > 0 && a.resets.before(me.way, now, cell.row, length)",
        tests=(MASKS,),
    ),
    Mutant(
        name="Mailbox: a final state is the one that replaced it",
        file=FORWARD,
        old="cell.template store<S>(a.y, h, row);",
        new="cell.template store<S>(a.y, h_next, row);",
        tests=(MASKS,),
    ),
    Mutant(
        name="Mailbox: the gradient of c passes a reset",
        file=BACKWARD,
        at="cell.add(a.grad_reset_c, dc);\n          dc = 0;",
        old="dc = 0;",
        new=";",
        tests=(MASKS,),
    ),
    Mutant(
        name="Mailbox: the gradient of y goes to what replaced the state",
        file=BACKWARD,
        at="cell.add(a.grad_reset_h, dh)",
        old="dh",
        new="dh + grad_y",
        tests=(MASKS,),
    ),
    # ---- both directions in one launch
    Mutant(
        name="Mailbox: there is room for one direction",
        file=MAILBOX,
        at="(seq.directions * plan.blocks)",
        old="seq.directions * plan.blocks",
        new="plan.blocks",
        tests=(f"{BOTH}::test_who_does_not_fit_is_told",),
    ),
    Mutant(
        name="Mailbox: the library asks for room for one direction",
        file="csrc/kernels/cuda/persistent.cu",
        at="= directions",
        old="directions",
        new="1",
        tests=(f"{OPS}::test_a_device_without_room_says_so",),
    ),
    Mutant(
        name="Mailbox: both directions hand over in the same tiles",
        file=BLOCK,
        old="way.number * of_one",
        new="0",
        tests=(TOGETHER,),
    ),
    Mutant(
        name="Mailbox: a step has words for one direction",
        file=BLOCK,
        old="static_cast<int>(seq.directions) * of_one",
        new="of_one",
        tests=(TOGETHER,),
    ),
    Mutant(
        name="Mailbox: both directions have the first one's states",
        file=BLOCK,
        old="me_.way.first() + tile * kMailboxRows",
        new="tile * kMailboxRows",
        tests=(TOGETHER,),
    ),
    Mutant(
        name="Mailbox: both directions hold the first one's weights",
        file=BLOCK,
        old="me.way.number * static_cast<int>(c.blocks)",
        new="0",
        tests=(TOGETHER,),
    ),
    Mutant(
        name="Mailbox: the first direction's weights are packed twice",
        file=MAILBOX,
        old="of_all / blocks",
        new="0",
        tests=(TOGETHER,),
    ),
    Mutant(
        name="Mailbox: both directions have the first one's b_hn",
        file=FORWARD,
        old="cell.template load<S>(a.bias_hn, me.way.number)",
        new="cell.template load<S>(a.bias_hn, 0)",
        tests=(TOGETHER,),
    ),
    # ---- the mailbox in the library
    Mutant(
        name="Mailbox: the table does not say where the last step ends",
        file="csrc/kernels/cuda/sequence_table.cu",
        old="seq.offsets + seq.steps + 1",
        new="seq.offsets + seq.steps",
        tests=(f"{OPS}::test_against_the_cpu_op",),
    ),
    Mutant(
        name="Mailbox: every device has room",
        file="csrc/kernels/cuda/persistent.cu",
        old="return error ? error : persistent_plan(dtype, backward, plan);",
        new="return error ? nullptr : nullptr;",
        tests=(f"{OPS}::test_a_device_without_room_says_so",),
    ),
    Mutant(
        name="Mailbox: a row without a step is nobody's",
        file="csrc/kernels/cuda/persistent.cu",
        old="a.seq.lengths || (a.seq.steps && a.seq.active(0) < a.seq.batch)",
        new="false",
        tests=(f"{OPS}::test_a_row_without_a_step_keeps_its_state",),
    ),
    Mutant(
        name="Mailbox: a packed batch is taken for a dense one",
        file="csrc/kernels/cuda/persistent.cu",
        at="run_mailbox(dtype, a, plan.mailbox, table, mailbox, stream);\n  const SelfForward",
        old="table",
        new="nullptr",
        tests=(f"{OPS}::test_against_the_cpu_op",),
    ),
]
