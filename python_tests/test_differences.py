"""docs/differences.md: the tests that it names exist, and the lines that no other file tests."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from image_cases import images
from recurrence_cases import numbers
from torch import Tensor, nn

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/differences.md"


def named_tests() -> list[str]:
    """Files and tests between backquotes; ``::name`` alone belongs to the file before it."""
    found, file = [], ""
    for name in re.findall(r"`(\S*?)`", PAGE.read_text()):
        if name.startswith("test_") and ".py" in name:
            file = name.partition("::")[0]
            found.append(name)
        elif name.startswith("::"):
            found.append(file + name)
    return found


def test_each_test_on_the_page_exists() -> None:
    names = named_tests()
    assert len(names) > 30
    for name in names:
        file, _, test = name.partition("::")
        assert (HERE / file).is_file(), name
        assert not test or f"def {test}(" in (HERE / file).read_text(), name


def test_each_line_of_a_table_names_its_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    heads = {"difference", "who"}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] in heads or "test_" in cells[-1] or cells[-1] == "by hand", row


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:.*quantiz")
def test_quantize_dynamic_passes_by_until_swapped_back() -> None:
    model = fastseq.swap(nn.ModuleDict({"lstm": nn.LSTM(8, 8), "head": nn.Linear(8, 8)}))
    made = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.Linear})
    assert type(made["lstm"]) is fastseq.LSTM
    assert type(made["head"]) is not nn.Linear
    fastseq.swap(model, back=True)
    made = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM})
    assert "quantized" in type(made["lstm"]).__module__


def test_who_asks_for_the_type_itself_does_not_find_it() -> None:
    """As captum's and opacus's tables do, and initialisers that compare types."""
    for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
        ours, theirs = getattr(fastseq, name)(3, 4), getattr(nn, name)
        assert isinstance(ours, theirs)
        assert type(ours) not in {theirs: "a rule"}


def three() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.LocalResponseNorm(3), nn.MaxPool2d(3, 2)
    )


def test_behind_swap_three_modules_are_one() -> None:
    """Guided back-propagation looks for ReLUs, searches for pools: ``fuse=False`` leaves them."""
    fused, apart = fastseq.swap(three()), fastseq.swap(three(), fuse=False)
    assert not any(isinstance(m, (nn.ReLU, nn.MaxPool2d)) for m in fused)
    assert isinstance(apart[1], nn.ReLU)
    assert isinstance(apart[3], nn.MaxPool2d)


def test_a_fused_relu_in_place_leaves_its_input() -> None:
    """Who keeps the convolution's result, since after ``swap``, sees it as the convolution made it.

    A hook from before ``swap`` forbids the fusion.
    """
    models, seen = (three(), fastseq.swap(three())), []
    for model in models:
        model[0].register_forward_hook(lambda module, args, out: seen.append(out))
        model(images(1, 3, 12, 12))
    native, ours = seen
    assert native.min() >= 0 > ours.min()
    assert torch.equal(ours.relu(), native)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_traced_recurrence_checks_as_the_op_does(kind: str) -> None:
    """Python's checks are not in a trace: no steps are computed, wrong sizes get the op's words."""
    module = getattr(fastseq, kind)(3, 4)
    traced = torch.jit.trace(module, numbers(5, 2, 3))
    assert traced(numbers(0, 2, 3))[0].shape == (0, 2, 4)
    for wrong in (numbers(5, 2, 7), numbers(5, 3)):  # another size; unbatched
        with pytest.raises(RuntimeError):
            traced(wrong)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0"):
        module(numbers(0, 2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_lrn_under_autocast_keeps_the_dtype() -> None:
    """TorchScript cannot ask whether autocast is on for the CPU (torch 2.15 crashes there)."""
    x, native, ours = images(1, 3, 8, 8).bfloat16(), nn.LocalResponseNorm(3), None
    ours = fastseq.LocalResponseNorm(3)
    scripted: Any = torch.jit.script(ours)
    with torch.autocast("cpu", torch.bfloat16):
        assert native(x).dtype == ours(x).dtype == torch.float32
        assert scripted(x).dtype == torch.bfloat16


def test_lrn_within_a_channel_under_autocast_is_as_across() -> None:
    """torch.nn has none; ours widens what autocast widens for its neighbour."""
    within = fastseq.LocalResponseNorm(3, within_channel=True)
    across = fastseq.LocalResponseNorm(3)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x: Tensor = images(1, 3, 8, 8).to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            assert within(x).dtype == across(x).dtype
        assert within(x).dtype == dtype
