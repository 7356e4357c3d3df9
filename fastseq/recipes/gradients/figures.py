"""The figure of `fastseq study gradients`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastseq.recipes.gradients.results import Reach, Training
from fastseq.recipes.shared.figures import MUTED, TRAIN, VALIDATION, plain, save

COLORS = {"rnn": "#228833", "gru": VALIDATION, "lstm": TRAIN}


def gradients_figure(
    vanishing: Sequence[Reach],
    exploding: Sequence[Reach],
    trainings: Sequence[Training],
    path: Path,
) -> Path:
    """Draw norms against t for plain and for large weights, and training with and without clipping.

    Args:
        vanishing: Reaches of plain layers; a gated one with half-closed gates is dashed.
        exploding: Reaches of layers with large recurrent weights.
        trainings: Without clipping, and with.
        path: PNG file to write.

    Returns:
        The path.
    """
    figure = Figure(figsize=(10.0, 7.2), layout="constrained")
    (left, right), (norms, losses) = figure.subplots(2, 2)
    _reaches(left, vanishing)
    left.set_title("weights as initialised")
    _reaches(right, exploding)
    right.set_title(f"recurrent weights {exploding[0].gain:g} times as large")
    for training in trainings:
        clipped = training.clip is not None
        color = TRAIN if clipped else VALIDATION
        name = f"{'' if clipped else 'not '}clipped, ends at {training.losses[-1]:.2g}"
        updates = range(1, len(training.losses) + 1)
        losses.plot(updates, training.losses, color=color, label=name)
        if clipped:
            label = f"clipped to {training.clip:g}: as used"
            norms.plot(updates, training.norms, color=color, linewidth=0.8, label="before clipping")
            norms.plot(updates, training.applied, color=MUTED, label=label)
        else:
            norms.plot(updates, training.norms, color=color, linewidth=0.8, label="not clipped")
    norms.set(xlabel="update", ylabel="norm of the gradient", yscale="log")
    norms.set_title("training the exploding RNN")
    losses.set(xlabel="update", ylabel="loss (mean squared error)", yscale="log")
    losses.set_title("its loss")
    # What is not clipped soon leaves the picture, by any number of decades.
    held = trainings[-1]
    norms.set_ylim(0.3 * min(held.applied), 1e3 * max(held.norms))
    losses.set_ylim(0.3 * min(held.losses), 1e3 * max(held.losses))
    for axes in (left, right, norms, losses):
        plain(axes)
        axes.legend(frameon=False)
    return save(figure, path)


def _reaches(axes: Axes, reaches: Sequence[Reach]) -> None:
    for reach in reaches:
        name, style = reach.cell.upper(), "-"
        if reach.cell != "rnn":
            name += f", gate bias {reach.open_bias:+g}" if reach.open_bias else ", gate as it is"
            style = "-" if reach.open_bias else "--"
        steps = range(1, len(reach.norms) + 1)
        axes.plot(steps, reach.norms, style, color=COLORS[reach.cell], label=name)
    axes.set(xlabel="t", ylabel=r"$\|\partial h_T / \partial x_t\|$", yscale="log")
