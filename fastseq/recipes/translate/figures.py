"""The figure of `fastseq train translate`: where the decoder looked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from fastseq.recipes.shared.figures import save


def attention_map(
    weights: Tensor, read: Sequence[str], written: Sequence[str], path: Path, title: str = ""
) -> Path:
    """Draw where a decoder looked as it wrote each token.

    Args:
        weights: ``(T, S)``, rows that sum to 1.
        read: The S tokens of the encoder.
        written: The T tokens of the decoder.
        path: PNG file to write.
        title: Line above.

    Returns:
        The path.
    """
    figure = Figure(
        figsize=(2.4 + 0.45 * len(read), 1.8 + 0.38 * len(written)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(weights.float().numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(read)), read, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(written)), written)
    axes.set(xlabel="read", ylabel="written")
    if title:
        figure.suptitle(title)
    figure.colorbar(image, ax=axes, label="attention weight")
    return save(figure, path)
