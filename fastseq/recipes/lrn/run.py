"""What LRN and overlapping pooling do: to the accuracy, and to the time of a training step.

On ImageNet the AlexNet paper measured top-1 (top-5) errors lower by 1.4 (1.2) % with LRN and by 0.4
(0.3) % with overlapping pooling. Digits are not ImageNet; what is compared here is the same network
with and without, beside the spread between seeds.
"""

from __future__ import annotations

import csv
import dataclasses
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from fastseq.recipes.lrn.config import LrnConfig
from fastseq.recipes.lrn.figures import lrn_figure
from fastseq.recipes.lrn.results import LrnResult, Variant
from fastseq.recipes.shared.config import keep_config
from fastseq.recipes.shared.small_alexnet import SmallAlexNet, framed_digits, train_network

# LRN, overlapping pools.
VARIANTS = {
    "neither": (False, False),
    "overlap": (False, True),
    "LRN": (True, False),
    "LRN + overlap": (True, True),
}


def step_times(config: LrnConfig) -> dict[str, tuple[float, float]]:
    """Return milliseconds of a training step, with fastseq's layers and with torch.nn's.

    The networks take turns, so that whatever else the machine does meets all of them; medians.
    """
    torch.manual_seed(config.seed)
    images = torch.rand(config.batch_size, 1, 28, 28)
    labels = torch.arange(config.batch_size) % 10
    models = {
        (name, native): SmallAlexNet(*options, config.width, native)
        for name, options in VARIANTS.items()
        for native in (False, True)
    }
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in models}
    for repeat in range(config.repeats + 2):
        for key, model in models.items():
            model.zero_grad()
            begin = time.perf_counter()
            F.cross_entropy(model(images), labels).backward()
            # The first two find caches cold.
            if repeat >= 2:
                times[key].append(1e3 * (time.perf_counter() - begin))
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {name: (medians[name, False], medians[name, True]) for name in VARIANTS}


class LrnRun:
    """The study, its data loaded before the first training.

    Args:
        config: The options.
    """

    def __init__(self, config: LrnConfig) -> None:
        self.config = config
        self.splits = framed_digits(margin=0)

    def run(self) -> LrnResult:
        """Train and time the four networks, write figure and numbers, and print a table."""
        config, splits = self.config, self.splits
        keep_config(config, config.out)
        print(
            f"small AlexNet, {config.width} and {2 * config.width} maps; digits: "
            f"{len(splits.train):,} training and {len(splits.test):,} test images, "
            f"seeds {config.seed} to {config.seed + config.seeds - 1}",
            flush=True,
        )
        times = step_times(config)
        variants = [Variant(name, self._accuracies(name), *times[name]) for name in VARIANTS]
        labels = splits.test.tensors[1]
        baseline = float(labels.bincount().max() / len(labels))
        threads = torch.get_num_threads()
        title = (
            f"small AlexNet on digits, batches of {config.batch_size}, CPU with {threads} threads"
        )
        figure = lrn_figure(variants, config.out / "lrn.png", title)
        _write(variants, config.out / "lrn.csv")
        result = LrnResult(variants, baseline, figure)
        self._print(result)
        return result

    def _accuracies(self, name: str) -> list[float]:
        """Train one network with every seed."""
        config = self.config
        lrn, overlap = VARIANTS[name]
        accuracies = []
        for seed in range(config.seed, config.seed + config.seeds):
            print(f"{name}, seed {seed}", flush=True)
            torch.manual_seed(seed)
            model = SmallAlexNet(lrn, overlap, config.width, config.native)
            folder = config.out / f"{name.lower().replace(' + ', '_')}_{seed}"
            own = dataclasses.replace(config, seed=seed)
            accuracies.append(train_network(model, self.splits, own, folder).accuracy)
        return accuracies

    def _print(self, result: LrnResult) -> None:
        variants = result.variants
        print(" " * 14 + "    accuracy    lowest   highest     fastseq    torch.nn")
        for variant in variants:
            cells = [variant.accuracy, min(variant.accuracies), max(variant.accuracies)]
            shown = "".join(f"{100.0 * cell:>8.2f} %" for cell in cells)
            times = "".join(f"{ms:>9.2f} ms" for ms in (variant.fused_ms, variant.native_ms))
            print(f"{variant.name:<14}  {shown}{times}")
        print(f"figure      {result.figure}\nnumbers     {self.config.out / 'lrn.csv'}")
        print(f"baseline: the most frequent digit has {100.0 * result.baseline:.2f} %")
        first, last = variants[0], variants[-1]
        gain = 100.0 * (last.accuracy - first.accuracy)
        print(
            f"LRN + overlap: accuracy {gain:+.2f} points beside neither; a step takes "
            f"{last.fused_ms / first.fused_ms:.2f} times as long with fastseq, "
            f"{last.native_ms / first.native_ms:.2f} times with torch.nn",
            flush=True,
        )


def study_lrn(config: LrnConfig | None = None) -> LrnResult:
    """Measure what LRN and overlapping pooling do; prints a table.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        What was measured, and the path of the figure.

    Example:
        >>> from fastseq.recipes.lrn.config import LrnConfig
        >>> from fastseq.recipes.lrn.run import study_lrn
        >>> result = study_lrn(LrnConfig(seeds=1))  # doctest: +SKIP
    """
    return LrnRun(config or LrnConfig()).run()


def _write(variants: list[Variant], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layers", "test_accuracies", "fastseq_ms", "torch_nn_ms"])
        for variant in variants:
            accuracies = " ".join(f"{accuracy:.4f}" for accuracy in variant.accuracies)
            times = (f"{variant.fused_ms:.3f}", f"{variant.native_ms:.3f}")
            writer.writerow([variant.name, accuracies, *times])
