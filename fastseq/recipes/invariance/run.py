"""How far features move when an image does: translation, scaling and rotation.

After the lectures' figure (M. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional
Networks", 2014, figure 5): a network's first layer changes with every small transformation, its top
layer little under translation, somewhat under scaling, and much under rotation.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseq.recipes.invariance.config import InvarianceConfig
from fastseq.recipes.invariance.figures import invariance_figure
from fastseq.recipes.invariance.results import InvarianceResult, Response
from fastseq.recipes.shared.config import keep_config
from fastseq.recipes.shared.small_alexnet import SmallAlexNet, framed_digits, train_network

LAYERS = ("layer1", "layer2", "layer3")
# What leaves every image as it is, and what is done to it.
IDENTITY = {"translation": 0.0, "scaling": 1.0, "rotation": 0.0}
STRENGTHS = {
    "translation": [float(pixels) for pixels in range(-6, 7)],
    "scaling": [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4],
    "rotation": [float(degrees) for degrees in range(-180, 181, 15)],
}
# Pixels around the digits, so that none leaves its image.
MARGIN = 5


def transform(images: Tensor, kind: str, strength: float) -> Tensor:
    """Move, scale or turn images ``(B, C, H, W)`` about their centre, black flowing in.

    Args:
        images: Square images.
        kind: ``"translation"`` to the right in pixels, ``"scaling"`` by a factor, or ``"rotation"``
            counterclockwise in degrees.
        strength: How far.
    """
    side = images.size(-1)
    matrix = torch.eye(2, 3)
    # affine_grid asks where a pixel of the result comes from: the inverse.
    if kind == "translation":
        matrix[0, 2] = -2.0 * strength / side
    elif kind == "scaling":
        matrix = matrix / strength
    elif kind == "rotation":
        angle = math.radians(strength)
        cos, sin = math.cos(angle), math.sin(angle)
        matrix[:, :2] = torch.tensor([[cos, -sin], [sin, cos]])
    else:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(STRENGTHS)}")
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


@torch.no_grad()
def layer_features(model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features of each layer, flat ``(B, F)``, and the classes read ``(B,)``."""
    features = {}
    values = images
    for layer in LAYERS:
        values = model.get_submodule(layer)(values)
        features[layer] = values.flatten(1)
    read: Tensor = model.get_submodule("head")(values).argmax(dim=1)
    return features, read


def respond(model: nn.Module, images: Tensor, labels: Tensor, kind: str) -> Response:
    """Measure what one kind of transformation does to the features of each layer."""
    still, _ = layer_features(model, images)
    count = len(images)
    # Mean over all pairs of different images.
    scale = {
        layer: float(torch.cdist(values, values).sum() / (count * (count - 1)))
        for layer, values in still.items()
    }
    distances: dict[str, list[float]] = {layer: [] for layer in LAYERS}
    accuracies = []
    for strength in STRENGTHS[kind]:
        moved, read = layer_features(model, transform(images, kind, strength))
        for layer in LAYERS:
            distance = (moved[layer] - still[layer]).norm(dim=1).mean()
            distances[layer].append(float(distance) / max(scale[layer], 1e-12))
        accuracies.append(float((read == labels).float().mean()))
    return Response(kind, STRENGTHS[kind], distances, accuracies)


class InvarianceRun:
    """The study, its data loaded before the training.

    Args:
        config: The options.
    """

    def __init__(self, config: InvarianceConfig) -> None:
        self.config = config
        self.splits = framed_digits(MARGIN)

    def run(self) -> InvarianceResult:
        """Train a network, transform test images, write figure and numbers, and print a table."""
        config, splits = self.config, self.splits
        keep_config(config, config.out)
        images, labels = splits.test.tensors
        baseline = float(labels.bincount().max() / len(labels))
        library = "torch.nn" if config.native else "fastseq"
        print(
            f"{library} small AlexNet; digits of {28 - 2 * MARGIN} pixels in images of 28: "
            f"{len(splits.train):,} to train on, {min(config.images, len(images)):,} to transform",
            flush=True,
        )
        torch.manual_seed(config.seed)
        model = SmallAlexNet(width=config.width, native=config.native)
        trained = train_network(model, splits, config, config.out)
        images, labels = images[: config.images], labels[: config.images]
        responses = [respond(trained.model, images, labels, kind) for kind in STRENGTHS]
        figure = invariance_figure(
            responses, baseline, config.out / "invariance.png", f"{library}, digits"
        )
        _write(responses, config.out / "invariance.csv")
        shown = {"translation": 3.0, "scaling": 0.8, "rotation": 45.0}
        print(f"{'':<22}{'layer 1':>9}{'layer 2':>9}{'layer 3':>9}{'accuracy':>11}")
        for response in responses:
            place = response.strengths.index(shown[response.kind])
            cells = "".join(f"{response.distances[layer][place]:>9.2f}" for layer in LAYERS)
            name = f"{response.kind} {shown[response.kind]:g}"
            print(f"{name:<22}{cells}{100.0 * response.accuracies[place]:>9.2f} %")
        print("(distance of features; 1 is the mean between two different images)")
        print(f"figure      {figure}\nnumbers     {config.out / 'invariance.csv'}")
        print(
            f"baseline: the most frequent digit has {100.0 * baseline:.2f} %\n"
            f"test accuracy {100.0 * trained.accuracy:.2f} % on untouched images",
            flush=True,
        )
        return InvarianceResult(trained.accuracy, baseline, responses, figure)


def study_invariance(config: InvarianceConfig | None = None) -> InvarianceResult:
    """Measure what a trained network makes of moved, scaled and turned digits.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        What was measured, and the path of the figure.

    Example:
        >>> from fastseq.recipes.invariance.config import InvarianceConfig
        >>> from fastseq.recipes.invariance.run import study_invariance
        >>> result = study_invariance(InvarianceConfig(epochs=3))  # doctest: +SKIP
    """
    return InvarianceRun(config or InvarianceConfig()).run()


def _write(responses: list[Response], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["transformation", "strength", *LAYERS, "accuracy"])
        for response in responses:
            for place, strength in enumerate(response.strengths):
                distances = [f"{response.distances[layer][place]:.4f}" for layer in LAYERS]
                accuracy = f"{response.accuracies[place]:.4f}"
                writer.writerow([response.kind, strength, *distances, accuracy])
