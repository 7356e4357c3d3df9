"""``lstm``, ``gru`` and ``rnn`` as functions.

The arguments are those of ``torch.lstm``, ``torch.gru`` and ``torch.rnn_tanh``; the modules of
``fastseq.nn`` call these.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastseq.functional.options import PLAIN, Options
from fastseq.functional.stack import stack
from fastseq.ops import Cell


def lstm(
    input: Tensor,
    hx: tuple[Tensor, Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
    *,
    batch_sizes: Tensor | None = None,
    options: Options = PLAIN,
) -> tuple[Tensor, ...]:
    """Long short-term memory (Hochreiter & Schmidhuber, 1997) over a sequence.

    ``c = f c' + i tanh(.)``, ``h = o tanh(c)`` with i, f, o sigmoids of ``W h' + V x + b``; with
    a projection (Sak et al., 2014) ``h = W_hr (o tanh(c))``.

    Args:
        input: (T, B, I), (B, T, I) with ``batch_first``, or packed rows (N, I) with
            ``batch_sizes``.
        hx: h_0 (L*D, B, R) and c_0 (L*D, B, H).
        params: per layer and direction w_ih (4H, I), w_hh (4H, R), then b_ih and b_hh (4H,) if
            ``has_biases``, then w_hr (R, H) if projected; gate order i, f, g, o.
        has_biases: whether ``params`` hold biases.
        num_layers: L.
        dropout: probability of zeroing outputs between layers while ``train``.
        train: training mode; changes nothing but dropout.
        bidirectional: D = 2, the second direction running from the end.
        batch_first: ``input`` and the output are (B, T, .).
        batch_sizes: rows of each step of a PackedSequence, int64 on the CPU.
        options: what is done beside: lengths, resets, regularisation, layer norm.

    Returns:
        The output (T, B, D*R) (or as the input is laid out), h_n (L*D, B, R), c_n (L*D, B, H); with
        ``options.cell_states`` also the cell states of the last layer, (T, B, D*H).

    Raises:
        RuntimeError: dtypes, devices or shapes do not fit, or T is 0.
    """
    y, (h_n, c_n), cells = stack(
        Cell.LSTM,
        input,
        hx,
        params,
        has_biases,
        num_layers,
        dropout,
        train,
        bidirectional,
        batch_first,
        batch_sizes,
        options,
    )
    return (y, h_n, c_n) if cells is None else (y, h_n, c_n, cells)


def gru(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
    *,
    batch_sizes: Tensor | None = None,
    options: Options = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Gated recurrent unit (Cho et al., 2014) over a sequence, in torch.nn's form.

    ``n = tanh(V_n x + b_in + r (W_n h' + b_hn))``, ``h = (1 - z) n + z h'`` with r, z sigmoids of
    ``W h' + V x + b``.

    Args and Raises: as ``lstm``, with one state, w_ih (3H, I), w_hh (3H, H), gate order r, z, n.

    Returns:
        The output (T, B, D*H) and h_n (L*D, B, H).
    """
    y, (h_n,), _ = stack(
        Cell.GRU,
        input,
        (hx,),
        params,
        has_biases,
        num_layers,
        dropout,
        train,
        bidirectional,
        batch_first,
        batch_sizes,
        options,
    )
    return y, h_n


def rnn(
    input: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
    *,
    nonlinearity: str = "tanh",
    batch_sizes: Tensor | None = None,
    options: Options = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Simple (Elman, 1990) recurrent network: ``h = tanh(W h' + V x + b)``, or its positive part.

    Args and Raises: as ``lstm``, with one state, and w_ih (H, I), w_hh (H, H); ``nonlinearity`` is
    "tanh" or "relu" (ValueError otherwise).

    Returns:
        The output (T, B, D*H) and h_n (L*D, B, H).
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    y, (h_n,), _ = stack(
        Cell.RNN_TANH if nonlinearity == "tanh" else Cell.RNN_RELU,
        input,
        (hx,),
        params,
        has_biases,
        num_layers,
        dropout,
        train,
        bidirectional,
        batch_first,
        batch_sizes,
        options,
    )
    return y, h_n
