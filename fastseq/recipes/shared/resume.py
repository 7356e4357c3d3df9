"""Checkpoints to go on from: found, and refused in words when they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that ``path`` names; in the folder of a run that is its last one."""
    candidate = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not candidate.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint at {candidate}; pass --resume the folder of a run "
            f"(such as runs/rows/version_0) or a .ckpt file"
        )
    return candidate


def check_hyper_parameters(checkpoint: Path, expected: dict[str, Any]) -> None:
    """Refuse a checkpoint whose layers are not those of the run that wants to go on from it.

    Args:
        checkpoint: File that Lightning wrote.
        expected: Hyper-parameters on which both must agree, by name.

    Raises:
        ValueError: If the file is not such a checkpoint, or differs in one of them.
    """
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["hyper_parameters"]
        theirs = {name: saved[name] for name in expected}
    # A file that is no checkpoint fails in as many ways as there are file formats.
    except Exception as error:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of this recipe ({type(error).__name__}); "
            f"pass --resume one that it wrote"
        ) from error
    if theirs != expected:
        raise ValueError(
            f"{checkpoint} was trained with {_spell(theirs)}, and this run asks for "
            f"{_spell(expected)}; pass the same options, or train anew without --resume"
        )


def _spell(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
