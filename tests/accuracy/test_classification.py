"""Ranking, tables and calibration against scikit-learn and hand counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from neuroxai.accuracy.classification import (
    area_under_curve,
    calibration,
    confusion,
    one_against_rest,
    roc_curve,
)
from neuroxai.accuracy.interval import bootstrap_interval, proportion_interval
from neuroxai.core.errors import ModelError

Indices = NDArray[np.int_]
metrics = pytest.importorskip("sklearn.metrics")


@settings(deadline=None, max_examples=60)
@given(count=st.integers(2, 80), levels=st.integers(2, 30), seed=st.integers(0, 10_000))
def test_areas_and_curves_are_scikit_learns(count: int, levels: int, seed: int) -> None:
    """With ties, which is where own formulas go wrong."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.4
    score = rng.integers(0, levels, count) / levels
    if positive.all() or not positive.any():
        assert math.isnan(area_under_curve(positive, score))
        return
    expected = metrics.roc_auc_score(positive, score)
    assert area_under_curve(positive, score) == pytest.approx(expected, abs=1e-12)
    false_positive, true_positive = roc_curve(positive, score)
    theirs = metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false_positive, theirs[0])
    np.testing.assert_allclose(true_positive, theirs[1])
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(expected)


def test_tables_are_counted_right() -> None:
    rng = np.random.default_rng(1)
    truth, found = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    table = confusion(truth, found, 4)
    np.testing.assert_array_equal(table, metrics.confusion_matrix(truth, found))
    for index in range(4):
        counts = one_against_rest(table, index)
        is_it, said = truth == index, found == index
        assert counts.sensitivity == pytest.approx((said & is_it).sum() / is_it.sum())
        assert counts.specificity == pytest.approx((~said & ~is_it).sum() / (~is_it).sum())


def test_a_class_that_is_not_there_has_no_sensitivity() -> None:
    counts = one_against_rest(confusion(np.array([0, 0]), np.array([0, 1]), 3), 2)
    assert math.isnan(counts.sensitivity)
    assert counts.specificity == 1


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.45, 0.55], [0.3, 0.7]])
    truth = np.array([0, 1, 1, 0])
    found = calibration(truth, probabilities)
    assert found.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 2]
    assert found.sure[9] == pytest.approx(0.935)
    assert found.right[9] == 0.5
    expected = (2 * (0.935 - 0.5) + (1 - 0.55) + 0.7) / 4
    assert found.error == pytest.approx(expected)
    brier = metrics.brier_score_loss(truth, probabilities[:, 1])
    assert found.brier == pytest.approx(2 * brier), "both classes are summed"


def test_one_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.5, 1, 200_000)
    truth = (rng.random(200_000) > chance).astype(int)
    honest = calibration(truth, np.stack([chance, 1 - chance], axis=1))
    boasting = calibration(truth, np.stack([0.5 + chance / 2, 0.5 - chance / 2], axis=1))
    assert honest.error < 0.01
    assert boasting.error > 0.1


def test_a_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        values = rng.normal(0.5, 0.2, 30)

        def mean(drawn: Indices, values: NDArray[np.float64] = values) -> float:
            return float(values[drawn].mean())

        low, high = bootstrap_interval(mean, 30, seed=trial, resamples=400)
        hits += low < 0.5 < high
    assert 0.88 <= hits / 200 <= 0.98


def test_intervals_of_nothing_are_not_numbers() -> None:
    assert all(map(math.isnan, bootstrap_interval(lambda drawn: 1.0, 1)))
    assert all(map(math.isnan, bootstrap_interval(lambda drawn: math.nan, 5, resamples=20)))


def test_a_proportion_of_slices_is_as_sure_as_its_patients_are_many() -> None:
    """Slices of a patient that are all alike are no news: their draws are those of a binomial."""
    hits = np.array([6] * 9 + [0] * 3)
    low, high = proportion_interval(hits, np.full(12, 6))
    expected = stats.binom.ppf([0.025, 0.975], 12, 9 / 12) / 12
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-9)


def test_a_proportion_covers_the_truth_when_slices_of_a_patient_are_alike() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        shares = rng.beta(0.8 * 0.4, 0.2 * 0.4, size=40)
        low, high = proportion_interval(rng.binomial(8, shares), np.full(40, 8), resamples=200)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("hits", "counts", "patients"),
    [
        ([8] * 10, [8] * 10, 10),
        ([0] * 9, [2] + [1] * 8, 9),
        ([1, 1, 0], [1, 1, 0], 2),
        ([3], [3], 1),
    ],
)
def test_where_all_patients_agree_a_proportion_is_as_sure_as_wilson_says_of_them(
    hits: list[int], counts: list[int], patients: int
) -> None:
    low, high = proportion_interval(np.array(hits), np.array(counts))
    right = patients if hits[0] else 0
    theirs = stats.binomtest(right, patients).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_proportion_of_nothing_has_no_interval() -> None:
    assert all(map(math.isnan, proportion_interval(np.zeros(3, int), np.zeros(3, int))))


def test_answers_that_are_no_numbers_are_refused_in_words() -> None:
    probabilities = np.array([[0.2, 0.8], [math.nan, math.nan], [0.6, 0.4]])
    truth = np.array([1, 0, 0])
    with pytest.raises(ModelError, match=r"1 of 3 answers is NaN or infinite"):
        calibration(truth, probabilities)
    with pytest.raises(ModelError, match=r"1 of 3 answers is NaN or infinite"):
        area_under_curve(truth == 1, probabilities[:, 1])
    with pytest.raises(ModelError, match=r"2 of 2 answers are NaN or infinite"):
        roc_curve(np.array([True, False]), np.array([math.inf, math.nan]))
