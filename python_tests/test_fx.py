"""torch.fx: our modules are leaves as torch.nn's are, our functions nodes, graphs live on."""

import copy
import pickle
from typing import Any

import pytest
import torch
from image_cases import images
from recurrence_cases import numbers
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn import functional as native
from torch.nn.utils import parametrizations

import fastseq
from fastseq import functional

pytestmark = pytest.mark.usefixtures("one_thread")
MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "LSTM": (lambda nn: nn.LSTM(3, 4, bidirectional=True), (5, 2, 3)),
    "GRU": (lambda nn: nn.GRU(3, 4), (5, 2, 3)),
    "RNN": (lambda nn: nn.RNN(3, 4), (5, 2, 3)),
    "LSTMCell": (lambda nn: nn.LSTMCell(3, 4), (2, 3)),
    "GRUCell": (lambda nn: nn.GRUCell(3, 4), (2, 3)),
    "RNNCell": (lambda nn: nn.RNNCell(3, 4), (2, 3)),
    "LocalResponseNorm": (lambda nn: nn.LocalResponseNorm(3), (2, 6, 9, 8)),
    "MaxPool2d": (lambda nn: nn.MaxPool2d(3, 2), (2, 6, 9, 8)),
}


class Net(nn.Module):
    """Every module of a graph, and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(3, 2)
        )
        self.pool = nn.MaxPool2d(2)
        self.lstm = nn.LSTM(6, 4)
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = native.max_pool2d(self.pool(self.features(x)), 1)
        y, (h, _) = self.lstm(x.flatten(2).permute(2, 0, 1))
        return self.cell(y[-1], h[0])


def nodes(graph: GraphModule) -> list[tuple[str, str]]:
    return [(n.op, n.name) for n in graph.graph.nodes]


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_leaves_where_torch_nns_are(name: str) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    model = nn.Sequential(make(nn))
    theirs = nodes(symbolic_trace(model))
    expected = model(numbers(*shape))
    swapped = fastseq.swap(model)
    for ours in (nn.Sequential(make(fastseq)), swapped, copy.deepcopy(swapped)):
        assert nodes(symbolic_trace(ours)) == theirs
        assert type(ours[0]).__module__.startswith("fastseq.")  # the class does not pretend
    graph = symbolic_trace(swapped)
    torch.testing.assert_close(graph(numbers(*shape)), expected)
    assert graph.get_submodule("0") is swapped[0]
    fastseq.swap(model, back=True)
    assert "__module__" not in vars(model[0])


def test_a_users_subclass_is_traced_into() -> None:
    class Own(fastseq.MaxPool2d):
        def forward(self, input: Tensor) -> Any:
            return super().forward(input) + 1

    graph = symbolic_trace(nn.Sequential(Own(2)))
    assert [n.op for n in graph.graph.nodes] == [
        "placeholder", "call_function", "call_function", "output"
    ]  # fmt: skip
    x = images(2, 3, 8, 8)
    assert torch.equal(graph(x), native.max_pool2d(x, 2) + 1)


def test_functions_are_nodes() -> None:
    def call(x: Tensor) -> Any:
        x = functional.local_response_norm(x, 3, alpha=0.1)
        x = functional.max_pool2d(x, 3, stride=1)
        y = functional.relu_lrn_max_pool2d(x, 3)
        return y, functional.max_pool2d(x, 2, return_indices=True)

    graph = symbolic_trace(call)
    called = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert called == [
        functional.local_response_norm,
        functional.max_pool2d,
        functional.relu_lrn_max_pool2d,
        functional.max_pool2d,
    ]
    x = images(2, 6, 12, 12)
    for again in (graph, pickle.loads(pickle.dumps(graph)), symbolic_trace(graph)):
        torch.testing.assert_close(again(x), call(x), rtol=0, atol=0)


def test_graphs_run_pickle_retrace_and_copy() -> None:
    model = Net()
    x = images(2, 3, 12, 12)
    expected = model(x)
    fastseq.swap(model, fuse=False)
    graph = symbolic_trace(model)
    for again in (
        graph,
        pickle.loads(pickle.dumps(graph)),
        symbolic_trace(graph),
        copy.deepcopy(graph),
        symbolic_trace(pickle.loads(pickle.dumps(model))),
    ):
        assert nodes(again) == nodes(graph)
        torch.testing.assert_close(again(x), expected)
        again(x).sum().backward()
    graph.graph.lint()


def test_swap_works_on_a_graph() -> None:
    model = Net()
    x = images(2, 3, 12, 12)
    graph = symbolic_trace(model)
    before, expected = nodes(graph), graph(x)
    fastseq.swap(graph)
    assert nodes(graph) == before
    assert type(graph.lstm) is fastseq.LSTM
    assert type(graph.pool) is fastseq.MaxPool2d
    assert any(n.target is native.max_pool2d for n in graph.graph.nodes) or any(
        "max_pool2d" in n.name for n in graph.graph.nodes
    )
    torch.testing.assert_close(graph(x), expected)
    graph.recompile()
    torch.testing.assert_close(graph(x), expected)


def test_parametrized_and_hooked_modules_are_leaves() -> None:
    seen: list[Any] = []
    model = nn.Sequential(nn.GRU(3, 4))
    parametrizations.weight_norm(model[0], "weight_hh_l0")
    fastseq.swap(model)
    model[0].register_forward_hook(lambda module, args, out: seen.append(out[0]))
    graph = symbolic_trace(model)
    assert seen == []  # as with torch.nn's: the hook belongs to the leaf
    y = graph(numbers(5, 2, 3))[0]
    assert seen[0] is y


def test_subclasses_of_tensor_see_the_call() -> None:
    seen = []

    class Loud(Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = images(2, 6, 9, 8).as_subclass(Loud)
    for call in (
        functional.local_response_norm,
        functional.max_pool2d,
        functional.relu_lrn_max_pool2d,
    ):
        seen.clear()
        y = call(x, 3)
        assert isinstance(y, Loud)
        assert call in seen


@pytest.mark.parametrize(
    ("name", "at", "node"),
    [
        ("alexnet", "features.2", "features.2"),
        ("googlenet", "inception3a.branch4.0", "maxpool2"),
        ("resnet18", "maxpool", "layer1.0.relu"),
    ],
)
def test_feature_extractors_of_torchvision(name: str, at: str, node: str) -> None:
    models = pytest.importorskip("torchvision.models")
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):  # initialising millions of numbers takes seconds
        model = getattr(models, name)(weights=None, **options).eval()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in (*model.parameters(), *model.buffers()):
            t.normal_(0, 0.05, generator=generator) if t.dim() == 4 else t.fill_(1)
    x = images(1, 3, 64, 64, scale=1.0)
    with torch.no_grad():
        extractor = extraction.create_feature_extractor(model, [at, node])
        expected = extractor(x)
        names = extraction.get_graph_node_names(model)
        fastseq.swap(model)
        assert extraction.get_graph_node_names(model) == names
        again = extraction.create_feature_extractor(model, [at, node])
        for made in (extractor, again):  # its modules are the model's: they have been swapped, too
            got = made(x)
            assert set(got) == {at, node}
            for key, value in expected.items():
                assert torch.equal(got[key], value)
    assert type(model.get_submodule(at)) is fastseq.MaxPool2d
