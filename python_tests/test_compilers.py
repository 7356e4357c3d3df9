"""torch.compile, torch.export and AOTInductor: one graph, for every length and batch."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, assert_close, assert_equal, call, numbers, states, twins
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


@pytest.fixture
def fresh_compiler() -> None:
    torch.compiler.reset()
    counters.clear()


def graphs() -> int:
    """Compiled since the test began."""
    return int(counters["stats"]["unique_graphs"])


class EveryCell(nn.Module):
    """All recurrent modules, with their options shared out among them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = fastseq.LSTM(3, 4, 2, bidirectional=True)
        self.projected = fastseq.LSTM(3, 4, 2, proj_size=2, batch_first=True)
        self.gru = fastseq.GRU(3, 4, bidirectional=True, bias=False)
        self.rnn = fastseq.RNN(3, 4, batch_first=True)
        self.relu = fastseq.RNN(3, 4, nonlinearity="relu", bidirectional=True, bias=False)
        self.lstm_cell = fastseq.LSTMCell(3, 4)
        self.gru_cell = fastseq.GRUCell(3, 4, bias=False)
        self.rnn_cell = fastseq.RNNCell(3, 4, nonlinearity="relu")

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> list[Any]:
        return [
            self.lstm(x, (h, c)),
            self.projected(x.transpose(0, 1)),
            self.gru(x, h[:2]),
            self.rnn(x.transpose(0, 1)),
            self.rnn(x[:, 0]),  # unbatched
            self.relu(x, h[:2]),
            self.lstm_cell(x[0]),
            self.lstm_cell(x[0], (h[0], h[0])),
            self.gru_cell(x[0], h[0]),
            self.rnn_cell(x[0, 0]),
        ]


