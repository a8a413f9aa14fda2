"""Training from a configuration to a checkpoint with measured metrics."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuroxai.core.errors import TrainingError
from neuroxai.core.progress import Report
from neuroxai.models.checkpoint import build_network, save_checkpoint
from neuroxai.models.loading import load_model
from neuroxai.training.card.evaluate import mean_dice, mean_recall
from neuroxai.training.card.logit_bias import add_logit_bias, fit_logit_bias
from neuroxai.training.card.metrics import measure
from neuroxai.training.card.training_card import describe_data, make_card
from neuroxai.training.config.config import Config
from neuroxai.training.config.config_file import read_config
from neuroxai.training.config.network_check import check_network, check_task
from neuroxai.training.data.cases import PreparedCase, PreparedCases, prepare_cases
from neuroxai.training.loop.best_checkpoint import BestCheckpoint
from neuroxai.training.loop.losses import GradingLoss, RegionDiceCrossEntropy
from neuroxai.training.loop.pretrained import load_pretrained
from neuroxai.training.loop.rank import rank
from neuroxai.training.run_folder import (
    CHECKPOINT,
    check_folder,
    portable_settings,
    record_split,
    write_settings,
)

if TYPE_CHECKING:
    from neuroxai.training.data.prefetch import BatchSource
    from neuroxai.training.loop.loop import Length, TrainingResult


def train(
    config: Config | str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Report | None = None,
) -> Path:
    """Train a network and save it as a checkpoint folder, ``out/checkpoint``.

    ``out`` also contains the settings (``config.json``), the log (``log.csv``), the scores of
    every held-out case (``metrics.csv``), and ``last.ckpt`` until the training has finished. The
    metrics in the card are measured on the held-out cases with the saved weights.

    Parameters
    ----------
    config
        A configuration, a YAML file, or the name of an included configuration such as
        ``phantom-segmentation``.
    out
        Folder of the training.
    data
        Cohort folder in any supported layout; replaces the data source of the configuration.
    overrides
        Settings to change, as ``key=value``.
    resume
        Resume the training in ``out``. A finished training is returned unchanged.
    progress
        Called with the stage, the work done and the total work.

    Returns
    -------
    Path
        The checkpoint folder. In distributed training every process returns it; rank 0 has
        written it.

    Raises
    ------
    TrainingError
        If the configuration is invalid, or ``out`` contains a training that cannot be resumed.
    """
    if not isinstance(config, Config):
        config = read_config(config, overrides=overrides, data=data)
    elif overrides or data is not None:
        raise TrainingError(
            "overrides and data apply to a configuration file, but a Config was given; change the "
            "Config instead"
        )
    check_task(config)
    _check_initialized(config)
    report = progress or _silent
    out = Path(out)
    # In distributed training all processes run this function, but only rank 0 writes.
    writes = rank() == 0
    finished = check_folder(out, config, resume=resume) if writes else None
    if finished is not None:
        return finished

    from neuroxai.training.loop.loop import fit, pick_device

    device = pick_device(config)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        # Before the preparation of cases, which may take an hour, to report errors early.
        network, initial = _network(config)
        check_network(network, config)
        loss = _loss(network, config)
    began = time.monotonic()
    cases = prepare_cases(config, report=report)
    preparing = time.monotonic() - began
    if writes:
        write_settings(out, config)
        if cases.split:
            record_split(out, cases.split, resume=resume)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        batches = _batches(config, cases.train, device)
        best = _best_checkpoint(config, cases, device)
        length = _length(config, cases.train)
        result = fit(
            network, batches, loss, config, out, length=length, best_checkpoint=best, report=report
        )
        if isinstance(loss, GradingLoss):
            loss.close()
    if not writes:
        return out / CHECKPOINT
    bias = _fit_logit_bias(result.network, config, cases, device, report)
    training = {
        "data": describe_data(config, cases),
        **_describe_result(result),
        "device": device.type,
        "seconds": {"preparing": round(preparing, 1), "training": round(result.seconds, 1)},
        "config": portable_settings(config),
        **({"logit_bias": bias} if bias else {}),
        **({"initial": initial} if initial else {}),
    }
    return _save(result.network, config, training, cases, device, out, report)


def _check_initialized(config: Config) -> None:
    """Raise if layers or norms of a network without pretrained weights would be frozen."""
    if config.initial is not None or config.pretrained is not None:
        return
    if config.frozen_epochs:
        raise TrainingError(
            "frozen_epochs is set, but the network has no pretrained weights, so frozen layers "
            "would stay random; set pretrained to a weight file, or frozen_epochs=0"
        )
    if config.frozen_norms:
        raise TrainingError(
            "frozen_norms is set, but the network has no pretrained weights, so its norms have no "
            "statistics; set initial to a checkpoint folder, or frozen_norms=false"
        )


def _network(config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network; also returns the source of its initial weights."""
    network = build_network(config.architecture, config.arguments, source="configuration")
    if config.initial is None:
        if config.pretrained is None:
            return network, {}
        sha256 = load_pretrained(network, config.pretrained)
        return network, {"weights": Path(config.pretrained).name, "weights_sha256": sha256}
    model = load_model(config.initial)
    card = model.card
    given = (card.architecture, _shape_of(card.arguments), card.classes, card.modalities)
    expected = (
        config.architecture, _shape_of(config.arguments), config.classes, config.modalities
    )  # fmt: skip
    if given != expected:
        raise TrainingError(
            f"initial: {config.initial} is another network (architecture, arguments, classes or "
            "modalities differ); use a checkpoint of the configured network"
        )
    network.load_state_dict(model.network.state_dict())
    return network, {"weights_sha256": model.weights_sha256, "training": dict(card.training)}


