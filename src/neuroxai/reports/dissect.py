"""What a dissection leaves on disk: every number, the tables, the figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroxai.core.explanation import versions
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.folder import Results, opened, write_json, write_table
from neuroxai.inspection.dissection import BAU
from neuroxai.render.concept_chart import draw_concepts
from neuroxai.workflows.dissect import Dissected, Finding

HEADER = (
    "layer_number", "layer", "unit_end", "filter", "concept", "kind", "iou", "control_iou",
    "control_best_in_layer", "threshold", "active_share", "concept_share", "iou_at_0.005",
)  # fmt: skip


def write_dissection(found: Dissected, out: Path | Results) -> list[Path]:
    """Write the tables, the summary and the figure of a dissection: all of them, or none.

    ``dissection.csv`` holds every filter with every concept, ``best_filter_per_concept.csv`` and
    ``best_concept_per_filter.csv`` what their names say, ``dissection.json`` everything else,
    ``dissection.png`` which layer holds which concept.

    Parameters
    ----------
    found
        What was found.
    out
        The folder, or results that are open already: see :func:`~neuroxai.files.folder.opened`.

    Returns
    -------
    list of Path
        The files, as they lie now.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    numbers = {unit.layer: number for number, unit in enumerate(found.units, start=1)}
    summary = _summary(found, numbers)
    with opened(out) as results:
        before = len(results.written)
        results.add(write_table(results.folder / "dissection.csv", HEADER, _rows(found, numbers)))
        results.add(write_json(results.folder / "dissection.json", summary))
        for name in ("best_filter_per_concept", "best_concept_per_filter"):
            entries = summary[name]
            rows = (entry.values() for entry in entries)
            results.add(write_table(results.folder / f"{name}.csv", entries[0], rows))
        results.add(_draw(found, results.folder / "dissection.png"))
    return results.written[before:]


def _rows(found: Dissected, numbers: dict[str, int]) -> Iterator[tuple[object, ...]]:
    ends = {unit.layer: unit.end for unit in found.units}
    for finding in found.findings:
        match = finding.match
        yield (
            numbers[match.layer], match.layer, ends[match.layer], match.filter, match.concept,
            _kind(finding), f"{match.iou:.6f}", f"{finding.control:.6f}",
            f"{finding.control_best:.6f}", f"{match.threshold:.6g}", f"{match.active:.6f}",
            f"{found.shares[match.concept]:.6f}", f"{finding.bau:.6f}",
        )  # fmt: skip


def _summary(found: Dissected, numbers: dict[str, int]) -> dict[str, Any]:
    filters = [(unit.layer, k) for unit in found.units for k in range(unit.count)]
    return {
        "model": dict(found.model),
        "cases": list(found.cases),
        "iou": "of a filter's active voxels with the concept, over the cohort; as many voxels are "
        "active as the concept has, or fewer, if fewer rise above the filter's lowest value",
        "control": "the same network with shuffled weights; control_best is the best filter of "
        "the same layer there, which is what choosing the best of a layer yields by chance",
        "quantile_of_bau": BAU,
        "concept_shares": dict(found.shares),
        "best_filter_per_concept": [
            _entry(found.best_filter(concept), numbers) for concept in found.concepts
        ],
        "best_concept_per_filter": [
            _entry(found.best_concept(layer, k), numbers) for layer, k in filters
        ],
        "switching_off": {
            "meaning": "change when the filter is switched off, averaged over cases; control: the "
            "same for other filters of its layer. An IoU is a correlation, this is a cause",
            "effects": [
                {
                    "concept": effect.concept, "layer": effect.layer, "filter": effect.filter,
                    "cases": effect.cases,
                    "dice_change": dict(effect.dice), "target_change": dict(effect.score),
                    "control_dice_change": dict(effect.control_dice),
                    "control_target_change": dict(effect.control_score),
                }
                for effect in found.effects
            ],
        },
        "tissues_from": list(found.tissues_from),
        "seed": found.seed,
        "versions": versions(),
        "use": NOT_FOR_CLINICAL_USE,
    }  # fmt: skip


def _entry(finding: Finding, numbers: dict[str, int]) -> dict[str, Any]:
    match = finding.match
    return {
        "layer_number": numbers[match.layer], "layer": match.layer, "filter": match.filter,
        "concept": match.concept, "kind": _kind(finding), "iou": round(match.iou, 6),
        "control_iou": round(finding.control, 6),
        "control_best_in_layer": round(finding.control_best, 6),
    }  # fmt: skip


def _kind(finding: Finding) -> str:
    return "explicit" if finding.explicit else "implicit"


def _draw(found: Dissected, path: Path) -> Path:
    scores: dict[tuple[str, str], tuple[float, float]] = {}
    groups: dict[str, list[str]] = {
        "Implicit concepts, never labeled in training": [],
        "Explicit concepts, labeled in training": [],
    }
    implicit, explicit = groups.values()
    for finding in found.findings:
        key = (finding.match.concept, finding.match.layer)
        best = scores.get(key, (0.0, 0.0))[0]
        scores[key] = (max(best, finding.match.iou), finding.control_best)
        group = explicit if finding.explicit else implicit
        if finding.match.concept not in group:
            group.append(finding.match.concept)
    count = len(found.cases)
    return draw_concepts(
        groups,
        [unit.layer for unit in found.units],
        scores,
        path,
        title=f"{found.model['name']}  ·  which layer holds which concept",
        facts={
            "cases": str(count),
            **({"tissues from": ", ".join(found.tissues_from)} if found.tissues_from else {}),
            "share of the counted voxels": ", ".join(
                f"{name} {share:.1%}" for name, share in found.shares.items()
            ),
        },
    )
