"""What the image architectures share: checks of images, and double convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from fastseq.nn import MaxPool2d


def max_pool2d(native: bool) -> type[nn.MaxPool2d]:
    """Return the class of a max-pool: torch.nn's, or fastseq's, which derives from it."""
    return nn.MaxPool2d if native else MaxPool2d


def check_images(images: Tensor, channels: int, smallest: int = 1) -> None:
    """Refuse what is no batch of images of at least ``smallest`` pixels along both sides."""
    size = f"at least {smallest} x {smallest} pixels"
    wanted = f"expected (B, {channels}, H, W), {size}"
    shape = f"images have shape {tuple(images.shape)}"
    if images.dim() == 3 and images.size(0) == channels:
        raise ValueError(f"{shape}, {wanted}; add the batch: images.unsqueeze(0)")
    if images.dim() != 4 or images.size(1) != channels:
        raise ValueError(f"{shape}, {wanted}; convert the images to {channels} channels")
    if min(images.shape[2:]) < smallest:
        raise ValueError(f"{shape}, {wanted}; enlarge the images")


def check_square(images: Tensor, channels: int, *sides: int) -> None:
    """Refuse what is no batch of square images with one of these sides."""
    fits = images.dim() == 4 and images.size(1) == channels
    if not fits or images.size(2) != images.size(3) or images.size(2) not in sides:
        wanted = " or ".join(f"(B, {channels}, {side}, {side})" for side in sides)
        raise ValueError(
            f"images have shape {tuple(images.shape)}, expected {wanted}; resize the images"
        )


def conv_norm_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a 3x3 convolution that keeps the size, batch norm and ReLU."""
    # The norm's shift takes the place of a bias.
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return convolution, norm and ReLU, twice."""
    once = conv_norm_relu(in_channels, out_channels)
    return nn.Sequential(*once, *conv_norm_relu(out_channels, out_channels))
