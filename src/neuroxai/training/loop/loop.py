"""The training loop, on Lightning."""

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
from neuroxai.training.data.prefetch import Numbered, Prefetcher
from neuroxai.training.loop.best_checkpoint import Watch
from neuroxai.training.loop.rank import rank
from neuroxai.training.loop.record import LAST, LOG, Record
from neuroxai.training.loop.schedule import Budget
from neuroxai.training.loop.training_module import TrainingModule, lightning

__all__ = ["LAST", "LOG", "Length", "Trained", "fit", "last_step", "pick_device"]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and what it took.

    Attributes
    ----------
    waiting
        Share of the time that was waited for batches.
    best
        Step and score of the weights that were kept, where a training was watched.
    """

    network: nn.Module
    steps: int
    seconds: float
    loss: float
    waiting: float = 0.0
    best: tuple[int, float] | None = None


@dataclass(frozen=True)
class Length:
    """Steps of a run, and those in which some layers rest; no limit where None."""

    steps: int | None
    frozen_steps: int = 0


def pick_device(config: Config) -> torch.device:
    """Return the device that the configuration asks for.

    Raises
    ------
    TrainingError
        If it asks for a GPU, or for more of them, than there are.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cuda" and not found:
        raise TrainingError("device is 'cuda', but PyTorch sees no GPU; set device: auto")
    if config.device == "cpu" or not found:
        if config.precision == "16":
            raise TrainingError("precision 16 is for GPUs; set precision: auto")
        return torch.device("cpu")
    if config.devices > found:
        raise TrainingError(f"devices is {config.devices}, but PyTorch sees {found} GPUs")
    return torch.device("cuda", rank() if config.devices > 1 else torch.cuda.current_device())


def last_step(out: Path) -> int:
    """Return the number of steps done by the unfinished run in ``out``; 0 if there is none."""
    path = out / LAST
    return int(_read_last(path)["global_step"]) if path.is_file() else 0


def fit(
    network: nn.Module,
    batches: Numbered,
    loss: nn.Module,
    config: Config,
    out: Path,
    *,
    length: Length,
    watch: Watch | None = None,
    report: Report,
) -> Trained:
    """Train ``network`` and return it (or the running average of its weights) on the CPU.

    ``out/last.ckpt`` is rewritten every ``save_every`` steps, whole or not at all, and taken up if
    it is there. Each step reseeds torch, so a run that was killed ends, on a CPU, with the same
    weights bit for bit as one that was not. A watched run ends with the best weights that were
    seen. Where several processes train together each runs this, and the first alone writes.

    Raises
    ------
    TrainingError
        If the loss stops being finite, or ``last.ckpt`` is not one of this network.
    """
    device = pick_device(config)
    begun = last_step(out) * config.accumulate * config.devices
    ahead = Prefetcher(batches, start=begun + rank(), stride=config.devices)
    seconds = None if config.max_minutes is None else 60 * config.max_minutes
    lesson = TrainingModule(
        network,
        loss,
        config,
        Budget(length.steps, seconds),
        frozen_steps=length.frozen_steps,
        waited=lambda: ahead.waited,
    )
    record = Record(out, config, watch, report)
    last = out / LAST
    with _quiet():
        trainer = _trainer(config, device, out, length.steps, record)
        loader: DataLoader[Any] = DataLoader(ahead, batch_size=None, num_workers=0)
        began = lesson.elapsed()
        try:
            trainer.fit(lesson, loader, ckpt_path=str(last) if last.is_file() else None)
        except (RuntimeError, KeyError) as error:
            if "state_dict" in str(error):
                raise TrainingError(
                    f"{last}: does not belong to this network; train into another folder"
                ) from error
            raise
        finally:
            ahead.stop()
    kept = lesson.network if lesson.average is None else lesson.average
    kept = kept.cpu().eval()
    best = None
    if watch is not None:
        watch.restore(kept)
        best = watch.best
    taken = max(lesson.elapsed() - began, 1e-9)
    return Trained(
        kept, trainer.global_step, lesson.elapsed(), record.recent(), ahead.waited / taken, best
    )


def _trainer(
    config: Config, device: torch.device, out: Path, steps: int | None, record: Record
) -> Any:
    cuda = device.type == "cuda"
    precision = config.precision
    if precision == "auto":
        precision = "32" if not cuda else "bf16" if torch.cuda.is_bf16_supported() else "16"
    if precision != "32" and cuda:
        torch.set_float32_matmul_precision("high")
    together = config.devices > 1
    return lightning.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=config.devices,
        strategy="ddp" if together else "auto",
        sync_batchnorm=together and cuda,
        precision={"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}[precision],
        accumulate_grad_batches=config.accumulate,
        max_epochs=1,
        max_steps=-1 if steps is None else steps,
        gradient_clip_val=config.clip,
        benchmark=cuda,
        callbacks=[record],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )


def _read_last(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainingError(
            f"{path}: cannot be resumed from ({type(error).__name__}); remove it to start anew"
        ) from error
    return found


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
