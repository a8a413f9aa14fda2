"""Confidence intervals against SciPy, a plain loop over resamples, closed forms and coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from neuroxai.accuracy.classification import roc_auc, weighted_roc_auc
from neuroxai.accuracy.interval import (
    Statistic,
    bootstrap_interval,
    has_width,
    proportion_interval,
    wilson_interval,
)
from neuroxai.reports.evaluation_scores import _balanced_accuracy, _mean, _median

Array = NDArray[np.float64]
Indices = NDArray[np.int_]


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (29, 30), (57, 60)])
def test_wilson_bounds_solve_the_score_equation(successes: int, trials: int) -> None:
    """At each bound p, the observed proportion is z standard errors of p away (Wilson 1927)."""
    z = stats.norm.ppf(0.975)
    for bound in wilson_interval(successes, trials):
        difference = abs(successes / trials - bound)
        standard_error = math.sqrt(bound * (1 - bound) / trials)
        assert difference == pytest.approx(z * standard_error, abs=1e-9)


def test_wilson_without_trials() -> None:
    assert wilson_interval(0, 0) == (0, 1)


def loop(
    statistic: Callable[[Indices], float], patients: Indices, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap as a loop: rows of drawn patients are concatenated."""
    rows = [np.flatnonzero(patients == patient) for patient in range(patients.max() + 1)]
    generator = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(len(rows), size=len(rows))
        value = statistic(np.concatenate([rows[patient] for patient in drawn]))
        if not math.isnan(value):
            values.append(value)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _mean_recall(truth: Indices, predicted: Indices) -> float:
    if len(np.unique(truth)) < 3:
        return math.nan
    return float(np.mean([(predicted[truth == k] == k).mean() for k in np.unique(truth)]))


RNG = np.random.default_rng(11)
PATIENTS = np.repeat(np.arange(13), RNG.integers(1, 6, 13))
RNG.shuffle(PATIENTS)
VALUES = RNG.normal(5, 2, len(PATIENTS))
SCORES = RNG.integers(0, 6, len(PATIENTS)) / 6  # with ties
POSITIVE = RNG.random(len(PATIENTS)) < 0.3
TRUTH = RNG.integers(0, 3, len(PATIENTS))
PREDICTED = np.where(RNG.random(len(PATIENTS)) < 0.6, TRUTH, RNG.integers(0, 3, len(PATIENTS)))

