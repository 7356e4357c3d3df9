"""One battery over the image architectures: shapes, twins, sizes, state dicts, errors."""

import doctest
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastseq.models
from fastseq.models import (
    AlexNet,
    ConvTransposeNet,
    ConvUpsampleNet,
    GoogLeNet,
    GoogLeNetOutput,
    Inception,
    LeNet5,
    NaiveInception,
    ResNetDeepLab,
    UNet,
)

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = 5


@dataclass
class Case:
    """An architecture, small, and a batch that it takes."""

    build: Callable[..., nn.Module]
    images: tuple[int, ...]
    output: tuple[int, ...]


def needs_torchvision(name: str) -> Any:
    def build(**options: Any) -> nn.Module:
        pytest.importorskip("torchvision", reason="the train extra is not installed")
        return ResNetDeepLab(CLASSES, name, aspp_channels=8, **options)

    return build


SEGMENTERS = {
    "unet": Case(
        lambda **o: UNet(3, CLASSES, width=4, depth=3, **o), (2, 3, 37, 45), (2, CLASSES, 37, 45)
    ),
    "upsample": Case(
        lambda **o: ConvUpsampleNet(CLASSES, width=4, **o), (2, 3, 37, 45), (2, CLASSES, 37, 45)
    ),
    "transpose": Case(
        lambda **o: ConvTransposeNet(CLASSES, width=4, **o), (2, 3, 37, 48), (2, CLASSES, 37, 48)
    ),
    "deeplab18": Case(needs_torchvision("resnet18"), (2, 3, 37, 45), (2, CLASSES, 37, 45)),
    "deeplab50": Case(needs_torchvision("resnet50"), (2, 3, 37, 45), (2, CLASSES, 37, 45)),
}
MODULES = {
    "naive": Case(lambda **o: NaiveInception(6, 2, 3, 4, **o), (2, 6, 9, 11), (2, 15, 9, 11)),
    "inception": Case(
        lambda **o: Inception(6, 2, 3, 4, 2, 3, 5, **o), (2, 6, 9, 11), (2, 14, 9, 11)
    ),
}
CLASSIFIERS = {
    "alexnet": Case(lambda **o: AlexNet(CLASSES, width=6, **o), (2, 3, 224, 224), (2, CLASSES)),
    "alexnet2": Case(
        lambda **o: AlexNet(CLASSES, groups=2, width=6, **o), (2, 3, 224, 224), (2, CLASSES)
    ),
    "lenet5": Case(lambda **o: LeNet5(CLASSES, **o), (3, 1, 28, 28), (3, CLASSES)),
    "googlenet": Case(lambda **o: GoogLeNet(CLASSES, **o), (1, 3, 224, 224), (1, CLASSES)),
}
CASES = {**SEGMENTERS, **MODULES, **CLASSIFIERS}


def every(cases: dict[str, Case]) -> Any:
    return pytest.mark.parametrize("case", cases.values(), ids=list(cases))


def twins(case: Case, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    pair = []
    for native in (False, True):
        torch.manual_seed(0)
        pair.append(case.build(native=native).to(dtype))
    return pair[0], pair[1]


def images(case: Case, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(case.images, dtype=dtype, generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, batch: Tensor) -> tuple[Tensor, ...]:
    """What a model returns, as a tuple; dropout draws the same numbers each time."""
    torch.manual_seed(2)
    result = model(batch)
    return result if isinstance(result, tuple) else (result,)


@every(CASES)
def test_outputs_and_gradients_are_those_of_the_native_twin(case: Case) -> None:
    # In float64, where only a mistake can make a difference.
    ours, native = twins(case, torch.float64)
    results = []
    for model in (ours, native):
        batch = images(case, torch.float64).requires_grad_()
        out = outputs(model, batch)
        generator = torch.Generator().manual_seed(3)
        weights = [torch.randn(part.shape, dtype=part.dtype, generator=generator) for part in out]
        loss = sum((part * weight).sum() for part, weight in zip(out, weights, strict=True))
        results.append((out, torch.autograd.grad(loss, [batch, *model.parameters()])))
    assert results[0][0][0].shape == case.output
    for mine, theirs in zip(*(out + gradients for out, gradients in results), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)
    # Every parameter has a part in what comes out.
    assert all(gradient.abs().max() > 0 for gradient in results[0][1])


@every(CASES)
def test_state_dict_loads_both_ways(case: Case) -> None:
    ours, native = twins(case)
    batch = images(case)
    for source, target in ((ours, case.build(native=True)), (native, case.build())):
        assert list(source.state_dict()) == list(target.state_dict())
        target.load_state_dict(source.state_dict())
        source.eval(), target.eval()
        with torch.no_grad():
            torch.testing.assert_close(outputs(source, batch), outputs(target, batch))


@every(CASES)
def test_every_pool_and_lrn_is_fastseqs_unless_native(case: Case) -> None:
    windows = (nn.MaxPool2d, nn.LocalResponseNorm, fastseq.ReLULRNMaxPool2d)
    for model, library in zip(twins(case), ("fastseq", "torch"), strict=True):
        found = [type(part).__module__ for part in model.modules() if isinstance(part, windows)]
        assert found
        assert all(name.startswith(library) for name in found)


@pytest.mark.parametrize("size", [(31, 31), (32, 33), (46, 35), (64, 31)], ids=str)
@every({name: case for name, case in SEGMENTERS.items() if name != "deeplab50"})
def test_segmenters_take_any_size(case: Case, size: tuple[int, int]) -> None:
    model = case.build().eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size)).shape == (1, CLASSES, *size)


