"""What published packages do around max-pools and LRN, before and after a swap."""

import math
from typing import Any

import pytest
import torch
from before_and_after import OURS, assert_same_after_swap, holding, results, swapped_copy
from recurrence_cases import numbers
from torch import Tensor, nn
from torch.nn import functional as F

import fastseq

N, C, W = 2, 4, 13


def x(width: int = W, channels: int = C) -> Tensor:
    return numbers(N, channels, width, width)


def small() -> nn.Sequential:
    """Convolution, ReLU, LRN and max-pool, twice, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(C, 6, 3), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


# ---- options


def test_options_edited_after_construction() -> None:
    """segmentation_models_pytorch: ``m.padding = (1, 1)`` for each max-pool, by isinstance."""

    def run(model: Any) -> Tensor:
        for m in model.modules():
            if isinstance(m, nn.MaxPool2d):
                m.padding = (1, 1)
            if isinstance(m, nn.LocalResponseNorm):
                m.size, m.alpha, m.beta, m.k = 5, 1e-2, 0.5, 2.0
        return model["net"](x())

    net = nn.Sequential(nn.Conv2d(C, 6, 3), nn.MaxPool2d(3, stride=2), nn.LocalResponseNorm(3))
    assert_same_after_swap(holding(net=net), run)


class SamePool(nn.MaxPool2d):
    """Pads to the input's size over the stride; options become lists, and F does the rest."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__(kernel_size, stride)
        self.kernel_size = [kernel_size] * 2  # type: ignore[assignment]
        self.stride = [stride] * 2  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        sides = []
        for size, k, s in zip(input.shape[:1:-1], self.kernel_size, self.stride, strict=True):  # type: ignore[arg-type]
            pad = max((math.ceil(size / s) - 1) * s + k - size, 0)
            sides += [pad // 2, pad - pad // 2]
        return self.pool(F.pad(input, sides))

    def pool(self, input: Tensor) -> Tensor:
        options = (self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return F.max_pool2d(input, self.kernel_size, self.stride, *options)


class SuperPool(SamePool):
    def pool(self, input: Tensor) -> Tensor:
        return nn.MaxPool2d.forward(self, input)


@pytest.mark.parametrize("kind", [SamePool, SuperPool])
def test_a_subclass_that_pads(kind: type[SamePool]) -> None:
    """segmentation_models_pytorch: such a subclass is left alone, also by ``subclasses=True``."""
    model = holding(net=nn.Sequential(nn.Conv2d(C, 6, 3), kind(3, 2), nn.MaxPool2d(2)))
    twin = assert_same_after_swap(model, lambda m: m["net"](x()), subclasses=True)
    assert type(twin["net"][1]) is kind  # type: ignore[index]


def test_options_are_lists() -> None:
    """segmentation_models_pytorch: ``kernel_size=[3, 2]``, ``stride=[2, 1]``, 3-D input."""
    pool = nn.MaxPool2d([3, 2], [2, 1], [1, 0], ceil_mode=True)  # type: ignore[arg-type]
    model = holding(conv=nn.Conv2d(C, 6, 3), pool=pool)
    assert_same_after_swap(model, lambda m: [m["pool"](m["conv"](x())), m["pool"](x()[0])])


# ---- places


@pytest.mark.parametrize("width", [31, 40])
def test_features_before_each_pool(width: int) -> None:
    """segmentation_models_pytorch: positions of max-pools by isinstance, features before each."""

    def run(model: Any) -> list[Tensor]:
        at = [i for i, m in enumerate(model["net"]) if isinstance(m, nn.MaxPool2d)]
        y, seen = x(width), []
        for i, module in enumerate(model["net"]):
            if i in at:
                seen.append(y)
            y = module(y)
        assert len(seen) == 2
        return [*seen, y]

    assert_same_after_swap(holding(net=small()[:7]), run, fuse=False)


def test_pools_taken_out_and_put_in() -> None:
    """torchvision, segmentation_models_pytorch: ``net[3] = nn.Identity()``, slices, ``del``."""

    def run(model: Any) -> list[Tensor]:
        net = model["net"]
        net[3] = nn.MaxPool2d(3, 1)
        del net[6]
        return [net[:4](x()), net[:6](x()).amax((2, 3))]

    assert_same_after_swap(holding(net=small()), run, fuse=False)


def test_unpooling_by_indices() -> None:
    """segnet, captum: ``MaxUnpool2d`` with the indices and size of the pool before."""

    def run(model: Any) -> Tensor:
        y, indices = model["pool"](model["conv"](x()))
        assert indices.dtype == torch.int64
        return model["unpool"](y, indices, output_size=(N, 6, W - 2, W - 2))

    parts = {"conv": nn.Conv2d(C, 6, 3), "pool": nn.MaxPool2d(2, 2, return_indices=True)}
    assert_same_after_swap(holding(**parts, unpool=nn.MaxUnpool2d(2, 2)), run)


def test_three_pools_of_one_input_joined() -> None:
    """YOLO's spatial pyramid: one pool used three times in a row, all results joined."""

    def run(model: Any) -> Tensor:
        y = model["conv"](x())
        one = model["pool"](y)
        two = model["pool"](one)
        return torch.cat((y, one, two, model["pool"](two)), 1)

    pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)
    assert_same_after_swap(holding(conv=nn.Conv2d(C, 6, 3), pool=pool), run)


def test_a_pool_over_time_or_over_channels() -> None:
    """speechbrain: axes are moved so that the pool runs over one of time, features, channels."""

    def run(model: Any) -> list[Tensor]:
        y = model["linear"](numbers(N, 9, 8))
        over_time = model["pool"](y.unsqueeze(1).transpose(2, 3)).transpose(2, 3).squeeze(1)
        z = numbers(N, 9, 8, 3).permute(0, 3, 1, 2) * y.unsqueeze(1)
        return [over_time, model["pool"](z).permute(0, 2, 3, 1)]

    assert_same_after_swap(holding(linear=nn.Linear(8, 8), pool=nn.MaxPool2d((1, 2))), run)


# ---- who looks at modules


def deep_lift(model: nn.Module, known: Any, input: Tensor, reference: Tensor) -> Tensor:
    """Attributions by a rule for pools, put in by hooks where ``known`` says so."""

    def keep(module: Any, inputs: Any, output: Any) -> None:
        module.input, module.output = inputs[0].clone().detach(), output.clone().detach()

    def rule(module: Any, grad_input: Any, grad_output: Any) -> Any:
        options = (module.stride, module.padding, module.dilation, module.ceil_mode, True)
        _, indices = F.max_pool2d(module.input, module.kernel_size, *options)
        first, second = module.output.chunk(2)
        change = torch.cat(2 * [first - second])
        shape = list(module.input.shape)
        spread = F.max_unpool2d(
            grad_output[0] * change, indices, module.kernel_size, module.stride, 0, shape
        )
        one, two = spread.chunk(2)
        size = torch.cat(2 * [module.input.chunk(2)[0] - module.input.chunk(2)[1]])
        return (torch.where(size.abs() < 1e-7, grad_input[0], torch.cat(2 * [one + two]) / size),)

    handles: list[Any] = []
    for module in model.modules():
        if known(module):
            handles.append(module.register_forward_hook(keep))
            handles.append(module.register_full_backward_hook(rule))
    assert handles
    both = torch.cat([input, reference]).requires_grad_()
    (grads,) = torch.autograd.grad(model(both + 0).sum(), both)
    for handle in handles:
        handle.remove()
    return grads.chunk(2)[0]


@pytest.mark.parametrize("how", ["isinstance", "type after swap back"])
def test_attribution_rules_for_pools(how: str) -> None:
    """captum (DeepLIFT): hooks keep tensors on pools, and rules are found by ``type(module)``.

    By exact type ours are not found, as no subclass is: swap back before such a tool.
    """
    model = holding(net=small())["net"]
    twin = swapped_copy(model, fuse=False)
    if how == "isinstance":
        assert any(isinstance(m, OURS) for m in twin)
    else:
        fastseq.swap(twin, back=True)

    def known(module: nn.Module) -> bool:
        return isinstance(module, nn.MaxPool2d) if how == "isinstance" else (
            type(module) is nn.MaxPool2d
        )  # fmt: skip

    expected, got = (deep_lift(m, known, x(), x() * 0.5 + 0.1) for m in (model, twin))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_hook_replaces_what_a_pool_returns() -> None:
    """captum (layer attribution): hooks replace a module's input and its output."""

    def run(model: Any) -> Tensor:
        pool = model["net"][3]
        handles = [
            pool.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,)),
            pool.register_forward_hook(lambda _, inputs, output: output + inputs[0].mean()),
        ]
        y = model["net"](x())
        for handle in handles:
            handle.remove()
        return y

    assert_same_after_swap(holding(net=small()), run, fuse=False)