STATISTICS: dict[str, tuple[Statistic, Callable[[Indices], float]]] = {
    "mean": (_mean(VALUES), lambda rows: float(VALUES[rows].mean())),
    "median": (_median(VALUES), lambda rows: float(np.median(VALUES[rows]))),
    "area under the curve": (
        lambda weights: weighted_roc_auc(POSITIVE, SCORES, weights),
        lambda rows: roc_auc(POSITIVE[rows], SCORES[rows]),
    ),
    "balanced accuracy": (
        _balanced_accuracy(TRUTH, PREDICTED == TRUTH),
        lambda rows: _mean_recall(TRUTH[rows], PREDICTED[rows]),
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_vectorized_bootstrap_equals_a_loop_over_resamples(name: str) -> None:
    """The same seed draws the same patients, so the bounds agree to rounding."""
    vectorized, plain = STATISTICS[name]
    assert bootstrap_interval(vectorized, PATIENTS) == pytest.approx(
        loop(plain, PATIENTS), abs=1e-12
    )
    one_each = np.arange(len(PATIENTS))
    assert bootstrap_interval(vectorized, one_each, resamples=300) == pytest.approx(
        loop(plain, one_each, 300), abs=1e-12
    )


def test_proportion_interval_equals_a_loop_over_resamples() -> None:
    hits, counts = np.array([3, 0, 5, 2, 1, 4]), np.array([4, 2, 5, 6, 1, 4])

    def proportion(drawn: Indices) -> float:
        return float(hits[drawn].sum() / counts[drawn].sum())

    expected = loop(proportion, np.arange(6))
    assert proportion_interval(hits, counts) == pytest.approx(expected, abs=1e-12)


def test_batches_of_resamples_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic, _ = STATISTICS["median"]
    expected = bootstrap_interval(statistic, PATIENTS)
    monkeypatch.setattr("neuroxai.accuracy.interval._AT_ONCE", 7 * len(PATIENTS))
    assert bootstrap_interval(statistic, PATIENTS) == expected


def test_bootstrap_covers_the_mean_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        statistic = _mean(rng.normal(0.5, 0.2, 30))
        low, high = bootstrap_interval(statistic, np.arange(30), seed=trial, resamples=400)
        covered += low < 0.5 < high
    assert 0.88 <= covered / 200 <= 0.98


def test_bootstrap_is_undefined_with_one_patient_or_without_defined_resamples() -> None:
    def constant(value: float) -> Statistic:
        return lambda weights: np.full(len(weights), value)

    one_patient = np.zeros(3, int)
    assert all(map(math.isnan, bootstrap_interval(constant(1.0), one_patient)))
    assert all(map(math.isnan, bootstrap_interval(constant(math.nan), np.arange(5), resamples=20)))


def test_resamples_that_are_undefined_are_left_out() -> None:
    """A class with one patient is absent from a third of the resamples."""
    truth, values = np.array([0, 1, 1, 1, 1]), np.array([0.2, 0.4, 0.5, 0.7, 0.8])

    def difference(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            means = [weights @ (values * (truth == k)) / (weights @ (truth == k)) for k in (0, 1)]
        return np.asarray(means[1] - means[0])

    low, high = bootstrap_interval(difference, np.arange(5))
    assert 0.2 <= low < high <= 0.6


def test_slices_of_a_patient_that_agree_add_no_certainty() -> None:
    """The resampled proportions then follow a binomial distribution over patients."""
    hits = np.array([6] * 9 + [0] * 3)
    low, high = proportion_interval(hits, np.full(12, 6))
    expected = stats.binom.ppf([0.025, 0.975], 12, 9 / 12) / 12
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-9)


def test_proportion_interval_covers_the_truth_with_correlated_slices() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        rates = rng.beta(0.8 * 0.4, 0.2 * 0.4, size=40)
        low, high = proportion_interval(rng.binomial(8, rates), np.full(40, 8), resamples=200)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


def wilsons(successes: int, trials: int) -> tuple[float, float]:
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


@pytest.mark.parametrize(
    ("hits", "counts", "patients"),
    [
        ([8] * 10, [8] * 10, 10),
        ([0] * 9, [2] + [1] * 8, 9),
        ([1, 1, 0], [1, 1, 0], 2),
        ([3], [3], 1),
    ],
)
def test_a_constant_proportion_gets_wilsons_interval_over_patients(
    hits: list[int], counts: list[int], patients: int
) -> None:
    successes = patients if hits[0] else 0
    found = proportion_interval(np.array(hits), np.array(counts))
    assert found == pytest.approx(wilsons(successes, patients), abs=1e-9)


def test_a_constant_proportion_that_is_no_whole_number_of_patients_is_rounded_outward() -> None:
    low, high = proportion_interval(np.array([4, 4, 4]), np.array([8, 8, 8]))
    assert (low, high) == pytest.approx((wilsons(1, 3)[0], wilsons(2, 3)[1]))
    # Wilson's interval at 1.5 of 3, from its closed form.
    z2 = stats.norm.ppf(0.975) ** 2
    half = math.sqrt(z2 * (0.25 / 3 + z2 / 36)) / (1 + z2 / 3)
    assert low < 0.5 - half < 0.5 + half < high
    assert proportion_interval(np.array([3]), np.array([8])) == pytest.approx(
        (wilsons(0, 1)[0], wilsons(1, 1)[1])
    )


def test_a_proportion_without_observations_has_no_interval() -> None:
    found = proportion_interval(np.zeros(3, int), np.zeros(3, int))
    assert not has_width(*found)
    assert all(map(math.isnan, found))
