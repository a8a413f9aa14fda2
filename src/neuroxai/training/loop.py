"""The training loop, on Lightning: learning rate, running average, log, resume."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from neuroxai.core.atomic import replaced_whole
from neuroxai.core.errors import MissingExtraError, TrainingError
from neuroxai.training.cases import Report
from neuroxai.training.config import Config

try:
    import lightning.pytorch as lightning
except ImportError as error:
    raise MissingExtraError("Training", "train", "lightning") from error

LAST = "last.ckpt"
LOG = "log.csv"
_LOG_EVERY = 20

Batches = IterableDataset[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and what it took."""

    network: nn.Module
    steps: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class Budget:
    """How long a run is: so many steps, so many seconds, or whichever comes first."""

    steps: int | None
    seconds: float | None

    def spent(self, steps: int, seconds: float) -> float:
        """Return the fraction of the run that is over, 1 at its end."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(steps / self.steps)
        if self.seconds is not None:
            parts.append(seconds / self.seconds)
        return min(1.0, max(parts))


def learning_rate(spent: float, config: Config) -> float:
    """Return the learning rate when the fraction ``spent`` of the run is over.

    It rises over the fraction ``warmup`` of the run and then falls to zero by the schedule:
    ``cosine``, ``poly`` ``(1 − t)^0.9``, ``plateau`` (in a line, over the last 30 %), or
    ``constant``, not at all. The fraction counts steps or time, whichever is further, so that a
    run limited by time ends at zero as well.
    """
    if spent < config.warmup:
        return config.learning_rate * max(spent / config.warmup, 1e-3)
    t = (spent - config.warmup) / max(1 - config.warmup, 1e-9)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * t))
    if config.schedule == "poly":
        return float(config.learning_rate * (1 - t) ** 0.9)
    if config.schedule == "plateau":
        return config.learning_rate * min(1.0, (1 - t) / 0.3)
    return config.learning_rate


def pick_device(config: Config) -> torch.device:
    """Return the device that the configuration asks for.

    Raises
    ------
    TrainingError
        If it asks for a GPU and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device is 'cuda', but PyTorch sees no GPU; set device: auto")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def last_step(out: Path) -> int:
    """Return the number of steps done by the unfinished run in ``out``; 0 if there is none."""
    path = out / LAST
    return int(_read_last(path)["global_step"]) if path.is_file() else 0


def fit(
    network: nn.Module,
    batches: Batches,
    loss: nn.Module,
    config: Config,
    out: Path,
    *,
    steps: int | None,
    report: Report,
) -> Trained:
    """Train ``network`` and return it (or the running average of its weights) on the CPU.

    ``out/last.ckpt`` is rewritten every ``save_every`` steps, whole or not at all, and taken up if
    it is there. Each step reseeds torch, so a run that was killed ends, on a CPU, with the same
    weights bit for bit as one that was not.

    Raises
    ------
    TrainingError
        If the loss stops being finite, or ``last.ckpt`` is not one of this network.
    """
    device = pick_device(config)
    seconds = None if config.max_minutes is None else 60 * config.max_minutes
    lesson = _Lesson(network, loss, config, Budget(steps, seconds))
    record = _Record(out, config, report)
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "32"
    if precision == "bf16" and device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    with _quiet():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=1,
            max_steps=-1 if steps is None else steps,
            gradient_clip_val=config.clip,
            benchmark=device.type == "cuda",
            callbacks=[record],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=out,
        )
        last = out / LAST
        loader: DataLoader[Any] = DataLoader(batches, batch_size=None, num_workers=0)
        try:
            trainer.fit(lesson, loader, ckpt_path=str(last) if last.is_file() else None)
        except (RuntimeError, KeyError) as error:
            if "state_dict" in str(error):
                raise TrainingError(
                    f"{last}: does not belong to this network; train into another folder"
                ) from error
            raise
    kept = lesson.network if lesson.average is None else lesson.average
    kept = kept.cpu().eval()
    return Trained(kept, trainer.global_step, lesson.elapsed(), record.recent())