@pytest.mark.parametrize("name", ["unet", "upsample", "deeplab18"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 17)], ids=str)
def test_segmenters_take_tiny_images(name: str, size: tuple[int, int]) -> None:
    model = SEGMENTERS[name].build().eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size)).shape == (1, CLASSES, *size)


@every({name: case for name, case in SEGMENTERS.items() if name != "deeplab50"})
def test_segmenters_learn_a_picture(case: Case) -> None:
    # Four fields in four colours: only a network that keeps places in order can learn them.
    torch.manual_seed(0)
    model = case.build()
    truth = torch.zeros(2, 35, 35, dtype=torch.long)
    truth[:, 12:, :20], truth[:, :12, 20:], truth[:, 12:, 20:] = 1, 2, 4
    colours = torch.rand(CLASSES, 3)
    batch = colours[truth].permute(0, 3, 1, 2) + 0.05 * torch.randn(2, 3, 35, 35)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(batch), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # 1.33 is the entropy of the fields' areas: the best without looking at the picture.
    assert loss.item() < 1.1


def parameters(build: Callable[[], nn.Module]) -> int:
    # On no device at all: nobody needs to draw sixty million numbers.
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def test_parameter_counts_are_the_published_ones() -> None:
    assert parameters(AlexNet) == 62_378_344
    assert parameters(lambda: AlexNet(groups=2)) == 60_965_224
    assert parameters(lambda: GoogLeNet(aux_logits=False)) == 6_998_552
    assert parameters(GoogLeNet) == 13_378_280
    assert parameters(LeNet5) == 61_706


@pytest.mark.parametrize("groups", [1, 2])
def test_alexnet_has_the_neurons_of_the_slide(groups: int) -> None:
    with torch.device("meta"):
        model = AlexNet(groups=groups)
    neurons: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            neurons[name] = neurons.get(name, 0) + output[0].numel()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            layer = name.split(".", 2)[-1] if name.startswith("columns") else name
            module.register_forward_hook(count(layer))
    images = torch.empty(1, 3, 224, 224, device="meta")
    assert images[0].numel() == 150_528
    model(images)
    # The paper's 253,440 for the first is no multiple of 96 maps of 55 x 55.
    counts = [55 * 55 * 96, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert list(neurons.values()) == counts


def test_two_columns_are_grouped_convolutions() -> None:
    # The same network as others write it: one device, Conv2d(groups=2).
    torch.manual_seed(0)
    model = AlexNet(7, groups=2, width=12, native=True).double().eval()
    first, second = model.columns

    def both(path: str) -> tuple[Tensor, Tensor]:
        layers = [column.get_submodule(path) for column in (first, second)]
        return torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers])

    def end(maps: Tensor) -> Tensor:
        # LRN stays within a column: the devices do not talk there.
        maps = maps.relu().unflatten(1, (2, -1)).flatten(0, 1)
        maps = nn.functional.local_response_norm(maps, 5, 5e-4, 0.75, 2.0)
        return nn.functional.max_pool2d(maps.unflatten(0, (-1, 2)).flatten(1, 2), 3, 2)

    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    conv = nn.functional.conv2d
    maps = end(conv(images, *both("low.0"), stride=4, padding=2))
    maps = end(conv(maps, *both("low.2"), padding=2, groups=2))
    maps = conv(maps, *both("high.0"), padding=1).relu()
    maps = conv(maps, *both("high.2"), padding=1, groups=2).relu()
    maps = conv(maps, *both("high.4"), padding=1, groups=2).relu()
    units = nn.functional.max_pool2d(maps, 3, 2).flatten(1)
    units = nn.functional.linear(units, *both("fc6.1")).relu()
    units = nn.functional.linear(units, *both("fc7.1")).relu()
    torch.testing.assert_close(model(images), model.head(units))


