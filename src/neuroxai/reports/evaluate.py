"""What an evaluation leaves on disk: every case, the tables, the figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neuroxai.accuracy.classification import roc_curve
from neuroxai.core.explanation import versions
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import replaced_whole
from neuroxai.files.folder import Results, opened, write_json, write_table
from neuroxai.render.score_chart import Curves, Panel, draw_curves, draw_scores
from neuroxai.reports.evaluation_tables import (
    INTERVALS,
    GradingFigures,
    cases_with_region,
    cautions,
    grading_figures,
    markdown,
    segmentation_figures,
)
from neuroxai.workflows.evaluate import Evaluation


def write_evaluation(found: Evaluation, out: Path | Results) -> list[Path]:
    """Write every case, tables, summary and figures of an evaluation: all of them, or none.

    ``cases.csv`` holds every case, ``slices.csv`` every slice that a classifier saw, ``tables.csv``
    the figures with their intervals, ``evaluation.md`` the same as a page beside the paper's,
    ``evaluation.json`` everything, ``evaluation*.png`` the figures.

    Parameters
    ----------
    out
        The folder, or results that are open already: see :func:`~neuroxai.files.folder.opened`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    with opened(out) as results:
        page = markdown(found)
        if found.segmented:
            _write_segmentation(found, results)
        else:
            _write_grading(found, results)
        results.add(_write_text(results.folder / "evaluation.md", page))
    return results.written


def _write_segmentation(found: Evaluation, results: Results) -> None:
    out = results.folder
    figures = segmentation_figures(found)
    results.add(write_table(out / "cases.csv", _segmented_header(found), _segmented_rows(found)))
    rows = [
        (name, measure, *_numbers(figure.to_dict()))
        for name, measures in figures.items()
        for measure, figure in measures.items()
    ]
    having = cases_with_region(found)
    rows += [(name, "cases_with_region", str(count), "", "") for name, count in having.items()]
    header = ("region", "measure", "value", "low_95", "high_95")
    results.add(write_table(out / "tables.csv", header, rows))
    summary = {
        name: {"cases_with_region": having[name]}
        | {measure: figure.to_dict() for measure, figure in measures.items()}
        for name, measures in figures.items()
    }
    results.add(write_json(out / "evaluation.json", _summary(found) | {"regions": summary}))
    panels = [
        Panel("Dice", _values(found, "dice"), (-0.03, 1.03)),
        Panel("HD95 in mm", _values(found, "hausdorff95_mm")),
    ]
    results.add(
        draw_scores(panels, out / "evaluation.png", title=_title(found), facts=_facts(found))
    )


def _write_grading(found: Evaluation, results: Results) -> None:
    out = results.folder
    of_cases, of_slices = grading_figures(found)
    units = [of_cases] if found.pictures else [of_cases, of_slices]
    header = ("case", "patient", "truth", *(f"p_{name}" for name in found.classes), "answer")
    results.add(write_table(out / "cases.csv", header, _graded_rows(found)))
    header = ("case", "slice", "truth", *(f"p_{name}" for name in found.classes), "answer")
    if not found.pictures:
        results.add(write_table(out / "slices.csv", header, _slice_rows(found)))
    rows = [row for unit in units for row in _grading_rows(unit, found.classes)]
    header = ("unit", "class", "measure", "value", "low_95", "high_95")
    results.add(write_table(out / "tables.csv", header, rows))
    summary = {unit.unit: _grading_summary(unit) for unit in units}
    results.add(write_json(out / "evaluation.json", _summary(found) | {"per": summary}))
    for unit in units:
        path = out / f"evaluation_per-{unit.unit}.png"
        facts = _facts(found) | {"counted": f"{unit.count} {unit.unit}s"}
        results.add(
            draw_curves(_drawn(unit, found.classes), path, title=_title(found), facts=facts)
        )


def _segmented_header(found: Evaluation) -> list[str]:
    measures = ("dice", "hausdorff95_mm", "found_ml", "true_ml")
    return ["case", "patient", *(f"{region}_{m}" for region in found.regions for m in measures)]


