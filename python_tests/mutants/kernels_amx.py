"""Mutants of the tiles for bfloat16, which tests run over an emulated tile unit."""

from .mutant import Mutant

AMX = "csrc/kernels/cpu/amx.h"
TRANSPOSED = "csrc/kernels/cpu/transposed_product.h"
TESTS = "amx/test_amx.py"
PRODUCTS = f"{TESTS}::test_products_are_a_plain_loop"
ALL_ROWS = f"{TESTS}::test_products_over_all_rows"

KERNELS_AMX = [
    Mutant(
        name="Tiles: rows of the state lie a line apart",
        file=AMX,
        at="kPacked ? TileUnit::kLine : stride * 2",
        old="stride * 2",
        new="TileUnit::kLine",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: groups of a panel are one vector wide",
        file=AMX,
        old="static_cast<int64_t>(sizeof...(v)) * TileUnit::kLine",
        new="TileUnit::kLine",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: the rest of the inner dimension is dropped",
        file=AMX,
        at="if (rest > 0) {\n      if (whole",
        old="rest > 0",
        new="false",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: sums begin with those of the tile before",
        file=AMX,
        old="(tile::zero<v>(), ...);",
        new=";",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: sums begin at zero where they should go on",
        file=AMX,
        old="(tile::load<v>(out + v * 16, pitch), ...);",
        new="(tile::zero<v>(), ...);",
        tests=(f"{TESTS}::test_sums_go_on_from_what_they_were",),
    ),
    Mutant(
        name="Tiles: no shapes are loaded",
        file=AMX,
        old="tile::configure(&shapes);",
        new=";",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: shapes stay those of the first rows",
        file=AMX,
        at="rows == rows_ && (rest",
        old="rows == rows_",
        new="rows_ > 0",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: nobody gives them back",
        file=AMX,
        at="if (rows_ > 0) tile::release()",
        old="rows_ > 0",
        new="false",
        tests=(PRODUCTS,),
    ),
    Mutant(
        name="Tiles: the rest of packed rows lies as far apart as whole lines",
        file=AMX,
        at="kPacked ? rest * 4 :",
        old="rest * 4",
        new="TileUnit::kLine",
        tests=(ALL_ROWS,),
    ),
    Mutant(
        name="Tiles: packed groups of a row are not side by side",
        file=TRANSPOSED,
        old="turn_groups(block, g1 - g0, width, at)",
        new="turn_groups(block, width, g1 - g0, at)",
        tests=(ALL_ROWS,),
    ),
]