class Wire(torch.utils._python_dispatch.TorchDispatchMode):
    """Lets tensors cross between the CPU and the meta device, and notes each that does.

    Any op on tensors of both devices is an error by itself, so that the two stand for two devices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossed: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = kwargs.get("device")
        if op is torch.ops.aten._to_copy.default and target is not None:
            source = args[0]
            if source.device.type != torch.device(target).type:
                self.crossed.append((f"{source.device.type} to {target}", tuple(source.shape)))
                return torch.zeros(source.shape, dtype=source.dtype, device=target)
        return op(*args, **kwargs)


def test_alexnet_on_two_devices_talks_in_certain_layers_only() -> None:
    model = AlexNet(10, groups=2, width=12)
    assert model.place("cpu", "meta") is model
    devices = [{str(p.device) for p in column.parameters()} for column in model.columns]
    assert devices == [{"cpu"}, {"meta"}]
    assert model.head.weight.device.type == "cpu"
    images = torch.rand(2, 3, 224, 224)
    with Wire() as wire:
        logits = model(images)
    assert logits.shape == (2, 10)
    assert logits.device.type == "cpu"
    half_maps, half_flat, half_units = (2, 16, 13, 13), (2, 16 * 36), (2, 256)
    assert wire.crossed == [
        ("cpu to meta", (2, 3, 224, 224)),  # the images
        ("meta to cpu", half_maps),  # conv3
        ("cpu to meta", half_maps),
        ("meta to cpu", half_flat),  # fc6
        ("cpu to meta", half_flat),
        ("meta to cpu", half_units),  # fc7
        ("cpu to meta", half_units),
        ("meta to cpu", half_units),  # the last layer
    ]


def test_alexnet_place_wants_a_device_for_each_column() -> None:
    with torch.device("meta"):
        model = AlexNet(groups=2, width=6)
    with pytest.raises(ValueError, match="1 devices for 2 columns"):
        model.place("cpu")


def test_googlenet_has_the_maps_of_the_papers_table() -> None:
    table = {"3a": (256, 28), "3b": (480, 28), "4a": (512, 14), "4b": (512, 14), "4c": (512, 14)}
    table |= {"4d": (528, 14), "4e": (832, 14), "5a": (832, 7), "5b": (1024, 7)}
    seen = {}
    with torch.device("meta"):
        model = GoogLeNet()
    for name, module in model.inception.items():
        module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.shape}))
    model(torch.empty(2, 3, 224, 224, device="meta"))
    assert seen == {name: (2, maps, side, side) for name, (maps, side) in table.items()}


def test_googlenet_uses_its_helpers_in_training_only() -> None:
    with torch.device("meta"):
        model, plain = GoogLeNet(7), GoogLeNet(7, aux_logits=False)
        images = torch.empty(2, 3, 224, 224)
    output = model(images)
    assert isinstance(output, GoogLeNetOutput)
    assert [part.shape for part in output] == [(2, 7)] * 3
    assert model.eval()(images).shape == (2, 7)
    assert plain(images).shape == (2, 7)


def test_inception_spares_the_work_that_the_slide_says() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        maps = torch.empty(1, 192, 28, 28)
        direct = NaiveInception(192, 1, 1, 32).branch5
        reduced = Inception(192, 1, 1, 1, 16, 32, 1).branch5
        wide = NaiveInception(256, 1, 1, 256).branch5
        through64 = Inception(256, 1, 1, 1, 64, 256, 1).branch5
    for branch, multiplications in ((direct, 120_422_400), (reduced, 12_443_648)):
        with FlopCounterMode(display=False) as flops:
            branch(maps)
        assert flops.get_total_flops() == 2 * multiplications
    for branch, weights in ((wide, 1_638_400), (through64, 425_984)):
        assert sum(p.numel() for p in branch.parameters() if p.dim() > 1) == weights


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_deeplab_encoder_is_torchvisions(name: str) -> None:
    models = pytest.importorskip("torchvision").models
    model = ResNetDeepLab(CLASSES, name, aspp_channels=8).eval()
    # torchvision dilates resnet50 only; resnet18 is compared before its last stage.
    options = {"replace_stride_with_dilation": [False, False, True]} if name == "resnet50" else {}
    theirs = getattr(models, name)(weights=None, **options).eval()
    model, theirs = model.double(), theirs.double()
    theirs.load_state_dict(model.encoder.state_dict(), strict=False)
    stages = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"]
    stages += ["layer4"] if options else []
    ours = maps = torch.randn(1, 3, 65, 49, dtype=torch.float64)
    with torch.no_grad():
        for stage in stages:
            ours, maps = getattr(model.encoder, stage)(ours), getattr(theirs, stage)(maps)
        torch.testing.assert_close(ours, maps)
        # A sixteenth of the image, not a thirty-second.
        last = ours if options else model.encoder.layer4(ours)
    assert last.shape[2:] == (5, 4)


def test_deeplab_hands_weights_to_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(3)
    trained = models.resnet18(weights=None).state_dict()
    weights = models.ResNet18_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: trained)
    model = ResNetDeepLab(CLASSES, weights=weights)
    assert torch.equal(model.encoder.layer4[1].conv2.weight, trained["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: UNet(0, 2), "in_channels is 0, expected at least 1"),
        (lambda: UNet(3, 2, depth=0), "depth is 0, expected at least 1"),
        (lambda: ConvUpsampleNet(0), "num_classes is 0, expected at least 1"),
        (lambda: ConvUpsampleNet(3, dropout=1.0), "dropout is 1.0, expected 0 <= dropout < 1"),
        (lambda: ConvTransposeNet(3, width=-1), "width is -1, expected at least 1"),
        (lambda: ResNetDeepLab(3, "vgg16"), "backbone is 'vgg16', expected one of 'resnet18'"),
        (lambda: ResNetDeepLab(3, aspp_channels=0), "aspp_channels is 0"),
        (lambda: AlexNet(groups=3), "groups is 3, expected 1 or 2"),
        (lambda: AlexNet(width=8), "width is 8, expected a multiple of 6"),
        (lambda: AlexNet(dropout=float("nan")), "dropout is nan"),
        (lambda: LeNet5(num_classes=0), "num_classes is 0"),
        (lambda: NaiveInception(3, 1, 0, 1), "c3 is 0, expected at least 1"),
        (lambda: Inception(3, 1, 1, 1, 0, 1, 1), "r5 is 0, expected at least 1"),
        (lambda: GoogLeNet(num_classes=0), "num_classes is 0"),
    ],
)
def test_arguments_are_refused_in_words(build: Callable[[], nn.Module], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


@every(CASES)
def test_images_are_refused_in_words(case: Case) -> None:
    with torch.device("meta"):
        model = case.build()
    batch, channels, height, width = case.images
    for shape in ((batch, channels + 1, height, width), (channels, height, width), (batch, 7)):
        with pytest.raises(ValueError) as error:
            model(torch.empty(shape, device="meta"))
        assert f"images have shape {shape}, expected (B, {channels}, " in str(error.value)


@pytest.mark.parametrize(
    ("build", "shape", "sentence"),
    [
        (lambda: UNet(3, 2, width=2), (3, 40, 40), r"add the batch: images.unsqueeze\(0\)"),
        (lambda: ConvTransposeNet(3, width=2), (1, 3, 30, 64), "at least 31 x 31 pixels"),
        (lambda: UNet(1, 2, width=2), (1, 1, 0, 4), "enlarge the images"),
        (lambda: AlexNet(width=6), (1, 3, 227, 227), r"expected \(B, 3, 224, 224\)"),
        (lambda: LeNet5(), (1, 1, 28, 32), r"\(B, 1, 28, 28\) or \(B, 1, 32, 32\)"),
    ],
)
def test_sizes_are_refused_in_words(
    build: Callable[[], nn.Module], shape: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()(torch.rand(shape))


def test_deeplab_refuses_to_train_on_one_image() -> None:
    pytest.importorskip("torchvision")
    model = ResNetDeepLab(CLASSES, aspp_channels=8)
    with pytest.raises(ValueError, match="a batch of one"):
        model(torch.rand(1, 3, 32, 32))


EXAMPLES = ["alexnet", "conv_transpose", "conv_upsample", "googlenet", "inception", "lenet5"]


@pytest.mark.parametrize("name", [*EXAMPLES, "resnet_deeplab", "unet"])
def test_examples_run(name: str) -> None:
    if name == "resnet_deeplab":
        pytest.importorskip("torchvision", reason="the train extra is not installed")
    failed, tried = doctest.testmod(importlib.import_module(f"fastseq.models.{name}"))
    assert failed == 0
    assert tried > 1
