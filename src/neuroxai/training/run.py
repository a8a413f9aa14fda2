"""A training run from its configuration to a checkpoint with measured metrics."""

from __future__ import annotations

import csv
import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroxai.core.atomic import replaced_whole
from neuroxai.core.errors import ModelError, OutputError, TrainingError
from neuroxai.models.card import Card, read_card
from neuroxai.models.checkpoint import build_network, save_checkpoint
from neuroxai.models.loading import load_model
from neuroxai.models.model import Model
from neuroxai.training.cases import Prepared, Report, gather
from neuroxai.training.config import Config, read_config
from neuroxai.training.evaluate import (
    DiceScores,
    evaluate_prepared,
    evaluate_slices,
    wilson_interval,
)
from neuroxai.training.losses import HintedCrossEntropy, RegionDiceCrossEntropy

CHECKPOINT = "checkpoint"
_CONFIG = "config.json"


def train(
    config: Config | str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Report | None = None,
) -> Path:
    """Train a network and return its checkpoint folder, ``out/checkpoint``.

    Beside it lie ``config.json``, ``log.csv`` (the loss), ``metrics.csv`` (each held-out case) and,
    until the end, ``last.ckpt``. The metrics in the card are measured on the held-out cases with
    the very weights that were written.

    Parameters
    ----------
    config
        A configuration, its YAML file, or the name of one of the package's own:
        ``phantom-segmentation``, ``phantom-grading``.
    out
        Folder of the run.
    data
        A cohort folder in any supported layout, in place of the configuration's data source.
    overrides
        Texts ``key=value``, as ``--set`` takes them.
    resume
        Take up the run in ``out``; one that has ended is returned as it is.
    progress
        Called with a stage, how much of it is done, and how much there is.

    Raises
    ------
    TrainingError
        If the configuration cannot be run, or ``out`` holds a run and ``resume`` is false, or the
        run there had other settings.
    """
    if not isinstance(config, Config):
        config = read_config(config, overrides=overrides, data=data)
    elif overrides or data is not None:
        raise TrainingError("train: overrides and data belong to a configuration file, not to both")
    report = progress or _silent
    out = Path(out)
    finished = _enter(out, config, resume=resume)
    if finished is not None:
        return finished

    from neuroxai.training.loop import LAST, fit, last_step, pick_device

    device = pick_device(config)
    began = time.monotonic()
    trained_on, held_out = gather(config, report=report)
    prepared_after = time.monotonic() - began
    _claim(out, config)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        network, ancestor = _network(config)
        batches, loss = _lesson(network, config, trained_on, device, start=last_step(out))
        steps = _steps(config, trained_on)
        trained = fit(network, batches, loss, config, out, steps=steps, report=report)
        if isinstance(loss, HintedCrossEntropy):
            loss.close()

    training = {
        "data": _describe_data(config, trained_on, held_out),
        "steps": trained.steps,
        "loss": round(trained.loss, 5),
        "device": device.type,
        "seconds": {"preparing": round(prepared_after, 1), "training": round(trained.seconds, 1)},
        "config": _settings(config),
        **({"initial": ancestor} if ancestor else {}),
    }
    card = _card(config, training)
    with tempfile.TemporaryDirectory() as scratch:
        # Measured on what a user will load, its rounding to float16 included.
        model = load_model(
            save_checkpoint(
                Path(scratch) / CHECKPOINT, trained.network, card, dtype=config.output_dtype
            )
        )
    metrics = _measure(model, config, held_out, device, out, report)
    folder = save_checkpoint(
        out / CHECKPOINT,
        trained.network,
        dataclasses.replace(card, metrics=metrics),
        dtype=config.output_dtype,
    )
    if not config.keep_last:
        (out / LAST).unlink(missing_ok=True)
    return folder


