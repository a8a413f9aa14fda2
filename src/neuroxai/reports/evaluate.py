"""Output files of an evaluation: one row per case, tables, summary, figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neuroxai.accuracy.classification import roc_curve
from neuroxai.core.explanation import versions
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import atomic_path, write_json, write_table
from neuroxai.files.folder import Results, open_results
from neuroxai.render.score_chart import Curves, ScorePanel, draw_curves, draw_scores
from neuroxai.reports.evaluation_scores import (
    GradingScores,
    cases_with_region,
    cautions,
    grading_scores,
    segmentation_scores,
)
from neuroxai.reports.evaluation_tables import INTERVALS, markdown
from neuroxai.workflows.evaluate import Evaluation


def write_evaluation(evaluation: Evaluation, out: Path | Results) -> list[Path]:
    """Write the files of an evaluation: all of them, or none.

    ``cases.csv`` has one row per case, ``slices.csv`` one per slice of a classifier, ``tables.csv``
    the scores with their intervals. ``evaluation.md`` shows the same next to the results of the
    paper. ``evaluation.json`` is the summary, ``evaluation*.png`` are the figures.

    Parameters
    ----------
    evaluation
        Result of :func:`~neuroxai.workflows.evaluate.evaluate`.
    out
        The folder, or open results: see :func:`~neuroxai.files.folder.open_results`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    with open_results(out) as results:
        page = markdown(evaluation)
        if evaluation.segmented:
            _write_segmentation(evaluation, results)
        else:
            _write_grading(evaluation, results)
        results.add(_write_text(results.folder / "evaluation.md", page))
    return results.written


def _write_segmentation(evaluation: Evaluation, results: Results) -> None:
    out = results.folder
    scores = segmentation_scores(evaluation)
    header: Sequence[str] = _segmentation_header(evaluation)
    results.add(write_table(out / "cases.csv", header, _segmentation_rows(evaluation)))
    rows = [
        (name, measure, *_cells(estimate.to_dict()))
        for name, measures in scores.items()
        for measure, estimate in measures.items()
    ]
    present = cases_with_region(evaluation)
    rows += [(name, "cases_with_region", str(count), "", "") for name, count in present.items()]
    header = ("region", "measure", "value", "low_95", "high_95")
    results.add(write_table(out / "tables.csv", header, rows))
    summary = {
        name: {"cases_with_region": present[name]}
        | {measure: estimate.to_dict() for measure, estimate in measures.items()}
        for name, measures in scores.items()
    }
    results.add(write_json(out / "evaluation.json", _summary(evaluation) | {"regions": summary}))
    panels = [
        ScorePanel("Dice", _values(evaluation, "dice"), (-0.03, 1.03)),
        ScorePanel("HD95 in mm", _values(evaluation, "hausdorff95_mm")),
    ]
    path = out / "evaluation.png"
    results.add(draw_scores(panels, path, title=_title(evaluation), facts=_facts(evaluation)))


def _write_grading(evaluation: Evaluation, results: Results) -> None:
    out = results.folder
    per_case, per_slice = grading_scores(evaluation)
    pages = [per_case] if evaluation.pictures else [per_case, per_slice]
    columns = ("truth", *(f"p_{name}" for name in evaluation.classes), "predicted")
    header: Sequence[str] = ("case", "patient", *columns)
    results.add(write_table(out / "cases.csv", header, _graded_rows(evaluation)))
    if not evaluation.pictures:
        header = ("case", "slice", *columns)
        results.add(write_table(out / "slices.csv", header, _slice_rows(evaluation)))
    rows = [row for page in pages for row in _grading_rows(page, evaluation.classes)]
    header = ("unit", "class", "measure", "value", "low_95", "high_95")
    results.add(write_table(out / "tables.csv", header, rows))
    summary = {page.unit: _grading_summary(page) for page in pages}
    results.add(write_json(out / "evaluation.json", _summary(evaluation) | {"per": summary}))
    for page in pages:
        path = out / f"evaluation_per-{page.unit}.png"
        facts = _facts(evaluation) | {"counted": f"{page.count} {page.unit}s"}
        curves = _curves(page, evaluation.classes)
        results.add(draw_curves(curves, path, title=_title(evaluation), facts=facts))


def _segmentation_header(evaluation: Evaluation) -> list[str]:
    measures = ("dice", "hausdorff95_mm", "predicted_ml", "true_ml")
    return [
        "case", "patient", *(f"{region}_{m}" for region in evaluation.regions for m in measures)
    ]  # fmt: skip


