"""What cannot be done is said in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NoReturn

# Looked for before the first of them is imported, which takes long.
PACKAGES = {
    "train": ("lightning", "matplotlib", "sklearn", "torchmetrics"),
    "bench": ("matplotlib", "numpy", "onnx", "onnxruntime"),
}


@contextmanager
def refusing(command: str, extra: str = "train") -> Iterator[None]:
    """Make what goes wrong while a run is imported and built a sentence, and exit code 1.

    Only the building belongs inside: an error in the middle of training deserves its traceback.

    Args:
        command: Said where a package is missing, for instance ``"fastseq train"``.
        extra: The extra of this package that brings what the command needs.
    """
    try:
        for package in PACKAGES.get(extra, ()):
            if find_spec(package) is None:
                raise ModuleNotFoundError(name=package)
        yield
    except ModuleNotFoundError as error:
        # A part of fastseq itself that is missing is no matter of extras.
        if (error.name or "").partition(".")[0] == "fastseq":
            raise
        needed = error.name or "a package that is not installed"
        refuse(f"{command} needs {needed}: pip install 'fastseq[{extra}]'")
    except (ValueError, OSError) as error:
        refuse(str(error))


def refuse(sentence: str, code: int = 1) -> NoReturn:
    """Say on stderr what is wrong, and leave with an exit code: 2 for a wrong command line."""
    print(f"fastseq: {sentence}", file=sys.stderr)
    raise SystemExit(code)
