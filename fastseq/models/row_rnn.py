"""RowRNN: a recurrent network that reads an image row by row, as one reads a page."""

from __future__ import annotations

from torch import Tensor, nn

from fastseq.models.recurrences import check_cell, recurrence
from fastseq.models.shared import check_dropout, check_sizes


class RowRNN(nn.Module):
    """Classify an image from the sequence of its rows.

    The row classifier of I2DL exercise 11 ("MNIST with RNNs"): a 28x28 image is a sequence of 28
    steps of 28 inputs, and a linear layer reads the top layer's hidden state after the last row.

    Args:
        cell: The recurrence, ``"lstm"``, ``"gru"`` or ``"rnn"`` (tanh).
        input_size: Pixels in a row, which is the width of the images.
        hidden_size: Units of each recurrent layer.
        num_layers: Recurrent layers, stacked.
        num_classes: Logits in the output.
        dropout: Probability of zeroing a hidden unit between stacked layers, in ``[0, 1)``.
        native: Build the recurrence from ``torch.nn`` instead of ``fastseq.nn``. Parameter names
            and initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, 1, T, input_size)`` or ``(B, T, input_size)``; T rows, 28 for MNIST.
        - Output: ``(B, num_classes)``.

    Raises:
        ValueError: If an argument is out of range, or an image has the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import RowRNN
        >>> model = RowRNN("gru", hidden_size=64)
        >>> model(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 10])
    """

    def __init__(
        self,
        cell: str = "lstm",
        input_size: int = 28,
        hidden_size: int = 128,
        num_layers: int = 1,
        num_classes: int = 10,
        dropout: float = 0.0,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_cell(cell)
        check_sizes(
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_classes=num_classes,
        )
        check_dropout(dropout)
        self.input_size = input_size
        self.rnn = recurrence(cell, input_size, hidden_size, num_layers, dropout, native)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        rows = self._rows(images)  # (B, T, I)
        hidden, _ = self.rnn(rows)  # (B, T, H)
        logits: Tensor = self.head(hidden[:, -1])  # (B, H) -> (B, num_classes)
        return logits

    def _rows(self, images: Tensor) -> Tensor:
        one_channel = images.dim() == 4 and images.size(1) == 1
        rows = images.squeeze(1) if one_channel else images  # (B, T, I)
        if rows.dim() != 3 or rows.size(2) != self.input_size or rows.size(1) == 0:
            width = self.input_size
            raise ValueError(
                f"images have shape {tuple(images.shape)}, expected (B, 1, rows, {width}) or "
                f"(B, rows, {width}) with at least one row; resize the images, or build "
                f"RowRNN(input_size=...) with their width"
            )
        return rows
