"""torch.jit: images are scripted and traced, recurrences traced; who loads what is saved."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from image_cases import gradient, images
from recurrence_cases import numbers
from torch import Tensor, nn

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")
IMAGES = {
    "lrn": lambda: fastseq.LocalResponseNorm(3, 0.1),
    "lrn within": lambda: fastseq.LocalResponseNorm(3, 0.1, within_channel=True),
    "pool": lambda: fastseq.MaxPool2d(3, 2, (1, 0), ceil_mode=True),
    "pool of pairs": lambda: fastseq.MaxPool2d((3, 2), (1, 2)),
    "trio": lambda: fastseq.ReLULRNMaxPool2d(3, 0.1, stride=None),
}
RECURRENT: dict[str, tuple[int, ...]] = {
    "LSTM": (5, 2, 3),
    "GRU": (5, 2, 3),
    "RNN": (5, 2, 3),
    "LSTMCell": (2, 3),
    "GRUCell": (2, 3),
    "RNNCell": (2, 3),
}


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        yield


def kinds(graph: Any) -> set[str]:
    return {node.kind() for node in graph.nodes()}


@pytest.mark.parametrize("name", IMAGES)
def test_scripted_images(name: str) -> None:
    module = IMAGES[name]()
    scripted = torch.jit.script(nn.Sequential(nn.ReLU(), module))
    for shape in ((2, 6, 9, 8), (1, 3, 12, 7)):
        x = images(*shape)
        expected = module(x.relu())
        for _ in range(3):  # TorchScript specializes on what it saw
            assert torch.equal(scripted(x), expected)
        for got, grad in zip(
            gradient(scripted, x), gradient(lambda t: module(t.relu()), x), strict=True
        ):
            torch.testing.assert_close(got, grad)
    assert any("fastseq::" in str(g) for g in [torch.jit.freeze(scripted.eval()).inlined_graph])


def test_scripted_images_take_what_the_kernels_do_not() -> None:
    for module in (fastseq.MaxPool2d(3), fastseq.LocalResponseNorm(3), fastseq.ReLULRNMaxPool2d()):
        scripted = torch.jit.script(module)
        assert scripted(images(0, 3, 8, 8)).shape == module(images(0, 3, 8, 8)).shape
        with pytest.raises(Exception, match=r"mensional|dimension|3D or 4D"):
            scripted(torch.zeros(3))
    pool, native = (torch.jit.script(m.MaxPool2d(2, return_indices=True)) for m in (fastseq, nn))
    for ours, theirs in zip(pool(images(2, 3, 8, 8)), native(images(2, 3, 8, 8)), strict=True):
        assert torch.equal(ours, theirs)
    whole = torch.arange(64).view(1, 1, 8, 8)
    assert torch.equal(torch.jit.script(fastseq.MaxPool2d(2))(whole), fastseq.MaxPool2d(2)(whole))


@pytest.mark.parametrize("name", RECURRENT)
def test_scripting_a_recurrence_says_what_does_instead(name: str) -> None:
    module = getattr(fastseq, name)(3, 4)
    model = nn.ModuleDict({"inner": nn.Sequential(module)})
    for tried in (module, model):
        with pytest.raises(
            RuntimeError, match=f"cannot compile fastseq's {name}. Use torch.jit.tr"
        ):
            torch.jit.script(tried)
    fastseq.swap(model, back=True)
    assert torch.jit.script(model["inner"]) is not None
    assert type(model["inner"][0]) is getattr(nn, name)


@pytest.mark.parametrize("name", IMAGES)
def test_traced_images_serve_every_size_without_a_warning(name: str) -> None:
    module = IMAGES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(module, images(2, 6, 9, 8))
    assert any(kind.startswith("fastseq::") for kind in kinds(traced.graph))
    for shape in ((2, 6, 9, 8), (1, 3, 12, 7)):
        assert torch.equal(traced(images(*shape)), module(images(*shape)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", RECURRENT)
def test_traced_recurrences(name: str) -> None:
    torch.manual_seed(0)
    module = getattr(fastseq, name)(3, 4)
    shape = RECURRENT[name]
    with torch.no_grad():
        traced = torch.jit.trace(module, numbers(*shape))
        assert any(kind.startswith("fastseq::") for kind in kinds(traced.inlined_graph))
        longer = numbers(*(size + 1 for size in shape[:-1]), 3)
        for x in (numbers(*shape), longer):
            for got, expected in zip(traced(x), module(x), strict=True):
                torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", RECURRENT)
def test_traced_recurrences_train(name: str) -> None:
    """Traced with gradients on, a graph holds the op itself, which brings its derivatives."""
    module, x = getattr(fastseq, name)(3, 4), numbers(*RECURRENT[name])
    traced = torch.jit.trace(module, x)
    assert any(kind.startswith("fastseq::") for kind in kinds(traced.inlined_graph))
    found = []
    for run in (module, traced):
        y = run(x)
        y = y[0] if isinstance(y, tuple) else y
        found.append(torch.autograd.grad(y.sin().sum(), list(module.parameters())))
    torch.testing.assert_close(*found)


LOAD = """
import sys, torch
if sys.argv[2] == "with":
    import fastseq
model = torch.jit.load(sys.argv[1])
print(model(torch.ones(2, 3, 8, 8)).sum().item())
"""


@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_saved_file_loads_where_fastseq_was_imported(how: str, tmp_path: Path) -> None:
    model = nn.Sequential(fastseq.LocalResponseNorm(3), fastseq.MaxPool2d(2))
    x = torch.ones(2, 3, 8, 8)
    compiled: Any = torch.jit.script(model) if how == "script" else torch.jit.trace(model, x)
    compiled.save(tmp_path / "model.pt")
    (tmp_path / "load.py").write_text(LOAD)

    def load(fastseq_is: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", tmp_path / "load.py", tmp_path / "model.pt"]
        root = Path(fastseq.__file__).parents[1]
        return subprocess.run(
            [*map(str, command), fastseq_is],
            capture_output=True, text=True, env={"PYTHONPATH": str(root), "PATH": ""}, check=False,
        )  # fmt: skip

    there = load("with")
    assert float(there.stdout) == pytest.approx(model(x).sum().item()), there.stderr
    elsewhere = load("without")
    assert elsewhere.returncode != 0
    assert "Unknown builtin op: fastseq::" in elsewhere.stderr


def test_a_traced_model_holds_the_gradient_of_torch_nns_layers() -> None:
    """With gradients on, what needs none of ours: the input of the first layer."""
    model = nn.Sequential(fastseq.MaxPool2d(2), nn.Conv2d(3, 2, 1))
    x: Tensor = images(2, 3, 8, 8)
    traced = torch.jit.trace(model, x)
    traced(x).sum().backward()
    assert model[1].weight.grad is not None
