"""How the launches of the image kernels are cut into strips, bands and tiles."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import ceil

import pytest
from simt_build import Machine

BENCHMARKS = [
    (128, 96, 55, 55),
    (256, 96, 55, 55),
    (128, 256, 27, 27),
    (256, 256, 27, 27),
    (32, 96, 55, 55),
    (32, 256, 27, 27),
    (8, 64, 112, 112),
    (5, 30, 61, 47),
    (3, 7, 200, 133),
]
OTHERS = [(2, 3, 8, 8), (1, 1, 64, 200), (4, 5, 3, 29), (1, 2, 17, 170), (9, 4, 1000, 3)]
each_shape = pytest.mark.parametrize("shape", [*BENCHMARKS, *OTHERS], ids=str)
each_pack = pytest.mark.parametrize("pack", [4, 8])  # elements in 16 bytes
# Vectors of a thread, and threads of a block at most: of the pool and of the trio.
each_band = pytest.mark.parametrize(
    ("moves", "threads"), [(4, 512), (4, 384)], ids=["pool", "trio"]
)
each_gather = pytest.mark.parametrize(
    ("moves", "threads"), [(4, 512), (2, 384)], ids=["pool", "trio"]
)


@dataclass(frozen=True)
class Plan:
    length: int
    strips: int
    threads: int
    channels: int
    cuts: int
    rows: int
    outputs: int


def plan(
    cases: Machine,
    kind: str,
    pack: int,
    shape: tuple[int, int, int, int],
    moves: int = 2,
    threads: int = 256,
    least: int = 20,
) -> Plan:
    values = (ctypes.c_int32 * 7)()
    sizes = (ctypes.c_int64 * 4)(*shape)
    cases.library.strip_plan(
        kind.encode(), pack, sizes, moves, threads, ctypes.c_int64(least), values
    )
    return Plan(*values)


def vectors(length: int, pack: int) -> int:
    """Of 16 bytes each, that hold so many elements wherever these begin."""
    return max(ceil((shift + length) / pack) for shift in range(pack))


def check_strips(found: Plan, shape: tuple[int, ...], pack: int, moves: int, threads: int) -> None:
    """They cover a plane and its channels, and a block has threads for a strip."""
    _, channels, height, width = shape
    assert (found.strips - 1) * found.length < height * width <= found.strips * found.length
    assert found.threads % 32 == 0
    assert 0 < found.threads <= threads
    assert pack * vectors(found.length, pack) <= moves * found.threads
    assert found.length <= moves * found.threads
    assert (found.cuts - 1) * found.channels < channels <= found.cuts * found.channels


@each_pack
@each_shape
def test_strips_cover_a_plane_and_fit_a_block(
    shape: tuple[int, int, int, int], pack: int, cases: Machine
) -> None:
    check_strips(plan(cases, "LRN", pack, shape), shape, pack, 2, 256)


@each_pack
@each_shape
@each_gather
def test_strips_that_gather_have_room_for_their_outputs(
    moves: int, threads: int, shape: tuple[int, int, int, int], pack: int, cases: Machine
) -> None:
    found = plan(cases, "gather", pack, shape, moves, threads)
    check_strips(found, shape, pack, moves, threads)
    assert pack * vectors(found.outputs, pack) <= found.threads
    _, _, height, width = shape
    for first in range(0, height * width, found.length):
        last = min(first + found.length, height * width) - 1
        top, bottom = first // width, last // width
        # Output o looks at rows 2 o to 2 o + 2.
        lookers = [o for o in range((height - 3) // 2 + 1) if 2 * o <= bottom and 2 * o + 2 >= top]
        assert len(lookers) * ((width - 3) // 2 + 1) <= found.outputs


def cost(loads: int, strips: int, threads: int, moves: int, most: int) -> int:
    """What the strips of a plane cost: loads, and the room that they take of two largest blocks."""
    return 4 * (loads + 16 * strips) + moves * strips * (2 * most // (2 * most // threads))


def band_cost(
    rows: int, shape: tuple[int, int, int, int], pack: int, moves: int, most: int
) -> int | None:
    """Of bands of so many rows of outputs; None where these do not fit a block."""
    _, _, height, width = shape
    out_h, out_w = (height - 3) // 2 + 1, (width - 3) // 2 + 1
    length, strips = (2 * rows + 1) * width, ceil(out_h / rows)
    threads = ceil(pack * ((length + 2 * pack - 2) // pack) / (moves * 32)) * 32
    if length > moves * most - pack + 1 or pack * vectors(rows * out_w, pack) > threads:
        return None
    return cost((2 * out_h + strips) * width, strips, threads, moves, most)


@each_pack
@each_shape
@each_band
def test_no_other_band_costs_less(
    moves: int, threads: int, shape: tuple[int, int, int, int], pack: int, cases: Machine
) -> None:
    out_h = (shape[2] - 3) // 2 + 1
    costs = [band_cost(rows, shape, pack, moves, threads) for rows in range(1, out_h + 1)]
    found = plan(cases, "band", pack, shape, moves, threads)
    assert found.strips == ceil(out_h / found.rows)
    assert band_cost(found.rows, shape, pack, moves, threads) == min(c for c in costs if c)
    assert found.length == (2 * found.rows + 1) * shape[3]
    assert found.threads <= threads


@each_pack
@pytest.mark.parametrize("shape", BENCHMARKS, ids=str)
@each_gather
def test_longer_or_shorter_strips_gather_no_better(
    moves: int, threads: int, shape: tuple[int, int, int, int], pack: int, cases: Machine
) -> None:
    """Of those that cover the plane evenly: one strip more, or one fewer."""
    _, _, height, width = shape
    out_h, out_w = (height - 3) // 2 + 1, (width - 3) // 2 + 1

    def even(strips: int) -> int | None:
        length = ceil(height * width / strips)
        rows = (length + width - 2) // width + 1
        outputs = min((rows - 1) // 2 + 2, out_h) * out_w
        wanted = max(
            ceil(pack * ((length + 2 * pack - 2) // pack) / (moves * 32)),
            ceil(pack * ((outputs + 2 * pack - 2) // pack) / 32),
        )
        if 32 * wanted > threads:
            return None
        return cost(strips * (length + outputs), strips, 32 * wanted, moves, threads)

    found = plan(cases, "gather", pack, shape, moves, threads)
    own = even(found.strips)
    assert own
    for strips in {max(1, found.strips - 1), found.strips + 1}:
        other = even(strips)
        assert other is None or own <= other


@each_pack
@pytest.mark.parametrize("shape", BENCHMARKS, ids=str)
def test_few_threads_idle_on_the_benchmarks(
    shape: tuple[int, int, int, int], pack: int, cases: Machine
) -> None:
    """Of the slots for pixels: a pixel that two bands load is counted as idle once."""
    pixels = shape[2] * shape[3]
    strips = plan(cases, "LRN", pack, shape)
    assert strips.strips * strips.threads * 2 <= 1.08 * pixels
    bands = plan(cases, "band", pack, shape, 4, 384)
    assert bands.strips * bands.threads * 4 <= 1.25 * pixels


@pytest.mark.parametrize("shape", BENCHMARKS, ids=str)
def test_cuts_of_the_channels_read_little_twice(
    shape: tuple[int, int, int, int], cases: Machine
) -> None:
    """LRN backward over five channels: x has eight more for each cut, the gradient four."""
    found = plan(cases, "LRN", 4, shape, least=5)
    channels = shape[1]
    again = (found.cuts - 1) * (8 + 4) / (3 * channels)
    assert again <= 0.08
    blocks = shape[0] * found.strips
    assert found.cuts == 1 or blocks * found.cuts <= 2 * 148


def test_a_single_image_is_cut(cases: Machine) -> None:
    assert plan(cases, "LRN", 4, (1, 96, 55, 55), least=5).cuts == 4
    assert plan(cases, "band", 8, (1, 96, 55, 55), 4, 512, least=16).cuts == 6


def test_planes_too_wide_for_a_band(cases: Machine) -> None:
    assert plan(cases, "band", 4, (1, 1, 9, 511), 4, 384).strips == 4
    assert plan(cases, "band", 4, (1, 1, 9, 512), 4, 384).strips == 0
    assert plan(cases, "gather", 4, (1, 1, 9, 400), 2, 384).strips == 0


def tile(
    cases: Machine, height: int, width: int, most: int, edge: int, team: int
) -> tuple[int, ...]:
    values = (ctypes.c_int64 * 6)()
    sizes = map(ctypes.c_int64, (height, width, most, edge, team))
    cases.library.pool_tile(*sizes, values)
    return tuple(values)


@pytest.mark.parametrize("size", [(55, 55), (27, 27), (112, 112), (61, 47), (200, 133)], ids=str)
@pytest.mark.parametrize(("most", "edge", "team"), [(512, 8, 32), (256, 0, 256), (170, 0, 256)])
def test_no_other_tile_costs_less(
    size: tuple[int, int], most: int, edge: int, team: int, cases: Machine
) -> None:
    outputs = [(n - 3) // 2 + 1 for n in size]

    def cost(oh: int, ow: int) -> int:
        ih, iw = 2 * oh + 1, 2 * ow + 1
        tiles = ceil(outputs[0] / oh) * ceil(outputs[1] / ow)
        return tiles * (ih * (iw + edge) + ceil(ih * iw / team) * team)

    oh, ow, ih, iw, down, across = tile(cases, *size, most, edge, team)
    assert (ih, iw) == (2 * oh + 1, 2 * ow + 1)
    assert ih * iw <= most
    assert (down, across) == (ceil(outputs[0] / oh), ceil(outputs[1] / ow))
    assert cost(oh, ow) == min(
        cost(h, w)
        for h in range(1, outputs[0] + 1)
        for w in range(1, outputs[1] + 1)
        if (2 * h + 1) * (2 * w + 1) <= most
    )


def test_no_tile_has_room(cases: Machine) -> None:
    assert tile(cases, 9, 9, 8, 0, 32)[0] == 0
