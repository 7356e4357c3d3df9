"""What the image kernels move, counted by the SIMT machine, under ceilings.

It counts and does not time: the bytes that lanes ask for and the 32-byte sectors that their warps'
requests touch, each over the least that the op's tensors need; the lanes that have nothing to do in
a request; the wavefronts of shared memory over those without a conflict of banks; and requests of
memory for 32 elements of the input. ``python python_tests/simt/test_traffic.py`` prints the table.

The planes are those of the benchmarks, odd as they are, of few images and channels; channels_last
keeps the channels and, of the larger ones, fewer pixels.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import pytest
import torch
from simt_build import Machine, Moved
from simt_cases import SIMT, Lrn, Pool, images
from torch import Tensor

PLANES, LAST = torch.contiguous_format, torch.channels_last
# By the plane of the benchmark's shape: what stands for it in NCHW and in channels_last.
SHAPES = {
    "55 x 55": ((1, 8, 55, 55), (1, 96, 11, 55)),
    "27 x 27": ((1, 8, 27, 27), (1, 256, 11, 27)),
    "112 x 112": ((1, 8, 112, 112), (1, 64, 9, 112)),
    "61 x 47": ((1, 8, 61, 47), (1, 30, 17, 47)),
    "200 x 133": ((1, 7, 200, 133), (1, 7, 40, 133)),
}
LRN, POOL = Lrn(), Pool()


@dataclass(frozen=True)
class Traffic:
    """Ratios of one launch."""

    bytes: float
    sectors: float
    idle: float
    wavefronts: float
    requests: float

    def __str__(self) -> str:
        return (
            f"{self.bytes:5.2f} {self.sectors:8.2f} {self.idle:7.1%} {self.wavefronts:9.2f}"
            f" {self.requests:9.1f}"
        )


def traffic(moved: dict[str, Moved], tensors: Sequence[Tensor], elements: int) -> Traffic:
    """Of a launch that has to read or write each of these tensors once."""
    outside = [sum_ for kind, sum_ in moved.items() if not kind.startswith("shared")]
    inside = [sum_ for kind, sum_ in moved.items() if kind.startswith("shared")]
    requests = sum(m.requests for m in moved.values())
    return Traffic(
        bytes=sum(m.bytes for m in outside) / sum(t.nbytes for t in tensors),
        sectors=sum(m.units for m in outside) / sum(math.ceil(t.nbytes / 32) for t in tensors),
        idle=1 - sum(m.lanes for m in moved.values()) / (32 * requests),
        wavefronts=sum(m.units for m in inside) / max(1, sum(m.least for m in inside)),
        requests=32 * requests / elements,
    )


def lrn_forward(x: Tensor) -> tuple[Tensor, ...]:
    return x, SIMT.local_response_norm(x, *LRN.parameters, False)


def lrn_backward(x: Tensor) -> tuple[Tensor, ...]:
    return x, x, SIMT.local_response_norm_backward(x, x, *LRN.parameters, False)


def pool_forward(x: Tensor) -> tuple[Tensor, ...]:
    return x, *SIMT.max_pool2d(x, *POOL.window, False, True)


def trio_forward(x: Tensor) -> tuple[Tensor, ...]:
    return x, *SIMT.relu_lrn_max_pool2d(x, *LRN.parameters, *POOL.window, False, True)


def pool_backward(x: Tensor) -> tuple[Tensor, ...]:
    _, y, offsets = pool_forward(x)
    last = not x.is_contiguous()
    grad_x = SIMT.max_pool2d_backward(y, offsets, *x.shape[-2:], last, *POOL.window)
    return y, offsets, grad_x


def trio_backward(x: Tensor) -> tuple[Tensor, ...]:
    _, y, offsets = trio_forward(x)
    grad_x = SIMT.relu_lrn_max_pool2d_backward(y, offsets, x, *LRN.parameters, *POOL.window)
    return y, offsets, x, grad_x


# Each ends in the launch that is counted; a backward op runs forward before it.
OPS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "LRN": lrn_forward,
    "LRN backward": lrn_backward,
    "pool": pool_forward,
    "pool backward": pool_backward,
    "trio": trio_forward,
    "trio backward": trio_backward,
}


@dataclass(frozen=True)
class Ceiling:
    """What a launch may cost at most, and why it is more than the usual."""

    bytes: float = 1.10
    sectors: float = 1.15
    idle: float = 0.10
    why: str = ""


LANES = (
    "a thread has an output: 169 are five warps and nine lanes, 230 seven and six. Of a stage's"
    " four planes together 169 are 22 warps instead of 24, but with a look-up beside nine loads:"
    " 220 requests instead of 216"
)
WINDOWS = (
    "windows of five channels over seven have 35 places, of which 6 lie beyond the pixel: a lane"
    " that does not read them idles, and one that does gains nothing"
)
# The first that fits counts; an op that is not named has the usual ceiling.
OWN = {
    "pool, NCHW, *, 27 x 27": Ceiling(idle=0.13, why=LANES),
    "pool, NCHW, *, 61 x 47": Ceiling(idle=0.11, why=LANES),
    "trio backward, NHWC, *, 200 x 133": Ceiling(idle=0.18, why=WINDOWS),
}
CASES = {
    f"{op}, {'NCHW' if memory is PLANES else 'NHWC'}, {str(dtype)[6:]}, {plane}": (
        op,
        SHAPES[plane][memory is LAST],
        dtype,
        memory,
    )
    for op in OPS
    for memory in (PLANES, LAST)
    for dtype in (torch.float32, torch.bfloat16)
    for plane in SHAPES
}


def ceiling(name: str) -> Ceiling:
    return next((own for pattern, own in OWN.items() if fnmatch(name, pattern)), Ceiling())


def counted(machine: Machine, name: str) -> Traffic:
    op, shape, dtype, memory = CASES[name]
    x = images(*shape, dtype=dtype, memory=memory)
    machine.count_traffic()
    tensors = OPS[op](x)
    return traffic(machine.traffic(), tensors, x.numel())


@pytest.mark.parametrize("name", CASES)
def test_traffic_stays_under_its_ceiling(name: str, machine: Machine) -> None:
    found, most = counted(machine, name), ceiling(name)
    assert found.bytes <= most.bytes
    assert found.sectors <= most.sectors
    assert found.idle <= most.idle


def test_every_ceiling_of_its_own_has_a_case_and_a_reason() -> None:
    for pattern, own in OWN.items():
        assert own.why, pattern
        assert any(ceiling(name) is own for name in CASES), pattern


def copied(
    cases: Machine, width: int, stride: int, shift: int = 0, odd: bool = True
) -> list[Moved]:
    """What ``copy`` of traffic_cases.cu moves: reads, writes, and both of shared memory."""
    room = torch.zeros(32 * stride + 16)
    first = -room.data_ptr() // 4 % 16 + shift  # an element where 64 bytes begin, and some more
    to = torch.empty(64)
    start = -to.data_ptr() // 4 % 16
    cases.count_traffic()
    pointers = [ctypes.c_void_p(room[first:].data_ptr()), ctypes.c_void_p(to[start:].data_ptr())]
    assert cases.library.run_copy(width, *pointers, stride, ctypes.c_bool(odd)) is None
    moved = cases.traffic()
    return [moved[kind] for kind in ("from read", "to write", "shared write", "shared read")]


@pytest.mark.parametrize(
    ("width", "stride", "shift", "sectors", "wavefronts"),
    [
        (1, 1, 0, 4, [1, 1]),
        (1, 1, 3, 5, [1, 1]),  # 128 bytes that begin within a sector
        (1, 2, 0, 8, [2, 2]),  # every other word: two lanes to a bank
        (1, 8, 0, 32, [8, 8]),
        (1, 32, 0, 32, [32, 32]),  # one bank for all
        (4, 4, 0, 16, [4, 4]),  # a quarter of a warp at a time is written, words are read
        (4, 4, 4, 17, [4, 4]),
    ],
)
def test_counts_by_hand(
    width: int, stride: int, shift: int, sectors: int, wavefronts: list[int], cases: Machine
) -> None:
    read, written, put, got = copied(cases, width, stride, shift)
    assert (read.requests, read.lanes, read.bytes) == (1, 32, 128 * width)
    assert read.units == sectors
    assert (written.bytes, written.units) == (128, 4)
    assert [put.units, got.units] == wavefronts
    assert [put.least, got.least] == [width, 1]


def test_lanes_that_idle_are_counted(cases: Machine) -> None:
    read, written, _, got = copied(cases, 1, 1, odd=False)
    assert (read.requests, read.lanes) == (1, 32)
    assert (written.requests, written.lanes, got.lanes) == (1, 16, 16)


def main() -> None:
    """Prints the table."""
    from simt_build import ROOT, load

    folder = ROOT / ".pytest_cache/d/simt"
    folder.mkdir(parents=True, exist_ok=True)
    machine = load(folder)
    print(f"{'':46} bytes  sectors    idle wavefronts requests")
    for name in CASES:
        print(f"{name:46} {counted(machine, name)}", flush=True)


if __name__ == "__main__":
    main()
