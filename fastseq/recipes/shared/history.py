"""The metrics of every epoch, kept in the checkpoint so that a resumed run draws whole curves."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

Epoch = dict[str, float]


class History(Callback):
    """Collect named metrics at the end of every epoch.

    Args:
        *names: Metrics to keep, by the names under which the task logs them.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.epochs: list[Epoch] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append this epoch's row; the training averages are complete only now."""
        row: Epoch = {"epoch": trainer.current_epoch + 1}
        for name in self.names:
            if name in trainer.callback_metrics:
                row[name] = float(trainer.callback_metrics[name])
        self.epochs.append(row)

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint keeps."""
        return {"epochs": [dict(row) for row in self.epochs]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the run that is being resumed."""
        self.epochs = [dict(row) for row in state_dict["epochs"]]