def _shape_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an architecture that determine its parameters: all but dropout."""
    return {name: value for name, value in arguments.items() if name != "dropout"}


def _loss(network: nn.Module, config: Config) -> nn.Module:
    """Create the loss of the task; also checks the names of frozen layers."""
    from neuroxai.training.loop.training_module import frozen_layers

    frozen_layers(network, config)
    if config.task == "segmentation":
        return RegionDiceCrossEntropy(config.classes, config.regions, weights=config.class_weights)
    return GradingLoss(
        network,
        config.auxiliary_loss_layers,
        weight=config.auxiliary_loss,
        channels=len(config.modalities),
    )


def _batches(config: Config, cases: Sequence[PreparedCase], device: torch.device) -> BatchSource:
    """Create the batches of the task."""
    from neuroxai.training.data.patches import PatchBatches
    from neuroxai.training.data.slices import SliceBatches

    if config.task == "classification":
        return SliceBatches(cases, config, device)
    return PatchBatches(cases, config, device)


def _steps_per_epoch(config: Config, cases: Sequence[PreparedCase]) -> int:
    """Optimizer steps of an epoch: one patch of every case, or all slices of every case."""
    slices = sum(len(case.truth) for case in cases) if config.task == "classification" else 0
    return -(-(slices or len(cases)) // (config.batch * config.accumulate * config.devices))


def _length(config: Config, cases: Sequence[PreparedCase]) -> Length:
    from neuroxai.training.loop.loop import Length

    per_epoch = _steps_per_epoch(config, cases)
    limits = [config.max_steps, config.epochs and config.epochs * per_epoch]
    steps = min((limit for limit in limits if limit), default=None)
    return Length(steps, round(config.frozen_epochs * per_epoch))


def _best_checkpoint(
    config: Config, cases: PreparedCases, device: torch.device
) -> BestCheckpoint | None:
    """Set up validation by mean Dice over regions or mean recall over classes, if configured."""
    keys = {"validate_every": config.validate_every is not None, "logit_bias": config.logit_bias}
    for key in (key for key, used in keys.items() if used):
        if not cases.validation:
            raise TrainingError(
                f"{key} is set, but there is no validation case; increase the validation fraction "
                f"or leave {key} out"
            )
    if config.validate_every is None:
        return None
    scores = {"segmentation": mean_dice, "classification": mean_recall}
    measure = scores[config.task]
    every = max(1, round(config.validate_every * _steps_per_epoch(config, cases.train)))

    def score(network: nn.Module) -> float:
        with torch.no_grad():
            return measure(network, cases.validation, config, device)

    return BestCheckpoint(score, every, config.patience)


def _fit_logit_bias(
    network: nn.Module, config: Config, cases: PreparedCases, device: torch.device, report: Report
) -> dict[str, float]:
    """Fit the logit bias if configured and add it to the network; empty otherwise."""
    if not config.logit_bias:
        return {}
    bias = fit_logit_bias(network, cases.validation, config, device, report)
    add_logit_bias(network, bias)
    return dict(zip(config.classes, bias, strict=True))


def _describe_result(result: TrainingResult) -> dict[str, Any]:
    best = result.best
    return {
        "steps": result.steps,
        "loss": round(result.loss, 5),
        "waiting_for_data": round(result.waiting, 4),
        **({"best": {"step": best[0], "validation": best[1]}} if best else {}),
    }


def _save(
    network: nn.Module,
    config: Config,
    training: dict[str, Any],
    cases: PreparedCases,
    device: torch.device,
    out: Path,
    report: Report,
) -> Path:
    """Measure the metrics, write the checkpoint folder, and delete the resume state."""
    from neuroxai.training.loop.loop import LAST

    card, dtype = make_card(config, training), config.output_dtype
    with tempfile.TemporaryDirectory() as scratch:
        # Metrics are those of the saved weights, which may be rounded to float16.
        folder = save_checkpoint(Path(scratch) / CHECKPOINT, network, card, dtype=dtype)
        model = load_model(folder)
    metrics = measure(model, config, cases.test, device, out, report)
    card = card.replace(metrics=metrics)
    folder = save_checkpoint(out / CHECKPOINT, network, card, dtype=dtype)
    if not config.keep_last:
        (out / LAST).unlink(missing_ok=True)
    return folder


def _silent(stage: str, done: float, total: float) -> None:
    pass