def _segmented_rows(found: Evaluation) -> Iterator[list[str]]:
    for case in found.segmented:
        numbers = [
            f"{value:.4f}"
            for region in found.regions
            for value in dataclasses.astuple(case.regions[region])
        ]
        yield [case.name, case.patient, *numbers]


def _graded_rows(found: Evaluation) -> Iterator[list[str]]:
    for case in found.graded:
        probabilities = case.together
        answer = found.classes[int(probabilities.argmax())]
        yield [
            case.name, case.patient, found.classes[case.truth],
            *(f"{chance:.5f}" for chance in probabilities), answer,
        ]  # fmt: skip


def _slice_rows(found: Evaluation) -> Iterator[list[str]]:
    for case in found.graded:
        for name, probabilities in zip(case.slices, case.probabilities, strict=True):
            answer = found.classes[int(probabilities.argmax())]
            yield [
                case.name, name, found.classes[case.truth],
                *(f"{chance:.5f}" for chance in probabilities), answer,
            ]  # fmt: skip


def _grading_rows(unit: GradingFigures, classes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    whole = {"accuracy": unit.accuracy, "balanced_accuracy": unit.balanced}
    for measure, figure in whole.items():
        yield unit.unit, "", measure, *_numbers(figure.to_dict())
    for name in classes:
        for measure, of_class in (
            ("sensitivity", unit.sensitivity),
            ("specificity", unit.specificity),
            ("area_under_roc", unit.area),
        ):
            yield unit.unit, name, measure, *_numbers(of_class[name].to_dict())
    yield unit.unit, "", "calibration_error", f"{unit.calibration.error:.6f}", "", ""
    yield unit.unit, "", "brier", f"{unit.calibration.brier:.6f}", "", ""


def _grading_summary(unit: GradingFigures) -> dict[str, Any]:
    return {
        "count": unit.count,
        "accuracy": unit.accuracy.to_dict(),
        "balanced_accuracy": unit.balanced.to_dict(),
        "sensitivity": {name: figure.to_dict() for name, figure in unit.sensitivity.items()},
        "specificity": {name: figure.to_dict() for name, figure in unit.specificity.items()},
        "area_under_roc": {name: figure.to_dict() for name, figure in unit.area.items()},
        "confusion": unit.table.tolist(),
        "calibration_error": round(unit.calibration.error, 6),
        "brier": round(unit.calibration.brier, 6),
    }


def _drawn(unit: GradingFigures, classes: Sequence[str]) -> Curves:
    roc = {}
    for index, name in enumerate(classes):
        positive = unit.truth == index
        # Of two classes one curve tells both.
        if positive.any() and not positive.all() and (len(classes) > 2 or index == 1):
            roc[name] = roc_curve(positive, unit.probabilities[:, index])
    kept = unit.calibration
    return Curves(roc, kept.sure, kept.right, kept.count, classes, unit.table)


def _values(found: Evaluation, measure: str) -> dict[str, list[float]]:
    having = cases_with_region(found)
    return {
        f"{region}, in {having[region]} of {len(found.segmented)}": [
            float(getattr(case.regions[region], measure)) for case in found.segmented
        ]
        for region in found.regions
    }


def _summary(found: Evaluation) -> dict[str, Any]:
    return {
        "model": dict(found.model),
        "task": found.task,
        "classes": list(found.classes),
        "data": found.data,
        "settings": dataclasses.asdict(found.settings),
        "cases": len(found.segmented or found.graded),
        "left_out": dict(found.left_out),
        "intervals": f"95 %: {INTERVALS}",
        "cautions": cautions(found),
        "versions": versions(),
        "use": NOT_FOR_CLINICAL_USE,
    }


def _title(found: Evaluation) -> str:
    return f"{found.model['name']} on {found.data}"


def _facts(found: Evaluation) -> dict[str, str]:
    cases = found.segmented or found.graded
    facts = {"cases": str(len(cases)), "weights": found.model["weights_sha256"][:12]}
    if found.segmented:
        facts["empty in truth and answer"] = "Dice 1, 0 mm"
    if found.settings.flips:
        facts["flips"] = "all"
    return facts


def _numbers(figure: dict[str, float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6f}" for value in figure.values()]


def _write_text(path: Path, text: str) -> Path:
    with replaced_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