def arguments(steps: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    return numbers(steps, batch, 3), numbers(4, batch, 4, seed=2), numbers(4, batch, 4, seed=3)


SIZES = [(5, 2), (9, 3), (2, 4), (40, 7)]


def test_every_cell_compiles_without_a_break() -> None:
    """Forward and backward; the second size makes the graph dynamic, and then it serves all."""
    model = EveryCell()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for i, size in enumerate(SIZES):
        expected = call(model, *arguments(*size))
        got = call(compiled, *arguments(*size))
        assert_equal({n.replace("_orig_mod.", ""): t for n, t in got.items()}, expected)
        assert graphs() == min(i + 1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_one_dynamic_graph_serves_every_size(kind: str) -> None:
    module = getattr(fastseq, kind)(3, 4, batch_first=True)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps, batch in SIZES:
            x = numbers(batch, steps, 3).requires_grad_()
            expected, got = module(x)[0], compiled(x)[0]
            assert torch.equal(got, expected)
            grad = numbers(batch, steps, 4)
            assert torch.equal(
                torch.autograd.grad(got, x, grad)[0], torch.autograd.grad(expected, x, grad)[0]
            )
    assert graphs() == 1


def test_static_shapes() -> None:
    module = fastseq.LSTM(3, 4, proj_size=2)
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend="aot_eager")
    for i, steps in enumerate((5, 6)):
        x = numbers(steps, 2, 3)
        assert torch.equal(compiled(x)[0], module(x)[0])
        assert graphs() == i + 1  # as asked


def test_compiled_inference_saves_nothing_for_backward() -> None:
    module = fastseq.LSTM(3, 4)
    seen: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        layers = [n for n in graph.graph.nodes if "fastseq.layer" in str(n.target)]
        seen.extend(n.args[-1] for n in layers)
        return graph.forward

    with torch.no_grad():
        x = numbers(5, 2, 3)
        assert torch.equal(
            torch.compile(module, fullgraph=True, backend=backend)(x)[0], module(x)[0]
        )
    assert seen == [False]


def test_compiled_autocast() -> None:
    module = fastseq.GRU(3, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = numbers(5, 2, 3)
    results = []
    for run in (module, compiled):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = run(x)[0]
        assert y.dtype == torch.bfloat16
        y.sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in module.parameters())
        results.append([y.detach(), *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_export_with_free_steps_and_batch() -> None:
    model = EveryCell()
    steps, batch = Dim("steps"), Dim("batch")
    program = torch.export.export(
        model, arguments(5, 2), dynamic_shapes=({0: steps, 1: batch}, {1: batch}, {1: batch})
    )
    assert all("while" not in str(n.target) for n in program.graph.nodes)  # no loop over steps
    loaded = program.module()
    for size in [*SIZES, (1, 1)]:
        given = arguments(*size)
        torch.testing.assert_close(loaded(*given), model(*given), rtol=0, atol=0)


@pytest.mark.parametrize("grad", [True, False], ids=["gradients on", "no_grad"])
@pytest.mark.parametrize("name", ["LSTM", "GRUCell", "layer norm", "images"])
def test_exported_programs_train(name: str, grad: bool) -> None:
    """The ops bring their gradients; activations are kept when one is asked for, and only then."""
    torch.manual_seed(0)
    model: nn.Module
    model, x = {
        "LSTM": (fastseq.LSTM(3, 4, num_layers=2), numbers(5, 2, 3)),
        "GRUCell": (fastseq.GRUCell(3, 4), numbers(2, 3)),
        "layer norm": (fastseq.GRU(3, 4, layer_norm=True), numbers(5, 2, 3)),
        "images": (
            nn.Sequential(
                nn.Conv2d(2, 4, 3),
                fastseq.LocalResponseNorm(3),
                fastseq.MaxPool2d(2),
                fastseq.ReLULRNMaxPool2d(),
            ),
            numbers(2, 2, 16, 16),
        ),
    }[name]
    with torch.set_grad_enabled(grad):
        program = torch.export.export(model, (x,)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, got = call(model, x), call(program, x)
    assert_close(got, expected, 1e-6)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = fastseq.GRU(3, 4, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(2 * x)[0].tanh()


@pytest.mark.usefixtures("inductor_cache")
def test_inductor_trains() -> None:
    model = Encoder()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for steps in (5, 9):
        x = numbers(steps, 2, 3)
        expected, got = call(model, x), call(compiled, x)
        assert_close({n.replace("_orig_mod.", ""): t for n, t in got.items()}, expected, 1e-6)
    assert graphs() == 1


LOAD = """
import sys, torch, fastseq  # the ops; of the model nothing
model = torch._inductor.aoti_load_package(sys.argv[1])
for x, y in torch.load(sys.argv[2]):
    torch.testing.assert_close(model(x), y)
print("equal")
"""


@pytest.mark.usefixtures("inductor_cache")
def test_aot_inductor_package_runs_in_a_process_without_the_model(tmp_path: Path) -> None:
    model = Encoder().eval()
    pairs = [(x, model(x).detach()) for x in (numbers(*size, 3) for size in [*SIZES, (1, 1)])]
    with torch.no_grad():
        shapes = ({0: Dim("steps"), 1: Dim("batch")},)
        program = torch.export.export(model, (numbers(5, 2, 3),), dynamic_shapes=shapes)
    # The wrapper's headers once, and quickly: that it is right is wanted here, not fast.
    level = "aot_inductor.compile_wrapper_opt_level"
    with torch._inductor.config.patch({"cpp_cache_precompile_headers": False, level: "O0"}):
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "encoder.pt2")
        )
    torch.save(pairs, tmp_path / "pairs.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, package, str(tmp_path / "pairs.pt")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "equal", done.stderr


def test_second_derivatives_do_not_get_lost() -> None:
    """AOTAutograd has none: it says so, where torch.nn would not have compiled at all."""
    module = fastseq.LSTM(3, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = numbers(5, 2, 3).requires_grad_()
    (slope,) = torch.autograd.grad(compiled(x)[0].sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        slope.square().sum().backward()


def test_weights_are_inputs_of_the_graph() -> None:
    """A step of an optimizer shows without recompilation, and in a state that was moved along."""
    module, _ = twins("GRU", 3, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x, hx = numbers(5, 2, 3), states(module, 2)
    before = compiled(x, hx)[0]
    with torch.no_grad():
        module.weight_hh_l0.mul_(0.5)
    assert torch.equal(compiled(x, hx)[0], module(x, hx)[0])
    assert not torch.equal(compiled(x, hx)[0], before)
    assert graphs() == 1


class Beyond(nn.Module):
    """What goes beyond torch.nn, in one graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normed = fastseq.LSTM(3, 4, 2, layer_norm=True, return_cell_states=True)
        self.gru = fastseq.GRU(3, 4, bidirectional=True, zoneout=0.2, weight_dropout=0.2)
        self.rnn = fastseq.RNN(3, 4, recurrent_dropout=0.2)

    def forward(self, x: Tensor, lengths: Tensor, reset: Tensor) -> list[Any]:
        return [
            self.normed(x, lengths=lengths, reset=reset),
            self.gru(x, lengths=lengths),
            self.rnn(x, reset=reset),
        ]


def beyond(steps: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    lengths = torch.arange(batch) % (steps + 1)
    return numbers(steps, batch, 3), lengths, numbers(steps, batch) > 0.5


def test_options_compile_and_serve_every_size() -> None:
    """Forward and backward, and by one graph; masks aside, with the numbers of eager mode."""
    model = Beyond()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for module in (model, compiled):
        outputs = [t for t in tree_leaves(module(*beyond(7, 6))) if t.requires_grad]
        sum(t.sum() for t in outputs).backward()
        assert all(p.grad is not None for p in model.parameters())
        model.zero_grad()
    model.eval()
    for sizes in ((7, 6), (9, 2), (2, 11)):
        before = graphs()
        for a, b in zip(tree_leaves(compiled(*beyond(*sizes))),
                        tree_leaves(model(*beyond(*sizes))), strict=True):  # fmt: skip
            torch.testing.assert_close(a, b)
        if sizes != (7, 6):
            assert graphs() == before


def test_options_export() -> None:
    model = Beyond().eval()
    steps, batch = Dim("T", min=2), Dim("B", min=2)
    shapes = ({0: steps, 1: batch}, {0: batch}, {0: steps, 1: batch})
    program = torch.export.export(model, beyond(7, 6), dynamic_shapes=shapes).module()
    for sizes in ((7, 6), (9, 2), (2, 11)):
        for a, b in zip(tree_leaves(program(*beyond(*sizes))),
                        tree_leaves(model(*beyond(*sizes))), strict=True):  # fmt: skip
            torch.testing.assert_close(a, b)
