"""A quieter Lightning: one progress bar, and no messages that no user of a recipe can act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

# Each is a whole known message: anything else that Lightning has to say still comes through.
WARNINGS = (
    r".*does not have many workers which may be a bottleneck.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    # A resumed run writes into the folder of the run that it continues.
    r".*Checkpoint directory .* exists and is not empty.*",
    # A copied checkpoint begins a new run, and says so by its new folder.
    r".*The dirpath has changed from .*",
    # Each process evaluates all of the data here, which is what makes the figure exact.
    r".*it is recommended to use `Trainer\(devices=1, num_nodes=1\)`.*",
    # Lightning's use of torch's own internals, and nothing that a caller does.
    r".*isinstance\(treespec, LeafSpec\).* is deprecated.*",
)
TIPS = (
    "litlogger",
    "litmodels",
    "TPU available",
    "HPU available",
    "to estimate number of stepping batches",
)
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")


def _is_no_tip(record: logging.LogRecord) -> bool:
    return not any(tip in record.getMessage() for tip in TIPS)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the messages listed above for as long as the block runs."""
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_is_no_tip)
        try:
            yield
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeFilter(_is_no_tip)


@contextmanager
def silent() -> Iterator[None]:
    """Keep Lightning's remarks on its own progress to itself, for many small trainings."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class EpochBar(TQDMProgressBar):
    """One bar an epoch; validation takes too short a time to flicker up a second one."""

    def init_validation_tqdm(self) -> Tqdm:
        """Return a bar that draws nothing."""
        return Tqdm(disable=True)

    def init_test_tqdm(self) -> Tqdm:
        """Return a bar that draws nothing."""
        return Tqdm(disable=True)