def _segmentation_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    for case in evaluation.segmented:
        numbers = [
            f"{value:.4f}"
            for region in evaluation.regions
            for value in dataclasses.astuple(case.regions[region])
        ]
        yield [case.name, case.patient, *numbers]


def _graded_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    for case in evaluation.graded:
        probabilities = case.together
        predicted = evaluation.classes[int(probabilities.argmax())]
        yield [
            case.name, case.patient, evaluation.classes[case.truth],
            *(f"{probability:.5f}" for probability in probabilities), predicted,
        ]  # fmt: skip


def _slice_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    for case in evaluation.graded:
        for name, probabilities in zip(case.slices, case.probabilities, strict=True):
            predicted = evaluation.classes[int(probabilities.argmax())]
            yield [
                case.name, name, evaluation.classes[case.truth],
                *(f"{probability:.5f}" for probability in probabilities), predicted,
            ]  # fmt: skip


def _grading_rows(page: GradingScores, classes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    overall = {"accuracy": page.accuracy, "balanced_accuracy": page.balanced_accuracy}
    for measure, estimate in overall.items():
        yield page.unit, "", measure, *_cells(estimate.to_dict())
    for name in classes:
        for measure, estimates in (
            ("sensitivity", page.sensitivity),
            ("specificity", page.specificity),
            ("area_under_roc", page.roc_auc),
        ):
            yield page.unit, name, measure, *_cells(estimates[name].to_dict())
    yield page.unit, "", "calibration_error", f"{page.calibration.error:.6f}", "", ""
    yield page.unit, "", "brier", f"{page.calibration.brier:.6f}", "", ""


def _grading_summary(page: GradingScores) -> dict[str, Any]:
    return {
        "count": page.count,
        "accuracy": page.accuracy.to_dict(),
        "balanced_accuracy": page.balanced_accuracy.to_dict(),
        "sensitivity": {name: each.to_dict() for name, each in page.sensitivity.items()},
        "specificity": {name: each.to_dict() for name, each in page.specificity.items()},
        "area_under_roc": {name: each.to_dict() for name, each in page.roc_auc.items()},
        "confusion": page.confusion.tolist(),
        "calibration_error": round(page.calibration.error, 6),
        "brier": round(page.calibration.brier, 6),
    }


def _curves(page: GradingScores, classes: Sequence[str]) -> Curves:
    roc = {}
    for index, name in enumerate(classes):
        positive = page.truth == index
        # The curves of two classes mirror each other, so the second suffices.
        if positive.any() and not positive.all() and (len(classes) > 2 or index == 1):
            roc[name] = roc_curve(positive, page.probabilities[:, index])
    bins = page.calibration
    return Curves(roc, bins.confidence, bins.accuracy, bins.count, classes, page.confusion)


def _values(evaluation: Evaluation, measure: str) -> dict[str, list[float]]:
    present = cases_with_region(evaluation)
    return {
        f"{region}, in {present[region]} of {len(evaluation.segmented)}": [
            float(getattr(case.regions[region], measure)) for case in evaluation.segmented
        ]
        for region in evaluation.regions
    }


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "model": dict(evaluation.model),
        "task": evaluation.task,
        "classes": list(evaluation.classes),
        "data": evaluation.data,
        "settings": dataclasses.asdict(evaluation.settings),
        "cases": len(evaluation.segmented or evaluation.graded),
        "quality": {name: found.describe() for name, found in evaluation.quality.items()},
        "left_out": dict(evaluation.left_out),
        "intervals": f"95 %: {INTERVALS}",
        "cautions": cautions(evaluation),
        "versions": versions(),
        "use": NOT_FOR_CLINICAL_USE,
    }


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.model['name']} on {evaluation.data}"


def _facts(evaluation: Evaluation) -> dict[str, str]:
    cases = evaluation.segmented or evaluation.graded
    facts = {"cases": str(len(cases)), "weights": evaluation.model["weights_sha256"][:12]}
    if evaluation.segmented:
        facts["empty in truth and prediction"] = "Dice 1, 0 mm"
    if evaluation.settings.flips:
        facts["flips"] = "all"
    return facts


def _cells(estimate: dict[str, float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6f}" for value in estimate.values()]


def _write_text(path: Path, text: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
