"""What a training leaves behind on its way: a log, looks at validation cases, a state to resume."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroxai.core.errors import MissingExtraError, TrainingError
from neuroxai.core.progress import Report
from neuroxai.files.atomic import replaced_whole
from neuroxai.training.config.config import Config
from neuroxai.training.loop.best_checkpoint import Watch
from neuroxai.training.loop.training_module import TrainingModule, lightning

LAST = "last.ckpt"
LOG = "log.csv"
TENSORBOARD = "tensorboard"
_LOG_EVERY = 20
_COLUMNS = ("step", "seconds", "learning_rate", "loss", "waited")


class Record(lightning.Callback):  # type: ignore[misc]
    """Log, progress, looking, saving and stopping, after every step."""

    def __init__(self, out: Path, config: Config, watch: Watch | None, report: Report) -> None:
        self._out = out
        self._config = config
        self._watch = watch
        self._report = report
        self._losses: list[Tensor] = []
        self._means: list[float] = []
        self._board: Any = None

    def recent(self) -> float:
        """Return the mean loss over the last entries of the log."""
        return sum(self._means[-10:]) / len(self._means[-10:]) if self._means else math.nan

    def on_train_start(self, trainer: Any, pl_module: TrainingModule) -> None:
        """Begin the log, or go on with it where a run is taken up."""
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
            self._board = _board(self._out / TENSORBOARD, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Any, pl_module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow with the average, log, look, save and stop, as it is time for each."""
        # Lightning has divided it by the batches that are added up.
        self._losses.append(outputs["loss"].detach() * self._config.accumulate)
        if (batch_idx + 1) % self._config.accumulate:
            return
        step = trainer.global_step
        # Here and not in the lesson's own hook, which runs after this one: a checkpoint of a step
        # must hold the average of that step.
        pl_module.follow()
        spent = pl_module.spend()
        looked = self._watch is not None and step % self._watch.every == 0
        over = spent >= 1
        # Reading the loss waits for the GPU, so not at every step.
        if over or step % _LOG_EVERY == 0:
            self._log(step, trainer, pl_module)
        if looked or (over and self._watch is not None):
            over = self._look(step, trainer, pl_module) or over
        if step % self._config.save_every == 0 and not over:
            self._save(trainer)
        budget = pl_module.budget
        if budget.steps is not None and spent == step / budget.steps:
            self._report("Training", step, budget.steps)
        else:
            self._report("Training", round(1000 * spent), 1000)
        if over:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: TrainingModule) -> None:
        """Close what is open."""
        if self._board is not None:
            self._board.close()

    def on_save_checkpoint(self, trainer: Any, pl_module: TrainingModule, checkpoint: Any) -> None:
        """Keep the losses of the log and since, what was seen, and the best weights."""
        checkpoint["losses"] = {
            "since": [float(loss) for loss in self._losses],
            "means": list(self._means),
        }
        if self._watch is not None:
            checkpoint["watch"] = self._watch.state()

    def on_load_checkpoint(self, trainer: Any, pl_module: TrainingModule, checkpoint: Any) -> None:
        """Go on with what was logged and seen; a state of an older version has no losses."""
        if "losses" in checkpoint:
            self._losses = [torch.tensor(loss) for loss in checkpoint["losses"]["since"]]
            self._means = list(checkpoint["losses"]["means"])
        if self._watch is not None and "watch" in checkpoint:
            self._watch.take_up(checkpoint["watch"])

    def _save(self, trainer: Any) -> None:
        last = self._out / LAST
        if trainer.is_global_zero:
            with replaced_whole(last) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            # The first process alone writes; the others only have to be there.
            trainer.save_checkpoint(last)

    def _look(self, step: int, trainer: Any, lesson: TrainingModule) -> bool:
        """Measure the weights that would be kept; return whether patience is at its end."""
        watch = self._watch
        if watch is None:
            return False
        over = False
        if trainer.is_global_zero:
            kept = lesson.network if lesson.average is None else lesson.average
            kept.train(mode=False)
            score = watch.look(step, kept)
            if lesson.average is None:
                lesson.wake()
            watch.write(self._out)
            over = watch.over
            if self._board is not None:
                self._board.add_scalar("validation", score, step)
        decided: bool = trainer.strategy.broadcast(over)
        return decided

    def _log(self, step: int, trainer: Any, lesson: TrainingModule) -> None:
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} before step {step}: lower learning_rate")
        self._means.append(loss)
        if not trainer.is_global_zero:
            return
        rate = lesson.optimizers().param_groups[0]["lr"]
        seconds = lesson.elapsed()
        row = [step, f"{seconds:.2f}", f"{rate:.3e}", f"{loss:.5f}", f"{lesson.waited():.2f}"]
        with (self._out / LOG).open("a", newline="") as stream:
            csv.writer(stream).writerow(row)
        if self._board is not None:
            self._board.add_scalar("loss", loss, step)
            self._board.add_scalar("learning_rate", rate, step)


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard: true", "tensorboard", "tensorboard") from error
    return SummaryWriter(str(folder), purge_step=step or None)
