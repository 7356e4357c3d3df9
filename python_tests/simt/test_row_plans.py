"""How the launches of the channels_last kernels are cut, and where their blocks begin in memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import ceil

import pytest
from simt_build import Machine
from test_plans import BENCHMARKS, OTHERS, vectors

KINDS = ("pool", "pool backward", "trio", "trio backward")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_pack = pytest.mark.parametrize("pack", [4, 8])  # elements in 16 bytes
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Plan:
    columns: int
    tiles: int
    rows: int
    bands: int
    channels: int
    groups: int
    threads: int
    bytes: int


@dataclass(frozen=True)
class Needs:
    vectors: int
    moves: int
    threads: int
    bytes: int


def is_flat(shape: Shape, pack: int) -> bool:
    return shape[1] % pack != 0


def plan(cases: Machine, kind: str, pack: int, shape: Shape, padding: int = 0) -> Plan:
    values = (ctypes.c_int32 * 8)()
    sizes = (ctypes.c_int64 * 4)(*shape)
    flat = ctypes.c_bool(is_flat(shape, pack))
    cases.library.row_plan(kind.encode(), pack, flat, sizes, ctypes.c_int64(padding), values)
    return Plan(*values)


def steps(kind: str, size: int, padding: int = 0) -> int:
    """Along a side: outputs, or pairs of pixels."""
    return (size + padding + 1) // 2 if "backward" in kind else (size + 2 * padding - 3) // 2 + 1


def needs(kind: str, pack: int, flat: bool, columns: int, channels: int) -> Needs:
    """What a tile takes, counted anew: vectors and bytes of the parts of a row that it moves."""

    def row(pixels: int) -> int:
        return vectors(pixels * channels, pack) if flat else pixels * channels // pack

    size = 16 // pack  # bytes of an element
    trio, backward = kind.startswith("trio"), kind.endswith("backward")
    if not backward:
        moved, moves = 2 * row(2 * columns + 1), ceil(20 / pack)
        threads = max(ceil(columns * channels / 4), row(columns), ceil(moved / moves))
        room = 2 * pack * (row(2 * columns + 1) * size * (1 + trio))
        room += 2 * pack * row(columns) * (size + 1) * flat
    else:
        pixels, moved, moves = 2 * row(2 * columns), row(columns + 1), 1 if flat else 8 // pack
        own = 1 if flat else 16 // pack
        quads = columns * channels // (1 if flat else 4)
        threads = max(quads, ceil(moved / moves), ceil(pixels / own))
        room = 2 * pack * row(columns + 1) * (size + 1) + pack * pixels * size * flat
        if trio:
            moved, moves = moved + pixels, moves + own
            room += pack * pixels * (size + 4)
    return Needs(moved, moves, 32 * ceil(threads / 32), room)


@each_kind
@each_pack
@pytest.mark.parametrize("shape", [*BENCHMARKS, *OTHERS, (1, 832, 14, 14)], ids=str)
def test_no_other_tile_of_columns_costs_less(
    kind: str, shape: Shape, pack: int, cases: Machine
) -> None:
    flat, across = is_flat(shape, pack), steps(kind, shape[3])

    def cost(columns: int, channels: int) -> int | None:
        tile = needs(kind, pack, flat, columns, channels)
        if tile.threads > 256 or tile.bytes > 48 * 1024:
            return None
        tiles = ceil(across / columns)
        last = needs(kind, pack, flat, across - (tiles - 1) * columns, channels)
        moved = (tiles - 1) * tile.vectors + last.vectors
        return ceil(shape[1] / channels) * (4 * moved + tiles * tile.moves * tile.threads)

    groups = {shape[1]}
    if kind.startswith("pool") and not flat:
        groups |= {size for size in (32, 64, 128, 256, 512, 1024) if size < shape[1]}
    costs = [cost(columns, size) for columns in range(1, across + 1) for size in groups]
    found = plan(cases, kind, pack, shape)
    assert cost(found.columns, found.channels) == min(cost for cost in costs if cost)
    tile = needs(kind, pack, flat, found.columns, found.channels)
    assert (found.threads, found.bytes) == (tile.threads, tile.bytes)


@each_kind
@each_pack
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shape", [*BENCHMARKS, *OTHERS], ids=str)
def test_tiles_bands_and_groups_cover_an_image(
    kind: str, shape: Shape, padding: int, pack: int, cases: Machine
) -> None:
    found = plan(cases, kind, pack, shape, padding)
    for size, count, whole in (
        (found.columns, found.tiles, steps(kind, shape[3], padding)),
        (found.rows, found.bands, steps(kind, shape[2], padding)),
        (found.channels, found.groups, shape[1]),
    ):
        assert (count - 1) * size < whole <= count * size


@each_kind
@each_pack
@pytest.mark.parametrize("shape", BENCHMARKS, ids=str)
def test_tiles_read_little_twice_on_the_benchmarks(
    kind: str, shape: Shape, pack: int, cases: Machine
) -> None:
    found, size = plan(cases, kind, pack, shape), 16 / pack
    inputs, outputs = shape[2] * shape[3], ((shape[2] - 1) // 2) * ((shape[3] - 1) // 2)
    if "backward" in kind:  # a row and a column of outputs more on one side
        again = (size + 1) * ((found.bands - 1) * outputs / found.rows / found.bands)
        again += (size + 1) * (found.tiles - 1) * outputs / found.columns / found.tiles
    else:
        again = size * ((found.bands - 1) * shape[3] + (found.tiles - 1) * shape[2])
    tensors = {"pool": 1, "pool backward": 1, "trio": 1, "trio backward": 2}[kind]
    assert again <= 0.10 * (tensors * size * inputs + (size + 1) * outputs)


def test_a_single_image_is_cut_into_bands(cases: Machine) -> None:
    assert plan(cases, "pool", 4, (1, 96, 55, 55)).bands == 3
    assert plan(cases, "trio", 4, (128, 96, 55, 55)).bands == 1


@pytest.mark.parametrize(("pack", "most"), [(4, 852), (8, 1024)])
def test_the_trio_has_room_for_so_many_channels(pack: int, most: int, cases: Machine) -> None:
    """As ``fastseq.explain`` says, forward; beyond, the kernels for any window serve."""
    assert plan(cases, "trio", pack, (1, most, 9, 9)).threads
    assert not plan(cases, "trio", pack, (1, most + pack, 9, 9)).threads


def test_no_block_has_room(cases: Machine) -> None:
    assert plan(cases, "trio", 4, (1, 4096, 9, 9)).threads == 0
    assert plan(cases, "trio backward", 8, (1, 2047, 9, 9)).threads == 0
    assert plan(cases, "pool backward", 4, (1, 2047, 9, 9)).threads == 0
    assert plan(cases, "pool", 4, (1, 1 << 18, 9, 9)).channels == 32


def place_of_block(
    cases: Machine, kind: str, shape: Shape, last: bool, block: int
) -> tuple[int, ...]:
    """Image, first element of x and of the outputs, and the number of blocks."""
    values = (ctypes.c_int64 * 4)()
    sizes = (ctypes.c_int64 * 4)(*shape)
    cases.library.place_of_block(
        kind.encode(), sizes, ctypes.c_bool(last), ctypes.c_int64(block), values
    )
    return tuple(values)


LARGE = [(2050, 64, 128, 129), (40000, 96, 55, 55), (3, 64, 8191, 8193), (1, 32, 20001, 20003)]


# A pool's band has room for three rows of at most so many pixels; wider images go another way.
WIDEST_BAND = 680
STRIPS = [
    (kind, s) for kind in ("LRN", "band") for s in LARGE if kind == "LRN" or s[3] <= WIDEST_BAND
]


@pytest.mark.parametrize(("kind", "shape"), STRIPS, ids=str)
def test_strips_beyond_two_to_the_31_elements(kind: str, shape: Shape, cases: Machine) -> None:
    """Blocks go image by image, cut by cut and strip by strip: the first of each is asked."""
    images, channels, height, width = shape
    assert images * channels * height * width > 2**31
    blocks = place_of_block(cases, kind, shape, False, 0)[3]
    assert blocks % images == 0
    out = ((height - 3) // 2 + 1) * ((width - 3) // 2 + 1)
    for image in {0, 1, images // 2, images - 1} & set(range(images)):
        found = place_of_block(cases, kind, shape, False, image * (blocks // images))
        x = image * channels * height * width
        assert found[:2] == (image, x)
        if kind == "band":
            assert found[2] == image * channels * out


@each_kind
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_rows_beyond_two_to_the_31_elements(kind: str, shape: Shape, cases: Machine) -> None:
    images, channels, height, width = shape
    found = plan(cases, kind, 8, shape)
    out_h, out_w = (height - 3) // 2 + 1, (width - 3) // 2 + 1
    blocks = images * found.bands * found.tiles * found.groups
    for block in {0, 1, blocks // 2, blocks // 3, blocks - 1}:
        rest, group = divmod(block, found.groups)
        rest, tile = divmod(rest, found.tiles)
        image, band = divmod(rest, found.bands)
        row, column, channel = band * found.rows, tile * found.columns, group * found.channels
        x = ((image * height + 2 * row) * width + 2 * column) * channels + channel
        y = ((image * out_h + row) * out_w + column) * channels + channel
        assert place_of_block(cases, kind, shape, True, block) == (image, x, y, blocks)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_elements_beyond_two_to_the_31(shape: Shape, last: bool, cases: Machine) -> None:
    images, channels, height, width = shape
    values = (ctypes.c_int64 * 4)()
    for place in (
        (images - 1, channels - 1, height - 1, width - 1),
        (images - 1, channels // 2, height // 3, width // 5),
        (images // 2, 0, height - 1, 1),
    ):
        n, c, h, w = place
        pixel = h * width + w
        element = (n * height * width + pixel) * channels + c
        if not last:
            element = (n * channels + c) * height * width + pixel
        sizes = (ctypes.c_int64 * 4)(*shape)
        cases.library.place_of_element(sizes, ctypes.c_bool(last), ctypes.c_int64(element), values)
        assert tuple(values) == place
