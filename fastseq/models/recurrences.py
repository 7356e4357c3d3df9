"""What the recurrent architectures share: layers by name, ragged batches, checks in words."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastseq.nn import GRU, LSTM, RNN

FUSED: dict[str, type[nn.Module]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
NATIVE: dict[str, type[nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
# An LSTM's is (h, c), the others' h; each (L * D, B, H).
State = Tensor | tuple[Tensor, Tensor]


def recurrence(
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    dropout: float,
    native: bool,
    bidirectional: bool = False,
) -> nn.Module:
    """Return a batch-first recurrence of fastseq's, or of torch.nn's where ``native``."""
    return (NATIVE if native else FUSED)[cell](
        input_size,
        hidden_size,
        num_layers=num_layers,
        # torch.nn warns about dropout on a single layer, where there is nothing between layers.
        dropout=dropout if num_layers > 1 else 0.0,
        batch_first=True,
        bidirectional=bidirectional,
    )


def run_ragged(rnn: nn.Module, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
    """Run a batch-first recurrence over sequences of different lengths.

    Args:
        rnn: A batch-first recurrence.
        inputs: ``(B, T, I)``; what lies beyond a sequence's length is not read.
        lengths: Steps of each sequence, ``(B,)``, 1 to T.

    Returns:
        Outputs ``(B, T, D * H)``, zero beyond each length, and the states after the last step of
        each sequence.
    """
    if isinstance(rnn, (LSTM, GRU, RNN)):
        made: tuple[Tensor, State] = rnn(inputs, lengths=lengths)
        return made
    packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, state = rnn(packed)
    padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.size(1))
    return padded, state


def map_state(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """Return a state with ``change`` applied to each of its tensors."""
    if isinstance(state, tuple):
        return change(state[0]), change(state[1])
    return change(state)


def check_cell(cell: str, known: Collection[str] = tuple(FUSED)) -> None:
    """Refuse a recurrence of another name."""
    if cell not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"cell is {cell!r}, expected one of {names}; pass cell='lstm'")


def check_tokens(tokens: Tensor, vocab_size: int, name: str = "tokens") -> None:
    """Refuse what is no batch of token numbers below ``vocab_size``."""
    if tokens.dim() != 2 or tokens.size(1) == 0:
        raise ValueError(
            f"{name} has shape {tuple(tokens.shape)}, expected (B, T) with at least one step; "
            f"one sequence is a batch of one: {name}.unsqueeze(0)"
        )
    if tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} has dtype {tokens.dtype}, expected token numbers; pass {name}.long()"
        )
    # On a GPU the question would wait for all that is queued; there the embedding itself asserts.
    if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"{name} holds {low if low < 0 else high}, expected 0 to {vocab_size - 1}; "
                f"build the model with the size of the vocabulary"
            )


def check_lengths(lengths: Tensor, tokens: Tensor) -> None:
    """Refuse lengths that are not one number from 1 to T for each sequence."""
    batch, steps = tokens.shape
    if lengths.shape != (batch,):
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)}, expected ({batch},), one for each sequence"
        )
    if batch and (int(lengths.min()) < 1 or int(lengths.max()) > steps):
        raise ValueError(
            f"lengths run from {int(lengths.min())} to {int(lengths.max())}, expected 1 to "
            f"{steps}, the steps of the batch; leave empty sequences out"
        )
