"""Mutants of the Python around LRN, pooling and the trio."""

from .mutant import Mutant

LRN = "fastseq/functional/lrn.py"

PYTHON_IMAGES = [
    # ---- the references, which second derivatives run
    Mutant(
        name="reference LRN: the window of backward is not mirrored",
        file="fastseq/reference/lrn.py",
        old="before, after = after, before",
        new="pass",
        tests=("test_lrn.py::test_against_the_reference", "test_lrn.py::test_derivatives"),
    ),
    Mutant(
        name="reference pool: a window without a pixel sends its gradient somewhere",
        file="fastseq/reference/pool.py",
        old="torch.where(inside, x.flatten(-2).gather(-1, index), 0)",
        new="x.flatten(-2).gather(-1, index)",
        tests=("test_pool.py::test_second_derivatives_where_a_window_has_no_pixel",),
    ),
    Mutant(
        name="reference pool: of equal values the last one counts",
        file="fastseq/reference/pool.py",
        old="value > best",
        new="value >= best",
        tests=("test_pool.py::test_against_the_reference",),
    ),
    Mutant(
        name="pool: indices ignore the dilation",
        file="fastseq/reference/pool.py",
        old='place.div(kernel_w, rounding_mode="floor") * window.dilation[0]',
        new='place.div(kernel_w, rounding_mode="floor")',
        tests=("test_pool.py::test_windows[2-False-NCHW]",),
    ),
    Mutant(
        name="reference trio: a gradient passes where x is negative",
        file="fastseq/reference/trio.py",
        old="torch.where(x <= 0, 0, grad)",
        new="grad",
        tests=("test_trio.py::test_against_the_reference",),
    ),
    # ---- functions and modules
    Mutant(
        name="LRN: within a channel, three dimensions are taken",
        file=LRN,
        old="if input.dim() != 4:",
        new="if False:",
        tests=("test_lrn.py::test_mistakes_in_our_words",),
    ),
    Mutant(
        name="LRN: 16-bit types stay narrow under autocast",
        file=LRN,
        old='return input.float() if kind != "cpu" or input.dim() > 3 else input',
        new="return input",
        tests=(
            "test_image_arguments.py::test_dtypes_under_autocast_are_torch_nns",
            "test_image_arguments.py::test_autocast_on_cuda_by_the_lists",
        ),
    ),
    Mutant(
        name="LRN: three dimensions are widened on the CPU, too",
        file=LRN,
        old='kind != "cpu" or input.dim() > 3',
        new="True",
        tests=("test_image_arguments.py::test_dtypes_under_autocast_are_torch_nns",),
    ),
    Mutant(
        name="LRN: numbers that learn are read as floats",
        file=LRN,
        old="not plain and any(isinstance(number, Tensor) for number in (alpha, beta, k))",
        new="False",
        tests=("test_image_arguments.py::test_numbers_that_learn_keep_their_gradient",),
    ),
    Mutant(
        name="trio: numbers that learn are read as floats",
        file="fastseq/functional/trio.py",
        old="        and fixed(alpha, beta, k)\n",
        new="",
        tests=("test_image_arguments.py::test_numbers_that_learn_keep_their_gradient",),
    ),
    Mutant(
        name="LRN: within a channel, learnt numbers keep 16-bit sums",
        file=LRN,
        old="x = input.float() if narrow else input",
        new="x = input",
        tests=("test_image_arguments.py::test_numbers_that_learn_within_a_channel",),
    ),
    Mutant(
        name="LRN: True is a size",
        file=LRN,
        old="return not isinstance(value, bool)",
        new="return True",
        tests=("test_image_arguments.py::test_what_is_no_window_is_refused_in_native_words",),
    ),
    Mutant(
        name="LRN: the module forgets that it is within a channel",
        file="fastseq/nn/lrn.py",
        at="        return functional.local_response_norm(\n"
        "            input, self.size, self.alpha, self.beta, self.k, self.within_channel\n",
        old=", self.within_channel",
        new="",
        tests=("test_lrn.py::test_module_is_the_function",),
    ),
    Mutant(
        name="pool: the function takes any padding",
        file="fastseq/functional/pool.py",
        old="0 <= pad <= kernel // 2",
        new="0 <= pad",
        tests=("test_pool.py::test_mistakes_in_native_words",),
    ),
    Mutant(
        name="pool: a stride left out is 1",
        file="fastseq/functional/pool.py",
        old="        stride = kernel_size\n    pairs",
        new="        stride = 1\n    pairs",
        tests=("test_pool.py::test_sizes_of_outputs",),
    ),
    Mutant(
        name="pool: the module rounds its size down",
        file="fastseq/nn/pool.py",
        at="self.ceil_mode,\n            self.return_indices",
        old="self.ceil_mode",
        new="False",
        tests=("test_pool.py::test_module_is_a_drop_in",),
    ),
    Mutant(
        name="trio: the function takes no ceil_mode",
        file="fastseq/functional/trio.py",
        old="*window, ceil_mode, False",
        new="*window, False, False",
        tests=(
            "test_trio.py::test_bit_by_bit_our_ops_in_a_row"
            "[(5, 0.3, 0.75, 2.0)-(3, 2, 1, 1, True)-torch.float32-NCHW-(3, 1, 4, 4)]",
        ),
    ),
    # ---- shapes for tracing, vmap, ONNX
    Mutant(
        name="fake: LRN's output is never channels_last",
        file="fastseq/ops/lrn.py",
        at="def _fake(x: Tensor, *parameters: Any) -> Tensor:\n"
        "    return new_images(x, x.shape, x.dtype, channels_last(x))",
        old="channels_last(x)",
        new="False",
        tests=("test_image_ops.py::test_opcheck_and_exact_fakes[torch.float32-NHWC]",),
    ),
    Mutant(
        name="fake: a last pooling window may begin beyond the image",
        file="fastseq/ops/pool.py",
        old="(out - 1) * stride >= pixels + padding",
        new="False",
        tests=("test_pool.py::test_sizes_of_outputs",),
    ),
    Mutant(
        name="fake: one channel is channels_last",
        file="fastseq/ops/_common.py",
        old="d == 0 and least == strides[1]",
        new="False",
        tests=("test_image_ops.py::test_memory_formats_are_torchs",),
    ),
    Mutant(
        name="vmap: examples are taken from the first dimension",
        file="fastseq/ops/_common.py",
        old="x.movedim(dim, 0)",
        new="x",
        tests=("test_image_ops.py::test_vmap[1-NCHW-lrn]",),
    ),
    Mutant(
        name="vmap: the trio's gradient has the offsets of the first example",
        file="fastseq/ops/trio.py",
        old="[fold(t, d, size) for t, d in zip((grad_y, offsets, x), in_dims, strict=False)]",
        new="[fold(t, d, size) for t, d in zip((grad_y, offsets[:1].expand_as(offsets), x), "
        "in_dims, strict=False)]",
        tests=("test_image_ops.py::test_vmap[0-NCHW-trio]",),
    ),
    Mutant(
        name="ONNX: LRN's window for an even size is ONNX's",
        file="fastseq/onnx/images.py",
        old="size % 2 == 1 and not within_channel",
        new="not within_channel",
        tests=("test_onnx.py::test_images[torch.float32-2e-06]",),
    ),
    Mutant(
        name="ONNX: offsets ignore the padding",
        file="fastseq/onnx/images.py",
        old="ints(window.padding[side])",
        new="ints(0)",
        tests=("test_onnx.py::test_images[torch.float32-2e-06]",),
    ),
]