def _read_last(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(
            f"{path}: cannot be resumed from ({type(error).__name__}); remove it to start anew"
        ) from error
    return found


class _Lesson(lightning.LightningModule):  # type: ignore[misc]
    """What happens in one step."""

    def __init__(self, network: nn.Module, loss: nn.Module, config: Config, budget: Budget) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.average = copy.deepcopy(network).eval() if config.average else None
        self.config = config
        self.budget = budget
        self._earlier = 0.0
        self._began = time.monotonic()

    def elapsed(self) -> float:
        """Seconds trained, those before an interruption included."""
        return self._earlier + time.monotonic() - self._began

    def spent(self) -> float:
        return self.budget.spent(self.global_step, self.elapsed())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [*self.network.parameters(), *self.loss.parameters()]
        kernels = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups = [
            {"params": kernels, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)

    def on_fit_start(self) -> None:
        channels_last = self.config.channels_last
        if channels_last is None:
            channels_last = self.device.type == "cuda"
        if channels_last:
            spatial = max(p.ndim for p in self.network.parameters())
            layout = torch.channels_last_3d if spatial == 5 else torch.channels_last
            self.network.to(memory_format=layout)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        self._began = time.monotonic()
        self.network.train()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        rate = learning_rate(self.spent(), self.config)
        for group in self.optimizers().param_groups:
            group["lr"] = rate
        # Dropout then depends on the step alone, not on where a run was taken up again.
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, truth = batch
        value: Tensor = self.loss(self.network(x), truth)
        return value

    def follow(self) -> None:
        """Move the running average towards the new weights."""
        if self.average is None:
            return
        # Early weights are forgotten faster, or the start would stay in the average.
        decay = min(self.config.average, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for kept, new in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.elapsed()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._earlier = float(checkpoint["seconds"])


class _Record(lightning.Callback):  # type: ignore[misc]
    """Log, progress, saving and stopping."""

    def __init__(self, out: Path, config: Config, report: Report) -> None:
        self._path = out / LOG
        self._last = out / LAST
        self._config = config
        self._report = report
        self._losses: list[Tensor] = []
        self._means: list[float] = []

    def recent(self) -> float:
        """Return the mean loss over the last entries of the log."""
        return sum(self._means[-10:]) / len(self._means[-10:]) if self._means else math.nan

    def on_train_start(self, trainer: Any, pl_module: _Lesson) -> None:
        rows: list[list[str]] = []
        if trainer.global_step and self._path.is_file():
            with self._path.open(newline="") as stream:
                rows = [row for row in csv.reader(stream) if row[:1] and row[0].isdigit()]
        with self._path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["step", "seconds", "learning_rate", "loss"])
            writer.writerows(row for row in rows if int(row[0]) <= trainer.global_step)

    def on_train_batch_end(
        self, trainer: Any, pl_module: _Lesson, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        # Here and not in the lesson's own hook, which runs after this one: a checkpoint of a step
        # must hold the average of that step.
        pl_module.follow()
        self._losses.append(outputs["loss"].detach())
        spent = pl_module.spent()
        over = spent >= 1
        # Reading the loss waits for the GPU, so not at every step.
        if over or step % _LOG_EVERY == 0:
            self._log(step, pl_module)
        if step % self._config.save_every == 0 and not over:
            with replaced_whole(self._last) as temporary:
                trainer.save_checkpoint(temporary)
        budget = pl_module.budget
        if budget.steps is not None and spent == step / budget.steps:
            self._report("Training", step, budget.steps)
        else:
            self._report("Training", round(1000 * spent), 1000)
        if over:
            trainer.should_stop = True

    def _log(self, step: int, lesson: _Lesson) -> None:
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} before step {step}: lower learning_rate")
        self._means.append(loss)
        rate = lesson.optimizers().param_groups[0]["lr"]
        with self._path.open("a", newline="") as stream:
            csv.writer(stream).writerow(
                [step, f"{lesson.elapsed():.2f}", f"{rate:.3e}", f"{loss:.5f}"]
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from printing: the command line is the only place that does."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
            warnings.filterwarnings("ignore", category=UserWarning, message=".*num_workers.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
