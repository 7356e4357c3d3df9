"""Digit scenes: real handwritten digits over textures, made from a seed, every pixel labelled."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

# Class 0 is what lies between the digits; digit d is class d + 1.
SCENE_CLASSES = ("background", *(f"digit {digit}" for digit in range(10)))
SMALLEST = 32
MOST_DIGITS = 3
# Width of a digit, as a part of the scene's.
SCALES = (0.35, 0.6)
MAX_TURN = math.radians(15.0)
# Octaves of the texture: patches along a side.
PATCHES = (2, 5, 13)


class DigitScenes(Dataset[tuple[Tensor, Tensor]]):
    """Scenes of one to three digits, each a function of the seed and its place alone.

    Nothing is stored: a scene is composed when it is asked for, the same one every time.

    Args:
        digits: Images ``(1, h, w)`` in [0, 1] and labels 0 to 9, such as a part of
            `digits_datasets`; scenes of one part never show a digit of another.
        count: Number of scenes.
        size: Height and width of the scenes.
        seed: Of all that is random.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from fastseq.recipes.scenes.digit_scenes import DigitScenes
        >>> from fastseq.recipes.shared.digits import digits_datasets
        >>> scenes = DigitScenes(digits_datasets().train, count=100)
        >>> image, truth = scenes[0]
        >>> image.shape, truth.shape, truth.dtype
        (torch.Size([3, 48, 48]), torch.Size([48, 48]), torch.int64)
    """

    def __init__(self, digits: TensorDataset, count: int, size: int = 48, seed: int = 0) -> None:
        if count < 1:
            raise ValueError(f"count is {count}, expected at least 1")
        if size < SMALLEST:
            raise ValueError(f"size is {size}, expected at least {SMALLEST}")
        if len(digits) == 0:
            raise ValueError("digits is empty, expected at least one image to put into scenes")
        self.digits = digits
        self.count = count
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image ``(3, size, size)`` in [0, 1] and classes ``(size, size)``."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        shown = int(torch.randint(1, MOST_DIGITS + 1, (), generator=generator))
        chosen = torch.randint(len(self.digits), (shown,), generator=generator)
        images, labels = self.digits.tensors
        return compose(images[chosen], labels[chosen], self.size, generator)


def compose(
    digits: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Put digits, turned and scaled and in colours of their own, on a texture.

    Args:
        digits: ``(N, 1, h, w)`` in [0, 1]; later ones cover earlier ones.
        labels: Their classes 0 to 9, ``(N,)``.
        size: Height and width of the scene.
        generator: Of all that is random.

    Returns:
        Image ``(3, size, size)`` in [0, 1] and classes ``(size, size)``.
    """
    scene = texture(size, generator)  # (3, S, S)
    truth = torch.zeros(size, size, dtype=torch.long)
    cover = _scatter(digits, size, generator)  # (N, 1, S, S)
    inks = _inks(len(digits), generator)  # (N, 3, 1, 1)
    for alpha, ink, label in zip(cover, inks, labels, strict=True):
        scene = scene + alpha * (ink - scene)
        truth[alpha[0] > 0.5] = label + 1
    noise = torch.randn(scene.shape, generator=generator).mul(0.03)
    return (scene + noise).clamp(0.0, 1.0), truth


def texture(size: int, generator: torch.Generator) -> Tensor:
    """Return patches of colour in several sizes, blended, ``(3, size, size)`` within 0.2 to 0.8."""
    layers = torch.zeros(1, 3, size, size)
    weights = torch.rand(len(PATCHES), generator=generator).add(0.2)
    for patches, weight in zip(PATCHES, weights / weights.sum(), strict=True):
        coarse = torch.rand(1, 3, patches, patches, generator=generator)
        smooth = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
        layers += weight * smooth
    return layers[0].mul(0.6).add(0.2)


def _scatter(digits: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw each digit somewhere in an otherwise empty scene: opacities ``(N, 1, size, size)``."""
    count = len(digits)
    draws = torch.rand(4, count, generator=generator)
    scale = SCALES[0] + (SCALES[1] - SCALES[0]) * draws[0]
    turn = MAX_TURN * (2.0 * draws[1] - 1.0)
    # In coordinates from -1 to 1, and so that no digit leaves the scene but by its turn.
    centre = (1.0 - scale) * (2.0 * draws[2:] - 1.0)  # (2, N)
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    theta = torch.stack(
        [cos, sin, -cos * centre[0] - sin * centre[1], -sin, cos, sin * centre[0] - cos * centre[1]]
    )  # (6, N), from places in the scene to places in the digit
    grid = F.affine_grid(theta.T.reshape(count, 2, 3), [count, 1, size, size], align_corners=False)
    placed = F.grid_sample(digits, grid, mode="bilinear", align_corners=False)
    # The pen was not pressed everywhere alike; strokes should be opaque.
    return placed.mul(1.6).clamp(max=1.0)


def _inks(count: int, generator: torch.Generator) -> Tensor:
    """Return colours darker or lighter than any texture, ``(count, 3, 1, 1)``."""
    shade = torch.rand(count, 3, 1, 1, generator=generator).mul(0.3)
    dark = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(dark, shade, 1.0 - shade)
