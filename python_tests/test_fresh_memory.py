"""No op returns a number that lay in its fresh memory: not even where there is nothing to compute.

The C library fills what it hands out with a byte of our choice (MALLOC_PERTURB_). Two processes
with different bytes run every op, and find the same bits in every output.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastseq import ops

SCRIPT = """
import sys, torch
from extended_cases import extended
from recurrence_cases import all_wanted, layer_tensors, numbers, whole_layer, whole_layer_backward
from fastseq import autograd, ops

torch.set_num_threads(1)
OPS, found = torch.ops.fastseq, {}


def keep(name, outputs):
    for i, t in enumerate(outputs if isinstance(outputs, (tuple, list)) else [outputs]):
        if t is not None:
            found[f"{name}: {i}"] = t.detach().contiguous().view(torch.uint8) if t.numel() else t


# steps, batch, the lengths
CASES = {"some": (3, 4, None), "no steps": (0, 4, None), "no batch": (3, 0, None),
         "nothing": (0, 0, None), "lengths": (3, 4, [3, 0, 1, 2]), "all absent": (3, 4, [0] * 4)}

for cell in ops.Cell:
    lstm = cell == ops.Cell.LSTM
    for case, (steps, batch, lengths) in CASES.items():
        for dtype in (torch.float32, torch.bfloat16):
            for project in (None, 3) if lstm else (None,):
                options = {"steps": steps, "batch": batch, "dtype": dtype, "project": project}
                name = f"{cell.name} {case} {dtype} {project}"
                made = whole_layer(cell, **options)
                saved = ops.layer(**made, save=True)
                keep(f"layer {name}", saved)
                given = whole_layer_backward(made, saved, all_wanted(made))
                keep(f"layer_backward {name}", ops.layer_backward(**given))
                made = layer_tensors(cell, **options)
                saved = ops.recurrence(**made, save=True)
                keep(f"recurrence {name}", saved)
                y, h_n, c_n, gates, cells = saved
                keep(f"recurrence_backward {name}", OPS.recurrence_backward(
                    y, h_n, c_n if lstm else None, None, None, y, gates, cells, made["h0"],
                    made["c0"], made["weight_hh"], made["weight_hr"], None, int(cell), False))
        for features in ("", "reset", "reset reset_state", "drop", "zone", "norm", "project",
                         "project reset reset_state drop zone norm"):
            args = extended(cell, features + " lengths" * (lengths is not None), steps=steps,
                            batch=batch, dtype=torch.float32)
            if lengths is not None:
                args[9] = torch.tensor(lengths)
            args = [a.requires_grad_() if torch.is_tensor(a) and a.is_floating_point() else a
                    for a in args]
            outputs = autograd.ExtendedLayer.apply(*args, True)
            keep(f"extended {cell.name} {case} {features}", outputs)
            used = [o for o in (outputs[0], outputs[1], outputs[2]) if o.requires_grad]
            torch.autograd.backward(used, [torch.ones_like(o) for o in used])
            keep(f"extended_backward {cell.name} {case} {features}",
                 [a.grad for a in args if torch.is_tensor(a)])
    for batch in (0, 1, 30):
        x, h, c = numbers(batch, 3), numbers(batch, 5), numbers(batch, 5)
        weights = numbers(cell.gates * 5, 3), numbers(cell.gates * 5, 5)
        keep(f"step {cell.name} {batch}",
             OPS.step(x, h, c if lstm else None, *weights, None, None, int(cell)))

for rows, inner, outer in ((0, 3, 4), (5, 0, 4), (5, 3, 0), (5, 3, 4), (60, 0, 300)):
    for dtype in (torch.float32, torch.bfloat16):
        x, w = numbers(rows, inner, dtype=dtype), numbers(outer, inner, dtype=dtype)
        keep(f"linear {rows} {inner} {outer} {dtype}", OPS.linear(x, w, False))
        turned = w.t().contiguous()
        keep(f"linear turned {rows} {inner} {outer} {dtype}", OPS.linear(x, turned, True))
        if inner == 0:
            assert OPS.linear(x, w, False).eq(0).all()

for shape in ((2, 6, 7, 9), (0, 6, 7, 9), (2, 0, 7, 9), (2, 70, 5, 5)):
    for format in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.bfloat16):
            x = numbers(*shape, dtype=dtype).contiguous(memory_format=format)
            name = f"{shape} {format} {dtype}"
            for size, within in ((5, False), (4, False), (3, True)):
                keep(f"lrn {name}", OPS.local_response_norm(x, size, 1e-4, 0.75, 1.0, within))
                keep(f"lrn_backward {name}", OPS.local_response_norm_backward(
                    x, x, size, 1e-4, 0.75, 1.0, within))
            for kernel, stride, padding, dilation in ((3, 2, 0, 1), (2, 2, 1, 1), (3, 1, 1, 2)):
                window = [[v, v] for v in (kernel, stride, padding, dilation)]
                y, offsets = OPS.max_pool2d(x, *window, True, True)
                unsaved = OPS.max_pool2d(x, *window, True, False)[0]
                keep(f"pool {name} {window}", [y, offsets, unsaved])
                last = format == torch.channels_last
                keep(f"pool_backward {name} {window}",
                     OPS.max_pool2d_backward(y, offsets, *shape[2:], last, *window))
                lrn = [5, 1e-4, 0.75, 1.0]
                y, offsets = OPS.relu_lrn_max_pool2d(x, *lrn, *window, True, True)
                keep(f"trio {name} {window}",
                     [y, offsets, OPS.relu_lrn_max_pool2d(x, *lrn, *window, True, False)[0]])
                keep(f"trio_backward {name} {window}",
                     OPS.relu_lrn_max_pool2d_backward(y, offsets, x, *lrn, *window))
torch.save(found, sys.argv[1])
"""


def outputs(file: Path, byte: int) -> dict[str, torch.Tensor]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)],
        # The C library fills with the byte's complement what it hands out.
        env={**os.environ, "MALLOC_PERTURB_": str(byte), "FASTSEQ_KEEP_MB": "0"},
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, torch.Tensor] = torch.load(file)
    return found


def test_outputs_do_not_depend_on_what_lay_in_memory(tmp_path: Path) -> None:
    first, second = (outputs(tmp_path / str(byte), byte) for byte in (0x2A, 0x55))
    assert first.keys() == second.keys()
    assert len(first) > 1000
    assert [name for name, t in first.items() if not torch.equal(t, second[name])] == []


@pytest.mark.parametrize("turned", [False, True])
def test_a_product_over_nothing_is_zero(turned: bool) -> None:
    weight = torch.empty(0, 40) if turned else torch.empty(40, 0)
    poison = torch.full((50, 40), 7.0)
    del poison  # the next block of its size
    assert torch.equal(ops.linear(torch.empty(50, 0), weight, turned), torch.zeros(50, 40))
