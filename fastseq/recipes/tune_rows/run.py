"""The search `fastseq tune rows`: hyper-parameters of the row network, by Optuna."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.trial import FrozenTrial, Trial, TrialState

from fastseq.models.recurrences import check_cell
from fastseq.recipes.rows.config import RowsConfig
from fastseq.recipes.rows.run import RowsRun
from fastseq.recipes.shared.config import keep_config
from fastseq.recipes.shared.quiet import silent
from fastseq.recipes.tune_rows.config import TuneRowsConfig
from fastseq.recipes.tune_rows.figures import search_plot

STUDY = "rows"
SHOWN = 10
# What is searched: the name of an option of `fastseq train rows`, and its range.
CHOICES: dict[str, list[Any]] = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": [32, 64, 128, 192],
    "batch_size": [16, 32, 64],
}
RANGES = {"lr": (3e-4, 1e-2), "weight_decay": (1e-3, 0.3)}
LAYERS = (1, 2)
SHIFT = (0.0, 2.5)


@dataclass(frozen=True)
class TuneRowsResult:
    """What a search found.

    Attributes:
        options: Of `fastseq train rows`, as in the best trial.
        accuracy: Best validation accuracy, 0 to 1.
        baseline: That of the defaults, with as many epochs.
        test_accuracy: Of the best trial.
        test_baseline: Of the defaults.
        figure: Path of the plot.
    """

    options: dict[str, Any]
    accuracy: float
    baseline: float
    test_accuracy: float
    test_baseline: float
    figure: Path


class _Trial(RowsRun):
    """A training without figures and bar."""

    bar = False
    # What is compared is what is reported: the accuracy of the best epoch.
    monitor, mode = "val_accuracy", "max"


class _Report(Callback):
    """Tell Optuna the accuracy of every epoch, and stop a training that falls behind."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report; a trial below the median of the others is pruned."""
        self.trial.report(float(trainer.callback_metrics["val_accuracy"]), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


class TuneRowsRun:
    """A search, built and checked before the first training.

    Args:
        config: The options.

    Raises:
        ValueError: If an option cannot be used, or the study in the folder is of another search.
        FileNotFoundError: If the data are not there.
    """

    def __init__(self, config: TuneRowsConfig) -> None:
        if config.cell is not None:
            check_cell(config.cell)
        self.config = config
        # A run of the defaults, built for its checks alone.
        with silent():
            _Trial(self._options({}))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        config.out.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            study_name=STUDY,
            storage=f"sqlite:///{(config.out / 'study.db').resolve()}",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        )
        self._check_same()
        self._mend()
        # Another seed where a search goes on: the same would propose what it did at first.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=config.seed + 1000 * len(self.study.trials), n_startup_trials=5
        )

    def _check_same(self) -> None:
        settings = {
            name: value
            for name, value in asdict(self.config).items()
            if name in ("epochs", "cell", "data", "native", "seed", "precision")
        }
        theirs = self.study.user_attrs.get("settings", settings)
        if theirs != settings:
            other = ", ".join(f"{k}={v!r}" for k, v in theirs.items() if v != settings[k])
            raise ValueError(
                f"the search in {self.config.out} was made with {other}; pass the same, or "
                f"another --out"
            )
        self.study.set_user_attr("settings", settings)

    def _mend(self) -> None:
        """Put trials that a killed search left unfinished back into the queue."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.system_attrs.get("fixed_params") or trial.params)

    def run(self) -> TuneRowsResult:
        """Train until there are as many trials as asked for; print the table and the best."""
        config = self.config
        keep_config(config, config.out)
        if not self.study.trials:
            defaults = RowsConfig()
            names = [*CHOICES, *RANGES, "num_layers", "max_shift"]
            chosen = {name: getattr(defaults, name) for name in names}
            self.study.enqueue_trial({**chosen, **({"cell": config.cell} if config.cell else {})})
        print(
            f"search of {config.trials} trials with {config.epochs} epochs each on {config.data}, "
            f"{len(self._ended())} of them done, in {config.out / 'study.db'}",
            flush=True,
        )
        while len(self._ended()) < config.trials:
            self.study.optimize(self._train, n_trials=1)
            print(f"trial {self._line(self.study.trials[-1])}", flush=True)
        return self._report()

    def _ended(self) -> list[FrozenTrial]:
        return self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    def _options(self, chosen: dict[str, Any]) -> RowsConfig:
        config = self.config
        return RowsConfig(
            data=config.data,
            data_dir=config.data_dir,
            download=config.download,
            native=config.native,
            seed=config.seed,
            accelerator=config.accelerator,
            precision=config.precision,
            epochs=config.epochs,
            patience=config.epochs,
            out=config.out / "trials",
            **chosen,
        )

    def _train(self, trial: Trial) -> float:
        cells = [self.config.cell] if self.config.cell else CHOICES["cell"]
        chosen: dict[str, Any] = {
            name: trial.suggest_categorical(name, cells if name == "cell" else values)
            for name, values in CHOICES.items()
        }
        chosen["num_layers"] = trial.suggest_int("num_layers", *LAYERS)
        chosen["max_shift"] = trial.suggest_float("max_shift", *SHIFT)
        for name, (low, high) in RANGES.items():
            chosen[name] = trial.suggest_float(name, low, high, log=True)
        with silent():
            run = _Trial(self._options(chosen))
            run.trainer.callbacks.append(_Report(trial))  # type: ignore[attr-defined]
            outcome = run.train_and_test()
        trial.set_user_attr("test_accuracy", outcome.metrics["test_accuracy"])
        return max(row["val_accuracy"] for row in outcome.epochs)

    def _report(self) -> TuneRowsResult:
        trials = self._ended()
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        best, first = self.study.best_trial, complete[0]
        figure = search_plot(trials, self.config.out / "search.png")
        complete.sort(key=_value, reverse=True)
        print(f"\nthe best of {len(trials)} trials, {len(trials) - len(complete)} of them pruned")
        print("   #  val (%)  cell  units layers batch       lr    decay  shift")
        for trial in complete[:SHOWN]:
            print(self._line(trial))
        print(f"figure      {figure}")
        flags = " ".join(f"--{k.replace('_', '-')} {_short(v)}" for k, v in best.params.items())
        print(f"train it    fastseq train rows {flags}")
        result = TuneRowsResult(
            best.params,
            _value(best),
            _value(first),
            best.user_attrs["test_accuracy"],
            first.user_attrs["test_accuracy"],
            figure,
        )
        print(
            f"best validation accuracy {100.0 * result.accuracy:.2f} %, test "
            f"{100.0 * result.test_accuracy:.2f} % (defaults with as many epochs: "
            f"{100.0 * result.baseline:.2f} %, test {100.0 * result.test_baseline:.2f} %)",
            flush=True,
        )
        return result

    def _line(self, trial: FrozenTrial) -> str:
        value = f"{100.0 * _value(trial):.2f}" if trial.values else "none"
        p, end = trial.params, "  pruned" if trial.state is TrialState.PRUNED else ""
        return (
            f"{trial.number:>4} {value:>8}  {p['cell']:<5}{p['hidden_size']:>6}"
            f"{p['num_layers']:>7}{p['batch_size']:>6}{p['lr']:>9.2g}"
            f"{p['weight_decay']:>9.2g}{p['max_shift']:>7.2f}{end}"
        )


def tune_rows(config: TuneRowsConfig | None = None) -> TuneRowsResult:
    """Search hyper-parameters of RowRNN; the last line printed is the best accuracy.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        The best options and their accuracies, beside those of the defaults.

    Example:
        >>> from fastseq.recipes.tune_rows.config import TuneRowsConfig
        >>> from fastseq.recipes.tune_rows.run import tune_rows
        >>> result = tune_rows(TuneRowsConfig(trials=3, epochs=2))  # doctest: +SKIP
    """
    return TuneRowsRun(config or TuneRowsConfig()).run()


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
