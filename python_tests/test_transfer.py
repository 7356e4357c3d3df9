"""fastseq.transfer on torchvision's classifiers (on no device: shapes only) and on trained ones."""

import copy
import doctest
import importlib
import io
import pkgutil
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="the train extra is not installed")

import torchvision

import fastseq.transfer
from fastseq import transfer
from fastseq.models import AlexNet, GoogLeNet, LeNet5, RowRNN, UNet
from fastseq.transfer import (
    choice_table,
    choose,
    extract_features,
    find_heads,
    freeze_features,
    layer_names,
    param_groups,
    replace_head,
    train_only_norms,
    unfreeze,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Head, and the last two layers below it.
KNOWN: dict[str, tuple[list[str], list[str]]] = {
    "mobilenet_v2": (["classifier.1"], ["features.17", "features.18"]),
    "resnet18": (["fc"], ["layer4.0", "layer4.1"]),
    "resnet50": (["fc"], ["layer4.1", "layer4.2"]),
    "vgg16": (["classifier.6"], ["classifier.0", "classifier.3"]),
    "vgg11_bn": (["classifier.6"], ["classifier.0", "classifier.3"]),
    "densenet121": (["classifier"], ["features.denseblock4", "features.norm5"]),
    "alexnet": (["classifier.6"], ["classifier.1", "classifier.4"]),
    "googlenet": (["fc", "aux1.fc2", "aux2.fc2"], ["inception5a", "inception5b"]),
}
every = pytest.mark.parametrize("name", KNOWN)


def build(name: str) -> nn.Module:
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def of(*modules: str) -> set[str]:
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


@every
def test_new_head_has_the_classes_and_the_rest_is_untouched(name: str) -> None:
    model = build(name)
    before = dict(model.named_parameters())
    assert list(find_heads(model)) == KNOWN[name][0]
    assert replace_head(model, 7) is model
    heads = of(*KNOWN[name][0])
    for key, parameter in model.named_parameters():
        assert (parameter is before[key]) == (key not in heads)
    output = model(torch.empty(2, 3, 224, 224, device="meta"))
    parts = output if isinstance(output, tuple) else (output,)
    assert all(part.shape == (2, 7) for part in parts)
    assert len(parts) == len(KNOWN[name][0])


@every
def test_what_is_trained(name: str) -> None:
    model = replace_head(build(name), 7)
    everything, heads = trained(model), of(*KNOWN[name][0])
    assert freeze_features(model) is model
    assert trained(model) == heads
    assert unfreeze(model, last=2) is model
    last = tuple(f"{layer}." for layer in KNOWN[name][1])
    assert trained(model) == heads | {key for key in everything if key.startswith(last)}
    unfreeze(model, last=0)
    assert trained(model) > heads  # nothing is frozen by unfreezing
    unfreeze(freeze_features(model), last=len(layer_names(model)))
    # Of googlenet, all but what its helpers have below their heads.
    helpers = {key for key in everything - heads if key.startswith("aux")}
    assert trained(model) == everything - helpers
    unfreeze(model)
    assert trained(model) == everything


@every
def test_only_norms_are_trained(name: str) -> None:
    model = build(name)
    norms = [key for key, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    if norms:
        assert train_only_norms(model) is model
        assert trained(model) == of(*KNOWN[name][0], *norms)
    else:
        before = trained(model)
        with pytest.raises(ValueError, match="has no normalization layer with weights"):
            train_only_norms(model)
        assert trained(model) == before


@every
def test_learning_rates(name: str) -> None:
    model = replace_head(build(name), 7)
    groups = {group["name"]: group for group in param_groups(model, lr=0.001)}
    heads = find_heads(model).values()
    assert {id(p) for p in groups["new weights"]["params"]} == {id(h.weight) for h in heads}
    assert {id(p) for p in groups["new biases"]["params"]} == {id(h.bias) for h in heads}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))
    rates = [groups[key]["lr"] for key in ("copied", "new weights", "new biases")]
    assert rates == pytest.approx([0.001, 0.01, 0.02])
    frozen = param_groups(freeze_features(model), 0.001, new_lr_scale=3, new_bias_lr_scale=4)
    assert [group["name"] for group in frozen] == ["new weights", "new biases"]
    assert [group["lr"] for group in frozen] == pytest.approx([0.003, 0.004])
    torch.optim.SGD(param_groups(model, lr=0.001), momentum=0.9)


