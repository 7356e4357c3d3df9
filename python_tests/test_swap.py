"""swap(): what it replaces, what it keeps, and the way back."""

import copy
import pickle

import pytest
import torch
from image_cases import images
from torch import nn

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Nested and shared modules, and the pattern twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, 5e-4, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 6, 3),
            nn.LocalResponseNorm(3),
            nn.Sequential(
                nn.ReLU(), nn.LocalResponseNorm(3, 1e-2), nn.MaxPool2d(2, ceil_mode=True)
            ),
        )
        self.pool = nn.MaxPool2d(2)
        self.same_pool = self.pool
        self.lstm = nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.same_pool(self.features(x))
        y, _ = self.lstm(x.flatten(2).transpose(1, 2))
        return self.cell(y[:, -1])


def test_replaces_and_keeps() -> None:
    model = Net().eval()
    model.lstm.weight_hh_l0.requires_grad_(False)
    x = images(2, 3, 26, 26)
    expected = model(x)
    keys = list(model.state_dict())
    identities = [id(p) for p in model.parameters()]
    report = fastseq.swap(model)
    assert type(model.features[1]) is fastseq.ReLULRNMaxPool2d
    assert type(model.features[5]) is fastseq.LocalResponseNorm
    assert type(model.features[6][0]) is fastseq.ReLULRNMaxPool2d
    assert type(model.pool) is fastseq.MaxPool2d
    assert model.pool is model.same_pool
    assert type(model.lstm) is fastseq.LSTM
    assert type(model.cell) is fastseq.GRUCell
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == identities
    assert not any(module.training for module in model.modules())
    assert not model.lstm.weight_hh_l0.requires_grad
    torch.testing.assert_close(model(x), expected)
    assert "features.1: torch.nn.ReLU + " in str(report)
    assert "lstm: torch.nn.LSTM -> fastseq.LSTM" in str(report)


def test_back() -> None:
    model = Net()
    kinds = [type(module) for module in model.modules()]
    originals = list(model.features)
    fastseq.swap(model)
    model.eval()
    report = fastseq.swap(model, back=True)
    assert [type(module) for module in model.modules()] == kinds
    assert model.features[1] is originals[1]
    assert not model.features[1].training
    assert len(report.replaced) == 7
    assert str(fastseq.swap(nn.Linear(2, 2))) == "nothing to replace"


def test_gradients_and_training_after_swap() -> None:
    model = Net().double()
    twin = copy.deepcopy(model)
    fastseq.swap(twin)
    x = images(2, 3, 26, 26, dtype=torch.float64)
    for net in (model, twin):
        net(x).square().sum().backward()
    for a, b in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    optimiser = torch.optim.SGD(twin.parameters(), 0.1)
    optimiser.step()
    model.load_state_dict(twin.state_dict())
    torch.testing.assert_close(model(x), twin(x))


def test_copies_and_pickles() -> None:
    model = Net()
    fastseq.swap(model)
    x = images(2, 3, 26, 26)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
        fastseq.swap(other, back=True)
        assert type(other.features[3]) is nn.MaxPool2d


def test_hooks_stay_and_forbid_fusion() -> None:
    model = Net()
    seen = []
    model.features[2].register_forward_hook(lambda module, args, out: seen.append(type(module)))
    model.lstm.register_forward_hook(lambda module, args, out: seen.append(type(module)))
    report = fastseq.swap(model)
    assert type(model.features[1]) is nn.ReLU
    assert type(model.features[2]) is fastseq.LocalResponseNorm
    assert ("features.1", "torch.nn.ReLU", report.left[0][2]) == report.left[0]
    assert "a hook looks between" in report.left[0][2]
    model(images(2, 3, 26, 26))
    assert seen == [fastseq.LocalResponseNorm, fastseq.LSTM]


def test_what_is_left_and_why() -> None:
    class Own(nn.MaxPool2d):
        pass

    model = nn.Sequential(
        Own(2),
        nn.ReLU(),
        fastseq.LocalResponseNorm(3, within_channel=True),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(2, return_indices=True),
    )
    report = fastseq.swap(model)
    why = {name: reason for name, _, reason in report.left}
    assert "subclass" in why["0"]
    assert "within a channel" in why["1"]
    assert "indices" in why["4"]
    back = fastseq.swap(model, back=True)
    assert "no LRN within a channel" in str(back)
    assert "only modules inside it" in str(fastseq.swap(nn.LSTM(3, 4)))
    own = nn.Sequential(fastseq.ReLULRNMaxPool2d())
    assert "did not put it there" in str(fastseq.swap(own, back=True))


def test_torchvision_models() -> None:
    models = pytest.importorskip("torchvision.models")
    for name, options, pools in (("alexnet", {}, 3), ("googlenet", {"init_weights": False}, 13)):
        model = getattr(models, name)(weights=None, **options).eval()
        x = images(1, 3, 96, 96, scale=1.0)
        with torch.no_grad():
            expected = model(x)
            report = fastseq.swap(model)
            torch.testing.assert_close(model(x), expected)
        assert len(report.replaced) == pools
        assert all(new == "fastseq.MaxPool2d" for _, _, new in report.replaced)