def _network(config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network to train, and what is known of the weights it starts from."""
    if config.initial is None:
        network = build_network(config.architecture, config.arguments, source="configuration")
        return network, {}
    model = load_model(config.initial)
    same = (model.card.architecture, dict(model.card.arguments)) == (
        config.architecture,
        dict(config.arguments),
    )
    if not same or (model.card.classes, model.card.modalities) != (
        config.classes,
        config.modalities,
    ):
        raise TrainingError(
            f"initial: {config.initial} is another network (architecture, arguments, classes or "
            "modalities differ); start from one that is the same"
        )
    model.network.requires_grad_(True)
    return model.network, {
        "weights_sha256": model.weights_sha256,
        "training": dict(model.card.training),
    }


def _silent(stage: str, done: float, total: float) -> None:
    pass


def _enter(out: Path, config: Config, *, resume: bool) -> Path | None:
    """Check that ``out`` is free or this run's; return the checkpoint of a run that has ended."""
    settings = out / _CONFIG
    if settings.is_file():
        if not resume:
            raise TrainingError(f"{out}: holds a training run; resume it or choose another folder")
        try:
            earlier = json.loads(settings.read_text(encoding="utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{settings}: cannot be read, choose another folder") from error
        if earlier != config.digest():
            raise TrainingError(
                f"{out}: its run had other settings than these (see {settings.name} there); "
                "resume with the same or choose another folder"
            )
        folder = out / CHECKPOINT
        try:
            read_card(folder / "card.json")
        except ModelError:
            return None
        return folder
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists and is no training run; choose another folder")
    return None


def _claim(out: Path, config: Config) -> None:
    """Leave the settings in ``out``; from then on it is this run's folder."""
    with replaced_whole(out / _CONFIG) as temporary:
        table = {"digest": config.digest(), **_settings(config)}
        temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _lesson(
    network: nn.Module,
    config: Config,
    cases: Sequence[Prepared],
    device: torch.device,
    *,
    start: int,
) -> tuple[Any, nn.Module]:
    """Return the batches and the loss of the task."""
    from neuroxai.training.patches import PatchBatches
    from neuroxai.training.slices import SliceBatches

    if config.task == "classification":
        hints = HintedCrossEntropy(
            network, config.hint_layers, weight=config.hint, channels=len(config.modalities)
        )
        return SliceBatches(cases, config, device, start=start), hints
    loss = RegionDiceCrossEntropy(config.classes, config.regions, weights=config.class_weights)
    return PatchBatches(cases, config, device, start=start), loss


def _steps(config: Config, cases: Sequence[Prepared]) -> int | None:
    """Return the number of steps: as set, or epochs of one patch a case (or of all slices)."""
    samples = sum(len(case.truth) for case in cases) if config.task == "classification" else 0
    per_epoch = -(-(samples or len(cases)) // config.batch)
    counts = [config.max_steps, config.epochs and config.epochs * per_epoch]
    return min((count for count in counts if count), default=None)


def _settings(config: Config) -> dict[str, Any]:
    """Return the configuration without what belongs to one machine."""
    table = config.to_dict()
    for key in ("cache", "workers", "device"):
        del table[key]
    if table["initial"] is not None:
        table["initial"] = Path(table["initial"]).name
    cohort = table["data"]["cohort"]
    if cohort is not None:
        cohort["folder"] = Path(cohort["folder"]).name
    return table


def _describe_data(
    config: Config, train_cases: Sequence[Prepared], test_cases: Sequence[Prepared]
) -> dict[str, Any]:
    counts = {"train_cases": len(train_cases), "held_out_cases": len(test_cases)}
    if config.data.phantom is not None:
        source = config.data.phantom
        return {
            "source": "synthetic phantoms on MNI152 anatomy",
            "train_seeds": list(source.train),
            "held_out_seeds": list(source.test),
            "spacings_mm": list(source.spacings),
            "variant": source.variant,
            "wide": source.wide,
            **counts,
        }
    folder = config.data.cohort.folder if config.data.cohort else ""
    return {"source": Path(folder).name, **counts}


def _card(config: Config, training: dict[str, Any]) -> Card:
    return Card(
        name=config.name,
        architecture=config.architecture,
        arguments=dict(config.arguments),
        task=config.task,
        modalities=config.modalities,
        classes=config.classes,
        regions=config.regions,
        activation="softmax",
        preprocessing=dict(config.preprocessing),
        training=training,
        license=config.license,
    )


def _measure(
    model: Model,
    config: Config,
    cases: Sequence[Prepared],
    device: torch.device,
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Evaluate on the held-out cases and write ``metrics.csv``."""
    if not cases:
        return {"count": 0}
    if config.task == "classification":
        return _measure_grades(model, config, cases, device, out, report)
    rows = []
    report("Evaluating", 0, len(cases))
    for row in evaluate_prepared(model, cases, device=device):
        rows.append(row)
        report("Evaluating", len(rows), len(cases))
    kinds = ["wide" if case.wide else "" for case in cases]
    table = [
        [name, kind, mm, *(f"{value:.4f}" for value in dice.values())]
        for kind, (name, mm, dice) in zip(kinds, rows, strict=True)
    ]
    _write_table(out, ["case", "kind", "spacing_mm", *config.regions], table)
    of_kind = {
        kind: _dice(DiceScores(tuple(r for r, k in zip(rows, kinds, strict=True) if k == kind)))
        for kind in dict.fromkeys(kinds)
    }
    metrics = of_kind.pop("", {})
    return metrics | of_kind


def _dice(scores: DiceScores) -> dict[str, Any]:
    spacings = sorted({mm for _, mm, _ in scores.rows})
    return {
        "count": scores.count,
        "dice": _rounded(scores.mean()),
        "dice_by_spacing_mm": {str(mm): _rounded(scores.mean(spacing=mm)) for mm in spacings},
    }


def _measure_grades(
    model: Model,
    config: Config,
    cases: Sequence[Prepared],
    device: torch.device,
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Return accuracy per case (its largest slice) and per slice, with Wilson's interval."""
    rows = []
    report("Evaluating", 0, len(cases))
    for row in evaluate_slices(model, cases, device=device):
        rows.append(row)
        report("Evaluating", len(rows), len(cases))
    names = config.classes
    _write_table(
        out,
        ["case", "truth", "largest_slice", "slices", "slices_right"],
        [
            [name, names[truth], names[found[0]], len(found), sum(each == truth for each in found)]
            for name, truth, found in rows
        ],
    )
    case_hits = sum(found[0] == truth for _, truth, found in rows)
    slice_hits = sum(each == truth for _, truth, found in rows for each in found)
    return {
        "count": len(rows),
        "accuracy": _proportion(case_hits, len(rows)),
        "slice_accuracy": _proportion(slice_hits, sum(len(found) for _, _, found in rows)),
    }


def _proportion(hits: int, count: int) -> dict[str, Any]:
    interval = [round(bound, 4) for bound in wilson_interval(hits, count)]
    value = round(hits / count, 4) if count else 0.0
    return {"value": value, "hits": hits, "count": count, "wilson_95": interval}


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {region: round(value, 4) for region, value in scores.items()}


def _write_table(out: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with (
        replaced_whole(out / "metrics.csv") as temporary,
        temporary.open("w", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
