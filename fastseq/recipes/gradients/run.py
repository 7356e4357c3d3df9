"""How far gradients reach: the norm of dh_T/dx_t against t, for RNN, GRU and LSTM.

The figure of the lectures on sequences. For the simple RNN, dh_T/dx_t is a product of T - t factors
s'(z) W, so that its norm falls, or grows, like a power of T - t; gates that are open keep it up.
Large recurrent weights make gradients explode, and clipping bounds the step that comes of them.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor, nn

from fastseq.models.recurrences import recurrence
from fastseq.recipes.gradients.config import GradientsConfig
from fastseq.recipes.gradients.figures import gradients_figure
from fastseq.recipes.gradients.results import GradientsResult, Reach, Training
from fastseq.recipes.shared.config import keep_config

CELLS = ("rnn", "gru", "lstm")


def build(config: GradientsConfig, cell: str, open_bias: float, gain: float) -> nn.Module:
    """Return a layer with its gates opened and its recurrent weights multiplied."""
    torch.manual_seed(config.seed)
    layer = recurrence(cell, config.input_size, config.hidden_size, 1, 0.0, config.native).double()
    with torch.no_grad():
        layer.get_parameter("weight_hh_l0").mul_(gain)
        if cell != "rnn":
            # The second of the gates in both: LSTM's i, f, g, o and GRU's r, z, n.
            size = config.hidden_size
            layer.get_parameter("bias_ih_l0")[size : 2 * size] += open_bias
    return layer


def gradient_norms(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the norm of dh_T/dx_t for every t, a mean over sequences, ``(T,)``.

    It is the Frobenius norm of the whole Jacobian, and not of the gradient of some one loss: a
    backward pass for each unit of h_T.

    Args:
        layer: A batch-first recurrence of one layer.
        inputs: ``(B, T, I)``.
    """
    inputs = inputs.detach().requires_grad_()
    last = layer(inputs)[0][:, -1]  # (B, H)
    squares = inputs.new_zeros(inputs.shape[:2], requires_grad=False)  # (B, T)
    for unit in range(last.size(1)):
        # Sequences do not meet, so the gradient of their sum holds each one's own.
        (gradient,) = torch.autograd.grad(last[:, unit].sum(), inputs, retain_graph=True)
        squares += gradient.square().sum(dim=2)
    return squares.sqrt().mean(dim=0)


def train(config: GradientsConfig, clip: float | None) -> Training:
    """Train the exploding RNN to tell the mean of a sequence's first feature, by plain SGD."""
    layer = build(config, "rnn", 0.0, config.gain)
    head = nn.Linear(config.hidden_size, 1, dtype=torch.float64)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, config.lr)
    generator = torch.Generator().manual_seed(config.seed)
    result = Training(clip, [], [], [])
    for _ in range(config.updates):
        inputs = _sequences(config, generator)  # (B, T, I)
        told = head(layer(inputs)[0][:, -1]).squeeze(1)  # (B,)
        loss = nn.functional.mse_loss(told, inputs[:, :, 0].mean(dim=1))
        optimizer.zero_grad()
        loss.backward()
        norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        used = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        result.losses.append(float(loss.detach()))
        result.norms.append(norm)
        result.applied.append(float(used))
        optimizer.step()
    return result


class GradientsRun:
    """The study.

    Args:
        config: The options.
    """

    def __init__(self, config: GradientsConfig) -> None:
        self.config = config

    def run(self) -> GradientsResult:
        """Measure how far gradients reach, write figure and numbers, and print a table."""
        config = self.config
        keep_config(config, config.out)
        library = "torch.nn" if config.native else "fastseq"
        print(
            f"{library}: |dh_T/dx_t|, T = {config.steps}, {config.hidden_size} units, mean of "
            f"{config.batch} random sequences, float64",
            flush=True,
        )
        opened = [(cell, 0.0 if cell == "rnn" else config.open_bias) for cell in CELLS]
        plain = [_reach(config, *layer, 1.0) for layer in [*opened, ("gru", 0.0), ("lstm", 0.0)]]
        exploding = [_reach(config, *layer, config.gain) for layer in opened]
        trainings = [train(config, None), train(config, config.clip)]
        figure = gradients_figure(plain, exploding, trainings, config.out / "gradients.png")
        _write(plain + exploding, config.out / "gradients.csv")
        print("cell  gate bias  weights  |dh_T/dx_1|  |dh_T/dx_T|  each step back")
        for reach in plain + exploding:
            print(
                f"{reach.cell.upper():<6}{reach.open_bias:>+9g}{reach.gain:>8g} x"
                f"{reach.norms[0]:>13.2e}{reach.norms[-1]:>13.2e}{reach.factor:>13.3f} x"
            )
        for training in trainings:
            how = "not clipped" if training.clip is None else f"clipped to {training.clip:g}"
            print(
                f"training, {how}: largest gradient {max(training.norms):.3g}, largest used "
                f"{max(training.applied):.3g}, last loss {training.losses[-1]:.3g}"
            )
        print(f"figure      {figure}\nnumbers     {config.out / 'gradients.csv'}")
        rnn, _, lstm = plain[:3]
        print(
            f"over {config.steps - 1} steps the gradient changes by {rnn.factor:.3f} a step in the "
            f"RNN, {lstm.factor:.3f} in the LSTM; with weights {config.gain:g} times as large by "
            f"{exploding[0].factor:.3f} in the RNN",
            flush=True,
        )
        return GradientsResult(plain, exploding, trainings, figure)


def study_gradients(config: GradientsConfig | None = None) -> GradientsResult:
    """Measure how far gradients reach in RNN, GRU and LSTM.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        What was measured, and the path of the figure.

    Example:
        >>> from fastseq.recipes.gradients.config import GradientsConfig
        >>> from fastseq.recipes.gradients.run import study_gradients
        >>> result = study_gradients(GradientsConfig(steps=30))  # doctest: +SKIP
    """
    return GradientsRun(config or GradientsConfig()).run()


def _reach(config: GradientsConfig, cell: str, open_bias: float, gain: float) -> Reach:
    layer = build(config, cell, open_bias, gain)
    inputs = _sequences(config, torch.Generator().manual_seed(config.seed))
    return Reach(cell, open_bias, gain, gradient_norms(layer, inputs).tolist())


def _sequences(config: GradientsConfig, generator: torch.Generator) -> Tensor:
    shape = (config.batch, config.steps, config.input_size)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _write(reaches: list[Reach], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "open_bias", "gain", "t", "norm"])
        for reach in reaches:
            for t, norm in enumerate(reach.norms, start=1):
                writer.writerow([reach.cell, reach.open_bias, reach.gain, t, repr(norm)])
