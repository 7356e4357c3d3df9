"""Options that recipes share, and their checks.

An option is written once, as a field of a config: name, type, default, and below them a line that
says what it is. The command line, its help and the YAML files are made from the fields.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Cell = Literal["lstm", "gru", "rnn"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of everything that trains."""

    native: bool = False
    """Use torch.nn's layers, to compare."""
    epochs: int | None = None
    """Passes over the training data, at most."""
    batch_size: int = 32
    """Samples in a batch, on each device."""
    lr: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    seed: int = 0
    """Seed of all that is random: parameters, order, noise."""
    accelerator: str = "auto"
    """Lightning's: cpu, gpu, auto."""
    precision: str = "32-true"
    """Lightning's: 32-true, bf16-mixed, ..."""
    out: Path = Path("runs")
    """Folder of the runs; each makes a version_N in it."""

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        at_least_one(self, "epochs", "batch_size")
        positive(self, "lr")
        not_negative(self, "weight_decay")
        check_seed(self)


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingConfig):
    """Options of every recipe of `fastseq train`."""

    patience: int = 15
    """Epochs without progress before stopping early."""
    clip: float = 1.0
    """Norm to which gradients are clipped, against explosion; 0: not."""
    devices: str = "1"
    """Lightning's: a number, or a list like 0,1."""
    strategy: str = "auto"
    """Lightning's: auto, ddp, ..."""
    resume: Path | None = None
    """Run folder or checkpoint to go on from."""

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "patience")
        not_negative(self, "clip")


def as_yaml(config: Any) -> str:
    """Return options as the text of a YAML file, which --config reads."""
    # Lightning, and the command line, bring it.
    import yaml

    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
    }
    return str(yaml.safe_dump(options, sort_keys=False, allow_unicode=True))


def keep_config(config: Any, folder: Path) -> None:
    """Write ``config.yaml`` into a folder: a run with it is the same run again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(as_yaml(config), encoding="utf-8")


def run_config(config: TrainingConfig, **changes: Any) -> RunConfig:
    """Return the options that a config shares with every run, the rest at their defaults."""
    shared = {name: getattr(config, name) for name in TrainingConfig.__dataclass_fields__}
    return RunConfig(**{**shared, **changes})


def at_least_one(config: object, *names: str) -> None:
    """Refuse counts below one; ``None`` stands for a default and passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")


def positive(config: object, *names: str) -> None:
    """Refuse numbers that are not above zero, NaN among them."""
    for name in names:
        value = getattr(config, name)
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected a positive number such as 0.003")


def not_negative(config: object, *names: str) -> None:
    """Refuse numbers below zero, and NaN."""
    for name in names:
        value = getattr(config, name)
        if not (value >= 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected 0 or more")


def check_seed(config: Any) -> None:
    """Refuse a seed that some generator would not take."""
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed is {config.seed}, expected 0 to {2**32 - 1}")
