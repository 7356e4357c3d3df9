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
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from fastseq.study.lrn_figure import lrn_figure
from fastseq.study.small_alexnet import SmallAlexNet, framed_digits, train_network
from fastseq.training.config import RunConfig, at_least_one

# LRN, overlapping pools.
VARIANTS = {
    "neither": (False, False),
    "overlap": (False, True),
    "LRN": (True, False),
    "LRN + overlap": (True, True),
}


@dataclass(frozen=True, kw_only=True)
class LrnConfig(RunConfig):
    """Options of the study, beside those of `RunConfig`.

    Attributes:
        seeds: Trainings of each network, from ``seed`` on.
        width: Maps of the first convolution.
        repeats: Steps that are timed of each network.
    """

    seeds: int = 3
    width: int = 32
    repeats: int = 15
    epochs: int | None = 6
    weight_decay: float = 0.01
    out: Path = Path("runs/lrn")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "seeds", "width", "repeats")


@dataclass(frozen=True)
class Variant:
    """What was measured of one network.

    Attributes:
        name: Of `VARIANTS`.
        accuracies: On the test images, of each seed, 0 to 1.
        fused_ms: Median time of a training step with fastseq's layers.
        native_ms: The same with torch.nn's.
    """

    name: str
    accuracies: list[float]
    fused_ms: float
    native_ms: float

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.accuracies)


@dataclass(frozen=True)
class LrnResult:
    """What `study_lrn` leaves behind.

    Attributes:
        variants: The four networks.
        baseline: Share of the most frequent class of the test images.
        figure: Path of the plot.
    """

    variants: list[Variant]
    baseline: float
    figure: Path


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


def study_lrn(config: LrnConfig | None = None) -> LrnResult:
    """Train and time the four networks, write figure and numbers, and print a table.

    Args:
        config: The options; ``None`` takes the defaults.

    Example:
        >>> from fastseq.study.lrn import LrnConfig, study_lrn
        >>> result = study_lrn(LrnConfig(seeds=1))  # doctest: +SKIP
    """
    config = config or LrnConfig()
    splits = framed_digits(margin=0)
    labels = splits.test.tensors[1]
    baseline = float(labels.bincount().max() / len(labels))
    threads = torch.get_num_threads()
    print(
        f"small AlexNet, {config.width} and {2 * config.width} maps; digits: "
        f"{len(splits.train):,} training and {len(splits.test):,} test images, "
        f"seeds {config.seed} to {config.seed + config.seeds - 1}",
        flush=True,
    )
    times = step_times(config)
    variants = []
    for name, (lrn, overlap) in VARIANTS.items():
        accuracies = []
        for seed in range(config.seed, config.seed + config.seeds):
            print(f"{name}, seed {seed}", flush=True)
            torch.manual_seed(seed)
            model = SmallAlexNet(lrn, overlap, config.width, config.native)
            folder = config.out / f"{name.lower().replace(' + ', '_')}_{seed}"
            own = dataclasses.replace(config, seed=seed)
            accuracies.append(train_network(model, splits, own, folder).accuracy)
        variants.append(Variant(name, accuracies, *times[name]))
    title = f"small AlexNet on digits, batches of {config.batch_size}, CPU with {threads} threads"
    figure = lrn_figure(variants, config.out / "lrn.png", title)
    _write(variants, config.out / "lrn.csv")
    print(f"{'':<14}{'accuracy':>12}{'lowest':>10}{'highest':>10}{'fastseq':>12}{'torch.nn':>12}")
    for variant in variants:
        cells = [variant.accuracy, min(variant.accuracies), max(variant.accuracies)]
        shown = "".join(f"{100.0 * cell:>8.2f} %" for cell in cells)
        print(f"{variant.name:<14}  {shown}{variant.fused_ms:>9.2f} ms{variant.native_ms:>9.2f} ms")
    print(f"figure      {figure}\nnumbers     {config.out / 'lrn.csv'}")
    print(f"baseline: the most frequent digit has {100.0 * baseline:.2f} %")
    first, last = variants[0], variants[-1]
    print(
        f"LRN + overlap: accuracy {100.0 * (last.accuracy - first.accuracy):+.2f} points beside "
        f"neither; a step takes {last.fused_ms / first.fused_ms:.2f} times as long with fastseq, "
        f"{last.native_ms / first.native_ms:.2f} times with torch.nn",
        flush=True,
    )
    return LrnResult(variants, baseline, figure)


def _write(variants: list[Variant], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layers", "test_accuracies", "fastseq_ms", "torch_nn_ms"])
        for variant in variants:
            accuracies = " ".join(f"{accuracy:.4f}" for accuracy in variant.accuracies)
            times = (f"{variant.fused_ms:.3f}", f"{variant.native_ms:.3f}")
            writer.writerow([variant.name, accuracies, *times])
