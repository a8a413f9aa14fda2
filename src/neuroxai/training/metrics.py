"""The figures of a checkpoint's card, measured on held-out cases, and the table behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from neuroxai.core.progress import Report
from neuroxai.models.model import Model
from neuroxai.results import write_table
from neuroxai.scores.interval import wilson_interval
from neuroxai.training.cases import Prepared
from neuroxai.training.config import Config
from neuroxai.training.evaluate import (
    DiceScores,
    evaluate_prepared,
    evaluate_slices,
)

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
    """Return accuracy per case (its largest slice) and per slice, with Wilson's interval."""
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
