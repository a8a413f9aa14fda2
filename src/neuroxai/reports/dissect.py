"""Output files of a dissection: all matches, best matches, summary, figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroxai.core.explanation import versions
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import write_json, write_table
from neuroxai.files.folder import Results, open_results
from neuroxai.inspection.dissection import BAU
from neuroxai.render.concept_chart import draw_concepts
from neuroxai.workflows.dissect import Dissected, Finding

HEADER = (
    "layer_number", "layer", "activation_layer", "filter", "concept", "kind", "iou", "control_iou",
    "control_best_in_layer", "threshold", "active_fraction", "concept_fraction", "iou_at_0.005",
)  # fmt: skip


def write_dissection(dissected: Dissected, out: Path | Results) -> list[Path]:
    """Write the files of a dissection: all of them, or none.

    ``dissection.csv`` has one row per filter and concept. ``best_filter_per_concept.csv`` and
    ``best_concept_per_filter.csv`` are selected from it. ``dissection.json`` is the summary, and
    ``dissection.png`` shows which layer contains which concept.

    Parameters
    ----------
    dissected
        Result of :func:`~neuroxai.workflows.dissect.dissect`.
    out
        The folder, or open results: see :func:`~neuroxai.files.folder.open_results`.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    numbers = {unit.layer: number for number, unit in enumerate(dissected.units, start=1)}
    summary = _summary(dissected, numbers)
    with open_results(out) as results:
        before = len(results.written)
        folder = results.folder
        results.add(write_table(folder / "dissection.csv", HEADER, _rows(dissected, numbers)))
        results.add(write_json(folder / "dissection.json", summary))
        for name in ("best_filter_per_concept", "best_concept_per_filter"):
            entries = summary[name]
            rows = (entry.values() for entry in entries)
            results.add(write_table(folder / f"{name}.csv", entries[0], rows))
        results.add(_draw(dissected, folder / "dissection.png"))
    return results.written[before:]


def _rows(dissected: Dissected, numbers: dict[str, int]) -> Iterator[tuple[object, ...]]:
    ends = {unit.layer: unit.end for unit in dissected.units}
    for finding in dissected.findings:
        match = finding.match
        yield (
            numbers[match.layer], match.layer, ends[match.layer], match.filter, match.concept,
            _kind(finding), f"{match.iou:.6f}", f"{finding.control:.6f}",
            f"{finding.control_best:.6f}", f"{match.threshold:.6g}", f"{match.active:.6f}",
            f"{dissected.shares[match.concept]:.6f}", f"{finding.bau:.6f}",
        )  # fmt: skip


def _summary(dissected: Dissected, numbers: dict[str, int]) -> dict[str, Any]:
    filters = [(unit.layer, k) for unit in dissected.units for k in range(unit.count)]
    return {
        "model": dict(dissected.model),
        "cases": list(dissected.cases),
        "quality": {name: found.describe() for name, found in dissected.quality.items()},
        "iou": "intersection over union of a filter's active voxels and the concept over all "
        "cases; the number of active voxels equals the size of the concept, or is smaller if fewer "
        "voxels exceed the filter's lowest value",
        "control": "the same network with shuffled weights; control_best_in_layer is the best "
        "filter of the same layer there, the value expected from selecting the best by chance",
        "quantile_of_bau": BAU,
        "concept_fractions": dict(dissected.shares),
        "best_filter_per_concept": [
            _entry(dissected.best_filter(concept), numbers) for concept in dissected.concepts
        ],
        "best_concept_per_filter": [
            _entry(dissected.best_concept(layer, k), numbers) for layer, k in filters
        ],
        "ablation": {
            "meaning": "change after ablating the filter, averaged over cases; control: the same "
            "for other filters of its layer. IoU measures correlation, ablation a causal effect",
            "effects": [
                {
                    "concept": effect.concept, "layer": effect.layer, "filter": effect.filter,
                    "cases": effect.cases,
                    "dice_change": dict(effect.dice), "target_change": dict(effect.score),
                    "control_dice_change": dict(effect.control_dice),
                    "control_target_change": dict(effect.control_score),
                }
                for effect in dissected.effects
            ],
        },
        "tissues_from": list(dissected.tissues_from),
        "seed": dissected.seed,
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


def _draw(dissected: Dissected, path: Path) -> Path:
    scores: dict[tuple[str, str], tuple[float, float]] = {}
    groups: dict[str, list[str]] = {
        "Implicit concepts, not labeled in training": [],
        "Explicit concepts, labeled in training": [],
    }
    implicit, explicit = groups.values()
    for finding in dissected.findings:
        key = (finding.match.concept, finding.match.layer)
        best = scores.get(key, (0.0, 0.0))[0]
        scores[key] = (max(best, finding.match.iou), finding.control_best)
        group = explicit if finding.explicit else implicit
        if finding.match.concept not in group:
            group.append(finding.match.concept)
    sources = dissected.tissues_from
    return draw_concepts(
        groups,
        [unit.layer for unit in dissected.units],
        scores,
        path,
        title=f"{dissected.model['name']}  ·  concepts by layer",
        facts={
            "cases": str(len(dissected.cases)),
            **({"tissues from": ", ".join(sources)} if sources else {}),
            "fraction of the counted voxels": ", ".join(
                f"{name} {fraction:.1%}" for name, fraction in dissected.shares.items()
            ),
        },
    )
