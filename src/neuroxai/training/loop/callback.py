"""Lightning callback of a training: log, progress, validation, resume state, early stopping."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import MissingExtraError, TrainingError
from neuroxai.core.progress import Report
from neuroxai.files.atomic import atomic_path
from neuroxai.training.config.config import Config
from neuroxai.training.loop.best_checkpoint import BestCheckpoint
from neuroxai.training.loop.training_module import TrainingModule, lightning

LAST = "last.ckpt"
LOG = "log.csv"
TENSORBOARD = "tensorboard"
_LOG_EVERY = 20
"""Steps between rows of the log: reading the loss waits for the GPU."""
_COLUMNS = ("step", "seconds", "learning_rate", "loss", "waited")


class TrainingCallback(lightning.Callback):  # type: ignore[misc]
    """Log, validate, save and stop at the end of optimizer steps.

    Lightning's ModelCheckpoint and EarlyStopping are not used, because a run resumed from their
    state may differ from an uninterrupted one (decision 35).
    """

    def __init__(
        self, out: Path, config: Config, best: BestCheckpoint | None, report: Report
    ) -> None:
        self._out = out
        self._config = config
        self._best = best
        self._report = report
        self._losses: list[Tensor] = []
        self._means: list[float] = []
        self._board: Any = None

    def recent_loss(self) -> float:
        """Mean loss over the last ten rows of the log; NaN for an empty log."""
        return sum(self._means[-10:]) / len(self._means[-10:]) if self._means else math.nan

    def on_train_start(self, trainer: Any, pl_module: TrainingModule) -> None:
        """Start the log; when resuming, keep its rows up to the resumed step."""
        self._losses = [loss.to(pl_module.device) for loss in self._losses]
        if not trainer.is_global_zero:
            return
        path = self._out / LOG
        rows: list[list[str]] = []
        if trainer.global_step and path.is_file():
            with path.open(newline="") as stream:
                rows = [row for row in csv.reader(stream) if row[:1] and row[0].isdigit()]
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(_COLUMNS)
            writer.writerows(row for row in rows if int(row[0]) <= trainer.global_step)
        if self._config.tensorboard:
            self._board = _tensorboard(self._out / TENSORBOARD, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Any, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the weight average, then log, validate, save and stop where due."""
        # Lightning divides the loss by the number of accumulated batches.
        self._losses.append(outputs["loss"].detach() * self._config.accumulate)
        if (batch_idx + 1) % self._config.accumulate:
            return
        step = trainer.global_step
        # Not in the module's own hook, which runs after this one: a checkpoint of a step must
        # contain the average of that step.
        pl_module.update_average()
        progress = pl_module.update_progress()
        done = progress >= 1
        if done or step % _LOG_EVERY == 0:
            self._log(step, trainer, pl_module)
        if self._best is not None and (done or step % self._best.every == 0):
            done = self._validate(self._best, step, trainer, pl_module) or done
        if step % self._config.save_every == 0 and not done:
            self._save(trainer)
        budget = pl_module.budget
        if budget.steps is not None and progress == step / budget.steps:
            self._report("Training", step, budget.steps)
        else:
            self._report("Training", round(1000 * progress), 1000)
        if done:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: TrainingModule) -> None:
        """Close the TensorBoard writer."""
        if self._board is not None:
            self._board.close()

    def on_save_checkpoint(self, trainer: Any, pl_module: TrainingModule, checkpoint: Any) -> None:
        """Add the losses, validation scores and best weights to the resume state."""
        checkpoint["losses"] = {
            "since_last_row": [float(loss) for loss in self._losses],
            "rows": list(self._means),
        }
        if self._best is not None:
            checkpoint["best_checkpoint"] = self._best.state_dict()

    def on_load_checkpoint(self, trainer: Any, pl_module: TrainingModule, checkpoint: Any) -> None:
        """Restore what :meth:`on_save_checkpoint` added."""
        losses = checkpoint["losses"]
        self._losses = [torch.tensor(loss) for loss in losses["since_last_row"]]
        self._means = list(losses["rows"])
        if self._best is not None:
            self._best.load_state_dict(checkpoint["best_checkpoint"])

    def _save(self, trainer: Any) -> None:
        last = self._out / LAST
        if trainer.is_global_zero:
            with atomic_path(last) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            # Rank 0 alone writes, but saving waits for all processes.
            trainer.save_checkpoint(last)

    def _validate(
        self, best: BestCheckpoint, step: int, trainer: Any, module: TrainingModule
    ) -> bool:
        """Validate the weights that would be kept; return whether to stop early."""
        stop = False
        if trainer.is_global_zero:
            network = module.network if module.average is None else module.average
            network.train(mode=False)
            score = best.update(step, network)
            if module.average is None:
                module.set_modes()
            best.write(self._out)
            stop = best.should_stop
            if self._board is not None:
                self._board.add_scalar("validation", score, step)
        decision: bool = trainer.strategy.broadcast(stop)
        return decision

    def _log(self, step: int, trainer: Any, module: TrainingModule) -> None:
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the training loss is {loss} at step {step}, expected a finite number; lower "
                "learning_rate"
            )
        self._means.append(loss)
        if not trainer.is_global_zero:
            return
        rate = module.optimizers().param_groups[0]["lr"]
        row = [
            step, f"{module.elapsed():.2f}", f"{rate:.3e}", f"{loss:.5f}", f"{module.waited():.2f}"
        ]  # fmt: skip
        with (self._out / LOG).open("a", newline="") as stream:
            csv.writer(stream).writerow(row)
        if self._board is not None:
            self._board.add_scalar("loss", loss, step)
            self._board.add_scalar("learning_rate", rate, step)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard: true", "tensorboard", "tensorboard") from error
    return SummaryWriter(str(folder), purge_step=step or None)
