"""The figure of `fastseq study invariance`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fastseq.recipes.invariance.results import Response
from fastseq.recipes.shared.figures import MUTED, TRAIN, VALIDATION, plain, save

LABELS = {
    "layer1": ("layer 1 (convolution)", "#999933"),
    "layer2": ("layer 2 (convolution)", "#228833"),
    "layer3": ("layer 3 (fully connected)", TRAIN),
}
AXES = {
    "translation": "translation (pixels of 28)",
    "scaling": "scaling (factor)",
    "rotation": "rotation (degrees)",
}


def invariance_figure(
    responses: Sequence[Response], baseline: float, path: Path, title: str = ""
) -> Path:
    """Draw distances of features above accuracies, a column for each transformation.

    Args:
        responses: What was measured.
        baseline: Accuracy of the most frequent class.
        path: PNG file to write.
        title: Line above the panels.

    Returns:
        The path.
    """
    figure = Figure(figsize=(10.4, 5.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(2, len(responses), sharey="row", squeeze=False)
    for column, response in enumerate(responses):
        above, below = grid[:, column]
        for layer, distances in response.distances.items():
            label, color = LABELS[layer]
            above.plot(response.strengths, distances, color=color, label=label)
        above.axhline(1.0, color=MUTED, linewidth=0.9, linestyle=":")
        values = [100.0 * accuracy for accuracy in response.accuracies]
        below.plot(response.strengths, values, color=VALIDATION)
        below.axhline(100.0 * baseline, color=MUTED, linewidth=0.9, linestyle=":")
        below.set(xlabel=AXES[response.kind], ylim=(0.0, 103.0))
        if response.kind == "rotation":
            below.set_xticks([-180, -90, 0, 90, 180])
            above.set_xticks([-180, -90, 0, 90, 180])
        for axes in (above, below):
            plain(axes)
    grid[0, 0].set_ylabel("distance of features")
    grid[0, 0].set_ylim(bottom=0.0)
    # In the middle, where the curves are low.
    middle = grid[0, len(responses) // 2]
    corner = middle.get_yaxis_transform()
    middle.text(0.5, 1.02, "another image", ha="center", transform=corner, color=MUTED)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    grid[1, 0].set_ylabel("accuracy (%)")
    grid[1, 0].text(
        0.02,
        100.0 * baseline + 1.5,
        "most frequent class",
        transform=grid[1, 0].get_yaxis_transform(),
        color=MUTED,
    )
    return save(figure, path)
