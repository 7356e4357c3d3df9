"""Mutants of ``swap``."""

from .mutant import Mutant

SWAP = "fastseq/swap/__init__.py"
FUSE = "fastseq/swap/fuse.py"
PLACES = "fastseq/swap/places.py"
TWINS = "fastseq/swap/twins.py"
SUBCLASSES = "fastseq/swap/subclasses.py"

PYTHON_SWAP = [
    # ---- which modules
    Mutant(
        name="swap takes modules that only= leaves out",
        file=SWAP,
        old="chooser(model, only,",
        new="chooser(model, None,",
        tests=("test_swap_choices.py::test_only_some_back",),
    ),
    Mutant(
        name="swap fuses modules that only= leaves out",
        file=FUSE,
        old="if not (chosen(names[1], lrn) and chosen(names[2], pool)):",
        new="if False:",
        tests=("test_swap_choices.py::test_only_some",),
    ),
    Mutant(
        name="swap takes a pattern that fits nothing",
        file=PLACES,
        old="not any(fnmatchcase(name, which) for name in names)",
        new="not names",
        tests=("test_swap_choices.py::test_only_what_is_there",),
    ),
    Mutant(
        name="swap explains a shared module at each place",
        file=SWAP,
        old="        if module not in seen:\n            seen[module]",
        new="        if True:\n            seen[module]",
        tests=("test_swap.py::test_a_shared_module_is_explained_once",),
    ),
    Mutant(
        name="swap reports a shared module at its first place alone",
        file=SWAP,
        old="        if module not in seen:\n            seen[module]",
        new="        if module in seen:\n            continue\n        else:\n"
        "            seen[module]",
        tests=("test_swap.py::test_replaces_and_keeps",),
    ),
    Mutant(
        name="swap is silent on what torch.jit compiled",
        file=TWINS,
        old="if isinstance(module, ScriptModule):",
        new="if False:",
        tests=("test_swap_choices.py::test_what_torch_jit_compiled_is_left",),
    ),
    Mutant(
        name="swap takes subclasses that never call torch.nn's forward",
        file=TWINS,
        old="why = subclasses.obstacle(kind, base)",
        new='why = ""',
        tests=("test_swap_choices.py::test_subclasses_by_request",),
    ),
    Mutant(
        name="a swapped subclass is pickled by the class that was made for it",
        file=SUBCLASSES,
        old='"__reduce_ex__": reduce, ',
        new="",
        tests=("test_swap_choices.py::test_subclasses_by_request",),
    ),
    # ---- fusion
    Mutant(
        name="swap fuses across backward hooks",
        file=FUSE,
        old='"state_dict" not in name',
        new='"state_dict" not in name and "backward" not in name',
        tests=("test_swap.py::test_a_hook_of_any_kind_forbids_fusion",),
    ),
    Mutant(
        name="swap fuses a pool that returns indices",
        file=FUSE,
        old="    if pool.return_indices:",
        new="    if False:",
        tests=("test_swap.py::test_what_is_left_and_why",),
    ),
    Mutant(
        name="swap fuses a ReLU in place whose input others read",
        file=FUSE,
        old="relu.inplace and not _fresh(before)",
        new="False",
        tests=("test_swap_choices.py::test_a_relu_in_place_whose_input_others_read",),
    ),
    Mutant(
        name="swap fuses a ReLU in place whose input a hook keeps",
        file=FUSE,
        old="before is None or hooked(before)",
        new="before is None",
        tests=("test_swap_choices.py::test_a_relu_in_place_behind_a_hooked_convolution",),
    ),
    Mutant(
        name="swap fuses an LRN whose numbers learn",
        file=FUSE,
        old="if any(True for _ in lrn.parameters()):",
        new="if False:",
        tests=("test_swap_choices.py::test_numbers_of_a_fused_module_go_back_to_its_parts",),
    ),
    Mutant(
        name="swap puts a trio in training mode",
        file=FUSE,
        old="trio.train(relu.training)",
        new="trio.train()",
        tests=("test_swap.py::test_replaces_and_keeps",),
    ),
    # ---- and back
    Mutant(
        name="swap back: the numbers of a fused module are lost",
        file=FUSE,
        old="setattr(module, name, getattr(trio, name))",
        new="pass",
        tests=("test_swap_choices.py::test_numbers_of_a_fused_module_go_back_to_its_parts",),
    ),
    Mutant(
        name="swap back: the mode of a fused module is lost",
        file=FUSE,
        old="part.train(trio.training)",
        new="pass",
        tests=("test_swap.py::test_back",),
    ),
    Mutant(
        name="swap back takes an LRN within a channel",
        file=TWINS,
        old="isinstance(module, LocalResponseNorm) and module.within_channel",
        new="False",
        tests=(
            "test_swap.py::test_what_is_left_and_why",
            "test_swap.py::test_back_leaves_an_lrn_within_a_channel",
        ),
    ),
    Mutant(
        name="swap back leaves its attribute on an LRN",
        file=TWINS,
        old='vars(module).pop("within_channel", None)',
        new="pass",
        tests=("test_swap.py::test_back",),
    ),
    Mutant(
        name="swap back takes options that torch.nn has not",
        file=TWINS,
        old='return f"torch.nn has no {\', \'.join(options)}" if options else ""',
        new='return ""',
        tests=("test_swap.py::test_what_torch_nn_has_not_stays",),
    ),
    Mutant(
        name="swap: torch.fx traces into what it left whole before",
        file=TWINS,
        old="mark(module, target in BACK)",
        new="pass",
        tests=(
            "test_fx.py::test_modules_are_leaves_where_torch_nns_are",
            "test_fx.py::test_swap_works_on_a_graph",
            "test_fx.py::test_parametrized_and_hooked_modules_are_leaves",
        ),
    ),
    Mutant(
        name="swap: a parametrized module loses what parametrize made",
        file=TWINS,
        old="    if type(module) is not kind:",
        new="    if False:",
        tests=("test_swap.py::test_parametrized_modules_stay_themselves",),
    ),
]