def test_hooks_on_every_relu() -> None:
    """captum (guided back-propagation): negative gradients are dropped at each ReLU found.

    ``fuse=False``, as a fused ReLU is no module of its own.
    """

    def run(model: Any) -> Tensor:
        found = [m for m in model["net"] if isinstance(m, nn.ReLU)]
        assert len(found) == 2
        for module in found:
            module.register_full_backward_hook(lambda _, grads, out: (F.relu(grads[0]),))
        images = x().requires_grad_()
        return torch.autograd.grad(model["net"](images + 0)[:, 1].sum(), images)[0]

    assert_same_after_swap(holding(net=small()), run, grads=False, fuse=False)


def test_gradients_of_each_sample() -> None:
    """opacus: vmap over samples of one at a time, for all parameters of the network."""
    from torch.func import functional_call, grad, vmap

    model = holding(net=small())["net"]
    twin = swapped_copy(model)

    def each(net: nn.Module) -> Any:
        def loss(params: Any, sample: Tensor) -> Tensor:
            return functional_call(net, params, (sample.unsqueeze(0),)).square().sum()

        return vmap(grad(loss), in_dims=(None, 0))(dict(net.named_parameters()), x())

    expected, got = each(model), each(twin)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


# ---- numbers: what torch's own tests ask of pools and LRN


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pools_of_special_numbers(value: float, channels_last: bool) -> None:
    """torch's own tests: NaN wins, windows of -inf have an index of their own."""
    images = x()
    images[:, :, 2:9, 3:11] = value
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    for padding in (0, 1):
        pool = nn.MaxPool2d(3, 2, padding, return_indices=True)
        expected, got = pool(images), fastseq.swap(nn.Sequential(pool))[0](images)
        torch.testing.assert_close(got, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    "images",
    [
        numbers(1, 1, W, W).expand(N, C, W, W),
        numbers(N, W, C, W).transpose(1, 2),
        numbers(N, C, 2 * W, 2 * W)[:, :, ::2, 1::2],
        numbers(N, C + 1, W, W)[:, 1:],
        numbers(0, C, W, W),
        numbers(N, 1, W, W).to(memory_format=torch.channels_last),
    ],
    ids=["expanded", "transposed", "strided", "sliced", "no images", "one channel"],
)
def test_images_of_any_layout(images: Tensor) -> None:
    """torch's own tests: every layout; what is contiguous of torch.nn's is so of ours."""
    model = holding(pool=nn.MaxPool2d(3, 2), lrn=nn.LocalResponseNorm(3))
    twin = swapped_copy(model)
    for name in ("pool", "lrn"):
        found = []
        for net in (model, twin):
            leaf = images.detach().requires_grad_()
            y = net[name](leaf)  # type: ignore[index]
            (dx,) = torch.autograd.grad(y.square().sum(), leaf)
            found.append((y.detach(), dx))
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
        assert found[1][0].is_contiguous() or not found[0][0].is_contiguous()


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 5, 3, 4), (2, 5, 3, 4, 2), (2, 5)])
def test_lrn_of_other_ranks(shape: tuple[int, ...]) -> None:
    """torch's own tests: LRN of 3-D to 5-D input; of 2-D it complains."""
    lrn = nn.LocalResponseNorm(3, 1e-2)
    ours = fastseq.swap(nn.Sequential(lrn.__class__(3, 1e-2)))[0]
    if len(shape) < 3:
        for module in (lrn, ours):
            with pytest.raises(ValueError, match="Expected 3D or higher dimensionality"):
                module(numbers(*shape))
        return
    torch.testing.assert_close(ours(numbers(*shape)), lrn(numbers(*shape)))


def test_trained_in_pieces_on_one_graph() -> None:
    """skorch, Lightning: gradients are gathered over batches, the model is copied in between."""

    def run(model: Any) -> Tensor:
        for seed in range(3):
            model["net"](numbers(N, C, W, W, seed=seed)).mean().backward()
        kept = results(swapped_copy(model), lambda m: m["net"](x()))["output 0"]
        torch.testing.assert_close(kept, model["net"](x()).detach(), rtol=1e-4, atol=1e-5)
        return model["net"](x())

    assert_same_after_swap(holding(net=small()), run)
