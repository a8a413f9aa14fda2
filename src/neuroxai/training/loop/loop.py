"""Training loop with Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from neuroxai.core.errors import TrainingError
from neuroxai.core.progress import Report
from neuroxai.training.config.config import Config
from neuroxai.training.data.prefetch import BatchSource, Prefetcher
from neuroxai.training.loop.best_checkpoint import BestCheckpoint
from neuroxai.training.loop.callback import LAST, LOG, TrainingCallback
from neuroxai.training.loop.rank import rank
from neuroxai.training.loop.schedule import Budget
from neuroxai.training.loop.training_module import TrainingModule, lightning

__all__ = ["LAST", "LOG", "Length", "TrainingResult", "fit", "last_step", "pick_device"]


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Trained network, and the cost of its training.

    Attributes
    ----------
    network
        On the CPU, in evaluation mode.
    steps, seconds
        Length of the training, including the part before an interruption.
    loss
        Mean loss over the last rows of the log.
    waiting
        Fraction of the time spent waiting for batches.
    best
        Step and validation score of the weights; None without validation.
    """

    network: nn.Module
    steps: int
    seconds: float
    loss: float
    waiting: float = 0.0
    best: tuple[int, float] | None = None


@dataclass(frozen=True)
class Length:
    """Number of steps, unlimited if None, and number of steps with frozen layers."""

    steps: int | None
    frozen_steps: int = 0


def pick_device(config: Config) -> torch.device:
    """Device to train on, as configured.

    Raises
    ------
    TrainingError
        If the configuration requires a GPU, or more GPUs, than PyTorch sees.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cuda" and not count:
        raise TrainingError("device is 'cuda', but PyTorch sees no GPU; set device: auto")
    if config.device == "cpu" or not count:
        if config.precision == "16":
            raise TrainingError("precision 16 requires a GPU; set precision: auto")
        return torch.device("cpu")
    if config.devices > count:
        raise TrainingError(
            f"devices is {config.devices}, but PyTorch sees {count} GPUs; set devices: {count}"
        )
    return torch.device("cuda", rank() if config.devices > 1 else torch.cuda.current_device())


def last_step(out: Path) -> int:
    """Return the number of steps of the interrupted training in ``out``; 0 without one."""
    path = out / LAST
    return int(_read_last(path)["global_step"]) if path.is_file() else 0


def fit(
    network: nn.Module,
    batches: BatchSource,
    loss: nn.Module,
    config: Config,
    out: Path,
    *,
    length: Length,
    best_checkpoint: BestCheckpoint | None = None,
    report: Report,
) -> TrainingResult:
    """Train ``network``; return it, or the moving average of its weights, on the CPU.

    ``out/last.ckpt`` is replaced atomically every ``save_every`` steps, and the training resumes
    from it if it exists. Random numbers are seeded at every step, so on a CPU a resumed training
    ends with the same weights, bit for bit, as an uninterrupted one. With ``best_checkpoint``, the
    result has the weights of the best validation score. In distributed training every process
    calls this function and rank 0 writes.

    Raises
    ------
    TrainingError
        If the loss is not finite, or ``last.ckpt`` belongs to another network.
    """
    device = pick_device(config)
    first = last_step(out) * config.accumulate * config.devices
    prefetcher = Prefetcher(batches, start=first + rank(), stride=config.devices)
    # The timer's limit is not used: it would stop within a step of several accumulated batches.
    timer = lightning.callbacks.Timer(verbose=False)
    seconds = None if config.max_minutes is None else 60 * config.max_minutes
    module = TrainingModule(
        network,
        loss,
        config,
        Budget(length.steps, seconds),
        frozen_steps=length.frozen_steps,
        elapsed=timer.time_elapsed,
        waited=lambda: prefetcher.waited,
    )
    callback = TrainingCallback(out, config, best_checkpoint, report)
    last = out / LAST
    with _silence_lightning():
        trainer = _trainer(config, device, out, length.steps, [timer, callback])
        loader: DataLoader[Any] = DataLoader(prefetcher, batch_size=None, num_workers=0)
        try:
            trainer.fit(module, loader, ckpt_path=str(last) if last.is_file() else None)
        except (RuntimeError, KeyError) as error:
            if "state_dict" in str(error):
                raise TrainingError(
                    f"{last}: belongs to another network; train in another folder"
                ) from error
            raise
        finally:
            prefetcher.stop()
    trained = module.network if module.average is None else module.average
    trained = trained.cpu().eval()
    best = None
    if best_checkpoint is not None:
        best_checkpoint.restore(trained)
        best = best_checkpoint.best
    # Without the time before an interruption, in which another process waited.
    since_start = max(timer.end_time() - timer.start_time(), 1e-9)
    return TrainingResult(
        trained,
        trainer.global_step,
        timer.time_elapsed(),
        callback.recent_loss(),
        prefetcher.waited / since_start,
        best,
    )


def _trainer(
    config: Config, device: torch.device, out: Path, steps: int | None, callbacks: list[Any]
) -> Any:
    cuda = device.type == "cuda"
    precision = config.precision
    if precision == "auto":
        precision = "32" if not cuda else "bf16" if torch.cuda.is_bf16_supported() else "16"
    if precision != "32" and cuda:
        torch.set_float32_matmul_precision("high")
    distributed = config.devices > 1
    return lightning.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=config.devices,
        strategy="ddp" if distributed else "auto",
        sync_batchnorm=distributed and cuda,
        precision={"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}[precision],
        accumulate_grad_batches=config.accumulate,
        max_epochs=1,
        max_steps=-1 if steps is None else steps,
        gradient_clip_val=config.clip,
        benchmark=cuda,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )


def _read_last(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, depending on where the file is damaged
        raise TrainingError(
            f"{path}: not a resumable state ({type(error).__name__}); delete it to start again"
        ) from error
    if "losses" not in state:
        raise TrainingError(
            f"{path}: not a resumable state of this version of neuroxai; delete it to start again"
        )
    return state


@contextmanager
def _silence_lightning() -> Iterator[None]:
    """Context manager that suppresses Lightning's messages; the command line prints its own."""
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
