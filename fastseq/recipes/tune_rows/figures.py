"""The figure of a search of hyper-parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from fastseq.recipes.shared.figures import MUTED, TRAIN, VALIDATION, logarithmic, plain, save

# Percent.
LEAST = 0.1
CELLS = {"lstm": TRAIN, "gru": VALIDATION, "rnn": "#228833"}


def search_plot(trials: Sequence[FrozenTrial], path: Path) -> Path:
    """Draw the error of every trial, and beside it against the learning rate.

    Args:
        trials: Complete and pruned ones; the value of a pruned one is its last report.
        path: PNG file to write.

    Returns:
        The path.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    order, rates = figure.subplots(1, 2, sharey=True)
    for cell, color in CELLS.items():
        some = [trial for trial in trials if trial.params["cell"] == cell]
        full = [color if t.state is TrialState.COMPLETE else "none" for t in some]
        marks = {"s": 45, "edgecolors": color, "c": full}
        errors = [_error(trial) for trial in some]
        order.scatter([trial.number for trial in some], errors, **marks)
        rates.scatter([trial.params["lr"] for trial in some], errors, **marks)
        if some:
            rates.scatter([], [], s=45, color=color, label=cell.upper())
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = list(accumulate(map(_error, complete), min))
    numbers = [trial.number for trial in complete]
    order.step(numbers, best, where="post", color=MUTED, linewidth=1.0, label="best so far")
    order.scatter([], [], s=45, color="none", edgecolors=MUTED, label="pruned, at its last epoch")
    order.set(xlabel="trial (the first takes the defaults)", ylabel="validation error (%)")
    order.xaxis.set_major_locator(MaxNLocator(integer=True))
    rates.set(xlabel="learning rate")
    logarithmic(order)
    logarithmic(rates, "x")
    for axes in (order, rates):
        plain(axes)
        # Above: inside it would lie on the points.
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    return save(figure, path)


def _error(trial: FrozenTrial) -> float:
    assert trial.value is not None
    # A logarithmic axis has no place for a perfect score.
    return max(LEAST, 100.0 * (1.0 - trial.value))
