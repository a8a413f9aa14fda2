"""Metrics of the model card, measured on held-out cases, with the table ``metrics.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from neuroxai.accuracy.interval import proportion_interval, wilson_interval
from neuroxai.core.progress import Report
from neuroxai.files.atomic import write_table
from neuroxai.models.model import Model
from neuroxai.training.card.evaluate import DiceScores, evaluate_slices, evaluate_volumes
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import PreparedCase

T = TypeVar("T")


def measure(
    model: Model,
    config: Config,
    cases: Sequence[PreparedCase],
    device: torch.device,
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Evaluate the network on held-out cases and write ``metrics.csv``; return the metrics."""
    if not cases:
        return {"count": 0}
    if config.task == "classification":
        return _measure_grades(model, config, cases, device, out, report)
    rows = _with_progress(evaluate_volumes(model, cases, device=device), len(cases), report)
    kinds = ["wide" if case.wide else "" for case in cases]
    table = [
        [name, kind, mm, *(f"{value:.4f}" for value in dice.values())]
        for kind, (name, mm, dice) in zip(kinds, rows, strict=True)
    ]
    write_table(out / "metrics.csv", ["case", "kind", "spacing_mm", *config.regions], table)
    of_kind = {
        kind: _dice(DiceScores(tuple(r for r, k in zip(rows, kinds, strict=True) if k == kind)))
        for kind in dict.fromkeys(kinds)
    }
    metrics = of_kind.pop("", {})
    return metrics | of_kind


def _with_progress(results: Iterable[T], count: int, report: Report) -> list[T]:
    """Collect results, reporting progress after each."""
    rows: list[T] = []
    report("Evaluating", 0, count)
    for row in results:
        rows.append(row)
        report("Evaluating", len(rows), count)
    return rows


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
    cases: Sequence[PreparedCase],
    device: torch.device,
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Accuracy per case (from its largest tumor slice) and per slice, with 95 % intervals."""
    rows = _with_progress(evaluate_slices(model, cases, device=device), len(cases), report)
    names = config.classes
    write_table(
        out / "metrics.csv",
        ["case", "truth", "largest_slice", "slices", "slices_correct"],
        [
            [
                name, names[truth], names[predicted[0]], len(predicted),
                sum(each == truth for each in predicted),
            ]
            for name, truth, predicted in rows
        ],
    )  # fmt: skip
    # Cases without slices have no row.
    patients = [case.group or case.name for case in cases if len(case.truth)]
    per_case = [
        (patient, [predicted[0] == truth])
        for patient, (_, truth, predicted) in zip(patients, rows, strict=True)
    ]
    per_slice = [
        (patient, [each == truth for each in predicted])
        for patient, (_, truth, predicted) in zip(patients, rows, strict=True)
    ]
    return {
        "count": len(rows),
        "accuracy": _proportion(per_case),
        "slice_accuracy": _proportion(per_slice),
    }


def _proportion(predictions: Sequence[tuple[str, Sequence[bool]]]) -> dict[str, Any]:
    """Proportion of correct predictions, given per patient, with its 95 % interval.

    Wilson's interval assumes independent predictions and is used if every patient has one.
    Otherwise the interval is a bootstrap over patients.
    """
    of_patient: dict[str, list[bool]] = {}
    for patient, correct in predictions:
        of_patient.setdefault(patient, []).extend(correct)
    hits = np.array([sum(each) for each in of_patient.values()], int)
    counts = np.array([len(each) for each in of_patient.values()], int)
    total, count = int(hits.sum()), int(counts.sum())
    if count == len(of_patient):
        name, interval = "wilson_95", wilson_interval(total, count)
    else:
        name, interval = "over_patients_95", proportion_interval(hits, counts)
    return {
        "value": round(total / count, 4) if count else 0.0,
        "hits": total,
        "count": count,
        "patients": len(of_patient),
        name: [round(bound, 4) for bound in interval],
    }


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {region: round(value, 4) for region, value in scores.items()}
