"""Output files of metrics: one table of all values, and a summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroxai.core.explanation import versions
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import write_json, write_table
from neuroxai.files.folder import Results, open_results
from neuroxai.metrics.table import METRICS, make_metric
from neuroxai.workflows.measurement import Measurements

HEADER = (
    "target", "map", "title", "trivial", "metric", "family", "value", "chance",
    "higher_is_better", "unit", "beaten_by_trivial", "notes",
)  # fmt: skip


def write_measurements(
    case: str, measured: Sequence[Measurements], out: Path | Results
) -> list[Path]:
    """Write ``metrics.csv``, one row per map and metric, and ``metrics.json`` with all details.

    Parameters
    ----------
    case
        Name of the case.
    measured
        Measurements of the targets.
    out
        The folder, or open results: see :func:`~neuroxai.files.folder.open_results`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    with open_results(out) as results:
        before = len(results.written)
        rows = [row for each in measured for row in _rows(each)]
        results.add(write_table(results.folder / "metrics.csv", HEADER, rows))
        results.add(write_json(results.folder / "metrics.json", _summary(case, measured)))
    return results.written[before:]


def _rows(measured: Measurements) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for row in measured.rows():
        kind = METRICS[row["metric"]]
        beaten = [] if row["trivial"] else measured.beaten_by(row["map"], kind)
        better = {True: "yes", False: "no", None: ""}[kind.higher_is_better]
        rows.append(
            (
                row["target"], row["map"], row["title"], "yes" if row["trivial"] else "no",
                row["metric"], kind.family, _number(row["value"]), _number(row["chance"]),
                better, kind.unit, "; ".join(beaten), row["notes"],
            )
        )  # fmt: skip
    return rows


def _summary(case: str, measured: Sequence[Measurements]) -> dict[str, Any]:
    return {
        "case": case,
        "targets": [each.describe() for each in measured],
        "metrics": {
            name: {
                "title": METRICS[name].title, "family": METRICS[name].family,
                "citation": METRICS[name].citation, "unit": METRICS[name].unit,
                "higher_is_better": METRICS[name].higher_is_better,
                "parameters": make_metric(name).parameters(),
            }
            for name in dict.fromkeys(
                name for each in measured for row in each.values() for name in row
            )
        },
        "versions": versions(),
        "use": NOT_FOR_CLINICAL_USE,
    }  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
