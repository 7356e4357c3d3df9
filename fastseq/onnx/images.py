"""LRN, max-pool and the trio as ONNX's nodes."""

from __future__ import annotations

from collections.abc import Sequence

from onnxscript import ir

from fastseq.onnx._common import LAST, Value, absent, ints, narrowed, number, op, typed, widened
from fastseq.ops.pool import Window


def local_response_norm(
    x: Value, size: int, alpha: float, beta: float, k: float, within_channel: bool
) -> Value:
    """``ops.local_response_norm``."""
    wide = widened(x)
    # ONNX's parameters are float32; its window for an even size is longer to the right.
    native = size % 2 == 1 and not within_channel and wide.dtype != ir.DataType.DOUBLE
    norm = _node if native else _within_channel if within_channel else _across_channels
    return narrowed(norm(wide, size, alpha, beta, k), x)


def _node(x: Value, size: int, alpha: float, beta: float, k: float) -> Value:
    options = {"size": size, "alpha": alpha, "beta": beta, "bias": k}
    if len(x.shape) == 4:
        return op.LRN(x, **options)
    plane = op.Reshape(x, ints(0, 0, 1, -1))  # ONNX Runtime takes four dimensions only
    return op.Reshape(op.LRN(plane, **options), op.Shape(x))


def _across_channels(x: Value, size: int, alpha: float, beta: float, k: float) -> Value:
    return _divided(x, _slide(op.Mul(x, x), 1, size), alpha / size, beta, k)


def _within_channel(x: Value, size: int, alpha: float, beta: float, k: float) -> Value:
    sums = _slide(_slide(op.Mul(x, x), 3, size), 2, size)
    return _divided(x, sums, alpha / (size * size), beta, k)


def _divided(x: Value, sums: Value, scale: float, beta: float, k: float) -> Value:
    normalizer = op.Add(op.Mul(sums, number(scale, x)), number(k, x))
    return op.Div(x, op.Pow(normalizer, number(beta, x)))


def _slide(x: Value, axis: int, size: int) -> Value:
    """Sums over the window [i - size//2, i + (size-1)//2] along an axis; zeros outside."""
    padded = op.Pad(x, ints(size // 2, (size - 1) // 2), None, ints(axis))
    ends = [i - size + 1 for i in range(size - 1)] + [LAST]
    parts = [op.Slice(padded, ints(i), ints(end), ints(axis)) for i, end in enumerate(ends)]
    return op.Sum(*parts)


def max_pool2d(
    x: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    save: bool,
) -> tuple[Value, Value]:
    """``ops.max_pool2d``: y and offsets."""
    rank = len(x.shape)
    images = widened(x)
    images = op.Unsqueeze(images, ints(0)) if rank == 3 else images
    y, indices = op.MaxPool(
        images,
        kernel_shape=list(kernel_size),
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        ceil_mode=int(ceil_mode),
    )
    # The exporter drops these nodes again where nobody uses them.
    window = Window(*((pair[0], pair[1]) for pair in (kernel_size, stride, padding, dilation)))
    offsets = _offsets(images, indices, window)
    if rank == 3:
        y, offsets = op.Squeeze(y, ints(0)), op.Squeeze(offsets, ints(0))
    return narrowed(y, x), offsets


def _offsets(images: Value, indices: Value, window: Window) -> Value:
    """Places in the windows from MaxPool's indices, which number all pixels of the batch."""
    height, width = (op.Shape(images, start=d, end=d + 1) for d in (2, 3))
    pixel = op.Mod(indices, op.Mul(height, width))
    places = []
    for side, at in enumerate((op.Div(pixel, width), op.Mod(pixel, width))):
        count = op.Squeeze(op.Shape(indices, start=side + 2, end=side + 3))
        outputs = op.Range(_scalar(0), count, _scalar(1))
        first = op.Sub(
            op.Mul(outputs, ints(window.stride[side])),
            ints(window.padding[side]),
        )
        if side == 0:
            first = op.Unsqueeze(first, ints(1))
        places.append(op.Div(op.Sub(at, first), ints(window.dilation[side])))
    offsets = op.Add(op.Mul(places[0], ints(window.kernel_size[1])), places[1])
    small = window.kernel_size[0] * window.kernel_size[1] <= 256
    return op.Cast(offsets, to=ir.DataType.UINT8 if small else ir.DataType.INT32)


def _scalar(value: int) -> Value:
    return op.Constant(value_int=value)


def relu_lrn_max_pool2d(
    x: Value,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    save: bool,
) -> tuple[Value, Value]:
    """``ops.relu_lrn_max_pool2d``: y; the offsets only backward reads."""
    wide = widened(x)
    positive = typed(op.Relu(wide), wide.dtype, wide.shape)
    normed = typed(
        local_response_norm(positive, size, alpha, beta, k, False), wide.dtype, wide.shape
    )
    y, _ = max_pool2d(normed, kernel_size, stride, padding, dilation, ceil_mode, save)
    return narrowed(y, x), absent()
