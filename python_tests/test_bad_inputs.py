"""Every bad or odd input of the table ends as it says, and as torch.nn has it end."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import bad_images  # noqa: F401
import bad_others  # noqa: F401  each adds its cases
import pytest
import torch
from bad_inputs import CASES, OURS, THEIRS, Case
from recurrence_cases import leaves
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_thread")


def outcome(call: Callable[[], Any]) -> tuple[type[BaseException] | None, str, Any]:
    """The exception's type and first line, or the result."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return None, "", call()
    except Exception as error:
        return type(error), str(error).split("\n")[0], None


def assert_same_results(ours: Any, theirs: Any) -> None:
    if not isinstance(theirs, (Tensor, tuple)):
        assert ours == theirs
        return
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        assert (a.shape, a.dtype, a.device, a.layout) == (b.shape, b.dtype, b.device, b.layout)
        if not b.is_meta:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


TRIED = [(name, kind) for name, case in CASES.items() for kind in case.kinds]


@pytest.mark.parametrize(("name", "kind"), TRIED, ids=lambda part: part or "-")
def test_bad_input(name: str, kind: str) -> None:
    case: Case = CASES[name]
    raised, words, result = outcome(lambda: case.call(OURS, kind))
    assert raised is case.raises, (raised, words)
    assert re.search(case.words.replace("{kind}", kind), words), words
    if case.native == "own":
        return
    expected, their_words, their_result = outcome(lambda: case.call(THEIRS, kind))
    if case.raises is None:
        assert expected is None, their_words
        assert_same_results(result, their_result)
    elif case.native == "same":
        assert (raised, words) == (expected, their_words)
    else:
        assert expected is not None
        assert issubclass(case.raises, expected), (expected, their_words)


def test_the_table_is_long() -> None:
    assert len(CASES) >= 80
