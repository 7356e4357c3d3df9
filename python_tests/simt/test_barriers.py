"""Every barrier of every kernel is needed: without it the machine finds a race.

The machine lists the barriers that a call meets, by file and line, and makes one of them do
nothing. That no barrier of the sources stays unmet is checked against the sources themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from simt_build import ROOT, Machine
from simt_cases import SIMT, Lrn, Pool, images

LAST = torch.channels_last


def lrn(lrn: Lrn, memory: torch.memory_format, back: bool) -> None:
    x = images(1, 20, 19, 18, memory=memory)
    if back:
        SIMT.local_response_norm_backward(x, x, *lrn.parameters, lrn.within)
    else:
        SIMT.local_response_norm(x, *lrn.parameters, lrn.within)


def trio(size: int, memory: torch.memory_format, back: bool, channels: int = 20) -> None:
    x = images(1, channels, 19, 18, memory=memory)
    parameters = (*Lrn(size).parameters, *Pool().window)
    y, offsets = SIMT.relu_lrn_max_pool2d(x, *parameters, False, True)
    if back:
        SIMT.relu_lrn_max_pool2d_backward(y, offsets, x, *parameters)


def pool(memory: torch.memory_format, back: bool, channels: int = 20) -> None:
    x = images(1, channels, 19, 18, memory=memory)
    y, offsets = SIMT.max_pool2d(x, *Pool().window, False, True)
    if back:
        SIMT.max_pool2d_backward(y, offsets, 19, 18, memory is LAST, *Pool().window)


PLANES = torch.contiguous_format
CALLS: dict[str, tuple[Callable[[], None], int]] = {
    f"{name}, size {size}": (call, barriers)
    for size in (4, 5)
    for name, call, barriers in [
        ("LRN, last", lambda n=size: lrn(Lrn(n), LAST, False), 1),
        ("LRN backward, last", lambda n=size: lrn(Lrn(n), LAST, True), 2),
        ("LRN within, planes", lambda n=size: lrn(Lrn(n, within=True), PLANES, False), 2),
        ("LRN within, last", lambda n=size: lrn(Lrn(n, within=True), LAST, False), 2),
        ("LRN within backward, planes", lambda n=size: lrn(Lrn(n, within=True), PLANES, True), 4),
        ("LRN within backward, last", lambda n=size: lrn(Lrn(n, within=True), LAST, True), 4),
        ("trio, planes", lambda n=size: trio(n, PLANES, False), 3 if size == 5 else 1),
        ("trio, last", lambda n=size: trio(n, LAST, False), 2 if size == 5 else 3),
        ("trio and back, planes", lambda n=size: trio(n, PLANES, True), 5 if size == 5 else 1),
        ("trio and back, last", lambda n=size: trio(n, LAST, True), 5),
    ]
}
CALLS["LRN, planes"] = (lambda: lrn(Lrn(), PLANES, False), 2)
CALLS["LRN backward, planes"] = (lambda: lrn(Lrn(), PLANES, True), 2)
CALLS["pool, planes"] = (lambda: pool(PLANES, False), 2)
CALLS["pool and back, planes"] = (lambda: pool(PLANES, True), 4)
for channels, flat in ((20, 0), (21, 1)):  # whole vectors of channels, and a row that is flat
    CALLS[f"pool and back, last, {channels}"] = (lambda c=channels: pool(LAST, True, c), 4)
    back = (lambda c=channels: trio(5, LAST, True, c), 5 + flat)
    CALLS[f"trio and back, last, {channels}"] = back


@pytest.mark.parametrize("name", CALLS)
def test_no_barrier_can_be_removed(name: str, machine: Machine) -> None:
    call, count = CALLS[name]
    machine.forget_barriers()
    call()
    sites = machine.barriers()
    assert len(sites) == count
    for site in sites:
        for seed in (1, 2):
            machine.seed(seed)
            machine.drop_barrier(site)
            with pytest.raises(RuntimeError, match=r"race: |nothing wrote"):
                call()
        machine.drop_barrier("")
        call()


def test_all_barriers_are_met(machine: Machine) -> None:
    machine.forget_barriers()
    for call, _ in CALLS.values():
        call()
    in_sources = set()
    for path in (ROOT / "csrc/kernels/cuda").iterdir():
        # test_self.py drops those of self_*, test_mailbox.py those of mailbox_*.
        if path.suffix in {".cu", ".cuh"} and not path.name.startswith(("self_", "mailbox_")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.search(r"\bsync(_warp)?\(", line):
                    in_sources.add(f"{path.name}:{number}")
    assert set(machine.barriers()) == in_sources
