"""ROC curves, confusion matrices and calibration against scikit-learn and hand counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroxai.accuracy.classification import (
    calibration,
    confusion_matrix,
    one_vs_rest,
    roc_auc,
    roc_curve,
    weighted_roc_auc,
)
from neuroxai.core.errors import ModelError

metrics = pytest.importorskip("sklearn.metrics")


@settings(deadline=None, max_examples=60)
@given(count=st.integers(2, 80), levels=st.integers(2, 30), seed=st.integers(0, 10_000))
def test_roc_curves_and_areas_equal_scikit_learns(count: int, levels: int, seed: int) -> None:
    """With ties, and with sample weights."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.4
    score = rng.integers(0, levels, count) / levels
    if positive.all() or not positive.any():
        assert math.isnan(roc_auc(positive, score))
        return
    expected = metrics.roc_auc_score(positive, score)
    assert roc_auc(positive, score) == pytest.approx(expected, abs=1e-12)
    weights = rng.integers(0, 4, (3, count)).astype(float)
    for row, area in zip(weights, weighted_roc_auc(positive, score, weights), strict=True):
        if row[positive].sum() and row[~positive].sum():
            theirs = metrics.roc_auc_score(positive, score, sample_weight=row)
            assert area == pytest.approx(theirs, abs=1e-12)
        else:
            assert math.isnan(area)
    false_positive, true_positive = roc_curve(positive, score)
    theirs = metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false_positive, theirs[0])
    np.testing.assert_allclose(true_positive, theirs[1])
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(expected)


def test_confusion_counts_equal_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    matrix = confusion_matrix(truth, predicted, 4)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(truth, predicted))
    for index in range(4):
        counts = one_vs_rest(matrix, index)
        real, called = truth == index, predicted == index
        assert counts.sensitivity == pytest.approx((called & real).sum() / real.sum())
        assert counts.specificity == pytest.approx((~called & ~real).sum() / (~real).sum())


def test_an_absent_class_has_no_sensitivity() -> None:
    counts = one_vs_rest(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 3), 2)
    assert math.isnan(counts.sensitivity)
    assert counts.specificity == 1


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.45, 0.55], [0.3, 0.7]])
    truth = np.array([0, 1, 1, 0])
    found = calibration(truth, probabilities)
    assert found.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 2]
    assert found.confidence[9] == pytest.approx(0.935)
    assert found.accuracy[9] == 0.5
    expected = (2 * (0.935 - 0.5) + (1 - 0.55) + 0.7) / 4
    assert found.error == pytest.approx(expected)
    brier = metrics.brier_score_loss(truth, probabilities[:, 1])
    assert found.brier == pytest.approx(2 * brier), "summed over both classes"


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 200_000)
    truth = (rng.random(200_000) > p).astype(int)
    calibrated = calibration(truth, np.stack([p, 1 - p], axis=1))
    overconfident = calibration(truth, np.stack([0.5 + p / 2, 0.5 - p / 2], axis=1))
    assert calibrated.error < 0.01
    assert overconfident.error > 0.1


def test_predictions_that_are_not_finite_raise_an_error() -> None:
    probabilities = np.array([[0.2, 0.8], [math.nan, math.nan], [0.6, 0.4]])
    truth = np.array([1, 0, 0])
    with pytest.raises(ModelError, match=r"1 of 3 predictions is NaN or infinite"):
        calibration(truth, probabilities)
    with pytest.raises(ModelError, match=r"1 of 3 predictions is NaN or infinite"):
        roc_auc(truth == 1, probabilities[:, 1])
    with pytest.raises(ModelError, match=r"2 of 2 predictions are NaN or infinite"):
        roc_curve(np.array([True, False]), np.array([math.inf, math.nan]))
