"""Mutants of the kernels of LRN, pooling and the trio, and of the ops around them."""

from .mutant import Mutant

CPU = "csrc/kernels/cpu"
CUDA = "csrc/kernels/cuda"
SHARED = "csrc/kernels/images.h"
CALL = "csrc/ops/images_call.h"

EVEN = tuple(
    f"test_lrn.py::test_windows[4-0.75-{form}-{kind}]"
    for form in ("NCHW", "NHWC")
    for kind in ("across", "within")
)
POOLS = (
    "test_pool.py::test_shapes[(3, 2)-torch.float32-NCHW-(2, 7, 5, 9)]",
    "test_pool.py::test_shapes[(3, 2)-torch.float32-NHWC-(2, 7, 5, 9)]",
    "test_pool.py::test_shapes[(3, 2, 1, 1, True)-torch.float32-NCHW-(2, 7, 5, 9)]",
)
TRIO = "test_trio.py::test_bit_by_bit_every_parameter[(5, 0.3, 0.75, 2.0)-(3, 2)-torch.{}]"

STRIPS = ("simt/test_lrn_cuda.py::test_ends_of_blocks",)

KERNELS_IMAGES = [
    # ---- LRN
    Mutant(
        name="LRN: any beta near 0.75 is 0.75",
        file=f"{CPU}/lrn_power.h",
        at="if (beta == 0.75)",
        old="beta == 0.75",
        new="beta > 0.7 && beta < 0.8",
        tests=("test_lrn.py::test_betas_beside_the_quick_ones",),
    ),
    Mutant(
        name="LRN: any beta near 0.75 is 0.75 over 5 channels",
        file=f"{CPU}/lrn_walk.h",
        old="lrn.beta == 0.75",
        new="lrn.beta > 0.7 && lrn.beta < 0.8",
        tests=("test_lrn.py::test_betas_beside_the_quick_ones",),
    ),
    Mutant(
        name="LRN: any beta near 0.5 is 0.5",
        file=f"{CPU}/lrn_power.h",
        old="beta == 0.5",
        new="beta > 0.4 && beta < 0.6",
        tests=("test_lrn.py::test_betas_beside_the_quick_ones",),
    ),
    Mutant(
        name="LRN: a power that is no root loses its last step in backward",
        file=f"{CPU}/lrn_power.h",
        old="q = f / s;",
        new="q = f;",
        tests=("test_lrn.py::test_windows[3-0.6-NCHW-across]",),
    ),
    Mutant(
        name="LRN: an even window is longer to the right",
        file=SHARED,
        at="before() const { return size / 2; }",
        old="size / 2",
        new="(size - 1) / 2",
        tests=EVEN,
    ),
    Mutant(
        name="LRN: alpha is divided by n within a channel too",
        file=SHARED,
        old="within_channel ? size * size : size",
        new="size",
        tests=EVEN,
    ),
    Mutant(
        name="LRN: backward has half of the window's part",
        file=f"{CPU}/lrn_walk.h",
        old="2 * w.scale() * w.beta",
        new="w.scale() * w.beta",
        tests=EVEN,
    ),
    Mutant(
        name="LRN: the window of backward is not mirrored",
        file=f"{CPU}/lrn_walk.h",
        at="term_sum(terms, c - lrn.after, lrn.size)",
        old="c - lrn.after",
        new="c - lrn.before",
        tests=EVEN,
    ),
    Mutant(
        name="LRN: channels_last backward is NaN where k is 0",
        file=f"{CPU}/lrn_walk.h",
        old="for (int64_t i = channels - c; i < L; ++i) term[i] = 0;",
        new=";",
        tests=("test_lrn.py::test_without_a_constant",),
    ),
    Mutant(
        name="LRN: the last channels have no window ahead",
        file=f"{CPU}/lrn_walk.h",
        at="for (int64_t j = 0; j < lrn.after && j < channels; ++j) {\n"
        "    A* const to = squares.row(j);\n"
        "    for (int64_t p = 0; p < pixels; p += L) {\n"
        "      const V v = Kind::input(x + j * channel_stride + p, pixels - p);\n"
        "      store<A>(to + p, v * v);\n"
        "    }\n"
        "  }\n"
        "  for (int64_t c = 0; c < channels; ++c) {",
        old="j < lrn.after && j < channels",
        new="j < lrn.after - 1 && j < channels",
        tests=EVEN,
    ),
    Mutant(
        name="LRN within: a row of squares begins with terms of the last one",
        file=f"{CPU}/lrn_within.cpp",
        old="for (int64_t e = 0; e < shape.before; ++e) row[e] = 0;",
        new=";",
        tests=EVEN,
    ),
    Mutant(
        name="LRN within: the window is not mirrored down the rows",
        file=f"{CPU}/lrn_within.cpp",
        at="term_sums, h - lrn.after, lrn.size",
        old="h - lrn.after",
        new="h - lrn.before",
        tests=EVEN,
    ),
    # ---- pooling
    Mutant(
        name="pool: of equal values down the rows the last one counts",
        file=f"{CPU}/pool_vectors.h",
        at="const auto better = (candidate > value) | (candidate != candidate);",
        old="candidate > value",
        new="candidate >= value",
        tests=POOLS,
    ),
    Mutant(
        name="pool: of equal values along a row the last one counts",
        file=f"{CPU}/pool_vectors.h",
        old="candidate > best.value",
        new="candidate >= best.value",
        tests=POOLS,
    ),
    Mutant(
        name="pool: NaN is passed over",
        file=f"{CPU}/pool_vectors.h",
        at="__builtin_expect(any_nan(sum), 0)",
        old="any_nan(sum)",
        new="false",
        tests=("test_pool.py::test_nan_and_infinities[torch.float32-NCHW]",),
    ),
    Mutant(
        name="pool: of a window of many places, the next lie a byte further",
        file=f"{CPU}/pool_vectors.h",
        old="wide ? 4 * n : n",
        new="n",
        tests=("test_pool.py::test_windows_of_many_places[torch.float32-1-(17, 16)-NCHW]",),
    ),
    Mutant(
        name="pool: the places of a padded, dilated window are off",
        file=SHARED,
        old="(-s + dilation - 1) / dilation",
        new="-s",
        tests=("test_pool.py::test_windows[2-False-NHWC]",),
    ),
    Mutant(
        name="pool: the last row of a window has no gradient",
        file=SHARED,
        old="(reach + stride - 1) / stride",
        new="reach / stride + 1",
        tests=POOLS,
    ),
    Mutant(
        name="pool: a plane takes gradients of the one before",
        file=f"{CPU}/pool.cpp",
        old="walk.forget();",
        new=";",
        tests=POOLS,
    ),
    Mutant(
        name="pool: of more than 64 windows over a pixel the last ones count",
        file=f"{CPU}/pool_gradient.h",
        old="begun = true;",
        new=";",
        tests=("test_pool.py::test_windows_of_many_places[torch.float32-1-(16, 16)-NHWC]",),
    ),
    Mutant(
        name="pool: a last window may begin beyond the image",
        file=CALL,
        old="(out - 1) * stride >= pixels + padding",
        new="false",
        tests=("test_pool.py::test_windows[1-True-NCHW]",),
    ),
    Mutant(
        name="pool: a window of 256 places has wide offsets",
        file=SHARED,
        old="places() > 256",
        new="places() > 255",
        tests=("test_pool.py::test_windows_of_many_places[torch.float32-1-(16, 16)-NCHW]",),
    ),
    Mutant(
        name="pool: half of a window and more may be padding",
        file=CALL,
        old="padding <= kernel / 2",
        new="padding <= kernel",
        tests=("test_pool.py::test_raw_op_checks_its_arguments",),
    ),
    Mutant(
        name="images: channels_last is not noticed",
        file=CALL,
        at="return t;\n  return torch::stable::contiguous(t, format_of(t.dim(), channels_last));",
        old="format_of(t.dim(), channels_last)",
        new="MemoryFormat::Contiguous",
        tests=POOLS,
    ),
    # ---- the trio
    Mutant(
        name="trio: what is pooled is not rounded",
        file=f"{CPU}/trio.cpp",
        at="store<A>(band + p, rounded_to<A, S>(v))",
        old="rounded_to<A, S>(v)",
        new="v",
        tests=(TRIO.format("bfloat16-NCHW"),),
    ),
    Mutant(
        name="trio: the pool's gradient is not rounded",
        file=f"{CPU}/trio.cpp",
        old="rounded_to<A, S>(load<A>(band + p))",
        new="load<A>(band + p)",
        tests=(TRIO.format("bfloat16-NCHW"),),
    ),
    Mutant(
        name="trio: a gradient passes where x is negative",
        file=f"{CPU}/lrn_walk.h",
        at="emit(c, p, Kind::kRelu ? VecMath::relu_gradient(own, dx) : dx)",
        old="Kind::kRelu ? VecMath::relu_gradient(own, dx) : dx",
        new="dx",
        tests=(TRIO.format("float32-NCHW"),),
    ),
    Mutant(
        name="trio: any beta near 0.75 is 0.75",
        file=f"{CPU}/trio.cpp",
        at="a.lrn.beta == 0.75 && a.lrn.size == 5",
        old="a.lrn.beta == 0.75",
        new="a.lrn.beta > 0.7 && a.lrn.beta < 0.8",
        tests=("test_trio.py::test_betas_beside_the_quick_one",),
    ),
    Mutant(
        name="trio: a band lacks its last row",
        file=f"{CPU}/trio.cpp",
        at="h.start(last - 1) + (h.kernel - 1) * h.dilation + 1",
        old="(h.kernel - 1) * h.dilation + 1",
        new="(h.kernel - 1) * h.dilation",
        tests=(TRIO.format("float32-NHWC"),),
    ),
    # ---- CUDA, on the machine of simt/
    Mutant(
        name="CUDA LRN: the window's part of the gradient has the other sign",
        file=f"{CUDA}/lrn.h",
        old="Math::fma(-slope * x, sum, gp)",
        new="Math::fma(slope * x, sum, gp)",
        tests=("simt/test_lrn_cuda.py::test_sequences_and_volumes",),
    ),
    Mutant(
        name="CUDA LRN within: the window of backward is not mirrored",
        file=f"{CUDA}/lrn_within.cuh",
        old="corner.index(a.images, tile, r - after, q - after * tc)",
        new="corner.index(a.images, tile, r - before, q - before * tc)",
        tests=("simt/test_lrn_cuda.py::test_every_size",),
    ),
    Mutant(
        name="CUDA pool: of equal values the last one counts",
        file=f"{CUDA}/pooling.h",
        old="v > value || v != v",
        new="v >= value || v != v",
        tests=("simt/test_pool_cuda.py::test_ties_nan_and_minus_infinity",),
    ),
    Mutant(
        name="CUDA trio: what is pooled is not rounded",
        file=f"{CUDA}/trio_planes.cuh",
        old="device::round_to<S>(y)",
        new="y",
        tests=("simt/test_trio_cuda.py::test_every_window",),
    ),
    # ---- CUDA, strips
    Mutant(
        name="CUDA strip: planes of odd size begin alike",
        file=f"{CUDA}/strip.cuh",
        old="(start_ + k * step_) & (V - 1)",
        new="start_ & (V - 1)",
        tests=STRIPS,
    ),
    Mutant(
        name="CUDA strip: where the tensor begins is not asked",
        file=f"{CUDA}/strip.cuh",
        old="static_cast<int64_t>(reinterpret_cast<uintptr_t>(at.tensor) / sizeof(T))",
        new="int64_t{0}",
        tests=("simt/test_lrn_cuda.py::test_memory_that_starts_anywhere",),
    ),
    Mutant(
        name="CUDA strip: the elements behind the last whole vector lack one",
        file=f"{CUDA}/strip.cuh",
        old="2 * V - end <= whole",
        new="2 * V - end < whole",
        tests=STRIPS,
    ),
    Mutant(
        name="CUDA strip: the elements before the first whole vector are left out",
        file=f"{CUDA}/strip.cuh",
        old="shift(k) && whole < V",
        new="false",
        tests=STRIPS,
    ),
    Mutant(
        name="CUDA rows: a part that is shorter than a vector writes beyond its end",
        file=f"{CUDA}/rows.cuh",
        at="lane < length ? lane : -1",
        old="lane < length",
        new="true",
        tests=("simt/test_pool_cuda.py::test_images_of_every_shape",),
    ),
    Mutant(
        name="CUDA strip: a vector in which the tensor ends is zeros",
        file=f"{CUDA}/strip.cuh",
        old="memory_.set(to_element + i, device::memory::load(at_.tensor + e + i));",
        new=";",
        tests=STRIPS,
    ),
    Mutant(
        name="CUDA strip: a cut of the channels begins without those before it",
        file=f"{CUDA}/lrn_strip.cuh",
        old="at_least(walk.from - kBefore, 0)",
        new="walk.from",
        tests=STRIPS,
    ),
    Mutant(
        name="CUDA strip: a cut of the channels begins backward too late",
        file=f"{CUDA}/lrn_strip.cuh",
        old="walk.from ? N - 1 : 0",
        new="walk.from ? 1 : 0",
        tests=STRIPS,
    ),
    Mutant(
        name="CUDA strip: the output below has a place one row too high",
        file=f"{CUDA}/pool_strip.cuh",
        old="place - 6",
        new="place - 3",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA strip: the outputs of a strip's last row are not staged",
        file=f"{CUDA}/pool_strip.cuh",
        old="window.h.highest(bottom)",
        new="window.h.highest(top)",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA strip: outputs that only a strip's second row takes from are not staged",
        file=f"{CUDA}/pool_strip.cuh",
        old="window.h.lowest(top + 1) > row",
        new="true",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA strip: outputs that only a strip's last row but one takes from are not staged",
        file=f"{CUDA}/pool_strip.cuh",
        old="window.h.highest(bottom - 1) < last_row",
        new="true",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA strip: a band lacks its last row",
        file=f"{CUDA}/pool_strip.cuh",
        old="window.h.start(oh + rows - 1) + 3",
        new="window.h.start(oh + rows - 1) + 2",
        tests=("simt/test_trio_cuda.py::test_ends_of_tiles",),
    ),
    Mutant(
        name="CUDA strip: a plane's last band is left out",
        file=f"{CUDA}/strip_plan.h",
        old="static_cast<int>(divide_up(window.h.out, rows))",
        new="static_cast<int>(window.h.out / rows)",
        tests=("simt/test_plans.py::test_no_other_band_costs_less",),
    ),
    # ---- CUDA, channels_last
    Mutant(
        name="CUDA LRN: a window goes on into the next pixel",
        file=f"{CUDA}/lrn_last.cuh",
        old="c + i - before >= channels",
        new="false",
        tests=("simt/test_lrn_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA rows: all of a flat image begin alike",
        file=f"{CUDA}/rows.cuh",
        old="(tensor + at_.start + h * at_.pitch) & (V - 1)",
        new="(tensor + at_.start) & (V - 1)",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA rows: a window's last row is not the next one's first",
        file=f"{CUDA}/pool_rows.cuh",
        old="offer(m, top, 0);",
        new=";",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA rows: a band lacks its last row",
        file=f"{CUDA}/pool_rows.cuh",
        old="window.h.start(walk.to - 1) + 3",
        new="window.h.start(walk.to - 1) + 2",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA rows: the outputs above look at a quad with their middle row",
        file=f"{CUDA}/pool_rows.cuh",
        old="(below ? row : 2) * 3",
        new="(below ? row : 1) * 3",
        tests=("simt/test_pool_cuda.py::test_ends_of_blocks",),
    ),
    Mutant(
        name="CUDA rows: a band begins without the outputs above it",
        file=f"{CUDA}/pool_rows.cuh",
        old="fetch(walk_.from - 1);",
        new=";",
        tests=("simt/test_pool_cuda.py::test_images_of_every_shape",),
    ),
    Mutant(
        name="CUDA rows: LRN's window goes on into the next pixel",
        file=f"{CUDA}/trio_rows.cuh",
        old="c + V < channels",
        new="true",
        tests=("simt/test_trio_cuda.py::test_ends_of_tiles",),
    ),
    Mutant(
        name="CUDA trio: neighbours of two pixels take one's gradients",
        file=f"{CUDA}/trio_tile.cuh",
        old="images.channels % V == 0",
        new="true",
        tests=("simt/test_trio_cuda.py::test_every_size",),
    ),
]