def test_fastseqs_own_classifiers_have_heads() -> None:
    with torch.device("meta"):
        models = [AlexNet(width=6), LeNet5(), RowRNN(), GoogLeNet()]
    for model, name in zip(models, ("head", "head", "head", "fc"), strict=True):
        assert next(iter(find_heads(model))) == name
    assert layer_names(models[-1])[-2:] == ["inception.5a", "inception.5b"]


def test_new_head_keeps_dtype_bias_and_mode() -> None:
    model = nn.Sequential()
    model.head = nn.Linear(3, 4, bias=False, dtype=torch.float64)
    head = replace_head(model.eval(), 2).head
    assert head.weight.dtype == torch.float64
    assert head.bias is None
    assert not head.training
    assert [group["name"] for group in param_groups(model, 0.1)] == ["new weights"]


def small() -> nn.Sequential:
    """A network with batch norm, whose head is named as in torchvision."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.features = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 8),
    )
    model.fc = nn.Linear(8, 3)
    return model


def steps(model: nn.Module, count: int = 3) -> None:
    optimizer = torch.optim.SGD(param_groups(model, lr=0.05))
    generator = torch.Generator().manual_seed(1)
    model.train()
    for _ in range(count):
        images = 3.0 + torch.randn(6, 1, 8, 8, generator=generator)
        loss = nn.functional.cross_entropy(model(images), torch.arange(6) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


STATISTICS = {f"features.1.{k}" for k in ("running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize(
    ("way", "moves"),
    [
        (freeze_features, of("fc")),
        (lambda m: unfreeze(freeze_features(m), last=1), of("features.4", "fc")),
        (train_only_norms, of("features.1", "fc") | STATISTICS),
        (
            lambda m: unfreeze(freeze_features(m)),
            of("features.1", "features.4", "fc") | STATISTICS | {"features.0.weight"},
        ),
    ],
    ids=["frozen", "last", "norms", "all"],
)
def test_training_moves_exactly_what_it_should(way: Any, moves: set[str]) -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    steps(way(model))
    assert changed(model, before) == moves


def test_unfrozen_norms_follow_the_model_again() -> None:
    model = freeze_features(freeze_features(small()))
    norm = model.features[1]
    model.train()
    model(torch.rand(2, 1, 8, 8))
    assert not norm.training
    assert len(norm._forward_pre_hooks) == 1
    unfreeze(model)
    assert norm.training
    assert not norm._forward_pre_hooks
    # A copy is as still as its original.
    twin = copy.deepcopy(freeze_features(model)).train()
    twin(torch.rand(2, 1, 8, 8))
    assert not twin.features[1].training


def test_features_carry_over_to_other_classes() -> None:
    """Trained on digits 0 to 4, saved, loaded: the features serve 5 to 9, by either head."""
    pytest.importorskip("sklearn", reason="the train extra is not installed")
    from sklearn.linear_model import LogisticRegression

    from fastseq.recipes.shared.digits import digits_datasets

    splits = digits_datasets()
    images, labels = splits.train.tensors
    old = labels < 5
    torch.manual_seed(0)
    model = LeNet5(5)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images[old]), labels[old])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    checkpoint = io.BytesIO()
    torch.save(model.state_dict(), checkpoint)
    checkpoint.seek(0)

    loaded = LeNet5(5)
    loaded.load_state_dict(torch.load(checkpoint, weights_only=True))
    few = (~old).nonzero().flatten()[:100]
    test_images, test_labels = splits.test.tensors
    new = test_labels >= 5
    features, targets = extract_features(loaded, [(images[few], labels[few])])
    seen, truth = extract_features(loaded, [(test_images[new], test_labels[new])])
    outside = LogisticRegression(max_iter=1000).fit(features.numpy(), targets.numpy())
    assert outside.score(seen.numpy(), truth.numpy()) > 0.6  # chance is 20 %

    freeze_features(replace_head(loaded, 5))
    optimizer = torch.optim.SGD(param_groups(loaded, lr=0.1), momentum=0.9)
    for _ in range(30):
        loss = nn.functional.cross_entropy(loaded(images[few]), labels[few] - 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (loaded(test_images[new]).argmax(1) == test_labels[new] - 5).float().mean()
    assert right > 0.6


def test_extracted_features_are_what_the_head_reads() -> None:
    model = small().train()
    model.features[1].eval()
    modes = [module.training for module in model.modules()]
    batches = [(torch.rand(n, 1, 8, 8), torch.arange(n)) for n in (3, 2)]
    features, labels = extract_features(model, batches)
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert features.shape == (5, 8)
    assert not features.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert not model.fc._forward_pre_hooks
    images = torch.cat([batch[0] for batch in batches])
    early, _ = extract_features(model, batches, layer="features.1")
    model.eval()
    torch.testing.assert_close(features, model.features(images).detach())
    torch.testing.assert_close(early, model.features[:2](images).mean((2, 3)).detach())


@pytest.mark.parametrize("data", ["little", "much"])
@pytest.mark.parametrize("domain", ["similar", "different"])
def test_choices_explain_themselves_in_code_that_runs(data: str, domain: str) -> None:
    choice = choose(data, domain)
    assert f"{data} {domain} data: {choice.advice}" in choice_table()
    model = small()
    scope = {**vars(transfer), "model": model, "num_classes": 4}
    scope["loader"] = [(torch.rand(2, 1, 8, 8), torch.arange(2))]
    exec(choice.code, scope)
    if (data, domain) == ("little", "different"):
        assert scope["features"].shape == (2, 4)
    else:
        assert model.fc.out_features == 4
        counts = {"little similar": 2, "much similar": 6, "much different": 7}
        assert len(trained(model)) == counts[f"{data} {domain}"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: replace_head(UNet(1, 2, width=2), 3), "UNet has no head|named fc, classifier"),
        (lambda: replace_head(nn.Sequential(nn.Linear(2, 2)), 3), "Sequential has no head"),
        (lambda: replace_head(LeNet5(), 0), "num_classes is 0, expected at least 1"),
        (lambda: unfreeze(LeNet5(), last=5), "last is 5, expected 0 to 4, the layers of LeNet5"),
        (lambda: unfreeze(LeNet5(), last=-1), "last is -1"),
        (lambda: param_groups(LeNet5(), lr=0.0), "lr is 0.0, expected a positive number"),
        (lambda: param_groups(LeNet5(), 0.1, new_lr_scale=-1.0), "new_lr_scale is -1.0"),
        (lambda: param_groups(LeNet5().requires_grad_(False), 0.1), "nothing in LeNet5 is trained"),
        (lambda: extract_features(LeNet5(), []), "the loader gave no batch"),
        (
            lambda: extract_features(LeNet5(), [], layer="conv9"),
            "has no layer 'conv9'; it has features.0, features.3",
        ),
        (lambda: choose("some", "similar"), "data is 'some', expected 'little' or 'much'"),
        (lambda: choose("little", "other"), "domain is 'other', expected 'different' or"),
    ],
)
def test_mistakes_get_a_sentence(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(fastseq.transfer.__path__)]
)
def test_examples_run(name: str) -> None:
    pytest.importorskip("sklearn", reason="the train extra is not installed")
    failed, tried = doctest.testmod(importlib.import_module(f"fastseq.transfer.{name}"))
    assert failed == 0
    assert tried > 0
