"""Run recipes and kill each in the middle of its second epoch: `recipe_killer.py FOLDER`.

Every recipe runs in a process of its own, forked from this one when all is imported, and sends
itself SIGKILL, so that nothing can be tidied up. Prints each recipe and how it ended.
"""

import os
import signal
import sys
from pathlib import Path

import recipe_cases
from lightning.pytorch import Callback, LightningModule, Trainer

from fastseq.commands import main as command_line
from fastseq.recipes.shared import run

KILLED_EPOCH, EPOCHS = 1, 3


class Kill(Callback):
    """Die in the middle of an epoch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *batch: object
    ) -> None:
        middle = int(trainer.num_training_batches) // 2
        if trainer.current_epoch == KILLED_EPOCH and trainer.fit_loop.batch_idx == middle:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Fork, run, wait; once for every recipe."""
    build = run.build_trainer

    def killing(*args: object, **kwargs: object) -> Trainer:
        trainer = build(*args, **kwargs)
        trainer.callbacks.append(Kill())
        return trainer

    run.build_trainer = killing
    recipe_cases.shrink()
    folder = Path(sys.argv[1])
    for recipe in recipe_cases.SMALL:
        (folder / recipe).mkdir()
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # stdout is for the list
            command_line(recipe_cases.command(recipe, folder / recipe, "--epochs", str(EPOCHS)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(recipe, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
