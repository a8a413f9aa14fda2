"""The figures of a checkpoint's card, measured on held-out cases, and the table behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from neuroxai.accuracy.interval import proportion_interval, wilson_interval
from neuroxai.core.progress import Report
from neuroxai.files.folder import write_table
from neuroxai.models.model import Model
from neuroxai.training.card.evaluate import (
    DiceScores,
    evaluate_prepared,
    evaluate_slices,
)
from neuroxai.training.config.config import Config
from neuroxai.training.data.cases import Prepared

T = TypeVar("T")


def measure(
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
    rows = _reported(evaluate_prepared(model, cases, device=device), len(cases), report)
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


def _reported(measured: Iterable[T], count: int, report: Report) -> list[T]:
    """Return what is measured, telling of each."""
    rows: list[T] = []
    report("Evaluating", 0, count)
    for row in measured:
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
    cases: Sequence[Prepared],
    device: torch.device,
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Return accuracy per case (its largest slice) and per slice, with intervals over patients."""
    rows = _reported(evaluate_slices(model, cases, device=device), len(cases), report)
    names = config.classes
    write_table(
        out / "metrics.csv",
        ["case", "truth", "largest_slice", "slices", "slices_right"],
        [
            [name, names[truth], names[found[0]], len(found), sum(each == truth for each in found)]
            for name, truth, found in rows
        ],
    )
    # Cases without a slice have no row.
    owners = [case.group or case.name for case in cases if len(case.truth)]
    largest = [(owner, [row[2][0] == row[1]]) for owner, row in zip(owners, rows, strict=True)]
    every = [
        (owner, [each == truth for each in found])
        for owner, (_, truth, found) in zip(owners, rows, strict=True)
    ]
    return {
        "count": len(rows),
        "accuracy": _proportion(largest),
        "slice_accuracy": _proportion(every),
    }


def _proportion(answers: Sequence[tuple[str, Sequence[bool]]]) -> dict[str, Any]:
    """Return the share of answers that are right, given with the patient whose they are.

    The interval is Wilson's where each patient has one answer; it takes answers for independent,
    which those of one patient are not, and is drawn over patients otherwise.
    """
    of: dict[str, list[bool]] = {}
    for patient, right in answers:
        of.setdefault(patient, []).extend(right)
    hits = np.array([sum(each) for each in of.values()], int)
    counts = np.array([len(each) for each in of.values()], int)
    total, count = int(hits.sum()), int(counts.sum())
    if count == len(of):
        name, interval = "wilson_95", wilson_interval(total, count)
    else:
        name, interval = "over_patients_95", proportion_interval(hits, counts)
    return {
        "value": round(total / count, 4) if count else 0.0,
        "hits": total,
        "count": count,
        "patients": len(of),
        name: [round(bound, 4) for bound in interval],
    }


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {region: round(value, 4) for region, value in scores.items()}
