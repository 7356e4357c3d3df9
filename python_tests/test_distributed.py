"""DDP and FSDP2: two processes on halves of a batch train as one does on the whole."""

import copy
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from recurrence_cases import numbers, packed
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

import fastseq

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without gloo")
PROCESSES = 2


class Net(nn.Module):
    """Every recurrent module, and a cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = fastseq.LSTM(3, 4, 2, bidirectional=True, proj_size=3)
        self.gru = fastseq.GRU(6, 4, bidirectional=True, bias=False)
        self.rnn = fastseq.RNN(8, 5)
        self.cell = fastseq.LSTMCell(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Any) -> Tensor:
        y = self.gru(self.lstm(x)[0])[0]
        y = self.rnn(y)[0]
        if not isinstance(y, Tensor):
            return self.head(self.cell(y.data)[0])
        state = None
        for row in y:
            state = self.cell(row, state)
        return self.head(state[0])


def trained(model: nn.Module, x: Any) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model


def whole(p: Tensor) -> Tensor:
    return p.full_tensor() if hasattr(p, "full_tensor") else p


def assert_same(one: nn.Module, many: nn.Module, tolerance: float = 1e-6) -> None:
    for (name, a), b in zip(one.named_parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(whole(b), a, rtol=0, atol=tolerance, msg=f"{name} differs")


def train_ddp(rank: int) -> None:
    batch, start = numbers(5, 4, 3), Net()
    one = trained(copy.deepcopy(start), batch)
    assert (one.lstm.weight_hr_l0 - start.lstm.weight_hr_l0).abs().max() > 1e-4
    many = DistributedDataParallel(copy.deepcopy(start))
    assert_same(one, trained(many, batch.chunk(PROCESSES, 1)[rank]).module)


def train_ddp_ragged(rank: int) -> None:
    """Each process has lengths of its own, and all have the same parameters in the end."""
    many = trained(DistributedDataParallel(Net()), packed([4 - rank, 1, 2 + rank], 3)).module
    for p in many.parameters():
        everyone = [torch.empty_like(p) for _ in range(PROCESSES)]
        distributed.all_gather(everyone, p.detach())
        assert torch.equal(everyone[0], everyone[1])


def sharded(model: nn.Module, **options: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for module in (model.lstm, model.gru, model.rnn, model.cell, model):
        fully_shard(module, mesh=mesh, **options)
    return model


def train_fsdp(rank: int) -> None:
    batch, start = numbers(5, 4, 3), Net()
    one = trained(copy.deepcopy(start), batch)
    many = sharded(copy.deepcopy(start))
    assert many.lstm.weight_hh_l0.to_local().shape[0] == 16 // PROCESSES
    assert_same(one, trained(many, batch.chunk(PROCESSES, 1)[rank]))


def train_fsdp_in_bfloat16(rank: int) -> None:
    """Parameters are gathered in bfloat16, their gradients reduced in float32."""
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    many = sharded(Net(), mp_policy=policy)
    y = many(numbers(5, 2, 3))
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in many.parameters())
    plain = Net()
    plain(numbers(5, 2, 3)).square().mean().backward()
    for a, b in zip(many.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(whole(a.grad), b.grad, rtol=0, atol=0.05 * b.grad.abs().max())


TASKS: list[Callable[[int], None]] = [
    train_ddp,
    train_ddp_ragged,
    train_fsdp,
    train_fsdp_in_bfloat16,
]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no name service needed
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )
    for task in TASKS:
        task(rank)
        Path(folder, f"{task.__name__}.{rank}").touch()
    distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=PROCESSES)
    done = {path.name for path in tmp_path.iterdir()} - {"meeting"}
    assert done == {f"{task.__name__}.{rank}" for task in TASKS for rank in range(PROCESSES)}
