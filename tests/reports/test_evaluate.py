"""Scores, tables and files of an evaluation, from made-up results."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from neuroxai.accuracy.interval import wilson_interval
from neuroxai.core.errors import ModelError
from neuroxai.files.folder import Results
from neuroxai.reports.evaluate import write_evaluation
from neuroxai.reports.evaluation_scores import (
    Estimate,
    cautions,
    grading_scores,
    segmentation_scores,
)
from neuroxai.reports.evaluation_tables import markdown
from neuroxai.workflows.evaluate import (
    Evaluation,
    GradedCase,
    Overlap,
    SegmentedCase,
    Settings,
)


def graded(predictions: list[tuple[str, int, list[list[float]]]]) -> Evaluation:
    """Evaluation of a classifier from patient, true class and probabilities of the slices."""
    return Evaluation(
        {"name": "n", "weights_sha256": "0" * 64},
        "classification",
        ("LGG", "HGG"),
        "brats2019",
        Settings(),
        graded=tuple(
            GradedCase(f"C{i}", patient, truth, tuple("abc"[: len(rows)]), np.array(rows))
            for i, (patient, truth, rows) in enumerate(predictions)
        ),
    )


def segmented(overlaps: list[tuple[str, Overlap]]) -> Evaluation:
    """Evaluation of a segmenter of one region, ET."""
    return Evaluation(
        {"name": "n", "weights_sha256": "0" * 64}, "segmentation", (), "brats2021", Settings(),
        segmented=tuple(
            SegmentedCase(f"C{n}", patient, {"ET": overlap})
            for n, (patient, overlap) in enumerate(overlaps)
        ),
    )  # fmt: skip


def all_correct(patients: list[str], slices: int = 1) -> Evaluation:
    """Correct predictions for alternating grades."""
    rows = [[[0.9, 0.1]] * slices, [[0.1, 0.9]] * slices]
    return graded([(patient, n % 2, rows[n % 2]) for n, patient in enumerate(patients)])


def wilsons(hits: int, count: int) -> tuple[float, float]:
    found = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def bounds(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def test_scores_per_case_and_per_slice_by_hand() -> None:
    confident, uncertain = [0.1, 0.9], [0.6, 0.4]
    found = graded(
        [
            ("p", 1, [confident, confident, uncertain]),
            ("q", 1, [uncertain, uncertain]),
            ("r", 0, [[0.8, 0.2]]),
            ("s", 0, [[0.7, 0.3], [0.7, 0.3]]),
        ]
    )
    per_case, per_slice = grading_scores(found)
    assert per_case.confusion.tolist() == [[2, 0], [1, 1]]
    assert per_case.accuracy.value == 0.75
    assert (per_case.accuracy.low, per_case.accuracy.high) == wilson_interval(3, 4)
    assert per_case.sensitivity["HGG"].value == 0.5
    assert (per_case.sensitivity["HGG"].low, per_case.sensitivity["HGG"].high) == wilson_interval(
        1, 2
    )
    assert per_case.specificity["HGG"].value == 1
    assert per_case.roc_auc["HGG"].value == per_case.roc_auc["LGG"].value == 1
    assert per_slice.confusion.tolist() == [[3, 0], [3, 2]]
    assert per_slice.accuracy.value == pytest.approx(5 / 8)
    assert per_slice.balanced_accuracy.value == pytest.approx((1 + 2 / 5) / 2)
    low, high = wilson_interval(5, 8)
    assert (per_slice.accuracy.low, per_slice.accuracy.high) != (low, high), "per patient"


def test_copies_of_a_case_do_not_narrow_the_interval(tmp_path: Path) -> None:
    """All observations of a patient are resampled together."""
    rows = [("p", 1, [[0.1, 0.9]]), ("q", 0, [[0.2, 0.8]]), ("r", 0, [[0.9, 0.1]])]
    once = grading_scores(graded(rows))[1]
    copied = grading_scores(graded([row for row in rows for _ in range(4)]))[1]
    assert copied.accuracy == once.accuracy
    assert copied.roc_auc["HGG"] == once.roc_auc["HGG"]


def test_probabilities_that_are_not_finite_raise_an_error() -> None:
    nothing = [[math.nan, math.nan]]
    with pytest.raises(ModelError, match="NaN"):
        grading_scores(graded([("p", 1, nothing), ("q", 0, [[0.9, 0.1]])]))


def test_all_correct_predictions_get_wilsons_interval() -> None:
    found = all_correct([f"p{n}" for n in range(10)], slices=8)
    per_case, per_slice = grading_scores(found)
    for page in (per_case, per_slice):
        assert bounds(page.accuracy) == pytest.approx(wilsons(10, 10), abs=1e-6)
        assert bounds(page.sensitivity["HGG"]) == pytest.approx(wilsons(5, 5), abs=1e-6)
        assert bounds(page.specificity["HGG"]) == pytest.approx(wilsons(5, 5), abs=1e-6)
        for estimate in (page.balanced_accuracy, page.roc_auc["HGG"], page.roc_auc["LGG"]):
            assert estimate.value == 1
            assert all(map(math.isnan, bounds(estimate))), "all resamples are equal"
    assert "1.000 (" not in markdown(found)
    # Two visits of one patient count as one patient.
    twice, _ = grading_scores(all_correct([f"p{min(n, 8)}" for n in range(10)]))
    assert bounds(twice.accuracy) == pytest.approx(wilsons(9, 9), abs=1e-6)


def test_balanced_accuracy_needs_all_classes_in_a_resample() -> None:
    """A constant prediction scores one half in every resample."""
    always = [(f"p{n}", int(n > 0), [[0.1, 0.9]]) for n in range(10)]
    balanced = grading_scores(graded(always))[0].balanced_accuracy
    assert balanced.value == 0.5
    assert all(map(math.isnan, bounds(balanced)))
    # One of ten high grades is wrong: a resample scores (1 + its recall of high grades) / 2.
    rows = [(f"p{n}", int(n > 0), [[0.9, 0.1]] if n < 2 else [[0.1, 0.9]]) for n in range(11)]
    balanced = grading_scores(graded(rows))[0].balanced_accuracy
    assert balanced.value == pytest.approx((1 + 9 / 10) / 2)
    assert 0.75 < balanced.low < balanced.value < balanced.high == 1


def test_a_single_class_has_no_balanced_accuracy() -> None:
    only = grading_scores(graded([(f"p{n}", 1, [[0.1, 0.9]]) for n in range(10)]))[0]
    assert only.balanced_accuracy.percent() == only.roc_auc["HGG"].plain() == "not defined"


def test_few_patients_give_a_caution(tmp_path: Path) -> None:
    few, many = all_correct([f"p{n}" for n in range(6)]), all_correct([f"p{n}" for n in range(24)])
    assert cautions(many) == []
    (note,) = cautions(few)
    assert note.startswith("only 6 patients; ")
    assert "too narrow" in note
    assert note[1:] in markdown(few)
    written = {path.name: path for path in write_evaluation(few, tmp_path)}
    assert json.loads(written["evaluation.json"].read_text())["cautions"] == [note]
    mixed = [(f"p{n}", int(n > 2), [[0.4, 0.6]]) for n in range(24)]
    (note,) = cautions(graded(mixed))
    assert note.startswith("LGG: only 3 patients; ")


def test_scores_where_the_region_is_present(tmp_path: Path) -> None:
    """Six empty cases with Dice 1 would raise the mean from 0.25 to 0.7."""
    present = [0.1, 0.2, 0.3, 0.4]
    found = segmented(
        [(f"p{n}", Overlap(value, 10.0 + n, 1.0, 2.0)) for n, value in enumerate(present)]
        + [(f"q{n}", Overlap(1.0, 0.0, 0.0, 0.0)) for n in range(6)]
    )
    scores = segmentation_scores(found)["ET"]
    assert scores["dice"].value == pytest.approx(0.7)
    assert scores["dice_where_present"].value == pytest.approx(0.25)
    assert 0.1 <= scores["dice_where_present"].low < 0.25 < scores["dice_where_present"].high
    assert scores["hausdorff95_where_present_mm"].value == pytest.approx(11.5)
    page = markdown(found)
    assert "| ET | 4 of 10 | 25.0 (" in page
    assert "empty in both truth and prediction scores Dice 1" in page
    (note,) = cautions(found)
    assert note.startswith("ET: only 4 patients; ")
    written = {path.name: path for path in write_evaluation(found, tmp_path)}
    summary = json.loads(written["evaluation.json"].read_text())["regions"]["ET"]
    assert summary["cases_with_region"] == 4
    assert summary["dice_where_present"]["value"] == pytest.approx(0.25)
    table = list(csv.DictReader(written["tables.csv"].read_text().splitlines()))
    values = {row["measure"]: row["value"] for row in table}
    assert values["cases_with_region"] == "4"
    assert float(values["dice_where_present"]) == pytest.approx(0.25)


def test_a_region_without_cases_is_not_defined() -> None:
    found = segmented([(f"p{n}", Overlap(1.0, 0.0, 0.0, 0.0)) for n in range(12)])
    assert segmentation_scores(found)["ET"]["dice_where_present"].percent() == "not defined"
    assert "| ET | 0 of 12 | not defined |" in markdown(found)


def test_a_page_of_grades_has_the_papers_table() -> None:
    page = markdown(graded([("p", 1, [[0.1, 0.9]]), ("q", 0, [[0.2, 0.8]])]))
    assert "not measured" not in page
    assert "98.62" in page


def test_files_of_a_classifier(tmp_path: Path) -> None:
    found = graded([("p", 1, [[0.1, 0.9]] * 2), ("q", 0, [[0.2, 0.8]]), ("r", 0, [[0.9, 0.1]])])
    written = {path.name: path for path in write_evaluation(found, tmp_path)}
    assert set(written) == {
        "cases.csv", "slices.csv", "tables.csv", "evaluation.json", "evaluation.md",
        "evaluation_per-case.png", "evaluation_per-slice.png",
    }  # fmt: skip
    summary = json.loads(written["evaluation.json"].read_text())
    assert summary["per"]["case"]["confusion"] == [[1, 1], [0, 1]]
    assert summary["per"]["slice"]["count"] == 4
    rows = list(csv.DictReader(written["slices.csv"].read_text().splitlines()))
    assert [row["slice"] for row in rows] == ["a", "b", "a", "a"]


def test_files_are_written_to_open_results(tmp_path: Path) -> None:
    """The command opens the results first, so an unwritable folder fails before the evaluation."""
    found = all_correct(["p", "q", "r"])
    with Results(tmp_path / "out") as results:
        write_evaluation(found, results)
        assert not (tmp_path / "out").exists(), "moved to their folder at the end"
    alone = write_evaluation(found, tmp_path / "alone")
    assert [path.name for path in results.written] == [path.name for path in alone]
    assert all(path.parent == tmp_path / "out" and path.is_file() for path in results.written)
