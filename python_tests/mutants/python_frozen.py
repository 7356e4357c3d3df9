"""Mutants of ``fastseq.freeze``: what is packed, who may write, what the packed bytes say."""

from .mutant import Mutant

FROZEN = "fastseq/nn/frozen.py"
READ_ONLY = "fastseq/nn/read_only.py"
OP = "csrc/ops/packed_stack.cpp"
TESTS = "test_freeze.py"

PYTHON_FROZEN = [
    Mutant(
        name="a frozen weight is written to by methods",
        file=READ_ONLY,
        old='return name.endswith("_")',
        new="return False",
        tests=(f"{TESTS}::test_writing_to_a_weight_raises",),
    ),
    Mutant(
        name="a frozen weight is written to through a view",
        file=READ_ONLY,
        old="any(_shares(made, a) for a in args)",
        new="False",
        tests=(f"{TESTS}::test_writing_to_a_weight_raises",),
    ),
    Mutant(
        name="a frozen weight is written to as out=",
        file=READ_ONLY,
        old='if isinstance(kwargs.get("out"), ReadOnly):\n        return True',
        new="",
        tests=(f"{TESTS}::test_writing_to_a_weight_raises",),
    ),
    Mutant(
        name="the state of a frozen module is its memory",
        file=READ_ONLY,
        old="return made.clone()",
        new="return made",
        tests=(f"{TESTS}::test_writing_to_a_weight_raises",),
    ),
    Mutant(
        name="a frozen module that moved keeps its old bytes",
        file=FROZEN,
        old="        finally:\n            self._seal()",
        new="        finally:\n            packed = self._packed\n            self._seal()\n"
        '            vars(self)["_packed"] = packed',
        tests=(f"{TESTS}::test_moving_packs_anew",),
    ),
    Mutant(
        name="a frozen module trains",
        file=FROZEN,
        old="        if mode:\n            raise",
        new="        if False:\n            raise",
        tests=(f"{TESTS}::test_training_raises",),
    ),
    Mutant(
        name="packed bytes travel with a pickle",
        file=FROZEN,
        old='("_packed", "_weights", "_flat_weight_refs")',
        new='("_weights", "_flat_weight_refs")',
        tests=(f"{TESTS}::test_copies_and_pickles_are_frozen_and_packed",),
    ),
    Mutant(
        name="a frozen stack loses a gradient without a word",
        file="fastseq/autograd/_op.py",
        old="        if wants_graph(tensors) or _has_tangent(tensors):\n            raise",
        new="        if False:\n            raise",
        tests=(f"{TESTS}::test_training_raises",),
    ),
    Mutant(
        name="freezing takes the parametrization from the original",
        file=FROZEN,
        old="    module.__class__ = parametrize.type_before_parametrizations(module)\n",
        new="    for name in values:\n        delattr(module.__class__, name)\n"
        "    module.__class__ = parametrize.type_before_parametrizations(module)\n",
        tests=(f"{TESTS}::test_whole_models",),
    ),
]

KERNELS_FROZEN = [
    Mutant(
        name="bytes packed for another instruction set are taken",
        file=OP,
        old="label.capability == static_cast<int32_t>(capability())",
        new="label.capability >= 0",
        tests=(f"{TESTS}::test_weights_that_do_not_fit",),
    ),
    Mutant(
        name="bytes of a larger stack are taken",
        file=OP,
        old="weights.done()",
        new="true",
        tests=(f"{TESTS}::test_weights_that_do_not_fit",),
    ),
    Mutant(
        name="directions are joined the wrong way round",
        file=OP,
        old="join(out, sides, sides + apart, rows, state * bytes);",
        new="join(out, sides + apart, sides, rows, state * bytes);",
        tests=(f"{TESTS}::test_the_same_bits",),
    ),
    Mutant(
        name="a packed GRU has no recurrent bias of n",
        file=OP,
        old="a.cell == Cell::kGru && biases > 0",
        new="a.cell == Cell::kGru && biases > (1 << 30)",
        tests=(f"{TESTS}::test_the_same_bits",),
    ),
    Mutant(
        name="layers of a packed stack write where they read",
        file=OP,
        old="scratch.data() + l % 2 * between",
        new="scratch.data()",
        tests=(f"{TESTS}::test_the_same_bits",),
    ),
]
