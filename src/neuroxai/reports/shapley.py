"""The files of modality Shapley values: a table for a spreadsheet, and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import atomic_path, write_json
from neuroxai.files.folder import Results, describe_dataset
from neuroxai.workflows.shapley_run import ModalityShapley

SUMMARY, TABLE = "modality_shapley.json", "modality_shapley.csv"

_COLUMNS = ("case", "target", "within", "modality", "shapley_value", "share", "alone", "without",
            "all", "none", "units")  # fmt: skip
"""``alone`` is the value of the modality alone, ``without`` that of all others."""


def write_shapley(
    results: Results,
    case: str,
    found: Mapping[str, ModalityShapley],
    model: Mapping[str, Any],
    warnings: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write the table and the summary, and return the path of the summary.

    Parameters
    ----------
    results
        The folder of results.
    case
        Name of the case.
    found
        The Shapley values by target.
    model
        Name and hashes of the network.
    warnings
        Warnings, one sentence each.
    more
        Further entries of the summary.
    """
    describe_dataset(results.folder)
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for each in found.values():
        writer.writerows({"case": case, **row} for row in rows(each))
    with atomic_path(results.folder / TABLE) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    content = {
        "case": case,
        "model": dict(model),
        **(more or {}),
        "targets": {name: each.describe() for name, each in found.items()},
        "warnings": list(warnings),
        "use": NOT_FOR_CLINICAL_USE,
    }
    summary = results.add(write_json(results.folder / SUMMARY, content))
    results.add(results.folder / TABLE)
    return summary


def rows(found: ModalityShapley, sample: int = 0) -> Iterator[dict[str, Any]]:
    """Yield one row per modality, for one sample."""
    coalitions = found.coalitions[sample]
    everyone = len(coalitions) - 1
    for number, modality in enumerate(found.modalities):
        yield {
            "target": found.target["name"],
            "within": found.target["within"] or "",
            "modality": modality,
            "shapley_value": float(found.values[sample, number]),
            "share": float(found.shares[sample, number]),
            "alone": float(coalitions[2**number]),
            "without": float(coalitions[everyone - 2**number]),
            "all": float(found.full[sample]),
            "none": float(found.none[sample]),
            "units": found.units,
        }


def findings(found: Mapping[str, ModalityShapley]) -> list[str]:
    """Return one sentence for each target: the modality it rests on most.

    Shares are of absolute values, because values of both signs may cancel.
    """
    sentences = []
    for name, each in found.items():
        shares, values = each.shares[0], each.values[0]
        if not bool(values.any()):
            sentences.append(f"{name} rests on no modality: no removal changes it.")
            continue
        top = int(shares.argmax())
        side = "for" if float(values[top]) > 0 else "against"
        sentences.append(
            f"{name} rests most on {each.modalities[top]}: {float(values[top]):+.3g} "
            f"({float(shares[top]):.0%} of all effects), evidence {side} it."
        )
    return sentences
