"""The precision of float32 products on a GPU, by torch's own switches.

torch has one for RNNs, ``torch.backends.cudnn.rnn.fp32_precision``, which is TF32 by default, and
one for matrix products, which is not. A recurrent layer obeys the first, whoever computes it.
ATen's products ask the second, which belongs to the whole process: it is turned for as long as a
layer launches its products. What another thread multiplies meanwhile goes by it, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_get = torch._C._get_fp32_precision_getter
_set = torch._C._set_fp32_precision_setter


def cudnn_enabled() -> bool:
    """Whether torch has cuDNN and the user lets it use it."""
    return torch._C._get_cudnn_enabled() and torch.backends.cudnn.is_available()


def tf32(single: bool) -> bool:
    """Whether a layer may multiply float32 as TF32.

    Args:
        single: that it is a single step, whose products are torch's in LSTMCell and its kin.
    """
    return _get("cuda", "matmul" if single or not cudnn_enabled() else "rnn") == "tf32"


class _Switch:
    """The switch of matrix products, as one or more threads have turned it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = ""

    def turn(self) -> bool:
        """Turn it to what RNNs ask for; whether that was not, or is no longer, the case."""
        with self.lock:
            if not self.users:
                wanted = "tf32" if _get("cuda", "rnn") == "tf32" else "ieee"
                before = _get("cuda", "matmul")
                if (before == "tf32") == (wanted == "tf32"):
                    return False
                # What it inherits from torch.backends.fp32_precision, it shall go on to inherit.
                self.before = "none" if before == _get("cuda", "all") else before
                _set("cuda", "matmul", wanted)
            self.users += 1
        return True

    def turn_back(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                _set("cuda", "matmul", self.before)


_switch = _Switch()


@contextmanager
def rnn_precision(x: Tensor) -> Iterator[None]:
    """Let the products within obey torch's switch for RNNs.

    Nothing is turned where cuDNN is disabled, since torch.nn's layers obey the other switch there,
    nor for a single step: that is what LSTMCell and its kin do, whose products are torch's.

    Args:
        x: the layer's input, (T, B, I) or packed rows (N, I).
    """
    cell = x.dim() == 3 and x.shape[0] == 1
    if x.dtype != torch.float32 or cell or not cudnn_enabled() or not _switch.turn():
        yield
        return
    try:
        yield
    finally:
        _switch.turn_back()
